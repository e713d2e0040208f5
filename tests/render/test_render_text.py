"""What is made fit for people: terminals, tables, times, words, problems."""

from __future__ import annotations

import io
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from agentrun.model import Problem
from agentrun.render import times, words
from agentrun.render.problems import problem_lines
from agentrun.render.tables import Column, Row, table
from agentrun.render.terminal import Look, columns_of, fit, look_of, printable

NOW = 1_795_168_800_000  # 2026-11-20T10:00:00Z


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_pipe_has_no_width_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    look = look_of(io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert (look.terminal, look.width, look.colour, look.unicode) == (False, None, False, True)
    assert look.paint("x", "red") == "x"


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_a_terminal(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colour: bool) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COLUMNS": "44", "LINES": "9", **variables}.items():
        monkeypatch.setenv(name, value)
    look = look_of(Terminal())
    assert (look.terminal, look.width, look.height, look.colour) == (True, 44, 9, colour)


def test_the_size_of_a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import struct
    import termios

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 55, 0, 0))
    with os.fdopen(slave, "w") as stream:
        assert (look_of(stream).width, look_of(stream).height) == (55, 11)
    os.close(master)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext é 表 ✓", "plain\ttext é 表 ✓"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\rb\nc", "a\\rb\\nc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        (b"\xff".decode("utf-8", "surrogateescape"), "\\xff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_widths() -> None:
    assert (columns_of("abc"), columns_of("é"), columns_of("表"), columns_of("e\u0301")) == (3, 1, 2, 1)
    assert fit("abcdef", 4) == "abc…"
    assert fit("表表表", 5) == "表表…"
    assert fit("abc", 3) == "abc"
    assert fit("abcdef", None) == "abcdef"


COLUMNS = (Column("NAME", cut=True), Column("N", right=True, drop=1), Column("WHEN", drop=2))
ROWS = [
    Row(("quotes", "7", "today"), {0: ("green",)}, "a note that is long"),
    Row(("表", "12", "-"), {}),
]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (None, ["NAME     N  WHEN", "quotes   7  today  a note that is long", "表      12  -"]),
        (80, ["NAME     N  WHEN", "quotes   7  today  a note that is long", "表      12  -"]),
        (30, ["NAME     N  WHEN", "quotes   7  today", "    a note that is long", "表      12  -"]),
        (16, ["NAME     N", "quotes   7", "    a note that", "    is long", "表      12"]),
    ],
)
def test_tables(width: int | None, lines: list[str]) -> None:
    assert table(COLUMNS, ROWS, Look(terminal=width is not None, width=width)) == lines


def test_a_table_too_narrow_for_its_names_cuts_them() -> None:
    rows = [Row(("a-long-name-of-a-job", "1", ""), {})]
    assert table(COLUMNS, rows, Look(True, 12), heading=False) == ["a-long-name…"]


def test_colours_do_not_move_columns() -> None:
    plain = table(COLUMNS, ROWS, Look())
    painted = table(COLUMNS, ROWS, Look(True, 100, True))
    assert painted[1].replace("\x1b[32m", "").replace("\x1b[0m", "") == plain[1]
    assert painted[1].startswith("\x1b[32mquotes\x1b[0m   7")


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"), (0, "0.0 s"), (49, "0.0 s"), (50, "0.0 s"), (1_234, "1.2 s"), (59_940, "59.9 s"),
        (59_990, "1 min 00 s"), (247_000, "4 min 07 s"), (3_600_000, "1 h 00 min"), (7_500_000, "2 h 05 min"),
        (86_400_000 * 3 + 3_600_000 * 4, "3 d 04 h"), (-5, "0.0 s"),
    ],
)  # fmt: skip
def test_durations(ms: int | None, text: str) -> None:
    assert times.duration(ms) == text


def test_what_is_left_is_told_roughly() -> None:
    told = [times.roughly(ms) for ms in (900, 34_000, 59_000, 240_000, 7_800_000)]
    assert told == ["a few seconds", "about 30 s", "about 50 s", "about 4 min", "about 2 h 10 min"]


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        assert times.short(NOW, NOW) == "11:00:00"
        assert times.short(NOW - 86_400_000, NOW) == "Nov 19 11:00"
        assert times.short(NOW - 86_400_000 * 365, NOW) == "2025-11-20"
        assert times.short(None, NOW) == "-"
        assert times.full(NOW) == "2026-11-20 11:00:00 +0100"
        assert times.moment("10m", NOW) == NOW - 600_000
        assert times.moment("03:00", NOW) == NOW - 8 * 3_600_000
        assert times.moment("11:00:01", NOW) == NOW - 86_399_000
        assert times.moment("today", NOW) == NOW - 11 * 3_600_000
        assert times.moment("yesterday", NOW) == NOW - 35 * 3_600_000
        with pytest.raises(ValueError, match="time of day"):
            times.moment("24:00", NOW)
        assert times.moment("2026-11-20T11:00", NOW) == NOW
        assert times.moment("2026-11-20T10:00:00.250Z", NOW) == NOW + 250
        with pytest.raises(ValueError, match="now"):
            times.moment("now", NOW)
    finally:
        monkeypatch.undo()
        time.tzset()


def ended(outcome: str, **more: Any) -> Any:
    values = {"outcome": outcome, "reason": None, "exit_code": None, "signal": None, "error": None}
    return SimpleNamespace(**(values | more))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (ended("succeeded", exit_code=0), ""),
        (ended("failed", reason="exit", exit_code=127), "exit status 127 (command not found)"),
        (ended("failed", reason="exit", exit_code=3, error="exit status 3"), "exit status 3"),
        (ended("failed", reason="exit", exit_code=1, error="KeyError: 'x'"), "exit status 1: KeyError: 'x'"),
        (ended("failed", reason="signal", signal=9), "ended by SIGKILL"),
        (ended("failed", reason="signal", signal=63), "ended by signal 63"),
        (ended("timed_out", reason="timeout"), "its timeout"),
        (ended("timed_out", reason="timeout", error="timed out after 5s"), "after 5s"),
        (ended("interrupted", reason="interrupted", error="interrupted: nobody saw its end"), "nobody saw its end"),
        (ended("failed", reason="interrupted", error="interrupted three times in a row"),
         "interrupted three times in a row"),
        (ended("failed", reason="on_interrupt", error="interrupted, and its on_interrupt is `fail`"),
         "interrupted, and its on_interrupt is `fail`"),
        (ended("cancelled", reason="cancel", error="cancelled"), ""),
        (ended("skipped", reason="if"), "its `if` said no"),
        (ended("failed", reason="spawn", error="no such folder /x"), "could not be started: no such folder /x"),
        (ended("failed", reason="some_day"), "some_day"),
    ],
)
def test_causes(what: Any, text: str) -> None:
    assert words.cause(what) == text


def test_outcomes_are_counted_bad_news_first() -> None:
    counts = {"succeeded": 2, "skipped": 5, "failed": 1, "timed_out": 1, "cancelled": 0}
    assert words.outcomes(counts) == "1 failed, 1 timed out, 5 skipped, 2 succeeded"


def test_sizes() -> None:
    assert [words.size(n) for n in (0, 1023, 1024, 12_288, 1_500_000, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "12 KiB", "1.4 MiB", "3.0 TiB",
    ]  # fmt: skip


def test_problems_keep_the_caret_in_sight() -> None:
    problem = Problem("a.yaml", 3, 6, "no\x1b", "\ta: \x1bb", "one\ntwo")
    assert problem_lines([problem], Look()) == [
        "a.yaml:3:6: no\\x1b",
        "    3 |  a: \\x1bb",
        "      |         ^",
        "  hint: one",
        "        two",
    ]
    far = Problem("a.yaml", 3, 201, "m", "x" * 200 + "HERE" + "y" * 200)
    _, source, caret = problem_lines([far], Look(True, 40))
    assert max(len(source), len(caret)) <= 40
    assert source[caret.index("^") :].startswith("HERE")
    assert problem_lines([Problem("a.yaml", 1, 1, "m")], Look()) == ["a.yaml:1:1: m"]
