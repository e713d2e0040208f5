"""What became of the ticks of jobs: a table of them, the lines below the runs in `status`, and the JSON of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..instants import rfc3339
from ..store.jobs import JobRow, TickRow
from ..store.read import Run
from . import times, words
from .status import command
from .tables import Column, Row, table
from .terminal import Look, printable
from .ticktimes import distance
from .times import rfc3339_or_none

_COLUMNS = (Column("TICK"), Column("FATE"), Column("RUN", drop=1))
_WHY = {
    "overlap": "another run was at work",
    "paused": "the job was paused",
    "catch_up": "nobody started it in time",
    "start_deadline": "it was older than the start_deadline",
    "limit": "more than 100 were missed",
    "file": "its job file was gone, or had no schedule any more",
}
_SHOWN = 3  # rows of what did not run, for each job


def tick_table(rows: Sequence[Run | TickRow], look: Look, now: int) -> list[str]:
    """Ticks that ran and ticks that did not, as they come."""
    lines = []
    for row in rows:
        if isinstance(row, Run):
            word: str = row.outcome or row.state
            cells = (times.full(row.scheduled_time or row.created_at), word, row.id)
            lines.append(Row(cells, {1: words.style(word)}, printable(row.error or "")))
        else:
            cells = (times.full(row.first), row.fate, row.because or "-")
            lines.append(Row(cells, {1: words.style("skipped")}, _what(row, now)))
    return table(_COLUMNS, lines, look)


def job_lines(job: JobRow, unrun: Sequence[TickRow], now: int, upcoming: int | None) -> list[str]:
    """What a person should know of a job besides its runs: that it is paused, gone, and what did not run.

    `upcoming`: its next tick.
    """
    lines = []
    if upcoming is not None and job.paused_at is None:
        lines.append(f"{job.name}: next tick {times.minute(upcoming)}, {distance(upcoming - now)}")
    if job.paused_at is not None:
        why = f" ({printable(job.paused_why)})" if job.paused_why else ""
        since = times.short(job.paused_at, now)
        lines.append(f"{job.name} is paused by {job.paused_by} since {since}{why}: {command('unpause', job.name)}")
    if job.gone_at is not None:
        lines.append(f"{job.name}: its file is gone since {times.short(job.gone_at, now)}: {printable(job.file)}")
    return lines + unrun_lines([row for row in unrun if row.reason != "paused" or job.paused_at is None], now)


def unrun_lines(rows: Sequence[TickRow], now: int) -> list[str]:
    """What did not run of a job, the newest rows of it."""
    lines = []
    for row in rows[-_SHOWN:]:
        what = words.count(row.number, "tick" if row.scheduled else "start")
        lines.append(f"{row.job}: {what} {row.fate}, {_when(row, now)}: {_why(row)}")
    if rows[_SHOWN:]:
        lines.append(f"{rows[0].job}: more with {command('ticks', rows[0].job)}")
    return lines


def _what(row: TickRow, now: int) -> str:
    many = f"{row.number} ticks, until {times.minute(row.last)}: " if row.number > 1 else ""
    return f"{many}{_why(row)}"


def _when(row: TickRow, now: int) -> str:
    if row.number == 1:
        return times.short(row.first, now)
    return f"{times.minute(row.first)} to {times.minute(row.last)}"


def _why(row: TickRow) -> str:
    if row.because is not None:
        return f"run {row.because} was at work"
    return _WHY.get(row.reason, row.reason)


def fate_shape(row: Run | TickRow) -> dict[str, Any]:
    """A tick, or a row of ticks with one fate. `fate`: ran, skipped or missed; `number`: so many, `time` to `last`.

    Of what ran, `run` is the run and `outcome` its outcome, null while it is not finished; of the others `reason` and
    `because` (the run that was in the way). `scheduled` is false of a start that belonged to no tick, and was skipped.
    """
    if isinstance(row, Run):
        at = rfc3339_or_none(row.scheduled_time)
        return {
            "schema": "agentrun.fate/1", "job": row.job, "time": at, "last": at, "number": 1, "fate": "ran",
            "reason": None, "because": None, "scheduled": True, "run": row.id, "state": row.state,
            "outcome": row.outcome, "at": rfc3339(row.created_at), "by": None,
        }  # fmt: skip
    return {
        "schema": "agentrun.fate/1", "job": row.job, "time": rfc3339(row.first), "last": rfc3339(row.last),
        "number": row.number, "fate": row.fate, "reason": row.reason, "because": row.because,
        "scheduled": row.scheduled, "run": None, "state": None, "outcome": None, "at": rfc3339(row.at), "by": row.by,
    }  # fmt: skip


def pause_shape(job: JobRow) -> dict[str, Any] | None:
    """Since when, by whom and why a job is paused; None if it is not."""
    if job.paused_at is None:
        return None
    return {"at": rfc3339(job.paused_at), "by": job.paused_by, "why": job.paused_why}
