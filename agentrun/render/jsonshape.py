"""What `--json` prints: the shapes that are promised, each with its name and version under `schema`.

Keys are added, never changed or taken away. Times are RFC 3339 in UTC with milliseconds, durations do not
occur, `state` and `outcome` are the words of the record. `signal` is a number.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AgentrunError, JobFileError
from ..instants import rfc3339
from ..model import Problem
from ..spec.values import BILLION
from ..store.folders import RunFolder
from ..store.read import AttemptRow, Event, Reader, Run, StepRow
from ..store.spent import Account, CallRow, ModelUse, account
from .instances import Known, item_of, step_of, stuck_since, whole
from .status import Standing
from .terminal import printable_json
from .times import rfc3339_or_none

if TYPE_CHECKING:
    from ..engine.reuse import Fate
    from ..model import JSON, Budget, Job

Shape = dict[str, Any]


def run_shape(standing: Standing) -> Shape:
    """A run. `questions` are those that wait for an answer, of runs that it called too: `run` and `step` are what
    `agentrun resume RUN --took-place STEP` takes."""
    run = standing.run
    return {
        "schema": "agentrun.run/1",
        "id": run.id,
        "job": run.job,
        "file": run.file,
        "state": run.state,
        "outcome": run.outcome,
        "reason": run.reason,
        "interrupted": standing.interrupted,
        "slow": standing.slow is not None,
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339_or_none(run.started_at),
        "finished_at": rfc3339_or_none(run.finished_at),
        "scheduled_time": rfc3339_or_none(run.scheduled_time),
        "run_key": run.run_key,
        "params": run.params,
        "parent": run.parent,
        "steps_done": run.steps_done,
        "steps_total": run.steps_total,
        "current_step": standing.current_step,
        "questions": [{"run": one.run, "step": one.step, "question": one.question} for one in standing.asked],
        "error": run.error,
        "exit_code": run.exit_code,
        "resumes": run.resumes,
        "pid": standing.pid,
    }


def run_with_steps_shape(
    standing: Standing,
    rows: Sequence[StepRow],
    attempts: Mapping[str, Sequence[AttemptRow]],
    folder: RunFolder,
    spent: Account,
    known: Known,
) -> Shape:
    """A run and its steps; each step is followed by its instances or rounds, those included that have not begun.

    `usage` is what was used, by step and model, those of called runs included (`research/think`); `counted` is false
    of handlers. `caller` and `caller_step` are the run that called this one, and its step. `enforced_by` says in words
    what holds the limits of the run.
    """
    if standing.interrupted:
        known = known._replace(stuck={})
    shape = run_shape(standing)
    shape["usage"] = [use_shape(use) for use in spent.uses]
    shape["enforced_by"] = spent.enforced_by
    shape["caller"] = spent.caller
    shape["caller_step"] = spent.caller_instance
    shape["steps"] = [step_shape(row, attempts.get(row.instance, ()), folder, known) for row in rows]
    for step in shape["steps"]:  # a step that is a run asks what that one asks
        step["question"] = step["question"] or next(
            (f"{one.run}, {one.step}: {one.question}" for one in standing.asked if one.via == step["instance"]), None
        )
    return shape


def print_run(reader: Reader, root: str, run: Run) -> None:
    """Print a run and its steps to stdout: what `--json` of the commands that advance one ends with."""
    attempts: dict[str, list[AttemptRow]] = {}
    for attempt in reader.attempts(run.id):
        attempts.setdefault(attempt.instance, []).append(attempt)
    standing = Standing(run, run.interrupted(root), reader.active_steps(run.id), asked=reader.asked(run.id))
    rows, known = whole(reader, run.id, reader.job_of(run))
    folder = RunFolder(root, run.id)
    print(dumps(run_with_steps_shape(standing, rows, attempts, folder, account(reader, run.id), known)))


def dumps(value: JSON) -> str:
    """JSON for stdout: indented for the eyes of a person, in one line for programs."""
    return printable_json(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def line(value: JSON) -> str:
    """JSON in one line, of a stream of them."""
    return printable_json(json.dumps(value, ensure_ascii=False))


def step_shape(row: StepRow, attempts: Sequence[AttemptRow], folder: RunFolder, known: Known) -> Shape:
    """A step of a run, or an instance of one. `log` is the file of its last attempt, `attempts` a number, `history` the
    attempts.

    `number` is that of the instance or round, null for a step itself; `instances` how many a step has, or rounds were
    begun: null for one without, and as long as its list is not known. `item` is what an instance is for. `child` is the
    id of the run that a step with `job` is. `question` is what a person is asked about an interrupted
    attempt, in words; of a step with `job` the first that its run asks. `stuck_since`: from then on it has used no CPU
    and printed nothing.
    """
    log = folder.log(row.instance, row.attempt)
    child = known.children.get(row.instance)
    return {
        "id": step_of(row),
        "instance": row.instance,
        "number": None if row.number < 0 else row.number,
        "instances": row.instances,
        "item": item_of(row, known)[1],
        "child": None if child is None else child.id,
        "state": row.state,
        "outcome": row.outcome,
        "reason": row.reason,
        "continued": row.covered,
        "attempts": row.attempt,
        "exit_code": row.exit_code,
        "signal": row.signal,
        "started_at": rfc3339_or_none(row.started_at),
        "finished_at": rfc3339_or_none(row.finished_at),
        "due_at": rfc3339_or_none(row.due),
        "stuck_since": rfc3339_or_none(stuck_since(row, known)),
        "question": row.question,
        "idempotency_key": row.idempotency_key,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "error": row.error,
        "log": log if row.attempt and os.path.exists(log) else None,
        "history": [attempt_shape(attempt) for attempt in attempts],
    }


def attempt_shape(attempt: AttemptRow) -> Shape:
    """An attempt of a step."""
    return {
        "number": attempt.number,
        "state": attempt.state,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "error": attempt.error,
        "exception": attempt.exception,
        "started_at": rfc3339(attempt.started_at),
        "finished_at": rfc3339_or_none(attempt.finished_at),
        "cpu_ms": attempt.cpu_ms,
        "max_rss_kib": attempt.max_rss_kib,
        "output_bytes": attempt.output_bytes,
    }


def use_shape(use: ModelUse) -> Shape:
    """What a step used of a model; the cost in the currency that it reported. `model` is null where none was named."""
    return {
        "step": use.step,
        "model": use.model or None,
        "calls": use.calls,
        "input_tokens": use.input_tokens,
        "output_tokens": use.output_tokens,
        "cost": use.cost / BILLION,
        "counted": use.counted,
    }


def call_shape(run: Run, call: CallRow) -> Shape:
    """A call that a Python step made. `result` is null if it raised; `error` says what."""
    return {
        "schema": "agentrun.call/1",
        "run": run.id,
        "job": run.job,
        "instance": call.instance,
        "seq": call.seq,
        "attempt": call.attempt,
        "function": call.function,
        "arguments": json.loads(call.arguments),
        "key": call.key,
        "result": None if call.result is None else json.loads(call.result),
        "error": call.error,
        "started_at": rfc3339(call.started_at),
        "ms": call.ms,
    }


def event_shape(event: Event) -> Shape:
    """A line of the journal."""
    return {
        "schema": "agentrun.event/1",
        "run": event.run_id,
        "job": event.job,
        "seq": event.seq,
        "time": rfc3339(event.at),
        "kind": event.kind,
        "instance": event.instance,
        "attempt": event.attempt,
        "by": event.by,
        "detail": event.detail,
    }


def line_shape(run: Run, instance: str, attempt: int, position: int, steps: int, at: int, text: str) -> Shape:
    """A line of a log. `attempt` 0 is the `if` of a step or instance, of a round its `until`; `position`, of the
    step in its file, counts from 1, and `steps_total` are the steps of the file: instances are not counted."""
    return {
        "schema": "agentrun.line/1",
        "run": run.id,
        "job": run.job,
        "time": rfc3339(at),
        "instance": instance,
        "attempt": attempt,
        "position": position,
        "steps_total": steps,
        "text": text,
    }


def problem_shape(problem: Problem, severity: str = "error") -> Shape:
    """Something wrong in a job file (`error`), or what may be (`warning`)."""
    return {
        "schema": "agentrun.problem/1",
        "file": problem.path,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
        "severity": severity,
    }


def refusal_shapes(path: str, error: AgentrunError) -> list[Shape]:
    """The problems that an error is made of; any other error is one at the beginning of the file."""
    if isinstance(error, JobFileError):
        return [problem_shape(problem) for problem in error.problems]
    return [problem_shape(Problem(path, 1, 1, error.message, hint=error.hint))]


def plan_shape(job: Job, file: str, stages: Mapping[str, int]) -> Shape:
    """What a run of the job would do."""
    return {
        "schema": "agentrun.plan/1",
        "job": job.name,
        "file": file,
        "deadline_ms": job.deadline,
        "max_parallel": job.slots(os.cpu_count() or 1),
        "budget": _limits_shape(job.budget),
        "daily": _limits_shape(job.daily),
        "steps": [
            {
                "id": step.id,
                "name": step.name,
                "stage": stages[step.id],
                "needs": list(step.needs),
                "when": step.when,
                "if": step.condition,
                "timeout_ms": step.timeout,
                "stuck_after_ms": step.stuck_after,
                "on_stuck": None if step.stuck_after is None else step.on_stuck,
                "max_attempts": step.retry.max_attempts,
                "continue_on_error": step.continue_on_error,
                "on_interrupt": step.on_interrupt,
                "verify": step.verify,
                "job": step.job,
                "foreach": step.foreach,
                "max_parallel": step.max_parallel,
                "fail_fast": step.fail_fast,
                "repeat": None if step.repeat is None else {
                    "until": step.repeat.until, "max": step.repeat.max, "interval_ms": step.repeat.interval,
                },
                "budget": _limits_shape(step.budget),
                "line": step.line,
            }
            for step in job.steps
        ],
    }


def fates_shape(run: Run, fates: Sequence[Fate], differences: Sequence[str], from_step: str | None) -> Shape:
    """What a resume would do with each step, and why: `reuse`, `run`, `decide`, `ask`, `skip` or `fail`.

    `from`: the step that `--from` names; then it would be a new run. `differences`: finished steps that the file of
    `--spec` defines otherwise, in sentences.
    """
    return {
        "schema": "agentrun.resume_plan/1",
        "run": run.id,
        "job": run.job,
        "from": from_step,
        "differences": list(differences),
        "steps": [{"id": fate.step, "fate": fate.fate, "why": fate.why} for fate in fates],
    }


def _limits_shape(budget: Budget) -> Shape:
    """The limits of a budget; null where there is none. The cost is a number of whatever currency is reported."""
    return {
        "steps": budget.steps,
        "tokens": budget.tokens,
        "cost": None if budget.cost is None else budget.cost / BILLION,
        "cpu_ms": budget.cpu,
        "memory_bytes": budget.memory,
        "output_bytes": budget.output,
        "processes": budget.processes,
    }
