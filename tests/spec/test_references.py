from __future__ import annotations

import pytest

from agentrun.model import JSON
from agentrun.spec.references import Unresolved, as_text, find, malformed, pick, resolve

VALUES: dict[tuple[str, ...], JSON] = {
    ("params", "n"): 3,
    ("params", "who"): "acme",
    ("params", "trick"): "${{ params.n }}",
    ("steps", "a", "outputs", "list"): [{"x": 1}, "é"],
}


def lookup(path: tuple[str, ...]) -> JSON:
    if path not in VALUES:
        raise Unresolved(path, "not there")
    return VALUES[path]


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("plain", "plain"),
        ("${{ params.n }}", 3),
        ("${{params.n}}", 3),
        ("n=${{ params.n }}", "n=3"),
        ("${{ params.who }}-${{ params.n }}", "acme-3"),
        ("${{ steps.a.outputs.list }}", [{"x": 1}, "é"]),
        (" ${{ steps.a.outputs.list }}", ' [{"x":1},"é"]'),
        ({"k": ["${{ params.n }}", 5, None], "${{ params.n }}": 1}, {"k": [3, 5, None], "${{ params.n }}": 1}),
        ("${{ params.trick }}", "${{ params.n }}"),
        ("${HOME} $${{ params.who }}", "${HOME} $acme"),
    ],
)
def test_resolve(value: JSON, becomes: JSON) -> None:
    assert resolve(value, lookup) == becomes


def test_what_is_not_there_never_becomes_empty() -> None:
    with pytest.raises(Unresolved, match=r"params\.absent: not there") as caught:
        resolve({"a": ["x ${{ params.absent }}"]}, lookup)
    assert caught.value.path == ("params", "absent")


def test_find() -> None:
    value = {"a": ["${{ params.x }} and ${{run.id}}"], "b": {"c": "${{ steps.a-1.outputs.list.0 }}"}, "d": 1}
    assert [(found.dotted, found.text) for found in find(value)] == [
        ("params.x", "${{ params.x }}"), ("run.id", "${{run.id}}"),
        ("steps.a-1.outputs.list.0", "${{ steps.a-1.outputs.list.0 }}"),
    ]


def test_malformed() -> None:
    assert list(malformed("${{ a.b }} ${{ a == b }} ${{ }} ${{ a. }} ${{ open")) == [
        "${{ a == b }}", "${{ }}", "${{ a. }}", "${{ open",
    ]


def test_pick() -> None:
    value = {"list": [{"name": "x"}]}
    path = ("steps", "a", "outputs", "list", "0", "name")
    assert pick(value, path, 3) == "x"
    assert pick(value, path, 6) is value


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (("o", "nope"), "there is no 'nope' in o"),
        (("o", "list", "7"), "o.list is a list of 1, counted from 0"),
        (("o", "list", "x"), "o.list is a list of 1, counted from 0"),
        (("o", "text", "x"), "o.text is neither an object nor a list"),
    ],
)
def test_pick_what_is_not_there(path: tuple[str, ...], why: str) -> None:
    with pytest.raises(Unresolved) as caught:
        pick({"list": [1], "text": "t"}, path, 1)
    assert caught.value.why == why


def test_as_text() -> None:
    values = ["a b", 1, 1.5, True, None, ["é", {"k": 1}]]
    assert [as_text(value) for value in values] == ["a b", "1", "1.5", "true", "null", '["é",{"k":1}]']
