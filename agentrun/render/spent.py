"""What a run spent, and the calls that its Python steps made.

Tokens and cost are told by step and model, the dearest first, and beside the limit where there is one; so is what
the runs that it called used (`research/think`). What handlers used is shown, and marked: no budget counts it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..step.usage import cost_text
from ..store.spent import Account, CallRow, ModelUse
from . import times, words
from .tables import Column, Row, table
from .terminal import Look, fit, printable

if TYPE_CHECKING:
    from ..model import JSON, Budget, Job

_COLUMNS = (
    Column("SPENT BY", cut=True),
    Column("MODEL", cut=True, drop=1),
    Column("CALLS", right=True, drop=3),
    Column("INPUT", right=True, drop=2),
    Column("OUTPUT", right=True, drop=2),
    Column("COST", right=True),
)
_IN_LINE = 3  # steps and models that are told in one line; more are a table
_ARGUMENTS, _RESULT = 60, 80  # characters of a call that are shown in one line


def account_facts(account: Account, job: Job | None) -> list[tuple[str, str]]:
    """What the head of a run says of what it spent, who enforces its limits, and who called it."""
    facts = []
    if account.caller is not None:
        facts.append(("caller", f"{account.caller}, step {account.caller_instance}"))
    if account.uses:
        facts.append(("spent", _summary(account.uses, None if job is None else job.budget)))
    if account.enforced_by:
        facts.append(("limits", printable(account.enforced_by)))
    return facts


def usage_table(uses: Sequence[ModelUse], look: Look) -> list[str]:
    """By step and model, as a table; empty where `account_facts` has said it all."""
    if len(uses) <= _IN_LINE:
        return []
    rows = [
        Row(
            (printable(use.step), printable(use.model) or "-", f"{use.calls:,}", f"{use.input_tokens:,}",
             f"{use.output_tokens:,}", cost_text(use.cost)),
            {},
            "" if use.counted else "a handler: not counted",
        )
        for use in uses
    ]  # fmt: skip
    return table(_COLUMNS, rows, look)


def report_lines(uses: Sequence[ModelUse], budget: Budget | None, most: int = 6) -> list[str]:
    """The same for the report of a failure: a line, or one for each step and model; at most `most`."""
    if len(uses) <= 1:
        return [f"spent:     {_summary(uses, budget)}"] if uses else []
    lines = [f"spent:     {_total(uses, budget)}", *(f"           {_by(use)}" for use in uses)]
    if len(lines) > most:
        lines[most - 1 :] = [f"           and by {len(lines) - most + 1} more"]
    return lines


def _summary(uses: Sequence[ModelUse], budget: Budget | None) -> str:
    """`21,430 of 20,000 tokens, 0.43 by gpt-4o (think)`; of several, the total first."""
    if len(uses) == 1:
        return f"{_total(uses, budget)}{_who(uses[0])}"
    total = _total(uses, budget)
    return total if len(uses) > _IN_LINE else f"{total}: {'; '.join(_by(use) for use in uses)}"


def _total(uses: Sequence[ModelUse], budget: Budget | None) -> str:
    counted = [use for use in uses if use.counted]
    if not counted:
        return "nothing that counts"
    tokens = sum(use.input_tokens + use.output_tokens for use in counted)
    cost = sum(use.cost for use in counted)
    return _amounts(tokens, cost, budget)


def _by(use: ModelUse) -> str:
    text = _amounts(use.input_tokens + use.output_tokens, use.cost, None) + _who(use)
    return text if use.counted else f"{text}, a handler: not counted"


def _who(use: ModelUse) -> str:
    return f" by {printable(use.model)} ({printable(use.step)})" if use.model else f" by {printable(use.step)}"


def _amounts(tokens: int, cost: int, budget: Budget | None) -> str:
    """`21,430 of 20,000 tokens, 0.43`: what is nothing and has no limit is left out."""
    parts = []
    if budget is not None and budget.tokens is not None:
        parts.append(f"{tokens:,} of {budget.tokens:,} tokens")
    elif tokens or not cost:
        parts.append(f"{tokens:,} {'token' if tokens == 1 else 'tokens'}")
    if budget is not None and budget.cost is not None:
        parts.append(f"cost {cost_text(cost)} of {cost_text(budget.cost)}")
    elif cost:
        parts.append(f"cost {cost_text(cost)}")
    return ", ".join(parts)


def call_lines(call: CallRow, look: Look, *, whole: bool = False) -> list[str]:
    """A call: who made it, with what, what came of it, how long it took; `whole`: nothing is shortened."""
    place = look.paint(f"{call.instance}#{call.attempt}", "dim")
    took = times.duration(call.ms)
    arguments = printable(_arguments(call))
    came = printable(call.result or "null") if call.error is None else f"failed: {printable(call.error)}"
    came = came if whole else fit(came, _RESULT, look.dots)
    came = look.paint(came, "red") if call.error is not None else f"{'→' if look.unicode else '->'} {came}"
    if not whole:
        arguments = fit(arguments, _ARGUMENTS, look.dots)
        return [f"{place}  {printable(call.function)}({arguments}) {came}  {took}"]
    lines = [f"{place}  {printable(call.function)}({arguments})"]
    if call.key is not None:
        lines.append(f"    key   {printable(call.key)}")
    lines += [f"    {came}", f"    {times.full(call.started_at)}, took {took}"]
    return lines


def _arguments(call: CallRow) -> str:
    """`topic="rates", n=3`: as they would stand in the program."""
    try:
        value: JSON = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    if value is None and call.key is not None:  # they were no JSON: it is known by its key
        return f"key={words.compact(call.key)}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={words.compact(part)}" for name, part in value.items())
    return words.compact(value)
