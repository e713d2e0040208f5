"""How states, outcomes and causes are called: one place, so that every command says the same.

The words of `state` and `outcome` themselves are those of the design; here stands what explains them: `exit
status 127 (command not found)`, `timed out after 2m`, `something it needs failed`.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping
from typing import Protocol

_EXITS = {126: "cannot be executed", 127: "command not found"}

RUN_BUDGET = "the run's budget"
OWN_BUDGETS = {
    "oom": "memory", "cpu": "cpu", "processes": "processes", "output": "output", "tokens": "tokens", "cost": "cost",
}  # by the reason of a step that its own budget ended

OF_LOOPS = ("max", "until_failed")  # reasons of a loop that failed although its rounds did not

_REASONS = {
    "if": "its `if` said no",
    "if_failed": "its `if` failed",
    "upstream": "something that it needs failed",
    "no_failure": "nothing failed",
    "on_interrupt": "interrupted; its on_interrupt decided",
    "done": "the script had ended",
    "interrupted": "nobody saw its end",
    "cancel": "cancelled",
    "deadline": "the run's deadline",
    "budget": RUN_BUDGET,
    "fail_fast": "another instance failed",
    "instances": "one of its instances failed",
    "max": "as many rounds as it may have",
    "until_failed": "its `until` failed",
    "timeout": "its timeout",
    "stuck": "no output and no CPU",
    "exit": "exit status",
    "signal": "ended by a signal",
    "spawn": "could not be started",
    "inputs": "could not begin",
    "outputs": "its outputs are not as declared",
    "child": "the run that it is ended so",
    "usage": "what it used cannot be counted",
    "oom": "its budget of memory",
    "cpu": "its budget of cpu",
    "processes": "its budget of processes",
    "output": "its budget of output",
    "tokens": "its budget of tokens",
    "cost": "its budget of cost",
    "shutdown": "stopped together with agentrun",
}

# What the record says in `error` about these is whole: the reason before it would say the same again.
_TOLD_BY_THE_ERROR = (
    "on_interrupt", "interrupted", "timeout", "stuck", "cancel", "deadline", "budget", "shutdown", "if_failed",
    "instances", "max", "until_failed", "child",
)  # fmt: skip

_STYLES = {
    "succeeded": ("green",),
    "running": ("cyan",),
    "waiting": ("cyan",),
    "queued": ("dim",),
    "skipped": ("dim",),
    "interrupted": ("yellow",),
    "cancelled": ("yellow",),
}


_BY_WEIGHT = ("failed", "timed_out", "over_budget", "cancelled", "unfinished", "not run", "skipped", "succeeded")


class Ended(Protocol):
    """What a step and an attempt have in common."""

    @property
    def outcome(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...


def style(word: str) -> tuple[str, ...]:
    """The colour of a state or an outcome; what is not known better is bad news."""
    return _STYLES.get(word, ("red",))


def signal_name(number: int) -> str:
    """`SIGKILL`; `signal 64` for one without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_words(code: int) -> str:
    """`exit status 127 (command not found)`."""
    meaning = _EXITS.get(code)
    return f"exit status {code} ({meaning})" if meaning else f"exit status {code}"


def cause(what: Ended) -> str:
    """Why something ended as it did, in a few words that do not repeat its outcome; empty where it succeeded or
    has not ended."""
    if what.outcome is None or what.outcome == "succeeded":
        return ""
    reason = what.reason
    if reason == "exit" or (reason is None and what.exit_code):
        words = exit_words(what.exit_code) if what.exit_code is not None else ""
    elif what.signal is not None and reason in ("signal", None):
        words = f"ended by {signal_name(what.signal)}"
    else:
        words = reason_words(reason)
    if not what.error or what.error in words:
        return _without_outcome(words, what.outcome)
    if reason in _TOLD_BY_THE_ERROR:
        return _without_outcome(what.error, what.outcome)
    return what.error if not words or words in what.error else f"{words}: {what.error}"


def _without_outcome(text: str, outcome: str) -> str:
    """`after 5s` of `timed out after 5s`, where the word before it is `timed_out`."""
    named = outcome.replace("_", " ")
    return "" if text == named else text.removeprefix(f"{named}: ").removeprefix(f"{named} ")


def which_budget(error: str | None) -> str:
    """`the run's budget of memory`, `the budget of the day (tokens)`: what a run was over, from its error."""
    kind = (error or "").partition("over its budget of ")[2].partition(":")[0]
    if kind.endswith(" today"):
        return f"the budget of the day ({kind.removesuffix(' today')})"
    return f"{RUN_BUDGET} of {kind}" if kind else RUN_BUDGET


def outcomes(counts: Mapping[str, int]) -> str:
    """`1 failed, 5 skipped, 1 succeeded`: bad news first; what has no steps is left out."""
    known = [word for word in _BY_WEIGHT if counts.get(word)]
    known += sorted(word for word, number in counts.items() if number and word not in _BY_WEIGHT)
    return ", ".join(f"{counts[word]} {word.replace('_', ' ')}" for word in known)


def so_many_done(counts: Mapping[str, int], total: int | str) -> str:
    """`9 of 14 done, 1 over budget, 4 skipped`, from how many ended how: done is what succeeded."""
    rest = outcomes({word: number for word, number in counts.items() if word != "succeeded"})
    return f"{counts.get('succeeded', 0)} of {total} done" + (f", {rest}" if rest else "")


def reason_words(reason: str | None) -> str:
    """A reason of the record in words; one that is not known here as it is."""
    return _REASONS.get(reason or "", reason or "")


def count(number: int, thing: str, things: str | None = None) -> str:
    """`1 step`, `12 steps`."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def short_id(run_id: str) -> str:
    """How a run is called in a line of a log: the end of its id, which differs most."""
    return run_id[-4:]


def size(number: int) -> str:
    """Bytes as people read them: `812 B`, `12 KiB`, `1.4 GiB`."""
    value, units = float(number), ["TiB", "GiB", "MiB", "KiB", "B"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop()
    return f"{value:.1f} {units[-1]}" if value < 10 and units[-1] != "B" else f"{value:.0f} {units[-1]}"


def compact(value: object) -> str:
    """A value as JSON in one line."""
    import json

    return json.dumps(value, ensure_ascii=False)
