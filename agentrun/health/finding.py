"""What a check answers with: a finding, which says what was seen and, where that is not good, what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """`detail`: what was seen, in one sentence or two. `remedy` is empty exactly where it is good."""

    ok: bool
    detail: str
    remedy: str = ""


class Check(NamedTuple):
    """A finding and the name of the check that came to it."""

    name: str
    ok: bool
    detail: str
    remedy: str


def good(detail: str) -> Finding:
    """Nothing to do; `detail` may still say what is worth knowing."""
    return Finding(True, detail)


def bad(detail: str, remedy: str) -> Finding:
    """Something that breaks a promise of the program, or will."""
    return Finding(False, detail, remedy)


def size(count: float) -> str:
    """Bytes in words: `3.4 GiB`."""
    units = ["TiB", "GiB", "MiB", "KiB", "bytes"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop()
    unit = units[-1]
    return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"


def several(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def some(names: list[str], most: int = 5) -> str:
    """The names, the first of them if there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
