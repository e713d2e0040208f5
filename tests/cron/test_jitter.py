"""How long a scheduled start waits: the same for a machine and job, spread over machines and jobs."""

from __future__ import annotations

import os

import pytest

from agentrun.cron import jitter
from agentrun.cron.jitter import here, offset


def test_it_is_the_same_for_a_machine_and_job_for_ever() -> None:
    assert offset("quotes", "host-a", 300_000) == 83_920
    assert offset("quotes", "host-b", 300_000) != offset("mail", "host-a", 300_000) != 83_920


def test_it_is_spread_evenly_and_below_the_jitter() -> None:
    waits = [offset("quotes", f"host-{number}", 1_000) for number in range(4_000)]
    assert 0 <= min(waits) < 10
    assert 990 < max(waits) < 1_000
    assert all(300 < sum(low <= wait < low + 100 for wait in waits) < 500 for low in range(0, 1_000, 100))


def test_no_jitter_is_no_wait() -> None:
    assert offset("quotes", "host-a", 0) == 0


def test_a_machine_is_known_by_its_id_else_by_its_name(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"{tmp_path}/machine-id"
    monkeypatch.setattr(jitter, "_MACHINE", file)
    assert here() == os.uname().nodename
    for text, expected in (("", os.uname().nodename), ("c0ffee\n", "c0ffee")):
        with open(file, "w") as written:
            written.write(text)
        assert here() == expected
