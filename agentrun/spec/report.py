"""The problems of one job file, collected so that all of them are told at once.

Whoever finds something wrong adds it here and goes on with `INVALID` in its place; whoever meets `INVALID`
keeps quiet, so one mistake is one problem. At `MAX_PROBLEMS` the reading stops: a file with that many is of
another kind, and looking for nearest names in it would take minutes.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, Protocol

from ..errors import JobFileError
from ..model import Problem

MAX_PROBLEMS: Final = 100
MAX_SOURCE: Final = 400  # characters of a source line that a problem carries; the rest is no help

INVALID: Final[Any] = type("Invalid", (), {"__repr__": lambda _: "INVALID"})()


class Mark(Protocol):
    """A place in the text, as the parsers give it: all three count characters from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def index(self) -> int: ...


class Report:
    """Problems of the file `path` with the content `text`."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.problems: list[Problem] = []
        self._lines: list[str] | None = None

    def add(self, mark: Mark, message: str, hint: str | None = None) -> None:
        """A problem at a node's mark. Raises JobFileError when there are too many."""
        self.add_at(mark.line, mark.column, message, hint)

    def add_inside(self, mark: Mark, part: str, message: str, hint: str | None = None) -> None:
        """A problem about `part` of the scalar that begins at `mark`: where it is written, if it is written so."""
        found = self.text.find(part, mark.index)
        if found < 0:
            self.add(mark, message, hint)
        else:
            self.add_offset(found, message, hint)

    def add_offset(self, offset: int, message: str, hint: str | None = None) -> None:
        """A problem at a character of the text."""
        start = self.text.rfind("\n", 0, offset) + 1
        self.add_at(self.text.count("\n", 0, offset), offset - start, message, hint)

    def add_at(self, line: int, column: int, message: str, hint: str | None = None) -> None:
        """A problem at a line and column, both from 0."""
        if self._lines is None:
            self._lines = self.text.split("\n")
        source = self._lines[line].rstrip("\r")[:MAX_SOURCE] if line < len(self._lines) else ""
        problem = Problem(self.path, line + 1, column + 1, message, source, hint)
        if problem not in self.problems:  # what an alias names is read once for each of its places
            self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            self.stop()

    def has_told(self, mark: Mark) -> bool:
        """Whether there is a problem at a node's mark already."""
        return any((problem.line - 1, problem.column - 1) == (mark.line, mark.column) for problem in self.problems)

    def stop(self) -> NoReturn:
        """Give up reading and tell what was found, in the order of the file."""
        raise JobFileError(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))

    def stop_if_any(self) -> None:
        if self.problems:
            self.stop()
