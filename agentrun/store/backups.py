"""Copies of the database: `backups/agentrun-<UTC time>.db`, at most one an hour, the newest three are kept.

Made by the process whose run has ended, when everything else is done and its shim is gone. It holds up nobody: the
copy is read from one snapshot of the WAL, as any reader reads, without the write lock, by a connection that neither
writes nor checkpoints. It goes to a file of another name, which is synced and then renamed; a kill leaves at most such
a file, which the next copy removes.

A run is not failed by it: what goes wrong is said in one line to whoever looks on, and `doctor` tells of backups that
are too old. On a disk that is nearly full there is none.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing, suppress

from .. import effects
from ..errors import StoreError
from . import database

EVERY = 3600.0  # seconds
KEPT = 3
_SPARE = 50 << 20  # bytes that a backup must leave free besides twice its own size
_UNFINISHED = "unfinished.db"


def folder(root: str) -> str:
    """Where they are."""
    return os.path.join(root, "backups")


def backups(root: str) -> list[tuple[str, float]]:
    """(path, mtime) of each, the newest first."""
    found = []
    try:
        with os.scandir(folder(root)) as entries:
            for entry in entries:
                if entry.name.startswith("agentrun-") and entry.name.endswith(".db") and entry.is_file():
                    found.append((entry.path, entry.stat().st_mtime))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda one: (one[1], one[0]), reverse=True)


def is_due(root: str, now: float) -> bool:
    """Whether the newest is older than an hour, or from the future. One stat: a backup touches its folder."""
    try:
        age = now - os.stat(folder(root)).st_mtime
    except OSError:
        return True
    return not 0 <= age < EVERY


def back_up(root: str, now: float) -> str | None:
    """Copy the database if that is due; the new copy's path. Raises StoreError."""
    if not is_due(root, now):
        return None
    try:
        effects.makedirs(folder(root), mode=0o700, exist_ok=True)
        # one at a time; whoever finds another at work leaves it to that one
        lock = effects.create(os.path.join(folder(root), "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            effects.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            newest = max((mtime for _, mtime in backups(root)), default=None)
            if newest is not None and 0 <= now - newest < EVERY:
                return None
            return _copy(root, now) if _has_room(root) else None
        except BlockingIOError:
            return None
        finally:
            os.close(lock)
    except (sqlite3.Error, OSError) as error:
        told = database.explain(error, database.path(root))
        raise StoreError(f"no backup of the database was made: {told.message}", told.hint) from error


def _has_room(root: str) -> bool:
    size = sum(os.path.getsize(file) for end in ("", "-wal") if os.path.exists(file := database.path(root) + end))
    room = os.statvfs(folder(root))
    return room.f_bavail * room.f_frsize > 2 * size + _SPARE


def _copy(root: str, now: float) -> str:
    temporary = os.path.join(folder(root), _UNFINISHED)
    path = os.path.join(folder(root), time.strftime("agentrun-%Y%m%dT%H%M%SZ.db", time.gmtime(now)))
    with suppress(FileNotFoundError):
        effects.unlink(temporary)
    fd = effects.create(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        source = database.connect_for_reading(database.path(root))
        with closing(source), closing(sqlite3.connect(temporary, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")  # synced as a whole, below
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, whoever opens it
        effects.fsync(fd)
    except BaseException:
        with suppress(OSError):
            effects.unlink(temporary)
        raise
    finally:
        os.close(fd)
    effects.rename(temporary, path)
    for old, _ in backups(root)[KEPT:]:
        effects.unlink(old)
    sync_folder(folder(root))
    return path


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        effects.fsync(fd)
    finally:
        os.close(fd)
