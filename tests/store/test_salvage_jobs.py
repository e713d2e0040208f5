"""Jobs and ticks after a repair: from the damaged database, a backup, or the runs; what may be missing is said."""

from __future__ import annotations

import os
import shutil
import sqlite3

import pytest

from agentrun.instants import rfc3339
from agentrun.store import backups
from agentrun.store.database import open_for_reading, open_for_writing
from agentrun.store.folders import RunFolder
from agentrun.store.jobs import JobQuestions, JobRow, Jobs, Settlement, TickRow, Unrun
from agentrun.store.repair import repair
from agentrun.store.write import Store

from .records import NOW, owned

HOUR = 3_600_000
T = NOW - NOW % HOUR  # the tick of the first run
SCHEDULE = {"zone": None, "schedules": []}
RUNS_ALONE = (
    "job quotes is known by its runs alone, and counts again from its next tick on: whether it was paused or installed,"
    " and why ticks of it did not run, could not be brought back"
)
SINCE = "whether it is paused or installed, and why ticks of it did not run, may have been said since"
Known = tuple[list[JobRow], list[TickRow]]

PUT = {"how": "cron", "schedule": ["@daily"], "timezone": None, "machine": "/etc/localtime"}

def tick(store: Store, run_id: str, at: int, **more: object) -> None:
    """A run of a tick, which accounts for it."""
    RunFolder(store.database.root, run_id).create()
    owned(store, run_id, run_key=f"tick {rfc3339(at)}", scheduled_time=at, **{"created_at": at + 500, **more})


def account(store: Store, before: int | None, settled: int, *unrun: Unrun) -> None:
    settlement = Settlement("quotes", "/jobs/quotes.yaml", "seen", SCHEDULE, before, settled, settled + HOUR, unrun)
    Jobs(store.database).settle(settlement, now=settled + 500, by="ada")


@pytest.fixture
def home(root: str) -> str:
    """A job with two ticks that ran, one that did not, and a pause; the backup has the first of the runs."""
    with Store(open_for_writing(root)) as store:
        account(store, None, T, Unrun(T - 2 * HOUR, T - HOUR, 2, "missed", "catch_up"))
        tick(store, "1aaaaaaaaa", T)
        Jobs(store.database).install("mail", "/jobs/mail.yaml", PUT)
        assert backups.back_up(root, NOW / 1000)
        account(store, T, T + 2 * HOUR, Unrun(T + HOUR, T + HOUR, 1, "skipped", "overlap", "1aaaaaaaaa"))
        tick(store, "2aaaaaaaaa", T + 2 * HOUR)
        tick(store, "3aaaaaaaaa", T + 500 * HOUR, created_at=NOW, job="mail")  # by hand, of a time to come
        Jobs(store.database).pause("quotes", "/jobs/quotes.yaml", by="eve", why="holidays", now=NOW)
    return root


def known(home: str) -> Known:
    connection = open_for_reading(home)
    assert connection is not None
    asked = JobQuestions(connection)
    found = asked.jobs(), asked.ticks()
    connection.close()
    return found


def damage(home: str, *statements: str) -> None:
    connection = sqlite3.connect(f"{home}/agentrun.db", isolation_level=None)
    for statement in ("PRAGMA ignore_check_constraints = ON", *statements):
        connection.execute(statement)
    connection.close()


def overwrite(home: str, table: str) -> None:
    """Fill the page of a table, which has no more than one, with what nobody can read."""
    connection = sqlite3.connect(f"{home}/agentrun.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    with open(f"{home}/agentrun.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xaa" * 4096)


def healed(home: str) -> list[str]:
    """Repair it, and see that there is nothing left to do; what could not be brought back."""
    lost = repair(home, lambda _: None).lost
    told: list[str] = []
    assert repair(home, told.append).lost == []
    assert told == ["nothing is wrong with the database: nothing has been changed"]
    return lost


@pytest.mark.parametrize("backed_up", [True, False], ids=["backup", "none"])
def test_they_are_read_from_the_damaged_database(home: str, backed_up: bool) -> None:
    before = known(home)
    assert before[0][1].paused_by == "eve" and len(before[1]) == 2
    if not backed_up:
        shutil.rmtree(backups.folder(home))
    damage(home, "DROP VIEW journal")
    assert healed(home) == []
    assert known(home) == before


def test_without_any_copy_the_runs_tell_which_ticks_are_taken(home: str) -> None:
    shutil.rmtree(backups.folder(home))
    os.unlink(f"{home}/agentrun.db")
    assert healed(home) == [RUNS_ALONE]
    row = JobRow("quotes", "/jobs/quotes.yaml", None, None, T + 2 * HOUR, None, None, None, None, None, None)
    assert known(home) == ([row], [])


def test_a_backup_is_older_than_the_runs(home: str) -> None:
    os.unlink(f"{home}/agentrun.db")
    assert healed(home) == [
        f"job mail is known as a backup has it: {SINCE}", f"job quotes is known as a backup has it: {SINCE}"
    ]  # fmt: skip
    (mail, quotes), ticks = known(home)
    assert (mail.installed, mail.settled) == (PUT, None)
    assert (quotes.schedule, quotes.settled, quotes.paused_at) == (SCHEDULE, T + 2 * HOUR, None)
    assert [(one.first, one.last) for one in ticks] == [(T - 2 * HOUR, T - HOUR)]


@pytest.mark.parametrize("table", ["jobs", "ticks"])
def test_of_two_tables_one_can_be_read(home: str, table: str) -> None:
    jobs, ticks = known(home)
    overwrite(home, table)
    lost = healed(home)
    if table == "jobs":
        assert [sentence.partition(":")[0] for sentence in lost] == [
            "job mail is known as a backup has it", "job quotes is known as a backup has it"
        ]  # fmt: skip
        assert known(home)[1] == ticks
        assert known(home)[0][1].settled == T + 2 * HOUR
    else:
        assert lost == [
            "the accounts of ticks that did not run could not be read, or in part only: some may be missing"
        ]
        assert known(home) == (jobs, ticks[1:]), "the older one is in the backup"


@pytest.mark.parametrize(
    "change",
    [f"settled = {NOW + 9_000_000 * HOUR}",
     "schedule = 'no json'",
     "installed = '{}'",
     "installed = 'x', paused_by = NULL"],
)
def test_a_row_that_nobody_has_written_is_not_believed(home: str, change: str) -> None:
    damage(home, f"UPDATE jobs SET {change} WHERE name = 'quotes'", "DROP VIEW journal")
    assert healed(home) == [f"job quotes is known as a backup has it: {SINCE}"]
    assert known(home)[0][1].settled == T + 2 * HOUR


def test_a_backup_that_is_newer_than_the_damaged_database_counts(home: str) -> None:
    damage(home, f"UPDATE jobs SET settled = {T - HOUR} WHERE name = 'quotes'", "DROP VIEW journal")
    healed(home)
    assert known(home)[0][1].settled == T + 2 * HOUR


def test_a_sound_database_that_has_forgotten_a_run_learns_of_its_tick(home: str) -> None:
    damage(
        home,
        "PRAGMA foreign_keys = ON",
        "DELETE FROM runs WHERE id = '2aaaaaaaaa'",
        f"UPDATE jobs SET settled = {T} WHERE name = 'quotes'",
    )
    with Store(open_for_writing(home)) as store:  # a run of one transaction may never have been committed
        store.wish_to_cancel("1aaaaaaaaa", by="eve", now=NOW)
        store.wish_to_cancel("1aaaaaaaaa", by="eve", now=NOW)
    damage(home, "DELETE FROM wishes", "UPDATE runs SET writes = 1 WHERE id = '1aaaaaaaaa'")
    assert healed(home) == [
        f"job quotes is known as it was before its tick of {rfc3339(T + 2 * HOUR)}: {SINCE}",
        "what was said of jobs last (a pause, an installation, why a tick did not run) may be missing: the database had"
        " forgotten its newest transactions",
    ]
    assert known(home)[0][1].settled == T + 2 * HOUR
