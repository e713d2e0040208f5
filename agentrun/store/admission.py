"""Whether a run may begin: what `concurrency` and a pause say, asked inside the transaction that would record it.

Runs of one key are at work from their record to their end: running, also if interrupted, and parked; a queued one is
about to be. Who is asked with `queue` may wait in line: only runs that were taken count there, and of those that wait
the newest begins when there is room (`waiting_in_line`), the others are skipped then.

What is skipped has no run: its account is among the ticks of its job (`jobs.py`), with the run that was in its way.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Literal, NamedTuple

from . import jobs
from .jobs import Unrun, UnrunReason

if TYPE_CHECKING:
    from .write import NewRun

_AGAIN = 60_000  # ms until a tick that was skipped, and is to be caught up with, is looked at again


class Overlap(NamedTuple):
    """With which runs one may not be at work at once: those of one `key`, `slots` of them (None: any number).

    `queue`: where they are all taken it waits, else it is skipped. `ignored`: interrupted runs that do not count.
    """

    key: str
    slots: int | None
    queue: bool = False
    ignored: frozenset[str] = frozenset()


class Skipped(NamedTuple):
    """A run that does not begin: why, which run is in the way, and since when (ms since the epoch)."""

    reason: UnrunReason
    because: str | None
    since: int


Verdict = Literal["begins", "waits"] | Skipped


def verdict(connection: sqlite3.Connection | sqlite3.Cursor, run: NewRun) -> Verdict:
    """What becomes of a run that wants to begin now. A pause holds for what was started for its tick.

    Ticks that are caught up with run one after the other, also where runs may be at work beside each other.
    """
    overlap = run.overlap
    if run.pausable:
        row = connection.execute(
            "SELECT paused_at FROM jobs WHERE name = ? AND paused_at IS NOT NULL", (run.job,)
        ).fetchone()
        if row:
            return Skipped("paused", None, row[0])
    if run.catching_up:
        row = connection.execute(
            "SELECT id, coalesce(started_at, created_at) FROM runs WHERE job = ? AND state <> 'finished'"
            " AND scheduled_time IS NOT NULL AND caller IS NULL ORDER BY id LIMIT 1",
            (run.job,),
        ).fetchone()
        if row and row[0] not in (overlap.ignored if overlap else ()):
            return Skipped("overlap", *row)
    if overlap is None or overlap.slots is None:
        return "begins"
    at_work = in_the_way(connection, overlap.key, queued=not overlap.queue, ignored=overlap.ignored)
    if len(at_work) < overlap.slots:
        return "begins"
    return "waits" if overlap.queue else Skipped("overlap", *at_work[0])


def in_the_way(
    connection: sqlite3.Connection | sqlite3.Cursor,
    key: str,
    *,
    queued: bool = False,
    ignored: frozenset[str] = frozenset(),
) -> list[tuple[str, int]]:
    """(id, since when) of the runs of a key that are at work, oldest first; `queued`: also those that wait."""
    states = "('queued', 'running', 'waiting')" if queued else "('running', 'waiting')"
    rows = connection.execute(
        "SELECT id, coalesce(started_at, created_at) FROM runs"
        f" WHERE overlap_key = ? AND state <> 'finished' AND state IN {states} ORDER BY id",
        (key,),
    )
    return [(run_id, since) for run_id, since in rows if run_id not in ignored]


def waiting_in_line(connection: sqlite3.Connection, key: str) -> list[str]:
    """The runs of a key that wait for their turn, oldest first: not those that are about to be taken anyway."""
    rows = connection.execute(
        "SELECT id FROM runs WHERE overlap_key = ? AND state = 'queued' AND in_line ORDER BY id", (key,)
    ).fetchall()
    return [row[0] for row in rows]


def blocker(connection: sqlite3.Connection | sqlite3.Cursor, run_id: str) -> str | None:
    """The run that keeps a recorded one from being at work; None if nothing does."""
    row = connection.execute("SELECT overlap_key, overlap_limit FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None or row[0] is None or row[1] is None:
        return None
    at_work = in_the_way(connection, row[0], ignored=frozenset((run_id,)))
    return at_work[0][0] if len(at_work) >= row[1] else None


def skip(cursor: sqlite3.Cursor, why: Skipped, run: NewRun) -> None:
    """Write the account of a run that does not begin, inside the caller's transaction."""
    ticks, now = run.ticks, run.created_at
    if run.catching_up and why.reason == "overlap":  # it stays as open as it was
        cursor.execute("UPDATE jobs SET due_at = ? WHERE name = ?", (now + _AGAIN, run.job))
        return
    own = run.scheduled_time if ticks is None else ticks.own
    if ticks is not None and own is not None:
        if why.reason == "overlap" and ticks.catches_up:  # it stays open: what is in the way will have ended some day
            ticks = ticks._replace(settled=own - 1, due_at=now + _AGAIN)
        jobs.settle(cursor, ticks, now, run.by)
    at = now if own is None else own
    unrun = Unrun(at, at, 1, "skipped", why.reason, why.because, scheduled=own is not None)
    jobs.put(cursor, run.job, unrun, now, run.by)
