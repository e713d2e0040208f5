"""What can still be read of a database that is damaged: run by run, row by row, as far as it goes.

Only for runs that neither a journal nor a backup knows, or not to their end: a power cut takes lines of a journal, and
not what the database has synced. Every question may fail, and every value be wrong: what the tables of the new
database refuse is left out, and said. A run that is known in part is taken only if it is whole but for what it has
used, and if its events go on from those that are known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from . import redo
from .trouble import UNREADABLE

_MINOR = {"usage", "spending", "calls"}  # a run goes on without: no step is done again for it


def salvage(damaged: sqlite3.Connection, new: sqlite3.Connection) -> tuple[int, list[str]]:
    """Copy runs that the new database does not have; how many, and what is missing of them in sentences."""
    copied, lost = 0, []
    known = dict(new.execute("SELECT id, writes FROM runs"))
    for run_id in _run_ids(damaged):
        if run_id in known and not (more := _writes(damaged, run_id) - known[run_id]) > 0:
            continue
        new.execute("SAVEPOINT one")
        try:
            events = _events(new, run_id)
            if run_id in known:
                redo.forget(new.cursor(), run_id)
            missing = _copy(damaged, new, run_id)
            if run_id in known and (not _MINOR.issuperset(missing) or _events(new, run_id)[: len(events)] != events):
                raise ValueError(f"{more} transactions of it are in the damaged database, which cannot be read")
        except (sqlite3.Error, ValueError, TypeError) as error:
            new.execute("ROLLBACK TO one")
            if run_id in known:
                lost.append(f"run {run_id} is known as it was {more} transactions earlier: {error}")
            else:
                lost.append(f"run {run_id} could not be read from the damaged database ({error}), and has no journal")
        else:
            copied += 1
            if missing:
                lost.append(f"run {run_id} could be read from the damaged database in part only: {', '.join(missing)}")
        new.execute("RELEASE one")
    return copied, lost


def _writes(damaged: sqlite3.Connection, run_id: str) -> int:
    """How many transactions of a run the damaged database knows; 0 if that cannot be read."""
    found = next(_rows(damaged, "SELECT writes FROM runs WHERE id = ?", run_id), (0,))[0]
    return found if isinstance(found, int) else 0


def _events(connection: sqlite3.Connection, run_id: str) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT * FROM events WHERE run_id = ? ORDER BY seq", (run_id,)).fetchall()


def _run_ids(damaged: sqlite3.Connection) -> list[str]:
    """The ids of its runs, found from both ends of the table and by all of its indexes."""
    found: set[str] = set()
    for order in ("id", "id DESC", "job, id", "job DESC, id DESC"):
        found.update(row[0] for row in _rows(damaged, f"SELECT id FROM runs ORDER BY {order}"))
    with suppress(*UNREADABLE):
        for table in redo.TABLES[1:]:
            found.update(row[0] for row in _rows(damaged, f"SELECT DISTINCT run_id FROM {table}"))
    # what pages were overwritten with is no id
    return sorted(run_id for run_id in found if isinstance(run_id, str) and run_id.isascii() and run_id.isalnum())


def _rows(damaged: sqlite3.Connection, question: str, *values: str) -> Iterator[tuple[Any, ...]]:
    """Rows until the first that cannot be read."""
    with suppress(*UNREADABLE):
        yield from damaged.execute(question, values)


def _copy(damaged: sqlite3.Connection, new: sqlite3.Connection, run_id: str) -> list[str]:
    """Copy one run; the tables of which rows are missing. Raises where its own row or its job file is gone."""
    (sha256,) = damaged.execute("SELECT snapshot FROM runs WHERE id = ?", (run_id,)).fetchone() or (None,)
    cursor = new.cursor()
    if cursor.execute("SELECT 1 FROM snapshots WHERE sha256 = ?", (sha256,)).fetchone() is None:
        text = damaged.execute("SELECT sha256, text FROM snapshots WHERE sha256 = ?", (sha256,)).fetchone()
        if text is None:
            raise ValueError("its job file is not there")
        redo.put_snapshot(cursor, *text)
    missing = []
    for table in redo.TABLES:
        column = redo.owner(table)
        try:
            asked = damaged.execute(f"SELECT * FROM {table} WHERE {column} = ?", (run_id,))
            columns = [each[0] for each in asked.description]
            whole = _insert(cursor, table, columns, asked)
        except UNREADABLE:
            if table == "runs":
                raise
            whole = False
        if not whole:
            missing.append(table)
    if cursor.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None:
        raise ValueError("its own row is not there")
    return missing


def _insert(cursor: sqlite3.Cursor, table: str, columns: list[str], rows: Iterator[tuple[Any, ...]]) -> bool:
    """Insert what can be read and is accepted; whether that was all."""
    whole = True
    try:
        for row in rows:
            try:
                redo.insert(cursor, table, columns, [row])
            except sqlite3.IntegrityError:
                whole = False
    except UNREADABLE:
        return False
    return whole
