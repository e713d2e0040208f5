"""A turn in the making: what decisions and ends become, before it is committed as a whole.

It collects the changes for the record, and the orders for the shim that follow once they are committed. It
keeps the facts, too: whatever is taken in here is applied to them at once, so that the next decision sees it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..instants import rfc3339
from ..model import Job, Outcome, Reason, Step, instance_name, split_instance
from ..step import carry
from ..step.outputs import OutputsError
from ..step.results import Result
from ..store.changes import (
    AttemptStarted,
    Change,
    Noted,
    RunClosing,
    StepAnswered,
    StepAsked,
    StepParked,
    StepSettled,
    dumps,
)
from ..store.folders import RunFolder
from ..store.instances import ListFrozen, RoundBegun, UntilAnswered, UntilAsked
from ..store.questions import StepQuestioned, VerifyAnswered, VerifyAsked
from ..store.read import Reader
from . import carrying, children, judge
from .budgets import Meter
from .facts import Facts
from .history import (
    Answer,
    Answered,
    Ask,
    Close,
    Complete,
    Decision,
    End,
    Leave,
    Park,
    Question,
    Settle,
    Start,
    Told,
    Unfold,
    Unfolded,
    Verify,
)
from .inputs import Inputs, InputsError, Prepared

# A condition that takes its shim with it is not asked for ever: as often as a step is run again.
_MAX_ASKED = 3


class Turn:
    """`changes`, `orders`, `ends` and `started` are emptied by whoever commits them and acts on them.

    `outcome`: how the run ends, once that is decided. `parks`: nobody needs to stay with it. `given_up`: why the run is
    ended as failed although the plan sees it as cancelled (`max_resumes`); `left_undone`: some step was ended or
    skipped by that. `insist`: the handlers are ended, too. `told`: what child runs were ended for by their step's own
    budget.
    """

    def __init__(
        self,
        job: Job,
        facts: Facts,
        inputs: Inputs,
        meter: Meter,
        reader: Reader,
        folder: RunFolder,
        boot_id: str,
        interrupted: set[str],
        spent: Callable[[], str | None],
    ) -> None:
        self.changes: list[Change] = []
        self.orders: list[Prepared] = []
        self.ends: list[End] = []
        self.started = 0
        self.outcome: Outcome | None = None
        self.given_up: str | None = None
        self.left_undone = self.insist = self.parks = False
        self.told: dict[str, str] = {}
        self._job, self._facts, self._inputs, self._folder, self._boot_id = job, facts, inputs, folder, boot_id
        self._meter, self._reader, self._spent = meter, reader, spent
        self._interrupted = interrupted  # steps and instances of which an attempt was
        self._asked: dict[str, int] = {}  # how often a condition was lost
        self._why: dict[str, str] = {}  # what ended a condition that did not answer, by the name of who is settled
        self._verdicts: dict[str, judge.Verdict | int | str] = {}  # by the name of who is settled: what it is told of
        self._proven: dict[str, str | None] = {}  # outputs of what took place although nobody saw its end

    # --- what was decided ---

    def decided(self, decision: Decision, now: int) -> None:
        """Take in one decision of the plan."""
        self._facts.apply(decision)
        match decision:
            case Unfold(step):
                self._unfold(self._job.step(step), now)
            case Ask(name):
                self._ask(name, now)
            case Verify(name):
                self._verify(name, now)
            case Question(name):
                self._question(name, now)
            case Start(name, attempt):
                self._start(name, attempt, now)
            case Park(name, until):
                known = self._facts.steps[name]
                in_doubt = known.doubt is not None
                self.changes.append(StepParked(name, until, known.tries, known.interruptions, now, in_doubt))
            case Settle():
                self._settle(decision, now)
            case End():
                self.ends.append(decision)
            case Close(outcome, reason, at, final):
                self.insist |= final is not None
                words = self._spent() if outcome == "over_budget" else None
                self.changes.append(RunClosing(outcome, reason, at, f"over its budget of {words}" if words else None))
            case Leave():
                self.parks = True
            case Complete(outcome):
                self.outcome = outcome

    def _unfold(self, step: Step, now: int) -> None:
        """Freeze the list of a step, once; after a `resume RUN` it is the same."""
        items, numbers = None, self._facts.steps[step.id].numbers
        if numbers is None:
            try:
                items = self._inputs.unfold(step)
            except InputsError as error:
                self._verdicts[step.id] = str(error)
                self._facts.apply(Unfolded(step.id, None, now))
                return
            numbers = [item.number for item in items]
            if numbers == list(range(len(items))):
                numbers = range(len(items))
        self.changes.append(ListFrozen(step.id, step.index, len(numbers), items, now))
        self._inputs.freeze(step.id, items)
        self._facts.apply(Unfolded(step.id, numbers, now))

    def _ask(self, name: str, now: int) -> None:
        step, number = self._step_of(name)
        if step.repeat and number > 0:
            self.changes.append(UntilAsked(step.id, number, now))
        else:
            self.changes.append(StepAsked(name, step.index, now))
        try:
            self.orders.append(self._inputs.prepare(step, name, 0, name in self._interrupted))
            self._meter.adopt(name, 0)
        except InputsError as error:
            self.changes.append(Noted("condition_failed", now, instance=name, detail={"error": str(error)}))
            self.answered(name, 127, now)

    def _verify(self, name: str, now: int) -> None:
        step, known = self._step_of(name)[0], self._facts.steps[name]
        self.changes.append(VerifyAsked(name, known.tries, known.interruptions, now))
        try:
            self.orders.append(self._inputs.prepare(step, name, 0, True, verify=True))
            self._meter.adopt(name, 0)
        except InputsError as error:
            self._verified(name, 127, now, str(error))

    def _question(self, name: str, now: int) -> None:
        """What a person is told who has to say whether the work was done."""
        number = self._facts.steps[name].attempt
        self._verdicts.pop(name, None)
        attempt = self._reader.attempt(self._folder.run_id, name, number)
        began = f" began at {rfc3339(attempt.started_at)} and" if attempt else ""
        lost = attempt.finished_at or now if attempt else now
        why = self._why.pop(name, None)
        unclear = f"; its `verify` cannot tell: {why}" if why else ""
        told = f"attempt {number}{began} was interrupted, known at {rfc3339(lost)}; nobody saw its end{unclear}"
        self.changes.append(StepQuestioned(name, f"{told}: did it take place?", self._facts.steps[name].tries, now))

    def _start(self, name: str, attempt: int, now: int) -> None:
        step, number = self._step_of(name)
        known = self._facts.steps[name]
        self.started += not step.is_handler
        if step.repeat:
            self.changes.append(RoundBegun(step.id, step.index, number, now))
        failure: judge.Verdict | None = None
        try:
            prepared = self._inputs.prepare(step, name, attempt, name in self._interrupted)
        except InputsError as error:
            prepared = Prepared({}, "", "{}")  # no key yet: the first that it begins with stays
            failure = judge.not_started(name, attempt, now, str(error))
        else:
            self.orders.append(prepared)
        self.changes.append(
            AttemptStarted(
                name,
                step.index,
                attempt,
                known.tries,
                known.interruptions,
                known.asked == "go",
                prepared.key,
                prepared.inputs,
                now,
            )
        )
        if failure:
            self.ended(failure)
        else:
            self._meter.begin(name, attempt, now)

    def start_again(self, name: str, attempt: int, now: int) -> None:
        """Order an attempt that the record knows and no shim ever saw: the same one begins."""
        try:
            order = self._inputs.prepare(self._step_of(name)[0], name, attempt, name in self._interrupted)
        except InputsError as error:
            self.ended(judge.not_started(name, attempt, now, str(error)))
        else:
            self.orders.append(order)

    def _settle(self, settled: Settle, now: int) -> None:
        name = settled.step
        step, number = self._step_of(name)
        verdict = self._verdicts.pop(name, None)
        outcome, reason = self._as_given_up(settled)
        change = verdict.change if isinstance(verdict, judge.Verdict) else None
        outputs = None
        if outcome == "succeeded" and name in self._proven:
            verdict, change = None, None  # that of the interruption
            outputs = self._inputs.fresh[name] = self._proven[name]
        elif outcome == "succeeded":
            outputs = verdict.outputs if isinstance(verdict, judge.Verdict) else self._of_last_round(step, number)
            self._inputs.fresh[name] = outputs
        self._proven.pop(name, None)
        self.changes.append(
            StepSettled(
                name,
                step.index,
                outcome,
                now,
                reason=reason,
                covered=settled.covered,
                outputs=outputs,
                exit_code=change.exit_code if change else verdict if isinstance(verdict, int) else None,
                signal=change.signal if change else None,
                error=self._error_of(name, outcome, reason, verdict),
                counted=self._is_counted(step, number),
            )
        )

    def _is_counted(self, step: Step, number: int) -> bool:
        """Whether it is one of the steps of the run's total: instances are, in place of the step that has them."""
        own = self._facts.steps[step.id]
        unfolded = own.numbers is not None or own.round > 0
        if number < 0:
            return not unfolded
        return unfolded and not (step.repeat and number > own.round)  # nor are rounds of an earlier end of the run

    def _of_last_round(self, step: Step, number: int) -> str | None:
        """The outputs that a loop ends with."""
        if step.repeat is None or number >= 0:
            return None
        values = self._inputs.outputs_of(instance_name(step.id, self._facts.steps[step.id].round))
        return dumps(values) if values else None

    def _as_given_up(self, settled: Settle) -> tuple[Outcome, Reason | None]:
        if self.given_up and settled.reason == "cancel":
            self.left_undone = True
            return ("failed", "interrupted") if settled.outcome == "cancelled" else ("skipped", "interrupted")
        return settled.outcome, settled.reason

    def _error_of(
        self, name: str, outcome: Outcome, reason: Reason | None, verdict: judge.Verdict | int | str | None
    ) -> str | None:
        match reason:
            case "interrupted":
                return self.given_up or "interrupted three times in a row"
            case "on_interrupt" if outcome == "failed":
                return "interrupted, and its on_interrupt is `fail`"
            case "if_failed" | "until_failed" if name in self._why:
                return f"its `{reason.removesuffix('_failed')}` did not answer: {self._why.pop(name)}"
            case "if_failed":
                return f"its `if` ended with {verdict}: 0 is yes, 1 is no, anything else a failure"
            case "until_failed":
                return f"its `until` ended with {verdict}: 0 is enough, 1 is again, anything else a failure"
            case "max":
                return f"{self._facts.steps[name].round} rounds, and its `until` still says: again"
            case "instances":
                return self._which_failed(name)
        if isinstance(verdict, str):
            return verdict
        return verdict.change.error if isinstance(verdict, judge.Verdict) else None

    def _which_failed(self, name: str) -> str:
        """`3 of 100 instances failed: [7], [12], [80]`."""
        own = self._facts.steps[name]
        numbers = own.instances()
        bad = [number for number in numbers if judge.is_failure(self._facts.steps[instance_name(name, number)].outcome)]
        if own.round:
            return f"round {own.round} failed"
        named = ", ".join(f"[{number}]" for number in bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        return f"{len(bad)} of {len(numbers)} instances failed: {named}"

    def _step_of(self, name: str) -> tuple[Step, int]:
        step, number = split_instance(name)
        return self._job.step(step), number

    # --- what has ended ---

    def take_in(self, result: Result, now: int, *, stopping: bool) -> None:
        """A line of the results file; one that is no news is passed over. `stopping`: so is the machine, maybe."""
        name, attempt = result.instance, result.attempt
        if not self._facts.knows(name, attempt):
            return
        foreign = result.boot_id != self._boot_id
        last = self._meter.ended(name, attempt, result.cpu_ms, result.output_bytes, now)
        step = self._step_of(name)[0]
        if attempt == 0 and self._facts.steps[name].doubt:
            stopped = foreign or (stopping and judge.is_stop(result))
            self._take_in_verify(step, result, last.complaint, stopped=stopped)
            return
        if attempt == 0:
            status = None if foreign or (stopping and judge.is_stop(result)) else judge.answer(result)
            self.answered(name, status, result.ended_at)
            if why := last.complaint or judge.limit_of(step, result):
                self._why[name if step.repeat is None or not self._facts.steps[step.id].round else step.id] = why
            return
        if foreign:  # what it wrote may not have reached the disk before the power went
            self.ended(judge.interrupted(name, attempt, now))
        elif step.job is not None:
            self.ended(self._of_child(step, result, stopping=stopping))
        else:
            verdict = judge.judge(step, result, self._folder, stopping=stopping, complaint=last.complaint)
            self.ended(self._with_state(step, result, verdict))

    def _with_state(self, step: Step, result: Result, verdict: judge.Verdict) -> judge.Verdict:
        """The same, once the state that others will go on with is safe; without one, the script ends there."""
        if verdict.fact.outcome != "succeeded" or not carry.hands_on(self._job, step):
            return verdict
        try:
            left = carrying.has_left(self._job, step, result.instance, result.attempt, self._folder)
        except (OSError, ValueError) as error:
            return judge.without_state(step, result, str(error))
        return verdict if left else verdict.because_of("done")

    def _take_in_verify(self, step: Step, result: Result, complaint: str | None, *, stopped: bool) -> None:
        name, status = result.instance, None if stopped else judge.answer(result)
        why = judge.limit_of(step, result) or result.spawn_error or complaint
        if status == 0:
            try:
                self._proven[name] = judge.proof(step, self._folder.verified(name))
            except OutputsError as error:
                status, why = 65, error.message
        elif why is None and result.ended_by == "timeout":
            why = "not done within its timeout"
        elif why is None and result.signal is not None:
            why = f"ended by {judge.signal_name(result.signal)}"
        self._verified(name, status, result.ended_at, why)

    def _of_child(self, step: Step, result: Result, *, stopping: bool) -> judge.Verdict:
        name = result.instance
        ending = self._facts.steps[name].ending or self.told.pop(name, None)
        run_id = self._folder.run_id
        verdict = children.judge_child(self._reader, run_id, step, result, self._folder, ending, stopping=stopping)
        if verdict.change.reason == "child" and verdict.fact.outcome == "over_budget" and self._has_nothing_left():
            return verdict.because_of("budget")  # it ran out of what this run had to give
        return verdict

    def _has_nothing_left(self) -> bool:
        limit, facts = self._job.budget.steps, self._facts
        used = facts.started + self._meter.steps_of_children
        return (limit is not None and used >= limit) or bool(self._meter.used_up or self._meter.lent_out)

    def lost(self, name: str, attempt: int, now: int) -> None:
        """An attempt (0: a condition) whose end nobody saw."""
        if attempt:
            self._meter.ended(name, attempt, None, None, now)
            step = self._step_of(name)[0]
            seen = step.job and children.ended_unseen(self._reader, self._folder.run_id, step, name, attempt, now)
            self.ended(self._of_child(step, seen, stopping=False) if seen else judge.interrupted(name, attempt, now))
            return
        self._meter.ended(name, 0, None, None, now)
        in_doubt = self._facts.steps[name].doubt is not None
        key = f"verify {name}" if in_doubt else name
        self._asked[key] = self._asked.get(key, 0) + 1
        if in_doubt:
            lost_for_good = self._asked[key] >= _MAX_ASKED
            self._verified(name, 137 if lost_for_good else None, now, "interrupted itself, three times")
            return
        self.answered(name, None if self._asked[name] < _MAX_ASKED else 137, now)

    def ended(self, verdict: judge.Verdict) -> None:
        """An attempt is over."""
        fact = verdict.fact
        if fact.outcome == "interrupted" and children.asks(self._reader, self._folder.run_id, fact.step):
            # a child that waits for an answer may be cut off as often as it likes: it does nothing meanwhile
            verdict = verdict._replace(
                fact=fact._replace(requested=True), change=verdict.change._replace(requested=True)
            )
        if self._facts.apply(verdict.fact):
            self._verdicts[verdict.fact.step] = verdict
            self.changes.append(verdict.change)
            if verdict.fact.outcome == "interrupted":
                self._interrupted.add(verdict.fact.step)

    def hear(self, name: str, answer: Answer, now: int) -> bool:
        """A person has said what became of an attempt. False: nobody asks that any more."""
        if not self._facts.apply(Told(name, answer, now)):
            return False
        if answer == "took_place":
            self._proven[name] = None
        return True

    def _verified(self, name: str, status: int | None, at: int, why: str | None) -> None:
        """A `verify` has answered; None: it has not, and is asked again."""
        if not self._facts.apply(Answered(name, status, at)) or status is None:
            return
        self._asked.pop(f"verify {name}", None)
        if status not in (0, 1):
            self._why[name] = why or f"it ended with {status} (0: it did take place, 1: it did not)"
        self.changes.append(VerifyAnswered(name, status, at, why if status not in (0, 1) else None))

    def answered(self, name: str, status: int | None, at: int) -> None:
        """A condition has answered; None: it has not, and is asked again."""
        if not self._facts.apply(Answered(name, status, at)) or status is None:
            return
        step, number = self._step_of(name)
        if step.repeat and number > 0:
            self._verdicts[step.id] = status
            self.changes.append(UntilAnswered(step.id, number, status, at))
        else:
            self._verdicts[name] = status
            self.changes.append(StepAnswered(name, status, at))
