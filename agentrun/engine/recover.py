"""How a process comes to own a run, whatever state the last owner left it in.

Order: the lease; the epoch; then the shim, if one lives; only then its results. A shim is asked before the
results are read: what it says is running may have ended since, and is in the file by then, but what it says
is not running and has no result was never started. If no shim lives, leftovers of the run are ended before
anything starts, and what was running without a result of this boot was interrupted. That is committed before a
new shim is begun: whoever finds that one after our death asks it for what the record says is running.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from ..errors import Missing
from ..model import Job, Step
from ..step import procs, tree
from ..step.link import Link, ShimGone
from ..store import locks
from ..store.changes import Noted
from ..store.folders import RunFolder
from ..store.read import Reader, Run
from ..store.spent import Spent
from ..store.write import Store
from .attention import STOPS
from .budgets import Meter
from .clock import Clock
from .create import Frozen, forget
from .facts import left_running
from .inputs import Inputs, limits_of
from .lease import Lease, busy, overtake, this_process
from .rebuild import rebuild
from .supervisor import Supervisor
from .watcher import Watcher

_MAX_RESTARTS = 5  # of the supervisor by one shim; each of them also counts for max_resumes
_MAX_SHIMS = 3  # in a row that die before they hold the run
_SHIM_PATIENCE = 5.0  # seconds for a shim that holds its lock to answer


Adopted = tuple[Link, set[tuple[str, int]]]  # a shim that lives, and what runs there


def own(
    store: Store,
    run_id: str,
    *,
    link: Link | None,
    watcher: Watcher,
    force: bool = False,
    lease: Lease | None = None,
    replace_env: bool = False,
) -> Supervisor | None:
    """Take over an unfinished run. `link`: a shim forked early that has no run yet.

    None if it has finished meanwhile. `force`: whoever has it is ended first. `replace_env`: this environment
    stands in for one that is gone. Raises Busy if somebody has it, Missing if its environment is gone.
    """
    reader = store.reader
    folder = RunFolder(store.database.root, run_id)
    if lease is None:
        run = reader.run(run_id)
        lease = overtake(folder, run.owner) if force else Lease.acquire(folder)
        if lease is None:
            raise busy(run_id, run.owner)
    run = reader.run(run_id)  # again: the last owner may have finished it before it let go
    if run.state == "finished":
        # killed between the record and its goodbye: the shim waits for somebody to say it
        if adopted := _adopt(folder, run.epoch):
            adopted[0].goodbye()
        if run.outcome == "succeeded":
            forget(folder)
        lease.release()
        return None
    lacking = Frozen.load(folder) is None
    if lacking:
        if not replace_env:
            raise _no_environment(run_id)
        Frozen.here().keep(folder)
    # the shim first: a resume that cannot get it must not count against max_resumes
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    adopted = _adopt(folder, run.epoch + 1, force=force) if run.epoch > 0 else None
    clock = Clock(run.elapsed, run.seen, run.boot_id, run.owner)
    begun = run.epoch > 0 and run.seen is not None
    owner = this_process(clock.ahead)
    stamp = clock.stamp()
    epoch = store.take(run_id, seen_epoch=run.epoch, owner=owner, stamp=stamp, resumed=begun, in_turn=True)
    if lacking:
        replaced = Noted("environment_replaced", clock.now(), by=str(owner["user"]))
        store.commit(run_id, epoch, clock.stamp(), [replaced], results_seen=run.results_seen)
    return supervise(store, run_id, link=link, watcher=watcher, clock=clock, adopted=adopted)


def supervise(
    store: Store, run_id: str, *, link: Link | None, watcher: Watcher, clock: Clock, adopted: Adopted | None = None
) -> Supervisor:
    """The supervisor of a run that this process has taken: its facts rebuilt, and a shim begun if none was adopted."""
    reader = store.reader
    folder = RunFolder(store.database.root, run_id)
    run = reader.run(run_id)
    job = reader.job_of(run)
    frozen = Frozen.load(folder)
    if frozen is None:
        raise _no_environment(run_id)
    facts, in_flight, ended = rebuild(reader, run, job, clock)
    inputs = Inputs(run, job, folder, reader, frozen.env, facts, started_in=frozen.cwd)
    meter = _meter(job, run, reader, folder, clock)

    def open_shim(fresh: Link | None = None) -> Link:
        return _open(fresh, folder, run, job, inputs.base, frozen.umask, meter.spent, clock)

    # from here on only the loop may hear that it is to stop (attention.py)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    if adopted:
        _drop(adopted[0], adopted[1] - set(in_flight), link)
    else:
        if run.epoch > 1:
            tree.end_leftovers(run_id, folder, keep=left_running(job, facts))
        run = run._replace(results_seen=min(run.results_seen, _size(folder.results)))
    supervisor = Supervisor(
        store=store,
        run=run,
        job=job,
        folder=folder,
        clock=clock,
        facts=facts,
        inputs=inputs,
        meter=meter,
        link=adopted[0] if adopted else None,
        relink=open_shim,
        watcher=watcher,
        interrupted=reader.interrupted_steps(run_id) if run.epoch > 1 else set(),
    )
    for end in ended:
        facts.apply(end)
    for name, attempt in in_flight:
        meter.adopt(name, attempt)
    if adopted:
        supervisor.reconcile(in_flight, adopted[1], adopted=True)
    else:
        if run.epoch > 1:
            supervisor.reconcile(in_flight, set(), adopted=False)
            supervisor.record_losses()
        supervisor.hold(open_shim(link))
    if run.resumes > job.max_resumes:
        supervisor.give_up(f"interrupted {run.resumes} times: given up after {job.max_resumes} (max_resumes)")
    return supervisor


def _meter(job: Job, run: Run, reader: Reader, folder: RunFolder, clock: Clock) -> Meter:
    return Meter(
        job,
        run,
        reader,
        usage_path=folder.usage,
        calls_path=folder.calls,
        now=clock.now(),
        called=run.caller is not None,
    )


def _drop(shim: Link, strangers: set[tuple[str, int]], fresh: Link | None) -> None:
    """What only a new shim or another job file would need: an early link; steps and items that are no more."""
    for instance, attempt in strangers:  # nothing of this run waits for them
        shim.end(instance, attempt, "shutdown", 0)
    if fresh:
        fresh.close()


def _open(
    fresh: Link | None,
    folder: RunFolder,
    run: Run,
    job: Job,
    env: dict[str, str],
    umask: int,
    spent: Spent,
    clock: Clock,
) -> Link:
    """A shim that holds the run: `fresh`, or a new one. One that cannot hold it says so before anything is begun.

    That of a child run starts no other supervisor: the next attempt of the step that the run is does.
    """
    for _ in range(_MAX_SHIMS):
        link = fresh or Link.spawn()
        fresh = None
        try:
            link.open(
                folder,
                epoch=run.epoch,
                env=env,
                umask=umask,
                restart=[sys.executable, "-P", "-m", "agentrun", "supervise", folder.run_id],
                max_restarts=_MAX_RESTARTS if run.caller is None else 0,
                limits=limits_of(job.budget),
                limited=any(limits_of(step.budget) for step in job.steps if step.budget is not Step.budget),
                spent={"cpu": spent.cpu, "output": spent.output},
                clock=clock.ahead,
            )
            link.hello()
            return link
        except ShimGone:
            link.close()
            locks.wait_until_free(folder.lock, locks.SHIM, _SHIM_PATIENCE)
    raise Missing(
        f"the process that is to hold the steps of run {folder.run_id} ended {_MAX_SHIMS} times before it could",
        "look what kills it (memory?), then resume the run",
    )


def _size(results: str) -> int:
    # a power cut may have taken the end of the file, which is not synced, or all of it
    try:
        return os.path.getsize(results)
    except FileNotFoundError:
        return 0


def _no_environment(run_id: str) -> Missing:
    return Missing(
        f"the environment that run {run_id} was created in is gone",
        f"go on in this one with: agentrun resume {run_id} --env-here",
    )


def _adopt(folder: RunFolder, epoch: int, *, force: bool = False) -> Adopted | None:
    """The shim of the run if one lives, and what runs there; it may be about to go, or slow on a loaded machine.

    `force`: one that does not answer, because it is stopped, is ended.
    """
    give_up = time.monotonic() + _SHIM_PATIENCE
    while locks.held(folder.lock, locks.SHIM):
        try:
            link = Link.connect(folder, epoch)
            return link, {(instance, attempt) for instance, attempt in link.hello(_SHIM_PATIENCE)}
        except (ConnectionError, FileNotFoundError, TimeoutError):
            pass
        if time.monotonic() > give_up:
            holders = procs.holders(folder.lock)
            if not force or not holders:
                pids = ", ".join(str(process.pid) for process in holders) or "unknown"
                raise Missing(
                    f"the process that holds the steps of run {folder.run_id} does not answer (pid {pids})",
                    f"continue it with kill -CONT, or end it: agentrun resume {folder.run_id} --force",
                )
            for process in holders:
                procs.send_signal(process, signal.SIGKILL)
            locks.wait_until_free(folder.lock, locks.SHIM, _SHIM_PATIENCE)
            force = False
        time.sleep(0.01)
    return None
