"""A copy of the examples with a state folder of its own, used as a new user would: by the command."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LIMIT = 30.0  # seconds after which a test gives up on something that should have happened


class Clone:
    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(EXAMPLES, root / "examples", ignore=shutil.ignore_patterns("out", "__pycache__"))
        self.env = {**os.environ, "AGENTRUN_HOME": str(root / "state")}
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "OPENAI_PRICE"):
            self.env.pop(name, None)  # a test costs nothing

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "agentrun", *arguments],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def agentrun(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=2 * LIMIT)
        assert process.returncode == status, out + err
        return out

    def run(self, name: str, *arguments: str, status: int = 0) -> str:
        return self.agentrun("run", f"examples/{name}/{name}.yaml", *arguments, status=status)

    def folder(self, name: str) -> Path:
        return self.root / "examples" / name

    def out(self, name: str) -> Path:
        return self.folder(name) / "out"

    def wait_for_log(self, name: str, pattern: str, count: int) -> None:
        """Until the log of the job's latest run has so many such lines; a run not recorded yet is asked for again."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            log = self.start("logs", name, "-f", "--grep", pattern)
            try:
                assert log.stdout
                if len(list(itertools.islice(log.stdout, count))) == count:
                    return
            finally:
                log.kill()
                log.communicate()
        raise AssertionError(f"the log never told {count} times of {pattern}")


def kill_everything(process: subprocess.Popen[str]) -> None:
    """What a power cut does to a run: its supervisor, its shim and its steps are gone at once."""
    supervisor = psutil.Process(process.pid)
    everybody = [supervisor]
    supervisor.suspend()
    for child in supervisor.children(recursive=True):
        child.suspend()  # nobody may start anybody meanwhile
        everybody.append(child)
    for one in everybody:
        one.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    psutil.wait_procs(everybody[1:], timeout=10)
