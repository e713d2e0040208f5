"""From an attempt's pipe to its log: large blocks, one buffer for all, no copy that is not needed.

A pipe that a step keeps full is made larger, once, and read with a larger buffer, which is given back to the
system when the last such pipe is closed. What is in a pipe is at most what it holds, so `drain` with that limit
takes all that was written before it was called, even while a leftover writes on and on. What is above a limit is
taken too, or its writer would wait for ever, and thrown away.

A shell names the file that it executes in its messages, and for a part of a script (`carry`) that is a file of ours:
what is written has the script's name in its place, as the messages of the whole script would.
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

    __slots__ = ("_held", "_known_as", "fd", "log", "meter", "wide")

    def __init__(
        self, fd: int, log: LogWriter, meter: Meter | None = None, known_as: list[list[str]] | None = None
    ) -> None:
        self._known_as = [(os.fsencode(ours), os.fsencode(theirs)) for ours, theirs in known_as or ()]
        self._held = b""  # may be the beginning of the name
        self.fd = fd
        self.log = log
        self.meter = meter
        self.wide = False

    def take(self, block: memoryview) -> None:
        """A block of output, on its way to the log."""
        now = time.time_ns() // 1_000_000
        if not self._known_as:
            self.log.write(block, now)
            return
        data = self._held + block
        for ours, theirs in self._known_as:
            data = data.replace(ours, theirs)
        held = max(_beginning(ours, data) for ours, _ in self._known_as)
        self._held = data[len(data) - held :]
        if len(data) > held:
            self.log.write(data[: len(data) - held], now)

    def go_on_as(self, other: Pipe) -> None:
        """What comes from now on is output of the other one's attempt."""
        self.log = other.log  # one that was closed is opened again by what is written
        self._known_as = [*(pair for pair in self._known_as if pair not in other._known_as), *other._known_as]

    def settle(self) -> None:
        """Nothing follows for now: what looked like the beginning of the name was none."""
        if self._held:
            self.log.write(self._held, time.time_ns() // 1_000_000)
            self._held = b""


def _beginning(name: bytes, data: bytes) -> int:
    """How much of a name the data ends with."""
    return next((size for size in range(len(name) - 1, 0, -1) if data.endswith(name[:size])), 0)


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
                pipe.settle()
                return False
            if not count:
                pipe.settle()
                return True
            kept = pipe.meter.admit(count) if pipe.meter else count
            if kept:
                with memoryview(buffer) as view:
                    pipe.take(view[:kept])
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
        pipe.settle()
        pipe.log.close()
        if pipe.wide:
            pipe.wide = False
            self._wide -= 1
            if not self._wide and self._large:
                self._large.close()
                self._large = None
