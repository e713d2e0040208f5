"""How a run of a job comes to begin: what was interrupted first, then its tick, then its turn (`turns.py`).

    heal        a run of the job that was interrupted goes on first (`on_tick`), before anything is taken
    look        which tick is due, and what became of those before it                 (cron/attend.py)
    wait        the job's jitter; nothing is recorded yet: killed here, the tick is missed, and found to be
    record      the run, its tick, the account of the ticks before it and its turn: one transaction
    advance     to its end

A scheduler's start asks for the ticks up to its own, one after the other; what is due later is another start's. Its
own it runs unless that is a run's: also when somebody has called it missed meanwhile, because we were late or healed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from ..engine import create, lost
from ..engine.clock import wall
from ..engine.lease import this_process
from ..errors import Busy, Missing, NotFound, Overtaken, UsageError
from ..instants import rfc3339
from ..model import JSON
from ..notify.hearers import deliver_due
from ..store.jobs import Jobs, Settlement
from ..store.read import Run
from ..store.snapshots import Snapshot
from ..store.write import RunKeyTaken, Store
from . import advance, strays, turns
from .turns import STOPPED, End

_LOOKS = 120  # at most: ticks that are caught up with, and looks at a record that others change at the same time
_EARLY = 500  # ms before its minute that a scheduler may start us: clocks are slewed


class Start:
    """A start of a job, by whomever. `params`: those of each run that it begins; None: of the last tick's run."""

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        file: str,
        params: Mapping[str, JSON] | None,
        *,
        as_json: bool = False,
        detach: bool = False,
    ) -> None:
        self.store, self.snapshot, self.job, self.file, self._given = store, snapshot, snapshot.job, file, params
        self.as_json, self.detach = as_json, detach
        self._ignored: list[str] = []  # interrupted runs that do not count
        self._healed: list[str] = []
        self._usual: Mapping[str, JSON] | None = None

    def heal(self) -> int | None:
        """Let what was interrupted of this job go on, as `on_tick` says; a status if nothing may begin behind it."""
        root = self.store.database.root
        for run in self.store.reader.unfinished_of(self.job.name):
            if not run.interrupted(root):
                continue
            if lost.is_lost(root, run):
                strays.say_lost(root, run)
                self._ignored.append(run.id)
            elif self.job.on_tick == "ignore":
                self._ignored.append(run.id)
            else:
                if self.job.on_tick == "restart":
                    with suppress(Busy):  # it has finished just now
                        self.store.wish_to_cancel(run.id, by="on_tick: restart", now=wall())
                turns.tell(f"{run.job}/{run.id} was interrupted: going on with it first")
                status = self._go_on(run)
                if status in STOPPED and self.store.reader.run(run.id).state == "running":
                    return status
        return None

    def by_schedule(self) -> int:
        """Run what is due of a job that a scheduler has started now. Returns an exit status."""
        return self.attend(wall() + _EARLY, fired=True).status

    def attend(self, now: int, *, fired: bool) -> End:
        """Run the ticks that are due at `now`, oldest first, and account for the others."""
        from ..cron.attend import Attendance

        attendance = Attendance.of(self.job, self.file)
        assert attendance is not None, "only jobs with a schedule are attended"
        if (healed := self.heal()) is not None:
            return End(healed, over=False)
        jobs = Jobs(self.store.database)
        newest = attendance.calendar.last(now)
        end = End(0, over=True)
        ran = False
        for _ in range(_LOOKS):
            found, account = attendance.look(jobs, now, fired=fired, healed=self._healed)
            try:
                if found.own is None:
                    self._settle(jobs, account)
                    return end if ran else self._nothing_due(newest if fired else None, paused=account.paused)
                if fired and (early := found.own + attendance.rules.jitter - wall()) > 0:
                    time.sleep(early / 1000)
                own_tick = fired and found.own == newest
                end = self.once(f"tick {rfc3339(found.own)}", found.own, account, catching_up=not own_tick)
            except RunKeyTaken as taken:
                self._check_params(taken.run_id)
                continue
            except Overtaken:
                continue  # somebody else was quicker: is anything left?
            ran = True
            if not end.over:
                return end
        return end

    def once(
        self,
        key: str | None,
        tick: int | None,
        account: Settlement | None = None,
        *,
        catching_up: bool = False,
        pausable: bool | None = None,
    ) -> End:
        """One run, if it may begin: 75 if it is skipped or waits. Raises RunKeyTaken, Overtaken.

        `pausable`: it is skipped while the job is paused; so is what has an `account`.
        """
        overlap = create.overlap_of(self.job, self.params, self._ignored)
        if overlap is not None and account is not None and (catching_up or self._stays_open):
            overlap = overlap._replace(queue=False)
        request = create.Request(
            self.snapshot,
            self.file,
            self.params,
            run_key=key,
            scheduled_time=tick,
            overlap=overlap,
            ticks=account,
            pausable=account is not None if pausable is None else pausable,
            catching_up=catching_up,
        )
        return turns.begin(self.store, request, as_json=self.as_json, detach=self.detach)

    def account_of(self, tick: int, now: int) -> Settlement | None:
        """What is written with a tick that a scheduler names itself; None where that says nothing of those before it.

        Raises JobFileError if another job file has the name.
        """
        if not self.job.schedule:
            return None
        from ..cron.attend import Attendance

        attendance = Attendance.of(self.job, self.file)
        assert attendance is not None, "a job with a schedule has a calendar"
        found, account = attendance.look(Jobs(self.store.database), now, fired=True)
        if found.own == tick:
            return account
        if account.before is None and tick <= now:
            return attendance.begun_with(account, tick)
        return None

    @property
    def _stays_open(self) -> bool:
        """Whether a tick that waited in line, and lost its place there, would have to be caught up with after all."""
        if self.job.concurrency.policy != "queue":
            return False
        return self.job.catch_up == "all" or (self.job.catch_up == "latest" and self.job.concurrency.key is not None)

    @property
    def params(self) -> Mapping[str, JSON]:
        """The parameters of the runs that this start begins. Raises UsageError if a required one is not known."""
        if self._given is not None:
            return self._given
        if self._usual is None:
            last = next(iter(self.store.reader.ticks_run(self.job.name, limit=1)), None)
            known = {} if last is None else {key: last.params[key] for key in self.job.params if key in last.params}
            if any(param.required and name not in known for name, param in self.job.params.items()):
                create.parameters(self.job, ())  # says which
            defaults = {name: param.default for name, param in self.job.params.items() if not param.required}
            self._usual = {**defaults, **known}
        return self._usual

    def _settle(self, jobs: Jobs, account: Settlement) -> None:
        row = jobs.job(account.job)
        if account.unrun or row is None or row.schedule != account.schedule or row.file != account.file:
            jobs.settle(account, now=wall(), by=str(this_process()["user"]))
        self._say_missed(account)  # now that it is this process that has accounted for them
        deliver_due(self.store.database.root, self.store.reader)

    def _say_missed(self, account: Settlement) -> None:
        """Where nobody has asked to hear of it otherwise, cron's mail has it: `resume` is what finds it out."""
        missed = [one for one in account.unrun if one.fate == "missed" and one.reason != "limit"]
        if self._given is not None or account.notify is not None or not missed:
            return
        number = sum(one.number for one in missed)
        ticks = f"{number} ticks were" if number > 1 else "1 tick was"
        until = f" to {rfc3339(missed[-1].last)}" if number > 1 else ""
        print(
            f"agentrun: {ticks} missed of job {account.job}: {rfc3339(missed[0].first)}{until}\n"
            f"  `agentrun ticks {account.job}` shows them, `agentrun backfill` runs them",
            file=sys.stderr,
        )

    def _nothing_due(self, newest: int | None, *, paused: bool) -> End:
        """The newest tick has its account: 0 if it is over, 75 while its run is not, or the job is paused."""
        if newest is None:
            return End(0, over=True)
        if paused:
            turns.tell(f"job {self.job.name} is paused: `agentrun unpause {self.job.name}` lets its next tick run")
            return End(75, over=False)
        run = self.store.reader.of_tick(self.job.name, newest)
        if run is None:
            return End(0, over=True)
        self._check_params(run.id)
        if self.as_json:
            from ..render.jsonshape import print_run

            print_run(self.store.reader, self.store.database.root, run)
        if run.outcome in ("succeeded", "skipped"):
            return End(0, over=True)
        if run.outcome is not None:  # whoever starts it once more should not take silence for success
            print(
                f"agentrun: tick {rfc3339(newest)} of job {run.job} has run already, as {run.id}: {run.outcome}\n"
                f"  go on with it: agentrun resume {run.id}; or run besides the schedule: --no-tick",
                file=sys.stderr,
            )
        return End(75, over=False)

    def _check_params(self, run_id: str) -> None:
        """The tick is another's: that is as well, unless it was to do something else. Raises UsageError."""
        run = self.store.reader.run(run_id)
        if self._given is not None and run.params != self._given:
            raise UsageError(
                f"this tick of job {run.job} belongs to run {run_id}, which was started with {json.dumps(run.params)}",
                "a tick runs once: let one job file or run do it for all, or give each its own 'name'",
            )

    def _go_on(self, run: Run) -> int:
        """Bring an interrupted run to its end; where somebody else was quicker, see it there."""
        self._healed.append(run.id)
        while True:
            try:
                status = advance.advance(self.store, run.id, shown=advance.watcher())
            except Busy:
                while run.state == "running" and run.held(self.store.database.root):
                    time.sleep(turns.POLL)
                    run = self.store.reader.run(run.id)
                if run.state != "running":
                    return 0
                continue
            except (Missing, NotFound) as error:  # it cannot go on; the tick can
                self._ignored.append(run.id)
                strays.say_once(self.store.database.root, run.id, f"agentrun: {run.job}/{run.id}: {error.message}")
                return 0
            turns.hand_over(self.store, run.overlap_key)
            return status
