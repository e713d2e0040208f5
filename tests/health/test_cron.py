"""Crontabs as users write them, read as cron reads them; a `crontab` of the test's own stands on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.cron import crontab as installing
from agentrun.errors import CannotWrite
from agentrun.health import cron, crontab, mail
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


BLOCK = """\
0 1 * * * /usr/bin/true
# BEGIN agentrun: written by `agentrun install`
AGENTRUN_HOME=/elsewhere
# job a: /jobs/a.yaml
0 3 * * * /x/python -P -m agentrun run '/jobs/a b.yaml'
0 4 * * * /x/python -P -m agentrun run /jobs/c.yaml
@reboot /x/python -P -m agentrun resume
# END agentrun
"""


def test_what_is_installed_is_moved_by_installing_again(patient: Patient, write: Callable[[str], None]) -> None:
    write(BLOCK)
    said = patient.bad("cron_home")
    assert "to look at them: AGENTRUN_HOME=/elsewhere" in said
    assert said.endswith("and install again: agentrun install '/jobs/a b.yaml' /jobs/c.yaml")
    write(BLOCK.replace("AGENTRUN_HOME=/elsewhere", f"AGENTRUN_HOME={patient.root}"))
    patient.good("cron_home")
    write(BLOCK.replace("/elsewhere", patient.root) + "0 5 * * * AGENTRUN_HOME=/mine /x/agentrun run d.yaml\n")
    assert "set AGENTRUN_HOME=" in patient.bad("cron_home")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (BLOCK.replace("# END agentrun\n", ""), "line 2 begins it"),
        (BLOCK.replace("# BEGIN agentrun:", "#"), "line 8 ends it"),
        (BLOCK + BLOCK, "line 2 begins it, line 8 ends it, line 10 begins it, line 16 ends it"),
    ],
)
def test_a_torn_block_is_told(patient: Patient, write: Callable[[str], None], text: str, where: str) -> None:
    write(text)
    assert f"`agentrun install` is torn: {where};" in patient.bad("crontab")
    with pytest.raises(CannotWrite, match="torn"):
        installing.parse(text.encode())


def test_a_whole_block_is_none_that_is_torn(patient: Patient, write: Callable[[str], None], program: Path) -> None:
    text = BLOCK.replace("/x/python", "/bin/sh")
    write(text)
    patient.good("crontab")
    assert crontab.torn(text) == "" and len(installing.parse(text.encode()).jobs) == 1
    calls = crontab.parse(f"{text}0 5 * * * /x/agentrun run d.yaml\n", "/home/ann")
    assert [call.installed for call in calls] == [True, True, True, False]


def test_a_path_in_every_line_needs_no_path_of_cron(patient: Patient, write: Callable[[str], None]) -> None:
    write(BLOCK)
    assert patient.good("cron_path") == (
        "each line of the crontab that calls agentrun has its path, whatever cron's PATH is"
    )
    write("PATH=/x\n" + BLOCK + "0 5 * * * agentrun run d.yaml\n")
    assert "each line" not in patient.good("cron_path")


@pytest.fixture
def sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine's sendmail would be; and no config.yaml."""
    (tmp_path / "sbin").mkdir()
    monkeypatch.setattr(mail, "_MAILERS", str(tmp_path / "sbin"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("agentrun.spec.config.config_path", lambda: _there(tmp_path / "config.yaml"))
    return tmp_path / "sbin" / "sendmail"


def _there(path: Path) -> str | None:
    return str(path) if path.exists() else None


TOLD = "notify: {to: [{mail: ann@example.org}]}\n"


def test_failures_reach_somebody(
    patient: Patient, write: Callable[[str], None], sendmail: Path, tmp_path: Path
) -> None:
    job, steps = tmp_path / "a.yaml", "name: a\nsteps: [{run: 'true'}]\n"
    job.write_text(steps)
    lines = f"0 3 * * * /x/agentrun run {job}\n* * * * * /x/agentrun resume\n"
    write("* * * * * /x/agentrun resume\n")
    assert patient.good("cron_mail") == "no runs are started by the crontab"
    write(lines)
    said = patient.bad("cron_mail")
    assert "failures of a are reported to nobody: this machine has no sendmail" in said and "under notify:" in said
    sendmail.write_text("#!/bin/sh\n")
    sendmail.chmod(0o755)
    assert patient.good("cron_mail") == "cron mails what fails"
    write(f'MAILTO=""\n{lines}MAILTO=ann\n')
    assert 'failures of a are reported to nobody: MAILTO is "" in the crontab' in patient.bad("cron_mail")
    write(f'MAILTO=""\nMAILTO=ann\n{lines}')
    patient.good("cron_mail")
    write(f"MAILTO=\n{lines}")
    job.write_text(steps + TOLD)
    assert patient.good("cron_mail") == "`notify` tells of what fails"
    job.write_text(steps + TOLD.replace("{to", "{on: [recovery], to"))
    patient.bad("cron_mail")
    job.write_text(steps)
    (tmp_path / "config.yaml").write_text(TOLD)
    patient.good("cron_mail")
    (tmp_path / "config.yaml").write_text(TOLD + "what: 1\n")
    patient.bad("cron_mail")
    job.unlink()
    assert "failures of the line at `0 3 * * *`" in patient.bad("cron_mail")


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
