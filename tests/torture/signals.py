"""Signals: TERM, INT, HUP, QUIT, PIPE, STOP for a minute and CONT, and the kernel's kill for want of memory.

Every state of a run is a fault point: one process of it stands still there, then somebody is sent the signal, then it
goes on. Who is sent it: the supervisor, the shim, or everybody at once (a machine that goes down). Before those come
states that last, by hand: a step runs, a retry is waited for, a condition is asked, what steps left behind is ended, a
cancelled run runs its last steps, a stopped one ends its steps, a killed supervisor has just been replaced.

What must hold, beyond what always must (oracle.py, after one `resume` at most):
    TERM, INT to the supervisor   it ends with 143 or 130 (or with the run's status, if that is over), nobody goes on
                                  with the run, all its processes end; before its shim has the run it may end by the
                                  signal itself
    HUP, PIPE to the supervisor   the run goes on to its end; HUP may end one that does not listen yet, and if its shim
                                  has the run, that goes on with another
    QUIT, memory                  the supervisor is dead, and the run goes on to its end with another
    any of them to the shim       nothing
    STOP and CONT                 nothing; meanwhile a step that runs too long is ended by the shim, another `resume`
                                  says that the run is held (75), or that it waits for the lock of the database, if
                                  that is what the supervisor stands still with, and `status` shows it
    nobody ever                   prints a traceback
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import jobs, oracle
from .jobs import Job
from .place import LIMIT, Gate, Place, Stuck, send, wait_gone
from .points import after, points
from .standstill import Standstill, go_on
from .tally import Tally, Wanted

WORKERS = 2
PATIENCE = LIMIT / 3  # seconds; it says after five whom it waits for
SIGNALS = ("TERM", "INT", "HUP", "QUIT", "PIPE")
TARGETS = ("supervisor", "shim", "everybody")
STATUS = {"TERM": 143, "INT": 130}
FLOCK = struct.Struct("hhqqi4x")
JOBS = (jobs.SEQUENCE, jobs.RETRIES, jobs.FANOUT, jobs.HANDLERS, jobs.CHILD)


class Case(NamedTuple):
    """A signal to somebody, while a process of the run stands at its n-th point."""

    job: Job
    at: int
    name: str
    target: str
    seed: int

    def __str__(self) -> str:
        return f"{self.name} to {self.target}, {self.job.name} at {self.at} seed {self.seed}"


class Outcome(NamedTuple):
    """`where`: the point. `hit`: how many heard the signal."""

    violations: list[str]
    where: str = ""
    hit: int = 1


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("signals")
    where: Counter[str] = Counter()
    cases: list[tuple[str, Callable[[], Outcome]]] = list(_lasting(wanted))
    cases += [(str(case), partial(play, case, wanted.package)) for case in _plan(wanted)]
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = pool.map(lambda one: None if wanted.is_over else one[1](), cases)
        for (name, _), outcome in zip(cases, outcomes, strict=True):
            if outcome:
                tally.add(outcome.violations, case=f"{name} ({outcome.where})", faults=outcome.hit)
                where[outcome.where] += 1
    if not Memory.here():
        tally.notes.append("no cgroup with memory that we may write to: KILL stood in for the kernel's own kill")
    tally.notes.append(f"{len(where)} different points and states")
    return tally


def _plan(wanted: Wanted) -> Iterator[Case]:
    """Each named point with a signal and a target by chance; at full scale with each signal and each target."""
    for seed in wanted.seeds(wanted.pick(ci=1, normal=1, full=1)):
        chance = random.Random(seed)
        places: dict[str, list[tuple[Job, int]]] = {}
        for job in JOBS:
            for at, name in enumerate(points(job, wanted.package), 1):
                places.setdefault(name, []).append((job, at))
        names = sorted(places)
        if wanted.scale == "ci":
            names = chance.sample(names, 6)
        for name in names:
            hits = [(number, target) for number in SIGNALS for target in TARGETS] + [("memory", "supervisor")]
            for number, target in hits if wanted.scale == "full" else [chance.choice(hits)]:
                yield Case(*chance.choice(places[name]), number, target, seed)


# ---- at a point


def play(case: Case, package: Path) -> Outcome:
    """One signal at one point."""
    found: list[str] = []
    hit: list[int] = []
    with Place(package) as place, Memory(place) as memory:
        stand = Standstill(place, case.at, seed=case.seed)
        path = case.job.write(place)
        try:
            process = place.start("run", path, **stand.env)
            standing = stand.wait(process)
            before = Before(place)
            if standing is not None:
                hit = _send(place, memory, case.name, case.target, process.pid)
                go_on(standing)
            place.wait_quiet()
            status = process.wait(LIMIT)
            found += before.as_it_must(case.name, case.target, status if process.pid in hit else None)
            found += _after(place, case.job, path, any_end=case.target == "everybody" and case.name not in STATUS)
        except Stuck as stuck:
            found += [str(stuck), place.said()[-300:]]
        finally:
            stand.close()
    return Outcome(found, stand.name, len(hit))


def _send(place: Place, memory: Memory, name: str, target: str, supervisor: int) -> list[int]:
    """Send it to whom it is for; who that was."""
    if target == "supervisor":
        heard = [supervisor]
    elif target == "shim":
        heard = [pid for pid in place.supervisors() if pid != supervisor]
    else:  # of a step its leader: one of its commands that dies alone would only confuse the step
        heard = [pid for pid in place.processes() if _leads(pid) or pid in place.supervisors()]
    if name == "memory":
        return [pid for pid in heard if memory.starve(pid)]
    return [pid for pid in heard if send(pid, getattr(signal, f"SIG{name}"))]


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


class Before:
    """What was so when the signal was sent, and what must be so for that reason when all is quiet again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        rows = place.rows("SELECT epoch, stopped FROM runs WHERE caller IS NULL") if _complete(place) else []
        self._epoch = max([epoch for epoch, _ in rows], default=0)
        self._stopped = any(stopped for _, stopped in rows)
        self._held = bool(place.runs()) and shim_holds(place, place.runs()[0])

    def as_it_must(self, name: str, target: str, status: int | None) -> Iterator[str]:
        """`status`: of the supervisor, if it heard the signal and is ours to wait for."""
        place = self._place
        (run, *_), unfinished = place.runs() or [""], place.unfinished()
        epoch = max([epoch for (epoch,) in place.rows("SELECT epoch FROM runs WHERE id = ?", run)], default=0)
        stopped = self._stopped or (name in STATUS and target != "shim")
        if stopped and unfinished and epoch > max(self._epoch, 1):
            yield f"somebody went on with a run that was to stop (epoch {self._epoch}, then {epoch})"
        if name in STATUS and status is not None and unfinished and not self._stopped:
            early = [-getattr(signal, f"SIG{name}")] if not self._held else []
            if status not in (STATUS[name], *early):
                yield f"it ended with {status}, and the run is unfinished"
        if not stopped and self._held and unfinished and target != "everybody":
            yield f"the run was not brought to its end (status {status}): {place.said()[-300:]}"
        if "Traceback" in (said := place.said()):
            yield f"a traceback: {said[-500:]}"


def _complete(place: Place) -> bool:
    """Whether the database has been made to its end."""
    return any(name == "caller" for (name,) in place.rows("SELECT name FROM pragma_table_info('runs')"))


def shim_holds(place: Place, run: str) -> bool:
    """Whether the run has a shim."""
    lock = place.home / "runs" / run / "lock"
    if not lock.exists():
        return False
    with open(lock, "rb+") as file:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0))
    return bool(FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _after(place: Place, job: Job, path: str, *, any_end: bool) -> list[str]:
    """One `resume`, and what always must hold. `any_end`: a step died of the signal, so the run may have failed."""
    if not any_end:
        return after(place, job, path)
    if place.unfinished():
        place.command("resume")
        place.wait_quiet()
    return oracle.violations(place, job, outcome="")


# ---- states that last


class Lasting(NamedTuple):
    """A run in such a state. `release`: lets everything go on that waits. `process`: the supervisor, if it is ours."""

    job: Job
    process: subprocess.Popen[bytes] | None
    gates: list[Gate]


def _job(text: str, outcome: str = "succeeded") -> Job:
    return Job("lasting", f"max_parallel: 2\nsteps:\n{text}", outcome=outcome)


def _step_runs(place: Place) -> Lasting:
    """Beside it runs one that will take too long."""
    gate = place.gate("gate")
    text = f"- {{id: a, run: $STEP, env: {{WORK: '{gate.shell}'}}}}\n- {{id: b, run: $STEP}}\n"
    late = "{id: late, needs: [], run: $STEP, timeout: 700ms, grace: 100ms, continue_on_error: true, env: {WORK: %s}}"
    job = _job(f"{text}- {late % 'sleep 60'}\n")
    process = place.start("run", job.write(place))
    gate.reached()
    return Lasting(job, process, [gate])


def _retry_is_waited_for(place: Place) -> Lasting:
    job = _job('- {id: a, run: $STEP, env: {TIMES: "1"}, retry: {max_attempts: 2, interval: 1s}}\n')
    process = place.start("run", job.write(place))
    place.wait_for(lambda: bool(place.rows("SELECT 1 FROM attempts WHERE outcome = 'failed'")))
    return Lasting(job, process, [])


def _condition_is_asked(place: Place) -> Lasting:
    gate = place.gate("gate")
    job = _job(f"- {{id: a, run: $STEP, if: '{gate.shell}'}}\n")
    process = place.start("run", job.write(place))
    gate.reached()
    return Lasting(job, process, [gate])


def _leftovers_are_ended(place: Place) -> Lasting:
    deaf, heard = place.gate("deaf"), place.gate("heard")
    work = f"sh -c 'trap \"{heard.shell}\" TERM; {deaf.shell}; while :; do sleep 1; done' 9>&- 2>&- & {deaf.shell}"
    job = _job(f"- {{id: a, run: $STEP, grace: 2s, env: {{WORK: {json.dumps(work)}}}}}\n")
    process = place.start("run", job.write(place))
    deaf.reached()
    deaf.reached()
    deaf.open(2)
    heard.reached()
    return Lasting(job, process, [deaf, heard])


def _cancelled(place: Place) -> Lasting:
    gate, last = place.gate("gate"), place.gate("last")
    text = f"- {{id: a, run: $STEP, env: {{WORK: '{gate.shell}'}}}}\n"
    job = _job(text + f"- {{id: z, run: $STEP, when: always, env: {{WORK: '{last.shell}'}}}}\n", "cancelled")
    process = place.start("run", job.write(place))
    gate.reached()
    place.command("cancel", place.runs()[0])
    last.reached()
    return Lasting(job, process, [last])


def _stopping(place: Place) -> Lasting:
    gate, heard = place.gate("gate"), place.gate("heard")
    work = f"trap '{heard.shell}; exit 3' TERM; {gate.shell}"
    job = _job(f"- {{id: a, run: $STEP, grace: 2s, env: {{WORK: {json.dumps(work)}}}}}\n")
    process = place.start("run", job.write(place))
    gate.reached()
    send(process.pid, signal.SIGTERM)
    heard.reached()
    return Lasting(job, process, [gate, heard])


def _just_replaced(place: Place) -> Lasting:
    lasting = _step_runs(place)
    assert lasting.process
    lasting.process.kill()
    lasting.process.wait(LIMIT)
    place.wait_for(lambda: place.rows("SELECT epoch FROM runs") == [(2,)])
    return lasting._replace(process=None)


STATES = {
    "a step runs": _step_runs,
    "a retry is waited for": _retry_is_waited_for,
    "a condition is asked": _condition_is_asked,
    "leftovers are ended": _leftovers_are_ended,
    "cancelled, its last step runs": _cancelled,
    "stopping": _stopping,
    "just replaced": _just_replaced,
}


def _lasting(wanted: Wanted) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Every state, every signal, supervisor and shim; a few at the smallest scale."""
    seconds = wanted.pick(ci=1, normal=5, full=60)
    cases = [(state, name, target) for state in STATES for name in (*SIGNALS, "memory", "STOP")
             for target in ("supervisor", "shim") if (name, target) != ("memory", "shim")]  # fmt: skip
    if wanted.scale == "ci":
        chance = random.Random(wanted.seed)
        always = [("a step runs", name, "supervisor") for name in ("STOP", "memory")]
        cases = [*always, *chance.sample(cases, 4)]
    for state, name, target in cases:
        yield f"{name} to {target}", partial(play_lasting, state, name, target, seconds, wanted.package)


def play_lasting(state: str, name: str, target: str, seconds: float, package: Path) -> Outcome:
    """One signal in one state. `seconds`: how long a STOP lasts."""
    found: list[str] = []
    with Place(package) as place, Memory(place) as memory:
        try:
            lasting = STATES[state](place)
            before = Before(place)
            owner = place.owner(place.runs()[0]) or 0
            heard = _send(place, memory, name, target, owner)
            if name == "STOP":
                found += _stand_still(place, heard, target, seconds)
            for gate in lasting.gates:
                gate.open(5)
            place.wait_quiet()
            status = lasting.process.wait(LIMIT) if lasting.process else None
            found += before.as_it_must(name, target, status if owner in heard else None)
            found += _after(place, lasting.job, str(place.root / "lasting.yaml"), any_end=False)
            if name == "memory" and status not in (-signal.SIGKILL, None):
                found.append(f"the supervisor had no memory, and ended with {status}")
        except Stuck as stuck:
            found += [str(stuck), place.said()[-300:]]
    return Outcome(found, state)


def _stand_still(place: Place, stopped: list[int], target: str, seconds: float) -> Iterator[str]:
    """They stand still for so long; others are told, and nothing else happens."""
    (run,) = place.runs()
    asked = place.start("resume", run, into="asked")
    words = place.root / "asked"
    if not wait_gone(asked.pid, PATIENCE) and "waiting for the write lock" not in words.read_text():
        yield f"while its {target} stood still, resume did not end, and did not say why: {words.read_text()}"
    if place.command("status", run).returncode:
        yield f"while its {target} stood still, status failed"
    if target == "supervisor":  # a step that takes too long does not wait for it
        place.wait_for(lambda: not any(_is_late(pid) for pid in place.of_run(run)), 20)
    if any(wait_gone(pid, seconds / len(stopped)) for pid in stopped):
        yield f"the {target} died while it stood still"
    for pid in stopped:
        go_on(pid)
    if asked.wait(LIMIT) != 75:
        yield f"while its {target} stood still, resume gave {asked.returncode}: {words.read_text()[-300:]}"


def _is_late(pid: int) -> bool:
    try:
        return b"AGENTRUN_STEP=late" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


# ---- no memory


class Memory:
    """A cgroup in which no memory is left: who needs a page in there is killed by the kernel."""

    ROOTS = (("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "", "memory.max"))

    def __init__(self, place: Place) -> None:
        self._place = place
        self._cgroup: Path | None = None

    @classmethod
    def here(cls) -> tuple[Path, str] | None:
        """Where one can be made, and the name of its limit."""
        own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
        for root, controller, limit in cls.ROOTS:
            folder = Path(root + own.get(controller, "/").rstrip("/"))
            offers = controller or "memory" in _text(folder / "cgroup.subtree_control").split()
            if offers and os.access(folder / "cgroup.procs", os.W_OK):
                return folder, limit
        return None

    def starve(self, pid: int) -> bool:
        """Leave it without memory. KILL, where that cannot be had."""
        here = self.here()
        if here is None:
            return send(pid, signal.SIGKILL)
        self._cgroup = here[0] / self._place.root.name
        self._cgroup.mkdir()
        (self._cgroup / here[1]).write_text("0")
        try:
            (self._cgroup / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            return False
        return True

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        if self._cgroup:
            self._place.kill_all()
            self._place.wait_for(self._removed)

    def _removed(self) -> bool:
        assert self._cgroup
        try:
            self._cgroup.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
