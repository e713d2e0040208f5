"""The kinds of values that are amounts: durations, counts, sizes, money.

`values` knows how they are written; here is what a key that expects one says about everything else. An amount without
its unit is refused wherever a unit could be meant: `memory: 512` is not five hundred bytes to anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..model import JSON
from . import values
from .document import Node, Scalar
from .kinds import Kind
from .report import Report


@dataclass(frozen=True)
class Duration(Kind):
    """Whole milliseconds; `zero` says whether none at all makes sense."""

    zero: bool = False

    @property
    def what(self) -> str:  # type: ignore[override]
        return "a duration such as 90s or 1h30m" + ("" if self.zero else ", longer than nothing")

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar:
            return self.refuse(node, label, report)
        try:
            ms = values.parse_duration(node.text)
        except ValueError:
            bare = re.fullmatch("[0-9]{1,6}", node.text)
            return self.refuse(node, label, report, f"with a unit: {node.text}s or {node.text}m" if bare else None)
        return ms if ms or self.zero else self.refuse(node, label, report)

    def schema(self) -> dict[str, JSON]:
        pattern = values.DURATION_PATTERN if self.zero else values.POSITIVE_DURATION_PATTERN
        return {"type": "string", "pattern": pattern}


@dataclass(frozen=True)
class Count(Kind):
    what: str = "a count such as 60 or 200k, from 1"

    def read(self, node: Node, label: str, report: Report) -> Any:
        try:
            return values.parse_count(node.text) if type(node) is Scalar else self.refuse(node, label, report)
        except ValueError:
            return self.refuse(node, label, report)

    def schema(self) -> dict[str, JSON]:
        number = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
        return {"anyOf": [number, {"type": "string", "pattern": values.COUNT_PATTERN}]}


@dataclass(frozen=True)
class Size(Kind):
    """Whole bytes."""

    what: str = "a whole number with its unit, such as 512MiB or 2GB, from 1"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar:
            return self.refuse(node, label, report)
        try:
            return values.parse_size(node.text)
        except ValueError:
            return self.refuse(node, label, report, _unit_meant(node.text))

    def schema(self) -> dict[str, JSON]:
        return {"type": "string", "pattern": values.SIZE_PATTERN}


@dataclass(frozen=True)
class Cost(Kind):
    """Billionths of whatever currency the steps report."""

    what: str = "an amount of money such as 20 or 2.50, more than nothing, with at most 9 digits after the point"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar:
            return self.refuse(node, label, report)
        try:
            return values.parse_cost(node.text)
        except ValueError:
            return self.refuse(node, label, report, _amount_meant(node.text))

    def schema(self) -> dict[str, JSON]:
        # to an editor 999999999.999999999 is 1e9: a float has no more digits
        number = {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000_000}
        return {"anyOf": [number, {"type": "string", "pattern": values.COST_PATTERN}]}


def _unit_meant(text: str) -> str | None:
    """What to write instead of a size that has no unit of ours: `512`, `512M`, `512 mb`."""
    match = re.fullmatch(r"([1-9][0-9]{0,5}|[1-9][0-9]{0,8}(?![tT]))\s*(?:([kKmMgGtT])[iI]?)?[bB]?", text)
    if match is None:
        return None
    number, unit = match.groups()
    if unit is None:
        return f"a size needs its unit, as 512MiB; bytes are {number}B"
    unit = unit.upper()
    return f"{number}{unit}iB, or {number}{'k' if unit == 'K' else unit}B"


def _amount_meant(text: str) -> str | None:
    """What to write instead of `$2.50`, `2.50 EUR` or `2,50`."""
    match = re.fullmatch(r"[^0-9.,+-]{0,4}([0-9]{1,9})(?:([.,])([0-9]{1,9}))?[^0-9.,]{0,4}", text)
    if match is None:
        return None
    number = match[1] + (f".{match[3]}" if match[3] else "")
    if number == text or not number.strip("0."):
        return None
    return f"the number alone, in the currency that the steps report: {number}"
