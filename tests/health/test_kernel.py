"""The machine: what it can do here is found, and what it cannot is told."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentrun.health import kernel
from agentrun.health.site import Site
from agentrun.step import cgroups
from tests.cli.recorded import START

from .conftest import Patient

MACHINE = ("clock", "boot_id", "proc", "pidfd", "subreaper", "limits", "open_files", "processes")


@pytest.mark.parametrize("name", MACHINE)
def test_this_machine_will_do(patient: Patient, name: str) -> None:
    patient.good(name)


@pytest.mark.parametrize("year", [1970, 2024, 2100, 2200])
def test_an_unlikely_year(patient: Patient, year: int) -> None:
    patient.now = int(datetime(year, 3, 1, tzinfo=UTC).timestamp() * 1000)
    assert f"it is {year}-03-01T00:00:00Z by the clock" in patient.bad("clock")


@pytest.mark.parametrize(("behind", "ok"), [(-5_000, True), (0, True), (59_000, True), (61_000, False)])
def test_a_clock_that_was_set_back(patient: Patient, behind: int, ok: bool) -> None:
    patient.run()
    patient.now = START - behind
    assert patient.ask("clock").ok == ok
    if not ok:
        assert "was created 61 s after now" in patient.bad("clock")


def test_the_children_of_the_checks_are_gone(patient: Patient) -> None:
    for name in ("subreaper", "locks"):
        patient.good(name)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_child_that_fails_is_a_finding() -> None:
    def fail() -> int:
        raise OSError("no")

    assert kernel.in_child(fail) == 1
    assert kernel.in_child(lambda: 0) == 0


def ask_elsewhere(name: str, before: str) -> str:
    """What a check answers in a process of its own, after a line of shell."""
    code = (
        "import os; from agentrun.health.checkup import look; from agentrun.health.site import Site;"
        f"print(*look({name!r}, Site('/nonexistent/state', os.environ)), sep=' | ')"
    )
    done = subprocess.run(
        ["sh", "-c", f'{before}; exec "$0" -c "$1"', sys.executable, code], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def test_few_open_files() -> None:
    said = ask_elsewhere("open_files", "ulimit -n 100")
    assert said.startswith("False | no more than 100 for a process: enough for 20 steps at once | raise it: ulimit -Hn")
    assert ask_elsewhere("open_files", "ulimit -n 1000").startswith("True | 1000 ")


def test_a_cgroup_that_is_nearly_full(tmp_path: Path) -> None:
    own = cgroups.own_folders()
    parent = own.get("pids") or own.get("")
    if parent is None or not os.access(parent, os.W_OK):
        pytest.skip("no cgroup of processes can be made here")
    group = Path(parent, f"agentrun-test-{os.getpid()}")
    group.mkdir()
    try:
        if not (group / "pids.max").exists():
            pytest.skip("the controller of processes is not handed down to here")
        enter = f"echo $$ > {group}/cgroup.procs"
        assert ask_elsewhere("processes", f"{enter}; echo 1000 > {group}/pids.max").startswith("True | ")
        said = ask_elsewhere("processes", f"{enter}; echo 20 > {group}/pids.max")
        assert said.startswith("False | room for 1")
        assert f"{group}/pids.max is 20 | raise that limit" in said
    finally:
        group.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_start_no_more() -> None:
    limits = kernel.resource.getrlimit(kernel.resource.RLIMIT_NPROC)
    status = kernel.in_child(_as_nobody)
    assert status == 0
    assert kernel.resource.getrlimit(kernel.resource.RLIMIT_NPROC) == limits


def _as_nobody() -> int:
    site = Site("/nonexistent/state", {})
    os.setresuid(65533, 65533, 65533)
    kernel.resource.setrlimit(kernel.resource.RLIMIT_NPROC, (10, 10))
    found = kernel.processes(site)
    return 0 if not found.ok and "ulimit -u is 10" in found.detail else 1


def test_the_choice_of_a_test_is_told(patient: Patient) -> None:
    patient.environ["AGENTRUN_LIMITS"] = "sampling"
    assert patient.good("limits").startswith("AGENTRUN_LIMITS=sampling chooses")
