"""`agentrun usage add`: how a shell step says what a call of a model used, so that budgets can count it.

It appends one line to the file that the step was given and does nothing else: a script calls it after each call
of a model, so it loads neither the record nor the reader of job files.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Annotated

import typer

from ..errors import CannotWrite, UsageError
from ..step.usage import usage_line


def usage(
    action: Annotated[str, typer.Argument(metavar="add", help="What to do: there is only `add`.")],
    input_tokens: Annotated[
        int | None, typer.Option("--input-tokens", metavar="N", min=0, help="Tokens that were sent.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", metavar="N", min=0, help="Tokens that came back.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="M", help="The model that was called.")] = None,
    cost: Annotated[
        str | None, typer.Option("--cost", metavar="C", help="What it cost, in the currency of the budget.")
    ] = None,
) -> int:
    """Say, inside a step, what a call of a model used.

    Once for each call, as soon as it is known, so that a budget ends the step in time. What is 0 may be left out:

    `agentrun usage add --model gpt-4o --input-tokens 1200 --cost 0.0061`
    """
    if action != "add":
        raise UsageError(f"usage {action} is nothing that can be done", "it is: agentrun usage add --input-tokens N …")
    if input_tokens is None and output_tokens is None and cost is None:
        raise UsageError("nothing to add", "give --input-tokens, --output-tokens or --cost")
    path = os.environ.get("AGENTRUN_USAGE")
    if not path:
        raise UsageError(
            "AGENTRUN_USAGE is not set: this is for the steps of a run",
            "use it in a step's `run`, and let the step's environment through to it",
        )
    try:
        line = usage_line(model, input_tokens, output_tokens, cost)
    except ValueError as error:
        raise UsageError(str(error))
    _append(path, line)
    return 0


def _append(path: str, line: bytes) -> None:
    """Append in one write, so that steps which call a model many times at once never tear each other's lines.

    A line that somebody left without its end is ended first, under the lock that `agentrun.durable` takes, too.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CannotWrite(f"cannot write to AGENTRUN_USAGE ({path}): it is no plain file any more")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CannotWrite(f"cannot write to AGENTRUN_USAGE ({path}): {error.strerror}")
    if written != len(line):
        raise CannotWrite(f"the disk is full: only a part of the line went to AGENTRUN_USAGE ({path})")
