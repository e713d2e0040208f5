"""The journals of runs: what is written when, what is believed when it is read, and what comes back from it."""

from __future__ import annotations

import ast
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrun import effects
from agentrun.errors import NotFound, Overtaken, StoreError
from agentrun.store import instances, redo, replay, spent
from agentrun.store.changes import LimitsHeld, Noted, RunClosing, StepParked, WishTaken
from agentrun.store.database import open_for_writing, path
from agentrun.store.folders import RunFolder
from agentrun.store.migrations import migrate
from agentrun.store.spent import CallRow
from agentrun.store.write import Store

from .records import NOW, OWNER, ROOT, commit, ended, failed_run, finished, owned, settled, snapshot, stamp, started

RUN = "1aaaaaaaaa"


@pytest.fixture
def folder(root: str, store: Store) -> RunFolder:
    made = RunFolder(root, RUN)
    made.create()
    return made


@pytest.fixture
def scratch() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, 0)
    yield connection
    connection.close()


def rows(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in redo.TABLES}


def lines(folder: RunFolder) -> list[tuple[int, str]]:
    return [(entry["n"], entry["verb"]) for entry in redo.read(folder.journal).entries]


def again(store: Store) -> Store:
    """Another process."""
    return Store(open_for_writing(store.database.root, notice=print, patience=0.5))


# --- what is written


def test_each_transaction_has_its_line(store: Store, folder: RunFolder) -> None:
    failed_run(store)
    store.reopen(RUN, ["b", "c"], handlers={"c"}, by="eve", now=NOW)
    store.wish_to_cancel(RUN, by="eve", now=NOW)
    store.adopt_spec(RUN, snapshot("b", "d"), by="eve", now=NOW)
    store.take(RUN, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    text = Path(folder.journal).read_bytes()
    verbs = [json.loads(line[9:])["verb"] for line in text.splitlines()]
    assert verbs == ["base", "commit", "commit", "reopen", "wish_to_cancel", "base", "take"]
    assert lines(folder) == [(6, "base"), (7, "take")], "what another job file changes begins it anew"
    assert os.stat(folder.journal).st_mode & 0o777 == 0o600
    assert store.database.connection.execute("SELECT writes FROM runs").fetchall() == [(7,)]


def test_a_run_without_a_folder_has_none(root: str, store: Store) -> None:
    failed_run(store)
    assert not os.path.exists(f"{root}/runs")


def test_who_was_overtaken_writes_nothing(store: Store, folder: RunFolder) -> None:
    owned(store)
    before = Path(folder.journal).read_bytes()
    with pytest.raises(Overtaken):
        commit(store, RUN, started("a"), epoch=7)
    with pytest.raises(NotFound):
        store.wish_to_cancel("nobody", by="eve", now=NOW)
    assert Path(folder.journal).read_bytes() == before
    commit(store, RUN, started("a"))
    assert lines(folder) == [(1, "base"), (2, "commit")]


def test_a_commit_without_events_is_told_once_whoever_is_killed(store: Store, folder: RunFolder) -> None:
    """Numbers of events could not tell a transaction that was done again from the next one."""
    owned(store)
    for _ in range(3):
        commit(store, RUN, spent.SpendingAdded("2026-11-20", 1, 5, 0))
    assert lines(folder) == [(1, "base"), (2, "commit"), (3, "commit"), (4, "commit")]


def test_a_line_that_was_not_committed_is_taken_back(
    store: Store, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(store)
    before = Path(folder.journal).read_bytes()
    with monkeypatch.context() as patch:

        def full(_cursor: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        patch.setattr(effects, "commit", full)
        with pytest.raises(StoreError):
            commit(store, RUN, started("a"))
    assert Path(folder.journal).read_bytes() == before
    commit(store, RUN, started("a"))
    assert lines(folder) == [(1, "base"), (2, "commit")]


def test_a_line_of_a_writer_that_was_killed_before_its_commit_is_replaced(store: Store, folder: RunFolder) -> None:
    owned(store)
    with open(folder.journal, "ab") as file:
        file.write(redo.line(2, "commit", {"killed": True}))
    commit(store, RUN, started("a"))
    entries = redo.read(folder.journal).entries
    assert [entry["n"] for entry in entries] == [1, 2]
    assert "killed" not in entries[1]


def test_a_torn_line_is_closed_off(store: Store, folder: RunFolder) -> None:
    owned(store)
    with open(folder.journal, "ab") as file:
        file.write(redo.line(2, "commit", {"killed": True})[:-9])
    other = again(store)
    commit(other, RUN, started("a"))
    commit(store, RUN, ended("a"))
    assert lines(folder) == [(1, "base"), (2, "commit"), (3, "commit")]
    other.__exit__()


def test_two_writers_take_turns(store: Store, folder: RunFolder) -> None:
    owned(store)
    with again(store) as other:
        for number in range(3):
            commit(store, RUN, started("a", number + 1))
            other.wish_to_cancel(RUN, by="eve", now=NOW)
            commit(store, RUN, ended("a", number + 1))
    history = redo.read(folder.journal)
    assert history.whole and history.reached == 10
    assert [entry["verb"] for entry in history.entries[1:4]] == ["commit", "wish_to_cancel", "commit"]


def test_where_lines_are_missing_it_begins_anew(store: Store, folder: RunFolder) -> None:
    """A power cut may take what was not synced; a run of an older version has no journal at all."""
    owned(store)
    commit(store, RUN, started("a"))
    for whole in (Path(folder.journal).read_bytes().splitlines(keepends=True)[0], b""):
        Path(folder.journal).write_bytes(whole)
        with again(store) as other:
            other.wish_to_cancel(RUN, by="eve", now=NOW)
        history = redo.read(folder.journal)
        assert history.whole and [entry["verb"] for entry in history.entries] == ["base"]


def test_a_database_that_has_forgotten_something_is_not_written(store: Store, folder: RunFolder) -> None:
    owned(store)
    with open(folder.journal, "ab") as file:
        file.write(redo.line(2, "commit", {}) + redo.line(3, "commit", {}))
    with again(store) as other, pytest.raises(StoreError, match="has forgotten what the journal") as refused:
        commit(other, RUN, started("a"))
    assert "doctor --repair" in str(refused.value.hint)
    assert store.reader.attempts(RUN) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_journal_that_cannot_be_written_is_a_failing_database(
    store: Store, folder: RunFolder, said: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    owned(store)

    def fail(_fd: int, _text: bytes) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(effects, "write", fail)
        with pytest.raises(StoreError, match=f"cannot write {folder.journal}: {os.strerror(number)}"):
            commit(store, RUN, started("a"))
    assert said == [f"cannot write {folder.journal}: {os.strerror(number)}; trying again"], "once"
    assert store.reader.attempts(RUN) == []
    commit(store, RUN, started("a"))
    assert lines(folder) == [(1, "base"), (2, "commit")]


def test_room_that_comes_back_in_time_is_used(
    store: Store, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(store)
    real: Callable[[int, bytes], int] = effects.write
    calls = []

    def torn(fd: int, text: bytes) -> int:
        calls.append(text)
        return real(fd, text[:20]) if len(calls) < 3 else real(fd, text)

    monkeypatch.setattr(effects, "write", torn)
    commit(store, RUN, started("a"))
    assert len(calls) == 3
    assert len(Path(folder.journal).read_bytes().splitlines()) == 2, "what was torn was taken back"


# --- what is read


def test_a_hole_ends_what_can_be_told(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    made = [redo.line(n, "base" if n == 1 else "commit", {}) for n in range(1, 6)]
    damaged = made[2][:12] + b"#" + made[2][13:]
    file.write_bytes(b"".join([*made[:2], damaged, *made[3:]]))
    history = redo.read(str(file))
    assert (history.reached, history.last, history.whole) == (2, 5, False)
    file.write_bytes(file.read_bytes() + redo.line(4, "base", {}) + redo.line(5, "commit", {}))
    history = redo.read(str(file))
    assert ([entry["n"] for entry in history.entries], history.whole) == ([4, 5], True)


@pytest.mark.parametrize("length", [10, 70_000, 1_000_000])
def test_the_last_line_is_found_however_long_it_is(tmp_path: Path, length: int) -> None:
    file = tmp_path / "journal"
    assert redo.last_number(str(file)) == 0
    file.write_bytes(redo.line(1, "base", {}) + redo.line(2, "commit", {"x": "x" * length}) + b"torn {")
    assert redo.last_number(str(file)) == 2
    file.write_bytes(b"\n\x00 nothing of ours\n" * 9)
    assert redo.last_number(str(file)) == 0
    assert redo.read(str(file)).entries == []


# --- what comes back


def test_every_verb_and_change_comes_back(store: Store, folder: RunFolder, scratch: sqlite3.Connection) -> None:
    owned(store)
    call = CallRow("a", 1, 1, "f", "[1]", None, '"\\udc80"', None, NOW, 3)
    items = [instances.Item(n, n, f"key{n}", json.dumps(f"é{n}")) for n in range(2)]
    commit(
        store, RUN, LimitsHeld("rlimit", NOW), started("a"),
        spent.UsageTaken("a", 1, "m", "2026-11-20", True, 1, 2, 3, 4, 9),
        spent.CallsTaken("a", (call,), 12), spent.SpendingAdded("2026-11-20", 1, 2, 3),
        Noted("seen", NOW, detail={"x": [1, None]}), started=1,
    )  # fmt: skip
    commit(store, RUN, ended("a", outcome="failed", causes=("exit", "3"), exception={"type": "E"}, error="\udcff!"))
    commit(store, RUN, StepParked("a", NOW + 9, 1, 0, NOW), results_seen=77)
    commit(store, RUN, instances.ListFrozen("b", 1, 2, items, NOW), started("b[0]", position=1))
    store.wish_to_cancel(RUN, by="eve", now=NOW)
    (wish,) = store.reader.wishes(RUN)
    commit(store, RUN, WishTaken(wish[0], NOW), RunClosing("cancelled", "cancel", NOW), stopped=True)
    commit(store, RUN, ended("b[0]", outcome="interrupted"), settled("b[0]", position=1, outcome="cancelled"))
    commit(store, RUN, settled("a", outcome="failed"), settled("b", position=1, outcome="cancelled", counted=False))
    commit(store, RUN, finished("cancelled"))
    store.reopen(RUN, ["a"], handlers=(), by="eve", now=NOW)
    store.take(RUN, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    replay.replay(scratch, RUN, redo.read(folder.journal).entries)
    assert rows(scratch) == rows(store.database.connection)
    assert not replay.differs(store.database.connection, scratch, RUN, redo.read(folder.journal).entries)
    store.database.connection.execute("UPDATE steps SET error = 'x' WHERE instance = 'a'")
    scratch.executescript("; ".join(f"DELETE FROM {table}" for table in redo.TABLES))
    assert replay.differs(store.database.connection, scratch, RUN, redo.read(folder.journal).entries)


def test_what_a_run_took_over_does_not_depend_on_its_parent(
    root: str, store: Store, scratch: sqlite3.Connection
) -> None:
    owned(store, "0aaaaaaaaa")
    items = [instances.Item(0, 0, "key", "1")]
    commit(store, "0aaaaaaaaa", instances.ListFrozen("b", 1, 1, items, NOW))
    child = RunFolder(root, RUN)
    child.create()
    from .records import new_run

    store.record(new_run(RUN, parent="0aaaaaaaaa"), snapshot(), [settled("b", position=1)])
    replay.replay(scratch, RUN, redo.read(child.journal).entries)
    assert scratch.execute("SELECT step, number, key FROM items").fetchall() == [("b", 0, "key")]
    assert scratch.execute("SELECT instances FROM steps").fetchall() == [(1,)]


@pytest.mark.parametrize("entry", [{"n": 2, "verb": "fly"}, {"n": 3, "verb": "take"}])
def test_what_this_program_does_not_know_is_refused(
    store: Store, folder: RunFolder, scratch: sqlite3.Connection, entry: dict[str, Any]
) -> None:
    owned(store)
    said = {"seen_epoch": 1, "owner": OWNER, "stamp": list(stamp()), "resumed": True} if entry["verb"] == "take" else {}
    with pytest.raises(ValueError, match=r"does not know|does not follow"):
        replay.replay(scratch, RUN, [*redo.read(folder.journal).entries, {**entry, **said}])


def test_no_verb_goes_round_the_journal() -> None:
    """Every transaction of the store is told, and everything that is told can be done again."""
    tree = ast.parse((ROOT / "agentrun/store/write.py").read_text())
    functions = {node.name: ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert [name for name, text in functions.items() if "database.write(" in text] == ["_write"]
    told = {
        ast.unparse(node.args[1])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._write"
    }
    assert told == {"redo.BASE", *map(repr, replay._VERBS)}
    elsewhere = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "agentrun").rglob("*.py")
        if "database.write(" in file.read_text() and file.name != "write.py"
    ]
    of_no_run = {"agentrun/store/jobs.py", "agentrun/store/notices.py"}  # their rows are of jobs, or an outbox
    of_removed_runs = {"agentrun/store/prune.py", "agentrun/store/removal.py"}  # whose journals are put away first
    assert set(elsewhere) - of_no_run - of_removed_runs == set()


def test_every_change_can_be_done_again() -> None:
    kinds = {
        node.name
        for file in (ROOT / "agentrun").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base) == "NamedTuple" for base in node.bases)
        and any(isinstance(child, ast.FunctionDef) and child.name == "write" for child in node.body)
    }
    assert kinds == set(replay.CHANGES)


def test_the_database_is_where_it_was(store: Store) -> None:
    owned(store)
    os.rename(path(store.database.root), path(store.database.root) + ".old")
    with pytest.raises(StoreError, match="was replaced or removed while this command had it open"):
        commit(store, RUN, started("a"))
    os.rename(path(store.database.root) + ".old", path(store.database.root))
    commit(store, RUN, started("a"))
