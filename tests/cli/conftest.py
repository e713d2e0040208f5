"""The fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentrun.model import Job

from .recorded import World, steps


@pytest.fixture
def world(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    monkeypatch.setenv("AGENTRUN_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("AGENTRUN_DEBUG", raising=False)
    made = World(str(tmp_path / "state"), capsys)
    yield made
    made.close()


@pytest.fixture
def quotes() -> Callable[..., Job]:
    """The job of most tests: rates, customers, quote, mail, in this order."""

    def job(**keys: Any) -> Job:
        return Job(**({"name": "quotes", "steps": steps("rates", "customers", "quote", "mail")} | keys))

    return job
