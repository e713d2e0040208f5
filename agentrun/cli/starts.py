"""How a run of a job comes to begin: what was interrupted first, then its tick, then its turn among other runs.

    heal        a run of the job that was interrupted goes on first (`on_tick`), before anything is taken
    look        which tick is due, and what became of those before it                 (cron/attend.py)
    wait        the job's jitter; nothing is recorded yet: killed here, the tick is missed, and found to be
    record      the run, its tick, the account of the ticks before it and its turn: one transaction
    advance     to its end; who waited in line meanwhile is begun by who ends          (`hand_over`)

A scheduler's start asks for the ticks up to its own, one after the other; what is due later is another start's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from ..cron.attend import Attendance
from ..engine import create, lost
from ..engine.attention import ring
from ..engine.clock import wall
from ..engine.lease import Lease, this_process
from ..errors import Busy, Overtaken
from ..instants import rfc3339
from ..model import JSON
from ..notify.hearers import deliver_due
from ..store import admission
from ..store.admission import Skipped
from ..store.folders import RunFolder
from ..store.jobs import Jobs, Settlement
from ..store.read import Run
from ..store.snapshots import Snapshot
from ..store.write import RunKeyTaken, Store
from . import advance

_STOPPED = (130, 143)  # by a signal: who sent it wants nothing further begun
_POLL = 0.1  # seconds between two looks at whether a cancelled run has ended
_LOOKS = 20  # at a record that others change at the same time


def on_a_terminal() -> bool:
    """Whether somebody looks on: a start from there belongs to no tick."""
    return any(os.isatty(fd) for fd in (0, 1, 2))


class Start:
    """A start of a job, by whomever. `params` are those of each run that it begins."""

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        file: str,
        params: Mapping[str, JSON],
        *,
        as_json: bool = False,
        detach: bool = False,
    ) -> None:
        self.store, self.snapshot, self.job, self.file, self.params = store, snapshot, snapshot.job, file, params
        self.as_json, self.detach = as_json, detach
        self._ignored: list[str] = []  # interrupted runs that on_tick leaves

    def heal(self) -> int | None:
        """Let what was interrupted of this job go on, as `on_tick` says; a status if nothing may begin behind it."""
        root = self.store.database.root
        for run in self.store.reader.unfinished_of(self.job.name):
            if not run.interrupted(root):
                continue
            if lost.is_lost(root, run):
                _say(f"{run.job}/{run.id} cannot go on, its folder is gone; `agentrun cancel {run.id}` ends its record")
                self._ignored.append(run.id)
            elif self.job.on_tick == "ignore":
                self._ignored.append(run.id)
            else:
                if self.job.on_tick == "restart":
                    self.store.wish_to_cancel(run.id, by="on_tick: restart", now=wall())
                if on_a_terminal():
                    _say(f"{run.job}/{run.id} was interrupted: going on with it first")
                status = self._go_on(run)
                if status in _STOPPED:
                    return status
        return None

    def by_schedule(self) -> int:
        """Run what is due of a job that a scheduler has started now. Returns an exit status."""
        return self.attend(wall(), fired=True)

    def attend(self, now: int, *, fired: bool) -> int:
        """Run the ticks that are due at `now`, oldest first, and account for the others."""
        attendance = Attendance.of(self.job, self.file)
        assert attendance is not None, "only jobs with a schedule are attended"
        if (healed := self.heal()) is not None:
            return healed
        jobs, by = Jobs(self.store.database), str(this_process()["user"])
        status, ran = 0, False
        for _ in range(_LOOKS + 100):
            found, account = attendance.look(jobs, now, fired=fired)
            if found.own is None:
                try:
                    if found.unrun or account.before is None or not _is_settled(jobs, account.job, account.schedule):
                        jobs.settle(account, now=wall(), by=by)
                except Overtaken:
                    continue
                deliver_due(self.store.database.root, self.store.reader)
                return status if ran else self._nothing_due(attendance.calendar.last(now) if fired else None)
            if fired and found.own + attendance.rules.jitter > wall():
                time.sleep((found.own + attendance.rules.jitter - wall()) / 1000)
            try:
                status = self.once(f"tick {rfc3339(found.own)}", found.own, account, pausable=True)
            except (RunKeyTaken, Overtaken):
                continue  # somebody else was quicker: is anything left?
            ran = True
            if status in (75, *_STOPPED):
                return status
        return status

    def once(
        self, key: str | None, tick: int | None, account: Settlement | None = None, *, pausable: bool = False
    ) -> int:
        """One run, if it may begin. Returns its exit status: 75 if it is skipped or waits. Raises RunKeyTaken."""
        request = create.Request(
            self.snapshot,
            self.file,
            self.params,
            run_key=key,
            scheduled_time=tick,
            overlap=create.overlap_of(self.job, self.params, self._ignored),
            ticks=account,
            pausable=pausable,
        )
        return begin(self.store, request, as_json=self.as_json, detach=self.detach)

    def _nothing_due(self, newest: int | None) -> int:
        """The newest tick has its account: 0 if it is over, 75 while its run is not."""
        if newest is None:
            return 0
        run = self.store.reader.by_key(self.job.name, f"tick {rfc3339(newest)}")
        return 75 if run is not None and run.state != "finished" else 0

    def _go_on(self, run: Run) -> int:
        """Bring an interrupted run to its end; where somebody else was quicker, see it there."""
        while True:
            try:
                status = advance.advance(self.store, run.id, shown=advance.watcher())
            except Busy:
                while run.state == "running" and run.held(self.store.database.root):
                    time.sleep(_POLL)
                    run = self.store.reader.run(run.id)
                if run.state != "running":
                    return 0
                continue
            hand_over(self.store, run.overlap_key)
            return status


def begin(store: Store, request: create.Request, *, as_json: bool = False, detach: bool = False) -> int:
    """Record a run and bring it to its end, if it may begin. Returns its exit status: 75 if it is skipped or waits.

    Raises RunKeyTaken.
    """
    job = request.snapshot.job
    made = create.create(store, request, create.Frozen.here(), own=not detach)
    if isinstance(made, Skipped):
        return _tell_skip(job.name, made)
    if detach:
        made.lease.release()
        advance.detach(made.run_id)
        print(made.run_id)
        return 0
    if not made.begun:
        skip_older(store, made.run_id)
        if job.concurrency.policy != "replace":
            made.lease.release()
            other = admission.blocker(store.database.connection, made.run_id)
            after = f"run {other} is at work" if other else "it begins with the next `agentrun resume`"
            _tell(f"{job.name}/{made.run_id} waits in line: {after}")
            return 75
        _replace(store, made.run_id)
    status = advance.advance(
        store,
        made.run_id,
        shown=advance.watcher(),
        clock=made.clock if made.begun else None,
        lease=None if made.begun else made.lease,
        as_json=as_json,
    )
    hand_over(store, request.overlap.key if request.overlap else None)
    return status


def skip_older(store: Store, run_id: str) -> None:
    key = store.reader.run(run_id).overlap_key
    line = admission.waiting_in_line(store.database.connection, key) if key else []
    if run_id in line:
        skip_but(store, line[: line.index(run_id)], run_id)


def _replace(store: Store, run_id: str) -> None:
    """Cancel what is at work in this run's place, and wait until it has ended. Its lease is held meanwhile."""
    root, asked = store.database.root, set[str]()
    while other := admission.blocker(store.database.connection, run_id):
        run = store.reader.run(other)
        if other not in asked:
            asked.add(other)
            _tell(f"{run.job}/{other} is at work: cancelling it, as `concurrency: replace` says")
            try:
                store.wish_to_cancel(other, by=f"run {run_id}", now=wall())
            except Busy:
                continue  # it has ended by itself
        if run.held(root) and run.state != "waiting":
            ring(RunFolder(root, other))
            time.sleep(_POLL)
        else:
            _end(store, run)


def _end(store: Store, run: Run) -> None:
    """Let a run that nobody advances end, as was wished."""
    if lost.is_lost(store.database.root, run):
        lost.cancel(store, run)
        return
    try:
        advance.advance(store, run.id, shown=advance.watcher(quiet=True))
    except Busy:
        time.sleep(_POLL)


def hand_over(store: Store, key: str | None) -> None:
    """Begin who waits in line where a run has ended: here, or where a person looks on, by itself.

    Killed before it has begun, it is taken up by `agentrun resume`.
    """
    while key is not None:
        line = admission.waiting_in_line(store.database.connection, key)
        if not line or admission.blocker(store.database.connection, line[-1]):
            return
        skip_but(store, line[:-1], line[-1])
        lease = Lease.acquire(RunFolder(store.database.root, line[-1]))
        if lease is None:
            return  # it waits itself, or somebody else was quicker
        if on_a_terminal():
            lease.release()
            advance.detach(line[-1])
            return
        try:
            status = advance.advance(store, line[-1], shown=advance.watcher(), lease=lease)
        except Busy:
            lease.release()
            return
        if status in _STOPPED:
            return


def skip_but(store: Store, older: list[str], newest: str) -> None:
    """Of those that wait in line only the newest begins."""
    for run_id in older:
        try:
            store.supersede(run_id, newest, by=str(this_process()["user"]), now=wall())
        except Overtaken:
            continue  # it has begun just now


def _is_settled(jobs: Jobs, job: str, schedule: JSON) -> bool:
    row = jobs.job(job)
    return row is not None and row.schedule == schedule


def _tell_skip(job: str, why: Skipped) -> int:
    if why.reason == "paused":
        _tell(f"job {job} is paused: this tick is skipped")
    else:
        _tell(f"skipped: run {why.because} of this job or key is at work since {rfc3339(why.since)}")
    return 75


def _tell(line: str) -> None:
    """Silent without a terminal, as cron wants it: the record has it."""
    if sys.stderr.isatty():
        _say(line)


def _say(line: str) -> None:
    print(f"agentrun: {line}", file=sys.stderr)
