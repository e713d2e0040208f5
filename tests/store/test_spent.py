"""What was spent, over a real database: who counts for whom, on which day, and nothing twice."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from agentrun.errors import Overtaken
from agentrun.store import spent
from agentrun.store.database import Database
from agentrun.store.read import Reader
from agentrun.store.spent import CallsTaken, ModelUse, SpendingAdded, Spent, UsageTaken
from agentrun.store.write import Store

from .records import NOW, commit, ended, owned, started

RUN, CHILD, GRANDCHILD, OTHER = "1aaaaaaaaa", "1bbbbbbbbb", "1cccccccccc", "1ddddddddd"
DAY, NEXT = "2026-11-20", "2026-11-21"


class Made(NamedTuple):
    """A call, as the journal of a step tells of it."""

    function: str = "ask"
    arguments: str = '{"n":1}'
    result: str | None = '"yes"'
    error: str | None = None
    key: str | None = None
    attempt: int = 1
    started_at: int = NOW
    ms: int = 5


def taken(instance: str = "a", **more: Any) -> UsageTaken:
    known: dict[str, Any] = {
        "instance": instance, "attempt": 1, "model": "m", "day": DAY, "counted": True, "calls": 1,
        "input_tokens": 10, "output_tokens": 5, "cost": 7, "seen": 100,
    }  # fmt: skip
    return UsageTaken(**{**known, **more})


def called(database: Database, run: str, caller: str, instance: str) -> None:
    """Make a run one that a step of another one has called."""

    def work(cursor: Any) -> None:
        cursor.execute("UPDATE runs SET caller = ?, caller_instance = ? WHERE id = ?", (caller, instance, run))

    database.write(work)


@pytest.fixture
def run(store: Store) -> Store:
    """A run whose `a` is at work."""
    owned(store)
    commit(store, RUN, started("a"))
    return store


@pytest.fixture
def family(run: Store, database: Database) -> Store:
    """`a[0]` of the run has called a run, whose `a` has called another; and there is one that is not of the family."""
    for run_id, job in ((CHILD, "child"), (GRANDCHILD, "grandchild"), (OTHER, "quotes")):
        owned(run, run_id, job=job)
        commit(run, run_id, started("a"))
    called(database, CHILD, RUN, "a[0]")
    called(database, GRANDCHILD, CHILD, "a")
    return run


def test_usage_adds_up_by_attempt_model_and_day(run: Store, reader: Reader) -> None:
    commit(run, RUN, taken(), taken(model="n", cost=1))
    commit(run, RUN, taken(seen=300), taken(seen=300, day=NEXT))
    rows = reader.connection.execute("SELECT model, day, calls, input_tokens, output_tokens, cost FROM usage")
    assert sorted(rows) == [("m", DAY, 2, 20, 10, 14), ("m", NEXT, 1, 10, 5, 7), ("n", DAY, 1, 10, 5, 1)]
    assert spent.of_attempt(reader, RUN, "a", 1) == (300, Spent(tokens=60, cost=22))
    assert spent.of_run(reader, RUN) == Spent(tokens=60, cost=22)
    assert spent.of_run(reader, RUN, NEXT) == Spent(tokens=15, cost=7)


def test_how_far_was_read_is_committed_with_it_or_not_at_all(run: Store, reader: Reader) -> None:
    with pytest.raises(Overtaken):
        commit(run, RUN, taken(), ended("b"))
    assert spent.of_attempt(reader, RUN, "a", 1) == (0, Spent())


def test_nobody_counts_again_what_is_in_the_record(run: Store, reader: Reader) -> None:
    commit(run, RUN, taken(seen=300))
    with pytest.raises(Overtaken, match="the usage of attempt 1 of step a"):
        commit(run, RUN, taken(seen=299))
    with pytest.raises(Overtaken):
        commit(run, RUN, taken("b"))
    assert spent.of_run(reader, RUN) == Spent(tokens=15, cost=7)


def test_an_attempt_may_end_in_the_same_turn(run: Store, reader: Reader) -> None:
    commit(run, RUN, ended("a"), taken(), SpendingAdded(DAY, 0, 1200, 4096))
    assert spent.of_run(reader, RUN) == Spent(0, 15, 7, 1200, 4096)


def test_spending_adds_up_by_day(run: Store, reader: Reader) -> None:
    commit(run, RUN, SpendingAdded(DAY, 1, 0, 0), SpendingAdded(NEXT, 2, 5, 6))
    commit(run, RUN, SpendingAdded(DAY, 3, 10, 20))
    assert spent.of_run(reader, RUN) == Spent(6, 0, 0, 15, 26)
    assert spent.of_run(reader, RUN, DAY) == Spent(4, 0, 0, 10, 20)


def test_handlers_are_in_the_record_and_not_counted(run: Store, reader: Reader) -> None:
    commit(run, RUN, taken(counted=False))
    assert spent.of_run(reader, RUN) == Spent()
    assert spent.by_model(reader, RUN) == [ModelUse("a", "m", False, 1, 10, 5, 7)]
    assert spent.of_attempt(reader, RUN, "a", 1)[1] == Spent(tokens=15, cost=7)


def test_wild_figures_break_nothing(run: Store, reader: Reader) -> None:
    for seen in range(1, 6):
        wild = taken(seen=seen, calls=1, input_tokens=2**70, output_tokens=2**63, cost=2**62)
        commit(run, RUN, wild, SpendingAdded(DAY, 1, 2**65, 2**62))
    found = spent.of_run(reader, RUN)
    assert found.steps == 5
    assert all(2**61 < figure < 2**64 for figure in found[1:])
    assert spent.by_model(reader, RUN)[0].cost >= 2**61


def test_a_model_named_by_bytes(run: Store, reader: Reader) -> None:
    commit(run, RUN, taken(model="m\udcff"))
    assert spent.by_model(reader, RUN)[0].model == "m\\udcff"


def test_a_run_counts_with_all_that_it_called(family: Store, reader: Reader) -> None:
    for run_id in (RUN, CHILD, GRANDCHILD, OTHER):
        commit(family, run_id, taken(), SpendingAdded(DAY, 1, 100, 50))
    one = Spent(1, 15, 7, 100, 50)
    two = one.plus(one)
    assert spent.of_run(reader, RUN) == one
    assert spent.of_called(reader, RUN) == spent.of_called(reader, RUN, "a[0]") == two
    assert spent.of_called(reader, CHILD, "a") == one
    assert spent.of_called(reader, RUN, "a") == spent.of_called(reader, GRANDCHILD) == Spent()
    assert spent.callers(reader, RUN) == ["a[0]"]


def test_the_day_of_a_job_is_all_its_runs_with_what_they_called(family: Store, reader: Reader) -> None:
    for run_id in (RUN, CHILD, GRANDCHILD, OTHER):
        commit(family, run_id, taken(), SpendingAdded(DAY, 1, 100, 50))
    commit(family, OTHER, taken(day=NEXT, seen=200), SpendingAdded(NEXT, 1, 1, 1))
    one = Spent(1, 15, 7, 100, 50)
    three = one.plus(one).plus(one)
    assert spent.of_others(reader, "quotes", DAY, RUN) == three
    assert spent.of_others(reader, "quotes", DAY, OTHER) == three
    assert spent.of_others(reader, "quotes", NEXT, RUN) == Spent(1, 15, 7, 1, 1)
    assert spent.of_others(reader, "child", DAY, CHILD) == one
    assert spent.of_others(reader, "child", DAY, "") == one.plus(one)
    assert spent.of_others(reader, "nobody", DAY, RUN) == Spent()


def test_by_step_and_model_the_dearest_first(family: Store, reader: Reader) -> None:
    commit(family, RUN, started("a[0]"), started("a[1]"), started("b"))
    commit(family, RUN, taken("a[0]"), taken("a[1]"), taken("b", model="", cost=0), taken("b", cost=2))
    commit(family, CHILD, taken(cost=50))
    commit(family, GRANDCHILD, taken(cost=1))
    assert spent.by_model(reader, RUN) == [
        ModelUse("a/a", "m", True, 1, 10, 5, 50),
        ModelUse("a", "m", True, 2, 20, 10, 14),
        ModelUse("b", "m", True, 1, 10, 5, 2),
        ModelUse("a/a/a", "m", True, 1, 10, 5, 1),
        ModelUse("b", "", True, 1, 10, 5, 0),
    ]
    account = spent.account(reader, CHILD)
    assert (account.caller, account.caller_instance, account.enforced_by) == (RUN, "a[0]", None)
    assert [use.step for use in account.uses] == ["a", "a/a"]
    assert spent.account(reader, "nobody") == ([], None, None, None)


def test_calls_are_numbered_on(run: Store, reader: Reader) -> None:
    commit(run, RUN, CallsTaken("a", (Made(), Made(function="search", key="k", started_at=NOW + 1)), 200))
    assert spent.calls_seen(reader, RUN, "a") == 200
    failed = Made(attempt=2, result=None, error="ValueError: no", started_at=NOW + 2)
    commit(run, RUN, CallsTaken("a", (failed,), 300))
    found = spent.calls(reader, RUN)
    assert [(call.seq, call.attempt, call.function, call.key) for call in found] == [
        (1, 1, "ask", None), (2, 1, "search", "k"), (3, 2, "ask", None),
    ]  # fmt: skip
    assert (found[2].result, found[2].error) == (None, "ValueError: no")
    assert spent.calls(reader, RUN, ["a"]) == found
    assert spent.calls(reader, RUN, ["b"]) == []
    assert spent.calls_seen(reader, RUN, "b") == 0


def test_no_call_is_taken_twice(run: Store, reader: Reader) -> None:
    commit(run, RUN, CallsTaken("a", (Made(),), 200))
    for late in (CallsTaken("a", (Made(),), 200), CallsTaken("b", (Made(),), 200)):
        with pytest.raises(Overtaken, match="the calls of step"):
            commit(run, RUN, late)
    assert len(spent.calls(reader, RUN)) == 1


@pytest.mark.parametrize("text", ["no json", "[" * 2000 + "]" * 2000, '"\udcff"', "NaN"])
def test_what_sqlite_does_not_take_as_json_is_kept_as_text(run: Store, reader: Reader, text: str) -> None:
    commit(run, RUN, CallsTaken("a", (Made(arguments=text, result=text),), 9))
    call = spent.calls(reader, RUN)[0]
    assert call.result == call.arguments
    assert text.strip('"').encode(errors="backslashreplace").decode()[:50] in call.arguments


def test_the_calls_of_instances_belong_to_their_step(run: Store, reader: Reader) -> None:
    commit(run, RUN, started("b[0]"), started("b[10]"))
    commit(run, RUN, *(CallsTaken(name, (Made(function=name),), 9) for name in ("a", "b[0]", "b[10]")))
    assert [call.function for call in spent.calls(reader, RUN, ["b"])] == ["b[0]", "b[10]"]
    assert [call.function for call in spent.calls(reader, RUN, ["b[10]", "a"])] == ["a", "b[10]"]
