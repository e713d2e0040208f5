"""A script that uses `agentrun.durable`, run attempt after attempt as the step of a run would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).parents[2] / "agentrun" / "inside"
# what each script begins with: `did(x)` notes an effect, outside of everything that is tested
HEAD = """
import os, sys
from agentrun.durable import Mismatch, output, step, usage
def did(what):
    fd = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (str(what) + "\\n").encode())
    os.close(fd)
"""


@dataclass
class Ran:
    """How an attempt ended. `effects`: what was done in it."""

    status: int
    out: str
    err: str
    effects: list[str]


class Step:
    """A step instance: a folder, a journal, and one attempt after another."""

    def __init__(self, path: Path, python: str = sys.executable) -> None:
        self.path = path
        self.python = python
        self.attempt = 0
        self.calls = path / "calls"
        self.effects = path / "effects"

    def script(self, text: str, name: str = "agent.py") -> list[str]:
        """Write a script; returns its command line."""
        (self.path / name).write_text(HEAD + textwrap.dedent(text))
        return [self.python, name]

    def output(self) -> Path:
        """The $AGENTRUN_OUTPUT of the attempt."""
        return self.path / f"{self.attempt}.out"

    def usage(self) -> Path:
        """The $AGENTRUN_USAGE of the attempt."""
        return self.path / f"{self.attempt}.usage"

    def start(self, argv: list[str], **env: str) -> subprocess.Popen[str]:
        """Begin the next attempt."""
        self.attempt += 1
        given = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(INSIDE), "PYTHONDONTWRITEBYTECODE": "1",
            "AGENTRUN_RUN_ID": "7f3a", "AGENTRUN_STEP": "think[2]", "AGENTRUN_ATTEMPT": str(self.attempt),
            "AGENTRUN_CALLS": str(self.calls), "AGENTRUN_OUTPUT": str(self.output()),
            "AGENTRUN_USAGE": str(self.usage()), "TMPDIR": str(self.path / f"tmp{self.attempt}"),
            "EFFECTS": str(self.effects), **env,
        }  # fmt: skip
        self.effects.unlink(missing_ok=True)
        return subprocess.Popen(
            argv, cwd=self.path, env=given, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, argv: list[str], **env: str) -> Ran:
        """The next attempt, to its end."""
        return self.end(self.start(argv, **env))

    def end(self, process: subprocess.Popen[str]) -> Ran:
        """Wait for an attempt."""
        out, err = process.communicate()
        return Ran(process.returncode, out, err, self.done())

    def done(self) -> list[str]:
        """What was done in this attempt so far."""
        return self.effects.read_text().splitlines() if self.effects.exists() else []

    def lines(self) -> list[dict[str, Any]]:
        """The journal, of which every line must be whole."""
        return [json.loads(line) for line in self.calls.read_text().splitlines()]
