"""`prune`, and the same by itself: whose word counts, what is shown, when nothing is done."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrun.cli import prune
from agentrun.model import Budget, Job, Keep
from agentrun.spec.config import Config
from agentrun.store import removal

from .recorded import World

DAY = 86_400_000


@pytest.fixture
def shelf(world: World, quotes: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """So many finished runs of a job, one an hour, the last one an hour ago."""
    monkeypatch.setattr(prune.config, "load", Config)
    now = time.time_ns() // 1_000_000

    def fill(number: int, **keys: object) -> list[str]:
        job = quotes(**keys)
        names = []
        for hours in range(number, 0, -1):
            run = world.record(f"k{100 - hours:03}{job.name[:4]}00", job, created_at=now - hours * 3_600_000).take()
            run.now = now - hours * 3_600_000
            run.succeed("rates").finish()
            names.append(run.id)
        return names

    return fill


def left(world: World) -> list[str]:
    return [run.id for run in reversed(world.reader.runs())]


def test_nothing_yet(world: World) -> None:
    assert world.call("prune")[:2] == (0, "")
    assert world.call("prune", "--json")[:2] == (0, "[]\n")


def test_the_job_says_what_it_keeps(world: World, shelf: Callable[..., list[str]]) -> None:
    names = shelf(5, keep=Keep(runs=2))
    others = shelf(5, name="other")
    status, out, _ = world.call("prune", "--dry-run")
    assert status == 0 and out.splitlines()[0].split() == ["JOB", "WOULD", "GO", "KEPT", "SIZE", "KEEPS"]
    assert out.splitlines()[1].split() == ["other", "0", "5", "0", "B", "10000", "runs", "(the", "default)"]
    assert out.splitlines()[2].split()[:3] == ["quotes", "3", "2"]
    assert len(left(world)) == 10
    status, out, _ = world.call("prune", "--json")
    shapes = {one["job"]: one for one in json.loads(out)}
    assert shapes["quotes"] | {"bytes": 0} == {
        "schema": "agentrun.pruned/1", "job": "quotes", "keep": {"runs": 2, "days": None, "size": None},
        "said_by": "its job file", "dry_run": False, "removed": names[:3], "kept": 2, "bytes": 0, "ticks": 0,
    }  # fmt: skip
    assert shapes["quotes"]["bytes"] > 10_000 and shapes["other"]["removed"] == []
    assert left(world) == sorted([*names[3:], *others])
    assert not any(os.path.exists(os.path.join(world.root, "runs", name)) for name in names[:3])


def test_the_options_say_it_for_once(world: World, shelf: Callable[..., list[str]]) -> None:
    names = shelf(5, keep=Keep(runs=2))
    others = shelf(5, name="other", keep=Keep())
    assert world.call("prune", "other", "--runs", "1")[0] == 0
    assert left(world) == sorted([*names, others[-1]])
    assert world.call("prune", "--days", "1")[0] == 0
    assert left(world) == sorted([*names, others[-1]])
    assert world.call("prune", "quotes", "--size", "1kB")[0] == 0
    assert left(world) == sorted([names[-1], others[-1]])


def test_config_yaml_says_it_for_the_others(
    world: World, shelf: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune.config, "load", lambda: Config("/etc/c.yaml", keep=Keep(runs=1)))
    names = shelf(3, keep=Keep())
    others = shelf(3, name="other")
    _, out, _ = world.call("prune")
    assert "1 run (/etc/c.yaml)" in out and "all (its job file)" in out
    assert left(world) == sorted([*names, others[-1]])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nosuch",), 66, "there is no run of a job nosuch"),
        (("--size", "12"), 2, "--size 12: no size"),
        (("--runs", "0"), 2, "--runs"),
        (("--days", "-1"), 2, "--days"),
    ],
)
def test_mistakes(
    world: World, shelf: Callable[..., list[str]], arguments: tuple[str, ...], status: int, said: str
) -> None:
    shelf(2)
    answer = world.call("prune", *arguments)
    assert answer[0] == status and said in answer[2]
    assert len(left(world)) == 2


def test_what_counts_today_stays(world: World, shelf: Callable[..., list[str]]) -> None:
    names = shelf(4, daily=Budget(steps=9))
    today = time.strftime("%Y-%m-%d")
    world.reader.connection.execute("DELETE FROM spending")
    world.reader.connection.execute("INSERT INTO spending VALUES (?, ?, 1, 0, 0)", (names[1], today))
    world.call("prune", "--runs", "1")
    assert left(world) == [names[1], names[3]]


def test_by_itself_once_a_day(world: World, shelf: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    names = shelf(5, keep=Keep(runs=2))
    now = time.time_ns() // 1_000_000
    assert not removal.is_due(world.root, now)
    with removal.holding(world.root) as held:
        held.next_due(now - 1)
        prune.by_itself(world.store)  # another one is at it: nothing is said, nothing is done
    assert left(world) == names
    monkeypatch.setattr(prune, "MOST", 2)
    prune.by_itself(world.store)
    assert left(world) == names[2:]
    due = int(Path(removal.folder(world.root), "lock").read_text())
    assert now < due < now + DAY // 2  # there is more to do
    monkeypatch.setattr(prune, "MOST", 100)
    prune.by_itself(world.store)
    assert left(world) == names[3:]
    assert int(Path(removal.folder(world.root), "lock").read_text()) >= now + DAY


def test_by_itself_it_knows_when_it_does_not_know(
    world: World, shelf: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config.yaml that is wrong may say that all is kept."""
    names = shelf(3)
    others = shelf(3, name="other", keep=Keep(runs=1))
    monkeypatch.setattr(prune.rules, "DEFAULT", Keep(runs=1))

    def wrong() -> Config:
        raise prune.JobFileError([])

    monkeypatch.setattr(prune.config, "load", wrong)
    prune.by_itself(world.store)
    assert left(world) == sorted([*names, others[-1]])


def test_by_itself_it_does_not_last(
    world: World, shelf: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = shelf(3, keep=Keep(runs=1))
    monkeypatch.setattr(prune, "SECONDS", -1.0)
    prune.by_itself(world.store)
    assert left(world) == names


def test_a_process_that_was_left_running_keeps_its_run(world: World, shelf: Callable[..., list[str]]) -> None:
    names = shelf(3, keep=Keep(runs=1))
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, env={**os.environ, "AGENTRUN_RUN_ID": names[0]}
    ) as process:
        world.call("prune")
        assert left(world) == [names[0], names[2]]
        process.kill()
    world.call("prune")
    assert left(world) == [names[2]]
