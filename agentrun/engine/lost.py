"""A run whose folder is gone cannot go on: nobody can hold it, and its environment and results are lost.

Only its record can be brought to an end; so can that of a child run whose parent has ended (`end_record`). The epoch
is raised first, under its guard: a supervisor that should still live writes nothing from then on. Then what is left
of its processes is ended, and what was running counts as interrupted, since nobody can know how it ended.
"""

from __future__ import annotations

import os

from ..model import Outcome, split_instance
from ..step import tree
from ..store.changes import AttemptEnded, Change, RunFinished, StepSettled
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store
from .attention import ring
from .clock import Clock
from .lease import Lease, this_process


def is_lost(root: str, run: Run) -> bool:
    """Whether an unfinished run has lost its folder: the lock in it is there as long as the record is."""
    return run.state != "finished" and not os.path.exists(RunFolder(root, run.id).lock)


def cancel(store: Store, run: Run) -> None:
    """End the record of a lost run as cancelled. Raises Overtaken if somebody else has been quicker, Busy."""
    for child in store.reader.open_children(run.id):
        if child.held(store.database.root):  # whoever advances it brings it to its end
            store.wish_to_cancel(child.id, by=f"run {run.id}", now=Clock().now())
            ring(RunFolder(store.database.root, child.id))
    end_record(store, run, "its folder is gone")


def close_open(store: Store, run_id: str) -> None:
    """End the record of every child run that nobody advances: its parent ends now, and it never goes on without."""
    for child in store.reader.open_children(run_id):
        folder = RunFolder(store.database.root, child.id)
        if is_lost(store.database.root, child):
            end_record(store, child, f"the run that called it has ended ({run_id})")
        elif lease := Lease.acquire(folder):
            try:
                end_record(store, child, f"the run that called it has ended ({run_id})")
            finally:
                lease.release()


def end_record(store: Store, run: Run, why: str) -> None:
    """End a run that nobody advances as cancelled, in the record alone, after its children. Raises Overtaken, Busy."""
    close_open(store, run.id)
    reader = store.reader
    clock = Clock(run.elapsed, run.seen, run.boot_id, run.owner)
    owner = this_process(clock.ahead)
    epoch = store.take(run.id, seen_epoch=run.epoch, owner=owner, stamp=clock.stamp(), resumed=run.epoch > 0)
    tree.end_leftovers(run.id, RunFolder(store.database.root, run.id))
    now = clock.now()
    changes: list[Change] = [
        AttemptEnded(row.instance, row.number, "interrupted", now, reason="interrupted")
        for row in reader.attempts(run.id)
        if row.state == "running"
    ]
    rows = {row.instance: row for row in reader.step_states(run.id)}
    job = reader.job_of(run)
    index = {step.id: step.index for step in job.steps}
    for name in {*index, *rows}:
        row = rows.get(name)
        if row is None or row.state != "finished":
            outcome: Outcome = "cancelled" if row is not None and row.state == "running" else "skipped"
            position = index[split_instance(name)[0]]
            counted = row is None or row.instances is None
            changes.append(StepSettled(name, position, outcome, now, reason="cancel", counted=counted))
    changes.append(RunFinished("cancelled", now, reason="cancel", error=why, exit_code=1))
    store.commit(run.id, epoch, clock.stamp(), changes, results_seen=run.results_seen)
