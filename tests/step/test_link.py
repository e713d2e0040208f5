"""Supervisor and shim: who finds whom, who replaces whom, and what happens when either is killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentrun
from agentrun.errors import Busy, CannotWrite, Missing
from agentrun.step import link as link_module
from agentrun.step.link import Link, ShimGone
from agentrun.store import locks
from agentrun.store.locks import SHIM, held

from .shim_rig import Rig, alive, wait_gone

HERE = str(Path(agentrun.__file__).parents[1])
ADOPT = """
import os, select, sys
sys.path.insert(0, {here!r})
from agentrun.store.folders import RunFolder
from agentrun.step.link import Link
from agentrun.step.results import ResultsReader
folder = RunFolder.at({folder!r})
news = os.open({news!r}, os.O_WRONLY)
link = Link.connect(folder, {epoch})
os.write(news, ("adopted %d %r %d\\n" % (os.getpid(), link.hello(), os.getppid())).encode())
reader = ResultsReader(folder.results)
results = reader.read_new()
while len(results) < {wanted}:
    select.select([link], [], [])
    link.receive()
    results += reader.read_new()
link.goodbye()
os.write(news, b"finished\\n")
"""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def adopter(rig: Rig, wanted: int = 1, epoch: int = 2) -> list[str]:
    program = ADOPT.format(here=HERE, folder=rig.folder.path, news=rig.news.path, epoch=epoch, wanted=wanted)
    return [sys.executable, "-S", "-c", program]


def lose(rig: Rig) -> None:
    """What a kill -9 of the supervisor is to the shim."""
    rig.link.close()


# ---- finding each other


def test_nobody_listens(rig: Rig) -> None:
    with pytest.raises(FileNotFoundError):
        Link.connect(rig.folder, 1)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(rig.folder.socket)
    with pytest.raises(ConnectionRefusedError):
        Link.connect(rig.folder, 1)


def test_a_stale_socket_of_a_killed_shim_is_replaced(rig: Rig) -> None:
    rig.open()
    rig.kill_shim()
    assert os.path.exists(rig.folder.socket)
    assert not held(rig.folder.lock, SHIM)
    with pytest.raises(ShimGone):
        while True:
            rig.link.receive()
    rig.link.close()
    rig.open(epoch=2)
    assert held(rig.folder.lock, SHIM)
    rig.sh("exit 3")
    assert rig.result().exit_code == 3


def test_a_second_shim_for_the_same_run_is_refused(rig: Rig) -> None:
    rig.open()
    other = Rig(rig.root, rig.folder.run_id)
    other.folder, other.reader = rig.folder, rig.reader
    other.fork()
    other.link.open(rig.folder, epoch=2, env={}, umask=0o022, restart=None, max_restarts=0)
    with pytest.raises(Busy, match="another shim holds this run"):
        other.link.hello()
    other.link.close()
    wait_gone(other.shims[0])
    other.news.close()
    rig.sh("exit 0")
    assert rig.result().exit_code == 0


def test_a_folder_that_is_gone(rig: Rig) -> None:
    rig.fork()
    os.rename(rig.folder.path, rig.folder.path + "x")
    rig.link.open(rig.folder, epoch=1, env={}, umask=0o022, restart=None, max_restarts=0)
    with pytest.raises(CannotWrite, match="No such file or directory"):
        rig.link.hello()
    os.rename(rig.folder.path + "x", rig.folder.path)


def test_paths_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    rig = Rig(deep).open(restart=["sh", "-c", "exit 75"], max_restarts=99)
    try:
        rig.sh("exit 0")
        assert rig.result().exit_code == 0
        rig.link.close()
        rig.link = Link.connect(rig.folder, 2)
        assert rig.link.hello() == []
    finally:
        rig.close()


def test_a_supervisor_that_dies_before_open_takes_the_shim_along(rig: Rig) -> None:
    rig.fork()
    rig.link.close()
    wait_gone(rig.shims[0])


def test_another_version_of_the_protocol_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.open()
    monkeypatch.setattr(link_module, "VERSION", 99)
    stranger = Link.connect(rig.folder, 2)
    with pytest.raises(Missing, match="speaks version 2 of the protocol, and this program 99"):
        stranger.hello()
    stranger.close()
    rig.sh("exit 0")
    assert rig.result().exit_code == 0


# ---- one supervisor at a time


def test_a_newer_supervisor_replaces_the_old_one(rig: Rig) -> None:
    rig.open(epoch=3)
    rig.sh('echo $$ >"$NEWS"; exec sleep 600')
    pid = int(rig.news.line())
    old, rig.link = rig.link, Link.connect(rig.folder, 4)
    assert rig.link.hello() == [["a", 1]]
    with pytest.raises(Busy, match="another supervisor took over"):
        while True:
            old.receive()
    old.close()
    assert alive(pid)
    rig.link.end("a", 1, "cancel", 1_000)
    assert rig.result().epoch == 3
    rig.sh("exit 0", attempt=2)
    assert rig.result("a", 2).epoch == 4


def test_an_older_supervisor_is_refused(rig: Rig) -> None:
    rig.open(epoch=3)
    older = Link.connect(rig.folder, 2)
    with pytest.raises(Busy, match="a newer supervisor was here already"):
        older.hello()
    older.close()
    rig.sh("exit 0")
    assert rig.result().exit_code == 0


def test_an_order_that_was_half_said_was_never_said(rig: Rig) -> None:
    rig.open()
    rig.link._wire._sock.send(b"\0\0\1\0" + b'{"is":"start"')
    rig.sh("exit 0")  # is read as the rest of that frame, which it cannot be
    lose(rig)
    wait_gone(rig.shims[0])
    assert rig.reader.read_new() == []


def test_a_shim_that_is_stopped_does_not_hold_up_its_supervisor(rig: Rig) -> None:
    rig.open()
    os.kill(rig.link.pid, signal.SIGSTOP)
    for number in range(60):
        rig.sh("exit 0", f"s{number}", env={"LARGE": "x" * 50_000})
    assert rig.link.pending > 0
    os.kill(rig.link.pid, signal.SIGCONT)
    for number in range(60):
        assert rig.result(f"s{number}").exit_code == 0
    assert rig.link.pending == 0


# ---- a killed supervisor


def test_the_shim_starts_a_new_supervisor_that_adopts(rig: Rig) -> None:
    rig.open(restart=adopter(rig), max_restarts=5)
    go = str(rig.root / "go")
    os.mkfifo(go)
    rig.sh('echo up >"$NEWS"; read x <"$GO"; exit 5', env={"GO": go})
    assert rig.news.line() == "up"
    lose(rig)
    _, running, parent = _split(rig.news.line())
    assert (running, parent) == ("[['a', 1]]", rig.shims[0])
    Path(go).write_text("x\n")
    assert rig.news.line() == "finished"
    wait_gone(rig.shims[0])
    [result] = rig.reader.read_new()
    assert (result.exit_code, result.epoch) == (5, 1)


def test_killed_again_and_again_it_goes_on(rig: Rig) -> None:
    """Each new supervisor is killed; the step never notices, and its timeout is held all the while."""
    rig.open(restart=adopter(rig), max_restarts=3)
    rig.start(["sleep", "600"], timeout=2_000)
    lose(rig)
    for _ in range(2):
        pid, running, _ = _split(rig.news.line())
        assert running == "[['a', 1]]"
        os.kill(pid, signal.SIGKILL)
    _split(rig.news.line())
    assert rig.news.line() == "finished"
    [result] = rig.reader.read_new()
    assert result.ended_by == "timeout"
    assert 2_000 <= result.ended_at - result.started_at < 3_000


def test_what_ends_while_nobody_supervises_is_not_lost(rig: Rig) -> None:
    go = str(rig.root / "go")
    os.mkfifo(go)
    rig.open(restart=["/bin/sh", "-c", f"read x <{go}; exec {_quoted(adopter(rig, wanted=2))}"], max_restarts=1)
    rig.sh('echo up >"$NEWS"', "a")
    rig.sh('echo up >"$NEWS"', "b")
    lose(rig)
    assert (rig.news.line(), rig.news.line()) == ("up", "up")
    Path(go).write_text("x\n")
    _split(rig.news.line())
    assert rig.news.line() == "finished"
    assert {result.instance for result in rig.reader.read_new()} == {"a", "b"}


def test_a_user_may_connect_instead(rig: Rig) -> None:
    rig.open(restart=["/bin/sh", "-c", "exit 75"], max_restarts=1_000)
    rig.sh('echo $$ >"$NEWS"; exec sleep 600')
    pid = int(rig.news.line())
    lose(rig)
    rig.link = Link.connect(rig.folder, 2)
    assert rig.link.hello() == [["a", 1]]
    assert alive(pid)
    rig.link.end("a", 1, "cancel", 0)
    assert rig.result().ended_by == "cancel"


SUPERVISOR = """
import os, sys
sys.path.insert(0, {here!r})
from agentrun.step.link import Link
link = Link.fork()
from agentrun.store.folders import RunFolder
link.open(RunFolder.at({folder!r}), epoch=1, env={{"NEWS": {news!r}, "PATH": os.environ["PATH"]}}, umask=0o22,
          restart={restart!r}, max_restarts={max_restarts})
link.hello()
link.start(dict(instance="a", attempt=1, argv=["/bin/sh", "-c", {text!r}], shell=None, env={{}}, cwd="/",
                timeout=None, grace=1000, leave_running=False))
while link.pending:
    link.flush()
os.read(0, 1)
"""


def supervise(rig: Rig, text: str, restart: list[str] | None, max_restarts: int, **more: object) -> subprocess.Popen:
    program = SUPERVISOR.format(
        here=HERE, folder=rig.folder.path, news=rig.news.path, text=text, restart=restart, max_restarts=max_restarts
    )
    return subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )


@pytest.mark.parametrize("restarts", [0, 2])
def test_restarts_are_bounded_and_the_end_is_told(rig: Rig, restarts: int) -> None:
    command = ["/bin/sh", "-c", f'echo tried >"{rig.news.path}"; exit 1']
    text = 'echo $PPID >"$NEWS"; echo $$ >"$NEWS"; exec sleep 600'
    with supervise(rig, text, command if restarts else None, restarts) as supervisor:
        shim, pid = int(rig.news.line()), int(rig.news.line())
        supervisor.kill()
        for _ in range(restarts):
            assert rig.news.line() == "tried"
        wait_gone(shim)
        assert supervisor.stderr and supervisor.stdin
        said = supervisor.stderr.read().decode()  # at its end: nobody holds it any more
    assert said.count("\n") == 1
    assert rig.folder.run_id in said and f"agentrun resume {rig.folder.run_id}" in said
    assert not alive(pid)
    [result] = rig.reader.read_new()
    assert (result.ended_by, result.signal) == ("lost", signal.SIGTERM)
    assert not held(rig.folder.lock, SHIM)
    assert not os.path.exists(rig.folder.socket)


def test_a_command_that_cannot_be_started_counts(rig: Rig) -> None:
    rig.open(restart=["/no/such/program"], max_restarts=2)
    lose(rig)
    wait_gone(rig.shims[0])
    assert not held(rig.folder.lock, SHIM)


def test_never_after_a_goodbye(rig: Rig) -> None:
    rig.open(restart=["/bin/sh", "-c", f'echo tried >"{rig.news.path}"'], max_restarts=5)
    rig.sh("exit 0")
    rig.result()
    rig.link.goodbye()
    wait_gone(rig.shims[0])
    assert not os.path.exists(rig.folder.socket)
    with pytest.raises(AssertionError, match="in vain"):
        rig.news.line(patience=0)


def test_the_new_supervisor_is_started_as_the_first_one_was(rig: Rig, tmp_path: Path) -> None:
    """Its folder, umask and environment; and it is no leftover of any step."""
    (tmp_path / "home").mkdir()
    command = ["/bin/sh", "-c", f'echo "$PWD $(umask) $MARK" >"{rig.news.path}"; exec sleep 600']
    text = 'sleep 600 & echo $$ >"$NEWS"'
    env = {**os.environ, "MARK": "here"}
    with supervise(rig, text, command, 1, cwd=tmp_path / "home", umask=0o027, env=env) as supervisor:
        rig.news.line()
        supervisor.kill()
        assert rig.news.line() == f"{tmp_path}/home 0027 here"
        rig.link = Link.connect(rig.folder, 2)
        assert rig.link.hello() == []
        rig.swept()
        [restarted] = _children(rig.link.pid)
        assert alive(restarted)
        os.kill(restarted, signal.SIGKILL)
        rig.link.goodbye()


def test_descriptors_of_the_caller_are_kept_from_the_steps(rig: Rig, tmp_path: Path) -> None:
    """`flock lock agentrun run job`: the lock holds as long as the shim does, and no step has it."""
    fd = os.open(tmp_path / "locked", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    text = 'echo $PPID >"$NEWS"; ls -l /proc/$$/fd | grep -c locked >"$NEWS"; read x </dev/zero'
    with supervise(rig, text, None, 0, pass_fds=[fd]) as supervisor:
        os.close(fd)
        shim = int(rig.news.line())
        assert rig.news.line() == "0"
        held_there = [os.path.realpath(f"/proc/{shim}/fd/{name}") for name in os.listdir(f"/proc/{shim}/fd")]
        assert str(tmp_path / "locked") in held_there
        supervisor.kill()
    wait_gone(shim)


# ---- a killed shim


def test_kill_at_any_instant_leaves_whole_results(rig: Rig) -> None:
    """Thirty shims of one run, each killed somewhere in its work: what is recorded is whole, and once."""
    chance = random.Random(20)
    attempt = 0
    for epoch in range(1, 31):
        rig.open(epoch=epoch)
        for _ in range(chance.randrange(1, 5)):
            attempt += 1
            rig.sh("echo x", attempt=attempt)
            if chance.random() < 0.7:
                assert rig.result("a", attempt).exit_code == 0
        rig.kill_shim()
        # a process that it was just starting has a copy of the lock until its exec
        assert locks.wait_until_free(rig.folder.lock, locks.SHIM, 5)
        for result in rig.reader.read_new():
            assert (result.instance, result.attempt) not in rig.results
            rig.results[result.instance, result.attempt] = result
        link_module.Link.close(rig.link)
    assert all(result.exit_code == 0 for result in rig.results.values())


# ---- weight


def test_what_it_imports() -> None:
    program = """
import sys
before = set(sys.modules)
import agentrun.step.link
print(sorted(set(sys.modules) - before))
import agentrun.store.folders
before = set(sys.modules)
import agentrun.step.shim
print(sorted(set(sys.modules) - before))
"""
    env = {"PYTHONPATH": HERE}
    done = subprocess.run([sys.executable, "-S", "-c", program], env=env, capture_output=True, text=True, check=True)
    heavy = {"socket", "json", "re", "enum", "typing", "signal", "subprocess", "selectors", "dataclasses", "ctypes"}
    for line in done.stdout.splitlines():
        assert not heavy & set(eval(line)), line


def _children(pid: int) -> list[int]:
    from agentrun.step.procs import children

    return children(pid)


def _quoted(argv: list[str]) -> str:
    import shlex

    return shlex.join(argv)


def _split(line: str) -> tuple[int, str, int]:
    word, pid, rest = line.split(" ", 2)
    running, _, parent = rest.rpartition(" ")
    assert word == "adopted"
    return int(pid), running, int(parent)
