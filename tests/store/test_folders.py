"""Where things lie, and whom the state folder must belong to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agentrun.errors import CannotWrite
from agentrun.store import folders
from agentrun.store.folders import RunFolder


def test_home_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRUN_HOME", "state/here")
    assert folders.home() == os.path.abspath("state/here")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("AGENTRUN_HOME", "~/runs")
    assert folders.home() == "/home/ada/runs"


@pytest.mark.parametrize(
    ("user", "environment", "expected"),
    [
        (0, {"XDG_STATE_HOME": "/x"}, "/var/lib/agentrun"),
        (1000, {"XDG_STATE_HOME": "/x/state"}, "/x/state/agentrun"),
        (1000, {}, "/home/ada/.local/state/agentrun"),
        (1000, {"XDG_STATE_HOME": "", "AGENTRUN_HOME": ""}, "/home/ada/.local/state/agentrun"),
    ],
)
def test_home_without_a_word(
    monkeypatch: pytest.MonkeyPatch, user: int, environment: dict[str, str], expected: str
) -> None:
    for name in ("AGENTRUN_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert folders.home() == expected


def test_prepare_makes_a_private_folder(tmp_path: Path) -> None:
    root = tmp_path / "a" / "state"
    old = os.umask(0)
    try:
        folders.prepare(str(root))
    finally:
        os.umask(old)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    folders.prepare(str(root))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(CannotWrite, match=f"can be written by others .mode {mode & 0o777:04o}") as refused:
        folders.prepare(str(tmp_path))
    assert refused.value.hint == f"make it yours alone: chmod go-rwx {tmp_path}"
    assert not folders.is_safe(str(tmp_path))


def test_a_folder_that_others_can_read_is_taken(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folders.prepare(str(tmp_path))
    assert folders.is_safe(str(tmp_path))


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CannotWrite, match="belongs to user"):
        folders.prepare(str(tmp_path))
    assert not folders.is_safe(str(tmp_path))


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(CannotWrite, match=r"cannot create the state folder .*: File exists"):
        folders.prepare(str(tmp_path / "state"))
    with pytest.raises(CannotWrite, match="Not a directory"):
        folders.prepare(str(tmp_path / "state" / "below"))
    assert not folders.is_safe(str(tmp_path / "state" / "below"))


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "1aaaaaaaaa")
    folder.create()
    assert folder.path == str(tmp_path / "runs" / "1aaaaaaaaa")
    assert sorted(os.listdir(folder.path)) == ["io", "log", "scratch", "tmp"]
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in (folder.path, folder.scratch)} == {0o700}
    assert folder.log("a", 2) == folder.path + "/log/a#2.log"
    assert folder.fifo("a", 0) == folder.path + "/io/a#0.fifo"
    assert RunFolder.at(folder.path).lock == folder.lock
    with pytest.raises(FileExistsError):
        folder.create()


def test_the_paths_of_a_run_differ() -> None:
    folder = RunFolder("/state", "1aaaaaaaaa")
    single = [folder.lock, folder.socket, folder.bell, folder.results, folder.environment, folder.scratch]
    makers = (
        folder.log, folder.log_index, folder.fifo, folder.output, folder.call, folder.exception, folder.tmp,
    )  # fmt: skip
    paths = single + [make("a", n) for make in makers for n in (0, 1)]
    assert len(set(paths)) == len(paths)
