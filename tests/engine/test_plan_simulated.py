"""The plan in thousands of random runs, against what must hold whatever happens; and what a turn costs.

`World` plays shim, steps and users: it carries out what was decided, lets things end in random ways and in a
random order, cancels, stops, kills the supervisor (a new `Facts` from the rows alone), and watches the rules.
A seed that fails is a history: run it alone with `-k 'seed-17'`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace

import pytest

from agentrun.engine.facts import FAILURES
from agentrun.engine.plan import (
    Answered,
    Ask,
    CancelWished,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Facts,
    Park,
    Settle,
    Start,
    StepFacts,
    StopWished,
    decide,
    reopen,
    requeued,
    wake_at,
)
from agentrun.model import TRANSITIONS, Budget, Job, Retry, Step


def random_job(chance: random.Random) -> Job:
    steps: list[Step] = []
    for index in range(chance.randint(1, 14)):
        when = chance.choices(["on_success", "on_failure", "always"], [8, 1, 1])[0]
        above = [step.id for step in steps]
        needs = chance.sample(above, min(len(above), chance.choice([0, 1, 1, 2, 3])))
        steps.append(
            Step(
                id=f"s{index}",
                index=index,
                needs=tuple(above if when != "on_success" and chance.random() < 0.5 else needs),
                condition=chance.choice([None, None, "true"]),
                when=when,  # type: ignore[arg-type]
                retry=Retry(max_attempts=chance.choice([1, 1, 2, 4]), interval=chance.choice([0, 100, 9000])),
                continue_on_error=chance.random() < 0.2,
                on_interrupt=chance.choice(["rerun", "rerun", "skip", "fail"]),
            )
        )
    return Job(name="job", steps=tuple(steps), budget=Budget(chance.choice([None, None, 3, 12])))


class World:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.job = random_job(self.chance)
        self.now = 0
        self.running: dict[str, int] = {}
        self.asked_to_end: dict[str, str] = {}
        self.failure_rate = self.chance.choice([0.0, 0.2, 0.6])
        self.loss_rate = self.chance.choice([0.0, 0.0, 0.2])
        self.wish_rate = self.chance.choice([0.0, 0.0, 0.03])
        self.kill_rate = self.chance.choice([0.0, 0.1])
        self.cancels = 0
        deadline = self.chance.choice([None, None, 20_000])
        self.facts = Facts(self.job, seed=f"{seed}", deadline_at=deadline, max_parallel=self.chance.choice([1, 2, 8]))
        self.ancestors: dict[str, set[str]] = {}
        for step in self.job.steps:
            self.ancestors[step.id] = set(step.needs).union(*(self.ancestors[need] for need in step.needs))

    # --- what was decided is carried out, and held against the rules ---

    def take_turn(self) -> None:
        for _ in range(200):
            before = deepcopy(self.facts.steps)
            decisions = decide(self.job, self.facts, self.now)
            assert self.facts.steps == before
            assert decide(self.job, self.facts, self.now) == decisions
            if not decisions:
                break
            assert self.facts.completed is None
            for decision in decisions:
                self.carry_out(decision)
        else:
            raise AssertionError("a turn without an end")
        wake = wake_at(self.facts)
        assert wake is None or wake > self.now, "it would wake at once, for ever"
        assert len(self.running) <= self.facts.max_parallel

    def carry_out(self, decision: Decision) -> None:
        state_before = self.facts.steps[decision.step].state if hasattr(decision, "step") else None
        match decision:
            case Ask(step):
                self.check_begin(self.job.step(step), 0)
                self.running[step] = 0
            case Start(step, attempt):
                self.check_begin(self.job.step(step), attempt)
                self.running[step] = attempt
            case End(step, attempt, cause):
                assert self.running[step] == attempt and step not in self.asked_to_end
                self.asked_to_end[step] = cause
            case Settle(step, outcome):
                assert step not in self.running
                assert outcome != "interrupted"
            case Park(step):
                assert step not in self.running
            case Complete():
                assert not self.running
            case Close():
                assert not self.facts.stopping
        assert self.facts.apply(decision)
        if state_before is not None and (state := self.facts.steps[decision.step].state) != state_before:  # type: ignore[union-attr]
            assert state in TRANSITIONS["step"][state_before]

    def check_begin(self, step: Step, attempt: int) -> None:
        facts, known = self.facts, self.facts.steps[step.id]
        assert not facts.stopping and step.id not in self.running and known.state != "finished"
        assert all(facts.steps[need].state == "finished" for need in step.needs)
        assert attempt in (0, known.attempt + 1)
        assert (attempt == 0) == (step.condition is not None and known.asked is None)
        if known.due is not None:
            assert known.due <= self.now
        failed = any(facts.steps[above].has_failed for above in self.ancestors[step.id])
        closing = facts.closing
        if closing is None:
            assert {"on_success": not failed, "on_failure": failed, "always": True}[step.when]
            if attempt and not step.is_handler and self.job.budget.steps is not None:
                assert facts.started < self.job.budget.steps
        else:
            assert not closing.final
            assert step.when in (["always"] if closing.outcome == "cancelled" else ["always", "on_failure"])
            assert all(facts.steps[s.id].state == "finished" for s in self.job.steps if not s.is_handler)

    # --- what happens ---

    def something_happens(self) -> None:
        if self.chance.random() < self.wish_rate:
            self.cancels += 1
            self.facts.apply(CancelWished(self.now))
        elif self.chance.random() < self.wish_rate:
            self.stop()
        elif self.chance.random() < self.kill_rate:
            self.new_supervisor()
        for step in self.chance.sample(sorted(self.running), min(len(self.running), self.chance.choice([1, 1, 3]))):
            self.end(step)
        wake = wake_at(self.facts)
        if not self.running and wake is not None:
            self.now = wake
        self.now += self.chance.choice([0, 1, 500])

    def end(self, step: str) -> None:
        attempt = self.running.pop(step)
        cause = self.asked_to_end.pop(step, None)
        if attempt == 0:
            answer = self.chance.choice([0, 0, 1, 2, None]) if cause is None else self.chance.choice([None, 143, 1])
            assert self.facts.apply(Answered(step, answer, self.now))
            return
        end = Ended(step, attempt, "succeeded", self.now)
        if cause and self.chance.random() < 0.8:
            end = {
                "cancel": end._replace(outcome="cancelled", reason="cancel"),
                "deadline": end._replace(outcome="timed_out", reason="deadline"),
                "shutdown": end._replace(outcome="interrupted", requested=True),
            }[cause]
        elif self.chance.random() < self.loss_rate:
            end = end._replace(outcome="interrupted")
        elif self.chance.random() < self.failure_rate:
            after = self.chance.choice([None, None, 700])
            end = end._replace(outcome="failed", exit_code=1, causes=("1",), retry_after=after)
        assert self.facts.apply(end)

    def stop(self) -> None:
        """SIGTERM to the supervisor, and a resume later."""
        self.facts.apply(StopWished(self.now))
        self.take_turn()
        while self.running:
            self.end(next(iter(self.running)))
            self.take_turn()
        self.now += 1000
        if self.facts.completed is None:
            self.new_supervisor()

    def new_supervisor(self) -> None:
        """kill -9 of the supervisor between two turns: what is stored of the steps is all that the next one knows."""
        self.take_turn()
        old = self.facts
        rows = {step: replace(row, ending=None, undecided=None) for step, row in old.steps.items()}
        self.facts = Facts(
            self.job,
            seed=old.seed,
            deadline_at=old.deadline_at,
            max_parallel=old.max_parallel,
            started=old.started,
            steps=rows,
        )
        for _ in range(self.cancels):
            self.facts.apply(CancelWished(self.now))
        if old.closing:
            self.facts.apply(old.closing._replace(final=None))
        self.facts.completed = old.completed
        self.asked_to_end.clear()

    def go(self) -> None:
        for _ in range(3000):
            self.take_turn()
            if self.facts.completed is not None:
                return
            assert self.running or wake_at(self.facts) is not None, "stuck"
            self.something_happens()
        raise AssertionError("a run without an end")


def check_outcomes(world: World, kept: Iterable[str] = ()) -> None:
    """The end of a run, looked at as a whole and without its history. `kept` are steps of an earlier end of it."""
    facts, rows = world.facts, world.facts.steps
    assert all(row.state == "finished" and row.outcome for row in rows.values())
    failed = {step for step, row in rows.items() if row.has_failed}
    if facts.closing:
        assert facts.completed == facts.closing.outcome
        assert facts.completed != "cancelled" or world.cancels
    else:
        assert facts.completed == ("failed" if failed else "succeeded")
        for step in (step for step in world.job.steps if step.id not in kept):
            row, failed_above = rows[step.id], bool(failed & world.ancestors[step.id])
            assert (row.reason == "upstream") == (failed_above and step.when == "on_success")
            assert (row.reason == "no_failure") == (not failed_above and step.when == "on_failure")
    for step in world.job.steps:
        row = rows[step.id]
        assert not row.covered or (row.outcome in FAILURES and step.continue_on_error)
        assert row.tries <= step.retry.max_attempts


@pytest.mark.parametrize("tens", range(40), ids=lambda n: f"seed-{n}")
def test_random_runs(tens: int) -> None:
    for seed in range(tens * 25, tens * 25 + 25):
        world = World(seed)
        world.go()
        check_outcomes(world)
        world.take_turn()
        assert decide(world.job, world.facts, world.now + 10**9) == []


@pytest.mark.parametrize("tens", range(10), ids=lambda n: f"seed-{n}")
def test_random_runs_resumed_until_they_succeed(tens: int) -> None:
    for seed in range(tens * 20, tens * 20 + 20):
        world = World(seed)
        world.go()
        world.failure_rate = world.loss_rate = world.wish_rate = 0.0
        world.job = replace(world.job, budget=Budget())
        for _ in range(30):  # an `if` may still break
            if world.facts.completed == "succeeded":
                break
            rows = world.facts.steps
            again = reopen(world.job, rows)
            kept = {step: deepcopy(row) for step, row in rows.items() if step not in again}
            rows = {s.id: requeued(s, rows[s.id]) if s.id in again else rows[s.id] for s in world.job.steps}
            world.cancels = 0
            world.facts = Facts(world.job, seed=f"{seed}", deadline_at=None, max_parallel=2, steps=rows)
            world.go()
            check_outcomes(world, kept)
            assert all(world.facts.steps[step] == row for step, row in kept.items()), "done is done"
        assert world.facts.completed == "succeeded"


# --- what a turn costs -------------------------------------------------------------------------------------


def drive(job: Job, facts: Facts, turns: int) -> None:
    """That many turns; in each, the first step that runs succeeds, or its `if` says go."""
    for _ in range(turns):
        while decisions := decide(job, facts, 0):
            for decision in decisions:
                facts.apply(decision)
        step = facts.step_at(min(set().union(*facts.live.values())))
        if not facts.apply(Answered(step.id, 0, 0)):
            facts.apply(Ended(step.id, facts.steps[step.id].attempt, "succeeded", 0))


def lines_executed(job: Job, facts: Facts, turns: int) -> int:
    """How many lines of the engine so many turns execute."""
    executed = 0

    def count(frame, event, argument):  # type: ignore[no-untyped-def]
        nonlocal executed
        executed += event == "line"
        return count if "agentrun/engine" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        drive(job, facts, turns)
    finally:
        sys.settrace(before)
    return executed


SHAPES = {
    "a sequence": lambda n: Step(f"s{n}", n, needs=(f"s{n - 1}",) if n else ()),
    "all ready at once": lambda n: Step(f"s{n}", n),
    "with conditions": lambda n: Step(f"s{n}", n, condition="true"),
    "all after one": lambda n: Step(f"s{n}", n, needs=("s0",) if n else ()),
    "all above a handler": lambda n: Step(f"s{n}", n, when="always" if n == 50 else "on_success"),
    "all due again": lambda n: Step(f"s{n}", n, retry=Retry(max_attempts=2)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_costs_what_changed_and_not_the_size_of_the_job(shape: str) -> None:
    counts = []
    for size in (100, 5000):
        job = Job(name="job", steps=tuple(SHAPES[shape](n) for n in range(size)))
        rows = {}
        if shape == "all due again":
            rows = {step.id: StepFacts("waiting", attempt=1, tries=1, due=0) for step in job.steps}
        facts = Facts(job, seed="r1", deadline_at=10**6, max_parallel=4, steps=rows)
        drive(job, facts, 40)
        counts.append(lines_executed(job, facts, 20))
    assert counts[0] == counts[1]
