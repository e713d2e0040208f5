"""The lines and expressions that start a job on a machine of another zone: no tick of the job is without its start.

cron is modelled as Debian's is: a line whose minute or hour begins with a star follows the clock, others are left out
where the clock shows a time again; a day is right by its day and its weekday, or by one of them if neither begins with
a star. What systemd does is asked of `systemd-analyze calendar`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from agentrun.cron import machine
from agentrun.cron.ticks import Calendar, offsets
from agentrun.model import Schedule
from agentrun.spec.decode import decode

NOW = 1_795_168_800  # 2026-11-20T10:00:00Z
YEAR = 366 * 86_400


def schedules(*texts: str) -> tuple[Schedule, ...]:
    listed = ", ".join(f'"{text}"' for text in texts)
    return decode(f"schedule: [{listed}]\nsteps: [{{run: 'true'}}]\n", "a.yaml").schedule


def lines(zone: str, here: str, *texts: str) -> list[str]:
    return machine.cron_times(schedules(*texts), zone, offsets(zone), offsets(here), NOW)


class Line:
    """A crontab's line as Debian's cron has it."""

    def __init__(self, text: str) -> None:
        minute, hour, day, month, weekday = text.split()
        self.minutes, self.hours = self._set(minute, 0, 59), self._set(hour, 0, 23)
        self.days, self.months = self._set(day, 1, 31), self._set(month, 1, 12)
        self.weekdays = {number % 7 for number in self._set(weekday, 0, 7)}
        self.by_clock = minute[0] == "*" or hour[0] == "*"
        self.both = day[0] == "*" or weekday[0] == "*"

    @staticmethod
    def _set(text: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            begin, end = (low, high) if span == "*" else (int(first), int(last or first))
            assert low <= begin <= end <= high and (not step or span == "*" or last)
            found.update(range(begin, end + 1, int(step or 1)))
        return found

    def fires(self, civil: time.struct_time, *, again: bool) -> bool:
        if civil.tm_min not in self.minutes or civil.tm_hour not in self.hours or civil.tm_mon not in self.months:
            return False
        right = civil.tm_mday in self.days, (civil.tm_wday + 1) % 7 in self.weekdays
        return (all(right) if self.both else any(right)) and (self.by_clock or not again)


PLACES = [
    ("Europe/Berlin", "UTC"),
    ("UTC", "Europe/Berlin"),
    ("America/New_York", "Europe/Berlin"),
    ("Europe/London", "America/Chicago"),
    ("Asia/Kolkata", "UTC"),
    ("Australia/Lord_Howe", "Pacific/Chatham"),
    ("Pacific/Kiritimati", "Pacific/Pago_Pago"),
    ("America/St_Johns", "Asia/Kathmandu"),
    ("Africa/Casablanca", "Europe/Lisbon"),
    ("America/Santiago", "Antarctica/Troll"),
]
EXPRESSIONS = [
    "30 2 * * *", "*/30 */3 * * *", "0 9 * * 1-5", "0 0 1 * *", "30 23 28-31 * *", "15 1 */2 * *", "0 3 13 * 5",
    "7 */5 * 3,10 *", "@monthly", "0 1 */2 * 1", "59 23 * * 0", "*/20 2 * * *", "0,30 0-4 * mar,oct sun", "0 0 29 2 *",
]  # fmt: skip


@pytest.mark.parametrize(("zone", "here"), PLACES)
def test_every_tick_of_two_years_is_reached(zone: str, here: str) -> None:
    local = offsets(here)
    for text in EXPRESSIONS:
        made = [Line(line) for line in lines(zone, here, text)]
        missed = []
        for tick in Calendar(schedules(text), zone).between(1000 * NOW, 1000 * (NOW + 2 * YEAR)):
            second = tick // 1000
            offset = local(second)
            again = any(local(second + offset - before) == before != offset for before in (local(second - 10_800),))
            if not any(line.fires(time.gmtime(second + offset), again=again) for line in made):
                missed.append(tick)
        assert not missed, (text, zone, here, [datetime.fromtimestamp(one / 1000, UTC) for one in missed[:3]])


@pytest.mark.parametrize(("zone", "here"), PLACES)
def test_there_are_few_starts_too_many(zone: str, here: str) -> None:
    made = lines(zone, here, "30 2 * * *")
    assert sum(len(Line(line).minutes) * len(Line(line).hours) for line in made if line.endswith("* * *")) <= 6
    assert len(made) <= 5


def test_the_own_zone_is_written_as_the_user_wrote_it() -> None:
    berlin = offsets("Europe/Berlin")
    texts = ["0 3 * * 1-5", "*/15 * * * *", "@daily", "0 0 */2 * 1", "7 1 1 jan sun", "0-59 3 * * *"]
    made = ["0 3 * * 1-5", "*/15 * * * *", "0 0 * * *", "0 0 */2 * 1", "7 1 1 1 0", "0-59 3 * * *"]
    for zone in (None, "Europe/Berlin", "Arctic/Longyearbyen"):  # the last: Berlin by another name
        assert machine.cron_times(schedules(*texts), zone, berlin, berlin, NOW) == made


@pytest.mark.parametrize(
    ("zone", "here", "text", "expected"),
    [
        ("Asia/Tokyo", "UTC", "0 9 * * 1-5", ["0 0 * * 1-5"]),
        ("Asia/Tokyo", "UTC", "0 8 * * 1-5", ["0 23 * * 0-4"]),
        ("Asia/Tokyo", "UTC", "0 8 1 * *", ["0 23 * * *"]),
        ("Asia/Kolkata", "UTC", "*/15 9 * * *", ["30,45 3 * * *", "0,15 4 * * *"]),
        ("Asia/Tokyo", "UTC", "*/15 * * * *", ["*/15 * * * *"]),
        ("Europe/Berlin", "UTC", "0 9 * * *", ["0 7,8 * * *"]),
        ("UTC", "Europe/Berlin", "0 1 * * *", ["0 */23,2,3 * * *"]),
    ],
)
def test_what_the_lines_look_like(zone: str, here: str, text: str, expected: list[str]) -> None:
    made = lines(zone, here, text)
    assert made == expected


# -- systemd ---------------------------------------------------------------------------------------------------------

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def elapses(expression: str, since: int, until: int) -> Iterator[int]:
    """When systemd would start something, in seconds."""
    asked = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=200", f"--base-time=@{since}", expression],
        capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    for found in re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ ([\d-]+ [\d:]+) UTC", asked.stdout):
        at = int(datetime.strptime(found, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
        if at <= until:
            yield at


@analyze
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("text", ["30 2 * * *", "*/15 * * * *", "5 1-3 * * sun", "0 3 13 * 5", "0 1 */2 * 1"])
def test_systemd_starts_every_tick_around_the_changes_of_a_clock(zone: str, text: str) -> None:
    made = machine.calendar_times(schedules(text), zone, offsets(zone), NOW)
    calendar = Calendar(schedules(text), zone)
    changes = machine._changes(offsets(zone), NOW)[:2] or [NOW]
    for change in changes:
        since, until = change - 86_400, change + 86_400
        started = {at for one in made for at in elapses(one, since, until)}
        ticks = {tick // 1000 for tick in calendar.between(1000 * since, 1000 * until)}
        assert ticks - started == set()
        assert started - ticks == set()


@analyze
def test_systemd_starts_the_ticks_of_every_day() -> None:
    for text in ("0 9 * * 1-5", "@monthly", "0 0 29 2 *", "1-5 4 * jan-mar,dec *", "0 3 13 * 5", "0 1 * * sun,sat"):
        made = machine.calendar_times(schedules(text), "Asia/Tokyo", offsets("Asia/Tokyo"), NOW)
        ticks = Calendar(schedules(text), "Asia/Tokyo").between(1000 * NOW, 1000 * (NOW + 4 * YEAR), 50)
        until = ticks[-1] // 1000
        assert sorted({at for one in made for at in elapses(one, NOW, until)}) == [tick // 1000 for tick in ticks]


def test_systemd_and_the_machine_s_zone() -> None:
    made: Sequence[str] = machine.calendar_times(schedules("*/15 3 * * 1-5"), None, offsets("UTC"), NOW)
    assert made == ["Mon..Fri *-*-* 03:00,15,30,45:00"]
    assert machine.calendar_times(schedules("0 3 13 * 5"), None, offsets("UTC"), NOW) == [
        "Fri *-*-* 03:00:00",
        "*-*-13 03:00:00",
    ]
