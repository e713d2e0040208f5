"""YAML text to a tree of nodes that remember where they stand, within limits.

Built from the parser's events instead of its own composer: that one recurses in C and dies of `[[[[…`, it keeps
the last of two equal keys, and it knows no limits. Here nothing is resolved: a scalar is its text, and the key
that it stands under decides what it means (`on`, `0755`, `1.10` stay what they are). libyaml's parser is used
where PyYAML was built with it, else the Python one; both give the same events.

Limits: text of 4 MiB, 32 levels, 500,000 nodes, all counted with aliases expanded. An alias is the very node it
names; one that stands inside of what it names is refused. Tags are refused. A merge key `<<` is a key like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from .report import Mark, Report

MAX_TEXT: Final = 4 * 2**20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 500_000

# What YAML 1.2 (5.1, "printable characters") leaves out.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
FASTEST: Final[Any] = getattr(yaml, "CLoader", yaml.Loader)  # only asked for events: nothing is constructed


class Scalar:
    """A text, and how it was written: `style` is "" for plain, else the quote, `|` or `>`."""

    __slots__ = ("mark", "style", "text")

    def __init__(self, mark: Mark, text: str, style: str) -> None:
        self.mark = mark
        self.text = text
        self.style = style

    @property
    def is_null(self) -> bool:
        return not self.style and self.text in _NULLS


class ListNode:
    __slots__ = ("items", "mark")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.items: list[Node] = []


class MapNode:
    """Pairs in the order of the file; equal keys are still both there."""

    __slots__ = ("mark", "pairs")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.pairs: list[tuple[Node, Node]] = []


Node = Scalar | ListNode | MapNode


def read(report: Report, parser: Any = FASTEST) -> Node:
    """The one document of the text. Raises JobFileError with the one problem that ends the reading."""
    if len(report.text) > MAX_TEXT:
        report.add_at(0, 0, "the file is larger than 4 MiB")
        report.stop()
    odd = _UNPRINTABLE.search(report.text)
    if odd:
        hint = 'in "double quotes" it can be written as \\xNN'
        report.add_offset(odd.start(), f"control character U+{ord(odd[0]):04X}", hint)
        report.stop()
    try:
        return _Reader(report, parser).document()
    except yaml.YAMLError as error:
        _explain(report, error)
        report.stop()


class _Reader:
    def __init__(self, report: Report, parser: Any) -> None:
        self.report = report
        self.next: Callable[[], Any] = parser(report.text).get_event  # an event of the parser's classes
        self.nodes = 0       # aliases expanded
        self.deepest = 0     # level reached since it was last set
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}  # node, its nodes, its levels; None: still open

    def document(self) -> Node:
        self.next()  # the stream
        first = self.next()
        if type(first) is StreamEndEvent:
            self.refuse(first, "the file is empty")
        root = self.node(self.next(), 1)
        self.next()  # the document's end
        last = self.next()
        if type(last) is not StreamEndEvent:
            self.refuse(last, "a job file holds one document, and here begins a second")
        return root

    def node(self, event: Any, depth: int) -> Node:
        """The node that begins with this event, and all below it."""
        if type(event) is AliasEvent:
            return self.alias(event, depth)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.refuse(event, f"more than {MAX_NODES} values")
        if depth > self.deepest:
            self.deepest = depth
            if depth > MAX_DEPTH:
                self.refuse(event, f"nested more than {MAX_DEPTH} levels deep")
        if event.tag and event.tag != "!":
            self.refuse(event, "tags are not read", "without it: the key decides what a value is")
        if event.anchor is not None:
            return self.anchored(event, depth)
        return self.content(event, depth)

    def content(self, event: Any, depth: int) -> Node:
        mark: Mark = event.start_mark
        kind = type(event)
        if kind is ScalarEvent:
            if event.style == '"' and _SURROGATE.search(event.value):  # the Python parser lets it through
                self.refuse(event, "half of a character: an escape from \\ud800 to \\udfff stands for nothing alone")
            return Scalar(mark, event.value, event.style or "")
        following = self.next
        if kind is SequenceStartEvent:
            sequence = ListNode(mark)
            while type(event := following()) is not SequenceEndEvent:
                sequence.items.append(self.node(event, depth + 1))
            return sequence
        mapping = MapNode(mark)
        while type(event := following()) is not MappingEndEvent:
            key = self.node(event, depth + 1)
            mapping.pairs.append((key, self.node(following(), depth + 1)))
        return mapping

    def anchored(self, event: Any, depth: int) -> Node:
        """A node with an anchor: how large and how deep it is counts again for each of its aliases."""
        self.anchors[event.anchor] = None
        nodes, deepest, self.deepest = self.nodes, self.deepest, depth
        node = self.content(event, depth)
        self.anchors[event.anchor] = (node, self.nodes - nodes + 1, self.deepest - depth)
        self.deepest = max(deepest, self.deepest)
        return node

    def alias(self, event: Any, depth: int) -> Node:
        if event.anchor not in self.anchors:
            self.refuse(event, f"unknown alias '*{event.anchor}'", "in quotes, if it is meant as text")
        target = self.anchors[event.anchor]
        if target is None:
            self.refuse(event, f"the alias '*{event.anchor}' stands inside of what it names")
        node, nodes, levels = target
        self.nodes += nodes
        self.deepest = max(self.deepest, depth + levels)
        if self.nodes > MAX_NODES:
            self.refuse(event, f"more than {MAX_NODES} values, with all aliases expanded")
        if self.deepest > MAX_DEPTH:
            self.refuse(event, f"nested more than {MAX_DEPTH} levels deep, with all aliases expanded")
        return node

    def refuse(self, event: Any, message: str, hint: str | None = None) -> NoReturn:
        self.report.add(event.start_mark, message, hint)
        self.report.stop()


def _explain(report: Report, error: yaml.YAMLError) -> None:
    """The parser's complaint, with what usually is behind it."""
    mark = isinstance(error, yaml.MarkedYAMLError) and (error.problem_mark or error.context_mark)
    if not isinstance(error, yaml.MarkedYAMLError) or not mark:
        report.add_at(0, 0, f"not YAML: {error}")
        return
    lines = report.text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = None
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = "indent with spaces: YAML takes no tabs there"
    elif "${{" in line:
        hint = 'put the reference in quotes: "${{ ... }}"'
    elif error.problem and "mapping values are not allowed" in error.problem:
        hint = "a text with ': ' in it needs quotes, or '|' and lines of its own"
        if re.fullmatch(r" +(- +)?[\w-]+", line[: mark.column]):  # a key of its own, taken for more of the line above
            hint = "begin it in the same column as the key above that it belongs with"
    elif error.problem and "cannot start any token" in error.problem:
        hint = f"a text that begins with '{line[mark.column : mark.column + 1]}' needs quotes"
    elif error.context and "scanning an alias" in error.context:
        hint = "a text that begins with '*' needs quotes"
    words = ", ".join(part for part in (error.context, error.problem) if part)
    report.add(mark, f"not YAML: {words}", hint)
