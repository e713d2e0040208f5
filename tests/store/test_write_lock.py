"""The lock that queues writers: nobody is turned away, the dead let go, and who waits knows for whom."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agentrun.store import database as module
from agentrun.store.database import Database, open_for_writing, write_lock
from agentrun.store.read import Reader
from agentrun.store.write import Store

from .records import NOW, commit, owned, python, settled

WRITER = """
import sys
from agentrun.store.changes import Noted
from agentrun.store.database import open_for_writing
from agentrun.store.read import Reader
from agentrun.store.write import Store
from tests.store.records import NOW, commit, owned

root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print('up', flush=True)
sys.stdin.readline()
store = Store(open_for_writing(root))
store.database.connection.execute("PRAGMA busy_timeout = 0")  # BUSY would be seen at once
run_id = owned(store, name)
for number in range(count):
    commit(store, run_id, Noted("own", NOW), Noted("x" * 2000, NOW))
    store.wish_to_cancel("1aaaaaaaaa", by=name, now=NOW)
store.database.close()
"""

# Takes the lock in a transaction, says so, and keeps both until it is told otherwise.
HOLDER = """
import sys
from agentrun.store.database import open_for_writing
database = open_for_writing(sys.argv[1])
def work(cursor):
    cursor.execute("DELETE FROM runs")
    print('in', flush=True)
    sys.stdin.readline()
database.write(work)
print('out', flush=True)
"""


@contextlib.contextmanager
def holder(root: str) -> Iterator[Any]:
    """A process that holds the write lock, until the end of the block at most."""
    process = python(HOLDER, root)
    try:
        assert process.stdout and process.stdout.readline() == "in\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_eight_writers_at_once(root: str, store: Store, reader: Reader) -> None:
    owned(store)
    writers = [python(WRITER, root, f"1bbbbbbbb{n}", "60") for n in range(8)]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "up\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        out, err = writer.communicate()
        assert (writer.returncode, out, err) == (0, "", "")
    for n in range(8):
        assert [event.seq for event in reader.events(f"1bbbbbbbb{n}")] == [*range(1, 123)]
    shared = reader.events("1aaaaaaaaa")
    assert [event.seq for event in shared] == [*range(1, 2 + 8 * 60 + 1)]
    assert len(reader.wishes("1aaaaaaaaa")) == 8 * 60
    assert reader.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_writer_that_is_killed_lets_go_and_leaves_nothing(root: str, store: Store, reader: Reader) -> None:
    run_id = owned(store)
    for _ in range(3):
        with holder(root) as process:
            process.kill()
            commit(store, run_id, settled("a")) if reader.run(run_id).steps_done == 0 else None
            store.wish_to_cancel(run_id, by="eve", now=NOW)
    assert len(reader.wishes(run_id)) == 3
    assert reader.run(run_id).steps_done == 1


def test_who_waits_long_names_the_holder(
    root: str, store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAME_THE_HOLDER_AFTER", 0.05)
    with holder(root) as process:

        def notice(sentence: str) -> None:
            said.append(sentence)
            process.stdin.write("go\n")
            process.stdin.flush()

        store.database._notice = notice
        owned(store, "1zzzzzzzzz")
        pid = process.pid
    assert len(said) == 1
    assert said[0].startswith(f"waiting for the write lock of {root}, which process {pid} (")
    assert "python" in said[0] and said[0].endswith(" holds")
    assert [run.id for run in Reader(store.database.connection).unfinished()] == ["1zzzzzzzzz"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_who_waits_shortly_says_nothing(root: str, store: Store, said: list[str]) -> None:
    with holder(root) as process:
        # let it go as soon as this process is blocked on the lock
        def release() -> None:
            me = os.open(f"/proc/{os.getpid()}/task/{main}/wchan", os.O_RDONLY)
            for _ in range(100_000):
                if b"lock" in os.pread(me, 100, 0):
                    break
            os.close(me)
            process.stdin.write("go\n")
            process.stdin.flush()

        main = threading.get_native_id()
        helper = threading.Thread(target=release)
        helper.start()
        owned(store, "1zzzzzzzzz")
        helper.join()
    assert said == []


def test_an_interrupt_while_waiting_takes_no_lock(
    root: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_sentence: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "NAME_THE_HOLDER_AFTER", 0.05)
    store.database._notice = interrupt
    with holder(root), pytest.raises(KeyboardInterrupt):
        owned(store)
    owned(store)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def blocked() -> set[int]:
    """The signals that are blocked now."""
    return {*signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_a_writer_cannot_be_stopped_from_its_terminal(database: Database) -> None:
    assert not blocked() & STOPS
    assert database.write(lambda _cursor: blocked()) >= STOPS
    assert not blocked() & STOPS

    def fail(_cursor: sqlite3.Cursor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.write(fail)
    assert not blocked() & STOPS
    assert not database.connection.in_transaction


def test_what_was_blocked_before_stays_blocked(database: Database) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP, signal.SIGUSR1})
    try:
        database.write(lambda _cursor: None)
        assert blocked() >= {signal.SIGTSTP, signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP, signal.SIGUSR1})


def test_the_lock_is_held_before_sqlite_is_touched_and_until_it_is_done(root: str, database: Database) -> None:
    """Seen from another descriptor: it cannot be had while a transaction is open."""
    import fcntl

    other = os.open(f"{root}/agentrun.lock", os.O_RDWR)

    def work(_cursor: sqlite3.Cursor) -> None:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    database.write(work)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_closing_waits_for_the_lock(root: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME_THE_HOLDER_AFTER", 0.05)
    database = open_for_writing(root)
    with holder(root) as process:

        def notice(sentence: str) -> None:
            said.append(sentence)
            process.stdin.write("go\n")
            process.stdin.flush()

        database._notice = notice
        database.close()
    assert len(said) == 1


def test_the_lock_can_be_taken_without_a_database(root: str) -> None:
    os.mkdir(root)
    fd = os.open(f"{root}/agentrun.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with write_lock(fd, root, print), write_lock(fd, root, print):
        pass  # the same descriptor again is no deadlock
    os.close(fd)
