"""Cron expressions to `Schedule`s, and the names of zones.

What is accepted is what Debian's cron accepts: five fields of `*`, numbers, names (jan, mon), lists, ranges and steps,
or a nickname. Other schedulers have extensions, which croniter knows and would take; they are refused here, with what
to write instead, because the crontab that fires the job would not take them. So is a range that is upside down, a
step of nothing, and a day that no month has.

The check is ours, and says which part of which field is wrong; croniter spells out what has passed. This is the only
place that imports it (55 ms), and only when a schedule is decoded: a run keeps its job decoded and pickled, with the
schedule spelled out, so the start of a known job imports no croniter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ..model import JSON, Schedule
from .document import ListNode, Node, Scalar
from .kinds import Kind
from .nearest import suggestion
from .report import INVALID, Report

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month, at most
_FIELDS: Final = "minute, hour, day, month, weekday"

_PART: Final = r"(\*|[0-9]+|[a-zA-Z]+)(?:-([0-9]+|[a-zA-Z]+))?(?:/([0-9]+))?"  # compiled where it is needed
_ZONE: Final = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*"
_SCHEMA: Final = r"^\s*(@[a-z]+|\S+(\s+\S+){4})\s*$"

_FOREIGN: Final = (
    ("L", "cron has no last day of a month: take the first day of the next one, or ask in the job's 'if'"),
    ("W", "cron has no nearest weekday: name the weekdays, as 1-5"),
    ("#", "cron has no third Friday: name the days 15-21, and ask for the weekday in a step's 'if'"),
    ("?", "cron knows no '?': write *"),
    ("H", "cron knows no 'H': name a number, and spread the starts with 'jitter'"),
    ("R", "cron knows no 'R': name a number, and spread the starts with 'jitter'"),
    ("~", "cron knows no '~': name a number, and spread the starts with 'jitter'"),
)


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_ORDER: Final = (
    _Field("minute", 0, 59), _Field("hour", 0, 23), _Field("day", 1, 31), _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _WEEKDAYS),
)  # fmt: skip


class Wrong(ValueError):
    """What is wrong with an expression: from which character on, what, and what to do."""

    def __init__(self, at: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.at = at
        self.message = message
        self.hint = hint


class Expression(Kind):
    what = 'a cron expression such as "*/15 * * * *" or "@daily"'

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or node.is_null or not node.text.strip():
            return self.refuse(node, label, report)
        try:
            return parse(node.text)
        except Wrong as wrong:
            start = report.text.find(node.text, node.mark.index, node.mark.index + len(node.text) + 1)
            if start < 0:  # folded, or with escapes
                report.add(node.mark, wrong.message, wrong.hint)
            else:
                cut_off = not node.style and report.text[start + len(node.text) :].startswith(",")
                hint = "in brackets a comma ends it: put it into quotes" if cut_off else wrong.hint
                report.add_offset(start + wrong.at, wrong.message, hint)
            return INVALID

    def schema(self) -> dict[str, JSON]:
        return {"type": "string", "pattern": _SCHEMA}


class Schedules(Kind):
    """One expression or a list of them, as a tuple; no two come at the same times."""

    what = Expression.what + ", or a list of them"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is Scalar and not node.is_null and node.text.strip():
            one = Expression().read(node, label, report)
            return one if one is INVALID else (one,)
        if type(node) is not ListNode or not node.items:
            return self.refuse(node, label, report)
        read = [Expression().read(item, label, report) for item in node.items]
        lines: dict[Schedule, int] = {}
        for item, schedule in zip(node.items, read, strict=True):
            if schedule is INVALID:
                continue
            times = replace(schedule, text="")
            if times in lines:
                words = f"'{schedule.text}' comes at the same times as the one on line {lines[times]}"
                report.add(item.mark, words, "once is enough")
            lines.setdefault(times, item.mark.line + 1)
        return INVALID if INVALID in read else tuple(read)

    def schema(self) -> dict[str, JSON]:
        return {"anyOf": [Expression().schema(), {"type": "array", "items": Expression().schema(), "minItems": 1}]}


class Zone(Kind):
    """A name of the zone database, as this machine has it."""

    what = "a zone such as Europe/Riga or UTC"

    def read(self, node: Node, label: str, report: Report) -> Any:
        if type(node) is not Scalar or node.is_null or not node.text.strip():
            return self.refuse(node, label, report)
        if _is_zone(node.text):
            return node.text
        from zoneinfo import available_timezones

        known = sorted(available_timezones())
        if not known:
            hint = "install Debian's package tzdata, or the Python package tzdata"
            report.add(node.mark, f"'{label}' cannot be read: this machine has no zone database", hint)
            return INVALID
        own = "without the key, the machine's zone is meant" if node.text in ("local", "localtime") else None
        return self.refuse(node, label, report, own, suggestion(node.text, known))

    def schema(self) -> dict[str, JSON]:
        return {"type": "string", "pattern": f"^{_ZONE}$"}


def _is_zone(name: str) -> bool:
    """Whether zoneinfo knows it. The copies with leap seconds, and the machine's own, are no names."""
    from zoneinfo import ZoneInfo

    if not re.fullmatch(_ZONE, name) or name.startswith(("right/", "posix/")) or name in ("localtime", "posixrules"):
        return False
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return False
    return True


# -- one expression -----------------------------------------------------------------------------------------------


def parse(text: str) -> Schedule:
    """An expression, spelled out. Raises Wrong."""
    words = list(re.finditer(r"\S+", text))
    if words[0][0].startswith("@"):
        fields = [(0, word) for word in _of_nickname(words).split()]
    else:
        _count(words)
        fields = [(word.start(), word[0]) for word in words]
    for field, (at, written) in zip(_ORDER, fields, strict=True):
        _check(field, at, written)
    from croniter import croniter  # a file without a schedule does not pay for it

    spelled, _ = croniter.expand(" ".join(written for _, written in fields).lower())
    minutes, hours, days, months, weekdays = map(_numbers, _ORDER, spelled)
    minute, hour, day, _, weekday = (written.startswith("*") for _, written in fields)
    schedule = Schedule(
        " ".join(word[0] for word in words), minutes, hours, days, months, weekdays,
        by_clock=minute or hour, either_day=not (day or weekday),
    )  # fmt: skip
    longest = max(_LONGEST[month - 1] for month in schedule.months)
    if not schedule.either_day and min(schedule.days) > longest:
        at, written = fields[2]
        raise Wrong(at, f"it never comes: no month that it names has a day {min(schedule.days)}")
    return schedule


def _numbers(field: _Field, named: Sequence[int | str]) -> tuple[int, ...]:
    """What croniter names, which says `*` for all; to it Sunday is 0."""
    if "*" in named:
        return tuple(range(field.low, 7 if field.names is _WEEKDAYS else field.high + 1))
    return tuple(sorted(map(int, named)))


def _of_nickname(words: list[re.Match[str]]) -> str:
    name = words[0][0]
    if name == "@reboot":
        hint = "put a line into the crontab: @reboot agentrun run JOB; or `@reboot agentrun resume` for what was missed"
        raise Wrong(words[0].start(), "'@reboot' is no time: such a job has no ticks", hint)
    if name == "@every":
        hint = 'cron counts from the full hour: as "*/15 * * * *"'
        raise Wrong(words[0].start(), "cron has no '@every'", hint)
    if name not in NICKNAMES:
        raise Wrong(
            words[0].start(), f"cron has no '{name}'{suggestion(name, NICKNAMES)}", f"there are {', '.join(NICKNAMES)}"
        )
    if len(words) > 1:
        raise Wrong(words[1].start(), f"nothing follows '{name}'", _COMMAND if len(words) > 2 else None)
    return NICKNAMES[name]


_COMMAND: Final = "this is when, and nothing else: the command goes into 'steps'"


def _count(words: list[re.Match[str]]) -> None:
    if "=" in words[0][0]:
        hint = "the zone goes into 'timezone'" if "TZ" in words[0][0] else None
        raise Wrong(words[0].start(), f"a cron expression has 5 fields ({_FIELDS}), and no variables", hint)
    if len(words) < 5:
        raise Wrong(words[0].start(), f"a cron expression has 5 fields ({_FIELDS}), and this has {len(words)}")
    if len(words) > 5:
        numeric = all(re.fullmatch(r"[0-9*/,?LW#-]+|[A-Za-z]{3}", word[0]) for word in words)
        hint = "cron knows neither seconds nor years" if len(words) <= 7 and numeric else _COMMAND
        raise Wrong(words[5].start(), f"a cron expression has 5 fields ({_FIELDS}), and this has {len(words)}", hint)


def _check(field: _Field, at: int, text: str) -> None:
    """Each part of a list: a value, a range, all; and its step."""
    for part in text.split(","):
        match = re.fullmatch(_PART, part)
        if match is None or (part.startswith("*") and match[2]):
            message = f"'{part}' is no {field.name}" if part else f"'{text}' lacks a {field.name}"
            raise Wrong(at, message, _foreign(part))
        first, last, step = match.groups()
        low = field.low if first == "*" else _number(field, at, first)
        high = field.high if first == "*" else low if last is None else _number(field, at + match.start(2), last)
        if low > high:
            raise Wrong(at, f"the range '{part}' is upside down", _turned(field, low, high))
        if step is not None and first != "*" and last is None:
            raise Wrong(at, f"the step in '{part}' has no range", f"as {first}-{field.high}/{step}")
        if step is not None and not (len(step) < 5 and int(step)):
            raise Wrong(at + match.start(3), f"'{part}' counts by no step")
        at += len(part) + 1


def _number(field: _Field, at: int, text: str) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + (1 if field.names is _MONTHS else 0)
    bounds = f"{field.low} to {field.high}"
    if not text.isdigit():
        if field.names:
            more = suggestion(text, field.names) or next(
                (f" (did you mean '{name}'?)" for name in field.names if text.lower().startswith(name)), ""
            )
            names = f"{field.names[0]} to {field.names[-1]}"
            raise Wrong(at, f"'{text}' is no {field.name}: it is {bounds}, or {names}{more}", _foreign(text))
        raise Wrong(at, f"'{text}' is no {field.name}: it is {bounds}", _foreign(text))
    if len(text) > 4 or not field.low <= int(text) <= field.high:
        raise Wrong(at, f"there is no {field.name} {text}: it is {bounds}")
    return int(text)


def _foreign(part: str) -> str | None:
    """What to write instead of another scheduler's extension."""
    return next((hint for sign, hint in _FOREIGN if sign in part), None)


def _turned(field: _Field, low: int, high: int) -> str:
    """The two ranges that are meant, or the one to Sunday."""
    if field.names is _WEEKDAYS and high == 0:
        return f"Sunday is 7, too: {low}-7"
    return f"as {low}-{6 if field.names is _WEEKDAYS else field.high},{field.low}-{high}"
