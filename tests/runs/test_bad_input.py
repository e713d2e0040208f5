"""Everything bad that a run can be given: one clear message, the right exit status, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from .place import MARK, PROGRAM, Place, Ran, is_root

JOB = f"steps:\n- {{id: a, run: '{MARK}'}}\n"


def complaint(ran: Ran, status: int, *words: str) -> None:
    """One message, in a few lines, with these words in it; nothing on stdout, no traceback."""
    assert (ran.status, ran.stdout) == (status, ""), ran.stderr
    assert ran.stderr.count("agentrun: ") == 1 or status == 65, ran.stderr
    assert len(ran.stderr.splitlines()) <= 6 and "Traceback" not in ran.stderr, ran.stderr
    assert [word for word in words if word not in ran.stderr] == [], ran.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps:\n- {run: 'true', timout: 5s}\n", ["job.yaml:2:17: ", "'timout'", "did you mean 'timeout'"]),
        ("steps:\n- {run: 'true'\n", ["job.yaml:"]),
        ("steps: []\n", ["job.yaml:1:"]),
        ("", ["job.yaml:1:1: "]),
        ("steps:\n- {id: a, run: 'true', needs: [b]}\n- {id: b, run: 'true', needs: [a]}\n", ["a -> b -> a"]),
        ("steps:\n- {run: 'echo ${{ run.id }}'}\n", ["job.yaml:2:", "env:"]),
        ("schedule: '@dayly'\nsteps:\n- {run: 'true'}\n", ["job.yaml:1:", "@daily"]),
        ("timezone: Europe/Berln\nsteps:\n- {run: 'true'}\n", ["job.yaml:1:", "Europe/Berlin"]),
    ],
)
def test_a_wrong_job_file_is_65(place: Place, text: str, words: list[str]) -> None:
    ran = place.call("run", str(place.job("job", text)))
    complaint(ran, 65, *words)
    assert place.rows("SELECT count(*) FROM runs") == [(0,)]


def test_every_mistake_of_a_job_file_is_shown_at_once(place: Place) -> None:
    ran = place.run("nme: x\nsteps:\n- {run: 'true', retry: {max_attempts: 0}}\n- {run: 'true', env: {A: [1]}}\n")
    assert ran.status == 65
    assert [f"job.yaml:{line}:" in ran.stderr for line in (1, 3, 4)] == [True] * 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"steps:\n- {run: 'echo \xe9'}\n", ["UTF-8"]),
        (b"steps:\n- {run: 'true'}\n" + b"# " + b"x" * (5 << 20), ["job.yaml"]),
        (b"\x00\x01\x02", ["job.yaml"]),
        (b"[" * 5_000, ["job.yaml"]),
    ],
    ids=["latin-1", "5 MiB", "binary", "deep"],
)
def test_an_unreadable_job_file_is_65(place: Place, data: bytes, words: list[str]) -> None:
    path = place.root / "job.yaml"
    path.write_bytes(data)
    complaint(place.call("run", str(path)), 65, *words)


def test_a_file_or_a_run_that_is_not_there_is_66(place: Place) -> None:
    complaint(place.call("run", "absent.yaml"), 66, "absent.yaml")
    complaint(place.call("resume", "absent"), 66, "absent")
    for verb in ("status", "logs", "cancel", "events"):
        complaint(place.call(verb, "absent"), 66, "absent")
    assert place.run(JOB).status == 0
    complaint(place.call("resume", "job~1"), 66, "no run 1 before its last")
    complaint(place.call("status", "job~1"), 66, "no run 1 before its last")


def test_a_folder_is_no_job_file(place: Place) -> None:
    ran = place.call("run", ".")
    assert ran.status in (65, 66) and "Traceback" not in ran.stderr and ran.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shell: [/usr/bin/no-such-shell, -e]\nsteps:\n- {id: a, run: 'echo hi'}\n", ["/usr/bin/no-such-shell"]),
        ("shell: [no-such-shell]\nsteps:\n- {id: a, run: 'echo hi'}\n", ["no-such-shell", "PATH="]),
        ("steps:\n- {id: a, python: 'm:f', interpreter: /usr/bin/python9}\n", ["/usr/bin/python9"]),
        ("steps:\n- {id: a, python: 'm:f', interpreter: python9}\n", ["python9", "PATH="]),
        ("working_dir: gone\nsteps:\n- {id: a, run: 'echo hi'}\n", ["gone", "working folder"]),
        ("working_dir: gone\nsteps:\n- {id: a, run: ls}\n", ["gone", "working folder"]),
        ("working_dir: plain.txt\nsteps:\n- {id: a, run: ls}\n", ["plain.txt", "working folder"]),
    ],
)
def test_a_missing_shell_interpreter_or_working_folder_is_69(place: Place, text: str, words: list[str]) -> None:
    place.file("plain.txt", "a file\n")
    ran = place.call("run", str(place.job("job", text)))
    assert (ran.status, ran.stdout) == (69, "")
    assert [word for word in words if word not in ran.stderr] == [], ran.stderr
    assert f"agentrun resume {place.run_id}" in ran.stderr, "it can be mended and gone on with"
    step = place.status("job")["steps"][0]
    assert (step["outcome"], step["reason"], step["attempts"]) == ("failed", "spawn", 1)


def test_a_working_folder_that_comes_back_lets_the_run_go_on(place: Place) -> None:
    assert place.run(f"working_dir: gone\n{JOB}").status == 69
    (place.root / "gone").mkdir()
    assert place.call("resume", "job").status == 0
    assert place.marks() == ["a"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_state_folder_that_others_can_write_is_73(place: Place, mode: int) -> None:
    place.home.mkdir()
    place.home.chmod(mode)
    complaint(place.call("run", str(place.job("job", JOB))), 73, str(place.home), f"chmod go-rwx {place.home}")
    complaint(place.call("resume", "job"), 73, str(place.home))
    assert place.marks() == [] and list(place.home.iterdir()) == []


def test_a_state_folder_that_cannot_be_made_is_73(place: Place) -> None:
    blocked = place.file("file", "no folder")
    ran = place.call("run", str(place.job("job", JOB)), env={"AGENTRUN_HOME": str(blocked / "state")})
    complaint(ran, 73, str(blocked / "state"), "AGENTRUN_HOME")


def elsewhere(place: Place) -> Path:
    """Another state folder with one good run in it: what is done to it does not keep this place from closing."""
    root = place.root / "elsewhere"
    place.env["AGENTRUN_HOME"] = str(root)
    assert place.run(JOB).status == 0
    return root


def all_commands(place: Place) -> list[Ran]:
    job = str(place.root / "job.yaml")
    return [place.call("run", job), place.call("resume", "job"), place.call("resume"), place.call("status")]


def test_a_newer_database_is_74_and_stays_as_it_is(place: Place) -> None:
    file = elsewhere(place) / "agentrun.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()
    for ran in all_commands(place):
        complaint(ran, 74, str(file), "newer", "99")
    assert file.read_bytes() == before and place.marks() == ["a"]


def test_a_damaged_database_is_74_and_stays_as_it_is(place: Place) -> None:
    root = elsewhere(place)
    file = root / "agentrun.db"
    for rest in root.glob("agentrun.db-*"):
        rest.unlink()
    data = bytearray(file.read_bytes())
    for damage in (b"garbage " * 512, bytes(data[:100]) + b"\xff" * (len(data) - 100)):
        file.write_bytes(damage)
        for ran in all_commands(place):
            complaint(ran, 74, str(file), "damaged")
        assert file.read_bytes() == damage
    assert place.marks() == ["a"]


def test_a_database_of_another_program_is_74_and_stays_as_it_is(place: Place) -> None:
    root = place.root / "other"
    root.mkdir(mode=0o700)
    with sqlite3.connect(root / "agentrun.db") as connection:
        connection.execute("CREATE TABLE mail (id)")
    connection.close()
    ran = place.call("run", str(place.job("job", JOB)), env={"AGENTRUN_HOME": str(root)})
    complaint(ran, 74, "another program")


def test_a_run_whose_folder_is_gone_is_66(place: Place) -> None:
    assert place.run("steps:\n- {id: a, run: exit 1}\n").status == 1
    shutil.rmtree(place.home / "runs" / place.run_id)
    complaint(place.call("resume", "job"), 66, place.run_id)
    assert place.status("job")["outcome"] == "failed", "its record can still be read"


@pytest.mark.skipif(is_root(), reason="root reads everything")
def test_a_job_file_that_may_not_be_read_is_65(place: Place) -> None:
    path = place.job("job", JOB)
    path.chmod(0)
    assert place.call("run", str(path)).status == 65


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "a", "b"], ["rum", "job.yaml"], ["run", "job.yaml", "--fast"], ["resume", "--plan"],
     ["resume", "--from", "a"], ["resume", "job", "--from"]],
)  # fmt: skip
def test_a_mistake_in_the_command_is_2(place: Place, arguments: list[str]) -> None:
    complaint(place.call(*arguments), 2, "hint: ")
    assert not place.home.exists()


def test_stdout_that_nobody_reads_breaks_nothing(place: Place) -> None:
    assert place.run(JOB).status == 0
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "status", "job", "--json"], env=place.env, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
