"""What `stuck_after` and `on_stuck` mean together, with `defaults`, and for a step that is a run of another job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .report import Report
from .tables import Entry

SHORTEST: Final = 1_000  # ms; in less than that a process that waits for a disk would count as stuck
_KEYS = ("stuck_after", "on_stuck")
_HINT = "how long it may do nothing, as stuck_after: 30m"


def check_step(step: Entry, defaults: Entry | None, report: Report) -> None:
    """Both are for steps that do something themselves, and `on_stuck` needs a `stuck_after`, its own or a default."""
    _check_length(step, report)
    written = next((name for name in _KEYS if name in step), None)
    if written is not None and "job" in step:
        hint = "the steps of the other file say for themselves when they are stuck"
        report.add(step.keys[written].mark, f"'{written}' does not go with 'job'", hint)
    elif written == "on_stuck" and (defaults is None or "stuck_after" not in defaults) and not step.unclear:
        report.add(step.keys[written].mark, "'on_stuck' needs a 'stuck_after'", _HINT)


def check_defaults(defaults: Entry | None, steps: Sequence[Entry], report: Report) -> None:
    """The same of what is meant for all steps."""
    if defaults is None:
        return
    _check_length(defaults, report)
    needed = "on_stuck" in defaults and "stuck_after" not in defaults and not defaults.unclear
    if needed and not any("stuck_after" in step or step.unclear for step in steps):
        report.add(defaults.keys["on_stuck"].mark, "'on_stuck' needs a 'stuck_after'", _HINT)


def settle(values: dict[str, Any]) -> None:
    """Take out of a step's values what `defaults` say and it has no use for."""
    if "job" in values:
        values.pop("stuck_after", None)
    if "stuck_after" not in values:
        values.pop("on_stuck", None)


def _check_length(entry: Entry, report: Report) -> None:
    given = entry.values.get("stuck_after")
    if given is not None and given < SHORTEST:
        report.add(entry.nodes["stuck_after"].mark, "'stuck_after' is 1s at least", "a step may well wait for less")
