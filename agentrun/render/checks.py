"""What `agentrun doctor` shows: a line for each check, and beneath what is not good its remedy.

    ✓ file_system  ext4, mounted on /: its locks are the kernel's own
    ✗ disk_space   12 MiB of 20 GiB free where /var/lib/agentrun lies (statvfs)
                     remedy: free space there, or set AGENTRUN_HOME to a folder on a local disk

A terminal gets long lines wrapped, a pipe gets them whole.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..health.finding import Check
from .terminal import Look, columns_of, printable

_LEAST = 20  # columns for a detail; with less room beside the names it is not wrapped


def check_shape(check: Check) -> dict[str, Any]:
    """One check as JSON; `remedy` is null where there is nothing to do."""
    return {
        "schema": "agentrun.check/1",
        "check": check.name,
        "ok": check.ok,
        "detail": check.detail,
        "remedy": check.remedy or None,
    }


def check_lines(check: Check, names: Iterable[str], look: Look) -> Iterator[str]:
    """The lines of one check; `names` are those of all, for the column to be wide enough."""
    width = max(map(len, names))
    mark = look.mark("succeeded" if check.ok else "failed")
    before = f"{look.paint(mark, 'green' if check.ok else 'red')} {look.paint(check.name, *_style(check))}"
    blanks = " " * (width - len(check.name) + 2)
    indent = columns_of(mark) + 1 + width + 2
    first, *more = _wrapped(printable(check.detail), indent, look)
    yield before + blanks + first
    for line in more:
        yield " " * indent + line
    if not check.ok:
        first, *more = _wrapped(f"remedy: {printable(check.remedy)}", indent + 2, look)
        yield " " * (indent + 2) + look.paint(first, "yellow")
        for line in more:
            yield " " * (indent + 2) + look.paint(line, "yellow")


def summary(checks: Sequence[Check]) -> str:
    """The last line."""
    wrong = [check.name for check in checks if not check.ok]
    if not wrong:
        return f"all {len(checks)} checks are good"
    return f"{len(checks)} checks, {len(wrong)} not good: {', '.join(wrong)}"


def _style(check: Check) -> tuple[str, ...]:
    return () if check.ok else ("bold",)


def _wrapped(text: str, indent: int, look: Look) -> list[str]:
    if look.width is None or look.width - indent < _LEAST:
        return [text]
    return textwrap.wrap(text, look.width - indent, break_on_hyphens=False) or [""]
