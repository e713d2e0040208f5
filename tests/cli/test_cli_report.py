"""The failure report, over real records."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentrun.model import Budget, Concurrency, Job, Step
from agentrun.render import status
from agentrun.render.questions import waiting_report
from agentrun.render.report import failure_report
from agentrun.render.status import command
from agentrun.store.changes import StepAsked
from agentrun.store.questions import StepQuestioned

from .recorded import PROGRAM, START, TEXT, Recorded, World, steps

Quotes = Callable[..., Job]


def report(world: World, run: Recorded) -> list[str]:
    return failure_report(world.reader, world.root, world.reader.run(run.id))


def home(world: World) -> str:
    return f"AGENTRUN_HOME={world.root} {PROGRAM}"


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
    assert report(world, run)[-1] == f"go on:     {PROGRAM} resume k3v9x00001"


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


# --- after a change of the job file


def failed(world: World, job: Job, file: Path, exit_status: int = 3) -> list[str]:
    """The report of a run of `file` that failed in its first step."""
    run = world.record("k3v9x00001", job, str(file)).take().write("rates", (1, b"no\n"))
    return report(world, run.fail("rates", status=exit_status).finish("failed"))


def test_a_failure_says_how_it_goes_on_after_a_change_of_the_job_file(
    world: World, quotes: Quotes, tmp_path: Path
) -> None:
    file = tmp_path / "quotes.yaml"
    file.write_text(f"# quotes 4\n{TEXT}")
    again = f"{home(world)} resume k3v9x00001"
    lines = failed(world, quotes(), file)
    assert lines[-2:] == [f"go on:     {again}", f"after a change of the job file: {again} --spec {file}"]
    file.write_text(f"# mended\n{TEXT}")
    lines = report(world, Recorded(world, "k3v9x00001", quotes()))
    assert lines[-1] == f"go on:     {again} --spec {file}"
    assert lines[-2].startswith("changed:   the job file is not as it was when the run was created")
    file.unlink()
    lines = report(world, Recorded(world, "k3v9x00001", quotes()))
    assert lines[-1] == f"go on:     {again}", "there is nothing to go on with but the old one"
    assert not any("change" in line for line in lines)


def test_a_cancelled_run_did_not_fail_by_its_file(world: World, quotes: Quotes, tmp_path: Path) -> None:
    file = tmp_path / "quotes.yaml"
    file.write_text(f"# quotes 4\n{TEXT}")
    run = world.record("k3v9x00001", quotes(), str(file)).take().succeed("rates").finish("cancelled")
    assert report(world, run)[-1] == f"go on:     {home(world)} resume k3v9x00001"


@pytest.mark.parametrize("exit_status", [127, 126])
def test_a_program_that_is_not_found_names_the_command_that_shows_why(
    world: World, quotes: Quotes, tmp_path: Path, exit_status: int
) -> None:
    file = tmp_path / "quotes.yaml"
    file.write_text(f"# quotes 4\n{TEXT}")
    lines = failed(world, quotes(), file, exit_status)
    look = f"what it does not find under cron: {home(world)} env {file} --as-cron --explain"
    assert (look in lines) == (exit_status == 127)


def test_no_command_is_cut_and_there_are_40_lines_at_most(world: World, tmp_path: Path) -> None:
    names = [f"s{n}" for n in range(50)]
    job = Job("wide", tuple(replace(step, needs=()) for step in steps(*names)))
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    (file := folder / "wide.yaml").write_text(f"# wide 50\n{TEXT}")
    run = world.record("k3v9x00001", job, str(file)).take()
    for name in names:
        run.write(name, (1, b"line\n" * 1000)).fail(name, status=127)
    lines = report(world, run.finish("failed"))
    assert len(lines) <= 40 and lines.count("    | line") == 25
    assert [line for line in lines if line.endswith("--as-cron --explain")]
    assert lines[-1].endswith(f" resume k3v9x00001 --spec {file}")


# --- a run that waits for answers


def waiting(world: World, number: int, **keys: object) -> list[str]:
    """The report of a run in which so many steps wait for an answer, each with a log of 30 lines."""
    names = [f"s{n}" for n in range(number)]
    job = Job("asks", tuple(replace(step, needs=()) for step in steps(*names)), **keys)  # type: ignore[arg-type]
    run = world.record("k3v9x00001", job).take()
    for name in names:
        run.start(name).write(name, (1, b"".join(b"line %d\n" % n for n in range(30))))
        run.end(name, "interrupted").commit(StepQuestioned(name, "did it take place?", 0, run.now))
    return waiting_report(world.reader, world.root, world.reader.run(run.id))


def test_a_question_comes_with_the_end_of_the_log(world: World) -> None:
    assert waiting(world, 1) == [
        "agentrun: asks/k3v9x00001 waits for an answer: step s0",
        "  did it take place?",
        *(f"    | line {n}" for n in range(20, 30)),
        f"  its log:     {home(world)} logs k3v9x00001 --step s0",
        f"  it did:      {home(world)} resume k3v9x00001 --took-place s0",
        f"  it did not:  {home(world)} resume k3v9x00001 --rerun s0",
        "the next runs of asks are skipped until you answer",
    ]


@pytest.mark.parametrize("number", [3, 8, 30])
def test_many_questions_leave_room(world: World, number: int) -> None:
    lines = waiting(world, number)
    assert len(lines) <= 40 and sum(line.endswith("did it take place?") for line in lines) == min(number, 8)
    assert sum("line 29" in line for line in lines) == 3


@pytest.mark.parametrize(
    ("concurrency", "said"),
    [
        (Concurrency("queue"), "the next runs of asks wait until you answer"),
        (Concurrency("forbid", "k"), "the next runs of asks with the same key are skipped until you answer"),
        (Concurrency("forbid", None, 2), None),
        (Concurrency("replace"), None),
        (Concurrency("allow"), None),
    ],
)
def test_what_becomes_of_the_next_runs(world: World, concurrency: Concurrency, said: str | None) -> None:
    lines = waiting(world, 1, concurrency=concurrency)
    assert [line for line in lines if "next runs" in line] == ([said] if said else [])


# --- the program's name


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an interpreter and the script, which is on our PATH, as in the block of a crontab."""
    folder = tmp_path / "venv bin"
    folder.mkdir()
    for name in ("python", "agentrun"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("AGENTRUN_HOME", raising=False)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "argv", [str(folder / "agentrun"), "run"])
    return folder


@pytest.mark.parametrize("own", ["agentrun", "../site/agentrun/__main__.py"])
def test_a_mail_names_the_program_by_its_path(venv: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(venv / own)])
    assert command("resume", "7f3a", anywhere=True) == f"'{venv}/agentrun' resume 7f3a"
    assert command("resume", "7f3a") == "agentrun resume 7f3a"


def test_where_there_is_no_script_a_mail_names_the_interpreter(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (venv / "agentrun").unlink()
    monkeypatch.setattr(sys, "argv", [str(venv.parent / "agentrun" / "__main__.py")])
    assert command("resume", "7f3a", anywhere=True) == f"'{venv}/python' -P -m agentrun resume 7f3a"


def test_what_every_login_shell_finds_is_named_by_its_name(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = venv.parent / "local"
    place.mkdir()
    (place / "agentrun").symlink_to(venv / "agentrun")
    monkeypatch.setattr(status, "_LOGIN_PATH", str(place))
    assert command("resume", "7f3a", anywhere=True) == "agentrun resume 7f3a"


def test_at_a_terminal_it_is_the_path_of_that(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert command("resume", "7f3a", anywhere=True) == "agentrun resume 7f3a"
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert command("resume", "7f3a", anywhere=True) == f"'{venv}/agentrun' resume 7f3a"
        monkeypatch.undo()
    os.close(ours)
