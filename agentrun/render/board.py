"""What is at work in a run, kept from the changes that its supervisor commits: what the live view draws.

What is kept grows with what runs and waits, never with what has finished: of a fan-out of ten thousand instances the
count of those that are done, and the few that are at work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..model import split_instance
from ..store.changes import AttemptEnded, AttemptStarted, Change, StepAsked, StepParked, StepSettled
from ..store.instances import ListFrozen, RoundBegun, UntilAnswered, UntilAsked
from ..store.questions import StepQuestioned, VerifyAsked
from ..store.read import Run
from ..store.stuck import StepStuck, StepUnstuck
from . import times, words
from .instances import stuck_text

if TYPE_CHECKING:
    from ..model import Job

_NAMED = 8   # instances at work that are named in a line


class Group:
    """A step with instances. `total` is None where its list was frozen before this process: so is what was done."""

    def __init__(self, position: int, since: int, most_rounds: int | None) -> None:
        self.position, self.since, self.most_rounds = position, since, most_rounds
        self.total: int | None = None
        self.done = self.round = 0
        self.otherwise: dict[str, int] = {}             # how many ended otherwise than in success, by outcome
        self.asking: int | None = None                  # since when its `until` is asked
        self.due: int | None = None                     # when its next round is due
        self.running: dict[int, tuple[int, int]] = {}   # instance: attempt, since
        self.parked: dict[int, tuple[int, int]] = {}    # instance: next attempt, due
        self.questions: set[int] = set()                # instances that wait for an answer

    def settle(self, number: int, outcome: str) -> None:
        """An instance has ended."""
        self.done += outcome == "succeeded"
        if outcome != "succeeded":
            self.otherwise[outcome] = self.otherwise.get(outcome, 0) + 1
        self.running.pop(number, None)
        self.parked.pop(number, None)
        self.questions.discard(number)

    def text(self, name: str, now: int) -> str:
        """`work  37 of 100 done, 4 running  12.4 s  [37] [39] [40] [41]`, or `think  round 3 of at most 50  1.2 s`."""
        if self.most_rounds is not None:
            return f"{name}  {self._of_rounds(now)}"
        parts = [self.ended]
        if self.parked:
            parts.append(f"{len(self.parked)} waiting")
        if self.questions:
            parts.append(f"{len(self.questions)} waiting for an answer")
        if self.running:
            parts.append(f"{len(self.running)} running")
        named = " ".join(f"[{number}]" for number in islice(self.running, _NAMED))
        more = f" and {len(self.running) - _NAMED} more" if len(self.running) > _NAMED else ""
        return f"{name}  {', '.join(parts)}  {times.duration(now - self.since)}  {named}{more}".rstrip()

    @property
    def ended(self) -> str:
        """`37 of 100 done, 2 failed`."""
        if self.total is not None:
            return words.so_many_done({**self.otherwise, "succeeded": self.done}, self.total)
        return ", ".join([f"{self.done} more done", *([words.outcomes(self.otherwise)] if self.otherwise else [])])

    def _of_rounds(self, now: int) -> str:
        if self.due is not None:
            return f"round {self.round + 1} of at most {self.most_rounds} in {times.duration(max(self.due - now, 0))}"
        text = f"round {self.round} of at most {self.most_rounds}"
        if self.questions:
            return f"{text}, waits for an answer"
        if self.asking is not None:
            return f"{text} (its `until`)  {times.duration(now - self.asking)}"
        for attempt, due in self.parked.values():
            return f"{text}, attempt {attempt} in {times.duration(max(due - now, 0))}"
        for attempt, since in self.running.values():
            return f"{text}{f' (attempt {attempt})' if attempt > 1 else ''}  {times.duration(now - since)}"
        return text


class Board:
    """One run. `total`, `done` and `otherwise` count instances in place of a step that has them.

    What had ended before this process took the run over counts as done.
    """

    def __init__(self, run: Run, job: Job, active: Sequence[tuple[str, str]], now: int) -> None:
        self.total, self.done = run.steps_total, run.steps_done
        self.otherwise: dict[str, int] = {}                     # how many ended otherwise than in success
        self.groups: dict[str, Group] = {}
        self._steps = len(job.steps)
        self._job = job
        self._position = {step.id: step.index + 1 for step in job.steps}
        self._at_work: dict[str, tuple[int, int, int]] = {}     # step: position, attempt, since
        self._parked: dict[str, tuple[int, int, int]] = {}      # step: position, next attempt, due
        self._questions: dict[str, int] = {}                    # step that waits for an answer: position
        self._stuck: dict[str, dict[int, int]] = {}             # step: instance that does nothing, since
        for name, _state in active:
            step, number = split_instance(name)
            if number < 0:
                self._at_work[name] = (self._position.get(step, 0), 1, now)
                continue
            group = self._group(step, now)
            group.running[number] = (1, now)
            group.round = max(group.round, number)

    def _group(self, step: str, at: int) -> Group:
        group = self.groups.get(step)
        if group is None:
            repeat = self._job.step(step).repeat if step in self._position else None
            most = None if repeat is None else repeat.max
            group = self.groups[step] = Group(self._position.get(step, 0), at, most)
        return group

    def take_in(self, change: Change) -> None:
        """This has been committed."""
        match change:
            case ListFrozen():
                group = self._group(change.step, change.at)
                if change.items is not None:  # else it is in the run's total already, and some of it may be done
                    group.total = change.total
                    self.total += change.total - 1
            case RoundBegun():
                self._round_begun(change)
            case UntilAsked():
                group = self._group(change.step, change.at)
                group.asking, group.due = change.at, None
            case UntilAnswered():
                self._group(change.step, change.at).asking = None
            case AttemptStarted():
                self._begun(change.instance, change.position, change.number, change.at)
            case VerifyAsked():
                position = self._position.get(split_instance(change.instance)[0], 1) - 1
                self._begun(change.instance, position, 0, change.at)
            case StepQuestioned():
                self._question(change.instance, change.at)
            case StepAsked():
                self._begun(change.instance, change.position, 0, change.at)
            case StepParked():
                self._park(change)
            case StepStuck():
                step, number = split_instance(change.instance)
                self._stuck.setdefault(step, {})[number] = change.since
            case StepUnstuck() | AttemptEnded():
                step, number = split_instance(change.instance)
                self._stuck.get(step, {}).pop(number, None)
            case StepSettled():
                self._settle(change)

    def _round_begun(self, change: RoundBegun) -> None:
        group = self._group(change.step, change.at)
        self.total += change.round > max(group.round, 1)
        group.round = max(group.round, change.round)
        group.due = None
        self._at_work.pop(change.step, None)  # where the step's `if` was asked

    def _begun(self, name: str, position: int, attempt: int, at: int) -> None:
        step, number = split_instance(name)
        if number < 0:
            self._parked.pop(name, None)
            self._questions.pop(name, None)
            self._at_work[name] = (position + 1, attempt, at)
        else:
            group = self._group(step, at)
            group.parked.pop(number, None)
            group.questions.discard(number)
            group.running[number] = (attempt, at)

    def _question(self, name: str, at: int) -> None:
        step, number = split_instance(name)
        if number >= 0:
            group = self._group(step, at)
            group.running.pop(number, None)
            group.questions.add(number)
        else:
            self._at_work.pop(name, None)
            self._questions[name] = self._position.get(step, 0)

    def _park(self, change: StepParked) -> None:
        step, number = split_instance(change.instance)
        group = self.groups.get(step)
        if number >= 0:
            group = self._group(step, change.at)
            group.questions.discard(number)
            attempt = group.running.pop(number, (0, 0))[0]
            group.parked[number] = (attempt + 1, change.until)
        elif group is not None:
            group.due = change.until
        else:
            self._questions.pop(step, None)
            position, attempt, _ = self._at_work.pop(step, (self._position.get(step, 0), 0, 0))
            self._parked[step] = (position, attempt + 1, change.until)

    def _settle(self, change: StepSettled) -> None:
        if change.outcome == "succeeded":
            self.done += change.counted
        elif change.counted:
            self.otherwise[change.outcome] = self.otherwise.get(change.outcome, 0) + 1
        step, number = split_instance(change.instance)
        if number < 0:
            self._at_work.pop(step, None)
            self._parked.pop(step, None)
            self._questions.pop(step, None)
            self._stuck.pop(step, None)
            self.groups.pop(step, None)
        else:
            self._group(step, change.at).settle(number, change.outcome)

    def ended(self, total: int | str) -> str:
        """`38 of 109 done, 1 failed`."""
        return words.so_many_done({**self.otherwise, "succeeded": self.done}, total)

    def lines(self, now: int) -> Iterator[str]:
        """A line for each step at work, in the order of the file."""
        rest: list[tuple[int, str]] = []
        for name, (position, attempt, since) in self._at_work.items():
            what = f" (attempt {attempt})" if attempt > 1 else "" if attempt else " (its `if`)"
            rest.append((position, f"{name}{what}  {times.duration(now - since)}{self._stuck_text(name, now)}"))
        for name, (position, attempt, due) in self._parked.items():
            rest.append((position, f"{name}  attempt {attempt} in {times.duration(max(due - now, 0))}"))
        rest += [(position, f"{name}  waits for an answer") for name, position in self._questions.items()]
        groups = self.groups.items()
        rest += [(group.position, group.text(name, now) + self._stuck_text(name, now)) for name, group in groups]
        for position, text in sorted(rest):
            yield f"  step {position} of {self._steps}  {text}"

    def _stuck_text(self, step: str, now: int) -> str:
        """What there is to say of a step that does nothing, or of the instances that do."""
        since = self._stuck.get(step)
        if not since:
            return ""
        silent = stuck_text(min(since.values()), now)
        return f"  {silent}" if len(since) == 1 else f"  {len(since)} are stuck: {silent} at most"
