"""Who does nothing is found and who does anything is not, with real processes; only the clock of a sleep is made up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from agentrun.step import stillness
from agentrun.step.attempt import Attempt
from agentrun.step.link import Link
from agentrun.step.stillness import Stillness

from .shim_rig import MIB, Rig, alive

STUCK = 600  # ms
BUSY = {
    "burns": "while :; do :; done",
    "burns in a child": "(while :; do :; done) & wait",
    "burns in short children": "while :; do (i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done); sleep 0.05; done",
    "burns in children that nobody waits for": "trap '' CHLD; while :; do (i=0; while [ $i -lt 5000 ]; do"
    " i=$((i+1)); done) & sleep 0.05; done",
    "burns in orphans": "(while :; do (sh -c 'i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done' &); sleep 0.05; done &)"
    "; exec sleep 100",
    "has left one that burns": "(setsid sh -c 'while :; do :; done' &); exec sleep 100",
    "prints": "while :; do echo x; sleep 0.05; done",
}


@pytest.mark.parametrize("program", BUSY.values(), ids=[name.replace(" ", "-") for name in BUSY])
def test_who_does_anything_is_not_stuck(rig: Rig, program: str) -> None:
    rig.open().sh(program, stuck_after=STUCK, on_stuck="kill", timeout=3 * STUCK, grace=0)
    assert rig.result().ended_by == "timeout"


@pytest.mark.parametrize("limits", [None, {"memory": 512 * MIB, "cpu": 60_000}], ids=["unlimited", "limited"])
def test_who_does_nothing_is_ended_with_all_its_processes(either: Rig, limits: dict[str, int] | None) -> None:
    begun = time.monotonic()
    more = {} if limits is None else {"limits": limits}
    either.open().sh("sleep 100 & echo $! >$NEWS; sleep 100", stuck_after=STUCK, on_stuck="kill", **more)
    child = int(either.news.line())
    result = either.result()
    assert (result.ended_by, result.signal) == ("stuck", signal.SIGTERM)
    assert time.monotonic() - begun >= STUCK / 1000
    assert not alive(child)
    assert either.stuck == [], "what is ended is told by its result"


def test_one_with_a_cgroup_that_burns_is_not_stuck(rig: Rig) -> None:
    limits = {"memory": 512 * MIB, "cpu": 60_000}
    rig.open().sh(BUSY["burns"], stuck_after=STUCK, on_stuck="kill", timeout=3 * STUCK, grace=0, limits=limits)
    assert rig.result().ended_by == "timeout"


def test_who_ignores_term_when_it_is_stuck_has_its_grace_and_no_more(rig: Rig) -> None:
    rig.open().sh("trap '' TERM; read _ <$NEWS.go", stuck_after=STUCK, on_stuck="kill", grace=100, env=gate(rig))
    result = rig.result()
    assert (result.ended_by, result.signal) == ("stuck", signal.SIGKILL)


def gate(rig: Rig) -> dict[str, str]:
    os.mkfifo(rig.news.path + ".go")
    return {}


def test_a_silence_is_told_once_and_so_is_its_end(rig: Rig) -> None:
    rig.open().sh("exec 3<>$NEWS.go; read _ <&3; echo on; read _ <&3", stuck_after=STUCK, env=gate(rig))
    rig.sh("exec sleep 100", "unwatched")
    assert rig.told_stuck() == [[("a", 1)]]
    Path(rig.news.path + ".go").write_text("\n")
    assert rig.told_stuck(3) == [[("a", 1)], [], [("a", 1)]]
    Path(rig.news.path + ".go").write_text("\n")
    assert rig.result().exit_code == 0
    assert len(rig.stuck) == 3, "an end is no going on"


def test_a_stopped_process_does_nothing(rig: Rig) -> None:
    rig.open().sh("echo $$ >$NEWS; while :; do :; done", stuck_after=STUCK, on_stuck="kill")
    os.kill(int(rig.news.line()), signal.SIGSTOP)
    assert rig.result().ended_by == "stuck"


def test_every_new_supervisor_is_told(rig: Rig) -> None:
    rig.open()
    rig.sh("read _ <$NEWS.go; while :; do :; done", stuck_after=STUCK, env=gate(rig))
    rig.told_stuck()
    for expected in ([("a", 1)], []):
        before, rig.link = rig.link, Link.connect(rig.folder, 2)
        rig.link.hello()
        rig.stuck.clear()
        assert rig.told_stuck() == [expected]
        before.close()
        if expected:
            Path(rig.news.path + ".go").write_text("\n")
            assert rig.told_stuck(2)[1] == []


# ---- without a shim


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(stillness.time, "monotonic", lambda: self.now)


def still(**order: object) -> tuple[Stillness, Attempt, list[object]]:
    told: list[object] = []
    looks = Stillness(lambda: told.append(looks.stuck()))
    attempt = Attempt({"instance": "a", "attempt": 1, **order}, 1)
    looks.watch(attempt)
    return looks, attempt, told


def test_without_stuck_after_nobody_looks() -> None:
    assert still()[0].next is None


@pytest.mark.parametrize(("after", "pause"), [(500, 0.1), (1_000, 0.1), (20_000, 2.0), (1_800_000, 30.0)])
def test_how_often_it_is_looked_at(monkeypatch: pytest.MonkeyPatch, after: int, pause: float) -> None:
    clock = Clock(monkeypatch)
    assert still(stuck_after=after)[0].next == clock.now + pause


def test_an_hour_in_which_the_machine_slept_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    looks, _, told = still(stuck_after=20_000)
    for _ in range(5):
        clock.now += 2
        assert looks.look() == []
    clock.now += 3_600
    looks.look()
    assert told == []
    while not told:
        clock.now += 2
        looks.look()
    assert clock.now - 1_000 - 3_600 >= 16, "the late look counts as two"


def test_what_is_being_ended_stays_as_stuck_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    looks, attempt, told = still(stuck_after=1_000)
    while not told:
        clock.now += 0.1
        looks.look()
    attempt.ending = True
    attempt.stirred = True
    clock.now += 5
    looks.look()
    assert [entry[:2] for entry in looks.stuck()] == [("a", 1)]
    assert looks.next is None
    looks.forget(attempt)
    assert looks.stuck() == []
