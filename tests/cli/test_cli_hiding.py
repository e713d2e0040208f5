"""A script that looks for itself among the processes finds nobody but itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.cli.hiding import _script

SCRIPT = """\
#!/bin/sh
set -e
found() {
    for line in /proc/[0-9]*/cmdline; do
        said=$(tr '\\0' ' ' < "$line" 2> /dev/null) || continue
        case $said in *look-for-me*) echo "$said" ;; esac
    done
}

# Begin
echo begin > begun

# Look
found > found
"""


@pytest.mark.parametrize(
    "line",
    [["look-for-me.sh"], ["./look-for-me.sh", "--json"], ["--json", "look-for-me.sh"], ["look-for-me.sh", "--", "a"]],
    ids=" ".join,
)
def test_the_name_is_in_no_command_line(tmp_path: Path, line: list[str]) -> None:
    (tmp_path / "look-for-me.sh").write_text(SCRIPT)
    (tmp_path / "look-for-me.sh").chmod(0o755)
    env = {**os.environ, "AGENTRUN_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-P", "-m", "agentrun", "run", *line]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "found").read_text() == ""


def test_what_stands_behind_a_job_file_is_no_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").touch()
    words = [b"python", b"-m", b"agentrun", b"run", b"a.yaml", b"--run-key", b"key"]
    assert _script(words) is None
    assert _script([*words[:4], b"--", b"key"]) == 5


def test_a_job_file_keeps_its_name_for_those_who_look_at_ps(tmp_path: Path) -> None:
    (tmp_path / "look.yaml").write_text("steps:\n- run: tr '\\0' ' ' < /proc/$AGENTRUN_SEEN/cmdline > seen\n")
    env = {**os.environ, "AGENTRUN_HOME": str(tmp_path / "home")}
    code = (
        "import os, sys; os.environ['AGENTRUN_SEEN'] = str(os.getpid());"
        " os.execv(sys.executable, [sys.executable, '-P', '-m', 'agentrun', 'run', 'look.yaml'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "seen").read_text().endswith(" agentrun run look.yaml ")
