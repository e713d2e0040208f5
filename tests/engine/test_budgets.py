"""The meter, over real files and a real database: what it reads, what it says, what it leaves to the next owner."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrun.engine.budgets import Last, Meter, Over, local_day
from agentrun.model import Budget, Job, Step
from agentrun.store import spent
from agentrun.store.changes import AttemptStarted
from agentrun.store.database import open_for_writing
from agentrun.store.spent import SpendingAdded, Spent, UsageTaken
from agentrun.store.write import Store
from tests.store.records import NOW, commit, owned

RUN, CHILD, OTHER = "1aaaaaaaaa", "1bbbbbbbbb", "1cccccccccc"
DAY = 86_400_000
BILLION = 10**9
STEPS = (
    Step("a", 0, run="true"),
    Step("think", 1, run="true", budget=Budget(tokens=100, cost=BILLION)),
    Step("ask", 2, run="true", foreach=[1, 2]),
    Step("alarm", 3, run="true", when="on_failure"),
    Step("sub", 4, job="other.yaml", budget=Budget(cpu=5_000)),
    Step("cry", 5, job="other.yaml", when="on_failure"),
)


class Place:
    """A run with its files, and the owners that it has one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(open_for_writing(str(folder / "state")))
        self.reader = self.store.reader
        self.now = NOW
        self.days = 0
        owned(self.store, RUN)

    def owner(self, *, called: bool = False, **limits: Any) -> Meter:
        """Who has the run now; `limits` are keys of the job."""
        self.meter = Meter(
            Job("quotes", STEPS, **limits),
            self.reader.run(RUN),
            self.reader,
            usage_path=lambda instance, attempt: str(self.folder / f"{instance}#{attempt}.usage"),
            calls_path=lambda instance: str(self.folder / f"{instance}.calls"),
            now=self.now,
            called=called,
            day=lambda now: f"2026-11-{20 + (now - NOW) // DAY}",
        )
        return self.meter

    def start(self, instance: str, attempt: int = 1) -> None:
        self.meter.begin(instance, attempt, self.now)
        self.commit(AttemptStarted(instance, 0, attempt, 0, 0, False, "k", "{}", self.now))

    def commit(self, *changes: Any, run: str = RUN) -> list[Any]:
        """A turn of the loop."""
        made = [*changes, *self.meter.changes()]
        commit(self.store, run, *made)
        assert self.meter.changes() == []
        return made

    def use(self, instance: str, tokens: int = 0, cost: float = 0, attempt: int = 1, model: str = "m") -> None:
        line = {"gen_ai.response.model": model, "gen_ai.usage.input_tokens": tokens, "cost": cost}
        self.write(instance, json.dumps(line) + "\n", attempt)

    def write(self, instance: str, text: str, attempt: int = 1) -> None:
        with (self.folder / f"{instance}#{attempt}.usage").open("a") as file:
            file.write(text)

    def look(self, ms: int = 250) -> list[Over]:
        self.now += ms
        return self.meter.look(self.now)

    def end(self, instance: str, attempt: int = 1, cpu: int | None = None, output: int | None = None) -> Last:
        return self.meter.ended(instance, attempt, cpu, output, self.now)

    def other_run(self, run_id: str, *, job: str = "quotes", caller: str | None = None) -> None:
        """Another run, whose `a` is at work; `caller`: the step of ours that called it."""
        owned(self.store, run_id, job=job)
        commit(self.store, run_id, AttemptStarted("a", 0, 1, 0, 0, False, "k", "{}", NOW))
        if caller:
            where = "UPDATE runs SET caller = ?, caller_instance = ? WHERE id = ?"
            self.store.database.write(lambda cursor: cursor.execute(where, (RUN, caller, run_id)))

    def it_used(self, run_id: str, seen: int, tokens: int = 0, steps: int = 0, cpu: int = 0) -> None:
        """What another run's owner has committed."""
        used = UsageTaken("a", 1, "m", self.meter._day(self.now), True, 1, tokens, 0, 0, seen)
        commit(self.store, run_id, used, SpendingAdded(used.day, steps, cpu, 0))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.database.close()


def test_a_run_without_limits_is_read_now_and_then_for_those_who_look_on(place: Place) -> None:
    meter = place.owner()
    place.start("a")
    place.use("a", tokens=5, cost=0.5)
    assert meter.interval == 1_000
    assert place.look() == []
    place.commit()
    assert spent.of_run(place.reader, RUN) == Spent(1, 5, BILLION // 2)
    assert place.end("a", cpu=20, output=30) == Last()
    place.commit()
    assert spent.of_run(place.reader, RUN) == Spent(1, 5, BILLION // 2, 20, 30)
    assert (meter.used_up, meter.over) == (None, None)


@pytest.mark.parametrize(
    ("limits", "interval"),
    [({"budget": Budget(tokens=5)}, 250), ({"budget": Budget(cost=5)}, 250), ({"daily": Budget(cost=5)}, 250),
     ({"daily": Budget(steps=5)}, 500), ({"budget": Budget(steps=5, cpu=9)}, 1_000), ({}, 1_000)],
)  # fmt: skip
def test_how_often_it_looks(place: Place, limits: dict[str, Budget], interval: int | None) -> None:
    meter = place.owner(**limits)
    assert meter.interval is None, "nothing runs"
    place.start("a")
    assert meter.interval == interval
    place.start("think")
    assert meter.interval == 250
    place.end("think")
    assert meter.interval == interval
    place.end("a")
    assert meter.interval is None


def test_a_run_that_was_called_is_looked_at_for_its_caller(place: Place) -> None:
    place.owner(called=True)
    place.start("a")
    place.use("a", tokens=5)
    assert place.look() == []
    place.commit()
    assert spent.of_run(place.reader, RUN).tokens == 5


def test_a_called_run_is_looked_at_while_anything_is_limited(place: Place) -> None:
    place.owner(budget=Budget(steps=100))
    place.start("cry")
    assert place.meter.interval == 500
    place.owner()
    place.meter.adopt("cry", 1)
    assert place.meter.interval == 1_000


def test_it_looks_no_more_often_than_that(place: Place) -> None:
    place.owner(budget=Budget(tokens=10))
    place.start("a")
    place.look()
    place.use("a", tokens=11)
    place.look(249)
    assert place.meter.over is None
    place.look(1)
    assert place.meter.over == "tokens: 11 of 10"


def test_the_attempt_that_crosses_its_own_line_is_named_once(place: Place) -> None:
    place.owner()
    place.start("think")
    place.start("a")
    place.use("think", tokens=100, cost=1)
    assert place.look() == [], "all of it is not too much"
    place.use("think", tokens=1)
    assert place.look() == [Over("think", 1, "tokens")]
    assert place.look() == []
    place.use("think", tokens=1)
    assert place.end("think") == Last(None, "tokens", "tokens: 102 of 100")
    place.commit()
    assert spent.of_run(place.reader, RUN).tokens == 102, "what it used before it was gone is paid for, too"
    assert (place.meter.over, place.meter.used_up) == (None, None)


def test_an_attempt_has_a_budget_of_its_own(place: Place) -> None:
    place.owner()
    for attempt, cost in ((1, 1), (2, 0.9), (3, 1.000000001)):
        place.start("think", attempt)
        place.use("think", cost=cost, attempt=attempt)
        assert place.look() == ([Over("think", 3, "cost")] if attempt == 3 else [])
        assert place.end("think", attempt).over == ("cost" if attempt == 3 else None)


def test_the_last_line_is_read_at_the_end(place: Place) -> None:
    place.owner(budget=Budget(tokens=10))
    place.start("a")
    place.write("a", '{"gen_ai.usage.input_tokens": 11}')
    place.look()
    assert place.meter.over is None
    assert place.end("a") == Last()
    assert place.meter.over == "tokens: 11 of 10"


@pytest.mark.parametrize("between", ["nothing is committed", "all is committed"])
def test_killed_in_between_nothing_is_lost_and_nothing_counted_twice(place: Place, between: str) -> None:
    place.owner(budget=Budget(tokens=1000))
    place.start("think")
    place.use("think", tokens=60)
    place.look()
    if between == "all is committed":
        place.commit()
    place.use("think", tokens=30)
    meter = place.owner(budget=Budget(tokens=1000))
    meter.adopt("think", 1)
    assert place.look() == []
    place.use("think", tokens=11)
    assert place.look() == [Over("think", 1, "tokens")], "with what its earlier owner had counted"
    place.end("think")
    place.commit()
    assert spent.of_run(place.reader, RUN) == Spent(1, 101)
    assert place.owner(budget=Budget(tokens=101)).used_up == "tokens: 101 of 101"


def test_what_ended_while_nobody_looked_is_read_without_a_beginning(place: Place) -> None:
    place.owner()
    place.start("a")
    place.use("a", tokens=3)
    place.owner(budget=Budget(tokens=2))
    assert place.end("a", cpu=5) == Last()
    assert place.meter.over == "tokens: 3 of 2"
    place.commit()
    assert spent.of_run(place.reader, RUN) == Spent(1, 3, 0, 5, 0)


def test_nothing_left_is_not_yet_too_much(place: Place) -> None:
    meter = place.owner(budget=Budget(tokens=20_000, cost=20 * BILLION))
    place.start("ask[0]")
    place.start("ask[1]")
    place.use("ask[0]", tokens=19_999)
    place.look()
    assert meter.used_up is None
    place.use("ask[1]", tokens=1)
    place.look()
    assert (meter.used_up, meter.over) == ("tokens: 20,000 of 20,000", None)
    place.use("ask[1]", tokens=1430, cost=20.13, model="n")
    place.look()
    assert meter.over == "tokens: 21,430 of 20,000"
    place.commit()
    assert place.owner(budget=Budget(cost=20 * BILLION)).over == "cost: 20.13 of 20.00"
    assert [(use.step, use.model) for use in spent.by_model(place.reader, RUN)] == [("ask", "n"), ("ask", "m")]


def test_cpu_and_output_count_when_attempts_have_ended(place: Place) -> None:
    place.owner(budget=Budget(cpu=60_000, output=4096))
    place.start("a")
    place.end("a", cpu=60_100, output=4096)
    assert place.meter.over == "cpu: 60.1 of 60 s"
    place.commit()
    assert place.owner(budget=Budget(output=4096)).used_up == "output: 4,096 of 4,096 bytes"
    assert place.meter.over is None


def test_the_steps_of_the_run_itself_are_the_plans(place: Place) -> None:
    place.owner(budget=Budget(steps=1))
    place.start("a")
    place.start("ask[0]")
    assert (place.meter.used_up, place.meter.over) == (None, None)


def test_handlers_are_recorded_and_count_for_nothing(place: Place) -> None:
    place.owner(budget=Budget(tokens=5, cpu=5), daily=Budget(tokens=5))
    place.start("alarm")
    place.use("alarm", tokens=50)
    place.look()
    place.end("alarm", cpu=50)
    assert (place.meter.used_up, place.meter.over) == (None, None)
    place.commit()
    assert spent.of_run(place.reader, RUN) == Spent()
    assert spent.by_model(place.reader, RUN)[0].input_tokens == 50


def test_a_line_that_cannot_be_counted_ends_the_attempt(place: Place) -> None:
    place.owner(budget=Budget(tokens=100))
    place.start("a")
    place.use("a", tokens=1)
    place.write("a", "oops\n")
    place.use("a", tokens=2)
    assert place.look() == []
    assert place.look() == [Over("a", 1, "usage")]
    assert place.look() == []
    place.use("a", tokens=4)
    place.write("a", "again\n")
    place.use("a", tokens=8)
    place.commit()
    successor = place.owner(budget=Budget(tokens=100))
    successor.adopt("a", 1)
    assert place.look() == [Over("a", 1, "usage")], "the next owner sees it, too"
    last = place.end("a")
    assert last.complaint == "line 2 of $AGENTRUN_USAGE is not JSON: oops"
    place.commit()
    assert spent.of_run(place.reader, RUN).tokens == 15, "all that can be counted is"


def test_what_is_no_file_ends_it_too(place: Place) -> None:
    place.owner()
    place.start("think")
    os.mkfifo(place.folder / "think#1.usage")
    assert place.look() == [Over("think", 1, "usage")]
    assert "no plain file" in (place.end("think").complaint or "")


def test_a_new_attempt_begins_without_complaint(place: Place) -> None:
    place.owner()
    place.start("a")
    place.write("a", "oops\n")
    assert place.end("a").complaint
    place.start("a", 2)
    assert place.end("a", 2) == Last()


def test_a_line_that_spans_two_looks_and_two_models_commits_once(place: Place) -> None:
    place.owner(budget=Budget(tokens=100))
    place.start("a")
    place.use("a", tokens=1, model="m")
    place.use("a", tokens=1, model="n")
    place.look()
    place.use("a", tokens=1, model="m")
    place.look()
    assert {change.seen for change in place.commit()} == {(place.folder / "a#1.usage").stat().st_size}
    assert spent.of_run(place.reader, RUN).tokens == 3


# --- the day


def test_the_day_is_that_of_all_runs_of_the_job(place: Place) -> None:
    place.owner(daily=Budget(tokens=100, steps=3))
    place.other_run(OTHER)
    place.start("a")
    place.use("a", tokens=40)
    place.look()
    place.commit()
    place.it_used(OTHER, 1, tokens=60, steps=1)
    place.look(500)
    assert place.meter.used_up is None, "what others use is believed for two seconds"
    place.look(2000)
    assert place.meter.used_up == "tokens today: 100 of 100"
    place.it_used(OTHER, 2, tokens=1)
    place.look(2000)
    assert place.meter.over == "tokens today: 101 of 100"
    assert place.owner(daily=Budget(tokens=100)).over == "tokens today: 101 of 100"


def test_daily_steps_start_nothing_more_but_end_nothing(place: Place) -> None:
    place.owner(daily=Budget(steps=2))
    place.start("a")
    assert place.meter.used_up is None
    place.start("ask[0]")
    assert place.meter.used_up == "steps today: 2 of 2"
    place.start("ask[1]")
    assert place.meter.over is None


def test_other_jobs_have_their_own_day(place: Place) -> None:
    place.owner(daily=Budget(tokens=10))
    place.other_run(OTHER, job="backup")
    place.it_used(OTHER, 1, tokens=60)
    assert place.owner(daily=Budget(tokens=10)).over is None


def test_at_midnight_the_day_begins_anew(place: Place) -> None:
    place.owner(daily=Budget(tokens=100, cpu=1000))
    place.other_run(OTHER)
    place.it_used(OTHER, 1, tokens=20)
    place.start("a")
    place.use("a", tokens=80)
    place.look(2000)
    assert place.meter.used_up == "tokens today: 100 of 100"
    place.commit()
    place.look(DAY)
    assert place.meter.used_up is None
    place.use("a", tokens=7)
    place.look()
    place.end("a", cpu=999)
    place.commit()
    assert spent.of_run(place.reader, RUN, "2026-11-20") == Spent(1, 80)
    assert spent.of_run(place.reader, RUN, "2026-11-21") == Spent(0, 7, 0, 999)
    assert place.owner(daily=Budget(tokens=7)).used_up == "tokens today: 7 of 7"


def test_the_day_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = 1_795_176_000_000  # 2026-11-20T12:00:00Z
    try:
        for zone, at, day in (
            ("UTC", noon, "2026-11-20"),
            ("Pacific/Auckland", noon, "2026-11-21"),
            ("Pacific/Honolulu", noon - 3 * 3_600_000, "2026-11-19"),
        ):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert local_day(at) == day, zone
    finally:
        monkeypatch.undo()
        time.tzset()


# --- called runs


def test_a_called_run_counts_with_its_caller(place: Place) -> None:
    place.owner(budget=Budget(tokens=100, steps=10, cpu=10_000))
    place.start("sub")
    assert place.look() == []
    place.other_run(CHILD, job="other", caller="sub")
    place.it_used(CHILD, 1, tokens=60, steps=2, cpu=400)
    place.look()
    assert (place.meter.over, place.meter.steps_of_children) == (None, 2)
    place.it_used(CHILD, 2, tokens=41, steps=1, cpu=4601)
    assert place.look() == [Over("sub", 1, "cpu")], "its own budget is that of the run that it calls"
    assert (place.meter.over, place.meter.steps_of_children) == ("tokens: 101 of 100", 3)
    place.it_used(CHILD, 3, tokens=1)
    assert place.end("sub", cpu=70) == Last(None, "cpu", "cpu: 5.001 of 5 s")
    assert place.meter.over == "tokens: 102 of 100"
    place.commit()
    successor = place.owner(budget=Budget(tokens=100))
    assert (successor.over, successor.steps_of_children) == ("tokens: 102 of 100", 3)


def test_a_second_attempt_of_its_step_does_not_count_it_again(place: Place) -> None:
    place.owner(budget=Budget(tokens=100))
    place.start("sub")
    place.other_run(CHILD, job="other", caller="sub")
    place.it_used(CHILD, 1, tokens=60)
    place.end("sub")
    place.start("sub", 2)
    place.look()
    place.it_used(CHILD, 2, tokens=39)
    place.look()
    assert place.meter.over is None
    place.it_used(CHILD, 3, tokens=2)
    place.look()
    assert place.meter.over == "tokens: 101 of 100"


def test_an_attempt_too_many_of_a_called_run_ends_nothing(place: Place) -> None:
    place.owner(budget=Budget(steps=3))
    place.start("sub")
    place.other_run(CHILD, job="other", caller="sub")
    place.it_used(CHILD, 1, steps=3)
    place.commit()
    assert place.reader.run(RUN).started_steps == 0, "the supervisor counts those"
    place.look(500)
    assert (place.meter.over, place.meter.used_up, place.meter.steps_of_children) == (None, None, 3)


def test_a_day_lets_so_many_attempts_begin(place: Place) -> None:
    meter = place.owner(daily=Budget(steps=3))
    assert meter.attempts_left() == 3
    place.start("a")
    place.start("think")
    assert (meter.attempts_left(), place.owner().attempts_left()) == (1, None)


def test_a_run_that_a_handler_calls_counts_for_nothing(place: Place) -> None:
    place.owner(budget=Budget(tokens=10))
    place.start("cry")
    place.other_run(CHILD, job="other", caller="cry")
    place.it_used(CHILD, 1, tokens=60, steps=1)
    place.look(500)
    assert (place.meter.over, place.meter.steps_of_children) == (None, 0)
    place.end("cry")
    place.commit()
    assert place.owner(budget=Budget(tokens=10)).over is None


def test_the_day_counts_called_runs_as_soon_as_they_are_read(place: Place) -> None:
    place.owner(daily=Budget(tokens=10))
    place.start("sub")
    place.other_run(CHILD, job="other", caller="sub")
    place.look()
    place.it_used(CHILD, 1, tokens=11)
    place.look()
    assert place.meter.over == "tokens today: 11 of 10"


# --- calls


def call(place: Place, instance: str, function: str, attempt: int = 1) -> None:
    line = {"stream": 0, "attempt": attempt, "call": function, "args": '{"n":1}', "key": None, "n": 1, "in": "",
            "at": NOW, "ms": 12, "result": '"yes"'}  # fmt: skip
    with (place.folder / f"{instance}.calls").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_calls_are_taken_into_the_record_once(place: Place) -> None:
    place.owner()
    place.start("ask[0]")
    call(place, "ask[0]", "search")
    place.end("ask[0]")
    place.start("ask[0]", 2)
    place.owner()
    place.meter.adopt("ask[0]", 2)
    call(place, "ask[0]", "write", attempt=2)
    place.end("ask[0]", 2)
    place.meter.adopt("ask[0]", 3)
    place.end("ask[0]", 3)
    place.commit()
    found = spent.calls(place.reader, RUN)
    assert [(row.seq, row.attempt, row.function, row.result) for row in found] == [
        (1, 1, "search", '"yes"'), (2, 2, "write", '"yes"'),
    ]  # fmt: skip
