"""A database that another program has locked, and a disk that fills up while a run is at it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..kill.arena import LIMIT
from .place import MARK, Place, heard, is_root

pytestmark = pytest.mark.slow

# The real program, only that it gives up on the database after two seconds and not after thirty.
IMPATIENT = """
import sys
from agentrun.store import database
from agentrun.__main__ import main

database.open_for_writing.__kwdefaults__["patience"] = 2.0
main()
"""


def impatient(place: Place, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *arguments], env=place.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    place.processes.append(process)
    return process


def test_a_run_waits_for_another_program_that_has_the_database_locked_and_says_so(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"steps:\n- {{id: a, run: '{gate.shell}'}}\n- {{id: b, run: '{MARK}'}}\n")
    run = place.start("run", str(job))
    gate.reached()
    other = sqlite3.connect(place.home / "agentrun.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    gate.open()
    said = heard(run)
    assert "locked" in said and str(place.home / "agentrun.db") in said, said
    assert run.poll() is None and place.marks() == []
    other.execute("ROLLBACK")
    other.close()
    assert run.wait(LIMIT) == 0
    assert place.marks() == ["b"] and run.communicate() == ("", ""), "it is said once"


def test_a_run_that_begins_while_the_database_is_locked_waits_too(place: Place) -> None:
    assert place.run("steps:\n- {run: 'true'}\n", name="first").status == 0
    other = sqlite3.connect(place.home / "agentrun.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    run = place.start("run", str(place.job("job", f"steps:\n- {{id: a, run: '{MARK}'}}\n")))
    assert "locked" in heard(run)
    other.execute("ROLLBACK")
    other.close()
    assert run.wait(LIMIT) == 0 and place.marks() == ["a"]


def test_a_database_locked_for_too_long_is_74_and_the_run_can_be_resumed(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"steps:\n- {{id: a, run: '{gate.shell}'}}\n- {{id: b, run: '{MARK}'}}\n")
    run = impatient(place, "run", str(job))
    gate.reached()
    other = sqlite3.connect(place.home / "agentrun.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    gate.open()
    _, stderr = run.communicate(timeout=LIMIT)
    other.execute("ROLLBACK")
    other.close()
    assert run.returncode == 74 and "locked by another program for too long" in stderr
    place.wait_until_let_go()
    assert place.status("job")["interrupted"] is True and place.marks() == []
    # that a was done is in the file of results: it is not done again
    assert place.call("resume", "job").status == 0
    assert place.marks() == ["b"] and place.status("job")["steps"][0]["attempts"] == 1


class Disk:
    """A disk of 4 MiB that can be filled and emptied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with open(self.folder / "ballast", "wb", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(place: Place) -> Iterator[Disk]:
    if not is_root():
        pytest.skip("only root can mount a small disk")
    folder = place.root / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    place.home = folder / "home"
    place.env["AGENTRUN_HOME"] = str(place.home)
    try:
        yield Disk(folder)
    finally:
        place.close()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def noisy_steps(place: Place, gate: str) -> str:
    text = f"""
steps:
- {{id: before, run: '{MARK}; echo n=1 >> "$AGENTRUN_OUTPUT"'}}
- {{id: at, run: '{MARK}; {gate}; head -c 100000 /dev/zero; {MARK}'}}
- {{id: after, run: '{MARK}; test "$N" = 1', env: {{N: '${{{{ steps.before.outputs.n }}}}'}}}}
"""
    return str(place.job("job", text))


def outcomes(place: Place) -> dict[str, str | None]:
    return {step["id"]: step["outcome"] for step in place.status("job")["steps"]}


def test_a_run_waits_for_space_on_a_full_disk_says_so_and_goes_on(place: Place, disk: Disk) -> None:
    gate = place.gate("gate")
    run = place.start("run", noisy_steps(place, gate.shell))
    gate.reached()
    disk.fill()
    gate.open()
    said = heard(run)
    assert "full" in said or "disk I/O error" in said, said
    assert outcomes(place) == {"before": "succeeded", "at": None, "after": None}
    disk.free()
    assert run.wait(LIMIT) == 0
    assert place.marks() == ["before", "at", "at", "after"]
    assert outcomes(place) == dict.fromkeys(("before", "at", "after"), "succeeded")


def test_a_disk_that_stays_full_ends_the_run_and_nothing_reads_succeeded_that_is_not(place: Place, disk: Disk) -> None:
    gate = place.gate("gate")
    run = impatient(place, "run", noisy_steps(place, gate.shell))
    gate.reached()
    disk.fill()
    gate.open()
    _, stderr = run.communicate(timeout=LIMIT)
    assert run.returncode == 74 and str(place.home) in stderr, stderr
    place.wait_until_let_go()
    assert outcomes(place) == {"before": "succeeded", "at": None, "after": None}
    full = impatient(place, "resume", "job")
    _, stderr = full.communicate(timeout=LIMIT)
    assert full.returncode in (73, 74) and "Traceback" not in stderr, stderr
    disk.free()
    assert place.call("resume", "job").status == 0
    assert set(outcomes(place).values()) == {"succeeded"}
    assert place.marks()[:3] == ["before", "at", "at"] and place.marks()[-1] == "after"
    assert place.marks().count("before") == 1


def test_everything_killed_on_a_full_disk_is_resumed_when_there_is_space(place: Place, disk: Disk) -> None:
    gate = place.gate("gate")
    place.start("run", noisy_steps(place, gate.shell))
    gate.reached()
    disk.fill()
    place.kill_everything()
    assert outcomes(place) == {"before": "succeeded", "at": None, "after": None}
    disk.free()
    resumed = place.start("resume", "job")
    gate.reached()
    gate.open()
    assert resumed.wait(LIMIT) == 0
    assert place.marks() == ["before", "at", "at", "at", "after"]


def test_a_run_cannot_begin_on_a_full_disk_and_leaves_nothing(place: Place, disk: Disk) -> None:
    assert place.run("steps:\n- {run: 'true'}\n", name="first").status == 0
    folders = sorted(os.listdir(place.home / "runs"))
    disk.fill()
    run = impatient(place, "run", noisy_steps(place, "true"))
    stdout, stderr = run.communicate(timeout=LIMIT)
    assert run.returncode in (73, 74) and stdout == "" and "Traceback" not in stderr, stderr
    disk.free()
    assert place.marks() == [] and sorted(os.listdir(place.home / "runs")) == folders
    assert place.rows("SELECT count(*) FROM runs") == [(1,)]


def test_an_end_that_cannot_be_written_down_is_not_lost(place: Place, disk: Disk) -> None:
    """The very first one: its file has no block on the disk yet."""
    run = place.start("run", str(place.job("job", f"""
steps:
- {{id: fills, run: 'cat /dev/zero > {disk.folder}/ballast || true; {MARK}'}}
- {{id: next, run: '{MARK}'}}
""")))  # fmt: skip
    said = heard(run)
    assert "cannot record the end of step fills: No space left on device" in said, said
    assert place.status("job")["steps"][0]["outcome"] is None
    disk.free()
    assert run.wait(LIMIT) == 0
    assert place.marks() == ["fills", "next"] and run.communicate() == ("", ""), "it is said once"


def test_another_step_may_make_room(place: Place, disk: Disk) -> None:
    gate = place.gate("gate")
    run = place.start("run", str(place.job("job", f"""
max_parallel: 2
steps:
- {{id: fills, needs: [], run: 'cat /dev/zero > {disk.folder}/ballast || true; {MARK}'}}
- {{id: frees, needs: [], run: '{gate.shell}; rm {disk.folder}/ballast; {MARK}'}}
- {{id: next, needs: [fills, frees], run: '{MARK}'}}
""")))  # fmt: skip
    gate.reached()
    assert "No space left" in heard(run)
    gate.open()
    assert run.wait(LIMIT) == 0
    assert place.marks() == ["fills", "frees", "next"]


def test_a_run_that_waits_for_room_can_be_stopped(place: Place, disk: Disk) -> None:
    run = impatient(place, "run", str(place.job("job", f"""
steps:
- {{id: fills, run: 'cat /dev/zero > {disk.folder}/ballast || true; {MARK}'}}
- {{id: next, run: '{MARK}'}}
""")))  # fmt: skip
    heard(run)
    run.terminate()
    try:
        assert run.wait(4) in (74, 143)
    except subprocess.TimeoutExpired:
        pytest.fail("it goes on waiting")
    finally:
        disk.free()
