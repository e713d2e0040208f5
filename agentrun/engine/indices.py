"""Where every step and instance stands: the indices that let the plan decide a turn in the time of what changed.

What is not settled stands in exactly one of four places:
    idle[when]   nothing of it runs; in `ready` (file order) if it may begin, in the `due` heap if it waits
    live[when]   its attempt or its condition runs; in `ending` instead once it was told to end
    undecided    its attempt, its condition or its last instance has ended, and the plan has not yet said what follows
    groups       a step whose instances are at work, or whose list is being found out: nothing to do but to wait for
They are kept by `when` because that is what the end of a run tells apart. Every index holds places
(`instances.py`); those in `ready` are negative and ascending, so that the next to begin is the last of the list.

What waits for a person's answer is idle, and in `asking`: neither ready nor due.

Nothing here is decided, but for one thing: a step whose needs are all settled is filed as `ready` or as `unwanted`, by
its `when`. `facts.py` moves things from place to place, by what has happened and what was decided.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from ..model import Job, Outcome, Reason, State, Step, When, instance_name, split_instance
from .history import Answered, Cause, Close, Ended, Gathered, Told, Unfolded
from .instances import Group, is_instance, number_of, place_of, position_of

FAILURES: frozenset[Outcome] = frozenset({"failed", "timed_out", "over_budget"})
# An instance that ended for one of these was kept from its end by that of the run.
RUN_ENDS: Mapping[Reason, Cause] = {"cancel": "cancel", "deadline": "deadline", "budget": "budget"}


@dataclass(slots=True)
class StepFacts:
    """What is known of one step, or of one instance.

    `attempt` numbers the last attempt begun; `tries` are the failed ones since the step was created or reopened,
    `interruptions` the unrequested ones in a row. `running`: its attempt, or its condition while that is unanswered,
    has a process. `due`: when it may be tried again. `ending`: what it was told to end for. `doubt`: its last attempt
    was interrupted, and its `verify` is to be asked, or is asked (`verify`); or a person is (`ask`).

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
    doubt: Literal["verify", "ask"] | None = None
    undecided: Ended | Answered | Told | Unfolded | Gathered | None = None
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


def must_verify(step: Step, facts: StepFacts) -> bool:
    """True if its `verify` has to be asked before another attempt."""
    if facts.doubt == "verify":
        return True
    ended = facts.undecided
    return step.on_interrupt == "verify" and isinstance(ended, Ended) and ended.outcome == "interrupted"


class Indices:
    """Of one run. `steps` holds what is known of steps and instances, by name."""

    def __init__(self, job: Job, max_parallel: int, known: Mapping[str, StepFacts]) -> None:
        self.job, self.max_parallel = job, max_parallel
        self._position = {step.id: position for position, step in enumerate(job.steps)}
        self.steps: dict[str, StepFacts] = {}
        for step in job.steps:
            facts = self.steps[step.id] = known.get(step.id) or StepFacts()
            if step.has_instances:
                for number in facts.instances():
                    name = instance_name(step.id, number)
                    self.steps[name] = known.get(name) or StepFacts()
        self.steps.update((name, facts) for name, facts in known.items() if name not in self.steps)
        self.closing: Close | None = None
        self.first_failure: str | None = None
        self.cut_short = False  # a budget of the run ended a step
        self.done = False  # a shell ended the script before its last step (`carry`)
        self.clock = 0  # the latest time that anything was said to have happened
        self._needed_by: list[list[int]] = [[] for _ in job.steps]
        for position, step in enumerate(job.steps):
            for need in step.needs:
                self._needed_by[self._position[need]].append(position)
        self.ready_up()

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
        self.asking: set[int] = set()
        self.groups: dict[int, Group] = {}
        self.reopened: dict[int, list[str]] = {}  # instances, not settled, of steps that have not got to them again
        self.halted: set[int] = set()  # positions of those of which an instance failed, and that say fail_fast
        self.slots_used = self.open_steps = self.open_work = 0
        count = len(self.job.steps)
        self._failed_above = bytearray(count)
        self._needs_left = [0] * count
        for position in range(count):
            facts = self._by_place[place_of(position)]
            if facts.state == "finished":
                self.cut_short |= facts.outcome == "over_budget" and facts.reason == "budget"
                self.done |= facts.outcome == "succeeded" and facts.reason == "done"
                if facts.outcome != "succeeded" or self._failed_above[position]:
                    self._note_failure(place_of(position), facts)
            else:
                self.open_steps += 1
                self.open_work += not self.job.steps[position].is_handler
                for dependent in self._needed_by[position]:
                    self._needs_left[dependent] += 1
        for place, facts in self._by_place.items():
            own = self._by_place[place_of(position_of(place))]
            if own is facts or facts.state == "finished":
                continue
            beyond = self.step_at(place).repeat is not None and number_of(place) > own.round
            if own.state == "queued" or beyond:
                self.reopened.setdefault(position_of(place), []).append(self.name_at(place))
        for position in range(count - 1, -1, -1):  # so that `ready` grows at its end
            facts = self._by_place[place_of(position)]
            if facts.state != "finished":
                self._enter(place_of(position), facts)

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
        return self.name_at(place), 0 if known.doubt or self._asks(place, known) else known.attempt

    def knows(self, name: str, attempt: int) -> bool:
        """Whether this is an attempt, or a condition, that has a process now."""
        if name not in self.steps:
            return False
        place = self._asker(name) if attempt == 0 else self._place_of(name)
        return self._by_place[place].running and self.at_work(place) == (name, attempt)

    def is_doubtful(self, place: int) -> bool:
        """Whether what begins next there is a `verify`."""
        return must_verify(self.step_at(place), self._by_place[place])

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

    def left_below(self, name: str) -> list[str]:
        """Instances of a step that it has not got to again since it was reopened, and that are not settled."""
        return self.reopened.get(self._position[name], []) if name in self._position else []

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

    # --- instances ---

    def _is_loop(self, place: int) -> bool:
        return not is_instance(place) and self.step_at(place).repeat is not None

    def _asks(self, place: int, known: StepFacts) -> bool:
        step = self.step_at(place)
        return must_ask(step, known) and not (step.repeat and is_instance(place))  # asked once, before the rounds

    def _asker(self, name: str) -> int:
        """Whose condition goes by this name: that of a round is the loop's `until`, unless it is in doubt."""
        place = self._place_of(name)
        if (known := self._by_place.get(place)) is not None and known.doubt:
            return place
        return place_of(position_of(place)) if self.step_at(place).repeat else place

    def _open_group(self, place: int, facts: StepFacts) -> None:
        """Enter the instances of a step that are not settled; if there are none, say so."""
        step, position = self.step_at(place), position_of(place)
        window = 1 if step.repeat else min(step.max_parallel or self.max_parallel, self.max_parallel)
        group = self.groups[position] = Group(window)
        if not step.repeat:
            self.reopened.pop(position, None)
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
        if facts.doubt == "ask":
            self.asking.add(place)
        elif facts.due is not None:
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
        self.asking.discard(place)
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
