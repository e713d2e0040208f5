"""Notices that were given up or that nobody delivers, and a config.yaml that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrun.store.notices import TRIES, Notices, Posting

from .conftest import Patient

WHO = {"on": ["missed"], "to": [{"kind": "mail", "address": "a@b"}], "every": 10}
DAY = 86_400_000


def test_what_was_told_or_is_tried_is_good(patient: Patient) -> None:
    patient.run().finish()
    assert patient.good("notices") == "what was to be told has been told, or is tried again"


def test_what_nobody_delivers(patient: Patient) -> None:
    patient.run().finish()
    Notices(patient.world.store.database).miss("quotes", "/q.yaml", WHO, [{"reason": "limit"}], patient.now)
    patient.good("notices")
    patient.now += DAY
    assert patient.bad("notices").startswith("nobody delivers 1 notice of quotes → agentrun resume")


def test_what_was_given_up(patient: Patient) -> None:
    patient.run().finish()
    notices = Notices(patient.world.store.database)
    notices.miss("quotes", "/q.yaml", WHO, [{"reason": "limit"}], patient.now)
    target = {"kind": "mail", "address": "a@b"}
    notices.post(notices.raised()[0], [Posting(target, "missed", {})], [], patient.now)
    for _ in range(TRIES):
        notices.settle([(notices.claim(notices.queued(), patient.now)[0], "no route to host")], patient.now)
    said = patient.bad("notices")
    assert said.startswith("1 notice of quotes could not be delivered; the last: no route to host → agentrun notify qu")
    patient.now += 8 * DAY
    patient.good("notices")


def test_config_yaml(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if "there is no config.yaml" not in patient.good("config"):
        pytest.skip("this machine's root has one in /etc")
    path = tmp_path / "agentrun/config.yaml"
    path.parent.mkdir()
    path.write_text("keep: {runs: 5}\n")
    assert patient.good("config") == str(path)
    path.write_text("keeep: {}\nsmtp: {}\n")
    said = patient.bad("config")
    assert said.startswith(f"{path}:1:1: unknown key 'keeep' (did you mean 'keep'?), and 1 problem more → ")
    assert "none of it counts" in said
