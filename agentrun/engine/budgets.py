"""The meter: what the attempts of a run use while they run, and whether that crosses a line of a budget.

    begin / adopt   an attempt is about to run; one was found running
    look            reads what is new in the files of all that run, and says which attempts are to be ended
    ended           the last read of one
    changes         what all this adds to the record: to be committed with the turn
    used_up, over   a budget of the run or of the day of which nothing is left; one that was exceeded

It reads files and the record, and neither writes nor ends anything. What is read counts from that moment on, and is
committed together with how far was read: killed in between, the next owner's meter reads it again.

A step with `job` is metered by the record: all that its run and those below have committed counts for the step and
for this run; their supervisors look as often as ours (`called`). CPU and output of the own attempts, memory and
processes are held by the shim while they run; they come here when they have ended.

The day is that of the machine's clock: who crosses midnight counts on the new day what is read after it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..model import Budget, Job, Reason, Step, split_instance
from ..step.calls import CallsReader
from ..step.usage import BadUsage, Usage, UsageReader, cost_text
from ..store import spent
from ..store.changes import Change
from ..store.read import Reader, Run
from ..store.spent import CallsTaken, SpendingAdded, Spent, UsageTaken

_MONEY = 250  # ms between two looks where tokens or cost are limited
_OTHER = 500  # where only something else is, which called runs or other runs of the day take
_UNLIMITED = 1_000  # where nothing is limited: for those who look on
_OTHERS = 2_000  # ms for which what other runs took today is believed
_REPORTED: tuple[Reason, ...] = ("tokens", "cost")
_OF_A_CALLED_RUN: tuple[Reason, ...] = ("tokens", "cost", "cpu", "output")


class Over(NamedTuple):
    """An attempt to be ended. `cause`: what its own budget is exceeded in, or `usage`: it cannot be counted."""

    instance: str
    attempt: int
    cause: Reason


class Last(NamedTuple):
    """What the last read of an attempt found.

    `complaint`: why it fails although it may have succeeded. `over`: what its own budget is exceeded in, be it that
    it was ended for it or that it was quicker.
    """

    complaint: str | None = None
    over: Reason | None = None
    words: str | None = None  # of `over`: `tokens: 21,430 of 20,000`


def local_day(now: int) -> str:
    """`2026-11-20`: the day of a time in ms, by the machine's zone."""
    return time.strftime("%Y-%m-%d", time.localtime(now / 1000))


class _Attempt:
    """One that runs. `used`: what it reported, or what the run that it called has taken."""

    __slots__ = ("calls", "complaint", "fresh", "instance", "number", "step", "told", "usage", "used")

    def __init__(self, step: Step, instance: str, number: int) -> None:
        self.step, self.instance, self.number = step, instance, number
        self.usage: UsageReader | None = None
        self.calls: CallsReader | None = None
        self.used = Spent()
        self.complaint: str | None = None
        self.told = False
        self.fresh = False  # nothing of it can be in the record yet

    @property
    def counted(self) -> bool:
        return not self.step.is_handler

    @property
    def over(self) -> Reason | None:
        """The first line of its own budget that is crossed."""
        budget = self.step.budget
        for kind in _OF_A_CALLED_RUN if self.step.job else _REPORTED:
            limit = getattr(budget, kind)
            if limit is not None and getattr(self.used, kind) > limit:
                return kind
        return None

    @property
    def words(self) -> str | None:
        kind = self.over
        return in_words(kind, getattr(self.step.budget, kind), getattr(self.used, kind), False) if kind else None


class Meter:
    """Of one run, for the time of one owner. `called`: another run called this one, and counts what it uses."""

    def __init__(
        self,
        job: Job,
        run: Run,
        reader: Reader,
        *,
        usage_path: Callable[[str, int], str],
        calls_path: Callable[[str], str],
        now: int,
        called: bool = False,
        day: Callable[[int], str] = local_day,
    ) -> None:
        self._job, self._run_id, self._reader, self._day_of = job, run.id, reader, day
        self._minute, self._day_then = -1, ""
        self._usage_path, self._calls_path = usage_path, calls_path
        self._money = called or _limits_money(job.budget) or _limits_money(job.daily)
        self._limits = [*_limits_of(job.budget, today=False), *_limits_of(job.daily, today=True)]
        self._daily = job.daily != Budget()
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._limited = 0  # of them, those whose own budget needs looks
        self._calling = 0  # of them, those that call a run
        self._calls_seen: dict[str, int] = {}
        self._usage: dict[tuple[str, int, str, str], Usage] = {}
        self._seen: dict[tuple[str, int], int] = {}
        self._spending: dict[str, Spent] = {}
        self._calls: list[CallsTaken] = []
        self._own = spent.of_run(reader, run.id)._replace(steps=run.started_steps)
        self._called = self._of_called() if any(step.job for step in job.steps) else Spent()
        self._lenders = list(_lenders(reader, run))
        self._today = ""
        self._own_today = self._others = Spent()
        self._looked_at = self._others_at = now - 86_400_000
        self._follow_day(now)

    def _of_called(self) -> Spent:
        handlers = {step.id for step in self._job.steps if step.job and step.is_handler}
        total = spent.of_called(self._reader, self._run_id)
        if handlers:
            for instance in spent.callers(self._reader, self._run_id):
                if split_instance(instance)[0] in handlers:
                    total = total.minus(spent.of_called(self._reader, self._run_id, instance))
        return total

    # --- what runs

    def begin(self, instance: str, attempt: int, now: int) -> None:
        """An attempt is about to run for the first time; it is one of the steps that are counted."""
        made = self.adopt(instance, attempt)
        made.fresh = True
        if made.counted:
            self._add(Spent(steps=1), now)

    def adopt(self, instance: str, attempt: int) -> _Attempt:
        """An attempt that is in the record already runs, or may have ended meanwhile."""
        if known := self._attempts.get((instance, attempt)):
            return known
        made = self._attempts[instance, attempt] = _Attempt(
            self._job.step(split_instance(instance)[0]), instance, attempt
        )
        self._limited += _needs_looks(made.step)
        if made.step.job:
            self._calling += 1
            made.used = spent.of_called(self._reader, self._run_id, instance)
        return made

    def look(self, now: int) -> list[Over]:
        """Read what is new, if it is time; the attempts that have crossed a line since, each once.

        Call it at every turn of the loop: between two looks it costs nothing.
        """
        self._follow_day(now)
        interval = self.interval
        if interval is None or now - self._looked_at < interval:
            return []
        self._looked_at = now
        if self._calling:
            self._ask_for_others(now)
        found = []
        for attempt in self._attempts.values():
            self._read(attempt, now)
            cause: Reason | None = "usage" if attempt.complaint else attempt.over
            if cause and not attempt.told:
                attempt.told = True
                found.append(Over(attempt.instance, attempt.number, cause))
        return found

    def ended(
        self, instance: str, attempt: int, cpu_ms: int | None, output_bytes: int | None, now: int
    ) -> Last:
        """An attempt is over, however it ended: nothing is read of it any more. None: nobody knows the figure."""
        self._follow_day(now)
        known = self.adopt(instance, attempt)
        del self._attempts[instance, attempt]
        self._limited -= _needs_looks(known.step)
        self._read(known, now, final=True)
        self._calling -= bool(known.step.job)
        if known.counted and (cpu_ms or output_bytes):
            self._add(Spent(cpu=cpu_ms or 0, output=output_bytes or 0), now)
        return Last(known.complaint, known.over, known.words)

    # --- what comes of it

    def changes(self) -> list[Change]:
        """What is to be committed since this was last asked. Ask after the changes of the turn, and commit it."""
        if not self.has_changes:
            return []
        made: list[Change] = []
        for (instance, attempt, model, day), use in self._usage.items():
            counted = not self._job.step(split_instance(instance)[0]).is_handler
            seen = self._seen[instance, attempt]
            made.append(UsageTaken(instance, attempt, model, day, counted, *use[1:], seen))
        made += [SpendingAdded(day, took.steps, took.cpu, took.output) for day, took in self._spending.items()]
        made += self._calls
        self._usage, self._seen, self._spending, self._calls = {}, {}, {}, []
        return made

    @property
    def spent(self) -> Spent:
        """What the run's own attempts have taken."""
        return self._own

    @property
    def has_changes(self) -> bool:
        """Whether `changes` has anything to say."""
        return bool(self._usage or self._spending or self._calls)

    @property
    def interval(self) -> int | None:
        """How many ms may pass between two looks; None: nothing runs."""
        if not self._attempts:
            return None
        if self._money or self._limited:
            return _MONEY
        return _OTHER if self._daily or (self._calling and self._limits) else _UNLIMITED

    @property
    def steps_of_children(self) -> int:
        """Attempts that the runs which this one called have started: they count for its `budget.steps`."""
        return self._of_called().steps if self.shares_attempts and self._calling else self._called.steps

    @property
    def used_up(self) -> str | None:
        """The first budget of the run or of the day of which nothing is left: `tokens: 20,000 of 20,000`.

        The run's own `budget.steps` is the plan's.
        """
        for line in self._limits:
            taken = self._taken(line)
            if taken >= line.limit and (line.today or line.kind != "steps"):
                return in_words(line.kind, line.limit, taken, line.today)
        return None

    @property
    def over(self) -> str | None:
        """The first that is exceeded. Of attempts nothing is: those that run may finish."""
        for line in self._limits:
            taken = self._taken(line)
            if taken > line.limit and line.kind != "steps":
                return in_words(line.kind, line.limit, taken, line.today)
        return None

    @property
    def shares_attempts(self) -> bool:
        """Whether other runs take of the same budget of attempts now: it is asked and drawn on with nobody between."""
        return bool(self._lenders) or (self._calling > 0 and self._job.budget.steps is not None)

    def attempts_left(self) -> int | None:
        """How many attempts the day, and the runs that called this one, allow to begin; None: as many as one likes."""
        left = [line.limit - self._taken(line) for line in self._limits if line.today and line.kind == "steps"]
        left += [limit - self._taken_by(caller) for caller, limit in self._lenders]
        return min(left, default=None)

    @property
    def lent_out(self) -> str | None:
        """The budget of attempts of a run that called this one, of which nothing is left."""
        for caller, limit in self._lenders:
            if (taken := self._taken_by(caller)) >= limit:
                return f"{in_words('steps', limit, taken)} (of run {caller}, which called this one)"
        return None

    def _taken_by(self, caller: str) -> int:
        """The attempts of a run and of those that it called, as committed."""
        return self._reader.run(caller).started_steps + spent.of_called(self._reader, caller).steps

    def _taken(self, line: _Limit) -> int:
        own, others = (self._own_today, self._others) if line.today else (self._own, self._called)
        return own[line.place] + others[line.place]

    # --- reading

    def _read(self, attempt: _Attempt, now: int, *, final: bool = False) -> None:
        if attempt.step.job:
            before, attempt.used = attempt.used, spent.of_called(self._reader, self._run_id, attempt.instance)
            if attempt.counted:
                self._called = self._called.plus(attempt.used).minus(before)
            return
        self._read_calls(attempt, final=final)
        if attempt.usage is None:
            path = self._usage_path(attempt.instance, attempt.number)
            if not _has_something(path):
                return
            seen = 0
            if not attempt.fresh:
                seen, attempt.used = spent.of_attempt(self._reader, self._run_id, attempt.instance, attempt.number)
            attempt.usage = UsageReader(path, seen)
        if final:
            self._read_to_the_end(attempt, attempt.usage, now)
        elif not attempt.complaint:
            self._read_usage(attempt, attempt.usage, now)

    def _read_usage(self, attempt: _Attempt, reader: UsageReader, now: int, *, final: bool = False) -> bool:
        """True if something was read, so that there may be more."""
        try:
            used = reader.read_new(final)
        except BadUsage as bad:
            attempt.complaint = attempt.complaint or str(bad)
            return final and reader.pass_over()  # what comes after it was paid for, too
        day = self._day(now)
        for use in used:
            key = (attempt.instance, attempt.number, use.model, day)
            self._usage[key] = self._usage[key].plus(use) if key in self._usage else use
            self._seen[attempt.instance, attempt.number] = reader.offset
            took = Spent(tokens=use.input_tokens + use.output_tokens, cost=use.cost)
            attempt.used = attempt.used.plus(took)
            if attempt.counted:
                self._own, self._own_today = self._own.plus(took), self._own_today.plus(took)
        return bool(used)

    def _read_to_the_end(self, attempt: _Attempt, reader: UsageReader, now: int) -> None:
        while self._read_usage(attempt, reader, now, final=True):
            pass

    def _read_calls(self, attempt: _Attempt, *, final: bool) -> None:
        if attempt.calls is None:
            path = self._calls_path(attempt.instance)
            if not _has_something(path):
                return
            seen = self._calls_seen.get(attempt.instance)
            if seen is None:
                seen = spent.calls_seen(self._reader, self._run_id, attempt.instance)
            attempt.calls = CallsReader(path, seen)
        more = True
        while more:  # a bounded amount at a time; the rest comes with the next look, or now if there is none
            if calls := attempt.calls.read_new():
                self._calls_seen[attempt.instance] = attempt.calls.offset
                self._calls.append(CallsTaken(attempt.instance, tuple(calls), attempt.calls.offset))
            more = final and attempt.calls.more

    # --- adding

    def _day(self, now: int) -> str:
        minute = now // 60_000  # no zone changes its day in the middle of one
        if minute != self._minute:
            self._minute, self._day_then = minute, self._day_of(now)
        return self._day_then

    def _add(self, took: Spent, now: int) -> None:
        day = self._day(now)
        self._spending[day] = self._spending.get(day, Spent()).plus(took)
        self._own, self._own_today = self._own.plus(took), self._own_today.plus(took)

    def _follow_day(self, now: int) -> None:
        if not self._daily:
            return
        day = self._day(now)
        if day != self._today:
            self._today, self._own_today = day, spent.of_run(self._reader, self._run_id, day)
            self._others_at = now - _OTHERS
        if now - self._others_at >= _OTHERS:
            self._ask_for_others(now)

    def _ask_for_others(self, now: int) -> None:
        if self._daily:
            self._others_at = now
            self._others = spent.of_others(self._reader, self._job.name, self._today, self._run_id)


class _Limit(NamedTuple):
    """A limit of the run or of the day; `place`: of its kind among those of `Spent`."""

    kind: str
    place: int
    limit: int
    today: bool


def _limits_of(budget: Budget, *, today: bool) -> list[_Limit]:
    limits = ((kind, place, getattr(budget, kind)) for place, kind in enumerate(Spent._fields))
    return [_Limit(kind, place, limit, today) for kind, place, limit in limits if limit is not None]


def _limits_money(budget: Budget) -> bool:
    return budget.tokens is not None or budget.cost is not None


def _needs_looks(step: Step) -> bool:
    return _limits_money(step.budget) or (step.job is not None and step.budget != Budget())


def _has_something(path: str) -> bool:
    """Whether there is anything to read, or something that should not be there."""
    if not os.access(path, os.F_OK, follow_symlinks=False):
        return False  # as most: without the price of an exception
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the reader says what it is
    return info.st_size > 0 or not stat.S_ISREG(info.st_mode)


def _lenders(reader: Reader, run: Run) -> Iterator[tuple[str, int]]:
    """The runs that called this one and count attempts, and how many each allows. What a handler calls is free."""
    while run.caller is not None and run.caller_instance is not None:
        caller = reader.run(run.caller)
        steps = {step.id: step for step in reader.job_of(caller).steps}
        called_by = steps.get(split_instance(run.caller_instance)[0])
        if called_by is None or called_by.is_handler:  # none: another job file has dropped it
            return
        limit = reader.job_of(caller).budget.steps
        if limit is not None:
            yield caller.id, limit
        run = caller


def in_words(kind: str, limit: int, taken: int, today: bool = False) -> str:
    """`tokens: 21,430 of 20,000`: what was taken of a budget."""
    name = f"{kind} today" if today else kind
    if kind == "cost":
        return f"{name}: {cost_text(taken)} of {cost_text(limit)}"
    if kind == "cpu":
        return f"{name}: {_seconds(taken)} of {_seconds(limit)} s"
    if kind == "memory":
        return f"{name}: {_mebibytes(taken)} MiB of {_mebibytes(limit)} MiB"
    return f"{name}: {taken:,} of {limit:,}" + (" bytes" if kind == "output" else "")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f}".removesuffix(".0")


def _seconds(ms: int) -> str:
    return f"{ms / 1000:,.3f}".rstrip("0").rstrip(".")
