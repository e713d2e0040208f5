"""The causes that `retry.on` and `retry.never_on` name, in the words of the plan.

An exit status `75`, a range of them `100-110`, one of the words below, a signal `SIGSEGV`, or the name of a Python
exception or of one of its base classes, which nobody can check before it happens.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any

from ..model import JSON
from .document import Node, Scalar
from .kinds import Kind
from .nearest import suggestion
from .report import INVALID, Report

WORDS = ("timeout", "signal", "oom", "budget", "spawn", "outputs", "usage", "stuck")
PATTERN = r"[1-9][0-9]{0,2}(-[1-9][0-9]{0,2})?|[A-Za-z_][A-Za-z0-9_]{0,127}"

_SIGNALS = tuple(signal.Signals.__members__)


@dataclass(frozen=True)
class Cause(Kind):
    what: str = "exit statuses, ranges such as 100-110, or names such as timeout, SIGSEGV or ValueError"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or node.is_null or not re.fullmatch(PATTERN, node.text):
            return self.refuse(node, label, report)
        wrong = _status_problem(node.text) if node.text[0].isdigit() else _word_problem(node.text)
        if wrong:
            report.add(node.mark, wrong)
            return INVALID
        return node.text

    def schema(self) -> dict[str, JSON]:
        status = {"type": "integer", "minimum": 1, "maximum": 255}
        return {"anyOf": [status, {"type": "string", "pattern": f"^({PATTERN})$"}]}


def _status_problem(text: str) -> str | None:
    first, _, last = text.partition("-")
    if int(first) > 255 or int(last or first) > 255:
        return f"an exit status is at most 255, and here is '{text}'"
    if int(last or first) < int(first):
        return f"the range '{text}' is empty: from the smaller to the larger"
    return None


def _word_problem(text: str) -> str | None:
    if text in WORDS or text in _SIGNALS:
        return None
    if re.fullmatch("SIG[A-Z0-9]+", text):
        return f"unknown signal '{text}'{suggestion(text, _SIGNALS)}"
    # An exception may well be called `gaierror`: only what is close to a word of ours is taken for a slip.
    close = suggestion(text, WORDS) if text.islower() else ""
    return f"unknown cause '{text}'{close}" if close else None
