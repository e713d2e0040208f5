"""A job file in the making, and how it is written: what a colleague would have typed, comments and all.

Whoever converts something says what the keys are and in which order they stand; how a value is spelled in YAML is
decided here alone. What comes out is read back by the decoder before anybody gets it: a key or a value that the
language does not have is a mistake of ours, and never reaches a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..model import JSON, Job
from ..spec.decode import decode
from ..spec.quoting import quoted, scalar

Keys = Sequence[tuple[str, JSON]]

_NUMBER = re.compile(r"[-+]?[\d.][\d_.:+-]*([eE][-+]?\d+)?|0[xo][\da-fA-F_]+")  # or a date, or a time of day
_INTEGER = re.compile(r"0|[1-9]\d*")
_WIDTH = 110  # of a mapping or list on one line


@dataclass(frozen=True)
class DraftStep:
    """A step: `keys` beside its `id`, in the order in which they are written; `comment` stands above it."""

    id: str
    keys: Keys
    comment: str = ""
    said: Mapping[str, str] = field(default_factory=dict)  # a comment above a key


@dataclass(frozen=True)
class Draft:
    """A job: `keys` between its name and its steps; `comment` stands at its very top, `said` above single keys."""

    name: str
    keys: Keys
    steps: Sequence[DraftStep]
    comment: str = ""
    said: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The job file. ValueError for what YAML cannot hold (text that is not UTF-8)."""
        lines = _comment(self.comment, 0)
        if lines:
            lines.append("")
        lines.append(f"name: {scalar(self.name, 0)}")
        for key, value in self.keys:
            lines += _comment(self.said.get(key, ""), 0)
            lines += _entry(key, value, 0)
        lines += ["", "steps:"]
        for number, step in enumerate(self.steps):
            if number:
                lines.append("")
            lines += _comment(step.comment, 0)
            lines.append(f"- id: {scalar(step.id, 2)}")
            for key, value in step.keys:
                lines += _comment(step.said.get(key, ""), 2)
                lines += _entry(key, value, 2)
        return "\n".join(lines) + "\n"

    def checked(self, path: str) -> tuple[str, Job]:
        """The text, and what the decoder makes of it. Raises ValueError, and JobFileError for a mistake of ours."""
        text = self.text()
        return text, decode(text, path)


def _comment(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return [f"{pad}# {line}".rstrip() for line in text.splitlines()]


def _entry(key: str, value: JSON, indent: int) -> list[str]:
    pad = " " * indent
    if isinstance(value, str):
        return f"{pad}{key}: {scalar(value, indent)}".split("\n")
    flow = _flow(value)
    if len(pad) + len(key) + len(flow) + 2 <= _WIDTH or not value:
        return [f"{pad}{key}: {flow}"]
    lines = [f"{pad}{key}:"]
    if isinstance(value, Mapping):
        for name, item in value.items():
            lines += _entry(name, item, indent + 2)
    elif isinstance(value, list):
        for item in value:
            text = scalar(item, indent) if isinstance(item, str) else _flow(item)
            lines += f"{pad}- {text}".split("\n")
    return lines


def _flow(value: JSON) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return _flow_scalar(value)
    return str(value)


def _flow_scalar(text: str) -> str:
    """Within brackets a comma or a bracket would end it, and a block cannot stand."""
    plain = scalar(text, 0)
    if _NUMBER.fullmatch(text) and not _INTEGER.fullmatch(text):
        return quoted(text)  # ours reads it as it stands, others would read 014 as 12, and 1.10 as 1.1
    if plain == text and not any(char in ",[]{}" for char in text):
        return text
    if plain.startswith(("'", '"')):
        return plain
    return quoted(text)
