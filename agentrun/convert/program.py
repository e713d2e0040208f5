"""A shell script as its converter sees it: lines, tree, functions, and what a statement really does when it runs.

What a statement does is more than what stands in it: it calls functions of the script, and a function calls others.
`executed` walks both; what is only defined (a function) or only said (the text of a trap) is not run by the statement
that defines or says it. `actions` are the texts of traps and of `eval`, parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

from .syntax import Node, arguments, command_name, commands, literal, parse, text, walk, words

Dialect = Literal["bash", "sh"]

# Commands whose argument is another command, with those of their options that take a value.
_PREFIXES = {
    "sudo": ("-u", "-g", "-h", "-p", "-C", "-U", "--user", "--group"), "doas": ("-u",), "env": ("-u", "-C", "-S"),
    "nice": ("-n",), "ionice": ("-c", "-n"), "chrt": (), "nohup": (), "setsid": (), "time": ("-f", "-o"),
    "command": (), "builtin": (), "exec": ("-a",), "timeout": ("-k", "-s"), "stdbuf": ("-o", "-e", "-i"),
    "eatmydata": (), "cronic": (), "chronic": (), "trickle": ("-u", "-d"), "caffeinate": (), "busybox": (),
    "runuser": ("-u",),
}  # fmt: skip
_AFTER = {"timeout": 1, "chrt": 1}  # words of theirs before the command


_READONLY = re.compile(r"\b(readonly\s+-\w*f|(declare|typeset)\s+-(\w*f\w*r|\w*r\w*f))")


class Action(NamedTuple):
    """What `trap` or `eval` will run: the tree of its text, or None where that is not known."""

    command: Node
    kind: Literal["trap", "eval"]
    tree: Node | None
    signals: tuple[str | None, ...] = ()


class Program:
    """`source` without the line of the interpreter has the same lines: that one is empty."""

    def __init__(self, source: str, dialect: Dialect) -> None:
        self.source = source
        self.dialect = dialect
        self.lines = source.split("\n")
        if self.lines and not self.lines[-1]:
            self.lines.pop()
        self.root = parse(source)

    @property
    def checker(self) -> tuple[str, ...]:
        """The shell that says whether a text is right."""
        if self.dialect == "sh":
            return ("sh",)
        # with -n nothing is run that could switch it on
        return ("bash", "-O", "extglob") if "extglob" in self.source else ("bash",)

    @cached_property
    def functions(self) -> dict[str, list[Node]]:
        """Every definition, wherever it stands, by name."""
        found: dict[str, list[Node]] = {}
        for node in walk(self.root):
            name = node.child_by_field_name("name") if self.defines(node) else None
            if name is not None:
                found.setdefault(text(name), []).append(node)
        return found

    def defines(self, node: Node) -> bool:
        """Whether it defines a function. `function` is no word of sh: a command that is not found, and then a group."""
        return node.type == "function_definition" and (self.dialect == "bash" or not text(node).startswith("function"))

    @cached_property
    def hands_on_text(self) -> bool:
        """Whether functions are given to later steps as they stand in the script, which keeps their line numbers.

        In bash not where one is made readonly: it cannot be defined a second time.
        """
        return self.dialect == "sh" or _READONLY.search(self.source) is None

    @cached_property
    def enders(self) -> frozenset[str]:
        """Functions that end the script, whatever is said to them: `die`, `usage`, `fail`."""
        found = set()
        for name, definitions in self.functions.items():
            for body in (one.child_by_field_name("body") for one in definitions):
                last = [child for child in body.named_children if child.type != "comment"][-1:] if body else []
                if last and last[0].type == "command" and command_name(last[0]) == "exit":
                    found.add(name)
        return frozenset(found)

    def executed(self, node: Node, seen: set[str] | None = None) -> Iterator[Node]:
        """All that runs when the node does: functions that it calls included, those that it defines left out."""
        seen = set() if seen is None else seen
        waiting = [node]
        while waiting:
            here = waiting.pop()
            if self.defines(here):
                continue
            yield here
            waiting += reversed(here.children)
            if here.type == "command":
                yield from self._called(here, seen)

    def _called(self, command: Node, seen: set[str]) -> Iterator[Node]:
        name = command_name(command)
        if name in self.functions and name not in seen:
            seen.add(name)
            for definition in self.functions[name]:
                body = definition.child_by_field_name("body")
                if body is not None:
                    yield from self.executed(body, seen)

    def runs(self, node: Node) -> Iterator[Node]:
        """The simple commands among them."""
        for here in self.executed(node):
            if here.type in ("command", "declaration_command", "unset_command", "test_command"):
                yield here

    def actions(self, node: Node) -> Iterator[Action]:
        """What the node's `trap` and `eval` commands will run."""
        for command in self.runs(node):
            name = command_name(command)
            if name == "trap":
                said = words(command)[1:]
                if said and literal(said[0]) == "--":
                    said = said[1:]
                if len(said) > 1 and literal(said[0]) != "-":
                    yield Action(command, "trap", _tree(said[0]), tuple(literal(word) for word in said[1:]))
            elif name == "eval":
                said = words(command)[1:]
                yield Action(command, "eval", _tree(said[0]) if len(said) == 1 else None)


def _tree(word: Node) -> Node | None:
    said = literal(word)
    if said is None and word.type == "string":  # expanded when it is set, but its commands are seen
        said = text(word)[1:-1].replace('\\"', '"').replace("\\$", "$")
    return None if said is None else parse(said)


def peeled(command: Node) -> list[Node]:
    """The words of what is really called, behind `sudo`, `nice -n 19`, `timeout 5` and their like."""
    left = words(command)
    while left:
        name = (literal(left[0]) or "").rsplit("/", 1)[-1]
        if name not in _PREFIXES:
            return left
        rest = left[1:]
        while rest:
            said = literal(rest[0]) or text(rest[0])
            if said in _PREFIXES[name]:
                rest = rest[2:]
            elif said.startswith("-") or (name in ("env", "sudo") and "=" in said):
                rest = rest[1:]
            else:
                break
        rest = rest[_AFTER.get(name, 0) :]
        if not rest:
            return left
        left = rest
    return left


def called(command: Node) -> tuple[str, list[str]]:
    """Name (without its folder) and arguments of what is really called; an argument that is not known as it stands."""
    if command.type != "command":
        return command_name(command), [one or "" for one in arguments(command)]
    found = peeled(command)
    if not found:
        return "", []
    name = literal(found[0])
    return (name if name is not None else text(found[0])).rsplit("/", 1)[-1], [
        said if (said := literal(word)) is not None else text(word) for word in found[1:]
    ]


def mentioned(node: Node) -> set[str]:
    """Names of variables that stand in it, whether read or written."""
    return {text(here) for here in walk(node) if here.type == "variable_name"}


__all__ = ["Action", "Dialect", "Program", "called", "commands", "mentioned", "peeled"]
