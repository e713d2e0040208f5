from __future__ import annotations

import pytest

from agentrun.spec.nearest import distance, nearest, suggestion

NAMES = ["name", "env", "timeout", "needs", "continue_on_error"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("timout", "timeout"), ("tiemout", "timeout"), ("Timeout", "timeout"), ("nme", "name"), ("envs", "env"),
        ("need", "needs"), ("continueonerror", "continue_on_error"), ("x", None), ("frobnicate", None), ("", None),
    ],
)
def test_nearest(word: str, name: str | None) -> None:
    assert nearest(word, NAMES) == name


def test_first_of_equals() -> None:
    assert nearest("stepx", ["step1", "step2"]) == "step1"


def test_distance() -> None:
    pairs = [("", ""), ("a", ""), ("ab", "ba"), ("abc", "axc"), ("ca", "abc")]
    assert [distance(a, b) for a, b in pairs] == [0, 1, 1, 1, 3]


def test_suggestion() -> None:
    assert suggestion("evn", NAMES) == " (did you mean 'env'?)"
    assert suggestion("zzz", NAMES) == ""
