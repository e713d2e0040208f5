"""Which instants a schedule names: its ticks, as Debian's cron fires them, in ms since the epoch.

Pure: time is an argument. The clock's changes are as in that cron (the main loop in cron.c; crontab(5), "Daylight
Saving Time"): what follows the wall clock (`by_clock`) has no ticks in the hour that spring leaves out, and those of
the repeated hour of autumn twice. What names fixed times of the day comes at the first instant after a gap, once, and
in a repeated hour only the first time. That cron does so for changes of less than three hours; here it goes for all.
A day is right if its day and its weekday are, or one of them if both are restricted (`either_day`; find_jobs, there).
Several schedules of a job are one calendar: equal instants are one tick. Nothing is named before 1970 or from 2100 on.

How it is found: time is cut into blocks, a block into stretches of one offset from UTC, and in a stretch a day's ticks
are its midnight and the minutes that its schedules name. Nothing is asked of the zone where no day is right. A process
that starts pays for little: the machine's zone ($TZ, else /etc/localtime) is that of the C library, and only a named
one needs `zoneinfo`. A calendar goes through JSON, so that the record can hold it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Missing

if TYPE_CHECKING:
    from ..model import JSON, Job, Schedule

LATEST = 4_102_444_800  # 2100-01-01, in seconds: where every search ends
_DAY = 86_400
_BLOCK = 32 * _DAY
_SAMPLE = _DAY // 4     # no zone has changed its offset and changed it back within six hours
_RANGES = {"minutes": range(60), "hours": range(24), "days": range(1, 32), "months": range(1, 13),
           "weekdays": range(7)}  # fmt: skip


class _Rule(NamedTuple):
    """A `model.Schedule`, whose module takes longer to import than all of this."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    by_clock: bool
    either_day: bool


class _Stretch(NamedTuple):
    """Seconds of one offset from UTC: `start` <= t < `end`. `rules`: a bit for each schedule that has ticks in it.

    `skipped_from`: the local time at which the clock jumped to the stretch's beginning; that itself if none jumped.
    """

    start: int
    end: int
    offset: int
    rules: int
    skipped_from: int


class Calendar:
    """The ticks of one or more schedules in a zone: a name of the zone database, or None for the machine's.

    Raises Missing if this machine does not have the zone.
    """

    def __init__(self, schedules: Iterable[Schedule | _Rule], zone: str | None = None) -> None:
        self.zone = zone
        self.rules = tuple(schedules)
        self._offset = offsets(zone)
        self._all = (1 << len(self.rules)) - 1
        self._clocked = sum(1 << bit for bit, rule in enumerate(self.rules) if rule.by_clock)
        self._of_rule = [[60 * hour + minute for hour in rule.hours for minute in rule.minutes] for rule in self.rules]
        self._of_rules: dict[int, tuple[int, ...]] = {0: ()}
        self._right: dict[int, int] = {}
        self._known: dict[int, list[_Stretch]] = {}

    @classmethod
    def of(cls, job: Job) -> Calendar | None:
        """The calendar of a job; None if it has no schedule."""
        return cls(job.schedule, job.timezone) if job.schedule else None

    @classmethod
    def from_json(cls, value: JSON) -> Calendar:
        """What `to_json` gave."""
        return cls(
            [
                _Rule(
                    text=rule["text"], by_clock=rule["by_clock"], either_day=rule["either_day"],
                    **{name: tuple(whole if rule[name] is None else rule[name]) for name, whole in _RANGES.items()},
                )
                for rule in value["schedules"]
            ],
            value["zone"],
        )

    def to_json(self) -> JSON:
        """Everything that it takes to make it again. A field that names all there is of it is null."""
        schedules = []
        for rule in self.rules:
            shape: JSON = {"text": rule.text, "by_clock": rule.by_clock, "either_day": rule.either_day}
            for name, whole in _RANGES.items():
                numbers = getattr(rule, name)
                shape[name] = None if len(numbers) == len(whole) else list(numbers)
            schedules.append(shape)
        return {"zone": self.zone, "schedules": schedules}

    def next(self, after: int) -> int | None:
        """The first tick later than `after`; None if none is left."""
        for base, minutes in self._days(after // 1000 + 1, LATEST):
            return 1000 * (base + 60 * minutes[0])
        return None

    def last(self, until: int) -> int | None:
        """The newest tick that is not later than `until`; None if there is none."""
        for base, minutes in self._days(0, until // 1000 + 1, backwards=True):
            return 1000 * (base + 60 * minutes[-1])
        return None

    def between(self, after: int, until: int, limit: int | None = None) -> list[int]:
        """The ticks later than `after` and not later than `until`, oldest first, the oldest `limit` of them."""
        days = self._days(after // 1000 + 1, until // 1000 + 1)
        return list(islice((1000 * (base + 60 * minute) for base, minutes in days for minute in minutes), limit))

    def count(self, after: int, until: int) -> int:
        """How many `between` gives, without making them: a year of minutes takes some ms."""
        return sum(len(minutes) for _, minutes in self._days(after // 1000 + 1, until // 1000 + 1))

    # -- days, each as an instant and the minutes after it at which there are ticks; all in seconds -------------------

    def _days(self, first: int, end: int, backwards: bool = False) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Those with ticks in `first` <= t < `end`, in order."""
        first, end = max(first, 0), min(end, LATEST)
        blocks = range(first // _BLOCK, (end - 1) // _BLOCK + 1)
        step = -1 if backwards else 1
        for block in blocks[::step]:
            for stretch in self._stretches(block)[::step]:
                if stretch.start < end and first < stretch.end:
                    yield from list(self._of_stretch(stretch, first, end))[::step]

    def _of_stretch(self, stretch: _Stretch, first: int, end: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        if first <= stretch.start and self._is_late(stretch):
            yield stretch.start, (0,)
        begin = max(stretch.start, first) + stretch.offset
        stop = min(stretch.end, end) + stretch.offset
        for midnight in range(begin - begin % _DAY, stop, _DAY):
            minutes = self._minutes(self._rules_of(midnight // _DAY) & stretch.rules)
            if midnight < begin:
                minutes = minutes[bisect_left(minutes, _minutes_up(begin - midnight)) :]
            if midnight + _DAY > stop:
                minutes = minutes[: bisect_left(minutes, _minutes_up(stop - midnight))]
            if minutes:
                yield midnight - stretch.offset, minutes

    def _is_late(self, stretch: _Stretch) -> bool:
        """Whether a fixed time was skipped, and its tick comes at the stretch's start, where there is no other."""
        begin = stretch.start + stretch.offset
        for midnight in range(stretch.skipped_from - stretch.skipped_from % _DAY, begin, _DAY):
            for minute in self._minutes(self._rules_of(midnight // _DAY) & ~self._clocked):
                if stretch.skipped_from <= midnight + 60 * minute < begin:
                    minutes = self._minutes(self._rules_of(begin // _DAY) & stretch.rules)
                    return begin % 60 != 0 or begin % _DAY // 60 not in minutes
        return False

    def _rules_of(self, day: int) -> int:
        """A bit for each schedule for which a local day (counted from 1970) is right."""
        known = self._right.get(day)
        if known is None:
            civil = time.gmtime(day * _DAY)
            known = 0
            for bit, rule in enumerate(self.rules):
                if civil.tm_mon in rule.months:
                    right = civil.tm_mday in rule.days, (civil.tm_wday + 1) % 7 in rule.weekdays
                    known |= (any(right) if rule.either_day else all(right)) << bit
            self._right[day] = known
        return known

    def _minutes(self, rules: int) -> tuple[int, ...]:
        """The minutes of a day that one of these schedules names."""
        known = self._of_rules.get(rules)
        if known is None:
            named: set[int] = set()
            for bit, minutes in enumerate(self._of_rule):
                if rules >> bit & 1:
                    named.update(minutes)
            known = self._of_rules[rules] = tuple(sorted(named))
        return known

    # -- the zone ----------------------------------------------------------------------------------------------------

    def _stretches(self, block: int) -> list[_Stretch]:
        """Those of a block in which there can be ticks."""
        known = self._known.get(block)
        if known is None:
            first = block * _BLOCK
            around = range(first // _DAY - 2, (first + _BLOCK) // _DAY + 2)  # a zone has left out a whole day
            known = list(self._cut(first, first + _BLOCK)) if any(map(self._rules_of, around)) else []
            self._known[block] = known
        return known

    def _cut(self, first: int, end: int) -> Iterator[_Stretch]:
        """The stretches from `first` to `end`. What was seen of the day before tells what is repeated."""
        seen: int | None = None  # the latest local time that any clock has shown
        for start, stop, offset in self._of_one_offset(first - _DAY, end):
            seen = start + offset if seen is None else seen
            jumped_from = min(seen, start + offset)
            if start < first:
                start, jumped_from = first, first + offset
            again = min(max(seen - offset, start), stop)  # the end of the repeated part
            if start < again:
                yield _Stretch(start, again, offset, self._clocked, start + offset)
                start = jumped_from = again
                jumped_from += offset
            if start < stop:
                yield _Stretch(start, stop, offset, self._all, jumped_from)
            seen = max(seen, stop + offset)

    def _of_one_offset(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        edges = [start]
        samples = [self._offset(at) for at in range(start, end + 1, _SAMPLE)]
        for number, (before, after) in enumerate(pairwise(samples)):
            if before != after:
                at = start + number * _SAMPLE
                edges.append(change(self._offset, at, at + _SAMPLE))
        for begin, stop in pairwise([*edges, end]):
            if begin < stop:
                yield begin, stop, self._offset(begin)


def change(offset: Callable[[int], int], before: int, after: int) -> int:
    """The first second with another offset than `before`'s, of which there is one until `after`."""
    old = offset(before)
    while after - before > 1:
        middle = (before + after) // 2
        if offset(middle) == old:
            before = middle
        else:
            after = middle
    return after


def offsets(zone: str | None) -> Callable[[int], int]:
    """What says how far a zone is ahead of UTC at a second, in seconds. Raises Missing if there is no such zone."""
    if zone is None:
        return lambda at: time.localtime(at).tm_gmtoff
    if zone in ("UTC", "Etc/UTC"):
        return lambda at: 0
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    try:
        found = ZoneInfo(zone)
    except (OSError, ValueError, KeyError):
        hint = "install the zone database: Debian's package tzdata, or the Python package tzdata"
        raise Missing(f"this machine does not know the zone {zone}", hint) from None
    second = timedelta(seconds=1)
    return lambda at: (datetime.fromtimestamp(at, found).utcoffset() or 0 * second) // second


def _minutes_up(seconds: int) -> int:
    return -(-seconds // 60)
