"""The times at which cron or systemd has to start a job, on a machine whose clock is in another zone or changes.

cron knows the machine's zone alone. The two zones differ by few numbers in the coming years: minutes and hours are
shifted by each of them; where a shift crosses midnight, days of the month and months are widened to all and weekdays
move along. Some of these starts find no tick, which is harmless: `run` ends at once. None may be lacking.

A day on which a clock changes needs more. cron leaves out a fixed time in a repeated hour, where a line that begins its
hours with `*` goes on: `*/23` is 0 and 23. systemd leaves out all of the repeated hour and all of the hour that spring
skips. What the lines do not reach there is found from the job's calendar, and gets lines of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..spec.schedules import NICKNAMES
from .ticks import Calendar, change

if TYPE_CHECKING:
    from ..model import Schedule

Offset = Callable[[int], int]

_DAY = 86_400
_AHEAD = 5 * 366 * _DAY  # seconds for which the differences are looked up: longer than laws of time last
_AROUND = 4 * 3600       # seconds after a change of the clock in which times are repeated
_ALL = (tuple(range(60)), tuple(range(24)), tuple(range(1, 32)), tuple(range(1, 13)), tuple(range(7)))
_PLAIN = re.compile(r"((\*|\d+-\d+)(/\d+)?|\d+)(,((\*|\d+-\d+)(/\d+)?|\d+))*")  # what every cron reads


class _Days(NamedTuple):
    """On which days a line starts something, as numbers and as cron's three fields."""

    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either: bool
    text: str

    def right(self, civil: time.struct_time) -> bool:
        right = civil.tm_mday in self.days, (civil.tm_wday + 1) % 7 in self.weekdays
        return civil.tm_mon in self.months and (any(right) if self.either else all(right))


_ANY_DAY = _Days(*_ALL[2:], False, "* * *")


def cron_fields(schedule: Schedule) -> str:
    """The five fields of a crontab's line that fires this schedule in the machine's own zone."""
    own = _fields(schedule)
    return " ".join([_field(schedule, own, 0), _field(schedule, own, 1), _days(schedule).text])


def cron_times(schedules: Sequence[Schedule], zone: str | None, job: Offset, machine: Offset, now: int) -> list[str]:
    """The same for all schedules of a job in `zone`, whose offset `job` tells; `now` in seconds.

    What differs from the machine's zone is good for the coming five years.
    """
    edges = sorted({*_changes(job, now), *_changes(machine, now)})
    apart = {machine(at) - job(at) for at in (now, *edges)}
    if zone is None or apart == {0}:
        return list(dict.fromkeys(cron_fields(schedule) for schedule in schedules))
    wanted: dict[_Days, dict[int, set[int]]] = {}
    for schedule in schedules:
        for minutes in sorted({part for seconds in apart for part in (seconds // 60, -(-seconds // 60))}):
            for days, hour, minute in _shifted(schedule, minutes):
                wanted.setdefault(days, {}).setdefault(hour, set()).add(minute)
    everyday = wanted.get(_ANY_DAY, {})
    for days, hours in wanted.items():
        if days != _ANY_DAY:
            wanted[days] = {hour: left for hour, them in hours.items() if (left := them - everyday.get(hour, set()))}
    repeated = _repeated(machine, now)
    lines = [line for days, hours in wanted.items() for line in _lines(hours, days.text, repeated)]
    return [*dict.fromkeys(lines), *_rest(Calendar(schedules, zone), wanted, edges, machine, repeated)]


def calendar_times(schedules: Sequence[Schedule], zone: str | None, job: Offset, now: int) -> list[str]:
    """systemd's calendar expressions (systemd.time(7)) for the same; `now` in seconds.

    Days on which a clock changes are named for the coming five years.
    """
    end = f" {zone}" if zone else ""
    lines = []
    for schedule in schedules:
        at = f"{_colons(schedule.hours, _ALL[1])}:{_colons(schedule.minutes, _ALL[0])}:00{end}"
        months, days = _colons(schedule.months, _ALL[3]), _colons(schedule.days, _ALL[2])
        weekdays = _weekdays(schedule.weekdays)
        if schedule.either_day and len(schedule.days) < 31 and weekdays:
            lines += [f"{weekdays}*-{months}-* {at}", f"*-{months}-{days} {at}"]
        elif schedule.either_day:
            lines.append(f"*-{months}-* {at}")
        else:
            lines.append(f"{weekdays}*-{months}-{days} {at}")
    calendar = Calendar(schedules, zone)
    for edge in _changes(job, now):
        hours: dict[tuple[str, int], set[int]] = {}
        for tick in calendar.between(1000 * edge - 1, 1000 * (edge + _AROUND)):
            second = tick // 1000
            local = second + job(second)
            first = local - job(edge - 1)  # when the clock showed the same before it was changed
            again = first < second and job(first) == job(edge - 1)
            if again or not any(_names(schedule, time.gmtime(local)) for schedule in schedules):
                civil = time.gmtime(second)
                hours.setdefault((time.strftime("%Y-%m-%d", civil), civil.tm_hour), set()).add(civil.tm_min)
        for (day, hour), minutes in hours.items():
            lines.append(f"{day} {hour:02}:{_colons(sorted(minutes), _ALL[0])}:00 UTC")
    return list(dict.fromkeys(lines))


def number_fields(schedule: Schedule) -> str:
    """The five fields in numbers alone, weekdays from 0 to 6, as Kubernetes reads them."""
    if schedule.either_day and 31 in (len(schedule.days), 24 + len(schedule.weekdays)):
        schedule = replace(schedule, days=_ALL[2], weekdays=_ALL[4])  # one of them is always right
    return " ".join(_list(values, whole) for values, whole in zip(_numbers(schedule), _ALL, strict=True))


# -- a schedule in cron's words --------------------------------------------------------------------------------------


def _fields(schedule: Schedule) -> list[str]:
    fields = NICKNAMES.get(schedule.text.strip().lower(), schedule.text).split()
    return fields if len(fields) == 5 else []


def _numbers(schedule: Schedule) -> tuple[tuple[int, ...], ...]:
    return schedule.minutes, schedule.hours, schedule.days, schedule.months, schedule.weekdays


def _field(schedule: Schedule, fields: Sequence[str], place: int) -> str:
    """As the user wrote it, if every cron reads that; what a field begins with has a meaning."""
    if fields and _PLAIN.fullmatch(fields[place]):
        return fields[place]
    return _list(_numbers(schedule)[place], _ALL[place])


def _names(schedule: Schedule, civil: time.struct_time) -> bool:
    at = civil.tm_min in schedule.minutes and civil.tm_hour in schedule.hours
    return at and _days(schedule).right(civil)


def _days(schedule: Schedule) -> _Days:
    fields = _fields(schedule)
    days, months, weekdays = (_field(schedule, fields, place) for place in (2, 3, 4))
    both = len(schedule.days) < 31 and len(schedule.weekdays) < 7
    if both and not schedule.either_day and not (days.startswith("*") or weekdays.startswith("*")):
        weekdays = "*"  # one of the two began with a star and with more that not every cron reads
    return _Days(schedule.days, schedule.months, schedule.weekdays, schedule.either_day, f"{days} {months} {weekdays}")


def _list(values: Sequence[int], whole: Sequence[int]) -> str:
    """`*`, or numbers and ranges."""
    return "*" if len(values) == len(whole) else ",".join(_ranges(values, "-", str))


def _ranges(values: Sequence[int], between: str, name: Callable[[int], str]) -> Iterator[str]:
    run: list[int] = []
    for value in [*values, None]:
        if run and value != run[-1] + 1:
            if len(run) > 2:
                yield f"{name(run[0])}{between}{name(run[-1])}"
            else:
                yield from map(name, run)
            run = []
        if value is not None:
            run.append(value)


def _colons(values: Sequence[int], whole: Sequence[int]) -> str:
    """The same as systemd has it: `00,15`, `01..05`."""
    return "*" if len(values) == len(whole) else ",".join(_ranges(values, "..", "{:02}".format))


def _weekdays(values: Sequence[int]) -> str:
    names = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    monday_first = sorted(value or 7 for value in values)
    return "" if len(values) == 7 else ",".join(_ranges(monday_first, "..", names.__getitem__)) + " "


# -- from zone to zone -----------------------------------------------------------------------------------------------


def _changes(offset: Offset, now: int) -> list[int]:
    """When the clock of a zone changes in the years to come."""
    found = []
    step = _DAY // 4
    before = offset(now - _DAY)
    for at in range(now - _DAY, now + _AHEAD, step):
        after = offset(at + step)
        if after != before:
            found.append(change(offset, at, at + step))
        before = after
    return found


def _repeated(machine: Offset, now: int) -> set[int]:
    """The hours of the machine's clock that may come twice."""
    hours = set()
    for edge in _changes(machine, now):
        for local in range(edge + machine(edge), edge + machine(edge - 1), 60):
            hours.add(local % _DAY // 3600)
    return hours


def _shifted(schedule: Schedule, by: int) -> Iterator[tuple[_Days, int, int]]:
    """Each time of the day of a schedule, `by` minutes later, and on which days that is."""
    own = _days(schedule)
    known: dict[int, _Days] = {0: own}
    for hour in schedule.hours:
        for minute in schedule.minutes:
            day, left = divmod(60 * hour + minute + by, 1440)
            if day not in known:
                known[day] = _moved(schedule, day)
            yield known[day], left // 60, left % 60


def _moved(schedule: Schedule, by: int) -> _Days:
    """The days of a schedule and a number of days later: those of the month differ from month to month."""
    if len(schedule.days) < 31 or schedule.either_day or len(schedule.weekdays) == 7:
        return _ANY_DAY
    weekdays = tuple(sorted((day + by) % 7 for day in schedule.weekdays))
    return _Days(_ALL[2], _ALL[3], weekdays, False, f"* * {_list(weekdays, _ALL[4])}")


def _lines(hours: dict[int, set[int]], days: str, repeated: set[int]) -> Iterator[str]:
    """The fewest lines for the minutes of each hour."""
    together: dict[tuple[int, ...], list[int]] = {}
    for hour, minutes in hours.items():
        together.setdefault(tuple(sorted(minutes)), []).append(hour)
    for named, them in sorted(together.items(), key=lambda one: (min(one[1]), one[0])):
        minute, hour_list = _steps(named), _list(sorted(them), _ALL[1])
        if not (minute + hour_list).startswith("*") and hour_list != "*" and repeated.intersection(them):
            hour_list = f"*/23,{hour_list}"
        yield f"{minute} {hour_list} {days}"


def _steps(minutes: Sequence[int]) -> str:
    """`*/15`, where that is what they are."""
    step = minutes[1] - minutes[0] if len(minutes) > 2 else 0
    if step > 1 and tuple(minutes) == tuple(range(0, 60, step)):
        return f"*/{step}"
    return _list(minutes, _ALL[0])


def _rest(
    calendar: Calendar,
    wanted: dict[_Days, dict[int, set[int]]],
    edges: Iterable[int],
    machine: Offset,
    repeated: set[int],
) -> list[str]:
    """Lines for the ticks behind a change of a clock that the others do not reach."""
    dates: dict[tuple[int, int], tuple[set[int], set[int]]] = {}
    for edge in edges:
        for tick in calendar.between(1000 * edge - 1, 1000 * (edge + _AROUND)):
            civil = time.gmtime(tick // 1000 + machine(tick // 1000))
            reached = (days for days, hours in wanted.items() if civil.tm_min in hours.get(civil.tm_hour, ()))
            if not any(days.right(civil) for days in reached):
                days, months = dates.setdefault((civil.tm_hour, civil.tm_min), (set(), set()))
                days.add(civil.tm_mday)
                months.add(civil.tm_mon)
    lines: list[str] = []
    for (hour, minute), (days, months) in sorted(dates.items()):
        date = f"{_list(sorted(days), _ALL[2])} {_list(sorted(months), _ALL[3])} *"
        lines += _lines({hour: {minute}}, date, repeated)
    return lines
