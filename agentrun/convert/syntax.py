"""Shell text as a tree: the one owner of tree-sitter-bash, loaded by whoever converts something and by nobody else.

A tree is made of `Node`s (tree-sitter's own). What others need of them is answered here: which statements stand at
the top, which commands stand below a node and what their words are, what a word says where nothing in it is expanded,
which lines a node covers. The parser never refuses: what it does not understand is a node that `broken` tells; then
only the shell itself (`accepts`) can say whether the text is right.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

__all__ = [
    "SUBSHELLS", "Node", "accepts", "arguments", "assignments", "broken", "command_name", "commands", "fields",
    "first_line", "is_background", "last_line", "listed", "literal", "parse", "redirects", "text", "walk", "words",
]  # fmt: skip

SUBSHELLS = frozenset(("subshell", "command_substitution", "process_substitution"))

_LITERALS = frozenset(("word", "number", "file_descriptor", "heredoc_start", "extglob_pattern", "regex"))
_ESCAPE = re.compile(r"\\(\n|.)", re.DOTALL)
_IN_QUOTES = re.compile(r"\\(\n|[$`\"\\])")


def listed(names: str) -> frozenset[str]:
    """Names of a table, as they stand in it: between blanks."""
    return frozenset(names.split())


@lru_cache(1)
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))


def parse(source: bytes | str) -> Node:
    """The program that the text is. Bytes are taken for UTF-8; positions of nodes count bytes."""
    return _parser().parse(source.encode() if isinstance(source, str) else source).root_node


def broken(node: Node) -> bool:
    """Whether the parser did not understand something in it: its structure is a guess."""
    return node.has_error


def text(node: Node) -> str:
    """What stands in the source, as it stands there."""
    return (node.text or b"").decode(errors="replace")


def first_line(node: Node) -> int:
    """Counted from 1."""
    return node.start_point.row + 1


def last_line(node: Node) -> int:
    """Counted from 1; a line break at its very end is not of the next line."""
    end = node.end_point
    return max(end.row + (1 if end.column else 0), first_line(node))


def walk(node: Node, without: Container[str] = ()) -> Iterator[Node]:
    """The node and all below it, in the order of the text. Below nodes of the types `without` nothing is looked at."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if here is not node and here.type in without:
            continue
        yield here
        waiting += reversed(here.children)


def is_background(node: Node) -> bool:
    """Whether it is the `&` that starts a job, not that of arithmetic."""
    return node.type == "&" and node.parent is not None and not node.parent.type.endswith("_expression")


def commands(node: Node, without: Container[str] = ()) -> Iterator[Node]:
    """Every simple command in it: `command`, `declaration_command` (export, local), `unset_command`, `test_command`."""
    for here in walk(node, without):
        if here.type in ("command", "declaration_command", "unset_command", "test_command"):
            yield here


def words(command: Node) -> list[Node]:
    """The name of a simple command and its arguments, without assignments before it and redirections."""
    if command.type == "command":
        name = command.child_by_field_name("name")
        if name and name.prev_sibling and name.prev_sibling.end_byte == name.start_byte:
            return []  # the end of the value in `A=$B.gz`, which the parser takes for a command
        first = [name.children[0] if name.children else name] if name else []
        return first + command.children_by_field_name("argument")
    return [child for child in command.children if child.type != "comment"]


def command_name(command: Node) -> str:
    """What is called: empty where it is not known before it runs."""
    if command.type != "command":  # a word of the language
        return text(command.children[0])
    found = words(command)
    return (literal(found[0]) or "") if found else ""


def arguments(command: Node) -> list[str | None]:
    """The arguments of a simple command; None for what is not known before it runs."""
    return [literal(word) for word in words(command)[1:]]


def assignments(node: Node) -> Iterator[tuple[str, Node | None]]:
    """Names that are assigned directly by this statement or command, with their values (None: emptied)."""
    inner = node.children if node.type in ("command", "declaration_command", "variable_assignments") else [node]
    for child in inner:
        if child.type == "variable_assignment":
            name = child.child_by_field_name("name")
            if name is not None:
                yield text(name), child.child_by_field_name("value")


def redirects(statement: Node) -> list[Node]:
    """The redirections of a command or of a compound one, whichever node they hang from."""
    holder = statement
    if statement.parent is not None and statement.parent.type == "redirected_statement":
        holder = statement.parent
    found = holder.children_by_field_name("redirect")
    return found + (statement.children_by_field_name("redirect") if holder is not statement else [])


def literal(word: Node) -> str | None:
    """What a word says, with its quotes taken off. None where the shell would put something in its place."""
    kind, written = word.type, text(word)
    if kind in _LITERALS:
        return None if "$" in written or "`" in written else _ESCAPE.sub(_unescaped, written)
    if kind == "raw_string":
        return written[1:-1]
    if kind == "ansi_c_string":
        return None if "\\" in written else written[2:-1]
    if kind == "string":
        inner = written[1:-1]
        if any(child.type not in ("string_content", '"') for child in word.children):
            return None
        return _IN_QUOTES.sub(_unescaped, inner)
    if kind in ("concatenation", "command_name"):
        parts = [literal(child) for child in word.children]
        return None if None in parts or not parts else "".join(part for part in parts if part is not None)
    return None


def fields(word: Node) -> bool:
    """Whether the word is one of a list as it stands: no expansion, no pattern, no braces, no `~`."""
    return literal(word) is not None and not (
        word.type in ("word", "concatenation") and any(char in text(word) for char in "*?[{~")
    )


def _unescaped(found: re.Match[str]) -> str:
    return "" if found[1] == "\n" else found[1]


def accepts(shell: Sequence[str], source: str, *, warnings: bool = False) -> bool:
    """Whether the shell reads the text to its end (`-n`: nothing is run); `warnings`: even if it says something of it.

    A shell that is not there accepts everything: nothing can be said.
    """
    try:
        done = subprocess.run(
            [*shell, "-n"], input=source.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )  # fmt: skip
    except OSError:
        return True
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and (warnings or not done.stderr)
