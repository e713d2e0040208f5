"""What `resume` and others do about a parked run: it waits for a person's answers, and no process advances it.

The answer is written first. Then the record is read: where it says `waiting`, nobody else takes the answer up, and this
command becomes the owner, as soon as the one who has just parked the run has let go. Where it says `running`, whoever
advances the run sees the answer before it could park it, and is rung; if nobody does, it is resumed as any.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..engine.attention import ring
from ..engine.clock import Clock, wall
from ..engine.lease import Lease, busy, this_process
from ..errors import UsageError
from ..model import split_instance
from ..spec.references import find
from ..store.folders import RunFolder
from ..store.read import Reader, Run
from ..store.write import Store

_PATIENCE = 30.0  # seconds for an owner that has parked a run to let go of it
_POLL = 0.02  # seconds


def answer(store: Store, run: Run, took_place: Sequence[str], rerun: Sequence[str]) -> None:
    """Write the answers. Raises UsageError, which names the open questions, and Busy.

    A step's name answers for all instances of it that wait, but for those that are named themselves.
    """
    given = [*((step, "took_place") for step in took_place), *((step, "rerun") for step in rerun)]
    named = dict(given)
    if len(named) < len(set(given)):
        raise UsageError("a step is named by --took-place and by --rerun: it is one or the other")
    waiting = [instance for instance, _ in store.reader.questions(run.id)]
    answers: dict[str, str] = {}
    for step in sorted(named, key=lambda name: name in waiting):  # what is named itself comes last, and counts
        meant = [step] if step in waiting else [each for each in waiting if split_instance(each)[0] == step]
        if not meant:
            do = f"those that do: {', '.join(waiting)}" if waiting else "none of its steps does"
            raise UsageError(f"step {step} of run {run.id} waits for no answer", do)
        answers.update(dict.fromkeys(meant, named[step]))
    _check_outputs(store.reader, run, [name for name, kind in answers.items() if kind == "took_place"])
    store.answer(run.id, answers, by=str(this_process()["user"]), now=wall())


def _check_outputs(reader: Reader, run: Run, took_place: Sequence[str]) -> None:
    """That no step has to give what nobody knows: one that is said to have taken place has no outputs."""
    job = reader.job_of(run)
    for name in took_place:
        step = job.step(split_instance(name)[0])
        wanted = dict.fromkeys(step.outputs)
        for reader_of in job.steps:
            for reference in (found for value in vars(reader_of).values() for found in find(value)):
                if reference.path[:3] == ("steps", step.id, "outputs"):
                    wanted.update(dict.fromkeys(reference.path[3:4] or ("all",)))
        if wanted:
            keys = ", ".join(wanted)
            raise UsageError(
                f"step {name} gives outputs ({keys}), which are not known where it is only said that it took place",
                f"write what it gave into a copy of the job file: instead of `outputs` of {step.id}, and of each"
                f" steps.{step.id}.outputs; adopt it with `agentrun resume {run.id} --spec FILE`, and answer then",
            )


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
