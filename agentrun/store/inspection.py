"""What `agentrun doctor` asks of the database: it is opened as it is, never made, never brought up to date.

Nothing is taken for granted: not that it is ours, not its version, not that its pages hold what they should. The
questions name only columns that every version has. Those that read much are given seconds, and say when these were
not enough: SQLite before 3.41 can be stopped inside of an integrity check only by another thread.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from .. import effects
from . import database, folders, locks, redo, schema
from .database import holder_of
from .soundness import _tables, _tables_of
from .trouble import check_plain

_AT_ONCE = 500  # values in one statement: SQLite takes 999 and more


class OpenRun(NamedTuple):
    """A run that is not finished, and no step of another one. `wake_at`: when a parked one goes on, in ms of `elapsed`.

    `seen`: CLOCK_BOOTTIME in ms, in the boot `boot_id`, when `elapsed` was written.
    """

    id: str
    job: str
    state: str
    elapsed: int
    seen: int | None
    boot_id: str | None
    wake_at: int | None

    def held(self, root: str) -> bool:
        """Whether a supervisor or a shim holds it now."""
        lock = folders.RunFolder(root, self.id).lock
        return locks.held(lock, locks.LEASE) or locks.held(lock, locks.SHIM)


class JobFile(NamedTuple):
    """The file that a run works from, and its text as it was."""

    file: str
    text: str


class Answer(NamedTuple):
    """Rows, and whether these are all."""

    rows: list[tuple[Any, ...]]
    whole: bool


class Inspection:
    """A database that is open for reading. All questions raise StoreError where it cannot be read."""

    def __init__(self, connection: sqlite3.Connection, file: str) -> None:
        self.connection = connection
        self.file = file
        try:
            self.application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
            self.version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.Error as error:
            connection.close()
            raise database.explain(error, file) from error

    @property
    def ours(self) -> bool:
        """Whether agentrun made it."""
        return self.application_id == schema.APPLICATION_ID

    @property
    def known(self) -> bool:
        """Whether its tables are those that this program knows, or those of an earlier one."""
        return self.ours and 1 <= self.version <= schema.VERSION

    def tables(self) -> dict[str, set[str]]:
        """Its tables and views, and their columns."""
        try:
            return _tables(self.connection)
        except sqlite3.Error as error:
            raise database.explain(error, self.file) from error

    def damage(self, seconds: float) -> Answer:
        """What is wrong with its pages and rows, in SQLite's words, ten at most; empty if nothing is."""
        pages = self._ask("PRAGMA quick_check(10)", seconds)
        said = [row for row in pages.rows if row[0] != "ok"]
        if not said and self.tables() != _tables_of(self.version):
            said = [(f"it does not have the tables of its version ({self.version})",)]
        if said or not pages.whole:
            return Answer(said, pages.whole)
        orphans = self._ask("PRAGMA foreign_key_check", seconds, most=10)
        return Answer(
            [(f"a row of {table} belongs to a row of {parent} that is gone",) for table, _, parent, _ in orphans.rows],
            orphans.whole,
        )

    def gaps(self, seconds: float) -> Answer:
        """(run, events, last number) of journals that are not numbered 1, 2, 3, … or are empty; ten at most."""
        return self._ask(
            "SELECT runs.id, count(seq), coalesce(max(seq), 0) FROM runs LEFT JOIN events ON run_id = runs.id"
            " GROUP BY runs.id HAVING count(seq) <> max(seq) OR count(seq) = 0 OR min(seq) <> 1",
            seconds,
            most=10,
        )

    def counts(self) -> int:
        """How many runs there are."""
        return int(self._all("SELECT count(*) FROM runs")[0][0])

    def newest(self) -> int | None:
        """When the run with the highest id was created, in ms: ids sort by the clock."""
        rows = self._all("SELECT created_at FROM runs ORDER BY id DESC LIMIT 1")
        return rows[0][0] if rows else None

    def unfinished(self) -> list[OpenRun]:
        """Every run that is not finished, oldest first; but for child runs, which go on with their parent."""
        columns = self._columns()
        own = " AND caller IS NULL" if "caller" in columns else ""
        wake_at = "wake_at" if "wake_at" in columns else "NULL"
        rows = self._all(
            f"SELECT id, job, state, elapsed, seen, boot_id, {wake_at} FROM runs WHERE state <> 'finished'{own}"
            " ORDER BY id"
        )
        return [OpenRun(*row) for row in rows]

    def asking(self) -> set[str]:
        """The runs in which a step waits for a person's answer, or one of a run that they called."""
        if "question" not in self._columns("steps"):
            return set()
        rows = self._all(
            "WITH RECURSIVE asking (id) AS (SELECT run_id FROM steps WHERE state IN ('running', 'waiting')"
            " AND question IS NOT NULL AND position >= 0 UNION"
            " SELECT caller FROM runs JOIN asking USING (id) WHERE caller IS NOT NULL)"
            " SELECT id FROM asking JOIN runs USING (id) WHERE caller IS NULL AND state <> 'finished'"
        )
        return {run_id for (run_id,) in rows}

    def states(self, run_ids: Iterable[str]) -> dict[str, str]:
        """The states of those runs that are in the record."""
        wanted = [run_id for run_id in run_ids if run_id.isascii()]  # others are none of ours
        found: dict[str, str] = {}
        for begin in range(0, len(wanted), _AT_ONCE):
            some = wanted[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(self._all(f"SELECT id, state FROM runs WHERE id IN ({marks})", some))
        return found

    def ended_since(self, when: int) -> int:
        """How many runs ended later than that, in ms."""
        return int(self._all("SELECT count(*) FROM runs WHERE finished_at > ?", [when])[0][0])

    def forgotten(self, root: str) -> list[tuple[str, int]]:
        """Of the latest runs, those whose journals tell of more transactions than the database has; of how many."""
        if "writes" not in self._columns():
            return []
        told = {
            run_id: redo.last_number(folders.RunFolder(root, run_id).journal)
            for run_id in sorted(redo.journals(root), reverse=True)[:_AT_ONCE]
        }
        if not told:
            return []
        marks = ",".join("?" * len(told))
        has = dict.fromkeys(told, 0) | dict(
            self._all(f"SELECT id, writes FROM runs WHERE id IN ({marks})", list(told))
        )
        # one line may stand there before its transaction is committed, or after a kill that came between the two
        return [(run_id, lines - has[run_id]) for run_id, lines in told.items() if lines > has[run_id] + 1]

    def _columns(self, table: str = "runs") -> set[str]:
        return {row[1] for row in self._all(f"PRAGMA table_info({table})")}

    def job_file(self, run_id: str) -> JobFile | None:
        """Of that run; None if there is none."""
        question = "SELECT file, text FROM runs JOIN snapshots ON sha256 = snapshot WHERE id = ?"
        rows = self._all(question, [run_id])
        return JobFile(*rows[0]) if rows else None

    def scheduled(self, most: int = 200) -> list[JobFile]:
        """The job files of the jobs that cron starts, as their last runs had them."""
        if "jobs" not in self.tables():
            return []
        return [
            JobFile(*row)
            for (name,) in self._all(
                "SELECT name FROM jobs WHERE (schedule IS NOT NULL OR installed IS NOT NULL) AND gone_at IS NULL"
                " ORDER BY name LIMIT ?",
                (most,),
            )
            for row in self._all(
                "SELECT file, text FROM runs JOIN snapshots ON sha256 = snapshot WHERE job = ? AND caller IS NULL"
                " ORDER BY id DESC LIMIT 1",
                (name,),
            )
        ]

    def close(self) -> None:
        """It only ever read: nothing is written back."""
        self.connection.close()

    def _all(self, question: str, values: Iterable[str | int] = ()) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(question, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise database.explain(error, self.file) from error

    def _ask(self, question: str, seconds: float, *, most: int = 100) -> Answer:
        """At most so many rows in at most so many seconds."""
        rows: list[tuple[Any, ...]] = []
        answered = threading.Event()

        def interrupt() -> None:
            while not answered.wait(seconds):  # again and again: before the statement has begun it is lost
                self.connection.interrupt()

        watch = threading.Thread(target=interrupt)
        watch.start()
        try:
            for row in self.connection.execute(question):
                rows.append(row)
                if len(rows) >= most:
                    break
            return Answer(rows, True)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
                raise database.explain(error, self.file) from error
            return Answer(rows, False)
        finally:
            answered.set()
            watch.join()  # before anybody forks


def inspect(root: str) -> Inspection | None:
    """The database of a state folder; None if there is none, or nobody has put anything into it yet.

    Raises StoreError, and OSError where its folder cannot be looked into.
    """
    file = database.path(root)
    check_plain(file)
    try:
        if not os.stat(file).st_size:
            return None
    except FileNotFoundError:
        return None
    try:
        found = Inspection(database.connect_for_reading(file), file)
    except sqlite3.Error as error:
        raise database.explain(error, file) from error
    if found.version == 0 and not found.tables():  # its maker has not committed any yet
        found.close()
        return None
    return found


def library() -> dict[str, str]:
    """What SQLite was built with, as `PRAGMA compile_options` names it, and its `version`."""
    connection = sqlite3.connect(":memory:")
    try:
        options = [str(row[0]) for row in connection.execute("PRAGMA compile_options")]
    finally:
        connection.close()
    found = {name: value for name, _, value in (option.partition("=") for option in options)}
    return {**found, "version": sqlite3.sqlite_version}


def try_statements() -> str | None:
    """Whether SQLite knows all that the tables are made of: what it says if not."""
    connection = sqlite3.connect(":memory:")
    try:
        for migration in schema.MIGRATIONS:
            connection.executescript(migration)
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()
    return None


def wait_for_writers(root: str, seconds: float) -> str | None:
    """Queue with the writers; None when our turn has come, who holds the lock if it has not in so long."""
    try:
        lock = os.open(os.path.join(root, "agentrun.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        effects.flock(lock, fcntl.LOCK_SH)
        return None
    except TimeoutError:
        return holder_of(lock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        os.close(lock)  # and with it the lock
