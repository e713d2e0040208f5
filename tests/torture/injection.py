"""System calls of the program that fail, or kill it: by strace, which numbers the calls of each process by name.

`supervisor`: the process of `agentrun run`. `shim`: the one that it forks; it stops before its first line until strace
has hold of it. What else is started (steps, a supervisor that the shim starts) runs untouched: one fault a run, or,
where it is lasting, one call that fails from then on until `Tracer.end`.
"""

from __future__ import annotations

import errno
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .place import LIMIT, Place, Stuck, send, wait_gone

ROLES = ("supervisor", "shim")
NEEDS = "skipped: needs strace, and leave to trace"

# The real program; PATIENCE: seconds after which it gives up on a disk, and not 30; SHIM: the file in which the shim
# says its pid, before it stops until somebody traces it; RUN_ID: of the run, so that its files are known beforehand.
DRIVER = """
import os, signal, sys
if "PATIENCE" in os.environ:
    from agentrun.store import database
    database.open_for_writing.__kwdefaults__["patience"] = float(os.environ["PATIENCE"])
if "RUN_ID" in os.environ:
    from agentrun.engine import create
    create.new_id = lambda *_: os.environ["RUN_ID"]
if "SHIM" in os.environ:
    from agentrun.step import shim
    serve, file = shim.serve, os.environ.pop("SHIM")
    def stopped(sock):
        with open(file + ".new", "w") as new:
            new.write(str(os.getpid()))
        os.rename(file + ".new", file)
        os.kill(os.getpid(), signal.SIGSTOP)
        serve(sock)
    shim.serve = stopped
from agentrun.__main__ import main
main()
"""

_IN_MEMORY = re.compile(r"\d+<(?:[^>]*fifo>|pipe:|socket:|UNIX|anon_inode|/dev/)")  # no disk is asked
_FILE = re.compile(r"PLACE/home/[^>\",()]*[^>\",() ]")
_CALL = re.compile(r"(\w+)\((.*)")


class Call(NamedTuple):
    """The `number`-th call of that name in its process, as strace shows it."""

    name: str
    number: int
    text: str


class Fault(NamedTuple):
    """`what`: KILL, or the name of an error. `lasting`: all calls of the name fail from this one on.

    `paths`: of the calls of the name only those on these files are counted, and fail; begin with PLACE.
    """

    role: str
    call: str
    at: int
    what: str
    lasting: bool = False
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.role} {self.call} {self.at}{'+' if self.lasting else ''} {self.what}"

    def options(self, place: Place) -> list[str]:
        """What strace is told."""
        way = "signal=KILL" if self.what == "KILL" else f"error={self.what}"
        when = f"{self.at}{'+' if self.lasting else ''}"
        files = [word for path in self.paths for word in ("-P", path.replace("PLACE", str(place.root), 1))]
        return [*files, "-e", f"trace={self.call}", "-e", f"inject={self.call}:{way}:when={when}"]


class Tracer:
    """A run of the program of which one process is traced. `process`: the program, or the strace that began it."""

    def __init__(self, place: Place, role: str, options: list[str], *arguments: str, **env: str) -> None:
        self._out = place.root / "trace"
        self._place, self._shim, self._tracer = place, 0, None
        strace = ["strace", "-qq", "-y", "-s", "0", "-o", str(self._out), *options]
        program = [sys.executable, "-c", DRIVER] if env or role == "shim" else [sys.executable, "-m", "agentrun"]
        if role == "supervisor":
            self.process = self._start([*strace, *program, *arguments], env)
            self._tracer = self.process
        else:
            named = place.root / "shim"
            self.process = self._start([*program, *arguments], {**env, "SHIM": str(named)})
            self._attach([*strace, "-p"], named)

    def _start(self, argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        with open(self._place.root / "said", "ab") as said:
            process = subprocess.Popen(
                argv, env=self._place.env | env, cwd=self._place.root, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
        self._place._started.append(process)
        return process

    def _attach(self, strace: list[str], named: Path) -> None:
        self._place.wait_for(named.exists)
        self._shim = int(named.read_text())
        self._place.wait_for(lambda: "\nState:\tT" in _status(self._shim))
        self._tracer = self._start([*strace, str(self._shim)], {})
        tracer = self._tracer
        traced = f"\nTracerPid:\t{tracer.pid}\n"
        self._place.wait_for(lambda: traced in _status(self._shim) or tracer.poll() is not None)
        if tracer.poll() is not None:
            raise Stuck(f"strace cannot trace: {self._place.said()[-300:]}")
        send(self._shim, signal.SIGCONT)

    def end(self) -> None:
        """No call fails any more; what was traced goes on."""
        if self._tracer and self._tracer.poll() is None:
            send(self._tracer.pid, signal.SIGTERM)
            if self._tracer is not self.process:
                wait_gone(self._tracer.pid, LIMIT)

    def injected(self) -> list[str]:
        """The calls that were made to fail, as strace shows them; or where the process was killed."""
        text = self._out.read_text(errors="replace") if self._out.exists() else ""
        found = [line for line in text.splitlines() if line.endswith("(INJECTED)")]
        if not found and "+++ killed by SIGKILL +++" in text:
            found = text.splitlines()[-2:-1]
        return [line[:200] for line in found]

    def calls(self) -> list[Call]:
        """All calls, in order, each with its number among those of its name."""
        numbers: dict[str, int] = {}
        found = []
        for line in self._out.read_text(errors="replace").splitlines():
            if match := _CALL.match(line):
                name = match[1]
                numbers[name] = numbers.get(name, 0) + 1
                found.append(Call(name, numbers[name], match[2]))
        return found


def available() -> bool:
    """Whether calls can be made to fail on this machine."""
    if shutil.which("strace") is None:
        return False
    argv = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "-e", "inject=getpid:error=EIO:when=1", "true"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def baseline(package: Path, role: str, text: str, **env: str) -> list[Call]:
    """The calls of that process in an undisturbed run of a job, the first of which is not of the interpreter."""
    with Place(package) as place:
        tracer = Tracer(place, role, [], "run", str(place.job("job", text)), **env)
        place.wait_quiet()
        calls = tracer.calls()
        ours = str(package / "agentrun")
        first = next((n for n, call in enumerate(calls) if ours in call.text), 0) if role == "supervisor" else 0
        root = str(place.root)
        return [call._replace(text=call.text.replace(root, "PLACE")) for call in calls[first:]]


def files_of(calls: list[Call]) -> tuple[str, ...]:
    """The files in the state folder that the calls are about; but for pipes and sockets, which no disk has."""
    found = {path for call in calls for path in _FILE.findall(call.text)}
    return tuple(sorted(path for path in found if not path.endswith((".fifo", "/bell", "/s"))))


def missed(fault: Fault, hit: str) -> bool:
    """Whether the numbers of the calls were others in this run, and the fault hit one that cannot fail so."""
    match = _CALL.match(hit)
    return fault.what != "KILL" and (match is None or fault.what not in errors_of(Call(match[1], fault.at, match[2])))


def errors_of(call: Call) -> tuple[str, ...]:
    """The errors with which a call may fail on a machine in trouble; none for one that cannot."""
    if call.name == "epoll_ctl" and "EPOLL_CTL_ADD" not in call.text:
        return ()
    if _IN_MEMORY.match(call.text) and call.name.startswith(("read", "write", "newfstatat", "fstat", "lseek")):
        return ()
    for names, errors in _ERRORS:
        if call.name in names.split():
            assert all(hasattr(errno, error) for error in errors)
            return errors
    return ()


_ERRORS = (
    ("write pwrite64 writev fsync fdatasync ftruncate fallocate", ("ENOSPC", "EIO", "EROFS", "EDQUOT")),
    ("openat open creat mkdir mkdirat mknodat", ("ENOSPC", "EIO", "EMFILE", "EROFS")),
    ("rename renameat renameat2 link linkat symlinkat", ("ENOSPC", "EIO", "EROFS")),
    ("unlink unlinkat rmdir", ("EIO", "EROFS")),
    ("read pread64 readv getdents64 lseek newfstatat fstat stat statx faccessat2 access", ("EIO",)),
    ("fchown fchmod fchmodat utimensat", ("EIO", "EROFS", "EPERM")),
    ("clone clone3 fork vfork", ("EAGAIN", "ENOMEM")),
    ("socket socketpair pipe2 epoll_create1 pidfd_open dup dup2", ("EMFILE", "ENFILE")),
    ("bind listen", ("EADDRINUSE", "ENOSPC")),
    ("connect", ("ECONNREFUSED",)),
    ("accept4", ("EMFILE", "ECONNABORTED")),
    ("epoll_ctl", ("ENOSPC", "ENOMEM")),
    ("epoll_wait pselect6 wait4 flock", ("EINTR",)),
    ("mmap brk mremap", ("ENOMEM",)),
)


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
