"""What a run spent, and the calls that its Python steps made.

Tokens and cost are told by step and model, the dearest first, and beside the limit where there is one; so is what
the runs that it called used (`research/think`). What handlers used is shown, and marked: no budget counts it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..step.usage import cost_text
from ..store.database import open_for_reading
from ..store.folders import home
from ..store.read import Reader
from ..store.spent import Account, CallRow, ModelUse, Spent, of_called, of_run
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
_ARGUMENT, _ARGUMENTS, _RESULT = 40, 120, 80  # characters of a call that are shown in one line
_ASK = 1_000  # ms between two questions of the live view
_OWN_MODULES = ("__main__.", "__step__.")  # of a script and of inline code: names that nobody gave


def account_facts(account: Account, job: Job | None, today: Spent | None = None) -> list[tuple[str, str]]:
    """What the head of a run says of what it spent, who enforces its limits, and who called it.

    `today`: what all runs of its job took today.
    """
    facts = []
    if account.caller is not None:
        facts.append(("caller", f"{account.caller}, step {account.caller_instance}"))
    if account.uses:
        who = _who(account.uses[0]) if len(account.uses) == 1 else ""
        facts.append(("spent", _total(account.uses, None if job is None else job.budget) + who))
    if today is not None and job is not None and (told := _of_the_day(today, job.daily)):
        facts.append(("today", told))
    if account.enforced_by:
        facts.append(("limits", printable(account.enforced_by)))
    return facts


def _of_the_day(took: Spent, daily: Budget) -> str:
    """`1,400 of 1,500 tokens`: what all runs of the job took today of each budget that it has for a day."""
    cpu, output = daily.cpu, daily.output
    parts = (
        "" if daily.tokens is None and daily.cost is None else _limited(took, daily),
        "" if daily.steps is None else f"{took.steps:,} of {words.count(daily.steps, 'attempt')}",
        "" if cpu is None else f"CPU {times.duration(took.cpu)} of {times.duration(cpu)}",
        "" if output is None else f"output {words.size(took.output)} of {words.size(output)}",
    )
    return ", ".join(part for part in parts if part)


def _limited(took: Spent, budget: Budget) -> str:
    tokens = "" if budget.tokens is None else f"{took.tokens:,} of {budget.tokens:,} tokens"
    cost = "" if budget.cost is None else f"cost {cost_text(took.cost)} of {cost_text(budget.cost)}"
    return ", ".join(part for part in (tokens, cost) if part)


def usage_table(uses: Sequence[ModelUse], look: Look) -> list[str]:
    """By step and model, as a table; empty where `account_facts` has said it all."""
    if len(uses) <= 1:
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
        return [f"spent:     {_total(uses, budget)}{_who(uses[0])}"] if uses else []
    lines = [f"spent:     {_total(uses, budget)}", *(f"           {_by(use)}" for use in uses)]
    if len(lines) > most:
        lines[most - 1 :] = [f"           and by {len(lines) - most + 1} more"]
    return lines


def _total(uses: Sequence[ModelUse], budget: Budget | None) -> str:
    counted = [use for use in uses if use.counted]
    if not counted:
        return "nothing that counts"
    tokens = sum(use.input_tokens + use.output_tokens for use in counted)
    cost = sum(use.cost for use in counted)
    return amounts(tokens, cost, budget)


def _by(use: ModelUse) -> str:
    text = amounts(use.input_tokens + use.output_tokens, use.cost, None) + _who(use)
    return text if use.counted else f"{text}, a handler: not counted"


def _who(use: ModelUse) -> str:
    return f" by {printable(use.model)} ({printable(use.step)})" if use.model else f" by {printable(use.step)}"


def amounts(tokens: int, cost: int, budget: Budget | None) -> str:
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


class SoFar:
    """What a run and those that it called have spent, for the live view: asked of the record, at most once a second.

    Nothing is asked, or opened, before something was used (`used`), but where the job calls other runs. A record that
    does not answer is left alone.
    """

    def __init__(self, run_id: str, job: Job, *, used: bool) -> None:
        self._run_id, self._budget, self._news = run_id, job.budget, used
        self._calls = any(step.job is not None for step in job.steps)
        self._reader: Reader | None = None
        self._asked_at, self._text = 0, ""

    def used(self) -> None:
        """Something has been added."""
        self._news = True

    def text(self, now: int) -> str:
        """`21,430 of 200,000 tokens, cost 0.43`; empty where nothing was spent."""
        if (self._news or self._calls) and now - self._asked_at >= _ASK:
            self._asked_at, self._news = now, False
            try:
                self._text = self._ask()
            except Exception:  # whatever is wrong with the record: those who advance the run say it
                self._calls = False
        return self._text

    def _ask(self) -> str:
        if self._reader is None:
            connection = open_for_reading(home())
            if connection is None:
                return ""
            self._reader = Reader(connection)
        own, called = of_run(self._reader, self._run_id), of_called(self._reader, self._run_id)
        took = own.plus(called)
        return amounts(took.tokens, took.cost, self._budget) if took.tokens or took.cost else ""

    def close(self) -> None:
        """Let go of the record."""
        if self._reader is not None:
            self._reader.connection.close()
            self._reader = None


def call_lines(call: CallRow, look: Look, *, whole: bool = False) -> list[str]:
    """A call: who made it, with what, what came of it, how long it took; `whole`: nothing is shortened."""
    place = look.paint(f"{call.instance}#{call.attempt}", "dim")
    took = times.duration(call.ms)
    function = printable(call.function)
    for module in _OWN_MODULES:
        function = function.removeprefix(module)
    arguments = printable(_arguments(call, None if whole else _ARGUMENT, look.dots))
    came = printable(call.result or "null") if call.error is None else f"failed: {printable(call.error)}"
    came = came if whole else fit(came, _RESULT, look.dots)
    came = look.paint(came, "red") if call.error is not None else f"{'→' if look.unicode else '->'} {came}"
    if not whole:
        arguments = fit(arguments, _ARGUMENTS, look.dots)
        return [f"{place}  {function}({arguments}) {came}  {took}"]
    lines = [f"{place}  {function}({arguments})"]
    if call.key is not None:
        lines.append(f"    key   {printable(call.key)}")
    lines += [f"    {came}", f"    {times.full(call.started_at)}, took {took}"]
    return lines


def _arguments(call: CallRow, most: int | None, dots: str) -> str:
    """`topic="rates", n=3`: as they would stand in the program; of each so many characters at most."""
    try:
        value: JSON = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    if value is None and call.key is not None:  # they were no JSON: it is known by its key
        return f"key={fit(words.compact(call.key), most, dots)}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={fit(words.compact(part), most, dots)}" for name, part in value.items())
    return fit(words.compact(value), most, dots)
