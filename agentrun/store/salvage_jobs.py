"""Jobs and their ticks in a database that is made again: they are in no run's journal (`jobs.py`).

The new database has those of what it was built on, which may be a backup. What can be read of the damaged one takes
their place, row by row, unless it is older. Then the runs are asked: every tick up to the newest that is a run's is
accounted for, or it would be found missed; and a job whose row is gone has one again, which says that it is not
scheduled, so that it counts again from its next tick on.

A pause, an installation, or why a tick did not run cannot be known from the runs: what may be missing is said.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from ..errors import StoreError
from ..instants import rfc3339
from .jobs import JobRow, TickRow, job_rows
from .trouble import UNREADABLE
from .values import made

_JOB = ", ".join(JobRow._fields)
_TICK = ", ".join(TickRow._fields)
_MISSING = "whether it is paused or installed, and why ticks of it did not run, may have been said since"
_REFUSED = (*UNREADABLE, StoreError)  # the second: a value that nobody has written


def copy_jobs(damaged: sqlite3.Connection, new: sqlite3.Connection, now: int) -> tuple[set[str], bool]:
    """Copy what can be read: the names of the jobs that could be, and whether all accounts of ticks could."""
    read = set()
    known = dict(new.execute("SELECT name, coalesce(settled, 0) FROM jobs"))
    first, _ = _rows(damaged, f"SELECT {_JOB} FROM jobs ORDER BY name")
    last, _ = _rows(damaged, f"SELECT {_JOB} FROM jobs ORDER BY name DESC")
    for row in {row[0]: row for row in [*last, *first]}.values():
        try:
            (job,) = job_rows((row,))
            if (job.settled or 0) > now:
                continue  # nobody accounts for ticks that are yet to come: it would have none for years
            if (job.settled or 0) >= known.get(job.name, 0):
                new.execute(f"REPLACE INTO jobs ({_JOB}) VALUES ({', '.join('?' * len(row))})", row)
            read.add(job.name)
        except _REFUSED:
            continue
    rows, whole = _rows(damaged, f"SELECT {_TICK} FROM ticks ORDER BY job, first, fate")
    for row in rows:
        try:
            made(TickRow, (row,))
            new.execute(
                f"INSERT INTO ticks ({_TICK}) VALUES ({', '.join('?' * len(row))}) ON CONFLICT DO UPDATE"
                " SET last = excluded.last, number = excluded.number, at = excluded.at, by = excluded.by"
                " WHERE excluded.last > last",
                row,
            )
        except _REFUSED:
            whole = False
    return read, whole


def settle_by_runs(new: sqlite3.Connection, read: set[str], *, whole: bool) -> list[str]:
    """Account for the ticks that ran; what may be missing of jobs, in sentences.

    `read`: the jobs that are as they were last; `whole`: so are the accounts of ticks that did not run.
    """
    lost = []
    jobs = dict(new.execute("SELECT name, settled FROM jobs"))
    for name, tick, file in new.execute(
        # not one that was still to come when its run was recorded: somebody gave it by hand
        "SELECT job, max(scheduled_time), file FROM runs WHERE caller IS NULL AND run_key LIKE 'tick %'"
        " AND scheduled_time <= created_at GROUP BY job ORDER BY job"
    ).fetchall():
        if name not in jobs:
            new.execute("INSERT INTO jobs (name, file, settled) VALUES (?, ?, ?)", (name, file, tick))
            lost.append(
                f"job {name} is known by its runs alone, and counts again from its next tick on: whether it was paused"
                " or installed, and why ticks of it did not run, could not be brought back"
            )
        elif (jobs[name] or 0) < tick:
            new.execute("UPDATE jobs SET settled = ? WHERE name = ?", (tick, name))
            if name in read:
                lost.append(f"job {name} is known as it was before its tick of {rfc3339(tick)}: {_MISSING}")
    lost += [f"job {name} is known as a backup has it: {_MISSING}" for name in sorted(set(jobs) - read)]
    if read and not whole:
        lost.append("the accounts of ticks that did not run could not be read, or in part only: some may be missing")
    return lost


def _rows(damaged: sqlite3.Connection, question: str) -> tuple[list[tuple[Any, ...]], bool]:
    """Rows until the first that cannot be read, and whether that were all."""
    found = []
    try:
        for row in damaged.execute(question):
            found.append(row)
    except UNREADABLE:
        return found, False
    return found, True
