"""Reboot: all of a run dies at one instant, the machine comes up as another boot, and `resume` finishes the run.

The run stands still at a fault point that a seed chooses; then everybody is killed at once. The boot id is another
after that, the time since boot begins anew, and bystanders have the pids of the supervisor, the shim and the steps. The
end of the results file that was not yet taken into the record is, by the seed: there, cut off, torn, or turned into
zeros, since nobody syncs it. A third of the cases are rebooted again in the middle of the `resume`.

What must hold, beyond what always must: what was running at the reboot reads interrupted ever after, also if its good
end stands in the results file, since the disk need not have the files that it cites; no bystander hears a signal, not
even when the record's owner has its very pid and start time, and somebody forces; `status` knows beforehand that the
run was interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import sqlite3
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import jobs, oracle
from .machine import Machine, Report, apart, lacking
from .place import LIMIT, Place, Stuck
from .points import points
from .standstill import Standstill
from .tally import Tally, Wanted

WORKERS = 2
LOST = ("nothing", "all", "torn", "zeros")  # of the end of the results file
JOBS = {job.name: job for job in jobs.ALL}


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("reboot")
    if why := lacking():
        tally.notes.append(f"skipped: needs {why}")
        return tally
    seen: Counter[str] = Counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        for case, report in zip(cases := list(_plan(wanted)), pool.map(_one(wanted), cases), strict=True):
            if report:
                tally.add(report.violations, case="{} at {} seed {}".format(*case), faults=report.faults)
                seen.update(report.notes)
    tally.notes += [f"{number} x {what}" for what, number in sorted(seen.items())]
    return tally


def _one(wanted: Wanted) -> Callable[[tuple[str, int, int]], Report | None]:
    def one(case: tuple[str, int, int]) -> Report | None:
        return None if wanted.is_over else apart("reboot:play", *case, str(wanted.package))

    return one


def _plan(wanted: Wanted) -> Iterator[tuple[str, int, int]]:
    """Job, point, seed."""
    totals = {}
    for seed in wanted.seeds(wanted.pick(ci=1, normal=8, full=50)):
        chance = random.Random(seed)
        for job in chance.sample(jobs.ALL, wanted.pick(ci=3, normal=8, full=8)):
            if job.name not in totals:
                totals[job.name] = len(points(job, wanted.package))
            yield job.name, chance.randint(1, totals[job.name]), seed


# ---- one case


def play(machine: Machine, name: str, at: int, seed: int, package: str) -> Report:
    """One run, cut at one point."""
    chance = random.Random(f"{name} {at} {seed}")
    job = JOBS[name]
    found: list[str] = []
    with Place(Path(package)) as place:
        path = job.write(place)
        at_risk: set[tuple[str, str, int]] = set()
        try:
            stood = _cut(machine, place, Standstill(place, at, seed=seed), "run", path)
            if stood is None:
                place.wait_quiet()
                return Report(oracle.violations(place, job), 0, ["over before its point"])
            found += _come_up(machine, place, chance, at_risk)
            if place.unfinished() and chance.random() < 1 / 3:
                again = Standstill(place, chance.randint(1, 80), name="again", seed=seed)
                if _cut(machine, place, again, "resume"):
                    stood += f", then at {again.name}"
                    found += _come_up(machine, place, chance, at_risk)
            if place.unfinished():
                answer = place.command("resume")
                if answer.returncode != (0 if job.outcome == "succeeded" else 1):
                    found.append(f"resume gave {answer.returncode}: {answer.stderr[-300:]}")
            elif not place.runs():
                place.command("run", path)
            place.wait_quiet()
        except Stuck as stuck:
            found.append(str(stuck))
        found += [*oracle.violations(place, job), *machine.disturbed(), *_believed(place, at_risk)]
        found += [f"a traceback: {place.said()[-400:]}"] if "Traceback" in place.said() else []
    boots = [f"{machine.boots - 1} reboots" if machine.boots > 2 else "1 reboot"]
    return Report([f"at {stood}: {one}" for one in found], machine.boots - 1 + len(machine.bystanders), boots)


def _cut(machine: Machine, place: Place, stand: Standstill, *command: str) -> str | None:
    """Start the command; when it stands still at its point everybody dies. None if it never did."""
    process = place.start(*command, **stand.env)
    try:
        if stand.wait(process) is None:
            return None
        pids = place.processes()
        machine.reboot(random.Random(stand.name).uniform(3, 60))
        process.wait(LIMIT)
        place.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        machine.take(*pids)
        return stand.name
    finally:
        stand.close()


def _come_up(machine: Machine, place: Place, chance: random.Random, at_risk: set[tuple[str, str, int]]) -> list[str]:
    """What the disk may have lost is lost; then look, and try to force, before anything is resumed."""
    at_risk.update(place.rows("SELECT run_id, instance, number FROM attempts WHERE state = 'running'"))
    found = []
    for run, state, seen in place.rows("SELECT id, state, results_seen FROM runs WHERE state <> 'finished'"):
        _lose(place.home / "runs" / run / "results", seen, chance.choice(LOST))
        if state == "running":
            answer = json.loads(place.command("status", run, "--json").stdout)
            if not answer["interrupted"]:
                found.append(f"status does not say that run {run} was interrupted")
        found += _force_in_vain(machine, place, run)
    return found


def _lose(results: Path, seen: int, lost: str) -> None:
    """The end of the results that are not in the record yet."""
    if not results.exists() or lost == "nothing":
        return
    size = results.stat().st_size
    kept = {"all": seen, "torn": seen + (size - seen) // 2, "zeros": seen}[lost]
    os.truncate(results, kept)
    if lost == "zeros":
        os.truncate(results, size)


def _force_in_vain(machine: Machine, place: Place, run: str) -> list[str]:
    """Somebody holds the run, and a bystander is the owner that the record names, but for the boot: nobody is ended."""
    owner = json.loads(place.rows("SELECT owner FROM runs WHERE id = ?", run)[0][0] or "null")
    lock = place.home / "runs" / run / "lock"
    if not owner or owner["pid"] not in [one.pid for one in machine.bystanders] or not lock.exists():
        return []
    # asked by a child, since start times are counted from the boot that a process knows
    stat = subprocess.run(["cat", f"/proc/{owner['pid']}/stat"], capture_output=True, text=True, check=True).stdout
    owner["start"] = int(stat.rpartition(")")[2].split()[19])
    with contextlib.closing(sqlite3.connect(place.home / "agentrun.db", isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET owner = ? WHERE id = ?", (json.dumps(owner), run))
    fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        answer = place.command("resume", run, "--force")
    finally:
        os.close(fd)
    if answer.returncode != 75:
        return [f"resume --force of a run that a stranger holds gave {answer.returncode}: {answer.stderr[-300:]}"]
    return []


def _believed(place: Place, at_risk: set[tuple[str, str, int]]) -> Iterator[str]:
    """What was running at a reboot was interrupted: nothing else can be known of it.

    But of a step that is a run: the end of that one stands in the record, and was committed.
    """
    callers = place.rows("SELECT caller, caller_instance FROM runs WHERE caller IS NOT NULL AND state = 'finished'")
    for attempt in sorted(at_risk):
        if attempt[:2] in callers:
            continue
        question = "SELECT outcome FROM attempts WHERE run_id = ? AND instance = ? AND number = ?"
        for (outcome,) in place.rows(question, *attempt):
            if outcome != "interrupted":
                yield f"attempt {attempt[2]} of {attempt[1]} was running at the reboot, and reads {outcome}"
