"""What a stopped process holds, written down, and opened again; by copies and where the kernel gives none."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.step import descriptors
from agentrun.step.descriptors import CannotReopen, Look, read, reopen, write

from .shim_rig import PATIENCE

BASH = "/bin/bash"


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Stopped]:
    place = Stopped(tmp_path)
    yield place
    place.close()


class Stopped:
    """Shells that open something and stop themselves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: list[subprocess.Popen[bytes]] = []
        (root / "io").mkdir()

    def look(self, text: str) -> Look:
        with open("/dev/null") as stdin:
            process = subprocess.Popen(
                [BASH, "-c", f"{text}\nkill -STOP $$; :"], cwd=self.root, stdin=stdin, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        assert os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        return Look(process.pid, f"{self.root}/io/", lambda: [process.pid])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(PATIENCE)


def entry(look: Look, number: int) -> dict[str, object]:
    return next(one for one in look.entries if one["fd"] == number)


@pytest.fixture(params=["copies", "none"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that gives copies of descriptors, and one that does not (older than 5.6, or forbidden)."""
    if request.param == "none":
        monkeypatch.setattr(descriptors, "_system_call", lambda *_: -1)
    return str(request.param)


def test_a_file_has_its_path_flags_offset_and_lock(stopped: Stopped, kernel: str) -> None:
    (stopped.root / "list").write_text("1\n2\n3\n")
    look = stopped.look("exec 3<list 4>>log 9>lock; read -r a <&3; flock -n 9")
    there = os.stat(stopped.root / "list").st_ino
    kept = {"is": "file", "offset": 0, "lock": None}
    large = getattr(os, "O_LARGEFILE", 0)
    for one in look.entries:
        if "flags" in one:
            one["flags"] &= ~large
    assert entry(look, 3) == kept | {"fd": 3, "path": f"{stopped.root}/list", "flags": 0, "offset": 2, "ino": there}
    assert entry(look, 4) == kept | {"fd": 4, "path": f"{stopped.root}/log", "flags": os.O_WRONLY | os.O_APPEND}
    assert entry(look, 9) == kept | {
        "fd": 9, "path": f"{stopped.root}/lock", "flags": os.O_WRONLY, "lock": ["FLOCK", "WRITE", 0, None],
    }  # fmt: skip
    assert sorted(look.copies) == ([1, 2, 3, 4, 9] if kernel == "copies" else [])
    look.close()


def test_what_shares_one_description_is_told_from_what_does_not(stopped: Stopped) -> None:
    look = stopped.look("exec 3>log 4>&3 5>log 6>>log 7>&6")
    assert [(one["fd"], one["is"], one.get("as")) for one in look.entries if one["fd"] > 2] == [
        (3, "file", None), (4, "same", 3), (5, "file", None), (6, "file", None), (7, "same", 6),
    ]  # fmt: skip
    look.close()


def test_without_the_kernels_word_what_looks_the_same_is(stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_KCMP", {})
    look = stopped.look("exec 3>log 4>&3 6>>log; echo x >&3")
    assert [(one["fd"], one["is"], one.get("as")) for one in look.entries if one["fd"] > 2] == [
        (3, "file", None), (4, "same", 3), (6, "file", None),
    ]  # fmt: skip
    look.close()


def test_the_attempts_own_streams_are_not_kept(stopped: Stopped) -> None:
    os.mkfifo(stopped.root / "io" / "0.fifo")
    reader = os.open(stopped.root / "io" / "0.fifo", os.O_RDONLY | os.O_NONBLOCK)
    look = stopped.look("exec >io/0.fifo 2>&- 5>&1")
    os.close(reader)
    assert [(one["fd"], one["is"]) for one in look.entries] == [(0, "null"), (1, "out"), (5, "out"), (2, "closed")]
    assert look.copies == {}


@pytest.mark.parametrize("text", ["exec 3<>p", "exec 3< <(:)", "exec 3<gone; rm gone", "exec 3> >(read -r a)"])
def test_what_cannot_be_had_again_is_only_copied(stopped: Stopped, kernel: str, text: str) -> None:
    os.mkfifo(stopped.root / "p")
    (stopped.root / "gone").write_text("x")
    look = stopped.look(text)
    assert entry(look, 3)["is"] == "lost"
    assert 3 in look.copies
    look.close()


def test_a_copy_is_the_same_open_file(stopped: Stopped) -> None:
    look = stopped.look("exec 9>lock; flock -n 9")
    assert not os.get_inheritable(look.copies[9])
    stopped.close()
    with open(stopped.root / "lock") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        look.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_is_opened_where_it_was(stopped: Stopped) -> None:
    (stopped.root / "list").write_text("1\n2\n3\n")
    look = stopped.look("exec 3<list 4>out 9>lock; read -r a <&3; echo 1 >&4; echo 2 >>out; flock -sn 9")
    look.close()
    stopped.close()
    fds = [reopen(entry(look, number), 0o022) for number in (3, 4, 9)]
    assert os.read(fds[0], 100) == b"2\n3\n"
    os.write(fds[1], b"x")
    assert (stopped.root / "out").read_text() == "1\nx\n", "at its offset, and not truncated"
    with open(stopped.root / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)


def test_a_lock_of_somebody_else_is_not_waited_for(stopped: Stopped) -> None:
    look = stopped.look("exec 9>lock; flock -n 9")
    look.close()
    with pytest.raises(CannotReopen, match=f"lock {stopped.root}/lock is held by another process"):
        reopen(entry(look, 9), 0o022)  # the stopped shell holds it


def test_a_log_that_is_gone_is_made_with_the_umask(stopped: Stopped) -> None:
    look = stopped.look("exec 4>out; echo 1 >&4")
    look.close()
    (stopped.root / "out").unlink()
    fd = reopen(entry(look, 4), 0o027)
    os.write(fd, b"x")
    os.close(fd)
    assert (stopped.root / "out").read_text() == "x", "from its beginning"
    assert (stopped.root / "out").stat().st_mode & 0o777 == 0o640


def test_a_record_is_whole_or_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a#1.fds")
    entries = [{"fd": 3, "is": "file", "path": "/tmp/a\nb\udcff", "flags": 0, "offset": 2, "lock": None}]
    write(path, entries)
    assert read(path) == entries
    assert os.stat(path).st_mode & 0o777 == 0o600
    whole = Path(path).read_bytes()
    for size in range(len(whole) - 1):
        Path(path).write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not whole"):
            read(path)


def test_who_reads_is_written_down_with_all_that_it_needs(stopped: Stopped) -> None:
    text = "export GREETING=hi; exec 3> >(exec tee log >/dev/null 2>>errors); echo x >&3"
    process = subprocess.Popen(
        [BASH, "-c", f"{text}; kill -STOP $$; :"], cwd=stopped.root, stdout=subprocess.DEVNULL, start_new_session=True
    )
    stopped.processes.append(process)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    log = stopped.root / "log"
    while not log.exists() or log.read_text() != "x\n":  # then it is a tee
        os.sched_yield()
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    look = Look(process.pid, f"{stopped.root}/io/", lambda: [process.pid, *children])
    found = entry(look, 3)
    look.close()
    assert (found["is"], found["argv"], found["folder"]) == ("pipe", ["tee", "-a", "log"], str(stopped.root))
    assert found["env"]["GREETING"] == "hi"  # type: ignore[index]
    assert (found["out"]["path"], found["errors"]["path"]) == ("/dev/null", f"{stopped.root}/errors")  # type: ignore[index]
    assert found["errors"]["flags"] & os.O_APPEND  # type: ignore[index]
