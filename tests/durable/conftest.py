"""What all tests of `agentrun.durable` use."""

from __future__ import annotations

from pathlib import Path

import pytest

from .rig import Step


@pytest.fixture
def place(tmp_path: Path) -> Step:
    return Step(tmp_path)
