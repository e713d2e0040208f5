"""The commands that read job files: validate, plan, env, schema; and the manual."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .recorded import World

GOOD = """\
name: quotes
params: {customer: {default: all}, who: {}}
deadline: 20m
env: {LANG: C.UTF-8}
env_file: quotes.env
steps:
- id: rates
  run: ./rates.sh
  timeout: 2m
- id: customers
  run: ./customers.sh
  needs: []
- id: quote
  run: ./ask.sh "$CUSTOMER"
  needs: [rates, customers]
  env: {CUSTOMER: "${{ params.customer }}", WHO: "${{ params.who }}", N: "n=${{ steps.rates.outputs.n }}"}
  retry: {max_attempts: 3}
  if: test "$CUSTOMER" != test
- id: page
  run: ./page.sh
  when: on_failure
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "jobs"
    made.mkdir()
    (made / "quotes.yaml").write_text(GOOD)
    (made / "quotes.env").write_text("TOKEN='a b'\nLANG=de\n")
    for name in ("rates", "customers", "ask", "page"):
        (made / f"{name}.sh").write_text("#!/bin/sh\n")
        (made / f"{name}.sh").chmod(0o755)
    (made / "bad.yaml").write_text("steps:\n- id: a\n  run: ./a.sh\n  timout: 5m\n- {run: x, needs: [b]}\n")
    monkeypatch.chdir(made)
    return made


def test_validate(world: World, folder: Path) -> None:
    assert world.call("validate", "quotes.yaml") == (0, "quotes.yaml: ok, job quotes, 4 steps\n", "")
    status, out, err = world.call("validate", "quotes.yaml", "bad.yaml", "none.yaml")
    assert (status, err) == (65, "")
    lines = out.splitlines()
    assert lines[1:4] == [
        "bad.yaml:4:3: unknown key 'timout' (did you mean 'timeout'?)",
        "    4 |   timout: 5m",
        "      |   ^",
    ]
    assert lines[4].startswith("bad.yaml:5:")
    assert "none.yaml" in lines[-1]
    assert world.call("validate", "none.yaml")[0] == 66


def test_validate_json(world: World, folder: Path) -> None:
    assert world.call("validate", "quotes.yaml", "--json")[:2] == (0, "[]\n")
    status, out, _ = world.call("validate", "bad.yaml", "--json")
    problems = json.loads(out)
    assert status == 65
    assert problems[0] == {
        "schema": "agentrun.problem/1", "file": "bad.yaml", "line": 4, "column": 3,
        "message": "unknown key 'timout' (did you mean 'timeout'?)", "hint": None, "severity": "error",
    }  # fmt: skip
    assert len(problems) == 2


PROGRAMS = """\
steps:
- id: a
  run: |
    echo a
    if true; then
      echo b
- id: b
  if: steps.a.outcome == 'succeeded'
  python: |
    def main():
        return 1 +
- {id: c, python: agent:thnk}
- {id: d, python: nowhere_at_all:x}
- {id: e, python: broken:f}
- {id: f, run: "echo 'unfinished", if: "test 1 = 1"}
- {id: g, python: "json:dumps"}
- {id: h, python: "agent:think"}
- {id: i, python: "agent:path"}
"""


def test_validate_looks_at_programs(world: World, folder: Path) -> None:
    (folder / "programs.yaml").write_text(PROGRAMS)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "agent.py").write_text("def think(): pass\ntry:\n    from os import path\nexcept OSError:\n    pass\n")
    status, out, err = world.call("validate", "programs.yaml")
    assert status == 65
    assert err.splitlines()[0] == "programs.yaml:13:19: warning: no module 'nowhere_at_all' was found"
    told = [line for line in out.splitlines() if line.startswith("programs.yaml")]
    assert [line.split(":")[1] for line in told] == ["6", "8", "11", "12", "14", "15"]
    assert "sh cannot read this" in told[0]
    assert told[1].endswith("'if' is a shell command, and 'steps.a.outcome' is none")
    assert "this is not Python" in told[2]
    assert told[3].endswith("agent.py has no function 'thnk' (did you mean 'think'?)")
    assert "broken.py:1: this is not Python" in told[4]
    shapes = json.loads(world.call("validate", "programs.yaml", "--json")[1])
    assert [shape["severity"] for shape in shapes] == ["warning"] + ["error"] * 6


def test_a_warning_is_no_error(world: World, folder: Path) -> None:
    (folder / "warned.yaml").write_text("steps: [{python: nowhere_at_all:x}]\n")
    status, out, err = world.call("validate", "warned.yaml")
    assert (status, out) == (0, "warned.yaml: ok, job warned, 1 step\n")
    assert "warning: no module 'nowhere_at_all'" in err


def test_validate_warns_of_what_is_not_there(world: World, folder: Path) -> None:
    (folder / "rates.sh").chmod(0o644)
    (folder / "page.sh").unlink()
    (folder / "customers.sh").unlink()
    (folder / "quotes.env").unlink()
    status, out, err = world.call("validate", "quotes.yaml")
    assert (status, out) == (0, "quotes.yaml: ok, job quotes, 4 steps\n")
    told = [line for line in err.splitlines() if line.startswith("quotes.yaml")]
    assert told == [
        f"quotes.yaml:5:11: warning: the env_file is not there: {folder}/quotes.env",
        f"quotes.yaml:8:8: warning: {folder}/rates.sh is not executable: chmod +x it, or name its interpreter, as in"
        " sh ./rates.sh",
        f"quotes.yaml:11:8: warning: there is no {folder}/customers.sh, which 'run' begins with",
        f"quotes.yaml:20:8: warning: there is no {folder}/page.sh, which 'run' begins with",
    ]
    shapes = json.loads(world.call("validate", "quotes.yaml", "--json")[1])
    assert [(shape["line"], shape["severity"]) for shape in shapes] == [(line, "warning") for line in (5, 8, 11, 20)]
    (folder / "there").mkdir()
    texts = {
        "working_dir: nowhere\nsteps: [{run: ./a.sh}]\n": [f"the working_dir is not there: {folder}/nowhere"],
        "working_dir: there\nsteps: [{run: ../ask.sh; ./b}, {run: ./made-by-then}]\n": [],
        "steps: [{run: ./there && x}]\n": [f"{folder}/there is a folder, and no program"],
        "steps: [{run: cd there && ./a.sh}, {run: $HOME/a.sh}, {run: X=1 ./a.sh}, {run: './a*'}]\n": [],
    }
    for text, messages in texts.items():
        (folder / "x.yaml").write_text(text)
        status, out, err = world.call("validate", "x.yaml")
        found = [line.split("warning: ")[1] for line in err.splitlines() if "warning: " in line]
        assert (status, found) == (0, messages)


def test_plan(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrun.cli.plan.os.cpu_count", lambda: 2)
    status, out, _ = world.call("plan", "quotes.yaml")
    assert status == 0
    assert out.splitlines() == [
        "quotes: 4 steps, at most 2 at once, deadline 20m",
        "",
        "STAGE  STEP       AFTER                    TIMEOUT  ATTEMPTS",
        "    1  rates      -                        2m              1",
        "    1  customers  -                        -               1",
        '    2  quote      rates, customers         -               3  if test "$CUSTOMER" != test',
        "    3  page       rates, customers, quote  -               1  only after a failure",
    ]
    plan = json.loads(world.call("plan", "quotes.yaml", "--json")[1])
    assert [(step["id"], step["stage"], step["needs"]) for step in plan["steps"]][2:] == [
        ("quote", 2, ["rates", "customers"]),
        ("page", 3, ["rates", "customers", "quote"]),
    ]
    assert world.call("plan", "bad.yaml")[0] == 65


def test_env(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "yes")
    status, out, err = world.call("env", "quotes.yaml", "--step", "quote")
    shown = dict(line.split("=", 1) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert list(shown) == sorted(shown)
    assert shown["CUSTOMER"] == "all"
    assert shown["WHO"] == "${{ params.who }}"
    assert shown["N"] == "n=${{ steps.rates.outputs.n }}"
    assert (shown["TOKEN"], shown["LANG"], shown["MINE"]) == ("a b", "C.UTF-8", "yes")
    assert (shown["AGENTRUN_STEP"], shown["AGENTRUN_JOB"], shown["PWD"]) == ("quote", "quotes", str(folder))
    assert "TMPDIR" in shown
    assert "step rates" in world.call("env", "quotes.yaml")[2]


def test_env_as_cron(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "yes")
    variables = json.loads(world.call("env", "quotes.yaml", "--as-cron", "--json")[1])["env"]
    assert "MINE" not in variables
    assert variables["SHELL"] == "/bin/sh" and variables["PATH"].startswith("/usr/bin:/bin:/"), "and the command itself"


def test_env_of_a_step_that_is_not_there(world: World, folder: Path) -> None:
    status, _, err = world.call("env", "quotes.yaml", "--step", "qoute")
    assert status == 66
    assert err.startswith("agentrun: job quotes has no step qoute (did you mean 'quote'?)\n")


def test_schema(world: World) -> None:
    status, out, _ = world.call("schema")
    assert status == 0
    assert json.loads(out)["title"] == "agentrun job file"


def test_manual(world: World, tmp_path: Path) -> None:
    assert world.call("manual", "--check", str(tmp_path))[0] == 1
    assert world.call("manual", "--write", str(tmp_path))[0] == 0
    assert world.call("manual", "--check", str(tmp_path)) == (0, "", "")
    page = (tmp_path / "agentrun.1").read_text()
    assert ".Ss agentrun status\n" in page
    assert ".It Fl \\-follow , Fl f\n" in page
    assert max(map(len, page.splitlines())) <= 80
    if mandoc := shutil.which("mandoc"):
        done = subprocess.run([mandoc, "-T", "lint", str(tmp_path / "agentrun.1")], capture_output=True, text=True)
        assert done.stdout == ""
