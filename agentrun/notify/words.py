"""A notice, in the words of the manual (NOTICES): one JSON object for all targets, and its line for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from ..instants import rfc3339
from ..model import JSON

SCHEMA: Final = "agentrun.notice/1"
_BECAME: Final = {"failed": "has failed", "timed_out": "has timed out", "over_budget": "is over its budget"}


def notice(
    event: str,
    job: str,
    at: int,
    *,
    run: str | None = None,
    outcome: str | None = None,
    step: str | None = None,
    exit_code: int | None = None,
    error: str | None = None,
    scheduled_time: int | None = None,
    number: int = 1,
    since: int | None = None,
    text: Sequence[str] = (),
    resume: str | None = None,
) -> dict[str, JSON]:
    """Every key is always there. `number`: the how manieth of its kind in a row, the first of them at `since`."""
    return {
        "schema": SCHEMA, "event": event, "job": job, "run": run, "outcome": outcome, "step": step,
        "exit_code": exit_code, "error": error, "host": os.uname().nodename,
        "scheduled_time": None if scheduled_time is None else rfc3339(scheduled_time),
        "at": rfc3339(at), "number": number, "since": rfc3339(at if since is None else since),
        "text": "\n".join(text), "resume": resume,
    }  # fmt: skip


def headline(said: Mapping[str, JSON]) -> str:
    """One line: what became of which job, where."""
    job, again = said["job"], f", {in_a_row(said)}" if said["number"] > 1 else ""
    match said["event"]:
        case "failure":
            what = f"{job} {_BECAME.get(said['outcome'] or '', 'has failed')}{again}"
            what += f": {said['error']}" if said["error"] else ""
        case "recovery":
            what = f"{job} succeeds again"
        case "success":
            what = f"{job} has succeeded"
        case "missed":
            what = f"{job} was not run when it should have been{again}"
        case "stuck":
            what = f"{job} is stuck{again}: step {said['step']} does nothing"
        case "waiting":
            what = f"{job} waits for an answer"
        case other:
            what = f"{job}: {other}"
    return " ".join(f"[{said['host']}] {what}".split())


def letter(said: Mapping[str, JSON]) -> str:
    """The text for people: how often it has been so, and the report."""
    lines = [f"This is {in_a_row(said)}.", ""] if said["number"] > 1 else []
    return "\n".join([*lines, said["text"] or headline(said)]) + "\n"


def in_a_row(said: Mapping[str, JSON]) -> str:
    """`the 20th time in a row, since 2026-11-20T10:00:00.123Z`."""
    return f"the {ordinal(said['number'])} time in a row, since {said['since']}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`, `23rd`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
