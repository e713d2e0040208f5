"""The database in every state that a look at it can find."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.health import record
from agentrun.health.checkup import look
from agentrun.health.site import FIRST, NOT_KNOWN, Site
from agentrun.store import inspection, schema

from .conftest import Patient

ASKING = (
    "journals", "run_journals", "backups", "stranded_runs", "waiting_runs", "lost_runs", "orphan_folders",
    "leftover_processes",
)  # fmt: skip
ALL = ("sqlite_version", "sqlite_library", "database", "wal", "write_lock", *ASKING)


@pytest.mark.parametrize("name", ALL)
def test_a_sound_record(patient: Patient, name: str) -> None:
    patient.run().succeed("rates").succeed("mail").finish()
    patient.good(name)


def test_what_is_said_of_the_database(patient: Patient) -> None:
    patient.run().finish()
    patient.settled()
    assert patient.good("database").startswith("1 run, ")
    assert patient.good("database").endswith(f"version {schema.VERSION}")


def test_the_bug_of_old_sqlite_is_told_with_why_it_does_no_harm(patient: Patient) -> None:
    said = patient.good("sqlite_version")
    assert sqlite3.sqlite_version in said
    assert ("WAL-reset" in said) == (sqlite3.sqlite_version_info < (3, 51, 3))
    assert ("under one lock" in said) == ("WAL-reset" in said)


@pytest.mark.parametrize("name", ALL)
def test_before_the_first_run(fresh: Site, name: str) -> None:
    assert look(name, fresh).ok
    assert os.listdir(os.path.dirname(fresh.root)) == []


def _overwrite(start: int, length: int) -> Callable[[str], None]:
    def harm(path: str) -> None:
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * length)

    return harm


def _sql(statement: str) -> Callable[[str], None]:
    def harm(path: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement)
        connection.close()

    return harm


def _folder(path: str) -> None:
    os.unlink(path)
    os.mkdir(path, 0o700)


HARM = {
    "its first page": (_overwrite(0, 4096), "is damaged"),
    "its first bytes": (_overwrite(0, 10), "is damaged"),
    "a page in the middle": (_overwrite(4096 * 4, 4096), "is damaged"),
    "its end": (lambda path: os.truncate(path, 20_000), "is damaged"),
    "nothing in it": (lambda path: os.truncate(path, 0), "is gone or empty, and there are the folders of 1 run"),
    "no file": (os.unlink, "is gone or empty"),
    "a folder": (_folder, "is no plain file → move it away"),
    "another program's": (_sql("PRAGMA application_id = 7"), "is damaged: it does not say that it is agentrun's"),
    "no version": (_sql("PRAGMA user_version = 0"), "is damaged: it does not say that it is agentrun's"),
    "a table too few": (_sql("DROP TABLE events"), "is damaged: "),
    "a column too few": (_sql("ALTER TABLE calls DROP COLUMN error"), "is damaged: it does not have the tables"),
    "a newer one": (_sql("PRAGMA user_version = 99"), "was written by a newer agentrun (version 99"),
    "a row too many": (_sql("INSERT INTO spending VALUES ('gone', '2026-11-20', 1, 1, 1)"), "is damaged: a row of"),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
def test_a_database_that_is_not_right(patient: Patient, what: str) -> None:
    patient.run().succeed("rates").succeed("mail").finish()
    patient.settled()
    patient.leave()
    harm, said = HARM[what]
    path = os.path.join(patient.root, "agentrun.db")
    harm(path)
    before = _bytes(path)
    told = patient.bad("database")
    assert said in told
    if "damaged" in said or "gone" in said:
        assert "→ agentrun doctor --repair" in told
    for name in ASKING:  # each answers, or says why it cannot
        patient.ask(name)
    if "gone" in said:
        for name in ("journals", "run_journals", "stranded_runs", "waiting_runs", "lost_runs", "orphan_folders"):
            assert patient.bad(name) == f"{NOT_KNOWN} → {FIRST}", name
    assert _bytes(path) == before, "nothing is made or changed by looking"


def test_a_database_of_another_program(tmp_path: Path) -> None:
    _sql("CREATE TABLE theirs (a)")(str(tmp_path / "agentrun.db"))
    found = look("database", Site(str(tmp_path), {}))
    assert found.detail.endswith("is a database of another program")
    assert "AGENTRUN_HOME" in found.remedy


def test_a_database_that_is_being_made(tmp_path: Path) -> None:
    _sql("PRAGMA journal_mode = WAL")(str(tmp_path / "agentrun.db"))
    assert os.path.getsize(tmp_path / "agentrun.db")
    site = Site(str(tmp_path), {})
    for name in ASKING:
        assert look(name, site).ok
    assert look("database", site).detail.startswith("there is none yet")


def _bytes(path: str) -> bytes | None:
    return Path(path).read_bytes() if os.path.isfile(path) else None


def test_who_needs_the_record_says_that_it_cannot_be_read(patient: Patient) -> None:
    patient.run()
    patient.settled()
    _overwrite(0, 100)(os.path.join(patient.root, "agentrun.db"))
    assert patient.bad("stranded_runs") == (
        "not known: the database cannot be read → first do what is said at `database`"
    )


def test_a_database_of_an_earlier_version_is_left_as_it_is(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "agentrun.db", isolation_level=None)
    connection.executescript(schema.MIGRATIONS[0])
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    before = (tmp_path / "agentrun.db").read_bytes()
    site = Site(str(tmp_path), {})
    assert look("database", site).detail.endswith("version 1; the next command brings it up to date")
    for name in ("journals", "stranded_runs", "clock"):
        assert look(name, site).ok
    site.close()
    assert (tmp_path / "agentrun.db").read_bytes() == before


def test_a_long_look_is_cut_short_and_says_so(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.run()
    connection = patient.world.store.database.connection
    connection.execute(
        "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
        " INSERT INTO events SELECT 'k3v9x00001', i, 0, 'noted', NULL, NULL, 'ann', NULL FROM n"
    )
    monkeypatch.setattr(record, "_READING", 0.001)
    assert "only what could be read in 0 s was checked" in patient.good("database")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM events WHERE seq = 3", "k3v9x00001 ("),
        ("DELETE FROM events WHERE seq = 1", "k3v9x00001 ("),
        ("DELETE FROM events", "k3v9x00001 (0 of 0)"),
    ],
)
def test_a_gap_in_a_journal(patient: Patient, statement: str, said: str) -> None:
    patient.run().succeed("rates").succeed("mail").finish()
    patient.good("journals")
    patient.world.store.database.connection.execute(statement)
    told = patient.bad("journals")
    assert said in told
    assert told.endswith("→ agentrun doctor --repair")


def test_a_wal_that_somebody_keeps_from_beginning_anew(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.run()
    monkeypatch.setattr(record, "_WAL", 1000)
    with subprocess.Popen(
        [sys.executable, "-c", READER, os.path.join(patient.root, "agentrun.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as reader:  # fmt: skip
        assert reader.stdout and reader.stdin
        reader.stdout.readline()
        said = patient.bad("wal")
        assert "agentrun.db-wal has grown to " in said
        assert f"{reader.pid} (" in said
        reader.stdin.close()


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM runs").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""

def test_a_database_that_was_put_back_to_an_older_state(patient: Patient) -> None:
    run = patient.run().succeed("rates")
    patient.settled()
    path = os.path.join(patient.root, "agentrun.db")
    older = Path(path).read_bytes()
    patient.good("run_journals")
    run.succeed("mail").finish()
    patient.good("run_journals")
    patient.leave()
    Path(path).write_bytes(older)
    told = patient.bad("run_journals")
    assert f"of runs know: {run.id} (" in told
    assert told.endswith("→ agentrun doctor --repair")


def test_backups_are_counted_and_missed(patient: Patient) -> None:
    assert "none yet" in patient.good("backups")
    copies = Path(patient.root, "backups")
    copies.mkdir(0o700)
    for name, hours in (("agentrun-1.db", 30), ("agentrun-2.db", 3)):
        (copies / name).touch(0o600)
        os.utime(copies / name, (0, patient.now / 1000 - hours * 3600))
    for number in range(3):
        patient.good("backups")
        patient.run(f"k3v9x0000{number}").finish()
    said = patient.bad("backups")
    assert f"2 in {copies}, the latest agentrun-2.db, 3 hours old, and 3 runs have ended since then" in said
    os.utime(copies / "agentrun-2.db", (0, patient.now / 1000 - 7000))
    patient.good("backups")


HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "r+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(patient: Patient) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.path.join(patient.root, "agentrun.lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stdin
        process.stdout.readline()
        yield process
        process.kill()


def test_a_writer_that_keeps_the_lock_is_named(
    patient: Patient, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_PATIENCE", 0.2)
    said = patient.bad("write_lock")
    assert f"process {holder.pid} (" in said
    assert "kill -CONT" in said
    holder.kill()
    holder.wait()
    patient.good("write_lock")


def test_to_look_at_the_lock_does_not_take_it(patient: Patient) -> None:
    assert inspection.wait_for_writers(patient.root, 1) is None
    with open(os.path.join(patient.root, "agentrun.lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
