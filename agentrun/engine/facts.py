"""What is known of a run, and the indices that let the plan decide a turn in the time of what changed.

`Facts.apply` takes in everything that happened (`Ended`, `Answered`, `CancelWished`, `StopWished`) and every
decision of the plan (`Ask` ... `Complete`), one at a time. It keeps books and decides nothing, but for one
thing: a step whose needs are all settled is filed as `ready` or as `unwanted`, by its `when`.

A step that is not settled stands in exactly one of three places:
    idle[when]   nothing of it runs; in `ready` (file order) if it may begin, in the `due` heap if it waits
    live[when]   its attempt or its `if` runs; in `ending` instead once it was told to end
    undecided    its attempt or its `if` has ended, and the plan has not yet said what follows
They are kept by `when` because that is what the end of a run tells apart. Every index holds positions in the
file; those in `ready` are negative and ascending, so that the next step to begin is the last of the list.

After a turn the `StepFacts` alone say everything that matters of a step: a supervisor that stores them with
the turn, and gives them to a new `Facts`, goes on as if nothing had happened. A step that is `running` there
with no process of its own was interrupted: every other end is decided in the turn that learns of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Literal

from ..model import Job, Outcome, Reason, State, Step, When
from .history import (
    Answered,
    Ask,
    CancelWished,
    Cause,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Happened,
    Park,
    Settle,
    Start,
    StopWished,
)

# How long handlers may run on once a run is closed, and past a deadline that found only them left.
CLOSING_LIMIT = 300_000
FAILURES: frozenset[Outcome] = frozenset({"failed", "timed_out", "over_budget"})


@dataclass(slots=True)
class StepFacts:
    """What is known of one step.

    `attempt` numbers the last attempt begun; `tries` are the failed ones since the step was created or reopened,
    `interruptions` the unrequested ones in a row. `running`: its attempt, or its `if` while that is unanswered,
    has a process. `due`: when it may be tried again. `ending`: what it was told to end for.
    """

    state: State = "queued"
    outcome: Outcome | None = None
    reason: Reason | None = None
    covered: bool = False
    attempt: int = 0
    tries: int = 0
    interruptions: int = 0
    due: int | None = None
    asked: Literal["go"] | None = None
    running: bool = False
    ending: Cause | None = None
    undecided: Ended | Answered | None = None

    @property
    def has_failed(self) -> bool:
        """True if it is finished in a way that its descendants have to know of."""
        return self.outcome in FAILURES and not self.covered


def must_ask(step: Step, facts: StepFacts) -> bool:
    """True if the step's `if` has to be answered before its first attempt."""
    return step.condition is not None and facts.asked is None


class Facts:
    """All that is known of one run. `seed` (the run's id) makes its jitter; `started` counts its attempts so far.

    A run that was closed before is told so by `apply(Close(...))`, a cancelled one by `apply(CancelWished(...))`.
    `first_failure` is the first step that failed, for the exit status; of steps given to `Facts`, by file order.
    """

    def __init__(
        self,
        job: Job,
        *,
        seed: str,
        deadline_at: int | None,
        max_parallel: int,
        started: int = 0,
        steps: Mapping[str, StepFacts] | None = None,
    ) -> None:
        self.job, self.seed, self.deadline_at = job, seed, deadline_at
        self.max_parallel, self.started = max_parallel, started
        known = steps or {}
        self.steps: dict[str, StepFacts] = {step.id: known.get(step.id) or StepFacts() for step in job.steps}
        self.cancels = 0
        self.stopping = False
        self.closing: Close | None = None
        self.limit: int | None = None  # when the time of the handlers of a closed run is over
        self.completed: Outcome | None = None
        self.first_failure: str | None = None
        self.clock = 0  # the latest time that anything was said to have happened
        self._position = {step.id: position for position, step in enumerate(job.steps)}
        self._needed_by: list[list[int]] = [[] for _ in job.steps]
        for position, step in enumerate(job.steps):
            for need in step.needs:
                self._needed_by[self._position[need]].append(position)
        self.ready_up()

    def load(self, step_id: str, facts: StepFacts) -> None:
        """Replace what is known of one step; `ready_up` makes it count."""
        self.steps[step_id] = facts

    def ready_up(self) -> None:
        """Build the indices from the facts of the steps. The only thing here that looks at every step."""
        self._by_position = list(self.steps.values())
        self.ready: list[int] = []
        self.due: list[tuple[int, int]] = []
        self.undecided: set[int] = set()
        self.unwanted: set[int] = set()
        self.idle: dict[When, set[int]] = {"on_success": set(), "on_failure": set(), "always": set()}
        self.live: dict[When, set[int]] = {"on_success": set(), "on_failure": set(), "always": set()}
        self.ending: set[int] = set()
        self.slots_used = self.open_steps = self.open_work = 0
        self._failed_above = bytearray(len(self._by_position))
        self._needs_left = [0] * len(self._by_position)
        for position, facts in enumerate(self._by_position):
            if facts.state == "finished":
                if facts.outcome != "succeeded" or self._failed_above[position]:
                    self._note_failure(position, facts)
            else:
                self.open_steps += 1
                self.open_work += not self.step_at(position).is_handler
                for dependent in self._needed_by[position]:
                    self._needs_left[dependent] += 1
        for position in range(len(self._by_position) - 1, -1, -1):  # so that `ready` grows at its end
            if self._by_position[position].state != "finished":
                self._place(position, self._by_position[position])

    def apply(self, x: Happened | Decision) -> bool:
        """Take in one thing that happened or was decided. False: it changes nothing, because it is not news."""
        return _APPLY[type(x)](self, x)

    def running(self) -> list[tuple[str, int]]:
        """What has a process now: the step and its attempt, 0 for its `if`."""
        return [
            (step.id, 0 if must_ask(step, known) else known.attempt)
            for step, known in zip(self.job.steps, self._by_position, strict=True)
            if known.running
        ]

    def step_at(self, position: int) -> Step:
        return self.job.steps[position]

    def facts_at(self, position: int) -> StepFacts:
        return self._by_position[position]

    def first_ready(self, count: int) -> list[int]:
        """The positions of the first steps, in file order, that may begin."""
        return [-key for key in reversed(self.ready[-count:])] if count > 0 else []

    def ripen(self, now: int) -> None:
        """File the steps whose time has come among the ready ones: moves between indices, and changes no fact."""
        while (first := self.next_due()) is not None and first <= now:
            self._file(heappop(self.due)[1])

    def next_due(self) -> int | None:
        """When the first waiting step may go on."""
        while self.due and self._by_position[self.due[0][1]].due != self.due[0][0]:
            heappop(self.due)
        return self.due[0][0] if self.due else None

    def _ended(self, x: Ended) -> bool:
        position, facts = self._find(x.step)
        if not facts.running or facts.attempt != x.attempt or must_ask(self.step_at(position), facts):
            return False
        self._take_off(position, facts, x.at)
        facts.undecided = x
        self.undecided.add(position)
        if x.outcome == "interrupted":
            facts.interruptions += not x.requested
        else:
            facts.interruptions = 0
            facts.tries += x.outcome != "succeeded"
        return True

    def _answered(self, x: Answered) -> bool:
        position, facts = self._find(x.step)
        if not facts.running or not must_ask(self.step_at(position), facts):
            return False
        self._take_off(position, facts, x.at)
        if x.status == 0:
            facts.asked = "go"
        elif x.status is not None:
            facts.undecided = x
        self._place(position, facts)
        return True

    def _cancel_wished(self, x: CancelWished) -> bool:
        self.clock = max(self.clock, x.at)
        self.cancels += 1
        return True

    def _stop_wished(self, x: StopWished) -> bool:
        self.clock = max(self.clock, x.at)
        news = not self.stopping
        self.stopping = True
        return news

    def _ask(self, x: Ask) -> bool:
        return self._put_on(*self._find(x.step))

    def _start(self, x: Start) -> bool:
        position, facts = self._find(x.step)
        facts.state, facts.attempt, facts.due, facts.undecided = "running", x.attempt, None, None
        self.started += not self.step_at(position).is_handler
        return self._put_on(position, facts)

    def _park(self, x: Park) -> bool:
        position, facts = self._find(x.step)
        facts.state, facts.due, facts.undecided = "waiting", x.until, None
        self.undecided.discard(position)
        self._place(position, facts)
        return True

    def _settle(self, x: Settle) -> bool:
        position, facts = self._find(x.step)
        facts.state, facts.outcome, facts.reason, facts.covered = "finished", x.outcome, x.reason, x.covered
        facts.due, facts.undecided = None, None
        self._unfile(position)
        self.open_steps -= 1
        self.open_work -= not self.step_at(position).is_handler
        self._note_failure(position, facts)
        for dependent in self._needed_by[position]:
            self._needs_left[dependent] -= 1
            if self._needs_left[dependent] == 0 and dependent in self.idle[self.step_at(dependent).when]:
                self._file(dependent)
        return True

    def _end(self, x: End) -> bool:
        position, facts = self._find(x.step)
        facts.ending = x.cause
        self.live[self.step_at(position).when].discard(position)
        self.ending.add(position)
        return True

    def _close(self, x: Close) -> bool:
        self.clock = max(self.clock, x.at)
        draining = x.outcome == "over_budget" and self.live["on_success"]  # what runs may finish first, however long
        self.limit = None if draining or x.final else x.at + CLOSING_LIMIT
        self.closing = x
        for position in list(self.unwanted):  # what a handler waits for may have just come
            self._file(position)
        return True

    def _complete(self, x: Complete) -> bool:
        self.completed = x.outcome
        return True

    def _find(self, step_id: str) -> tuple[int, StepFacts]:
        position = self._position[step_id]
        return position, self._by_position[position]

    def _place(self, position: int, facts: StepFacts) -> None:
        """Enter a step that is not settled into its indices."""
        step = self.step_at(position)
        if facts.running:
            self._put_on(position, facts)
            return
        if facts.state == "running" and facts.undecided is None:
            facts.undecided = Ended(step.id, facts.attempt, "interrupted", self.clock, requested=True)
        if facts.undecided is not None:
            self.undecided.add(position)
            return
        self.idle[step.when].add(position)
        if facts.due is not None:
            heappush(self.due, (facts.due, position))
        elif self._needs_left[position] == 0:
            self._file(position)

    def _file(self, position: int) -> None:
        """File an idle step that nothing holds back: ready to begin, or unwanted by its `when`."""
        self.unwanted.discard(position)
        if self._is_wanted(self.step_at(position), bool(self._failed_above[position])):
            insort(self.ready, -position)
        else:
            self.unwanted.add(position)

    def _is_wanted(self, step: Step, failed_above: bool) -> bool:
        """`when` looks at all ancestors. A deadline or a budget is a failure that every handler looks after."""
        if step.when == "on_success":
            return not failed_above
        return step.when == "always" or failed_above or self.closing is not None

    def _unfile(self, position: int) -> None:
        """Take a step out of every index of those that have no process."""
        self.undecided.discard(position)
        self.unwanted.discard(position)
        self.idle[self.step_at(position).when].discard(position)
        place = bisect_left(self.ready, -position)
        if place < len(self.ready) and self.ready[place] == -position:
            del self.ready[place]

    def _put_on(self, position: int, facts: StepFacts) -> bool:
        """A process of this step runs now, and takes a slot."""
        self._unfile(position)
        facts.running = True
        self.slots_used += 1
        (self.ending if facts.ending else self.live[self.step_at(position).when]).add(position)
        return True

    def _take_off(self, position: int, facts: StepFacts, at: int) -> None:
        """The process of this step is gone, and its slot is free."""
        self.clock = max(self.clock, at)
        facts.running, facts.ending = False, None
        self.slots_used -= 1
        self.live[self.step_at(position).when].discard(position)
        self.ending.discard(position)

    def _note_failure(self, position: int, facts: StepFacts) -> None:
        """Let all descendants know of a failure; through those that are settled as well."""
        if facts.has_failed and self.first_failure is None:
            self.first_failure = self.step_at(position).id
        spreading = [position] if facts.has_failed or self._failed_above[position] else []
        while spreading:
            for dependent in self._needed_by[spreading.pop()]:
                if not self._failed_above[dependent]:
                    self._failed_above[dependent] = True
                    if self._by_position[dependent].state == "finished":
                        spreading.append(dependent)


_APPLY: Mapping[type, Callable[[Facts, Any], bool]] = {
    Ended: Facts._ended,
    Answered: Facts._answered,
    CancelWished: Facts._cancel_wished,
    StopWished: Facts._stop_wished,
    Ask: Facts._ask,
    Start: Facts._start,
    Park: Facts._park,
    Settle: Facts._settle,
    End: Facts._end,
    Close: Facts._close,
    Complete: Facts._complete,
}
