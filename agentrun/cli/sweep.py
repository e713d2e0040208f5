"""`agentrun resume` without a RUN: everything that is due, a bounded number at once; safe to call every minute.

First every run that can go on and that nobody holds, each by a supervisor of its own (`agentrun supervise`); of those
that wait in line the newest of its key, when there is room. Then every job that has missed a tick, each by a process
that runs or records what was missed (`agentrun tick`). What is due is asked of the record alone: no job file is read
where nothing is due, nothing is written, and nothing is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from ..engine import create, lost
from ..engine.clock import wall
from ..engine.ending import status_of_run
from ..errors import Missing
from ..notify.hearers import deliver_due
from ..store import admission, locks
from ..store.database import open_for_reading
from ..store.folders import RunFolder, home
from ..store.jobs import JobQuestions
from ..store.read import Reader, Run
from . import answers, strays

_TAKEOVER_PATIENCE = 15_000  # ms: more than the longest pause of a shim before it starts a supervisor again
_POLL = 0.02  # seconds
_LET_CRON = 3.0  # seconds in which what cron starts with us has begun


def sweep(*, verbose: bool) -> int:
    """Do what is due. Returns 0 if all of it went well, or nothing was due."""
    root = home()
    connection = open_for_reading(root)
    if connection is None:
        return 0
    reader = Reader(connection)
    create.sweep_folders(root, reader)
    failed = 0
    due: list[Work] = []
    if not sys.stderr.isatty() and _leave_to_cron(root, reader):
        time.sleep(_LET_CRON)
    for run in reader.unfinished():
        if lost.is_lost(root, run):
            failed += 1
            strays.say_lost(root, run)
        elif why := _not_now(root, reader, run):
            if verbose:
                print(f"agentrun: {run.job}/{run.id} {why}", file=sys.stderr)
        else:  # also where only a shim holds it: it may be stopped, or have nobody left to serve
            due.append(Work(f"{run.job}/{run.id}", ("supervise", run.id), run.id))
    busy = {run.job for run in reader.unfinished()}  # what it has missed waits until that has ended
    late = JobQuestions(connection).due(wall())
    due += [Work(row.name, ("tick", row.name), None) for row in late if row.name not in busy]
    waiting = due[::-1]
    at_work: dict[int, tuple[Work, subprocess.Popen[bytes]]] = {}
    while waiting or at_work:
        while waiting and len(at_work) < 2 * (os.cpu_count() or 1):
            work = waiting.pop()
            process = _start(work)
            at_work[process.pid] = (work, process)
        work, process = at_work.pop(_wait_for_any(at_work))
        process.wait()
        if work.run_id is None:
            failed += process.returncode != 0  # it has said why
        elif told := _failure(root, reader, work.run_id, process.returncode):
            failed += 1
            strays.say_once(root, f"{work.run_id}.end", f"agentrun: {work.name} {told}")
    deliver_due(root, reader)
    connection.close()
    return 1 if failed else 0


def _leave_to_cron(root: str, reader: Reader) -> bool:
    """Whether a run of a scheduled job was interrupted: a tick of this very minute goes on with it, and then runs."""
    scheduled = {row.name for row in JobQuestions(reader.connection).jobs() if row.schedule is not None}
    return bool(scheduled) and any(run.job in scheduled and run.interrupted(root) for run in reader.unfinished())


class Work(NamedTuple):
    """Something that is due: a command that does it, and the run that it is about, if it is one."""

    name: str
    command: tuple[str, ...]
    run_id: str | None


def _not_now(root: str, reader: Reader, run: Run) -> str | None:
    """Why a run that is not finished is left alone."""
    if run.state == "waiting" and not answers.is_due(reader, run):
        return "waits for an answer"
    if locks.held(RunFolder(root, run.id).lock, locks.LEASE):
        return "is being advanced by somebody else"
    if run.state == "queued" and (other := admission.blocker(reader.connection, run.id)):
        return f"waits in line: run {other} is at work"
    line = admission.waiting_in_line(reader.connection, run.overlap_key) if run.overlap_key else []
    return f"waits in line behind run {line[-1]}" if run.id in line[:-1] else None


def _failure(root: str, reader: Reader, run_id: str, status: int) -> str | None:
    """What went wrong with a run whose supervisor has ended with that status; None if nothing did.

    The record decides: a step may lend the status of something harmless to its run.
    """
    lock = RunFolder(root, run_id).lock
    give_up = wall() + _TAKEOVER_PATIENCE
    while True:
        lease = locks.held(lock, locks.LEASE)
        shim = locks.held(lock, locks.SHIM)
        run = reader.run(run_id)  # read after the locks: who let go of them has written before
        if run.state == "finished":
            return None if run.outcome == "succeeded" else f"did not succeed (exit status {status_of_run(run)})"
        if run.state == "waiting":
            return None  # it has said what it waits for
        if lease:
            return None  # somebody else advances it
        if not shim or 0 < status != 75 or wall() > give_up:
            return f"did not finish (exit status {status if status >= 0 else 128 - status})"
        time.sleep(_POLL)  # its shim is about to start another supervisor, or to go


def _start(work: Work) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen([sys.executable, "-P", "-m", "agentrun", *work.command], stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Missing(f"cannot start {sys.executable}: {error.strerror}") from error


def _wait_for_any(at_work: Mapping[int, object]) -> int:
    """The pid of one of these that has ended; it is not reaped yet."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if ended.si_pid in at_work:
            return ended.si_pid
        os.waitpid(ended.si_pid, 0)  # the early shim, or some other child that is none of ours

