"""One cgroup: what the kernel counts in it, what it holds it to, and the end of all that is in it.

v1 has a folder for it in the hierarchy of each controller, v2 a single one; each is a class that knows the names
of the files. Threads count as processes, as the kernel counts them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import errno
import os

from .. import effects
from . import procs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SLACK = 1 << 20  # bytes: each processor takes memory from a cgroup in batches of 64 pages


class Group:
    """One cgroup. `folders`: resource → where it is counted; what is not in it is not counted here.

    What is read is 0 where the cgroup is gone or the kernel too old to say.
    """

    __slots__ = ("folders", "tight")

    def __init__(self, folders: dict[str, str]) -> None:
        self.folders = folders
        self.tight: set[str] = set()  # of what it held more than its limit already when the limit was set

    def below(self, *names: str) -> Group:
        return type(self)({what: os.path.join(folder, *names) for what, folder in self.folders.items()})

    @property
    def paths(self) -> list[str]:
        """Its folders, each once."""
        return list(dict.fromkeys(self.folders.values()))

    def make(self) -> None:
        """FileExistsError if a part of it is there already."""
        for path in self.paths:
            effects.mkdir(path, 0o700)

    def limit(self, limits: dict[str, int], *, whole: bool = True) -> None:
        """Hold it to them from now on, as far as it can. It is `tight` where it held more already.

        `whole`: where memory ends, all in it is to go, if the kernel can (v2), and not one process.
        """
        self.tight.clear()
        if "processes" in limits and "processes" in self.folders:
            put(self.folders["processes"] + "/pids.max", str(limits["processes"]))
            if self.processes() > limits["processes"]:
                self.tight.add("processes")
        if "memory" in limits and "memory" in self.folders:
            self._limit_memory(self.folders["memory"], limits["memory"], whole)

    def lift(self) -> None:
        """No limits until `limit` is called again."""
        if "processes" in self.folders:
            put(self.folders["processes"] + "/pids.max", "max")
        if "memory" in self.folders:
            self._limit_memory(self.folders["memory"], None, False)

    def _limit_memory(self, folder: str, limit: int | None, whole: bool) -> None:
        raise AssertionError("each version has its own")

    def cpu(self) -> int:
        """Used so far, in ms."""
        raise AssertionError("each version has its own")

    def memory(self) -> int:
        """Used now, in bytes."""
        raise AssertionError("each version has its own")

    def peak(self) -> int:
        """The most memory that it ever held, in bytes, files that it had read included."""
        raise AssertionError("each version has its own")

    def kills(self) -> int:
        """How many in it the kernel killed for want of memory, whoever's limit it was."""
        raise AssertionError("each version has its own")

    def full(self) -> bool:
        """Whether its own limit of memory was reached, and not that of one below or above it."""
        raise AssertionError("each version has its own")

    def processes(self) -> int:
        """Processes and threads in it now."""
        return _number(self.folders.get("processes", "") + "/pids.current")

    def refused(self) -> int:
        """Forks that failed in it or below, by its limit or another's."""
        folder = self.folders.get("processes")
        return sum(_field(one + "/pids.events", b"max") for one in below(folder)) if folder else 0

    def crowded(self, limit: int) -> bool:
        """Whether forks were refused in it that its own limit explains."""
        if "processes" in self.tight:
            return True
        if not self.refused():
            return False
        peak = _number(self.folders["processes"] + "/pids.peak")  # Linux 6.1
        return not peak or peak >= limit

    def pids(self) -> list[int]:
        """Who is in it or below, but for ourselves."""
        found = {pid for path in self.paths for one in below(path) for pid in pids_in(one)}
        return [pid for pid in found if pid and pid != os.getpid()]

    def kill(self) -> None:
        """Kill all that is in it; with a controller for it, nobody in it can fork any more. Once: look again."""
        if "processes" in self.folders:
            put(self.folders["processes"] + "/pids.max", "0")
        for pid in self.pids():
            process = procs.look_up(pid)
            if process and process.alive and self._holds(pid):
                procs.send_signal(process, _signal.SIGKILL)

    def _holds(self, pid: int) -> bool:
        """Whether that process is in this cgroup now: its number may have come round to another."""
        name = "/".join(self.paths[0].split("/")[-2:])
        return os.fsencode(name) in procs.read(f"/proc/{pid}/cgroup")

    def remove(self) -> bool:
        """Remove it with what is below; False while somebody lives in it."""
        left = [path for path in self.paths if not remove(path)]
        return not left


class GroupV1(Group):
    """One that has a folder in each hierarchy."""

    __slots__ = ()

    def _limit_memory(self, folder: str, limit: int | None, whole: bool) -> None:
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")  # the second only with swap accounting
        for name in names if limit is not None else reversed(names):
            if put(f"{folder}/{name}", str(-1 if limit is None else limit)) == errno.EBUSY:
                self.tight.add("memory")

    def cpu(self) -> int:
        return _number(self.folders.get("cpu", "") + "/cpuacct.usage") // 1_000_000

    def memory(self) -> int:
        return _number(self.folders.get("memory", "") + "/memory.usage_in_bytes")

    def peak(self) -> int:
        return _number(self.folders.get("memory", "") + "/memory.max_usage_in_bytes")

    def kills(self) -> int:
        # where the victim was: those of a child run's attempts are told by its own shim
        return _field(self.folders.get("memory", "") + "/memory.oom_control", b"oom_kill")

    def full(self) -> bool:
        return "memory" in self.tight or _full_v1(self.folders.get("memory", ""))


def _full_v1(folder: str) -> bool:
    """By its peak: the count of failures (memory.failcnt) stays 0 on newer kernels."""
    return _number(folder + "/memory.max_usage_in_bytes") >= _number(folder + "/memory.limit_in_bytes") - _SLACK


class GroupV2(Group):
    """One that is a single folder."""

    __slots__ = ()

    def _limit_memory(self, folder: str, limit: int | None, whole: bool) -> None:
        put(folder + "/memory.oom.group", str(int(whole)))
        put(folder + "/memory.swap.max", "max" if limit is None else "0")
        if put(folder + "/memory.max", "max" if limit is None else str(limit)) == errno.EBUSY:
            self.tight.add("memory")

    def cpu(self) -> int:
        return _field(self.folders.get("cpu", "") + "/cpu.stat", b"usage_usec") // 1_000

    def memory(self) -> int:
        return _number(self.folders.get("memory", "") + "/memory.current")

    def peak(self) -> int:
        return _number(self.folders.get("memory", "") + "/memory.peak")  # Linux 5.19

    def kills(self) -> int:
        return _field(self.folders.get("memory", "") + "/memory.events", b"oom_kill")

    def full(self) -> bool:
        folder = self.folders.get("memory", "")
        local = procs.read(folder + "/memory.events.local")  # Linux 5.2; before, those below count too
        return "memory" in self.tight or _parse(local or procs.read(folder + "/memory.events"), b"oom") > 0

    def crowded(self, limit: int) -> bool:
        folder = self.folders["processes"]
        local = procs.read(folder + "/pids.events.local")  # Linux 6.11
        return super().crowded(limit) if not local or "processes" in self.tight else _parse(local, b"max") > 0

    def kill(self) -> None:
        if os.getpid() in pids_in(self.paths[0]) or put(self.paths[0] + "/cgroup.kill", "1"):  # Linux 5.14
            super().kill()


def make(path: str) -> None:
    try:
        effects.mkdir(path, 0o700)
    except FileExistsError:
        pass


def put(path: str, text: str) -> int:
    """Write into a file of the kernel's; 0, or the errno of what it answers."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        effects.write(fd, text.encode())
        return 0
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(fd)


def _number(path: str) -> int:
    text = procs.read(path).strip()
    return int(text) if text.isdigit() else 0


def _field(path: str, name: bytes) -> int:
    return _parse(procs.read(path), name)


def _parse(text: bytes, name: bytes) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def pids_in(folder: str) -> list[int]:
    return [int(text) for text in procs.read(folder + "/cgroup.procs").split()]


def inner(folder: str) -> list[str]:
    """The cgroups in a cgroup, by name."""
    try:
        if os.stat(folder).st_nlink <= 2:
            return []
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def below(folder: str) -> Iterator[str]:
    """A cgroup and all below it."""
    yield folder
    for name in inner(folder):
        yield from below(f"{folder}/{name}")


def remove(folder: str) -> bool:
    for name in inner(folder):
        remove(f"{folder}/{name}")
    try:
        effects.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True
