"""Child runs: a step with `job` is a run of its own, advanced by a process that is the step's attempt.

The child's record names its caller, so that every attempt of the step goes on with the same run: one that was
interrupted is resumed, one that failed goes on from its failed step, one that has succeeded is not run again. The
process (`agentrun child`) ends with the child; what it means for the step is read from the child's record.

To end one is to wish its cancel, as a person would: its own `always` steps still run. Where there is no record yet,
or the machine goes down, or the step's timeout is over, its process gets a TERM: the child is then interrupted, and
goes on with the next attempt. What no attempt took up again is ended in the record when the parent ends
(`close_open`): a child run never goes on without its parent.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import Busy
from ..model import JSON, Job, Step, split_instance
from ..step import outputs
from ..step.results import Result
from ..store import spent
from ..store.changes import dumps
from ..store.folders import RunFolder
from ..store.instances import lists_of, outputs_in_order
from ..store.read import Reader, Run
from ..store.write import Store
from . import judge, lost
from .attention import ring
from .history import Cause

# What the end of a child that we had cancelled means for the step.
_CANCELLED_FOR = ("cancel", "deadline", "budget", "fail_fast")


def is_cancel(cause: str) -> bool:
    """Whether a child that is ended for this is to be cancelled; else it is only interrupted."""
    return cause in _CANCELLED_FOR


def cancel(store: Store, run_id: str, instance: str, now: int) -> bool:
    """Wish the child's cancel; False if it has no record to wish it in, or has finished."""
    child = store.reader.child_of(run_id, instance)
    if child is None or child.state == "finished":
        return False
    try:
        store.wish_to_cancel(child.id, by=f"run {run_id}", now=now)
    except Busy:
        return True  # it has finished just now
    ring(RunFolder(store.database.root, child.id))
    return True


def judge_child(
    reader: Reader, run_id: str, step: Step, result: Result, folder: RunFolder, ending: Cause | None, *, stopping: bool
) -> judge.Verdict:
    """What the end of the process that advanced a child means. `ending`: what the step was told to end for."""
    child = reader.child_of(run_id, result.instance)
    if child is None or child.state != "finished":
        ended = result.ended_by is not None or (stopping and judge.is_stop(result))
        if child is not None and not ended:
            return judge.interrupted(result.instance, result.attempt, result.ended_at)
        return judge.judge(step, result, folder, stopping=stopping)
    if child.outcome == "succeeded":
        try:
            values = outputs.check(outputs_of_run(reader, child), step.outputs)
        except outputs.OutputsError as wrong:
            return judge.verdict(step, result, "failed", "outputs", ("outputs",), wrong.message)
        return judge.verdict(step, result, "succeeded", None, (), None, outputs=dumps(values) if values else None)
    if ending is not None and is_cancel(ending):
        outcome, reason, causes = judge.ENDED_BY[ending]
        return judge.verdict(step, result, outcome, reason, causes, f"run {child.id}: {child.error}")
    if result.ended_by is not None:
        return judge.judge(step, result, folder, stopping=stopping)
    error = f"run {child.id}: {child.error or child.outcome}"
    if child.outcome == "timed_out":
        return judge.verdict(step, result, "timed_out", "child", ("timeout",), error)
    if child.outcome == "over_budget":
        return judge.verdict(step, result, "over_budget", "child", ("budget",), error)
    causes = (str(child.exit_code or 1),)
    return judge.verdict(step, result, "failed", "child", causes, error, exit_code=child.exit_code or 1)


def bounded(reader: Reader, run: Run, job: Job) -> Job:
    """The job of a run, with no more attempts in its budget than those that called it have left; handlers are free."""
    left: list[int] = []
    child = run
    while child.caller is not None and child.caller_instance is not None:
        caller = reader.run(child.caller)
        its = reader.job_of(caller)
        called_by = {step.id: step for step in its.steps}.get(split_instance(child.caller_instance)[0])
        if called_by is None or called_by.is_handler:  # none: another job file has dropped it
            break
        if its.budget.steps is not None:
            left.append(its.budget.steps - caller.started_steps - spent.of_called(reader, caller.id).steps)
        child = caller
    if not left:
        return job
    steps = run.started_steps + spent.of_called(reader, run.id).steps + max(min(left), 0)
    own = job.budget.steps
    return replace(job, budget=replace(job.budget, steps=steps if own is None else min(own, steps)))


def outputs_of_run(reader: Reader, run: Run) -> dict[str, JSON]:
    """What a child hands up: the outputs of all its steps, handlers left out; of equal keys the later step's."""
    steps = {step.id: step for step in reader.job_of(run).steps}
    handed: dict[str, JSON] = {}
    for row in reader.steps(run.id):
        step = steps.get(split_instance(row.instance)[0])
        if row.number >= 0 or step is None or step.is_handler or row.outcome != "succeeded":
            continue
        if step.foreach is None:
            handed |= row.outputs or {}
        else:
            handed |= lists_of(outputs_in_order(reader.connection, run.id, step.id))
    return handed


def close_open(store: Store, run_id: str) -> None:
    """End the record of every child that is not finished: nothing of it runs, and its parent ends now."""
    for child in store.reader.open_children(run_id):
        close_open(store, child.id)
        lost.end_record(store, child, f"the run that called it has ended ({run_id})")
