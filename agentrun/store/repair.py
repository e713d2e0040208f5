"""A damaged or lost database made whole again: from what is sound of it, backups, and the journals of the runs.

Under the write lock, unless nothing is found to be wrong without it, and only while no run is being advanced. The
order of effects, for a kill at any instant:

    look        is anything wrong: pages, rows, and what each journal knows that the database does not
    build       a whole database in `agentrun.db.new`: the present one if it is sound, else the newest sound backup,
                else an empty one; then each run that its journal knows better, from its journal; then what can be
                read of runs that nothing else knows (`salvage.py`), and jobs and ticks, of which no journal tells
                (`salvage_jobs.py`). Checked and synced.
    decide      it is renamed to `agentrun.db.repaired`. Killed before, nothing has changed; from here on the next
                repair goes on, and nobody makes or opens a database where there is none (`check_not_lost`)
    put aside   agentrun.db, then its -wal and -shm, go to `damaged/<UTC time>/`: they never meet the new one
    put in      agentrun.db.repaired becomes agentrun.db
    renew       each journal that is not whole, or behind, gets a new base from the new database

A repair that goes on where another was cut looks again afterwards. Whoever had the old database open finds out before
it writes (`Database`). What cannot be brought back is said, run by run.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

from .. import effects
from ..errors import AgentrunError, Busy, StoreError
from . import backups, database, folders, redo, schema
from .folders import RunFolder
from .migrations import held_runs, migrate
from .replay import differs, replay
from .salvage import salvage
from .salvage_jobs import copy_jobs, settle_by_runs
from .soundness import faults, is_ours, version_of
from .trouble import UNREADABLE, check_plain

Say = Callable[[str], None]
_NOTHING = "nothing is wrong with the database: nothing has been changed"
_NEW = ".new"
_BESIDE = ("-wal", "-shm", "-journal")


class Repaired(NamedTuple):
    """What was done. `runs`: rebuilt from journals; `steps`: finished steps known afterwards; `kept`: where the
    damaged files are; `lost`: what could not be brought back, in sentences."""

    runs: int
    steps: int
    kept: str | None
    lost: list[str]


def repair(root: str, say: Say) -> Repaired:
    """Make the database of a state folder whole. `say` is told what is wrong and what is done, in sentences.

    Raises Busy while a run is being advanced, StoreError where there is nothing to repair it from or a newer program
    wrote it, CannotWrite.
    """
    if not os.path.isdir(root):
        say("nothing has been run yet: there is nothing to repair")
        return Repaired(0, 0, None, [])
    folders.prepare(root)
    lock = database.open_lock(root)
    try:
        if (looked := _Repair(root, say)).finds_nothing():
            say(_NOTHING)
            return Repaired(0, looked.steps(), None, [])
        with database.write_lock(lock, root, say):
            if busy := next(held_runs(root), None):
                raise Busy(f"run {busy} is being advanced", "try again when it has finished, or end it first")
            return _Repair(root, say).do()
    except (*UNREADABLE, OSError) as error:
        raise database.explain(error, database.path(root)) from error
    finally:
        os.close(lock)


class _Repair:
    """One repair, under the lock."""

    def __init__(self, root: str, say: Say) -> None:
        self.root, self.say = root, say
        self.file = database.path(root)
        self.rebuilt = 0
        self.lost: list[str] = []
        self.kept: str | None = None
        self._differing: set[str] = set()
        self._has_forgotten = False
        self._copies: dict[str, redo.History] = {}

    def finds_nothing(self) -> bool:
        """Whether all is well, without the lock: nobody has to wait while a large record is compared.

        What is written meanwhile may look wrong: then it is looked at again, with the lock.
        """
        if any(os.path.exists(self.file + end) for end in (_NEW, database.REPAIRED)):
            return False
        return database.is_begun(self.root) and self._faults()[1] and not self._behind() and not self._stale()

    def do(self) -> Repaired:
        _unlink(self.file + _NEW)
        if os.path.exists(self.file + database.REPAIRED):
            if database.is_begun(self.root):  # what it was made from is still here, and may have been written to
                _unlink(self.file + database.REPAIRED)
            else:
                self.say("an earlier repair was cut short: going on with it")
                self._put_in_place()
        wrong, sound = self._faults()
        behind = self._behind() if sound else []
        stale = self._stale() if sound else []
        for sentence in [*wrong, *behind]:
            self.say(sentence)
        if wrong or behind:
            self._build(sound)
            effects.rename(self.file + _NEW, self.file + database.REPAIRED)
            self._put_in_place()
        elif not stale and self.kept is None:
            self.say(_NOTHING)
        if os.path.exists(self.file):
            self._renew()
        return Repaired(self.rebuilt, self.steps(), self.kept, self.lost)

    # --- look

    def _faults(self) -> tuple[list[str], bool]:
        """What is wrong with the database itself, and whether it may be built upon."""
        check_plain(self.file)
        try:
            size = os.stat(self.file).st_size
        except FileNotFoundError:
            size = -1
        known = any(redo.journals(self.root)) or bool(backups.backups(self.root))
        if size < database.SMALLEST:
            return (["the database is gone" if size < 0 else "the database is empty"] if known else []), False
        wrong = faults(self.file)
        if wrong and not known and not self._is_ours():
            raise StoreError(f"{self.file} is a database of another program", "set AGENTRUN_HOME to another folder")
        return wrong, not wrong

    def _is_ours(self) -> bool:
        """Or nobody has put anything into it yet, or not even that can be read."""
        try:
            with self._reading() as connection:
                empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
                return empty or is_ours(connection)
        except UNREADABLE:
            return True

    def _behind(self) -> list[str]:
        """What a sound database has forgotten, or has holes in, though a journal knows it."""
        told = []
        with self._reading() as connection, closing(sqlite3.connect(":memory:", isolation_level=None)) as scratch:
            writes = _writes(connection)
            migrate(scratch, 0)
            current = version_of(connection) == schema.VERSION
            for run_id in redo.journals(self.root):
                try:
                    last = redo.last_number(RunFolder(self.root, run_id).journal)
                except OSError:
                    continue  # `_stale` says so
                known = writes.get(run_id, 0)
                # one more than it has is a transaction that was killed, and so may be the record of a run
                if last > known + 1:
                    told.append(f"the database has forgotten {last - known} transactions of run {run_id}")
                    self._has_forgotten = True
                    continue
                # overwritten pages may hold other values: SQLite's own check does not see that
                entries = [entry for entry in _entries(self.root, run_id) if entry["n"] <= known]
                whole = current and entries and entries[-1]["n"] == known
                if whole and differs(connection, scratch, run_id, entries):
                    self._differing.add(run_id)
                    told.append(f"the rows of run {run_id} are not those that its journal tells of")
        return told

    def _stale(self) -> list[str]:
        """The journals that do not lead to what the database has."""
        with self._reading() as connection:
            writes = _writes(connection)
        return [
            run_id
            for run_id in redo.journals(self.root)
            if run_id in writes and not (self._history(run_id).whole and self._history(run_id).last >= writes[run_id])
        ]

    def _history(self, run_id: str) -> redo.History:
        if run_id not in self._copies:
            try:
                history = redo.read(RunFolder(self.root, run_id).journal)
            except OSError as error:
                self.lost.append(f"the journal of run {run_id} cannot be read: {error.strerror}")
                history = redo.History([], 0)
            history.entries[:-1] = []  # only to be counted: those of all runs may be much
            self._copies[run_id] = history
        return self._copies[run_id]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(database.connect_for_reading(self.file)) as connection:
            yield connection

    # --- build

    def _build(self, sound: bool) -> None:
        new = self.file + _NEW
        os.close(effects.create(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            self._lay_ground(new, sound)
            with closing(sqlite3.connect(new, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = MEMORY")  # a kill before the end leaves nothing of use
                connection.execute("PRAGMA synchronous = OFF")
                migrate(connection, version_of(connection))
                connection.execute("BEGIN")
                connection.execute("UPDATE snapshots SET decoder = '', decoded = x''")  # made again from the texts
                self._from_journals(connection)
                if not sound:
                    self._from_damaged(connection)
                self.lost += _tie_up(connection)
                self.lost += self._jobs(connection, sound)
                effects.commit(connection)
                if wrong := faults(new, connection):
                    raise StoreError(f"what could be rebuilt is not sound: {wrong[0]}", "this is a mistake in agentrun")
                connection.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            _unlink(new)
            raise
        _sync(new)

    def _lay_ground(self, new: str, sound: bool) -> None:
        if sound:
            _copy(self.file, new)
            return
        for path, _ in backups.backups(self.root):
            try:
                wrong = faults(path)
            except (sqlite3.Error, OSError, StoreError) as error:
                wrong = [str(error)]
            if not wrong:
                _copy(path, new)
                self.say(f"building on the backup {os.path.basename(path)}")
                return
            self.say(f"the backup {os.path.basename(path)} is of no use: {wrong[0]}")

    def _from_journals(self, connection: sqlite3.Connection) -> None:
        writes = _writes(connection)
        perhaps = []
        for run_id in redo.journals(self.root):
            history = self._history(run_id)
            if history.reached > writes.get(run_id, 0) or run_id in self._differing:
                if history.reached == 1:
                    perhaps.append(run_id)  # never committed: then its key is another one's by now
                else:
                    self._replay(connection, run_id)
        for run_id in perhaps:
            self._replay(connection, run_id)
        writes = _writes(connection)
        for run_id in redo.journals(self.root):
            history = self._history(run_id)
            if history.last > writes.get(run_id, 0) and not history.whole:
                self.lost.append(
                    f"the journal of run {run_id} is damaged: of its {history.last} transactions"
                    f" {history.last - writes.get(run_id, 0)} could not be brought back"
                )

    def _replay(self, connection: sqlite3.Connection, run_id: str) -> None:
        entries = _entries(self.root, run_id)
        connection.execute("SAVEPOINT one")
        try:
            replay(connection, run_id, entries)
            self.rebuilt += 1
        except (sqlite3.Error, AgentrunError, ValueError, TypeError, KeyError) as error:
            connection.execute("ROLLBACK TO one")
            if entries and entries[-1]["n"] > 1:
                self.lost.append(f"run {run_id} could not be rebuilt from its journal: {error}")
        connection.execute("RELEASE one")

    def _from_damaged(self, connection: sqlite3.Connection) -> None:
        if not os.path.exists(self.file):
            return
        try:
            with self._reading() as damaged:
                copied, missing = salvage(damaged, connection)
        except (*UNREADABLE, OSError):
            copied, missing = 0, []  # nothing of it can be read
        if copied:
            self.say(f"{copied} {'run was' if copied == 1 else 'runs were'} read from the damaged database")
        self.lost += missing
        known = {run_id for (run_id,) in connection.execute("SELECT id FROM runs")}
        known.update(redo.journals(self.root))
        self.lost += [
            f"run {run_id} has a folder, and neither a journal nor a record that could be read"
            for run_id in sorted(_folders(self.root))
            if run_id not in known
        ]

    def _jobs(self, connection: sqlite3.Connection, sound: bool) -> list[str]:
        """What no journal has: see `salvage_jobs.py`. In sentences: what may be missing."""
        read, whole = {name for (name,) in connection.execute("SELECT name FROM jobs")}, True
        if not sound:
            read, whole = set(), False
            with suppress(*UNREADABLE, OSError), self._reading() as damaged:
                read, whole = copy_jobs(damaged, connection, time.time_ns() // 1_000_000)
        lost = settle_by_runs(connection, read, whole=whole)
        if self._has_forgotten and (read or lost):
            lost.append(
                "what was said of jobs last (a pause, an installation, why a tick did not run) may be missing:"
                " the database had forgotten its newest transactions"
            )
        return lost

    # --- put in place

    def _put_in_place(self) -> None:
        folder = _folder_for(self.root)
        for name in (self.file, *(self.file + end for end in _BESIDE)):
            if os.path.exists(name):
                effects.rename(name, os.path.join(folder, os.path.basename(name)))
                self.kept = folder
        backups.sync_folder(self.root)  # without its -wal, before another takes its name
        effects.rename(self.file + database.REPAIRED, self.file)
        backups.sync_folder(self.root)
        if self.kept is None:
            effects.rmdir(folder)
        else:
            self.say(f"the files as they were are in {folder}")

    # --- renew

    def _renew(self) -> None:
        self._copies.clear()
        renewed = 0
        for run_id in self._stale():
            try:
                with self._reading() as connection:
                    renewed += redo.renew(connection, RunFolder(self.root, run_id).journal, run_id)
            except OSError as error:
                self.lost.append(f"the journal of run {run_id} cannot be written: {error.strerror}")
        if renewed:
            self.say(f"{renewed} {'journal was' if renewed == 1 else 'journals were'} begun anew")

    def steps(self) -> int:
        """How many finished steps there are."""
        if not os.path.exists(self.file) or not os.path.getsize(self.file):
            return 0
        with self._reading() as connection:
            if not version_of(connection):
                return 0
            return int(connection.execute("SELECT count(*) FROM steps WHERE state = 'finished'").fetchone()[0])


def _entries(root: str, run_id: str) -> list[dict[str, Any]]:
    """What its journal tells of a run; nothing if it cannot be read."""
    try:
        return redo.read(RunFolder(root, run_id).journal).entries
    except OSError:
        return []


def _writes(connection: sqlite3.Connection) -> dict[str, int]:
    """How many transactions of each run a database knows; one of an older version counted none."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    if "writes" not in columns:
        return dict(connection.execute("SELECT id, 0 FROM runs")) if columns else {}
    return dict(connection.execute("SELECT id, writes FROM runs"))


def _folders(root: str) -> list[str]:
    """The names of the folders in runs/."""
    try:
        with os.scandir(os.path.join(root, "runs")) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def _tie_up(connection: sqlite3.Connection) -> list[str]:
    """Cut what refers to a run or step that could not be brought back."""
    lost = []
    for column, what in (("parent", "goes on from"), ("caller", "is a step of")):
        gone = connection.execute(
            f"SELECT id, {column} FROM runs WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT id FROM runs)"
        ).fetchall()
        lost += [f"run {run_id} {what} run {other}, which could not be brought back" for run_id, other in gone]
        rest = ", caller_instance = NULL" if column == "caller" else ""
        connection.executemany(f"UPDATE runs SET {column} = NULL{rest} WHERE id = ?", [(run_id,) for run_id, _ in gone])
    for table in redo.TABLES[1:]:
        connection.execute(f"DELETE FROM {table} WHERE run_id NOT IN (SELECT id FROM runs)")
    connection.execute(
        "DELETE FROM attempts WHERE NOT EXISTS (SELECT 1 FROM steps"
        " WHERE steps.run_id = attempts.run_id AND steps.instance = attempts.instance)"
    )
    return lost


def _copy(path: str, new: str) -> None:
    """What a sound database holds, its -wal included."""
    with closing(database.connect_for_reading(path)) as source, closing(sqlite3.connect(new)) as target:
        source.backup(target)


def _folder_for(root: str) -> str:
    """A new folder for damaged files, named by the time."""
    effects.makedirs(os.path.join(root, "damaged"), mode=0o700, exist_ok=True)
    stem = folder = os.path.join(root, "damaged", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    number = 1
    while True:
        try:
            effects.mkdir(folder, 0o700)
            return folder
        except FileExistsError:
            number += 1
            folder = f"{stem}-{number}"


def _unlink(new: str) -> None:
    for name in (new, *(new + end for end in _BESIDE)):
        with suppress(FileNotFoundError):
            effects.unlink(name)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        effects.fsync(fd)
    finally:
        os.close(fd)
