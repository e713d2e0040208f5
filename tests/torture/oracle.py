"""What must be so after anything that was done to a run, told from outside: by the ledger that its steps wrote, the
processes that are left, and the database read with nothing but sqlite3.

    begin RUN STEP ATTEMPT KEY PID INTERRUPTED      end RUN STEP ATTEMPT KEY PID STATUS      overlap …

Each question is one function that gives sentences; no sentence, no violation.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .jobs import Job
from .place import Place


class Line(NamedTuple):
    """A line of the ledger."""

    what: str
    run: str
    step: str  # the instance
    attempt: int
    key: str
    pid: int
    detail: str

    @property
    def instance(self) -> tuple[str, str]:
        return self.run, self.step


def ledger(place: Place) -> list[Line]:
    """The ledger, in the order in which it was written."""
    lines = []
    for text in place.ledger.read_text().splitlines():
        what, run, step, attempt, key, pid, detail = text.split(" ", 6)
        lines.append(Line(what, run, step, int(attempt), key, int(pid), detail))
    return lines


def violations(place: Place, job: Job, *, outcome: str | None = None, finished: bool = True) -> list[str]:
    """Everything that is not as it must be. Nothing of the place runs any more.

    `outcome`: how runs of the job must have ended (the job's own way, if none is given; "" for any). `finished`:
    they must have.
    """
    lines = ledger(place)
    found = [*damage(place), *gaps(place), *overlaps(lines), *repetitions(lines), *keys(lines)]
    found += [*unrecorded(place, lines), *unfounded(place, lines), *policies(place, job), *logs(place)]
    found += forgotten(place)
    found += order(lines, job)
    if finished:
        found += ends(place, job.outcome if outcome is None else outcome, job.name)
    if left := place.processes():
        found.append(f"processes are left: {left}")
    return found


def ends(place: Place, outcome: str, name: str) -> Iterator[str]:
    """Every run is finished; the job's own as it has to."""
    for run, job, state, ended, error in place.rows("SELECT id, job, state, outcome, error FROM runs"):
        if state != "finished":
            yield f"run {run} of {job} is {state}"
        elif outcome and job == name and ended != outcome:
            yield f"run {run} of {job} ended as {ended}, not as {outcome}: {error}"


def damage(place: Place) -> Iterator[str]:
    """SQLite's own checks."""
    file = place.home / "agentrun.db"
    if not file.exists():
        return
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
        for (word,) in connection.execute("PRAGMA integrity_check"):
            if word != "ok":
                yield f"the database is damaged: {word}"
        for row in connection.execute("PRAGMA foreign_key_check"):
            yield f"a row refers to nothing: {row}"


def gaps(place: Place) -> Iterator[str]:
    """The journal's numbers are 1, 2, 3, … in every run."""
    for run, last, number in place.rows("SELECT run_id, max(seq), count(*) FROM events GROUP BY run_id"):
        if last != number:
            yield f"the journal of run {run} has {number} lines, and the last has number {last}"


def overlaps(lines: list[Line]) -> Iterator[str]:
    """A step found the lock of its instance taken: another attempt was alive."""
    for line in lines:
        if line.what == "overlap":
            yield f"attempt {line.attempt} of {line.step} began while another was alive"


def repetitions(lines: list[Line]) -> Iterator[str]:
    """No attempt begins twice, none begins after one that ended well, and they begin in their order."""
    begun: dict[tuple[str, str], list[int]] = defaultdict(list)
    for line in lines:
        if line.what == "begin":
            if line.attempt in begun[line.instance]:
                yield f"attempt {line.attempt} of {line.step} began twice"
            elif begun[line.instance] and line.attempt < begun[line.instance][-1]:
                yield f"attempt {line.attempt} of {line.step} began after {begun[line.instance][-1]}"
            begun[line.instance].append(line.attempt)


def keys(lines: list[Line]) -> Iterator[str]:
    """Every attempt of an instance has the same idempotency key, and no other instance has it."""
    known: dict[tuple[str, str], str] = {}
    owners: dict[str, tuple[str, str]] = {}
    for line in lines:
        if known.setdefault(line.instance, line.key) != line.key:
            yield f"{line.step} had the key {known[line.instance]}, and then {line.key}"
        if owners.setdefault(line.key, line.instance) != line.instance:
            yield f"{line.step} has the key of {owners[line.key]}"


def unrecorded(place: Place, lines: list[Line]) -> Iterator[str]:
    """Nothing began that the record does not know of."""
    known = set(place.rows("SELECT run_id, instance, number FROM attempts"))
    for line in lines:
        if line.what == "begin" and (line.run, line.step, line.attempt) not in known:
            yield f"attempt {line.attempt} of {line.step} in run {line.run} began, and no record knows it"


def unfounded(place: Place, lines: list[Line]) -> Iterator[str]:
    """What reads succeeded did begin and end well; and once it was so recorded, the step never ran again."""
    ended = {(line.run, line.step, line.attempt): line.detail for line in lines if line.what == "end"}
    question = "SELECT a.run_id, a.instance, a.number, a.outcome, s.outcome, s.attempt FROM attempts a"
    question += " JOIN steps s ON s.run_id = a.run_id AND s.instance = a.instance JOIN runs r ON r.id = a.run_id"
    callers = set(place.rows("SELECT caller, caller_instance FROM runs WHERE caller IS NOT NULL"))
    for run, step, number, outcome, _of_step, last in place.rows(question):
        if (run, step) in callers:
            continue  # a step that is a run: its process is ours
        end = ended.get((run, step, number))
        if outcome == "succeeded" and end != "0":
            yield f"attempt {number} of {step} reads succeeded, and in the ledger it ended {end}"
        if outcome == "succeeded" and last > number:
            yield f"attempt {last} of {step} was begun after attempt {number} had succeeded"


def forgotten(place: Place) -> Iterator[str]:
    """What the shim wrote down as ended well, in this boot, was not taken for interrupted."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    callers = set(place.rows("SELECT caller, caller_instance FROM runs WHERE caller IS NOT NULL"))
    lost = place.rows("SELECT run_id, instance, number FROM attempts WHERE outcome = 'interrupted'")
    for run in {run for run, _, _ in lost}:
        results = place.home / "runs" / run / "results"
        for text in results.read_text(errors="replace").splitlines() if results.exists() else ():
            with contextlib.suppress(ValueError):
                ended = json.loads(text[9:])
                key = (run, ended["instance"], ended["attempt"])
                well = ended["exit_code"] == 0 and ended["ended_by"] is None and ended["boot_id"] == boot
                if well and key in lost and key[:2] not in callers:
                    yield f"attempt {key[2]} of {key[1]} had ended well, and was taken for interrupted"


def policies(place: Place, job: Job) -> Iterator[str]:
    """After an interruption goes on only what may."""
    question = "SELECT run_id, instance, number FROM attempts WHERE outcome = 'interrupted' AND NOT requested"
    question += " AND run_id IN (SELECT id FROM runs WHERE job = ?)"
    for run, step, number in place.rows(question, job.name):
        if job.policies.get(step.partition("[")[0]) in ("skip", "fail"):
            later = "SELECT 1 FROM attempts WHERE run_id = ? AND instance = ? AND number > ?"
            if place.rows(later, run, step, number):
                yield f"{step} was interrupted in attempt {number} and ran again, against its on_interrupt"


def order(lines: list[Line], job: Job) -> Iterator[str]:
    """Nothing begins before all instances of what it needs have ended for the last time."""
    begins: dict[tuple[str, str], list[int]] = defaultdict(list)
    last: dict[tuple[str, str], int] = defaultdict(int)
    for place, line in enumerate(lines):
        name = line.step.partition("[")[0]
        last[line.run, name] = place
        if line.what == "begin":
            begins[line.run, name].append(place)
    for (run, name), places in begins.items():
        for need in job.needs.get(name, ()):
            if last.get((run, need), -1) > places[0]:
                yield f"{name} began before {need} was over"


def logs(place: Place) -> Iterator[str]:
    """The log of what succeeded holds what its step wrote."""
    callers = set(place.rows("SELECT caller, caller_instance FROM runs WHERE caller IS NOT NULL"))
    done = place.rows("SELECT run_id, instance, number FROM attempts WHERE outcome = 'succeeded'")
    for run, step, number in done:
        if (run, step) in callers:
            continue
        path = place.home / "runs" / run / "log" / f"{step}#{number}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        if text != f"begin {step}#{number}\nend {step}#{number}\n":
            yield f"the log of {step}#{number} holds {text!r}"
