"""A run whose folder is gone cannot go on: nobody can hold it, and its environment and results are lost.

Only its record can be brought to an end. The epoch is raised first, under its guard: a supervisor that should
still live writes nothing from then on. Then what is left of its processes is ended, and what was running counts
as interrupted, since nobody can know how it ended.
"""

from __future__ import annotations

import os

from ..model import Outcome
from ..step import tree
from ..store.changes import AttemptEnded, Change, RunFinished, StepSettled
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store
from .clock import Clock
from .lease import this_process


def is_lost(root: str, run: Run) -> bool:
    """Whether an unfinished run has lost its folder: the lock in it is there as long as the record is."""
    return run.state != "finished" and not os.path.exists(RunFolder(root, run.id).lock)


def cancel(store: Store, run: Run) -> None:
    """End the record of a lost run as cancelled. Raises Overtaken if somebody else has been quicker, Busy."""
    reader = store.reader
    clock = Clock(run.elapsed, run.seen, run.boot_id)
    epoch = store.take(
        run.id, seen_epoch=run.epoch, owner=this_process(), stamp=clock.stamp(), resumed=run.epoch > 0
    )
    tree.end_leftovers(run.id, RunFolder(store.database.root, run.id))
    now = clock.now()
    changes: list[Change] = [
        AttemptEnded(row.instance, row.number, "interrupted", now, reason="interrupted")
        for row in reader.attempts(run.id)
        if row.state == "running"
    ]
    known = {row.instance: row.state for row in reader.step_states(run.id)}
    for step in reader.job_of(run).steps:
        state = known.get(step.id, "queued")
        if state != "finished":
            outcome: Outcome = "cancelled" if state == "running" else "skipped"
            changes.append(StepSettled(step.id, step.index, outcome, now, reason="cancel"))
    changes.append(RunFinished("cancelled", now, reason="cancel", error="its folder is gone", exit_code=1))
    store.commit(run.id, epoch, clock.stamp(), changes, results_seen=run.results_seen)
