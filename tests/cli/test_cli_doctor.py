"""`agentrun doctor`: what it prints, its exit status, and that it works where nothing else does."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrun.health.checkup import CHECKS, examine
from agentrun.health.finding import Check
from agentrun.health.site import Site
from agentrun.model import Job
from agentrun.render.checks import check_lines, summary
from agentrun.render.terminal import Look

from .recorded import World, steps

LONG_AGO = 1_750_000_000_000  # 2025-06: before the clock of whatever machine asks


@pytest.fixture(autouse=True)
def no_crontab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of whoever runs the tests."""
    from agentrun.health import crontab

    monkeypatch.setattr(crontab, "of_this_user", lambda environ: crontab.Crontab())


def doctor(world: World, *options: str) -> tuple[int, dict[str, Any]]:
    status, out, err = world.call("doctor", "--json", *options)
    assert err == ""
    return status, {check["check"]: check for check in json.loads(out)}


def test_all_is_well(world: World) -> None:
    world.record("k3v9x00001", Job("quotes", steps("rates")), created_at=LONG_AGO).take().succeed("rates").finish()
    status, out, err = world.call("doctor")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == list(CHECKS)
    assert all(line.startswith(("✓ ", "+ ")) for line in lines[:-1])
    assert lines[-1] == f"all {len(CHECKS)} checks are good"


def test_the_shape_of_json(world: World) -> None:
    status, out, err = world.call("doctor", "--json")
    assert (status, err) == (0, "")
    checks = json.loads(out)
    assert len(checks) >= 20
    for check in checks:
        assert list(check) == ["schema", "check", "ok", "detail", "remedy"]
        assert check["schema"] == "agentrun.check/1"
        assert check["ok"] is True
        assert check["detail"]
        assert check["remedy"] is None


def test_a_fault_is_told_with_its_remedy_and_a_status(world: World) -> None:
    run = world.record("k3v9x00001", Job("quotes", steps("rates")), created_at=LONG_AGO).take()
    Path(run.folder.lock).touch(0o600)
    os.chmod(world.root, 0o755)
    status, found = doctor(world)
    assert status == 1
    assert {name for name, check in found.items() if not check["ok"]} == {"stranded_runs", "state_folder"}
    assert found["state_folder"]["remedy"] == f"chmod go-rwx {world.root}"
    status, out, _ = world.call("doctor")
    assert status == 1
    lines = out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.split()[1] == "state_folder")
    assert lines[place][0] in "✗x"
    assert lines[place + 1].strip() == f"remedy: chmod go-rwx {world.root}"
    assert lines[-1] == f"{len(CHECKS)} checks, 2 not good: state_folder, stranded_runs"


def test_before_the_first_run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRUN_HOME", str(tmp_path / "never"))
    status, found = doctor(world)
    assert status == 0
    assert found["state_folder"]["detail"] == f"{tmp_path}/never is not there yet: the first run makes it"
    assert not (tmp_path / "never").exists()


def test_a_damaged_database_is_one_fault_of_those_that_are_told(world: World) -> None:
    world.store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(os.path.join(world.root, "agentrun.db"), "r+b") as file:
        file.write(b"nonsense" * 100)
    status, found = doctor(world)
    assert status == 1
    assert "is damaged" in found["database"]["detail"]
    assert found["database"]["remedy"] == "agentrun doctor --repair"
    assert found["stranded_runs"]["remedy"] == "first do what is said at `database`"
    assert found["locks"]["ok"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_of_a_folder_that_belongs_to_somebody_else(world: World) -> None:
    """Another user asks: no traceback, and it is said whose it is."""
    os.chmod(world.root, 0o700)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 99
        try:
            os.dup2(writer, 1)
            os.setresuid(65533, 65533, 65533)
            for check in examine(Site(world.root, {})):
                os.write(1, f"{check.name} {check.ok} {check.detail}\n".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as answers:
        said = dict(line.split(" ", 1) for line in answers)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(said) == list(CHECKS)
    # the tests' own folders may be closed to others already further up
    assert "False " in said["state_folder"]
    assert "Permission denied" in said["database"]


def test_repair_needs_a_record(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRUN_HOME", str(tmp_path / "never"))
    assert world.call("doctor", "--repair") == (
        0, "", f"agentrun: nothing to repair: there is no record in {tmp_path}/never\n",
    )  # fmt: skip


def test_repair_of_what_is_sound(world: World) -> None:
    world.record("k3v9x00001", Job("quotes", steps("rates")), created_at=LONG_AGO).take().succeed("rates").finish()
    status, out, err = world.call("doctor", "--repair")
    assert status == 0
    assert err == "agentrun: nothing is wrong with the database: nothing has been changed\n"
    (line,) = out.splitlines()
    assert line[2:].startswith("database  1 run, ")


def test_repair_brings_back_what_the_journals_know(world: World) -> None:
    run = world.record("k3v9x00001", Job("quotes", steps("rates")), created_at=LONG_AGO)
    run.take().succeed("rates").finish()
    world.store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(os.path.join(world.root, "agentrun.db"), "r+b") as file:
        file.write(b"nonsense" * 100)
    assert not doctor(world)[1]["database"]["ok"]
    status, out, err = world.call("doctor", "--repair")
    assert status == 0, err
    first, *_, last = out.splitlines()
    assert first == "1 run rebuilt from journals; 1 finished step in the record"
    assert last[2:].startswith("database  1 run, ")
    assert f"the files as they were are in {world.root}/damaged/" in err
    assert doctor(world)[0] == 0


def test_repair_that_cannot_be_done_now(world: World) -> None:
    world.record("k3v9x00001", Job("quotes", steps("rates"))).take().hold()
    assert world.call("doctor", "--repair")[0] == 0, "there is nothing to do"
    world.store.database.connection.execute("DELETE FROM events")
    status, out, err = world.call("doctor", "--repair")
    assert (status, out) == (75, "")
    assert "run k3v9x00001 is being advanced" in err


def test_repair_does_not_go_with_json(world: World) -> None:
    status, out, err = world.call("doctor", "--repair", "--json")
    assert (status, out) == (2, "")
    assert "--repair does not go with --json" in err


REMEDY = "free space there, or set AGENTRUN_HOME to another folder"
BAD = Check("disk_space", False, "12 MiB of 20 GiB free\x1b[2J", REMEDY)
NAMES = ["file_system", "disk_space"]


def test_lines_for_a_pipe_are_whole() -> None:
    assert list(check_lines(BAD, NAMES, Look())) == [
        "✗ disk_space   12 MiB of 20 GiB free\\x1b[2J",
        "                 remedy: free space there, or set AGENTRUN_HOME to another folder",
    ]


def test_lines_for_a_terminal_fit_it() -> None:
    lines = list(check_lines(BAD, NAMES, Look(True, 50, False)))
    assert lines == [
        "✗ disk_space   12 MiB of 20 GiB free\\x1b[2J",
        "                 remedy: free space there, or set",
        "                 AGENTRUN_HOME to another folder",
    ]


def test_colours_are_those_of_a_terminal_that_wants_them() -> None:
    plain = list(check_lines(BAD, NAMES, Look(True, 80, False)))
    painted = list(check_lines(BAD, NAMES, Look(True, 80, True)))
    assert "\x1b" not in "".join(plain)
    assert painted[0].startswith("\x1b[31m✗\x1b[0m \x1b[1mdisk_space\x1b[0m")
    assert "\x1b[33mremedy: " in painted[1]


def test_no_color_on_a_real_terminal(world: World) -> None:
    def ask(**more: str) -> str:
        main, side = pty.openpty()
        done = subprocess.Popen(
            [sys.executable, "-m", "agentrun", "doctor"],
            stdin=subprocess.DEVNULL, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm", **more},
        )  # fmt: skip
        os.close(side)
        said = b""
        try:
            while block := os.read(main, 65536):
                said += block
        except OSError:  # the other end has gone
            pass
        os.close(main)
        assert done.wait(60) in (0, 1)
        return said.decode()

    assert "\x1b[32m" in ask(NO_COLOR="", PYTHONIOENCODING="utf-8")
    assert "\x1b" not in ask(NO_COLOR="1", PYTHONIOENCODING="utf-8")


def test_the_last_line() -> None:
    good = Check("locks", True, "they hold", "")
    assert summary([good, good]) == "all 2 checks are good"
    assert summary([good, BAD]) == "2 checks, 1 not good: disk_space"
