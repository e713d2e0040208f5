"""The verbs: what each leaves in the record, what it refuses, and that it is all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from agentrun.errors import Busy, NotFound, Overtaken, StoreError, UsageError
from agentrun.model import Param
from agentrun.store.database import Database, open_for_writing
from agentrun.store.read import Reader
from agentrun.store.write import RunKeyTaken, Store

from .records import (
    NOW,
    OWNER,
    commit,
    ended,
    failed_run,
    finished,
    new_run,
    owned,
    settled,
    snapshot,
    stamp,
    started,
)


def dump(store: Store) -> list[str]:
    """The whole record as text: to see that nothing has changed."""
    return [*store.database.connection.iterdump()]


def kinds(reader: Reader, run_id: str) -> list[str]:
    """The journal in short, after a look at its numbers."""
    events = reader.events(run_id)
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    return [event.kind for event in events]


# --- record ---


def test_a_run_is_recorded_as_queued(store: Store, reader: Reader) -> None:
    store.record(new_run(params={"n": [1, "ü"]}, scheduled_time=NOW - 5, run_key="monday"), snapshot())
    run = reader.run("1aaaaaaaaa")
    assert (run.state, run.outcome, run.epoch, run.owner, run.started_at) == ("queued", None, 0, None, None)
    assert (run.params, run.scheduled_time, run.run_key) == ({"n": [1, "ü"]}, NOW - 5, "monday")
    assert (run.steps_total, run.steps_done, run.resumes) == (3, 0, 0)
    assert kinds(reader, run.id) == ["run_created"]


def test_a_run_is_recorded_and_taken_in_one(store: Store, reader: Reader) -> None:
    run = reader.run(owned(store))
    assert (run.state, run.epoch, run.owner, run.started_at) == ("running", 1, OWNER, NOW)
    assert (run.seen, run.boot_id) == (5_000, stamp().boot_id)
    assert kinds(reader, run.id) == ["run_created", "run_started"]


def test_a_run_keeps_finished_steps_of_its_parent(store: Store, reader: Reader) -> None:
    failed_run(store)
    store.record(
        new_run("1aaaaaaaab", parent="1aaaaaaaaa"), snapshot(), [settled("a", outputs='{"n":1}')],
        owner=OWNER, stamp=stamp(),
    )  # fmt: skip
    run = reader.run("1aaaaaaaab")
    assert (run.parent, run.steps_done, run.epoch) == ("1aaaaaaaaa", 1, 1)
    assert reader.outputs(run.id, "a") == {"n": 1}
    assert kinds(reader, run.id) == ["run_created", "step_finished", "run_started"]
    assert reader.events(run.id)[0].detail == {
        "file": "/jobs/quotes.yaml", "job": "quotes", "parent": "1aaaaaaaaa"
    }  # fmt: skip


def test_a_key_is_taken_once(store: Store, reader: Reader) -> None:
    store.record(new_run("1aaaaaaaaa", run_key="monday"), snapshot())
    before = dump(store)
    with pytest.raises(RunKeyTaken) as taken:
        store.record(new_run("1aaaaaaaab", run_key="monday"), snapshot("other"))
    assert taken.value.run_id == "1aaaaaaaaa"
    assert dump(store) == before
    store.record(new_run("1aaaaaaaac", job="others", run_key="monday"), snapshot())
    assert reader.run("1aaaaaaaac").run_key == "monday"


def test_a_path_that_is_no_text_is_refused(store: Store) -> None:
    before = dump(store)
    with pytest.raises(UsageError, match=r"'/jobs/\\udcff.yaml' is not UTF-8"):
        store.record(new_run(file="/jobs/\udcff.yaml"), snapshot())
    assert dump(store) == before


# --- take ---


def test_each_owner_raises_the_epoch(store: Store, reader: Reader) -> None:
    store.record(new_run(), snapshot())
    take = store.take
    assert take("1aaaaaaaaa", seen_epoch=0, owner=OWNER, stamp=stamp(NOW + 5), resumed=False) == 1
    assert take("1aaaaaaaaa", seen_epoch=1, owner={**OWNER, "pid": 5}, stamp=stamp(NOW + 9, 4), resumed=True) == 2
    run = reader.run("1aaaaaaaaa")
    assert (run.epoch, run.resumes, run.started_at, run.elapsed) == (2, 1, NOW + 5, 4)
    assert run.owner and run.owner["pid"] == 5
    assert kinds(reader, run.id) == ["run_created", "run_started", "run_resumed"]
    detail = reader.events(run.id)[-1].detail
    assert detail and (detail["epoch"], detail["pid"]) == (2, 5)


def test_a_takeover_after_a_wanted_stop_is_no_resume(store: Store, reader: Reader) -> None:
    run_id = owned(store)
    commit(store, run_id, stopped=True)
    assert reader.run(run_id).stopped
    store.take(run_id, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    run = reader.run(run_id)
    assert (run.resumes, run.stopped) == (0, False)
    store.take(run_id, seen_epoch=2, owner=OWNER, stamp=stamp(), resumed=True)
    assert reader.run(run_id).resumes == 1


@pytest.mark.parametrize("seen", [0, 2, 99])
def test_taking_with_another_epoch_is_overtaken(store: Store, seen: int) -> None:
    run_id = owned(store)
    before = dump(store)
    with pytest.raises(Overtaken, match=f"run {run_id} is not in the state"):
        store.take(run_id, seen_epoch=seen, owner=OWNER, stamp=stamp(), resumed=True)
    assert dump(store) == before


def test_a_finished_run_is_not_taken(store: Store) -> None:
    run_id = failed_run(store)
    with pytest.raises(Overtaken):
        store.take(run_id, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    with pytest.raises(Overtaken):
        store.take("nobody", seen_epoch=0, owner=OWNER, stamp=stamp(), resumed=True)


# --- commit ---


def test_a_turn_is_written_whole(store: Store, reader: Reader) -> None:
    run_id = owned(store)
    commit(store, run_id, started("a"), started("b", position=1), started=2, results_seen=0)
    store.commit(
        run_id, 1, stamp(NOW + 30, 30), [ended("a"), settled("a", outputs='{"n":1}'), started("c", position=2)],
        results_seen=77, started=1,
    )  # fmt: skip
    run = reader.run(run_id)
    assert (run.steps_done, run.started_steps, run.results_seen, run.elapsed, run.seen) == (1, 3, 77, 30, 5_030)
    assert [(step.instance, step.state) for step in reader.steps(run_id)] == [
        ("a", "finished"), ("b", "running"), ("c", "running"),
    ]  # fmt: skip
    assert kinds(reader, run_id)[2:] == [
        "attempt_started", "attempt_started", "attempt_ended", "step_finished", "attempt_started",
    ]  # fmt: skip


def test_an_old_epoch_writes_nothing(store: Store) -> None:
    run_id = owned(store)
    store.take(run_id, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    before = dump(store)
    for epoch in (0, 1, 3):
        with pytest.raises(Overtaken) as overtaken:
            commit(store, run_id, started("a"), epoch=epoch)
        assert overtaken.value.exit_code == 75
    assert dump(store) == before


@pytest.mark.parametrize("state", ["queued", "finished"])
def test_only_a_running_run_is_written(store: Store, state: str) -> None:
    if state == "queued":
        store.record(new_run(), snapshot())
        epoch = 0
    else:
        failed_run(store)
        epoch = 1
    with pytest.raises(Overtaken):
        commit(store, "1aaaaaaaaa", started("c", position=2), epoch=epoch)


def test_one_impossible_change_undoes_the_turn(store: Store) -> None:
    run_id = owned(store)
    commit(store, run_id, started("a"))
    before = dump(store)
    with pytest.raises(Overtaken, match="attempt 2 of step a"):
        commit(store, run_id, ended("a"), settled("a"), started("b", position=1), ended("a", 2), results_seen=5)
    assert dump(store) == before
    with pytest.raises(StoreError):  # a row that the tables refuse: an attempt of that number is there already
        commit(store, run_id, settled("b", position=1), started("a"))
    assert dump(store) == before


def test_the_end_of_a_run(store: Store, reader: Reader) -> None:
    run_id = owned(store)
    commit(store, run_id, finished(at=NOW - 1_000))
    run = reader.run(run_id)
    assert (run.state, run.outcome, run.finished_at) == ("finished", "succeeded", NOW)  # the clock went backwards


# --- reopen ---


def test_a_failed_run_goes_on_from_its_failed_step(store: Store, reader: Reader) -> None:
    run_id = failed_run(store)
    store.reopen(run_id, ["b", "c"], handlers=(), by="eve", now=NOW + 50)
    run = reader.run(run_id)
    assert (run.state, run.outcome, run.finished_at, run.error, run.exit_code) == ("running", None, None, None, None)
    assert (run.steps_done, run.started_steps, run.epoch, run.elapsed, run.seen) == (1, 2, 1, 0, None)
    states = {step.instance: step for step in reader.steps(run_id)}
    assert [(step.state, step.outcome) for step in states.values()] == [
        ("finished", "succeeded"), ("queued", None), ("queued", None),
    ]  # fmt: skip
    assert (states["b"].attempt, states["b"].idempotency_key, states["b"].exit_code) == (1, "key-b", None)
    assert reader.outputs(run_id, "a") == {"n": 1}
    event = reader.events(run_id)[-1]
    assert (event.kind, event.by, event.detail) == ("run_reopened", "eve", {"steps": ["b", "c"]})
    kinds(reader, run_id)
    commit(store, run_id, started("b", 2, NOW + 60, position=1), started=1)
    assert [(a.instance, a.number) for a in reader.attempts(run_id)] == [("a", 1), ("b", 1), ("b", 2)]


def test_the_answers_of_conditions_stand_but_where_they_are_asked_again(store: Store, reader: Reader) -> None:
    run_id = failed_run(store)
    store.database.connection.execute("UPDATE steps SET asked = 1")
    store.reopen(run_id, ["b", "c"], handlers={"c"}, by="eve", now=NOW)
    assert {step.instance: step.asked for step in reader.steps(run_id)} == {"a": True, "b": True, "c": False}


def test_reopening_is_refused_where_it_makes_no_sense(store: Store) -> None:
    run_id = owned(store)
    with pytest.raises(Overtaken):  # it runs
        store.reopen(run_id, [], handlers=(), by="eve", now=NOW)
    commit(store, run_id, settled("a"), finished())
    with pytest.raises(Overtaken):  # it has succeeded
        store.reopen(run_id, [], handlers=(), by="eve", now=NOW)
    failed_run(store, "1aaaaaaaab")
    before = dump(store)
    with pytest.raises(Overtaken, match="step z"):  # a step that is not finished: nothing of it is written
        store.reopen("1aaaaaaaab", ["b", "z"], handlers=(), by="eve", now=NOW)
    assert dump(store) == before
    store.reopen("1aaaaaaaab", ["b"], handlers=(), by="eve", now=NOW)
    with pytest.raises(Overtaken):  # somebody else has reopened it
        store.reopen("1aaaaaaaab", ["b"], handlers=(), by="eve", now=NOW)


# --- adopt_spec ---


def test_a_run_goes_on_with_another_job_file(store: Store, reader: Reader) -> None:
    run_id = failed_run(store)
    changed = snapshot("z", "a", "b", "d", params={"n": Param(default=5), "x": Param(required=True)})
    store.adopt_spec(run_id, changed, by="eve", now=NOW + 50)
    run = reader.run(run_id)
    assert (run.snapshot, run.steps_total, run.params) == (changed.sha256, 4, {"n": 5})
    assert reader.job_of(run) == changed.job
    assert run.steps_done == 2  # c is gone
    assert [(step.instance, step.position) for step in reader.steps(run_id)] == [("a", 1), ("b", 2)]
    assert kinds(reader, run_id)[-1] == "spec_adopted"


def test_a_job_file_may_lose_finished_steps(store: Store, reader: Reader) -> None:
    run_id = failed_run(store)
    store.adopt_spec(run_id, snapshot("b"), by="eve", now=NOW)
    run = reader.run(run_id)
    assert (run.steps_done, run.steps_total) == (1, 1)
    assert [step.instance for step in reader.steps(run_id)] == ["b"]
    assert [step.instance for step in reader.step_states(run_id)] == ["b"]


def test_what_a_dropped_step_did_is_kept_for_a_file_that_has_it_again(store: Store, reader: Reader) -> None:
    run_id = failed_run(store)
    for steps in ("b", "c"), ("a", "b"):
        store.adopt_spec(run_id, snapshot(*steps), by="eve", now=NOW)
    assert [(step.instance, step.position, step.attempt) for step in reader.steps(run_id)] == [("a", 0, 1), ("b", 1, 1)]
    assert [(a.instance, a.number) for a in reader.attempts(run_id)] == [("a", 1), ("b", 1)]
    assert (reader.run(run_id).steps_done, reader.run(run_id).steps_total) == (2, 2)
    assert reader.outputs(run_id, "a") == {"n": 1}


def test_a_dropped_step_that_was_running_was_interrupted(store: Store, reader: Reader) -> None:
    run_id = owned(store)
    commit(store, run_id, started("a"), started("b", position=1), started=2)
    store.adopt_spec(run_id, snapshot("b"), by="eve", now=NOW + 1)
    assert reader.active_steps(run_id) == [("b", "running")]
    outcomes = {a.instance: (a.state, a.outcome, a.requested) for a in reader.attempts(run_id)}
    assert outcomes == {"a": ("finished", "interrupted", True), "b": ("running", None, False)}


def test_parameters_that_were_given_stay(store: Store, reader: Reader) -> None:
    store.record(new_run(params={"n": 1, "old": 2}), snapshot())
    store.adopt_spec("1aaaaaaaaa", snapshot("a", params={"n": Param(default=9)}), by="eve", now=NOW)
    assert reader.run("1aaaaaaaaa").params == {"n": 1, "old": 2}


def test_a_run_that_succeeded_adopts_nothing(store: Store) -> None:
    run_id = owned(store)
    commit(store, run_id, finished())
    before = dump(store)
    with pytest.raises(Overtaken):
        store.adopt_spec(run_id, snapshot("z"), by="eve", now=NOW)
    with pytest.raises(NotFound, match="there is no run nobody"):
        store.adopt_spec("nobody", snapshot("z"), by="eve", now=NOW)
    assert dump(store) == before


# --- wish_to_cancel ---


def test_a_wish_waits_for_the_owner(store: Store, reader: Reader) -> None:
    run_id = owned(store)
    store.wish_to_cancel(run_id, by="eve", now=NOW + 1)
    store.wish_to_cancel(run_id, by="bob", now=NOW + 2)
    wishes = reader.wishes(run_id)
    assert [(kind, instance) for _, kind, instance in wishes] == [("cancel", None), ("cancel", None)]
    assert reader.wishes("another") == []
    assert [(one.kind, one.by) for one in reader.events(run_id)][-2:] == [
        ("cancel_requested", "eve"), ("cancel_requested", "bob")
    ]  # fmt: skip


def test_a_wish_for_what_is_over_or_unknown(store: Store) -> None:
    failed_run(store)
    with pytest.raises(Busy, match="has finished already: failed"):
        store.wish_to_cancel("1aaaaaaaaa", by="eve", now=NOW)
    with pytest.raises(NotFound, match="there is no run nobody"):
        store.wish_to_cancel("nobody", by="eve", now=NOW)


# --- all of them ---


def test_the_record_survives_its_process(root: str, store: Store) -> None:
    run_id = failed_run(store)
    second = open_for_writing(root)
    reader = Reader(second.connection)
    assert reader.run(run_id).outcome == "failed"
    Store(second).reopen(run_id, ["b", "c"], handlers=(), by="eve", now=NOW)
    second.close()
    assert Reader(store.database.connection).run(run_id).state == "running"


def test_a_transaction_can_be_done_again(root: str, reader: Reader, store: Store) -> None:
    """Each verb hands `write` a function that changes nothing but the database."""

    class Twice(Database):
        def write(  # type: ignore[override]
            self, work: Callable[[sqlite3.Cursor], object], undo: Callable[[], None]
        ) -> object:
            cursor = self.connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            work(cursor)
            cursor.execute("ROLLBACK")
            return super().write(work, undo)

    opened = open_for_writing(root)
    twice = Store(Twice(root, opened.connection, opened._lock, print, 1.0))
    run_id = failed_run(twice)
    twice.reopen(run_id, ["b", "c"], handlers=(), by="eve", now=NOW)
    twice.adopt_spec(run_id, snapshot("b", "d"), by="eve", now=NOW)
    twice.wish_to_cancel(run_id, by="eve", now=NOW)
    assert twice.take(run_id, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True) == 2
    assert kinds(reader, run_id)[-4:] == ["run_reopened", "spec_adopted", "cancel_requested", "run_resumed"]
    opened.close()
