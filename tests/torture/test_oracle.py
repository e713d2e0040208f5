"""The oracle sees what it is for: each kind of lie, made by hand in a record of a run that really took place."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator

import pytest

from . import jobs, oracle
from .place import Place

Lie = Callable[[Place], object]


@pytest.fixture(scope="module")
def truth() -> Iterator[Place]:
    """A run of the smallest job, undisturbed."""
    with Place() as place:
        assert place.command("run", jobs.SEQUENCE.write(place)).returncode == 0
        place.wait_quiet()
        yield place


@pytest.fixture
def place(truth: Place) -> Iterator[Place]:
    """The same, to be lied about, and put back."""
    ledger, log = truth.ledger.read_text(), _log(truth).read_text()
    database = sqlite3.connect(truth.home / "agentrun.db")
    copy = sqlite3.connect(":memory:")
    database.backup(copy)
    yield truth
    copy.backup(database)
    database.close()
    truth.ledger.write_text(ledger)
    _log(truth).write_text(log)


def test_an_undisturbed_run_is_as_it_must_be(place: Place) -> None:
    assert oracle.violations(place, jobs.SEQUENCE) == []
    assert len(oracle.ledger(place)) == 6


def _log(place: Place):  # type: ignore[no-untyped-def]
    return place.home / "runs" / place.runs()[0] / "log" / "b#1.log"


def _say(line: str) -> Lie:
    """A line at the end of the ledger, made from the begin of step b."""

    def lie(place: Place) -> None:
        begin = next(text for text in place.ledger.read_text().splitlines() if text.split()[0::2][:2] == ["begin", "b"])
        _, run, step, _, key, pid, _ = begin.split(" ")
        with open(place.ledger, "a") as ledger:
            ledger.write(line.format(run=run, step=step, key=key, pid=pid) + "\n")

    return lie


def _unsay(start: str) -> Lie:
    def lie(place: Place) -> None:
        lines = place.ledger.read_text().splitlines(keepends=True)
        place.ledger.write_text("".join(line for line in lines if not line.startswith(start)))

    return lie


def _write(sql: str) -> Lie:
    def lie(place: Place) -> None:
        connection = sqlite3.connect(place.home / "agentrun.db")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)
        connection.commit()
        connection.close()

    return lie


def _swap(place: Place) -> None:
    lines = place.ledger.read_text().splitlines(keepends=True)
    place.ledger.write_text("".join(lines[4:] + lines[:4]))


FIRST = "(SELECT id FROM runs LIMIT 1)"
LIES: dict[str, tuple[Lie, str]] = {
    "the same attempt twice": (_say("begin {run} b 1 {key} {pid} 0"), "began twice"),
    "one that no record knows": (_say("begin {run} b 2 {key} {pid} 0"), "no record knows it"),
    "another key": (_say("begin {run} b 2 other {pid} 0"), "had the key"),
    "a key of two": (_say("begin {run} x 1 {key} {pid} 0"), "has the key of"),
    "two at once": (_say("overlap {run} b 1 {key} {pid} -"), "while another was alive"),
    "the wrong order": (_swap, "began before b was over"),
    "succeeded without an end": (_unsay("end"), "reads succeeded, and in the ledger it ended None"),
    "run again after it succeeded": (_write("UPDATE steps SET attempt = 2 WHERE instance = 'b'"), "was begun after"),
    "not finished": (
        _write("UPDATE runs SET state = 'running', outcome = NULL, finished_at = NULL"), "is running"
    ),
    "another end": (_write("UPDATE runs SET outcome = 'failed'"), "ended as failed"),
    "a gap in the journal": (_write("DELETE FROM events WHERE seq = 3"), "the last has number"),
    "a row that refers to nothing": (_write("DELETE FROM runs"), "refers to nothing"),
    "an end that was forgotten": (
        _write("UPDATE attempts SET outcome = 'interrupted' WHERE instance = 'b'"), "was taken for interrupted"
    ),
    "a log that lacks a line": (lambda place: _log(place).write_text("begin b#1\n"), "the log of b#1 holds"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_each_lie_is_seen(place: Place, name: str) -> None:
    lie, words = LIES[name]
    lie(place)
    assert any(words in violation for violation in oracle.violations(place, jobs.SEQUENCE))


def test_a_policy_that_was_not_kept_is_seen(place: Place) -> None:
    _write("UPDATE attempts SET outcome = 'interrupted' WHERE instance = 'b'")(place)
    _write(
        "INSERT INTO attempts (run_id, instance, number, epoch, state, started_at) SELECT run_id, instance, 2, 1,"
        " 'running', 0 FROM attempts WHERE instance = 'b'"
    )(place)
    job = jobs.Job("sequence", "", policies={"b": "fail"})
    assert any("against its on_interrupt" in violation for violation in oracle.violations(place, job))


def test_a_process_that_is_left_is_seen(place: Place) -> None:
    left = subprocess.Popen(["sleep", "60"], env={**os.environ, "TORTURE": str(place.root)})
    try:
        place.wait_for(lambda: left.pid in place.processes())
        assert f"processes are left: [{left.pid}]" in oracle.violations(place, jobs.SEQUENCE)
    finally:
        left.kill()
        left.wait()
