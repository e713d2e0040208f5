"""What is known of a job beyond its runs: whether it is scheduled, paused or installed, and what became of its ticks.

A tick that ran is a run, with the tick as its key. Every other tick up to `settled` has a row in `ticks`, which says
why it did not; ticks that follow each other with one fate share a row (`first`, `last`, how many). A run takes its tick
and settles those before it in one transaction (`Store.record`), so that a kill leaves no tick without its account.

`due_at` is when the next tick counts as missed: what is due is one question, which reads no job file. No journal keeps
these rows; a repair (`repair.py`) takes them from the damaged file or a backup, and from the runs themselves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ..errors import NotFound, Overtaken
from . import notices
from .changes import dumps, plain
from .database import Database
from .trouble import bad_value
from .values import made

if TYPE_CHECKING:
    from ..model import JSON

T = TypeVar("T")
Fate = Literal["skipped", "missed"]
# overlap: another run was at work; paused: somebody paused the job; catch_up: the job does not want it, or a newer one
# stands for it; start_deadline: too old; limit: more than 100; file: its job file was gone or wrong
UnrunReason = Literal["overlap", "paused", "catch_up", "start_deadline", "limit", "file"]

_JOB = (
    "name, file, file_seen, schedule, settled, due_at, installed, paused_at, paused_by, paused_why, gone_at, pruned_to"
)
_TICK = "job, first, last, number, fate, reason, because, scheduled, at, by"


class JobRow(NamedTuple):
    """A row of `jobs`. Times in ms since the epoch; `schedule` and `installed` are JSON (or None)."""

    name: str
    file: str
    file_seen: str | None
    schedule: JSON
    settled: int | None
    due_at: int | None
    installed: JSON
    paused_at: int | None
    paused_by: str | None
    paused_why: str | None
    gone_at: int | None
    pruned_to: int | None = None  # the newest tick that was a run's and is not known any more (prune.py)


_WRITTEN = {"installed": {"how", "schedule", "timezone", "machine"}, "schedule": {"zone", "schedules"}}


def job_rows(rows: Iterable[Sequence[Any]]) -> list[JobRow]:
    """Rows of `jobs` as values. Raises StoreError for what nobody wrote: overwritten pages may hold anything."""
    found = made(JobRow, rows)
    for row in found:
        for name, keys in _WRITTEN.items():
            value = getattr(row, name)
            if value is not None and not (isinstance(value, dict) and keys <= value.keys()):
                raise bad_value(f"the {name} of a job", json.dumps(value))
    return found


class TickRow(NamedTuple):
    """A row of `ticks`. `scheduled`: False for a start that belonged to no tick, and was skipped."""

    job: str
    first: int
    last: int
    number: int
    fate: str
    reason: str
    because: str | None
    scheduled: bool
    at: int
    by: str


class Unrun(NamedTuple):
    """Ticks that do not run, for one reason. `because`: the run that was in the way."""

    first: int
    last: int
    number: int
    fate: Fate
    reason: UnrunReason
    because: str | None = None
    scheduled: bool = True


class Settlement(NamedTuple):
    """Every tick of a job from `before` (None: nothing was known of it) up to `settled` is accounted for with this.

    `own`: the tick that the run takes with which this is written; `before_own` is the one before it. `catches_up`: a
    skip leaves that open, to be caught up with. `file_seen` and `schedule` are those that are in force from now on.
    `notify`: who is told of missed ones. `paused`: nothing runs, because the job is.
    """

    job: str
    file: str
    file_seen: str
    schedule: JSON
    before: int | None
    settled: int
    due_at: int | None
    unrun: tuple[Unrun, ...] = ()
    own: int | None = None
    catches_up: bool = False
    notify: JSON = None
    paused: bool = False
    before_own: int | None = None


def settle(cursor: sqlite3.Cursor, one: Settlement, now: int, by: str) -> None:
    """Account for ticks, inside the caller's transaction. Raises Overtaken if somebody else has done so meanwhile."""
    row = cursor.execute("SELECT schedule, settled FROM jobs WHERE name = ?", (one.job,)).fetchone()
    before = row[1] if row is not None and row[0] is not None else None
    if before != one.before:
        raise Overtaken(f"the ticks of job {one.job} were accounted for by another process meanwhile")
    cursor.execute(
        "INSERT INTO jobs (name, file, file_seen, schedule, settled, due_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET file = excluded.file, file_seen = excluded.file_seen,"
        " schedule = excluded.schedule, settled = max(coalesce(settled, 0), excluded.settled),"
        " due_at = excluded.due_at, gone_at = NULL",
        (one.job, one.file, one.file_seen, dumps(one.schedule), one.settled, one.due_at),
    )
    if one.own is not None:  # it was late, and not missed after all
        cursor.execute(
            "DELETE FROM ticks WHERE job = ? AND first = ? AND last = first AND fate = 'missed'", (one.job, one.own)
        )
        cursor.execute(
            "UPDATE ticks SET number = number - 1, last = ? WHERE job = ? AND last = ? AND fate = 'missed'",
            (one.before_own, one.job, one.own),
        )
    _tell_all(cursor, one.job, one.file, one.unrun, one.notify, now, by)


def put(cursor: sqlite3.Cursor, job: str, one: Unrun, now: int, by: str) -> None:
    """Record what did not run; it joins the job's last row if that has the same fate and reason, and nothing ran since.

    A tick that has such a row already keeps it.
    """
    has_one = cursor.execute(
        "SELECT 1 FROM ticks WHERE job = ? AND fate = ? AND scheduled = ? AND first <= ? AND last >= ? LIMIT 1",
        (job, one.fate, int(one.scheduled), one.first, one.last),
    ).fetchone()
    if has_one:
        return
    last = cursor.execute(
        "SELECT first, last, fate, reason, because, scheduled FROM ticks WHERE job = ? ORDER BY last DESC LIMIT 1",
        (job,),
    ).fetchone()
    if last and last[2:] == (one.fate, one.reason, one.because, int(one.scheduled)):
        ran = cursor.execute(
            "SELECT 1 FROM runs WHERE job = ? AND scheduled_time > ? AND scheduled_time < ? LIMIT 1",
            (job, last[1], one.first),
        ).fetchone()
        if not ran and last[1] < one.first:
            cursor.execute(
                "UPDATE ticks SET last = ?, number = number + ?, at = ?, by = ?"
                " WHERE job = ? AND first = ? AND fate = ?",
                (one.last, one.number, now, by, job, last[0], one.fate),
            )
            return
    cursor.execute(
        "INSERT INTO ticks (job, first, last, number, fate, reason, because, scheduled, at, by)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (job, one.first, one.last, one.number, one.fate, one.reason, one.because, int(one.scheduled), now, by),
    )


def _tell_all(
    cursor: sqlite3.Cursor, job: str, file: str, unrun: Sequence[Unrun], notify: JSON, now: int, by: str
) -> None:
    """Record what did not run, and tell those who want to hear of missed ticks."""
    for one in unrun:
        put(cursor, job, one, now, by)
    missed = [one._asdict() for one in unrun if one.fate == "missed"]
    notices.raise_missed(cursor, job, file, notify, missed, now)


class JobQuestions:
    """The reading side, over any connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def job(self, name: str) -> JobRow | None:
        """What is known of a job; None if it has no row."""
        rows = job_rows(self.connection.execute(f"SELECT {_JOB} FROM jobs WHERE name = ?", (name,)))
        return rows[0] if rows else None

    def jobs(self) -> list[JobRow]:
        """All jobs that have a row, by name."""
        return job_rows(self.connection.execute(f"SELECT {_JOB} FROM jobs ORDER BY name"))

    def of_file(self, file: str) -> list[JobRow]:
        """The jobs of a job file."""
        rows = self.connection.execute(f"SELECT {_JOB} FROM jobs WHERE file = ? ORDER BY name", (file,))
        return job_rows(rows)

    def due(self, now: int) -> list[JobRow]:
        """The jobs that have missed a tick."""
        rows = self.connection.execute(f"SELECT {_JOB} FROM jobs WHERE due_at <= ? ORDER BY name", (now,))
        return job_rows(rows)

    def ticks(self, job: str | None = None, *, limit: int = -1) -> list[TickRow]:
        """What did not run, newest first."""
        where, values = ("WHERE job = ?", [job]) if job else ("", [])
        question = f"SELECT {_TICK} FROM ticks {where} ORDER BY last DESC LIMIT ?"
        rows = self.connection.execute(question, (*values, limit))
        return made(TickRow, rows)

    def since_last_run(self) -> dict[str, list[TickRow]]:
        """What did not run since the newest run of its job was recorded, by job, oldest first."""
        rows = self.connection.execute(
            f"SELECT {_TICK} FROM ticks WHERE at >= coalesce((SELECT created_at FROM runs WHERE runs.job = ticks.job"
            " AND caller IS NULL ORDER BY id DESC LIMIT 1), 0) ORDER BY job, last"
        )
        found: dict[str, list[TickRow]] = {}
        for row in made(TickRow, rows):
            found.setdefault(row.job, []).append(row)
        return found

    def told(self, job: str, after: int, *, healed: Collection[str] = ()) -> list[tuple[int, int]]:
        """(first, last) of the ticks behind a moment that were skipped; not because of runs that have been healed."""
        rows = self.connection.execute(
            "SELECT first, last, because FROM ticks"
            " WHERE job = ? AND last > ? AND fate = 'skipped' AND scheduled ORDER BY first",
            (job, after),
        )
        return [(first, last) for first, last, because in rows if because not in healed]

    def taken(self, job: str, first: int, last: int) -> set[int]:
        """The ticks from `first` to `last` that are a run's, whatever became of it."""
        rows = self.connection.execute(
            "SELECT scheduled_time FROM runs WHERE job = ? AND scheduled_time BETWEEN ? AND ? AND run_key IS NOT NULL",
            (job, first, last),
        )
        return {row[0] for row in rows}


class Jobs(JobQuestions):
    """The writing side, over one open `Database`; `by` is who does it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connection)
        self.database = database

    def settle(self, one: Settlement, *, now: int, by: str) -> None:
        """Account for ticks of which none runs. Raises Overtaken."""
        self._write(lambda cursor: settle(cursor, one, now, by))

    def put(self, job: str, one: Unrun, *, now: int, by: str) -> None:
        """Record what did not run."""
        self._write(lambda cursor: put(cursor, job, one, now, by))

    def install(self, name: str, file: str, installed: JSON) -> None:
        """Say where a job is installed. Its ticks count from its first one on."""
        self._write(
            lambda cursor: cursor.execute(
                "INSERT INTO jobs (name, file, installed) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET file = excluded.file, installed = excluded.installed,"
                " gone_at = NULL",
                (name, file, dumps(installed)),
            )
        )

    def uninstall(self, names: Iterable[str]) -> None:
        """These jobs are not installed any more, and do not count as scheduled: nothing of them is missed."""
        wanted = list(names)

        def work(cursor: sqlite3.Cursor) -> None:
            for name in wanted:
                cursor.execute(
                    "UPDATE jobs SET installed = NULL, schedule = NULL, due_at = NULL WHERE name = ?", (name,)
                )

        self._write(work)

    def unschedule(self, name: str, *, unrun: Sequence[Unrun], notify: JSON, now: int, by: str) -> None:
        """A job's schedule is gone from its file: what was missed until then is recorded, and nothing from now on."""

        def work(cursor: sqlite3.Cursor) -> None:
            row = cursor.execute("SELECT file FROM jobs WHERE name = ?", (name,)).fetchone()
            _tell_all(cursor, name, row[0] if row else "", unrun, notify, now, by)
            cursor.execute("UPDATE jobs SET schedule = NULL, due_at = NULL WHERE name = ?", (name,))

        self._write(work)

    def pause(self, name: str, file: str, *, by: str, why: str | None, now: int) -> bool:
        """Let the ticks of a job be skipped from now on; False if it was paused already, which stays as it is."""

        def work(cursor: sqlite3.Cursor) -> bool:
            cursor.execute(
                "INSERT INTO jobs (name, file, paused_at, paused_by, paused_why) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, paused_by = excluded.paused_by,"
                " paused_why = excluded.paused_why WHERE paused_at IS NULL",
                (name, file, now, by, plain(why)),
            )
            return cursor.rowcount == 1

        return self._write(work)

    def unpause(self, name: str) -> JobRow | None:
        """Let it run again: the row as it was; None if it was not paused."""

        def work(cursor: sqlite3.Cursor) -> JobRow | None:
            rows = made(
                JobRow, cursor.execute(f"SELECT {_JOB} FROM jobs WHERE name = ? AND paused_at IS NOT NULL", (name,))
            )
            cursor.execute(
                "UPDATE jobs SET paused_at = NULL, paused_by = NULL, paused_why = NULL WHERE name = ?", (name,)
            )
            return rows[0] if rows else None

        return self._write(work)

    def look_again(self, name: str, at: int) -> None:
        """Let nobody look after a job's missed ticks before a moment."""
        self._write(lambda cursor: cursor.execute("UPDATE jobs SET due_at = ? WHERE name = ?", (at, name)))

    def gone(self, name: str, *, now: int) -> bool:
        """Note that its file is gone; False if that was known. Raises NotFound for a job that has no row."""

        def work(cursor: sqlite3.Cursor) -> bool:
            row = cursor.execute("SELECT gone_at FROM jobs WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFound(f"nothing is known of a job {name}")
            cursor.execute("UPDATE jobs SET gone_at = coalesce(gone_at, ?), due_at = NULL WHERE name = ?", (now, name))
            return row[0] is None

        return self._write(work)

    def _write(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        return self.database.write(work)
