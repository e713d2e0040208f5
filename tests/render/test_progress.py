"""The live view, on a terminal that is played: what stands on its screen after each turn."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentrun.model import Budget, Job, Repeat, Step
from agentrun.render.progress import Progress
from agentrun.render.terminal import Look
from agentrun.store.changes import AttemptEnded, AttemptStarted, RunClosing, StepAsked, StepParked, StepSettled
from agentrun.store.instances import Item, ListFrozen, RoundBegun, UntilAnswered, UntilAsked
from agentrun.store.read import Run
from agentrun.store.stuck import StepStuck, StepUnstuck

NOW = 1_795_168_800_000


class Screen(io.StringIO):
    """Understands what the view uses: text, "up n lines", "clear from here on"."""

    def shown(self) -> list[str]:
        lines: list[str] = []
        for up, text in re.findall(r"(?:\r\x1b\[(\d+)A\x1b\[J)|([^\x1b\r]+)", self.getvalue()):
            if up:
                del lines[len(lines) - int(up) :]
            else:
                lines += text.splitlines()
        return lines


def run(total: int = 4, **more: Any) -> Run:
    values = dict.fromkeys(Run._fields)
    values |= {"id": "k3v9x07f3a", "job": "quotes", "state": "running", "params": {}, "started_at": NOW}  # type: ignore[dict-item]
    values |= {"created_at": NOW, "steps_total": total, "steps_done": 0, "resumes": 0}  # type: ignore[dict-item]
    return Run(**(values | more))  # type: ignore[arg-type]


def job(total: int = 4) -> Job:
    return Job("quotes", tuple(Step(id=f"s{n}", index=n) for n in range(total)))


def started(n: int, at: int = NOW, attempt: int = 1) -> AttemptStarted:
    return AttemptStarted(f"s{n}", n, attempt, 0, 0, False, "", "{}", at)


def settled(n: int, at: int, outcome: Any = "succeeded", **more: Any) -> StepSettled:
    return StepSettled(f"s{n}", n, outcome, at, **more)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


def view(screen: Screen, width: int = 80, height: int = 24) -> Progress:
    return Progress(screen, Look(True, width, False, True, height))


def test_a_whole_run(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), 40_000, NOW)
    shown.changed([started(0), StepAsked("s1", 1, NOW)], NOW + 200)
    shown.tick(NOW + 1_000)
    assert screen.shown() == [
        "quotes/7f3a  0 of 4 done  1.0 s, about 30 s left",
        "  step 1 of 4  s0  1.0 s",
        "  step 2 of 4  s1 (its `if`)  1.0 s",
    ]
    shown.changed([settled(0, NOW + 1_100), settled(1, NOW + 1_100, "skipped", reason="if")], NOW + 1_300)
    shown.changed([started(2, NOW + 1_300)], NOW + 1_500)
    shown.changed([StepParked("s2", NOW + 9_500, 1, 0, NOW + 1_600)], NOW + 2_000)
    assert screen.shown() == [
        "✓ s0  1.1 s",
        "- s1  skipped: its `if` said no",
        "quotes/7f3a  1 of 4 done, 1 skipped  2.0 s, about 30 s left",
        "  step 3 of 4  s2  attempt 2 in 7.5 s",
    ]
    shown.changed([started(2, NOW + 9_500, 2)], NOW + 10_000)
    assert screen.shown()[-1] == "  step 3 of 4  s2 (attempt 2)  0.5 s"
    shown.say("a word\x1b[2J")
    assert screen.shown()[2] == "a word\\x1b[2J"
    shown.changed([settled(2, NOW + 10_100, "failed", reason="exit", exit_code=3)], NOW + 10_400)
    shown.end(run(state="finished", outcome="failed", steps_done=4, finished_at=NOW + 11_000, error="it failed"), NOW)
    assert screen.shown() == [
        "✓ s0  1.1 s",
        "- s1  skipped: its `if` said no",
        "a word\\x1b[2J",
        "✗ s2  8.8 s (2 attempts)  failed: exit status 3",
        "✗ quotes/7f3a failed after 11.0 s: it failed",
        "  its log:  agentrun logs k3v9x07f3a --failed",
        "  go on:    agentrun resume k3v9x07f3a",
    ]


def test_success_is_one_line(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), None, NOW)
    shown.end(run(state="finished", outcome="succeeded", steps_done=4, finished_at=NOW + 4_200), NOW + 4_200)
    assert screen.shown() == ["✓ quotes/7f3a succeeded: 4 steps in 4.2 s"]


def test_what_did_not_run_is_told_at_the_end(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), None, NOW)
    shown.changed([settled(0, NOW, "skipped", reason="if")], NOW)
    shown.end(run(state="finished", outcome="succeeded", steps_done=4, finished_at=NOW + 4_200), NOW + 4_200)
    assert screen.shown()[-1] == "✓ quotes/7f3a succeeded: 4 steps in 4.2 s (1 skipped)"


def test_a_stopped_run_says_what_is_done(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), None, NOW)
    shown.changed([settled(0, NOW), settled(1, NOW, "failed", reason="exit", exit_code=3)], NOW)
    shown.end(run(steps_done=2), NOW + 1_000)
    assert screen.shown()[-1] == "quotes/7f3a stopped after 1.0 s, 1 of 4 steps done, 1 failed"


def test_a_report_stands_for_the_result(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), None, NOW)
    finished = run(state="finished", outcome="failed", steps_done=4, finished_at=NOW + 4_200)
    shown.end(finished, NOW, ["agentrun: it failed", "two"])
    assert screen.shown() == ["✗ it failed", "two"]


def test_a_run_that_was_taken_over_has_no_estimate(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(steps_done=2, resumes=1), job(), 40_000, NOW + 9_000_000, active=[("s2", "running")])
    shown.tick(NOW + 9_001_000)
    assert screen.shown() == [
        "quotes/7f3a goes on: 2 of 4 steps are done",
        "quotes/7f3a  2 of 4 done  1.0 s",
        "  step 3 of 4  s2  1.0 s",
    ]


def test_a_run_that_failed_before_anything_was_done_has_no_estimate_either(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(epoch=2), job(), 40_000, NOW + 9_000_000)
    shown.tick(NOW + 9_001_000)
    assert screen.shown()[-1] == "quotes/7f3a  0 of 4 done  1.0 s"


@pytest.mark.parametrize(
    ("daily", "told"), [(Budget(), "the run's budget"), (Budget(tokens=1), "the budget of the run or of the day")]
)
def test_which_budget_is_not_known_while_the_run_ends(screen: Screen, daily: Budget, told: str) -> None:
    shown = view(screen, width=120)
    shown.begin(run(), replace(job(), daily=daily), None, NOW)
    shown.changed([RunClosing("over_budget", "budget", NOW)], NOW + 200)
    shown.changed([settled(0, NOW, "skipped", reason="budget")], NOW + 500)
    assert screen.shown() == [
        f"- s0  skipped: {told}",
        f"quotes/7f3a  0 of 4 done, 1 skipped  0.5 s, ending: {told}",
    ]


def test_a_slow_run_is_told_to_be_slow(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), 1_000, NOW, slow_after=11_000)
    shown.tick(NOW + 11_000)
    assert screen.shown() == ["quotes/7f3a  0 of 4 done  11.0 s, longer than its usual 1.0 s"]
    shown.tick(NOW + 12_000)
    assert screen.shown() == ["quotes/7f3a  0 of 4 done  12.0 s, slow, longer than its usual 1.0 s"]


def test_a_stuck_step_is_told_as_long_as_it_is(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(2), job(2), None, NOW)
    shown.changed([started(0), started(1)], NOW)
    shown.changed([StepStuck("s0", 1, NOW + 1_000, NOW + 61_000)], NOW + 61_000)
    assert screen.shown()[1:] == [
        "  step 1 of 2  s0  1 min 01 s  no output and no CPU for 1 min 00 s", "  step 2 of 2  s1  1 min 01 s",
    ]  # fmt: skip
    shown.changed([StepUnstuck("s0", 1, NOW + 62_000)], NOW + 62_000)
    assert screen.shown()[1:] == ["  step 1 of 2  s0  1 min 02 s", "  step 2 of 2  s1  1 min 02 s"]
    shown.changed([StepStuck("s0", 1, NOW + 62_000, NOW + 92_000)], NOW + 92_000)
    shown.changed([AttemptEnded("s0", 1, "failed", NOW + 93_000), started(0, NOW + 94_000, 2)], NOW + 94_000)
    assert screen.shown()[1] == "  step 1 of 2  s0 (attempt 2)  0.0 s", "the next attempt has done nothing wrong"


def test_of_stuck_instances_there_is_the_number(screen: Screen) -> None:
    shown = view(screen, 140)
    shown.begin(run(1), Job("quotes", (Step(id="s0", index=0, foreach=[1, 2]),)), None, NOW)
    items = [Item(n, n, str(n), str(n)) for n in range(2)]
    begun = [AttemptStarted(f"s0[{n}]", 0, 1, 0, 0, False, "", "{}", NOW) for n in range(2)]
    shown.changed([ListFrozen("s0", 0, 2, items, NOW), *begun], NOW)
    shown.changed([StepStuck(f"s0[{n}]", 1, NOW + n * 1_000, NOW + 9_000) for n in range(2)], NOW + 9_000)
    assert screen.shown()[1].endswith("[0] [1]  2 are stuck: no output and no CPU for 9.0 s at most")


def test_closing_and_overtime_are_told(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), 1_000, NOW)
    shown.tick(NOW + 2_000)
    assert screen.shown() == ["quotes/7f3a  0 of 4 done  2.0 s, longer than its usual 1.0 s"]
    shown.changed([RunClosing("cancelled", "cancel", NOW + 2_100)], NOW + 2_300)
    assert screen.shown() == ["quotes/7f3a  0 of 4 done  2.3 s, ending: cancelled"]


def test_thousands_of_ends_in_a_moment_are_counted(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(2_000), job(2_000), None, NOW)
    for n in range(2_000):
        outcome: Any = "failed" if n == 1_000 else "succeeded"
        shown.changed([started(n), settled(n, NOW, outcome)], NOW + 1)
    shown.tick(NOW + 300)
    lines = screen.shown()
    assert lines[20:] == [
        "✗ s1000  0.0 s  failed",
        "✓ and 1979 more steps: succeeded",
        "quotes/7f3a  1999 of 2000 done, 1 failed  0.3 s",
    ]
    assert len(screen.getvalue()) < 2_000


@pytest.mark.parametrize(("width", "height"), [(20, 6), (40, 24)])
def test_a_small_terminal(screen: Screen, width: int, height: int) -> None:
    shown = view(screen, width, height)
    shown.begin(run(40), job(40), 100_000, NOW)
    shown.changed([started(n) for n in range(40)], NOW + 300)
    lines = screen.shown()
    assert max(map(len, lines)) < width
    assert len(lines) < height
    assert lines[-1].startswith("  and 3")


def test_a_terminal_that_goes_away_ends_the_view_and_nothing_else(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(), job(), None, NOW)
    assert shown.interval == 200
    screen.close()
    shown.tick(NOW + 500)
    assert shown.interval is None
    for call in range(2):
        shown.changed([started(call)], NOW + 1_000)
    shown.say("x")
    shown.end(run(), NOW)


def test_nonsense_never_reaches_the_supervisor(screen: Screen) -> None:
    shown = view(screen)
    shown.changed([settled(0, NOW)], NOW)
    shown.say("before it began")
    changes: Sequence[Any] = [object(), StepSettled(None, None, None, None)]  # type: ignore[arg-type]
    shown.changed(changes, NOW)
    shown.end(run(), NOW)


def test_without_cursor_movement_it_only_tells_what_ends(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = view(screen)
    assert shown.interval is None
    shown.begin(run(), job(), None, NOW)
    shown.changed([started(0)], NOW)
    shown.changed([settled(0, NOW + 300)], NOW + 300)
    shown.end(run(state="finished", outcome="succeeded", finished_at=NOW + 400), NOW + 400)
    assert screen.getvalue() == "✓ s0  0.3 s\n✓ quotes/7f3a succeeded: 4 steps in 0.4 s\n"


# ---- instances and rounds


def fan(*, most: int = 50) -> Job:
    each = Step(id="work", index=1, foreach="${{ steps.list.outputs.all }}")
    loop = Step(id="think", index=2, repeat=Repeat("false", most))
    return Job("quotes", (Step(id="list", index=0), each, loop))


def frozen(total: int, at: int = NOW, *, before: bool = False) -> ListFrozen:
    items = None if before else [Item(n, n, str(n), "1") for n in range(total)]
    return ListFrozen("work", 1, total, items, at)


def begun(name: str, attempt: int = 1, at: int = NOW) -> AttemptStarted:
    return AttemptStarted(name, 2 if "think" in name else 1, attempt, attempt - 1, 0, False, "", "{}", at)


def over(name: str, at: int = NOW, outcome: Any = "succeeded", **more: Any) -> StepSettled:
    return StepSettled(name, 2 if "think" in name else 1, outcome, at, **more)


def test_a_fan_out_is_one_line(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(3), fan(), None, NOW)
    shown.changed([frozen(100), *(begun(f"work[{n}]") for n in range(12))], NOW + 200)
    assert screen.shown() == [
        "quotes/7f3a  0 of 102 done  0.2 s",
        "  step 2 of 3  work  0 of 100 done, 12 running  0.2 s  [0] [1] [2] [3] [4] [5]…",
    ]
    ends = [over("work[0]"), over("work[1]", NOW + 300, "failed", reason="exit", exit_code=3), over("work[2]")]
    shown.changed([*ends, *(over(f"work[{n}]") for n in range(3, 10))], NOW + 400)
    parked = StepParked("work[10]", NOW + 9_000, 1, 0, NOW + 500)
    shown.changed([parked, over("work[99]", outcome="skipped")], NOW + 1_000)
    assert screen.shown() == [
        "✗ work[1]  0.3 s  failed: exit status 3",
        "quotes/7f3a  9 of 102 done, 1 failed, 1 skipped  1.0 s",
        "  step 2 of 3  work  9 of 100 done, 1 failed, 1 skipped, 1 waiting, 1 running …",
    ]
    rest = [over(f"work[{n}]") for n in range(10, 99)]
    whole = over("work", NOW + 1_500, "failed", reason="instances", error="1 of 100 failed", counted=False)
    shown.changed([*rest, whole], NOW + 1_600)
    assert screen.shown()[1:] == [
        "✗ work  98 of 100 done, 1 failed, 1 skipped  1.5 s  failed: 1 of 100 failed",
        "quotes/7f3a  98 of 102 done, 1 failed, 1 skipped  1.6 s",
    ]


def test_rounds(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(3), fan(), None, NOW)
    turns: list[tuple[Any, str]] = [
        ([RoundBegun("think", 2, 1, NOW), begun("think[1]")], "0 of 3 done  1.0 s|round 1 of at most 50  1.0 s"),
        (
            [over("think[1]", NOW + 1_000), UntilAsked("think", 1, NOW + 1_000)],
            "1 of 3 done  2.0 s|round 1 of at most 50 (its `until`)  1.0 s",
        ),
        (
            [UntilAnswered("think", 1, 1, NOW + 2_000), StepParked("think", NOW + 5_500, 0, 0, NOW + 2_000)],
            "1 of 3 done  3.0 s|round 2 of at most 50 in 2.5 s",
        ),
        (
            [RoundBegun("think", 2, 2, NOW + 3_000), begun("think[2]", at=NOW + 3_000)],
            "1 of 4 done  4.0 s|round 2 of at most 50  1.0 s",
        ),
        (
            [StepParked("think[2]", NOW + 9_000, 1, 0, NOW + 4_000)],
            "1 of 4 done  5.0 s|round 2 of at most 50, attempt 2 in 4.0 s",
        ),
        (
            [RoundBegun("think", 2, 2, NOW + 5_000), begun("think[2]", 2, NOW + 5_000)],
            "1 of 4 done  6.0 s|round 2 of at most 50 (attempt 2)  1.0 s",
        ),
    ]
    for n, (changes, told) in enumerate(turns):
        shown.changed(changes, NOW + 1_000 * (n + 1))
        head, _, line = told.partition("|")
        assert screen.shown()[-2:] == [f"quotes/7f3a  {head}", f"  step 3 of 3  think  {line}"]
    shown.changed([over("think[2]", NOW + 6_000), over("think", NOW + 6_500, counted=False)], NOW + 7_000)
    assert screen.shown() == [
        "✓ think[1]  1.0 s",
        "✓ think[2]  3.0 s (2 attempts)",
        "✓ think  2 rounds  6.5 s",
        "quotes/7f3a  2 of 4 done  7.0 s",
    ]


def test_a_fan_out_that_goes_on(screen: Screen) -> None:
    shown = view(screen)
    shown.begin(run(102, steps_done=40, resumes=1), fan(), None, NOW, active=[("work[40]", "running")])
    shown.changed([over("work[40]"), begun("work[41]")], NOW + 1_000)
    assert screen.shown() == [
        "quotes/7f3a goes on: 40 of 102 steps are done",
        "quotes/7f3a  41 of 102 done  1.0 s",
        "  step 2 of 3  work  1 more done, 1 running  1.0 s  [41]",
    ]
    shown.changed([frozen(100, before=True)], NOW + 2_000)
    assert screen.shown()[1] == "quotes/7f3a  41 of 102 done  2.0 s"


def test_what_is_kept_does_not_grow_with_what_has_finished(screen: Screen) -> None:
    shown = view(screen, height=6)
    shown.begin(run(3), fan(), None, NOW)
    shown.changed([frozen(10_000)], NOW)
    for n in range(10_000):
        bad = n % 2 == 1
        shown.changed([begun(f"work[{n}]"), over(f"work[{n}]", outcome="failed" if bad else "succeeded")], NOW + n)
    board = shown._board
    assert board is not None
    group = board.groups["work"]
    assert (group.done, group.otherwise, len(group.running), len(group.parked)) == (5_000, {"failed": 5_000}, 0, 0)
    assert (len(shown._begun), len(shown._above) <= 40) == (0, True)
    assert screen.shown()[-1].startswith("  step 2 of 3  work  49")
