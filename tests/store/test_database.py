"""Opening, migrating and refusing a database; real files, and what a person would be told."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.errors import Busy, CannotWrite, StoreError
from agentrun.instants import parse_rfc3339
from agentrun.store import database as module
from agentrun.store import locks, schema, spent
from agentrun.store.database import Database, open_for_reading, open_for_writing, path
from agentrun.store.folders import RunFolder
from agentrun.store.inspection import inspect
from agentrun.store.jobs import Jobs
from agentrun.store.read import Reader
from agentrun.store.repair import repair
from agentrun.store.write import Store

from .records import failed_run, owned, python, snapshot

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: only root can")


def files(root: str) -> dict[str, str]:
    """What a state folder holds, by content."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(root).iterdir() if file.is_file()
    }


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount something on; unmounted afterwards."""
    point = tmp_path / "mount"
    point.mkdir()
    yield point
    subprocess.run(["umount", str(point)], check=True)


# --- opening ---


def test_a_new_database_is_private(root: str) -> None:
    old = os.umask(0)
    try:
        database = open_for_writing(root)
        owned(Store(database))
        assert {name: stat.S_IMODE(os.stat(f"{root}/{name}").st_mode) for name in os.listdir(root)} == dict.fromkeys(
            ("agentrun.db", "agentrun.db-wal", "agentrun.db-shm", "agentrun.lock"), 0o600
        )
        database.close()
    finally:
        os.umask(old)
    assert sorted(os.listdir(root)) == ["agentrun.db", "agentrun.lock"]  # the WAL is checkpointed and gone


def test_it_is_there_when_it_is_opened_again(root: str) -> None:
    for number in range(3):
        database = open_for_writing(root)
        owned(Store(database), f"1aaaaaaaa{number}")
        database.close()
    connection = open_for_reading(root)
    assert connection is not None
    assert [run.id for run in Reader(connection).unfinished()] == ["1aaaaaaaa0", "1aaaaaaaa1", "1aaaaaaaa2"]
    connection.close()


def test_there_is_nothing_to_read_yet(root: str) -> None:
    assert open_for_reading(root) is None
    assert not os.path.exists(root)
    os.mkdir(root, 0o700)
    Path(path(root)).touch()  # its creator has not committed the tables
    assert open_for_reading(root) is None


def test_a_reader_cannot_write(root: str, store: Store) -> None:
    connection = open_for_reading(root)
    assert connection is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM runs")
    connection.close()


def test_a_reader_sees_each_commit_and_holds_up_nobody(root: str, store: Store) -> None:
    connection = open_for_reading(root)
    assert connection is not None
    reader = Reader(connection)
    for number in range(3):
        owned(store, f"1aaaaaaaa{number}")
        assert len(reader.unfinished()) == number + 1
    assert store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # not busy
    connection.close()


def test_a_folder_with_marks_in_its_name(tmp_path: Path) -> None:
    root = str(tmp_path / "a b?c#d%41")
    database = open_for_writing(root)
    owned(Store(database))
    connection = open_for_reading(root)
    assert connection is not None and len(Reader(connection).unfinished()) == 1
    connection.close()
    database.close()
    assert sorted(os.listdir(tmp_path)) == ["a b?c#d%41"]


def test_a_folder_that_others_can_write_to_is_not_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(CannotWrite, match="can be written by others"):
        open_for_writing(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_others_could_have_written_is_read_without_believing_its_pickles(root: str, store: Store) -> None:
    run_id = owned(store)
    store.database.connection.execute("UPDATE snapshots SET decoded = x'00'")
    os.chmod(root, 0o777)
    connection = open_for_reading(root)
    assert connection is not None
    reader = Reader(connection)
    run = reader.run(run_id)
    assert [step.id for step in reader.job_of(run).steps] == ["a", "b", "c"]
    assert reader.text_of(run) == snapshot().text
    connection.close()
    os.chmod(root, 0o700)


# --- what is refused ---


def test_a_newer_database_is_refused_untouched(root: str, store: Store, said: list[str]) -> None:
    owned(store)
    store.database.connection.execute(f"PRAGMA user_version = {schema.VERSION + 3}")
    store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = root + "-copy"
    shutil.copytree(root, copy)
    before = files(copy)
    told = f"newer agentrun .database version {schema.VERSION + 3}, this program knows {schema.VERSION}"
    for opener in (open_for_writing, open_for_reading):
        with pytest.raises(StoreError, match=told) as refused:
            opener(copy)
        assert refused.value.hint == "use the newer program; nothing has been changed"
    assert files(copy)["agentrun.db"] == before["agentrun.db"]


@pytest.mark.parametrize("version", [0, 1, 7])
@pytest.mark.parametrize("opener", [open_for_writing, open_for_reading])
def test_a_database_of_another_program_is_refused_untouched(root: str, version: int, opener: object) -> None:
    os.mkdir(root, 0o700)
    other = sqlite3.connect(path(root))
    other.execute("CREATE TABLE bookmarks (url)")
    other.execute(f"PRAGMA user_version = {version}")
    other.commit()
    other.close()
    before = files(root)
    with pytest.raises(StoreError, match=r"agentrun\.db is a database of another program") as refused:
        opener(root)  # type: ignore[operator]
    assert refused.value.hint == "set AGENTRUN_HOME to a folder of agentrun's own"
    assert {name: content for name, content in files(root).items() if name != "agentrun.lock"} == before


@pytest.mark.parametrize("opener", [open_for_writing, open_for_reading])
def test_a_file_that_is_no_database(root: str, opener: object) -> None:
    os.mkdir(root, 0o700)
    Path(path(root)).write_text("steps: this is a job file\n" * 100)
    before = files(root)
    with pytest.raises(StoreError, match=r"agentrun\.db is damaged: file is not a database") as refused:
        opener(root)  # type: ignore[operator]
    assert refused.value.hint and "backups/" in refused.value.hint
    assert files(root)["agentrun.db"] == before["agentrun.db"]


def test_damage_inside_is_told_when_it_is_met(root: str) -> None:
    database = open_for_writing(root)
    for number in range(300):
        owned(Store(database), f"1{number:09d}")
    pages = [
        page - 1  # SQLite counts from 1; the tables' roots stay, or it could not even be opened
        for (page,) in database.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs'")
    ]
    database.close()
    with open(path(root), "r+b") as file:
        for page in pages:
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    before = files(root)["agentrun.db"]
    connection = open_for_reading(root)
    assert connection is not None
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        Reader(connection).runs()
    connection.close()
    database = open_for_writing(root, patience=0.2)
    with pytest.raises(StoreError, match=r"agentrun\.db is damaged") as damaged:
        owned(Store(database), "2aaaaaaaaa")
    assert damaged.value.hint and "backups/" in damaged.value.hint
    database.close()
    assert files(root)["agentrun.db"] == before  # nothing was written into what is left of it


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(CannotWrite):
        open_for_writing(str(tmp_path / "state"))


def _socket(file: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(file)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("folder", os.mkdir), ("pipe", os.mkfifo), ("socket", _socket),
        ("device", lambda file: os.symlink("/dev/zero", file)),
    ],
)  # fmt: skip
def test_no_plain_file_in_place_of_the_database(root: str, kind: str, make: Callable[[str], None]) -> None:
    """To open a pipe for reading waits for who writes into it: nobody ever does."""
    open_for_writing(root).close()
    os.rename(path(root), path(root) + ".away")
    make(path(root))
    told = f"{path(root)} is a {kind}, not a database"
    for work in (open_for_writing, open_for_reading, inspect, lambda home: repair(home, print)):
        before = os.lstat(path(root))
        with pytest.raises(StoreError, match=re.escape(told)) as refused:
            work(root)
        assert (refused.value.exit_code, os.lstat(path(root)).st_ino) == (74, before.st_ino)


# --- migrations ---


@pytest.fixture
def older(root: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A state folder with one run, written by a program that knew one migration less."""
    database = open_for_writing(root)
    owned(Store(database))
    database.close()
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE a (b);\nINSERT INTO a VALUES (';');\n")
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    return root


def version(root: str) -> int:
    connection = sqlite3.connect(path(root))
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_an_older_database_is_brought_up_to_date(older: str) -> None:
    database = open_for_writing(older)
    assert database.connection.execute("SELECT b FROM a").fetchall() == [(";",)]
    assert len(Reader(database.connection).unfinished()) == 1
    database.close()
    assert version(older) == schema.VERSION


OLD = Path(__file__).parent / "old"


@pytest.mark.parametrize("name", sorted(file.name for file in OLD.iterdir()))
def test_a_database_of_an_earlier_release_is_understood_for_ever(root: str, name: str) -> None:
    Path(root).mkdir(mode=0o700, exist_ok=True)
    Path(path(root)).write_bytes(gzip.decompress((OLD / name).read_bytes()))
    database = open_for_writing(root)
    reader = Reader(database.connection)
    assert version(root) == schema.VERSION
    assert [(run.job, run.state, run.outcome) for run in reader.runs() if run.job != "asks"] == [
        ("slow", "running", None), ("nightly", "finished", "failed"), ("nightly", "finished", "failed"),
        ("nightly", "finished", "succeeded"),
    ]  # fmt: skip
    slow, failed = reader.runs()[:2]
    assert [step.id for step in reader.job_of(slow).steps] == ["one", "two", "three"]
    assert [(row.instance, row.state, row.number) for row in reader.steps(slow.id)] == [
        ("one", "finished", -1), ("two", "running", -1)
    ]  # fmt: skip
    assert reader.outputs(failed.id, "fetch") == {"count": 3, "list": ["a", "b"]}
    Store(database).reopen(failed.id, ["mail", "tidy"], handlers={"tidy"}, by="ada", now=2_000_000_000_000)
    again = reader.run(failed.id)
    assert (again.state, again.steps_done, again.steps_total) == ("running", 2, 4)
    database.close()


def test_what_version_4_recorded_is_there(root: str) -> None:
    """A parked run and its question, items, usage, keys of ticks; and tables of jobs and ticks, which are empty."""
    Path(root).mkdir(mode=0o700, exist_ok=True)
    Path(path(root)).write_bytes(gzip.decompress((OLD / "v4.db.gz").read_bytes()))
    assert version(root) == 4
    database = open_for_writing(root)
    reader = Reader(database.connection)
    asks = reader.find("asks")
    assert (asks.state, asks.wake_at) == ("waiting", None)
    assert [instance for instance, _ in reader.questions(asks.id)] == ["pay"]
    assert [row.instance for row in reader.steps(asks.id)] == ["list", "list[0]", "list[1]", "pay"]
    assert sum(use.input_tokens for use in spent.account(reader, asks.id).uses) == 10
    assert [run.run_key for run in reader.runs(job="nightly")] == ["again", None, "tick 2026-11-20T02:00:00.000Z"]
    jobs = Jobs(database)
    assert (jobs.jobs(), jobs.ticks()) == ([], [])
    tick = parse_rfc3339("2026-11-20T02:00:00Z")
    assert jobs.taken("nightly", tick, tick) == {tick}
    overlapping = database.connection.execute("SELECT count(*) FROM runs WHERE overlap_key IS NOT NULL").fetchone()
    assert overlapping == (0,)
    database.close()


def test_the_tables_that_are_made_again_keep_their_rows(root: str) -> None:
    """Version 4 makes `steps` anew, to which `attempts` refer, and `wishes`."""
    Path(root).mkdir(mode=0o700, exist_ok=True)
    Path(path(root)).write_bytes(gzip.decompress((OLD / "v2.db.gz").read_bytes()))
    tables = ("runs", "steps", "attempts", "events", "wishes", "items", "usage", "spending", "calls")
    kept = {}
    connection = sqlite3.connect(path(root))
    for table in tables:
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
        question = f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3"
        kept[table] = (question, connection.execute(question).fetchall())
    connection.close()
    assert [len(kept[table][1]) for table in ("runs", "steps", "attempts", "wishes")] == [4, 14, 13, 1]
    database = open_for_writing(root)
    for question, rows in kept.values():
        assert database.connection.execute(question).fetchall() == rows
    assert database.connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    run_id = database.connection.execute("SELECT id FROM runs WHERE job = 'slow'").fetchone()[0]
    database.connection.execute("DELETE FROM steps WHERE run_id = ?", (run_id,))
    gone = database.connection.execute("SELECT count(*) FROM attempts WHERE run_id = ?", (run_id,)).fetchone()
    assert gone == (0,), "they refer to the new table"
    reader = Reader(database.connection)
    assert [kind for _, kind, _ in reader.wishes(run_id)] == ["cancel"]
    database.close()


def test_a_reader_brings_it_up_to_date_first(older: str) -> None:
    connection = open_for_reading(older)
    assert connection is not None
    assert connection.execute("SELECT count(*) FROM a").fetchone() == (1,)
    connection.close()


def test_not_while_a_run_is_being_advanced(older: str) -> None:
    folder = RunFolder(older, "1aaaaaaaaa")
    folder.create()
    lease = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    assert locks.try_lock(lease, locks.LEASE)
    before = files(older)["agentrun.db"]
    for opener in (open_for_writing, open_for_reading):
        with pytest.raises(Busy, match="must be brought up to date, and run 1aaaaaaaaa is being advanced") as busy:
            opener(older)
        assert busy.value.exit_code == 75
    assert files(older)["agentrun.db"] == before
    os.close(lease)
    open_for_writing(older).close()
    assert version(older) == schema.VERSION


def test_a_migration_is_whole_or_not_at_all(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = schema.MIGRATIONS
    bad = "CREATE TABLE a (b);\nINSERT INTO nowhere VALUES (1);\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*good[:-1], bad))
    with pytest.raises(StoreError, match="nowhere"):
        open_for_writing(older)
    assert version(older) == schema.VERSION - 1
    monkeypatch.setattr(schema, "MIGRATIONS", good)
    open_for_writing(older).close()


def test_a_creation_that_failed_is_done_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", ("CREATE TABLE a (b);\nINSERT INTO nowhere VALUES (1);\n",))
    with pytest.raises(StoreError):
        open_for_writing(root)
    assert open_for_reading(root) is None
    monkeypatch.setattr(schema, "MIGRATIONS", good)
    open_for_writing(root).close()


def test_many_creators_at_once(root: str) -> None:
    create = (
        "import sys; from agentrun.store.database import open_for_writing\n"
        "print('up', flush=True); sys.stdin.readline(); open_for_writing(sys.argv[1]).close()"
    )
    creators = [python(create, root) for _ in range(6)]
    for creator in creators:
        assert creator.stdout and creator.stdout.readline() == "up\n"
    ends = [creator.communicate("go\n") for creator in creators]
    assert [(creator.returncode, err) for creator, (_, err) in zip(creators, ends, strict=True)] == [(0, "")] * 6
    assert version(root) == schema.VERSION


# --- disks ---

READ = """
import os, sys
import agentrun.spec.decode
from agentrun.store.database import open_for_reading
from agentrun.store.read import Reader
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = open_for_reading(sys.argv[1])
reader = Reader(connection)
run, = reader.runs()
print(run.id, run.state, len(reader.job_of(run).steps), len(reader.events(run.id)))
"""


@as_root
def test_a_read_only_disk_is_read_with_its_wal(root: str, database: Database, mounted: Path) -> None:
    """The database as it lies there while it is being written: everything is still in the -wal."""
    failed_run(Store(database))
    assert os.path.getsize(path(root) + "-wal") > 0
    shutil.copytree(root, str(mounted) + "-source")
    os.remove(path(str(mounted) + "-source") + "-shm")
    before = files(str(mounted) + "-source")
    subprocess.run(["mount", "--bind", str(mounted) + "-source", str(mounted)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(mounted)], check=True)
    connection = open_for_reading(str(mounted))
    assert connection is not None
    reader = Reader(connection)
    run = reader.run("1aaaaaaaaa")
    assert run.outcome == "failed"
    assert len(reader.job_of(run).steps) == 3
    connection.close()
    assert files(str(mounted)) == before
    with pytest.raises(CannotWrite, match="Read-only file system"):
        open_for_writing(str(mounted))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: only root can")
def test_somebody_who_may_only_read() -> None:
    with tempfile.TemporaryDirectory() as shared:  # pytest's own is for its user alone
        os.chmod(shared, 0o755)
        _read_as_nobody(Path(shared) / "state")


def _read_as_nobody(root: Path) -> None:
    database = open_for_writing(str(root))
    failed_run(Store(database))
    root.chmod(0o755)
    for file in root.iterdir():
        file.chmod(0o644)
    reader = python(READ, str(root), "nobody")
    out, err = reader.communicate()
    assert (reader.returncode, out) == (0, "1aaaaaaaaa finished 3 10\n"), err
    (root / "agentrun.db").chmod(0o600)
    reader = python(READ, str(root), "nobody")
    out, err = reader.communicate()
    assert reader.returncode == 1
    assert "StoreError: cannot " in err and "agentrun.db" in err
    database.close()


@as_root
def test_a_full_disk_is_waited_for_and_loses_nothing(mounted: Path, said: list[str]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768k,mode=0700", "none", str(mounted)], check=True)
    root = str(mounted / "state")
    database = open_for_writing(root, notice=said.append, patience=0.4)
    store = Store(database)
    owned(store)
    ballast = mounted / "ballast"
    fill(ballast)
    written = [1]

    def until_full() -> None:
        for number in range(2, 500):
            owned(store, f"1{number:09d}")
            written.append(number)

    with pytest.raises(StoreError, match=r"the disk of .*agentrun\.db is full|cannot use .*agentrun\.db: disk I/O"):
        until_full()
    assert [line for line in said if "trying again" in line] == said and len(said) == 1
    # nothing is lost, also for somebody who reads it now
    connection = open_for_reading(root)
    assert connection is not None
    assert len(Reader(connection).unfinished()) == len(written)
    connection.close()

    # and with space again the same connection goes on, in the middle of its patience
    said.clear()
    database.patience = 30.0

    def make_space(line: str) -> None:
        said.append(line)
        ballast.unlink()

    database._notice = make_space
    owned(store, "1zzzzzzzzz")
    assert len(said) == 1 and "cannot write" in said[0]
    assert len(Reader(database.connection).unfinished()) == len(written) + 1
    assert database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@as_root
def test_a_disk_that_is_full_from_the_start(mounted: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(mounted)], check=True)
    root = str(mounted / "state")
    fill(mounted / "ballast")
    with pytest.raises((StoreError, CannotWrite)):
        open_for_writing(root, patience=0.1)
    (mounted / "ballast").unlink()
    fill(mounted / "ballast", leave=12 * 4096)
    with pytest.raises((StoreError, CannotWrite)):
        open_for_writing(root, patience=0.1)


def fill(ballast: Path, leave: int = 0) -> None:
    """Fill a file system but for `leave` bytes."""
    info = os.statvfs(ballast.parent)
    with open(ballast, "wb", buffering=0) as file:
        try:
            for _ in range(info.f_bavail - leave // info.f_frsize):
                file.write(b"\0" * info.f_frsize)
        except OSError:
            pass


# --- errors in words ---


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (sqlite3.SQLITE_CORRUPT, "q.db is damaged: why"),
        (sqlite3.SQLITE_NOTADB, "q.db is damaged: why"),
        (sqlite3.SQLITE_FULL, "the disk of q.db is full"),
        (sqlite3.SQLITE_BUSY, "q.db has been locked by another program for too long"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "q.db has been locked by another program for too long"),
        (sqlite3.SQLITE_READONLY, "cannot open q.db for writing: why"),
        (sqlite3.SQLITE_IOERR_WRITE, "cannot use q.db: why"),
        (None, "cannot use q.db: why"),
    ],
)
def test_what_people_are_told(code: int | None, message: str) -> None:
    error = sqlite3.OperationalError("why")
    if code is not None:
        error.sqlite_errorcode = code
    told = module.explain(error, "q.db")
    assert told.message == message
    assert told.hint and told.exit_code == 74


def test_a_lock_of_another_program_is_waited_for(root: str, store: Store, said: list[str]) -> None:
    """Somebody has the database open in an editor, with a transaction."""
    editor = sqlite3.connect(path(root), isolation_level=None)
    editor.execute("BEGIN IMMEDIATE")
    store.database.connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(StoreError, match="has been locked by another program for too long"):
        owned(store)
    assert len(said) == 1 and said[0].endswith("database is locked; trying again")
    store.database.patience = 30.0

    def end_transaction(_line: str) -> None:
        editor.execute("ROLLBACK")

    store.database._notice = end_transaction
    owned(store)
    editor.close()
