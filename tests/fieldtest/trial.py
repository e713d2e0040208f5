"""One script on trial: as itself, as the job that it becomes, and as that job killed after each of its steps.

It runs as itself twice, before and after: a script that does not even equal itself, or that does not end, is set
aside. Every run has a machine of its own, made from the same (sandbox.py), and what they left is compared (left.py).
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from . import sandbox, stubs
from .left import Left, differences, look

_LIMIT = 20.0  # seconds that a script may take
_OF_JOB = 90.0  # as long for the same with agentrun around it
_MOST_KILLS = 60
_ASKS_ARGUMENTS = re.compile(r"\$\{?[1-9@#*]")
_PYTHON = [sys.executable, "-P"]
_AGENTRUN = [*_PYTHON, "-m", "agentrun"]
_HOME = {"AGENTRUN_HOME": "/.state"}


@dataclass
class Trial:
    """What came of it. `different` and `killed`: the parts that differ, with diffs; None: not tried."""

    name: str
    lines: int
    aside: str = ""  # why it was set aside
    statements: int = 0
    steps: int = 0
    whole: bool = False
    why: list[str] = field(default_factory=list)
    job: str = ""
    broken: str = ""  # what kept it from being converted at all
    status: int | None = None
    calls: int = 0
    different: dict[str, str] | None = None
    killed: dict[str, str] | None = None
    kills: int = 0


def arguments_for(script: str) -> list[str]:
    """What a script that looks at its arguments is given."""
    return ["alpha", "beta", "gamma"] if _ASKS_ARGUMENTS.search(script) else []


def shell_of(script: bytes) -> list[str]:
    """What runs it: nothing for one that says so itself."""
    if script.startswith(b"#!"):
        return []
    for shell in ("dash", "bash"):
        if subprocess.run([shell, "-n"], input=script, capture_output=True).returncode == 0:
            return ["/bin/sh" if shell == "dash" else "/bin/bash"]
    return ["/bin/sh"]


def put(path: Path, kill: bool, plain_only: bool = False) -> Trial:
    """Put one on trial."""
    script = path.read_bytes()
    text = script.decode(errors="replace")
    name = path.name.rpartition("__")[2]
    trial = Trial(path.name, text.count("\n"))
    words = arguments_for(text)
    with tempfile.TemporaryDirectory(prefix="field-") as folder:
        here = Path(folder)
        stubs.lay(here / "commands", text)

        def machine(of: str) -> sandbox.Sandbox:
            return sandbox.Sandbox(here / of, here / "commands", name, script)

        def as_itself(number: int) -> Left:
            plain = machine(f"plain{number}")
            ended = plain.run([*shell_of(script), plain.path, *words], _LIMIT)
            return look(plain, ended.status, ended.output)

        first = as_itself(1)
        trial.status, trial.calls = first.status, first.calls.count(b"\n")
        if first.status is None:
            trial.aside = "does not end"
            return trial
        if plain_only:
            _compare_with_itself(trial, first, as_itself(2))
            return trial
        _convert(trial, machine("converted"), words)
        if trial.broken:
            return trial
        trial.different = differences(first, _as_job(machine("job"), trial.job))
        _compare_with_itself(trial, first, as_itself(2))
        if kill and not trial.aside:
            killed, trial.kills = _killed(machine("killed"), trial.job)
            trial.killed = differences(first, killed)
    return trial


def _compare_with_itself(trial: Trial, first: Left, second: Left) -> None:
    if different := differences(first, second):
        trial.aside = "not equal to itself: " + ", ".join(different)


def _convert(trial: Trial, machine: sandbox.Sandbox, words: list[str]) -> None:
    tool = [*_PYTHON, str(Path(__file__).with_name("converting.py"))]
    ended = machine.run([*tool, machine.path, *words], _LIMIT)
    if ended.status != 0:
        trial.broken = ended.output.decode(errors="replace").strip().split("\n")[-1] or f"status {ended.status}"
        return
    told = json.loads(ended.output)
    trial.job, trial.why = told["job"], told["kept"]
    trial.statements, trial.steps, trial.whole = told["statements"], told["steps"], told["whole"]


def _as_job(machine: sandbox.Sandbox, job: str) -> Left:
    (machine.field / "job.yaml").write_text(job)
    ended = machine.run([*_AGENTRUN, "run", "/.field/job.yaml"], _OF_JOB, **_HOME)
    return _seen(machine, ended)


def _killed(machine: sandbox.Sandbox, job: str) -> tuple[Left, int]:
    """Killed at each boundary, and resumed until it ends. And how often it was."""
    (machine.field / "job.yaml").write_text(job)
    tool = [*_PYTHON, str(Path(__file__).with_name("boundary.py"))]
    ended = machine.run([*tool, "run", "/.field/job.yaml"], _OF_JOB, **_HOME)
    kills = 0
    while ended.stopped and kills < _MOST_KILLS:
        kills += 1
        ended = machine.run([*tool, "resume", _run_id(machine)], _OF_JOB, **_HOME)
    return _seen(machine, ended), kills


def _seen(machine: sandbox.Sandbox, ended: sandbox.Ended) -> Left:
    run = _run_id(machine)
    if not run:
        return look(machine, ended.status, b"agentrun recorded no run; it said:\n" + ended.output)
    with tempfile.TemporaryDirectory(prefix="field-") as aside:  # what reading does is none of the job's doing
        calls = machine.field / "calls"
        kept = Path(aside) / "calls"
        if calls.exists():
            shutil.copy(calls, kept)
        output = machine.run([*_AGENTRUN, "logs", run, "--raw"], _LIMIT, **_HOME).output
        if kept.exists():
            shutil.copy(kept, calls)
    return look(machine, ended.status, output)


def _run_id(machine: sandbox.Sandbox) -> str:
    file = machine.state / "agentrun.db"
    if not file.exists():
        return ""
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        row = connection.execute("SELECT id FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    return str(row[0]) if row else ""
