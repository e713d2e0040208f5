"""Who may advance a run: the lease, a kernel lock on byte 0 of the run's lock file.

It is taken before anything of the run is read for deciding, and let go by the death of its holder: no
heartbeat, no timeout. The second fence is the epoch, which each owner raises by one and names in every write;
so an owner that was stopped and overtaken can do no harm to the record when it wakes.

Overtaking by force ends the old owner first. Its pid alone does not say who it is: the boot, the start time
of the process and the lock that it holds must all still be what the record says.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping

from .. import effects
from ..errors import Busy, CannotWrite, NotFound
from ..model import JSON
from ..step.boot import boot_id
from ..store import locks
from ..store.folders import RunFolder

_PATIENCE = 10.0  # seconds for the kernel to free the lock of a process that was killed


class Lease:
    """Held from `acquire` until `release` or the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, folder: RunFolder, *, create: bool = False) -> Lease | None:
        """Take it; None if somebody else holds it. NotFound if the run's folder is gone."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            fd = effects.create(folder.lock, flags, 0o600)
        except FileNotFoundError as error:
            raise NotFound(
                f"the folder of run {folder.run_id} is gone: {folder.path}",
                f"without it the run cannot go on; `agentrun cancel {folder.run_id}` ends its record",
            ) from error
        except OSError as error:
            raise CannotWrite(f"cannot open {folder.lock}: {error.strerror}") from error
        if locks.try_lock(fd, locks.LEASE):
            return cls(fd)
        os.close(fd)
        return None

    def release(self) -> None:
        """Let it go."""
        os.close(self._fd)


def this_process(clock: int | None = None) -> dict[str, JSON]:
    """What the record says of the owner: enough to know later whether a pid is still the same process.

    `clock`: the `ahead` of its clock, for those who go on with the run.
    """
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    known: dict[str, JSON] = {"pid": os.getpid(), "start": start_time(os.getpid()), "boot": boot_id(), "user": user}
    return known if clock is None else known | {"clock": clock}


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def is_alive(owner: Mapping[str, JSON] | None) -> bool:
    """Whether the recorded owner is the very process that has its pid now."""
    if not owner or owner.get("boot") != boot_id():
        return False
    return bool(start_time(owner["pid"]) == owner["start"])


def busy(run_id: str, owner: Mapping[str, JSON] | None) -> Busy:
    """The error of somebody who came second."""
    who = f"process {owner['pid']} of {owner['user']}" if owner else "another process"
    return Busy(
        f"run {run_id} is being advanced by {who}",
        f"`agentrun status {run_id} --watch` follows it; `agentrun resume {run_id} --force` takes it over",
    )


def overtake(folder: RunFolder, owner: Mapping[str, JSON] | None) -> Lease:
    """End the owner and take the lease. Raises Busy if the holder is not the process that the record names."""
    lease = Lease.acquire(folder)
    if lease:
        return lease
    if not owner or not is_alive(owner) or owner["pid"] == os.getpid():
        raise Busy(
            f"run {folder.run_id} is held by a process that the record does not name",
            f"find it with `fuser {folder.lock}` and end it",
        )
    _end(folder, owner)
    lease = Lease.acquire(folder)
    if lease is None:
        raise busy(folder.run_id, None)
    return lease


def _end(folder: RunFolder, owner: Mapping[str, JSON]) -> None:
    try:
        pidfd = os.pidfd_open(owner["pid"])
    except ProcessLookupError:
        return  # it has ended by itself just now
    try:
        if start_time(owner["pid"]) == owner["start"]:  # asked again: now the pidfd pins it
            print(f"agentrun: ending process {owner['pid']}, which holds run {folder.run_id}", file=sys.stderr)
            effects.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(_PATIENCE * 1000)
    finally:
        os.close(pidfd)
