"""Whether a database is what we wrote: its pages, its rows, its tables. It is opened by the caller, and only read."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from ..errors import StoreError
from . import schema
from .database import connect_for_reading
from .migrations import migrate
from .trouble import UNREADABLE, primary

_NOT_OF_ITS_CONTENT = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT,
}  # fmt: skip

_OF_ITS_SHM = {  # could not be made: the disk is full
    sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP,
}  # fmt: skip


def version_of(connection: sqlite3.Connection) -> int:
    """The version that a database says it has; 0: none yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def faults(file: str, connection: sqlite3.Connection | None = None) -> list[str]:
    """What is wrong with it, in sentences; empty if it may be believed. An older version is no fault.

    `connection`: to it, where there is one already. Raises StoreError if a newer program wrote it, and sqlite3.Error
    for what does not come of its content.
    """
    try:
        if connection is not None:
            return _faults(connection, file)
        with closing(connect_for_reading(file)) as opened:
            return _faults(opened, file)
    except UNREADABLE as error:
        if primary(error) in _NOT_OF_ITS_CONTENT or getattr(error, "sqlite_errorcode", 0) in _OF_ITS_SHM:
            raise
        return [f"the database is damaged: {error}"]


def _faults(connection: sqlite3.Connection, file: str) -> list[str]:
    wrong = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
    if wrong != ["ok"]:
        return [f"the database is damaged: {sentence}" for sentence in wrong]
    version = version_of(connection)
    if not is_ours(connection):
        return ["the database does not say that it is agentrun's"]
    if version > schema.VERSION:
        raise StoreError(
            f"{file} was written by a newer agentrun (database version {version})",
            "use the newer program; nothing has been changed",
        )
    if version < 1 or _tables(connection) != _tables_of(version):
        return [f"the database does not have the tables of its version ({version})"]
    orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    return [f"a row of {table} belongs to a row of {parent} that is gone" for table, _, parent, _ in orphans[:5]]


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether it says that agentrun made it."""
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID)


def _tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall()
    return {
        name: {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')}
        for (name,) in names
        if not name.startswith("sqlite_")
    }


def _tables_of(version: int) -> dict[str, set[str]]:
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh, 0, version)
        return _tables(fresh)
    finally:
        fresh.close()
