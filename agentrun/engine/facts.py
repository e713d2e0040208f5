"""What is known of a run, and the indices that let the plan decide a turn in the time of what changed.

`Facts.apply` takes in everything that happened (`Ended` ... `StopWished`) and every decision of the plan
(`Unfold` ... `Complete`), one at a time. It keeps books and decides nothing, but for one thing: a step whose needs
are all settled is filed as `ready` or as `unwanted`, by its `when`.

What is not settled stands in exactly one of four places:
    idle[when]   nothing of it runs; in `ready` (file order) if it may begin, in the `due` heap if it waits
    live[when]   its attempt or its condition runs; in `ending` instead once it was told to end
    undecided    its attempt, its condition or its last instance has ended, and the plan has not yet said what follows
    groups       a step whose instances are at work, or whose list is being found out: nothing to do but to wait for
They are kept by `when` because that is what the end of a run tells apart. Every index holds places
(`instances.py`); those in `ready` are negative and ascending, so that the next to begin is the last of the list.

After a turn the `StepFacts` alone say everything that matters: a supervisor that stores them with the turn, and
gives them to a new `Facts`, goes on as if nothing had happened. A step or instance that is `running` there with no
process of its own was interrupted: every other end is decided in the turn that learns of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Literal

from ..model import Job, Outcome, Reason, State, Step, When, instance_name, split_instance
from .history import (
    Answered,
    Ask,
    BudgetSpent,
    CancelWished,
    Cause,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Gathered,
    Happened,
    Park,
    Settle,
    Start,
    StopWished,
    Unfold,
    Unfolded,
)
from .instances import Group, is_instance, number_of, place_of, position_of

# How long handlers may run on once a run is closed, and past a deadline that found only them left.
CLOSING_LIMIT = 300_000
FAILURES: frozenset[Outcome] = frozenset({"failed", "timed_out", "over_budget"})
# An instance that ended for one of these was kept from its end by that of the run.
RUN_ENDS: Mapping[Reason, Cause] = {"cancel": "cancel", "deadline": "deadline", "budget": "budget"}


@dataclass(slots=True)
class StepFacts:
    """What is known of one step, or of one instance.

    `attempt` numbers the last attempt begun; `tries` are the failed ones since the step was created or reopened,
    `interruptions` the unrequested ones in a row. `running`: its attempt, or its condition while that is unanswered,
    has a process. `due`: when it may be tried again. `ending`: what it was told to end for.

    Of a step with `foreach`: `numbers` are those of its instances, once its list is known. With `repeat`: `round` is
    the last round begun, `answered` the last one whose `until` said: again.
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
    undecided: Ended | Answered | Unfolded | Gathered | None = None
    numbers: Sequence[int] | None = None
    round: int = 0
    answered: int = 0

    @property
    def has_failed(self) -> bool:
        """True if it is finished in a way that its descendants have to know of."""
        return self.outcome in FAILURES and not self.covered

    def instances(self) -> Sequence[int]:
        """The numbers of the instances that there are."""
        return range(1, self.round + 1) if self.round else self.numbers or ()


def must_ask(step: Step, facts: StepFacts) -> bool:
    """True if the `if` has to be answered before the first attempt."""
    return step.condition is not None and facts.asked is None


class Facts:
    """All that is known of one run. `seed` (the run's id) makes its jitter; `started` counts its attempts so far.

    `steps` holds the steps and their instances by name. A run that was closed before is told so by
    `apply(Close(...))`, a cancelled one by `apply(CancelWished(...))`. `started_below` counts the attempts of child
    runs. `first_failure` is the first step or instance that failed, for the exit status; of those given to `Facts`,
    by file order.
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
        self.max_parallel, self.started, self.started_below = max_parallel, started, 0
        self._position = {step.id: position for position, step in enumerate(job.steps)}
        known = steps or {}
        self.steps: dict[str, StepFacts] = {}
        for step in job.steps:
            facts = self.steps[step.id] = known.get(step.id) or StepFacts()
            if step.has_instances:
                for number in facts.instances():
                    name = instance_name(step.id, number)
                    self.steps[name] = known.get(name) or StepFacts()
        self.steps.update((name, facts) for name, facts in known.items() if name not in self.steps)
        self.cancels = 0
        self.stopping = False
        self.used_up = self.exceeded = False  # a budget of the run other than that of steps
        self.closing: Close | None = None
        self.limit: int | None = None  # when the time of the handlers of a closed run is over
        self.completed: Outcome | None = None
        self.first_failure: str | None = None
        self.clock = 0  # the latest time that anything was said to have happened
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
        self._by_place = {self._place_of(name): facts for name, facts in self.steps.items()}
        self.ready: list[int] = []
        self.due: list[tuple[int, int]] = []
        self.undecided: set[int] = set()
        self.unwanted: set[int] = set()
        self.idle: dict[When, set[int]] = {"on_success": set(), "on_failure": set(), "always": set()}
        self.live: dict[When, set[int]] = {"on_success": set(), "on_failure": set(), "always": set()}
        self.ending: set[int] = set()
        self.groups: dict[int, Group] = {}
        self.halted: set[int] = set()  # positions of those of which an instance failed, and that say fail_fast
        self.slots_used = self.open_steps = self.open_work = 0
        count = len(self.job.steps)
        self._failed_above = bytearray(count)
        self._needs_left = [0] * count
        for position in range(count):
            facts = self._by_place[place_of(position)]
            if facts.state == "finished":
                if facts.outcome != "succeeded" or self._failed_above[position]:
                    self._note_failure(place_of(position), facts)
            else:
                self.open_steps += 1
                self.open_work += not self.job.steps[position].is_handler
                for dependent in self._needed_by[position]:
                    self._needs_left[dependent] += 1
        for position in range(count - 1, -1, -1):  # so that `ready` grows at its end
            facts = self._by_place[place_of(position)]
            if facts.state != "finished":
                self._enter(place_of(position), facts)

    def apply(self, x: Happened | Decision) -> bool:
        """Take in one thing that happened or was decided. False: it changes nothing, because it is not news."""
        return _APPLY[type(x)](self, x)

    def running(self) -> list[tuple[str, int]]:
        """What has a process now: the step or instance and its attempt, 0 for a condition."""
        return [self.at_work(place) for place, known in sorted(self._by_place.items()) if known.running]

    # --- what the plan asks ---

    def step_at(self, place: int) -> Step:
        """The step that has this place, or an instance there."""
        return self.job.steps[place >> 24]

    def facts_at(self, place: int) -> StepFacts:
        return self._by_place[place]

    def name_at(self, place: int) -> str:
        return instance_name(self.step_at(place).id, number_of(place))

    def at_work(self, place: int) -> tuple[str, int]:
        """By what name its process goes, and as what attempt: an `until` goes by the name of its round."""
        known = self._by_place[place]
        if self._is_loop(place) and known.round:
            return instance_name(self.step_at(place).id, known.round), 0
        return self.name_at(place), 0 if self._asks(place, known) else known.attempt

    def knows(self, name: str, attempt: int) -> bool:
        """Whether this is an attempt, or a condition, that has a process now."""
        if name not in self.steps:
            return False
        place = self._asker(name) if attempt == 0 else self._place_of(name)
        return self._by_place[place].running and self.at_work(place) == (name, attempt)

    def next_at(self, place: int) -> tuple[str, int]:
        """What begins next there: by what name, and as what attempt; 0 for a condition."""
        known = self._by_place[place]
        if not self._is_loop(place) or (not known.round and self._asks(place, known)):
            return self.name_at(place), 0 if self._asks(place, known) else known.attempt + 1
        name = instance_name(self.step_at(place).id, known.round)
        if known.round and self.steps[name].state != "finished":  # reopened
            return name, self.steps[name].attempt + 1
        if known.round > known.answered:
            return name, 0
        name = instance_name(self.step_at(place).id, known.round + 1)
        return name, self.steps[name].attempt + 1 if name in self.steps else 1

    def is_folded(self, place: int) -> bool:
        """Whether it is a step with `foreach` whose instances are not at work."""
        return not is_instance(place) and self.step_at(place).foreach is not None

    def is_halted(self, place: int) -> bool:
        """Whether the failure of another instance keeps this one from going on (`fail_fast`)."""
        return is_instance(place) and position_of(place) in self.halted

    def first_ready(self, count: int) -> list[int]:
        """The places of the first, in file order, that may begin."""
        return [-key for key in reversed(self.ready[-count:])] if count > 0 else []

    def ripen(self, now: int) -> None:
        """File the steps whose time has come among the ready ones: moves between indices, and changes no fact."""
        while (first := self.next_due()) is not None and first <= now:
            self._file(heappop(self.due)[1])

    def next_due(self) -> int | None:
        """When the first waiting step may go on."""
        while self.due and self._by_place[self.due[0][1]].due != self.due[0][0]:
            heappop(self.due)
        return self.due[0][0] if self.due else None

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
        until = facts.round > 0
        self._take_off(place, facts, x.at)
        if x.status is not None and (until or x.status != 0):
            facts.undecided = x
        elif x.status == 0:
            facts.asked = "go"
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

    def _start(self, x: Start) -> bool:
        place = self._place_of(x.step)
        step = self.step_at(place)
        if step.repeat and is_instance(place):
            self._begin_round(place, x.step)
        facts = self._by_place[place]
        facts.state, facts.attempt, facts.due, facts.undecided = "running", x.attempt, None, None
        self.started += not step.is_handler
        return self._put_on(place, facts)

    def _park(self, x: Park) -> bool:
        place, facts = self._find(x.step)
        facts.state, facts.due = "waiting", x.until
        if isinstance(facts.undecided, Answered):  # the `until` of a loop said: again
            facts.answered = facts.round
        facts.undecided = None
        self.undecided.discard(place)
        if is_instance(place):
            self.groups[position_of(place)].active.discard(place)
        self._enter(place, facts)
        if is_instance(place):
            self._feed(position_of(place))
        return True

    def _settle(self, x: Settle) -> bool:
        place, facts = self._find(x.step)
        facts.state, facts.outcome, facts.reason, facts.covered = "finished", x.outcome, x.reason, x.covered
        facts.due, facts.undecided = None, None
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

    def _complete(self, x: Complete) -> bool:
        self.completed = x.outcome
        return True

    # --- instances ---

    def _is_loop(self, place: int) -> bool:
        return not is_instance(place) and self.step_at(place).repeat is not None

    def _asks(self, place: int, known: StepFacts) -> bool:
        step = self.step_at(place)
        return must_ask(step, known) and not (step.repeat and is_instance(place))  # asked once, before the rounds

    def _asker(self, name: str) -> int:
        """Whose condition goes by this name: that of a round is the loop's `until`."""
        place = self._place_of(name)
        return place_of(position_of(place)) if self.step_at(place).repeat else place

    def _open_group(self, place: int, facts: StepFacts) -> None:
        """Enter the instances of a step that are not settled; if there are none, say so."""
        step, position = self.step_at(place), position_of(place)
        window = 1 if step.repeat else min(step.max_parallel or self.max_parallel, self.max_parallel)
        group = self.groups[position] = Group(window)
        waiting: list[tuple[int, StepFacts]] = []
        for number in facts.instances():
            at = place + number + 1
            known = self._by_place[at]
            if known.state == "finished":
                self._count(group, at, known)
            else:
                group.open += 1
                waiting.append((at, known))
        for at, known in waiting:
            self._enter(at, known)
        if not group.open:
            self._gather(place, facts)

    def _begin_round(self, place: int, name: str) -> None:
        loop = place_of(position_of(place))
        facts = self._by_place[loop]
        self._unfile(loop)
        facts.state, facts.due, facts.round = "running", None, number_of(place)
        if name not in self.steps:
            self.steps[name] = self._by_place[place] = StepFacts()
        group = self.groups[position_of(place)] = Group(1)
        group.open = 1

    def _instance_settled(self, place: int, facts: StepFacts) -> None:
        position = position_of(place)
        group = self.groups[position]
        group.active.discard(place)
        group.open -= 1
        self._count(group, place, facts)
        if group.open:
            self._feed(position)
        else:
            step = place_of(position)
            self._gather(step, self._by_place[step])

    def _count(self, group: Group, place: int, facts: StepFacts) -> None:
        if facts.reason in RUN_ENDS:
            group.cut = True
        elif facts.outcome in FAILURES:
            group.failed = True
            if self.step_at(place).fail_fast:
                self.halted.add(position_of(place))

    def _gather(self, place: int, facts: StepFacts) -> None:
        """The last instance is settled. A round that succeeded is followed by the `until`."""
        group = self.groups[position_of(place)]
        if self._is_loop(place) and not group.failed and not group.cut:
            facts.state = "running"
            self.idle[self.step_at(place).when].add(place)
            self._file(place)
            return
        facts.undecided = Gathered(self.step_at(place).id, group.failed, group.cut)
        self.undecided.add(place)

    def _feed(self, position: int) -> None:
        """Let instances in as long as there is room for them."""
        group = self.groups[position]
        idle = self.idle[self.job.steps[position].when]
        while (place := group.admit()) is not None:
            if place in idle and self._by_place[place].state != "finished":
                insort(self.ready, -place)
            else:
                group.active.discard(place)

    # --- the indices ---

    def _place_of(self, name: str) -> int:
        step, number = split_instance(name)
        return place_of(self._position[step], number)

    def _find(self, name: str) -> tuple[int, StepFacts]:
        place = self._place_of(name)
        return place, self._by_place[place]

    def _enter(self, place: int, facts: StepFacts) -> None:
        """Enter what is not settled into its indices."""
        step = self.step_at(place)
        if facts.running:
            self._put_on(place, facts)
            return
        if not is_instance(place) and step.has_instances:
            if facts.state != "queued" and facts.due is None and facts.undecided is None and facts.instances():
                self._open_group(place, facts)
                return
        elif facts.state == "running" and facts.undecided is None:
            facts.undecided = Ended(self.name_at(place), facts.attempt, "interrupted", self.clock, requested=True)
        if facts.undecided is not None:
            self.undecided.add(place)
            if is_instance(place):
                self.groups[position_of(place)].active.add(place)
            return
        self.idle[step.when].add(place)
        if facts.due is not None:
            heappush(self.due, (facts.due, place))
        elif is_instance(place) or self._needs_left[position_of(place)] == 0:
            self._file(place)

    def _file(self, place: int) -> None:
        """File an idle step or instance that nothing holds back: ready to begin, or unwanted by its `when`."""
        if is_instance(place) and not self.step_at(place).repeat:
            group = self.groups[position_of(place)]
            if place not in group.active:
                group.wait(place)
                self._feed(position_of(place))
                return
        self.unwanted.discard(place)
        if is_instance(place) or self._is_wanted(self.step_at(place), bool(self._failed_above[position_of(place)])):
            insort(self.ready, -place)
        else:
            self.unwanted.add(place)

    def _is_wanted(self, step: Step, failed_above: bool) -> bool:
        """`when` looks at all ancestors. A deadline or a budget is a failure that every handler looks after."""
        if step.when == "on_success":
            return not failed_above
        return step.when == "always" or failed_above or self.closing is not None

    def _unfile(self, place: int) -> None:
        """Take it out of every index of those that have no process."""
        self.undecided.discard(place)
        self.unwanted.discard(place)
        self.idle[self.step_at(place).when].discard(place)
        at = bisect_left(self.ready, -place)
        if at < len(self.ready) and self.ready[at] == -place:
            del self.ready[at]

    def _put_on(self, place: int, facts: StepFacts) -> bool:
        """A process of it runs now, and takes a slot."""
        self._unfile(place)
        facts.running = True
        self.slots_used += 1
        (self.ending if facts.ending else self.live[self.step_at(place).when]).add(place)
        if is_instance(place):
            self.groups[position_of(place)].active.add(place)
        return True

    def _take_off(self, place: int, facts: StepFacts, at: int) -> None:
        """The process is gone, and its slot is free."""
        self.clock = max(self.clock, at)
        facts.running, facts.ending = False, None
        self.slots_used -= 1
        self.live[self.step_at(place).when].discard(place)
        self.ending.discard(place)

    def _note_failure(self, place: int, facts: StepFacts) -> None:
        """Let all descendants know of a failure; through those that are settled as well."""
        if facts.has_failed and self.first_failure is None:
            self.first_failure = self._first_of(place)
        if is_instance(place):
            return
        position = position_of(place)
        spreading = [position] if facts.has_failed or self._failed_above[position] else []
        while spreading:
            for dependent in self._needed_by[spreading.pop()]:
                if not self._failed_above[dependent]:
                    self._failed_above[dependent] = True
                    if self._by_place[place_of(dependent)].state == "finished":
                        spreading.append(dependent)

    def _first_of(self, place: int) -> str:
        """Of a step that failed because of an instance: that one."""
        name = self.name_at(place)
        if self._by_place[place].reason != "instances":
            return name
        instances = (instance_name(name, number) for number in self._by_place[place].instances())
        return next((one for one in instances if self.steps[one].has_failed), name)


_APPLY: Mapping[type, Callable[[Facts, Any], bool]] = {
    Ended: Facts._ended,
    Answered: Facts._answered,
    Unfolded: Facts._unfolded,
    BudgetSpent: Facts._budget_spent,
    CancelWished: Facts._cancel_wished,
    StopWished: Facts._stop_wished,
    Unfold: Facts._unfold,
    Ask: Facts._ask,
    Start: Facts._start,
    Park: Facts._park,
    Settle: Facts._settle,
    End: Facts._end,
    Close: Facts._close,
    Complete: Facts._complete,
}
