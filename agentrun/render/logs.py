"""A line of a log as `agentrun logs` prints it, made so that `grep` and `sort` find their way:

    2026-11-20T10:00:00.123Z quotes/7f3a 3/9 quote[2]#1 | text

When; job and the end of the run's id; the step's place among those of the job file; the instance and its attempt
(`quote?` is the step's `if`, `think[2]?` the `until` after round 2). The text is what the step wrote, harmless: control
characters as escapes, bytes that are not UTF-8 as `\\xff`.
"""

from __future__ import annotations

from ..instants import rfc3339
from ..store.read import Run
from . import words
from .terminal import Look, printable

_PALETTE = ("cyan", "green", "yellow", "blue")


class LineFormat:
    """The form of the lines of one attempt, made once for all of them. `position` counts from 1, to `steps`."""

    __slots__ = ("_after", "_second", "_stamp")

    def __init__(self, run: Run, instance: str, attempt: int, position: int, steps: int, look: Look) -> None:
        name = attempt_name(instance, attempt)
        place = f"{run.job}/{words.short_id(run.id)} {position}/{steps}"
        bar = look.paint("|", "dim")
        self._second = -1
        self._stamp = ""
        self._after = f" {look.paint(place, 'dim')} {look.paint(name, _PALETTE[position % len(_PALETTE)])} {bar} "

    def lines(self, at: int, texts: str) -> str:
        """Several lines that have the same time, without the end of the last."""
        before = self.line(at, "")
        return before + texts.replace("\n", "\n" + before)

    def line(self, at: int, text: str) -> str:
        """The whole line, without its end."""
        second = at // 1000
        if second != self._second:  # the lines of a log share their seconds
            self._second, self._stamp = second, rfc3339(at)[:-4]
        return f"{self._stamp}{at % 1000:03d}Z{self._after}{text}"


def attempt_name(instance: str, attempt: int) -> str:
    """`quote#1`, or `quote?` for a condition: the step's `if`, the round's `until`."""
    return f"{instance}#{attempt}" if attempt else f"{instance}?"


def text_of(line: bytes, harmless: bool = True) -> str:
    """The bytes of a line as text, its end taken off; `harmless`: fit for a terminal. (JSON escapes by itself.)"""
    text = line.decode("utf-8", "surrogateescape" if harmless else "replace").removesuffix("\r")
    return printable(text) if harmless else text
