"""Small records for the store's tests: a job of a few steps, a new run, the changes of a turn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agentrun.model import Job, Param, Step
from agentrun.store.changes import AttemptEnded, AttemptStarted, Change, RunFinished, StepSettled
from agentrun.store.snapshots import Snapshot
from agentrun.store.write import NewRun, Stamp, Store

ROOT = Path(__file__).parents[2]
NOW = 1_780_000_000_000
BOOT = "0b3f1c4e-boot"
OWNER = {"pid": 4711, "start": 99, "boot": BOOT, "user": "ada"}


def job(*steps: str, name: str = "quotes", params: dict[str, Param] | None = None) -> Job:
    """A job of steps that do nothing."""
    made = tuple(Step(id=step, index=index, run="true") for index, step in enumerate(steps))
    return Job(name=name, steps=made, params=params or {})


def snapshot(*steps: str, **more: Any) -> Snapshot:
    """A job file of such steps, with a text that decodes to the same."""
    made = job(*(steps or ("a", "b", "c")), **more)
    lines = [f"name: {made.name}", "steps:", *(f"  - {{id: {step.id}, run: 'true'}}" for step in made.steps)]
    return Snapshot("\n".join(lines) + "\n", made)


def new_run(run_id: str = "1aaaaaaaaa", **more: Any) -> NewRun:
    """A run of that job."""
    known: dict[str, Any] = {
        "id": run_id,
        "job": "quotes",
        "file": "/jobs/quotes.yaml",
        "params": {},
        "run_key": None,
        "scheduled_time": None,
        "created_at": NOW,
        "by": "ada",
        "steps_total": 3,
    }
    return NewRun(**{**known, **more})


def stamp(now: int = NOW, elapsed: int = 0) -> Stamp:
    """A moment."""
    return Stamp(now=now, elapsed=elapsed, boottime=5_000 + elapsed, boot_id=BOOT)


def started(step: str, number: int = 1, at: int = NOW, *, position: int = 0, tries: int = 0) -> AttemptStarted:
    """An attempt begins."""
    return AttemptStarted(step, position, number, tries, 0, False, f"key-{step}", "{}", at)


def ended(step: str, number: int = 1, at: int = NOW + 10, **more: Any) -> AttemptEnded:
    """An attempt ends, well where nothing else is said."""
    return AttemptEnded(**{"instance": step, "number": number, "outcome": "succeeded", "at": at, **more})


def settled(step: str, at: int = NOW + 10, *, position: int = 0, **more: Any) -> StepSettled:
    """A step's checkpoint."""
    return StepSettled(**{"instance": step, "position": position, "outcome": "succeeded", "at": at, **more})


def finished(outcome: Any = "succeeded", at: int = NOW + 20, **more: Any) -> RunFinished:
    """A run's end."""
    return RunFinished(outcome, at, **more)


def owned(store: Store, run_id: str = "1aaaaaaaaa", **more: Any) -> str:
    """Record a run that this process owns, epoch 1; returns its id."""
    store.record(new_run(run_id, **more), snapshot(), owner=OWNER, stamp=stamp())
    return run_id


def commit(store: Store, run_id: str, *changes: Change, epoch: int = 1, **more: Any) -> None:
    """One turn of the loop."""
    store.commit(run_id, epoch, stamp(), changes, **{"results_seen": 0, **more})


def failed_run(store: Store, run_id: str = "1aaaaaaaaa") -> str:
    """A run whose `a` succeeded, whose `b` failed, and whose `c` was skipped for it."""
    owned(store, run_id)
    commit(store, run_id, started("a"), started("b", position=1), started=2)
    commit(
        store,
        run_id,
        ended("a"),
        settled("a", outputs='{"n":1}'),
        ended("b", outcome="failed", reason="exit", exit_code=3, error="exit status 3"),
        settled("b", position=1, outcome="failed", reason="exit", exit_code=3, error="exit status 3"),
        settled("c", position=2, outcome="skipped", reason="upstream"),
        finished("failed", exit_code=3, error="step b failed"),
    )
    return run_id


def python(script: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """A Python process that runs `script`, with pipes; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )
