"""The rows of the table "What it must cost" of the design: what is done, its floors, and the goal.

Each row measures its floors and agentrun in turns, so that both see the same machine. `quick` makes everything
small: it shows that a row works, and its ratios say little.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import floors
from .arena import Arena, middle, read_line, repeat, wait_until, write_line


@dataclass(frozen=True)
class Row:
    """A line of the table. `unit`: s or MiB; `floors`: (name, value); the middle of `results` is compared."""

    work: str
    results: tuple[float, ...]
    goal: float
    floors: tuple[tuple[str, float], ...] = ()
    unit: str = "s"
    note: str = ""

    @property
    def measured(self) -> float:
        return middle(self.results)

    @property
    def ratio(self) -> float:
        """Of the goal; 1 or less is reached."""
        return self.measured / self.goal

    @property
    def best(self) -> float:
        """The same of the quickest (or smallest) result: what a loaded machine hides."""
        return self.results[0] / self.goal


def trivial(arena: Arena, quick: bool) -> Row:
    """One trivial step, the whole command."""
    job = arena.job(["id: only, run: 'true'"])
    command = arena.agentrun("run", job)
    arena.seconds(command)
    times = 3 if quick else 21
    pairs = [(arena.seconds(command), floors.durable_loop(arena, 1), floors.bare(arena)) for _ in range(times)]
    ours, minimal, bare = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(
        "one trivial step, whole command", ours, 0.090,
        (("bare interpreter", middle(bare)), ("minimal durable Python", middle(minimal))),
    )  # fmt: skip


def sequential(arena: Arena, quick: bool) -> Row:
    """1,000 steps, one after the other."""
    count, times = (50, 1) if quick else (1_000, 5)
    job = arena.job(["run: 'true'"] * count)
    pairs = [
        (arena.seconds(arena.agentrun("run", job)), floors.sh_loop(arena, count), floors.durable_loop(arena, count))
        for _ in range(times)
    ]
    ours, script, minimal = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(
        f"{count:,} sequential steps `run: 'true'`", ours, 2.4 * count / 1_000,
        (("sh script, not durable", middle(script)), ("minimal durable Python", middle(minimal))),
    )  # fmt: skip


def parallel(arena: Arena, quick: bool) -> Row:
    """10,000 × /bin/true, 8 at a time, against make."""
    count, times = (100, 1) if quick else (10_000, 3)
    job = arena.job(["run: /bin/true, needs: []"] * count, "max_parallel: 8\n")
    pairs = [
        (arena.seconds(arena.agentrun("run", job)), floors.make(arena, count, 8), floors.durable_pool(arena, count, 8))
        for _ in range(times)
    ]
    ours, make, minimal = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(
        f"{count:,} x /bin/true, 8 at a time", ours, 1.5 * middle(make),
        (("make -j8", middle(make)), ("minimal durable Python", middle(minimal))),
    )  # fmt: skip


def at_once(arena: Arena, quick: bool) -> Row:
    """500 steps at once, each `sleep 2`."""
    count, seconds, times = (20, 0.2, 1) if quick else (500, 2, 3)
    job = arena.job([f"run: sleep {seconds}, needs: []"] * count, f"max_parallel: {count}\n")
    pairs = [
        (arena.seconds(arena.agentrun("run", job)), floors.sleepers(arena, count, seconds)) for _ in range(times)
    ]
    ours, script = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(
        f"{count} steps at once, each `sleep {seconds}`", ours, seconds + 0.7, (("sh with &", middle(script)),)
    )


def resume(arena: Arena, quick: bool) -> Row:
    """Resume of a run with 10,000 done steps whose last one had failed."""
    count, times = (50, 1) if quick else (10_000, 9)
    flag = arena.path / "flag"
    steps = [*["run: /bin/true, needs: []"] * count, f"id: last, run: 'test -e {flag}'"]
    job = arena.job(steps, "max_parallel: 8\n")
    arena.seconds(arena.agentrun("run", job), status=1)
    (run_id,) = arena.one("SELECT id FROM runs")
    kept = arena.path / "kept"
    shutil.copytree(arena.home, kept, ignore=no_sockets)
    flag.touch()

    def once() -> float:
        shutil.rmtree(arena.home)
        shutil.copytree(kept, arena.home, ignore=no_sockets)
        return arena.seconds(arena.agentrun("resume", str(run_id)))

    results = repeat(times, once)
    done = arena.one("SELECT outcome, steps_done, (SELECT count(*) FROM attempts) FROM runs")
    assert done == ("succeeded", count + 1, count + 2), done
    floor = repeat(times, lambda: arena.python(floors.READ_STEPS, f"{arena.home}/agentrun.db"))
    return Row(f"resume of a run with {count:,} done steps", results, 0.120, (("read the rows", middle(floor)),))


def no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (os.path.isdir(p := f"{folder}/{name}") or os.path.isfile(p))]


def status(arena: Arena, quick: bool) -> Row:
    """`status` with 1,000,000 step rows."""
    runs, steps, times = (10, 100, 3) if quick else (1_000, 1_000, 15)
    arena.seconds(arena.agentrun("run", arena.job(["run: 'true'"])))
    fill(arena, runs, steps)
    command = arena.agentrun("status")
    pairs = [
        (arena.seconds(command), arena.python(floors.READ_RUNS, f"{arena.home}/agentrun.db")) for _ in range(times)
    ]
    ours, floor = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(f"`status` with {runs * steps:,} step rows", ours, 0.120, (("read the runs", middle(floor)),))


def fill(arena: Arena, runs: int, steps: int) -> None:
    """Add so many runs of so many steps to the record, of twenty jobs, finished long ago."""
    import sqlite3

    db = sqlite3.connect(f"{arena.home}/agentrun.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.execute(
        "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?1)"
        " INSERT INTO runs (id, job, file, snapshot, params, state, outcome, created_at, started_at, finished_at,"
        " epoch, steps_total, steps_done) SELECT printf('0%09d', n), 'job' || n % 20, '/jobs/old.yaml', snapshot, '{}',"
        " 'finished', 'succeeded', 1000 * n, 1000 * n, 1000 * n + 500, 1, ?2, ?2 FROM n, runs",
        (runs, steps),
    )
    db.execute(
        "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?)"
        " INSERT INTO steps (run_id, instance, position, state, outcome, attempt, idempotency_key, inputs, exit_code,"
        " started_at, finished_at) SELECT runs.id, 'step-' || n, n, 'finished', 'succeeded', 1,"
        " '0123456789abcdef0123456789abcdef', '{}', 0, 1, 2 FROM runs, n WHERE runs.id < '1'",
        (steps,),
    )
    db.execute("COMMIT")
    db.close()


def output(arena: Arena, quick: bool) -> Row:
    """A step that prints 1 GiB."""
    size, times = (16 << 20, 1) if quick else (1 << 30, 5)
    command = f"head -c {size} /dev/zero"
    job = arena.job([f"run: {command}"])

    def once() -> float:
        os.sync()
        took = arena.seconds(arena.agentrun("run", job))
        (run_id,) = arena.one("SELECT id FROM runs ORDER BY id DESC LIMIT 1")
        log = next((arena.home / "runs" / str(run_id) / "log").glob("*#1.log"))
        assert log.stat().st_size == size, log.stat().st_size
        log.unlink()
        return took

    def floor(measure: Callable[[Arena, str], float]) -> float:
        os.sync()
        return measure(arena, command)

    pairs = [(once(), floor(floors.through_cat), floor(floors.redirected)) for _ in range(times)]
    ours, cat, redirect = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    return Row(
        f"a step that prints {size >> 20:,} MiB", ours, 1.3 * middle(cat),
        (("| cat > file", middle(cat)), ("> file", middle(redirect))),
    )  # fmt: skip


def memory(arena: Arena, quick: bool) -> Row:
    """Private memory of supervisor and shim while a step sleeps."""
    job = arena.job(["id: only, run: 'echo $PPID > up; read x < go'"], head="concurrency: allow\n")
    parts: list[tuple[float, float]] = []

    def once() -> float:
        up, go = arena.fifo("up"), arena.fifo("go")
        supervisor = arena.start(arena.agentrun("run", job))
        shim = int(read_line(up))
        parts.append((floors.private_memory(supervisor.pid), floors.private_memory(shim)))
        write_line(go)
        _end(supervisor)
        return sum(parts[-1])

    results = repeat(1 if quick else 5, once)
    bare = repeat(1 if quick else 5, lambda: 2 * floors.bare_memory(arena))
    supervisor, shim = (middle(column) for column in zip(*parts, strict=True))
    return Row(
        "supervisor and shim, private memory", results, 16.0, (("two bare interpreters", middle(bare)),), "MiB",
        f"supervisor {supervisor:.1f}, shim {shim:.1f}",
    )  # fmt: skip


def kill(arena: Arena, quick: bool) -> Row:
    """kill -9 of the supervisor until the run goes on: a new owner is recorded, and starts the next step."""
    job = arena.job(["id: held, run: 'echo up > up; read x < go'", "id: next, run: 'true'"])
    parts: list[tuple[float, float]] = []

    def once() -> float:
        up, go = arena.fifo("up"), arena.fifo("go")
        supervisor = arena.start(arena.agentrun("run", job))
        read_line(up)
        newest = "FROM runs ORDER BY id DESC LIMIT 1"
        killed = time.perf_counter()
        os.kill(supervisor.pid, signal.SIGKILL)
        owned = wait_until(lambda: arena.one(f"SELECT epoch {newest}") == (2,), "a new owner")
        released = time.time()
        write_line(go)
        wait_until(lambda: arena.one(f"SELECT state {newest}") == ("finished",), "the end of the run")
        (run_id, outcome, attempts) = arena.one(
            f"SELECT id, outcome, (SELECT count(*) FROM attempts WHERE run_id = runs.id) {newest}"
        )
        assert (outcome, attempts) == ("succeeded", 2), (outcome, attempts)
        (begun,) = arena.one(f"SELECT started_at FROM attempts WHERE run_id = '{run_id}' AND instance = 'next'")
        supervisor.communicate()
        assert isinstance(begun, int)
        parts.append((owned - killed, max(begun / 1000 - released, 0.0)))
        return sum(parts[-1])

    results = repeat(1 if quick else 11, once)
    owner, following = (middle(column) for column in zip(*parts, strict=True))
    bare = repeat(3, lambda: floors.bare(arena))
    return Row(
        "kill -9 of the supervisor until the run goes on", results, 0.3, (("bare interpreter", middle(bare)),),
        note=f"new owner {owner * 1000:.0f} ms, end of a step to the next {following * 1000:.0f} ms",
    )  # fmt: skip


def fleet(arena: Arena, quick: bool) -> Row:
    """500 runs at once, each with one step that waits until all are there: no SQLITE_BUSY, memory of all of them."""
    count = 10 if quick else 500
    up, go = arena.fifo("up"), arena.fifo("go")
    job = arena.job(["id: only, run: 'echo $PPID > up; read x < go'"], head="concurrency: allow\n")
    hold = os.open(go, os.O_RDWR)
    began = time.perf_counter()
    with open(os.open(up, os.O_RDWR)) as file:  # for writing too: no end of file between two runs
        runs = [arena.start(arena.agentrun("run", job)) for _ in range(count)]
        shims = [int(file.readline()) for _ in range(count)]
    took = time.perf_counter() - began
    try:
        used = sum(floors.private_memory(pid) for pid in [*shims, *(run.pid for run in runs)]) / 1024
    finally:
        for _ in runs:  # `read` of a shell takes one line of a FIFO, byte by byte
            os.write(hold, b"go\n")
    waited = 0
    for run in runs:
        _, error = run.communicate()
        # who waits for the lock longer than 5 s says so; SQLITE_BUSY would be another sentence and another status
        lines = error.decode().splitlines()
        assert run.returncode == 0 and all("waiting for the write lock" in line for line in lines), lines
        waited += len(lines)
    os.close(hold)
    assert arena.one("SELECT count(*) FROM runs WHERE outcome = 'succeeded'") == (count,)
    note = f"all of them up after {took:.0f} s; {waited} waited for the write lock longer than 5 s"
    return Row(f"{count} runs at once, private memory", (used,), 9.0 * count / 500, unit="GiB", note=note)


def replay(arena: Arena, quick: bool) -> Row:
    """10,000 calls of a `@step` that an earlier attempt had done, the reading of the journal included."""
    count, times = (100, 1) if quick else (10_000, 9)
    script = arena.file("calls.py", floors.CALLS)
    _script(arena, script, 1, count)
    results = tuple(sorted(_script(arena, script, attempt, count)[1] for attempt in range(2, times + 2)))
    floor = repeat(times, lambda: arena.python(floors.READ_LINES, f"{arena.path}/calls") - floors.bare(arena))
    return Row(f"{count:,} replayed @step calls", results, 0.2, (("read the lines as JSON", middle(floor)),))


def new_call(arena: Arena, quick: bool) -> Row:
    """A new call of a `@step`, against one write and one fdatasync; and what the import takes."""
    count, times = (10, 1) if quick else (1_000, 5)
    script = arena.file("calls.py", floors.CALLS)
    results, floor, imports = [], [], []
    for attempt in range(1, times + 1):
        (arena.path / "calls").unlink(missing_ok=True)
        imported, took = _script(arena, script, attempt, count)
        results.append(took / count * 1_000)
        imports.append(imported * 1_000)
        floor.append(floors.synced_appends(arena, count) / count * 1_000)
    return Row(
        "a new @step call", tuple(sorted(results)), 2 * middle(floor), (("write and fdatasync", middle(floor)),), "ms",
        note=f"import of agentrun.durable {middle(imports):.1f} ms (goal 5 ms)",
    )  # fmt: skip


def _script(arena: Arena, script: str, attempt: int, count: int) -> tuple[float, float]:
    """The seconds that the import took, and those of so many calls."""
    env = dict(arena.env, AGENTRUN_CALLS=f"{arena.path}/calls", AGENTRUN_ATTEMPT=str(attempt))
    done = subprocess.run([sys.executable, script, str(count)], env=env, capture_output=True, text=True, check=True)
    imported, took = map(float, done.stdout.split())
    return imported, took


def _end(process: subprocess.Popen[bytes]) -> None:
    _, error = process.communicate()
    assert (process.returncode, error) == (0, b""), error.decode()


ROWS: dict[str, Callable[[Arena, bool], Row]] = {
    row.__name__.replace("_", "-"): row
    for row in (trivial, sequential, parallel, at_once, resume, status, output, memory, kill, fleet, replay, new_call)
}
