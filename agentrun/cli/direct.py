"""Command lines that need no parser: a verb that advances a run, and what it is about, with no option.

They are what cron, shims and sweeps start, many times a day and beside each other. typer would cost each of them a
third of its start and some MiB for as long as the run takes; here the functions that do the work are called as
`parsed.py` would call them. Any other line, and a request for completion, is the parser's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence


def direct(arguments: Sequence[str]) -> Callable[[], int] | None:
    """What the line asks for, or None where it takes the parser to know. Imports what it answers."""
    if len(arguments) not in (1, 2) or any(each.startswith("-") for each in arguments):
        return None
    if "_AGENTRUN_COMPLETE" in os.environ:
        return None
    verb, about = arguments[0], arguments[1:]
    if verb == "resume":
        return lambda: _resume(*about)
    if verb in _ABOUT and about:
        return lambda: _ABOUT[verb](*about)
    return None


def _run(job: str) -> int:
    from .run import run

    return run(job)


def _resume(run: str | None = None) -> int:
    from .resume import resume

    return resume(run)


def _supervise(run: str) -> int:
    from .resume import supervise

    return supervise(run)


def _child(call: str) -> int:
    from .child import child

    return child(call)


_ABOUT: dict[str, Callable[[str], int]] = {"run": _run, "supervise": _supervise, "child": _child}
