"""A sample of the comparison with Debian's cron and cronsim; the whole of it is `python -m tests.calendars`."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from . import compare
from .compare import EXPRESSIONS, RULES, Zone, differences, explained, of_cron, ours, theirs

# by an hour, by half an hour, by two, at midnight, for the month of Ramadan, and once for all
ZONES = ["Europe/Riga", "Australia/Lord_Howe", "Antarctica/Troll", "America/Santiago", "Africa/Casablanca",
         "Asia/Almaty"]  # fmt: skip


@pytest.mark.parametrize("name", ZONES)
def test_no_other_opinion_differs(name: str) -> None:
    zone = Zone(name)
    assert zone.transitions
    for transition in zone.transitions[-2:]:
        assert list(differences(zone, transition)) == []


def test_every_rule_explains_something() -> None:
    """In Casey the clock went from 00:01 to 03:01: for three hours, and to a minute past the hour."""
    zone = Zone("Antarctica/Casey")
    spring = next(one for one in zone.transitions if one.after - one.before == 3 * 3600)
    found = [explained(who, zone, one) for who, one in differences(zone, spring)]
    assert set(found) == set(RULES)


def test_the_model_is_debians_cron() -> None:
    """What crontab(5) there says, by hand: a fixed time in the gap and in the repeated hour, and one by the clock."""
    zone = Zone("Europe/Riga", ())

    def around(text: str, day: str) -> list[str]:
        at = int(datetime.fromisoformat(f"{day}T00:00:00Z").timestamp())
        found = of_cron(text, zone, at, at + 3 * 3600)
        return [datetime.fromtimestamp(one, ZoneInfo("Europe/Riga")).strftime("%H:%M%z") for one in found]

    assert around("15,45 0-3 * * *", "2026-03-29") == ["02:15+0200", "02:45+0200", "04:00+0300"]
    assert around("15,45 0-3 * * *", "2026-10-25") == ["03:15+0300", "03:45+0300"]
    assert around("0 * * * *", "2026-03-29") == ["02:00+0200", "04:00+0300", "05:00+0300"]
    assert around("0 * * * *", "2026-10-25") == ["03:00+0300", "03:00+0200", "04:00+0200"]


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = Zone("Europe/Riga")
    spring = zone.transitions[0]
    late = "15,45 0-3 * * *"
    assert spring.at in ours(late, zone.name, spring.at - 60, spring.at + 60)
    monkeypatch.setattr(compare, "ours", lambda *asked: [at for at in ours(*asked) if at != spring.at])
    found = {(who, one.expression): one.theirs for who, one in differences(zone, spring)}
    assert found["cron", late] == found["cronsim", late] == (spring.at,)


@pytest.mark.parametrize("text", EXPRESSIONS[5:])
def test_a_leap_year(text: str) -> None:
    zone = Zone("UTC", ())
    first, end = (int(datetime.fromisoformat(f"{year}-01-01T00:00:00Z").timestamp()) for year in (2028, 2029))
    assert ours(text, "UTC", first, end) == theirs(text, zone, first, end)
    assert len(ours(text, "UTC", first, end)) > 20
