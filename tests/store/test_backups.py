"""Backups: when there is one, what is in it, and what is left of one that was cut short."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrun.errors import StoreError
from agentrun.store import backups as module
from agentrun.store.backups import EVERY, back_up, backups, is_due
from agentrun.store.write import Store

from .records import ROOT, commit, failed_run, owned, started


def age(root: str, seconds: float) -> None:
    """Let all that has been backed up be so much older."""
    for name in (*(path for path, _ in backups(root)), module.folder(root)):
        at = os.stat(name).st_mtime - seconds
        os.utime(name, (at, at))


def test_a_backup_holds_what_was_recorded(root: str, store: Store) -> None:
    assert backups(root) == []
    failed_run(store)
    made = back_up(root, time.time())
    assert made is not None and [path for path, _ in backups(root)] == [made]
    assert os.stat(made).st_mode & 0o777 == 0o600
    assert os.stat(module.folder(root)).st_mode & 0o777 == 0o700
    copy = sqlite3.connect(f"file:{made}?mode=ro&immutable=1", uri=True)
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    question = "SELECT * FROM events ORDER BY run_id, seq"
    assert copy.execute(question).fetchall() == store.database.connection.execute(question).fetchall()
    copy.close()
    assert sorted(os.listdir(module.folder(root))) == [os.path.basename(made), "lock"]


def test_at_most_one_an_hour_and_three_are_kept(root: str, store: Store) -> None:
    now = time.time()
    first = back_up(root, now)
    assert first and not is_due(root, time.time()) and back_up(root, time.time()) is None
    made = [first]
    for number in range(1, 5):
        age(root, EVERY + 1)
        assert is_due(root, time.time())
        later = back_up(root, now + number)
        assert later
        made.append(later)
    assert [path for path, _ in backups(root)] == made[:-4:-1]


def test_a_clock_that_was_set_back_does_not_end_them(root: str, store: Store) -> None:
    assert back_up(root, time.time())
    age(root, -10 * EVERY)
    assert is_due(root, time.time())
    assert back_up(root, time.time() + 1)


def test_nobody_is_held_up_and_nobody_holds_up(root: str, store: Store) -> None:
    """A transaction that is open meanwhile is not in it, and is committed all the same."""
    owned(store)

    def work(cursor: sqlite3.Cursor) -> str | None:
        cursor.execute("UPDATE runs SET job = 'other'")
        return back_up(root, time.time())

    made = store.database.write(work)
    assert made
    copy = sqlite3.connect(made)
    assert copy.execute("SELECT job FROM runs").fetchall() == [("quotes",)]
    copy.close()
    assert store.database.connection.execute("SELECT job FROM runs").fetchall() == [("other",)]


def test_not_on_a_disk_that_is_nearly_full(root: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPARE", 1 << 62)
    assert back_up(root, time.time()) is None
    assert backups(root) == []


def test_a_backup_that_fails_says_so(root: str, store: Store) -> None:

    Path(module.folder(root)).write_text("not a folder")
    os.utime(module.folder(root), (0, 0))
    with pytest.raises(StoreError, match="no backup of the database was made"):
        back_up(root, time.time())


def test_killed_at_any_instant_it_leaves_at_most_a_file_that_the_next_removes(
    root: str, store: Store, tmp_path: Path
) -> None:
    failed_run(store)
    commit(store, owned(store, "2aaaaaaaaa"), started("a"))
    points = tmp_path / "points"
    code = "import sys, time; from agentrun.store.backups import back_up; back_up(sys.argv[1], float(sys.argv[2]))"
    number = 0
    now = int(time.time())
    while True:
        number += 1
        points.unlink(missing_ok=True)
        env = {**os.environ, "AGENTRUN_FAULTS": f"{points}:{number}:kill:0", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", code, root, str(now + number)], env=env, capture_output=True, text=True
        )
        for path, _ in backups(root):
            copy = sqlite3.connect(path)
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert copy.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
            copy.close()
        if os.path.isdir(module.folder(root)):
            age(root, EVERY + 1)
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
    assert number > 8
    left = sorted(os.listdir(module.folder(root)))
    assert [name for name in left if not name.startswith("agentrun-")] == ["lock"]
    assert len(backups(root)) <= 3
