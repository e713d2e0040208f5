"""A machine of its own for one case: pids, mounts, a boot id and a clock that a test may do with as it likes.

The case is a function `play(machine, …) -> Report` of a family. It is called in a new process, in pid and mount
namespaces made by unshare(1): so a pid can be given to a bystander (/proc/sys/kernel/ns_last_pid) and the machine can
seem to be started again (another boot id, and a time since boot that begins anew, in a time namespace), and nobody
outside sees anything of it. When the case is over the kernel ends all that is left in there.

A bystander blocks every signal: what it is sent stays pending and can be read, KILL and STOP show by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .place import LIMIT
from .tally import ROOT

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
UNSHARE = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--pid", "--fork", "--kill-child",
           "--mount", "--mount-proc"]  # fmt: skip
TRIES = 500  # to be given a pid: whoever else forks takes the next number
CLONE_NEWTIME = 0x80
NANOSECONDS = 1_000_000_000


class Report(NamedTuple):
    """What came of a case. `notes` are counted by the family."""

    violations: list[str]
    faults: int = 1
    notes: list[str] = []  # noqa: RUF012 - never written to


def lacking() -> str | None:
    """What there is no machine for want of; None where there is one."""
    try:
        answer = subprocess.run([*UNSHARE, "cat", str(LAST_PID)], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return f"unshare ({error.strerror})"
    return None if answer.returncode == 0 else f"namespaces ({answer.stderr.strip()})"


def apart(play: str, *arguments: Any, limit: float = 5 * LIMIT) -> Report:
    """Play a case, `module:function` of this package, on a machine of its own."""
    command = [*UNSHARE, sys.executable, "-m", f"{__package__}.machine", play, json.dumps(arguments)]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Report([f"was not over after {limit:.0f} s"])
    try:
        return Report(*json.loads(answer.stdout))
    except (ValueError, TypeError):
        return Report([f"the test itself failed ({answer.returncode}): {answer.stderr.strip()[-600:]}"])


class Bystander(NamedTuple):
    """A process that no run has anything to do with."""

    pid: int

    def disturbed(self) -> str | None:
        """What was done to it, if anything was."""
        state, pending = "gone", 0
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                state = value.split()[0] if name == "State" else state
                pending |= int(value, 16) if name in ("SigPnd", "ShdPnd") else 0
        if state in ("gone", "Z", "X"):
            return f"the bystander with pid {self.pid} was killed"
        if state == "T":
            return f"the bystander with pid {self.pid} was stopped"
        sent = [number for number in range(1, 65) if pending >> (number - 1) & 1]
        return f"the bystander with pid {self.pid} was sent the signals {sent}" if sent else None


class Machine:
    """The machine that a case runs on. `bystanders`: those that were given a pid."""

    def __init__(self, folder: Path) -> None:
        self.bystanders: list[Bystander] = []
        self.boots = 1
        self._boot = folder / "boot_id"
        self._boot.write_text(f"{uuid.uuid4()}\n")
        subprocess.run(["mount", "--bind", str(self._boot), str(BOOT_ID)], check=True)
        # vfork(2) leaves a child in its parent's time, or fails, according to the kernel
        setattr(subprocess, "_USE_VFORK", False)  # noqa: B010 - it is final, as types go

    def reboot(self, up: float = 10.0) -> None:
        """Everybody dies at once; from now on it is another boot, `up` seconds ago, for all that is started."""
        os.kill(-1, signal.SIGKILL)  # all in the namespace but the first process and us: nobody forks his way out
        for one in self.bystanders:
            os.waitpid(one.pid, 0)
        self.bystanders.clear()
        self._boot.write_text(f"{uuid.uuid4()}\n")
        self.boots += 1
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWTIME):
            return  # before Linux 5.6: the time since boot goes on
        back = int((time.clock_gettime(time.CLOCK_BOOTTIME) - up) * NANOSECONDS)
        mono = int((time.clock_gettime(time.CLOCK_MONOTONIC) - up) * NANOSECONDS)
        with contextlib.suppress(OSError):
            for name, offset in (("boottime", back), ("monotonic", mono)):
                seconds, rest = divmod(-offset, NANOSECONDS)
                Path("/proc/self/timens_offsets").write_text(f"{name} {seconds} {rest}\n")

    def bystander(self, wanted: int) -> Bystander | None:
        """Somebody with that pid. None while it is taken, or a session or group of that number is left."""
        for _ in range(TRIES):
            if Path(f"/proc/{wanted}").exists():
                return None
            LAST_PID.write_text(str(wanted - 1))
            pid = os.fork()
            if pid == 0:
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                os.execve("/bin/sleep", ["bystander", "1000"], {})
            if pid == wanted:
                self.bystanders.append(Bystander(pid))
                _wait_for_exec(pid)
                return self.bystanders[-1]
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return None

    def take(self, *wanted: int) -> int:
        """Bystanders for these pids; how many of them could be had."""
        return sum(self.bystander(pid) is not None for pid in wanted)

    def disturbed(self) -> Iterator[str]:
        """What was done to bystanders."""
        for bystander in self.bystanders:
            if what := bystander.disturbed():
                yield what


def _wait_for_exec(pid: int) -> None:
    """A fork of ours has our environment, and so our tag."""
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bystander\0"):
        select.select([], [], [], 0.001)


def main() -> int:
    """The first process in the namespaces: waits for everybody, as init does, and goes with the one who plays."""
    play, arguments = sys.argv[1:]
    player = os.fork()
    if player:
        while True:
            pid, status = os.wait()
            if pid == player:
                return os.waitstatus_to_exitcode(status) & 0xFF
    module, _, function = play.partition(":")
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        machine = Machine(Path(folder))
        try:
            report: Report = getattr(importlib.import_module(f".{module}", __package__), function)(
                machine, *json.loads(arguments)
            )
        finally:
            subprocess.run(["umount", str(BOOT_ID)], check=False)
    print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
