"""Outputs as steps write them, good and bad, and what a step declares of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentrun.step.outputs import LIMIT, Outputs, OutputsError, check, read, read_exception


def outputs(tmp_path: Path, text: str | bytes, returned: str | None = None) -> Outputs:
    path = tmp_path / "a#1.out"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if returned is not None:
        (tmp_path / "a#1.out.ret").write_text(returned)
    return read(str(path))


def test_no_file_is_no_outputs(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none")) == Outputs({}, None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\n \n", {}),
        ("count=3\n", {"count": "3"}),
        ("count=3", {"count": "3"}),
        ("a=\nb= x \nc==d\n", {"a": "", "b": " x ", "c": "=d"}),
        ("a=1\na=2\n", {"a": "2"}),
        ("a-b_1=x<<y\n", {"a-b_1": "x<<y"}),
        ("list<<EOF\none\n\ntwo=2\nEOF\nb=1\n", {"list": "one\n\ntwo=2", "b": "1"}),
        ("list<<EOF\nEOF\n", {"list": ""}),
        ("list<<a=b\nx\na=b", {"list": "x"}),
        ("a=x\u2028y\x0bz\r\n", {"a": "x\u2028y\x0bz\r"}),
        ('{"a": 1, "b c": [null, true, 1.5], "d": {"e": "\\u00e9\\ud83d\\ude00"}}',
         {"a": 1, "b c": [None, True, 1.5], "d": {"e": "é😀"}}),
        ('\n  {"a": 1}\n', {"a": 1}),
        ("\ufeffa=ü", {"a": "ü"}),
    ],
)  # fmt: skip
def test_what_a_step_may_write(tmp_path: Path, text: str, values: dict[str, object]) -> None:
    assert outputs(tmp_path, text).values == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\nnonsense\n", "line 2 of the output file is neither key=value nor key<<END: 'nonsense'"),
        ("a = 1", "line 1 of the output file: 'a ' is no key"),
        ("1a=1", "'1a' is no key"),
        ("=1", "'' is no key"),
        ("a.b=1", "'a.b' is no key"),
        ("a=1\nb<<EOF\nx\n", "line 2 of the output file: the block b<<EOF has no end"),
        ("a<<\nx\n", "a<< needs a word that ends the block"),
        ('a=1\n{"b": 2}\n', "line 2 of the output file is neither"),
        ('{"a": 1}\n{"b": 2}\n', "line 2 of the output file: after the JSON object there is more"),
        ('{"a": 1,\n "b" 2}', "line 2 of the output file: Expecting ':' delimiter (column 6)"),
        ('{"a": NaN}', "cannot be used"),
        ('{"a": 1e999}', "cannot be used"),
        ('{"a": ' + "9" * 5_000 + "}", "cannot be used"),
        ('{"a": "\\ud800"}', "half of a \\u pair"),
        ('{"": 1}', "empty key"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 levels deep"),
        ('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", "nested more than 100 levels deep"),
        (b"a=1\nb=\xff\n", "not UTF-8: line 2 has the byte 0xff"),
        (b"a=1\nb=x\0y\n", "line 2 of the output file has a NUL character"),
        ("a=" + "x" * LIMIT, "larger than 1 MiB"),
        ("retry_after=soon", "retry_after='soon' is no pause"),
        ("retry_after=-3", "is no pause"),
        ("retry_after=400d", "is no pause"),
        ("retry_after=nan", "is no pause"),
        ("retry_after=", "is no pause"),
        ('{"retry_after": true}', "is no pause"),
        ('{"retry_after": []}', "is no pause"),
        ('{"retry_after": 1e300}', "is no pause"),
    ],
)
def test_what_it_may_not_write(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(OutputsError) as caught:
        outputs(tmp_path, text)
    assert message in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_output_that_is_no_file(tmp_path: Path, make: object) -> None:
    make(tmp_path / "out")  # type: ignore[operator]
    with pytest.raises(OutputsError):
        read(str(tmp_path / "out"))


def test_large_but_flat_json_is_no_deep_json(tmp_path: Path) -> None:
    values = {"rows": [[i, {"n": i}] for i in range(5_000)]}
    assert outputs(tmp_path, json.dumps(values)).values == values


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        ("retry_after=30", 30_000), ("retry_after=0", 0), ("retry_after=1.5", 1_500), ("retry_after=5m", 300_000),
        ("retry_after=1h30m", 5_400_000), ('{"retry_after": 2}', 2_000), ('{"retry_after": "50ms"}', 50),
        ("a=1", None), ('{"retry_after": null}', None),
    ],
)  # fmt: skip
def test_retry_after_is_a_pause_and_no_output(tmp_path: Path, text: str, pause: int | None) -> None:
    found = outputs(tmp_path, text)
    assert found.retry_after == pause
    assert "retry_after" not in found.values


def test_what_was_returned_is_laid_over_what_was_written(tmp_path: Path) -> None:
    assert outputs(tmp_path, "a=1\nb=1\n", '{"b": 2, "c": [3]}').values == {"a": "1", "b": 2, "c": [3]}


def test_the_limit_counts_both(tmp_path: Path) -> None:
    half = "x" * (LIMIT * 2 // 3)
    with pytest.raises(OutputsError, match="larger than 1 MiB"):
        outputs(tmp_path, f"a={half}", json.dumps({"b": half}))


# ---- check


@pytest.mark.parametrize(
    ("value", "kind", "checked"),
    [
        ("3", "integer", 3), (" -3 ", "integer", -3), (3, "integer", 3), (3.0, "integer", 3),
        ("1.5", "number", 1.5), ("2", "number", 2), (2, "number", 2), (1.5, "number", 1.5),
        ("true", "boolean", True), ("false", "boolean", False), (True, "boolean", True),
        ("[1, 2]", "array", [1, 2]), ([], "array", []),
        ('{"a": 1}', "object", {"a": 1}), ({}, "object", {}),
        ("3", "string", "3"), ("", "string", ""),
    ],
)  # fmt: skip
def test_check_reads_text_as_the_declared_type(value: object, kind: str, checked: object) -> None:
    result = check({"x": value, "other": "o"}, {"x": kind})
    assert result == {"x": checked, "other": "o"}
    assert type(result["x"]) is type(checked)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("three", "integer"), ("", "integer"), ("1.5", "integer"), (1.5, "integer"), (True, "integer"),
        (None, "integer"), ("1_000", "integer"), ("9" * 5_000, "integer"),
        ("x", "number"), ("NaN", "number"), ("Infinity", "number"), ("1e999", "number"), ("true", "number"),
        (True, "number"), ("[1]", "number"),
        ("yes", "boolean"), ("True", "boolean"), (1, "boolean"), ("1", "boolean"),
        ("{}", "array"), ("a,b", "array"), ({}, "array"), ("[1", "array"), ("[" * 50_000, "array"),
        ("[]", "object"), ([], "object"),
        (3, "string"), (None, "string"), ([], "string"),
    ],
)  # fmt: skip
def test_check_refuses_another_type(value: object, kind: str) -> None:
    with pytest.raises(OutputsError, match="the output 'x' is ") as caught:
        check({"x": value}, {"x": kind})
    assert kind in caught.value.message
    assert len(caught.value.message) < 200


def test_check_names_what_is_missing() -> None:
    with pytest.raises(OutputsError, match="the output 'count' is missing") as caught:
        check({"b": 1, "a": 2}, {"count": "integer"})
    assert "(there is a, b)" in caught.value.message and "as integer" in caught.value.message


# ---- exceptions


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"type": "E"}'])
def test_no_whole_record_of_an_exception_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "a#1.exc"
    if text is not None:
        path.write_text(text)
    assert read_exception(str(path)) is None
