"""What a run of a job would do: its steps by stages, those of one stage at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..spec.values import format_duration
from . import words
from .tables import Column, Row, table
from .terminal import Look, printable

if TYPE_CHECKING:
    from ..model import Job, Step

_COLUMNS = (
    Column("STAGE", right=True),
    Column("STEP", cut=True),
    Column("AFTER", drop=2, cut=True),
    Column("TIMEOUT", drop=4),
    Column("ATTEMPTS", right=True, drop=3),
)


def stages_of(job: Job) -> dict[str, int]:
    """The stage of each step, from 1: one more than the last of what it needs."""
    stages: dict[str, int] = {}
    pending: list[Step] = list(reversed(job.steps))
    by_id = {step.id: step for step in job.steps}
    while pending:
        step = pending[-1]
        missing = [by_id[need] for need in step.needs if need not in stages]
        if missing:
            pending += missing
            continue
        pending.pop()
        stages[step.id] = 1 + max((stages[need] for need in step.needs), default=0)
    return stages


def plan_lines(job: Job, stages: dict[str, int], processors: int, look: Look) -> list[str]:
    """The table, and what bounds the whole run."""
    rows = [
        Row(
            (
                str(stages[step.id]),
                step.id,
                _names(step.needs),
                format_duration(step.timeout) if step.timeout is not None else "-",
                str(step.retry.max_attempts),
            ),
            {1: ("bold",)},
            _note(step),
        )
        for step in sorted(job.steps, key=lambda step: (stages[step.id], step.index))
    ]
    bounds = [words.count(len(job.steps), "step"), f"at most {job.max_parallel or processors} at once"]
    if job.deadline is not None:
        bounds.append(f"deadline {format_duration(job.deadline)}")
    if job.budget.steps is not None:
        bounds.append(f"budget {words.count(job.budget.steps, 'attempt')}")
    return [f"{look.paint(job.name, 'bold')}: {', '.join(bounds)}", "", *table(_COLUMNS, rows, look)]


def _names(needs: Sequence[str]) -> str:
    if not needs:
        return "-"
    return ", ".join(needs[:4]) + (f" and {len(needs) - 4} more" if len(needs) > 4 else "")


def _note(step: Step) -> str:
    notes = []
    if step.when != "on_success":
        notes.append({"on_failure": "only after a failure", "always": "in any case"}[step.when])
    if step.condition is not None:
        notes.append(f"if {' '.join(step.condition.split())}")
    if step.continue_on_error:
        notes.append("the run goes on if it fails")
    if step.on_interrupt != "rerun":
        notes.append(f"if interrupted: {step.on_interrupt}")
    if step.leave_running:
        notes.append("may leave processes running")
    return printable("; ".join(notes))
