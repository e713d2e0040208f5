"""The judge sees what is wrong, and finds nothing where nothing is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from . import judge
from .judge import Line, Watched, Written

TEN = judge.seconds("2025-11-20T10:00:00Z")
QUARTER = 900


def at(tick: int) -> str:
    return f"2025-11-20T{10 + tick // 4}:{tick % 4 * 15:02}:00.000Z"


def ran(tick: int, run: str | None = None, outcome: str = "succeeded") -> dict[str, Any]:
    return {
        "fate": "ran", "time": at(tick), "last": at(tick), "number": 1, "reason": None, "because": None,
        "scheduled": True, "run": run or f"r{tick}", "state": "finished", "outcome": outcome, "at": at(tick),
    }  # fmt: skip


def unrun(first: int, last: int, fate: str, reason: str, because: str | None = None, **other: Any) -> dict[str, Any]:
    return {
        "fate": fate, "time": at(first), "last": at(last), "number": last - first + 1, "reason": reason,
        "because": because, "scheduled": True, "run": None, "at": at(last), **other,
    }  # fmt: skip


def did(tick: int, run: str | None = None, step: str = "ab", **other: Any) -> list[Line]:
    now = TEN + tick * QUARTER + 2
    line = Line("begin", "job", TEN + tick * QUARTER, run or f"r{tick}", "a", 1, "key", now)
    return [
        line._replace(what=what, step=name, key=f"{run or tick} {name}", **other)
        for name in step for what in ("begin", "end")
    ]  # fmt: skip


CUT = Line("cut", "-", None, "-", "-", 0, "-", TEN)
FINE = [ran(0), unrun(1, 2, "missed", "catch_up"), ran(3), unrun(4, 4, "skipped", "overlap", "r3"), ran(5)]
LINES = [*did(0), *did(3), *did(5)]
LONG = [line._replace(now=TEN + 4 * QUARTER + 60) for line in did(3)]


def judged(rows: list[dict[str, Any]], lines: list[Line], **known: Any) -> list[str]:
    job = Watched("job", known=TEN - 60, written=[Written(TEN - 60, "*/15 * * * *")], **known)
    return judge.violations(job, json.dumps(rows), lines, TEN + 5 * QUARTER + 60)


def test_nothing_is_wrong() -> None:
    assert judged(FINE, [*did(0), *LONG, *did(5)]) == []
    again = [*did(0), *LONG, *did(5)[:1], CUT, *did(5)]
    assert judged([*FINE, ran(6)], [*again, *did(6)]) == []


@pytest.mark.parametrize(
    ("rows", "lines", "words"),
    [
        (FINE[1:], LINES[4:], "LOST: 11-20 10:00:00"),
        ([*FINE, ran(5, "r9")], [*LINES, *did(5, "r9")], "TWICE: 11-20 11:15:00"),
        (FINE, [*LINES, *did(5, "r9")], "TWICE: 11-20 11:15:00 ran as"),
        (FINE, [*LINES, *did(1)], "run r1 of 11-20 10:15:00 is in the ledger, and in no account"),
        ([*FINE, unrun(5, 5, "missed", "catch_up")], LINES, "ran and missed"),
        ([*FINE[:1], unrun(1, 1, "missed", "catch_up"), *FINE[2:]], LINES, "LOST: 11-20 10:30:00"),
        ([*FINE[:1], unrun(1, 2, "missed", "catch_up", number=3), *FINE[2:]], LINES, "3 ticks missed"),
        (FINE, LINES[:-2], "its steps did not end"),
        ([*FINE[:-1], ran(5, outcome="failed")], LINES, "ended as failed"),
        ([*FINE[:-1], ran(5, outcome="skipped")], LINES, "is skipped, and began"),
        (FINE, [*LINES, did(5, step="b")[0]], "began twice, and nothing had interrupted it"),
        (FINE, [*LINES, CUT, did(5)[0]], "step a of run r5 began after b"),
        (FINE, LINES, "because of run r3, which was over"),
        ([*FINE[:3], unrun(4, 4, "skipped", "overlap", "r8"), ran(5)], LINES, "r8, which has no account"),
        ([*FINE[:3], unrun(4, 4, "skipped", "paused"), ran(5)], LINES, "when it was not"),
        ([*FINE[:3], unrun(4, 4, "missed", "limit"), ran(5)], LINES, "for the limit, with 0 newer ones"),
        ([*FINE[:3], unrun(4, 4, "missed", "start_deadline"), ran(5)], LINES, "as too old"),
        (FINE, [*did(0), *did(3)[:3], *did(5)], "run r5 began while r3 was at work"),
        ([*FINE[:3], unrun(4, 4, "missed", "file"), ran(5)], LINES, "for the reason 'file'"),
    ],
)
def test_each_wrong_is_seen(rows: list[dict[str, Any]], lines: list[Line], words: str) -> None:
    found = judged(rows, lines)
    assert any(words in one for one in found), found


def test_what_a_job_promises_is_kept() -> None:
    fine = [*did(0), *LONG, *did(5)]
    assert any("catch_up, which says all" in one for one in judged(FINE, fine, catch_up="all"))
    assert any("was started in time" in one for one in judged(FINE, fine, fired={TEN + QUARTER}))
    again = [*did(0), *LONG, *did(5)[:3], CUT, did(5, step="b")[0]]
    assert any("against its on_interrupt" in one for one in judged(FINE, again, once=("b",)))


def test_nothing_runs_in_a_pause() -> None:
    found = judged(FINE, [*did(0), *LONG, *did(5)], pauses=[[TEN - 60, TEN + 60]])
    assert found == ["job: 11-20 10:00:00 is ran at 11-20 10:00:00, when the job was paused"]


def test_a_schedule_that_was_edited() -> None:
    job = Watched("job", known=TEN, written=[Written(TEN - 60, "*/15 * * * *"), Written(TEN + 1000, "5 * * * *")])
    assert [judge.shown(tick)[6:11] for tick in job.ticks(TEN + 8000)] == ["10:15", "11:05", "12:05"]


def test_only_what_was_missed_may_be_said() -> None:
    told = "agentrun: 2 ticks were missed of job keeps: 2025-11-20T10:15:00.000Z to 2025-11-20T10:30:00.000Z\n"
    told += "  `agentrun ticks keeps` shows them, `agentrun backfill` runs them\n"
    assert judge.but_missed(told) == ""
    assert judge.but_missed(told + "agentrun: a mistake\n") == "agentrun: a mistake"
