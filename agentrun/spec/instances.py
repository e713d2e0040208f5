"""Steps that are executed more than once: what `foreach` takes, and what it and `repeat` ask of the keys beside them.

Items are JSON, and no two of them may be equal: the key by which a receiver tells repetitions apart is made from the
item, so that a changed order repeats nothing. Where the list stands in the file, all of this is known before anything
runs, and so is whether each item has what references name in it; items that hold references, and lists that are one,
are looked at by the run when they are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..model import JSON
from .document import ListNode, Node, Scalar
from .kinds import AnyValue, Kind
from .references import REFERENCE, Unresolved, as_text, find, malformed, pick, resolve
from .report import INVALID, Report
from .tables import Entry

MAX_ROUNDS: Final = 1_000_000
MAX_LOOKED_INTO: Final = 1_000  # items that are searched for what a reference names

# What YAML 1.2 reads as a number that JSON does not have.
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Items(Kind):
    """A list of any values, or a text that is exactly one reference."""

    what: str = "a list, or one reference to a list"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is ListNode:
            before = len(report.problems)
            items = [self._item(item, label, report) for item in node.items]
            return items if len(report.problems) == before else INVALID
        if type(node) is Scalar and REFERENCE.fullmatch(node.text):
            return node.text
        hint = None
        if type(node) is Scalar and "${{" in node.text:
            hint = "a reference and nothing else, as ${{ steps.ID.outputs.KEY }}"
        return self.refuse(node, label, report, hint)

    def _item(self, node: Node, label: str, report: Report) -> JSON:
        for scalar in _scalars(node):
            if not scalar.style and _NO_NUMBER.fullmatch(scalar.text):
                report.add(scalar.mark, f"an item is JSON, and '{scalar.text}' is not", "in quotes, if it is a text")
        if type(node) is Scalar and "\0" in node.text:
            report.add(node.mark, "no program can be given a NUL character, and this item has one")
        return AnyValue().read(node, label, report)

    def schema(self) -> dict[str, JSON]:
        return {"anyOf": [{"type": "array"}, {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}]}


def check(step: Entry, report: Report) -> None:
    """What is wrong with the keys beside `foreach` and `repeat`, and with the keys that the items get."""
    if "foreach" not in step:
        for name, hint in (
            ("max_parallel", "how many steps run at once is the job's 'max_parallel'"),
            ("fail_fast", "without instances there is nothing else to end"),
        ):
            if name in step and not step.unclear:
                report.add(step.keys[name].mark, f"'{name}' belongs to 'foreach'", hint)
        return
    if "repeat" in step:
        hint = "a loop for each item: put the loop into a job of its own, and run that with 'job' and 'foreach'"
        report.add(step.keys["repeat"].mark, "a step has either 'foreach' or 'repeat', not both", hint)
    key = step.values.get("idempotency_key")
    if key is not None and not any(malformed(key)) and not any(part.path[0] == "item" for part in find(key)):
        hint = "name the item in it, as ${{ item }} or ${{ item.id }}"
        report.add(step.nodes["idempotency_key"].mark, "'idempotency_key' is the same for all items", hint)
        return
    _check_keys(step, key, report)


def missing(step: Entry, path: tuple[str, ...]) -> str | None:
    """Why `path`, a reference to the item, names nothing in an item of the file, and in which; None if all have it."""
    for number, item in _plain(step):
        if number >= MAX_LOOKED_INTO:
            break
        try:
            pick(item, path, 1)
        except Unresolved as error:
            return f"names nothing in item {number} of 'foreach': {error.why}"
    return None


def _check_keys(step: Entry, key: str | None, report: Report) -> None:
    """No two items with one key, as far as the items stand in the file."""
    first: dict[str, int] = {}
    for number, item in _plain(step):
        try:
            made = _canonical(item) if key is None else _key(key, item)
        except Unresolved:
            continue  # told where the reference stands
        if made in first:
            node = step.nodes["foreach"].items[number]  # type: ignore[union-attr]
            if key is None:
                hint = "give each item something of its own: its key is made from the item"
                report.add(node.mark, f"two items with one key: items {first[made]} and {number} are equal", hint)
            else:
                hint = "name something in 'idempotency_key' in which all items differ"
                report.add(node.mark, f"two items with one key: items {first[made]} and {number} get the same", hint)
        first.setdefault(made, number)


def _plain(step: Entry) -> Iterator[tuple[int, JSON]]:
    """The items that stand in the file and hold no reference, with their numbers."""
    items = step.values.get("foreach")
    if isinstance(items, list):
        for number, item in enumerate(items):
            if not any(find(item)):
                yield number, item


def _canonical(item: JSON) -> str:
    return json.dumps(item, sort_keys=True, separators=(",", ":"))


def _key(key: str, item: JSON) -> str:
    """The key of an item, with all that is the same for every item left as a reference."""
    return as_text(resolve(key, lambda path: pick(item, path, 1) if path[0] == "item" else list(path)))


def _scalars(node: Node) -> Iterator[Scalar]:
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _scalars(item)
    else:
        for _, value in node.pairs:
            yield from _scalars(value)
