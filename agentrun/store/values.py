"""What stands in a row, checked on its way out: overwritten pages pass SQLite's own checks, and hold anything.

What is wanted is read from the annotations of the row's class, once: the type of each column, whether it may be empty,
the words that it may be, and what it becomes. Rows whose types have been seen before cost next to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from .trouble import bad_value

if TYPE_CHECKING:
    from ..model import JSON

Row = TypeVar("Row", bound=NamedTuple)

_STATES = {"queued", "running", "waiting", "finished"}
_OUTCOMES = {
    None, "succeeded", "failed", "timed_out", "over_budget", "cancelled", "skipped", "interrupted",
}  # fmt: skip
_INTEGERS = {"int", "bool"}


class _Shape(NamedTuple):
    """What rows of one class are made of. `seen`: the types of columns that were found to be right."""

    types: list[set[type]]
    words: list[tuple[int, set[Any]]]
    become: list[tuple[int, Callable[[Any], Any]]]
    seen: set[tuple[type, ...]]


_shapes: dict[type, _Shape] = {}


def parsed(text: str | None) -> JSON:
    """The value of a column with JSON; None for NULL. Raises StoreError."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise bad_value("JSON", text) from error


def parsed_object(text: str | None) -> dict[str, JSON]:
    """The same of a column with an object; empty for NULL."""
    value = {} if text is None else parsed(text)
    if not isinstance(value, dict):
        raise bad_value("an object of JSON", text)
    return value


def made(kind: type[Row], rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Rows as values of their class, whose fields are the columns. Raises StoreError for what nobody wrote."""
    shape = _shapes.get(kind) or _shapes.setdefault(kind, _shape(kind))
    _types, words, become, seen = shape
    found = []
    for row in rows:
        if tuple(map(type, row)) not in seen:
            _learn(kind, shape, row)
        for place, known in words:
            if row[place] not in known:
                raise bad_value(f"the {kind._fields[place]} of a row", row[place])
        if become:
            values = list(row)
            for place, convert in become:
                values[place] = convert(values[place])
            found.append(kind(*values))
        else:
            found.append(kind(*row))
    return found


def _learn(kind: type[Row], shape: _Shape, row: Sequence[Any]) -> None:
    for name, value, allowed in zip(kind._fields, row, shape.types, strict=False):
        if type(value) not in allowed:
            raise bad_value(f"the {name} of a row", value)
    shape.seen.add(tuple(map(type, row)))


def _shape(kind: type[Any]) -> _Shape:
    shape = _Shape([], [], [], set())
    for place, annotation in enumerate(kind.__annotations__.values()):
        wanted, _, nothing = cast(str, getattr(annotation, "__forward_arg__", annotation)).partition(" | ")
        container = wanted.startswith(("dict", "tuple")) or wanted == "JSON"
        nullable = nothing == "None" or wanted == "JSON" or wanted.startswith("tuple")
        shape.types.append({int if wanted in _INTEGERS else str} | ({type(None)} if nullable else set()))
        if wanted == "State":
            shape.words.append((place, _STATES))
        if wanted == "Outcome":
            shape.words.append((place, _OUTCOMES))
        if wanted == "bool":
            shape.become.append((place, bool))
        if container:
            shape.become.append((place, _container(wanted, nullable)))
    return shape


def _container(wanted: str, nullable: bool) -> Callable[[Any], Any]:
    if wanted == "JSON":
        return parsed
    if wanted.startswith("tuple"):
        return lambda text: () if text is None else tuple(parsed(text) or ())
    return lambda text: None if text is None and nullable else parsed_object(text)
