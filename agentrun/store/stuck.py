"""Steps that do nothing: told in the journal alone, when an attempt begins to be stuck and when it goes on.

Each silence is told once. An attempt with a number is stuck if the last that was told of its instance says so of this
attempt, and it still runs. Conditions have no number of their own (0), so what ends a stuck one is told, too.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from .changes import journal
from .notices import raise_stuck


class StepStuck(NamedTuple):
    """An attempt has used no CPU and printed nothing since then. Whoever is to hear of it is told by this."""

    instance: str
    attempt: int
    since: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        journal(
            cursor, run_id, self.at, "step_stuck", "supervisor",
            instance=self.instance, attempt=self.attempt, detail={"since": self.since},
        )  # fmt: skip
        raise_stuck(cursor, run_id, self.instance, self.since, self.at)


class StepUnstuck(NamedTuple):
    """It goes on; a condition may have ended instead."""

    instance: str
    attempt: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        journal(
            cursor, run_id, self.at, "step_unstuck", "supervisor", instance=self.instance, attempt=self.attempt
        )


def told_stuck(connection: sqlite3.Connection, run_id: str) -> dict[str, tuple[int, int]]:
    """By instance, the attempt that was last told to be stuck, and since when; it may have ended since."""
    rows = connection.execute(
        # the other columns are those of the row with the largest number: an extension of SQLite's
        "SELECT instance, attempt, kind, json_extract(detail, '$.since'), max(seq) FROM events"
        " WHERE run_id = ? AND kind IN ('step_stuck', 'step_unstuck') GROUP BY instance",
        (run_id,),
    )
    return {row[0]: (row[1], row[3]) for row in rows if row[2] == "step_stuck"}
