"""Lines that need no parser mean what the parser would make of them, and load none."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agentrun.cli.app import run_app
from agentrun.cli.direct import direct

LINES = [
    ["run", "quotes.yaml"],
    ["run", ""],
    ["run", "a b"],
    ["resume"],
    ["resume", "quotes~1"],
    ["supervise", "k3v9x00001"],
    ["child", "/tmp/call.json"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_the_same_call_as_the_parsers(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    module = import_module(f"agentrun.cli.{'resume' if line[0] == 'supervise' else line[0]}")
    verb = getattr(module, line[0])

    def recorded(*args: object, **kwargs: object) -> int:
        bound = inspect.signature(verb).bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(bound.arguments)
        return 3

    monkeypatch.setattr(module, line[0], recorded)
    work = direct(line)
    assert work is not None
    assert (work(), run_app(line)) == (3, 3)
    first, second = calls
    assert first == second


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["run"],
        ["run", "--help"],
        ["run", "-p"],
        ["run", "-"],
        ["--version", "run"],
        ["run", "a.yaml", "b"],
        ["run", "--", "a.yaml"],
        ["resume", "quotes", "--plan"],
        ["resume", "-v"],
        ["supervise"],
        ["status"],
        ["status", "quotes"],
        ["tick", "quotes"],
        ["resum", "quotes"],
    ],
    ids=" ".join,
)
def test_any_other_line_is_the_parsers(line: list[str]) -> None:
    assert direct(line) is None


def test_completion_is_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AGENTRUN_COMPLETE", "complete_bash")
    assert direct(["run", "a.yaml"]) is None


def _loaded(home: Path, *line: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "agentrun", *line],
        capture_output=True,
        text=True,
        env={**os.environ, "AGENTRUN_HOME": str(home / "home")},
        check=False,
        cwd=home,
    )
    return done.returncode, {each.rpartition("|")[2].strip() for each in done.stderr.splitlines()}


def test_a_run_of_a_known_file_loads_neither_typer_nor_yaml(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("steps:\n- run: 'true'\n")
    assert _loaded(tmp_path, "run", "job.yaml")[0] == 0
    status, modules = _loaded(tmp_path, "run", "job.yaml")
    assert (status, "agentrun.cli.run" in modules) == (0, True)
    assert not {"typer", "yaml", "rich", "psutil", "croniter", "pickle", "agentrun.convert"} & modules


def test_mistakes_on_such_a_line_are_told_as_on_any_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentrun"]
    env = {**os.environ, "AGENTRUN_HOME": str(tmp_path / "home")}
    for line, parsed in ((["run", "no.yaml"], ["run", "--", "no.yaml"]), (["resume", "no"], ["resume", "--", "no"])):
        one, other = (
            subprocess.run([*command, *each], capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
            for each in (line, parsed)
        )
        assert one.returncode == other.returncode != 0
        assert one.stderr == other.stderr
        assert one.stderr.startswith("agentrun: ")
