"""A world of recorded runs: the real store in a folder of the test's own, written as the supervisor writes it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import pytest

from agentrun.cli.app import run_app
from agentrun.model import Job, Step, split_instance
from agentrun.step.logs import LogWriter
from agentrun.store import locks
from agentrun.store.changes import AttemptEnded, AttemptStarted, RunFinished, StepSettled
from agentrun.store.database import open_for_writing
from agentrun.store.folders import RunFolder
from agentrun.store.instances import Item, ListFrozen, RoundBegun
from agentrun.store.read import Reader
from agentrun.store.snapshots import Snapshot
from agentrun.store.write import NewRun, Stamp, Store

START = 1_795_168_800_000  # 2026-11-20T10:00:00Z
LOGIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TEXT = "steps: [{run: 'true'}]\n"


def steps(*ids: str, **keys: Any) -> tuple[Step, ...]:
    """A sequence of steps, each after the one before it."""
    return tuple(
        Step(id=name, index=n, needs=(ids[n - 1],) if n else (), run="true", **keys) for n, name in enumerate(ids)
    )


class Recorded:
    """One run, and the verbs of a supervisor's turn. `now` is its clock, in ms; each verb is a commit."""

    def __init__(self, world: World, run_id: str, job: Job) -> None:
        self.world, self.id, self.job = world, run_id, job
        self.folder = RunFolder(world.root, run_id)
        self.epoch = 0
        self.now = START
        self._lock = -1

    def take(self, *, resumed: bool = False) -> Recorded:
        self.epoch = self.world.store.take(
            self.id, seen_epoch=self.epoch, owner={"pid": 1, "user": "ann"}, stamp=self._stamp(), resumed=resumed
        )
        return self

    def commit(self, *changes: Any) -> Recorded:
        self.world.store.commit(self.id, self.epoch, self._stamp(), changes, results_seen=0)
        return self

    def wait(self, ms: int) -> Recorded:
        self.now += ms
        return self

    def start(self, name: str, attempt: int = 1, inputs: str = "{}") -> Recorded:
        step = self.job.step(split_instance(name)[0])
        key = f"key-{name}"
        return self.commit(AttemptStarted(name, step.index, attempt, attempt - 1, 0, False, key, inputs, self.now))

    def end(self, name: str, outcome: str = "succeeded", attempt: int = 1, **more: Any) -> Recorded:
        return self.commit(AttemptEnded(name, attempt, outcome, self.now, **more))  # type: ignore[arg-type]

    def settle(self, name: str, outcome: str = "succeeded", **more: Any) -> Recorded:
        return self.commit(StepSettled(name, self.job.step(split_instance(name)[0]).index, outcome, self.now, **more))  # type: ignore[arg-type]

    def succeed(self, name: str, ms: int = 300) -> Recorded:
        return self.start(name).wait(ms).end(name, exit_code=0).settle(name, exit_code=0)

    def fail(self, name: str, ms: int = 1200, status: int = 3, attempt: int = 1) -> Recorded:
        failure: dict[str, Any] = {"reason": "exit", "exit_code": status}
        self.start(name, attempt).wait(ms).end(name, "failed", attempt, **failure)
        return self.settle(name, "failed", **failure)

    def freeze(self, name: str, *items: Any) -> Recorded:
        """The list of a step with `foreach` is known."""
        frozen = [Item(n, n, f"key-{name}-{n}", json.dumps(item)) for n, item in enumerate(items)]
        return self.commit(ListFrozen(name, self.job.step(name).index, len(items), frozen, self.now))

    def begin_round(self, name: str, number: int) -> Recorded:
        """A round of a step with `repeat` begins."""
        self.commit(RoundBegun(name, self.job.step(name).index, number, self.now))
        return self.start(f"{name}[{number}]")

    def finish(self, outcome: str = "succeeded", **more: Any) -> Recorded:
        return self.commit(RunFinished(outcome, self.now, **more))  # type: ignore[arg-type]

    def write(self, name: str, *blocks: tuple[int, bytes], attempt: int = 1) -> Recorded:
        """What the attempt wrote, and how many ms after the run's start."""
        writer = LogWriter(self.folder.log(name, attempt), self.folder.log_index(name, attempt))
        for ms, block in blocks:
            writer.write(block, START + ms)
        writer.close()
        return self

    def hold(self) -> Recorded:
        """Somebody advances it: take its lease."""
        self._lock = os.open(self.folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        assert locks.try_lock(self._lock, locks.LEASE)
        return self

    def let_go(self) -> Recorded:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        return self

    def _stamp(self) -> Stamp:
        return Stamp(self.now, 0, 0, "boot")


SCRIPT = os.path.join(os.path.dirname(sys.executable), "agentrun")
PROGRAM = "agentrun" if shutil.which("agentrun", path=LOGIN_PATH) == SCRIPT else SCRIPT  # in what cron mails


class World:
    """A state folder, its store, and what the program answers to a command line."""

    def __init__(self, root: str, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.store = Store(open_for_writing(root))
        self.reader = Reader(self.store.database.connection)
        self._capture = capture
        self._runs: list[Recorded] = []

    def record(self, run_id: str, job: Job, file: str = "/opt/quotes/quotes.yaml", **more: Any) -> Recorded:
        values: dict[str, Any] = {"params": {}, "run_key": None, "scheduled_time": None, "created_at": START}
        values["by"] = "ann"
        self.store.record(
            NewRun(id=run_id, job=job.name, file=file, steps_total=len(job.steps), **(values | more)),
            Snapshot(f"# {job.name} {len(job.steps)}\n{TEXT}", job),
        )
        run = Recorded(self, run_id, job)
        run.folder.create()
        self._runs.append(run)
        return run

    def call(self, *argv: str) -> tuple[int, str, str]:
        """The exit status, stdout and stderr of a command."""
        self._capture.readouterr()
        status = run_app(argv)
        out, err = self._capture.readouterr()
        return status, out, err

    def close(self) -> None:
        for run in self._runs:
            run.let_go()
        self.store.database.close()
