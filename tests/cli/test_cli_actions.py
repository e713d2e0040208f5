"""cancel and events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from agentrun.model import Job
from agentrun.store.folders import home

from .recorded import World

Quotes = Callable[..., Job]


def test_cancel_writes_its_wish_and_rings(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold()
    bell = run.folder.bell
    os.mkfifo(bell)
    ear = os.open(bell, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status, out, err = world.call("cancel", "quotes")
        assert (status, out, err) == (0, "", "agentrun: run k3v9x00001 of quotes is being cancelled\n")
        assert len(os.read(ear, 10)) == 1
    finally:
        os.close(ear)
    assert [kind for _, kind, _ in world.reader.wishes("k3v9x00001")] == ["cancel"]


def test_cancel_without_a_bell(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().hold()
    assert world.call("cancel", "quotes")[0] == 0


def test_cancel_waits_for_the_end(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold()
    os.mkfifo(run.folder.bell)
    code = "import sys; from agentrun.cli.app import run_app; sys.exit(run_app(sys.argv[1:]))"
    waiter = subprocess.Popen(
        [sys.executable, "-c", code, "cancel", "quotes", "--wait"], stderr=subprocess.PIPE, text=True
    )
    with waiter, open(run.folder.bell, "rb", buffering=0) as ear:
        assert ear.read(1)
        run.finish("cancelled", reason="cancel").let_go()
        _, err = waiter.communicate(timeout=10)
    assert (waiter.returncode, err) == (0, "agentrun: run k3v9x00001 of quotes has ended: cancelled\n")


def test_a_finished_run_is_not_cancelled(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().finish()
    status, _, err = world.call("cancel", "quotes")
    assert (status, err) == (75, "agentrun: run k3v9x00001 has finished already: succeeded\n")
    assert world.call("cancel", "nope")[0] == 66


def test_events_of_a_run(world: World, quotes: Quotes) -> None:
    world.record("k3v9x07f3a", quotes()).take().fail("rates").finish("failed", error="it failed")
    status, out, _ = world.call("events", "quotes")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("2026-11-20T10:00:00.000Z quotes/7f3a ann run_created file=/opt/quotes/quotes.yaml")
    assert lines[2:] == [
        "2026-11-20T10:00:00.000Z quotes/7f3a supervisor attempt_started rates#1",
        "2026-11-20T10:00:01.200Z quotes/7f3a supervisor attempt_ended rates#1 outcome=failed reason=exit exit_code=3",
        "2026-11-20T10:00:01.200Z quotes/7f3a supervisor step_finished rates outcome=failed reason=exit",
        '2026-11-20T10:00:01.200Z quotes/7f3a supervisor run_finished outcome=failed error="it failed"',
    ]
    assert world.call("events", "quotes", "--tail", "1")[1].splitlines() == lines[-1:]
    assert world.call("events")[1].splitlines() == lines
    assert world.call("events", "-n", "2")[1].splitlines() == lines[-2:]
    assert world.call("events", "quotes", "--follow")[1].splitlines() == lines
    assert world.call("events", "--follow")[0] == 2


def test_events_as_json_lines(world: World, quotes: Quotes) -> None:
    world.record("k3v9x07f3a", quotes()).take()
    events = [json.loads(line) for line in world.call("events", "quotes", "--json")[1].splitlines()]
    assert [event["kind"] for event in events] == ["run_created", "run_started"]
    assert events[0] | {"detail": None} == {
        "schema": "agentrun.event/1", "run": "k3v9x07f3a", "job": "quotes", "seq": 1,
        "time": "2026-11-20T10:00:00.000Z", "kind": "run_created", "instance": None, "attempt": None, "by": "ann",
        "detail": None,
    }  # fmt: skip
    assert home() == world.root
