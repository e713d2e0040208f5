"""The scripts of this folder, which hold what real ones rarely do: each as itself, as a job, and as a killed job.

They need no sandbox: all that they do is done in $HERE. Compared are output, status and files, byte for byte.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..torture.place import LIMIT, Place
from .left import tree

FOLDER = Path(__file__).parent
SCRIPTS = sorted((FOLDER / "scripts").glob("*.sh"))
# what keeps its statements together, and a word of the reason that the report gives
KEPT = {"limits": "limits of a process"}
# whoever runs the tests may ignore them, and a step does not
_AS_AT_LOGIN = ["env", "--default-signal=HUP,INT,QUIT,PIPE"]
_TOOL = [sys.executable, str(FOLDER / "boundary.py")]


class Came(NamedTuple):
    """What came of a run."""

    status: int
    output: bytes
    files: dict[str, str]


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as one:
        yield one


def _env(place: Place) -> dict[str, str]:
    here = place.root / "here"
    here.mkdir()
    return {**place.env, "HERE": str(here), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}


def _as_itself(place: Place, script: Path) -> Came:
    first = script.read_text().split("\n", 1)[0].removeprefix("#!").split()
    done = subprocess.run(
        [*_AS_AT_LOGIN, *first, script],
        env=_env(place),
        cwd=place.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
    )
    return Came(done.returncode, done.stdout, _put_away(place))


def _put_away(place: Place) -> dict[str, str]:
    here = place.root / "here"
    files = dict(tree(here))
    here.rename(place.root / f"was{len(list(place.root.glob('was*')))}")
    return files


def _converted(place: Place, script: Path) -> dict[str, Any]:
    tool = [sys.executable, FOLDER / "converting.py", script]
    done = subprocess.run(tool, env=place.env, capture_output=True, check=True, timeout=LIMIT)
    told: dict[str, Any] = json.loads(done.stdout)
    place.job("job", told["job"])
    return told


def _output(place: Place) -> bytes:
    return place.command("logs", place.runs()[0], "--raw").stdout.encode(errors="surrogateescape")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_as_a_job(place: Place, script: Path) -> None:
    plain = _as_itself(place, script)
    told = _converted(place, script)
    if script.stem in KEPT:
        assert told["steps"] == 1
        assert KEPT[script.stem] in told["kept"][0]
    else:
        assert told["steps"] > 1, told["kept"]
    process = place.start("run", "job.yaml", **_env(place))
    status = process.wait(LIMIT)
    assert Came(status, _output(place), _put_away(place)) == plain


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_killed_after_each_step(place: Place, script: Path) -> None:
    plain = _as_itself(place, script)
    steps = _converted(place, script)["steps"]
    env = {**_env(place), "FIELD": str(place.root)}
    bell = place.root / "boundary"
    os.mkfifo(bell)
    fd = os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status, kills = _until_it_ends(place, env, fd)
    finally:
        os.close(fd)
    assert kills > 0 and kills <= steps
    assert Came(status, _output(place), _put_away(place)) == plain


def _until_it_ends(place: Place, env: dict[str, str], bell: int) -> tuple[int, int]:
    """Kill everything at each boundary and resume. The status, and how often it was killed."""
    words = ["run", "job.yaml"]
    kills = 0
    while True:
        with open(place.root / "said", "ab") as said:
            process = subprocess.Popen(
                [*_TOOL, *words], env=env, cwd=place.root, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        pidfd = os.pidfd_open(process.pid)
        try:
            ready, _, _ = select.select([bell, pidfd], [], [], LIMIT)
        finally:
            os.close(pidfd)
        assert ready, "it neither ends nor comes to the end of a step"
        if bell not in ready:
            return process.wait(), kills
        os.read(bell, 1)
        place.kill_all()
        process.wait(LIMIT)
        kills += 1
        words = ["resume", place.runs()[0]]
