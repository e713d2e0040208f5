"""How the findings of `convert --scan` are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrun.convert.finding import Finding
from agentrun.render.scan import finding_lines, show_scan
from agentrun.render.terminal import Look

FOUND = [
    Finding("bin/a.sh", 3, "retries by hand", "a kill ends it", "`retry` of a step"),
    Finding("bin/a.sh", 120, "a pid file", "left behind", "`concurrency: forbid`"),
    Finding("b\x1b.py", 1, "a POST", "sent again", "ask"),
]


def test_a_pipe_gets_a_line_for_each() -> None:
    assert list(finding_lines(FOUND, Look())) == [
        "bin/a.sh:3: retries by hand — a kill ends it → `retry` of a step",
        "bin/a.sh:120: a pid file — left behind → `concurrency: forbid`",
        "b\\x1b.py:1: a POST — sent again → ask",
    ]


def test_a_pipe_without_unicode() -> None:
    assert next(iter(finding_lines(FOUND, Look(unicode=False)))).endswith("hand - a kill ends it -> `retry` of a step")


def test_a_terminal_gets_them_by_file_and_wrapped() -> None:
    long = FOUND[0]._replace(why="a kill or a reboot between two tries ends it")
    assert list(finding_lines([long, *FOUND[1:]], Look(terminal=True, width=40))) == [
        "bin/a.sh",
        "     3  retries by hand",
        "        a kill or a reboot between two",
        "        tries ends it",
        "        → `retry` of a step",
        "   120  a pid file",
        "        left behind",
        "        → `concurrency: forbid`",
        "",
        "b\\x1b.py",
        "     1  a POST",
        "        sent again",
        "        → ask",
    ]


def test_json_and_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.sh").write_text("while true; do sleep 60; done\n")
    assert show_scan(str(tmp_path), True) == 0
    shown = capsys.readouterr()
    (one,) = json.loads(shown.out)
    assert list(one) == ["schema", "file", "line", "what", "why", "to_do"]
    assert (one["schema"], one["file"], one["line"]) == ("agentrun.finding/1", "x.sh", 1)
    assert shown.err == "agentrun: 1 place in 1 of 1 file\n"


def test_nothing_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_scan(str(tmp_path), True) == 0
    assert capsys.readouterr() == ("[]\n", "agentrun: nothing found in 0 files\n")
    assert show_scan(str(tmp_path), False) == 0
    assert capsys.readouterr().out == ""
