"""The journal of calls as the supervisor reads it: while it grows, and whatever else may stand in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentrun.step.calls import Call, CallsReader

LINE = {"stream": 0, "attempt": 2, "call": "agent.ask", "args": '{"x":1}', "key": None, "n": 4, "in": "",
        "at": 1_780_000_000_000, "ms": 12, "result": '["ü"]'}  # fmt: skip
CALL = Call(2, "agent.ask", '{"x":1}', None, '["ü"]', None, 1_780_000_000_000, 12)


def line(**changed: object) -> bytes:
    return json.dumps(dict(LINE, **changed), ensure_ascii=False).encode() + b"\n"


def test_each_call_once_while_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    reader = CallsReader(str(path))
    assert reader.read_new() == []
    begin = b'{"stream":0,"attempt":1,"argv":["a.py"],"nth":0,"pid":1,"at":1}\n'
    path.write_bytes(begin + line() + line(attempt=3)[:20])
    assert reader.read_new() == [CALL]
    assert reader.offset == len(begin + line())
    with path.open("ab") as file:
        file.write(line(attempt=3)[20:] + line(key="k", args="null"))
    found = [CALL._replace(attempt=3), CALL._replace(key="k", arguments="null")]
    assert CallsReader(str(path), reader.offset).read_new() == found
    assert reader.read_new() == found
    assert reader.read_new() == []
    assert reader.offset == path.stat().st_size


def test_a_call_that_raised(tmp_path: Path) -> None:
    raised = {name: value for name, value in LINE.items() if name != "result"}
    (tmp_path / "calls").write_text(json.dumps(dict(raised, error="KeyError: 'x'")) + "\n")
    assert CallsReader(str(tmp_path / "calls")).read_new() == [CALL._replace(result=None, error="KeyError: 'x'")]


@pytest.mark.parametrize(
    "foreign",
    [
        b"\n", b"x\n", b"\xff\0\n", b"[]\n", b"7\n", b"null\n", b'"call"\n', b"[" * 100_000 + b"\n",
        line()[:-1] + b" (torn)\n", line(attempt="1"), line(attempt=True), line(at=-1), line(ms=1.5), line(at=1 << 60),
        line(call=None), line(args={"x": 1}), line(args="{"), line(result="x"), line(key=1), line(error="both"),
        line(result=None), line(args="[" * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_call_is_passed_over(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "calls"
    path.write_bytes(line() + foreign + line())
    assert CallsReader(str(path)).read_new() == [CALL, CALL]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_journal_that_is_no_file(tmp_path: Path, make: object) -> None:
    make(tmp_path / "calls")  # type: ignore[operator]
    assert CallsReader(str(tmp_path / "calls")).read_new() == []


def test_it_reads_a_bounded_part_at_a_time_and_passes_over_what_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    large = line(result=json.dumps("x" * 1_000_000))
    path.write_bytes(large * 9 + b"[" * (20 << 20) + b"\n" + line() + line()[:-1])
    reader = CallsReader(str(path))
    found = [len(reader.read_new())]
    assert (found, reader.more) == ([4], True)
    while reader.more:
        found.append(len(reader.read_new()))
    assert sum(found) == 10 and max(found) < 6
    assert reader.offset == path.stat().st_size - len(line()) + 1
    with path.open("ab") as file:
        file.write(b"\n")
    assert (reader.read_new(), reader.more) == ([CALL], False)
