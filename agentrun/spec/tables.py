"""Mappings with known keys: a `Table` of `Field`s is itself a kind, and reads a node into an `Entry`.

An entry keeps the nodes beside the values, for whoever checks later what one value alone does not show. A key
that the table does not have is never ignored: the problem says where it belongs, or what was meant, or what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model import JSON
from .document import MapNode, Node, Scalar
from .kinds import Kind, unique_pairs
from .nearest import distance, nearest
from .report import INVALID, Report

# What other tools call the keys that we have; a table takes the first that is one of its own.
_ELSEWHERE = {
    "command": ("run",), "cmd": ("run",), "script": ("run",), "exec": ("run",), "bash": ("run",),
    "retries": ("retry", "max_attempts"), "attempts": ("retry", "max_attempts"), "delay": ("interval",),
    "depends_on": ("needs",), "depends": ("needs",), "after": ("needs",), "requires": ("needs",),
    "environment": ("env",), "variables": ("env",), "args": ("with",), "arguments": ("with",),
    "parameters": ("params",), "inputs": ("params", "with"), "cwd": ("working_dir",), "workdir": ("working_dir",),
    "working_directory": ("working_dir",), "tasks": ("steps",), "jobs": ("steps",), "condition": ("if",),
    "allow_failure": ("continue_on_error",), "ignore_errors": ("continue_on_error",), "title": ("name",),
    "concurrency_limit": ("max_parallel",), "for_each": ("foreach",), "each": ("foreach",), "matrix": ("foreach",),
    "with_items": ("foreach",), "strategy": ("foreach",), "loop": ("repeat", "foreach"), "while": ("until", "repeat"),
    "max_iterations": ("max",), "max_rounds": ("max",), "limits": ("budget",), "resources": ("budget",),
    "uses": ("job",), "workflow": ("job",), "mem": ("memory",), "ram": ("memory",), "pids": ("processes",),
    "price": ("cost",), "money": ("cost",),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A key of a table: what it expects, and what people read about it.

    `default` is in words, "" where there is none. `attribute` is its name in the model where that is another. `why`
    says to whoever left it out why it is required.
    `references`: whether `${{ }}` is replaced in its values ("values"), or its text is a program ("program").
    """

    name: str
    kind: Kind
    doc: str
    example: str
    default: str = ""
    attribute: str = ""
    required: bool = False
    references: str = ""
    why: str = ""


class Entry:
    """A table as read: the valid values by key, and the nodes of all known keys. Missing keys are missing."""

    __slots__ = ("keys", "node", "nodes", "unclear", "values")

    def __init__(self, node: MapNode) -> None:
        self.node = node
        self.values: dict[str, Any] = {}
        self.keys: dict[str, Scalar] = {}
        self.nodes: dict[str, Node] = {}
        self.unclear = False  # a wrong key may have been meant as the one that is missing

    def __contains__(self, key: str) -> bool:
        return key in self.keys


@dataclass(frozen=True)
class Table(Kind):
    """A mapping with known keys. `owners` says for every key of every table where it belongs."""

    what: str
    title: str
    fields: Mapping[str, Field]
    planned: frozenset[str] = frozenset()
    owners: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, JSON] = field(default_factory=dict)  # what its schema says beyond the fields
    absent: Mapping[str, str] = field(default_factory=dict)  # keys that are looked for here, and why there are none

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not MapNode:
            return self.refuse(node, label, report)
        entry = Entry(node)
        for key, value in unique_pairs(node, report):
            known = self.fields.get(key.text)
            if known is None:
                self.refuse_key(key, entry, report)
                continue
            entry.keys[known.name] = key
            entry.nodes[known.name] = value
            read = known.kind.read(value, known.name, report)
            if read is not INVALID:
                entry.values[known.name] = read
        for known in self.fields.values():
            if known.required and known.name not in entry.keys and not entry.unclear:
                report.add(node.mark, f"{self.title} needs '{known.name}'", known.why or f"as {known.example}")
        return entry

    def refuse_key(self, key: Scalar, entry: Entry, report: Report) -> None:
        """A key that this table does not have: say where it belongs, or what was meant, or what there is."""
        name, hint = key.text, None
        close = nearest(name, self.fields) or self.called_elsewhere(name)
        entry.unclear |= name == "<<" or name in self.planned or close is not None
        if name == "<<":
            message = "merge keys are not read"
            hint = "what steps have in common goes into 'defaults'; an alias can stand for a whole value"
        elif name in self.planned:
            message = f"unknown key '{name}': not built yet"
        elif name in self.absent:
            message, hint = f"{self.title} has no '{name}'", self.absent[name]
        elif name in self.owners and (close is None or distance(name, close) > 1):
            message = f"'{name}' is a key of {self.owners[name]}, not of {self.title}"
        elif close is not None:
            message = f"unknown key '{name}' (did you mean '{close}'?)"
        else:
            message = f"unknown key '{name}'"
            hint = f"the keys of {self.title}: {', '.join(self.fields)}"
        report.add(key.mark, message, hint)

    def called_elsewhere(self, name: str) -> str | None:
        """Our key for what other tools call so, or nearly so."""
        other = nearest(name, _ELSEWHERE)
        return next((key for key in _ELSEWHERE[other] if key in self.fields), None) if other else None

    def schema(self) -> dict[str, JSON]:
        properties: dict[str, JSON] = {}
        for known in self.fields.values():
            default = f" Default: {known.default}." if known.default else ""
            properties[known.name] = known.kind.schema() | {"description": known.doc + default}
        required = [known.name for known in self.fields.values() if known.required]
        shape: dict[str, JSON] = {"type": "object", "properties": properties, "additionalProperties": False}
        return shape | ({"required": required} if required else {}) | dict(self.rules)


@dataclass(frozen=True)
class ScalarOr(Kind):
    """A scalar of one kind, or a mapping with more in it."""

    scalar: Kind
    table: Table

    @property
    def what(self) -> str:  # type: ignore[override]
        return f"{self.scalar.what}, or {self.table.what}"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is MapNode:
            return self.table.read(node, label, report)
        if type(node) is not Scalar or node.is_null:
            return self.refuse(node, label, report)
        return self.scalar.read(node, label, report)

    def schema(self) -> dict[str, JSON]:
        return {"anyOf": [self.scalar.schema(), self.table.schema()]}
