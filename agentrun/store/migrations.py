"""A database is brought from version to version, each migration in a transaction of its own.

The caller holds the write lock, has looked that no run is being advanced, and has turned foreign keys off: a table that
is made again would take the rows with it that refer to the old one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from .. import effects
from . import folders, locks, schema


def migrate(connection: sqlite3.Connection, version: int, target: int | None = None) -> None:
    """Bring the tables from a version to another one, the newest if none is named."""
    for number in range(version, schema.VERSION if target is None else target):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(schema.MIGRATIONS[number]):
                connection.execute(statement)
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise sqlite3.IntegrityError("a row refers to one that is not there")
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            effects.commit(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def held_runs(root: str) -> Iterator[str]:
    """The runs that a process advances now."""
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
