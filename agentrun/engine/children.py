"""Child runs: a step with `job` is a run of its own, advanced by a process that is the step's attempt.

The child's record names its caller, so that every attempt of the step goes on with the same run: one that was
interrupted is resumed, one that failed goes on from its failed step, one that has succeeded is not run again. The
process (`agentrun child`) ends with the child; what it means for the step is read from the child's record.

To end one is to wish its cancel, as a person would: its own `always` steps still run. Where there is no record yet,
or the machine goes down, or the step's timeout is over, its process gets a TERM: the child is then interrupted, and
goes on with the next attempt. What no attempt took up again is ended in the record when the parent ends
(`lost.close_open`): a child run never goes on without its parent.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Busy
from ..model import JSON, Step, split_instance
from ..step import outputs
from ..step.results import Result
from ..store.changes import dumps
from ..store.folders import RunFolder
from ..store.instances import lists_of, outputs_in_order
from ..store.read import Reader, Run
from ..store.write import Store
from . import judge
from .attention import ring

# What a child is cancelled for; for anything else it is interrupted, and goes on with the next attempt.
_CANCELLED_FOR = ("cancel", "deadline", "budget", "fail_fast", "tokens", "cost", "cpu", "output")
# Exit statuses of a supervisor that could not go on: what is wrong does not go away by asking again (errors.py).
_REFUSALS = (2, 65, 66, 69, 73)


class Called:
    """The child runs that a supervisor is ending.

    A wish is written once, and a second time for those that do not end their handlers, whoever is the supervisor by
    then. A child that takes longer than its handlers may, or hangs, is ended by force: see `overdue`.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._due: dict[tuple[str, int], tuple[int, str]] = {}

    def end(self, name: str, attempt: int, cause: str, now: int, patience: int, *, wishes: int = 1) -> bool:
        """Wish the child's cancel; it has `patience` ms. False: there is none to wish it of, so end its process."""
        if cause not in _CANCELLED_FOR or not self._wish(name, now, wishes):
            return False
        due = now + patience
        known = self._due.get((name, attempt))
        self._due[name, attempt] = (min(due, known[0]) if known else due, cause)
        return True

    def insist(self, running: Iterable[tuple[str, int]], now: int, patience: int) -> None:
        """Their handlers have to end, too."""
        for name, attempt in set(self._due).intersection(running):
            self.end(name, attempt, self._due[name, attempt][1], now, patience, wishes=2)

    def overdue(self, running: Iterable[tuple[str, int]], now: int) -> list[tuple[str, int, str]]:
        """Attempts to be ended by force: name, number, cause. Each once."""
        late = [key for key, (due, _) in self._due.items() if due <= now]
        causes = {key: self._due.pop(key)[1] for key in late}
        return [(*key, causes[key]) for key in set(late).intersection(running)] if late else []

    def next_due(self) -> int | None:
        """When the first of them is overdue."""
        return min((due for due, _ in self._due.values()), default=None)

    def _wish(self, name: str, now: int, wishes: int) -> bool:
        child = self._store.reader.child_of(self._run_id, name)
        if child is None or child.state == "finished":
            return False
        by = f"run {self._run_id}"
        if self._store.reader.cancels_wished(child.id, by) < wishes:
            try:
                self._store.wish_to_cancel(child.id, by=by, now=now)
            except Busy:
                return True  # it has finished just now
        ring(RunFolder(self._store.database.root, child.id))
        return True


def judge_child(
    reader: Reader, run_id: str, step: Step, result: Result, folder: RunFolder, ending: str | None, *, stopping: bool
) -> judge.Verdict:
    """What the end of the process that advanced a child means. `ending`: what the step was told to end for."""
    child = reader.child_of(run_id, result.instance)
    if child is None or child.state != "finished":
        ended = result.ended_by is not None or (stopping and judge.is_stop(result))
        # killed before its run was on record, its process has no status of its own to tell
        killed = result.signal is not None and not result.oom if child is None else result.exit_code not in _REFUSALS
        if killed and not ended:
            return judge.interrupted(result.instance, result.attempt, result.ended_at)
        return judge.judge(step, result, folder, stopping=stopping)
    if child.outcome == "succeeded":
        try:
            values = outputs.check(outputs_of_run(reader, child), step.outputs)
        except outputs.OutputsError as wrong:
            return judge.verdict(step, result, "failed", "outputs", ("outputs",), wrong.message)
        return judge.verdict(step, result, "succeeded", None, (), None, outputs=dumps(values) if values else None)
    if ending is not None and ending in _CANCELLED_FOR:
        outcome, reason, causes = judge.ENDED_BY[ending]
        why = judge.over_budget(step, ending) if causes else f"run {child.id}: {child.error}"
        return judge.verdict(step, result, outcome, reason, causes, why)
    if result.ended_by is not None or result.oom:
        return judge.judge(step, result, folder, stopping=stopping)
    error = f"run {child.id}: {child.error or child.outcome}"
    if child.outcome == "timed_out":
        return judge.verdict(step, result, "timed_out", "child", ("timeout",), error)
    if child.outcome == "over_budget":
        return judge.verdict(step, result, "over_budget", "child", ("budget",), error)
    causes = (str(child.exit_code or 1),)
    return judge.verdict(step, result, "failed", "child", causes, error, exit_code=child.exit_code or 1)


def asks(reader: Reader, run_id: str, instance: str) -> bool:
    """Whether the run that a step is waits for an answer."""
    child = reader.child_of(run_id, instance)
    return child is not None and child.state != "finished" and bool(reader.questions(child.id))


def ended_unseen(reader: Reader, run_id: str, step: Step, instance: str, attempt: int, at: int) -> Result | None:
    """What stands for the result of an attempt whose end nobody saw, if the child's record says that it was over."""
    child = reader.child_of(run_id, instance)
    if child is None or child.state != "finished":
        return None
    status = 0 if child.outcome == "succeeded" else child.exit_code or 1
    return Result({"instance": instance, "attempt": attempt, "ended_at": child.finished_at or at, "exit_code": status})


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
