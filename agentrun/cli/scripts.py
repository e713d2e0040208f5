"""A script given to `run` in the place of a job file: converted each time, and never written to a file.

The run's snapshot is the job that the converter makes; its first line holds the hash of the script, by which a resume
sees whether the script has changed since.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import NotFound, UsageError
from ..store.snapshots import script_mark

if TYPE_CHECKING:
    from ..convert.draft import Draft
    from ..convert.notes import Converted
    from ..model import Job

_JOB_FILES = (".yaml", ".yml", ".json")
_SCRIPTS = (".sh", ".bash", ".ksh", ".zsh", ".fish", ".csh", ".tcsh", ".py", ".pl", ".rb", ".php", ".js")
_MOST = 4 << 20  # bytes, as of a job file


def is_script(path: str) -> bool:
    """By its name, else by its first two bytes. What cannot be read is left to whoever reads job files."""
    ending = os.path.splitext(path)[1].lower()
    if ending in _JOB_FILES or not os.path.isfile(path):
        return False
    if ending in _SCRIPTS:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def job_of(path: str, args: Sequence[str]) -> tuple[Job, str]:
    """The job that a script is, and the text of it. Raises NotFound, UsageError, AgentrunError for what is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST:
        raise UsageError(f"{path} is larger than 4 MiB", "write a job file whose step calls it")
    draft = _with_args(converted(data, path).draft, args)
    # a script by itself forbids nothing, and another one may have its name
    draft = replace(draft, keys=[*draft.keys, ("concurrency", "allow")])
    draft = replace(draft, comment=f"{script_mark(data)}\n{draft.comment}".rstrip())
    try:
        text, job = draft.checked(path)
    except ValueError as error:
        raise UsageError(f"{path} cannot stand in a job file: {error}") from error
    return job, text


def converted(data: bytes, path: str | None, *, loops: bool = False) -> Converted:
    """The job that a script is, whatever it is for. Raises AgentrunError."""
    from ..convert import calling, python

    if python.is_python(data, path):
        return python.convert(data, path)
    if calling.is_called(data, path):
        return calling.convert(data, path)
    from ..convert import shell

    return shell.convert(data, path, loops=loops)


def _with_args(draft: Draft, args: Sequence[str]) -> Draft:
    """They are the parameters of a script in steps, and of a command that calls it."""
    if not args:
        return draft
    keys = dict(draft.keys)
    if "script" in keys:
        return replace(draft, keys=[*draft.keys, ("args", list(args))])
    step = draft.steps[0]
    called = [(key, f"{value} {shlex.join(args)}" if key == "run" else value) for key, value in step.keys]
    return replace(draft, steps=[replace(step, keys=called)])
