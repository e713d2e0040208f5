"""Every system call: over a run of three steps the supervisor or the shim is killed at its 1st, 2nd, … call of each
name, or that call fails with an error that a machine in trouble may give (no space, no memory, no descriptors, I/O).

Errors only where the program itself is at work: a call for a file of the interpreter or of a library fails inside of
the interpreter, before agentrun could know. A call that fails may end the run as failed, for an attempt whose process
cannot be made has failed; then `resume RUN` must finish it. Needs strace.

What must hold: the oracle's questions after at most one `resume`; exit status 0 exactly where the record says
succeeded; no traceback; what was written and could not be kept in the log is said there.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .injection import NEEDS, ROLES, Fault, Tracer, available, baseline, errors_of, missed
from .jobs import SEQUENCE
from .place import Place, Stuck
from .points import after
from .tally import Tally, Wanted

WORKERS = 2
_OWN = re.compile(r"PLACE/|<(?:socket|pipe|anon_inode|UNIX)")  # not a file of the interpreter
_FOREIGN = re.compile(r'<?/(?!dev/null|proc)[^"<>]*|"[^"]*"')


class Case(NamedTuple):
    """What came of a fault. `hit`: the call that failed. `charged`: the run had failed for it."""

    violations: list[str]
    hit: str
    charged: bool


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("syscalls")
    if not available():
        tally.notes.append(NEEDS)
        return tally
    charged = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in _batches(list(_faults(wanted)), wanted):
            for fault, case in zip(batch, pool.map(lambda fault: play(fault, wanted.package), batch), strict=True):
                tally.add(case.violations, case=f"{fault} [{case.hit}]", faults=int(bool(case.hit)))
                charged += case.charged
    tally.notes.append(f"{charged} runs failed for the fault and were resumed")
    return tally


def _batches(faults: list[Fault], wanted: Wanted) -> Iterator[list[Fault]]:
    for first in range(0, len(faults), 2 * WORKERS):
        if wanted.is_over:
            return
        yield faults[first : first + 2 * WORKERS]


def _faults(wanted: Wanted) -> list[Fault]:
    """All of them at the full scale, else some of each kind: in a random order, so that a limit of time is fair."""
    chance = random.Random(wanted.seed)
    kinds: dict[tuple[str, str, str], list[Fault]] = {}
    for role in ROLES:
        for call in baseline(wanted.package, role, SEQUENCE.text):
            kills = kinds.setdefault((role, call.name, "KILL"), [])
            kills.append(Fault(role, call.name, call.number, "KILL"))
            if is_own(call.text):
                for error in errors_of(call):
                    kinds.setdefault((role, call.name, error), []).append(Fault(role, call.name, call.number, error))
    if wanted.scale == "full":
        chosen = [fault for faults in kinds.values() for fault in faults]
    elif wanted.scale == "normal":
        chosen = [fault for faults in kinds.values() for fault in chance.sample(faults, min(4, len(faults)))]
    else:
        telling = [key for key in sorted(kinds) if key[1] in ("write", "pwrite64", "fdatasync", "clone3", "sendto")]
        chosen = [chance.choice(kinds[key]) for key in chance.sample(telling, 8)]
    chance.shuffle(chosen)
    return chosen


def is_own(text: str) -> bool:
    """Whether a call is the program's own: not for a file of the interpreter, a library or the system."""
    return bool(_OWN.search(text)) or not _FOREIGN.search(text)


def play(fault: Fault, package: Path) -> Case:
    """One run with one fault, and one resume."""
    with Place(package) as place:
        path = SEQUENCE.write(place)
        tracer = None
        try:
            tracer = Tracer(place, fault.role, fault.options(place), "run", path)
            place.wait_quiet()
            status = tracer.process.wait()
            hit = (tracer.injected() or [""])[0].replace(str(place.root), "PLACE")
            if missed(fault, hit):
                return Case([], "", False)
            found, charged = judge(place, path, status, fault.what == "KILL")
        except (Stuck, sqlite3.Error) as stuck:
            hit = ((tracer.injected() if tracer else []) or [""])[0]
            if missed(fault, hit):
                return Case([], "", False)
            return Case([f"{type(stuck).__name__}: {stuck}"], hit, False)
        return Case(found, hit, charged)


def judge(place: Place, path: str, status: int, was_killed: bool) -> tuple[list[str], bool]:
    """What is wrong with a run that has met its fault, after one resume; and whether it had failed for it."""
    found = list(untrue(place, status))
    shown = place.command("status")
    if shown.returncode or "Traceback" in shown.stderr:
        found.append(f"status {shown.returncode}: {shown.stderr[-300:]}")
    ended = place.rows("SELECT id, outcome, error FROM runs WHERE state = 'finished' AND outcome <> 'succeeded'")
    if ended:
        resumed = place.command("resume", ended[0][0])
        if resumed.returncode:
            found.append(f"failed ({ended[0][2]}), and resume: {resumed.stderr[-300:]}")
        place.wait_quiet()
    found += after(place, SEQUENCE, path)
    found = [each for each in found if was_killed or not is_told(each)]
    if "Traceback" in (said := place.said()):
        found.append(f"a traceback: {said[-400:]}")
    return found, bool(ended)


def untrue(place: Place, status: int) -> Iterator[str]:
    """The exit status says succeeded exactly where the record does (of a supervisor that was not killed)."""
    outcomes = [row[0] for row in place.rows("SELECT outcome FROM runs")]
    if status == 0 and outcomes != ["succeeded"]:
        yield f"exit status 0, and the record says {outcomes}"


def is_told(violation: str) -> bool:
    """Whether a log that is not whole says so itself: the disk refused a part of it, and the step went on."""
    return violation.startswith("the log of") and "could not be written]" in violation


