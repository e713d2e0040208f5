"""The one place where an error becomes words and an exit status.

`guarded` prints no traceback: an `AgentrunError` is a message, a hint and its own status; a broken pipe is 141 without
a word, ^C is 130; SQLite's and the system's errors are 74. Everything else is a bug, told in one line (70);
AGENTRUN_DEBUG=1 shows where.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import AgentrunError, JobFileError
from ..render.terminal import look_of, make_safe, printable

_BUG, _SYSTEM = 70, 74  # EX_SOFTWARE and EX_IOERR of sysexits.h


def guarded(call: Callable[[], object]) -> int:
    """Do it, and return the exit status: what it answers, if that is a number. Never raises, but for SystemExit."""
    make_safe(sys.stdout)
    make_safe(sys.stderr)
    try:
        answer = call()
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except BrokenPipeError:
        return _unread()
    except SystemExit as leaving:
        # typer answers a broken pipe by leaving with 1, and a request for completion by leaving
        if isinstance(leaving.__context__, BrokenPipeError):
            return _unread()
        raise
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return tell(error)


def tell(error: Exception) -> int:
    """Say on stderr what went wrong, and return the exit status that goes with it."""
    try:
        return _tell(error)
    except BrokenPipeError:
        _silence(sys.stderr)
        return getattr(error, "exit_code", 1)


def _tell(error: Exception) -> int:
    if isinstance(error, JobFileError):
        from ..render.problems import problem_lines

        say(*problem_lines(error.problems, look_of(sys.stderr)))
        return error.exit_code
    if isinstance(error, AgentrunError):
        complain(error.message, error.hint)
        return error.exit_code
    if type(error).__module__ == "sqlite3":
        return _tell(_explained(error))
    if isinstance(error, OSError) and not os.environ.get("AGENTRUN_DEBUG"):
        where = f": {error.filename}" if error.filename else ""
        complain(f"{error.strerror or error}{where}", None)
        return _SYSTEM
    if damage := _damage():  # overwritten pages may hold anything: it need not be a mistake of ours
        return _tell(damage)
    return _bug(error)


def _explained(error: Exception) -> Exception:
    import sqlite3

    from ..store import database, folders

    assert isinstance(error, sqlite3.Error)
    return database.explain(error, database.path(folders.home()))


def _damage() -> Exception | None:
    """What is wrong with the database, if anything is."""
    import sqlite3

    from ..errors import StoreError
    from ..store import database, folders
    from ..store.soundness import faults

    file = database.path(folders.home())
    try:
        wrong = faults(file) if os.path.exists(file) else []
    except (StoreError, sqlite3.Error, OSError):
        return None
    return StoreError(wrong[0], "agentrun doctor --repair rebuilds it") if wrong else None


def _bug(error: Exception) -> int:
    import traceback

    if os.environ.get("AGENTRUN_DEBUG"):
        say(*"".join(traceback.format_exception(error)).rstrip().splitlines())
        return _BUG
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    complain(
        f"a mistake in agentrun itself: {type(error).__name__}: {error}{where}",
        "nothing that was recorded is lost; AGENTRUN_DEBUG=1 shows the details for a report",
    )
    return _BUG


def complain(message: str, hint: str | None) -> None:
    """Say an error, and what to do about it, on stderr."""
    look = look_of(sys.stderr)
    first, *more = message.splitlines() or [""]
    say(f"{look.paint('agentrun:', 'bold', 'red')} {printable(first)}", *(f"  {printable(line)}" for line in more))
    if hint:
        say(f"  hint: {printable(hint)}")


def say(*lines: str) -> None:
    """Lines for stderr."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _unread() -> int:
    """Whoever read our output has gone; the interpreter's own flush at its end must not find that out again."""
    _silence(sys.stdout)
    return 141  # 128 + SIGPIPE, as a program that leaves it to the signal


def _silence(stream: Any) -> None:
    """Point a stream that nobody reads any more at /dev/null."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
