"""A line of the journal as `agentrun events` prints it:

    2026-11-20T10:00:00.123Z quotes/7f3a supervisor attempt_ended quote#1 outcome=failed exit_code=3

When, which run, by whom, what, of what, and the rest as key=value.
"""

from __future__ import annotations

from ..instants import rfc3339
from ..store.read import Event
from . import words
from .terminal import Look, printable

_TIMES = ("until", "due", "since")


def event_line(event: Event, look: Look) -> str:
    """The line, whole."""
    place = f"{event.job}/{words.short_id(event.run_id)}"
    parts = [rfc3339(event.at), look.paint(place, "dim"), printable(event.by), look.paint(event.kind, "bold")]
    if event.instance is not None:
        parts.append(event.instance if event.attempt is None else f"{event.instance}#{event.attempt}")
    detail = event.detail or {}
    for key, value in detail.items():
        if key in _TIMES and isinstance(value, int):
            value = rfc3339(value)
        text = f"{key}={printable(_text(value))}"
        parts.append(look.paint(text, *words.style(str(value))) if key == "outcome" else text)
    return " ".join(parts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        return words.compact(value)
    return words.compact(value) if not value or " " in value else value
