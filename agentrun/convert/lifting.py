"""A script that is one function and a call of it (`main "$@"`): the body of the function as the script's statements.

Only where the script does the same with and without the function: it is called once, as the last thing, with what the
script was given; it does not leave by `return`, and nothing asks how deep it is called. `local` has no place outside of
a function: `local x=1` becomes `x=1`, all else of it `declare`, where nobody else can see the name. Every line keeps
its number; what stood in the function loses its indentation, but for the lines of a string or a here-document.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from .program import Dialect, Program
from .syntax import Node, broken, command_name, first_line, last_line, listed, text, walk, words

_DEPTH = re.compile(
    r"\b(FUNCNAME|BASH_LINENO|BASH_ARGV|BASH_ARGC|caller|alias|functrace|xtrace)\b|\bBASH_SOURCE\[[1-9]"
    r"|\bset\s+-\w*[xTv]"  # what is traced would be other lines
)
_TRAPS = listed("ERR DEBUG RETURN")
_TEXTS = listed("string raw_string ansi_c_string heredoc_body heredoc_end translated_string")
_OWN_WORDS = re.compile(r"^local\s+(?P<name>[a-z_]\w*)=")
_PARAMETERS = re.compile(r"^[0-9@*#]$")
_GUARD = re.compile(r"if\s+\[\[?\s+\"?\$\{BASH_SOURCE(\[0\])?\}\"?\s+==?\s+\"?\$(0|\{0\})\"?\s+\]\]?\s*;?\s*then\s")
_RUNS_TEXT = listed("eval trap xargs export declare unset exec time nohup timeout sudo env parallel bash sh")
_LEAST = 3  # statements that make it worth it


class Lifted(NamedTuple):
    """The script without the function; `first` and `last` are the lines of what was its body."""

    source: str
    name: str
    first: int
    last: int


class _Found(NamedTuple):
    definition: Node
    body: Node
    call: Node  # with what stands around it
    name: str
    given: bool  # it is called with the script's parameters
    last: bool  # nothing follows: its status is the script's


def lifted(program: Program) -> Lifted | None:
    """None where there is nothing to lift, or where it would not be the same."""
    found = _found(program)
    if found is None or not _same(program, found) or (changed := _locals(program, found)) is None:
        return None
    data = program.source.encode()
    for start, end, new in sorted(changed, reverse=True):
        data = data[:start] + new + data[end:]
    lines = data.decode().split("\n")
    first, last = first_line(found.definition), last_line(found.definition)
    begin = first_line(found.body)
    _dedent(lines, range(begin, last - 1), set(_rows_of_texts(found.body)))
    for row in (*range(first - 1, begin), last - 1, *range(first_line(found.call) - 1, last_line(found.call))):
        lines[row] = ""
    source = "\n".join(lines)
    if not _holds_the_same(found.body, source, program.dialect, first, last):
        return None
    return Lifted(source, found.name, begin + 1, last - 1)


def _rows_of_texts(body: Node) -> Iterator[int]:
    """Lines, counted from 0, that begin in a string or a here-document."""
    for node in walk(body):
        if node.type in _TEXTS:
            begin = node.start_point.row + (0 if node.type.startswith("heredoc") else 1)
            yield from range(begin, node.end_point.row + (node.end_point.column > 0))


def _dedent(lines: list[str], inner: range, texts: Container[int]) -> None:
    wide = [len(lines[row]) - len(lines[row].lstrip()) for row in inner if lines[row].strip() and row not in texts]
    for row in inner:
        if row not in texts:
            blank = len(lines[row]) - len(lines[row].lstrip())
            lines[row] = lines[row][min(min(wide, default=0), blank) :]


def _found(program: Program) -> _Found | None:
    nodes = [node for node in program.root.children if node.type != "comment"]
    if len(nodes) < 2 or broken(program.root):
        return None
    ends = nodes[-1].type == "command" and text(nodes[-1]) in ("exit", "exit 0", "exit $?")
    definition, call = nodes[-3:-1] if ends and len(nodes) > 2 else nodes[-2:]
    command = _guarded(call) or call
    body = definition.child_by_field_name("body")
    if not program.defines(definition) or body is None or body.type != "compound_statement":
        return None
    said = [text(word) for word in words(command)] if command.type == "command" else []
    name = text(node) if (node := definition.child_by_field_name("name")) is not None else ""
    if not said or said[0] != name or said[1:] not in ([], ['"$@"']) or text(command) != " ".join(said):
        return None
    alone = [text(one) for one in body.children if one.start_point.row in (body.start_point.row, body.end_point.row)]
    if alone != ["{", "}"] or definition.end_byte != body.end_byte or len(program.functions.get(name, ())) != 1:
        return None
    count = sum(one.type != "comment" for one in body.named_children)
    if body.end_point.row >= call.start_point.row or count < _LEAST:
        return None
    return _Found(definition, body, call, name, bool(said[1:]), last=call is nodes[-1])


def _guarded(node: Node) -> Node | None:
    """The call in `if [[ "${BASH_SOURCE[0]}" == "$0" ]]`, which a script that is run always makes."""
    if node.type != "if_statement" or not _GUARD.match(text(node)) or "else" in {one.type for one in node.children}:
        return None
    inner = [one for one in node.named_children if one.type != "comment"][1:]
    return inner[0] if len(inner) == 1 else None


def _same(program: Program, found: _Found) -> bool:
    """Whether nothing in the script can tell that there was a function."""
    named = re.compile(rf"(?<![\w-]){re.escape(found.name)}(?![\w-])")
    if _DEPTH.search(program.source):
        return False
    for node in walk(program.root):
        if node.type != "command" or node.start_byte >= found.call.start_byte:
            continue
        name, said = command_name(node), text(node)
        if name == found.name or (name in _RUNS_TEXT and named.search(said)):
            return False
        if name == "trap" and ({text(word) for word in words(node)} & _TRAPS or re.search(r"\$\{?[0-9@*#]", said)):
            return False
    return all(_same_outside(found, node) for node in walk(found.body))


def _same_outside(found: _Found, node: Node) -> bool:
    """Whether this part of the body does the same outside of a function."""
    if node.type == "function_definition":
        return False
    if node.type in ("variable_name", "special_variable_name"):
        return found.given or _PARAMETERS.match(text(node)) is None
    if node.type != "command":
        return True
    name = command_name(node)
    if name == "return":
        return found.last and node.id == _last(found).id
    return found.given or name not in ("shift", "getopts", "set")


def _last(found: _Found) -> Node:
    return [one for one in found.body.named_children if one.type != "comment"][-1]


def _locals(program: Program, found: _Found) -> list[tuple[int, int, bytes]] | None:
    """What takes the place of each `local`; None where somebody could tell."""
    changed: list[tuple[int, int, bytes]] = []
    last = _last(found)
    if last.type == "command" and command_name(last) == "return":
        changed.append((last.start_byte, last.start_byte + len("return"), b"exit"))
    for node in walk(found.body):
        if node.type != "declaration_command" or text(node.children[0]) not in ("local", "declare", "typeset"):
            continue
        said, kind = text(node), text(node.children[0])
        if re.match(r"\w+\s+-\w*[gfF]", said):
            continue
        names = list(_declared(node))
        if not all(names) or any(_seen_elsewhere(program, found, name) for name in names):
            return None
        if kind != "local":
            continue
        start = node.start_byte
        values = [one for one in node.named_children if one.type == "variable_assignment"]
        plain = _OWN_WORDS.match(said) is not None and len(names) == len(values) == 1
        if plain and not any(one.type == "command_substitution" for one in walk(values[0])):
            changed.append((start, values[0].start_byte, b""))
        elif program.dialect == "bash":
            changed.append((start, start + len("local"), b"declare"))
        else:
            return None
    return changed


def _declared(node: Node) -> Iterator[str]:
    for child in node.named_children:
        if child.type == "variable_name":
            yield text(child)
        elif child.type == "variable_assignment":
            yield text(child.children[0]).split("[")[0]
        elif child.type == "word" and text(child).startswith("-") and text(child) != "-":
            continue
        else:
            yield ""


def _seen_elsewhere(program: Program, found: _Found, name: str) -> bool:
    """Whether the name may mean something outside of the function: to other code, or to the shell and to programs."""
    if re.fullmatch(r"(?!.*_proxy$)[a-z_]*[a-z][a-z0-9_]*", name) is None:
        return True
    for node in walk(program.root):
        known = node.type == "command" and command_name(node) in ("trap", "eval")
        if known and re.search(rf"\b{name}\b", text(node)):
            return True  # it runs when the function has ended
    data = program.source.encode()
    apart = [found.definition]
    apart += [one for several in program.functions.values() for one in several if _has_local(one, name)]
    outside, at = b"", 0
    for node in sorted({one.id: one for one in apart}.values(), key=lambda one: one.start_byte):
        outside += data[at : node.start_byte]
        at = max(at, node.end_byte)
    outside += data[at:]
    return re.search(rf"\b{name}\b", "\n".join(_without_comments(outside.decode()))) is not None


def _has_local(definition: Node, name: str) -> bool:
    return any(name in _declared(node) for node in walk(definition)
               if node.type == "declaration_command" and text(node.children[0]) == "local")  # fmt: skip


def _without_comments(source: str) -> Iterator[str]:
    return (line for line in source.split("\n") if not line.lstrip().startswith("#"))


def _holds_the_same(body: Node, source: str, dialect: Dialect, first: int, last: int) -> bool:
    """Whether the lines say now what the body said: the same words in the same order."""
    now = [one for node in Program(source, dialect).root.children if first <= first_line(node) <= last
           for one in _leaves(node)]  # fmt: skip
    before = [one for node in body.children[1:-1] for one in _leaves(node)]
    return _plain(now) == _plain(before)


def _leaves(node: Node) -> Iterator[str]:
    yield from (text(one) for one in walk(node) if not one.children and text(one).strip())


def _plain(leaves: Sequence[str]) -> list[str]:
    return [one for one in leaves if one not in ("local", "declare", "return", "exit", ";", "\n")]


__all__ = ["Lifted", "lifted"]
