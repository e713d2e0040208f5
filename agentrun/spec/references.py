"""References `${{ a.dotted.path }}`: found in values, and replaced by what they name.

They name values; there is no expression language. A text that is exactly one reference becomes the value itself, of
whatever type; inside of a longer text a value is written as `as_text` writes it. Keys of mappings are never
replaced. A value that is not there raises `Unresolved`: it never becomes empty. What was replaced is not looked
through again, so that no output of a step can smuggle in a reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..model import JSON

REFERENCE = re.compile(r"\$\{\{\s*([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)\s*\}\}")
_ANYTHING = re.compile(r"\$\{\{(.*?)(\}\}|\Z)", re.DOTALL)


class Unresolved(Exception):
    """A reference to something that is not there: its path, and why not."""

    def __init__(self, path: tuple[str, ...], why: str) -> None:
        super().__init__(f"{'.'.join(path)}: {why}")
        self.path = path
        self.why = why


class Reference(NamedTuple):
    """`path` is what it names, `text` how it is written."""

    path: tuple[str, ...]
    text: str

    @property
    def dotted(self) -> str:
        return ".".join(self.path)


def find(value: JSON) -> Iterator[Reference]:
    """All references in a value's texts, at any depth, in order."""
    if isinstance(value, str):
        if "${{" in value:
            for match in REFERENCE.finditer(value):
                yield Reference(tuple(match[1].split(".")), match[0])
    elif isinstance(value, dict):
        for part in value.values():
            yield from find(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from find(part)


def malformed(text: str) -> Iterator[str]:
    """What begins as a reference and is none: `${{ a == b }}`, or without its end."""
    for match in _ANYTHING.finditer(text):
        if not REFERENCE.fullmatch(match[0]):
            yield match[0]


def resolve(value: JSON, lookup: Callable[[tuple[str, ...]], JSON]) -> JSON:
    """The value with its references replaced by what `lookup` gives for their paths. It may raise Unresolved."""
    if isinstance(value, str):
        if "${{" not in value:
            return value
        whole = REFERENCE.fullmatch(value)
        if whole:
            return lookup(tuple(whole[1].split(".")))
        return REFERENCE.sub(lambda match: as_text(lookup(tuple(match[1].split(".")))), value)
    if isinstance(value, dict):
        return {key: resolve(part, lookup) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(part, lookup) for part in value]
    return value


def pick(value: JSON, path: tuple[str, ...], depth: int) -> JSON:
    """What `path[depth:]` names inside of `value`: keys of objects, positions in lists. Raises Unresolved."""
    for at in range(depth, len(path)):
        part = path[at]
        if isinstance(value, dict):
            if part not in value:
                raise Unresolved(path, f"there is no '{part}' in {'.'.join(path[:at])}")
            value = value[part]
        elif isinstance(value, list):
            if not part.isdecimal() or int(part) >= len(value):
                raise Unresolved(path, f"{'.'.join(path[:at])} is a list of {len(value)}, counted from 0")
            value = value[int(part)]
        else:
            raise Unresolved(path, f"{'.'.join(path[:at])} is neither an object nor a list")
    return value


def as_text(value: JSON) -> str:
    """A value inside of a text or in the environment: texts as they are, all else as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
