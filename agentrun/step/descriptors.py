"""The descriptors of a carried shell (`carry: shell`): what they are, written down, and opened again from that.

A shell that has opened some (`exec 3<list`, `exec >>log`, `exec 200>lock`) stops itself at the end of its piece, and
the shim looks at what it holds (handing.py). The record has one line of JSON for each descriptor; `is` says what:

    out, null    the attempt's own output or stdin: the next attempt's own is put there
    file         by path, with flags, offset, and the lock that it holds
    pipe         into a process of ours with a command line of its own (tee, logger): how that is started again
    same         shares the open file description of another one
    closed       0, 1 or 2, which the script closed
    lost         anything else (a socket, a pipe from or to a subshell): only the live copy can be handed on

What is opened again is as it was at the boundary: a file at its offset and never truncated, a file that is gone made
again if it was open for writing, a lock taken again or refused. What cannot be as it was is a CannotReopen.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time

from .. import effects
from . import procs
from .protocol import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Entry = dict[str, Any]

_PIDFD_GETFD = 438  # on every machine
_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "loongarch64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_FILE = 0
_DEEPEST = 4  # readers behind readers: `> >(tee log | logger)`
_FIONREAD = 0x541B  # termios.FIONREAD
_NEW = 1.0  # seconds
_KEPT = (
    os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | os.O_DSYNC | os.O_DIRECTORY | os.O_DIRECT | os.O_NOATIME
)  # flags that an open can be given again
_DELETED = " (deleted)"
_END = '{"is":"end"}'


class CannotReopen(Exception):
    """A descriptor that cannot be had as it was; says which and why."""


def _system_call(number: int, *arguments: int) -> int:
    """By the C module that the shim has loaded already (detach.py); -1 if it was refused."""
    try:
        import _ctypes

        call = _ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall")  # type: ignore[arg-type]
        return int(_ctypes.call_function(call, (number, *arguments)))
    except (ImportError, AttributeError, TypeError, OSError):
        return -1


def copy(handle: int, number: int) -> int:
    """A copy of another process's descriptor, close-on-exec; -1 if the kernel will not give it. `handle`: a pidfd."""
    return _system_call(_PIDFD_GETFD, handle, number, 0)


def _same(one: int, other: int) -> bool:
    """Whether two descriptors of ours share one open file description."""
    number = _KCMP.get(os.uname().machine)
    answer = _system_call(number, os.getpid(), os.getpid(), _KCMP_FILE, one, other) if number else -1
    if answer >= 0:
        return answer == 0
    first, second = os.fstat(one), os.fstat(other)
    if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
        return False
    if fcntl.fcntl(one, fcntl.F_GETFL) != fcntl.fcntl(other, fcntl.F_GETFL):
        return False
    return not stat.S_ISREG(first.st_mode) or os.lseek(one, 0, os.SEEK_CUR) == os.lseek(other, 0, os.SEEK_CUR)


class Look:
    """What a stopped shell holds: `entries` for the record, `copies` by number. `io`: where our FIFOs are.

    `tree`: who may read what it writes. `early`: one of them has been forked and is about to become what it shall be.
    """

    def __init__(self, pid: int, io: str, tree: Callable[[], Sequence[int]]) -> None:
        self.entries: list[Entry] = []
        self.copies: dict[int, int] = {}
        self._io = io
        self._tree = tree
        self.early = False
        self._own = procs.read(f"/proc/{pid}/cmdline")
        self._pid = pid
        numbers = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        handle = _pidfd(pid)
        try:
            for number in numbers:
                self._take(number, handle)
        finally:
            if handle >= 0:
                os.close(handle)
        self.entries += [{"fd": number, "is": "closed"} for number in (0, 1, 2) if number not in numbers]

    def _take(self, number: int, handle: int) -> None:
        entry = self._describe(self._pid, number, 0)
        if entry is None:
            return
        if entry["is"] not in ("out", "null"):
            fd = copy(handle, number) if handle >= 0 else -1
            if fd >= 0:
                shared = next((known for known, other in self.copies.items() if _same(other, fd)), None)
                self.copies[number] = fd
                if shared is not None:
                    entry = {"is": "same", "as": shared}
            elif entry["is"] in ("pipe", "lost"):
                try:  # a pipe can be opened here, and is the same; of a file that would be another one
                    self.copies[number] = os.open(f"/proc/{self._pid}/fd/{number}", entry["flags"] | os.O_CLOEXEC)
                except OSError:
                    pass
            else:
                entry = self._seems_same(entry)
        self.entries.append({"fd": number, **entry})

    def _seems_same(self, entry: Entry) -> Entry:
        """Without copies: two of the same file, flags and offset are taken for one."""
        for known in self.entries:
            if {**known, "fd": 0} == {**entry, "fd": 0}:
                return {"is": "same", "as": known["fd"]}
        return entry

    def _describe(self, pid: int, number: int, depth: int) -> Entry | None:
        """None: it is closed by an exec, so no program that the script starts has it either."""
        info = dict(
            line.split(b":", 1) for line in procs.read(f"/proc/{pid}/fdinfo/{number}").splitlines() if b":" in line
        )
        flags = int(info.get(b"flags", b"0"), 8)
        if flags & os.O_CLOEXEC:
            return None
        path = f"/proc/{pid}/fd/{number}"
        try:
            target, status = os.readlink(path), os.stat(path)
        except OSError as error:
            return {"is": "lost", "what": error.strerror, "flags": flags & _KEPT}
        if target.startswith(self._io) and target.removesuffix(_DELETED).endswith(".fifo"):
            return {"is": "out"}
        if target == "/dev/null" and flags & os.O_ACCMODE == os.O_RDONLY:
            return {"is": "null"}
        lost = {"is": "lost", "what": target, "flags": flags & _KEPT}
        if stat.S_ISFIFO(status.st_mode):
            return self._describe_pipe(status, flags, depth) or lost
        gone = target.endswith(_DELETED) and not status.st_nlink
        reads = flags & os.O_ACCMODE == os.O_RDONLY
        kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISCHR, stat.S_ISBLK)
        if not target.startswith("/") or target.startswith("/memfd:") or not any(is_(status.st_mode) for is_ in kinds):
            return lost
        if gone and reads:
            return lost
        entry = {
            "is": "file", "path": target.removesuffix(_DELETED) if gone else target, "flags": flags & _KEPT,
            "offset": int(info.get(b"pos", b"0")) if stat.S_ISREG(status.st_mode) else None, "lock": _lock(info),
        }  # fmt: skip
        if reads and stat.S_ISREG(status.st_mode):
            entry["ino"] = status.st_ino
        return entry

    def _describe_pipe(self, status: os.stat_result, flags: int, depth: int) -> Entry | None:
        """Of one that the script writes into: how the process at its other end is started again."""
        if flags & os.O_ACCMODE != os.O_WRONLY or depth >= _DEEPEST:
            return None
        others = [pid for pid in self._tree() if pid != self._pid]
        lines = {pid: procs.read(f"/proc/{pid}/cmdline") for pid in others}
        if any(line == self._own and _is_new(pid) for pid, line in lines.items()):
            self.early = True
            return None
        found = [pid for pid in others if _reads(pid, status)]
        if len(found) != 1:
            return None
        reader = found[0]
        line = lines[reader]
        out, errors = self._describe(reader, 1, depth + 1), self._describe(reader, 2, depth + 1)
        if not line or line == self._own or (b"/io/" in line and b"#" in line and b".sh\0" in line):
            return None  # a subshell of the script: what it would have gone on with is known to nobody else
        if out is None or errors is None or "lost" in (out["is"], errors["is"]):
            return None
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in procs.environment(reader).items()}
        try:
            folder = os.readlink(f"/proc/{reader}/cwd")
        except OSError:
            return None
        argv = [os.fsdecode(word) for word in line.removesuffix(b"\0").split(b"\0")]
        if os.path.basename(argv[0]) == "tee":
            argv.insert(1, "-a")  # what it has written is there
        return {
            "is": "pipe", "flags": os.O_WRONLY, "ino": status.st_ino, "argv": argv, "folder": folder,
            "env": environment, "out": _at_the_end(out), "errors": _at_the_end(errors),
        }  # fmt: skip

    def unread(self) -> bool:
        """Whether a pipe holds something that its reader has not read: it would be lost with the machine."""
        for fd in self.copies.values():
            waiting = bytearray(4)
            try:
                fcntl.ioctl(fd, _FIONREAD, waiting)
            except OSError:
                continue
            if stat.S_ISFIFO(os.fstat(fd).st_mode) and any(waiting):
                return True
        return False

    def close(self) -> None:
        for fd in self.copies.values():
            os.close(fd)
        self.copies.clear()


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def _reads(pid: int, pipe: os.stat_result) -> bool:
    """Whether the process has the reading end of that pipe as its stdin."""
    try:
        status = os.stat(f"/proc/{pid}/fd/0")
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (pipe.st_dev, pipe.st_ino)


def _is_new(pid: int) -> bool:
    """Whether a subshell has just been forked, and has not come to wait for anything: an exec may follow."""
    text = procs.read(f"/proc/{pid}/stat")
    if text[text.rfind(b")") + 2 :][:1] not in (b"R", b"D"):
        return False
    process = procs.look_up(pid)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - (process.start / os.sysconf("SC_CLK_TCK") if process else 0)
    return age < _NEW


def _at_the_end(entry: Entry) -> Entry:
    """What a reader writes on into, when it is started again: it has written on since the boundary."""
    if entry["is"] == "file" and entry["offset"] is not None:
        return {**entry, "flags": entry["flags"] | os.O_APPEND}
    return entry


def _lock(info: dict[bytes, bytes]) -> list[Any] | None:
    """`1: FLOCK  ADVISORY  WRITE 8123 fe:00:2154619 0 EOF` as its kind, mode, first and last byte."""
    words = info.get(b"lock", b"").split()
    if len(words) < 8 or words[1] not in (b"FLOCK", b"OFDLCK"):
        return None  # one of a process (POSIX) ends with it, and the shell itself cannot have any
    last = None if words[7] == b"EOF" else int(words[7])
    return [words[1].decode(), words[3].decode(), int(words[6]), last]


# ---- the record


def write(path: str, entries: Sequence[Entry]) -> None:
    """It is whole when its last line is there. Raises OSError."""
    text = "".join(f"{encode(entry)}\n" for entry in entries) + _END + "\n"
    data = text.encode("ascii")
    fd = effects.create(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if effects.write(fd, data) != len(data):
            raise OSError(28, "only a part of the record could be written", path)
    finally:
        os.close(fd)


def read(path: str) -> list[Entry]:
    """Raises OSError, and ValueError where it is not whole."""
    with open(path, "rb") as file:
        lines = file.read().decode("ascii").splitlines()
    if not lines or lines[-1] != _END:
        raise ValueError(f"{path} is not whole")
    return [decode(line) for line in lines[:-1]]


# ---- opened again


def reopen(entry: Entry, umask: int) -> int:
    """A file as it was. Raises CannotReopen."""
    path, flags = entry["path"], entry["flags"]
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    offset = entry["offset"]
    flags |= os.O_CLOEXEC | os.O_NOCTTY
    try:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            if not writes:
                raise
            offset = 0
            ours = os.umask(umask)
            try:
                fd = effects.create(path, flags | os.O_CREAT, 0o666)
            finally:
                os.umask(ours)
    except OSError as error:
        raise CannotReopen(f"descriptor {entry['fd']}: cannot open {path} again: {error.strerror}") from error
    try:
        if "ino" in entry and os.fstat(fd).st_ino != entry["ino"]:
            raise CannotReopen(f"descriptor {entry['fd']}: {path} is another file than the one that was being read")
        if offset and not flags & os.O_APPEND:
            os.lseek(fd, offset, os.SEEK_SET)
        if entry["lock"]:
            _lock_again(fd, path, *entry["lock"])
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock_again(fd: int, path: str, kind: str, mode: str, first: int, last: int | None) -> None:
    try:
        if kind == "FLOCK":
            effects.flock(fd, (fcntl.LOCK_EX if mode == "WRITE" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        else:
            what = fcntl.F_WRLCK if mode == "WRITE" else fcntl.F_RDLCK
            length = 0 if last is None else last - first + 1
            lock = struct.pack("hhqqi4x", what, os.SEEK_SET, first, length, 0)
            effects.ofd_lock(fd, getattr(fcntl, "F_OFD_SETLK", 37), lock)
    except BlockingIOError as error:
        raise CannotReopen(f"lock {path} is held by another process") from error
    except OSError as error:
        raise CannotReopen(f"cannot lock {path} again: {error.strerror}") from error
