"""Finished runs taken out of the record, with their folders: nothing of them is left, and nothing else is touched.

The order of effects, for a kill at any instant. A run goes together with the runs that are steps of it.

    lease       of each of them: nobody reopens it meanwhile
    put aside   each folder is renamed from runs/ to pruned/, the outermost run's first; both folders are synced. A
                repair rebuilds every run that has a journal in runs/ and no rows: so the journal goes before the rows
    forget      the rows, the run's own last, in transactions of at most ROWS rows: other writers get in between
    clear       what lies in pruned/ is deleted

What lies in pruned/ was decided to go, and `finish` goes on with it, whoever begins the next removal: it is deleted if
there are no rows, else the rows are forgotten first. If a run refers to it after all, it is put back. Of a large run
that was cut off in between some rows are gone; its events go from the last one on, so that they have no gap.

One removal at a time: `pruned/lock` is held, in which also stands when the next one by itself is due.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from .. import effects
from ..errors import AgentrunError, Busy, CannotWrite
from . import locks
from .backups import sync_folder
from .database import Database, path
from .folders import RunFolder
from .trouble import UNREADABLE, explain

ROWS = 2_000  # that one transaction removes, about: some 10 ms under the write lock
DAY = 86_400_000  # ms
RUNS = 50  # whose folders are put aside, and synced, together
_LOCK = "lock"
Trees = list[list[str]]  # a run, and all that are steps of it
# what belongs to a run, those first that refer to others; its events are counted from the end
_TABLES = ("calls", "spending", "usage", "items", "wishes", "attempts", "steps", "events")
_KEYS = {
    "calls": "instance, seq", "spending": "day", "usage": "instance, attempt, model, day", "items": "step, number",
    "wishes": "id", "attempts": "instance, number", "steps": "instance", "events": "seq",
}  # fmt: skip


class Removed(NamedTuple):
    """`runs`: the outermost runs that are gone; `bytes`: what their folders took, where it was asked for."""

    runs: tuple[str, ...]
    bytes: int = 0


def folder(root: str) -> str:
    """Where folders of runs wait to be deleted."""
    return os.path.join(root, "pruned")


def is_due(root: str, now: int) -> bool:
    """Whether a removal by itself is due, `now` in ms; the first time it is not, but a day later. Reads one file."""
    try:
        with open(os.path.join(folder(root), _LOCK), "rb") as file:
            due = int(file.read(20) or b"0")
    except FileNotFoundError:
        with suppress(AgentrunError), holding(root) as removal:
            removal.next_due(now + DAY)
        return False
    except OSError:
        return False  # another user's: who asks for a removal is told
    except ValueError:
        return True
    return not now < due <= now + DAY  # from further in the future: the clock was set back


@contextmanager
def holding(root: str) -> Iterator[Removal]:
    """Be the one that removes. Raises Busy, CannotWrite."""
    try:
        effects.makedirs(folder(root), mode=0o700, exist_ok=True)
        fd = effects.create(os.path.join(folder(root), _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWrite(f"cannot write in {folder(root)}: {error.strerror}", "look who owns it") from error
    try:
        effects.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Busy("another process is removing runs", "try again when it has finished") from None
    try:
        yield Removal(root, fd)
    except (*UNREADABLE, OSError) as error:
        raise explain(error, path(root)) from error
    finally:
        os.close(fd)


class Removal:
    """Made by `holding`."""

    def __init__(self, root: str, lock: int) -> None:
        self.root = root
        self._lock = lock

    def next_due(self, at: int) -> None:
        """When the next one by itself is due."""
        effects.pwrite(self._lock, b"%-20d" % at, 0)

    def finish(self, database: Database) -> None:
        """Go on with what an earlier one has left in pruned/."""
        connection = database.connection
        for name in self._left():
            if line := _line(connection, name):
                tree = _tree(connection, line[-1])
                # put aside before the others, and back after them: where it is not, they belong back
                if _may_go(connection, tree[0]) and not os.path.exists(RunFolder(self.root, tree[0]).path):
                    self._remove(database, [tree])
                else:
                    self._put_back(tree)
        self._clear(name for name in self._left() if not _line(connection, name))

    def _left(self) -> list[str]:
        return sorted(name for name in os.listdir(folder(self.root)) if name != _LOCK)

    def remove(
        self, database: Database, run_ids: Sequence[str], *, over: Callable[[], bool] = lambda: False,
        measure: bool = False,
    ) -> Removed:
        """Remove finished runs that are steps of no other, as far as nobody holds or needs them, until it is `over`.

        A run that another one goes on from (`--from`) goes after that one. Raises StoreError.
        """
        gone: list[str] = []
        size = 0
        for first in range(0, len(run_ids), RUNS):
            if over():
                break
            trees = [tree for run_id in run_ids[first : first + RUNS] if (tree := _tree(database.connection, run_id))]
            done = self._remove(database, trees)
            aside = [run_id for tree in done for run_id in tree]
            if measure:
                size += sum(size_of(os.path.join(folder(self.root), run_id)) for run_id in aside)
            self._clear(aside)
            gone += [tree[0] for tree in done]
        return Removed(tuple(gone), size)

    # --- the steps

    def _remove(self, database: Database, trees: Trees) -> Trees:
        """Everything but the last step: those of which no row is left."""
        fds: list[int] = []
        gone: Trees = []
        try:
            pending = [tree for tree in trees if _may_go(database.connection, tree[0]) and self._lease(tree, fds)]
            for run_id in (run_id for tree in pending for run_id in tree):
                self._put_aside(run_id)
            sync_folder(folder(self.root))
            with suppress(FileNotFoundError):
                sync_folder(os.path.join(self.root, "runs"))
            while pending:
                done, refused, pending = database.write(partial(_forget, trees=pending))
                for tree in refused:
                    self._put_back(tree)
                gone += done
            return gone
        finally:
            for fd in fds:
                os.close(fd)

    def _lease(self, tree: list[str], fds: list[int]) -> bool:
        """Hold a tree, whose others go on with the outermost only; False if somebody else holds any of it."""
        try:
            fds.append(effects.create(RunFolder(self.root, tree[0]).lock, os.O_RDWR | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            return True  # without its folder it cannot go on
        if not locks.try_lock(fds[-1], locks.LEASE):
            return False
        return not any(
            locks.held(RunFolder(self.root, run_id).lock, byte)
            for run_id in tree
            for byte in (locks.LEASE, locks.SHIM)
            if (run_id, byte) != (tree[0], locks.LEASE)
        )

    def _aside(self, run_id: str) -> bool:
        return os.path.exists(os.path.join(folder(self.root), run_id))

    def _put_aside(self, run_id: str) -> None:
        source, target = RunFolder(self.root, run_id).path, os.path.join(folder(self.root), run_id)
        if os.path.exists(source):
            if os.path.exists(target):
                _delete(target)
            effects.rename(source, target)

    def _put_back(self, tree: list[str]) -> None:
        for run_id in reversed(tree):  # the outermost last: until then it is known that this is not done
            if self._aside(run_id) and not os.path.exists(path := RunFolder(self.root, run_id).path):
                effects.rename(os.path.join(folder(self.root), run_id), path)

    def _clear(self, names: Iterable[str]) -> None:
        for name in names:
            _delete(os.path.join(folder(self.root), name))


def size_of(path: str) -> int:
    """What a folder takes on its disk, in bytes."""
    size = 0
    with suppress(OSError):
        size = os.lstat(path).st_blocks * 512
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    size += size_of(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
    return size


def _delete(path: str) -> None:
    """Delete a folder, also one in which a step has left folders that are not to be written."""
    effects.remove_tree(path)
    if os.path.exists(path):
        for place, folders, _ in os.walk(path):
            for name in folders:
                if not os.path.islink(inside := os.path.join(place, name)):
                    with suppress(OSError):
                        effects.chmod(inside, 0o700)
        effects.remove_tree(path)


# --- the rows


def _tree(connection: sqlite3.Connection | sqlite3.Cursor, run_id: str) -> list[str]:
    """A run and all that are steps of it, callers before called; nothing if there is no such run."""
    rows = connection.execute(
        "WITH RECURSIVE below (id, depth) AS (SELECT id, 0 FROM runs WHERE id = ?"
        " UNION ALL SELECT runs.id, depth + 1 FROM below JOIN runs ON runs.caller = below.id)"
        " SELECT id FROM below ORDER BY depth, id",
        (run_id,),
    )
    return [row[0] for row in rows]


def _line(connection: sqlite3.Connection, run_id: str) -> list[str]:
    """A run, the one of which it is a step, and so on to the outermost; nothing if there is no such run."""
    rows = connection.execute(
        "WITH RECURSIVE above (id, caller, height) AS (SELECT id, caller, 0 FROM runs WHERE id = ?"
        " UNION ALL SELECT runs.id, runs.caller, height + 1 FROM above JOIN runs ON runs.id = above.caller)"
        " SELECT id FROM above ORDER BY height",
        (run_id,),
    )
    return [row[0] for row in rows]


def _may_go(connection: sqlite3.Connection | sqlite3.Cursor, outermost: str) -> bool:
    """Whether all of a tree has finished, it is a step of no run, and no other run goes on from one of it."""
    (blocked,) = connection.execute(
        "WITH RECURSIVE below (id) AS (SELECT :it"
        " UNION ALL SELECT runs.id FROM below JOIN runs ON runs.caller = below.id)"
        " SELECT EXISTS (SELECT 1 FROM below JOIN runs USING (id) WHERE state <> 'finished')"
        " OR EXISTS (SELECT 1 FROM runs WHERE id = :it AND caller IS NOT NULL)"
        " OR EXISTS (SELECT 1 FROM below JOIN runs AS other ON other.parent = below.id"
        "   WHERE other.id NOT IN (SELECT id FROM below))",
        {"it": outermost},
    ).fetchone()
    return not blocked


def _forget(cursor: sqlite3.Cursor, trees: Trees) -> tuple[Trees, Trees, Trees]:
    """Remove rows of these, ROWS at most: the trees that are done, those that are needed, those still to do."""
    done: Trees = []
    refused: Trees = []
    rest = ROWS
    for place, tree in enumerate(trees):
        if not _may_go(cursor, tree[0]):
            refused.append(tree)
            continue
        rest = _forget_one(cursor, tree, rest)
        if rest < 0:
            return done, refused, trees[place:]
        done.append(tree)
    return done, refused, []


def _forget_one(cursor: sqlite3.Cursor, tree: list[str], rest: int) -> int:
    """Remove all of a tree, or `rest` rows of it: how many more might have been, -1 if it is not done."""
    for run_id in tree:
        for table in _TABLES:
            keys = _KEYS[table]
            cursor.execute(
                f"DELETE FROM {table} WHERE run_id = ? AND ({keys}) IN"
                f" (SELECT {keys} FROM {table} WHERE run_id = ?{' AND seq > 1' * (table == 'events')}"
                f" ORDER BY {keys.replace(',', ' DESC,')} DESC LIMIT ?)",
                (run_id, run_id, rest),
            )
            rest -= cursor.rowcount
            if rest <= 0:
                return -1
    cursor.execute(
        "INSERT INTO jobs (name, file, pruned_to) SELECT job, file, scheduled_time FROM runs WHERE id = ?"
        " AND scheduled_time IS NOT NULL ON CONFLICT (name) DO UPDATE"
        " SET pruned_to = max(coalesce(pruned_to, 0), excluded.pruned_to)",
        (tree[0],),
    )
    for run_id in reversed(tree):
        (snapshot,) = cursor.execute("SELECT snapshot FROM runs WHERE id = ?", (run_id,)).fetchone()
        cursor.execute("DELETE FROM runs WHERE id = ?", (run_id,))  # and its first event with it
        cursor.execute(
            "DELETE FROM snapshots WHERE sha256 = :it AND NOT EXISTS (SELECT 1 FROM runs WHERE snapshot = :it)",
            {"it": snapshot},
        )
    return max(rest - len(tree), 1)
