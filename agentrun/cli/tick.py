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
from ..engine import create
from ..engine.clock import wall
from ..engine.lease import this_process
from ..errors import JobFileError, NotFound, UsageError
from ..model import Job
from ..notify.hearers import encoded, hearers
from ..store.jobs import JobRow, Jobs
from ..store.write import Store
from . import advance, starts
from .run import check_children, snapshot_of

_LATER = 3_600_000  # ms until a job whose file is wrong is looked at again


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
            params = create.parameters(snapshot.job, ())
        except (JobFileError, UsageError) as error:
            jobs.look_again(job, now + _LATER)
            print(f"agentrun: job {job} has missed a tick, and cannot be looked at:", file=sys.stderr)
            raise error
        if not snapshot.job.schedule or snapshot.job.name != job:
            _unschedule(jobs, row, snapshot.job, now)
            return 0
        return _attend(store, starts.Start(store, snapshot, row.file, params), now)


def _attend(store: Store, start: starts.Start, now: int) -> int:
    status = start.attend(now, fired=False)
    return 0 if status == 75 else status


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
