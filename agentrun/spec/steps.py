"""The steps of a file as drafts: their ids, and the order that `needs` gives them.

An id is what the file says, else made from the step's name, else `step-N`. Without `needs` a step follows the step
above it, and a handler (`when: on_failure` or `always`) follows all of them. Wrong ids and needs are problems, and
the draft still gets the best that can be made of them, so that nothing else is reported for the same mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from . import order
from .document import Node
from .fields import STEP_ID
from .nearest import suggestion
from .report import INVALID, Report
from .tables import Entry

MAX_STEPS: Final = 20_000
MAX_NEEDS: Final = 1_000_000  # in the whole job, the implicit ones of handlers included


class Draft:
    """A step on its way: `needs` are positions; `unclear` means that some of them could not be read."""

    __slots__ = ("entry", "id", "index", "needs", "unclear")

    def __init__(self, index: int, entry: Entry) -> None:
        self.index = index
        self.entry = entry
        self.id = _id(entry, index + 1)
        self.needs: Sequence[int] = ()
        self.unclear = False


def draft(entries: Sequence[Any], report: Report) -> list[Draft]:
    """The steps with their ids and needs. Those that are no mapping are reported already, and left out."""
    drafts = [Draft(index, entry) for index, entry in enumerate(e for e in entries if e is not INVALID)]
    if len(drafts) > MAX_STEPS:
        report.add(drafts[MAX_STEPS].entry.node.mark, f"more than {MAX_STEPS} steps")
        report.stop()
    index = _index(drafts, report)
    total = 0
    for step in drafts:
        _set_needs(step, index, report)
        total += len(step.needs)
        if total > MAX_NEEDS:
            hint = "give the handlers among the steps 'needs' of their own"
            report.add(step.entry.node.mark, f"the steps need each other in more than {MAX_NEEDS} ways", hint)
            report.stop()
    return drafts


def check_circles(drafts: Sequence[Draft], report: Report) -> bool:
    """Report each circle; whether there is one."""
    found = order.circles([step.needs for step in drafts])
    for circle in found:
        first, second = drafts[circle[0]], drafts[circle[1 % len(circle)]]
        way = " -> ".join(drafts[step].id for step in [*circle, circle[0]])
        implicit = next((drafts[step] for step in circle if "needs" not in drafts[step].entry), None)
        hint = f"'{implicit.id}' has no 'needs', so it follows what is above it" if implicit else None
        report.add(_need_node(first, second.id).mark, f"steps need each other in a circle: {way}", hint)
    return bool(found)


def _index(drafts: Sequence[Draft], report: Report) -> dict[str, int]:
    """Positions by id; an id that is taken stays with the first."""
    index: dict[str, int] = {}
    for step in drafts:
        first = index.setdefault(step.id, step.index)
        if first != step.index:
            node = step.entry.nodes.get("id") or step.entry.nodes.get("name") or step.entry.node
            line = drafts[first].entry.node.mark.line + 1
            report.add(node.mark, f"step id '{step.id}' is taken (line {line})", "give this step an 'id' of its own")
    return index


def _id(entry: Entry, position: int) -> str:
    node = entry.nodes.get("id")
    if node is not None:
        return str(getattr(node, "text", f"step-{position}"))  # as it is, even if it is wrong: others name it so
    name = entry.values.get("name")
    slug = re.sub("[^a-z0-9_]+", "-", name.lower()).strip("-") if name else ""
    if slug and not re.fullmatch(STEP_ID, slug[:64]):
        slug = "step-" + slug
    return slug[:64].rstrip("-") or f"step-{position}"


def _set_needs(step: Draft, index: dict[str, int], report: Report) -> None:
    if "needs" not in step.entry:
        handler = step.entry.values.get("when", "on_success") != "on_success"
        step.needs = range(0 if handler else max(step.index - 1, 0), step.index)
        return
    names = step.entry.values.get("needs")
    if names is None:
        step.unclear = True
        return
    known: list[int] = []
    for name, node in zip(names, step.entry.nodes["needs"].items, strict=True):  # type: ignore[union-attr]
        if name is INVALID or name not in index:
            step.unclear = True
            if name is not INVALID:
                report.add(node.mark, f"unknown step '{name}'{suggestion(name, index)}")
        elif index[name] in known:
            report.add(node.mark, f"'needs' names '{name}' twice")
        else:
            known.append(index[name])
    step.needs = known


def _need_node(step: Draft, name: str) -> Node:
    """Where a step says that it needs another; where it begins, if it says so by having no `needs`."""
    node = step.entry.nodes.get("needs")
    items: Sequence[Node] = getattr(node, "items", ())
    return next((item for item in items if getattr(item, "text", None) == name), step.entry.node)
