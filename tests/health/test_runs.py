"""The runs as they can be left: stranded, parked, without a folder, without a record, with processes of theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.recorded import Recorded
from tests.kill.arena import Arena

from .conftest import Patient

RUNS = ("leftover_processes", "stranded_runs", "waiting_runs", "lost_runs", "orphan_folders")


@pytest.fixture
def left_behind() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process as a step of a run would leave it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: Recorded, step: str = "rates") -> subprocess.Popen[bytes]:
        marks = {"AGENTRUN_RUN_ID": run.id, "AGENTRUN_RUN_DIR": run.folder.scratch, "AGENTRUN_STEP": step}
        process = subprocess.Popen(
            ["cat"], env={**os.environ, **marks, "AGENTRUN_ATTEMPT": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin and process.stdout
        process.stdin.write(b"there\n")
        process.stdin.flush()
        process.stdout.readline()  # it is what it was started as
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_are_cared_for(patient: Patient, name: str) -> None:
    patient.run("k3v9x00001").finish()
    patient.run("k3v9x00002").hold()
    patient.good(name)


def test_a_run_that_nobody_goes_on_with(patient: Patient) -> None:
    run = patient.run()
    said = patient.bad("stranded_runs")
    assert said.startswith("nobody goes on with 1 run, interrupted or overdue: quotes/k3v9x00001 → agentrun resume k3v")
    other = patient.run("k3v9x00002")
    assert patient.bad("stranded_runs").startswith("nobody goes on with 2 runs")
    run.hold()
    other.finish()
    patient.good("stranded_runs")


def test_a_parked_run_is_no_fault(patient: Patient) -> None:
    run = patient.run()
    patient.world.store.database.connection.execute("UPDATE runs SET state = 'waiting' WHERE id = ?", (run.id,))
    patient.good("stranded_runs")
    assert patient.good("waiting_runs").startswith("1 run parked: quotes/k3v9x00001; ")


@pytest.mark.parametrize(("minutes", "overdue"), [(-60, False), (5, False), (30, True)])
def test_a_parked_run_whose_time_has_come(patient: Patient, minutes: int, overdue: bool) -> None:
    run = patient.run()
    connection = patient.world.store.database.connection
    connection.execute(
        "UPDATE runs SET state = 'waiting', elapsed = 7200000, wake_at = ? WHERE id = ?",
        (7_200_000 - minutes * 60_000, run.id),
    )
    assert patient.ask("stranded_runs").ok != overdue
    assert ("1 run parked" in patient.good("waiting_runs")) != overdue


def test_a_child_run_goes_on_with_its_parent(patient: Patient) -> None:
    patient.run("k3v9x00001").hold()
    child = patient.run("k3v9x00002")
    connection = patient.world.store.database.connection
    connection.execute("UPDATE runs SET caller = 'k3v9x00001', caller_instance = 'rates' WHERE id = ?", (child.id,))
    patient.good("stranded_runs")


def test_a_run_without_its_folder(patient: Patient) -> None:
    run = patient.run()
    shutil.rmtree(run.folder.path)
    said = patient.bad("lost_runs")
    assert "the folder of 1 unfinished run is gone: quotes/k3v9x00001" in said
    assert said.endswith("agentrun cancel k3v9x00001")
    patient.good("stranded_runs")  # resume would not help it
    run.finish()
    patient.good("lost_runs")


def test_a_folder_without_its_record(patient: Patient) -> None:
    patient.run().finish()
    stray = Path(patient.root, "runs", "k3v9x00009")
    stray.mkdir()
    os.utime(stray, (0, patient.now / 1000 - 60))
    assert patient.good("orphan_folders") == "1 folder, each with its record; 1 run being recorded"
    os.utime(stray, (0, patient.now / 1000 - 7200))
    assert "1 folder in " in patient.bad("orphan_folders")
    assert "agentrun doctor --repair" in patient.bad("orphan_folders")


def test_what_a_run_left_running(patient: Patient, left_behind: Callable[..., subprocess.Popen[bytes]]) -> None:
    run = patient.run()
    process = left_behind(run)
    said = patient.bad("leftover_processes")
    assert f"{process.pid} (run k3v9x00001, step rates) → agentrun resume k3v9x00001" in said
    run.hold()
    patient.good("leftover_processes")
    run.let_go()
    run.finish()
    assert patient.bad("leftover_processes").endswith(f"their runs have finished: kill {process.pid}")
    process.kill()
    process.wait()
    patient.good("leftover_processes")


def test_what_a_run_of_another_state_folder_left_is_not_ours(
    patient: Patient, left_behind: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    run = patient.run()
    run.folder.path = str(tmp_path / "elsewhere" / "runs" / run.id)
    left_behind(run)
    patient.good("leftover_processes")


LASTING = "name: quotes\nsteps:\n- {id: rates, run: 'true', leave_running: true}\n- {id: mail, run: 'true'}\n"


def test_what_may_go_on_running(
    patient: Patient, left_behind: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.cli.recorded.TEXT", LASTING)
    run = patient.run().finish()
    process = left_behind(run, "rates")
    assert "on purpose" in patient.good("leftover_processes")
    other = left_behind(run, "mail")
    said = patient.bad("leftover_processes")
    assert str(other.pid) in said
    assert str(process.pid) not in said


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    place = Arena(tmp_path)
    yield place
    place.close()


def doctor(arena: Arena) -> dict[str, dict[str, Any]]:
    import json

    done = arena.command("doctor", "--json")
    assert done.stderr == ""
    return {check["check"]: check for check in json.loads(done.stdout)}


def test_a_run_that_was_killed_for_real(arena: Arena) -> None:
    """All of it killed but for the step: it is stranded, and its process is left; both are gone after a resume."""
    gate = arena.gate("gate")
    arena.start("run", str(arena.job("nightly", f"steps:\n- run: |\n    {gate.shell}\n")))
    gate.reached()
    assert doctor(arena)["stranded_runs"]["ok"]
    (leader,) = [pid for pid in arena.step_processes() if pid not in (arena.owner(), arena.shim())]
    arena.kill_everything(spare=[leader])
    found = doctor(arena)
    assert found["stranded_runs"]["remedy"].startswith(f"agentrun resume {arena.run_id}")
    assert f"{leader} (run {arena.run_id}, step " in found["leftover_processes"]["detail"]
    resumed = arena.start("resume", arena.run_id)
    gate.reached()
    gate.open()
    assert resumed.wait(30) == 0
    arena.wait_until_let_go()
    found = doctor(arena)
    assert found["stranded_runs"]["ok"]
    assert found["leftover_processes"]["ok"]
