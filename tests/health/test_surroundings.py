"""What a process is given, good and bad."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agentrun.health.checkup import CHECKS, examine, look
from agentrun.health.site import Site

from .conftest import Patient
from .test_kernel import ask_elsewhere


@pytest.mark.parametrize("name", ["python", "home", "umask", "time_zone", "locale"])
def test_what_tests_are_given_will_do(patient: Patient, name: str) -> None:
    patient.good(name)


@pytest.mark.parametrize(
    ("zone", "ok"),
    [
        ("UTC", True), ("", True), (":UTC", True), ("CET-1CEST,M3.5.0,M10.5.0/3", True), ("<+03>-3", True),
        ("Europe/Nowhere", False), (":Mars/Base", False), ("Riga", False),
    ],
)  # fmt: skip
def test_time_zones(zone: str, ok: bool) -> None:
    found = look("time_zone", Site("/nonexistent", {"TZ": zone}))
    assert found.ok == ok
    if not ok:
        assert f"TZ={zone} names no zone" in found.detail


def test_a_zone_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "Mine").touch()
    assert look("time_zone", Site("/nonexistent", {"TZ": "Mine", "TZDIR": str(tmp_path)})).ok


@pytest.mark.skipif(os.geteuid() == 0, reason="the state folder of root is not in its home")
def test_a_home_that_is_needed() -> None:
    for environ in ({}, {"HOME": "/nonexistent"}):
        assert not look("home", Site("/nonexistent/state", environ)).ok


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_a_home_that_is_not_needed(home: str, tmp_path: Path) -> None:
    found = look("home", Site(str(tmp_path), {"HOME": home, "AGENTRUN_HOME": str(tmp_path)}))
    assert found.ok
    assert "steps that need one will fail" in found.detail


def test_a_mask_under_which_nothing_can_be_used() -> None:
    said = ask_elsewhere("umask", "umask 0277")
    assert said.startswith("False | umask is 0277: what agentrun and its steps make could not be used | ")
    assert ask_elsewhere("umask", "umask 077").startswith("True | umask 0077")


def test_a_locale_in_which_names_are_lost() -> None:
    off = "export PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=utf-8"
    assert ask_elsewhere("locale", f"{off} LC_ALL=C").startswith("False | names of files are ascii here (C)")
    assert ask_elsewhere("locale", "export LC_ALL=xx_YY.UTF-8").startswith("True | xx_YY")


def test_an_interpreter_that_is_gone(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert "the interpreter /nonexistent/python is gone, or not yours to execute" in patient.bad("python")


def test_an_interpreter_that_finds_another_agentrun(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "agentrun").mkdir()
    (tmp_path / "agentrun" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert f"imports another agentrun ({tmp_path}/agentrun)" in patient.bad("python")
    (tmp_path / "agentrun" / "__init__.py").write_text("raise ImportError('broken')")
    assert "cannot import agentrun: ImportError: broken" in patient.bad("python")


def test_there_are_checks_enough_and_each_has_its_answer(patient: Patient) -> None:
    assert len(CHECKS) >= 20
    site = Site(patient.root, patient.environ, patient.now)
    found = list(examine(site))
    site.close()
    assert [check.name for check in found] == list(CHECKS)
    assert all(check.detail and bool(check.remedy) != check.ok for check in found)
