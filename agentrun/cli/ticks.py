"""`agentrun ticks JOB`: what became of a job's ticks, the newest first: which ran, which did not, and why."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..render.terminal import look_of, talk
from ..render.ticks import fate_shape, tick_table
from ..render.times import now_ms
from ..store.jobs import JobQuestions, TickRow
from ..store.read import Run
from . import complete as offers
from .names import find_job
from .record import need_record


def ticks(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's name, or its file.", autocompletion=offers.complete_run)
    ],
    limit: Annotated[int, typer.Option("-n", metavar="N", min=1, help="So many rows.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show what became of a job's ticks: which ran, which were skipped or missed, and why.

    Ticks that follow each other with one fate share a row.
    """
    record = need_record()
    name, _ = find_job(record, job)
    unrun = JobQuestions(record.reader.connection).ticks(name, limit=limit)
    rows: list[Run | TickRow] = sorted([*record.reader.ticks_run(name, limit=limit), *unrun], key=_time, reverse=True)
    if as_json:
        from ..render import jsonshape

        print(jsonshape.dumps([fate_shape(row) for row in rows[:limit]]))
        return 0
    if not rows:
        talk(f"job {name} has had no tick yet")
        return 0
    print("\n".join(tick_table(rows[:limit], look_of(sys.stdout), now_ms())))
    return 0


def _time(row: Run | TickRow) -> int:
    return row.last if isinstance(row, TickRow) else row.scheduled_time or row.created_at
