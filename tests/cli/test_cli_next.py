"""`agentrun next`: the coming ticks of a job, and what looks wrong about its schedule."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from .recorded import World

STEPS = "steps: [{run: 'true'}]\n"


@pytest.fixture
def riga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quotes.yaml").write_text(f"schedule: 30 3 * * *\ntimezone: Europe/Riga\n{STEPS}")
    return tmp_path


@pytest.mark.usefixtures("riga")
def test_a_line_for_each_tick(world: World) -> None:
    status, out, err = world.call("next", "quotes.yaml", "-n", "3", "--from", "2027-03-27")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["TICK", "DAY", "ZONE"]
    assert [line.rsplit("  ", 1)[0].rstrip() for line in lines[1:]] == [
        "2027-03-27 03:30 +0200  Sat  Europe/Riga",
        "2027-03-28 04:00 +0300  Sun  Europe/Riga",
        "2027-03-29 03:30 +0300  Mon  Europe/Riga",
    ]
    assert all(re.search(r"  (in )?\d+ (d|h|min)( ago)?$", line) for line in lines[1:])
    assert all(line.startswith("warning: '30 3 * * *': on 20") for line in err.splitlines())
    assert len(err.splitlines()) in (2, 3)


@pytest.mark.usefixtures("riga")
def test_a_tick_at_t_itself_is_not_after_it(world: World) -> None:
    _, out, _ = world.call("next", "quotes.yaml", "-n", "1", "--from", "2027-03-28T01:00:00Z", "--json")
    assert json.loads(out)[0]["utc"] == "2027-03-29T00:30:00.000Z"


@pytest.mark.usefixtures("riga")
def test_json(world: World) -> None:
    status, out, _ = world.call("next", "quotes.yaml", "-n", "1", "--from", "2027-03-28T02:59:00+02:00", "--json")
    assert status == 0
    assert json.loads(out) == [
        {
            "schema": "agentrun.tick/1", "time": "2027-03-28T04:00:00+03:00", "utc": "2027-03-28T01:00:00.000Z",
            "zone": "Europe/Riga", "weekday": "Sunday",
        }
    ]  # fmt: skip


def test_from_now_on_ten_in_the_machines_zone(riga: Path, world: World) -> None:
    (riga / "often.yaml").write_text(f'schedule: "*/15 * * * *"\njitter: 5m\n{STEPS}')
    status, out, err = world.call("next", "often.yaml")
    lines = out.splitlines()[1:]
    assert status == 0
    assert len(lines) == 10
    assert re.search(r"UTC +(now|in \d+ (min|s))$", lines[0])
    assert re.search(r"UTC +in 2 h$", lines[-1])
    assert re.fullmatch(r"agentrun: each start waits up to 5m \(jitter\), here always \w+; shown without it\n", err)


def test_a_job_that_the_record_knows(riga: Path, world: World) -> None:
    with sqlite3.connect(f"{world.root}/agentrun.db") as connection:
        connection.execute("INSERT INTO jobs (name, file) VALUES ('prices', ?)", (str(riga / "quotes.yaml"),))
    connection.close()
    status, out, _ = world.call("next", "prices", "-n", "1", "--from", "2027-06-01")
    assert status == 0
    assert out.splitlines()[1].startswith("2027-06-01 03:30 +0300")


@pytest.mark.parametrize(
    ("arguments", "status", "message", "hint"),
    [
        (["none.yaml"], 2, "job none has no schedule, so it has no ticks", "give it one in none.yaml, as schedule: "),
        (["gone.yaml"], 66, "there is no job file gone.yaml", ""),
        (["nobody"], 66, "nothing is known of a job nobody", "give the path of its file"),
        (["quotes.yaml", "--from", "10m"], 2, "--from expects a date or a time in RFC 3339, not '10m'", "2027-03-28T"),
        (["quotes.yaml", "--from", "2027-02-30"], 2, "--from expects a date", ""),
        (["quotes.yaml", "-n", "0"], 2, "'-n'", ""),
    ],
)
def test_what_makes_no_sense(
    riga: Path, world: World, arguments: list[str], status: int, message: str, hint: str
) -> None:
    (riga / "none.yaml").write_text(STEPS)
    found, out, err = world.call("next", *arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert hint in err


@pytest.mark.usefixtures("riga")
def test_no_tick_left(world: World) -> None:
    status, out, err = world.call("next", "quotes.yaml", "--from", "2200-01-01")
    assert (status, out) == (0, "")
    assert "agentrun: job quotes has no tick until the year 2100\n" in err
    assert world.call("next", "quotes.yaml", "--from", "2200-01-01", "--json")[1] == "[]\n"
