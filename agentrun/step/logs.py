"""What an attempt wrote, and when: `<attempt>.log` holds its bytes as they came, `<attempt>.idx` the times.

The index has a line `offset ms` where a block began whose time (wall, ms since the epoch) differs from the one
before: what stands at or after the offset arrived then. The line is written before the block, so whatever
is in the log has a time even if the shim dies between the two. Both files appear with the first byte.

A disk that is full does not stop a step (it may be the step that makes room): what cannot be written is counted,
and a line of ours says so in the log as soon as there is room again.

Only `LogWriter` works in the shim; `LogReader` is for `logs`, which follows a log while it grows, and shows the
end of one of many GiB without reading the rest.
"""

from __future__ import annotations

import os

from .. import effects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 262_144
LONGEST_LINE = 1 << 20  # a longer one is given out in pieces: the reader's memory has an end


class LogWriter:
    """Appends blocks to the log of one attempt. `size` counts all bytes that the attempt wrote."""

    __slots__ = ("_at", "_index", "_log", "_lost", "_ms", "_paths", "size")

    def __init__(self, log_path: str, index_path: str) -> None:
        self._paths = (log_path, index_path)
        self._log = self._index = -1
        self._ms = -1
        self._at = 0
        self._lost = 0
        self.size = 0

    def write(self, block: memoryview | bytes, ms: int) -> None:
        """Append a block that arrived at `ms`. Never raises: what the disk refuses is counted as lost."""
        self.size += len(block)
        try:
            if self._log < 0:
                self._open()
            if self._lost:
                self._put(b"\n[agentrun: %d bytes of output could not be written]\n" % self._lost, ms)
                self._lost = 0
        except OSError:
            self._lost += len(block)
            return
        before = self._at
        try:
            self._put(block, ms)
        except OSError:
            self._lost += len(block) - (self._at - before)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if self._index < 0:
            self._index = effects.create(self._paths[1], flags, 0o600)
        self._log = effects.create(self._paths[0], flags, 0o600)
        self._at = os.fstat(self._log).st_size

    def _put(self, block: memoryview | bytes, ms: int) -> None:
        if ms != self._ms:
            effects.write(self._index, b"%d %d\n" % (self._at, ms))
            self._ms = ms
        written = effects.write(self._log, block)
        self._at += written
        while written < len(block):  # short only when the disk is nearly full: the next write says so
            more = effects.write(self._log, block[written:])
            written += more
            self._at += more

    def close(self) -> None:
        """Let go of the files; what could not be written is said now at the latest, if there is room again."""
        if self._lost:
            self.write(b"", self._ms)
        for fd in (self._log, self._index):
            if fd >= 0:
                os.close(fd)
        self._log = self._index = -1


class _Times:
    """The index, read forwards along with the log."""

    __slots__ = ("_ahead", "_fd", "_ms", "_path", "_rest")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._ms = 0
        self._ahead: list[tuple[int, int]] = []  # entries not yet passed, the next one last

    def at(self, offset: int) -> int:
        """The time of the byte at `offset`; offsets must not go back. 0 where no time is known."""
        while True:
            while self._ahead and self._ahead[-1][0] <= offset:
                self._ms = self._ahead.pop()[1]
            if self._ahead or not self._read():
                return self._ms

    def seek(self, offset: int) -> None:
        """Pass over the entries before `offset` by bisection: an index can be large too."""
        if self._fd < 0 and not self._open():
            return
        low, high = 0, os.fstat(self._fd).st_size
        while high - low > 4096:
            middle = (low + high) // 2
            entries = _entries(os.pread(self._fd, 128, middle).partition(b"\n")[2])
            if entries and entries[0][0] <= offset:
                low = middle
            else:
                high = middle
        os.lseek(self._fd, low, os.SEEK_SET)
        self._rest = b"" if low == 0 else b"x"  # begins in the middle of a line: no number, passed over

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def _read(self) -> bool:
        if self._fd < 0 and not self._open():
            return False
        block = os.read(self._fd, _BLOCK)
        if not block:
            return False
        text, newline, self._rest = (self._rest + block).rpartition(b"\n")
        self._ahead = _entries(text + newline)[::-1]
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _entries(text: bytes) -> list[tuple[int, int]]:
    """The whole lines of a piece of an index; what is not two numbers is passed over."""
    found = []
    for line in text.split(b"\n")[:-1]:
        offset, _, ms = line.partition(b" ")
        if offset.isdigit() and ms.isdigit():
            found.append((int(offset), int(ms)))
    return found


class LogReader:
    """Reads the lines of one attempt's log with their times, from anywhere, also while it grows."""

    __slots__ = ("_at", "_fd", "_path", "_rest", "_times")

    def __init__(self, log_path: str, index_path: str) -> None:
        self._path = log_path
        self._fd = -1
        self._at = 0      # where in the log `_rest` begins
        self._rest = b""  # read, but not yet given out as a line
        self._times = _Times(index_path)

    def fileno(self) -> int:
        """The log's descriptor, -1 while there is no log yet."""
        return self._fd

    def tail(self, count: int) -> None:
        """Go to where the last `count` lines of what is there now begin."""
        if not self._open():
            return
        at = end = os.fstat(self._fd).st_size
        wanted = count
        if end and os.pread(self._fd, 1, end - 1) != b"\n":
            wanted -= 1  # the last line has no newline yet, and counts
        start = end if count <= 0 else 0
        while at > 0 and count > 0:
            block_at = max(0, at - _BLOCK)
            block = os.pread(self._fd, at - block_at, block_at)
            newlines = block.count(b"\n")
            if newlines > wanted:
                found = len(block)
                for _ in range(wanted + 1):
                    found = block.rfind(b"\n", 0, found)
                start = block_at + found + 1
                break
            wanted -= newlines
            at = block_at
        self._go(start)

    def _go(self, offset: int) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)
        self._at = offset
        self._rest = b""
        self._times.seek(offset)

    def lines(self, *, ended: bool = True) -> Iterator[tuple[int, bytes]]:
        """What is there and was not given out yet, as (time in ms, line without its newline).

        Give `ended=False` while the attempt may still write: a line without its newline is then kept back.
        Call it again for what came later.
        """
        while self._open():
            block = os.read(self._fd, _BLOCK)
            if not block:
                break
            pieces = (self._rest + block).split(b"\n")
            self._rest = pieces.pop()
            for piece in pieces:
                yield self._times.at(self._at), piece
                self._at += len(piece) + 1
            while len(self._rest) >= LONGEST_LINE:
                piece, self._rest = self._rest[:LONGEST_LINE], self._rest[LONGEST_LINE:]
                yield self._times.at(self._at), piece
                self._at += len(piece)
        if ended and self._rest:
            piece, self._rest = self._rest, b""
            yield self._times.at(self._at), piece
            self._at += len(piece)

    def _open(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        return True

    def close(self) -> None:
        self._times.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
