"""`resume --plan`: what would be reused and what would run, a line for each step."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.reuse import Fate

_MARKS = {"reuse": "=", "run": ">", "decide": "?", "ask": "?", "skip": "-", "fail": "!"}


def show_fates(fates: Sequence[Fate]) -> None:
    """Print them to stdout, and the counts below."""
    width = max((len(fate.step) for fate in fates), default=0)
    for fate in fates:
        print(f"{_MARKS[fate.fate]} {fate.fate:<6}  {fate.step:<{width}}  {fate.why}")
    counts = {name: sum(fate.fate == name for fate in fates) for name in _MARKS}
    told = f"{counts['reuse']} reused, {counts['run']} to run, {counts['decide']} decided when it is their turn"
    more = [f"{counts[name]} to {name}" for name in ("skip", "fail") if counts[name]]
    if counts["ask"]:
        more.append(f"{counts['ask']} to be answered")
    print(", ".join([told, *more]))
