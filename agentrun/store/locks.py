"""Kernel locks on single bytes of a file: who is alive, without heartbeats or timeouts.

Open-file-description locks (fcntl(2), F_OFD_SETLK, Linux 3.15): they belong to the open file, not to the
process, so no other descriptor that happens to be closed lets them go, and the kernel frees them when the
last copy of the descriptor dies with its process. A child that inherited one would keep it: Python opens
everything close-on-exec. Whether somebody holds a lock is asked with F_OFD_GETLK, never by taking it:
probing by taking makes other takers fail.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from .. import effects

LEASE = 0  # byte 0 of a run's lock file: the supervisor that may advance it
SHIM = 1   # byte 1: the shim that holds its processes

# struct flock on 64-bit Linux: type, whence, start, length, pid (0 for OFD locks)
_FLOCK = struct.Struct("hhqqi4x")


def try_lock(fd: int, byte: int) -> bool:
    """Take the exclusive lock on one byte of an open, writable file; False if somebody else holds it."""
    try:
        effects.ofd_lock(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def lock(fd: int, byte: int) -> None:
    """Take it, and wait for it as long as somebody else holds it."""
    effects.ofd_lock(fd, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))


def unlock(fd: int, byte: int) -> None:
    """Let go of one byte."""
    effects.ofd_lock(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))


def held(path: str, byte: int) -> bool:
    """Whether somebody holds that byte now. False if the file is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)


def wait_until_free(path: str, byte: int, seconds: float) -> bool:
    """Wait for a holder that is dying; False if it still holds on after so long.

    The kernel closes a dead process's descriptors one after the other, so its sockets may hang up before its
    locks are free. Asked again and again, since waiting in the kernel would mean to take the lock.
    """
    until = time.monotonic() + seconds
    while held(path, byte):
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True
