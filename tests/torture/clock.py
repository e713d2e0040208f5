"""Time: the wall clock jumps by an hour, a day, and over the end of 32 bits in 2038, while runs are going on.

The jumps are made by libfaketime, which leaves CLOCK_MONOTONIC and CLOCK_BOOTTIME as they are, as does whoever sets a
machine's clock. A suspended machine is a CLOCK_BOOTTIME that is ahead by hours: in a time namespace of the kernel for
what starts after it. What must hold, measured by the clock of this process:

    timeout, deadline, retry    come when they should: never at once, never hours later, jump or not
    crash + jump + resume       no retry waits for the clock to come back; a deadline goes by the monotonic clock
    the record                  no negative duration: of a run, step, attempt, or between two attempts; without a crash
                                none is longer than it was
    the commands                status and logs show none, and end with 0
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from glob import glob
from typing import NamedTuple

from ..cronlife.moved import clear_away
from . import jobs, oracle
from .place import LIMIT, Gate, Place, Stuck, send, wait_gone
from .tally import Tally, Wanted

WORKERS = 2
SLACK = 8.0  # seconds by which this machine may be late
LONGEST = 2 * 60 * 1000  # ms that anything can have taken
HOUR, DAY = 3600, 86_400
JUMPS = {"an hour on": HOUR, "an hour back": -HOUR, "a day on": DAY, "a day back": -DAY, "to 2038": 0}
END_OF_32_BITS = datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)
NEGATIVE = re.compile(r"(?<![\w.:/-])-\d+(\.\d+)?(ms|s|m|h|d)\b")


class Case(NamedTuple):
    """One run and one jump."""

    kind: str
    jump: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.jump}, seed {self.seed}"


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("clock")
    library = _library()
    if library is None:
        tally.notes.append("skipped: needs libfaketime (package faketime)")
        return tally
    can_suspend = _can_suspend()
    if not can_suspend:
        tally.notes.append("no suspend: needs a time namespace (unshare -T)")
    with ThreadPoolExecutor(WORKERS) as pool:
        for seed in wanted.seeds(wanted.pick(ci=1, normal=1, full=5)):
            cases = _cases(seed, few=wanted.scale == "ci", can_suspend=can_suspend)
            for case, found in zip(cases, pool.map(lambda one: play(one, wanted, library), cases), strict=True):
                tally.add(found, case=str(case))
    return tally


def _cases(seed: int, *, few: bool, can_suspend: bool) -> list[Case]:
    """Each kind with each jump; `few`: with one of them."""
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS if kind != "suspend"]
    cases = [Case(kind, jump, seed) for kind in kinds for jump in (chance.sample(list(JUMPS), 1) if few else JUMPS)]
    return cases + [Case("suspend", "two hours", seed)] * can_suspend


def play(case: Case, wanted: Wanted, library: str) -> list[str]:
    """One case."""
    with Place(wanted.package) as place:
        clear_away()
        clock = place.root / "clock"
        clock.write_text("+0")
        place.env |= {
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }  # fmt: skip
        scene = Scene(place, place.gate("gate"), JUMPS.get(case.jump, 0), random.Random(f"{case}"))
        try:
            found = list(KINDS[case.kind](scene))
            place.wait_quiet()
            crashed = case.kind.startswith("crash") or case.kind == "suspend"
            return [*found, *durations(place, strict=not crashed), *_shown(place), *_truth(place, case.kind)]
        except Stuck as stuck:
            return [str(stuck)]
        finally:
            scene.gate.close()


class Scene:
    """A place with a clock."""

    def __init__(self, place: Place, gate: Gate, jump: int, chance: random.Random) -> None:
        self.place, self.gate, self._jump, self._chance = place, gate, jump, chance
        self._begun = 0.0

    def begin(self, steps: str, head: str = "", *, reach: bool = True) -> subprocess.Popen[bytes]:
        """Start a run and wait until its step stands at the gate; from there on it is measured."""
        text = f"{head}\nsteps:\n{steps}".replace("GATE", json.dumps(self.gate.shell))
        process = self.place.start("run", str(self.place.job("it", text)))
        if reach:
            self.gate.reached()
        self._begun = time.monotonic()
        return process

    def jump(self) -> None:
        """Set the wall clock, at any moment of the next 200 ms."""
        self.pause(self._chance.random() * 0.2)
        by = self._jump or int(END_OF_32_BITS.timestamp() - time.time()) - 1  # its last second
        new = self.place.root / "clock.new"
        new.write_text(f"{by:+d}")
        new.rename(self.place.root / "clock")

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until a command has ended. Raises Stuck."""
        if not wait_gone(process.pid):
            raise Stuck(f"the run did not end in {LIMIT:.0f} s")

    def pause(self, seconds: float) -> None:
        """Let time go by: it is what this family is about."""
        until = time.monotonic() + seconds
        self.place.wait_for(lambda: time.monotonic() >= until)

    def took(self, seconds: float, what: str, least: float = 0.95) -> Iterator[str]:
        """It must have taken so long since `begin`, give or take what the machine needs."""
        passed = time.monotonic() - self._begun
        if not seconds * least <= passed <= seconds + SLACK:
            yield f"{what} came after {passed:.2f} s, not after {seconds} s"

    def outcome(self, wanted: str) -> Iterator[str]:
        """How the run must have ended."""
        for run, outcome, error in self.place.rows("SELECT id, outcome, error FROM runs"):
            if outcome != wanted:
                yield f"run {run} ended as {outcome}, not as {wanted}: {error}"


def _timeout(scene: Scene) -> Iterator[str]:
    """A step that hangs is ended when its timeout is over."""
    process = scene.begin("- {id: a, run: $STEP, timeout: 1500ms, grace: 500ms, env: {WORK: GATE}}")
    scene.jump()
    scene.wait(process)
    yield from scene.took(1.5, "the timeout")
    yield from scene.outcome("failed")
    if scene.place.rows("SELECT outcome FROM attempts") != [("timed_out",)]:
        yield "the attempt did not time out"


def _patience(scene: Scene) -> Iterator[str]:
    """Nothing is ended early: neither by a timeout nor by a deadline that is an hour off."""
    head = "deadline: 50m\n"
    process = scene.begin("- {id: a, run: $STEP, timeout: 50m, env: {WORK: GATE}}\n- {id: b, run: $STEP}", head)
    scene.jump()
    scene.pause(0.3)
    scene.gate.open()
    scene.wait(process)
    yield from scene.outcome("succeeded")


def _child(scene: Scene) -> Iterator[str]:
    """A child run that begins after the jump counts time as its parent does."""
    scene.place.job("inner", "steps:\n- {id: x, run: $STEP}\n")
    steps = "- {id: a, run: $STEP, env: {WORK: GATE}}\n- {id: sub, job: inner.yaml}\n- {id: b, run: $STEP}"
    process = scene.begin(steps, "deadline: 50m")
    scene.jump()
    scene.gate.open()
    scene.wait(process)
    yield from scene.outcome("succeeded")


def _deadline(scene: Scene) -> Iterator[str]:
    """The deadline of the run."""
    process = scene.begin("- {id: a, run: $STEP, grace: 500ms, env: {WORK: GATE}}", "deadline: 2s")
    scene.jump()
    scene.wait(process)
    yield from scene.took(1.5, "the deadline", least=0.5)  # what came before the gate counts
    yield from scene.outcome("timed_out")


def _retry(scene: Scene) -> Iterator[str]:
    """The pause before an attempt."""
    retry = "retry: {max_attempts: 2, interval: 1500ms, jitter: none}"
    process = scene.begin(f"- {{id: a, run: $STEP, env: {{TIMES: '1'}}, {retry}}}", reach=False)
    _waits(scene)
    scene.jump()
    scene.wait(process)
    yield from scene.took(1.5, "the second attempt", least=0.9)
    yield from scene.outcome("succeeded")


def _waits(scene: Scene) -> None:
    """Until the step waits for its second attempt; that is where the measuring begins."""
    scene.place.wait_for(lambda: bool(scene.place.rows("SELECT 1 FROM steps WHERE state = 'waiting'")))
    scene._begun = time.monotonic()


def _crash(scene: Scene) -> Iterator[str]:
    """Cut off, the clock set, resumed: the deadline has not come, and no time is negative."""
    scene.begin("- {id: a, run: $STEP, timeout: 30m, env: {WORK: GATE}}\n- {id: b, run: $STEP}", "deadline: 30m")
    scene.place.kill_all()
    scene.jump()
    scene.gate.open()
    yield from _resume(scene, 0)
    yield from scene.outcome("succeeded")


def _crash_in_a_pause(scene: Scene) -> Iterator[str]:
    """Cut off while a step waits for its next attempt: it does not wait for the clock to come back."""
    retry = "retry: {max_attempts: 2, interval: 3s, jitter: none}"
    scene.begin(f"- {{id: a, run: $STEP, env: {{TIMES: '1'}}, {retry}}}", reach=False)
    _waits(scene)
    scene.place.kill_all()
    scene.jump()
    process = scene.place.start("resume")
    try:
        scene.place.wait_for(lambda: not scene.place.unfinished(), 3 + 2 * SLACK)
        yield from scene.took(3, "the second attempt", least=0.9)
    except Stuck:
        until = scene.place.rows("SELECT due FROM steps WHERE state = 'waiting'")
        yield f"after {time.monotonic() - scene._begun:.0f} s a pause of 3 s is not over: due {until}"
        scene.place.kill_all()
        (scene.place.root / "clock").write_text("+0")
        scene.place.start("resume")
    scene.wait(process)
    scene.place.wait_quiet()
    yield from scene.outcome("succeeded")


def _killed(scene: Scene) -> Iterator[str]:
    """The supervisor alone is killed, the clock set; the next one adopts the step, its timeout and the deadline."""
    scene.begin("- {id: a, run: $STEP, timeout: 30m, env: {WORK: GATE}}\n- {id: b, run: $STEP}", "deadline: 30m")
    owner = scene.place.owner(scene.place.runs()[0])
    assert owner
    scene.jump()
    send(owner, signal.SIGKILL)
    scene.place.wait_for(lambda: scene.place.owner(scene.place.runs()[0]) != owner)
    scene.gate.open()
    scene.place.wait_quiet()
    yield from scene.outcome("succeeded")


def _suspend(scene: Scene) -> Iterator[str]:
    """Two hours of sleep are time in which the machine was on: a deadline of one hour has passed, one of three not."""
    step = "- {id: a, run: $STEP, timeout: 30m, env: {WORK: GATE}}\n- {id: b, run: $STEP}"
    for deadline, outcome, status in (("3h", "succeeded", 0), ("1h", "timed_out", 124)):
        scene.gate.close()
        scene.gate = scene.place.gate(deadline)  # nobody of the run before stands there
        scene.begin(step, f"deadline: {deadline}")
        run = scene.place.runs()[-1]
        scene.place.kill_all()
        scene.place.env["FAKETIME_TIMESTAMP_FILE"] = str(scene.place.root / "later")
        (scene.place.root / "later").write_text(f"+{2 * HOUR}")
        scene.gate.open()
        after = ["unshare", "-T", f"--boottime={2 * HOUR}", sys.executable, "-m", "agentrun", "resume", run]
        done = subprocess.run(after, env=scene.place.env, cwd=scene.place.root, capture_output=True, timeout=60)
        scene.place.wait_quiet()
        scene.place.env["FAKETIME_TIMESTAMP_FILE"] = str(scene.place.root / "clock")
        found = scene.place.rows("SELECT outcome FROM runs WHERE id = ?", run)
        if done.returncode != status or found != [(outcome,)]:
            yield f"with a deadline of {deadline} it ended with {done.returncode}, {found}: {done.stderr.decode()}"


KINDS: dict[str, Callable[[Scene], Iterator[str]]] = {
    "timeout": _timeout,
    "patience": _patience,
    "child": _child,
    "deadline": _deadline,
    "retry": _retry,
    "crash": _crash,
    "crash in a pause": _crash_in_a_pause,
    "killed supervisor": _killed,
    "suspend": _suspend,
}


def _resume(scene: Scene, status: int) -> Iterator[str]:
    answer = scene.place.command("resume")
    if answer.returncode != status:
        yield f"resume ended with {answer.returncode}: {answer.stderr}"


def durations(place: Place, *, strict: bool) -> Iterator[str]:
    """Negative durations in the record. `strict`: also those that are longer than the whole case can have taken."""
    questions = {
        "run": "SELECT id, started_at - created_at, finished_at - started_at FROM runs",
        "step": "SELECT instance, 0, finished_at - started_at FROM steps",
        "attempt": "SELECT instance || '#' || number, coalesce(started_at - lag(finished_at) OVER"
                   " (PARTITION BY run_id, instance ORDER BY number), 0), finished_at - started_at FROM attempts",
        "event": "SELECT events.seq || ' ' || kind, at - created_at, 0 FROM events JOIN runs ON runs.id = run_id",
        "run, what counts": "SELECT id, elapsed, elapsed FROM runs",
        "view of a run": "SELECT run, seconds * 1000, seconds * 1000 FROM job_status",
        "view of an attempt": "SELECT step, seconds * 1000, cpu_seconds * 1000 FROM step_history",
    }  # fmt: skip
    for what, question in questions.items():
        all_of_it = ((name, took) for name, *both in place.rows(question) for took in both if took is not None)
        wrong = [(name, took) for name, took in all_of_it if took < 0 or (strict and took > LONGEST)]
        for name, took in wrong[:1]:
            more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
            yield f"{what} {name} took {took / 1000:,.3f} s by the record, and cannot have{more}"


def _shown(place: Place) -> Iterator[str]:
    """The commands live with that record: no negative duration on the screen, no error."""
    for run in place.runs():
        for arguments in (("status",), ("status", run), ("status", run, "-v"), ("logs", run), ("events", run)):
            answer = place.command(*arguments)
            if answer.returncode or "Traceback" in answer.stderr:
                yield f"{' '.join(arguments)} ended with {answer.returncode}: {answer.stderr}"
            if negative := NEGATIVE.search(answer.stdout):
                yield f"{' '.join(arguments)} shows {negative.group()}: {answer.stdout}"


def _truth(place: Place, kind: str) -> Iterator[str]:
    """The oracle; of how a run must end each kind has spoken already."""
    yield from oracle.violations(place, jobs.Job("it", "", {"b": ("a",)}), outcome="")
    if "Traceback" in place.said():
        yield f"{kind}: {place.said()}"


def _library() -> str | None:
    for pattern in ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1"):
        for path in glob(pattern):
            return path
    return None


def _can_suspend() -> bool:
    if shutil.which("unshare") is None or not os.path.exists("/proc/self/timens_offsets"):
        return False
    return subprocess.run(["unshare", "-T", "--boottime=60", "true"], capture_output=True).returncode == 0
