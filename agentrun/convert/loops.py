"""`--loops`: a `for` over a known list becomes a step with `foreach`, where each round is known not to need another.

Only what can be proved is offered. The list is known from the text: words, or a variable that is assigned once, from
words. The body is its own world: it changes nothing of the shell that the rest of the script or the next round reads,
and does not leave the loop. An instance begins with the state before the loop, and the step after it does, too.
Everything else stays a loop, and `why` says what stood in the way.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .groups import Group, grouped
from .program import Program
from .statements import Piece
from .syntax import Node, assignments, command_name, fields, first_line, is_background, listed, literal, text, walk

_LEAVES = listed("exit return break continue exec")
_CHANGES_SHELL = listed(
    "cd pushd popd set shopt trap umask alias unalias shift read mapfile readarray source . eval let getopts wait"
)


class Loop(NamedTuple):
    """`why`: what keeps it a loop; else the rest says what the step is."""

    line: int
    why: str
    variable: str = ""
    items: tuple[str, ...] = ()
    text: str = ""
    text_line: int = 1
    stops: bool = False  # at the first round that fails


def divided(program: Program, pieces: Sequence[Piece]) -> list[Group]:
    """Groups in which a loop that is offered stands alone."""
    found: list[Group] = []
    before: list[Piece] = []
    for piece in pieces:
        loop = _loop(piece)
        if loop is not None and not offered(program, piece, pieces).why:
            found += grouped(program, before) if before else []
            found += grouped(program, [piece])
            before = []
        else:
            before.append(piece)
    return found + (grouped(program, before) if before else [])


def _loop(piece: Piece) -> Node | None:
    return piece.nodes[0] if len(piece.nodes) == 1 and piece.nodes[0].type == "for_statement" else None


def is_loop(piece: Piece) -> bool:
    """Whether the piece is a `for` over a list and nothing else."""
    return _loop(piece) is not None


def offered(program: Program, piece: Piece, pieces: Sequence[Piece]) -> Loop:
    """What becomes of the loop that the piece is."""
    loop = piece.nodes[0]
    line = first_line(loop)
    variable, body = loop.child_by_field_name("variable"), loop.child_by_field_name("body")
    if variable is None or body is None or text(loop).startswith("select"):
        return Loop(line, "it has no list")
    items = _items(program, loop.children_by_field_name("value"))
    if items is None:
        return Loop(line, "its list is known only when it runs")
    if len(set(items)) != len(items) or not items:
        return Loop(line, "its list is empty, or names something twice")
    stops = _stops_at_errors(program)
    later = [node for one in pieces for node in one.nodes if node.start_byte > loop.start_byte]
    why = _needs_others(program, body, text(variable), later)
    if not why and not stops and not later:
        why = "its last round is the status of the script"
    if why:
        return Loop(line, why)
    start, end = body.start_point.row + 1, body.end_point.row
    if body.end_point.row - body.start_point.row < 2 or text(body).split("\n")[0].strip() != "do":
        return Loop(line, "it stands on one line")
    inner = textwrap.dedent("\n".join(program.lines[start:end]) + "\n")
    above = "".join(each + "\n" for each in program.lines[piece.first - 1 : loop.start_point.row] if each.strip())
    return Loop(line, "", text(variable), tuple(items), above + inner, start + 1 - above.count("\n"), stops)


def _items(program: Program, values: Sequence[Node]) -> list[str] | None:
    found: list[str] = []
    for value in values:
        if fields(value):
            found.append(literal(value) or "")
            continue
        names = [text(here) for here in walk(value) if here.type == "variable_name"]
        assigned = _assigned_once(program, names[0]) if len(names) == 1 else None
        array = text(value).strip('"') == f"${{{names[0]}[@]}}" if names else False
        plain = bool(names) and text(value) in (f"${names[0]}", f"${{{names[0]}}}")
        if assigned is None or not (array if assigned.type == "array" else plain):
            return None
        if assigned.type == "array":
            if not all(map(fields, assigned.named_children)):
                return None
            found += [literal(one) or "" for one in assigned.named_children]
        else:
            known = literal(assigned)
            if known is None or "IFS" in program.source or any(char in known for char in "*?["):
                return None
            found += known.split()
    return found


def _assigned_once(program: Program, name: str) -> Node | None:
    values = [value for node in walk(program.root) if node.type == "variable_assignment"
              for known, value in assignments(node) if known == name]  # fmt: skip
    read = any(
        name in text(node)
        for node in walk(program.root)
        if node.type == "command" and command_name(node) in ("read", "mapfile", "readarray", "unset", "getopts")
    )
    return values[0] if len(values) == 1 and not read else None


def _stops_at_errors(program: Program) -> bool:
    said = [text(node) for node in program.root.children if node.type == "command" and command_name(node) == "set"]
    return any(re.match(r"set\s+-\w*e|set\s.*-o\s+errexit", one) for one in said)


def _changes_shell(program: Program, node: Node) -> str:
    if node.type in ("function_definition", "postfix_expression") or is_background(node):
        return "it counts, defines a function or starts a job"
    if node.type == "unary_expression" and re.match(r"\+\+|--", text(node)):
        return "it counts"
    if node.type != "command":
        return ""
    name = command_name(node)
    if name in _LEAVES:
        return f"it may end with `{name}`"
    if name in _CHANGES_SHELL:
        return f"`{name}` changes the shell for the next round"
    if name in program.functions and any(here.type == "variable_assignment" for here in program.executed(node)):
        return f"the function {name} assigns variables"
    return ""


def _is_assigned(name: Node) -> bool:
    parent = name.parent
    return parent is not None and parent.type == "variable_assignment" and parent.children[0].id == name.id


def _needs_others(program: Program, body: Node, variable: str, later: Sequence[Node]) -> str:
    assigned: set[str] = {variable}
    early: set[str] = set()
    for here in walk(body):
        why = _changes_shell(program, here)
        if why:
            return why
        if here.type == "variable_assignment":
            name, how = text(here.children[0]), text(here.children[1]) if len(here.children) > 1 else ""
            own = any(
                one.type == "variable_name" and text(one) == name for child in here.children[1:] for one in walk(child)
            )
            itself = own and name not in assigned
            if how == "+=" or itself or name in early or here.children[0].type != "variable_name":
                return f"a round goes on with the {name} of the one before it"
            assigned.add(name)
        elif here.type == "variable_name" and not _is_assigned(here) and text(here) not in assigned:
            early.add(text(here))
    used = {text(one) for node in later for one in program.executed(node) if one.type == "variable_name"}
    read_later = sorted(used & assigned)
    return f"{read_later[0]} is read after it" if read_later else ""
