"""What is known of a run: everything that happened to it, and every decision of the plan, taken in one at a time.

`Facts.apply` keeps books and decides nothing. It moves steps and instances between the indices of `indices.py`, where
the plan finds what is due, ready or to be decided.

After a turn the `StepFacts` alone say everything that matters: a supervisor that stores them with the turn, and
gives them to a new `Facts`, goes on as if nothing had happened. A step or instance that is `running` there with no
process of its own was interrupted: every other end is decided in the turn that learns of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..model import Job, Outcome, instance_name, split_instance
from .history import (
    Answered,
    Ask,
    BudgetSpent,
    CancelWished,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Happened,
    Leave,
    Park,
    Question,
    Settle,
    Start,
    StopWished,
    Told,
    Unfold,
    Unfolded,
    Verify,
)
from .indices import Indices, StepFacts, must_verify
from .instances import Group, is_instance, number_of, place_of, position_of

__all__ = ["CLOSING_LIMIT", "Facts", "StepFacts"]

# ms that handlers may run on once a run is closed, and past a deadline that found only them left
CLOSING_LIMIT = 300_000


class Facts(Indices):
    """All that is known of one run. `seed` (the run's id) makes its jitter; `started` counts its attempts so far.

    `steps` holds the steps and their instances by name. A run that was closed before is told so by
    `apply(Close(...))`, a cancelled one by `apply(CancelWished(...))`. `started_below` counts the attempts of child
    runs. `first_failure` is the first step or instance that failed, for the exit status; of those given to `Facts`,
    by file order. `stays`: somebody counts on the process that advances the run, so that it is never parked.
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
        super().__init__(job, max_parallel, steps or {})
        self.seed, self.deadline_at = seed, deadline_at
        self.started, self.started_below = started, 0
        self.cancels = 0
        self.stopping = self.stays = self.parked = False
        self.unheld = False  # no shim holds the run: nothing can begin
        self.used_up = self.exceeded = False  # a budget of the run other than that of steps
        self.lent: int | None = None  # attempts that the day and the runs that called this one still allow
        self.limit: int | None = None  # when the time of the handlers of a closed run is over
        self.completed: Outcome | None = None

    def load(self, step_id: str, facts: StepFacts) -> None:
        """Replace what is known of one step; `ready_up` makes it count."""
        self.steps[step_id] = facts

    def apply(self, x: Happened | Decision) -> bool:
        """Take in one thing that happened or was decided. False: it changes nothing, because it is not news."""
        return _APPLY[type(x)](self, x)

    # --- what happened ---

    def _ended(self, x: Ended) -> bool:
        place, facts = self._find(x.step)
        if not facts.running or self.at_work(place) != (x.step, x.attempt) or not x.attempt:
            return False
        self._take_off(place, facts, x.at)
        facts.undecided = x
        self.undecided.add(place)
        if x.outcome == "interrupted":
            facts.interruptions += not x.requested
        else:
            facts.interruptions = 0
            facts.tries += x.outcome != "succeeded"
        return True

    def _answered(self, x: Answered) -> bool:
        place = self._asker(x.step)
        facts = self._by_place[place]
        if not facts.running or self.at_work(place) != (x.step, 0):
            return False
        settles = facts.round > 0 or facts.doubt is not None  # an `if` that says go does not
        self._take_off(place, facts, x.at)
        if x.status is not None and (settles or x.status != 0):
            facts.undecided = x
        elif x.status == 0:
            facts.asked = "go"
        self._enter(place, facts)
        return True

    def _told(self, x: Told) -> bool:
        if x.step not in self.steps:
            return False
        place, facts = self._find(x.step)
        if place not in self.asking:
            return False
        self.clock = max(self.clock, x.at)
        self.parked = False
        self._unfile(place)
        facts.undecided = x
        self._enter(place, facts)
        return True

    def _unfolded(self, x: Unfolded) -> bool:
        place, facts = self._find(x.step)
        self.clock = max(self.clock, x.at)
        if x.numbers is None:
            facts.undecided = x
            self.undecided.add(place)
            return True
        facts.numbers, facts.state = x.numbers, "running"
        for number in x.numbers:
            name = instance_name(x.step, number)
            if name not in self.steps:
                self.steps[name] = self._by_place[place + number + 1] = StepFacts()
        self._open_group(place, facts)
        return True

    def _budget_spent(self, x: BudgetSpent) -> bool:
        self.clock = max(self.clock, x.at)
        news = not self.used_up or (x.exceeded and not self.exceeded)
        self.used_up, self.exceeded = True, self.exceeded or x.exceeded
        return news

    def _cancel_wished(self, x: CancelWished) -> bool:
        self.clock = max(self.clock, x.at)
        self.cancels += 1
        self.parked = False
        return True

    def _stop_wished(self, x: StopWished) -> bool:
        self.clock = max(self.clock, x.at)
        news = not self.stopping
        self.stopping = True
        return news

    # --- what was decided ---

    def _unfold(self, x: Unfold) -> bool:
        self._unfile(self._place_of(x.step))
        return True

    def _ask(self, x: Ask) -> bool:
        place = self._asker(x.step)
        facts = self._by_place[place]
        if facts.round:
            facts.state, facts.due = "running", None
        return self._put_on(place, facts)

    def _verify(self, x: Verify) -> bool:
        place, facts = self._find(x.step)
        facts.state, facts.due, facts.undecided, facts.doubt = "running", None, None, "verify"
        return self._put_on(place, facts)

    def _question(self, x: Question) -> bool:
        place, facts = self._find(x.step)
        facts.interruptions = 0  # in a row of those that nobody looked into
        self._wait(place, facts, None, "ask")
        return True

    def _start(self, x: Start) -> bool:
        place = self._place_of(x.step)
        step = self.step_at(place)
        if step.repeat and is_instance(place):
            self._begin_round(place, x.step)
        facts = self._by_place[place]
        facts.state, facts.attempt, facts.due, facts.undecided, facts.doubt = "running", x.attempt, None, None, None
        if not step.is_handler:
            self.started += 1
            self.lent = None if self.lent is None else self.lent - 1
        return self._put_on(place, facts)

    def _park(self, x: Park) -> bool:
        place, facts = self._find(x.step)
        if isinstance(facts.undecided, Answered) and facts.round:  # the `until` of a loop said: again
            facts.answered = facts.round
        answered = isinstance(facts.undecided, (Answered, Told))
        doubt: Literal["verify"] | None = "verify" if not answered and must_verify(self.step_at(place), facts) else None
        self._wait(place, facts, x.until, doubt)
        return True

    def _wait(
        self, place: int, facts: StepFacts, until: int | None, doubt: Literal["verify", "ask"] | None
    ) -> None:
        """Until then, or for an answer; another instance may have its place meanwhile."""
        facts.state, facts.due, facts.doubt, facts.undecided = "waiting", until, doubt, None
        self.undecided.discard(place)
        if is_instance(place):
            self.groups[position_of(place)].active.discard(place)
        self._enter(place, facts)
        if is_instance(place):
            self._feed(position_of(place))

    def _settle(self, x: Settle) -> bool:
        place, facts = self._find(x.step)
        facts.state, facts.outcome, facts.reason, facts.covered = "finished", x.outcome, x.reason, x.covered
        facts.due, facts.undecided, facts.doubt = None, None, None
        self.cut_short |= x.outcome == "over_budget" and x.reason == "budget"
        self.done |= x.outcome == "succeeded" and x.reason == "done"
        self._unfile(place)
        self._note_failure(place, facts)
        if is_instance(place):
            self._instance_settled(place, facts)
            return True
        position = position_of(place)
        self.groups.pop(position, None)
        self.halted.discard(position)
        self.open_steps -= 1
        self.open_work -= not self.step_at(place).is_handler
        for dependent in self._needed_by[position]:
            self._needs_left[dependent] -= 1
            if self._needs_left[dependent] == 0 and place_of(dependent) in self.idle[self.job.steps[dependent].when]:
                self._file(place_of(dependent))
        return True

    def _end(self, x: End) -> bool:
        place = self._asker(x.step) if x.attempt == 0 else self._place_of(x.step)
        self._by_place[place].ending = x.cause
        self.live[self.step_at(place).when].discard(place)
        self.ending.add(place)
        return True

    def _close(self, x: Close) -> bool:
        self.clock = max(self.clock, x.at)
        draining = x.outcome == "over_budget" and self.live["on_success"]  # what runs may finish first, however long
        self.limit = None if draining or x.final else x.at + CLOSING_LIMIT
        self.closing = x
        for place in list(self.unwanted):  # what a handler waits for may have just come
            self._file(place)
        return True

    def _leave(self, x: Leave) -> bool:
        self.parked = True
        return True

    def _complete(self, x: Complete) -> bool:
        self.completed = x.outcome
        return True

    # --- instances ---

    def _begin_round(self, place: int, name: str) -> None:
        loop = place_of(position_of(place))
        facts = self._by_place[loop]
        self._unfile(loop)
        facts.state, facts.due, facts.round = "running", None, number_of(place)
        if name not in self.steps:
            self.steps[name] = self._by_place[place] = StepFacts()
        group = self.groups[position_of(place)] = Group(1)
        group.open = 1
        left = self.reopened.get(position_of(place), [])
        if name in left:
            left.remove(name)

    def _instance_settled(self, place: int, facts: StepFacts) -> None:
        position = position_of(place)
        group = self.groups.get(position)
        if group is None:
            return  # of a step that was reopened, and is over before it got to it
        group.active.discard(place)
        group.open -= 1
        self._count(group, place, facts)
        if group.open:
            self._feed(position)
        else:
            step = place_of(position)
            self._gather(step, self._by_place[step])


def left_running(job: Job, facts: Facts) -> set[tuple[str, int]]:
    """The ended attempts whose background processes may outlive the run."""
    lasting = {step.id for step in job.steps if step.leave_running}
    if not lasting:
        return set()
    return {
        (name, known.attempt)
        for name, known in facts.steps.items()
        if known.state == "finished" and split_instance(name)[0] in lasting
    }


_APPLY: Mapping[type, Callable[[Facts, Any], bool]] = {
    Ended: Facts._ended,
    Answered: Facts._answered,
    Told: Facts._told,
    Unfolded: Facts._unfolded,
    BudgetSpent: Facts._budget_spent,
    CancelWished: Facts._cancel_wished,
    StopWished: Facts._stop_wished,
    Unfold: Facts._unfold,
    Ask: Facts._ask,
    Verify: Facts._verify,
    Question: Facts._question,
    Start: Facts._start,
    Park: Facts._park,
    Settle: Facts._settle,
    End: Facts._end,
    Close: Facts._close,
    Leave: Facts._leave,
    Complete: Facts._complete,
}
