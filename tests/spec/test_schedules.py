"""Cron expressions: what is accepted is what Debian's cron accepts, and everything else is told with its place."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from agentrun.errors import JobFileError
from agentrun.model import Schedule
from agentrun.spec import schedules
from agentrun.spec.decode import decode
from agentrun.spec.schedules import NICKNAMES, Wrong, parse

STEPS = "steps: [{run: 'true'}]\n"


def refused(text: str) -> list[str]:
    """`line:column: message`, and the hints below."""
    with pytest.raises(JobFileError) as caught:
        decode(text + STEPS, "a.yaml")
    problems = caught.value.problems
    return [f"{problem.line}:{problem.column}: {problem.message}" for problem in problems] + [
        problem.hint for problem in problems if problem.hint
    ]


def test_a_schedule_is_spelled_out() -> None:
    schedule = parse("*/20  8-18/5 1,15 JAN,mar-Apr mon-fri")
    assert schedule == Schedule(
        "*/20 8-18/5 1,15 JAN,mar-Apr mon-fri",
        (0, 20, 40), (8, 13, 18), (1, 15), (1, 3, 4), (1, 2, 3, 4, 5), by_clock=True, either_day=True,
    )  # fmt: skip


def test_all_of_a_field() -> None:
    schedule = parse("* * * * *")
    assert schedule.minutes == tuple(range(60))
    assert schedule.hours == tuple(range(24))
    assert schedule.days == tuple(range(1, 32))
    assert schedule.months == tuple(range(1, 13))
    assert schedule.weekdays == tuple(range(7))


@pytest.mark.parametrize(
    ("written", "weekdays"),
    [
        ("7", (0,)), ("0", (0,)), ("0-7", (0, 1, 2, 3, 4, 5, 6)), ("5-7", (0, 5, 6)), ("1-7/2", (0, 1, 3, 5)),
        ("SUN,7", (0,)), ("*/5,7", (0, 5)), ("fri-7", (0, 5, 6)),
    ],
)  # fmt: skip
def test_sunday_is_0_and_7(written: str, weekdays: tuple[int, ...]) -> None:
    assert parse(f"0 0 * * {written}").weekdays == weekdays


@pytest.mark.parametrize(("name", "meaning"), NICKNAMES.items())
def test_nicknames(name: str, meaning: str) -> None:
    assert parse(name) == Schedule(**{**vars(parse(meaning)), "text": name})


@pytest.mark.parametrize(
    ("text", "by_clock", "either_day"),
    [
        ("0 8 * * *", False, False), ("*/5 8 * * *", True, False), ("0 * * * *", True, False),
        ("0 */2 * * *", True, False), ("0-59 0-23 * * *", False, False), ("0 8 1 * 1", False, True),
        ("0 8 */2 * 1", False, False), ("0 8 1 * */2", False, False), ("0 8 *,1 * 1", False, False),
        ("0 8 1,* * 1", False, True),
    ],
)  # fmt: skip
def test_what_begins_with_a_star_is_as_in_debians_cron(text: str, by_clock: bool, either_day: bool) -> None:
    schedule = parse(text)
    assert (schedule.by_clock, schedule.either_day) == (by_clock, either_day)


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("0 8 * *", 0, "has 5 fields (minute, hour, day, month, weekday), and this has 4", None),
        ("0 0 8 * * *", 10, "and this has 6", "neither seconds nor years"),
        ("0 8 * * * /bin/x -y", 10, "and this has 7", "the command goes into 'steps'"),
        ("CRON_TZ=UTC 0 8 * * *", 0, "no variables", "'timezone'"),
        ("60 * * * *", 0, "there is no minute 60: it is 0 to 59", None),
        ("0 8-25 * * *", 4, "there is no hour 25: it is 0 to 23", None),
        ("0 0 1,32 * *", 6, "there is no day 32: it is 1 to 31", None),
        ("0 0 * 0 *", 6, "there is no month 0: it is 1 to 12", None),
        ("0 0 * * 8", 8, "there is no weekday 8: it is 0 to 7", None),
        ("0 0 * * monday", 8, "'monday' is no weekday: it is 0 to 7, or sun to sat (did you mean 'mon'?)", None),
        ("0 0 * * jan", 8, "'jan' is no weekday", None),
        ("mon * * * *", 0, "'mon' is no minute: it is 0 to 59", None),
        ("30-10 * * * *", 0, "the range '30-10' is upside down", "as 30-59,0-10"),
        ("0 22-6 * * *", 2, "the range '22-6' is upside down", "as 22-23,0-6"),
        ("0 0 * * fri-sun", 8, "the range 'fri-sun' is upside down", "5-7"),
        ("0 0 * * sat-tue", 8, "upside down", "as 6-6,0-2"),
        ("1/20 * * * *", 0, "the step in '1/20' has no range", "as 1-59/20"),
        ("*/0 * * * *", 2, "'*/0' counts by no step", None),
        ("1,,2 * * * *", 2, "'1,,2' lacks a minute", None),
        ("1, * * * *", 2, "'1,' lacks a minute", None),
        ("*-5 * * * *", 0, "'*-5' is no minute", None),
        ("-5 * * * *", 0, "'-5' is no minute", None),
        ("٣ * * * *", 0, "is no minute", None),
        ("0 0 L * *", 4, "'L' is no day", "no last day"),
        ("0 0 15W * *", 4, "'15W' is no day", "no nearest weekday"),
        ("0 0 * * 5#3", 8, "'5#3' is no weekday", "15-21"),
        ("0 0 ? * *", 4, "'?' is no day", "write *"),
        ("H * * * *", 0, "'H' is no minute", "'jitter'"),
        ("R * * * *", 0, "'R' is no minute", "'jitter'"),
        ("0~59 * * * *", 0, "'0~59' is no minute", "'jitter'"),
        (" @reboot", 1, "such a job has no ticks", "@reboot agentrun run JOB"),
        ("@every 5m", 0, "cron has no '@every'", '"*/15 * * * *"'),
        ("@dayly", 0, "cron has no '@dayly' (did you mean '@daily'?)", "@yearly, @annually"),
        ("@Daily", 0, "cron has no '@Daily' (did you mean '@daily'?)", None),
        ("@daily backup.sh now", 7, "nothing follows '@daily'", "'steps'"),
    ],
)
def test_refused_with_its_place(text: str, at: int, message: str, hint: str | None) -> None:
    with pytest.raises(Wrong, match=re.escape(message)) as caught:
        parse(text)
    assert caught.value.at == at
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["0 0 31 2 *", "0 0 30,31 feb *", "0 0 31 4,6,9,11 *", "0 0 31 2 */2"])
def test_what_never_comes_is_refused(text: str) -> None:
    with pytest.raises(Wrong, match="it never comes"):
        parse(text)


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 31 2 1", "0 0 30,31 1,2 *", "0 */24 * * *", "*/60 * * * *"])
def test_what_comes_seldom_is_not(text: str) -> None:
    assert parse(text)


def test_the_caret_stands_under_the_part_in_the_file() -> None:
    assert refused('schedule: "*/15 8-25 * * *"\n') == ["1:19: there is no hour 25: it is 0 to 23"]
    assert refused("schedule: 0 8 1, * *\n") == ["1:17: '1,' lacks a day"]
    assert refused("schedule:\n- '@daily'\n- |\n  0 8\n")[0].startswith("3:3: a cron expression has 5 fields")


def test_one_or_a_list() -> None:
    assert [one.text for one in decode("schedule: 0 8 * * *\n" + STEPS, "a").schedule] == ["0 8 * * *"]
    both = decode("schedule: ['@daily', 0 12 * * sun]\n" + STEPS, "a").schedule
    assert [one.text for one in both] == ["@daily", "0 12 * * sun"]
    assert decode(STEPS, "a").schedule == ()


def test_no_two_come_at_the_same_times() -> None:
    text = "schedule:\n- '@daily'\n- 0 0 * * 0-7\n- 0  0 * * *\n"
    assert refused(text)[0] == "3:3: '0 0 * * 0-7' comes at the same times as the one on line 2"
    assert len(decode("schedule: [0 0 * * *, '*/60 0 * * *']\n" + STEPS, "a").schedule) == 2  # in autumn they differ


@pytest.mark.parametrize("written", ["", "[]", "{a: b}", "~", '""', "[[0 8 * * *]]"])
def test_no_schedule_at_all(written: str) -> None:
    assert "expects a cron expression" in refused(f"schedule: {written}\n")[0]


@pytest.mark.parametrize("written", ["* * * * *", "*/15 * * * *"])
def test_a_star_needs_quotes(written: str) -> None:
    assert refused(f"schedule: {written}\n")[1] == "a text that begins with '*' needs quotes"


@pytest.mark.parametrize("zone", ["Europe/Riga", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT"])
def test_zones(zone: str) -> None:
    assert decode(f"timezone: {zone}\n{STEPS}", "a").timezone == zone


@pytest.mark.parametrize(
    ("zone", "more"),
    [
        ("europe/riga", " (did you mean 'Europe/Riga'?)"), ("Europe/Rigga", " (did you mean 'Europe/Riga'?)"),
        ("Nowhere/Atall", ""), ("right/Europe/Riga", ""), ("../../etc/passwd", ""), ("/etc/localtime", ""),
        ("Europe", ""), ("localtime", ""), ("leapseconds", ""), ('""', ""),
    ],
)  # fmt: skip
def test_no_zones(zone: str, more: str) -> None:
    message = refused(f"timezone: {zone}\n")[0]
    assert message.startswith("1:11: 'timezone' expects a zone such as Europe/Riga or UTC, not ")
    assert message.endswith(more)


def test_without_a_zone_database_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_is_zone", lambda name: False)
    monkeypatch.setattr("zoneinfo.available_timezones", lambda: set())
    assert refused("timezone: Europe/Riga\n")[1] == "install Debian's package tzdata, or the Python package tzdata"


@pytest.mark.parametrize(("text", "loaded"), [("", False), ("schedule: '@daily'\n", True)])
def test_croniter_is_loaded_for_a_schedule_only(text: str, loaded: bool) -> None:
    program = (
        "import sys; from agentrun.spec.decode import decode; "
        f"decode({text + STEPS!r}, 'a'); print('croniter' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == f"{loaded}\n"
