"""A run done again from its journal: each line is a verb of `Store`, and is given to a `Store` once more.

So there is no second account of what the verbs do to the rows. They are done on one connection in the transaction of
the caller, counted as they were, and told to no journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from ..errors import AgentrunError
from . import changes, instances, questions, redo, schema, spent, stuck
from .changes import Change
from .database import Database
from .write import Stamp, Store

T = TypeVar("T")

CHANGES: Mapping[str, Callable[..., Change]] = {
    name: kind
    for module in (changes, instances, questions, spent, stuck)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and hasattr(kind, "_fields") and hasattr(kind, "write")
}


class _Batch:
    """A `Database` to a `Store` whose transactions are all part of the caller's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.root = ""

    def write(self, work: Callable[[sqlite3.Cursor], T], undo: Callable[[], None]) -> T:
        return work(self.connection.cursor())


def replay(connection: sqlite3.Connection, run_id: str, entries: list[dict[str, Any]]) -> None:
    """Let a run have the rows that its journal tells of, and no others.

    Raises what the verbs raise (Overtaken, ...), sqlite3.Error, and ValueError for what is no verb of this program.
    """
    store = Store(cast(Database, _Batch(connection)), redo.NoJournals(""))
    for entry in entries:
        said = dict(entry)
        n, verb = said.pop("n"), said.pop("verb")
        if verb == redo.BASE:
            redo.put_base(connection.cursor(), run_id, said)
        elif verb not in _VERBS:
            raise ValueError(f"its journal has a line '{verb}', which this agentrun does not know")
        else:
            _VERBS[verb](store, run_id, said)
        row = connection.execute("SELECT writes FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None or row[0] != n:
            raise ValueError(f"line {n} of its journal does not follow from those before it")


def differs(
    database: sqlite3.Connection, scratch: sqlite3.Connection, run_id: str, entries: list[dict[str, Any]]
) -> bool:
    """Whether a database has other rows of a run than its journal tells of; `scratch`: an empty one to do it again in.

    False where it cannot be told: the journal was begun by another version of the program.
    """
    if not entries or entries[0].get("version") != schema.VERSION:
        return False
    scratch.execute("BEGIN")
    try:
        replay(scratch, run_id, entries)
        return redo.base(scratch.cursor(), run_id) != redo.base(database.cursor(), run_id)
    except (sqlite3.Error, AgentrunError, ValueError, TypeError, KeyError):
        return False
    finally:
        scratch.execute("ROLLBACK")


def _take(store: Store, run_id: str, said: dict[str, Any]) -> None:
    store.take(run_id, **{**said, "stamp": Stamp(*said["stamp"])})


def _commit(store: Store, run_id: str, said: dict[str, Any]) -> None:
    made = [_change(name, fields) for name, fields in said.pop("changes")]
    store.commit(run_id, said.pop("epoch"), Stamp(*said.pop("stamp")), made, **said)


def _change(name: str, fields: dict[str, Any]) -> Change:
    if name not in CHANGES:
        raise ValueError(f"its journal has a change '{name}', which this agentrun does not know")
    if isinstance(fields.get("calls"), list):
        fields["calls"] = tuple(SimpleNamespace(**call) for call in fields["calls"])
    return CHANGES[name](**fields)


def _reopen(store: Store, run_id: str, said: dict[str, Any]) -> None:
    store.reopen(run_id, **said)


def _wish_to_cancel(store: Store, run_id: str, said: dict[str, Any]) -> None:
    store.wish_to_cancel(run_id, **said)


def _answer(store: Store, run_id: str, said: dict[str, Any]) -> None:
    store.answer(run_id, **said)


def _supersede(store: Store, run_id: str, said: dict[str, Any]) -> None:
    store.supersede(run_id, **said)


_VERBS = {
    "take": _take, "commit": _commit, "reopen": _reopen, "wish_to_cancel": _wish_to_cancel, "answer": _answer,
    "supersede": _supersede,
}  # fmt: skip
