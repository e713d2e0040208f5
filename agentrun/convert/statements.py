"""A script cut into the pieces that can each be run by a shell of its own: lines, and the statements on them.

A piece is a span of whole lines. It begins behind the one before it, so that the comments and empty lines above a
statement are a part of its piece, and every line of the script is in exactly one. First each statement is a piece,
with all that stands on its lines; what `bonds` ties is merged; then the script's own shell reads each piece (`-n`) and
what it does not accept is merged with the next, until it does. Where the parser does not understand the script, the
shell alone says where a statement ends: at the first line after which it accepts what it has read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .bonds import Bond, bonds
from .program import Program
from .syntax import Node, accepts, first_line, last_line, parse

MAX_LINES = 5_000  # longer ones are no cron scripts, and each piece costs a process
_SYNTAX = "the shell takes them for one"


class Piece(NamedTuple):
    """Lines `first` to `last`, counted from 1; `nodes` are the statements on them; `why` they are not several."""

    first: int
    last: int
    nodes: tuple[Node, ...]
    why: tuple[str, ...] = ()


class Cut(NamedTuple):
    pieces: list[Piece]
    statements: int  # how many there were before any was merged


class Unit(NamedTuple):
    """A statement with all that stands on its lines."""

    first: int
    last: int
    nodes: tuple[Node, ...]


def accepted(program: Program, text: str) -> bool:
    """Whether the script's own shell reads it as whole statements."""
    if not accepts(program.checker, text) or _continued(text):
        return False
    return program.dialect == "bash" or "<<" not in text or accepts(("bash",), text)  # dash says nothing of a cut one


def _continued(text: str) -> bool:
    """A backslash at the very end: the shell forgives it, the next line would be a part of it."""
    last = text.rstrip("\n").rsplit("\n", 1)[-1]
    found = re.search(r"\\+$", last)
    return found is not None and len(found[0]) % 2 == 1 and not last.lstrip().startswith("#")


def cut(program: Program, plain_file: Callable[[str], bool | None]) -> Cut:
    """The pieces of a script whose shell accepts it as a whole."""
    units = _units(program) if not _lost(program) else _by_lines(program)
    if not units:
        return Cut([], 0)
    spans = bonds(program, [unit.nodes for unit in units], plain_file)
    pieces = _whole_statements(program, _tied(units, spans))
    return Cut(_with_all_lines(pieces, len(program.lines)), len(units))


def _lost(program: Program) -> bool:
    """Whether the parser lost its way among the statements themselves (inside of one it may)."""
    return any(node.type == "ERROR" or node.is_missing for node in program.root.children)


def _units(program: Program) -> list[Unit]:
    found: list[Unit] = []
    for node in program.root.children:
        first, last = first_line(node), last_line(node)
        if found and first <= found[-1].last:
            nodes = found[-1].nodes if node.type == "comment" else (*found[-1].nodes, node)
            found[-1] = Unit(found[-1].first, max(last, found[-1].last), nodes)
        elif node.type != "comment":
            found.append(Unit(first, last, (node,)))
    return found


def _by_lines(program: Program) -> list[Unit]:
    """Statements as the shell sees them. Their nodes come from parsing each alone."""
    found: list[Unit] = []
    start: int | None = None
    for number, line in enumerate(program.lines, 1):
        bare = line.strip()
        if start is None and (not bare or bare.startswith("#")):
            continue
        start = number if start is None else start
        if bare and accepted(program, "\n".join(program.lines[start - 1 : number]) + "\n"):
            found.append(_alone(program, start, number))
            start = None
    if start is not None:
        found.append(_alone(program, start, len(program.lines)))
    return found


def _alone(program: Program, first: int, last: int) -> Unit:
    """Parsed behind as many empty lines as there are lines above it, so that its nodes know where they stand."""
    root = parse("\n" * (first - 1) + "\n".join(program.lines[first - 1 : last]) + "\n")
    return Unit(first, last, tuple(node for node in root.children if node.type != "comment"))


def _tied(units: Sequence[Unit], spans: Sequence[Bond]) -> list[Piece]:
    reach = list(range(len(units)))
    reasons: list[list[str]] = [[] for _ in units]
    for bond in spans:
        reach[bond.first] = max(reach[bond.first], bond.last)
        if bond.why not in reasons[bond.first]:
            reasons[bond.first].append(bond.why)
    pieces, number = [], 0
    while number < len(units):
        end, why, here = number, [], number
        while here <= end:
            end = max(end, reach[here])
            why += [reason for reason in reasons[here] if reason not in why]
            here += 1
        nodes = tuple(node for unit in units[number : end + 1] for node in unit.nodes)
        pieces.append(Piece(units[number].first, units[end].last, nodes, tuple(why)))
        number = end + 1
    return pieces


def _whole_statements(program: Program, pieces: Sequence[Piece]) -> list[Piece]:
    found: list[Piece] = []
    waiting: Piece | None = None
    for piece in pieces:
        here = piece if waiting is None else _joined(waiting, piece, _SYNTAX)
        waiting = None
        if piece is pieces[-1] or accepted(program, "\n".join(program.lines[here.first - 1 : here.last]) + "\n"):
            found.append(here)
        else:
            waiting = here
    return found


def _joined(one: Piece, other: Piece, why: str) -> Piece:
    reasons = dict.fromkeys((*one.why, *other.why, why))
    return Piece(one.first, other.last, one.nodes + other.nodes, tuple(reasons))


def _with_all_lines(pieces: Sequence[Piece], count: int) -> list[Piece]:
    """Each begins behind the one before it; the last goes on to the end."""
    found, at = [], 1
    for piece in pieces:
        found.append(piece._replace(first=at))
        at = piece.last + 1
    found[-1] = found[-1]._replace(last=max(count, found[-1].last))
    return found
