"""What `resume` and others do about a parked run: it waits for a person's answers, and no process advances it.

The answer is written first. Then the record is read: where it says `waiting`, nobody else takes the answer up, and this
command becomes the owner, as soon as the one who has just parked the run has let go. Where it says `running`, whoever
advances the run sees the answer before it could park it, and is rung; if nobody does, it is resumed as any.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..engine.attention import ring
from ..engine.clock import Clock, wall
from ..engine.lease import Lease, busy, this_process
from ..errors import UsageError
from ..store.folders import RunFolder
from ..store.read import Reader, Run
from ..store.write import Store

_PATIENCE = 30.0  # seconds for an owner that has parked a run to let go of it
_POLL = 0.02  # seconds


def answer(store: Store, run: Run, took_place: Sequence[str], rerun: Sequence[str]) -> None:
    """Write the answers. Raises UsageError, which names the open questions, and Busy."""
    given = [*((step, "took_place") for step in took_place), *((step, "rerun") for step in rerun)]
    answers: Mapping[str, str] = dict(given)
    if len(answers) < len(set(given)):
        raise UsageError("a step is named by --took-place and by --rerun: it is one or the other")
    waiting = [instance for instance, _ in store.reader.questions(run.id)]
    for step in answers:
        if step not in waiting:
            named = f"those that do: {', '.join(waiting)}" if waiting else "none of its steps does"
            raise UsageError(f"step {step} of run {run.id} waits for no answer", named)
    store.answer(run.id, answers, by=str(this_process()["user"]), now=wall())


def is_due(reader: Reader, run: Run) -> bool:
    """Whether a parked run has to go on now: somebody has wished something of it, or it has reached its deadline.

    After a reboot its clock is set going once: how long the machine was off is known to nobody.
    """
    if reader.wishes(run.id):
        return True
    if run.wake_at is None:
        return False
    now = Clock(run.elapsed, run.seen, run.boot_id)
    return now.boot_id != run.boot_id or now.stamp().elapsed >= run.wake_at


def take_parked(store: Store, run: Run) -> Lease | None:
    """The lease of a run for which something was wished, if nobody else takes that up; None if somebody does.

    Read after the wish was written. Raises Busy if its last owner does not let go.
    """
    folder = RunFolder(store.database.root, run.id)
    give_up = time.monotonic() + _PATIENCE
    while True:
        run = store.reader.run(run.id)
        if run.state != "waiting":
            return None
        if lease := Lease.acquire(folder):
            if store.reader.run(run.id).state == "waiting":
                return lease
            lease.release()
            continue
        if time.monotonic() > give_up:
            raise busy(run.id, run.owner)
        time.sleep(_POLL)


def goes_on_elsewhere(store: Store, run: Run) -> bool:
    """Ring whoever advances the run, and say that it goes on there; False if nobody does."""
    from ..render.terminal import talk

    if run.state == "finished":
        talk(f"run {run.id} of {run.job} has finished meanwhile: {run.outcome}")
        return True
    if not run.held(store.database.root):
        return False
    ring(RunFolder(store.database.root, run.id))
    talk(f"answered; run {run.id} of {run.job} goes on where it is being advanced")
    return True
