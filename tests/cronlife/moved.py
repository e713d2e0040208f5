"""A clock that the test sets, for processes that have its environment.

It is libfaketime's, as in tests/torture/clock.py: CLOCK_MONOTONIC and the times of files stay real. That library, at
0.9.10, takes the end of a sleep, which Python counts by CLOCK_MONOTONIC, for a time of its own clock, and the call
fails: a `sitecustomize` lets Python sleep by `select`. Where $SLEEPS names a FIFO it says there that it is about to.

It also makes two files in /dev/shm for each process, by its pid, which one that is killed leaves behind; a later
process with that pid then ends with 1 before it has begun. So those of processes that are no more are removed first.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from glob import glob
from pathlib import Path

_SLEEP = """import os, select, time

def sleep(seconds):
    if "SLEEPS" in os.environ:
        with open(os.environ["SLEEPS"], "w") as fifo:
            fifo.write("sleeps\\n")
    select.select([], [], [], seconds)

time.sleep = sleep
"""


def library() -> str | None:
    """libfaketime, if it is there."""
    return next(iter(glob("/usr/lib/*/faketime/libfaketime.so.1") + glob("/usr/lib*/faketime/libfaketime.so.1")), None)


def clear_away() -> None:
    """Remove what killed processes have left in /dev/shm."""
    for path in glob("/dev/shm/faketime_shm_*") + glob("/dev/shm/sem.faketime_sem_*"):
        if not os.path.exists(f"/proc/{path.rpartition('_')[2]}"):
            with suppress(OSError):
                os.unlink(path)


class Clock:
    """`env`: what a process needs besides its own. `path`: what goes before its PYTHONPATH. Times in seconds."""

    def __init__(self, folder: Path, now: float) -> None:
        found = library()
        assert found is not None, "who wants this has asked for the library"
        clear_away()
        self._file = folder / "clock"
        self.path = folder / "site"
        self.path.mkdir()
        (self.path / "sitecustomize.py").write_text(_SLEEP)
        self.env = {
            "LD_PRELOAD": found, "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }  # fmt: skip
        self._ahead = 0.0
        self.set(now)

    @property
    def now(self) -> float:
        return time.time() + self._ahead

    def set(self, now: float) -> None:
        """Set it; it goes on from there."""
        self._ahead = now - time.time()
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._ahead:+.3f}")
        new.rename(self._file)
