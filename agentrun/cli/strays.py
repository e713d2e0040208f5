"""Runs that cannot go on: said at once to a person, and to cron, which calls every minute, the same once a day.

What was said stands in told/ of the state folder: the run's own folder may be what is gone.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from ..store.read import Run

_SAY_AGAIN = 86_400.0  # seconds until the same is said to cron again
_FORGET = 30 * _SAY_AGAIN


def say_lost(root: str, run: Run) -> None:
    """A run without its folder can never go on."""
    advice = f"`agentrun cancel {run.id}` ends its record"
    say_once(root, run.id, f"agentrun: {run.job}/{run.id} cannot go on, its folder is gone; {advice}")


def say_once(root: str, about: str, words: str) -> None:
    """Say what is wrong. `about`: a run's id, with an ending for each thing that is said of it."""
    if not sys.stderr.isatty():
        note = os.path.join(root, "told", about)
        with suppress(OSError, ValueError), open(note, encoding="utf-8") as file:
            if file.read() == words and time.time() - os.fstat(file.fileno()).st_mtime < _SAY_AGAIN:
                return
        with suppress(OSError):
            _write(note, words)
    print(words, file=sys.stderr)


def _write(note: str, words: str) -> None:
    folder = os.path.dirname(note)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with os.scandir(folder) as entries:
        for old in [entry.path for entry in entries if time.time() - entry.stat().st_mtime > _FORGET]:
            os.unlink(old)
    fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(words)
