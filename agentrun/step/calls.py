"""The journal of the calls that the script of a step made (`agentrun.durable`), as the supervisor reads it.

The file is the scripts' own: any interpreter may have written it, while we read. So nothing in it is taken on
trust: what is no line of a call is passed over. `durable/journal.py` says what a line is.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from ..model import JSON

_BLOCK = 1 << 20
_AT_ONCE = 4 << 20  # bytes, before others get their turn
_LONGEST = 8 << 20  # bytes of a line: as `durable/journal.py` has it


class Call(NamedTuple):
    """A call of a `@step` that ended. `arguments` and `result` are JSON texts; times in ms, since the epoch.

    `arguments` is "null" where they are no JSON: the call is known by its `key` then. `result` is None where the
    call raised; `error` says what.
    """

    attempt: int
    function: str
    arguments: str
    key: str | None
    result: str | None
    error: str | None
    started_at: int
    ms: int


class CallsReader:
    """Reads a journal as it grows, each call once. The file need not be there yet.

    `offset`: where the next unread line begins, in bytes; another reader goes on from there. `more`: the last look
    ended because it had read enough, not because there was no more.
    """

    __slots__ = ("_held", "_path", "_rest", "more", "offset")

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        self._rest: list[bytes] = []  # of the line at `offset`, which has no end yet; nothing of one that is too long
        self._held = 0  # how much of it was read
        self.offset = offset
        self.more = False

    def read_new(self) -> list[Call]:
        """The calls that were appended since the last call, in the order of their ends: of 4 MiB, then `more`.

        Never raises for the file.
        """
        self.more = False
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a step may have put a FIFO there
        except OSError:
            return []
        calls: list[Call] = []
        try:
            for _ in range(_AT_ONCE // _BLOCK):
                block = os.pread(fd, _BLOCK, self.offset + self._held)
                calls += [call for line in self._lines(block) if (call := _parse(line))]
                if len(block) < _BLOCK:
                    break
            else:
                self.more = True
        except OSError:
            pass  # what was read counts; the rest when it can be read
        finally:
            os.close(fd)
        return calls

    def _lines(self, block: bytes) -> list[bytes]:
        """The lines that end in the block; those that are too long are empty."""
        *lines, rest = block.split(b"\n")
        if lines:
            self.offset += self._held + sum(map(len, lines)) + len(lines)
            if self._held:
                whole = self._held + len(lines[0]) <= _LONGEST
                lines[0] = b"".join([*self._rest, lines[0]]) if whole else b""
            self._rest, self._held = [], 0
        self._held += len(rest)
        if self._held <= _LONGEST:
            self._rest.append(rest)
        else:
            self._rest = []
        return lines


def _parse(line: bytes) -> Call | None:
    if b'"call"' not in line:
        return None
    try:
        entry = json.loads(line)
        if "call" not in entry:
            return None
        call = Call(
            entry["attempt"], entry["call"], entry["args"], entry["key"], entry.get("result"), entry.get("error"),
            entry["at"], entry["ms"],
        )  # fmt: skip
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return call if _is_sound(call) else None


def _is_sound(call: Call) -> bool:
    whole = all(type(number) is int and 0 <= number < 1 << 53 for number in (call.attempt, call.started_at, call.ms))
    known = isinstance(call.key, str | None) and isinstance(call.function, str)
    return whole and known and (call.result is None) != (call.error is None) and all(
        text is None or isinstance(text, str) for text in (call.error, call.result)
    ) and _is_json(call.arguments) and (call.result is None or _is_json(call.result))


def _is_json(text: JSON) -> bool:
    try:
        json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False
    return True
