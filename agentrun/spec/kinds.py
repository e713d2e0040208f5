"""The kinds of values that a key can expect: each reads a node, says what it expects, and gives its JSON Schema.

A `Kind` turns a node into a value of the model, or adds a problem and returns INVALID (a list or mapping may hold
INVALID inside). It sees one value and nothing beside it: what depends on other keys or steps is checked later. A
scalar is read as its text; a plain one that YAML takes for nothing (`~`, `null`, or empty) is refused wherever
something is expected.

The schemas are for editors, which resolve plain scalars before they look (YAML 1.2, core schema). So where text is
expected, a number is accepted too: the decoder reads both as they are written.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model import JSON
from .document import ListNode, MapNode, Node, Scalar
from .nearest import suggestion
from .report import INVALID, Report

_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TRUTH_MEANT = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")


class Kind(ABC):
    """`what` completes the sentence "'timeout' expects …"."""

    what: str

    @abstractmethod
    def read(self, node: Node, label: str, report: Report) -> Any:
        """The value of a node that stands under the key `label`."""

    @abstractmethod
    def schema(self) -> dict[str, JSON]:
        """JSON Schema, draft 7."""

    def refuse(self, node: Node, label: str, report: Report, hint: str | None = None, more: str = "") -> Any:
        """The problem that every kind has: something else stands here."""
        if hint is None and isinstance(node, Scalar):
            if node.is_null:
                hint = "leave the key out, or give it a value"
            elif "${{" in node.text:
                hint = "references are replaced in 'env', 'with', 'foreach' and 'idempotency_key' only"
        report.add(node.mark, f"'{label}' expects {self.what}, not {shown(node)}{more}", hint)
        return INVALID


def shown(node: Node) -> str:
    """A node in a message."""
    if isinstance(node, ListNode):
        return "a list" if node.items else "an empty list"
    if isinstance(node, MapNode):
        return "a mapping"
    if node.is_null:
        return "nothing"
    line = node.text.strip().partition("\n")[0]
    return f"'{line[:40]}…'" if len(line) > 40 or "\n" in node.text.strip() else f"'{line}'"


@dataclass(frozen=True)
class Text(Kind):
    """Any text that is not blank; with `blank`, that too."""

    what: str = "text"
    blank: bool = False

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or node.is_null:
            hint = 'for empty text write ""' if self.blank and isinstance(node, Scalar) else None
            return self.refuse(node, label, report, hint)
        if not self.blank and not node.text.strip():
            return self.refuse(node, label, report)
        if "\0" in node.text:
            return self.refuse(node, label, report, "no program can be given a NUL character")
        return node.text

    def schema(self) -> dict[str, JSON]:
        types = ["string", "number", "boolean"]
        return {"type": types} if self.blank else {"type": types, "pattern": r"\S"}


@dataclass(frozen=True)
class Name(Kind):
    """Text of a certain form. `reserved` names have the form, and are not for users."""

    what: str
    pattern: str
    reserved: frozenset[str] = frozenset()

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or node.is_null or not re.fullmatch(self.pattern, node.text):
            return self.refuse(node, label, report)
        if node.text in self.reserved:
            report.add(node.mark, f"'{node.text}' is set by agentrun itself, for each attempt")
            return INVALID
        return node.text

    def schema(self) -> dict[str, JSON]:
        return {"type": ["string", "number", "boolean"], "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words. With a `what` of its own there is more than the words, so none of them is suggested."""

    words: tuple[str, ...]
    what: str = ""

    def __post_init__(self) -> None:
        if not self.what:
            object.__setattr__(self, "what", self.listed)

    @property
    def listed(self) -> str:
        return " or ".join(part for part in (", ".join(self.words[:-1]), self.words[-1]) if part)

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is Scalar and node.text in self.words:
            return node.text
        more = suggestion(node.text, self.words) if isinstance(node, Scalar) and self.what == self.listed else ""
        return self.refuse(node, label, report, more=more)

    def schema(self) -> dict[str, JSON]:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Boolean(Kind):
    what: str = "true or false"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar:
            return self.refuse(node, label, report)
        if not node.style and node.text in _TRUTH:
            return _TRUTH[node.text]
        if node.text in _TRUTH:
            return self.refuse(node, label, report, f"without the quotes: {node.text}")
        meant = _TRUTH_MEANT.get(node.text.lower())
        return self.refuse(node, label, report, f"write {meant}" if meant else None)

    def schema(self) -> dict[str, JSON]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number written with digits only, unquoted."""

    minimum: int
    maximum: int = 999_999_999

    @property
    def what(self) -> str:  # type: ignore[override]
        bound = "" if self.maximum == Integer.maximum else f" to {self.maximum}"
        return f"a whole number from {self.minimum}{bound}"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or not re.fullmatch("0|[1-9][0-9]{0,8}", node.text):
            return self.refuse(node, label, report)
        if node.style:
            return self.refuse(node, label, report, f"without the quotes: {node.text}")
        number = int(node.text)
        return number if self.minimum <= number <= self.maximum else self.refuse(node, label, report)

    def schema(self) -> dict[str, JSON]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Factor(Kind):
    """A number from 1, with or without a fraction, unquoted."""

    what: str = "a number from 1"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or not re.fullmatch(r"[1-9][0-9]{0,5}(\.[0-9]{1,6})?", node.text):
            return self.refuse(node, label, report)
        if node.style:
            return self.refuse(node, label, report, f"without the quotes: {node.text}")
        return float(node.text)

    def schema(self) -> dict[str, JSON]:
        return {"type": "number", "minimum": 1, "exclusiveMaximum": 1_000_000}


@dataclass(frozen=True)
class ListOf(Kind):
    """A tuple of one kind."""

    what: str
    item: Kind
    empty: bool = True

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not ListNode or not (node.items or self.empty):
            one = node.text if isinstance(node, Scalar) and not node.is_null else ""
            hint = f"in brackets: [{one}]" if re.fullmatch("[^\n]{1,40}", one) else None
            return self.refuse(node, label, report, hint)
        return tuple([self.item.read(item, label, report) for item in node.items])

    def schema(self) -> dict[str, JSON]:
        least: dict[str, JSON] = {} if self.empty else {"minItems": 1}
        return {"type": "array", "items": self.item.schema()} | least


@dataclass(frozen=True)
class MapOf(Kind):
    """Names of the user's own choice to values of one kind."""

    what: str
    key: Kind
    value: Kind

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not MapNode:
            return self.refuse(node, label, report)
        read: dict[str, Any] = {}
        for name, value in unique_pairs(node, report):
            key = self.key.read(name, label, report)
            if key is not INVALID:
                read[key] = self.value.read(value, f"{label}.{name.text}", report)
        return read

    def schema(self) -> dict[str, JSON]:
        names = {"pattern": self.key.schema()["pattern"]}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.value.schema()}


@dataclass(frozen=True)
class Either(Kind):
    """A scalar of one kind, or a list of another."""

    what: str
    scalar: Kind
    sequence: Kind

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is MapNode or (type(node) is Scalar and node.is_null):
            return self.refuse(node, label, report)
        return (self.sequence if type(node) is ListNode else self.scalar).read(node, label, report)

    def schema(self) -> dict[str, JSON]:
        return {"anyOf": [self.scalar.schema(), self.sequence.schema()]}


@dataclass(frozen=True)
class AnyValue(Kind):
    """Whatever JSON can say. A plain scalar becomes a number only if nothing is lost: `1.10` and `0755` stay text."""

    what: str = "a value"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is ListNode:
            return [self.read(item, label, report) for item in node.items]
        if type(node) is MapNode:
            return {key.text: self.read(value, label, report) for key, value in unique_pairs(node, report)}
        assert type(node) is Scalar
        return node.text if node.style else plain_value(node)

    def schema(self) -> dict[str, JSON]:
        return {}


def plain_value(node: Scalar) -> JSON:
    """What an unquoted scalar means where no key says what to expect."""
    text = node.text
    if node.is_null:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _NUMBER.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text


def unique_pairs(node: MapNode, report: Report) -> Sequence[tuple[Scalar, Node]]:
    """The pairs of a mapping, without those whose key is not text or stands there already: these are problems."""
    pairs: list[tuple[Scalar, Node]] = []
    lines: dict[str, int] = {}
    for key, value in node.pairs:
        if type(key) is not Scalar:
            report.add(key.mark, f"a key is text, not {shown(key)}")
        elif key.text in lines:
            report.add(key.mark, f"key '{key.text}' stands here twice (first on line {lines[key.text]})")
        else:
            lines[key.text] = key.mark.line + 1
            pairs.append((key, value))
    return pairs
