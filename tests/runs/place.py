"""A place where whole runs are started as a user starts them, and judged by what the program itself says of them.

`run` is the real command, without a terminal, as cron has it: exit status, what it printed, and the record as
`status --json` shows it. Steps leave their marks in a ledger: `MARK` writes who they are.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..kill.arena import LIMIT, Arena

MARK = 'echo "$AGENTRUN_STEP" >> "$ARENA/ledger"'
PROGRAM = (sys.executable, "-P", "-m", "agentrun")


class Ran(NamedTuple):
    """A command that has ended. `run` is the record of the run with its steps; empty if none was printed."""

    status: int
    stdout: str
    stderr: str
    run: dict[str, Any]

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        assert self.run, f"exit status {self.status}, no record; stderr: {self.stderr}"
        return {step["id"]: step for step in self.run["steps"]}

    def step(self, name: str) -> dict[str, Any]:
        return self.steps[name]

    @property
    def outcomes(self) -> dict[str, str]:
        """Each step's outcome; of a skipped one with the reason: `skipped (upstream)`."""
        return {
            name: f"skipped ({step['reason']})" if step["outcome"] == "skipped" else step["outcome"]
            for name, step in self.steps.items()
        }

    @property
    def outputs(self) -> dict[str, Any]:
        return {name: step["outputs"] for name, step in self.steps.items()}


class Place(Arena):
    def run(self, text: str, *options: str, name: str = "job", env: dict[str, str] | None = None) -> Ran:
        """`agentrun run job.yaml --json`, to its end."""
        return self.call("run", str(self.job(name, text)), "--json", *options, env=env)

    def call(self, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Ran:
        """Any command, to its end; `env` is laid over the one that this place has."""
        process = subprocess.run(
            [*PROGRAM, *arguments], env={**self.env, **(env or {})}, cwd=cwd or self.root,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT * 2,
        )  # fmt: skip
        printed = json.loads(process.stdout) if process.stdout.startswith("{") else {}
        return Ran(process.returncode, process.stdout, process.stderr, printed)

    def marks(self) -> list[str]:
        """What the steps wrote into the ledger, in order."""
        return self.lines()

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that it says on stderr; it must come."""
    assert process.stderr is not None
    ready, _, _ = select.select([process.stderr], [], [], LIMIT)
    assert ready, "it says nothing"
    return process.stderr.readline()


def milliseconds(text: str) -> int:
    """A time of the record, in ms since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def dead(pid: int) -> bool:
    """Whether a process is gone, or only its status is left."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def is_root() -> bool:
    return os.geteuid() == 0
