"""Random kills: many runs live at once, and supervisors, shims and steps die by SIGKILL, one after the other.

At full scale 50 runs are kept live for 10,000 kills: what has finished is replaced by a new run, and what is stranded
(supervisor and shim both dead) is taken up by `agentrun resume`, as a crontab would, which may be killed as well. Who
dies is drawn by the seed; when, by the machine. The jobs retry without end, so that a killed step is no failure, and
allow any number of resumes.

Before it, small and aimed: a run dies with a step in the middle, and the `resume` that takes it up is killed, alone, at
a fault point, so that whoever comes next finds what it had just begun. What on_interrupt says must still hold.

After the storm those that can go on do, and one `resume` takes up the rest. Then every run has finished as its job
ends, and the oracle is asked about all of them. One way to fail is documented and allowed: three interruptions of one
step in a row. It is looked at whether there were three; how many runs ended so is in the notes. Who dies is drawn from
the seed, but which of them is where by then is not: a storm does not come twice.
"""

from __future__ import annotations

import json
import math
import os
import random
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from . import jobs, oracle
from .place import LIMIT, STEP, Place, Stuck
from .tally import Tally, Wanted

ENDS = {"rerun": "succeeded", "skip": "succeeded", "fail": "failed"}
CI_SECONDS = 40  # in which 300 kills are done, unless the machine is busy
POINTS = 60  # that a resume of two steps reaches before the last of them
GRACE = 4 * LIMIT  # seconds for all that lives after the storm to end: a shim's last pause alone is 10 s
PREFIX = """
concurrency: allow
max_resumes: 1000000
env: {WORK: "sleep $PAUSE"}
defaults: {retry: {max_attempts: 100000, interval: 10ms, jitter: none, never_on: [3]}}
"""
KINDS = {"step": 12, "shim": 3, "supervisor": 4, "young": 1}  # how often each is drawn


class Victim(NamedTuple):
    """A process that may be killed."""

    pid: int
    kind: str  # step | shim | supervisor | young (of the program, and holds nothing yet; or a command that looks on)


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("kills")
    _take_ups(wanted, tally)
    live = wanted.pick(ci=16, normal=30, full=50)
    kills = wanted.pick(ci=300, normal=1500, full=10_000)
    with Place(wanted.package) as place:
        storm = Storm(place, wanted, live)
        try:
            until = time.monotonic() + (CI_SECONDS if wanted.scale == "ci" else math.inf)
            while sum(storm.killed.values()) < kills and not wanted.is_over and time.monotonic() < until:
                storm.turn()
            found = storm.after()
        except Stuck as stuck:
            found = [str(stuck)]
        runs = place.runs()
        tally.add(found, case=f"{live} live, seed {wanted.seed}", faults=sum(storm.killed.values()))
        tally.cases += len(runs) - 1
        number = place.rows("SELECT count(*), coalesce(max(number), 0) FROM attempts")
        tally.notes.append(", ".join(f"{count} × {kind}" for kind, count in sorted(storm.killed.items())))
        if (done := sum(storm.killed.values())) < kills:
            tally.notes.append(f"only {done} of {kills:,} kills in the time")
        tally.notes.append(f"{live} live, {number[0][0]} attempts")
        if storm.given_up:
            tally.notes.append(f"{storm.given_up} runs failed after 3 interruptions of a step, as documented")
    return tally


def _take_ups(wanted: Wanted, tally: Tally) -> None:
    """Runs that are killed again while a `resume` takes them up; `wanted.minutes` does not end the first few."""
    chance = random.Random(wanted.seed)
    number = wanted.pick(ci=6, normal=60, full=300)
    # not twice at the same point, until each has had its turn
    cases = [(1 + case % POINTS, chance.choice(sorted(ENDS))) for case in range(max(number, POINTS))]
    chance.shuffle(cases)
    with ThreadPoolExecutor(2) as pool:
        for first in range(0, number, 6):
            if first and wanted.is_over:
                return
            batch = cases[first : min(first + 6, number)]
            for (at, policy), found in zip(batch, pool.map(lambda one: _take_up(wanted, *one), batch), strict=True):
                tally.add(found, case=f"{policy}, resume killed at {at}, seed {wanted.seed}", faults=2)


def _take_up(wanted: Wanted, at: int, policy: str) -> list[str]:
    """One of them."""
    with Place(wanted.package) as place:
        gate = place.gate("gate")
        try:
            steps = f"- {{id: a, run: $STEP, on_interrupt: {policy}, env: {{WORK: {json.dumps(gate.shell)}}}}}"
            place.start("run", str(place.job("it", f"steps:\n{steps}\n- {{id: b, run: $STEP}}\n")))
            gate.reached()
            place.kill_all()
            gate.open(9)
            place.command("resume", place.runs()[0], AGENTRUN_FAULTS=f"{place.root}/points:{at}:kill:{wanted.seed}")
            place.wait_quiet()
            if place.unfinished():
                place.command("resume")
                place.wait_quiet()
            begins = [line.detail for line in oracle.ledger(place) if line.what == "begin" and line.step == "a"]
            job = jobs.Job("it", "", {"b": ("a",)}, ENDS[policy], {"a": policy})
            found = oracle.violations(place, job) + _said(place)
            if "0" in begins[1:]:
                found.append(f"attempts of a were told that nothing had been interrupted: {begins}")
            return found
        except Stuck as stuck:
            return [str(stuck)]
        finally:
            gate.close()


class Storm:
    """What goes on while processes die."""

    def __init__(self, place: Place, wanted: Wanted, live: int) -> None:
        self.place = place
        self.killed: Counter[str] = Counter()
        self.given_up = 0
        self._live = live
        self._chance = random.Random(wanted.seed)
        self._pause = wanted.pick(ci=1, normal=3, full=5) / 10
        self._jobs = [_hardened(job) for job in jobs.ALL]
        self._paths = [job.write(place) for job in self._jobs]
        self._begun = 0
        self._resume: subprocess.Popen[bytes] | None = None
        self._starting: list[subprocess.Popen[bytes]] = []

    def turn(self) -> None:
        """Fill up, and kill one of those that are there."""
        if not self.killed or self._chance.random() < 0.2:  # the others find it as it is
            self._fill()
        victims: dict[str, list[int]] = {}
        for victim in _victims(self.place):
            victims.setdefault(victim.kind, []).append(victim.pid)
        for _ in range(max(2, self._live // 3)):
            kinds = [kind for kind in KINDS if victims.get(kind)]
            if not kinds or (kinds == ["young"] and self._chance.random() < 0.9):
                break  # they are to become something first
            kind = self._chance.choices(kinds, [KINDS[kind] for kind in kinds])[0]
            there = victims[kind]
            self.killed[kind] += _kill(self.place, there.pop(self._chance.randrange(len(there))))
        select.select([], [], [], self._chance.expovariate(1 / 0.05))  # seeded: when the next die

    def _fill(self) -> None:
        """New runs for those that have finished; the stranded ones are taken up, by one command at a time."""
        self._starting = [process for process in self._starting if process.poll() is None]
        unfinished = len(self.place.unfinished())
        for _ in range(self._live - max(unfinished, len(self._starting))):
            self._starting.append(self.place.start("run", self._paths[self._begun % len(self._paths)],
                                                   PAUSE=str(self._pause)))  # fmt: skip
            self._begun += 1
        if self._begun > self._live and (self._resume is None or self._resume.poll() is not None):
            self._resume = self.place.start("resume")

    def after(self) -> list[str]:
        """One `resume`, and everything has ended as it must."""
        self.place.wait_quiet(GRACE)
        if self.place.unfinished():
            process = self.place.start("resume")
            self.place.wait_quiet(GRACE)
            process.wait(LIMIT)
        found = [*_general(self.place)]
        for job in self._jobs:
            found += _of_job(self.place, job)
            for run, error in self._ends(job):
                found.append(f"run {run} of {job.name} {error}")
        return found + _said(self.place)

    def _ends(self, job: jobs.Job) -> Iterator[tuple[str, str]]:
        """Runs that did not end as the job has to, unless a step was interrupted three times in a row."""
        question = "SELECT id, state, outcome, error FROM runs WHERE job = ?"
        for run, state, outcome, error in self.place.rows(question, job.name):
            if state != "finished":
                yield run, f"is {state}"
            elif outcome != job.outcome:
                family = self.place.rows("SELECT id FROM runs WHERE id = ?1 OR caller = ?1", run)
                if outcome == "failed" and any(_three_in_a_row(self.place, one) for (one,) in family):
                    self.given_up += 1
                else:
                    yield run, f"ended as {outcome}, not as {job.outcome}: {error}"


def _hardened(job: jobs.Job) -> jobs.Job:
    """A job that survives any number of kills."""
    texts = {name: PREFIX + text for name, text in job.texts.items()}
    return replace(job, text=PREFIX + job.text.replace("max_attempts: 3", "max_attempts: 100000"), texts=texts)


def _victims(place: Place) -> Iterator[Victim]:
    """Supervisors, shims, and the leaders of steps."""
    ids = b"AGENTRUN_RUN_ID="
    for pid in place.processes():
        command, env = (_read(f"/proc/{pid}/{what}") for what in ("cmdline", "environ"))
        if b"agentrun" in b" ".join(command.split(b"\0")[:4]):
            yield Victim(pid, _kind(place, pid))
        elif (
            ids in env
            and (b"$STEP" in command or str(STEP).encode() in command)
            # what it forks has its command line, until it has become flock or sync: no tool of the ledger is killed
            and ids not in _read(f"/proc/{_parent(pid)}/environ")
        ):
            yield Victim(pid, "step")


def _kind(place: Place, pid: int) -> str:
    try:
        names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return "young"
    if not any(name.startswith(f"{place.home}/runs/") and name.endswith("/lock") for name in names):
        return "young"
    return "supervisor" if f"{place.home}/agentrun.db" in names else "shim"


def _kill(place: Place, pid: int) -> bool:
    """Kill a process of ours, and nobody who has its pid now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if f"TORTURE={place.root}".encode() not in _read(f"/proc/{pid}/environ").split(b"\0"):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _three_in_a_row(place: Place, run: str) -> bool:
    """Whether the last three attempts of a step that failed for it were interrupted, by nobody's wish."""
    question = "SELECT instance FROM steps WHERE run_id = ? AND outcome = 'failed' AND reason = 'interrupted'"
    for (instance,) in place.rows(question, run):
        last = "SELECT outcome, requested FROM attempts WHERE run_id = ? AND instance = ? ORDER BY number DESC LIMIT 3"
        if place.rows(last, run, instance) == [("interrupted", 0)] * 3:
            return True
    return False


def _general(place: Place) -> Iterator[str]:
    """What holds whatever the job."""
    lines = oracle.ledger(place)
    yield from oracle.damage(place)
    yield from oracle.gaps(place)
    yield from oracle.overlaps(lines)
    yield from oracle.repetitions(lines)
    yield from oracle.keys(lines)
    yield from oracle.unrecorded(place, lines)
    yield from oracle.unfounded(place, lines)
    yield from oracle.logs(place)
    yield from (f"run {run} has not finished" for run in place.unfinished())
    if left := place.processes():
        yield f"processes are left: {left}"


def _of_job(place: Place, job: jobs.Job) -> list[str]:
    """What its job asks of a run: the order of needs, and what an interrupted step may do."""
    runs = {run for (run,) in place.rows("SELECT id FROM runs WHERE job = ?1 OR caller IN"
                                         " (SELECT id FROM runs WHERE job = ?1)", job.name)}  # fmt: skip
    lines = [line for line in oracle.ledger(place) if line.run in runs]
    return [*oracle.order(lines, job), *oracle.policies(place, job)]


def _said(place: Place) -> list[str]:
    """No command has ended with a traceback."""
    said = place.said()
    return [f"somebody said: {said[at : at + 1500]}"] if (at := said.find("Traceback")) >= 0 else []


def _parent(pid: int) -> int:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
