"""`agentrun env JOB`: the environment that a step's process is given, layer upon layer as a run would build it.

What only a run can know is shown as it is written in the job file (`${{ steps.rates.outputs.count }}`), and what
belongs to a run is that of one whose id is zeros.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..engine.create import Frozen
from ..errors import NotFound
from ..model import JSON, Job, Step
from ..render import jsonshape
from ..render.terminal import talk
from ..render.times import rfc3339_or_none
from ..spec.decode import load
from ..spec.references import as_text, resolve
from ..step import contract
from ..store.folders import RunFolder, home
from . import complete as offers
from .record import open_record

_NO_RUN = "0" * 10


def env(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job file.", autocompletion=offers.complete_job_file)],
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            "-s",
            metavar="STEP",
            help="Of this step; without it, the first.",
            autocompletion=offers.complete_step,
        ),
    ] = None,
    as_cron: Annotated[
        bool, typer.Option("--as-cron", help="As if cron had started the run, not this terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show the environment that a step's process is given.

    References that only a run can resolve are shown as they are written.
    """
    decoded, _ = load(job)
    wanted = _step(decoded, step)
    frozen = contract.base_environment(False, os.environ) if as_cron else dict(Frozen.here().env)
    variables = _environment(decoded, wanted, os.path.dirname(os.path.abspath(job)), frozen)
    if as_json:
        print(jsonshape.dumps({"schema": "agentrun.env/1", "job": decoded.name, "step": wanted.id, "env": variables}))
        return 0
    if step is None and len(decoded.steps) > 1:
        talk(f"this is what step {wanted.id} is given; --step names another one")
    for name in sorted(variables):
        print(f"{name}={variables[name]}")
    return 0


def _step(job: Job, name: str | None) -> Step:
    if name is None:
        return job.steps[0]
    try:
        return job.step(name)
    except KeyError:
        from ..spec.nearest import suggestion

        ids = [step.id for step in job.steps]
        raise NotFound(f"job {job.name} has no step {name}{suggestion(name, ids)}", "`agentrun plan JOB` lists them")


def _environment(job: Job, step: Step, folder: str, frozen: dict[str, str]) -> dict[str, str]:
    variables = contract.base_environment(job.inherit_env, frozen)
    if job.env_file is not None:
        variables |= contract.read_env_file(os.path.join(folder, os.path.expanduser(job.env_file)))

    def lookup(path: tuple[str, ...]) -> JSON:
        if path[0] == "params" and len(path) == 2 and path[1] in job.params and not job.params[path[1]].required:
            return job.params[path[1]].default
        if path[0] == "env" and len(path) == 2 and path[1] in variables:
            return variables[path[1]]
        return "${{ " + ".".join(path) + " }}"

    for layer in (job.env, step.env):
        variables |= {name: as_text(resolve(value, lookup)) for name, value in layer.items()}
    record = open_record()
    last = rfc3339_or_none(record.reader.last_success(job.name)) if record else None
    folder_of_run = RunFolder(home(), _NO_RUN)
    variables["TMPDIR"] = f"{folder_of_run.path}/tmp/0"
    return variables | contract.environment(
        job=job,
        step=step,
        instance=step.id,
        attempt=1,
        run_id=_NO_RUN,
        key=step.idempotency_key or contract.default_key(_NO_RUN, step.id),
        scheduled_time="",
        interrupted=False,
        folder=folder_of_run,
        job_dir=os.path.join(home(), "jobs", job.name),
        last_success=last or "",
        working_folder=contract.working_folder(job, folder),
    )
