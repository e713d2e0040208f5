"""The benchmark runs: how long anything takes is not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_two_rows(tmp_path: Path) -> None:
    done = bench("--quick", "--dir", str(tmp_path), "trivial", "status")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Python 3.")
    assert lines[1].startswith("one trivial step, whole command") and "goal     90 ms" in lines[1]
    assert "floors: bare interpreter" in lines[2] and "3 times" in lines[2]
    assert any(line.startswith("`status` with 1,000 step rows") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_is_not_there() -> None:
    done = bench("nothing")
    assert done.returncode == 2
    assert "no such row: nothing (there are: trivial sequential parallel" in done.stderr
