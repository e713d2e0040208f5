"""`init`: what it writes says what was given, is right for our own decoder, and takes nobody's place."""

from __future__ import annotations

import os
import pwd
import random
import re
from pathlib import Path

import pytest

from agentrun.spec.decode import decode, load

from .recorded import World


@pytest.fixture
def here(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "my jobs"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("./backup.sh --all", "backup"),
        ("nice -n 5 /opt/backup.sh --all", "backup"),
        ("cd /opt/x && /usr/bin/python3 -u etl/load.py | tee log", "load"),
        ("python3.11 -m reports.daily", "reports"),
        ("PGHOST=db timeout 5m pg_dump shop > /var/b.sql", "pg_dump"),
        ("flock -n /tmp/lock rsync -a /a /b", "lock"),
        ("bash -c 'echo hi'", "echo-hi"),
        ("'unfinished", "unfinished"),
        ("/opt/größe.sh", "gr-e"),
        ("123", "job"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_name_is_that_of_the_program(world: World, here: Path, command: str, name: str) -> None:
    _, out, _ = world.call("init", command)
    assert out == f"{name}.yaml\n"
    job, _ = load(str(here / f"{name}.yaml"))
    assert (job.name, job.steps[0].run, job.working_dir) == (name, command, str(here))


def test_the_file_names_the_job(world: World, here: Path) -> None:
    status, out, err = world.call("init", "./a.sh", "-o", "nightly.yaml")
    assert (status, out) == (0, "nightly.yaml\n")
    assert load("nightly.yaml")[0].name == "nightly"
    assert "agentrun validate nightly.yaml" in err and "give it a schedule" in err
    assert world.call("init", "./a.sh", "-o", "übel.yaml")[0] == 0
    assert load("übel.yaml")[0].name == "a"


def test_no_file_is_written_over(world: World, here: Path) -> None:
    (here / "a.yaml").write_text("mine")
    status, out, err = world.call("init", "./a.sh")
    assert (status, out) == (73, "")
    assert "a.yaml is there already" in err and "--force" in err
    assert (here / "a.yaml").read_text() == "mine"
    assert world.call("init", "./a.sh", "--force")[0] == 0
    assert load("a.yaml")[0].steps[0].run == "./a.sh"
    assert world.call("init", "./a.sh", "-o", "nowhere/a.yaml")[0] == 73


def test_to_standard_output(world: World, here: Path) -> None:
    status, out, _ = world.call("init", "./a.sh", "-o", "-")
    assert status == 0 and decode(out, "x.yaml").name == "a"
    assert os.listdir(here) == []


def test_every_offer_can_be_taken(world: World, here: Path) -> None:
    _, out, _ = world.call("init", "./a.sh", "-o", "-")
    offers = re.findall(r"(?m)^( *)# ((?:- )?([a-z_]+): .*)$", out)
    wanted = "schedule catch_up concurrency env deadline shell keep timeout retry on_interrupt id run when"
    assert {key for _, _, key in offers} >= set(wanted.split()) - {"run", "when"}
    taken = re.sub(r"(?m)^( *)# ((?:- )?(?:[a-z_]+): .*|  [a-z]+: .*)$", r"\1\2", out)
    job = decode(taken, "a.yaml")
    assert [step.id for step in job.steps] == ["a", "report", "page"]
    assert job.deadline and job.schedule and job.steps[0].timeout and job.steps[2].is_handler


def test_a_schedule(world: World, here: Path) -> None:
    assert world.call("init", "./a.sh", "--schedule", "*/5 * * * 1-5")[0] == 0
    assert [one.text for one in load("a.yaml")[0].schedule] == ["*/5 * * * 1-5"]
    status, out, err = world.call("init", "./b.sh", "--schedule", "61 * * * *")
    assert (status, out) == (2, "") and "61" in err
    assert not (here / "b.yaml").exists()


@pytest.mark.parametrize(
    ("line", "schedule", "run"),
    [
        ("*/5 * * * * ./a.sh", "*/5 * * * *", "./a.sh"),
        ("  0\t3 * jan,FEB mon-fri\t./a.sh  --x", "0 3 * jan,FEB mon-fri", "./a.sh  --x"),
        ("@daily ./a.sh", "@daily", "./a.sh"),
        (r"0 3 * * * date +\%F", "0 3 * * *", "date +%F"),
        ("0 3 * * * ./a.sh%one%%two", "0 3 * * *", "{\n./a.sh\n} <<'END_OF_INPUT'\none\n\ntwo\nEND_OF_INPUT\n"),
    ],
)
def test_a_line_of_a_crontab_is_taken_apart(
    world: World, here: Path, line: str, schedule: str, run: str
) -> None:
    assert world.call("init", line, "-o", "a.yaml")[0] == 0
    job, _ = load("a.yaml")
    assert [one.text for one in job.schedule] == [schedule]
    assert job.steps[0].run == run
    assert job.working_dir == pwd.getpwuid(os.geteuid()).pw_dir


def test_what_is_no_schedule(world: World, here: Path) -> None:
    status, _, err = world.call("init", "@reboot ./a.sh")
    assert status == 2 and "`@reboot agentrun run FILE`" in err
    status, _, err = world.call("init", "0 3 * * * ./a.sh", "--schedule", "@daily")
    assert status == 2 and "leave --schedule out" in err
    assert world.call("init", "  ")[0] == 2
    assert os.listdir(here) == []


def test_a_script(world: World, here: Path) -> None:
    (here / "load.py").write_text("#!/usr/bin/env python3\nprint(1)\n")
    assert world.call("init", "load.py")[0] == 0
    assert load("load.yaml")[0].steps[0].run == f"/usr/bin/env python3 '{here}/load.py'"
    (here / "load.py").chmod(0o755)
    assert world.call("init", "load.py", "--force")[0] == 0
    assert load("load.yaml")[0].steps[0].run == f"'{here}/load.py'"
    (here / "go").write_text("echo\n")
    assert world.call("init", "./go")[0] == 0
    assert load("go.yaml")[0].steps[0].run == f"sh '{here}/go'"


def test_what_its_shell_cannot_read_is_told(world: World, here: Path) -> None:
    status, out, err = world.call("init", "echo 'a")
    assert (status, out) == (65, "echo.yaml\n")
    assert "cannot read this" in err


def test_what_no_job_file_can_say(world: World, here: Path) -> None:
    status, _, err = world.call("init", "echo ${{ params.x }}")
    assert status == 2 and "the command line cannot stand in a job file" in err
    status, _, err = world.call("init", "echo \udc80")
    assert status == 2 and "not UTF-8" in err
    assert os.listdir(here) == []


def test_any_command_line_comes_back_as_it_was(world: World, here: Path) -> None:
    chance = random.Random(11)
    pieces = ["echo", " ", " ", "'a'", '"$x"', "\\", "#", ": ", "\n", "\t", "ü", "😀", "{", "}", "%", "&&", "|", "x=1"]
    pieces += ["- ", "\x07"]
    for _ in range(60):
        command = "z" + "".join(chance.choice(pieces) for _ in range(chance.randint(1, 14))) + "z"
        status, out, err = world.call("init", command, "-o", "-")
        assert status == 0, (command, err)
        assert decode(out, "x.yaml").steps[0].run == command
