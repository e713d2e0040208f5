"""The plan in thousands of random runs, against what must hold whatever happens; and what a turn costs.

`World` plays shim, steps and users: it carries out what was decided, lets things end in random ways and in a
random order, answers questions, cancels, stops, kills the supervisor (a new `Facts` from the rows alone), and
watches the rules.
A seed that fails is a history: run it alone with `-k 'seed-17'`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from agentrun.engine.indices import FAILURES
from agentrun.engine.plan import (
    Answered,
    Ask,
    BudgetSpent,
    CancelWished,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Facts,
    Leave,
    Park,
    Question,
    Settle,
    Start,
    StepFacts,
    StopWished,
    Told,
    Unfold,
    Unfolded,
    Verify,
    decide,
    reopen,
    requeued,
    wake_at,
)
from agentrun.model import TRANSITIONS, Budget, Job, Repeat, Retry, State, Step, instance_name, split_instance


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
                on_interrupt=chance.choice(["rerun", "rerun", "skip", "fail", "verify", "ask"]),  # type: ignore[arg-type]
                foreach=[0] * chance.randint(0, 6) if (shape := chance.random()) < 0.25 else None,
                max_parallel=chance.choice([None, 1, 2]),
                fail_fast=chance.random() < 0.3,
                repeat=Repeat("true", chance.randint(1, 4), chance.choice([0, 700])) if shape > 0.8 else None,
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
        self.answer_rate = self.chance.choice([0.05, 0.5])
        self.doubtful: set[str] = set()  # what was interrupted since anybody looked into it
        self.cancels = 0
        self.used_up = self.exceeded = False
        deadline = self.chance.choice([None, None, 20_000])
        self.facts = Facts(self.job, seed=f"{seed}", deadline_at=deadline, max_parallel=self.chance.choice([1, 2, 8]))
        self.facts.stays = self.chance.random() < 0.2
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
            self.look_through()
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

    def look_through(self) -> None:
        """What holds of the instances of a step at any time."""
        at_work: dict[str, int] = {}
        for name in self.running:
            step, number = split_instance(name)
            at_work[step] = at_work.get(step, 0) + (number >= 0)
        for step in self.job.steps:
            if step.foreach is not None:
                assert at_work.get(step.id, 0) <= (step.max_parallel or 99)
            if step.repeat is not None:
                assert at_work.get(step.id, 0) <= 1, "a round follows the one before"
                assert self.facts.steps[step.id].round <= step.repeat.max

    def carry_out(self, decision: Decision) -> None:
        state_before = self.state_of(decision)
        match decision:
            case Unfold(step):
                self.check_order(self.job.step(step))
                assert self.facts.steps[step].state in ("queued", "running")
            case Ask(step):
                self.check_begin(step, 0)
                self.running[step] = 0
            case Start(step, attempt):
                self.check_begin(step, attempt)
                assert step not in self.doubtful, "it may have been done"
                self.running[step] = attempt
            case Verify(step):
                assert step in self.doubtful and step not in self.running
                assert self.step_of(step).on_interrupt == "verify" and not self.facts.stopping
                self.running[step] = 0
            case Question(step):
                assert step in self.doubtful and step not in self.running
                assert self.step_of(step).on_interrupt in ("verify", "ask")
            case Leave():
                assert not self.running and not self.facts.stays and not self.facts.stopping
                assert any(row.doubt == "ask" for row in self.facts.steps.values())
                assert all(row.due is None for row in self.facts.steps.values())
            case End(step, attempt, cause):
                assert self.running[step] == attempt and step not in self.asked_to_end
                self.asked_to_end[step] = cause
            case Settle(step, outcome):
                assert step not in self.running
                assert outcome != "interrupted"
                assert outcome == "succeeded" or self.facts.steps[step].undecided != Told(step, "took_place", self.now)
                self.doubtful.discard(step)
                assert not any(split_instance(name)[0] == step for name in self.running), "its instances come first"
            case Park(step):
                assert step not in self.running
            case Complete():
                assert not self.running
            case Close():
                assert not self.facts.stopping
        assert self.facts.apply(decision)
        if isinstance(decision, Unfold):
            items = self.job.step(decision.step).foreach
            self.facts.apply(Unfolded(decision.step, range(len(items)), self.now))
        if state_before is not None and (state := self.state_of(decision)) != state_before:
            assert state in TRANSITIONS["step"][state_before]

    def step_of(self, name: str) -> Step:
        return self.job.step(split_instance(name)[0])

    def state_of(self, decision: Decision) -> State | None:
        """None for what is of no step, and for a round that there is not yet."""
        known = self.facts.steps.get(getattr(decision, "step", ""))
        return known.state if known else None

    def check_begin(self, name: str, attempt: int) -> None:
        step_id, number = split_instance(name)
        facts, step = self.facts, self.job.step(step_id)
        known = facts.steps.get(name) or StepFacts()  # a new round
        assert name not in self.running
        self.check_order(step)
        is_until = attempt == 0 and number >= 0 and step.repeat is not None
        if is_until:
            assert known.outcome in ("succeeded", "skipped") and facts.steps[step_id].round == number
            assert facts.steps[step_id].answered == number - 1
        else:
            assert known.state != "finished"
            assert attempt in (0, known.attempt + 1)
            asked = known.asked is not None or (step.repeat is not None and number >= 0)
            assert (attempt == 0) == (step.condition is not None and not asked)
        if step.has_instances:
            assert number >= 0 or (step.repeat and attempt == 0), "a step with instances does nothing itself"
        if step.repeat and number > 1 and attempt:
            before = facts.steps[instance_name(step_id, number - 1)]
            assert before.outcome in ("succeeded", "skipped") and facts.steps[step_id].answered == number - 1
        if known.due is not None:
            assert known.due <= self.now
        if facts.closing is None and attempt and not step.is_handler and self.job.budget.steps is not None:
            assert facts.started < self.job.budget.steps

    def check_order(self, step: Step) -> None:
        facts = self.facts
        assert not facts.stopping
        assert all(facts.steps[need].state == "finished" for need in step.needs)
        failed = any(facts.steps[above].has_failed for above in self.ancestors[step.id])
        closing = facts.closing
        if closing is None:
            assert {"on_success": not failed, "on_failure": failed, "always": True}[step.when]
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
        elif self.chance.random() < self.wish_rate / 3:
            self.exceeded = self.exceeded or self.chance.random() < 0.5
            self.used_up = True
            self.facts.apply(BudgetSpent(self.exceeded, self.now))
        elif self.chance.random() < self.kill_rate:
            self.new_supervisor()
        for step in [name for name, row in self.facts.steps.items() if row.doubt == "ask"]:
            if self.chance.random() < self.answer_rate:
                self.doubtful.discard(step)
                assert self.facts.apply(Told(step, self.chance.choice(["took_place", "rerun"]), self.now))
        for step in self.chance.sample(sorted(self.running), min(len(self.running), self.chance.choice([1, 1, 3]))):
            self.end(step)
        wake = wake_at(self.facts)
        if not self.running and wake is not None:
            self.now = wake
        self.now += self.chance.choice([0, 1, 500])
        if self.facts.parked and wake is not None and self.now >= wake:
            self.new_supervisor()

    def end(self, step: str) -> None:
        attempt = self.running.pop(step)
        cause = self.asked_to_end.pop(step, None)
        if attempt == 0 and step in self.doubtful:
            answer = self.chance.choice([0, 1, 1, 2, None]) if cause is None else self.chance.choice([None, 143, 1, 0])
            assert self.facts.apply(Answered(step, answer, self.now))
            if answer == 1:
                self.doubtful.discard(step)
            return
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
                "fail_fast": end._replace(outcome="cancelled", reason="fail_fast"),
                "budget": end._replace(outcome="over_budget", reason="budget"),
            }[cause]
        elif self.chance.random() < self.loss_rate:
            end = end._replace(outcome="interrupted")
        elif self.chance.random() < self.failure_rate:
            after = self.chance.choice([None, None, 700])
            end = end._replace(outcome="failed", exit_code=1, causes=("1",), retry_after=after)
        if end.outcome == "interrupted" and self.step_of(step).on_interrupt in ("verify", "ask"):
            self.doubtful.add(step)
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
        self.facts.stays = old.stays
        for _ in range(self.cancels):
            self.facts.apply(CancelWished(self.now))
        if self.used_up:
            self.facts.apply(BudgetSpent(self.exceeded, self.now))
        if old.closing:
            self.facts.apply(old.closing._replace(final=None))
        self.facts.completed = old.completed
        self.asked_to_end.clear()

    def go(self) -> None:
        for _ in range(3000):
            self.take_turn()
            if self.facts.completed is not None:
                return
            assert self.running or self.facts.asking or wake_at(self.facts) is not None, "stuck"
            self.something_happens()
        raise AssertionError("a run without an end")


def check_outcomes(world: World, kept: Iterable[str] = ()) -> None:
    """The end of a run, looked at as a whole and without its history. `kept` are steps of an earlier end of it."""
    facts, rows = world.facts, world.facts.steps
    assert all(row.state == "finished" and row.outcome for row in rows.values())
    failed = {step for step, row in rows.items() if row.has_failed and "[" not in step}
    if facts.closing:
        assert facts.completed == facts.closing.outcome
        assert facts.completed != "cancelled" or world.cancels
    elif facts.exceeded:
        assert facts.completed == "over_budget"
    else:
        assert facts.completed == ("failed" if failed else "succeeded")
        for step in (step for step in world.job.steps if step.id not in kept):
            row, failed_above = rows[step.id], bool(failed & world.ancestors[step.id])
            assert (row.reason == "upstream") == (failed_above and step.when == "on_success")
            assert (row.reason == "no_failure") == (not failed_above and step.when == "on_failure")
    for name, row in rows.items():
        step = world.job.step(split_instance(name)[0])
        assert not row.covered or (row.outcome in FAILURES and step.continue_on_error)
        assert row.tries <= step.retry.max_attempts
    for step in world.job.steps:
        check_instances(world, step)


def check_instances(world: World, step: Step) -> None:
    """A step ends as its instances did."""
    own = world.facts.steps[step.id]
    instances = [world.facts.steps[instance_name(step.id, number)] for number in own.instances()]
    if own.outcome == "succeeded":
        assert all(one.outcome in ("succeeded", "skipped") for one in instances)
        assert step.repeat is None or instances
    if own.reason == "instances":
        assert own.outcome == "failed" and any(one.outcome in FAILURES for one in instances)
    if own.reason == "max":
        assert step.repeat is not None and (own.covered or len(instances) >= step.repeat.max)
    if step.fail_fast and any(one.reason == "fail_fast" for one in instances):
        assert any(one.outcome in FAILURES for one in instances)


@pytest.mark.parametrize("tens", range(20), ids=lambda n: f"seed-{n}")
def test_random_runs(tens: int) -> None:
    for seed in range(tens * 25, tens * 25 + 25):
        world = World(seed)
        world.go()
        check_outcomes(world)
        world.take_turn()
        assert decide(world.job, world.facts, world.now + 10**9) == []


def with_more_rounds(job: Job) -> Job:
    """What somebody does whose loop had too few."""
    return replace(
        job,
        steps=tuple(
            replace(step, repeat=replace(step.repeat, max=step.repeat.max + 9)) if step.repeat else step
            for step in job.steps
        ),
    )


@pytest.mark.parametrize("tens", range(6), ids=lambda n: f"seed-{n}")
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
            kept = {step: deepcopy(row) for step, row in rows.items() if step not in again and row.state == "finished"}
            rows = {
                name: requeued(world.job.step(split_instance(name)[0]), row) if name in again else row
                for name, row in rows.items()
            }
            world.cancels, world.used_up, world.exceeded = 0, False, False
            if any(row.reason == "max" for row in world.facts.steps.values()):
                world.job = with_more_rounds(world.job)
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
                if isinstance(decision, Unfold):
                    items = job.step(decision.step).foreach
                    facts.apply(Unfolded(decision.step, range(len(items)), 0))
        name, attempt = facts.at_work(min(set().union(*facts.live.values())))
        until = attempt == 0 and name.endswith("]") and job.step(split_instance(name)[0]).repeat
        happened = Ended(name, attempt, "succeeded", 0) if attempt else Answered(name, 1 if until else 0, 0)
        assert facts.apply(happened)


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


@pytest.mark.parametrize("options", [{}, {"max_parallel": 2}, {"condition": "true"}], ids=str)
def test_a_turn_costs_what_changed_and_not_the_number_of_instances(options: dict[str, Any]) -> None:
    counts = []
    for size in (100, 5000):
        job = Job(name="job", steps=(Step("a", 0, foreach=[0] * size, **options), Step("b", 1, needs=("a",))))
        facts = Facts(job, seed="r1", deadline_at=10**6, max_parallel=4)
        drive(job, facts, 40)
        counts.append(lines_executed(job, facts, 20))
    assert counts[0] == counts[1]


def test_a_round_costs_the_same_whatever_their_number() -> None:
    job = Job(name="job", steps=(Step("a", 0, repeat=Repeat("true", 5000)),))
    facts = Facts(job, seed="r1", deadline_at=None, max_parallel=4)
    drive(job, facts, 40)
    first = lines_executed(job, facts, 20)
    drive(job, facts, 4000)
    assert lines_executed(job, facts, 20) == first
