"""What an attempt is started with: references resolved, its environment put together, its order to the shim.

Nothing here starts anything. A reference, an env file or a folder that is not there is an InputsError: the
attempt is recorded as begun and failed, and never becomes a process with an empty value in it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from .. import effects
from ..errors import AgentrunError, CannotWrite
from ..instants import rfc3339
from ..model import JSON, Budget, Job, Step, instance_name, split_instance
from ..spec.references import Unresolved, as_text, pick, resolve
from ..step import contract, outputs
from ..step.carry import carries
from ..store.changes import dumps
from ..store.folders import RunFolder
from ..store.instances import Item, item_of, lists_of, numbers_by_key, outputs_in_order
from ..store.read import Reader, Run
from . import carrying
from .facts import Facts

Order = dict[str, Any]

MOST_ITEMS = 100_000  # of one `foreach`: a mistake is likelier than a wish
# ms beyond the grace of a step with `job`: its own steps have theirs within it, and then it has to say goodbye.
CHILD_GRACE = 15_000
_KEPT = 8  # steps whose outputs are kept: at most 1 MiB each, or as many instances
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


class InputsError(Exception):
    """Something that a step is given is not there; the message says what and where."""


class Prepared(NamedTuple):
    """An attempt that can begin: the order, its idempotency key, and what `status` shows of its inputs (JSON)."""

    order: Order
    key: str
    inputs: str


class Inputs:
    """Everything that attempts of one run are made from. `fresh` and `fresh_items` hold what is not committed yet."""

    def __init__(
        self,
        run: Run,
        job: Job,
        folder: RunFolder,
        reader: Reader,
        frozen: Mapping[str, str],
        facts: Facts,
        *,
        started_in: str | None = None,
    ) -> None:
        self.fresh: dict[str, str | None] = {}
        self.fresh_items: dict[str, dict[int, Item]] = {}
        self._finished: dict[str, dict[str, JSON]] = {}  # outputs of steps that were asked for last
        self._item: tuple[JSON, ...] = ()  # what `item` names just now, if anything
        self._env: dict[str, str] = {}
        self._run, self._job, self._folder, self._reader, self._facts = run, job, folder, reader, facts
        self.base = contract.base_environment(job.inherit_env, frozen)
        self._outs = [name for name in self.base if name.startswith("OUT_")]
        self._path = self.base.get("PATH")
        self._python_path = self.base.get("PYTHONPATH", "")
        self._startup = contract.shell_startup(self.base)
        self._job_folder = os.path.dirname(run.file)
        self.working_folder = contract.working_folder(job, self._job_folder, started_in)
        root = os.path.dirname(os.path.dirname(folder.path))
        self._job_dir = os.path.join(root, "jobs", job.name)
        for made in (os.path.dirname(self._job_dir), self._job_dir):  # the mode is that of the last alone
            effects.makedirs(made, mode=0o700, exist_ok=True)
        self._scheduled = rfc3339(run.scheduled_time) if run.scheduled_time is not None else ""
        last = reader.last_success(job.name)
        self._last_success = rfc3339(last) if last is not None else ""

    def prepare(
        self, step: Step, name: str, attempt: int, interrupted: bool, *, verify: bool = False
    ) -> Prepared:
        """All that an attempt of a step or instance needs; attempt 0 is its condition. Raises InputsError."""
        number = split_instance(name)[1]
        with _explained():
            self._item, key = self._item_and_key(step, name, number)
            env = self._environment(step)
            key = key or self._key(step, name, number, attempt)
            args = resolve(dict(step.args), self._lookup)
        inputs = {"env": {name: env[name] for name in (*self._job.env, *step.env)}}
        if step.args:
            inputs["with"] = args
        if self._item:
            inputs["item"] = self._item[0]
            env |= contract.item_variable(self._item[0])
        until = step.repeat is not None and attempt == 0 and number > 0 and not verify
        if step.repeat and (before := number if until else number - 1) > 0:
            env |= contract.round_variables(self.outputs_of(instance_name(step.id, before)))
        _check_environment(key, env)
        layers = dict(env)
        # what would change a shell at its start: of the base known once, of the job's own lines looked at here
        shell_env = {**self._startup, **env}
        env |= contract.environment(
            job=self._job,
            step=step,
            instance=name,
            attempt=attempt,
            run_id=self._run.id,
            key=key,
            scheduled_time=self._scheduled,
            interrupted=interrupted,
            folder=self._folder,
            job_dir=self._job_dir,
            last_success=self._last_success,
            working_folder=self.working_folder,
            python_path=env.get("PYTHONPATH", self._python_path),
            path=env.get("PATH", self._path),
        )
        try:
            if verify:
                env["AGENTRUN_OUTPUT"] = self._fresh_output(name)
            if attempt == 0:
                argv, shell = contract.condition(self._job, step, shell_env, until=until, verify=verify)
            else:
                argv, shell = self._command(step, name, attempt, args, shell_env)
            carried = self._carried(step, name, attempt, layers, env) if attempt and carries(self._job, step) else {}
        except OSError as error:
            if error.errno in _NO_ROOM:  # the disk's fault, never charged to a step
                raise CannotWrite(
                    f"cannot write in {self._folder.path}: {error.strerror}", "free space and resume the run"
                ) from error
            raise InputsError(f"cannot write in {self._folder.path}: {error.strerror}") from error
        order = self._order(step, name, attempt, argv, shell, env) | carried
        if step.repeat is not None:  # a loop within a round of another run begins with no values
            order["env"] = {**dict.fromkeys(self._outs), **env}
        return Prepared(order, key, dumps(inputs))

    def _fresh_output(self, name: str) -> str:
        """Where a `verify` writes outputs; what an earlier one wrote there is not believed."""
        path = self._folder.verified(name)
        for ending in outputs.ENDINGS:
            with suppress(FileNotFoundError):
                effects.unlink(path + ending)
        return path

    def _carried(self, step: Step, name: str, attempt: int, layers: Mapping[str, str], env: Mapping[str, str]) -> Order:
        """What is different for a step whose shell goes on where another one ended."""
        with _explained():
            state = carrying.before(self._job, step, self._facts.steps, self._folder, self._reader)
        contract_alone = {key: value for key, value in env.items() if key in contract.CONTRACT}
        wanted = layers if state is None else {key: layers[key] for key in step.env}
        return carrying.order(
            self._job,
            step,
            name,
            attempt,
            facts=self._facts.steps,
            folder=self._folder,
            state=state,
            given={**wanted, **contract_alone},
            path=self._path or os.defpath,
            working_folder=self.working_folder,
        )

    def _order(
        self, step: Step, name: str, attempt: int, argv: list[str], shell: list[str] | None, env: dict[str, str]
    ) -> Order:
        """What the shim is told (`step/attempts.py`)."""
        order: Order = {
            "instance": name,
            "attempt": attempt,
            "argv": argv,
            "shell": shell,
            "env": env,
            "cwd": self.working_folder,
            "timeout": step.timeout,
            "grace": step.grace,
            "leave_running": step.leave_running and attempt > 0,
        }
        if limits := limits_of(step.budget):
            order["limits"] = limits
        if step.stuck_after is not None:
            order |= {"stuck_after": step.stuck_after, "on_stuck": step.on_stuck}
        if step.is_handler:
            order["counted"] = False
        if step.job is not None and attempt > 0:
            order["gentle"] = True
            order["grace"] = step.grace + CHILD_GRACE
        return order

    # --- instances ---

    def unfold(self, step: Step) -> list[Item]:
        """The instances of a step with `foreach`: one for each item of its list. Raises InputsError.

        An item that had an instance before, in another list of this run, has the same again: its key tells.
        """
        self._item = ()
        with _explained():
            self._env = self._env_file()
            value = resolve(step.foreach, self._lookup)
        known = numbers_by_key(self._reader.connection, self._run.id, step.id)
        fresh = itertools.count(max(known.values(), default=-1) + 1)
        items: list[Item] = []
        places: dict[str, int] = {}
        for place, item in enumerate(as_list(value)):
            key = self._key_of_item(step, item)
            first = places.setdefault(key, place)
            if first != place:
                raise InputsError(
                    f"items {first} and {place} of its foreach have one key: {shown(item)}; their idempotency_key, made"
                    " from the item unless the step has one, must tell them apart"
                )
            number = known.get(key)
            items.append(Item(next(fresh) if number is None else number, place, key, dumps(item)))
        return items

    def freeze(self, step_id: str, items: Sequence[Item] | None) -> None:
        """The list of a step is being committed: its items are known until then, too."""
        if items is not None:
            self.fresh_items[step_id] = {item.number: item for item in items}

    def _item_and_key(self, step: Step, name: str, number: int) -> tuple[tuple[JSON, ...], str]:
        """The item of an instance as it was frozen, and its key; nothing and "" for anything else."""
        if step.foreach is None or number < 0:
            return (), ""
        if fresh := self.fresh_items.get(step.id):
            return (json.loads(fresh[number].item),), fresh[number].key
        item, key = item_of(self._reader.connection, self._run.id, step.id, number)
        return (item,), key

    def _key_of_item(self, step: Step, item: JSON) -> str:
        if step.idempotency_key is None:
            return contract.item_key(self._run.id, step.id, item)
        self._item = (item,)
        with _explained():
            if "env." in step.idempotency_key:
                self._environment(step)
            return as_text(resolve(step.idempotency_key, self._lookup))

    def default_key(self, step_id: str) -> str:
        """The key of a step that names none."""
        return contract.default_key(self._run.id, step_id)

    def _key(self, step: Step, name: str, number: int, attempt: int) -> str:
        """The idempotency key: what the first attempt was given, whatever its references would give now."""
        if step.idempotency_key is None:
            return self.default_key(name)
        first = attempt == 1 and self._run.epoch == 1
        known = None if first else self._reader.key_of(self._run.id, name)
        if known:
            return known
        key = as_text(resolve(step.idempotency_key, self._lookup))
        return f"{key}#{number}" if step.repeat and number > 0 else key

    def _command(
        self, step: Step, name: str, attempt: int, args: Mapping[str, JSON], shell_env: Mapping[str, str]
    ) -> tuple[list[str], list[str] | None]:
        call = ""
        if step.run is None:
            call = contract.write_call(
                step,
                args=args,
                folder=self._folder,
                instance=name,
                attempt=attempt,
                job_file=self._run.file,
                job_folder=self._job_folder,
            )
        return contract.command(self._job, step, self._job_folder, call, shell_env)

    def _environment(self, step: Step) -> dict[str, str]:
        env = self._env = self._env_file()
        for layer in (self._job.env, step.env):
            # a layer sees those below it, not its own lines: their order means nothing
            env |= {name: as_text(resolve(value, self._lookup)) for name, value in layer.items()}
        return env

    def _env_file(self) -> dict[str, str]:
        if self._job.env_file is None:
            return {}
        return contract.read_env_file(os.path.join(self._job_folder, os.path.expanduser(self._job.env_file)))

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
            case ("item", *_) if self._item:
                return pick(self._item[0], path, 1)
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
        values = self._finished.get(step_id)
        if values is None:
            values = self._outputs_of_step(step_id)
            if self._facts.steps[step_id].state == "finished":  # then they never change: a fan-out asks for each item
                if len(self._finished) >= _KEPT:
                    self._finished.clear()
                self._finished[step_id] = values
        if not rest:
            return values
        if rest[0] in values:
            return pick(values[rest[0]], path, 4)
        if self._job.step(step_id).foreach is not None and self._has_no_items(step_id):
            return []
        outcome = self._facts.steps[step_id].outcome
        raise Unresolved(path, f"step {step_id} ({outcome}) wrote no output of that name")

    def _outputs_of_step(self, step_id: str) -> dict[str, JSON]:
        if self._job.step(step_id).foreach is None:
            return self.outputs_of(step_id)
        instances = outputs_in_order(self._reader.connection, self._run.id, step_id)
        return lists_of((name, self.fresh.get(name, text)) for name, text in instances)

    def _has_no_items(self, step_id: str) -> bool:
        fresh = self.fresh_items.get(step_id)
        return not fresh and not outputs_in_order(self._reader.connection, self._run.id, step_id)

    def outputs_of(self, name: str) -> dict[str, JSON]:
        """The outputs of a finished step or instance, committed or not."""
        if name in self.fresh:
            text = self.fresh[name]
            return {} if text is None else json.loads(text)
        return self._reader.outputs(self._run.id, name)


@contextmanager
def _explained() -> Iterator[None]:
    """Anything that is not there becomes an InputsError."""
    try:
        yield
    except Unresolved as missing:
        raise InputsError(f"${{{{ {'.'.join(missing.path)} }}}} is not there: {missing.why}") from missing
    except (AgentrunError, OSError) as error:
        raise InputsError(str(error)) from error


def _check_environment(key: str, env: Mapping[str, str]) -> None:
    """A process can be given all of this. Raises InputsError."""
    if any("\0" in value for value in (key, *env.values())):
        raise InputsError("a value of `env` or the idempotency_key has a NUL character: no environment can hold it")
    for name, value in env.items():
        size = len(name) + len(value)
        if size * 4 > contract.LONGEST_VALUE and len(os.fsencode(name + value)) + 1 > contract.LONGEST_VALUE:
            raise InputsError(
                f"the value of the variable {name} is too long: {size:,} characters, where a process can be given"
                " 128 KiB in one; give it to a python step by `with`, or write it to a file in $AGENTRUN_RUN_DIR"
            )


def as_list(value: JSON) -> list[JSON]:
    """The list that a `foreach` names: one, or the JSON text of one, as a shell step writes it. Raises InputsError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputsError(f"its foreach is no list but text, and no JSON: {error}: {shown(value)}") from None
    if not isinstance(value, list):
        raise InputsError(f"its foreach is no list: {shown(value)}")
    if len(value) > MOST_ITEMS:
        raise InputsError(f"its foreach has {len(value):,} items, and at most {MOST_ITEMS:,} are allowed")
    return value


def shown(value: JSON) -> str:
    """A value in a message."""
    text = dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"


def limits_of(budget: Budget) -> dict[str, int]:
    """What of a budget the shim holds, as it is told."""
    wanted = ((kind, getattr(budget, kind)) for kind in ("memory", "cpu", "processes", "output"))
    return {kind: limit for kind, limit in wanted if limit is not None}
