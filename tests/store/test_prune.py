"""Which runs a job may lose, and how they go: rows, folders, snapshots, ticks; nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentrun.errors import Busy
from agentrun.model import Keep
from agentrun.store import locks, prune, removal
from agentrun.store.database import Database
from agentrun.store.folders import RunFolder
from agentrun.store.jobs import Jobs, Unrun
from agentrun.store.write import Store

from .records import NOW, OWNER, commit, finished, new_run, snapshot, stamp, started

DAY = 86_400_000


class Shelf:
    """A record of runs of a job, one a day; the newest is from NOW."""

    def __init__(self, root: str, store: Store) -> None:
        self.root, self.store = root, store
        self.connection = store.database.connection

    def run(self, name: str, days_ago: int = 0, outcome: str | None = "succeeded", size: int = 0, **more: Any) -> str:
        at = NOW - days_ago * DAY
        folder = RunFolder(self.root, name)
        folder.create()
        Path(folder.lock).touch(0o600)
        Path(folder.scratch, "data").write_bytes(os.urandom(size))
        self.store.record(new_run(name, created_at=at, **more), snapshot(), owner=OWNER, stamp=stamp(at))
        commit(self.store, name, started("a", at=at))
        if outcome:
            commit(self.store, name, finished(outcome, at))
        return name

    def excess(self, keep: Keep, **more: Any) -> list[str]:
        spare = prune.last_runs(self.connection, prune.job_names(self.connection))
        return prune.excess(self.connection, self.root, "quotes", keep, NOW, spare=spare, **more).runs

    def remove(self, *names: str, **more: Any) -> tuple[str, ...]:
        with removal.holding(self.root) as held:
            held.finish(self.store.database)
            return held.remove(self.store.database, names, **more).runs

    def left(self) -> list[str]:
        return [row[0] for row in self.connection.execute("SELECT id FROM runs ORDER BY id")]

    def count(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def shelf(root: str, store: Store) -> Shelf:
    return Shelf(root, store)


def test_by_number_age_and_size(shelf: Shelf) -> None:
    names = [shelf.run(f"{9 - days}aaaaaaaaa", days, size=100_000) for days in range(9, -1, -1)]
    assert shelf.excess(Keep()) == []
    assert shelf.excess(Keep(runs=10)) == []
    assert shelf.excess(Keep(runs=3)) == names[:7]
    assert shelf.excess(Keep(age=4 * DAY)) == names[:5]
    one = prune.size_with_steps(shelf.connection, shelf.root, names[0])
    assert 100_000 < one < 300_000
    assert shelf.excess(Keep(size=4 * one + one // 2)) == names[:-4]
    assert shelf.excess(Keep(size=1)) == names[:-1]  # the last stays
    assert shelf.excess(Keep(runs=8, age=4 * DAY, size=7 * one)) == names[:5]
    assert shelf.excess(Keep(runs=3), most=2) == names[:2]
    assert prune.excess(shelf.connection, shelf.root, "quotes", Keep(runs=3), NOW).ticks == NOW - 3 * DAY
    assert prune.excess(shelf.connection, shelf.root, "others", Keep(runs=3), NOW).runs == []


def test_what_stays_whatever_the_limits(shelf: Shelf) -> None:
    shelf.run("1aaaaaaaaa", 9)
    shelf.run("2aaaaaaaaa", 8, outcome=None)  # not finished
    good = shelf.run("3aaaaaaaaa", 7)
    bad = shelf.run("4aaaaaaaaa", 6, outcome="failed")
    shelf.run("5aaaaaaaaa", 5, outcome="failed")
    assert shelf.excess(Keep(runs=1)) == ["1aaaaaaaaa", bad]
    assert good not in shelf.excess(Keep(age=1))
    # what a run that stays goes on from; and what it goes on from itself
    shelf.run("6aaaaaaaaa", 4, outcome="failed", parent=bad)
    shelf.run("7aaaaaaaaa", 3, outcome="failed", parent="6aaaaaaaaa")
    assert shelf.excess(Keep(runs=1)) == ["1aaaaaaaaa", "5aaaaaaaaa"]
    shelf.run("8aaaaaaaaa", 2)
    assert shelf.excess(Keep(runs=1)) == ["1aaaaaaaaa", good, "5aaaaaaaaa", "7aaaaaaaaa", "6aaaaaaaaa", bad]


def test_steps_of_a_run_go_with_it(shelf: Shelf) -> None:
    shelf.run("1aaaaaaaaa", 9, job="outer")
    shelf.run("1caaaaaaaa", 9, caller=("1aaaaaaaaa", "a"))
    shelf.run("1daaaaaaaa", 9, caller=("1caaaaaaaa", "a"))
    shelf.run("2aaaaaaaaa", 8, job="outer")
    shelf.run("3aaaaaaaaa", 7)
    # the only success of `quotes` was a step of it, then not any more
    assert shelf.remove("1caaaaaaaa") == ()
    assert shelf.remove("1aaaaaaaaa", measure=True) == ("1aaaaaaaaa",)
    assert shelf.left() == ["2aaaaaaaaa", "3aaaaaaaaa"]
    assert sorted(os.listdir(os.path.join(shelf.root, "runs"))) == shelf.left()
    assert os.listdir(removal.folder(shelf.root)) == ["lock"]


def test_the_last_success_may_have_been_a_step(shelf: Shelf) -> None:
    shelf.run("1aaaaaaaaa", 9, job="outer")
    shelf.run("1caaaaaaaa", 9, caller=("1aaaaaaaaa", "a"))
    shelf.run("2aaaaaaaaa", 8, job="outer")
    spare = prune.last_runs(shelf.connection, prune.job_names(shelf.connection))
    assert spare == {"1aaaaaaaaa", "2aaaaaaaaa"}


def test_all_of_a_run_goes_in_small_transactions(
    shelf: Shelf, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.run("1aaaaaaaaa", 9)
    shelf.run("2aaaaaaaaa", 8)
    monkeypatch.setattr(removal, "ROWS", 2)
    writes = 0
    original = database.write

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal writes
        writes += 1
        gaps = "SELECT 1 FROM events GROUP BY run_id HAVING count(*) <> max(seq) OR min(seq) <> 1"
        assert shelf.connection.execute(gaps).fetchall() == []
        return original(*arguments, **named)

    monkeypatch.setattr(database, "write", counted)
    assert shelf.remove("1aaaaaaaaa") == ("1aaaaaaaaa",)
    assert writes > 2
    for table in ("steps", "attempts", "events", "spending"):
        rows = shelf.connection.execute(f"SELECT DISTINCT run_id FROM {table}").fetchall()
        assert {row[0] for row in rows} <= {"2aaaaaaaaa"}
    assert shelf.count("snapshots") == 1
    assert shelf.remove("2aaaaaaaaa") == ("2aaaaaaaaa",)
    assert [shelf.count(table) for table in ("runs", "snapshots", "events")] == [0, 0, 0]


def test_what_somebody_holds_or_needs_stays_where_it_is(shelf: Shelf) -> None:
    held = shelf.run("1aaaaaaaaa", 9)
    unfinished = shelf.run("2aaaaaaaaa", 8, outcome=None)
    needed = shelf.run("3aaaaaaaaa", 7, outcome="failed")
    shelf.run("4aaaaaaaaa", 6, parent=needed)
    for byte in (locks.LEASE, locks.SHIM):
        fd = os.open(RunFolder(shelf.root, held).lock, os.O_RDWR)
        assert locks.try_lock(fd, byte)
        assert shelf.remove(held, unfinished, needed) == ()
        os.close(fd)
    assert sorted(os.listdir(os.path.join(shelf.root, "runs"))) == shelf.left()
    assert shelf.remove(held, "no run") == (held,)


def test_a_folder_that_is_gone_is_no_hindrance(shelf: Shelf) -> None:
    name = shelf.run("1aaaaaaaaa", 9)
    removal._delete(RunFolder(shelf.root, name).path)
    assert shelf.remove(name) == (name,)
    assert shelf.left() == []


def test_a_folder_that_nobody_may_write_goes(shelf: Shelf, tmp_path: Path) -> None:
    name = shelf.run("1aaaaaaaaa", 9)
    inside = Path(RunFolder(shelf.root, name).scratch, "module")
    inside.mkdir()
    (inside / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir(0o755)
    (inside / "link").symlink_to(outside)
    inside.chmod(0o500)
    assert shelf.remove(name) == (name,)
    assert os.listdir(removal.folder(shelf.root)) == ["lock"]
    assert outside.stat().st_mode & 0o777 == 0o755


def test_what_a_kill_has_left_is_ended_or_put_back(shelf: Shelf) -> None:
    for name in ("1aaaaaaaaa", "2aaaaaaaaa", "3aaaaaaaaa"):
        shelf.run(name, 5, outcome="failed")
    shelf.run("4aaaaaaaaa", 4, parent="3aaaaaaaaa")
    os.makedirs(os.path.join(removal.folder(shelf.root), "5aaaaaaaaa"))  # its rows are gone
    for name in ("1aaaaaaaaa", "3aaaaaaaaa"):
        os.rename(RunFolder(shelf.root, name).path, os.path.join(removal.folder(shelf.root), name))
    assert shelf.remove() == ()
    assert shelf.left() == ["2aaaaaaaaa", "3aaaaaaaaa", "4aaaaaaaaa"]
    assert sorted(os.listdir(os.path.join(shelf.root, "runs"))) == shelf.left()
    assert os.listdir(removal.folder(shelf.root)) == ["lock"]


def test_a_forgotten_tick_is_remembered_as_such(shelf: Shelf, database: Database) -> None:
    shelf.run("1aaaaaaaaa", 9, scheduled_time=NOW - 9 * DAY, run_key="tick a")
    shelf.run("2aaaaaaaaa", 8, scheduled_time=NOW - 8 * DAY, run_key="tick b")
    shelf.run("3aaaaaaaaa", 7)
    assert prune.forgotten_up_to(shelf.connection, "quotes") is None
    assert len(shelf.remove("2aaaaaaaaa", "1aaaaaaaaa")) == 2
    assert prune.forgotten_up_to(shelf.connection, "quotes") == NOW - 8 * DAY
    job = Jobs(database).job("quotes")
    assert job and job.schedule is None and job.due_at is None


def test_old_accounts_of_ticks_go(shelf: Shelf, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(database)
    for day in range(9, 0, -1):
        tick = NOW - day * DAY
        jobs.put("quotes", Unrun(tick, tick, 1, "skipped", "overlap", f"r{day}"), now=NOW, by="ann")
    assert prune.ticks_before(shelf.connection, "quotes", NOW - 3 * DAY) == 6
    monkeypatch.setattr(prune, "ROWS", 4)
    assert prune.forget_ticks(database, "quotes", NOW - 3 * DAY) == 6
    assert prune.forget_ticks(database, "quotes", NOW - 3 * DAY) == 0
    assert [tick.because for tick in jobs.ticks("quotes")] == ["r1", "r2", "r3"]


def test_what_counts_today_is_known(shelf: Shelf) -> None:
    shelf.run("1aaaaaaaaa", 0, job="outer")
    shelf.run("1caaaaaaaa", 0, caller=("1aaaaaaaaa", "a"))
    shelf.run("2aaaaaaaaa", 0)
    shelf.connection.execute("DELETE FROM spending")
    for name in ("1caaaaaaaa", "2aaaaaaaaa"):
        shelf.connection.execute("INSERT INTO spending VALUES (?, '2026-11-20', 1, 0, 0)", (name,))
    assert prune.counted_today(shelf.connection, {"outer"}, "2026-11-20") == {"1aaaaaaaaa"}
    assert prune.counted_today(shelf.connection, {"quotes"}, "2026-11-20") == {"1aaaaaaaaa", "2aaaaaaaaa"}
    assert prune.counted_today(shelf.connection, {"quotes"}, "2026-11-19") == set()
    assert prune.counted_today(shelf.connection, set(), "2026-11-20") == set()


def test_when_it_is_due(root: str, shelf: Shelf) -> None:
    now = NOW
    assert not removal.is_due(root, now)  # the first time: nothing goes before a day is over
    assert not removal.is_due(root, now + DAY - 1)
    assert removal.is_due(root, now + DAY)
    assert removal.is_due(root, now - DAY)  # the clock was set back
    with removal.holding(root) as held:
        held.next_due(now + 5)
        with pytest.raises(Busy), removal.holding(root):
            pass
    assert not removal.is_due(root, now + 4)
    assert removal.is_due(root, now + 5)
    Path(removal.folder(root), "lock").write_text("nonsense")
    assert removal.is_due(root, now)


def test_an_end_to_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [shelf.run(f"{number}aaaaaaaaa", 9) for number in range(1, 5)]
    monkeypatch.setattr(removal, "RUNS", 1)
    seen = iter([False, False, True])
    assert shelf.remove(*names, over=lambda: next(seen)) == tuple(names[:2])
    assert shelf.left() == names[2:]
