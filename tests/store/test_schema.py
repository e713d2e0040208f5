"""The tables refuse rows that make no sense, whoever writes them."""

from __future__ import annotations

import sqlite3
from typing import Any, get_args

import pytest

from agentrun.model import TRANSITIONS, Outcome, State
from agentrun.store import schema
from agentrun.store.database import Database
from agentrun.store.write import Store

from .records import new_run, snapshot

RUN: dict[str, Any] = {
    "id": "1bbbbbbbbb", "job": "quotes", "file": "q.yaml", "snapshot": snapshot().sha256, "params": "{}",
    "state": "running", "created_at": 1, "steps_total": 3,
}  # fmt: skip
STEP: dict[str, Any] = {"run_id": "1aaaaaaaaa", "instance": "a", "position": 0, "state": "running"}
ATTEMPT: dict[str, Any] = {
    "run_id": "1aaaaaaaaa", "instance": "s", "number": 1, "epoch": 1, "state": "running", "started_at": 1,
}  # fmt: skip
EVENT: dict[str, Any] = {"run_id": "1aaaaaaaaa", "seq": 9, "at": 1, "kind": "noted", "by": "ada"}
WISH: dict[str, Any] = {"run_id": "1aaaaaaaaa", "id": 1, "kind": "cancel", "by": "ada", "at": 1}
BASE = {"runs": RUN, "steps": STEP, "attempts": ATTEMPT, "events": EVENT, "wishes": WISH}


@pytest.fixture
def tables(store: Store) -> sqlite3.Connection:
    """One run with one step, to hang rows on."""
    store.record(new_run(), snapshot())
    connection = store.database.connection
    connection.execute(
        "INSERT INTO steps (run_id, instance, position, state) VALUES ('1aaaaaaaaa', 's', 7, 'running')"
    )
    return connection


def insert(connection: sqlite3.Connection, table: str, change: dict[str, Any]) -> None:
    row = BASE[table] | change
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()])


@pytest.mark.parametrize("table", BASE)
def test_the_rows_that_the_bad_ones_are_made_from_are_good(tables: sqlite3.Connection, table: str) -> None:
    insert(tables, table, {})


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("runs", {"state": "sleeping"}),
        ("runs", {"state": None}),
        ("runs", {"state": "finished"}),
        ("runs", {"state": "finished", "outcome": "succeeded"}),
        ("runs", {"state": "finished", "finished_at": 2}),
        ("runs", {"outcome": "failed"}),
        ("runs", {"finished_at": 2}),
        ("runs", {"state": "finished", "finished_at": 2, "outcome": "interrupted"}),
        ("runs", {"state": "finished", "finished_at": 2, "outcome": "great"}),
        ("runs", {"closing": "cancelled"}),
        ("runs", {"closing_at": 2}),
        ("runs", {"closing": "failed", "closing_at": 2}),
        ("runs", {"steps_done": 4}),
        ("runs", {"steps_done": -1}),
        ("runs", {"steps_total": None}),
        ("runs", {"created_at": "yesterday"}),
        ("runs", {"created_at": 1.5}),
        ("runs", {"params": "{not json"}),
        ("runs", {"snapshot": "0" * 64}),
        ("runs", {"parent": "nobody"}),
        ("runs", {"id": "1aaaaaaaaa"}),
        ("runs", {"id": None}),
        ("runs", {"stopped": 2}),
        ("steps", {"state": "interrupted"}),
        ("steps", {"state": "finished", "finished_at": 2}),
        ("steps", {"state": "finished", "outcome": "succeeded"}),
        ("steps", {"state": "finished", "outcome": "interrupted", "finished_at": 2}),
        ("steps", {"outcome": "succeeded"}),
        ("steps", {"state": "queued", "finished_at": 2}),
        ("steps", {"state": "waiting"}),
        ("steps", {"due": 5}),
        ("steps", {"state": "finished", "outcome": "failed", "finished_at": 2, "due": 5}),
        ("steps", {"covered": 2}),
        ("steps", {"question": "was it?"}),
        ("steps", {"state": "waiting", "question": "was it?", "due": 5}),
        ("steps", {"state": "waiting", "question": "was it?", "verifying": 1}),
        ("steps", {"state": "finished", "outcome": "failed", "finished_at": 2, "question": "was it?"}),
        ("steps", {"state": "finished", "outcome": "failed", "finished_at": 2, "verifying": 1}),
        ("steps", {"state": "queued", "verifying": 1}),
        ("steps", {"verifying": 2}),
        ("runs", {"wake_at": 5}),
        ("steps", {"asked": "go"}),
        ("steps", {"inputs": "x: 1"}),
        ("steps", {"outputs": "{"}),
        ("steps", {"run_id": "nobody"}),
        ("steps", {"instance": "s"}),
        ("steps", {"instance": None}),
        ("attempts", {"number": 0}),
        ("attempts", {"state": "queued"}),
        ("attempts", {"state": "finished"}),
        ("attempts", {"state": "finished", "outcome": "failed"}),
        ("attempts", {"state": "finished", "outcome": "skipped", "finished_at": 2}),
        ("attempts", {"outcome": "failed"}),
        ("attempts", {"finished_at": 2}),
        ("attempts", {"requested": 3}),
        ("attempts", {"instance": "nobody"}),
        ("attempts", {"epoch": None}),
        ("events", {"detail": "nothing"}),
        ("events", {"seq": 1}),
        ("events", {"run_id": "nobody"}),
        ("events", {"by": None}),
        ("wishes", {"kind": "pause"}),
        ("wishes", {"instance": "s"}),
        ("wishes", {"kind": "rerun"}),
        ("wishes", {"run_id": "nobody"}),
    ],
    ids=repr,
)
def test_an_impossible_row_is_refused(tables: sqlite3.Connection, table: str, change: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(tables, table, change)


def test_a_key_belongs_to_one_run_of_a_job(tables: sqlite3.Connection) -> None:
    insert(tables, "runs", {"run_key": "monday"})
    insert(tables, "runs", {"run_key": "monday", "job": "another", "id": "1cccccccc0"})
    insert(tables, "runs", {"id": "1cccccccc1"})
    insert(tables, "runs", {"id": "1cccccccc2"})  # runs without a key are as many as they like
    with pytest.raises(sqlite3.IntegrityError, match="run_key"):
        insert(tables, "runs", {"run_key": "monday", "id": "1cccccccc3"})


def test_the_words_are_those_of_the_model(tables: sqlite3.Connection) -> None:
    definitions = dict(tables.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    for state in get_args(State):
        assert f"'{state}'" in definitions["runs"] and f"'{state}'" in definitions["steps"]
    for state in TRANSITIONS["attempt"]:
        assert f"'{state}'" in definitions["attempts"]
    for outcome in get_args(Outcome):
        assert (f"'{outcome}'" in definitions["steps"]) == (outcome != "interrupted")
        assert (f"'{outcome}'" in definitions["attempts"]) == (outcome != "skipped")


def test_what_belongs_to_a_run_goes_with_it(tables: sqlite3.Connection) -> None:
    insert(tables, "attempts", {})
    insert(tables, "wishes", {})
    tables.execute("DELETE FROM runs WHERE id = '1aaaaaaaaa'")
    for table in ("steps", "attempts", "events", "wishes"):
        assert tables.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_every_table_is_strict_and_marked_as_ours(database: Database) -> None:
    connection = database.connection
    rows = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    assert {name: strict for name, strict in rows if not name.startswith("sqlite_")} == dict.fromkeys(
        (
            "snapshots", "items", "usage", "spending", "calls", "jobs", "ticks", "hearers", "notices", "streaks", *BASE,
        ), 1,
    )
    pragmas = {"user_version": schema.VERSION, "application_id": schema.APPLICATION_ID, "journal_mode": "wal",
               "synchronous": 2, "foreign_keys": 1}  # fmt: skip
    for pragma, expected in pragmas.items():
        assert connection.execute(f"PRAGMA {pragma}").fetchone() == (expected,), pragma


def test_the_views_for_people(tables: sqlite3.Connection) -> None:
    tables.execute("UPDATE runs SET state = 'running', started_at = created_at")
    tables.execute(
        "UPDATE runs SET state = 'finished', outcome = 'failed', finished_at = created_at + 1500, error = 'why'"
    )
    insert(tables, "attempts", {"started_at": 1000, "state": "finished", "outcome": "failed", "finished_at": 3500})
    assert tables.execute(
        "SELECT job, run, outcome, created_at, seconds, steps_total, error FROM job_status"
    ).fetchall() == [("quotes", "1aaaaaaaaa", "failed", "2026-05-28T20:26:40.000Z", 1.5, 3, "why")]
    assert tables.execute("SELECT job, step, attempt, outcome, started_at, seconds FROM step_history").fetchall() == [
        ("quotes", "s", 1, "failed", "1970-01-01T00:00:01.000Z", 2.5)
    ]
    assert tables.execute("SELECT job, run, seq, kind, by FROM journal").fetchall() == [
        ("quotes", "1aaaaaaaaa", 1, "run_created", "ada")
    ]
