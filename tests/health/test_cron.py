"""Crontabs as users write them, read as cron reads them; a `crontab` of the test's own stands on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.health import cron, crontab
from agentrun.step import procs
from agentrun.store.jobs import Jobs

from .conftest import Patient


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program called agentrun, in a folder of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "agentrun"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: Patient) -> Callable[[str], None]:
    """Make this the crontab."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(crontab, "_tables", lambda: iter(()))

    def write(text: str, script: str = 'test "$1" = -l && cat "$0.text"') -> None:
        (tools / "crontab.text").write_text(text)
        (tools / "crontab").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "crontab").chmod(0o755)

    return write


def test_no_crontab_is_no_fault(patient: Patient, write: Callable[..., None]) -> None:
    for script in (None, "echo 'no crontab for root' >&2; exit 1", 'cat "$0.text"'):
        if script:
            write("# nothing\n", script)
        for name in ("crontab", "cron_resume", "cron_path", "cron_home", "cron_daemon"):
            patient.good(name)
    write("", "echo 'You (ann) are not allowed to use this program (crontab)' >&2; exit 1")
    assert "not allowed" in patient.good("crontab")
    write("", "echo 'cannot open /var/spool/cron' >&2; exit 1")
    assert "says cannot open /var/spool/cron → look why" in patient.bad("crontab")


def test_a_crontab_that_hangs_is_told(
    patient: Patient, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("", "exec cat /dev/zero")
    monkeypatch.setattr(crontab, "_PATIENCE", 0.2)
    assert "`crontab -l` says nothing within 0.2 s" in patient.bad("crontab")


FOUND = [
    "0 3 * * * {program} run /jobs/a.yaml",
    "PATH={folder}:/usr/bin:/bin\n0 3 * * * agentrun run a.yaml",
    "PATH = '{folder}'\n@daily cd /jobs && agentrun -q run a.yaml",
    "0 3 * * * PATH={folder} agentrun run a.yaml",
    "0 3 * * * cd /opt && ./agentrun run a.yaml",
    "0 3 * * * flock -n /tmp/l {program} run a.yaml >/dev/null 2>&1",
    "0 3 * * * /bin/sh -m agentrun run a.yaml",
    "MINE={program}\n0 3 * * * $MINE/agentrun run a.yaml; $OTHER/agentrun run b.yaml",
]
LOST = [
    "0 3 * * * agentrun run a.yaml",
    "@reboot agentrun resume",
    "0 3 * * * ./agentrun run a.yaml",
    "0 3 * * * /nowhere/agentrun run a.yaml",
    "0 3 * * * cd /jobs && agentrun run a.yaml",
    "0 3 * * * ~/agentrun run a.yaml",
    "0 3 * * * /nowhere/python -m agentrun run a.yaml",
    "PATH=$HOME/bin:/usr/bin\n0 3 * * * agentrun run a.yaml",
    "0 3 * * * agentrun run a.yaml\nPATH={folder}",
    "0 3 * * * 'agentrun run a.yaml\n0 3 * * * agentrun run a.yaml",
]


@pytest.mark.parametrize("line", FOUND)
def test_lines_that_find_it(patient: Patient, write: Callable[[str], None], program: Path, line: str) -> None:
    if "$MINE" in line:
        line = line.replace("{program}", "{folder}")
    write(line.format(program=program, folder=program.parent) + "\n")
    assert "by a path that cron finds" in patient.good("crontab")


@pytest.mark.skipif(shutil.which("agentrun", path=crontab.PATH) is not None, reason="it is on cron's own PATH here")
@pytest.mark.parametrize("line", LOST)
def test_lines_that_do_not(patient: Patient, write: Callable[[str], None], program: Path, line: str) -> None:
    write(line.format(program=program, folder=program.parent) + "\n")
    said = patient.bad("crontab")
    assert "cron would not find " in said
    assert f"name it by its whole path in the crontab: {cron.program()} " in said
    assert ("expands nothing" in said) == ("$HOME" in line)


@pytest.mark.parametrize(
    "line",
    ["0 3 * * * tail /var/log/agentrun", "# 0 3 * * * agentrun run x", "0 3 * * * ls agentrun", "MAILTO=agentrun"],
)
def test_lines_that_are_none(patient: Patient, write: Callable[[str], None], line: str) -> None:
    write(line + "\n")
    assert patient.good("crontab") == "no line of this user's calls agentrun"


@pytest.mark.parametrize(
    ("lines", "ok"),
    [
        ("0 3 * * * /x/agentrun run a.yaml", False),
        ("0 3 * * * /x/agentrun run a.yaml\n# @reboot /x/agentrun resume", False),
        ("0 3 * * * /x/agentrun run a.yaml\n@reboot /x/agentrun resume", True),
        ("0 3 * * * /x/agentrun run a.yaml\n*/5 * * * * /x/agentrun resume", True),
        ("0 3 * * * /x/agentrun status", True),
        ("*/5 * * * * /x/agentrun resume", True),
    ],
)
def test_runs_of_the_crontab_are_resumed(
    patient: Patient, write: Callable[[str], None], lines: str, ok: bool
) -> None:
    write(lines + "\n")
    found = patient.ask("cron_resume")
    assert found.ok == ok
    if not ok:
        assert "would wait for you" in found.detail
        assert f"@reboot {cron.program()} resume" in found.remedy


def test_what_cron_starts_is_recorded_where_we_look(patient: Patient, write: Callable[[str], None]) -> None:
    line = "0 3 * * * /x/agentrun run a.yaml\n"
    write(line)
    assert f"and here it is {patient.root} → set AGENTRUN_HOME={patient.root}" in patient.bad("cron_home")
    write(f"AGENTRUN_HOME={patient.root}\n{line}")
    assert patient.good("cron_home") == "what the crontab starts is recorded here"
    write(f"0 3 * * * AGENTRUN_HOME={patient.root} /x/agentrun run a.yaml\n")
    patient.good("cron_home")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process called cron."""
    cat = shutil.which("cat")
    assert cat
    shutil.copy(cat, tmp_path / "cron")
    with subprocess.Popen([tmp_path / "cron"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"there\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
        process.kill()


def _another_runs() -> bool:
    return any(procs.read(f"/proc/{pid}/comm").strip() in (b"cron", b"crond") for pid in procs.every_pid())


def test_whether_cron_runs(
    patient: Patient, write: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    if _another_runs():
        pytest.skip("a cron runs here")
    write("0 3 * * * /x/agentrun run a.yaml\n")
    assert "no cron daemon is seen to run" in patient.bad("cron_daemon")
    process = request.getfixturevalue("daemon")
    assert patient.good("cron_daemon") == f"process {process.pid} (cron)"


SYSTEM = """
PATH=/opt/bin
17 * * * * root  /x/agentrun run hourly.yaml
0 3 * * *  ann   /x/agentrun run daily.yaml
@reboot ann agentrun resume
"""


def test_a_table_of_the_system_names_the_user() -> None:
    calls = crontab.parse(SYSTEM, "/home/ann", user="ann")
    assert [(call.schedule, call.word, call.verb) for call in calls] == [
        ("0 3 * * *", "/x/agentrun", "run"),
        ("@reboot", "agentrun", "resume"),
    ]
    assert {call.variables["PATH"] for call in calls} == {"/opt/bin"}


def test_a_percent_sign_ends_a_command() -> None:
    calls = crontab.parse(r"0 3 * * * a run \%d % agentrun run a.yaml", "/home/ann")
    assert calls == []
    assert len(crontab.parse(r"0 3 * * * date +\%F && agentrun run a.yaml", "/home/ann")) == 1


@pytest.mark.parametrize("text", ["", "\0", "@", "@daily", "* * * * *", "a=b=c", "0 3 * * * \"", "é ü", "%\n%%%\n"])
def test_any_text_is_read(text: str) -> None:
    assert crontab.parse(text, "/home/ann") == []


def install(patient: Patient, file: Path, name: str, **more: str) -> None:
    """As `agentrun install` records it."""
    machine = os.path.realpath("/etc/localtime")
    installed = {"how": "cron", "schedule": ["0 3 * * *"], "timezone": None, "machine": machine}
    Jobs(patient.world.store.database).install(name, str(file), {**installed, **more})


def test_installed_jobs_are_as_their_files_say(
    patient: Patient, write: Callable[[str], None], tmp_path: Path
) -> None:
    assert patient.good("installed_jobs") == "none"
    file = tmp_path / "a b%.yaml"
    line = f"0 3 * * * /x/python -P -m agentrun run '{tmp_path}/a b\\%.yaml' >/dev/null\n"
    body = "name: q\nsteps: [{run: 'true'}]\n"
    install(patient, file, "q")
    write("0 3 * * * /x/agentrun run other.yaml\n")
    file.write_text(f'schedule: "0 3 * * *"\n{body}')
    said = patient.bad("installed_jobs")
    assert said == f"job q: the crontab has no line for it → agentrun install '{file}', or agentrun uninstall q"
    write(line)
    assert patient.good("installed_jobs") == "q: where they were put, with the schedules of their files"
    for text, found in (
        (f'schedule: "0 4 * * *"\n{body}', "installed with another schedule than its file has"),
        (f'schedule: "0 3 * * *"\ntimezone: Asia/Tokyo\n{body}', "for another time zone than its file has"),
        (body, "has no schedule any more"),
        (body.replace("name: q", "name: r"), "its file calls itself r now"),
        ("what: 1\n", "its file is wrong: "),
    ):
        file.write_text(text)
        assert found in patient.bad("installed_jobs")
    file.unlink()
    assert f"its file is gone: {file} → put it back, or agentrun uninstall q" in patient.bad("installed_jobs")


def test_timers_of_installed_jobs(patient: Patient, write: Callable[[str], None], tmp_path: Path) -> None:
    write("")
    file = tmp_path / "q.yaml"
    install(patient, file, "q", how="systemd", scope="user", folder=str(tmp_path))
    file.write_text("schedule: '0 3 * * *'\nsteps: [{run: 'true'}]\n")
    assert f"its timer is gone: {tmp_path}/agentrun-q.timer → agentrun install {file} --systemd --user" in patient.bad(
        "installed_jobs"
    )
    (tmp_path / "agentrun-q.timer").touch()
    patient.good("installed_jobs")
