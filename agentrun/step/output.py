"""From an attempt's pipe to its log: large blocks, one buffer for all, no copy that is not needed.

A pipe that a step keeps full is made larger, once, and read with a larger buffer, which is given back to the
system when the last such pipe is closed. What is in a pipe is at most what it holds, so `drain` with that limit
takes all that was written before it was called, even while a leftover writes on and on. What is above a limit is
taken too, or its writer would wait for ever, and thrown away.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time

from .logs import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .meter import Meter

SMALL_PIPE = 65_536     # what Linux gives
LARGE_PIPE = 1 << 20    # what an ordinary user may have


class Pipe:
    """The reading end of an attempt's FIFO, and the log that it goes to."""

    __slots__ = ("fd", "log", "meter", "wide")

    def __init__(self, fd: int, log: LogWriter, meter: Meter | None = None) -> None:
        self.fd = fd
        self.log = log
        self.meter = meter
        self.wide = False


class Output:
    """The buffers that all pipes share."""

    __slots__ = ("_large", "_small", "_wide")

    def __init__(self) -> None:
        self._small = bytearray(SMALL_PIPE)
        self._large: mmap.mmap | None = None
        self._wide = 0  # pipes that were made large

    def drain(self, pipe: Pipe, limit: int) -> bool:
        """Take up to `limit` bytes, never waiting. True once nobody can write into it any more."""
        taken = 0
        while taken < limit:
            buffer: Any = self._large if pipe.wide else self._small
            try:
                count = os.readv(pipe.fd, [buffer])
            except BlockingIOError:
                return False
            if not count:
                return True
            kept = pipe.meter.admit(count) if pipe.meter else count
            if kept:
                with memoryview(buffer) as view:
                    pipe.log.write(view[:kept], time.time_ns() // 1_000_000)
            taken += count
            if count == SMALL_PIPE and not pipe.wide:
                self._widen(pipe)
        return False

    def _widen(self, pipe: Pipe) -> None:
        pipe.wide = True
        self._wide += 1
        if self._large is None:
            self._large = mmap.mmap(-1, LARGE_PIPE)  # not of the heap: it goes back at once
        try:
            fcntl.fcntl(pipe.fd, fcntl.F_SETPIPE_SZ, LARGE_PIPE)
        except OSError:
            pass  # the user's pages for pipes are used up: slower, nothing else

    def close(self, pipe: Pipe) -> None:
        """Close the pipe and its log."""
        os.close(pipe.fd)
        pipe.log.close()
        if pipe.wide:
            pipe.wide = False
            self._wide -= 1
            if not self._wide and self._large:
                self._large.close()
                self._large = None
