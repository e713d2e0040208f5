"""A place where runs are tortured: a state folder, job files, the ledger, and every process that belongs to it.

Each process that is started here carries TORTURE=<root> in its environment, and so does all that it starts: that is
how `processes` finds them, without asking the program under test.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .tally import ROOT

LIMIT = float(os.environ.get("TORTURE_LIMIT", 60))  # seconds after which something that should have happened has not
STEP = Path(__file__).with_name("step.sh")


class Stuck(Exception):
    """Something did not end in time."""


class Place:
    """`package`: the folder that holds the program under test. With `with`: everything is ended and removed."""

    def __init__(self, package: Path = ROOT, *, folder: Path | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="torture-", dir=folder))
        self.home = self.root / "home"
        self.ledger = self.root / "ledger"
        self.ledger.touch()
        (self.root / "locks").mkdir()
        self.package = package
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTRUN", "PYTHON"))}
        self.env |= {
            "AGENTRUN_HOME": str(self.home),
            "TORTURE": str(self.root),
            "STEP": f"sh {STEP}",
            "PYTHONPATH": str(package),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        for process in self._started:
            process.wait(LIMIT)
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- commands

    def job(self, name: str, text: str) -> Path:
        """A job file."""
        path = self.root / f"{name}.yaml"
        path.write_text(text)
        return path

    def start(self, *arguments: str, into: str = "said", **env: str) -> subprocess.Popen[bytes]:
        """Start the program; what it says goes to the file `said`, or another."""
        with open(self.root / into, "ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "agentrun", *arguments],
                env=self.env | env, cwd=self.root, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Call the program and wait for it. Raises Stuck."""
        try:
            return subprocess.run(
                [sys.executable, "-m", "agentrun", *arguments],
                env=self.env | env, cwd=self.root, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Stuck(f"agentrun {' '.join(arguments)} did not end in {LIMIT:.0f} s") from None

    def said(self) -> str:
        """What everything that was started has said."""
        path = self.root / "said"
        return path.read_text(errors="replace") if path.exists() else ""

    # ---- the record, read without the program

    def rows(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database; nothing where there is none yet."""
        file = self.home / "agentrun.db"
        if not file.exists() or not file.stat().st_size:
            return []
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(question, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                if "readonly" not in str(error):
                    raise
        # killed while the file was made: its rollback journal has to be played back by somebody who may write
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            connection.execute("SELECT * FROM sqlite_schema").fetchall()
        return self.rows(question, *values)

    def runs(self) -> list[str]:
        """The ids of all runs, oldest first."""
        return [row[0] for row in self.rows("SELECT id FROM runs ORDER BY id")]

    def unfinished(self) -> list[str]:
        """Those that are not finished."""
        return [row[0] for row in self.rows("SELECT id FROM runs WHERE state <> 'finished' ORDER BY id")]

    def owner(self, run_id: str) -> int | None:
        """The pid of the supervisor that the record names."""
        rows = self.rows("SELECT owner FROM runs WHERE id = ?", run_id)
        return int(json.loads(rows[0][0])["pid"]) if rows and rows[0][0] else None

    # ---- processes

    def processes(self) -> list[int]:
        """Everything alive that belongs to this place."""
        # one that was started just now may have no environment to be read yet
        started = {process.pid for process in self._started if process.poll() is None}
        return sorted(started.union(self._tagged(f"TORTURE={self.root}".encode())))

    def of_run(self, run_id: str) -> list[int]:
        """The step processes of a run."""
        return list(self._tagged(f"AGENTRUN_RUN_ID={run_id}".encode()))

    def supervisors(self) -> list[int]:
        """Processes of the program itself: supervisors and shims, and commands."""
        return [pid for pid in self.processes() if b"agentrun" in _read(f"/proc/{pid}/cmdline").split(b"\0")[0:4]]

    def shims(self, run_id: str | None = None) -> list[int]:
        """The shims: those of our processes that listen on a run's socket; of one run if it is named."""
        found = []
        for pid in self.supervisors():
            try:
                locks = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                continue
            held = [path for path in locks if path.startswith(f"{self.home}/runs/") and path.endswith("/lock")]
            is_shim = held and not any(path.endswith(("agentrun.db", "agentrun.lock")) for path in locks)
            if is_shim and (run_id is None or f"/runs/{run_id}/" in held[0]):
                found.append(pid)
        return found

    def _tagged(self, tag: bytes) -> Iterator[int]:
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid == os.getpid() or tag not in _read(f"/proc/{pid}/environ").split(b"\0"):
                continue
            if _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"]):
                yield pid

    def kill_all(self) -> int:
        """As a power cut would, but for the page cache: nobody sees the others die. How many there were."""
        killed: set[int] = set()
        for _ in range(100):
            found = self.processes()
            if not found:
                return len(killed)
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in found:
                    send(pid, number)
            killed.update(found)
            for pid in found:
                wait_gone(pid)
        raise Stuck(f"processes that cannot be killed: {self.processes()}")

    def wait_quiet(self, limit: float = LIMIT) -> None:
        """Until no process of this place is left. Raises Stuck, and says who it is."""
        until = time.monotonic() + limit
        while found := self.processes():
            left = until - time.monotonic()
            if left < 0 or not wait_gone(found[0], left):
                names = "; ".join(map(_described, self.processes()))
                raise Stuck(f"still there after {limit:.0f} s: {names}")

    def wait_for(self, what: Callable[[], bool], limit: float = LIMIT) -> None:
        """Until something that no descriptor tells of is so. Raises Stuck."""
        until = time.monotonic() + limit
        while not what():
            if time.monotonic() > until:
                raise Stuck(f"{what} did not come true in {limit:.0f} s")
            select.select([], [], [], 0.005)

    def gate(self, name: str) -> Gate:
        """A FIFO at which steps stop until it is opened."""
        return Gate(self.root / name)


class Gate:
    """Where steps wait. In a job: `WORK: <gate.shell>`."""

    def __init__(self, path: Path) -> None:
        self._here, self._go = Path(f"{path}.here"), Path(f"{path}.go")
        for fifo in (self._here, self._go):
            os.mkfifo(fifo)
        self._fds = [os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC) for fifo in (self._here, self._go)]
        self.shell = f"echo here > {self._here}; read _ < {self._go}"

    def reached(self, limit: float = LIMIT) -> None:
        """Until a step has come. Raises Stuck."""
        if not select.select([self._fds[0]], [], [], limit)[0]:
            raise Stuck("no step came to the gate")
        os.read(self._fds[0], 5)

    def open(self, times: int = 1) -> None:
        """Let so many go on."""
        os.write(self._fds[1], b"go\n" * times)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


def send(pid: int, number: int) -> bool:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _described(pid: int) -> str:
    """Who a process is, how long it has been there, and what it waits for."""
    command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:90]
    fields = _read(f"/proc/{pid}/stat").decode(errors="replace").rpartition(")")[2].split()
    if not fields:
        return f"{pid} is gone"
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    waits = " ".join(_read(f"/proc/{pid}/{what}").decode(errors="replace").strip() for what in ("wchan", "syscall"))
    try:
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        held = []
    return f"{pid} ({command}), child of {fields[1]}, {fields[0]} for {age:.0f} s, in {waits}, with {', '.join(held)}"


def wait_gone(pid: int, limit: float = LIMIT) -> bool:
    """Until a process has ended (a zombie has)."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return bool(select.select([pidfd], [], [], limit)[0])
    finally:
        os.close(pidfd)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
