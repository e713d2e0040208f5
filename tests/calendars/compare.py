"""Our ticks beside two other opinions: a model of Debian's cron, minute by minute, and `cronsim`.

The model is the main loop of that cron's cron.c, as its comments describe it: what follows the clock runs when the
clock says so; what has fixed times runs by a clock of its own ("virtual time"), which catches up at once when the
clock jumps ahead by less than three hours, and stands still when it was turned back by up to three, until it is caught
up with. The model wakes every minute; a job that would be started several times in
one minute is one tick.

`cronsim` knows the same rules from a reading of the same source. Where either differs, one of RULES must say why; what
no rule explains is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from agentrun.cron.ticks import Calendar
from agentrun.model import Schedule
from agentrun.spec.schedules import parse

EXPRESSIONS = (
    "* * * * *", "*/15 * * * *", "0 * * * *", "30 */2 * * *", "*/20 1-3 * * *",             # by the clock
    "30 2 * * *", "0 0 * * *", "15,45 0-3 * * *", "0,30 1-4/2 * * 0,6,7",                    # at fixed times
    "30 1 1,29 3,4,10,11 0",                                                                 # a day or a weekday
    "15 0,2 */2 * 0,6",                                                                      # a day and a weekday
    "59 23,0 28-31 * *",                                                                     # the ends of months
)  # fmt: skip
FIRST, END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2020, 2038))
AROUND = 26 * 3600  # seconds that are compared before and after a transition
_MINUTE = 60
_HOURS_3 = 180

SCHEDULES = {text: parse(text) for text in EXPRESSIONS}


class Transition(NamedTuple):
    """The second from which on the offset is another; offsets in seconds."""

    at: int
    before: int
    after: int


class Difference(NamedTuple):
    zone: str
    at: int
    expression: str
    ours: tuple[int, ...]    # that only we have
    theirs: tuple[int, ...]  # that only the other has


class Zone:
    """A zone of zoneinfo, with its transitions from 2020 to 2037."""

    def __init__(self, name: str, transitions: tuple[Transition, ...] | None = None) -> None:
        self.name = name
        self.info = ZoneInfo(name)
        self.clock = cache(self._clock)
        self.transitions = tuple(self._find()) if transitions is None else transitions

    def offset(self, at: int) -> int:
        """Seconds ahead of UTC."""
        found = datetime.fromtimestamp(at, self.info).utcoffset()
        assert found is not None
        return int(found.total_seconds())

    def gap(self, at: int) -> int:
        """Seconds by which the clock is set ahead at `at`."""
        return self.offset(at) - self.offset(at - 1)

    def _clock(self, at: int) -> int:
        """The minute that its clocks show, counted from 1970."""
        return (at + self.offset(at)) // _MINUTE

    def _find(self) -> Iterator[Transition]:
        samples = range(FIRST, END, 86_400)
        for low, high in pairwise(samples):
            before, after = self.offset(low), self.offset(high)
            if before != after:
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if self.offset(middle) == before else (low, middle)
                yield Transition(high, before, after)


def ours(text: str, zone: str, first: int, end: int) -> list[int]:
    """Our ticks in `first` <= t < `end`, in seconds."""
    return [at // 1000 for at in Calendar([SCHEDULES[text]], zone).between(first * 1000 - 1, end * 1000 - 1)]


def theirs(text: str, zone: Zone, first: int, end: int) -> list[int]:
    """Those of cronsim."""
    found = []
    for tick in CronSim(text, datetime.fromtimestamp(first, zone.info) - timedelta(seconds=1)):
        at = int(tick.timestamp())
        if at >= end:
            return found
        if at >= first:
            found.append(at)
    return found


def of_cron(text: str, zone: Zone, first: int, end: int) -> list[int]:
    """Those of the model, which has been at work for a while."""
    schedule = SCHEDULES[text]
    found: set[int] = set()
    virtual = zone.clock(first) - 1
    for at in range(first, end, _MINUTE):
        clock = zone.clock(at)
        ahead = clock - virtual
        if schedule.by_clock:
            if _matches(schedule, clock):
                found.add(at)
        elif -_HOURS_3 < ahead <= 0:
            continue
        elif ahead <= _HOURS_3:
            if any(_matches(schedule, minute) for minute in range(virtual + 1, clock + 1)):
                found.add(at)
        elif _matches(schedule, clock):
            found.add(at)
        virtual = clock
    return sorted(found)


def _matches(schedule: Schedule, minute: int) -> bool:
    """Whether cron's find_jobs takes a local minute, counted from 1970."""
    hour, rest = divmod(minute % 1440, 60)
    if rest not in schedule.minutes or hour not in schedule.hours:
        return False
    day = datetime.fromtimestamp(minute // 1440 * 86_400, UTC)
    right = day.day in schedule.days, day.isoweekday() % 7 in schedule.weekdays
    return day.month in schedule.months and (any(right) if schedule.either_day else all(right))


def differences(zone: Zone, transition: Transition) -> Iterator[tuple[str, Difference]]:
    """Who differs from us around a transition ("cron" or "cronsim"), and in what."""
    first, end = transition.at - AROUND, transition.at + AROUND
    for text in EXPRESSIONS:
        own = set(ours(text, zone.name, first, end))
        for who, found in (("cron", of_cron(text, zone, first, end)), ("cronsim", theirs(text, zone, first, end))):
            if own != set(found):
                only = tuple(sorted(own - set(found))), tuple(sorted(set(found) - own))
                yield who, Difference(zone.name, transition.at, text, *only)


def _a_gap_of_three_hours(who: str, zone: Zone, one: Difference) -> bool:
    """To cron a clock that is ahead by more than 180 minutes, the one that went by among them, was set by somebody."""
    fixed = not SCHEDULES[one.expression].by_clock
    return who == "cron" and fixed and zone.gap(one.at) >= 3 * 3600 and (one.ours, one.theirs) == ((one.at,), ())


def _a_gap_that_ends_within_an_hour(who: str, zone: Zone, one: Difference) -> bool:
    """cronsim goes hour by hour, each time back to minute 0; that is in the gap, and counts as a time before it."""
    within = zone.gap(one.at) > 0 and (one.at + zone.offset(one.at)) % 3600
    lost = {at for at in one.ours if one.at < at < one.at + zone.gap(one.at) + 3600}
    right = lost == set(one.ours) <= set(of_cron(one.expression, zone, one.at - 3600, one.at + AROUND))
    return who == "cronsim" and bool(within) and right and not one.theirs and SCHEDULES[one.expression].by_clock


RULES = {
    "in a gap of three hours cron drops fixed times; ours come at its end": _a_gap_of_three_hours,
    "after a gap that ends within an hour cronsim loses hours": _a_gap_that_ends_within_an_hour,
}


def explained(who: str, zone: Zone, one: Difference) -> str | None:
    """The name of the rule by which it may differ; None if there is none."""
    return next((name for name, holds in RULES.items() if holds(who, zone, one)), None)
