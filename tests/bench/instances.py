"""Rows about many instances of one step: what each costs in time and memory, and whether a bad one hurts the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from . import floors
from .arena import Arena, middle, repeat
from .rows import Row, no_sockets


def _fan(count: int, options: str) -> str:
    return f"id: each, foreach: [{','.join(map(str, range(count)))}], {options}"


def instances(arena: Arena, quick: bool) -> Row:
    """10,000 instances of /bin/true, 8 at a time, against make."""
    count, times = (100, 1) if quick else (10_000, 3)
    step = _fan(count, "run: /bin/true")
    job = arena.job([step], "max_parallel: 8\n")
    pairs = [(arena.seconds(arena.agentrun("run", job)), floors.make(arena, count, 8)) for _ in range(times)]
    ours, make = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    floor = ("make -j8", middle(make))
    return Row(f"{count:,} instances of /bin/true, 8 at a time", ours, 1.5 * middle(make), (floor,))


def instance_memory(arena: Arena, quick: bool) -> Row:
    """How much more memory the supervisor takes for each instance of a list that an earlier step wrote."""
    few, many = (10, 200) if quick else (100, 10_000)

    def peak(count: int) -> float:
        items = f"id: items, python: \"def main(): return {{'all': list(range({count}))}}\""
        job = arena.job([items, "id: each, foreach: '${{ steps.items.outputs.all }}', run: /bin/true"])
        return _peak_of(arena, arena.agentrun("run", job))

    small = peak(few)
    results = repeat(1 if quick else 2, lambda: max(peak(many) - small, 0.0) / (many - few))
    return Row(f"supervisor's memory for each of {many:,} instances", results, 2.0, unit="KiB")


def _peak_of(arena: Arena, argv: list[str]) -> float:
    """The largest resident size of a command itself, in KiB: not that of what it waits for."""
    process = arena.start(argv)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _high_water(process.pid))
        time.sleep(0.005)
    process.communicate()
    return float(peak)


def _high_water(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def resume_instances(arena: Arena, quick: bool) -> Row:
    """From the command `resume` of a run with 10,000 done instances to the start of its first step."""
    count, times = (50, 1) if quick else (10_000, 9)
    flag = arena.path / "flag"
    step = _fan(count + 1, f"env: {{N: '${{{{ item }}}}'}}, run: 'test $N != {count} -o -e {flag}'")
    job = arena.job([step], "max_parallel: 8\n")
    arena.seconds(arena.agentrun("run", job), status=1)
    (run_id,) = arena.one("SELECT id FROM runs")
    kept = arena.path / "kept"
    shutil.copytree(arena.home, kept, ignore=no_sockets)
    flag.touch()

    def once() -> float:
        shutil.rmtree(arena.home)
        shutil.copytree(kept, arena.home, ignore=no_sockets)
        began = time.time()
        arena.seconds(arena.agentrun("resume", str(run_id)))
        (started,) = arena.one("SELECT max(started_at) FROM attempts")
        assert isinstance(started, int)
        return started / 1000 - began

    results = repeat(times, once)
    done = arena.one("SELECT outcome, steps_done, (SELECT count(*) FROM attempts) FROM runs")
    assert done == ("succeeded", count + 1, count + 2), done
    return Row(f"resume with {count:,} done instances, to its first step", results, 0.2)


def isolation(arena: Arena, quick: bool) -> Row:
    """500 steps at once; one eats memory, one forks without end, one fills its log: the others succeed."""
    good, seconds = (20, 1) if quick else (497, 20)
    steps = [f"id: good-{n}, run: sleep {seconds}, needs: []" for n in range(good)]
    steps += [
        "id: memory, needs: [], budget: {memory: 64MiB}, run: 'x=xxxxxxxx; while :; do x=$x$x; done'",
        "id: forks, needs: [], budget: {processes: 30}, run: 'while :; do sleep 99 & done'",
        "id: output, needs: [], budget: {output: 1MiB}, run: 'yes'",
    ]
    job = arena.job(steps, f"max_parallel: {good + 3}\n")
    size = _peak_of(arena, arena.agentrun("run", job))
    succeeded = arena.one("SELECT count(*) FROM steps WHERE outcome = 'succeeded'")
    assert succeeded == (good,), succeeded
    for step, reason in (("memory", "oom"), ("forks", "processes"), ("output", "output")):
        found = arena.one(f"SELECT outcome, reason FROM steps WHERE instance = '{step}'")
        assert found == ("over_budget", reason), (step, found)
    (ms,) = arena.one("SELECT max(finished_at - started_at) FROM attempts WHERE outcome = 'over_budget'")
    (held,) = arena.one("SELECT enforced_by FROM runs")
    return Row(
        f"{good + 3} steps at once, three of them bad: supervisor", (size / 1024,), 40.0, unit="MiB",
        note=f"{good} of {good} good ones succeeded; the last bad one ended after {ms} ms; limits by {held}",
    )  # fmt: skip


ROWS: dict[str, Callable[[Arena, bool], Row]] = {
    row.__name__.replace("_", "-"): row for row in (instances, instance_memory, resume_instances, isolation)
}
