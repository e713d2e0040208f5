"""What is said about schedules that look wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentrun.cron.oddities import oddities
from agentrun.spec.schedules import parse


def said(*texts: str, zone: str = "UTC", now: str = "2026-11-21") -> list[str]:
    at = int(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp() * 1000)
    return oddities(tuple(parse(text) for text in texts), zone, at)


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "*/15 * * * *", "0 */6 * * *", "0 0 1 * *", "59 23 28-31 * *", "@monthly", "0 0 31 1,3 *",
     "0 8 * * 1-5", "0 0 * * */1", "7 4 5 6 *", "0 0 29 1,3-12 *"],
)  # fmt: skip
def test_nothing_is_said_of_what_is_right(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 31 * *", "day 31 never comes in February, April, June, September and November"),
        ("0 0 15,30 * *", "day 30 never comes in February"),
        ("0 0 29 2 *", "day 29 comes in February of leap years only, next in 2028"),
        ("*/40 * * * *", "'*/40' is uneven: minute 40 is followed by 00"),
        ("*/60 * * * *", "'*/60' is minute 00 and no other: each hour is counted anew"),
        ("0 */5 * * *", "'*/5' is uneven: hour 20 is followed by 0"),
        ("0 */24 * * *", "'*/24' is hour 0 and no other: each day is counted anew"),
        ("0 0 */2 * *", "'*/2' is uneven: day 31 is followed by 1"),
        ("0 8 1,15 * mon", "it comes on day 1 and 15 and besides on every Monday: a day or a weekday is enough"),
    ],
)
def test_days_and_steps(text: str, words: str) -> None:
    assert said(text) == [f"'{text}': {words}"]


@pytest.mark.parametrize(("now", "year"), [("2028-02-29", 2028), ("2028-03-01", 2032), ("2026-01-01", 2028)])
def test_the_next_leap_year(now: str, year: int) -> None:
    assert said("0 0 29 2 *", now=now)[0].endswith(f"next in {year}")


SPRING = "on 2027-03-28 the clock goes from 03:00 to 04:00: "
AUTUMN = "on 2027-10-31 the clock goes from 04:00 to 03:00: "


@pytest.mark.parametrize(
    ("text", "spring", "autumn"),
    [
        ("30 3 * * *", "03:30 comes at 04:00", "03:30 comes the first time only"),
        ("0,30 3 * * *", "03:00 and 03:30 come at 04:00", "03:00 and 03:30 come the first time only"),
        ("0 */3 * * *", "03:00 does not come", "03:00 comes twice"),
        ("*/5 3 * * *", "03:00 to 04:00 do not come", "03:00 to 04:00 come twice"),
    ],
)
def test_changes_of_the_clock(text: str, spring: str, autumn: str) -> None:
    assert said(text, zone="Europe/Riga") == [f"'{text}': {SPRING}{spring}", f"'{text}': {AUTUMN}{autumn}"]


@pytest.mark.parametrize("text", ["0 4 * * *", "*/15 * * * *", "30 3 * * 1-5", "30 3 1 * *", "0 */2 * * *"])
def test_ticks_that_a_change_leaves_alone(text: str) -> None:
    assert said(text, zone="Europe/Riga") == []


def test_only_the_coming_13_months() -> None:
    assert len(said("30 3 * * *", zone="Europe/Riga", now="2026-10-26")) == 2
    assert len(said("30 3 * * *", zone="Europe/Riga", now="2026-10-24")) == 3
