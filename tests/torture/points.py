"""Every fault point: a run is killed at the 1st, the 2nd, … point that it reaches, until one ends before it.

Points stand before and behind every effect in supervisor and shim (`agentrun/effects.py`), so code that is written
tomorrow is tortured tomorrow. Two ways to die at each: the process that reaches the point alone (`kill`: the others
take over), and everything at that instant (`stop`: frozen, then all of the run is killed, as by a power cut; then
`agentrun resume`). A seed other than 0 shuffles what happens at the same time.
"""

from __future__ import annotations

import os
import random
import select
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import jobs, oracle
from .place import LIMIT, Place, Stuck
from .tally import Tally, Wanted

RECORD = 96  # bytes of a point in the file of points (agentrun/faults.py)
WORKERS = max(2, os.cpu_count() or 1)


class Case(NamedTuple):
    """One run that dies at one point."""

    job: jobs.Job
    at: int
    action: str  # kill | stop
    seed: int

    def __str__(self) -> str:
        return f"{self.job.name} {self.action} at {self.at} seed {self.seed}"


class Outcome(NamedTuple):
    """`reached`: whether the point was. `name`: which one it was."""

    violations: list[str]
    reached: bool
    name: str


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("points")
    names: Counter[str] = Counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in _plan(wanted):
            for case, outcome in zip(batch, pool.map(lambda one: play(one, wanted.package), batch), strict=True):
                tally.add(outcome.violations, case=f"{case} ({outcome.name})", faults=int(outcome.reached))
                if outcome.reached:
                    names[outcome.name] += 1
    tally.notes.append(f"{len(names)} different points")
    return tally


def _plan(wanted: Wanted) -> Iterator[list[Case]]:
    """Batches of cases. At the smallest scale each named point once, by the job that reaches it first."""
    if wanted.scale == "ci":
        yield _sample(wanted, 1)
        return
    for seed in wanted.seeds(wanted.pick(ci=1, normal=1, full=25)):
        if seed == wanted.seed:
            for job in jobs.OF_ONE_RUN:
                total = len(points(job, wanted.package))
                # a killed run goes on in other processes, and so reaches more points: 1.5 times as many are tried
                for first in range(1, total * 3 // 2, WORKERS * 4):
                    if wanted.is_over:
                        return
                    numbers = range(first, first + WORKERS * 4)
                    yield [Case(job, at, action, seed) for at in numbers for action in ("kill", "stop")]
        else:
            yield _sample(wanted, seed)


def _sample(wanted: Wanted, seed: int) -> list[Case]:
    """Each different point of all jobs once, at one of the places where it comes."""
    chance = random.Random(seed)
    places: dict[str, list[tuple[jobs.Job, int]]] = {}
    for job in jobs.OF_ONE_RUN:
        for at, name in enumerate(points(job, wanted.package), 1):
            places.setdefault(name, []).append((job, at))
    cases = []
    for name in sorted(places):
        job, at = chance.choice(places[name])
        cases.append(Case(job, at, chance.choice(("kill", "stop")), seed))
    return cases


def points(job: jobs.Job, package: Path) -> list[str]:
    """The names of the points that an undisturbed run of the job reaches, in order."""
    with Place(package) as place:
        file = place.root / "points"
        place.start("run", job.write(place), AGENTRUN_FAULTS=f"{file}:0:none:0")
        place.wait_quiet()
        return _names(file)


def play(case: Case, package: Path) -> Outcome:
    """Let one run die at its point, let it be resumed, and look at what came of it."""
    with Place(package) as place:
        file = place.root / "points"
        here = Path(f"{file}.here")
        os.mkfifo(here)
        bell = os.open(here, os.O_RDWR | os.O_NONBLOCK)
        path = case.job.write(place)
        try:
            process = place.start("run", path, AGENTRUN_FAULTS=f"{file}:{case.at}:{case.action}:{case.seed}")
            if case.action == "stop":
                _kill_at_the_bell(place, process.pid, bell)
            place.wait_quiet()
            found = after(place, case.job, path)
        except Stuck as stuck:
            found = [str(stuck)]
        finally:
            os.close(bell)
        names = _names(file)
        reached = len(names) >= case.at
        return Outcome(found, reached, names[case.at - 1] if reached else "not reached")


def after(place: Place, job: jobs.Job, path: str) -> list[str]:
    """One `resume` at most, and every run has ended as it must. What never came to a record is started again."""
    if place.unfinished():
        place.command("resume")
        place.wait_quiet()
    elif not place.runs():
        if oracle.ledger(place):
            return ["steps have run, and there is no record of a run"]
        place.command("run", path)
        place.wait_quiet()
    # a policy may have ended an interrupted step otherwise than the job would have ended by itself
    return oracle.violations(place, job)


def _kill_at_the_bell(place: Place, pid: int, bell: int) -> None:
    """Wait until a process stands at its point, then kill all; or until the run is over."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([bell, pidfd], [], [], LIMIT)
        if bell not in ready:  # the first supervisor has ended; another may stand there, or be about to
            while place.processes() and not select.select([bell], [], [], 0.05)[0]:
                pass
        if select.select([bell], [], [], 0)[0]:
            place.kill_all()
    finally:
        os.close(pidfd)


def _names(file: Path) -> list[str]:
    if not file.exists():
        return []
    return [line[8:].strip() for line in file.read_text().splitlines()]
