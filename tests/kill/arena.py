"""A place where real runs are started and killed: a state folder, job files, a ledger that the steps write.

Nothing here sleeps to wait. A step says that it is there through a FIFO and goes on when a second FIFO says so;
the end of a run is waited for at the kernel lock that its shim holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

LIMIT = 30.0  # seconds after which a test gives up on something that should have happened


class Arena:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.ledger = root / "ledger"
        self.env = {**os.environ, "AGENTRUN_HOME": str(self.home), "ARENA": str(root)}
        self.env.pop("AGENTRUN_RUN_ID", None)
        self.processes: list[subprocess.Popen[str]] = []

    # --- jobs

    def job(self, name: str, text: str) -> Path:
        path = self.root / f"{name}.yaml"
        path.write_text(text)
        return path

    def gate(self, name: str) -> Gate:
        return Gate(self.root, name)

    # --- commands

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentrun", *arguments],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "agentrun", *arguments],
            env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT * 2,
        )  # fmt: skip

    # --- what the record says

    def rows(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.home}/agentrun.db?mode=ro", uri=True)
        try:
            return connection.execute(question, values).fetchall()
        finally:
            connection.close()

    def status(self, run: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.command("status", run, "--json").stdout)
        return answer

    @property
    def run_id(self) -> str:
        return str(self.rows("SELECT id FROM runs ORDER BY id DESC LIMIT 1")[0][0])

    def owner(self, run_id: str | None = None) -> int:
        owner = self.rows("SELECT owner FROM runs WHERE id = ?", run_id or self.run_id)[0][0]
        return int(json.loads(owner)["pid"])

    def shim(self, run_id: str | None = None) -> int:
        """The process that holds byte 1 of the run's lock: the one with the run's socket open and no parent of ours."""
        lock = f"{self.home}/runs/{run_id or self.run_id}/lock"
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid == self.owner(run_id):
                continue
            try:
                if any(os.readlink(f"/proc/{pid}/fd/{fd}") == lock for fd in os.listdir(f"/proc/{pid}/fd")):
                    return pid
            except OSError:
                continue
        raise AssertionError("no shim holds the run")

    def step_processes(self, run_id: str | None = None) -> list[int]:
        """Every process that carries the tag of a run; of the latest if none is named."""
        tag = f"AGENTRUN_RUN_ID={run_id or self.run_id}".encode()
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if tag in file.read().split(b"\0"):
                        found.append(pid)
            except OSError:
                continue
        return found

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    # --- kills and waits

    def kill(self, *pids: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_everything(self, spare: Collection[int] = ()) -> None:
        """As a power cut would: nobody sees the others die. Frozen first, so that no one reacts."""
        self.kill_everything_of(self.run_id, spare)

    def kill_everything_of(self, run_id: str, spare: Collection[int] = ()) -> None:
        """The same of one run."""
        all_of_it = (self.owner(run_id), self.shim(run_id), *self.step_processes(run_id))
        pids = [pid for pid in all_of_it if pid not in spare]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        self.kill(*pids)
        for pid in pids:
            wait_gone(pid)
        for process in self.processes:
            if process.pid in pids:
                process.wait(LIMIT)

    def wait_until_let_go(self) -> None:
        """Until no shim holds the latest run. (Taking the lease to see would keep a new supervisor from it.)"""
        path = f"{self.home}/runs/{self.run_id}/lock"
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        pid = os.fork()  # the blocking wait for a lock has no timeout: a child waits, and is waited for
        if pid == 0:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0))
            os._exit(0)
        os.close(fd)
        pidfd = os.pidfd_open(pid)
        ready, _, _ = select.select([pidfd], [], [], LIMIT)
        os.close(pidfd)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert ready, "the run is still held"

    def close_pipes(self) -> None:
        """Forget the commands that have ended: hundreds of them would use up the descriptors."""
        for process in self.processes:
            process.communicate(timeout=LIMIT)
        self.processes.clear()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        if (self.home / "agentrun.db").exists() and self.rows("SELECT count(*) FROM runs")[0][0]:
            for (run_id,) in self.rows("SELECT id FROM runs WHERE state <> 'finished'"):
                self.command("cancel", run_id)
            try:
                self.kill(self.shim())
            except AssertionError:
                pass
            self.kill(*self.step_processes())
        for process in self.processes:  # last: what a test that failed has left holds their pipes
            try:
                process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()


class Gate:
    """Where a step stops: `steps` is its line of shell, `reached` waits for it, `open` lets it through."""

    def __init__(self, root: Path, name: str) -> None:
        self.here, self.go = root / f"{name}.here", root / f"{name}.go"
        for path in (self.here, self.go):
            os.mkfifo(path)
        self._fds = [os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC) for path in (self.here, self.go)]
        self.shell = f"echo here > {self.here}; read _ < {self.go}"

    def reached(self) -> None:
        ready, _, _ = select.select([self._fds[0]], [], [], LIMIT)
        assert ready, "no step came to the gate"
        os.read(self._fds[0], 4096)

    def open(self) -> None:
        os.write(self._fds[1], b"go\n")


def wait_gone(pid: int) -> None:
    """Until a process is gone or dead."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], LIMIT)
        assert ready, f"process {pid} lives on"
    finally:
        os.close(pidfd)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
