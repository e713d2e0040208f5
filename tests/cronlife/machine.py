"""A machine whose clock the test sets: a place (tests/torture/place.py) in which each process sees that clock.

It never goes back. `hold` lets the next runs of a job stop in their first step, until `let_go`. The `crontab` command
is one of its own, which keeps the table in a file.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..torture.place import Place
from ..torture.tally import ROOT
from .moved import Clock

STEP = Path(__file__).with_name("step.sh")
CRONTAB = """#!/bin/sh
case $1 in -l) cat "$TORTURE/crontab" 2>/dev/null || { echo "no crontab for $USER" >&2; exit 1; } ;;
-r) rm "$TORTURE/crontab" ;; -) cat > "$TORTURE/crontab" ;; *) cat "$1" > "$TORTURE/crontab" ;; esac
"""


class Machine(Place):
    """`now` is the time that it shows, in seconds."""

    def __enter__(self) -> Machine:
        return self

    def __init__(self, begin: int, folder: Path | None = None, package: Path = ROOT) -> None:
        super().__init__(package, folder=folder)
        commands = self.root / "bin"
        commands.mkdir()
        (commands / "crontab").write_text(CRONTAB)
        (commands / "crontab").chmod(0o755)
        self.clock = Clock(self.root, begin)
        self._fifos: dict[str, int] = {}
        self._spent: list[int] = []  # open, or what was written into them would be gone before it is read
        self.env |= self.clock.env | {
            "STEP": f"sh {STEP}", "TZ": "UTC", "PATH": f"{commands}:{self.env.get('PATH', '/usr/bin:/bin')}",
            "PYTHONPATH": f"{self.clock.path}:{self.env['PYTHONPATH']}",
        }  # fmt: skip
        self.set(begin)

    @property
    def now(self) -> float:
        return self.clock.now

    def set(self, at: float) -> None:
        """Set the clock, unless it is later already."""
        if at > self.now:
            self.clock.set(at)
        new = self.root / "now.new"
        new.write_text(f"{int(self.now)}\n")
        new.rename(self.root / "now")

    def write(self, name: str, text: str) -> Path:
        """A job file, written now."""
        path = self.job(name, text)
        os.utime(path, (self.now, self.now))
        return path

    # ---- a run that stands still

    def hold(self, job: str) -> None:
        """Let step `a` of the job wait."""
        fifo = self.root / f"go.{job}.{time.monotonic_ns()}"
        os.mkfifo(fifo)
        self._fifos[job] = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        (self.root / f"hold.{job}").write_text(f"{fifo}\n")

    def reached(self, job: str) -> bool:
        """Whether a run of the job has come to where it waits."""
        path = self.root / f"hold.{job}"
        return path.exists() and Path(f"{path.read_text().strip()}.reached").exists()

    @property
    def held(self) -> list[str]:
        return list(self._fifos)

    def let_go(self, job: str) -> None:
        """Let it go on."""
        (self.root / f"hold.{job}").unlink()
        fd = self._fifos.pop(job)
        os.write(fd, b"go\n" * 9)  # of a step whose run was killed another attempt may wait
        self._spent.append(fd)

    def cut(self) -> int:
        """Kill everything, and say so in the ledger. How many there were."""
        number = self.kill_all()
        for job in self.held:
            (self.root / f"hold.{job}").unlink()
            os.close(self._fifos.pop(job))
        with open(self.ledger, "a") as file:
            file.write(f"cut - - - - 0 - {int(self.now)}\n")
        return number

