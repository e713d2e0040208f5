"""`agentrun env JOB`: the environment that a step's process is given, layer upon layer as a run would build it.

What only a run can know is shown as it is written in the job file (`${{ steps.rates.outputs.count }}`), and what
belongs to a run is that of one whose id is zeros. Of a fan-out it is the first instance, of a loop the second round,
the first that has the outputs of another one, unless `--step` names an instance.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import Annotated

import typer

from ..engine.create import Frozen
from ..errors import NotFound
from ..health import ascron, crontab
from ..health.finding import Check
from ..model import JSON, Job, Step, instance_name, split_instance
from ..render import jsonshape
from ..render.checks import check_lines, check_shape
from ..render.terminal import look_of, talk
from ..render.times import rfc3339_or_none
from ..spec.decode import load
from ..spec.references import Unresolved, as_text, pick, resolve
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
            help="Of this step, or of one instance: work[2]; without it, of the first step.",
            autocompletion=offers.complete_step,
        ),
    ] = None,
    as_cron: Annotated[
        bool, typer.Option("--as-cron", help="As if cron had started the run, not this terminal.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what is another way under cron than here, and what to do about it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show the environment that a step's process is given.

    References that only a run can resolve are shown as they are written.

    With --as-cron it is what cron gives: if a line of the crontab runs this job file, with the variables that are set
    for that line. With --explain, too, the differences are named that the job would meet: programs that cron's PATH
    does not have, variables that steps use and cron does not set, another home or language; and programs that are found
    neither here nor there. The programs and variables are those that can be seen in `run`, `if`, `until` and `verify`;
    not those of scripts that these call. The exit status is 1 if there are any.
    """
    decoded, _ = load(job)
    call = _line_of(job) if as_cron or explain else None
    cron = ascron.environment(os.environ, call)
    if (as_cron or explain) and call is None:
        talk("no line of your crontab runs it: so it is for a line that sets nothing")
    if explain:
        return _explain(decoded, job, cron, step, as_json=as_json)
    wanted, instance = _step(decoded, step)
    frozen = cron if as_cron else dict(Frozen.here().env)
    folder = os.path.dirname(os.path.abspath(job))
    variables = _environment(decoded, wanted, instance, folder, frozen, _last_success(decoded))
    if as_json:
        shape = {"schema": "agentrun.env/1", "job": decoded.name, "step": wanted.id, "instance": instance}
        print(jsonshape.dumps(shape | {"env": variables}))
        return 0
    if step is None and len(decoded.steps) > 1:
        talk(f"this is what step {wanted.id} is given; --step names another one")
    if wanted.has_instances:
        talk(_of_which(wanted, instance))
    for name in sorted(variables):
        print(f"{name}={variables[name]}")
    return 0


def _line_of(job: str) -> crontab.Call | None:
    """The line of the crontab that runs the job file; a crontab that cannot be read has none."""
    try:
        return ascron.call_of(crontab.of_this_user(os.environ), job)
    except (OSError, subprocess.SubprocessError):
        return None


def _explain(job: Job, path: str, cron: dict[str, str], only: str | None, *, as_json: bool) -> int:
    """What the steps of a job, or one of them, would miss under cron."""
    found = differences(job, path, cron, only)
    checks = [Check(f"{one.step or job.name}: {one.about}", False, one.detail, one.remedy) for one in found]
    if as_json:
        print(jsonshape.dumps([check_shape(check) for check in checks]))
        return 1 if checks else 0
    for check in checks:
        print(*check_lines(check, [other.name for other in checks], look_of(sys.stdout)), sep="\n")
    if not checks:
        print(f"{job.name}: nothing that its steps call or use is another way under cron, as far as can be seen in it")
    return 1 if checks else 0


def differences(job: Job, path: str, cron: dict[str, str], only: str | None = None) -> list[ascron.Difference]:
    """What is another way under cron than here for the steps of a job, or for one. `cron`: what cron starts it with."""
    here, folder = dict(Frozen.here().env), os.path.dirname(os.path.abspath(path))
    last = _last_success(job)
    found = [*ascron.of_all(here | dict(job.env), cron | dict(job.env))]
    for step in [_step(job, only)[0]] if only else job.steps:
        instance = _step(job, step.id)[1]
        ours, theirs = (_environment(job, step, instance, folder, frozen, last) for frozen in (here, cron))
        found += ascron.of_step(job, step, ours, theirs)
    return found


def _last_success(job: Job) -> str:
    record = open_record()
    return (rfc3339_or_none(record.reader.last_success(job.name)) if record else None) or ""


def _of_which(step: Step, instance: str) -> str:
    if step.repeat is None:
        return f"this is what {instance} is given; what belongs to an item is another one for each"
    return f"this is what {instance} is given: it has OUT_* for each output of the round before"


def _step(job: Job, name: str | None) -> tuple[Step, str]:
    """The step that is meant, and the name of it or of its instance."""
    if name is None:
        name = job.steps[0].id
    try:
        step_id, number = split_instance(name)
        step = job.step(step_id)
        if number < 0:
            number = 0 if step.foreach is not None else 2 if step.repeat is not None else -1
        if (number >= 0) != step.has_instances:
            raise KeyError(name)
        return step, instance_name(step_id, number)
    except (KeyError, ValueError):
        from ..spec.nearest import suggestion

        ids = [step.id for step in job.steps]
        raise NotFound(f"job {job.name} has no step {name}{suggestion(name, ids)}", "`agentrun plan JOB` lists them")


def _item(step: Step, number: int) -> JSON:
    """The item of an instance, where the file has its list; else what the file writes for it."""
    listed = step.foreach if isinstance(step.foreach, list) else []
    return listed[number] if number < len(listed) else "${{ item }}"


def _environment(
    job: Job, step: Step, instance: str, folder: str, frozen: dict[str, str], last: str
) -> dict[str, str]:
    variables = contract.base_environment(job.inherit_env, frozen)
    number = split_instance(instance)[1]
    item = _item(step, number) if step.foreach is not None else "${{ item }}"
    if job.env_file is not None:
        variables |= contract.read_env_file(os.path.join(folder, os.path.expanduser(job.env_file)))

    def lookup(path: tuple[str, ...]) -> JSON:
        if path[0] == "params" and len(path) == 2 and path[1] in job.params and not job.params[path[1]].required:
            return job.params[path[1]].default
        if path[0] == "env" and len(path) == 2 and path[1] in variables:
            return variables[path[1]]
        if path[0] == "item" and item != "${{ item }}":
            with suppress(Unresolved):
                return pick(item, path, 1)
        return "${{ " + ".".join(path) + " }}"

    for layer in (job.env, step.env):
        variables |= {name: as_text(resolve(value, lookup)) for name, value in layer.items()}
    if step.foreach is not None:
        variables |= contract.item_variable(item)
    elif step.repeat is not None and number > 1:
        variables |= contract.round_variables(
            {key: "${{ " + f"steps.{step.id}.outputs.{key}" + " }}" for key in step.outputs}
        )
    folder_of_run = RunFolder(home(), _NO_RUN)
    variables["TMPDIR"] = f"{folder_of_run.path}/tmp/0"
    return variables | contract.environment(
        job=job,
        step=step,
        instance=instance,
        attempt=1,
        run_id=_NO_RUN,
        key=_key(step, instance, item),
        scheduled_time="",
        interrupted=False,
        folder=folder_of_run,
        job_dir=os.path.join(home(), "jobs", job.name),
        last_success=last,
        working_folder=contract.working_folder(job, folder),
        python_path=variables.get("PYTHONPATH", ""),
        path=variables.get("PATH"),
    )


def _key(step: Step, instance: str, item: JSON) -> str:
    if step.idempotency_key is not None:
        return step.idempotency_key
    if step.foreach is not None:
        return contract.item_key(_NO_RUN, step.id, item)
    return contract.default_key(_NO_RUN, instance)
