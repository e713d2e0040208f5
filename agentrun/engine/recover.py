"""How a process comes to own a run, whatever state the last owner left it in.

Order: the lease; the epoch; then the shim, if one lives; only then its results. A shim is asked before the
results are read: what it says is running may have ended since, and is in the file by then, but what it says
is not running and has no result was never started. If no shim lives, leftovers of the run are ended before
anything starts, and what was running without a result of this boot was interrupted.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import Busy
from ..model import Job, Reason
from ..step import tree
from ..step.link import Link, ShimGone
from ..store import locks
from ..store.changes import AttemptEnded, Change, Noted, RunFinished, StepSettled
from ..store.folders import RunFolder
from ..store.read import Reader, Run, StepState
from ..store.write import Store
from .clock import Clock
from .create import Frozen
from .facts import Facts, StepFacts
from .history import CancelWished, Close, Ended
from .inputs import Inputs
from .lease import Lease, busy, overtake, this_process
from .supervisor import Supervisor, Watcher, left_running

_MAX_RESTARTS = 5  # of the supervisor by one shim; each of them also counts for max_resumes
_SHIM_PATIENCE = 5.0  # seconds for a shim that holds its lock to answer
_REASONS: dict[str, Reason] = {"cancelled": "cancel", "timed_out": "deadline", "over_budget": "budget"}


def own(
    store: Store, run_id: str, *, link: Link | None, watcher: Watcher, force: bool = False, lease: Lease | None = None
) -> Supervisor | None:
    """Take over an unfinished run. `link`: a shim forked early that has no run yet.

    None if the run was given up (`max_resumes`) or has finished meanwhile. Raises Busy if somebody has it.
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
            adopted.goodbye()
        lease.release()
        return None
    clock = Clock(run.elapsed, run.seen, run.boot_id)
    begun = run.epoch > 0 and run.seen is not None
    store.take(run_id, seen_epoch=run.epoch, owner=this_process(), stamp=clock.stamp(), resumed=begun)
    return supervise(store, run_id, link=link, watcher=watcher, clock=clock)


def supervise(store: Store, run_id: str, *, link: Link | None, watcher: Watcher, clock: Clock) -> Supervisor | None:
    """The supervisor of a run that this process has taken: its shim found or begun, its facts rebuilt."""
    reader = store.reader
    root = store.database.root
    folder = RunFolder(root, run_id)
    run = reader.run(run_id)
    job = reader.job_of(run)
    frozen = Frozen.load(folder)
    if frozen is None:
        watcher.say("the environment that the run was created in is gone: this one is used")
        frozen = Frozen.here()
    facts, in_flight, ended = rebuild(reader, run, job, clock)
    inputs = Inputs(run, job, folder, reader, frozen.env, facts)

    def open_shim(fresh: Link) -> Link:
        fresh.open(
            folder,
            epoch=run.epoch,
            env=inputs.base,
            umask=frozen.umask,
            restart=[sys.executable, "-P", "-m", "agentrun", "supervise", run_id],
            max_restarts=_MAX_RESTARTS,
        )
        return fresh

    adopted = _adopt(folder, run.epoch) if run.epoch > 1 else None
    running: set[tuple[str, int]] = set()
    if adopted:
        running = {(instance, attempt) for instance, attempt in adopted.hello()}
        if link:
            link.close()
        link = adopted
    else:
        if run.epoch > 1:
            tree.end_leftovers(run_id, folder, keep=left_running(job, facts))
        link = open_shim(link or Link.spawn())
    if os.path.exists(folder.results) and os.path.getsize(folder.results) < run.results_seen:
        run = _rewound(run, os.path.getsize(folder.results))
    if run.resumes > job.max_resumes:
        _give_up(store, reader, run, job, clock, link)
        return None
    supervisor = Supervisor(
        store=store,
        run=run,
        job=job,
        folder=folder,
        clock=clock,
        facts=facts,
        inputs=inputs,
        link=link,
        relink=lambda: open_shim(Link.spawn()),
        watcher=watcher,
        interrupted=reader.interrupted_steps(run_id) if run.epoch > 1 else set(),
    )
    for end in ended:
        facts.apply(end)
    if run.epoch > 1:
        supervisor.reconcile(in_flight, running, adopted=adopted is not None)
    return supervisor


def rebuild(
    reader: Reader, run: Run, job: Job, clock: Clock
) -> tuple[Facts, list[tuple[str, int]], list[Ended]]:
    """The facts of a run from its rows; the attempts that the record says are running; ends not decided on."""
    steps: dict[str, StepFacts] = {}
    in_flight: list[tuple[str, int]] = []
    ended: list[Ended] = []
    for row in reader.step_states(run.id):
        if row.outcome == "succeeded":  # nearly all of them, after a crash late in a long run
            steps[row.instance] = StepFacts("finished", "succeeded", attempt=row.attempt)
            continue
        known = steps[row.instance] = StepFacts(
            state=row.state,
            outcome=row.outcome,
            reason=row.reason,  # type: ignore[arg-type]  # the words of the record are those of the model
            covered=bool(row.covered),
            attempt=row.attempt,
            tries=row.tries,
            interruptions=row.interruptions,
            due=row.due,
            asked="go" if row.asked else None,
        )
        if row.state == "running":
            _running(reader, run, job, row, known, in_flight, ended)
    facts = Facts(
        job,
        seed=run.id,
        deadline_at=clock.deadline_at(job.deadline),
        max_parallel=job.max_parallel or os.cpu_count() or 1,
        started=run.started_steps,
        steps=steps,
    )
    for _ in range(reader.cancels_taken(run.id)):
        facts.apply(CancelWished(clock.now()))
    if run.closing is not None and run.closing_at is not None:
        facts.apply(Close(run.closing, _REASONS[run.closing], run.closing_at))
    return facts, in_flight, ended


def _running(
    reader: Reader,
    run: Run,
    job: Job,
    row: StepState,
    known: StepFacts,
    in_flight: list[tuple[str, int]],
    ended: list[Ended],
) -> None:
    """A step that the record says is running: its `if`, its attempt, or an end that nothing followed from yet."""
    if job.step(row.instance).condition is not None and not row.asked:
        known.state, known.running = "queued", True
        in_flight.append((row.instance, 0))
        return
    attempt = reader.attempt(run.id, row.instance, row.attempt) if row.attempt else None
    if attempt is None or (attempt.state == "finished" and attempt.outcome != "interrupted"):
        known.state = "queued"  # its `if` said go, and it waited for a slot
        return
    known.running = True
    if attempt.state == "running":
        in_flight.append((row.instance, attempt.number))
    else:  # interrupted by a stop: what follows was left to whoever goes on
        at = attempt.finished_at or 0
        ended.append(
            Ended(
                row.instance, attempt.number, "interrupted", at, requested=attempt.requested, reason="shutdown"
            )
        )


def _adopt(folder: RunFolder, epoch: int) -> Link | None:
    """The shim of the run if one lives; it may be about to go, or slow to answer on a loaded machine."""
    give_up = time.monotonic() + _SHIM_PATIENCE
    while locks.held(folder.lock, locks.SHIM):
        try:
            return Link.connect(folder, epoch)
        except (ConnectionError, FileNotFoundError, ShimGone, TimeoutError):
            if time.monotonic() > give_up:
                raise Busy(
                    f"the process that holds the steps of run {folder.run_id} does not answer",
                    f"if it was stopped, continue it; else end it: `fuser {folder.lock}` names it",
                ) from None
            time.sleep(0.01)
    return None


def _rewound(run: Run, size: int) -> Run:
    # a power cut took the end of the results file, which is not synced: what was in it is in the record
    return run._replace(results_seen=size)


def _give_up(store: Store, reader: Reader, run: Run, job: Job, clock: Clock, link: Link) -> None:
    """End a run that was interrupted too often, as failed."""
    error = f"interrupted {run.resumes} times: given up after {job.max_resumes} (max_resumes)"
    now = clock.now()
    link.goodbye()
    tree.end_leftovers(run.id, RunFolder(store.database.root, run.id))
    changes: list[Change] = [
        AttemptEnded(row.instance, row.number, "interrupted", now, reason="interrupted")
        for row in reader.attempts(run.id)
        if row.state == "running"
    ]
    known = {row.instance: row for row in reader.step_states(run.id)}
    for step in job.steps:
        row = known.get(step.id)
        if row is not None and row.state == "finished":
            continue
        if row is not None and row.state != "queued":
            changes.append(StepSettled(step.id, step.index, "failed", now, reason="interrupted", error=error))
        else:
            changes.append(StepSettled(step.id, step.index, "skipped", now, reason="upstream"))
    changes.append(Noted("given_up", now, detail={"resumes": run.resumes}))
    changes.append(RunFinished("failed", now, reason="interrupted", error=error, exit_code=1))
    store.commit(run.id, run.epoch, clock.stamp(), changes, results_seen=run.results_seen)


