"""A turn in the making: what decisions and ends become, before it is committed as a whole.

It collects the changes for the record, and the orders for the shim that follow once they are committed. It
keeps the facts, too: whatever is taken in here is applied to them at once, so that the next decision sees it.
"""

from __future__ import annotations

from ..model import Job, Outcome, Reason
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
)
from ..store.folders import RunFolder
from . import judge
from .facts import Facts, must_ask
from .history import Answered, Ask, Close, Complete, Decision, End, Park, Settle, Start
from .inputs import Inputs, InputsError, Prepared

# An `if` that takes its shim with it is not asked for ever: as often as a step is run again.
_MAX_ASKED = 3


class Turn:
    """`changes`, `orders`, `ends` and `started` are emptied by whoever commits them and acts on them.

    `outcome`: how the run ends, once that is decided. `given_up`: why the run is ended as failed although the
    plan sees it as cancelled (`max_resumes`); `left_undone`: some step was ended or skipped by that.
    """

    def __init__(
        self, job: Job, facts: Facts, inputs: Inputs, folder: RunFolder, boot_id: str, interrupted: set[str]
    ) -> None:
        self.changes: list[Change] = []
        self.orders: list[Prepared] = []
        self.ends: list[End] = []
        self.started = 0
        self.outcome: Outcome | None = None
        self.given_up: str | None = None
        self.left_undone = False
        self._job, self._facts, self._inputs, self._folder, self._boot_id = job, facts, inputs, folder, boot_id
        self._interrupted = interrupted  # steps of which an attempt was
        self._asked: dict[str, int] = {}  # how often an `if` was lost
        self._verdicts: dict[str, judge.Verdict | int] = {}

    # --- what was decided ---

    def decided(self, decision: Decision, now: int) -> None:
        """Take in one decision of the plan."""
        self._facts.apply(decision)
        match decision:
            case Ask(step):
                self._ask(step, now)
            case Start(step, attempt):
                self._start(step, attempt, now)
            case Park(step, until):
                known = self._facts.steps[step]
                self.changes.append(StepParked(step, until, known.tries, known.interruptions, now))
            case Settle():
                self._settle(decision, now)
            case End():
                self.ends.append(decision)
            case Close(outcome, reason, at):
                self.changes.append(RunClosing(outcome, reason, at))
            case Complete(outcome):
                self.outcome = outcome

    def _ask(self, step_id: str, now: int) -> None:
        step = self._job.step(step_id)
        self.changes.append(StepAsked(step_id, step.index, now))
        try:
            self.orders.append(self._inputs.prepare(step, 0, step_id in self._interrupted))
        except InputsError as error:
            self.changes.append(Noted("condition_failed", now, instance=step_id, detail={"error": str(error)}))
            self.answered(step_id, 127, now)

    def _start(self, step_id: str, attempt: int, now: int) -> None:
        step, known = self._job.step(step_id), self._facts.steps[step_id]
        self.started += not step.is_handler
        failure: judge.Verdict | None = None
        try:
            prepared = self._inputs.prepare(step, attempt, step_id in self._interrupted)
        except InputsError as error:
            prepared = Prepared({}, "", "{}")  # no key yet: the first that it begins with stays
            failure = judge.not_started(step_id, attempt, now, str(error))
        else:
            self.orders.append(prepared)
        self.changes.append(
            AttemptStarted(
                step_id,
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

    def start_again(self, step_id: str, attempt: int, now: int) -> None:
        """Order an attempt that the record knows and no shim ever saw: the same one begins."""
        try:
            self.orders.append(self._inputs.prepare(self._job.step(step_id), attempt, step_id in self._interrupted))
        except InputsError as error:
            self.ended(judge.not_started(step_id, attempt, now, str(error)))

    def _settle(self, settled: Settle, now: int) -> None:
        step = self._job.step(settled.step)
        verdict = self._verdicts.pop(settled.step, None)
        outcome, reason = self._as_given_up(settled)
        change = verdict.change if isinstance(verdict, judge.Verdict) else None
        outputs = verdict.outputs if isinstance(verdict, judge.Verdict) and outcome == "succeeded" else None
        if outcome == "succeeded":
            self._inputs.fresh[step.id] = outputs
        self.changes.append(
            StepSettled(
                step.id,
                step.index,
                outcome,
                now,
                reason=reason,
                covered=settled.covered,
                outputs=outputs,
                exit_code=change.exit_code if change else verdict if isinstance(verdict, int) else None,
                signal=change.signal if change else None,
                error=self._error_of(outcome, reason, verdict),
            )
        )

    def _as_given_up(self, settled: Settle) -> tuple[Outcome, Reason | None]:
        if self.given_up and settled.reason == "cancel":
            self.left_undone = True
            return ("failed", "interrupted") if settled.outcome == "cancelled" else ("skipped", "upstream")
        return settled.outcome, settled.reason

    def _error_of(self, outcome: Outcome, reason: Reason | None, verdict: judge.Verdict | int | None) -> str | None:
        if reason == "interrupted":
            return self.given_up or "interrupted three times in a row"
        if reason == "on_interrupt" and outcome == "failed":
            return "interrupted, and its on_interrupt is `fail`"
        if reason == "if_failed":
            return f"its `if` ended with {verdict}: 0 is yes, 1 is no, anything else a failure"
        return verdict.change.error if isinstance(verdict, judge.Verdict) else None

    # --- what has ended ---

    def take_in(self, result: Result, now: int, *, stopping: bool) -> None:
        """A line of the results file; one that is no news is passed over. `stopping`: so is the machine, maybe."""
        known = self._facts.steps.get(result.instance)
        if known is None or not known.running:
            return
        step = self._job.step(result.instance)
        asked = must_ask(step, known)
        foreign = result.boot_id != self._boot_id
        if asked and result.attempt == 0:
            status = None if foreign or (stopping and judge.is_stop(result)) else judge.answer(result)
            self.answered(step.id, status, result.ended_at)
        elif not asked and result.attempt == known.attempt and result.attempt:
            if foreign:  # what it wrote may not have reached the disk before the power went
                self.ended(judge.interrupted(step.id, result.attempt, now))
            else:
                self.ended(judge.judge(step, result, self._folder, stopping=stopping))

    def lost(self, step_id: str, attempt: int, now: int) -> None:
        """An attempt (0: an `if`) whose end nobody saw."""
        if attempt:
            self.ended(judge.interrupted(step_id, attempt, now))
            return
        self._asked[step_id] = self._asked.get(step_id, 0) + 1
        self.answered(step_id, None if self._asked[step_id] < _MAX_ASKED else 137, now)

    def ended(self, verdict: judge.Verdict) -> None:
        """An attempt is over."""
        if self._facts.apply(verdict.fact):
            self._verdicts[verdict.fact.step] = verdict
            self.changes.append(verdict.change)
            if verdict.fact.outcome == "interrupted":
                self._interrupted.add(verdict.fact.step)

    def answered(self, step_id: str, status: int | None, at: int) -> None:
        """An `if` has answered; None: it has not, and is asked again."""
        if self._facts.apply(Answered(step_id, status, at)) and status is not None:
            self._verdicts[step_id] = status
            self.changes.append(StepAnswered(step_id, status, at))
