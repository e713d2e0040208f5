"""Descriptors that a script opened itself: handed on from step to step, and had again after everything was killed.

Each script is run whole, by its shell alone, and as the steps of a job: the files and the output are the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from .arena import LIMIT, Arena, Gate

BASH, SH = "/bin/bash", "/bin/sh"

SCRIPTS = {
    "append": ["exec >>log 2>&1; echo one", "echo two >&2", "echo three"],
    "write": ["echo something longer than that >log; exec 3>log; echo one >&3", "echo two >&3", "echo three >&3"],
    "read": ["seq 4 >list; exec 3<list; read -r a <&3; echo $a", "read -r a <&3; echo $a", "cat <&3"],
    "stdin": ["seq 3 >list; exec <list; read -r a; echo $a", "read -r a; echo $a", "read -r a; echo $a"],
    # -w: the shim closes its own copy when the shell is born, which may be a moment later
    "lock": ["exec 9>lock; flock -n 9 && echo ok", "flock -n lock true || echo no", "exec 9>&-; flock -w 9 lock true"],
    "swap": ["exec 3>&1 >out; echo kept", "echo more; echo shown >&3", "exec >&3 3>&-; echo back"],
    "shared": ["exec 3>log 4>&3; echo 1 >&3; echo 2 >&4", "echo 3 >&3; echo 4 >&4", "echo 5 >&3; echo 6 >&4"],
    "closed": ["exec 2>&-; echo one", "echo two 2>/dev/null >&2 || echo refused", "echo three >&2 || echo refused"],
    "null": ["exec >/dev/null; echo one", "exec 5>log; echo two >&5", "echo three >&5"],
}
TEE = {
    BASH: ["exec > >(tee -a log) 2>&1; echo one", "echo two >&2", "echo three"],
    SH: ["mkfifo p; tee -a log <p & exec >p 2>&1; rm p; echo one", "echo two >&2", "echo three"],
}
CASES = [(shell, name) for shell in (BASH, SH) for name in (*SCRIPTS, "tee")]
each_script = pytest.mark.parametrize(("shell", "name"), CASES, ids=lambda value: os.path.basename(value))


def pieces_of(shell: str, name: str) -> list[str]:
    return TEE[shell] if name == "tee" else SCRIPTS[name]


def whole(arena: Arena, shell: str, pieces: list[str]) -> tuple[str, dict[str, str]]:
    """What the script does without us."""
    folder = arena.root / "whole"
    folder.mkdir()
    file = arena.root / "script"
    file.write_text("\n".join(pieces) + "\n")
    done = subprocess.run(
        [shell, str(file)], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=LIMIT,
    )  # fmt: skip
    return done.stdout, files_in(folder)


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def job_of(arena: Arena, shell: str, pieces: list[str], gates: dict[int, Gate] | None = None) -> str:
    """A job of these pieces; one with a gate stops there before it has done anything."""
    folder = arena.root / "pieces"
    folder.mkdir()
    lines = ["carry: shell", f"shell: [{shell}]", "steps:"]
    for number, text in enumerate(pieces, 1):
        if number == 1:
            text = f"cd {folder}\n{text}"
        if gates and number in gates:
            text = f"{gates[number].shell}\n{text}"
        lines.append(f"- {{id: s{number}, run: {json.dumps(text)}}}")
    return str(arena.job("script", "\n".join(lines) + "\n"))


def result_of(arena: Arena) -> tuple[str, dict[str, str]]:
    return arena.command("logs", "--raw", "script").stdout, files_in(arena.root / "pieces")


def until(condition: object) -> None:
    """As it is with `races.py`: what is waited for has no descriptor of its own."""
    while not condition():  # type: ignore[operator]
        os.sched_yield()


@each_script
def test_steps_do_what_the_whole_script_does(arena: Arena, shell: str, name: str) -> None:
    pieces = pieces_of(shell, name)
    run = arena.command("run", job_of(arena, shell, pieces))
    assert run.returncode == 0, run.stderr
    assert result_of(arena) == whole(arena, shell, pieces)


@each_script
@pytest.mark.parametrize("at", [2, 3])
def test_everything_killed_as_a_step_begins(arena: Arena, shell: str, name: str, at: int) -> None:
    pieces = pieces_of(shell, name)
    gate = arena.gate("gate")
    arena.start("run", job_of(arena, shell, pieces, {at: gate}))
    gate.reached()
    if name == "tee":  # what is in a pipe is lost, as always
        log, lines = arena.root / "pieces" / "log", ["one\n", "two\n"][: at - 1]
        until(lambda: log.exists() and log.read_text() == "".join(lines))
        until(lambda: arena.command("logs", "--raw", "script").stdout == "".join(lines))
    arena.kill_everything()
    gate.open()
    resumed = arena.command("resume", "script")
    assert resumed.returncode == 0, resumed.stderr
    assert result_of(arena) == whole(arena, shell, pieces)


@each_script
def test_everything_killed_while_the_shim_holds_the_copies(arena: Arena, shell: str, name: str) -> None:
    pieces = pieces_of(shell, name)
    gate = arena.gate("gate")
    arena.start("run", job_of(arena, shell, pieces, {2: gate}))
    gate.reached()
    os.kill(arena.owner(), signal.SIGSTOP)  # so that the end of the step reaches the file and nothing follows
    results = f"{arena.home}/runs/{arena.run_id}/results"
    before = os.stat(results).st_size
    gate.open()
    until(lambda: os.stat(results).st_size > before)
    if name == "tee":
        log = arena.root / "pieces" / "log"
        until(lambda: log.exists() and log.read_text() == "one\ntwo\n")
        until(lambda: arena.command("logs", "--raw", "script").stdout == "one\ntwo\n")
    arena.kill_everything()
    resumed = arena.command("resume", "script")
    assert resumed.returncode == 0, resumed.stderr
    assert arena.rows("SELECT number FROM attempts WHERE instance = 's2'") == [(1,)], "it was not done again"
    assert result_of(arena) == whole(arena, shell, pieces)


@each_script
def test_a_killed_supervisor_is_not_noticed(arena: Arena, shell: str, name: str) -> None:
    pieces = pieces_of(shell, name)
    gate = arena.gate("gate")
    arena.start("run", job_of(arena, shell, pieces, {2: gate}))
    gate.reached()
    arena.kill(arena.owner())
    gate.open()
    arena.wait_until_let_go()
    assert result_of(arena) == whole(arena, shell, pieces)


@pytest.mark.parametrize("shell", [BASH, SH])
def test_a_lock_is_held_without_a_gap(arena: Arena, shell: str) -> None:
    lock = arena.root / "lock"
    begun, over = arena.gate("begun"), arena.gate("over")
    steps = [f"exec 9>{lock}; flock -n 9; {begun.shell}", *[":"] * 20, over.shell]
    taken = []
    done = threading.Event()

    def poll() -> None:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        while not done.is_set():
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken.append(True)
                fcntl.flock(fd, fcntl.LOCK_UN)
            except BlockingIOError:
                os.sched_yield()
        os.close(fd)

    run = arena.start("run", job_of(arena, shell, steps))
    begun.reached()
    other = threading.Thread(target=poll)
    other.start()
    begun.open()
    over.reached()
    done.set()
    other.join()
    over.open()
    assert run.wait(LIMIT) == 0
    assert taken == []
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free by now


def killed_at_the_second_step(arena: Arena, *pieces: str) -> None:
    gate = arena.gate("gate")
    arena.start("run", job_of(arena, BASH, list(pieces), {2: gate}))
    gate.reached()
    arena.kill_everything()
    gate.open()


def refusal(arena: Arena) -> str:
    assert arena.command("resume", "script").returncode == 69
    error = str(arena.rows("SELECT error FROM attempts WHERE instance = 's2' ORDER BY number")[-1][0])
    return error.removeprefix("could not be started: ")


def test_a_lock_that_somebody_else_took_meanwhile_is_an_error(arena: Arena) -> None:
    killed_at_the_second_step(arena, "exec 9>lock; flock -n 9", "echo never")
    with open(arena.root / "pieces" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refusal(arena) == f"lock {file.name} is held by another process"


def test_a_log_that_is_gone_is_made_again(arena: Arena) -> None:
    killed_at_the_second_step(arena, "umask 022; exec >log; echo one", "echo two")
    (arena.root / "pieces" / "log").unlink()
    assert arena.command("resume", "script").returncode == 0
    assert (arena.root / "pieces" / "log").read_text() == "two\n"


def test_a_list_that_is_gone_or_another_is_an_error(arena: Arena) -> None:
    killed_at_the_second_step(arena, "seq 3 >list; exec 3<list; read -r a <&3", "cat <&3")
    path = arena.root / "pieces" / "list"
    path.rename(path.with_name("moved"))
    assert refusal(arena) == f"descriptor 3: cannot open {path} again: No such file or directory"
    path.write_text("4\n5\n6\n")
    assert refusal(arena) == f"descriptor 3: {path} is another file than the one that was being read"
    path.with_name("moved").rename(path)
    assert arena.command("resume", "script").returncode == 0
    assert arena.command("logs", "--raw", "script").stdout == "2\n3\n"


def test_a_pipe_to_a_part_of_the_script_cannot_be_had_again(arena: Arena) -> None:
    killed_at_the_second_step(arena, "exec 3> >(while read -r a; do echo got $a; done)", "echo x >&3")
    assert refusal(arena) == "descriptor 3 was a pipe, which cannot be opened again; start the job anew"


def test_a_pipe_to_a_part_of_the_script_is_handed_on(arena: Arena) -> None:
    pieces = ["exec 3> >(while read -r a; do echo got $a; done)", "echo x >&3", "echo y >&3"]
    assert arena.command("run", job_of(arena, BASH, pieces)).returncode == 0
    assert result_of(arena)[0] == "got x\ngot y\n"


def test_who_reads_a_pipe_sees_its_end_when_the_script_closes_it(arena: Arena) -> None:
    done = arena.root / "done"
    os.mkfifo(done)
    pieces = [f"exec 3> >(cat >copy; echo over >{done})", "echo x >&3", f"exec 3>&-; read -r a <{done}; echo $a"]
    assert arena.command("run", job_of(arena, BASH, pieces)).returncode == 0
    assert result_of(arena) == ("over\n", {"copy": "x\n"})


def test_a_second_attempt_has_what_the_first_one_had(arena: Arena) -> None:
    pieces = ["seq 3 >list; exec 3<list; read -r a <&3", "read -r a <&3; echo $a; [ -e once ] || { >once; exit 1; }"]
    text = Path(job_of(arena, BASH, pieces)).read_text()
    text = text.replace("{id: s2,", "{id: s2, retry: {max_attempts: 2, interval: 0s},")
    assert arena.command("run", str(arena.job("script", text))).returncode == 0
    assert arena.command("logs", "--raw", "script").stdout == "2\n2\n"


def test_all_of_it_is_private_and_gone_when_the_run_has_succeeded(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", job_of(arena, BASH, ["exec 3>log", "echo x >&3"], {2: gate}))
    gate.reached()
    record = Path(f"{arena.home}/runs/{arena.run_id}/io/s1#1.fds")
    assert record.stat().st_mode & 0o777 == 0o600
    gate.open()
    assert run.wait(LIMIT) == 0
    assert not record.exists()


def test_a_stop_of_somebody_else_is_left_alone(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", job_of(arena, BASH, ["exec 3>log", "echo x >&3", "echo y >&3"], {2: gate}))
    gate.reached()
    shells = [pid for pid in arena.step_processes() if pid not in (arena.owner(), arena.shim())]
    for pid in shells:
        os.kill(pid, signal.SIGSTOP)
    gate.open()
    arena.command("status", "script")  # time for the shim to do what it must not
    assert all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" for pid in shells)
    for pid in shells:
        os.kill(pid, signal.SIGCONT)
    assert run.wait(LIMIT) == 0
    assert (arena.root / "pieces" / "log").read_text() == "x\ny\n"


def test_without_descriptors_of_its_own_a_shell_does_not_stop(arena: Arena) -> None:
    pieces = ["true", "echo x >file; read -r a <file", "for p in io/*; do :; done"]
    assert arena.command("run", job_of(arena, BASH, [*pieces, "exit 3"])).returncode == 3
    assert not list(Path(f"{arena.home}/runs/{arena.run_id}/io").glob("*.fds"))
