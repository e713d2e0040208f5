"""`agentrun pause JOB` and `agentrun unpause JOB`: let the ticks of a job be skipped for a while, with who and why."""

from __future__ import annotations

from typing import Annotated

import typer

from ..engine.lease import this_process
from ..render.terminal import talk
from ..render.times import full, now_ms
from ..store.jobs import Jobs
from . import advance
from . import complete as offers
from .names import find_job
from .record import open_record

_Job = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's name, or its file.", autocompletion=offers.complete_run)
]


def pause(
    job: _Job, why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="Why, for those who look.")] = None
) -> int:
    """Let the ticks of a job be skipped until `unpause`.

    Its runs that are at work go on. Each skipped tick is on record. A run that is started by hand, or by `backfill`, is
    not held up.
    """
    name, file = find_job(open_record(), job)
    with advance.open_store() as store:
        jobs = Jobs(store.database)
        if jobs.pause(name, file, by=str(this_process()["user"]), why=why, now=now_ms()):
            talk(f"job {name} is paused: its ticks are skipped until `agentrun unpause {name}`")
            return 0
        row = jobs.job(name)
        assert row is not None and row.paused_at is not None, "what cannot be paused is paused"
        reason = f" ({row.paused_why})" if row.paused_why else ""
        talk(f"job {name} is paused already, by {row.paused_by} since {full(row.paused_at)}{reason}")
    return 0


def unpause(job: _Job) -> int:
    """Let the ticks of a paused job run again.

    Those that were skipped stay so: `backfill` runs them.
    """
    name, _ = find_job(open_record(), job)
    with advance.open_store() as store:
        jobs = Jobs(store.database)
        row = jobs.unpause(name)
        if row is None:
            talk(f"job {name} was not paused")
            return 0
        since = row.paused_at or 0
        skipped = sum(one.number for one in jobs.ticks(name) if one.reason == "paused" and one.at >= since)
        left = f"; {skipped} {'tick was' if skipped == 1 else 'ticks were'} skipped meanwhile" if skipped else ""
        talk(f"job {name} runs again with its next tick{left}")
    return 0
