"""What `carry: shell` asks of a job, and the keys that mean something only with it.

The steps of such a job are one script: each goes on where the one above it ended, so none says `needs`. Where a text
stands in the script (`line`) is known without being said for whoever writes the steps one below another with an empty
line between them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from .kinds import Boolean, Choice, Integer, ListOf, Text
from .report import INVALID, Report
from .tables import Entry, Field

SHELLS: Final = ("sh", "dash", "ash", "bash")
OF_A_JOB: Final = (
    Field(
        "carry", Choice(("shell",)),
        "The steps are one script: the shell of each begins with the variables, functions, options, traps and the"
        " folder that the one before it ended with, see CARRYING.",
        "shell", "each step begins anew",
    ),
    Field(
        "script", Text("a path"), "With carry: what $0 says, and messages of the shell.",
        "/opt/backup.sh", "the job's name",
    ),
    Field(
        "args", ListOf("a list of arguments", Text(blank=True)), "With carry: $1, $2 and so on of the first step.",
        "[--all]",
    ),
)
OF_A_STEP: Final = (
    Field(
        "line", Integer(1),
        "The line of the script at which its text begins, for messages of the shell and $LINENO, see CARRYING.",
        "14", "after the step above and an empty line", attribute="text_line",
    ),
    Field(
        "defines", Boolean(),
        "Its text only defines functions. Later steps get it as it stands, for sh cannot print a function, and bash"
        " forgets its line numbers, see CARRYING.",
        "true", "false",
    ),
)


_KEYS: Final = [field.name for field in OF_A_STEP]


def check(job: Entry, steps: Sequence[Entry], report: Report) -> None:
    """Every problem of it."""
    if "carry" not in job.values:
        if job.unclear:
            return
        for entry, names in ((job, [field.name for field in OF_A_JOB[1:]]), *((step, _KEYS) for step in steps)):
            for name in names:
                if name in entry:
                    hint = "with it the steps are one script: each shell goes on with the state of the one before it"
                    report.add(entry.keys[name].mark, f"'{name}' belongs to jobs with 'carry: shell'", hint)
        return
    _check_shell(job, report)
    for step in steps:
        if "run" not in step:
            for name in _KEYS:
                if name in step:
                    report.add(step.keys[name].mark, f"'{name}' goes with 'run'")
        elif "needs" in step and step.values.get("when", "on_success") == "on_success":
            hint = "take it out; what has an order of its own belongs into another job"
            report.add(step.keys["needs"].mark, "with 'carry: shell' steps follow one another", hint)


def _check_shell(job: Entry, report: Report) -> None:
    shell = job.values.get("shell", "sh")
    if shell is INVALID or isinstance(shell, str):
        return
    if not any(os.path.basename(word) in SHELLS for word in shell if word is not INVALID):
        hint = "no other shell can write down its state; without 'carry' each step begins anew"
        report.add(job.nodes["shell"].mark, "'carry: shell' needs a 'shell' that is sh or bash", hint)


def lines(steps: Sequence[Entry]) -> list[int]:
    """Where the text of each step begins; if it does not say so, behind the one above it and an empty line."""
    found, at = [], 1
    for step in steps:
        at = step.values.get("line", at)
        found.append(at)
        if "run" in step.values:
            at += step.values["run"].removesuffix("\n").count("\n") + 2
    return found
