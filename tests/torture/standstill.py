"""A process of the program that stands still at its n-th fault point (`agentrun/faults.py`) until somebody acts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

from .place import LIMIT, Place, send

DIGITS = 8  # of a line in the file of points: the pid


class Standstill:
    """Give `env` to the command that starts the run. Points are counted across all processes that have it."""

    def __init__(self, place: Place, at: int, *, name: str = "points", seed: int = 0) -> None:
        self._place, self._at = place, at
        self._file = place.root / name
        here = Path(f"{self._file}.here")
        os.mkfifo(here)
        self._bell = os.open(here, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.env = {"AGENTRUN_FAULTS": f"{self._file}:{at}:stop:{seed}"}

    def wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """Until somebody stands still; their pid. None if all has ended without it.

        `process`: the one that was started; others may go on after it.
        """
        pidfd = os.pidfd_open(process.pid)
        try:
            ready = select.select([self._bell, pidfd], [], [], LIMIT)[0]
            if self._bell not in ready:  # it has ended; another may stand there, or be about to
                while self._place.processes() and not select.select([self._bell], [], [], 0.05)[0]:
                    pass
        finally:
            os.close(pidfd)
        if not select.select([self._bell], [], [], 0)[0]:
            return None
        pid = int(self.lines()[self._at - 1][:DIGITS])
        self._place.wait_for(lambda: _state(pid) != "running")  # it rings before it stops
        return pid

    @property
    def name(self) -> str:
        """Where it stood."""
        lines = self.lines()
        return lines[self._at - 1][DIGITS:].strip() if len(lines) >= self._at else "not reached"

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def close(self) -> None:
        os.close(self._bell)


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return "running" if text.rpartition(")")[2].split()[0] not in "TZX" else "stopped"


def go_on(pid: int) -> bool:
    """Let it go on."""
    return send(pid, signal.SIGCONT)
