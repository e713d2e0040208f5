"""What was interrupted and is in doubt, in the record: its `verify`, the question to a person, the parked run.

The row of a step says `verifying` from when its `verify` is to be asked until it has answered: with state `running`
its process runs, with `waiting` it is due. `question` is what a person is asked: the step waits and nothing is due.
An answer is a wish; it is committed, and told in the journal with the name of who gave it, before anything else.

A run is parked only while no wish is open: both are written under one lock, so whoever wishes afterwards reads that
it is parked, and knows that nobody else will take it up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import Busy, NotFound
from . import notices
from .changes import guard, journal, plain

_SUPERVISOR = "supervisor"

ANSWERS = ("took_place", "rerun")  # kinds of wishes


class VerifyAsked(NamedTuple):
    """The `verify` of an interrupted attempt is put to its shell. Written before the shell exists.

    `tries` and `interruptions`: this interruption is counted in them, as nobody will count it again.
    """

    instance: str
    tries: int
    interruptions: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET state = 'running', due = NULL, verifying = 1, tries = ?, interruptions = ?"
            " WHERE run_id = ? AND instance = ? AND state IN ('running', 'waiting') AND question IS NULL",
            (self.tries, self.interruptions, run_id, self.instance),
        )
        guard(cursor, f"step {self.instance}")
        journal(cursor, run_id, self.at, "verify_asked", _SUPERVISOR, instance=self.instance)


class VerifyAnswered(NamedTuple):
    """It has answered, or could not (`why`). What follows is written with it."""

    instance: str
    status: int
    at: int
    why: str | None = None

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET verifying = 0 WHERE run_id = ? AND instance = ? AND state = 'running' AND verifying = 1",
            (run_id, self.instance),
        )
        guard(cursor, f"step {self.instance}")
        detail: dict[str, Any] = {"status": self.status}
        if self.why:
            detail["error"] = self.why
        journal(cursor, run_id, self.at, "verify_answered", _SUPERVISOR, instance=self.instance, detail=detail)


class StepQuestioned(NamedTuple):
    """A person is asked whether the interrupted attempt did its work: the step waits until somebody says."""

    instance: str
    question: str
    tries: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET state = 'waiting', due = NULL, verifying = 0, question = ?, tries = ?, interruptions = 0"
            " WHERE run_id = ? AND instance = ? AND (state = 'running' OR verifying = 1)",
            (plain(self.question), self.tries, run_id, self.instance),
        )
        guard(cursor, f"step {self.instance}")
        detail = {"question": self.question}
        journal(cursor, run_id, self.at, "question_asked", _SUPERVISOR, instance=self.instance, detail=detail)


class RunParked(NamedTuple):
    """The owner lets go of a run that only waits for answers; unless there is a wish, which changes nothing here.

    `wake_at`: at how many ms of `elapsed` it has to go on all the same, if ever.
    """

    wake_at: int | None
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE runs SET state = 'waiting', wake_at = ?, stopped = 1 WHERE id = ? AND state = 'running'"
            " AND NOT EXISTS (SELECT 1 FROM wishes WHERE run_id = runs.id AND taken_at IS NULL)",
            (self.wake_at, run_id),
        )
        if cursor.rowcount:
            journal(cursor, run_id, self.at, "run_parked", _SUPERVISOR)
            notices.raise_waiting(cursor, run_id, self.at)


def answer(
    cursor: sqlite3.Cursor, run_id: str, answers: Mapping[str, str], by: str, now: int
) -> None:
    """Write the wishes. Raises Busy, NotFound."""
    if cursor.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None:
        raise NotFound(f"there is no run {run_id}")
    for instance, kind in answers.items():
        open_question = cursor.execute(
            "SELECT 1 FROM steps WHERE run_id = ? AND instance = ? AND question IS NOT NULL AND position >= 0",
            (run_id, instance),
        ).fetchone()
        earlier = cursor.execute(
            "SELECT kind, by FROM wishes WHERE run_id = ? AND instance = ? AND taken_at IS NULL", (run_id, instance)
        ).fetchone()
        if open_question is None or earlier is not None:
            told = f": {earlier[1]} has said {earlier[0].replace('_', ' ')}" if earlier else ""
            raise Busy(f"step {instance} of run {run_id} waits for no answer any more{told}")
        wish(cursor, run_id, kind, by, now, instance)
        journal(cursor, run_id, now, "answered", by, instance=instance, detail={"answer": kind})


def wish(cursor: sqlite3.Cursor, run_id: str, kind: str, by: str, now: int, instance: str | None = None) -> None:
    """Write what somebody wants of the run's owner; numbered within the run, as its journal would do it again."""
    cursor.execute(
        "INSERT INTO wishes (run_id, id, kind, instance, by, at)"
        " VALUES (?, (SELECT coalesce(max(id), 0) + 1 FROM wishes WHERE run_id = ?), ?, ?, ?, ?)",
        (run_id, run_id, kind, instance, by, now),
    )
