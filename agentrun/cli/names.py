"""What a command line names: the steps and instances of a run (`work`, `work[2]`, begun or not), and jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import AgentrunError, NotFound
from ..model import split_instance
from ..store.jobs import JobQuestions
from ..store.read import Run
from .record import Record


def check_steps(record: Record, run: Run, names: Sequence[str]) -> None:
    """Raises NotFound for a step or instance that the run does not have."""
    if not names:
        return
    known = {row.instance for row in record.reader.steps(run.id)}
    try:
        known |= {step.id for step in record.reader.job_of(run).steps}
    except AgentrunError:  # a snapshot that this program cannot read: the rows are what there is
        pass
    known |= {name.partition("[")[0] for name in known}
    for name in names:
        if name not in known and not _is_frozen(record, run, name):
            from ..spec.nearest import suggestion

            raise NotFound(
                f"run {run.id} of {run.job} has no step {name}{suggestion(name, known)}",
                f"`agentrun status {run.id}` lists its steps",
            )


def _is_frozen(record: Record, run: Run, name: str) -> bool:
    """Whether it is an instance that has not begun."""
    from ..store.instances import frozen_numbers

    try:
        step, number = split_instance(name)
    except ValueError:
        return False
    return number in frozen_numbers(record.reader.connection, run.id, step)


def find_job(record: Record | None, named: str) -> tuple[str, str]:
    """(name, file) of the job that is meant: by its file, or by the name that the record knows it by.

    Raises NotFound, JobFileError.
    """
    is_path = "/" in named or named.endswith((".yaml", ".yml"))
    if record is not None and named and not is_path:
        row = JobQuestions(record.reader.connection).job(named)
        if row is not None:
            return named, row.file
        runs = record.reader.runs(job=named, limit=1)
        if runs:
            return named, runs[0].file
    if is_path or os.path.isfile(named):
        from ..spec.decode import load

        return load(named)[0].name, os.path.abspath(named)
    raise NotFound(f"nothing is known of a job {named}", "give the path of its file; `agentrun status` lists the jobs")
