"""A run's folder with a real shim, for tests: give orders, wait for results, and leave no process behind."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import uuid
import warnings
from pathlib import Path

from agentrun.step.link import Link, ShimGone
from agentrun.step.procs import look_up
from agentrun.step.results import Result, ResultsReader
from agentrun.step.tree import end_leftovers, leftovers
from agentrun.store.folders import RunFolder

PATIENCE = 20.0
SH = "/bin/sh"
MIB = 1 << 20


def eat(mebibytes: int, then: str = "import time; time.sleep(100)") -> list[str]:
    """A program that touches so much memory at once."""
    return [sys.executable, "-S", "-c", f"x = bytearray({mebibytes} << 20); {then}"]


def wait_readable(fd: int, what: str, patience: float = PATIENCE) -> None:
    if not select.select([fd], [], [], patience)[0]:
        raise AssertionError(f"waited in vain for {what}")


def wait_gone(pid: int, patience: float = PATIENCE) -> None:
    """Until a process that need not be ours has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        wait_readable(handle, f"the end of process {pid}", patience)
    finally:
        os.close(handle)


def alive(pid: int) -> bool:
    process = look_up(pid)
    return process is not None and process.alive


class News:
    """A FIFO into which the programs of a test write lines, and from which the test waits for them."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def line(self, patience: float = PATIENCE) -> str:
        while b"\n" not in self._rest:
            wait_readable(self._fd, "a line of news", patience)
            self._rest += os.read(self._fd, 65_536)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        os.close(self._fd)


class Rig:
    """One run: its folder, its link, its results so far."""

    def __init__(self, root: Path, run_id: str | None = None) -> None:
        self.root = root
        self.folder = RunFolder(str(root), run_id or "t" + uuid.uuid4().hex)
        if not run_id:
            self.folder.create()
        self.news = News(root / f"news-{uuid.uuid4().hex}")
        self.reader = ResultsReader(self.folder.results)
        self.results: dict[tuple[str, int], Result] = {}
        self.said: list[str] = []
        self.stuck: list[list[tuple[str, int]]] = []  # who does nothing, each time that the shim said it
        self.over: dict[str, int] = {}  # what of the run's limits was crossed, and what was used by then
        self.link: Link
        self.shims: list[int] = []

    def fork(self) -> Rig:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test runner's own threads
            self.link = Link.fork()
        self.shims.append(self.link.pid)
        return self

    def open(
        self, *, epoch: int = 1, restart: list[str] | None = None, max_restarts: int = 0,
        limits: dict[str, int] | None = None, spent: dict[str, int] | None = None,
    ) -> Rig:
        self.fork()
        self.link.open(
            self.folder, epoch=epoch, env={"PATH": os.environ["PATH"], "NEWS": self.news.path}, umask=0o022,
            restart=restart, max_restarts=max_restarts, limits=limits, spent=spent,
        )
        assert self.link.hello() == []
        return self

    def order(self, argv: list[str], instance: str = "a", attempt: int = 1, **more: object) -> dict[str, object]:
        return {
            "instance": instance, "attempt": attempt, "argv": argv, "shell": None, "env": {}, "cwd": str(self.root),
            "timeout": None, "grace": 1_000, "leave_running": False, **more,
        }

    def start(self, argv: list[str], instance: str = "a", attempt: int = 1, **more: object) -> None:
        self.link.start(self.order(argv, instance, attempt, **more))

    def sh(self, text: str, instance: str = "a", attempt: int = 1, **more: object) -> None:
        self.start([SH, "-c", text], instance, attempt, **more)

    def result(self, instance: str = "a", attempt: int = 1) -> Result:
        """Wait for the bell until that result is there."""
        until = time.monotonic() + PATIENCE
        while (instance, attempt) not in self.results:
            for result in self.reader.read_new():
                assert (result.instance, result.attempt) not in self.results, "an attempt ended twice"
                self.results[result.instance, result.attempt] = result
            if (instance, attempt) in self.results:
                break
            self._listen(until, f"the result of {instance}#{attempt}")
        return self.results[instance, attempt]

    def swept(self) -> None:
        self.link.sweep()
        until = time.monotonic() + PATIENCE
        while "swept" not in self.said:
            self._listen(until, "the end of the sweep")
        self.said.remove("swept")

    def _listen(self, until: float, what: str) -> None:
        writers = [self.link] if self.link.pending else []
        if not any(select.select([self.link], writers, [], max(0.0, until - time.monotonic()))):
            raise AssertionError(f"waited in vain for {what}")
        self.link.flush()
        self._hear()

    def _hear(self) -> None:
        for message in self.link.receive():
            self.said.append(message["is"])
            if message["is"] == "stuck":
                self.stuck.append([(instance, attempt) for instance, attempt, _ in message["attempts"]])
            if message["is"] == "over":
                assert message["what"] not in self.over, "told twice"
                self.over[message["what"]] = message["spent"]

    def told_over(self, what: str) -> int:
        """Wait until the shim says that the run crossed this limit; what it had used."""
        until = time.monotonic() + PATIENCE
        self._hear()  # what came together with the hello
        while what not in self.over:
            self._listen(until, f"word that the run is over its {what}")
        return self.over[what]

    def told_stuck(self, times: int = 1) -> list[list[tuple[str, int]]]:
        """Wait until the shim has said so many times who does nothing."""
        until = time.monotonic() + PATIENCE
        self._hear()  # what came together with the hello
        while len(self.stuck) < times:
            self._listen(until, "word of who does nothing")
        return self.stuck

    def log(self, instance: str = "a", attempt: int = 1) -> bytes:
        return Path(self.folder.log(instance, attempt)).read_bytes()

    def kill_shim(self) -> None:
        os.kill(self.shims[-1], signal.SIGKILL)
        os.waitpid(self.shims[-1], 0)
        self.shims.pop()

    def close(self) -> None:
        """End whatever a test left, also one that failed halfway."""
        if hasattr(self, "link"):
            try:
                self.link.goodbye(timeout=5)
            except (ShimGone, ValueError, OSError):
                pass
        for pid in self.shims:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        end_leftovers(self.folder.run_id, self.folder, grace_ms=0)
        assert leftovers(self.folder.run_id, self.folder) == []
        self.reader.close()
        self.news.close()
