"""`agentrun tick JOB`: run or record what a job has missed. Started by `agentrun resume`, for a job of the record.

Its file is read again: where that is gone, or says nothing of a schedule any more, what was missed until now is on
record, and the job counts as scheduled no more, until a tick of it is started or it is installed again. A file that is
wrong is cron's next tick to complain of; until then the job is looked at once an hour.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..cron.attend import missed_since
from ..engine.clock import wall
from ..engine.lease import this_process
from ..errors import AgentrunError, NotFound
from ..model import Job
from ..notify.hearers import encoded, hearers
from ..store.jobs import JobRow, Jobs
from . import advance, starts, turns
from .run import check_children, snapshot_of

_LATER = 86_400_000  # ms until a job that cannot be looked after is looked at again


def tick(job: Annotated[str, typer.Argument(help="The job's name.")]) -> int:
    """Run or record what a job has missed."""
    now = wall()
    with advance.open_store() as store:
        jobs = Jobs(store.database)
        row = jobs.job(job)
        if row is None or row.schedule is None:
            raise NotFound(f"job {job} is not scheduled", "`agentrun status` lists the jobs")
        if not os.path.exists(row.file):
            return _gone(jobs, row, now)
        try:
            snapshot = snapshot_of(store, row.file)
            check_children(snapshot, row.file)
            if not snapshot.job.schedule or snapshot.job.name != job:
                _unschedule(jobs, row, snapshot.job, now)
                return 0
            end = starts.Start(store, snapshot, row.file, None).attend(now, fired=False)
        except AgentrunError:
            jobs.look_again(job, now + _LATER)
            print(f"agentrun: job {job} has missed a tick, and cannot be looked after:", file=sys.stderr)
            raise
        return end.status if end.over or end.status in turns.STOPPED else 0


def _gone(jobs: Jobs, row: JobRow, now: int) -> int:
    _unschedule(jobs, row, None, now)
    if jobs.gone(row.name, now=now):
        print(
            f"agentrun: the file of job {row.name} is gone: {row.file}\n"
            f"  put it back and install it again, or let go of it: agentrun uninstall {row.name}",
            file=sys.stderr,
        )
        return NotFound.exit_code
    return 0


def _unschedule(jobs: Jobs, row: JobRow, job: Job | None, now: int) -> None:
    notify = encoded(hearers(job))
    jobs.unschedule(row.name, unrun=missed_since(row, jobs, now), notify=notify, now=now, by=_by())


def _by() -> str:
    return str(this_process()["user"])
