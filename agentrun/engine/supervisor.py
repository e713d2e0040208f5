"""The supervisor: the one process that advances a run, and its loop.

    turn      decide until nothing is left to decide; commit all of it at once; then give the orders
    wait      for the shim's doorbell, a wish, a signal, or the time that the plan named
    gather    what has happened since: results from the file, wishes from the record, signals from their flags

The order of effects is what the guarantees rest on. A start is committed before its order is sent, so there is
no process that the record does not know of; a result stands in the shim's file before the doorbell rings, and
is committed before anything that follows from it begins. Killed between any two lines, the next owner finds in
the record and the file all that this one knew (`recover.py`).

A run is finished in the record only after the shim has swept what its steps left behind. One that only waits for
answers is parked: its questions are committed, then all is swept, then the record says `waiting`, unless somebody has
wished something by then; only then the shim and the lease are let go (`store/questions.py`). SIGTERM and SIGINT
end the steps and leave the run to be resumed; SIGHUP stops nothing. If the database cannot be written any
more, the steps are ended too: what cannot be recorded must not be done.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Literal

from ..errors import Busy, Overtaken, StoreError
from ..model import Job, Outcome, split_instance
from ..notify import hearers
from ..step import tree
from ..step.link import Link, ShimGone
from ..step.results import Result, ResultsReader
from ..store import locks
from ..store.changes import Change, LimitsHeld, Noted, RunFinished, WishTaken
from ..store.folders import RunFolder
from ..store.questions import RunParked
from ..store.read import Run
from ..store.stuck import told_stuck
from ..store.write import Store
from . import children, judge, lost, plan
from .attention import Attention
from .budgets import Meter, in_words
from .clock import Clock
from .create import forget
from .ending import failure_of
from .facts import CLOSING_LIMIT, Facts, left_running
from .history import BudgetSpent, CancelWished, Close, StopWished
from .inputs import CHILD_GRACE, Inputs
from .stuck import Stuck
from .turn import Turn
from .watcher import Watcher

_SWEEP_PATIENCE = 60_000  # ms beyond the longest grace that what steps left behind may take to go
_SHUTDOWN_SIGNALS = 500  # ms within which a machine that goes down signals all of its processes
_SHIM_DEATH = 5.0  # seconds for the kernel to free the lock of a shim that has hung up


class Supervisor:
    """Advances one run that this process owns. Made by `recover.supervise`, used once."""

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
        meter: Meter,
        link: Link | None,
        relink: Callable[[], Link],
        watcher: Watcher,
        interrupted: set[str],
    ) -> None:
        self.run, self.job, self.facts = run, job, facts
        self.stopped_by: signal.Signals | None = None
        self._store, self._reader, self._folder, self._clock = store, store.reader, folder, clock
        self._relink = relink
        if link is not None:
            self.hold(link)
        self._watcher, self._inputs, self._meter = watcher, inputs, meter
        self._turn = Turn(job, facts, inputs, meter, store.reader, folder, clock.boot_id, interrupted, self._spent)
        self._called = children.Called(store, run.id)
        self._stuck = Stuck(told_stuck(self._reader.connection, run.id) if run.epoch > 1 else {})
        self._enforced_by = run.enforced_by
        self._over: str | None = None  # the budget of the run that the shim says is exceeded, in words
        self._results = ResultsReader(folder.results, run.results_seen)
        self._suspects: list[tuple[int, Result]] = []
        self._suspect_from = 0  # where in the results file the first of them may stand
        self._wishes: set[int] = set()
        self._untold: list[Change] = []
        self._told = False
        self._closed_before: Close | None = None
        self._swept = False
        self._refused: tuple[int, str] | None = None  # since when, and why, the disk refuses results
        self._attention = Attention(folder.bell)

    def hold(self, link: Link) -> None:
        """This shim holds the run from now on."""
        self._link = link

    # --- the loop ---

    def advance(self) -> Literal["finished", "stopped", "parked"]:
        """Bring the run to its end, or as far as a signal or its questions let it.

        Raises Overtaken, Busy, StoreError, Missing.
        """
        gc.freeze()
        gc.enable()
        with self._attention:
            try:
                self._tell()
                self._gather_wishes()
                self._listen()  # what came with the shim's hello wakes nobody
                while True:
                    self._decide()
                    if self._turn.outcome is not None:
                        return self._finish(self._turn.outcome)
                    if self.facts.stopping and not self.facts.slots_used:
                        return self._stop()
                    if self._turn.parks:
                        if self._park():
                            return "parked"
                        continue
                    self._wait(plan.wake_at(self.facts))
                    self._gather()
            except (Overtaken, Busy):
                raise  # what runs is somebody else's now
            except Exception:
                self._abandon()
                raise

    def _decide(self) -> None:
        """One turn: all that follows from what is known, committed at once, and then ordered."""
        turn = self._turn
        now = max(self._clock.now(), self.facts.clock)  # the shim reads its own clock: nothing comes before its cause
        with self._store.database.alone() if self._meter.shares_attempts else nullcontext():
            self._mind_budgets(now)
            turn.changes += (news := self._stuck.news(self.facts.running, now))
            self._plan(now)
        for order in turn.orders:
            self._link.start(order.order)
        for end in turn.ends:
            self._end(end.step, end.attempt, end.cause)
        if turn.insist:  # the handlers of this run have to end, and so have those of the child runs that it ends
            self._called.insist(self.facts.running(), now, 2 * CHILD_GRACE)
        turn.orders, turn.ends, turn.insist = [], [], False
        if news:
            hearers.deliver_due(self._store.database.root, self._reader)

    def _plan(self, now: int) -> None:
        turn = self._turn
        while decisions := plan.decide(self.job, self.facts, now):
            for decision in decisions:
                turn.decided(decision, now)
        if turn.changes or self._meter.has_changes:
            self._commit()

    def _mind_budgets(self, now: int) -> None:
        """What has been used since the last look, and whether that ends an attempt or the run."""
        meter, held_by = self._meter, self._link.enforced_by
        if held_by is not None and held_by != self._enforced_by:
            self._enforced_by = held_by
            self._turn.changes.append(LimitsHeld(held_by, now))
        for over in meter.look(now):
            self._turn.told[over.instance] = over.cause
            self._end(over.instance, over.attempt, over.cause)
        for name, attempt, cause in self._called.overdue(self.facts.running(), now) if self._called.next_due() else ():
            self._link.end(name, attempt, cause, self._grace(name))
        self.facts.started_below = meter.steps_of_children
        self.facts.lent = meter.attempts_left()
        over_run = self._over or meter.over
        if over_run or meter.used_up:
            self.facts.apply(BudgetSpent(over_run is not None, now))

    def _end(self, name: str, attempt: int, cause: str) -> None:
        """End an attempt; a child run is cancelled as a run is, so that its own `always` steps run."""
        patience = CLOSING_LIMIT + 2 * self._grace(name)
        is_child = attempt > 0 and self.job.step(split_instance(name)[0]).job is not None
        if not (is_child and self._called.end(name, attempt, cause, self._clock.now(), patience)):
            self._link.end(name, attempt, cause, self._grace(name))

    def _grace(self, name: str) -> int:
        step = self.job.step(split_instance(name)[0])
        return step.grace + (CHILD_GRACE if step.job is not None else 0)

    def _commit(self) -> None:
        turn = self._turn
        changes, turn.changes = [*turn.changes, *self._meter.changes()], []
        self._store.commit(
            self.run.id,
            self.run.epoch,
            self._clock.stamp(),
            changes,
            results_seen=self._suspect_from if self._suspects else self._results.offset,
            started=turn.started,
            stopped=self.facts.stopping,
        )
        turn.started = 0
        self._inputs.fresh.clear()
        self._inputs.fresh_items.clear()
        self._untold += changes
        if self._told:
            self._tell()

    def _tell(self) -> None:
        """Let the watcher see what has changed; not before it has been told of the run."""
        self._told = True
        changes, self._untold = self._untold, []
        self._watcher.changed(changes, self._clock.now())

    # --- what has happened ---

    def reconcile(self, in_flight: Iterable[tuple[str, int]], running: set[tuple[str, int]], *, adopted: bool) -> None:
        """Find out what became of the attempts that the record says are running.

        `adopted`: the shim that held them lives; then what it neither runs nor has ended was never started,
        and the same attempt begins. Else what left no result of this boot was interrupted.
        """
        self._gather_results()
        self._release_suspects(everything=not adopted)
        now = self._clock.now()
        suspected = {(result.instance, result.attempt) for _, result in self._suspects}
        for name, attempt in in_flight:
            if not self.facts.knows(name, attempt) or (name, attempt) in running | suspected:
                continue
            if adopted and attempt:
                self._turn.start_again(name, attempt, now)
            else:
                self._turn.lost(name, attempt, now)

    def record_losses(self) -> None:
        """Commit what has ended or was interrupted, before a new shim is begun.

        A shim that is found without its supervisor is asked for all that the record says is running, and what it
        never saw begins: so it must never be asked for what another one held.
        """
        self.facts.unheld = True
        self._plan(max(self._clock.now(), self.facts.clock))
        self.facts.unheld = self.facts.parked = self._turn.parks = False

    def give_up(self, why: str) -> None:
        """End the run as failed: nothing of it starts any more, and what it still runs is ended."""
        if not self.facts.open_steps:
            return  # it only has to be finished
        self._turn.given_up = why
        self._closed_before = self.facts.closing
        now = self._clock.now()
        self.facts.apply(Close("cancelled", "cancel", now, final="cancel"))
        self._turn.changes.append(Noted("given_up", now, detail={"resumes": self.run.resumes}))

    def _gather(self) -> None:
        self._gather_signals()
        self._listen()
        self._look_at_disk()
        self._gather_results()
        self._release_suspects()

    def _listen(self) -> None:
        try:
            self._hear()
        except ShimGone:
            self._replace_shim()

    def _hear(self) -> None:
        for message in self._link.receive():
            self._swept |= message["is"] == "swept"
            if message["is"] == "over":
                what = message["what"]
                self._over = in_words(what, getattr(self.job.budget, what) or 0, message["spent"])
            if message["is"] == "stuck":
                self._stuck.hear(message["attempts"])
            if message["is"] == "refusing":
                self._refused = (self._clock.now(), message["why"]) if message["why"] else None

    def _look_at_disk(self) -> None:
        """A result that cannot be written is waited for as long as the database is, or until somebody says stop."""
        if self._refused is None:
            return
        since, why = self._refused
        if self.facts.stopping or self._clock.now() - since > self._store.database.patience * 1000:
            raise StoreError(f"cannot record the end of a step: {why}", "free space and resume: nothing is lost")

    def _gather_results(self) -> None:
        now = self._clock.now()
        if not self._suspects:
            self._suspect_from = self._results.offset
        for result in self._results.read_new():
            if judge.is_stop(result) and not self.facts.stopping:
                # a machine that goes down ends steps and supervisors alike: is a signal on its way to us, too?
                self._suspects.append((now + _SHUTDOWN_SIGNALS, result))
            else:
                self._turn.take_in(result, now, stopping=self.facts.stopping)

    def _release_suspects(self, *, everything: bool = False) -> None:
        now = self._clock.now()
        while self._suspects and (everything or self.facts.stopping or self._suspects[0][0] <= now):
            self._turn.take_in(self._suspects.pop(0)[1], now, stopping=self.facts.stopping)

    def _gather_wishes(self) -> None:
        now = self._clock.now()
        for wish, kind, instance in self._reader.wishes(self.run.id):
            if wish in self._wishes:
                continue
            self._wishes.add(wish)
            if kind == "cancel" or instance is None:
                self.facts.apply(CancelWished(now))
            elif not self._turn.hear(instance, "took_place" if kind == "took_place" else "rerun", now):
                self._turn.changes.append(Noted("answer_too_late", now, instance=instance))
            self._turn.changes.append(WishTaken(wish, now))

    def _gather_signals(self) -> None:
        self._heed(self._attention.signals())

    def _heed(self, numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            if self.stopped_by is None:
                self.stopped_by = number
                now = self._clock.now()
                self.facts.apply(StopWished(now))
                # before the steps hear of it: killed from here on, nobody goes on with what was to stop
                self._link.retire()
                self._turn.changes.append(Noted("stop_requested", now, detail={"by": number.name}))
                self._watcher.say(f"{number.name}: ending the steps; the run can be resumed")
            else:  # somebody is in a hurry
                for name, attempt in self.facts.running():
                    self._link.end(name, attempt, "shutdown", 0)

    def _replace_shim(self) -> None:
        """The shim is dead: clear what it left, count what it held as interrupted, and start another."""
        self._watcher.say("the process that held the steps was killed: its steps were interrupted")
        self._turn.changes.append(Noted("shim_lost", self._clock.now()))
        self._end_leftovers()
        self.reconcile(list(self.facts.running()), set(), adopted=False)
        self.record_losses()
        self.hold(self._relink())
        if self.facts.stopping:
            self._link.retire()

    # --- the end ---

    def _finish(self, outcome: Outcome) -> Literal["finished"]:
        self._sweep()
        lost.close_open(self._store, self.run.id)
        given_up = self._turn.given_up
        if given_up and self._turn.left_undone:
            end = RunFinished("failed", self._clock.now(), reason="interrupted", error=given_up, exit_code=1)
        else:
            if given_up:  # nothing was left to give up: it ends as it would have
                closing = self._closed_before
                outcome = closing.outcome if closing else "failed" if self.facts.first_failure else "succeeded"
            why = failure_of(self._reader, self.run.id, self.job, self.facts.first_failure, outcome, self._spent())
            end = RunFinished(outcome, self._clock.now(), reason=why.reason, error=why.error, exit_code=why.status)
        self._turn.changes.append(end)
        self._commit()
        if outcome == "succeeded":
            forget(self._folder)
        self._link.goodbye()
        return "finished"

    def _spent(self) -> str | None:
        """The budget of the run that is used up, in words."""
        if spent := self._over or self._meter.over or self._meter.used_up:
            return spent
        limit, started = self.job.budget.steps, self.facts.started + self.facts.started_below
        if limit is not None and started >= limit:
            return in_words("steps", limit, started)
        return self._meter.lent_out

    def _stop(self) -> Literal["stopped"]:
        self._sweep()
        name = self.stopped_by.name if self.stopped_by else "a signal"
        self._turn.changes.append(Noted("run_interrupted", self._clock.now(), detail={"by": name}))
        self._commit()
        self._link.goodbye()
        return "stopped"

    def _park(self) -> bool:
        """Let go of a run that only waits for answers. False: somebody has wished something, so it goes on."""
        missed = self._sweep()
        until, stamp = plan.wake_at(self.facts), self._clock.stamp()
        wake = None if until is None else stamp.elapsed + until - stamp.now
        self._turn.changes.append(RunParked(wake, stamp.now))
        self._commit()
        if self._reader.run(self.run.id).state == "waiting":
            self._link.goodbye()
            return True
        self._turn.parks = self.facts.parked = False
        self._gather_wishes()
        self._heed(missed)
        return False

    def _sweep(self) -> list[signal.Signals]:
        """Let the shim end what the steps left behind, and wait until it has. Returns signals that came meanwhile."""
        self._swept = False
        missed: list[signal.Signals] = []
        try:
            self._link.sweep()
            until = self._clock.now() + _SWEEP_PATIENCE + max(self._grace(step.id) for step in self.job.steps)
            while not self._swept and self._clock.now() < until:
                self._wait(until, wishes=False)  # they stay open: whoever goes on with the run decides upon them
                missed += self._attention.signals()  # it is ending already
                self._hear()
        except ShimGone:
            self._end_leftovers()
            self.hold(self._relink())
        return missed

    def _abandon(self) -> None:
        """The run cannot go on here: end all that runs, so that nothing happens that the record does not know of."""
        try:
            for name, attempt in self.facts.running():
                self._link.end(name, attempt, "shutdown", self._grace(name))
            refused, self._refused = self._refused, None
            self._suspects.clear()
            self._sweep()
            # with results that it could not write, it stays by itself until there is room
            self._link.goodbye(timeout=1.0 if refused else 15.0)
        except (ShimGone, OSError, ValueError):  # a link that is closed already has no descriptor
            self._end_leftovers()

    def _end_leftovers(self) -> None:
        self._attention.forget(self._link)
        locks.wait_until_free(self._folder.lock, locks.SHIM, _SHIM_DEATH)
        tree.end_leftovers(self.run.id, self._folder, keep=left_running(self.job, self.facts))

    # --- waiting ---

    def _wait(self, until: int | None, *, wishes: bool = True) -> None:
        """Until something has happened, or that time, or the watcher's next tick."""
        due = [until, self._called.next_due(), *(time for time, _ in self._suspects[:1])]
        if self._refused:
            due.append(self._refused[0] + int(self._store.database.patience * 1000) + 1)
        if self._meter.interval is not None:
            due.append(self._clock.now() + self._meter.interval)
        times = [time for time in due if time is not None]
        timeout = max(min(times) - self._clock.now(), 0) if times else None
        interval = self._watcher.interval
        if interval is not None:
            timeout = interval if timeout is None else min(timeout, interval)
        if self._attention.wait(self._link, timeout) and wishes:
            self._gather_wishes()
        if interval is not None:
            self._watcher.tick(self._clock.now())
