"""What a run of a job would do: its steps by stages, those of one stage at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..spec.values import format_cost, format_count, format_duration, format_size
from . import words
from .tables import Column, Row, table
from .terminal import Look, printable

if TYPE_CHECKING:
    from ..model import Budget, Job, Step

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
    bounds = [words.count(len(job.steps), "step"), f"at most {job.slots(processors)} at once"]
    if job.deadline is not None:
        bounds.append(f"deadline {format_duration(job.deadline)}")
    for name, budget in (("budget", job.budget), ("budget of a day", job.daily)):
        if limits := _limits(budget):
            bounds.append(f"{name} {', '.join(limits)}")
    return [f"{look.paint(job.name, 'bold')}: {', '.join(bounds)}", "", *table(_COLUMNS, rows, look)]


def _names(needs: Sequence[str]) -> str:
    if not needs:
        return "-"
    return ", ".join(needs[:4]) + (f" and {len(needs) - 4} more" if len(needs) > 4 else "")


def _limits(budget: Budget) -> list[str]:
    """`60 attempts`, `20k tokens`, `cost 2.50`, …: what a budget bounds."""
    shown = (
        words.count(budget.steps, "attempt") if budget.steps is not None else "",
        f"{format_count(budget.tokens)} tokens" if budget.tokens is not None else "",
        f"cost {format_cost(budget.cost)}" if budget.cost is not None else "",
        f"cpu {format_duration(budget.cpu)}" if budget.cpu is not None else "",
        f"memory {format_size(budget.memory)}" if budget.memory is not None else "",
        f"output {format_size(budget.output)}" if budget.output is not None else "",
        f"{words.count(budget.processes, 'process', 'processes')}" if budget.processes is not None else "",
    )
    return [limit for limit in shown if limit]


def _instances(step: Step) -> list[str]:
    """How often a step with `foreach` or `repeat` is executed."""
    if step.repeat is not None:
        pause = f", {format_duration(step.repeat.interval)} apart" if step.repeat.interval else ""
        until = " ".join(step.repeat.until.split())
        return [f"up to {words.count(step.repeat.max, 'round')}{pause}, until {until}"]
    if step.foreach is None:
        return []
    items = step.foreach if isinstance(step.foreach, str) else words.count(len(step.foreach), "item")
    notes = [f"for each of {items}" + (f", {step.max_parallel} at once" if step.max_parallel else "")]
    return [*notes, "the first failure ends the others"] if step.fail_fast else notes


def _note(step: Step) -> str:
    notes = [f"job {step.job}"] if step.job is not None else []
    notes += _instances(step)
    if step.when != "on_success":
        notes.append({"on_failure": "only after a failure", "always": "in any case"}[step.when])
    if step.condition is not None:
        notes.append(f"if {' '.join(step.condition.split())}")
    if step.continue_on_error:
        notes.append("the run goes on if it fails")
    if step.on_interrupt != "rerun":
        how = {"ask": "ask a person", "verify": f"verify {' '.join((step.verify or '').split())}"}
        notes.append(f"if interrupted: {how.get(step.on_interrupt, step.on_interrupt)}")
    if step.stuck_after is not None:
        then = "ended" if step.on_stuck == "kill" else "reported"
        notes.append(f"{then} if it does nothing for {format_duration(step.stuck_after)}")
    if step.leave_running:
        notes.append("may leave processes running")
    if limits := _limits(step.budget):
        notes.append(f"budget {', '.join(limits)}")
    return printable("; ".join(notes))
