"""Races: who owns a run, when many want to and when its owner stands still.

    crowd        20 `resume` at once of a run whose processes all died: one goes on with it, the others say who has it
                 (75), the step that was cut off runs once more. Some ask for all runs (`resume`), and pass it over.
    overtaken    the owner stands still (SIGSTOP) at a fault point that a seed chooses, also in the middle of a commit
                 and with the lock of the database; `resume --force` takes the run over and finishes it. We have the
                 lock of the database until the old owner is dead: so it is dead before the new one can write. Where it
                 is the shim that stands at its point, the supervisor is stopped too.
    bystander    the owner is dead, and a bystander has its pid; somebody forces, with the run free or held by another
                 who does not stand in the record yet. The bystander lives.

What always must hold is looked at after each of them (oracle.py): no two attempts at once, none that begins twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import jobs, oracle
from .jobs import Job
from .machine import Machine, Report, apart, lacking
from .place import LIMIT, Place, Stuck, send, wait_gone
from .points import points
from .standstill import Standstill, go_on
from .tally import Tally, Wanted

CROWD = 20
WORKERS = 2
TAKEN_OVER = (jobs.SEQUENCE, jobs.DAG, jobs.RETRIES)
FLOCK = struct.Struct("hhqqi4x")
BUSY = "is being advanced by process"


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("races")
    seen: Counter[str] = Counter()
    for number, seed in enumerate(wanted.seeds(wanted.pick(ci=2, normal=25, full=200))):
        report = _crowd(wanted.package, seed)
        tally.add(report.violations, case=f"crowd seed {seed}", faults=report.faults)
        seen["crowds"] = number + 1
    cases = list(_overtakings(wanted))
    with ThreadPoolExecutor(WORKERS) as pool:
        reports = pool.map(lambda case: None if wanted.is_over else _overtake(wanted.package, *case), cases)
        for case, came in zip(cases, reports, strict=True):
            if came:
                tally.add(came.violations, case=f"{case[0].name} overtaken at {case[1]} seed {case[2]}")
                seen.update(came.notes)
    if why := lacking():
        tally.notes.append(f"no bystanders: needs {why}")
    else:
        for seed in wanted.seeds(wanted.pick(ci=1, normal=5, full=20)):
            report = apart("races:bystander", seed, str(wanted.package))
            tally.add(report.violations, case=f"bystander seed {seed}", faults=report.faults)
            seen.update(report.notes)
    tally.notes += [f"{number} x {what}" for what, number in sorted(seen.items())]
    return tally


# ---- many at once


def _waiting(gate_shell: str) -> Job:
    return Job("raced", f"steps:\n- id: s\n  run: $STEP\n  env: {{WORK: '{gate_shell}'}}\n", steps=1)


def _crowd(package: Path, seed: int) -> Report:
    """One run, and a crowd that wants it."""
    chance = random.Random(seed)
    found: list[str] = []
    with Place(package) as place:
        gate = place.gate("race")
        job = _waiting(gate.shell)
        try:
            place.start("run", job.write(place))
            gate.reached()
            killed = place.kill_all()
            (run,) = place.runs()
            words = [("resume", run) if chance.random() < 0.8 else ("resume",) for _ in range(CROWD)]
            crowd = [Racer(place, number, *one) for number, one in enumerate(words)]
            gate.reached()  # one of them has started the step again
            _wait_for_losers(crowd)
            gate.open()
            found += _one_owner(crowd)
            place.wait_quiet()
        except Stuck as stuck:
            found.append(str(stuck))
        found += oracle.violations(place, job)
        found += [f"epoch {epoch}, and not 2" for (epoch,) in place.rows("SELECT epoch FROM runs") if epoch != 2]
        gate.close()
    return Report(found, killed)


class Racer:
    """A command of many that are started at once, and what it says."""

    def __init__(self, place: Place, number: int, *words: str) -> None:
        self.words = words
        self._file = place.root / f"said-{number}"
        self.process = place.start(*words, into=self._file.name)

    def end(self) -> tuple[int, str]:
        """Its status and its words, once it has ended."""
        return self.process.wait(LIMIT), self._file.read_text(errors="replace")


def _wait_for_losers(crowd: list[Racer]) -> None:
    """Until all but one have ended."""
    running = {os.pidfd_open(racer.process.pid) for racer in crowd}
    try:
        while len(running) > 1:
            ready = select.select(list(running), [], [], LIMIT)[0]
            if not ready:
                raise Stuck(f"{len(running)} of {CROWD} go on")
            for fd in ready:
                os.close(fd)
                running.remove(fd)
    finally:
        for fd in running:
            os.close(fd)


def _one_owner(crowd: list[Racer]) -> Iterator[str]:
    """One went on with the run, the others said who has it; who asks for all runs passes it over."""
    ends = [(racer.words, *racer.end()) for racer in crowd]
    named = [(status, said) for words, status, said in ends if len(words) > 1]
    for status, said in named:
        if status not in (0, 75) or (status == 75 and BUSY not in said) or (status == 0 and said):
            yield f"one of them ended with {status}: {said[-300:]}"
    for words, status, said in ends:
        if len(words) == 1 and (status or said):
            yield f"one that asked for all runs ended with {status}: {said[-300:]}"
    won = sum(status == 0 for status, _ in named)
    if won > 1:
        yield f"{won} went on with the run"


# ---- one that stands still


def _overtakings(wanted: Wanted) -> Iterator[tuple[Job, int, int]]:
    """Job, point, seed: between the commit that makes the run and the one that ends it."""
    owned: dict[str, tuple[int, int]] = {}
    for seed in wanted.seeds(wanted.pick(ci=4, normal=30, full=150)):
        chance = random.Random(seed)
        job = chance.choice(TAKEN_OVER)
        if job.name not in owned:
            names = points(job, wanted.package)
            commits = [at for at, name in enumerate(names, 1) if name.endswith("commit store.database:_transact")]
            owned[job.name] = commits[1], commits[-2]
        yield job, chance.randint(*owned[job.name]), seed


def _overtake(package: Path, job: Job, at: int, seed: int) -> Report:
    """One owner that stands still, and one that does not wait for it."""
    found: list[str] = []
    with Place(package) as place:
        stand = Standstill(place, at, seed=seed)
        try:
            owner = place.start("run", job.write(place), **stand.env)
            standing = stand.wait(owner)
            if standing is None or not place.unfinished() or owner.poll() is not None:
                note = "points without an owner"  # before there is a run, or after it, or of nobody's any more
                place.kill_all()
            else:
                send(owner.pid, signal.SIGSTOP)  # where it was the shim that stands
                note = "owners overtaken" if _held(place) else "owners to be overtaken"
                found += _force(place, owner.pid, standing, job)
                if not found:
                    found += oracle.violations(place, job)
        except Stuck as stuck:
            found.append(str(stuck))
        finally:
            stand.close()
        return Report([f"at {stand.name}: {one}" for one in found], 1, [note])


def _force(place: Place, owner: int, standing: int, job: Job) -> Iterator[str]:
    """Take the run over while nobody can write: the owner has to be dead by then."""
    (run,) = place.unfinished()
    held = _held(place)
    with open(place.home / "agentrun.lock", "rb+") as lock:
        with contextlib.suppress(BlockingIOError):  # the one that stands still has it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        forced = place.start("resume", run, "--force")
        if held and not wait_gone(owner, 20):
            yield f"the owner lives while the new one wants to write: {place.said()[-300:]}"
    status = forced.wait(LIMIT)
    if wait_gone(owner, 0) is False:
        go_on(owner)  # it was not the owner yet, and is too late now
    if standing != owner:
        go_on(standing)
    place.wait_quiet()
    if status != (0 if job.outcome == "succeeded" else 1):
        yield f"resume --force gave {status}: {place.said()[-300:]}"


def _held(place: Place) -> bool:
    """Whether somebody has the lease of the one run."""
    with open(place.home / "runs" / place.runs()[0] / "lock", "rb+") as file:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    return bool(FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


# ---- one that has nothing to do with it


def bystander(machine: Machine, seed: int, package: str) -> Report:
    """The owner's pid is somebody else's by now."""
    found: list[str] = []
    with Place(Path(package)) as place:
        gate = place.gate("gate")
        job = _waiting(gate.shell)
        owner = place.start("run", job.write(place))
        gate.reached()
        pids = place.processes()
        place.kill_all()
        owner.wait(LIMIT)
        place.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        taken = machine.take(*pids)
        (run,) = place.runs()
        if seed % 2:
            found += _held_by_a_stranger(place, run)
        forced = place.start("resume", run, "--force")
        gate.reached()
        gate.open()
        if forced.wait(LIMIT):
            found.append(f"resume --force gave {forced.returncode}: {place.said()[-300:]}")
        place.wait_quiet()
        found += [*machine.disturbed(), *oracle.violations(place, job)]
    return Report(found, len(pids), [f"{taken} of {len(pids)} pids reused"])


def _held_by_a_stranger(place: Place, run: str) -> Iterator[str]:
    """As a new owner has it in the instant before it stands in the record."""
    with open(place.home / "runs" / run / "lock", "rb+") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        answer = place.command("resume", run, "--force")
    if answer.returncode != 75 or "the record does not name" not in answer.stderr:
        yield f"forced against a stranger it gave {answer.returncode}: {answer.stderr[-300:]}"
