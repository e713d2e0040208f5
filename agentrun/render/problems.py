"""What is wrong in a job file, as compilers say it: place, message, the line, a caret.

    quotes.yaml:14:9: unknown key 'timout' (did you mean 'timeout'?)
       14 |         timout: 5m
          |         ^
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .terminal import Look, columns_of, printable

if TYPE_CHECKING:
    from ..model import Problem


def problem_lines(problems: Sequence[Problem], look: Look, severity: str = "") -> list[str]:
    """The lines that show them, in the order given; `severity` stands before each message."""
    lines = []
    for problem in problems:
        place = f"{printable(problem.path)}:{problem.line}:{problem.column}:"
        lines.append(f"{look.paint(place, 'bold')} {severity}{printable(problem.message)}")
        lines += _source(problem, look)
        if problem.hint:
            first, *more = problem.hint.splitlines()
            lines += [f"  hint: {first}", *(f"        {line}" for line in more)]
    return lines


def _source(problem: Problem, look: Look) -> list[str]:
    if not problem.source.strip():
        return []
    number = str(problem.line).rjust(5)
    # tabs become one blank each, so that the caret stands where the column says
    before = printable(problem.source[: problem.column - 1].replace("\t", " "))
    after = printable(problem.source[problem.column - 1 :].replace("\t", " "))
    room = None if look.width is None else look.width - len(number) - 3
    if room is not None and columns_of(before) + min(columns_of(after), 20) > room:
        cut = columns_of(before) - room // 3  # the caret stays in sight
        before = look.dots + before[max(cut, 0) :]
    if room is not None:
        after = after[: max(room - columns_of(before), 1)]
    bar = look.paint("|", "dim")
    caret = look.paint("^", "bold", "red")
    return [
        f"{look.paint(number, 'dim')} {bar} {before}{after}",
        f"{' ' * len(number)} {bar} {' ' * columns_of(before)}{caret}",
    ]
