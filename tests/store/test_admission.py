"""Whether a run may begin, and what is written when it may not: one transaction, whatever it says."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.errors import Busy, Overtaken
from agentrun.store import admission
from agentrun.store.admission import Overlap, Skipped
from agentrun.store.database import Database
from agentrun.store.jobs import JobRow, Jobs, Settlement, TickRow, Unrun
from agentrun.store.write import RunKeyTaken, Store

from .records import NOW, OWNER, finished, new_run, snapshot, stamp

ONE = Overlap("job quotes", 1)
LINE = Overlap("job quotes", 1, queue=True)
HOUR = 3_600_000
SCHEDULE = {"zone": None, "schedules": []}


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


def record(store: Store, run_id: str, **more: Any) -> Any:
    return store.record(new_run(run_id, **more), snapshot(), owner=OWNER, stamp=stamp())


def end(store: Store, run_id: str) -> None:
    store.commit(run_id, 1, stamp(), [finished()], results_seen=0)


def account(own: int | None, before: int | None, **more: Any) -> Settlement:
    settled = own if own is not None else more.pop("settled")
    return Settlement("quotes", "/jobs/quotes.yaml", "1 2", SCHEDULE, before, settled, settled + HOUR, own=own, **more)


def tick(store: Store, run_id: str, own: int, before: int | None, **more: Any) -> Any:
    return record(
        store, run_id, run_key=f"tick {own}", scheduled_time=own, ticks=account(own, before), pausable=True, **more
    )


def told(jobs: Jobs) -> list[tuple[Any, ...]]:
    return [(row.first, row.last, row.number, row.fate, row.reason, row.because) for row in jobs.ticks("quotes")]


def known(jobs: Jobs) -> JobRow:
    row = jobs.job("quotes")
    assert row is not None
    return row


# --- one at a time


def test_a_second_run_is_skipped_until_the_first_has_ended(store: Store, jobs: Jobs) -> None:
    assert record(store, "1aaaaaaaaa", overlap=ONE) == "taken"
    assert record(store, "1aaaaaaaab", overlap=ONE) == Skipped("overlap", "1aaaaaaaaa", NOW)
    assert [run.id for run in store.reader.runs()] == ["1aaaaaaaaa"]
    assert told(jobs) == [(NOW, NOW, 1, "skipped", "overlap", "1aaaaaaaaa")]
    end(store, "1aaaaaaaaa")
    assert record(store, "1aaaaaaaac", overlap=ONE) == "taken"


def test_interrupted_runs_may_be_ignored(store: Store) -> None:
    record(store, "1aaaaaaaaa", overlap=ONE)
    assert record(store, "1aaaaaaaab", overlap=ONE._replace(ignored=frozenset({"1aaaaaaaaa"}))) == "taken"


def test_another_key_is_in_nobodys_way(store: Store) -> None:
    record(store, "1aaaaaaaaa", overlap=ONE)
    assert record(store, "1aaaaaaaab", overlap=Overlap("key mail", 1)) == "taken"
    assert record(store, "1aaaaaaaac") == "taken"


def test_who_waits_begins_in_its_turn_only(store: Store, database: Database) -> None:
    record(store, "1aaaaaaaaa", overlap=LINE)
    assert record(store, "1aaaaaaaab", overlap=LINE) == "queued"
    assert record(store, "1aaaaaaaac", overlap=LINE) == "queued"
    assert admission.waiting_in_line(database.connection, "job quotes") == ["1aaaaaaaab", "1aaaaaaaac"]
    with pytest.raises(Busy, match="waits until run 1aaaaaaaaa has ended"):
        store.take("1aaaaaaaac", seen_epoch=0, owner=OWNER, stamp=stamp(), resumed=False, in_turn=True)
    store.supersede("1aaaaaaaab", "1aaaaaaaac", by="ada", now=NOW)
    end(store, "1aaaaaaaaa")
    assert store.take("1aaaaaaaac", seen_epoch=0, owner=OWNER, stamp=stamp(), resumed=False, in_turn=True) == 1
    run = store.reader.run("1aaaaaaaab")
    assert (run.state, run.outcome, run.reason) == ("finished", "skipped", "overlap")
    with pytest.raises(Overtaken):
        store.supersede("1aaaaaaaac", "1aaaaaaaad", by="ada", now=NOW)


def test_ticks_that_are_caught_up_with_run_one_after_the_other(store: Store, jobs: Jobs) -> None:
    tick(store, "1aaaaaaaaa", 5 * HOUR, None)
    late = {"run_key": "tick 6", "scheduled_time": 6 * HOUR, "catching_up": True}
    one = account(6 * HOUR, 5 * HOUR, catches_up=True)
    assert record(store, "1aaaaaaaab", ticks=one, **late) == Skipped("overlap", "1aaaaaaaaa", NOW)
    assert (known(jobs).settled, told(jobs)) == (5 * HOUR, [])  # as open as it was
    end(store, "1aaaaaaaaa")
    assert record(store, "1aaaaaaaab", ticks=one, **late) == "taken"


def test_a_tick_has_one_run_under_whatever_key(store: Store) -> None:
    record(store, "1aaaaaaaaa", run_key="mine", scheduled_time=5 * HOUR)
    with pytest.raises(RunKeyTaken):
        tick(store, "1aaaaaaaab", 5 * HOUR, None)
    assert record(store, "1aaaaaaaac", scheduled_time=5 * HOUR) == "taken"  # resume --from: no key, another run


def test_what_is_about_to_be_taken_waits_in_no_line(store: Store, database: Database) -> None:
    assert store.record(new_run("1aaaaaaaaa", overlap=ONE), snapshot()) == "queued"  # run --detach
    assert admission.waiting_in_line(database.connection, "job quotes") == []
    assert record(store, "1aaaaaaaab", overlap=ONE) == Skipped("overlap", "1aaaaaaaaa", NOW)


# --- ticks


def test_a_run_takes_its_tick_and_accounts_for_those_before(store: Store, jobs: Jobs) -> None:
    assert tick(store, "1aaaaaaaaa", 5 * HOUR, None) == "taken"
    missed = Unrun(6 * HOUR, 8 * HOUR, 3, "missed", "catch_up")
    one = account(9 * HOUR, 5 * HOUR, unrun=(missed,))
    assert record(store, "1aaaaaaaab", run_key="tick 9", scheduled_time=9 * HOUR, ticks=one) == "taken"
    assert (known(jobs).settled, known(jobs).due_at) == (9 * HOUR, 10 * HOUR)
    assert told(jobs) == [(6 * HOUR, 8 * HOUR, 3, "missed", "catch_up", None)]


def test_a_tick_that_is_taken_settles_nothing(store: Store, jobs: Jobs) -> None:
    tick(store, "1aaaaaaaaa", 5 * HOUR, None)
    with pytest.raises(RunKeyTaken):
        tick(store, "1aaaaaaaab", 5 * HOUR, 5 * HOUR)
    assert told(jobs) == []


def test_two_that_looked_at_once_write_one_account(store: Store, jobs: Jobs) -> None:
    tick(store, "1aaaaaaaaa", 5 * HOUR, None)
    tick(store, "1aaaaaaaab", 6 * HOUR, 5 * HOUR)
    with pytest.raises(Overtaken):
        tick(store, "1aaaaaaaac", 7 * HOUR, 5 * HOUR)
    with pytest.raises(Overtaken):
        jobs.settle(account(None, None, settled=7 * HOUR), now=NOW, by="ada")
    assert known(jobs).settled == 6 * HOUR
    assert len(store.reader.runs()) == 2


@pytest.mark.parametrize(("catches_up", "settled"), [(False, 6 * HOUR), (True, 6 * HOUR - 1)])
def test_a_skipped_tick_is_settled_unless_it_is_to_be_caught_up_with(
    store: Store, jobs: Jobs, catches_up: bool, settled: int
) -> None:
    tick(store, "1aaaaaaaaa", 5 * HOUR, None, overlap=ONE)
    one = account(6 * HOUR, 5 * HOUR, catches_up=catches_up)
    skipped = record(store, "1aaaaaaaab", run_key="tick 6", scheduled_time=6 * HOUR, ticks=one, overlap=ONE)
    assert skipped == Skipped("overlap", "1aaaaaaaaa", NOW)
    assert known(jobs).settled == settled
    assert told(jobs) == [(6 * HOUR, 6 * HOUR, 1, "skipped", "overlap", "1aaaaaaaaa")]
    assert jobs.told("quotes", 5 * HOUR) == [(6 * HOUR, 6 * HOUR)]


def test_a_pause_skips_ticks_and_nothing_else(store: Store, jobs: Jobs) -> None:
    assert jobs.pause("quotes", "/jobs/quotes.yaml", by="ada", why="moving", now=NOW)
    assert not jobs.pause("quotes", "/jobs/quotes.yaml", by="bob", why=None, now=NOW + 1)
    assert tick(store, "1aaaaaaaaa", 5 * HOUR, None) == Skipped("paused", None, NOW)
    assert record(store, "1aaaaaaaab") == "taken"  # by hand
    assert tick(store, "1aaaaaaaac", 6 * HOUR, 5 * HOUR) == Skipped("paused", None, NOW)
    assert told(jobs) == [(5 * HOUR, 6 * HOUR, 2, "skipped", "paused", None)]
    assert (known(jobs).paused_by, known(jobs).paused_why) == ("ada", "moving")
    assert jobs.unpause("quotes") is not None
    assert jobs.unpause("quotes") is None
    assert tick(store, "1aaaaaaaad", 7 * HOUR, 6 * HOUR) == "taken"


# --- the accounts


@pytest.mark.parametrize(
    ("second", "rows"),
    [
        (Unrun(3, 4, 2, "missed", "catch_up"), 1),
        (Unrun(3, 4, 2, "missed", "file"), 2),
        (Unrun(3, 4, 2, "skipped", "paused"), 2),
        (Unrun(1, 2, 2, "missed", "catch_up"), 1),  # told again
    ],
)
def test_rows_with_one_fate_are_one(jobs: Jobs, second: Unrun, rows: int) -> None:
    for one in (Unrun(1, 2, 2, "missed", "catch_up"), second):
        jobs.put("quotes", one, now=NOW, by="ada")
    assert len(jobs.ticks()) == rows
    assert sum(row.number for row in jobs.ticks()) == (2 if second.first == 1 else 4)


def test_a_run_between_them_parts_two_rows(store: Store, jobs: Jobs) -> None:
    jobs.put("quotes", Unrun(HOUR, HOUR, 1, "missed", "catch_up"), now=NOW, by="ada")
    tick(store, "1aaaaaaaaa", 2 * HOUR, None)
    jobs.put("quotes", Unrun(3 * HOUR, 3 * HOUR, 1, "missed", "catch_up"), now=NOW, by="ada")
    assert [(row.first, row.number) for row in jobs.ticks()] == [(3 * HOUR, 1), (HOUR, 1)]


def test_a_job_is_due_when_its_next_tick_is_late(jobs: Jobs) -> None:
    jobs.settle(account(None, None, settled=5 * HOUR), now=NOW, by="ada")
    assert jobs.due(6 * HOUR - 1) == []
    assert [row.name for row in jobs.due(6 * HOUR)] == ["quotes"]
    jobs.uninstall(["quotes"])
    assert jobs.due(9 * HOUR) == []


def test_a_file_is_gone_once(jobs: Jobs) -> None:
    jobs.settle(account(None, None, settled=5 * HOUR), now=NOW, by="ada")
    assert jobs.gone("quotes", now=NOW)
    assert not jobs.gone("quotes", now=NOW + 1)
    assert jobs.due(9 * HOUR) == []
    jobs.settle(account(None, 5 * HOUR, settled=6 * HOUR), now=NOW, by="ada")
    assert known(jobs).gone_at is None


def test_only_what_did_not_run_since_the_last_run_is_news(store: Store, jobs: Jobs) -> None:
    jobs.put("quotes", Unrun(1, 1, 1, "missed", "catch_up"), now=NOW - 1, by="ada")
    tick(store, "1aaaaaaaaa", 2 * HOUR, None)
    assert jobs.since_last_run() == {}
    jobs.put("quotes", Unrun(3 * HOUR, 3 * HOUR, 1, "skipped", "overlap", "1aaaaaaaaa"), now=NOW + 1, by="ada")
    (rows,) = jobs.since_last_run().values()
    assert [type(row) for row in rows] == [TickRow]
