"""How the database is opened, written and read: the only place that knows SQLite's moods.

Every write happens under one `flock` on a file beside the database, taken before SQLite is touched. It queues
writers fairly, and it keeps SQLite before 3.51.3 clear of the WAL-reset bug, which needs two connections that
write or checkpoint at once (sqlite.org/wal.html, section 11): so checkpoints (automatic, inside a commit) and
the closing of a writing connection happen under it too. Stop signals from a terminal are blocked while it is
held: a job stopped with ^Z must not stop all others.

WAL, `synchronous=FULL`, `BEGIN IMMEDIATE` always. Measured: NORMAL lost up to 815 committed rows in a power
cut; a deferred BEGIN lost 1,430 of 4,000 transactions to SQLITE_BUSY with 200 writers.

A transaction is a function of a cursor, so that it can be done again: BUSY, FULL and IOERR, and a journal that
cannot be written (`redo.py`), are retried with growing pauses, reported once through `notice`, and given up as a
StoreError after `patience`. A file that has been replaced since it was opened (`repair.py`) is never written to.

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
from contextlib import contextmanager, suppress
from typing import TypeVar

from .. import effects
from ..errors import Busy, CannotWrite, StoreError
from . import folders, redo, schema
from .migrations import held_runs, migrate
from .trouble import REPAIR, UNREADABLE, check_plain, passing, place, primary, words
from .trouble import explain as explain

T = TypeVar("T")
Work = Callable[[sqlite3.Cursor], T]

SMALLEST = 512  # bytes of a database with a page: of less SQLite makes an empty one
REPAIRED = ".repaired"  # behind its name: a whole database that a repair is about to put in its place
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
        self._identity = _identity(path(root))

    def write(self, work: Work[T], undo: Callable[[], None] = lambda: None) -> T:
        """Run `work` in one transaction and commit it durably; what it raises rolls everything back.

        `work` may be called again after a passing error, so it must not change anything but the database, and what
        `undo` takes back: it is called whenever the transaction was not committed, still under the lock.
        Raises StoreError when the database, or what else `work` writes, stays unusable for `patience` seconds.
        """
        begun = time.monotonic()
        give_up = begun + self.patience
        pause = 0.02
        told = False
        while True:
            try:
                if self._is_alone:
                    return self._transact(work, undo)
                with write_lock(self._lock, self.root, self._notice):
                    self._check_place()
                    return self._transact(work, undo)
            except (*UNREADABLE, OSError) as error:
                if not passing(error) or time.monotonic() + pause > give_up:
                    raise explain(error, path(self.root)) from error
                if not told and time.monotonic() - begun > 0.1:  # SQLite itself has waited for 5 s if it is BUSY
                    told = True
                    self._notice(f"cannot write {place(error, path(self.root))}: {words(error)}; trying again")
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other writers out: what is read meanwhile is still so when it is written."""
        with write_lock(self._lock, self.root, self._notice):
            self._check_place()
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def _transact(self, work: Work[T], undo: Callable[[], None]) -> T:
        cursor = self.connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        committed = False
        try:
            result = work(cursor)
            effects.commit(cursor)
            committed = True
            return result
        except BaseException:
            # SQLite has rolled back by itself after FULL and IOERR
            if self.connection.in_transaction:
                cursor.execute("ROLLBACK")
            if not committed:
                undo()
            raise

    def _check_place(self) -> None:
        # what is written into a file that has no name any more is lost
        if _identity(path(self.root)) != self._identity:
            raise StoreError(
                f"{path(self.root)} was replaced or removed while this command had it open",
                "look at it with `agentrun doctor`; a run that was going on then goes on with `agentrun resume`",
            )

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
    check_plain(file)
    lock = open_lock(root)
    try:
        _create_private(root, file)
        database, connection = _connect(root, file, lock, notice, patience)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            version = _version(connection, file)
            if version == 0:
                check_not_lost(root)
            if version < schema.VERSION:
                _migrate(database)
            connection.execute("PRAGMA synchronous = FULL")
            return database
        except BaseException:
            with write_lock(lock, root, notice):
                effects.close_database(connection)
            raise
    except UNREADABLE as error:
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
        check_not_lost(root)
        return None
    try:
        connection, version = _open_and_check(file)
    except UNREADABLE as error:
        raise explain(error, file) from error
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}", "check its owner and its mode") from error
    if version == 0:  # created, and its creator has not committed the tables
        connection.close()
        check_not_lost(root)
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
    connection = connect_for_reading(file)
    try:
        return connection, _version(connection, file)
    except BaseException:
        connection.close()
        raise


def connect_for_reading(file: str) -> sqlite3.Connection:
    """A database as it is, opened read-only, or a copy of it where not even that goes (a read-only disk).

    Raises sqlite3.Error, OSError, and StoreError for what is no plain file.
    """
    check_plain(file)
    connection = sqlite3.connect(f"file:{_quote(file)}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
        return connection
    except BaseException as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError) or primary(error) not in _CANNOT_OPEN:
            raise
    return _open_copy(file)


@contextmanager
def write_lock(lock: int, root: str, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock that queues all writers of a state folder; after 5 s of waiting, say who has it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        try:
            effects.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait_for_lock(lock, root, notice)
        with suppress(OSError):
            effects.pwrite(lock, b"%10d" % os.getpid(), 0)
        try:
            yield
        finally:
            effects.flock(lock, fcntl.LOCK_UN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for_lock(lock: int, root: str, notice: Callable[[str], None]) -> None:
    # A blocking flock waits its turn in the kernel's queue. The alarm's handler says its word and returns, and
    # flock goes on waiting (PEP 475): an exception out of it could come just after the lock was taken.
    # Only somebody who holds on is worth a word: a long queue that moves is no trouble. To see it move, the file says
    # who was the last to take the lock: to read /proc/locks stops every lock of the machine for some ms, and with 500
    # in the queue nothing else went on.
    last, told = b"", False

    def ring(_signum: int, _frame: object) -> None:
        nonlocal last, told
        before, last = last, os.pread(lock, 16, 0)
        if last == before and not told:
            told = True
            notice(f"waiting for the write lock of {root}, which {holder_of(lock)} holds")

    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, NAME_THE_HOLDER_AFTER * 0.8, NAME_THE_HOLDER_AFTER * 0.2)
        effects.flock(lock, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def holder_of(lock: int) -> str:
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


def open_lock(root: str) -> int:
    """Open the file of the write lock. Raises CannotWrite."""
    try:
        return effects.create(os.path.join(root, "agentrun.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWrite(
            f"cannot write in the state folder {root}: {error.strerror}",
            "free space or make it writable, or set AGENTRUN_HOME to another folder",
        ) from error


def _identity(file: str) -> tuple[int, int] | None:
    """Which file has that name now; None if none has."""
    try:
        info = os.stat(file)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _connect(
    root: str, file: str, lock: int, notice: Callable[[str], None], patience: float
) -> tuple[Database, sqlite3.Connection]:
    """SQLite does not tell which file it has opened: it is known when the name stood for the same before and after."""
    while True:
        before = _identity(file)
        connection = sqlite3.connect(file, isolation_level=None, timeout=5.0, check_same_thread=False)
        database = Database(root, connection, lock, notice, patience)
        if database._identity == before:
            return database, connection
        effects.close_database(connection)


def is_begun(root: str) -> bool:
    """Whether there is a database in which something stands."""
    try:
        return os.path.getsize(path(root)) >= SMALLEST
    except OSError:
        return False


def check_not_lost(root: str) -> None:
    """That no database has been lost where there is none, or an empty one. Raises StoreError."""
    runs = sum(1 for _ in redo.journals(root))
    cut_short = os.path.exists(path(root) + REPAIRED)
    begun = is_begun(root)  # asked last: somebody may just have begun the first of all runs
    if cut_short and not begun:
        raise StoreError(f"a repair of {path(root)} was cut short", "agentrun doctor --repair goes on with it")
    if runs and not begun:
        raise StoreError(
            f"the database {path(root)} is gone, and there {'is 1 run' if runs == 1 else f'are {runs} runs'}"
            f" in {os.path.join(root, 'runs')}",
            "agentrun doctor --repair brings it back from the journals of the runs",
        )


def _create_private(root: str, file: str) -> None:
    # before SQLite does: its -wal and -shm take over the mode of the database
    if os.path.exists(file):
        return
    check_not_lost(root)
    try:
        os.close(effects.create(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CannotWrite(f"cannot create {file}: {error.strerror}", "free space, or set AGENTRUN_HOME") from error


def _version(connection: sqlite3.Connection, file: str) -> int:
    version = _user_version(connection)
    if not _ours(connection, version):
        if any(redo.journals(os.path.dirname(file))):
            raise StoreError(f"{file} is damaged: it does not say that it is agentrun's", REPAIR)
        raise StoreError(f"{file} is a database of another program", "set AGENTRUN_HOME to a folder of agentrun's own")
    if not version and not _is_empty(connection) and not (version := _user_version(connection)):
        raise StoreError(f"{file} is damaged: it has tables, and no version", REPAIR)
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
    if not version and _is_empty(connection):
        return True
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID)


def _user_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)


def _migrate(database: Database) -> None:
    """Bring the tables up to date, each migration in a transaction of its own, nobody advancing a run."""
    root = database.root
    connection = database.connection
    with write_lock(database._lock, root, database._notice):
        database._check_place()
        version = _version(connection, path(root))  # another process may have been quicker
        if version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
        elif busy := next(held_runs(root), None):
            raise Busy(
                f"the database must be brought up to date, and run {busy} is being advanced",
                "try again when it has finished",
            )
        # off, or a table that is made again would take the rows with it that refer to the old one
        connection.execute("PRAGMA foreign_keys = OFF")
        migrate(connection, version)
        connection.execute("PRAGMA foreign_keys = ON")


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
