"""The journal of each run, `runs/<id>/journal`: what brings its rows back when the database is lost (`repair.py`).

    1f0c42aa {"n":7,"verb":"commit","epoch":1,...}\\n       CRC-32 of the JSON, the JSON

A redo log: the verbs of `Store` as values, one line for each transaction of the run. It is written inside of the
transaction, when every guard has passed, right before COMMIT: so who has been overtaken writes nothing here, and the
journal never has less than the database. `n` counts the run's transactions, and so does `runs.writes` in each of them
(the numbers of the events would not do: a transaction may write none). A line that was never committed is taken back;
where a kill prevents that, the next one has the same number and takes its place.

The first line is a `base`: all rows of the run, and its job file. Where a journal does not lead to what the database
has (a run of an older version, lines that a power cut took), its next line is a base again. A journal that is ahead of
its database tells that the database has forgotten something: nothing more is written then but by `repair`.

Lines are not synced one by one: the database is, and the page cache survives every kill. The whole is synced when the
command that wrote it ends. A run whose folder is gone has no journal.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from binascii import crc32
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from .. import effects
from ..errors import StoreError
from . import schema
from .folders import RunFolder

BASE = "base"
TABLES = ("runs", "steps", "attempts", "events", "wishes", "items", "usage", "spending", "calls")
_TAIL = 65_536
_CALL = ("attempt", "function", "arguments", "key", "result", "error", "started_at", "ms")


def change(one: Any) -> tuple[str, dict[str, Any]]:
    """A change of `Store.commit` as a value: its name, and what of it is not as it is by default."""
    usual = one._field_defaults
    fields = {
        name: value for name, value in zip(one._fields, one, strict=True) if name not in usual or value != usual[name]
    }
    if isinstance(fields.get("calls"), tuple):  # of scripts: known by their attributes only (spent.MadeCall)
        fields["calls"] = [{name: getattr(call, name) for name in _CALL} for call in fields["calls"]]
    return type(one).__name__, fields


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def line(n: int, verb: str, said: Mapping[str, Any]) -> bytes:
    """A transaction as it stands in the file. ASCII: what is no UTF-8 is escaped, and comes back as it was."""
    body = _encode({"n": n, "verb": verb, **said}).encode("ascii")
    return b"%08x %s\n" % (crc32(body), body)


def _valid(text: bytes) -> bytes | None:
    """The JSON of a line without its newline; None if it is torn or not as it was written."""
    if text[8:14] != b' {"n":' or b"%08x" % crc32(text[9:]) != text[:8]:
        return None
    return text[9:]


def _number(body: bytes) -> int:
    return int(body[5 : body.index(b",")])


# --- writing


def count(cursor: sqlite3.Cursor, run_id: str) -> int:
    """Count a transaction of the run, inside of it: its number."""
    rows = cursor.execute("UPDATE runs SET writes = writes + 1 WHERE id = ? RETURNING writes", (run_id,)).fetchall()
    return int(rows[0][0])


def base(cursor: sqlite3.Cursor, run_id: str) -> dict[str, Any]:
    """All rows of a run, with the names of their columns, and its job file."""
    rows: dict[str, Any] = {}
    for table in TABLES:
        found = cursor.execute(f"SELECT * FROM {table} WHERE {owner(table)} = ?", (run_id,)).fetchall()
        if found:
            rows[table] = {"columns": [column[0] for column in cursor.description], "rows": found}
    sha256, text = cursor.execute(
        "SELECT sha256, text FROM runs JOIN snapshots ON sha256 = snapshot WHERE id = ?", (run_id,)
    ).fetchone()
    return {"version": schema.VERSION, "snapshot": {"sha256": sha256, "text": text}, "tables": rows}


def put_base(cursor: sqlite3.Cursor, run_id: str, said: Mapping[str, Any]) -> None:
    """Let the run have these rows and no others."""
    forget(cursor, run_id)
    put_snapshot(cursor, said["snapshot"]["sha256"], said["snapshot"]["text"])
    for table in TABLES:
        if found := said["tables"].get(table):
            insert(cursor, table, found["columns"], found["rows"])


def put_snapshot(cursor: sqlite3.Cursor, sha256: str, text: str) -> None:
    """Keep a job file, once. With no decoder: its text is decoded again by whoever asks."""
    cursor.execute(
        "INSERT INTO snapshots (sha256, text, decoder, decoded) VALUES (?, ?, '', x'')"
        " ON CONFLICT DO UPDATE SET text = excluded.text, decoder = '', decoded = x'' WHERE text <> excluded.text",
        (sha256, text),
    )


def insert(cursor: sqlite3.Cursor, table: str, columns: list[str], rows: Any) -> None:
    """Rows by the names of their columns: those of an older version may have fewer. ValueError for a strange name."""
    known = {row[1] for row in cursor.execute(f"PRAGMA table_info({table})")}
    if not known.issuperset(columns):
        raise ValueError(f"{table} has no column {', '.join(sorted(set(columns) - known))}")
    marks = ", ".join("?" * len(columns))
    cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def forget(cursor: sqlite3.Cursor, run_id: str) -> None:
    """Remove every row of a run."""
    for table in reversed(TABLES):
        cursor.execute(f"DELETE FROM {table} WHERE {owner(table)} = ?", (run_id,))


def owner(table: str) -> str:
    """The column that names the run."""
    return "id" if table == "runs" else "run_id"


class Journals:
    """The journals that one `Store` appends to. All but `close` are called with the write lock held."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[str, _Journal] = {}
        self._written: _Journal | None = None

    def begin(self) -> None:
        """A transaction begins: nothing of it has been told."""
        self._written = None

    def append(self, cursor: sqlite3.Cursor, run_id: str, verb: str, said: Mapping[str, Any]) -> None:
        """Tell of a transaction, as the last thing in it. OSError if that cannot be written."""
        n = count(cursor, run_id)
        journal = self._open.get(run_id) or self._begin(run_id)
        if journal is None:
            return
        last = journal.last()
        if last > n:
            raise StoreError(
                f"the database in {self._root} has forgotten what the journal of run {run_id} knows"
                f" ({last - n + 1} transactions)",
                "agentrun doctor --repair brings it back",
            )
        if verb == BASE or last < n - 1:
            verb, said = BASE, base(cursor, run_id)
        self._written = journal
        journal.append(n, line(n, verb, said))

    def take_back(self) -> None:
        """The transaction has not been committed: what was told of it is removed."""
        if self._written is not None:
            self._written.take_back()
            self._written = None

    def _begin(self, run_id: str) -> _Journal | None:
        try:
            journal = _Journal(RunFolder(self._root, run_id).journal)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._open[run_id] = journal
        return journal

    def close(self) -> None:
        """Sync what was written, and close it."""
        while self._open:
            self._open.popitem()[1].close()


def renew(connection: sqlite3.Connection, path: str, run_id: str) -> bool:
    """Let a journal begin anew with what the database has; False if there is nowhere to write it. OSError."""
    try:
        journal = _Journal(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        cursor = connection.cursor()
        (writes,) = cursor.execute("SELECT writes FROM runs WHERE id = ?", (run_id,)).fetchone()
        journal.last()
        journal.append(writes, line(writes, BASE, base(cursor, run_id)))
        return True
    finally:
        journal.close()


class NoJournals(Journals):
    """Where journals are read, and not written."""

    def append(self, cursor: sqlite3.Cursor, run_id: str, verb: str, said: Mapping[str, Any]) -> None:
        """Only count it."""
        count(cursor, run_id)


class _Journal:
    """One of them, open for appending."""

    __slots__ = ("_before", "_end", "_fd", "_last", "_torn", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = effects.create(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end = -1  # how long it was when we last looked
        self._last = 0
        self._torn = False
        self._before = 0

    def last(self) -> int:
        """The number of its last line that is whole; 0 if it has none. Others may have written since we did."""
        size = os.fstat(self._fd).st_size
        if size != self._end:
            self._last, self._torn = _last_line(self._fd, size)
            self._end = size
        return self._last

    def append(self, n: int, text: bytes) -> None:
        self._before = self._end
        if self._torn:
            text = b"\n" + text
        try:
            written = effects.write(self._fd, text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from error
        if written != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self._end += written
        self._last, self._torn = n, False

    def take_back(self) -> None:
        with suppress(OSError):  # then the next line takes its place
            effects.ftruncate(self._fd, self._before)
        self._end = -1

    def close(self) -> None:
        with suppress(OSError):  # nothing that the database does not have
            effects.fdatasync(self._fd)
        os.close(self._fd)


def _last_line(fd: int, size: int) -> tuple[int, bool]:
    """The number of the last whole line of that many bytes, and whether something torn follows."""
    torn = False
    length = _TAIL
    while True:
        begin = max(size - length, 0)
        lines = os.pread(fd, size - begin, begin).split(b"\n")
        torn = bool(lines.pop())
        for text in reversed(lines if begin == 0 else lines[1:]):  # the first may have begun before
            if body := _valid(text):
                return _number(body), torn
        if begin == 0:
            return 0, torn
        length *= 8


# --- reading


class History:
    """What a journal tells: `entries`, the transactions one after the other from a base on; may be empty.

    `last`: the highest number that stands in the current course of the journal; 0 if there is none. If it is not
    that of the last entry, lines are missing between them: they were torn, or never reached the disk.
    """

    def __init__(self, entries: list[dict[str, Any]], last: int) -> None:
        self.entries = entries
        self.last = last

    @property
    def reached(self) -> int:
        """The number of the last transaction that can be done again."""
        return int(self.entries[-1]["n"]) if self.entries else 0

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.reached == self.last


def read(path: str) -> History:
    """Read a journal. A line takes the place of those before it that have its number or a higher one.

    OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        text = file.read()
    bodies: list[bytes] = []
    for body in _bodies(text):
        n = _number(body)
        while bodies and _number(bodies[-1]) >= n:
            bodies.pop()
        bodies.append(body)
    course: list[dict[str, Any]] = []
    for body in bodies:
        entry = json.loads(body)
        if entry.get("verb") == BASE:
            course = [entry]
        elif course and course[-1]["n"] == entry["n"] - 1:
            course.append(entry)
        # else: lines are missing; a base that follows makes them unnecessary
    return History(course, _number(bodies[-1]) if bodies else 0)


def last_number(path: str) -> int:
    """The number of the last whole line of a journal; 0 if it has none, or is not there. OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        return _last_line(fd, os.fstat(fd).st_size)[0]
    finally:
        os.close(fd)


def journals(root: str) -> Iterator[str]:
    """The ids of the runs that have a journal in which something stands."""
    try:
        names = sorted(os.listdir(os.path.join(root, "runs")))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        try:
            if os.stat(RunFolder(root, name).journal).st_size:
                yield name
        except OSError:
            continue


def _bodies(text: bytes) -> Iterator[bytes]:
    for one in text.split(b"\n"):
        if body := _valid(one):
            yield body
