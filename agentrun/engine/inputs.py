"""What an attempt is started with: references resolved, its environment put together, its order to the shim.

Nothing here starts anything. A reference, an env file or a folder that is not there is an InputsError: the
attempt is recorded as begun and failed, and never becomes a process with an empty value in it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import AgentrunError, CannotWrite
from ..instants import rfc3339
from ..model import JSON, Job, Step
from ..spec.references import Unresolved, as_text, pick, resolve
from ..step import contract
from ..store.changes import dumps
from ..store.folders import RunFolder
from ..store.read import Reader, Run
from .facts import Facts

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


class InputsError(Exception):
    """Something that a step is given is not there; the message says what and where."""


class Prepared(NamedTuple):
    """An attempt that can begin: the order, its idempotency key, and what `status` shows of its inputs (JSON)."""

    order: dict[str, Any]
    key: str
    inputs: str


class Inputs:
    """Everything that attempts of one run are made from. `fresh` holds outputs that are not committed yet."""

    def __init__(
        self, run: Run, job: Job, folder: RunFolder, reader: Reader, frozen: Mapping[str, str], facts: Facts
    ) -> None:
        self.fresh: dict[str, str | None] = {}
        self._run, self._job, self._folder, self._reader, self._facts = run, job, folder, reader, facts
        self.base = contract.base_environment(job.inherit_env, frozen)
        self._startup = contract.shell_startup(self.base)
        self._job_folder = os.path.dirname(run.file)
        self.working_folder = contract.working_folder(job, self._job_folder)
        root = os.path.dirname(os.path.dirname(folder.path))
        self._job_dir = os.path.join(root, "jobs", job.name)
        os.makedirs(self._job_dir, mode=0o700, exist_ok=True)
        self._scheduled = rfc3339(run.scheduled_time) if run.scheduled_time is not None else ""
        last = reader.last_success(job.name)
        self._last_success = rfc3339(last) if last is not None else ""

    def prepare(self, step: Step, attempt: int, interrupted: bool) -> Prepared:
        """All that an attempt needs; attempt 0 is the step's `if`. Raises InputsError."""
        try:
            env = self._environment(step)
            key = self._key(step, attempt)
            args = resolve(dict(step.args), self._lookup)
        except Unresolved as missing:
            raise InputsError(f"${{{{ {'.'.join(missing.path)} }}}} is not there: {missing.why}") from missing
        except (AgentrunError, OSError) as error:
            raise InputsError(str(error)) from error
        if any("\0" in value for value in (key, *env.values())):
            raise InputsError("a value of `env` or the idempotency_key has a NUL character: no environment can hold it")
        inputs = {"env": {name: env[name] for name in (*self._job.env, *step.env)}}
        if step.args:
            inputs["with"] = args
        # what would change a shell at its start: of the base known once, of the job's own lines looked at here
        shell_env = {**self._startup, **env}
        env |= contract.environment(
            job=self._job,
            step=step,
            instance=step.id,
            attempt=attempt,
            run_id=self._run.id,
            key=key,
            scheduled_time=self._scheduled,
            interrupted=interrupted,
            folder=self._folder,
            job_dir=self._job_dir,
            last_success=self._last_success,
            working_folder=self.working_folder,
        )
        try:
            if attempt == 0:
                argv, shell = contract.condition(self._job, step, shell_env)
            else:
                argv, shell = self._command(step, attempt, args, shell_env)
        except OSError as error:
            if error.errno in _NO_ROOM:  # the disk's fault, never charged to a step
                raise CannotWrite(
                    f"cannot write in {self._folder.path}: {error.strerror}", "free space and resume the run"
                ) from error
            raise InputsError(f"cannot write in {self._folder.path}: {error.strerror}") from error
        order = {
            "instance": step.id,
            "attempt": attempt,
            "argv": argv,
            "shell": shell,
            "env": env,
            "cwd": self.working_folder,
            "timeout": step.timeout,
            "grace": step.grace,
            "leave_running": step.leave_running and attempt > 0,
        }
        return Prepared(order, key, dumps(inputs))

    def default_key(self, step_id: str) -> str:
        """The key of a step that names none."""
        return contract.default_key(self._run.id, step_id)

    def _key(self, step: Step, attempt: int) -> str:
        """The idempotency key: what the first attempt was given, whatever its references would give now."""
        if step.idempotency_key is None:
            return self.default_key(step.id)
        first = attempt == 1 and self._run.epoch == 1
        known = None if first else self._reader.key_of(self._run.id, step.id)
        return known or as_text(resolve(step.idempotency_key, self._lookup))

    def _command(
        self, step: Step, attempt: int, args: Mapping[str, JSON], shell_env: Mapping[str, str]
    ) -> tuple[list[str], list[str] | None]:
        call = ""
        if step.python is not None:
            call = contract.write_call(
                step,
                args=args,
                folder=self._folder,
                instance=step.id,
                attempt=attempt,
                job_file=self._run.file,
                job_folder=self._job_folder,
            )
        return contract.command(self._job, step, self._job_folder, call, shell_env)

    def _environment(self, step: Step) -> dict[str, str]:
        env: dict[str, str] = {}
        if self._job.env_file is not None:
            env |= contract.read_env_file(os.path.join(self._job_folder, os.path.expanduser(self._job.env_file)))
        self._env = env
        for layer in (self._job.env, step.env):
            # a layer sees those below it, not its own lines: their order means nothing
            env |= {name: as_text(resolve(value, self._lookup)) for name, value in layer.items()}
        return env

    def _lookup(self, path: tuple[str, ...]) -> JSON:
        match path:
            case ("params", name, *_):
                if name not in self._run.params:
                    raise Unresolved(path, "the run has no such parameter")
                return pick(self._run.params[name], path, 2)
            case ("steps", step_id, "outcome"):
                return self._facts.steps[step_id].outcome
            case ("steps", step_id, "outputs", *rest):
                return self._output(path, step_id, rest)
            case ("run", "id"):
                return self._run.id
            case ("run", "scheduled_time"):
                return self._scheduled
            case ("env", name):
                value = self._env.get(name, self.base.get(name))
                if value is None:
                    raise Unresolved(path, "no such variable in the environment that the run was created in")
                return value
        raise Unresolved(path, "unknown")

    def _output(self, path: tuple[str, ...], step_id: str, rest: list[str]) -> JSON:
        if step_id in self.fresh:
            text = self.fresh[step_id]
            values = {} if text is None else json.loads(text)
        else:
            values = self._reader.outputs(self._run.id, step_id)
        if not rest:
            return values
        if rest[0] not in values:
            outcome = self._facts.steps[step_id].outcome
            raise Unresolved(path, f"step {step_id} ({outcome}) wrote no output of that name")
        return pick(values[rest[0]], path, 4)
