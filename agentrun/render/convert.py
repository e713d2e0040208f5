"""The report of a conversion, on stderr, and its JSON.

    crontab: 5 entries, 4 of them jobs now; 2 things look wrong today

    line 7  backup.yaml
      lifted  flock on /run/backup.lock: concurrency: forbid
      bug     `2>&1 >log` sends errors where output went before, not to log
              → >log 2>&1
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ..convert.notes import Note
from .terminal import Look, printable

_STYLES = {"lifted": ("green",), "kept": ("dim",), "bug": ("bold", "red"), "advice": ("cyan",)}
_LEAST = 30  # columns for a sentence; with less room it is not wrapped


class Made(NamedTuple):
    """A file that a conversion makes. `line`: of the entry that it was, 0 for a script and for the crontab itself.

    `mode`: who may read it at most, which is who may read what it was made of.
    """

    name: str
    path: str
    text: bytes
    line: int = 0
    user: str = ""
    mode: int = 0o666


class Report(NamedTuple):
    """What was made of one file. `kept`: entries that stay as they are.

    `steps`: how many steps a script became in the job of an entry, and the name of that file.
    """

    source: str
    kind: str  # crontab, script
    files: Sequence[Made]
    notes: Sequence[Note]
    kept: int = 0
    steps: tuple[int, str] | None = None


def report_lines(report: Report, look: Look) -> Iterator[str]:
    """All that is to be said of it."""
    yield look.paint(summary(report), "bold")
    names: dict[int, list[str]] = {}
    for made in report.files:
        names.setdefault(made.line, []).append(made.name)
    ordered = sorted(report.notes, key=lambda note: (note.line, *_rank(note)))
    for line, group in groupby(ordered, key=lambda note: note.line):
        yield ""
        if not line:
            yield look.paint("all of it", "bold")
        else:
            file = f"  {', '.join(names[line])}" if line in names else ""
            yield look.paint(printable(f"line {line}{file}"), "bold")
        for note in group:
            yield from _note(note, look)


def _rank(note: Note) -> tuple[int]:
    return (("lifted", "kept", "bug", "advice").index(note.kind),)


def _note(note: Note, look: Look) -> Iterator[str]:
    pad = " " * 10
    arrow = "→ " if look.unicode else "-> "
    first, *more = _wrapped(note.message, look)
    yield f"  {look.paint(note.kind.ljust(6), *_STYLES[note.kind])}  {first}"
    yield from (pad + one for one in more)
    if note.hint:
        for number, one in enumerate(_wrapped(note.hint, look)):
            yield pad + (arrow if not number else "  ") + one


def _wrapped(text: str, look: Look) -> list[str]:
    shown = printable(text)
    room = None if look.width is None else look.width - 13
    if room is None or room < _LEAST:
        return [shown]
    return textwrap.wrap(shown, room, break_on_hyphens=False, break_long_words=False) or [""]


def summary(report: Report) -> str:
    """In one line."""
    kinds = Counter(note.kind for note in report.notes)
    look = "looks" if kinds["bug"] == 1 else "look"
    wrong = f"; {_many(kinds['bug'], 'thing')} in it {look} wrong" if kinds["bug"] else ""
    source = printable(report.source)
    if report.steps is not None:
        return f"{source}: {_many(report.steps[0], 'step')} of {report.steps[1]}{wrong}"
    if report.kind != "crontab":
        return f"{source}: {_many(len(report.files), 'job file')}{wrong}"
    jobs = sum(1 for made in report.files if made.line)
    if not jobs + report.kept:
        return f"{source}: a crontab without a job: nothing to convert{wrong}"
    left = f", {report.kept} as before" if report.kept else ""
    are = "is a job" if jobs == 1 else "are jobs"
    return f"{source}: {_many(jobs + report.kept, 'entry')}: {jobs} {are} now{left}{wrong}"


def _many(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number} {thing.removesuffix('y')}ies" if thing.endswith("y") else f"{number} {thing}s"


def report_shape(report: Report, *, texts: bool) -> dict[str, Any]:
    """As JSON. `texts`: what the files say, for they are written nowhere."""
    jobs = [made for made in report.files if made.line or report.kind != "crontab"]
    names = {made.line: made.name for made in jobs}
    crontab = next((made for made in report.files if made not in jobs), None)
    shape: dict[str, Any] = {
        "schema": "agentrun.conversion/1",
        "source": report.source,
        "kind": report.kind,
        "jobs": [_shape_of(made, texts) for made in jobs],
        "crontab": None if crontab is None else _shape_of(crontab, texts),
        "entries_kept": report.kept,
        "steps_of": None if report.steps is None else report.steps[1],
        "notes": [
            {**note._asdict(), "file": names.get(note.line)} for note in report.notes
        ],
    }
    return shape


def _shape_of(made: Made, texts: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": made.name, "file": made.path, "line": made.line or None, "user": made.user or None}
    return shape | ({"text": made.text.decode(errors="replace")} if texts else {})
