"""`init`: what it writes says what was given, is right for our own decoder, and takes nobody's place."""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
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


@pytest.mark.parametrize(
    ("name", "text", "mode", "program"),
    [
        ("plain.py", "print(1)\n", 0o644, "python3"),
        ("plain.py", "print(1)\n", 0o755, "python3"),
        ("plain.pl", "print 1;\n", 0o755, "perl"),
        ("plain.bash", "echo\n", 0o755, "bash"),
        ("plain.sh", "[[ what ever\n", 0o644, "sh"),
        ("plain", "# mine\n\necho 1 && ls\n", 0o755, "sh"),
        ("plain", "X=1\necho $X\n", 0o644, "sh"),
        ("plain.txt", "set -e\nls\n", 0o644, "sh"),
    ],
)
def test_a_script_without_a_first_line(
    world: World, here: Path, name: str, text: str, mode: int, program: str
) -> None:
    (here / name).write_text(text)
    (here / name).chmod(mode)
    status, _, err = world.call("init", f"./{name}")
    assert (status, load("plain.yaml")[0].steps[0].run) == (0, f"{program} '{here}/{name}'")
    assert f"{name} has no `#!` line: {program} is taken to run it" in err


@pytest.mark.parametrize("text", ["", "Dear all,\nit is late\n", "import_it()\nprint(1)\n", "ls (\n", "# a\n"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_text_that_is_no_script_we_know(world: World, here: Path, text: str, mode: int) -> None:
    (here / "notes").write_text(text)
    (here / "notes").chmod(mode)
    status, out, err = world.call("init", "./notes")
    assert (status, out) == (2, "")
    assert "nobody can tell what runs notes" in err and "name the program" in err
    assert os.listdir(here) == ["notes"]


def test_a_program_is_called_as_it_is(world: World, here: Path) -> None:
    (here / "tool").write_bytes(b"\x7fELF\0\0")
    (here / "tool").chmod(0o755)
    assert world.call("init", "./tool")[0] == 0
    assert load("tool.yaml")[0].steps[0].run == f"'{here}/tool'"


KEPT = "agentrun keeps the output itself"


@pytest.mark.parametrize(
    ("command", "away"),
    [
        ("true >> /var/log/x 2>&1", ">> /var/log/x 2>&1"),
        ("0 3 * * * true > /dev/null 2>&1", "> /dev/null 2>&1"),
        ("true &>/dev/null", "&>/dev/null"),
        ("true 2>/dev/null", "2>/dev/null"),
        ("true > out.csv", None),
        ("true 2>&1", None),
        ("echo '>> x 2>&1' \"> y 2>&1\" # >> z 2>&1", None),
    ],
)
def test_output_that_agentrun_would_not_see_is_told(
    world: World, here: Path, command: str, away: str | None
) -> None:
    status, _, err = world.call("init", command, "-o", "a.yaml")
    assert status == 0
    assert (KEPT in err) == (away is not None)
    if away:
        assert f"with `{away}` the report of a failure has nothing of it" in err
    assert (KEPT in world.call("init", command, "-o", "-")[2]) == (away is not None)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("command", "shell"),
    [
        ("true | cat", "bash"),
        ("*/5 * * * * true 2>&1 |cat", "bash"),
        ("0 3 * * * cat%a | b", "sh"),
        ("true || false", "sh"),
        ("echo 'a | b' \"|\" \\| # |", "sh"),
        ("true >| x", "sh"),
    ],
)
def test_a_pipe_gets_bash(world: World, here: Path, command: str, shell: str) -> None:
    status, _, err = world.call("init", command, "-o", "a.yaml")
    job, _ = load("a.yaml")
    assert (status, os.path.basename(job.shell[0])) == (0, shell)
    assert ("`shell: bash` makes it fail if any" in err) == (shell == "bash")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_pipe_without_a_bash(world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tools").mkdir()
    (here / "tools" / "sh").symlink_to(shutil.which("sh") or "")
    monkeypatch.setenv("PATH", f"{here}/tools")
    _, _, err = world.call("init", "true | cat", "-o", "a.yaml")
    assert os.path.basename(load("a.yaml")[0].shell[0]) == "sh"
    assert "there is no bash here" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("5 4 * * *", "this is a schedule without a command: 5 4 * * *"),
        ("@daily", "this is a schedule without a command: @daily"),
        ("MAILTO=x", "this sets a variable, and is no command line: MAILTO"),
        ("PATH = /usr/bin:/bin", "this sets a variable, and is no command line: PATH"),
        ("SHELL='/bin/bash'", "this sets a variable, and is no command line: SHELL"),
        ("# comment", "this is a comment"),
        (" # a\n\n# b", "this is a comment"),
        ("*/5 * * * * root /usr/local/bin/foo --x", "this line names a user"),
        ("@hourly root true", "this line names a user"),
    ],
)
def test_what_is_no_command(world: World, here: Path, given: str, said: str) -> None:
    status, out, err = world.call("init", given)
    assert (status, out, os.listdir(here)) == (2, "", [])
    assert said in err
    if "user" in said:
        assert f"agentrun init '{given.replace('root ', '')}'" in err


@pytest.mark.parametrize("given", ["X=1 true", "X=1; true", "X=$(true)", "0 3 * * * root", "0 3 * * * nobody -x"])
def test_what_only_looks_like_none(world: World, here: Path, given: str) -> None:
    assert world.call("init", given, "-o", "a.yaml")[0] == 0


def test_a_program_that_is_not_there_is_told(world: World, here: Path) -> None:
    status, _, err = world.call("init", "./nosuch.sh")
    assert status == 0 and f"there is no {here}/nosuch.sh, which 'run' begins with" in err
    (here / "deaf.sh").write_text("#!/bin/sh\n")
    assert f"{here}/deaf.sh is not executable" in world.call("init", "./deaf.sh --all")[2]
    assert "executable" not in world.call("init", "./deaf.sh", "-o", "b.yaml")[2]
