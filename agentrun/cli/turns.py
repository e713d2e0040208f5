"""Whose turn it is among runs that may not be at work at once (`concurrency`), and how a run begins in its turn.

A run is recorded as taken, or as one that waits; what is skipped has no run. One that waits with `queue` is begun by
whoever ends (`hand_over`), else by `agentrun resume`; its starter goes. One that replaces others waits here, holding
its lease: it asks those that were there before it to cancel, as long as it is the newest. That it still waits, and who
is in its way, is asked under the lock under which the wish is written: who has lost its place cancels nobody.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from ..engine import create, lost
from ..engine.attention import ring
from ..engine.clock import wall
from ..engine.lease import Lease, this_process
from ..errors import Busy, Overtaken
from ..instants import rfc3339
from ..store import admission
from ..store.admission import Skipped
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store
from . import advance

STOPPED = (130, 143)  # by a signal: who sent it wants nothing further begun
POLL = 0.1  # seconds between two looks at whether another run has ended


class End(NamedTuple):
    """How a start ended: its exit status, and whether its run is over. A step may lend its run any status."""

    status: int
    over: bool


def on_a_terminal() -> bool:
    """Whether somebody looks on: a start from there belongs to no tick."""
    return any(os.isatty(fd) for fd in (0, 1, 2))


def begin(store: Store, request: create.Request, *, as_json: bool = False, detach: bool = False) -> End:
    """Record a run and bring it to its end, if it may begin: 75 if it is skipped, or waits.

    Raises RunKeyTaken, Overtaken if the ticks were accounted for by somebody else.
    """
    job = request.snapshot.job
    made = create.create(store, request, create.Frozen.here(), own=not detach)
    if isinstance(made, Skipped):
        _tell_skip(job.name, made)
        return End(75, over=False)
    if detach:
        made.lease.release()
        advance.detach(made.run_id)
        print(made.run_id)
        return End(0, over=False)
    if made.begun:
        status = advance.advance(store, made.run_id, shown=advance.watcher(), clock=made.clock, as_json=as_json)
    else:
        skip_older(store, made.run_id)
        waited = job.concurrency.policy == "replace" and _wait_for_turn(store, made, as_json=as_json)
        if waited is False:
            made.lease.release()
            _tell_wait(store, job.name, made.run_id)
            return End(75, over=False)
        status = waited
    over = store.reader.run(made.run_id).state == "finished"
    hand_over(store, request.overlap.key if request.overlap else None)
    return End(status, over)


def _wait_for_turn(store: Store, made: create.Created, *, as_json: bool) -> int | bool:
    """Its exit status, when it has had its turn; False if a newer one has taken its place."""
    while _clear_the_way(store, made.run_id):
        try:
            return advance.advance(
                store, made.run_id, shown=advance.watcher(), lease=made.lease, as_json=as_json
            )
        except Busy:
            continue  # another one has begun just now
    return False


def _clear_the_way(store: Store, run_id: str) -> bool:
    """Cancel what is at work in this run's place, and wait until it has ended; False if a newer one has its place."""
    root, asked, by = store.database.root, set[str](), str(this_process()["user"])
    while True:
        with store.database.alone():
            run = store.reader.run(run_id)
            if run.state != "queued" or run.overlap_key is None or run.overlap_limit is None:
                return run.state == "queued"
            at_work = admission.in_the_way(store.database.connection, run.overlap_key, ignored=frozenset((run_id,)))
            if len(at_work) < run.overlap_limit:
                return True
            if newer := [other for other, _ in at_work if other > run_id]:
                store.supersede(run_id, newer[-1], by=by, now=wall())
                return False
            other = store.reader.run(at_work[0][0])
            if other.id not in asked:
                asked.add(other.id)
                tell(f"{other.job}/{other.id} is at work: cancelling it, as `concurrency: replace` says")
                if not store.reader.cancels_wished(other.id):  # a second cancel would end its `always` steps too
                    store.wish_to_cancel(other.id, by=f"run {run_id}", now=wall())
        if other.held(root) and other.state != "waiting":
            ring(RunFolder(root, other.id))
            time.sleep(POLL)
        else:
            _end(store, other)


def _end(store: Store, run: Run) -> None:
    """Let a run that nobody advances end, as was wished."""
    if lost.is_lost(store.database.root, run):
        lost.cancel(store, run)
        return
    try:
        advance.advance(store, run.id, shown=advance.watcher(quiet=True))
    except Busy:
        time.sleep(POLL)


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
        if status in STOPPED and store.reader.run(line[-1]).state != "finished":
            return


def skip_older(store: Store, run_id: str) -> None:
    """Of those that wait in line before a run, none begins any more."""
    key = store.reader.run(run_id).overlap_key
    line = admission.waiting_in_line(store.database.connection, key) if key else []
    if run_id in line:
        skip_but(store, line[: line.index(run_id)], run_id)


def skip_but(store: Store, older: list[str], newest: str) -> None:
    """Of those that wait in line only the newest begins."""
    for run_id in older:
        try:
            store.supersede(run_id, newest, by=str(this_process()["user"]), now=wall())
        except Overtaken:
            continue  # it has begun just now


def _tell_wait(store: Store, job: str, run_id: str) -> None:
    run = store.reader.run(run_id)
    if run.state != "queued":
        tell(f"{job}/{run_id} is skipped: {run.error or run.outcome or 'it goes on elsewhere'}")
        return
    other = admission.blocker(store.database.connection, run_id)
    after = f"run {other} is at work" if other else "it begins with the next `agentrun resume`"
    tell(f"{job}/{run_id} waits in line: {after}")


def _tell_skip(job: str, why: Skipped) -> None:
    if why.reason == "paused":
        tell(f"job {job} is paused: this tick is skipped; `agentrun unpause {job}` lets the next one run")
    else:
        tell(f"skipped: run {why.because} of this job or key is at work since {rfc3339(why.since)}")


def tell(line: str) -> None:
    """Silent without a terminal, as cron wants it: the record has it."""
    if sys.stderr.isatty():
        print(f"agentrun: {line}", file=sys.stderr)
