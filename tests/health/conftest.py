"""A state folder of the test's own, and the checks that look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrun.health.checkup import look
from agentrun.health.finding import Finding
from agentrun.health.site import Site
from agentrun.model import Job
from tests.cli.recorded import START, Recorded, World, steps

LONG_AGO = 1_750_000_000_000  # 2025-06: before the clock of whatever machine asks


class Patient:
    """A state folder that something can be wrong with. `now` is the time that the checks are told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._left = False
        self.root = world.root
        self.now = START + 60_000
        self.environ: dict[str, str] = {"AGENTRUN_HOME": self.root, "HOME": os.path.dirname(self.root)}

    def ask(self, name: str) -> Finding:
        """What one check finds now."""
        site = Site(self.root, self.environ, self.now)
        try:
            return look(name, site)
        finally:
            site.close()

    def good(self, name: str) -> str:
        found = self.ask(name)
        assert found.ok, found
        assert found.remedy == ""
        return found.detail

    def bad(self, name: str) -> str:
        """What is said and what is to be done about it."""
        found = self.ask(name)
        assert not found.ok, found
        assert found.remedy
        return f"{found.detail} → {found.remedy}"

    def run(self, run_id: str = "k3v9x00001", **more: Any) -> Recorded:
        """A run that has begun and that nobody holds."""
        run = self.world.record(run_id, Job("quotes", steps("rates", "mail")), **more).take()
        Path(run.folder.lock).touch(0o600)
        return run

    def leave(self) -> None:
        """Nobody has the database open any more."""
        if not self._left:
            self._left = True
            self.world.close()

    def settled(self) -> None:
        """Write all of the -wal into the database, as the last writer does that goes."""
        self.world.store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Patient]:
    monkeypatch.setenv("AGENTRUN_HOME", str(tmp_path / "state"))
    world = World(str(tmp_path / "state"), capsys)
    made = Patient(world)
    yield made
    made.leave()


@pytest.fixture
def fresh(tmp_path: Path) -> Site:
    """Where agentrun has never run."""
    return Site(str(tmp_path / "state"), {"HOME": str(tmp_path)})
