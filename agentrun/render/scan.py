"""What `agentrun convert --scan DIR` shows: by file on a terminal, a line for each finding through a pipe, or JSON.

    bin/sync.sh                                       bin/sync.sh:14: retries by hand — a kill … → `retry: …` of a step
      14  retries by hand
          a kill or a reboot between two tries ends it for good, and no try is recorded
          → `retry: {max_attempts: …, interval: …}` of a step
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from ..convert.finding import Finding
from ..convert.scan import Scan, scan
from .jsonshape import dumps
from .terminal import Look, look_of, printable, talk

_LEAST = 30  # columns for a sentence; with less room it is not wrapped


def show_scan(folder: str, as_json: bool) -> int:
    """Look through the folder and print what is found. The exit status; NotFound if there is no such folder."""
    found = scan(folder)
    if as_json:
        print(dumps([finding_shape(each) for each in found.findings]))
    elif found.findings:
        print("\n".join(finding_lines(found.findings, look_of(sys.stdout))))
    sys.stdout.flush()
    for sentence in (*(f"not looked at: {each}" for each in found.left_out), summary(found)):
        talk(sentence)
    return 0


def finding_shape(each: Finding) -> dict[str, Any]:
    """A finding as JSON."""
    return {"schema": "agentrun.finding/1", **each._asdict()}


def finding_lines(findings: Sequence[Finding], look: Look) -> Iterator[str]:
    """The lines that show them, in the order given."""
    if not look.terminal:
        dash, arrow = ("—", "→") if look.unicode else ("-", "->")
        for each in findings:
            yield printable(f"{each.file}:{each.line}: {each.what} {dash} {each.why} {arrow} {each.to_do}")
        return
    for number, (file, group) in enumerate(groupby(findings, key=lambda each: each.file)):
        if number:
            yield ""
        yield look.paint(printable(file), "bold")
        for each in group:
            yield from _block(each, look)


def _block(each: Finding, look: Look) -> Iterator[str]:
    place = str(each.line).rjust(6)
    pad = " " * (len(place) + 2)
    arrow = "→ " if look.unicode else "-> "
    first, *more = _wrapped(each.what, len(pad), look)
    yield f"{look.paint(place, 'dim')}  {first}"
    yield from (pad + line for line in more)
    for line in _wrapped(each.why, len(pad), look):
        yield pad + look.paint(line, "dim")
    for line in _wrapped(arrow + each.to_do, len(pad), look):
        yield pad + look.paint(line, "yellow")


def _wrapped(text: str, indent: int, look: Look) -> list[str]:
    text = printable(text)
    if look.width is None or look.width - indent < _LEAST:
        return [text]
    return textwrap.wrap(text, look.width - indent, break_on_hyphens=False) or [""]


def summary(found: Scan) -> str:
    """The last line, on stderr."""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    if not found.findings:
        return f"nothing found in {files}"
    places = "1 place" if len(found.findings) == 1 else f"{len(found.findings)} places"
    within = len({each.file for each in found.findings})
    return f"{places} in {within} of {files}"
