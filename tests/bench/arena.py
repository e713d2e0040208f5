"""A folder of its own for one measurement, the commands that run in it, and what a stopwatch says of them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PATIENCE = 120.0  # seconds that anything here may take before it counts as broken


class Broken(Exception):
    """What was measured did not do what it should."""


class Arena:
    """A temporary folder, in it `home` (AGENTRUN_HOME) and whatever a measurement needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        # as users have it: compiled modules are kept (PYTHONDONTWRITEBYTECODE costs each command 60 ms and more)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AGENTRUN_", "PYTHON"))},
            "AGENTRUN_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
        }

    def file(self, name: str, text: str) -> str:
        """Write a file; returns its path."""
        (self.path / name).write_text(text)
        return str(self.path / name)

    def job(self, steps: Sequence[str], head: str = "", name: str = "bench") -> str:
        """A job file of such steps, each a flow mapping."""
        return self.file(f"{name}.yaml", f"{head}steps:\n" + "".join(f"- {{{step}}}\n" for step in steps))

    def agentrun(self, *arguments: str) -> list[str]:
        """The command line of agentrun itself."""
        return [sys.executable, "-m", "agentrun", *arguments]

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in the folder."""
        return subprocess.Popen(
            argv, cwd=self.path, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def seconds(self, argv: Sequence[str], status: int = 0) -> float:
        """How long a command takes, which must end with `status`."""
        began = time.perf_counter()
        process = self.start(argv)
        _, error = process.communicate()
        took = time.perf_counter() - began
        if process.returncode != status:
            raise Broken(f"{' '.join(argv)[:200]} ended with {process.returncode}: {error.decode()[-2000:]}")
        return took

    def python(self, script: str, *arguments: str) -> float:
        """How long a Python program takes, interpreter included."""
        return self.seconds([sys.executable, "-c", script, *arguments])

    def fifo(self, name: str) -> str:
        """Make a FIFO anew; returns its path."""
        path = self.path / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return str(path)

    def one(self, question: str) -> tuple[object, ...]:
        """A row of the database, as it is now."""
        connection = sqlite3.connect(f"file:{self.home}/agentrun.db?mode=ro", uri=True)
        try:
            row: tuple[object, ...] = connection.execute(question).fetchone()
            return row
        finally:
            connection.close()


def wait_until(condition: Callable[[], bool], what: str) -> float:
    """Look every millisecond until it is true; returns the time when it was (perf_counter)."""
    give_up = time.perf_counter() + _PATIENCE
    while not condition():
        if time.perf_counter() > give_up:
            raise Broken(f"waited {_PATIENCE:.0f} s for {what}")
        time.sleep(0.001)
    return time.perf_counter()


def read_line(fifo: str) -> str:
    """Wait for a line in a FIFO."""
    with open(fifo) as file:
        return file.readline().strip()


def write_line(fifo: str) -> None:
    """Let somebody who reads a FIFO go on."""
    with open(fifo, "w") as file:
        file.write("go\n")


@contextmanager
def arena(folder: str | None = None) -> Iterator[Arena]:
    """An arena that is removed afterwards. `folder`: the disk to measure on."""
    path = Path(tempfile.mkdtemp(prefix="agentrun-bench-", dir=folder))
    try:
        yield Arena(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def repeat(times: int, measure: Callable[[], float]) -> tuple[float, ...]:
    """The sorted results of so many measurements."""
    return tuple(sorted(measure() for _ in range(times)))


def middle(results: Sequence[float]) -> float:
    """The median of them."""
    return statistics.median(results)
