"""What looks wrong about a schedule, in words: it may be meant so, and people mostly do not.

Days that some months do not have, a day beside a weekday (one of them is enough), steps that do not divide the hour or
the day, and ticks that a change of the clock moves, drops or doubles in the next 13 months. Pure: time is an argument.
A schedule for every hour that follows the clock has nothing odd where the clock is set: an hour more or less.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from .ticks import Calendar, change, offsets

if TYPE_CHECKING:
    from ..model import Schedule

_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_DAY = 86_400
_AHEAD = 396 * _DAY  # 13 months
_FEW = 3             # local times that are named


def oddities(schedules: tuple[Schedule, ...], zone: str | None, now: int) -> list[str]:
    """Sentences about schedules in a zone (None: the machine's), from `now` on, in ms."""
    found = []
    for schedule in schedules:
        found += [f"'{schedule.text}': {words}" for words in (*_of_days(schedule, now), *_of_steps(schedule))]
    offset, first = offsets(zone), now // 1000
    for low, high in pairwise(range(first, first + _AHEAD, _DAY)):
        if offset(low) != offset(high):
            at = change(offset, low, high)
            for schedule in schedules:
                words = _of_change(schedule, zone, at, offset)
                if words:
                    found.append(f"'{schedule.text}': {words}")
    return found


def _of_days(schedule: Schedule, now: int) -> Iterator[str]:
    if schedule.either_day:
        days = "day " + _listed([str(day) for day in schedule.days])
        weekdays = _listed([_WEEKDAYS[day] for day in schedule.weekdays])
        yield f"it comes on {days} and besides on every {weekdays}: a day or a weekday is enough"
    if _starred(schedule.text, 2) or set(schedule.days) >= {28, 29, 30, 31}:
        return  # the last day of each month is looked for
    for day in schedule.days:
        without = [month for month in schedule.months if _LENGTHS[month - 1] < day]
        if day == 29 and without:
            yield f"day 29 comes in February of leap years only, next in {_leap_year(now)}"
        elif without:
            yield f"day {day} never comes in {_listed([_MONTHS[month - 1] for month in without])}"


def _of_steps(schedule: Schedule) -> Iterator[str]:
    """Steps that are cut off where the hour, the day or the month ends."""
    fields = schedule.text.split()
    for number, (name, length) in enumerate((("hour", 60), ("day", 24), ("month", 31))):
        match = re.fullmatch(r"\*/([0-9]+)", fields[number]) if len(fields) == 5 else None
        if match is None or int(match[1]) == 1 or (int(match[1]) < length != 31 and length % int(match[1]) == 0):
            continue
        named = (schedule.minutes, schedule.hours, schedule.days)[number]
        shown = [f":{one:02d}" if name == "hour" else str(one) for one in named]
        thing = ("minute", "hour", "day")[number]
        if len(named) == 1:
            yield f"'{match[0]}' is {thing} {shown[0].lstrip(':')} and no other: each {name} is counted anew"
        else:
            yield f"'{match[0]}' is uneven: {thing} {shown[-1].lstrip(':')} is followed by {shown[0].lstrip(':')}"


def _of_change(schedule: Schedule, zone: str | None, at: int, offset: Callable[[int], int]) -> str | None:
    """What becomes of the ticks of the hour that is left out at `at`, or repeated."""
    before, after = at + offset(at - 1), at + offset(at)
    if schedule.by_clock and len(schedule.hours) == 24:
        return None
    low, high = min(before, after), max(before, after)
    times = _local_times(schedule, low, high)
    if not times:
        return None
    named = _listed([_clock(one) for one in times]) if len(times) <= _FEW else f"{_clock(low)} to {_clock(high)}"
    day = time.strftime("%Y-%m-%d", time.gmtime(before))
    turn = f"on {day} the clock goes from {_clock(before)} to {_clock(after)}"
    s, do = ("s", "does") if len(times) == 1 else ("", "do")
    if before < after:
        return f"{turn}: {named} " + (f"{do} not come" if schedule.by_clock else f"come{s} at {_clock(after)}")
    return f"{turn}: {named} come{s} " + ("twice" if schedule.by_clock else "the first time only")


def _local_times(schedule: Schedule, first: int, end: int) -> list[int]:
    """The local times that a schedule names, as if they were UTC."""
    return [tick // 1000 for tick in Calendar([schedule], "UTC").between(1000 * first - 1, 1000 * end - 1)]


def _starred(text: str, field: int) -> bool:
    fields = text.split()
    return len(fields) != 5 or fields[field].startswith("*")


def _leap_year(now: int) -> int:
    """The year of the next 29 February."""
    today = time.gmtime(now // 1000)
    year = today.tm_year + (today[1:3] > (2, 29))
    while year % 4 or (year % 100 == 0 and year % 400):
        year += 1
    return year


def _clock(local: int) -> str:
    return time.strftime("%H:%M", time.gmtime(local))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
