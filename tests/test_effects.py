"""No call with an effect goes round `agentrun/effects.py`, which bears the points of the torture tests."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "agentrun"
ROOMS = ("engine", "step", "store")
NOT_OURS = {"step/pystep.py"}  # runs in the step's own process, by path

# By the name of the module that they are asked of.
EFFECTS = {
    "os": {
        "write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range", "fsync", "fdatasync", "sync",
        "ftruncate", "truncate", "unlink", "remove", "rename", "renames", "replace", "link", "symlink", "mkdir",
        "makedirs", "rmdir", "removedirs", "mkfifo", "mknod", "chmod", "fchmod", "chown", "utime", "lockf", "fork",
        "forkpty", "posix_spawn", "posix_spawnp", "setsid", "setpgid", "wait", "wait3", "wait4", "waitpid", "waitid",
        "kill", "killpg", "system", "popen", "execv", "execve", "execvp", "execvpe", "spawnv", "spawnvp",
    },
    "fcntl": {"flock", "lockf"},
    "signal": {"pidfd_send_signal"},
    "_signal": {"pidfd_send_signal"},
    "shutil": {"rmtree", "copytree", "copyfile", "copy", "copy2", "move"},
    "subprocess": {"run", "Popen", "call", "check_call", "check_output"},
}  # fmt: skip
METHODS = {"connect", "bind"}  # of sockets; those of `sqlite3` and `Link` open what is then written under the lock
STATEMENTS = {"COMMIT", "END"}


def evasions(text: str) -> list[str]:
    """Calls with an effect that do not go through `effects`, as `line: call`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in EFFECTS:
            found += [f"{node.lineno}: {name.name}" for name in node.names if name.name in EFFECTS[node.module]]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of, name = node.value.id, node.attr
            if name in EFFECTS.get(of, ()) or (name in METHODS and of not in ("effects", "sqlite3", "Link")):
                found.append(f"{node.lineno}: {of}.{name}")
        if isinstance(node, ast.Call):
            found += _by_arguments(node)
    return found


def _by_arguments(call: ast.Call) -> list[str]:
    what = ast.unparse(call)
    name = ast.unparse(call.func)
    statement = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if name.endswith((".execute", ".executescript")) and statement in STATEMENTS:
        return [f"{call.lineno}: {what}"]
    if name == "os.open" and "O_CREAT" in what:
        return [f"{call.lineno}: {what}"]
    if name == "fcntl.fcntl" and "SETLK" in what:
        return [f"{call.lineno}: {what}"]
    if name == "open" and isinstance(statement, str) is False and any(mode in what for mode in ("'w", "'a", "'x")):
        return [] if "effects.create(" in what or "(fd," in what else [f"{call.lineno}: {what}"]
    return []


@pytest.mark.parametrize("room", ROOMS)
def test_every_effect_bears_its_points(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in NOT_OURS:
            assert evasions(path.read_text()) == [], name


@pytest.mark.parametrize(
    "line",
    [
        "os.unlink(path)", "remove = os.unlink", "from os import unlink", "fcntl.flock(fd, 2)", "sock.connect('/s')",
        "cursor.execute('COMMIT')", "os.open(path, os.O_CREAT)", "open(path, 'w')", "shutil.rmtree(path)",
        "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, x)", "subprocess.Popen(['true'])", "signal.pidfd_send_signal(fd, 9)",
    ],
)  # fmt: skip
def test_an_evasion_is_seen(line: str) -> None:
    assert evasions(line)


@pytest.mark.parametrize(
    "line",
    [
        "effects.unlink(path)", "os.open(path, os.O_RDONLY)", "cursor.execute('SELECT 1')", "open(path)",
        "effects.connect(sock, path)", "fcntl.fcntl(fd, fcntl.F_OFD_GETLK, x)", "Link.connect(folder, 1)",
    ],
)  # fmt: skip
def test_what_changes_nothing_is_free(line: str) -> None:
    assert evasions(line) == []


def ask(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_without_points_the_functions_are_those_of_the_system() -> None:
    answer = ask(
        "import os, sys; from agentrun import effects;"
        "print(effects.unlink is os.unlink, effects.wait4 is os.wait4, 'agentrun.faults' in sys.modules)"
    )
    assert answer.stdout.split() == ["True", "True", "False"]


def test_a_process_ends_at_its_point(tmp_path: Path) -> None:
    points = tmp_path / "points"
    code = "import os; from agentrun import effects\nfor name in 'abc': effects.mkdir(name)"
    os.chdir(tmp_path)
    ended = ask(code, AGENTRUN_FAULTS=f"{points}:3:kill:0")
    assert ended.returncode == -9
    assert [name for name in "abc" if (tmp_path / name).exists()] == ["a"], "killed before the second"
    lines = points.read_text().splitlines()
    assert [line.split()[1:3] for line in lines] == [["before", "mkdir"], ["behind", "mkdir"], ["before", "mkdir"]]
    assert len({len(line) for line in lines}) == 1, "its place in the file is its number"


def test_points_are_numbered_across_processes(tmp_path: Path) -> None:
    points = tmp_path / "points"
    code = (
        "import os; from agentrun import effects\n"
        "pid = effects.fork()\n"
        f"effects.mkdir(os.path.join({str(tmp_path)!r}, str(pid > 0)))\n"
        "pid and effects.waitpid(pid, 0)"
    )
    assert ask(code, AGENTRUN_FAULTS=f"{points}:0:none:7").returncode == 0
    seen = [" ".join(line.split()[1:3]) for line in points.read_text().splitlines()]
    once = ["before fork", "before waitpid", "behind waitpid"]
    assert sorted(seen) == sorted([*once, *["behind fork", "before mkdir", "behind mkdir"] * 2])
