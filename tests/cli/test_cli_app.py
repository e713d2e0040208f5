from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from agentrun import __version__
from agentrun.cli import app
from agentrun.errors import Busy, JobFileError, Missing
from agentrun.model import Problem

from .recorded import World


def test_version_and_help(world: World) -> None:
    assert world.call("--version") == (0, f"agentrun {__version__}\n", "")
    status, out, _ = world.call("--help")
    assert status == 0
    for name, verb in app.VERBS.items():
        assert (re.search(rf"^  {name} ", out, re.MULTILINE) is None) == verb.hidden


@pytest.mark.parametrize("name", [name for name in app.VERBS if name not in ("run", "resume", "supervise", "child")])
def test_each_verb_is_there_and_its_summary_is_the_first_line_of_its_help(world: World, name: str) -> None:
    command = app.program().commands[name]
    assert command.help.splitlines()[0] == app.VERBS[name].summary
    assert all(param.help for param in command.params)
    assert world.call(name, "--help")[0] == 0


def test_an_option_that_is_meant_for_a_script(world: World) -> None:
    hint = "`agentrun run --help` shows what it takes; what a script is given stands behind a --"
    assert world.call("run", "purge.sh", "-d") == (2, "", f"agentrun: no such option: -d\n  hint: {hint}\n")


def test_no_command_shows_the_help(world: World) -> None:
    status, out, err = world.call()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: agentrun [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stats"], "no such command 'stats'. Did you mean 'status'?\n  hint: `agentrun --help`"),
        (["status", "--foo"], "no such option: --foo\n  hint: `agentrun status --help`"),
        (["cancel"], "missing argument 'RUN'.\n  hint: `agentrun cancel --help`"),
    ],
)
def test_mistakes_in_the_command_line(world: World, argv: list[str], message: str) -> None:
    assert world.call(*argv) == (2, "", f"agentrun: {message} shows what it takes\n")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Missing("no bash", "install it"), 69, "agentrun: no bash\n  hint: install it\n"),
        (Busy("run \x1b[2J"), 75, "agentrun: run \\x1b[2J\n"),
        (
            JobFileError([Problem("a.yaml", 14, 9, "unknown key 'timout'", "        timout: 5m", "say timeout")]),
            65,
            "a.yaml:14:9: unknown key 'timout'\n   14 |         timout: 5m\n      |         ^\n  hint: say timeout\n",
        ),
        (FileNotFoundError(2, "No such file or directory", "x"), 74, "agentrun: No such file or directory: x\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_words_and_a_status(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    fail_with(monkeypatch, error)
    assert world.call("schema") == (status, "", message)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def schema(**_: Any) -> None:
        raise error

    monkeypatch.setattr("agentrun.spec.schema.schema", schema)


def test_a_bug_is_told_in_a_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, TypeError("what"))
    status, _, err = world.call("schema")
    assert status == 70
    assert re.match(r"agentrun: a mistake in agentrun itself: TypeError: what \(test_cli_app.py:\d+\)\n  hint: ", err)
    monkeypatch.setenv("AGENTRUN_DEBUG", "1")
    assert "Traceback" in world.call("schema")[2]


def test_a_damaged_database(world: World) -> None:
    path = os.path.join(world.root, "agentrun.db")
    world.store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.write(b"nonsense" * 100)
    status, _, err = world.call("status")
    assert status == 74
    assert err.startswith(f"agentrun: {path} is damaged: ")


def test_a_failing_statement_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, sqlite3.OperationalError("disk I/O error"))
    status, _, err = world.call("schema")
    assert status == 74
    assert "hint: check the disk" in err


def test_output_in_an_encoding_that_lacks_characters(world: World) -> None:
    world_env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    code = "import sys; from agentrun.cli.app import run_app; sys.exit(run_app(['status', 'quotes…']))"
    done = subprocess.run([sys.executable, "-c", code], env=world_env, capture_output=True, check=False)
    assert done.returncode == 66
    assert b"there is no run or job quotes\\u2026" in done.stderr


def test_completion(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentrun.model import Job

    from .recorded import steps

    world.record("k3v9x00001", Job("quotes", steps("rates", "mail"))).take().finish()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "quotes.yaml").touch()
    (tmp_path / "work" / "other.txt").touch()
    monkeypatch.chdir(tmp_path / "work")
    assert offered("agentrun st") == ["status"]
    assert offered("agentrun status q") == ["quotes"]
    assert offered("agentrun logs k3v") == ["k3v9x00001"]
    assert offered("agentrun logs quotes --step r") == ["rates"]
    assert offered("agentrun plan q") == ["quotes.yaml"]
    assert offered("agentrun plan o") == []
    monkeypatch.setenv("AGENTRUN_HOME", "/dev/null/nowhere")
    assert offered("agentrun status q") == []


def offered(line: str) -> list[str]:
    code = "import sys; sys.argv = ['agentrun']; from agentrun.cli.app import run_app; sys.exit(run_app())"
    asked = {"_AGENTRUN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()
