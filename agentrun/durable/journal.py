"""The journal of the calls of a step instance: one file, to which the processes of all its attempts append.

    {"stream": 0, "attempt": 1, "argv": ["agent.py"], "where": "5f…", "under": "", "nth": 0, "place": 0, "pid": 71,
     "at": 1780000000000}                                       a process began
    {"stream": 0, "attempt": 1, "call": "agent.ask", "args": "{…}", "key": null, "n": 4, "in": "",
     "at": …, "ms": 12, "result": "…"}                         a call is done; `error` instead of `result`: it raised
    {"stream": 1, "attempt": 2, "took": 17, "pid": 99}          a process of several was given what line 17 says
    {"stream": 0, "attempt": 1, "ended": true}                  a process came to its end by itself, and well

`args` and `result` are JSON within JSON: compared and handed on as they stand. Calls of one stream are compared
with calls of the same stream of earlier attempts (`streams.py`). Processes that share one take what is recorded
under the file's lock, and say so.

A line is one write(2) under flock, which every writer takes. What a kill or a full disk tore is closed off with a
mark that makes it no JSON for ever, before the next line is written. Times are ms since the epoch.
"""

from __future__ import annotations

import fcntl
import json
import os
import time

from .streams import choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .streams import Process

    Entry = dict[str, Any]

_TORN = b" (torn)\n"
_BLOCK = 1 << 20
LONGEST = 8 << 20  # bytes of a line: arguments, result and outputs of 1 MiB each, all of it quotes
_scan: Any = vars(json.JSONDecoder())["scan_once"]  # decode() looks for white space around it, too


def _encoder(canonical: bool) -> Any:
    """JSONEncoder.encode, but made once: it makes a new encoder for each value."""
    options = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":"), "sort_keys": canonical}
    encoder = json.JSONEncoder(**options)  # type: ignore[arg-type]
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    text = json.encoder.encode_basestring
    chunks = make(None, encoder.default, text, None, ":", ",", canonical, False, False)
    return lambda value: "".join(chunks(value, 0))


_plain, _sorted = _encoder(False), _encoder(True)


def value_of(text: str) -> Any:
    """The value of a JSON text that stands alone. ValueError: it is none, or there is more."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON")
    if end != len(text):
        raise ValueError("more than JSON")
    return value


def text_of(value: object, canonical: bool = False) -> str:
    """The value as JSON. `canonical`: equal values give equal texts. TypeError, ValueError or RecursionError."""
    text: str = _sorted(value) if canonical else _plain(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: a file name that is not UTF-8 is text for Python alone
            text = json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=canonical)
    return text


def culprit(value: object, path: str = "", depth: int = 0) -> str:
    """What in the value is not JSON, and where; empty if all of it is."""
    where = f"`{path}`" if path else "it"
    if depth > 100:
        return "it is nested too deeply, or holds itself"
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r} of type {type(key).__name__}; JSON knows text alone as a key"
            found = culprit(inner, f"{path}.{key}" if path else key, depth + 1)
            if found:
                return found
        return ""
    if isinstance(value, (list, tuple)):
        inside = (culprit(inner, f"{path}[{place}]", depth + 1) for place, inner in enumerate(value))
        return next((found for found in inside if found), "")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{where} is {value!r}, which is no JSON number"
    if value is None or isinstance(value, (str, int, float)):
        return ""
    return f"{where} is of type {type(value).__name__}"


def append_line(path: str, value: object, torn: bytes = _TORN) -> None:
    """Append one line to a file that the step hands to its supervisor. OSError: it is not all there."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _write_line(fd, value, torn)
    finally:
        os.close(fd)


def _write_line(fd: int, value: object, torn: bytes = _TORN) -> None:
    data = text_of(value).encode() + b"\n"
    if len(data) > LONGEST:
        raise ValueError(f"a line of {len(data):,} bytes; {LONGEST:,} is the most")
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        data = torn + data
    if os.write(fd, data) != len(data):
        raise OSError(28, os.strerror(28))  # ENOSPC: the next write would say so


class Journal:
    """The journal as one process has it open. Use it from one thread at a time, but for `sync`."""

    __slots__ = ("_fd", "_held", "_lines", "_offset", "_path", "_rest", "attempt", "keyed", "place", "shared", "stream")

    def __init__(self, path: str, attempt: int) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._rest: list[bytes] = []  # of a line without its end
        self._held = 0  # how long that is
        self._lines = 0
        self.attempt = attempt
        self.stream = self.place = 0
        self.shared = self.keyed = False

    def begin(self, process: Process) -> list[Entry]:
        """Find this process its stream and say that it begins; returns what the journal has for it."""
        self.lock()
        try:
            entries = self.read_new()
            found = choose(entries, process, self.attempt)
            self.stream, self.place = found.number, found.place
            self.shared, self.keyed = found.shared, found.keyed
            self.put(dict(process.line(), nth=found.nth, place=found.place, pid=os.getpid(), at=_now()))
        finally:
            self.unlock()
        if not entries:
            self._sync_folder()
        if found.note:
            os.write(2, f"agentrun.durable: {found.note}\n".encode("utf-8", "backslashreplace"))
        return found.entries

    def _sync_folder(self) -> None:
        fd = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)  # or a power cut could take the file with all its synced lines
        finally:
            os.close(fd)

    def lock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def put(self, fields: Entry) -> None:
        """Append a line of this stream and attempt; the lock must be held. OSError: it is not all there."""
        _write_line(self._fd, dict(fields, stream=self.stream, attempt=self.attempt))

    def append(self, fields: Entry) -> None:
        """The same, with the lock taken for it."""
        self.lock()
        try:
            self.put(fields)
        finally:
            self.unlock()

    def sync(self) -> None:
        """Return when what was appended is on the disk."""
        os.fdatasync(self._fd)

    def read_new(self) -> list[Entry]:
        """What was appended since the last call: whole lines that are entries, each with its number as `line`."""
        found: list[Entry] = []
        while self._offset < os.fstat(self._fd).st_size:  # a device may have no end
            block = os.pread(self._fd, _BLOCK, self._offset)
            self._offset += len(block)
            *lines, rest = block.split(b"\n")
            if lines:
                if self._held:
                    lines[0] = b"".join([*self._rest, lines[0]]) if self._held <= LONGEST else b""
                self._rest, self._held = [], 0
                for line in lines:
                    self._lines += 1
                    if (entry := _parsed(line)) is not None:
                        entry["line"] = self._lines
                        found.append(entry)
            self._held += len(rest)
            if self._held <= LONGEST:
                self._rest.append(rest)
            else:
                self._rest = []  # no line of ours: it is passed over
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parsed(line: bytes) -> Entry | None:
    """The entry that a line is; None: it is torn, or not ours."""
    try:
        text = line.decode()
        entry: Entry
        entry, end = _scan(text, 0)
        if end == len(text) and type(entry["stream"]) is type(entry["attempt"]) is int:
            return entry
    except (ValueError, LookupError, TypeError, StopIteration, RecursionError):
        pass
    return None


def _now() -> int:
    return time.time_ns() // 1_000_000
