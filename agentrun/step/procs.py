"""What /proc says about processes, and signals that hit the process that was meant.

A pid is a number that the kernel uses again. A process is therefore a pid *and* its start time, and a signal
goes through a pidfd that was checked against both. The one exception: a child of ours that we have not waited for
keeps its number, and can be signalled by it. Everything here may find the process gone: that is an answer
(None, False, an empty list), never an error.
"""

from __future__ import annotations

import os
import select
import stat

from .. import effects

_BLOCK = 65_536


class Process:
    """A line of /proc/<pid>/stat. `start`: clock ticks since boot. `alive`: not a mere zombie.

    `cpu`: clock ticks that it used, with those of the children that it waited for. `resident`: pages of memory.
    """

    __slots__ = ("alive", "cpu", "group", "parent", "pid", "resident", "session", "start", "threads")

    def __init__(self, pid: int, text: bytes) -> None:
        # the second field is the program's name in brackets, and may hold brackets and spaces itself
        fields = text[text.rindex(b")") + 2 :].split(b" ", 22)
        self.pid = pid
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start = int(fields[19])
        self.threads = int(fields[17])
        self.cpu = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
        self.resident = int(fields[21])
        # a leader thread that ended before the others is a zombie by its state only
        self.alive = fields[0] not in (b"Z", b"X") or self.threads > 1


def look_up(pid: int) -> Process | None:
    """The process of that number now."""
    text = read(f"/proc/{pid}/stat")
    try:
        return Process(pid, text) if text else None
    except (ValueError, IndexError):
        return None


def every_pid() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            text = read(f"/proc/{pid}/task/{thread}/children", missing_ok=False)
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/stat") and not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_parent(pid)
            continue
        found += map(int, text.split())
    return found


def _children_by_parent(pid: int) -> list[int]:
    """The same for a kernel without CONFIG_PROC_CHILDREN: every process is asked for its parent."""
    return [one for one in every_pid() if (process := look_up(one)) and process.parent == pid]


def descendants(roots: list[int]) -> list[Process]:
    """The processes of these numbers and all below them, parents before children."""
    found: list[Process] = []
    queue = list(roots)
    seen = set(queue)
    for pid in queue:  # grows as it goes
        process = look_up(pid)
        if process is None:
            continue
        found.append(process)
        for child in children(pid):
            if child not in seen:
                seen.add(child)
                queue.append(child)
    return found


def proportional(pid: int) -> int:
    """Bytes of memory, each shared page divided by those who share it; 0 if it is not ours to ask.

    The kernel walks all its pages for it: some ms for each GiB.
    """
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return 0


def environment(pid: int) -> dict[bytes, bytes]:
    """What the process was started with; empty if it is not ours to read."""
    pairs = {}
    for text in read(f"/proc/{pid}/environ").split(b"\0"):
        name, equals, value = text.partition(b"=")
        if equals:
            pairs[name] = value
    return pairs


def written_fifos(pid: int, folder: str) -> list[str]:
    """Paths below a folder that the process holds open for writing (a reader is not one of ours)."""
    found = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith(folder) and _is_writer(pid, fd):
                found.append(target)
    except OSError:
        pass
    return found


def _is_writer(pid: int, fd: str) -> bool:
    for text in read(f"/proc/{pid}/fdinfo/{fd}").split(b"\n"):
        name, _, value = text.partition(b":")
        if name == b"flags":
            return bool(int(value, 8) & 3)
    return False


def reads_to_the_end(pid: int) -> bool:
    """Whether its stdin is a pipe into which nobody writes any more: it reads what is left, and ends by itself."""
    try:
        fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))
    finally:
        os.close(fd)


def send_signal(process: Process, number: int) -> bool:
    """Signal that very process; False if it is gone, or not ours to signal."""
    try:
        handle = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return _send_without_pidfd(process, number)
    try:
        now = look_up(process.pid)
        if now is None or now.start != process.start:
            return False
        effects.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _send_without_pidfd(process: Process, number: int) -> bool:
    """Linux before 5.3: the check and the signal are two steps, as close together as can be."""
    now = look_up(process.pid)
    return now is not None and now.start == process.start and send_to_child(process.pid, number)


def send_to_child(pid: int, number: int) -> bool:
    """Signal a child that was not waited for yet; False if it is not ours to signal."""
    try:
        effects.kill(pid, number)
    except OSError:
        return False
    return True


def send_to_group(leader: int, number: int) -> bool:
    """Signal the group of a child that was not waited for yet."""
    try:
        effects.killpg(leader, number)
    except OSError:
        return False
    return True


def read(path: str, *, missing_ok: bool = True) -> bytes:
    """A file of /proc, whole. Empty if the process is gone or not ours to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing_ok:
            return b""
        raise
    except OSError:
        return b""
    try:
        text = b""
        while block := os.read(fd, _BLOCK):  # a page at a time, whatever is asked for
            text += block
        return text
    except OSError:
        return b""
    finally:
        os.close(fd)


def holders(path: str) -> list[Process]:
    """Who has this file open and leads a session: of a run's lock file, its shim, and not who only looks at it."""
    wanted = os.path.realpath(path)
    found = []
    for pid in every_pid():
        if pid == os.getpid():
            continue
        try:
            open_files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if wanted in open_files and (process := look_up(pid)) and process.session == process.pid:
            found.append(process)
    return found
