"""Runs that cannot go on, and that nobody may be told of every minute: said once, or once a day, where cron listens."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from ..engine import lost
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store

_SAY_AGAIN = 86_400.0  # seconds until the same is said to cron again


def give_up(store: Store, run: Run) -> None:
    """A run without its folder can never go on. Without a terminal it is said once: its record is ended."""
    advice = f"`agentrun cancel {run.id}` ends its record"
    if not sys.stderr.isatty():
        advice = "its record is ended"
        lost.cancel(store, run)
    print(f"agentrun: {run.job}/{run.id} cannot go on, its folder is gone; {advice}", file=sys.stderr)


def say_once(root: str, run_id: str, words: str) -> None:
    """Say what is wrong with a run; to cron, which calls every minute, the same of the same run once a day."""
    if not sys.stderr.isatty():
        note = os.path.join(RunFolder(root, run_id).path, "told")
        with suppress(OSError, ValueError), open(note, encoding="utf-8") as file:
            if file.read() == words and time.time() - os.fstat(file.fileno()).st_mtime < _SAY_AGAIN:
                return
        with suppress(OSError), open(note, "w", encoding="utf-8") as file:
            file.write(words)
    print(words, file=sys.stderr)
