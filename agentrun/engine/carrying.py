"""A step whose shell goes on where another one ended (`carry: shell`): what it begins with, and what it has left.

Order of effects at the end of such a step: its shell writes the state, the shim the record of its descriptors if it has
any (step/handing.py), the shell ends, and the shim appends the result; the supervisor reads the state, syncs it, the
record and their folder, and commits the checkpoint that makes others rely on them. Cut off before the commit, the step
counts as interrupted and writes others beside these: nothing is overwritten.

A step that took place although nobody saw its end has left no state: those after it go on with that of the step before.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import effects
from ..errors import Missing, UsageError
from ..model import Job, Step
from ..step import carry
from ..store.folders import RunFolder
from ..store.read import Reader
from .indices import StepFacts

_ENDINGS = (".sh", ".state", ".state.status", ".fds")


def before(
    job: Job, step: Step, facts: Mapping[str, StepFacts], folder: RunFolder, reader: Reader
) -> carry.State | None:
    """The state that a step begins with; None for the first that has a shell. Raises Missing, OSError."""
    for one in reversed(job.steps[: step.index]):
        known = facts[one.id]
        if not carry.hands_on(job, one) or known.state != "finished" or known.outcome != "succeeded":
            continue
        if known.reason == "done":
            continue  # it ended the script, and left nothing: only handlers come after it
        path = folder.state(one.id, known.attempt)
        if one.on_interrupt in ("ask", "verify") and not _ended(reader, folder, one, known.attempt):
            continue  # it took place although nobody saw its end: what it has left may not be all
        try:
            state = carry.read(path)
        except ValueError:
            raise Missing(f"the state that step {one.id} left is damaged: {path}", _hint(folder))
        if state is not None:
            return state
        if _ended(reader, folder, one, known.attempt):
            raise Missing(f"the state that step {one.id} left is gone: {path}", _hint(folder))
    return None


def _ended(reader: Reader, folder: RunFolder, step: Step, number: int) -> bool:
    """Whether the end of an attempt was seen, maybe in this very turn, or it is another run's."""
    attempt = reader.attempt(folder.run_id, step.id, number)
    return attempt is None or attempt.outcome != "interrupted"


def _hint(folder: RunFolder) -> str:
    return f"put it back from a backup, or do it all again as a new run, and `agentrun cancel {folder.run_id}`"


def order(
    job: Job,
    step: Step,
    name: str,
    attempt: int,
    *,
    facts: Mapping[str, StepFacts],
    folder: RunFolder,
    state: carry.State | None,
    given: Mapping[str, str],
    path: str,
    working_folder: str,
) -> dict[str, Any]:
    """What is different in the order of such a step; writes what its shell executes. Raises OSError.

    `given`: the variables that are the step's whatever the state says; `path`: where the shell is looked up.
    """
    program, options = carry.program_of(job.shell)
    bash = carry.is_bash(program[-1], path)
    file = folder.piece(name, attempt)
    script = os.path.expanduser(job.script) if job.script else job.name
    leaves, fifo = None, "/dev/null"
    if carry.hands_on(job, step) and not carry.is_last(job, step):
        leaves = carry.Left(folder.state(name, attempt), folder.descriptors(name, attempt))
        fifo = folder.fifo(name, attempt) if step.leave_running else f"{folder.path}/io/0.fifo"
    text = carry.piece(
        step.run or "",
        step.text_line,
        bash=bash,
        script=script,
        before=state,
        # the first shell takes the others from its environment as every shell does: not IFS, and PWD only if it is so
        given={"AGENTRUN_SCRIPT": script} if state is None else {**given, "AGENTRUN_SCRIPT": script},
        defined=list(_defined(job, step, facts, folder, state if bash else None)),
        leaves=leaves,
        fifo=fifo,
    )
    if leaves is not None:
        _write(leaves.state, "")  # nobody else's to read, whatever umask its shell has
    _write(file, text)
    more: dict[str, Any] = {} if leaves is None else {"leaves": list(leaves)}
    if state is not None and not step.is_handler and os.path.exists(record := _record(state.path)):
        more |= {"descriptors": record, "keeps_descriptors": not carry.hands_on(job, step)}
    first = state is None
    if state is not None and state.status:
        _write(f"{state.path}.status", f"return {state.status}\n")
    return {
        "argv": [*program, *(options if first else ()), file, *(job.args if first else ())],
        "shell": None,
        "cwd": (stands_in := working_folder if state is None else state.folder),
        "env": {**given, "PWD": stands_in},  # by the name that it is known by: `cd ..` goes by that
        "bare": not first,
        "known_as": [[one, script] for one in (file, *(() if state is None else (state.path,)))],
        **more,
    }


def _defined(
    job: Job, step: Step, facts: Mapping[str, StepFacts], folder: RunFolder, state: carry.State | None
) -> Iterator[tuple[int, str]]:
    """The texts of earlier steps that define functions, with their lines; `state`: of bash, which knows them by itself.

    Bash does not know their lines, so it is given the text again: but for what was defined otherwise since.
    """
    for one in job.steps[: step.index]:
        if one.defines and (state is None or _are_there(state, folder.state(one.id, facts[one.id].attempt))):
            yield one.text_line, one.run or ""


def _are_there(state: carry.State, other: str) -> bool:
    """Whether all functions of another state are in this one, and the same."""
    defined = carry.functions_in(other)
    return bool(defined) and defined <= carry.functions_in(state.path)


def _record(state: str) -> str:
    """Where the shell that left a state has its descriptors written down, if it had any of its own."""
    return state.removesuffix(".state") + ".fds"


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(effects.create(path, flags, 0o600), "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def has_left(job: Job, step: Step, name: str, attempt: int, folder: RunFolder) -> bool:
    """Whether a step that ended with 0 has left its state, which is on the disk then; else its shell ended the script.

    Raises OSError, and ValueError where the state is not whole.
    """
    if not carry.hands_on(job, step) or carry.is_last(job, step):
        return True
    path = folder.state(name, attempt)
    if carry.read(path) is None:
        return False
    for one in (path, _record(path), os.path.dirname(path)):
        try:
            fd = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if one != _record(path):
                raise
            continue
        try:
            effects.fsync(fd)
        finally:
            os.close(fd)
    return True


def take_over(reader: Reader, old: RunFolder, new: RunFolder, job: Job, kept: Iterable[str]) -> None:
    """Give a run that keeps these steps of another the state that its first shell begins with. Raises UsageError."""
    names = set(kept)
    for step in reversed(job.steps):
        if step.id not in names or not carry.hands_on(job, step):
            continue
        row = reader.step_row(old.run_id, step.id)
        if row is None or row.outcome != "succeeded":
            continue
        if not os.path.exists(old.state(step.id, row.attempt)):
            raise UsageError(
                f"the state of its shells is not kept any more: step {step.id} of run {old.run_id} left it",
                f"do all of it again: agentrun run {shlex.quote(reader.run(old.run_id).file)}",
            )
        for ending, other in ((old.state(step.id, row.attempt), new.state(step.id, 0)), (
            old.descriptors(step.id, row.attempt), new.descriptors(step.id, 0)
        )):  # fmt: skip
            if os.path.exists(ending):
                with open(ending, encoding="utf-8", errors="surrogateescape") as file:
                    _write(other, file.read())
        return


def files(folder: RunFolder) -> Iterator[str]:
    """What a run with `carry` keeps beside its record: all of it may hold secrets."""
    try:
        with os.scandir(os.path.join(folder.path, "io")) as entries:
            yield from [entry.path for entry in entries if entry.name.endswith(_ENDINGS)]
    except FileNotFoundError:
        pass
