"""How the database is opened, written and read: the only place that knows SQLite's moods.

Every write happens under one `flock` on a file beside the database, taken before SQLite is touched. It queues
writers fairly, and it keeps SQLite before 3.51.3 clear of the WAL-reset bug, which needs two connections that
write or checkpoint at once (sqlite.org/wal.html, section 11): so checkpoints (automatic, inside a commit) and
the closing of a writing connection happen under it too. Stop signals from a terminal are blocked while it is
held: a job stopped with ^Z must not stop all others.

WAL, `synchronous=FULL`, `BEGIN IMMEDIATE` always. Measured: NORMAL lost up to 815 committed rows in a power
cut; a deferred BEGIN lost 1,430 of 4,000 transactions to SQLITE_BUSY with 200 writers.

A transaction is a function of a cursor, so that it can be done again: BUSY, FULL and IOERR are retried with
growing pauses, reported once through `notice`, and given up as a StoreError after `patience`.

Readers open read-only, hold no transaction between questions, and never wait for the lock. Where even a
reader cannot open the file (a read-only disk: WAL needs its -shm), the database and its -wal are copied aside.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from .. import effects
from ..errors import Busy, CannotWrite, StoreError
from . import folders, locks, schema

T = TypeVar("T")
Work = Callable[[sqlite3.Cursor], T]

_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
NAME_THE_HOLDER_AFTER = 5.0  # seconds of waiting for the write lock
_CANNOT_OPEN = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def path(root: str) -> str:
    """The database file of a state folder."""
    return os.path.join(root, "agentrun.db")


def talk(sentence: str) -> None:
    """The default `notice`: one line to stderr."""
    print(f"agentrun: {sentence}", file=sys.stderr, flush=True)


class Database:
    """A writing connection. Made by `open_for_writing`, ended by `close`; not to be shared with a child."""

    def __init__(
        self,
        root: str,
        connection: sqlite3.Connection,
        lock: int,
        notice: Callable[[str], None],
        patience: float,
    ) -> None:
        self.root = root
        self.connection = connection
        self.patience = patience
        self._lock = lock
        self._notice = notice
        self._is_alone = False

    def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit it durably; what it raises rolls everything back.

        `work` may be called again after a passing error, so it must not change anything but the database.
        Raises StoreError when the database stays unusable for `patience` seconds.
        """
        begun = time.monotonic()
        give_up = begun + self.patience
        pause = 0.02
        told = False
        while True:
            try:
                with nullcontext() if self._is_alone else write_lock(self._lock, self.root, self._notice):
                    return self._transact(work)
            except sqlite3.Error as error:
                if not _passing(error) or time.monotonic() + pause > give_up:
                    raise explain(error, path(self.root)) from error
                if not told and time.monotonic() - begun > 0.1:  # SQLite itself has waited for 5 s if it is BUSY
                    told = True
                    self._notice(f"cannot write {path(self.root)}: {error}; trying again")
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other writers out: what is read meanwhile is still so when it is written."""
        with write_lock(self._lock, self.root, self._notice):
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def _transact(self, work: Work[T]) -> T:
        cursor = self.connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            result = work(cursor)
            effects.commit(cursor)
            return result
        except BaseException:
            # SQLite has rolled back by itself after FULL and IOERR
            if self.connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close under the lock: the last connection to go checkpoints the WAL."""
        try:
            with write_lock(self._lock, self.root, self._notice):
                effects.close_database(self.connection)
        finally:
            os.close(self._lock)


def open_for_writing(
    root: str, *, notice: Callable[[str], None] = talk, patience: float = 30.0
) -> Database:
    """Open the database of a state folder; create or migrate it where needed.

    Raises CannotWrite (the folder), StoreError (damaged, newer, full), Busy (it must be migrated, and a run
    is being advanced).
    """
    folders.prepare(root)
    file = path(root)
    lock = _open_lock(root)
    try:
        fresh = not os.path.exists(file)
        if fresh:
            _create_private(file)
        connection = sqlite3.connect(file, isolation_level=None, timeout=5.0, check_same_thread=False)
        try:
            database = Database(root, connection, lock, notice, patience)
            connection.execute("PRAGMA foreign_keys = ON")
            version = _version(connection, file)
            if version < schema.VERSION:
                _migrate(database)
            connection.execute("PRAGMA synchronous = FULL")
            return database
        except BaseException:
            with write_lock(lock, root, notice):
                effects.close_database(connection)
            raise
    except sqlite3.Error as error:
        os.close(lock)
        raise explain(error, file) from error
    except BaseException:
        os.close(lock)
        raise


def open_for_reading(root: str) -> sqlite3.Connection | None:
    """A read-only connection, or None where there is no database yet. Raises StoreError.

    Each question is a transaction of its own: sqlite3 in autocommit mode.
    """
    file = path(root)
    if not os.path.exists(file):
        return None
    try:
        connection, version = _open_and_check(file)
    except sqlite3.Error as error:
        raise explain(error, file) from error
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}", "check its owner and its mode") from error
    if version == 0:  # created, and its creator has not committed the tables
        connection.close()
        return None
    if version < schema.VERSION:
        # the views and columns that readers ask for are not there yet: bring it up to date first
        connection.close()
        open_for_writing(root).close()
        return open_for_reading(root)
    if not folders.is_safe(root):
        # others can write here: the pickled jobs are not believed, their text is decoded instead
        connection.execute(
            "CREATE TEMP VIEW snapshots AS SELECT sha256, text, '' AS decoder, x'' AS decoded FROM main.snapshots"
        )
    return connection


def _open_and_check(file: str) -> tuple[sqlite3.Connection, int]:
    connection = sqlite3.connect(f"file:{_quote(file)}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    try:
        return connection, _version(connection, file)
    except BaseException as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError) or _primary(error) not in _CANNOT_OPEN:
            raise
    connection = _open_copy(file)
    try:
        return connection, _version(connection, file)
    except BaseException:
        connection.close()
        raise


@contextmanager
def write_lock(lock: int, root: str, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock that queues all writers of a state folder; after 5 s of waiting, say who has it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        try:
            effects.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait_for_lock(lock, root, notice)
        try:
            yield
        finally:
            effects.flock(lock, fcntl.LOCK_UN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for_lock(lock: int, root: str, notice: Callable[[str], None]) -> None:
    # A blocking flock waits its turn in the kernel's queue. The alarm's handler says its word and returns, and
    # flock goes on waiting (PEP 475): an exception out of it could come just after the lock was taken.
    # Only somebody who holds on is worth a word: a long queue that moves is no trouble.
    holder = ""
    told = False

    def ring(_signum: int, _frame: object) -> None:
        nonlocal holder, told
        before, holder = holder, _holder(lock)
        if holder == before and not told:
            told = True
            notice(f"waiting for the write lock of {root}, which {holder} holds")

    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, NAME_THE_HOLDER_AFTER * 0.8, NAME_THE_HOLDER_AFTER * 0.2)
        effects.flock(lock, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _holder(lock: int) -> str:
    """Who holds a flock, in words, from /proc/locks."""
    info = os.fstat(lock)
    wanted = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    try:
        with open("/proc/locks") as table:
            for row in table:
                fields = row.split()
                if "->" not in fields and fields[1] == "FLOCK" and fields[5] == wanted:
                    with open(f"/proc/{fields[4]}/cmdline", "rb") as file:
                        command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
                    return f"process {fields[4]} ({command[:80]})"
    except OSError:
        pass
    return "another process"


def _open_lock(root: str) -> int:
    try:
        return effects.create(os.path.join(root, "agentrun.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWrite(
            f"cannot write in the state folder {root}: {error.strerror}",
            "free space or make it writable, or set AGENTRUN_HOME to another folder",
        ) from error


def _create_private(file: str) -> None:
    # before SQLite does: its -wal and -shm take over the mode of the database
    try:
        os.close(effects.create(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CannotWrite(f"cannot create {file}: {error.strerror}", "free space, or set AGENTRUN_HOME") from error


def _version(connection: sqlite3.Connection, file: str) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not _ours(connection, version):
        raise StoreError(f"{file} is a database of another program", "set AGENTRUN_HOME to a folder of agentrun's own")
    if version > schema.VERSION:
        raise StoreError(
            f"{file} was written by a newer agentrun (database version {version}, this program knows "
            f"{schema.VERSION})",
            "use the newer program; nothing has been changed",
        )
    return version


def _ours(connection: sqlite3.Connection, version: int) -> bool:
    """Whether agentrun made it, or nobody has put anything into it yet."""
    if connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID:
        return True
    # its creator may have committed all of it since the version was read
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if empty and not version:
        return True
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID)


def _migrate(database: Database) -> None:
    """Bring the tables up to date, each migration in a transaction of its own, nobody advancing a run."""
    root = database.root
    connection = database.connection
    with write_lock(database._lock, root, database._notice):
        version = _version(connection, path(root))  # another process may have been quicker
        if version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
        elif busy := next(_held_runs(root), None):
            raise Busy(
                f"the database must be brought up to date, and run {busy} is being advanced",
                "try again when it has finished",
            )
        for number in range(version, schema.VERSION):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in _statements(schema.MIGRATIONS[number]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {number + 1}")
                effects.commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _held_runs(root: str) -> Iterator[str]:
    try:
        names = os.listdir(os.path.join(root, "runs"))
    except FileNotFoundError:
        return
    for name in names:
        if locks.held(folders.RunFolder(root, name).lock, locks.LEASE):
            yield name


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _open_copy(file: str) -> sqlite3.Connection:
    """Open a copy of the database and its -wal: what a read-only disk allows.

    `immutable=1` would be cheaper, and would leave out everything that is still in the -wal.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="agentrun-") as folder:
        copy = os.path.join(folder, "agentrun.db")
        effects.copy_file(file, copy)
        if os.path.exists(file + "-wal"):
            effects.copy_file(file + "-wal", copy + "-wal")
        source = sqlite3.connect(copy)
        connection = sqlite3.connect(":memory:", isolation_level=None)
        source.backup(connection)
        source.close()
        return connection


def _quote(file: str) -> str:
    return file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _primary(error: Exception) -> int:
    """The primary result code: extended ones carry it in their low byte. 0 where Python itself objected."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _passing(error: sqlite3.Error) -> bool:
    return _primary(error) in _PASSING


def explain(error: Exception, file: str) -> StoreError:
    """SQLite's error in words that say what to do."""
    code = _primary(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            f"{file} is damaged: {error}",
            "keep a copy of it and of its -wal; then move it away, or put a copy from backups/ in its place",
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"the disk of {file} is full", "free space and resume: what was recorded is kept")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"{file} has been locked by another program for too long", "end the program that has it open, and resume"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(f"cannot open {file} for writing: {error}", "check its owner, its mode and the disk")
    return StoreError(f"cannot use {file}: {error}", "check the disk; nothing that was recorded is lost")
