"""What the machine's zone is called, and moments as the clocks of a zone show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrun.cron import zones
from agentrun.cron.zones import local, machine_zone, moment


@pytest.mark.parametrize("value", ["Europe/Riga", ":Europe/Riga", "/usr/share/zoneinfo/Europe/Riga"])
def test_the_machines_zone_by_tz(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", value)
    assert machine_zone() == "Europe/Riga"


def test_the_machines_zone_by_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    file = tmp_path / "zoneinfo" / "Asia" / "Gaza"
    file.parent.mkdir(parents=True)
    file.touch()
    os.symlink(file, tmp_path / "localtime")
    monkeypatch.setattr(zones, "_LINK", str(tmp_path / "localtime"))
    assert machine_zone() == "Asia/Gaza"


def test_local_times() -> None:
    assert local(1_774_746_000_000, "Europe/Riga").isoformat() == "2026-03-29T04:00:00+03:00"
    assert local(1_774_745_999_000, "Europe/Riga").isoformat() == "2026-03-29T02:59:59+02:00"


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-29T02:59:00", "2026-03-29T00:59:00"), ("2026-03-29T04:00", "2026-03-29T01:00:00"),
        ("2026-11-21", "2026-11-20T22:00:00"), ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00"),
        ("2026-11-21T12:00:00-05:00", "2026-11-21T17:00:00"),
    ],
)  # fmt: skip
def test_moments_without_an_offset_are_the_zones(text: str, utc: str) -> None:
    assert local(moment(text, "Europe/Riga"), "UTC").isoformat() == f"{utc}+00:00"


def test_no_moment() -> None:
    with pytest.raises(ValueError, match="Invalid isoformat"):
        moment("10m", None)
