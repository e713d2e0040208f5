"""SQLite's errors, and the system's, in words that say what to do.

Also where nothing raised: a value in the database that no program of ours has written there (`bad_value`).
"""

from __future__ import annotations

import os
import sqlite3
import stat

from ..errors import StoreError

REPAIR = "agentrun doctor --repair rebuilds it from backups/ and the journals of the runs"
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # the second where SQLite's own words are overwritten
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def primary(error: Exception) -> int:
    """The primary result code: extended ones carry it in their low byte. 0 where Python itself objected."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def passing(error: Exception) -> bool:
    """Whether it may go by itself."""
    return isinstance(error, OSError) or primary(error) in _PASSING


def words(error: Exception) -> str:
    """What it says."""
    return str((isinstance(error, OSError) and error.strerror) or error)


def place(error: Exception, file: str) -> str:
    """The file that an error is about."""
    return str((isinstance(error, OSError) and error.filename) or file)


def tells_of_damage(error: Exception) -> bool:
    """Whether no sound database of ours makes SQLite say this, or Python of what is in it."""
    text = str(error)
    return (
        isinstance(error, UnicodeDecodeError)
        or primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or text.startswith(("no such table", "no such column", "Could not decode", "duplicate column name"))
        or " has no column named " in text
        or (text.startswith(("table ", "index ", "view ")) and text.endswith(" already exists"))
    )


def explain(error: Exception, file: str) -> StoreError:
    """SQLite's error, or the system's, in words that say what to do."""
    code = primary(error)
    if isinstance(error, OSError):
        return StoreError(
            f"cannot write {place(error, file)}: {words(error)}", "free space and resume: what was recorded is kept"
        )
    if tells_of_damage(error):
        return StoreError(f"{file} is damaged: {error}", REPAIR)
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"the disk of {file} is full", "free space and resume: what was recorded is kept")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"{file} has been locked by another program for too long", "end the program that has it open, and resume"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(f"cannot open {file} for writing: {error}", "check its owner, its mode and the disk")
    return StoreError(f"cannot use {file}: {error}", "check the disk; nothing that was recorded is lost")


def check_plain(file: str) -> None:
    """That no pipe, folder or device has the name of a database: to open a pipe waits for ever. Raises StoreError."""
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return  # whoever opens it says why
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise StoreError(
            f"{file} is {kind}, not a database",
            "move it away; then agentrun doctor --repair brings back what was there",
        )


def bad_value(what: str, value: object) -> StoreError:
    """A value that stands where nobody has written it: pages were overwritten."""
    return StoreError(f"the database is damaged: it has {str(value)[:60]!a} as {what}", REPAIR)
