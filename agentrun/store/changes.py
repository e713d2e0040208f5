"""What one turn of the loop changes, as values: each knows the rows that it leaves, the rows that it writes
and the line of the journal that explains them.

Values, not calls, because a transaction may have to be done again after a full disk, and because the
supervisor can collect a hundred ends and write them with one sync. Every write names the state that it
leaves (`model.TRANSITIONS`); one that changes no row raises Overtaken: somebody else has been here.
"""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any, NamedTuple, Protocol

from ..errors import Overtaken
from ..model import JSON, Outcome, Reason, split_instance
from . import notices

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: four texts for each attempt
_SURROGATES = re.compile("[\ud800-\udfff]")


class Change(Protocol):
    """One transition of a run, its steps or their attempts."""

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        """Write it inside the caller's transaction. Raises Overtaken."""


def guard(cursor: sqlite3.Cursor, what: str) -> None:
    """The statement just executed must have changed exactly one row."""
    if cursor.rowcount != 1:
        raise Overtaken(f"{what} is not in the state that this process left it in: another one owns the run now")


def journal(
    cursor: sqlite3.Cursor,
    run_id: str,
    at: int,
    kind: str,
    by: str,
    *,
    instance: str | None = None,
    attempt: int | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append to the run's journal; the numbers have no gap because every writer holds the write lock."""
    cursor.execute(
        "INSERT INTO events (run_id, seq, at, kind, instance, attempt, by, detail) VALUES (?,"
        " (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE run_id = ?), ?, ?, ?, ?, ?, ?)",
        (run_id, run_id, at, kind, instance, attempt, by, None if detail is None else dumps(detail)),
    )


def dumps(value: JSON) -> str:
    """JSON as the database keeps it: compact, and readable in any language."""
    text = _encode(value)
    if text.isascii() or not _SURROGATES.search(text):
        return text
    return json.dumps(value, separators=(",", ":"))  # bytes that are no text, such as a file's name: escaped


def plain(text: str | None) -> str | None:
    """A text that SQLite can keep: what was not UTF-8 (Python's lone surrogates) is written as `\\udc..`."""
    return text.encode(errors="backslashreplace").decode() if text else text


_SUPERVISOR = "supervisor"

_BEGIN = (
    "INSERT INTO steps (run_id, instance, position, number, state, asked, attempt, tries, interruptions,"
    " idempotency_key, inputs, started_at) VALUES (:run, :instance, :position, :number, 'running', :asked, :attempt,"
    " :tries, :interruptions, nullif(:key, ''), :inputs, :at)"
    " ON CONFLICT (run_id, instance) DO UPDATE SET state = 'running', asked = excluded.asked,"
    " attempt = max(attempt, excluded.attempt), tries = excluded.tries, interruptions = excluded.interruptions,"
    " idempotency_key = coalesce(idempotency_key, excluded.idempotency_key),"  # the first one, for ever
    " inputs = coalesce(excluded.inputs, inputs), due = NULL, question = NULL, verifying = 0,"
    " started_at = coalesce(started_at, excluded.started_at)"
    " WHERE state <> 'finished'"
)


class StepAsked(NamedTuple):
    """The step's `if` is put to its shell. Written before the shell exists."""

    instance: str
    position: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            _BEGIN,
            {
                "run": run_id, "instance": self.instance, "position": self.position, "asked": 0, "attempt": 0,
                "tries": 0, "interruptions": 0, "key": None, "inputs": None, "at": self.at,
                "number": split_instance(self.instance)[1],
            },
        )  # fmt: skip
        guard(cursor, f"step {self.instance}")
        journal(cursor, run_id, self.at, "condition_asked", _SUPERVISOR, instance=self.instance)


class StepAnswered(NamedTuple):
    """The step's `if` has said yes. A no, or a failure, settles the step."""

    instance: str
    status: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        if self.status == 0:
            cursor.execute(
                "UPDATE steps SET asked = 1 WHERE run_id = ? AND instance = ? AND state = 'running'",
                (run_id, self.instance),
            )
            guard(cursor, f"step {self.instance}")
        journal(
            cursor, run_id, self.at, "condition_answered", _SUPERVISOR,
            instance=self.instance, detail={"status": self.status},
        )  # fmt: skip


class AttemptStarted(NamedTuple):
    """An attempt is about to begin. Written before its process exists.

    `tries` and `interruptions` are those before this attempt: recovery counts its end again.
    """

    instance: str
    position: int
    number: int
    tries: int
    interruptions: int
    asked: bool
    key: str
    inputs: str
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            _BEGIN,
            {
                "run": run_id, "instance": self.instance, "position": self.position, "asked": int(self.asked),
                "attempt": self.number, "tries": self.tries, "interruptions": self.interruptions,
                "key": self.key, "inputs": self.inputs, "at": self.at, "number": split_instance(self.instance)[1],
            },
        )  # fmt: skip
        guard(cursor, f"step {self.instance}")
        cursor.execute(
            "INSERT INTO attempts (run_id, instance, number, epoch, state, started_at)"
            " VALUES (?, ?, ?, ?, 'running', ?)",
            (run_id, self.instance, self.number, epoch, self.at),
        )
        journal(
            cursor, run_id, self.at, "attempt_started", _SUPERVISOR, instance=self.instance, attempt=self.number
        )


class AttemptEnded(NamedTuple):
    """An attempt is over, or is known to have been interrupted. The step is settled by another change."""

    instance: str
    number: int
    outcome: Outcome
    at: int
    reason: Reason | None = None
    requested: bool = False
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    causes: tuple[str, ...] = ()
    exception: JSON = None
    retry_after: int | None = None
    cpu_ms: int | None = None
    max_rss_kib: int | None = None
    output_bytes: int | None = None

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE attempts SET state = 'finished', outcome = ?, reason = ?, requested = ?, exit_code = ?,"
            " signal = ?, error = ?, causes = ?, exception = ?, retry_after = ?, cpu_ms = ?, max_rss_kib = ?,"
            " output_bytes = ?, finished_at = max(?, started_at)"
            " WHERE run_id = ? AND instance = ? AND number = ? AND state = 'running'",
            (
                self.outcome, self.reason, int(self.requested), self.exit_code, self.signal, plain(self.error),
                dumps(self.causes) if self.causes else None,
                None if self.exception is None else dumps(self.exception),
                self.retry_after, self.cpu_ms, self.max_rss_kib, self.output_bytes, self.at,
                run_id, self.instance, self.number,
            ),
        )  # fmt: skip
        guard(cursor, f"attempt {self.number} of step {self.instance}")
        detail: dict[str, Any] = {"outcome": self.outcome}
        for name in ("reason", "exit_code", "signal", "error"):
            if (value := getattr(self, name)) is not None:
                detail[name] = value
        journal(
            cursor, run_id, self.at, "attempt_ended", _SUPERVISOR,
            instance=self.instance, attempt=self.number, detail=detail,
        )  # fmt: skip


class StepParked(NamedTuple):
    """Between two attempts: the next one is due at `until`; `verifying`: its `verify` is, before that."""

    instance: str
    until: int
    tries: int
    interruptions: int
    at: int
    verifying: bool = False

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET state = 'waiting', due = ?, tries = ?, interruptions = ?, verifying = ?, question = NULL"
            " WHERE run_id = ? AND instance = ? AND (state = 'running' OR question IS NOT NULL OR verifying = 1)",
            (self.until, self.tries, self.interruptions, int(self.verifying), run_id, self.instance),
        )
        guard(cursor, f"step {self.instance}")
        journal(
            cursor, run_id, self.at, "step_waiting", _SUPERVISOR, instance=self.instance, detail={"until": self.until}
        )


class StepSettled(NamedTuple):
    """The checkpoint of a step or instance: it never runs again in this run, unless the run fails and is reopened.

    `counted`: among the steps that are done; a step that has instances is not, they are.
    """

    instance: str
    position: int
    outcome: Outcome
    at: int
    reason: Reason | None = None
    covered: bool = False
    outputs: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    counted: bool = True

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        # A step that is skipped may have no row yet.
        cursor.execute(
            "INSERT INTO steps (run_id, instance, position, number, state, outcome, reason, covered, outputs,"
            " exit_code, signal, error, finished_at) VALUES (?, ?, ?, ?, 'finished', ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (run_id, instance) DO UPDATE SET state = 'finished', outcome = excluded.outcome,"
            " reason = excluded.reason, covered = excluded.covered, outputs = excluded.outputs,"
            " exit_code = excluded.exit_code, signal = excluded.signal, error = excluded.error, due = NULL,"
            " question = NULL, verifying = 0,"
            " finished_at = max(excluded.finished_at, coalesce(started_at, 0)) WHERE state <> 'finished'",
            (
                run_id, self.instance, self.position, split_instance(self.instance)[1], self.outcome, self.reason,
                int(self.covered), self.outputs, self.exit_code, self.signal, plain(self.error), self.at,
            ),
        )  # fmt: skip
        guard(cursor, f"step {self.instance}")
        detail: dict[str, Any] = {"outcome": self.outcome}
        if self.reason:
            detail["reason"] = self.reason
        if self.covered:
            detail["covered"] = True
        journal(cursor, run_id, self.at, "step_finished", _SUPERVISOR, instance=self.instance, detail=detail)


class RunClosing(NamedTuple):
    """The run begins to end before its steps are through: a cancel, its deadline, its budget. `error`: which one."""

    outcome: Outcome
    reason: Reason
    at: int
    error: str | None = None

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE runs SET closing = ?, closing_at = ?, error = coalesce(?, error)"
            " WHERE id = ? AND state = 'running'",
            (self.outcome, self.at, plain(self.error), run_id),
        )
        guard(cursor, f"run {run_id}")
        journal(
            cursor, run_id, self.at, "run_closing", _SUPERVISOR, detail={"outcome": self.outcome, "reason": self.reason}
        )


class RunFinished(NamedTuple):
    """The end of a run. Written when nothing of it is left running."""

    outcome: Outcome
    at: int
    reason: Reason | None = None
    error: str | None = None
    exit_code: int | None = None

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE runs SET state = 'finished', outcome = ?, reason = ?, error = ?, exit_code = ?,"
            " finished_at = max(?, created_at) WHERE id = ? AND state = 'running'",
            (self.outcome, self.reason, plain(self.error), self.exit_code, self.at, run_id),
        )
        guard(cursor, f"run {run_id}")
        take_wishes(cursor, run_id, self.at)
        detail: dict[str, Any] = {"outcome": self.outcome}
        if self.error:
            detail["error"] = self.error
        journal(cursor, run_id, self.at, "run_finished", _SUPERVISOR, detail=detail)
        notices.raise_end(cursor, run_id, self.outcome, self.at)


def take_wishes(cursor: sqlite3.Cursor, run_id: str, at: int) -> None:
    """Close what is still wished of a run: it was about the run as it stood, not about one reopened later."""
    cursor.execute("UPDATE wishes SET taken_at = ? WHERE run_id = ? AND taken_at IS NULL", (at, run_id))


class WishTaken(NamedTuple):
    """A wish of somebody else has reached the plan."""

    wish: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE wishes SET taken_at = ? WHERE id = ? AND run_id = ? AND taken_at IS NULL",
            (self.at, self.wish, run_id),
        )
        guard(cursor, f"wish {self.wish}")


class LimitsHeld(NamedTuple):
    """What holds the limits of the run and its steps, in words; written as soon as the shim has said so."""

    by: str
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute("UPDATE runs SET enforced_by = ? WHERE id = ?", (self.by, run_id))
        guard(cursor, f"run {run_id}")
        journal(cursor, run_id, self.at, "limits_held", _SUPERVISOR, detail={"by": self.by})


class Noted(NamedTuple):
    """A line of the journal that no row goes with."""

    kind: str
    at: int
    by: str = _SUPERVISOR
    instance: str | None = None
    detail: dict[str, Any] | None = None

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        journal(cursor, run_id, self.at, self.kind, self.by, instance=self.instance, detail=self.detail)
