"""The runs: what waits for somebody to go on with it, what was left running, what lost its folder or its record."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..engine.clock import Clock
from ..errors import Missing
from ..model import split_instance
from ..step import procs
from ..store import locks
from ..store.folders import RunFolder
from ..store.inspection import Inspection, OpenRun
from ..store.snapshots import Snapshot
from .finding import Finding, bad, good, several, some
from .site import Site

_LATE = 900_000  # ms after which a parked run is overdue: crontabs resume every few minutes
_SWEEP_AGE = 3600.0  # seconds: what `resume` takes for left behind (engine/create.py)


def stranded_runs(site: Site) -> Finding:
    """No run that could go on is held by nobody."""
    stranded = [run for run in _open(site) if _goes_on(run) and not run.held(site.root) and _kept(site, run)]
    if not stranded:
        return good("every run that is not finished is in somebody's care")
    one = stranded[0].id if len(stranded) == 1 else ""
    return bad(
        f"nobody goes on with {several(len(stranded), 'run')}, interrupted or overdue: {_names(stranded)}",
        f"agentrun resume {one}".rstrip() + "; a crontab line with `agentrun resume` does that by itself",
    )


def _goes_on(run: OpenRun) -> bool:
    """Whether it needs nothing but somebody to go on with it: it is not parked, or its time has come since long."""
    if run.state != "waiting":
        return True
    elapsed = Clock(run.elapsed, run.seen, run.boot_id).stamp().elapsed
    return run.wake_at is not None and elapsed > run.wake_at + _LATE


def waiting_runs(site: Site) -> Finding:
    """What waits for a person, parked or with a called run that asks; and why that is no fault."""
    record = site.record
    asking = record.asking() if record else set()
    parked = [run for run in _open(site) if not _goes_on(run)]
    others = [run for run in _open(site) if _goes_on(run) and run.id in asking]
    said = [f"{several(len(parked), 'run')} parked: {_names(parked)}"] if parked else []
    said += [f"{several(len(others), 'run')} with a step that waits for an answer: {_names(others)}"] if others else []
    if not said:
        return good("none")
    return good(f"{'; '.join(said)}; `agentrun status RUN` says for what")


def lost_runs(site: Site) -> Finding:
    """No unfinished run has lost its folder: it could not go on."""
    lost = [run for run in _open(site) if not _kept(site, run)]
    if not lost:
        return good("none")
    return bad(
        f"the folder of {several(len(lost), 'unfinished run')} is gone: {_names(lost)}",
        f"put it back from a backup, or end the record: agentrun cancel {lost[0].id}",
    )


def orphan_folders(site: Site) -> Finding:
    """No folder of a run is without its record."""
    try:
        with os.scandir(os.path.join(site.root, "runs")) as entries:
            ages = {entry.name: site.now / 1000 - entry.stat().st_mtime for entry in entries if entry.is_dir()}
    except FileNotFoundError:
        return good("no folders yet")
    record = site.record
    known = record.states(ages) if record else {}
    orphans = sorted(name for name in ages if name not in known)
    old = [name for name in orphans if ages[name] > _SWEEP_AGE and not _held(site, name)]
    if old:
        return bad(
            f"{several(len(old), 'folder')} in {site.root}/runs without a record: {some(old)}",
            "if the database was lost or replaced: agentrun doctor --repair; else the next `agentrun resume` removes"
            " what was left behind before it could be recorded",
        )
    young = f"; {several(len(orphans), 'run')} being recorded" if orphans else ""
    return good(f"{several(len(ages) - len(orphans), 'folder')}, each with its record{young}")


def leftover_processes(site: Site) -> Finding:
    """No process of a run lives that nobody holds, unless its step may leave one running."""
    found = [one for one in _tagged(site) if not _held(site, one.run)]
    if not found:
        return good("no process carries the mark of a run that nobody holds")
    try:
        record = site.record
        states = record.states({one.run for one in found}) if record else {}
    except Missing:
        record, states = None, {}
    wrong = [one for one in found if states.get(one.run) != "finished" or not _may_last(record, one)]
    if not wrong:
        return good(f"left running on purpose (`leave_running`): {_processes(found)}")
    open_run = next((one.run for one in wrong if states.get(one.run, "finished") != "finished"), None)
    if open_run:
        remedy = f"agentrun resume {open_run} ends them and goes on; agentrun cancel {open_run} ends the run"
    else:
        remedy = "their runs have finished: kill " + " ".join(str(one.pid) for one in wrong)
    return bad(f"processes of runs that nobody holds: {_processes(wrong)}", remedy)


class _Tagged(NamedTuple):
    """A process that carries the mark of a run, and of which step."""

    pid: int
    run: str
    step: str


def _processes(found: list[_Tagged]) -> str:
    return some([f"{one.pid} (run {one.run}, step {one.step})" for one in found])


def _tagged(site: Site) -> list[_Tagged]:
    """The processes, but for ours and those that we descend from, that were started by runs of this state folder."""
    found = []
    runs = os.path.realpath(os.path.join(site.root, "runs"))
    line = _line()
    for pid in procs.every_pid():
        if pid in line:
            continue
        marks = procs.environment(pid)
        run, folder, step = (
            os.fsdecode(marks.get(name, b"")) for name in (b"AGENTRUN_RUN_ID", b"AGENTRUN_RUN_DIR", b"AGENTRUN_STEP")
        )
        if run and os.path.realpath(folder) == os.path.join(runs, run, "scratch"):
            process = procs.look_up(pid)
            if process and process.alive:
                found.append(_Tagged(pid, run, step))
    return found


def _line() -> set[int]:
    """This process and those that it descends from."""
    line: set[int] = set()
    pid = os.getpid()
    while pid and pid not in line:
        line.add(pid)
        process = procs.look_up(pid)
        pid = process.parent if process else 0
    return line


def _may_last(record: Inspection | None, one: _Tagged) -> bool:
    """Whether the step of a process says that it may leave something running."""
    known = record.job_file(one.run) if record else None
    if known is None:
        return False
    # from its text: what lies beside it, ready decoded, is believed only where nobody else can write
    job = Snapshot.job_in(known.text, "", b"", known.file)
    return any(step.leave_running for step in job.steps if step.id == split_instance(one.step)[0])


def _open(site: Site) -> list[OpenRun]:
    record = site.record
    return record.unfinished() if record else []


def _kept(site: Site, run: OpenRun) -> bool:
    return os.path.exists(RunFolder(site.root, run.id).lock)


def _held(site: Site, run_id: str) -> bool:
    lock = RunFolder(site.root, run_id).lock
    return locks.held(lock, locks.LEASE) or locks.held(lock, locks.SHIM)


def _names(runs: list[OpenRun]) -> str:
    return some([f"{run.job}/{run.id}" for run in runs])
