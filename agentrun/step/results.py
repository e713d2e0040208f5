"""The results file of a run: one line for each attempt that ended, written by the shim, read by the supervisor.

    5f0e1d2c {"instance":"fetch","attempt":1,...}\n        CRC-32 of the JSON, the JSON

The line is the only way in which an end travels: the socket just rings. It is written in one write(2) before
the bell and before anything is cleaned up, so a shim that is killed at any instant either recorded an end or did
not. A line that a kill or a full disk tore is skipped, and the next one begins on a line of its own. It is not
synced: the page cache survives every kill, and after a reboot a line that was not committed counts as
interrupted (its `boot_id` tells).
"""

from __future__ import annotations

import os
from binascii import crc32

from .. import effects
from .protocol import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIELDS = (
    "instance", "attempt", "epoch", "boot_id", "started_at", "ended_at", "exit_code", "signal", "ended_by",
    "spawn_error", "cpu_ms", "max_rss_kib", "output_bytes", "oom", "enforced_by",
)
_BLOCK = 262_144


class Result:
    """How one attempt ended. Times are wall times in ms since the epoch.

    `exit_code` or `signal` is that of its leader; neither, if it was ended before its process existed.
    `ended_by`: "timeout", "stuck", a limit of its own that it crossed ("memory", "cpu", "processes", "output"),
    "budget" (one of the run's), "lost" (the shim ended it because nobody supervised it any more), or the cause given to
    `Link.end`. `spawn_error`: it never ran, and why; `exit_code` is then 126 or 127, as a shell would say it.
    `max_rss_kib` and `cpu_ms` are of the leader and of what it waited for; the first is never less than the
    shim's own, from which the process was born. Of a limited attempt they are what its cgroup counted, if that
    is more (files that it read count as its memory there), and `enforced_by` says what held it to its limits.
    `oom`: the kernel killed it or one of its processes for want of memory, and it did not end with 0.
    `output_bytes`: what it wrote, up to its limit.
    """

    __slots__ = FIELDS

    instance: str
    attempt: int
    epoch: int
    boot_id: str
    started_at: int
    ended_at: int
    exit_code: int | None
    signal: int | None
    ended_by: str | None
    spawn_error: str | None
    cpu_ms: int
    max_rss_kib: int
    output_bytes: int
    oom: bool
    enforced_by: str | None

    def __init__(self, fields: dict[str, Any]) -> None:
        for name in FIELDS:
            setattr(self, name, fields.get(name))
        self.oom = bool(self.oom)  # not in a line of an older version

    def __repr__(self) -> str:
        return "Result(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in FIELDS) + ")"


def line(result: Result) -> bytes:
    """The result as it stands in the file."""
    body = encode({name: getattr(result, name) for name in FIELDS}).encode("ascii")
    return b"%08x %s\n" % (crc32(body), body)


def open_results(path: str) -> int:
    """Open the file for appending, made if need be; a line that an earlier shim left torn is closed off."""
    fd = effects.create(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _close_off(fd)
    except OSError:
        pass  # a full disk: `append` tries again
    return fd


def append(fd: int, result: Result) -> None:
    """Write one line. OSError if it is not all there: the caller tries again later, on a line of its own."""
    text = line(result)
    _close_off(fd)
    if effects.write(fd, text) != len(text):
        raise OSError(28, "only a part of the result could be written")


def complain(sentence: str) -> None:
    """Say it on the stderr that was inherited: whoever started the run hears it, and cron mails it."""
    try:
        effects.write(2, f"agentrun: {sentence}\n".encode())
    except OSError:
        pass


def _close_off(fd: int) -> None:
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        effects.write(fd, b"\n")


class ResultsReader:
    """Reads a results file as it grows, each result once. The file need not be there yet.

    `offset`: where the next unread line begins, in bytes; another reader goes on from there.
    """

    __slots__ = ("_fd", "_path", "_rest", "offset")

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        self._fd = -1
        self._rest = b""

    def read_new(self) -> list[Result]:
        """The results that were appended since the last call, in order; torn lines are passed over."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return []
            os.lseek(self._fd, self.offset, os.SEEK_SET)
        results = []
        while block := os.read(self._fd, _BLOCK):
            lines = (self._rest + block).split(b"\n")
            self.offset += len(block) + len(self._rest) - len(lines[-1])
            self._rest = lines.pop()  # not a line before its newline is there
            results += [result for text in lines if (result := _parse(text))]
            if len(block) < _BLOCK:
                break
        return results

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(text: bytes) -> Result | None:
    if text[8:9] != b" " or b"%08x" % crc32(text[9:]) != text[:8]:
        return None
    fields = decode(text[9:].decode("ascii"))
    return Result(fields) if isinstance(fields, dict) else None
