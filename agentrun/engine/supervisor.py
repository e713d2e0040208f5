"""The supervisor: the one process that advances a run, and its loop.

    turn      decide until nothing is left to decide; commit all of it at once; then give the orders
    wait      for the shim's doorbell, a wish, a signal, or the time that the plan named
    gather    what has happened since: results from the file, wishes from the record, signals from their flags

The order of effects is what the guarantees rest on. A start is committed before its order is sent, so there is
no process that the record does not know of; a result stands in the shim's file before the doorbell rings, and
is committed before anything that follows from it begins. Killed between any two lines, the next owner finds in
the record and the file all that this one knew (`recover.py`).

A run is finished in the record only after the shim has swept what its steps left behind. SIGTERM and SIGINT
end the steps and leave the run to be resumed; SIGHUP stops nothing. If the database cannot be written any
more, the steps are ended too: what cannot be recorded must not be done.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from ..errors import Overtaken, StoreError
from ..model import Job, Outcome
from ..step import tree
from ..step.link import Link, ShimGone
from ..step.results import Result, ResultsReader
from ..store import locks
from ..store.changes import (
    AttemptStarted,
    Change,
    Noted,
    RunClosing,
    RunFinished,
    StepAnswered,
    StepAsked,
    StepParked,
    StepSettled,
    WishTaken,
)
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store
from . import judge, plan
from .attention import Attention
from .clock import Clock
from .create import forget
from .ending import failure_of
from .facts import Facts, must_ask
from .history import Answered, Ask, CancelWished, Close, Complete, Decision, End, Park, Settle, Start, StopWished
from .inputs import Inputs, InputsError, Prepared

_SWEEP_PATIENCE = 60_000  # ms that what the steps left behind may take to go; the shim kills it long before
_SHIM_DEATH = 5.0  # seconds for the kernel to free the lock of a shim that has hung up


class Watcher(Protocol):
    """Somebody who looks on. `interval`: ms between two ticks, None for none. None of these may raise."""

    interval: int | None

    def begin(
        self, run: Run, job: Job, usual_ms: int | None, now: int, *, active: Sequence[tuple[str, str]] = ()
    ) -> None: ...
    def changed(self, changes: Sequence[Change], now: int) -> None: ...
    def tick(self, now: int) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self, run: Run, now: int, report: Sequence[str] = ()) -> None: ...


class Supervisor:
    """Advances one run that this process owns. Made by `recover.own`, used once.

    `in_flight` are the attempts (0: an `if`) that the record says are running: the shim's `running` ones among
    them are waited for, the others are started again or were interrupted, as `reconcile` finds out.
    """

    def __init__(
        self,
        *,
        store: Store,
        run: Run,
        job: Job,
        folder: RunFolder,
        clock: Clock,
        facts: Facts,
        inputs: Inputs,
        link: Link,
        relink: Callable[[], Link],
        watcher: Watcher,
        interrupted: set[str],
    ) -> None:
        self.run, self.job, self.facts = run, job, facts
        self.stopped_by: signal.Signals | None = None
        self._store, self._reader = store, store.reader
        self._folder, self._clock, self._inputs = folder, clock, inputs
        self._link, self._relink = link, relink
        self._watcher = watcher
        self._interrupted = interrupted
        self._results = ResultsReader(folder.results, run.results_seen)
        self._changes: list[Change] = []
        self._orders: list[Prepared] = []
        self._ends: list[End] = []
        self._started = 0
        self._verdicts: dict[str, judge.Verdict | int] = {}
        self._outcome: Outcome | None = None
        self._swept = False
        self._attention = Attention(folder.bell)

    # --- the loop ---

    def advance(self) -> Literal["finished", "stopped"]:
        """Bring the run to its end, or as far as a signal lets it. Raises Overtaken, StoreError."""
        gc.freeze()
        gc.enable()
        with self._attention:
            try:
                self._gather_wishes()
                while True:
                    self._turn()
                    if self._outcome is not None:
                        return self._finish(self._outcome)
                    if self.facts.stopping and not self.facts.slots_used:
                        return self._stop()
                    self._wait(plan.wake_at(self.facts))
                    self._gather()
            except Overtaken:
                raise
            except StoreError:
                self._abandon()
                raise

    def _turn(self) -> None:
        now = self._clock.now()
        while decisions := plan.decide(self.job, self.facts, now):
            for decision in decisions:
                self.facts.apply(decision)
                self._carry_out(decision, now)
        if self._changes:
            self._commit()
        for order in self._orders:
            self._link.start(order.order)
        for end in self._ends:
            self._link.end(end.step, end.attempt, end.cause, self.job.step(end.step).grace)
        self._orders, self._ends = [], []

    def _commit(self, *, stopped: bool = False) -> None:
        changes, self._changes = self._changes, []
        self._store.commit(
            self.run.id,
            self.run.epoch,
            self._clock.stamp(),
            changes,
            results_seen=self._results.offset,
            started=self._started,
            stopped=stopped,
        )
        self._started = 0
        self._inputs.fresh.clear()
        self._watcher.changed(changes, self._clock.now())

    # --- from decisions to changes and orders ---

    def _carry_out(self, decision: Decision, now: int) -> None:
        match decision:
            case Ask(step):
                self._ask(step, now)
            case Start(step, attempt):
                self._start(step, attempt, now)
            case Park(step, until):
                known = self.facts.steps[step]
                self._changes.append(StepParked(step, until, known.tries, known.interruptions, now))
            case Settle():
                self._settle(decision, now)
            case End():
                self._ends.append(decision)
            case Close(outcome, reason, at):
                self._changes.append(RunClosing(outcome, reason, at))
            case Complete(outcome):
                self._outcome = outcome

    def _ask(self, step_id: str, now: int) -> None:
        step = self.job.step(step_id)
        self._changes.append(StepAsked(step_id, step.index, now))
        try:
            self._orders.append(self._inputs.prepare(step, 0, step_id in self._interrupted))
        except InputsError as error:
            self._answered(step_id, 127, now, str(error))

    def _start(self, step_id: str, attempt: int, now: int) -> None:
        step, known = self.job.step(step_id), self.facts.steps[step_id]
        self._started += not step.is_handler
        failure: judge.Verdict | None = None
        try:
            prepared = self._inputs.prepare(step, attempt, step_id in self._interrupted)
        except InputsError as error:
            prepared = Prepared({}, "", "{}")
            failure = judge.not_started(step_id, attempt, now, str(error))
        else:
            self._orders.append(prepared)
        self._changes.append(
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
            self._ended(failure)

    def _settle(self, settled: Settle, now: int) -> None:
        step = self.job.step(settled.step)
        verdict = self._verdicts.pop(settled.step, None)
        outputs = error = exit_code = number = None
        if isinstance(verdict, judge.Verdict):
            change, outputs = verdict.change, verdict.outputs
            error, exit_code, number = change.error, change.exit_code, change.signal
        elif settled.reason == "if_failed":
            exit_code = verdict
            error = f"its `if` ended with {verdict}: 0 is yes, 1 is no, anything else a failure"
        if settled.reason == "interrupted":
            error = "interrupted three times in a row"
        elif settled.reason == "on_interrupt" and settled.outcome == "failed":
            error = "interrupted, and its on_interrupt is `fail`"
        if settled.outcome == "succeeded":
            self._inputs.fresh[step.id] = outputs
        self._changes.append(
            StepSettled(
                step.id,
                step.index,
                settled.outcome,
                now,
                reason=settled.reason,
                covered=settled.covered,
                outputs=outputs,
                exit_code=exit_code,
                signal=number,
                error=error,
            )
        )

    def _ended(self, verdict: judge.Verdict) -> None:
        if self.facts.apply(verdict.fact):
            self._verdicts[verdict.fact.step] = verdict
            self._changes.append(verdict.change)
            if verdict.fact.outcome == "interrupted":
                self._interrupted.add(verdict.fact.step)

    def _answered(self, step_id: str, status: int | None, at: int, message: str | None = None) -> None:
        if not self.facts.apply(Answered(step_id, status, at)):
            return
        if status is not None:
            self._verdicts[step_id] = status
            self._changes.append(StepAnswered(step_id, status, at))
        if message:
            self._changes.append(Noted("condition_failed", at, instance=step_id, detail={"error": message}))

    # --- what has happened ---

    def reconcile(self, in_flight: Sequence[tuple[str, int]], running: set[tuple[str, int]], *, adopted: bool) -> None:
        """Find out what became of the attempts that the record says are running.

        `adopted`: the shim that held them lives; then what it neither runs nor has ended was never started,
        and the same attempt begins. Else what left no result of this boot was interrupted.
        """
        self._gather_results()
        now = self._clock.now()
        for step_id, attempt in in_flight:
            known = self.facts.steps[step_id]
            if not known.running or (step_id, attempt) in running:
                continue
            if attempt == 0:
                self._answered(step_id, None, now)
            elif adopted:
                try:
                    step = self.job.step(step_id)
                    self._orders.append(self._inputs.prepare(step, attempt, step_id in self._interrupted))
                except InputsError as error:
                    self._ended(judge.not_started(step_id, attempt, now, str(error)))
            else:
                self._ended(judge.interrupted(step_id, attempt, now))

    def _gather(self) -> None:
        try:
            for message in self._link.receive():
                self._swept |= message["is"] == "swept"
        except ShimGone:
            self._replace_shim()
        self._gather_results()
        self._gather_signals()

    def _gather_results(self) -> None:
        for result in self._results.read_new():
            self._take_in(result)

    def _take_in(self, result: Result) -> None:
        step_id = result.instance
        known = self.facts.steps.get(step_id)
        if known is None or not known.running:
            return
        step = self.job.step(step_id)
        if result.attempt == 0:
            if must_ask(step, known):
                foreign = result.boot_id != self._clock.boot_id
                self._answered(step_id, None if foreign else judge.answer(result), result.ended_at)
        elif result.attempt == known.attempt and not must_ask(step, known):
            if result.boot_id != self._clock.boot_id:
                # what it wrote may not have reached the disk before the power went
                self._ended(judge.interrupted(step_id, result.attempt, self._clock.now()))
            else:
                self._ended(judge.judge(step, result, self._folder))

    def _gather_wishes(self) -> None:
        now = self._clock.now()
        for wish, _kind, _by in self._reader.wishes(self.run.id):
            self.facts.apply(CancelWished(now))
            self._changes.append(WishTaken(wish, now))

    def _gather_signals(self) -> None:
        for number in self._attention.signals():
            if self.stopped_by is None:
                self.stopped_by = number
                self.facts.apply(StopWished(self._clock.now()))
                self._watcher.say(f"{number.name}: ending the steps; the run can be resumed")
            else:  # somebody is in a hurry
                for step_id, known in self.facts.steps.items():
                    if known.running:
                        attempt = 0 if must_ask(self.job.step(step_id), known) else known.attempt
                        self._link.end(step_id, attempt, "shutdown", 0)

    def _replace_shim(self) -> None:
        """The shim is dead: clear what it left, count what it held as interrupted, and start another."""
        self._watcher.say("the process that held the steps was killed: its steps were interrupted")
        self._end_leftovers()
        self._attention.forget(self._link)
        in_flight = [
            (step_id, 0 if must_ask(self.job.step(step_id), known) else known.attempt)
            for step_id, known in self.facts.steps.items()
            if known.running
        ]
        self._changes.append(Noted("shim_lost", self._clock.now()))
        self.reconcile(in_flight, set(), adopted=False)
        self._link = self._relink()

    # --- the end ---

    def _finish(self, outcome: Outcome) -> Literal["finished"]:
        self._sweep()
        failure = failure_of(self._reader, self.run.id, self.job, self.facts.first_failure, outcome)
        self._changes.append(
            RunFinished(
                outcome, self._clock.now(), reason=failure.reason, error=failure.error, exit_code=failure.status
            )
        )
        self._commit()
        if outcome == "succeeded":
            forget(self._folder)
        self._link.goodbye()
        return "finished"

    def _stop(self) -> Literal["stopped"]:
        self._sweep()
        name = self.stopped_by.name if self.stopped_by else "a signal"
        self._changes.append(Noted("run_interrupted", self._clock.now(), detail={"by": name}))
        self._commit(stopped=True)
        self._link.goodbye()
        return "stopped"

    def _sweep(self) -> None:
        """Let the shim end what the steps left behind, and wait until it has."""
        self._swept = False
        try:
            self._link.sweep()
            until = self._clock.now() + _SWEEP_PATIENCE
            while not self._swept and self._clock.now() < until:
                self._wait(until)
                for message in self._link.receive():
                    self._swept |= message["is"] == "swept"
        except ShimGone:
            self._end_leftovers()
            self._attention.forget(self._link)
            self._link = self._relink()

    def _abandon(self) -> None:
        """The record cannot be written: end all that runs, so that nothing happens that it does not know of."""
        try:
            for step_id, known in self.facts.steps.items():
                if known.running:
                    attempt = 0 if must_ask(self.job.step(step_id), known) else known.attempt
                    self._link.end(step_id, attempt, "shutdown", self.job.step(step_id).grace)
            self._sweep()
            self._link.goodbye()
        except (ShimGone, OSError):
            self._end_leftovers()

    def _end_leftovers(self) -> None:
        locks.wait_until_free(self._folder.lock, locks.SHIM, _SHIM_DEATH)
        tree.end_leftovers(self.run.id, self._folder, keep=left_running(self.job, self.facts))

    # --- waiting ---

    def _wait(self, until: int | None) -> None:
        """Until something has happened, or that time, or the watcher's next tick."""
        timeout = None if until is None else max(until - self._clock.now(), 0)
        interval = self._watcher.interval
        if interval is not None:
            timeout = interval if timeout is None else min(timeout, interval)
        if self._attention.wait(self._link, timeout):
            self._gather_wishes()
        if interval is not None:
            self._watcher.tick(self._clock.now())


def left_running(job: Job, facts: Facts) -> set[tuple[str, int]]:
    """The ended attempts whose background processes may outlive the run."""
    return {
        (step.id, facts.steps[step.id].attempt)
        for step in job.steps
        if step.leave_running and facts.steps[step.id].state == "finished"
    }
