"""What a resume keeps of a run, and what it runs again, with the reason for each step.

The same answers serve `resume` itself and `resume --plan`, which only shows them. A failed run keeps what
`plan.reopen` leaves finished; `--from STEP` keeps, in a new run, everything that does not come after STEP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import Any

from ..errors import UsageError
from ..model import Budget, Job, PythonCode, Step, split_instance
from ..store.changes import StepSettled, dumps
from ..store.folders import home
from ..store.read import Reader, Run, StepRow, StepState
from ..store.write import Store
from . import plan
from .facts import StepFacts


@dataclass(frozen=True)
class Fate:
    """What becomes of a step: `reuse` (its checkpoint stands), `run`, `skip`, `fail`, `ask` (a person has to say), or
    `decide`: when it is its turn.

    `blocks`: those that need it are skipped.
    """

    step: str
    fate: str
    why: str
    blocks: bool = False


def reopen(store: Store, run: Run, *, by: str, now: int) -> None:
    """Let a finished run that did not succeed go on from what it did not get done. Raises Overtaken."""
    job = store.reader.job_of(run)
    handlers = {step.id for step in job.steps if step.is_handler}
    loops = {step.id for step in job.steps if step.repeat is not None}
    again = reopened(store.reader, run, job)
    doubts = in_doubt(store.reader, run, job, again)
    store.reopen(run.id, again, handlers=handlers, loops=loops, in_doubt=doubts, by=by, now=now)


def in_doubt(reader: Reader, run: Run, job: Job, again: Iterable[str]) -> list[str]:
    """Those of them whose last attempt was interrupted, and which are not to run again before that is looked into."""
    asking = {step.id for step in job.steps if step.on_interrupt in ("verify", "ask") and not step.is_handler}
    found = []
    for name in again:
        if asking and split_instance(name)[0] in asking:
            row = reader.step_row(run.id, name)
            attempt = reader.attempt(run.id, name, row.attempt) if row and row.attempt else None
            if attempt is not None and attempt.outcome == "interrupted":
                found.append(name)
    steps = {split_instance(name)[0] for name in found}
    return [*(step for step in steps if step not in found), *found]  # a step runs as long as an instance of it does


def reopened(reader: Reader, run: Run, job: Job | None = None) -> list[str]:
    """The steps and instances that a `resume` of this finished run queues again, of those that have a row."""
    job = job or reader.job_of(run)
    known = _Known({row.instance: _facts(row) for row in reader.step_states(run.id, but_succeeded=True)})
    for step in job.steps:  # what succeeded stays, unless it is a handler
        if step.is_handler:
            known.update((row.instance, _facts(row)) for row in reader.rows_of(run.id, step.index))
    return plan.reopen(job, known)


def check_instances(reader: Reader, run: Run, job: Job) -> None:
    """That another job file can go on with the instances that there are. Raises UsageError.

    An instance whose end nobody saw has to be judged by the file that it was begun with, before its list changes.
    """
    for old in reader.job_of(run).steps:
        new = next((step for step in job.steps if step.id == old.id), None)
        if new is None or not (old.has_instances or new.has_instances):
            continue
        known = reader.rows_of(run.id, old.index)
        rows = [row for row in known if row.number >= 0]
        if not old.has_instances and any(_is_in_doubt(row) for row in known):
            raise UsageError(
                f"step {old.id} was interrupted, and in the new file it has instances",
                f"go on with the file as it was first, or end the run (agentrun resume {run.id}, agentrun cancel"
                f" {run.id})",
            )
        if not rows:
            continue
        if (old.foreach is None, old.repeat is None) != (new.foreach is None, new.repeat is None):
            raise UsageError(
                f"step {old.id} has instances, and changes between `foreach`, `repeat` and neither",
                f"do it again as a new run: agentrun resume {run.id} --from {old.id}, or run the new file",
            )
        at_work = [row for row in rows if row.state == "running" or row.verifying]
        asking = [row.instance for row in rows if row.question is not None]
        if old.foreach != new.foreach and asking:
            raise UsageError(
                f"step {old.id} waits for an answer about {asking[0]}, and the new file has another list",
                f"say first what became of it: agentrun resume {run.id} --took-place '{asking[0]}', or --rerun",
            )
        if old.foreach != new.foreach and any(_is_open(reader, run, old, row) for row in at_work):
            raise UsageError(
                f"step {old.id} was interrupted in the middle of its list, and the new file has another one",
                f"go on with the old list first, or end it (agentrun resume {run.id}, agentrun cancel {run.id})",
            )


def _is_in_doubt(row: StepRow) -> bool:
    """An attempt of it began, and what became of it is not decided."""
    return (row.state == "running" and row.attempt > 0) or row.verifying or row.question is not None


def _is_open(reader: Reader, run: Run, step: Step, row: StepRow) -> bool:
    attempt = reader.attempt(run.id, row.instance, row.attempt) if row.attempt else None
    return step.on_interrupt != "rerun" or attempt is None or attempt.state == "running"


def other_lists(old: Job, new: Job) -> list[str]:
    """The steps that have another `foreach` in another file: their lists are to be frozen again."""
    lists = {step.id: step.foreach for step in old.steps}
    return [step.id for step in new.steps if step.id in lists and lists[step.id] != step.foreach]


def of_run(reader: Reader, run: Run, job: Job) -> list[Fate]:
    """What `resume RUN` would do with each step."""
    rows = {row.instance: row for row in reader.steps(run.id)}
    done: dict[str, int] = {}  # instances that stay as they are
    asking: dict[str, str] = {}  # the first instance of a step that waits for an answer
    again = set(reopened(reader, run, job)) if run.state == "finished" else set()
    held = run.state == "running" and run.held(home())
    for row in rows.values():
        if row.question is not None and row.number >= 0:
            asking.setdefault(split_instance(row.instance)[0], row.instance)
        if row.number >= 0 and row.state == "finished" and row.instance not in again:
            name = split_instance(row.instance)[0]
            done[name] = done.get(name, 0) + 1
    fates: dict[str, Fate] = {}
    for name in TopologicalSorter({step.id: step.needs for step in job.steps}).static_order():
        step = job.step(name)
        own = _fate(step, rows.get(name), name in again, held=held)
        if own.fate == "run" and name in asking:
            own = Fate(name, "ask", f"{asking[name]} waits for an answer; what else it has goes on")
        elif own.fate == "run" and done.get(name):
            own = replace(own, why=f"{own.why}; {_instances(step, done[name], rows[name])}")
        fates[name] = _after(step, own, [fates[need] for need in step.needs])
    return [fates[step.id] for step in job.steps]


def _instances(step: Step, done: int, row: StepRow) -> str:
    if step.repeat is not None:
        return f"{done} of its rounds {_is(done)} done"
    total = "its" if row.instances is None else row.instances
    return f"{done} of {total} instances {_is(done)} done"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _after(step: Step, own: Fate, needs: Iterable[Fate]) -> Fate:
    """A step's fate, seen together with those of the steps that it needs."""
    if own.fate != "run" or step.is_handler:
        return own
    for need in needs:
        if need.blocks:
            return Fate(step.id, "skip", f"{need.step}, which it needs, does not succeed", blocks=True)
    for need in needs:
        if need.fate in ("decide", "ask"):
            return Fate(step.id, "decide", f"after {need.step}")
    return own


_ENDED = {"timed_out": "timed out", "over_budget": "was over its budget", "cancelled": "was cancelled",
          "skipped": "was skipped"}  # fmt: skip
_SKIPPED_FOR = {
    "if": "its `if` said no",
    "upstream": "something that it needs failed",
    "interrupted": "the run was given up",
    "no_failure": "nothing failed",
    "on_interrupt": "its on_interrupt says so",
    "cancel": "the run was cancelled",
    "deadline": "the run had reached its deadline",
    "budget": "no budget was left",
    "fail_fast": "another instance failed",
}


def _because(row: StepRow) -> str:
    """Why it was skipped, or in which budget it was over."""
    if row.outcome == "skipped" and row.reason:
        return f": {_SKIPPED_FOR.get(row.reason, row.reason)}"
    kind = "memory" if row.reason == "oom" else row.reason
    return f" of {kind}" if kind in ("memory", "cpu", "processes", "output", "tokens", "cost") else ""


def _fate(step: Step, row: StepRow | None, again: bool, *, held: bool) -> Fate:
    if row is None:
        return Fate(step.id, "decide" if step.is_handler else "run", "it has not started")
    if again:
        how = "a handler" if step.is_handler else f"it {_ENDED.get(row.outcome or '', row.outcome)}{_because(row)}"
        return Fate(step.id, "decide" if step.is_handler else "run", how)
    if row.state == "finished":
        why = f"{_ENDED.get(row.outcome or '', row.outcome)}{_because(row)}".removeprefix("was ")
        return Fate(step.id, "reuse", why, blocks=not step.is_handler and not _satisfies(row))
    if held and row.state in ("running", "waiting"):
        how = f"attempt {row.attempt} runs" if row.state == "running" and row.attempt else "it has begun"
        return Fate(step.id, "run", f"{how}: another process advances this run")
    if row.question is not None:
        return Fate(step.id, "ask", row.question)
    if row.verifying and step.on_interrupt == "verify":
        return Fate(step.id, "decide", f"attempt {row.attempt} was interrupted, and its verify is asked")
    if row.state == "running" and row.attempt and (step.condition is None or row.asked):
        by = {"rerun": "run", "skip": "skip", "fail": "fail", "verify": "decide", "ask": "ask"}[step.on_interrupt]
        why = f"attempt {row.attempt} was interrupted; its on_interrupt is {step.on_interrupt}"
        return Fate(step.id, by, why, blocks=by == "fail" and not step.continue_on_error and not step.is_handler)
    if row.state == "running":
        return Fate(step.id, "run", "it has not started")
    why = "waits for its next attempt" if row.state == "waiting" else "it has not started"
    return Fate(step.id, "run", why)


def kept_from(reader: Reader, run: Run, job: Job, first: str) -> list[StepSettled]:
    """The finished steps that a new run from step `first` on takes over: all that do not come after it."""
    after = {first}
    while more := {step.id for step in job.steps if step.id not in after and after.intersection(step.needs)}:
        after |= more
    rows = reader.steps(run.id)
    satisfied = {row.instance for row in rows if row.state == "finished" and _satisfies(row)}
    kept = []
    for row in rows:
        step = job.step(split_instance(row.instance)[0])
        if step.id not in satisfied or step.id in after or step.is_handler:
            continue
        if row.outcome is not None:
            kept.append(
                StepSettled(
                    row.instance,
                    step.index,
                    row.outcome,
                    row.finished_at or 0,
                    reason=row.reason,  # type: ignore[arg-type]  # the words of the record are those of the model
                    covered=row.covered,
                    outputs=None if row.outputs is None else dumps(row.outputs),
                    exit_code=row.exit_code,
                    error=row.error,
                    counted=row.instances is None,
                )
            )
    return kept


def _satisfies(row: StepRow) -> bool:
    """Whether those that need this finished step may go on."""
    if row.outcome == "skipped":
        return row.reason in plan.SETTLED_SKIPS
    return row.outcome == "succeeded" or row.covered


def from_step(job: Job, kept: Iterable[StepSettled], first: str) -> list[Fate]:
    """What `resume RUN --from STEP` would do with each step."""
    outcomes = {settled.instance: settled.outcome for settled in kept}
    fates = []
    for step in job.steps:
        if step.id in outcomes:
            fates.append(Fate(step.id, "reuse", outcomes[step.id]))
        elif step.is_handler:
            fates.append(Fate(step.id, "decide", "a handler"))
        else:
            fates.append(Fate(step.id, "run", "the step named" if step.id == first else "not finished, or after it"))
    return fates


def differences(reader: Reader, run: Run, job: Job) -> list[str]:
    """In what another job file defines the finished steps of a run otherwise, a line for each."""
    old = {step.id: step for step in reader.job_of(run).steps}
    new = {step.id: step for step in job.steps}
    again = set(reopened(reader, run)) if run.state == "finished" else set()
    lines = []
    for row in reader.steps(run.id):
        name, number = split_instance(row.instance)
        if row.state != "finished" or row.instance in again:
            continue
        which = f"step {name}, which is finished," if number < 0 else f"step {name}, a part of which is finished,"
        if name not in new:
            lines.append(f"{which} is not in the new file")
        elif name not in old:  # an earlier `--spec` dropped it
            lines.append(f"{which} was not in the file before this one")
        elif changed := _changed_fields(old[name], new[name], of_instance=number >= 0):
            lines.append(f"{which} is defined otherwise: its {', '.join(changed)} changed")
    return list(dict.fromkeys(lines))


_FILE_NAMES = {"args": "with", "condition": "if"}
_OF_THE_WHOLE: Mapping[str, Any] = {
    "foreach": None, "max_parallel": None, "fail_fast": False, "repeat": None, "budget": Budget(),
}  # fmt: skip


def _changed_fields(old: Step, new: Step, *, of_instance: bool) -> list[str]:
    """The keys in which two definitions differ. Where they stand, and what comes before them, is no part of one.

    Nor are, of an instance, those that say which there are, how many at once, and what they may use.
    """
    one, other = _placeless(old), _placeless(new)
    if of_instance:
        one, other = (replace(step, **_OF_THE_WHOLE) for step in (one, other))
    return [
        _FILE_NAMES.get(name, name) for name in one.__dataclass_fields__ if getattr(one, name) != getattr(other, name)
    ]


def _placeless(step: Step) -> Step:
    python = step.python
    if python is not None:
        python = PythonCode(python.module, python.function, python.source)
    return replace(step, index=0, line=0, text_line=1, needs=(), python=python)


class _Known(dict[str, StepFacts]):
    """The steps that matter; any other one is taken for one that has not finished."""

    _OTHER = StepFacts()

    def __missing__(self, _key: str) -> StepFacts:
        return self._OTHER


def _facts(row: StepState | StepRow) -> StepFacts:
    return StepFacts(
        state=row.state,
        outcome=row.outcome,
        reason=row.reason,  # type: ignore[arg-type]  # the words of the record are those of the model
        covered=bool(row.covered),
        attempt=row.attempt,
    )
