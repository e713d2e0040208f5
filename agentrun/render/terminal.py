"""What a stream can show, and text made fit for it.

A pipe gets whole lines without colour, however long: whoever reads them has `grep` and `cut`. A terminal gets
lines that fit it. Nothing that a step wrote reaches a terminal as it is: control characters are shown as
escapes, so that a log cannot move the cursor, set the title or hide a line (`printable`).

Plain ANSI by hand: what we need of it is seven colours and "up n lines", and importing rich would cost each
command more than everything else it does.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TextIO

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

# C0 but for the tab, DEL, C1, line and paragraph separators, and the marks that turn the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_IN_JSON = "[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # those of them that json leaves
_MIN_WIDTH = 20
_HARMLESS = b"\t\n" + bytes(range(32, 127))


@dataclass(frozen=True, slots=True)
class Look:
    """How a stream is written to. `width` is None where lines may be as long as they like."""

    terminal: bool = False
    width: int | None = None
    colour: bool = False
    unicode: bool = True
    height: int = 24

    def paint(self, text: str, *styles: str) -> str:
        """The text in those styles (`bold`, `dim`, or a colour), where the stream shows colours."""
        if not self.colour or not styles or not text.strip():
            return text
        return f"\x1b[{';'.join(_COLOURS[style] for style in styles)}m{text}\x1b[0m"

    def mark(self, outcome: str | None) -> str:
        """One sign for an outcome."""
        good, bad = ("✓", "✗") if self.unicode else ("+", "x")
        return {"succeeded": good, "skipped": "-", None: " "}.get(outcome, bad)

    @property
    def dots(self) -> str:
        """What stands for text that was cut off."""
        return "…" if self.unicode else "..."


def look_of(stream: TextIO) -> Look:
    """How this stream is written to: asked of the stream, COLUMNS, LINES, NO_COLOR and TERM."""
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    try:
        terminal = stream.isatty()
    except ValueError:  # closed
        terminal = False
    if not terminal:
        return Look(unicode=unicode)
    columns, lines = _size(stream)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Look(True, max(columns, _MIN_WIDTH), colour, unicode, lines)


def _size(stream: TextIO) -> tuple[int, int]:
    columns, lines = (_number(os.environ.get(name)) for name in ("COLUMNS", "LINES"))
    if not (columns and lines):
        try:
            size = os.get_terminal_size(stream.fileno())
            columns, lines = columns or size.columns, lines or size.lines
        except (OSError, ValueError):
            pass
    return columns or 80, lines or 24


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


def printable(text: str) -> str:
    """The text with its control characters written as escapes; tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_escapes())


def printable_json(text: str) -> str:
    """JSON that says the same, all of its control characters as escapes: they stand in strings alone."""
    if text.isascii() and "\x7f" not in text:
        return text
    return re.sub(_NOT_IN_JSON, lambda match: f"\\u{ord(match[0]):04x}", text)


def printable_lines(lines: bytes) -> str:
    """Lines joined by newlines as text, each made printable, the ends of lines that stay being newlines."""
    if not lines.translate(None, _HARMLESS):  # almost always, and asked a hundred times as fast as what follows
        return lines.decode("ascii")
    text = lines.decode("utf-8", "surrogateescape")
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    texts = text.split("\n")
    return "\n".join([printable(text.removesuffix("\r")) for text in texts])


@lru_cache(1)
def _escapes() -> dict[int, str]:
    """For `str.translate`, which takes a tenth of the time of a substitution where all of a text is to be escaped."""
    return {code: _escape(code) for code in range(0xE000) if _CONTROL.match(chr(code))}


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as Python smuggles it through
        return f"\\x{code - 0xDC00:02x}"
    return {10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def columns_of(text: str) -> int:
    """How many columns a terminal uses for it."""
    if text.isascii():
        return len(text)
    import unicodedata

    def width(char: str) -> int:
        if unicodedata.combining(char) or char == "\u200d":
            return 0
        return 2 if unicodedata.east_asian_width(char) in "WF" else 1

    return sum(map(width, text))


def fit(text: str, width: int | None, dots: str = "…") -> str:
    """The text, cut to that many columns; its cut end is marked."""
    if width is None or columns_of(text) <= width:
        return text
    room = width - len(dots)
    if room <= 0:
        return dots[:width]
    if text.isascii():
        return text[:room] + dots
    kept, used = [], 0
    for char in text:
        used += columns_of(char)
        if used > room:
            break
        kept.append(char)
    return "".join(kept) + dots


def make_safe(stream: TextIO | None) -> None:
    """From now on, what the stream's encoding cannot say is written as an escape, not answered with an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def talk(sentence: str) -> None:
    """A line to stderr: what is said beside the data."""
    print(f"agentrun: {printable(sentence)}", file=sys.stderr, flush=True)
