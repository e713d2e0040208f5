"""What the shell offers when TAB is pressed: commands, runs by id and job, steps, job files.

Called by the completion that `--install-completion` puts into the shell. Nothing here may fail or talk: where
the record cannot be read, nothing is offered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

_IDS = 10  # of runs; an older one is found by its job and ~N, or by the first letters of its id
_INSTANCES = 100  # of a step

Offer = list[tuple[str, str]]


def _quietly(offer: Callable[[Any, str], Offer]) -> Callable[[Any, str], Offer]:
    @wraps(offer)
    def quiet(ctx: Any, incomplete: str) -> Offer:
        try:
            return offer(ctx, incomplete)
        except Exception:  # a traceback in the middle of a command line helps nobody
            return []

    # typer asks the annotations which argument is which: they must be types, not their names
    quiet.__annotations__ = {"ctx": _context_type(), "incomplete": str}
    return quiet


def _context_type() -> Any:
    import typer

    return typer.Context


def verbs(incomplete: str) -> list[Any]:
    """Commands, from the table."""
    from typer._click.shell_completion import CompletionItem  # typer has no public name for it

    from .app import VERBS

    return [
        CompletionItem(name, help=verb.summary)
        for name, verb in VERBS.items()
        if name.startswith(incomplete) and not verb.hidden
    ]


@_quietly
def complete_run(ctx: Any, incomplete: str) -> Offer:
    """Jobs (their latest run), then the ids of the newest runs."""
    from .record import open_record

    record = open_record()
    if record is None:
        return []
    found = record.reader.run_ids(incomplete)
    jobs = {job: f"the latest run of {job}" for _, job in found if job.startswith(incomplete)}
    ids = [(run_id, job) for run_id, job in found if run_id.startswith(incomplete)]
    return [*jobs.items(), *ids[:_IDS]]


@_quietly
def complete_step(ctx: Any, incomplete: str) -> Offer:
    """Steps of the run or the job file that the command line names; of a run their instances, too."""
    from .record import need_record

    if file := ctx.params.get("job"):
        from ..spec.decode import load

        job = load(file)[0]
    else:
        record = need_record()
        run = record.find(ctx.params.get("run"))
        job = record.reader.job_of(run)
        if "[" in incomplete:
            rows = record.reader.rows_of(run.id, job.step(incomplete.partition("[")[0]).index)
            names = [row for row in rows if row.number >= 0 and row.instance.startswith(incomplete)]
            return [(row.instance, row.outcome or row.state) for row in names[:_INSTANCES]]
        instances = {step: f"{count} instances" for step, count in _unfolded(record, run.id)}
        return [
            (step.id, step.name or instances.get(step.id, "")) for step in job.steps if step.id.startswith(incomplete)
        ] + [(f"{step}[", words) for step, words in instances.items() if step.startswith(incomplete)]
    return [(step.id, step.name or "") for step in job.steps if step.id.startswith(incomplete)]


def _unfolded(record: Any, run_id: str) -> Offer:
    return [
        (row.instance, str(row.instances))
        for row in record.reader.steps(run_id, telling=True)
        if row.number < 0 and row.instances
    ]


@_quietly
def complete_job_file(ctx: Any, incomplete: str) -> Offer:
    """Job files of this folder; nothing, so that the shell offers paths, where a folder may be meant."""
    if "/" in incomplete:
        return []
    names = [name for name in sorted(os.listdir(".")) if name.startswith(incomplete) and not name.startswith(".")]
    if any(os.path.isdir(name) for name in names):
        return []
    return [(name, "") for name in names if name.endswith((".yaml", ".yml"))]
