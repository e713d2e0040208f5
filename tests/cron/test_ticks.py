"""The ticks of schedules: days, changes of the clock, several schedules, and what a calendar is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agentrun.cron import ticks
from agentrun.cron.ticks import Calendar
from agentrun.errors import Missing
from agentrun.model import Job
from agentrun.spec.schedules import parse

DAY = 86_400_000


def ms(text: str, zone: str = "UTC") -> int:
    """`2026-11-20 10:00`, or with seconds; a repeated hour's second time is `… +1`."""
    text, _, fold = text.partition(" +")
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=int(fold or 0)).timestamp() * 1000)


def calendar(*texts: str, zone: str | None = "UTC") -> Calendar:
    return Calendar([parse(text) for text in texts], zone)


def shown(times: list[int], zone: str) -> list[str]:
    """Local times with their offset, as `03-29 04:00+03`."""
    return [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%m-%d %H:%M%z")[:-2] for at in times]


def on(zone: str, day: str, *texts: str, days: int = 1) -> list[str]:
    """All ticks of a local day, or of some."""
    start = ms(f"{day} 00:00", zone)
    end = start + days * DAY + 3 * 3_600_000
    last = datetime.fromtimestamp((end - 1) / 1000, ZoneInfo(zone)).strftime("%m-%d")
    return [one for one in shown(calendar(*texts, zone=zone).between(start - 1, end), zone) if not one.startswith(last)]


# In Riga the clock goes from 03:00 to 04:00 on 2026-03-29, and from 04:00 to 03:00 on 2026-10-25.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30 3 * * *", ["04:00+03"]),
        ("0,30 3 * * *", ["04:00+03"]),
        ("0 3,4 * * *", ["04:00+03"]),
        ("30 3,4 * * *", ["04:00+03", "04:30+03"]),
        ("59 2-4 * * *", ["02:59+02", "04:00+03", "04:59+03"]),
        ("0 4 * * *", ["04:00+03"]),
        ("*/30 3 * * *", []),
        ("*/30 3-4 * * *", ["04:00+03", "04:30+03"]),
        ("0 */3 * * *", ["00:00+02", "06:00+03", "09:00+03", "12:00+03", "15:00+03", "18:00+03", "21:00+03"]),
        ("30 3 30 * *", []),
        ("30 3 * * 7", ["04:00+03"]),
    ],
)
def test_a_gap_in_spring(text: str, found: list[str]) -> None:
    assert on("Europe/Riga", "2026-03-29", text) == [f"03-29 {one}" for one in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30 3 * * *", ["03:30+03"]),
        ("0 3,4 * * *", ["03:00+03", "04:00+02"]),
        ("59 2-4 * * *", ["02:59+03", "03:59+03", "04:59+02"]),
        ("*/30 3 * * *", ["03:00+03", "03:30+03", "03:00+02", "03:30+02"]),
        ("0 */3 * * *", ["00:00+03", "03:00+03", "03:00+02"] + [f"{hour:02}:00+02" for hour in range(6, 24, 3)]),
    ],
)
def test_a_repeated_hour_in_autumn(text: str, found: list[str]) -> None:
    assert on("Europe/Riga", "2026-10-25", text) == [f"10-25 {one}" for one in found]


def test_a_gap_at_midnight() -> None:
    """In Santiago the clock goes from 00:00 to 01:00 on 2026-09-06: the late tick is the next hour's, and one."""
    assert on("America/Santiago", "2026-09-05", "0 0 * * *", days=2) == ["09-05 00:00-04", "09-06 01:00-03"]
    assert on("America/Santiago", "2026-09-05", "0 0,1 * * *", days=2)[2:] == ["09-06 01:00-03"]


def test_midnight_comes_twice() -> None:
    """In Santiago the clock goes from 24:00 to 23:00 on 2026-04-04: for one hour the day is not over."""
    fixed = on("America/Santiago", "2026-04-04", "30 0,23 * * *", days=2)
    assert fixed == ["04-04 00:30-03", "04-04 23:30-03", "04-05 00:30-04", "04-05 23:30-04"]
    clocked = on("America/Santiago", "2026-04-04", "30 */23 * * *", days=2)
    assert clocked == ["04-04 00:30-03", "04-04 23:30-03", "04-04 23:30-04", "04-05 00:30-04", "04-05 23:30-04"]


def test_half_an_hour() -> None:
    """On Lord Howe the clock goes by 30 minutes: from 02:00 to 01:30 on 2026-04-05, from 02:00 to 02:30 on 10-04."""
    autumn = on("Australia/Lord_Howe", "2026-04-05", "30,45 1-2 * * *")
    assert [one[6:11] for one in autumn] == ["01:30", "01:45", "02:30", "02:45"]
    spring = on("Australia/Lord_Howe", "2026-10-04", "0,15,30 2 * * *")
    assert [one[6:11] for one in spring] == ["02:30"]


def test_a_day_that_was_left_out() -> None:
    """Samoa had no 2011-12-30: that day's fixed ticks come together at the first instant of the 31st."""
    assert on("Pacific/Apia", "2011-12-29", "0 12 * * *", days=2)[:3] == [
        "12-29 12:00-10", "12-31 00:00+14", "12-31 12:00+14"
    ]  # fmt: skip
    assert on("Pacific/Apia", "2011-12-29", "0 */12 * * *", days=2)[2:4] == ["12-31 00:00+14", "12-31 12:00+14"]


def test_either_day_or_both() -> None:
    """Debian's crontab(5): both restricted, one is enough; a field that begins with * restricts by itself."""
    until = ms("2026-05-31 23:59")
    either = shown(calendar("0 0 1,15 * 5").between(ms("2026-04-30 23:59"), until), "UTC")
    assert [one[3:5] for one in either] == ["01", "08", "15", "22", "29"]  # the 1st and the 15th are Fridays
    both = shown(calendar("0 0 */2 * 5").between(ms("2026-04-30 23:59"), until), "UTC")
    assert [one[3:5] for one in both] == ["01", "15", "29"]


def test_short_months_and_leap_years() -> None:
    assert shown(calendar("0 0 31 * *").between(ms("2025-12-31 12:00"), ms("2026-12-31 12:00")), "UTC") == [
        f"{month} 00:00+00" for month in ("01-31", "03-31", "05-31", "07-31", "08-31", "10-31", "12-31")
    ]
    leap = calendar("0 0 29 2 *")
    assert leap.next(ms("2024-02-29 00:00")) == ms("2028-02-29 00:00")
    assert leap.last(ms("2028-02-28 00:00")) == ms("2024-02-29 00:00")
    assert leap.next(ms("2096-02-29 00:00")) is None


def test_equal_instants_of_several_schedules_are_one_tick() -> None:
    both = calendar("0 * * * *", "0,30 12 * * *")
    start = ms("2026-05-01 11:00")
    assert [one[6:11] for one in shown(both.between(start, start + 7_200_000), "UTC")] == ["12:00", "12:30", "13:00"]
    assert both.count(start, start + 7_200_000) == 3
    # the late tick of 03:30 falls together with the clock's 04:00
    assert on("Europe/Riga", "2026-03-29", "30 3 * * *", "0 4-5 * * *", "0 */4 * * *")[1:3] == [
        "03-29 04:00+03", "03-29 05:00+03"
    ]  # fmt: skip


def test_after_is_excluded_and_until_included() -> None:
    hourly, noon = calendar("0 * * * *"), ms("2026-05-01 12:00")
    hour = 3_600_000
    assert hourly.next(noon) == noon + hour
    assert hourly.next(noon - 1) == noon
    assert hourly.last(noon) == noon
    assert hourly.last(noon - 1) == noon - hour
    assert hourly.last(noon + 1) == noon
    assert hourly.between(noon, noon + hour) == [noon + hour]
    assert hourly.between(noon - 1, noon + hour - 1) == [noon]
    assert hourly.between(noon, noon) == []
    assert hourly.between(noon, noon - hour) == []
    assert hourly.between(noon, noon + 5 * hour, limit=2) == [noon + hour, noon + 2 * hour]


def test_nothing_before_1970_or_behind_2100() -> None:
    hourly = calendar("0 * * * *")
    assert hourly.next(-10 * DAY) == 0
    assert hourly.last(-1) is None
    assert hourly.last(0) == 0
    assert calendar("0 20 * * *", zone="America/New_York").next(-1) == 3_600_000  # on the last day of 1969 there
    end = ms("2100-01-01 00:00")
    assert hourly.next(end - 3_600_000) is None
    assert hourly.last(end + 10 * DAY) == end - 3_600_000
    assert hourly.between(end - 3_600_000, end + DAY) == []


@pytest.mark.parametrize("zone", ["UTC", "Europe/Riga", "Australia/Lord_Howe", "America/Santiago", "Asia/Gaza"])
@pytest.mark.parametrize("texts", [("*/5 * * * *",), ("17 3 * * *",), ("*/7 1-4 */3 * *", "0 0-4 * * 0")])
def test_the_four_questions_agree(zone: str, texts: tuple[str, ...]) -> None:
    """What `between` gives over half a year is what `next` and `last` walk through, and what `count` counts."""
    asked = calendar(*texts, zone=zone)
    start, end = ms("2026-09-01 00:07"), ms("2027-04-10 00:07")
    found = asked.between(start, end)
    assert found == sorted(set(found))
    assert asked.count(start, end) == len(found)
    for number in range(0, len(found) - 1, max(1, len(found) // 500)):
        here, there = found[number], found[number + 1]
        assert asked.next(here) == there
        assert asked.next(there - 1) == there
        assert asked.last(there - 1) == here
        assert asked.last(here) == here
    middle = found[len(found) // 2] + 30_000
    assert asked.count(start, middle) + asked.count(middle, end) == len(found)


def test_it_goes_through_json() -> None:
    import json

    asked = calendar("*/20 8-18 * jan-mar mon-fri", "@daily", zone="Europe/Riga")
    value = json.loads(json.dumps(asked.to_json()))
    again = Calendar.from_json(value)
    assert again.to_json() == value == asked.to_json()
    start = ms("2026-01-01 00:00")
    assert again.between(start, start + 366 * DAY) == asked.between(start, start + 366 * DAY)
    assert value["zone"] == "Europe/Riga"
    assert value["schedules"][1]["hours"] == [0]
    assert value["schedules"][1]["days"] is None


def test_of_a_job() -> None:
    job = Job("a", (), schedule=(parse("0 8 * * *"),), timezone="Europe/Riga")
    found = Calendar.of(job)
    assert found is not None
    assert found.next(ms("2026-01-01 00:00")) == ms("2026-01-01 08:00", "Europe/Riga")
    assert Calendar.of(Job("a", ())) is None


def test_a_zone_that_is_not_there() -> None:
    with pytest.raises(Missing, match="does not know the zone Nowhere/Atall"):
        calendar("0 8 * * *", zone="Nowhere/Atall")


@pytest.fixture
def machine_in_riga(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Riga")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_in_riga")
def test_the_machines_zone_is_as_if_it_were_named() -> None:
    start, end = ms("2020-01-01 00:00"), ms("2037-12-31 00:00")
    for text in ("30 3 * * *", "*/30 3 * * *"):
        assert calendar(text, zone=None).between(start, end) == calendar(text, zone="Europe/Riga").between(start, end)


def test_a_change_is_found_to_the_second() -> None:
    assert ticks.change(lambda at: 3600 if at >= 1_234_567 else 0, 1_000_000, 2_000_000) == 1_234_567


def test_it_needs_neither_yaml_nor_croniter_nor_the_model() -> None:
    program = (
        "import sys; from agentrun.cron.ticks import Calendar; "
        "every = dict.fromkeys(('minutes', 'hours', 'days', 'months', 'weekdays')); "
        "every |= {'text': '', 'by_clock': True, 'either_day': False}; "
        "assert Calendar.from_json({'zone': None, 'schedules': [every]}).last(10**12) == 999_999_960_000; "
        "print([name for name in ('croniter', 'yaml', 'datetime', 'zoneinfo', 'dataclasses') if name in sys.modules])"
    )
    environment = os.environ | {"TZ": "UTC"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n", done.stderr
