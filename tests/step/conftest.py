"""Rigs for tests of limits: with what this machine has, by sampling, or with cgroups that hold for sure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .shim_rig import MIB, Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Its shim, a fork of this process, looks ten times a second, so that nobody waits long for a look."""
    monkeypatch.setattr("agentrun.step.limits.LOOK", 0.1)
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def sampled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setenv("AGENTRUN_LIMITS", "sampling")
    return rig


@pytest.fixture(params=["here", "sampling"])
def either(request: pytest.FixtureRequest, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    if request.param == "sampling":
        monkeypatch.setenv("AGENTRUN_LIMITS", "sampling")
    return rig


@pytest.fixture
def kernel(rig: Rig) -> Rig:
    """With cgroups that hold memory and processes; skipped where we may not make any."""
    rig.open()
    rig.start(["true"], "first", limits={"memory": MIB << 10})
    if rig.result("first").enforced_by not in ("cgroup v1", "cgroup v2"):
        pytest.skip("no cgroups here that we may write to")
    return rig
