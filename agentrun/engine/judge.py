"""From what the shim saw of an attempt to what the plan needs to know of it, and what the record keeps.

The shim says how a process ended and who ended it. What that means is decided here, in one table of cases:
a step is succeeded only if its process ended with 0, nobody ended it, and its outputs are as declared.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..model import JSON, Outcome, Reason, Step
from ..step import outputs
from ..step.results import Result
from ..store.changes import AttemptEnded, dumps
from ..store.folders import RunFolder
from .history import Ended

# What an attempt's end means when we ended it ourselves, by the cause that the order gave.
ENDED_BY: Mapping[str, tuple[Outcome, Reason, tuple[str, ...]]] = {
    "timeout": ("timed_out", "timeout", ("timeout",)),
    "stuck": ("timed_out", "stuck", ("stuck", "timeout")),
    "cancel": ("cancelled", "cancel", ()),
    "deadline": ("timed_out", "deadline", ()),
    "budget": ("over_budget", "budget", ()),
    "fail_fast": ("cancelled", "fail_fast", ()),
    "memory": ("over_budget", "oom", ("oom",)),
    "cpu": ("over_budget", "cpu", ("budget",)),
    "processes": ("over_budget", "processes", ("budget",)),
    "output": ("over_budget", "output", ("budget",)),
    "tokens": ("over_budget", "tokens", ("budget",)),
    "cost": ("over_budget", "cost", ("budget",)),
    "usage": ("failed", "usage", ("usage",)),
    "shutdown": ("interrupted", "shutdown", ()),
    "lost": ("interrupted", "interrupted", ()),
}


_LIMITS = ("memory", "cpu", "processes", "output", "tokens", "cost", "usage")
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Verdict(NamedTuple):
    """An attempt's end three ways: for the plan, for the record, and the outputs to checkpoint with the step."""

    fact: Ended
    change: AttemptEnded
    outputs: str | None

    def because_of(self, reason: Reason) -> Verdict:
        """The same end for another reason."""
        return self._replace(fact=self.fact._replace(reason=reason), change=self.change._replace(reason=reason))


def is_failure(outcome: Outcome | None) -> bool:
    """Whether a step that ended so has failed, for whatever reason."""
    return outcome in ("failed", "timed_out", "over_budget")


def is_stop(result: Result) -> bool:
    """Whether it ended as what is told to stop ends, and not by us: SIGTERM, SIGINT, SIGHUP, or a shell's 128+n."""
    if result.ended_by is not None:
        return False
    return result.signal in _STOPS or (result.exit_code or 0) - 128 in _STOPS


def judge(
    step: Step, result: Result, folder: RunFolder, *, stopping: bool = False, complaint: str | None = None
) -> Verdict:
    """What the end of an attempt means. Reads the files that the attempt left; changes nothing.

    `complaint`: why what it said that it used cannot be counted; it fails, however it ended by itself. `stopping`: we
    were told to stop as well, so whoever stopped it stops the machine, or the whole of us.
    """
    if stopping and is_stop(result):
        return verdict(step, result, "interrupted", "shutdown", (), "ended with everything else by a shutdown")
    if result.ended_by is not None:
        outcome, reason, causes = ENDED_BY[result.ended_by]
        words = complaint if reason == "usage" and complaint else _ended_error(step, result)
        return verdict(step, result, outcome, reason, causes, words)
    if result.spawn_error is not None:
        return verdict(step, result, "failed", "spawn", ("spawn",), result.spawn_error)
    if complaint is not None:
        return verdict(step, result, "failed", "usage", ("usage",), complaint)
    if result.oom and result.exit_code != 0:
        return _out_of_memory(step, result)
    if result.signal is not None:
        name = signal_name(result.signal)
        return verdict(step, result, "failed", "signal", ("signal", name), f"ended by {name}")
    retry_after = None
    try:
        given = outputs.read(folder.output(result.instance, result.attempt))
        retry_after = given.retry_after
        if result.exit_code == 0:
            values = outputs.check(given.values, step.outputs)
            return verdict(step, result, "succeeded", None, (), None, outputs=dumps(values) if values else None)
    except outputs.OutputsError as error:
        if result.exit_code == 0:
            return verdict(step, result, "failed", "outputs", ("outputs",), error.message)
    status = str(result.exit_code)
    error_text = f"exit status {result.exit_code}"
    raised = outputs.read_exception(folder.exception(result.instance, result.attempt)) if step.python else None
    if raised is None:
        return verdict(step, result, "failed", "exit", (status,), error_text, retry_after=retry_after)
    exception = {"type": raised.type, "message": raised.message, "traceback": raised.traceback}
    error_text = f"{raised.type}: {raised.message}" if raised.message else raised.type
    return verdict(
        step, result, "failed", "exit", (status, *raised.mro), error_text, retry_after=retry_after, exception=exception
    )


def without_state(step: Step, result: Result, why: str) -> Verdict:
    """It ended well, and what its shell left for the next one cannot be kept."""
    return verdict(step, result, "failed", "outputs", ("outputs",), f"the state of its shell cannot be kept: {why}")


def _out_of_memory(step: Step, result: Result) -> Verdict:
    """The kernel killed it, or some process of it, for want of memory: its own budget's, the run's, the machine's."""
    if step.budget.memory is not None:
        return verdict(step, result, "over_budget", "oom", ("oom",), over_budget(step, "memory"))
    error = "there was no memory left (of the machine, or of the run's budget), and the kernel killed "
    if result.signal is None:
        return verdict(step, result, "failed", "exit", ("oom", str(result.exit_code)), error + "a process of it")
    return verdict(step, result, "failed", "signal", ("oom", "signal", signal_name(result.signal)), error + "it")


def interrupted(step_id: str, attempt: int, at: int) -> Verdict:
    """The end that nobody saw."""
    error = "interrupted: nobody saw its end"
    return Verdict(
        Ended(step_id, attempt, "interrupted", at, reason="interrupted", message=error),
        AttemptEnded(step_id, attempt, "interrupted", at, reason="interrupted", error=error),
        None,
    )


def not_started(step_id: str, attempt: int, at: int, message: str) -> Verdict:
    """An attempt that could not begin, because something that it is given is not there."""
    return Verdict(
        Ended(step_id, attempt, "failed", at, causes=("inputs",), reason="inputs", message=message),
        AttemptEnded(step_id, attempt, "failed", at, reason="inputs", error=message, causes=("inputs",)),
        None,
    )


def answer(result: Result) -> int | None:
    """The exit status of an `if`, as a shell would say it; None if it was ended for a shutdown: ask again."""
    if result.ended_by in ("shutdown", "lost"):
        return None
    if result.ended_by in _LIMITS or (result.oom and result.exit_code != 0):
        return 125
    if result.ended_by is not None:
        return 124
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code


def proof(step: Step, path: str) -> str | None:
    """What a `verify` that ended with 0 says that the attempt gave (JSON). Raises OutputsError: not as declared."""
    values = outputs.check(outputs.read(path).values, step.outputs)
    return dumps(values) if values else None


def limit_of(step: Step, result: Result) -> str | None:
    """What limit ended a condition, if one did."""
    if result.ended_by in _LIMITS:
        return over_budget(step, str(result.ended_by))
    if result.ended_by == "stuck":
        return _ended_error(step, result)
    if result.oom and result.exit_code != 0:
        return _out_of_memory(step, result).change.error
    return None


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def verdict(
    step: Step,
    result: Result,
    outcome: Outcome,
    reason: Reason | None,
    causes: tuple[str, ...],
    error: str | None,
    *,
    outputs: str | None = None,
    retry_after: int | None = None,
    exception: JSON = None,
    exit_code: int | None = None,
) -> Verdict:
    """An attempt's end that is known to mean this. `exit_code`: another than its process ended with."""
    code = result.exit_code if exit_code is None else exit_code
    requested = reason == "shutdown"
    number = None if result.signal is None else signal_name(result.signal)
    fact = Ended(
        result.instance,
        result.attempt,
        outcome,
        result.ended_at,
        causes=causes,
        requested=requested,
        retry_after=retry_after,
        exit_code=code,
        signal=number,
        reason=reason,
        message=error,
    )
    change = AttemptEnded(
        result.instance,
        result.attempt,
        outcome,
        result.ended_at,
        reason=reason,
        requested=requested,
        exit_code=code,
        signal=result.signal,
        error=error,
        causes=causes,
        exception=exception,
        retry_after=retry_after,
        cpu_ms=result.cpu_ms,
        max_rss_kib=result.max_rss_kib,
        output_bytes=result.output_bytes,
    )
    return Verdict(fact, change, outputs)


def _ended_error(step: Step, result: Result) -> str:
    if result.ended_by in ("timeout", "stuck"):
        from ..spec.values import format_duration

        if result.ended_by == "stuck":
            return f"stuck: no output and no CPU for {format_duration(step.stuck_after or 0)}"
        return f"timed out after {format_duration(step.timeout or 0)}"
    if result.ended_by in _LIMITS and result.ended_by != "usage":
        return over_budget(step, str(result.ended_by))
    words = {
        "fail_fast": "another instance failed (fail_fast)",
        "usage": "what it wrote to $AGENTRUN_USAGE cannot be counted",
        "cancel": "cancelled",
        "deadline": "the run's deadline",
        "budget": "the run's budget",
        "lost": "ended because its supervisor was gone",
    }
    return words.get(result.ended_by or "", "ended for a shutdown")


def over_budget(step: Step, kind: str) -> str:
    """`over its budget of memory: 512MiB`."""
    from ..spec import values

    limit = getattr(step.budget, kind)
    formats: Mapping[str, Callable[[int], str]] = {
        "memory": values.format_size, "output": values.format_size, "cpu": values.format_duration,
        "cost": values.format_cost, "tokens": values.format_count,
    }  # fmt: skip
    return f"over its budget of {kind}" + (f": {formats.get(kind, str)(limit)}" if limit is not None else "")
