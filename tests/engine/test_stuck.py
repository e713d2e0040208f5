"""What is told of silences, as a table of histories: each once, whoever was killed in between."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentrun.engine.stuck import Key, Stuck
from agentrun.store.changes import Change
from agentrun.store.stuck import StepStuck, StepUnstuck

A, B, CONDITION = ("a", 1), ("b", 2), ("c", 0)
RUNNING = (A, B, CONDITION)
NOW = 1_000


def told(stuck: Stuck, attempts: dict[Key, int] | None, running: Sequence[Key] = RUNNING) -> list[Change]:
    if attempts is not None:
        stuck.hear([(*key, since) for key, since in attempts.items()])
    return stuck.news(lambda: running, NOW)


def test_a_silence_is_told_once_and_its_end_too() -> None:
    stuck = Stuck({})
    assert told(stuck, {A: 10}) == [StepStuck("a", 1, 10, NOW)]
    assert told(stuck, {A: 10}) == told(stuck, None) == []
    assert told(stuck, {A: 10, B: 20}) == [StepStuck("b", 2, 20, NOW)]
    assert told(stuck, {B: 20}) == [StepUnstuck("a", 1, NOW)]
    assert told(stuck, {B: 20, A: 30}) == [StepStuck("a", 1, 30, NOW)], "another one"


def test_the_next_supervisor_goes_by_the_journal() -> None:
    assert told(Stuck({"a": (1, 10)}), {A: 10}) == [], "the same silence"
    again = [StepUnstuck("a", 1, NOW), StepStuck("a", 1, 11, NOW)]
    assert told(Stuck({"a": (1, 10)}), {A: 11}) == again, "it went on, and is silent again"
    assert told(Stuck({"a": (1, 10)}), {}) == [StepUnstuck("a", 1, NOW)], "it went on while nobody supervised"
    assert told(Stuck({"a": (1, 10)}), None) == [], "the shim has not said anything yet"
    assert told(Stuck({}), {A: 10}) == [StepStuck("a", 1, 10, NOW)], "killed before it was told"


@pytest.mark.parametrize("attempts", [None, {}, {A: 10}, {CONDITION: 10}])
def test_what_has_ended_did_not_go_on(attempts: dict[Key, int] | None) -> None:
    stuck = Stuck({"a": (1, 10), "c": (0, 10)})
    assert told(stuck, attempts, [B]) == [StepUnstuck("c", 0, NOW)], "a condition has no number that would tell"
    assert told(stuck, {("a", 2): 50}, [("a", 2)]) == [StepStuck("a", 2, 50, NOW)]


def test_what_runs_is_asked_for_only_where_there_is_something_to_tell() -> None:
    def running() -> list[Key]:
        raise AssertionError("it costs a look at every step of the run")

    stuck = Stuck({})
    assert stuck.news(running, NOW) == []
    stuck.hear([])
    assert stuck.news(running, NOW) == []
