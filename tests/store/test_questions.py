"""What is in doubt: each change finds the state that it leaves, and an answer finds a question."""

from __future__ import annotations

import pytest

from agentrun.errors import Busy, NotFound, Overtaken
from agentrun.store.changes import Change, StepParked
from agentrun.store.inspection import Inspection
from agentrun.store.questions import RunParked, StepQuestioned, VerifyAnswered, VerifyAsked
from agentrun.store.read import Asked, Reader
from agentrun.store.write import Store

from .records import NOW, OWNER, ended, owned, settled, stamp, started

RUN = "1aaaaaaaaa"
QUESTION = StepQuestioned("a", "did it take place?", 0, NOW)


def commit(store: Store, *changes: Change) -> None:
    store.commit(RUN, 1, stamp(), list(changes), results_seen=0)


@pytest.fixture
def asking(store: Store) -> Store:
    """A run of which step a waits for an answer."""
    owned(store)
    commit(store, started("a"), ended("a", outcome="interrupted"), QUESTION)
    return store


def step(reader: Reader, name: str = "a") -> tuple[object, ...]:
    row = reader.step_row(RUN, name)
    assert row is not None
    return row.state, row.due, row.question, row.verifying


def test_a_question_waits_and_nothing_is_due(asking: Store, reader: Reader) -> None:
    assert step(reader) == ("waiting", None, "did it take place?", False)
    assert reader.questions(RUN) == [("a", "did it take place?")]
    last = reader.events(RUN)[-1]
    assert (last.kind, last.instance, last.detail) == ("question_asked", "a", {"question": "did it take place?"})


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (settled("a"), ("finished", None, None, False)),
        (StepParked("a", NOW, 0, 0, NOW), ("waiting", NOW, None, False)),
        (started("a", 2), ("running", None, None, False)),
    ],
    ids=["settled", "due", "started"],
)
def test_the_question_goes_with_its_answer(
    asking: Store, reader: Reader, change: Change, left: tuple[object, ...]
) -> None:
    commit(asking, change)
    assert step(reader) == left


def test_a_verify_is_asked_and_answers(store: Store, reader: Reader) -> None:
    owned(store)
    commit(store, started("a"), ended("a", outcome="interrupted"), StepParked("a", NOW, 0, 1, NOW, True))
    assert step(reader) == ("waiting", NOW, None, True)
    commit(store, VerifyAsked("a", 0, 1, NOW))
    assert step(reader) == ("running", None, None, True)
    commit(store, VerifyAnswered("a", 2, NOW, "no idea"), QUESTION)
    assert step(reader) == ("waiting", None, "did it take place?", False)
    told = [(one.kind, one.detail) for one in reader.events(RUN)][-3:-1]
    assert told == [("verify_asked", None), ("verify_answered", {"status": 2, "error": "no idea"})]


@pytest.mark.parametrize(
    "change",
    [VerifyAsked("a", 0, 0, NOW), VerifyAnswered("a", 0, NOW), QUESTION, VerifyAsked("b", 0, 0, NOW)],
    ids=["asked in a question", "answered unasked", "questioned twice", "no such row"],
)
def test_what_is_not_so_is_not_written(asking: Store, change: Change) -> None:
    with pytest.raises(Overtaken):
        commit(asking, change)


# --- answers ---


def test_an_answer_is_a_wish_and_says_who(asking: Store, reader: Reader) -> None:
    asking.answer(RUN, {"a": "took_place"}, by="eve", now=NOW)
    assert [(kind, instance) for _, kind, instance in reader.wishes(RUN)] == [("took_place", "a")]
    assert reader.questions(RUN) == [], "it is answered"
    last = reader.events(RUN)[-1]
    assert (last.kind, last.by, last.instance, last.detail) == ("answered", "eve", "a", {"answer": "took_place"})
    assert reader.cancels_taken(RUN) == 0
    asking.wish_to_cancel(RUN, by="eve", now=NOW)
    assert reader.cancels_taken(RUN) == 0, "it is no cancel that was taken, nor one that is open"


def test_one_answer_to_one_question(asking: Store, reader: Reader) -> None:
    asking.answer(RUN, {"a": "took_place"}, by="eve", now=NOW)
    with pytest.raises(Busy, match="waits for no answer any more: eve has said took place"):
        asking.answer(RUN, {"a": "rerun"}, by="bob", now=NOW)
    assert len(reader.wishes(RUN)) == 1


def test_all_answers_or_none(asking: Store, reader: Reader) -> None:
    commit(asking, started("b"))
    with pytest.raises(Busy, match="step b"):
        asking.answer(RUN, {"a": "rerun", "b": "rerun"}, by="eve", now=NOW)
    assert reader.wishes(RUN) == []
    with pytest.raises(NotFound):
        asking.answer("nobody", {"a": "rerun"}, by="eve", now=NOW)


# --- parking ---


def test_a_parked_run_is_no_resume_when_it_goes_on(asking: Store, reader: Reader) -> None:
    commit(asking, RunParked(7_000, NOW))
    run = reader.run(RUN)
    assert (run.state, run.wake_at, run.stopped) == ("waiting", 7_000, True)
    assert [one.id for one in reader.unfinished()] == [RUN]
    with pytest.raises(Overtaken):
        commit(asking, settled("a"))
    asking.take(RUN, seen_epoch=1, owner=OWNER, stamp=stamp(), resumed=True)
    run = reader.run(RUN)
    assert (run.state, run.wake_at, run.stopped, run.resumes) == ("running", None, False, 0)


@pytest.mark.parametrize("kind", ["cancel", "answer"])
def test_a_run_is_not_parked_over_a_wish(asking: Store, reader: Reader, kind: str) -> None:
    if kind == "cancel":
        asking.wish_to_cancel(RUN, by="eve", now=NOW)
    else:
        asking.answer(RUN, {"a": "rerun"}, by="eve", now=NOW)
    before = len(reader.events(RUN))
    commit(asking, RunParked(None, NOW))
    assert reader.run(RUN).state == "running"
    assert len(reader.events(RUN)) == before


def test_the_questions_of_called_runs_are_those_of_their_caller_too(asking: Store, reader: Reader) -> None:
    for run_id, caller in (("2aaaaaaaaa", (RUN, "b")), ("3aaaaaaaaa", ("2aaaaaaaaa", "c")), ("4aaaaaaaaa", None)):
        owned(asking, run_id, caller=caller)
        asking.commit(
            run_id, 1, stamp(), [started("a"), ended("a", outcome="interrupted"), QUESTION], results_seen=0
        )
    text = "did it take place?"
    own, child, grandchild = (Asked(RUN, "a", text), Asked("2aaaaaaaaa", "a", text, "b"),
                              Asked("3aaaaaaaaa", "a", text, "b"))  # fmt: skip
    assert reader.asked(RUN) == [own, child, grandchild]
    assert reader.asked("2aaaaaaaaa") == [child._replace(via=None), grandchild._replace(via="c")]
    asking.answer("2aaaaaaaaa", {"a": "rerun"}, by="ada", now=NOW)
    assert reader.asked(RUN) == [own, grandchild], "what was answered is not asked any more"
    inspection = Inspection(reader.connection, "agentrun.db")
    assert inspection.asking() == {RUN, "4aaaaaaaaa"}
