"""The outbox: who is to be told of what, and what came of it.

A run that somebody wants to hear of has a row in `hearers` while it goes on, written by whoever advances it. The
transaction that ends or parks such a run raises its notice, and so does each that records something else of note: a
kill leaves no end of a run without its notice, and no notice without what it tells of. A repair tells nothing again:
no journal holds these rows, and a run that is done again from its journal has no hearers.

    raised ▶ queued ▶ sent | failed        one row for what happened becomes one for each target
                    ▶ folded               told already, or overtaken by a newer ping

That is the work of `agentrun deliver` (notify/). It counts a try, and says when the next is due, before it sends: a
deliverer that is killed has claimed nothing for ever, and its notices are sent again, at least once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .database import Database
from .values import made

if TYPE_CHECKING:
    from ..model import JSON, Event, Outcome

PAUSES = tuple(minutes * 60_000 for minutes in (1, 5, 30, 120, 360))  # ms between two tries; then it is given up
TRIES = len(PAUSES) + 1
_KEPT = 90 * 86_400_000  # ms that a notice is remembered after its end
_FAILING = ("failed", "timed_out", "over_budget")
_NOTICE = "seq, id, state, event, job, run_id, at, said, target, tries, due, error, done_at"


class Notice(NamedTuple):
    """A row of `notices`. `said`: of a raised one what happened, else the notice itself; JSON, as is `target`."""

    seq: int
    id: str
    state: str
    event: str
    job: str
    run_id: str | None
    at: int
    said: JSON
    target: JSON
    tries: int
    due: int | None
    error: str | None
    done_at: int | None


class Streak(NamedTuple):
    """How often the same has happened to a job in a row, and since when."""

    cause: str
    since: int
    number: int


class Posting(NamedTuple):
    """A notice for one target; `folded`: why it is not sent."""

    target: JSON
    event: str
    said: JSON
    folded: str | None = None


def raise_end(cursor: sqlite3.Cursor, run_id: str, outcome: Outcome, at: int) -> None:
    """Tell of the end of a run, if anybody wants to hear of it; inside the transaction that ends it."""
    row = cursor.execute("DELETE FROM hearers WHERE run_id = ? RETURNING notify", (run_id,)).fetchone()
    if row is None:
        return
    notify = json.loads(row[0])
    if outcome in _FAILING or (outcome == "succeeded" and (_wants(notify, "success") or _was_bad(cursor, run_id))):
        _raise_of_run(cursor, run_id, "end", row[0], at, {"outcome": outcome})


def raise_waiting(cursor: sqlite3.Cursor, run_id: str, at: int) -> None:
    """Tell that a run waits for answers; inside the transaction that parks it."""
    row = cursor.execute("SELECT notify FROM hearers WHERE run_id = ?", (run_id,)).fetchone()
    if row is not None and _wants(json.loads(row[0]), "waiting"):
        _raise_of_run(cursor, run_id, "waiting", row[0], at, {})


def raise_stuck(cursor: sqlite3.Cursor, run_id: str, instance: str, since: int, at: int) -> None:
    """Tell of a step that does nothing; inside the transaction that notes it."""
    row = cursor.execute("SELECT notify FROM hearers WHERE run_id = ?", (run_id,)).fetchone()
    if row is not None and _wants(json.loads(row[0]), "stuck"):
        _raise_of_run(cursor, run_id, "stuck", row[0], at, {"step": instance, "since": since})


def raise_missed(cursor: sqlite3.Cursor, job: str, file: str, notify: JSON, unrun: Iterable[JSON], at: int) -> None:
    """Tell of ticks of a job that were missed; inside the transaction that records them.

    `notify`: who wants to hear (`notify.hearers.encoded`; None: nobody). `unrun`: a mapping for each row.
    """
    told = list(unrun)
    if notify is not None and told and _wants(notify, "missed"):
        _raise(cursor, "missed", job, None, at, {"notify": notify, "file": file, "unrun": told})


def _wants(notify: JSON, event: Event) -> bool:
    pinged = event == "success" and any(target["kind"] == "ping" for target in notify["to"])
    return pinged or event in notify["on"]


def _was_bad(cursor: sqlite3.Cursor, run_id: str) -> bool:
    """Whether there is something about the job that this success ends: told of already, or about to be."""
    found = cursor.execute(
        "SELECT 1 FROM runs JOIN streaks ON streaks.job = runs.job WHERE runs.id = :run"
        " UNION ALL SELECT 1 FROM runs JOIN notices ON notices.job = runs.job AND notices.state = 'raised'"
        " WHERE runs.id = :run LIMIT 1",
        {"run": run_id},
    )
    return found.fetchone() is not None


def _raise_of_run(cursor: sqlite3.Cursor, run_id: str, event: str, notify: str, at: int, said: dict[str, JSON]) -> None:
    job, file = cursor.execute("SELECT job, file FROM runs WHERE id = ?", (run_id,)).fetchone()
    _raise(cursor, event, job, run_id, at, {"notify": json.loads(notify), "file": file, **said})


def _raise(cursor: sqlite3.Cursor, event: str, job: str, run_id: str | None, at: int, said: JSON) -> None:
    cursor.execute(  # due at once, whatever the clock says: a run keeps its own
        "INSERT INTO notices (id, state, event, job, run_id, at, said, due)"
        " VALUES (lower(hex(randomblob(16))), 'raised', ?, ?, ?, ?, ?, 0)",
        (event, job, run_id, at, json.dumps(said)),
    )


class NoticeQuestions:
    """The reading side, over any connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def is_due(self, now: int) -> bool:
        """Whether there is anything to deliver now: one look into an index."""
        found = self.connection.execute("SELECT 1 FROM notices WHERE due <= ? LIMIT 1", (now,))
        return found.fetchone() is not None

    def raised(self) -> list[Notice]:
        """What has happened and is not made into notices yet, in its order."""
        return self._open("raised")

    def queued(self) -> list[Notice]:
        """What is to be sent, now or later, in its order."""
        return self._open("queued")

    def of_job(self, job: str, *, limit: int = -1) -> list[Notice]:
        """All notices of a job, newest first."""
        return self._notices("WHERE job = ? ORDER BY seq DESC LIMIT ?", job, limit)

    def failed(self, since: int) -> list[Notice]:
        """Those that were given up since then, oldest first."""
        return self._notices("WHERE state = 'failed' AND done_at >= ? ORDER BY seq", since)

    def streak(self, job: str, event: str) -> Streak | None:
        """What goes on with a job."""
        rows = self.connection.execute(
            "SELECT cause, since, number FROM streaks WHERE job = ? AND event = ?", (job, event)
        ).fetchall()
        return Streak(*rows[0]) if rows else None

    def _open(self, state: str) -> list[Notice]:
        rows = self._notices("WHERE state = ? AND due IS NOT NULL", state)  # by the index of what is due
        return sorted(rows, key=lambda row: row.seq)

    def _notices(self, where: str, *values: object) -> list[Notice]:
        return made(Notice, self.connection.execute(f"SELECT {_NOTICE} FROM notices {where}", values))


class Notices(NoticeQuestions):
    """The writing side, over one open `Database`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connection)
        self.database = database

    def hear(self, run_id: str, notify: JSON, now: int) -> bool:
        """Let these hear of a run that goes on from now on (None: nobody). True if its start is to be told now."""

        def work(cursor: sqlite3.Cursor) -> bool:
            if notify is None:
                cursor.execute("DELETE FROM hearers WHERE run_id = ?", (run_id,))
                return False
            known = cursor.execute("SELECT 1 FROM hearers WHERE run_id = ?", (run_id,)).fetchone()
            text = json.dumps(notify)
            cursor.execute(
                "INSERT INTO hearers (run_id, notify) VALUES (?, ?) ON CONFLICT DO UPDATE SET notify = excluded.notify",
                (run_id, text),
            )
            told = not known and any(target["kind"] == "ping" for target in notify["to"])
            if told:
                _raise_of_run(cursor, run_id, "start", text, now, {})
            return told

        heard = self.connection.execute("SELECT notify FROM hearers WHERE run_id = ?", (run_id,)).fetchone()
        if (heard and json.loads(heard[0])) == notify:
            return False
        return self.database.write(work)

    def miss(self, job: str, file: str, notify: JSON, unrun: Iterable[JSON], at: int) -> None:
        """`raise_missed` in a transaction of its own."""
        told = list(unrun)
        self.database.write(lambda cursor: raise_missed(cursor, job, file, notify, told, at))

    def post(
        self, raised: Notice, postings: Sequence[Posting], streaks: Sequence[tuple[str, Streak | None]], now: int
    ) -> None:
        """Make what happened into notices, once; and remember how often it has."""

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute("DELETE FROM notices WHERE seq = ? AND state = 'raised'", (raised.seq,))
            if cursor.rowcount != 1:
                return
            for event, streak in streaks:
                cursor.execute("DELETE FROM streaks WHERE job = ? AND event = ?", (raised.job, event))
                if streak is not None:
                    cursor.execute(
                        "INSERT INTO streaks (job, event, cause, since, number) VALUES (?, ?, ?, ?, ?)",
                        (raised.job, event, *streak),
                    )
            for one in postings:
                state = "queued" if one.folded is None else "folded"
                due, done_at = (now, None) if one.folded is None else (None, now)
                cursor.execute(
                    "INSERT INTO notices (id, state, event, job, run_id, at, said, target, due, error, done_at)"
                    " VALUES (lower(hex(randomblob(16))), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        state, one.event, raised.job, raised.run_id, raised.at, json.dumps(one.said),
                        json.dumps(one.target), due, one.folded, done_at,
                    ),
                )  # fmt: skip

        self.database.write(work)

    def claim(self, wanted: Iterable[Notice], now: int) -> list[Notice]:
        """Count a try of each, and say when the next is due, unless somebody else has just done so."""
        rows = list(wanted)

        def work(cursor: sqlite3.Cursor) -> list[Notice]:
            claimed = []
            for row in rows:
                cursor.execute(
                    "UPDATE notices SET tries = tries + 1, due = ? WHERE seq = ? AND state = 'queued' AND tries = ?",
                    (now + PAUSES[min(row.tries, len(PAUSES) - 1)], row.seq, row.tries),
                )
                if cursor.rowcount:
                    claimed.append(row._replace(tries=row.tries + 1))
            return claimed

        return self.database.write(work) if rows else []

    def settle(self, results: Iterable[tuple[Notice, str | None]], now: int) -> None:
        """Record what came of tries: None where it was sent, else why not; after the last it is given up."""
        told = list(results)

        def work(cursor: sqlite3.Cursor) -> None:
            for row, error in told:
                state = "sent" if error is None else "failed" if row.tries >= TRIES else "queued"
                cursor.execute(
                    "UPDATE notices SET state = :state, error = :error,"
                    " due = CASE WHEN :state = 'queued' THEN due END,"
                    " done_at = CASE WHEN :state <> 'queued' THEN :now END WHERE seq = :seq AND state = 'queued'",
                    {"state": state, "error": error, "now": now, "seq": row.seq},
                )

        if told:
            self.database.write(work)

    def fold(self, rows: Iterable[Notice], why: str, now: int) -> None:
        """Do not send these any more."""
        old = [row.seq for row in rows]

        def work(cursor: sqlite3.Cursor) -> None:
            for seq in old:
                cursor.execute(
                    "UPDATE notices SET state = 'folded', error = ?, due = NULL, done_at = ?"
                    " WHERE seq = ? AND state = 'queued'",
                    (why, now, seq),
                )

        if old:
            self.database.write(work)

    def forget_old(self, now: int) -> None:
        """Remove those that ended long ago."""
        question = "SELECT 1 FROM notices WHERE done_at < ? LIMIT 1"
        if self.connection.execute(question, (now - _KEPT,)).fetchone():
            self.database.write(
                lambda cursor: cursor.execute("DELETE FROM notices WHERE done_at < ?", (now - _KEPT,))
            )
