"""Each change alone: the rows that it leaves, those that it refuses to leave, and its line of the journal."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.errors import Overtaken
from agentrun.store.changes import (
    Change,
    Noted,
    RunClosing,
    StepAnswered,
    StepAsked,
    StepParked,
    WishTaken,
    dumps,
    plain,
)
from agentrun.store.read import Reader
from agentrun.store.write import Store

from .records import NOW, commit, ended, finished, new_run, owned, settled, snapshot, started

RUN = "1aaaaaaaaa"


@pytest.fixture
def run(store: Store) -> Store:
    """A store with one run that this process owns."""
    owned(store)
    return store


# What the record holds before, and the change that finds its step, attempt or run elsewhere.
MOVED: list[tuple[str, list[Change], Change]] = [
    ("a finished step is not asked", [settled("a")], StepAsked("a", 0, NOW)),
    ("nor answered", [settled("a")], StepAnswered("a", 0, NOW)),
    ("nor is one that was never asked", [], StepAnswered("a", 0, NOW)),
    ("a finished step is not started", [settled("a")], started("a")),
    ("nor parked", [settled("a")], StepParked("a", NOW, 1, 0, NOW)),
    ("nor is one that waits", [started("a"), ended("a"), StepParked("a", NOW, 1, 0, NOW)], StepParked("a", 1, 1, 0, 1)),
    ("nor one without a row", [], StepParked("a", NOW, 1, 0, NOW)),
    ("a step is settled once", [settled("a")], settled("a")),
    ("also with another outcome", [settled("a")], settled("a", outcome="failed")),
    ("an attempt ends once", [started("a"), ended("a")], ended("a")),
    ("and not before it began", [], ended("a")),
    ("nor under another number", [started("a")], ended("a", 2)),
    ("nor in another step", [started("a")], ended("b")),
    ("a wish that nobody had", [], WishTaken(1, NOW)),
    ("a run that is over does not close", [finished()], RunClosing("cancelled", "cancel", NOW)),
    ("nor finish again", [finished()], finished("failed")),
]


@pytest.mark.parametrize(("before", "change"), [row[1:] for row in MOVED], ids=[row[0] for row in MOVED])
def test_a_change_that_finds_another_state_is_overtaken(run: Store, before: list[Change], change: Change) -> None:
    if before:
        commit(run, RUN, *before)
    record = [*run.database.connection.iterdump()]
    with pytest.raises(Overtaken, match="another one owns the run now"):
        run.database.write(lambda cursor: change.write(cursor, RUN, 1))
    assert [*run.database.connection.iterdump()] == record


def step(reader: Reader, name: str = "a") -> Any:
    """A step's row, which must be there."""
    row = reader.step_row(RUN, name)
    assert row is not None
    return row


def test_a_condition_is_asked_and_answered(run: Store, reader: Reader) -> None:
    commit(run, RUN, StepAsked("a", 0, NOW))
    assert (step(reader).state, step(reader).asked, step(reader).attempt) == ("running", False, 0)
    assert reader.attempts(RUN) == []
    commit(run, RUN, StepAsked("a", 0, NOW + 1))  # interrupted, and asked again
    commit(run, RUN, StepAnswered("a", 0, NOW + 2), started("a", at=NOW + 3))
    # the start says itself what the answer was
    assert (step(reader).asked, step(reader).attempt, step(reader).started_at) == (False, 1, NOW)
    assert [(e.kind, e.detail) for e in reader.events(RUN)[2:5]] == [
        ("condition_asked", None), ("condition_asked", None), ("condition_answered", {"status": 0}),
    ]  # fmt: skip


def test_a_no_is_only_a_line_of_the_journal(run: Store, reader: Reader) -> None:
    commit(run, RUN, StepAsked("a", 0, NOW), StepAnswered("a", 1, NOW), settled("a", outcome="skipped", reason="if"))
    assert (step(reader).outcome, step(reader).reason, step(reader).asked) == ("skipped", "if", False)


def test_attempts_number_themselves_through_a_wait(run: Store, reader: Reader) -> None:
    commit(run, RUN, started("a"))
    commit(run, RUN, ended("a", outcome="failed", reason="exit", exit_code=75, causes=("75",), retry_after=30_000),
           StepParked("a", NOW + 30_000, 1, 0, NOW))  # fmt: skip
    assert (step(reader).state, step(reader).due, step(reader).tries) == ("waiting", NOW + 30_000, 1)
    assert reader.active_steps(RUN) == [("a", "waiting")]
    commit(run, RUN, started("a", 2, NOW + 30_000, tries=1))
    assert (step(reader).state, step(reader).due, step(reader).attempt) == ("running", None, 2)
    assert step(reader).started_at == NOW
    first, second = reader.attempts(RUN)
    assert (first.causes, first.retry_after, first.exit_code, first.outcome) == (("75",), 30_000, 75, "failed")
    assert (second.state, second.epoch, second.finished_at) == ("running", 1, None)
    waiting = [event for event in reader.events(RUN) if event.kind == "step_waiting"]
    assert [event.detail for event in waiting] == [{"until": NOW + 30_000}]


def test_what_an_attempt_leaves(run: Store, reader: Reader) -> None:
    exception = {"type": "ValueError", "message": "nö", "traceback": "…"}
    commit(run, RUN, started("a", at=NOW))
    commit(run, RUN, ended("a", at=NOW - 5, outcome="failed", error="it said nö", exception=exception, signal=9,
                           cpu_ms=12, max_rss_kib=900, output_bytes=33))  # fmt: skip
    attempt = reader.attempt(RUN, "a", 1)
    assert attempt is not None
    assert attempt.finished_at == NOW  # the clock went backwards: not before its start
    assert (attempt.exception, attempt.error, attempt.signal) == (exception, "it said nö", 9)
    assert (attempt.cpu_ms, attempt.max_rss_kib, attempt.output_bytes) == (12, 900, 33)
    assert reader.attempt(RUN, "a", 2) is None
    assert reader.events(RUN)[-1].detail == {"outcome": "failed", "signal": 9, "error": "it said nö"}


def test_interruptions_are_known_afterwards(run: Store, reader: Reader) -> None:
    commit(run, RUN, started("a"), started("b", position=1))
    commit(run, RUN, ended("a", outcome="interrupted", requested=True, reason="shutdown"), ended("b"))
    assert reader.interrupted_steps(RUN) == {"a"}
    attempt = reader.attempt(RUN, "a", 1)
    assert attempt and attempt.requested


def test_a_checkpoint_keeps_what_it_is_given(run: Store, reader: Reader) -> None:
    commit(run, RUN, started("a"), settled("a", outputs='{"n":[1]}', covered=True, outcome="failed", exit_code=2))
    assert (step(reader).covered, step(reader).outputs, step(reader).exit_code) == (True, {"n": [1]}, 2)
    assert (step(reader).idempotency_key, step(reader).inputs) == ("key-a", {})
    assert reader.events(RUN)[-1].detail == {"outcome": "failed", "covered": True}
    assert reader.outputs(RUN, "a") == {"n": [1]}
    assert reader.outputs(RUN, "nobody") == {}


def test_a_run_closes_and_may_close_harder(run: Store, reader: Reader) -> None:
    commit(run, RUN, RunClosing("timed_out", "deadline", NOW + 1))
    commit(run, RUN, RunClosing("cancelled", "cancel", NOW + 2))
    found = reader.run(RUN)
    assert (found.closing, found.closing_at, found.state) == ("cancelled", NOW + 2, "running")


def test_a_wish_is_taken_once(run: Store, reader: Reader) -> None:
    run.wish_to_cancel(RUN, by="eve", now=NOW)
    (wish, _, _), = reader.wishes(RUN)
    assert reader.cancels_taken(RUN) == 0
    commit(run, RUN, WishTaken(wish, NOW + 1))
    assert reader.wishes(RUN) == []
    assert reader.cancels_taken(RUN) == 1
    with pytest.raises(Overtaken):
        commit(run, RUN, WishTaken(wish, NOW + 1))


def test_a_wish_belongs_to_its_run(run: Store, reader: Reader) -> None:
    owned(run, "1aaaaaaaab")
    run.wish_to_cancel(RUN, by="eve", now=NOW)
    (wish, _, _), = reader.wishes(RUN)
    with pytest.raises(Overtaken):
        commit(run, "1aaaaaaaab", WishTaken(wish, NOW))


def test_cancels_of_before_a_reopening_do_not_count(run: Store, reader: Reader) -> None:
    run.wish_to_cancel(RUN, by="eve", now=NOW)
    (wish, _, _), = reader.wishes(RUN)
    commit(run, RUN, WishTaken(wish, NOW), finished("cancelled"))
    run.reopen(RUN, [], handlers=(), by="eve", now=NOW + 100)
    assert reader.cancels_taken(RUN) == 0


def test_only_cancels_after_the_last_reopening_count_in_the_same_millisecond_too(run: Store, reader: Reader) -> None:
    for _ in range(2):
        run.wish_to_cancel(RUN, by="eve", now=NOW)
        (wish, _, _), = reader.wishes(RUN)
        commit(run, RUN, WishTaken(wish, NOW), finished("cancelled"))
        run.reopen(RUN, [], handlers=(), by="eve", now=NOW)
        assert reader.cancels_taken(RUN) == 0
    for taken in (1, 2):
        run.wish_to_cancel(RUN, by="eve", now=NOW)
        (wish, _, _), = reader.wishes(RUN)
        assert reader.cancels_taken(RUN) == taken - 1
        commit(run, RUN, WishTaken(wish, NOW))
        assert reader.cancels_taken(RUN) == taken


def test_a_wish_that_nobody_took_ends_with_the_run(run: Store, reader: Reader) -> None:
    run.wish_to_cancel(RUN, by="eve", now=NOW)
    commit(run, RUN, finished("failed"))
    assert reader.wishes(RUN) == []
    run.database.connection.execute("UPDATE wishes SET taken_at = NULL")  # as an older program left it
    run.reopen(RUN, [], handlers=(), by="eve", now=NOW + 100)
    assert (reader.wishes(RUN), reader.cancels_taken(RUN)) == ([], 0)


def test_a_step_keeps_its_first_key(run: Store, reader: Reader) -> None:
    assert reader.key_of(RUN, "a") is None
    commit(run, RUN, started("a")._replace(key=""), ended("a"))  # it could not begin: its key was never made
    assert reader.key_of(RUN, "a") is None
    commit(run, RUN, started("a", 2)._replace(key="first"), ended("a", 2))
    commit(run, RUN, started("a", 3)._replace(key="second"))
    assert reader.key_of(RUN, "a") == "first"


def test_a_note_is_a_line_and_nothing_else(run: Store, reader: Reader) -> None:
    commit(run, RUN, Noted("shim_lost", NOW, instance="a", detail={"n": 1}))
    event = reader.events(RUN)[-1]
    assert (event.kind, event.instance, event.by, event.detail) == ("shim_lost", "a", "supervisor", {"n": 1})
    assert reader.steps(RUN) == []


def test_bytes_that_are_no_text_are_kept_escaped(run: Store, reader: Reader) -> None:
    """Names of files need not be UTF-8, and end up in messages, outputs and exceptions."""
    name = "caf\udce9"
    outputs, error = dumps({"name": name}), f"cannot open {name}"
    commit(run, RUN, started("a"))
    commit(run, RUN, ended("a", outcome="failed", error=error, exception={"message": error}, causes=(name,)),
           settled("a", outcome="failed", outputs=outputs, error=error),
           finished("failed", error=error))  # fmt: skip
    assert reader.outputs(RUN, "a") == {"name": name}
    attempt = reader.attempt(RUN, "a", 1)
    assert attempt and attempt.exception == {"message": error}
    assert attempt.error == step(reader).error == reader.run(RUN).error == "cannot open caf\\udce9"


def test_what_is_written_as_json() -> None:
    assert dumps({"a": ["ü", 1, None]}) == '{"a":["ü",1,null]}'
    assert dumps(["😀"]) == '["😀"]'
    assert dumps(["ü\udce9"]) == '["\\u00fc\\udce9"]'
    assert plain(None) is None
    assert plain("ü 😀") == "ü 😀"


def test_a_journal_of_many_turns_has_no_gap(run: Store, reader: Reader) -> None:
    for number in range(1, 40):
        commit(run, RUN, started("a", number), Noted("n", NOW), ended("a", number))
        with pytest.raises(Overtaken):  # what is rolled back takes no number with it
            commit(run, RUN, Noted("n", NOW), ended("a", number))
    numbers = [event.seq for event in reader.events(RUN)]
    assert numbers == [*range(1, 2 + 39 * 3 + 1)]
    assert [e.seq for e in reader.events(RUN, after=100, limit=5)] == [101, 102, 103, 104, 105]


def test_the_journals_of_two_runs_are_their_own(run: Store, reader: Reader) -> None:
    run.record(new_run("1aaaaaaaab"), snapshot())
    commit(run, RUN, Noted("n", NOW))
    assert [event.seq for event in reader.events("1aaaaaaaab")] == [1]
    assert [event.seq for event in reader.events(RUN)] == [1, 2, 3]
