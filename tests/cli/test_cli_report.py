"""The failure report, over real records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agentrun.model import Budget, Job, Step
from agentrun.render.report import failure_report
from agentrun.store.changes import StepAsked

from .recorded import START, Recorded, World, steps

Quotes = Callable[..., Job]


def report(world: World, run: Recorded) -> list[str]:
    return failure_report(world.reader, world.root, world.reader.run(run.id))


def home(world: World) -> str:
    return f"AGENTRUN_HOME={world.root} agentrun"


def test_a_failed_step(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().succeed("rates")
    run.write("customers", (1, b"asking\n\x1b[31mno \xff\n"), attempt=2)
    run.start("customers").wait(100).end("customers", "failed", reason="exit", exit_code=3)
    run.fail("customers", attempt=2)
    run.settle("quote", "skipped", reason="upstream").settle("mail", "skipped", reason="upstream").finish("failed")
    assert report(world, run) == [
        "agentrun: job quotes failed after 1.6 s: 1 failed, 2 skipped, 1 succeeded",
        "run k3v9x00001 of /opt/quotes/quotes.yaml",
        "step 2 of 4, customers: exit status 3 (after 1.2 s, attempt 2)",
        "    | asking",
        "    | \\x1b[31mno \\xff",
        "not run:   2 steps",
        f"its log:   {home(world)} logs k3v9x00001 --step customers",
        f"go on:     {home(world)} resume k3v9x00001",
    ]


def test_without_a_state_folder_of_ones_own(world: World, quotes: Quotes, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.record("k3v9x00001", quotes()).take().fail("rates").finish("failed")
    monkeypatch.delenv("AGENTRUN_HOME")
    assert report(world, run)[-1] == "go on:     agentrun resume k3v9x00001"


def test_it_never_has_more_than_40_lines(world: World) -> None:
    names = [f"s{n}" for n in range(50)]
    job = Job("wide", tuple(replace(step, needs=()) for step in steps(*names)))
    run = world.record("k3v9x00001", job).take()
    for name in names:
        run.write(name, (1, b"x" * 500 + b"\n" + b"line\n" * 1000)).fail(name)
    lines = report(world, run.finish("failed"))
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 200
    assert lines[-3] == "also:      49 steps failed as well: s1, s2, s3, s4, s5 and 44 more"
    assert lines.count("    | line") == 25


@pytest.mark.parametrize(
    ("outcome", "job", "head"),
    [
        (
            "timed_out",
            {"deadline": 60_000},
            "agentrun: job quotes was ended at its deadline of 1m: 3 not run, 1 succeeded",
        ),
        (
            "over_budget",
            {"budget": Budget(5)},
            "agentrun: job quotes has used up its budget of 5 attempts after 0.3 s: 3 not run, 1 succeeded",
        ),
        ("cancelled", {}, "agentrun: job quotes was cancelled after 0.3 s: 3 not run, 1 succeeded"),
    ],
)
def test_ends_of_whole_runs(world: World, quotes: Quotes, outcome: str, job: dict[str, object], head: str) -> None:
    run = world.record("k3v9x00001", quotes(**job)).take().succeed("rates").finish(outcome)
    lines = report(world, run)
    assert lines[0] == head
    assert len(lines) == (5 if outcome == "over_budget" else 4)


def test_a_budget_that_is_used_up_needs_a_larger_one(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes(budget=Budget(1))).take().succeed("rates").finish("over_budget")
    assert report(world, run)[-2:] == [
        "first:     raise the budget in the job file: without a larger one nothing more is started",
        f"go on:     {home(world)} resume k3v9x00001 --spec /opt/quotes/quotes.yaml",
    ]


@pytest.mark.parametrize("reason", ["on_interrupt", "interrupted"])
def test_what_nobody_saw_the_end_of_is_looked_at_first(world: World, quotes: Quotes, reason: str) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates")
    run.end("rates", "interrupted", reason="interrupted", error="interrupted: nobody saw its end")
    run.settle("rates", "failed", reason=reason, error="interrupted, and its on_interrupt is `fail`").finish("failed")
    lines = report(world, run)
    assert lines[2].startswith("step 1 of 4, rates: interrupted, and its on_interrupt is `fail` (after")
    assert lines[-2:] == [
        "look first: nobody saw how rates ended: was it done? `resume` runs it again",
        f"go on:     {home(world)} resume k3v9x00001",
    ]
    assert "look first: nobody saw how rates ended" in world.call("status", "quotes")[1]


def test_a_stopped_run(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().succeed("rates")
    assert report(world, run)[0] == "agentrun: job quotes was stopped: 3 not run, 1 succeeded"


def test_a_timeout_and_a_condition(world: World) -> None:
    asks = Step(id="b", index=1, run="true", condition="false")
    job = Job("both", (replace(*steps("a"), timeout=90_000), asks))
    run = world.record("k3v9x00001", job).take()
    run.start("a").wait(90_000).end("a", "timed_out", reason="timeout").settle("a", "timed_out", reason="timeout")
    assert report(world, run)[2:4] == [
        "step 1 of 2, a: not done within its timeout of 1m30s (after 1 min 30 s)",
        "    (it wrote nothing)",
    ]
    run = world.record("k3v9x00002", job).take().commit(StepAsked("b", 1, START))
    run.write("b", (1, b"oops\n"), attempt=0).settle("b", "failed", reason="if_failed", error="its `if` ended with 2")
    assert report(world, run)[2:4] == ["step 2 of 2, b: its `if` ended with 2", "    | oops"]
