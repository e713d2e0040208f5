"""A removal of old runs is killed at every point that it reaches: the next one ends it, and doctor sees nothing wrong.

The record is made once, by real runs, and copied for each point. Rows and folders go in small portions here, so that
all of it happens often.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.store import database, removal
from agentrun.store.repair import repair

from .arena import Arena

CHILD = "steps:\n- {id: one, run: echo hi}\n- {id: two, run: 'true'}\n"
PARENT = "steps:\n- {id: call, job: child.yaml}\n- {id: own, run: 'true'}\n"
MENDED = "steps:\n- {id: a, run: 'true'}\n- {id: b, run: test -e mended}\n"
SOUND = "nothing is wrong with the database: nothing has been changed"
PRUNE = """
import sys
from agentrun.store import removal
removal.ROWS, removal.RUNS = 7, 2
from agentrun.cli.app import run_app
sys.exit(run_app(["prune", "--runs", "1", "--json"]))
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Three runs of a job whose step is another job, of that other job, and of one that goes on from a failed run."""
    arena = Arena(tmp_path_factory.mktemp("prune"))
    for name, text in (("child", CHILD), ("parent", PARENT), ("mended", MENDED)):
        arena.job(name, text)
    for number in range(3):
        (arena.root / "mended").unlink(missing_ok=True)
        assert arena.command("run", str(arena.root / "mended.yaml")).returncode == 1
        (arena.root / "mended").touch()
        if number == 0:
            assert arena.command("resume", "mended", "--from", "a").returncode == 0
        for name in ("child", "parent"):
            assert arena.command("run", str(arena.root / f"{name}.yaml")).returncode == 0
    yield arena
    arena.close()


def prune(home: Path, at: int) -> subprocess.CompletedProcess[str]:
    """Keep one run of each job; killed at that point."""
    faults = f"{home}.points:{at}:kill:0"
    return subprocess.run(
        [sys.executable, "-c", PRUNE], env={**os.environ, "AGENTRUN_HOME": str(home), "AGENTRUN_FAULTS": faults},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def runs(home: Path) -> set[str]:
    connection = database.open_for_reading(str(home))
    assert connection
    try:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        gaps = "SELECT run_id FROM events GROUP BY run_id HAVING count(*) <> max(seq) OR min(seq) <> 1"
        assert connection.execute(gaps).fetchall() == []
        return {row[0] for row in connection.execute("SELECT id FROM runs")}
    finally:
        connection.close()


def whole(home: Path, run_ids: set[str]) -> None:
    """These have all their rows and their folder, as a repair sees it; nothing else is in runs/."""
    said: list[str] = []
    assert not repair(str(home), said.append).runs
    assert said == [SOUND]
    assert set(os.listdir(home / "runs")) == run_ids


@pytest.fixture(scope="module")
def pruned(record: Arena, tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], list[str]]:
    """What an undisturbed removal leaves, and the names of the points that it reaches."""
    before = runs(record.home)
    whole(record.home, before)
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    shutil.copytree(record.home, home)
    answer = prune(home, 0)
    assert answer.returncode == 0, answer.stderr
    # the runs of `mended`: all but the first and its continuation have failed; that is the last success, and needs it
    assert {one["job"]: (len(one["removed"]), one["kept"]) for one in json.loads(answer.stdout)} == {
        "child": (2, 1), "parent": (2, 1), "mended": (1, 3),
    }  # fmt: skip
    left = runs(home)
    whole(home, left)
    return left, [line[8:].strip() for line in Path(f"{home}.points").read_text().splitlines()]


def killed_at(record: Arena, place: Path, at: int, left: set[str]) -> None:
    """Killed at a point, doctor has nothing to say, and the next removal ends it."""
    home = place / str(at)
    shutil.copytree(record.home, home)
    killed = prune(home, at)
    assert killed.returncode == -signal.SIGKILL, (at, killed.stderr)
    assert left <= runs(home) <= runs(record.home)
    said: list[str] = []
    repair(str(home), said.append)
    assert said == [SOUND], at
    after = prune(home, 0)
    assert after.returncode == 0, (at, after.stderr)
    assert runs(home) == left, at
    whole(home, left)
    assert os.listdir(removal.folder(str(home))) == ["lock"]
    shutil.rmtree(home)


def test_killed_behind_every_effect(record: Arena, pruned: tuple[set[str], list[str]], tmp_path: Path) -> None:
    left, points = pruned
    effects = [at for at, name in enumerate(points, 1) if name.startswith(("behind rename", "behind commit"))]
    first = {name: at for at, name in reversed([*enumerate(points, 1)])}
    assert len(effects) > 12 and any("_put_aside" in name for name in points)
    for at in sorted({*effects[::3], *(at for name, at in first.items() if "behind" in name and "lock" not in name)}):
        killed_at(record, tmp_path, at, left)


@pytest.mark.slow
def test_killed_at_every_point(record: Arena, pruned: tuple[set[str], list[str]], tmp_path: Path) -> None:
    left, points = pruned
    for at in range(1, len(points) + 1):
        killed_at(record, tmp_path, at, left)


def test_by_itself_at_the_end_of_a_run(arena: Arena) -> None:
    job = str(arena.job("short", "keep: {runs: 2}\nsteps:\n- run: 'true'\n"))
    lock = arena.home / "pruned" / "lock"
    for _ in range(4):
        assert arena.command("run", job).returncode == 0
    assert len(runs(arena.home)) == 4
    lock.write_text("1")
    last = arena.command("run", job)
    assert (last.returncode, last.stderr) == (0, "")
    assert len(runs(arena.home)) == 2
    assert int(lock.read_text()) > 1
    whole(arena.home, runs(arena.home))
    # what cannot be removed is no failure of the run
    shutil.rmtree(arena.home / "pruned")
    (arena.home / "pruned").touch()
    again = arena.command("run", job)
    assert (again.returncode, again.stderr) == (0, "")
