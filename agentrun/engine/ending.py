"""How a run's end is told: the exit status of its caller, and one sentence that names the step."""

from __future__ import annotations

from typing import NamedTuple

from ..model import Job, Outcome, Reason
from ..store.read import Reader, Run, StepRow


class Failure(NamedTuple):
    """Why a run did not succeed: nothing of it is set where it did."""

    reason: Reason | None = None
    error: str | None = None
    status: int | None = None


_WHOLE_RUN: dict[Outcome, tuple[Reason, str]] = {
    "cancelled": ("cancel", "cancelled"),
    "timed_out": ("deadline", "the deadline was reached"),
}


def failure_of(
    reader: Reader, run_id: str, job: Job, first_failure: str | None, outcome: Outcome, spent: str | None
) -> Failure:
    """What the record keeps of a run's end, from its first failing step or from what ended it as a whole.

    `spent`: which budget is used up, as in `tokens: 21,430 of 20,000`.
    """
    if outcome == "succeeded":
        return Failure()
    if outcome == "over_budget":
        # what the shim or the day said may be known no more: then it is what it was when the run was closed
        known = f"over its budget of {spent}" if spent else reader.run(run_id).error
        return Failure("budget", known or "over its budget")
    if outcome in _WHOLE_RUN:
        return Failure(*_WHOLE_RUN[outcome])
    row = reader.step_row(run_id, first_failure) if first_failure else None
    if row is None:
        return Failure(error="a step failed", status=1)
    where = f"step {row.position + 1} of {len(job.steps)}, {row.instance}"
    return Failure(error=f"{where}: {row.error or row.outcome}", status=status_of_step(row))


def status_of_step(row: StepRow) -> int:
    """The exit status that a failed step lends to its run.

    One that could not be started has none of its own: something that it needs is missing (EX_UNAVAILABLE).
    """
    if row.reason == "spawn":
        return 69
    if row.reason == "usage":  # the signal was ours
        return 1
    if row.outcome == "timed_out":
        return 124
    if row.outcome == "over_budget":
        return 125
    if row.signal is not None:
        return 128 + row.signal
    return row.exit_code or 1


def status_of_run(run: Run) -> int:
    """The exit status of a command that stands for this finished run."""
    match run.outcome:
        case "succeeded":
            return 0
        case "timed_out":
            return 124
        case "over_budget":
            return 125
        case _:
            return run.exit_code or 1
