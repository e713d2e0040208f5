"""`agentrun usage add`, and what people see of what was spent."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentrun.engine.budgets import in_words
from agentrun.model import Budget, Job
from agentrun.render.progress import Progress
from agentrun.render.report import failure_report
from agentrun.render.terminal import Look
from agentrun.step.usage import Usage, UsageReader
from agentrun.store.spent import CallsTaken, SpendingAdded, UsageTaken

from ..store.test_spent import Made
from .recorded import START, Recorded, World, steps

Quotes = Callable[..., Job]
BILLION = 10**9


# --- usage add


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTRUN_USAGE", str(tmp_path / "usage"))
    return tmp_path / "usage"


def test_it_appends_what_the_meter_reads(world: World, file: Path) -> None:
    figures = ["--input-tokens", "1200", "--output-tokens", "310", "--model", "gpt-4o", "--cost", "0.0061"]
    assert world.call("usage", "add", *figures) == (0, "", "")
    assert world.call("usage", "add", "--cost", "1e-05") == (0, "", "")
    assert UsageReader(str(file)).read_new() == [Usage("gpt-4o", 1, 1200, 310, 6_100_000), Usage("", 1, 0, 0, 10_000)]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "missing argument 'add'"),
        (["sub"], "usage sub is nothing that can be done"),
        (["add"], "nothing to add"),
        (["add", "--model", "m"], "nothing to add"),
        (["add", "--cost", "free"], "the cost is not a number such as 0.0042: free"),
        (["add", "--cost=-1"], "the cost is not a number such as 0.0042: -1"),
        (["add", "--cost", "10000000"], "cost is 10000000: more than any call costs"),
        (["add", "--input-tokens=-1"], "invalid value for '--input-tokens': -1 is not in the range x>=0."),
        (["add", "--output-tokens", "1.5"], "invalid value for '--output-tokens': '1.5' is not a valid int"),
        (["add", "--output-tokens", "9" * 20], "gen_ai.usage.output_tokens is 99999999999999999999: more than any"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_written(
    world: World, file: Path, arguments: list[str], complaint: str
) -> None:
    status, out, err = world.call("usage", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"agentrun: {complaint}")
    assert not file.exists()


@pytest.mark.parametrize("value", [None, ""])
def test_outside_of_a_step_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("AGENTRUN_USAGE", raising=False)
    if value is not None:
        monkeypatch.setenv("AGENTRUN_USAGE", value)
    status, _, err = world.call("usage", "add", "--cost", "1")
    assert status == 2
    assert err.startswith("agentrun: AGENTRUN_USAGE is not set: this is for the steps of a run\n  hint: ")


def test_what_cannot_be_written_is_an_error(world: World, file: Path) -> None:
    os.mkfifo(file)
    status, _, err = world.call("usage", "add", "--cost", "1")
    assert status == 73
    assert err.startswith("agentrun: cannot write to AGENTRUN_USAGE (")


def test_it_loads_neither_the_record_nor_the_reader_of_job_files(file: Path) -> None:
    script = (
        "import sys; from agentrun.cli.app import run_app; run_app(['usage', 'add', '--cost', '1']);"
        "print([n for n in sys.modules if n in ('sqlite3', 'yaml', 'rich')"
        " or n.startswith(('agentrun.store', 'agentrun.spec', 'agentrun.engine'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert UsageReader(str(file)).read_new()[0].cost == BILLION


def test_a_line_without_its_end_is_ended_first(world: World, file: Path) -> None:
    file.write_text('{"cost": 1}')
    assert world.call("usage", "add", "--cost", "2") == (0, "", "")
    assert UsageReader(str(file)).read_new() == [Usage("", 2, 0, 0, 3 * BILLION)]


def test_many_at_once_never_tear_a_line(file: Path) -> None:
    one = [sys.executable, "-c", "from agentrun.cli.app import run_app\nfor _ in range(50): run_app(['usage', 'add',"
           " '--input-tokens', '3', '--model', 'm' * 150])"]  # fmt: skip
    for process in [subprocess.Popen(one) for _ in range(4)]:
        assert process.wait() == 0
    assert UsageReader(str(file)).read_new() == [Usage("m" * 150, 200, 600, 0, 0)]


# --- what people see


@pytest.fixture(autouse=True)
def one_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    time.tzset()
    monkeypatch.setattr("agentrun.cli.status.now_ms", lambda: START + 60_000)


def used(step: str, model: str, tokens: int, cost: float, **more: Any) -> UsageTaken:
    known: dict[str, Any] = {"day": "2026-11-20", "counted": True, "calls": 1, "seen": 1}
    figures = {"input_tokens": tokens - tokens // 10, "output_tokens": tokens // 10, "cost": round(cost * BILLION)}
    return UsageTaken(**{"instance": step, "attempt": 1, "model": model, **known, **figures, **more})


def facts(out: str, *labels: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(labels)]


def test_nothing_spent_is_not_told(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().succeed("rates")
    assert facts(world.call("status", "quotes")[1], "spent", "limits", "caller") == []
    found = json.loads(world.call("status", "quotes", "--json")[1])
    assert [found[key] for key in ("usage", "enforced_by", "caller", "caller_step")] == [[], None, None, None]


SPENT = [
    (Budget(), [("rates", "gpt-4o", 21_430, 0.43)], "spent    21,430 tokens, cost 0.43 by gpt-4o (rates)"),
    (Budget(tokens=20_000), [("rates", "", 21_430, 0)], "spent    21,430 of 20,000 tokens by rates"),
    (Budget(cost=20 * BILLION), [("rates", "m", 0, 20.13)], "spent    cost 20.13 of 20.00 by m (rates)"),
    (
        Budget(tokens=20_000, cost=BILLION),
        [("rates", "a", 1_000, 0.5), ("rates", "b", 1, 0.000125)],
        "spent    1,001 of 20,000 tokens, cost 0.500125 of 1.00",
    ),
]


@pytest.mark.parametrize(("budget", "uses", "line"), SPENT)
def test_what_was_spent_beside_its_limit(
    world: World, quotes: Quotes, budget: Budget, uses: list[Any], line: str
) -> None:
    run = world.record("k3v9x00001", quotes(budget=budget)).take().start("rates")
    run.commit(*(used(*use) for use in uses))
    assert facts(world.call("status", "quotes")[1], "spent") == [line]


def four_uses(run: Recorded) -> Recorded:
    run.start("rates").start("customers").start("mail")
    return run.commit(
        used("rates", "gpt-4o", 20_000, 1.5, calls=12), used("rates", "mini", 1_000, 0.02),
        used("customers", "", 430, 0), used("mail", "gpt-4o", 10, 0.1, counted=False),
    )  # fmt: skip


def test_more_than_one_are_a_table(world: World, quotes: Quotes) -> None:
    four_uses(world.record("k3v9x00001", quotes(budget=Budget(tokens=50_000))).take())
    out = world.call("status", "quotes")[1]
    assert facts(out, "spent") == ["spent    21,430 of 50,000 tokens, cost 1.52"]
    lines = out.splitlines()
    assert lines[lines.index("") :][-7:-2] == [
        "SPENT BY   MODEL   CALLS   INPUT  OUTPUT  COST",
        "rates      gpt-4o     12  18,000   2,000  1.50",
        "mail       gpt-4o      1       9       1  0.10  a handler: not counted",
        "rates      mini        1     900     100  0.02",
        "customers  -           1     387      43  0.00",
    ]


def test_it_is_in_the_json(world: World, quotes: Quotes) -> None:
    four_uses(world.record("k3v9x00001", quotes()).take())
    found = json.loads(world.call("status", "quotes", "--json")[1])["usage"]
    assert found[1] == {
        "step": "mail", "model": "gpt-4o", "calls": 1, "input_tokens": 9, "output_tokens": 1, "cost": 0.1,
        "counted": False,
    }  # fmt: skip
    assert (found[3]["model"], found[0]["cost"], len(found)) == (None, 1.5, 4)


def test_who_called_it_and_what_enforces_its_limits(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().start("rates")
    run = world.record("k3v9x00002", quotes(name="child")).take().start("rates")
    run.commit(used("rates", "m", 10, 0))
    world.store.database.write(
        lambda cursor: cursor.execute(
            "UPDATE runs SET caller = 'k3v9x00001', caller_instance = 'rates[3]', enforced_by = 'memory: cgroup v1'"
            " WHERE id = 'k3v9x00002'"
        )
    )
    assert facts(world.call("status", "child")[1], "caller", "spent", "limits") == [
        "caller   k3v9x00001, step rates[3]",
        "spent    10 tokens by m (rates)",
        "limits   memory: cgroup v1",
    ]
    assert facts(world.call("status", "quotes")[1], "spent") == ["spent    10 tokens by m (rates/rates)"]
    found = json.loads(world.call("status", "child", "--json")[1])
    assert (found["caller"], found["caller_step"]) == ("k3v9x00001", "rates[3]")
    assert found["enforced_by"] == "memory: cgroup v1"


# --- the report


def report(world: World, run: Recorded) -> list[str]:
    return failure_report(world.reader, world.root, world.reader.run(run.id))


def test_a_run_over_its_budget_says_what_it_spent(world: World, quotes: Quotes) -> None:
    run = four_uses(world.record("k3v9x00001", quotes(budget=Budget(tokens=20_000))).take()).wait(3000)
    run.finish("over_budget", reason="budget", error="over its budget of tokens: 21,430 of 20,000")
    lines = report(world, run)
    assert lines[0].startswith("agentrun: job quotes is over its budget of tokens: 21,430 of 20,000, after 3.0 s: ")
    at = lines.index("spent:     21,430 of 20,000 tokens, cost 1.52")
    assert lines[at + 1 : at + 5] == [
        "           20,000 tokens, cost 1.50 by gpt-4o (rates)",
        "           10 tokens, cost 0.10 by gpt-4o (mail), a handler: not counted",
        "           1,000 tokens, cost 0.02 by mini (rates)",
        "           430 tokens by customers",
    ]
    assert any(line.startswith("first:     raise the budget") for line in lines)
    assert world.call("status")[1].splitlines()[1].endswith("over its budget of tokens: 21,430 of 20,000")


def test_memory_is_told_in_mebibytes() -> None:
    assert in_words("memory", 60 << 20, 61 << 20) == "memory: 61 MiB of 60 MiB"
    assert in_words("memory", 3 << 19, 62_914_561) == "memory: 60 MiB of 1.5 MiB"


def test_the_day_is_over_tomorrow(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates").commit(used("rates", "m", 0, 20.13))
    run.finish("over_budget", reason="budget", error="over its budget of cost today: 20.13 of 20.00")
    lines = report(world, run)
    assert "spent:     cost 20.13 by m (rates)" in lines
    raised = "or raise the daily budget in the job file and add --spec /opt/quotes/quotes.yaml"
    assert lines[-2] == f"first:     wait for tomorrow (the day ends at midnight, local time), {raised}"
    assert lines[-1].endswith(" resume k3v9x00001")


def test_what_the_day_has_taken(world: World, quotes: Quotes) -> None:
    daily = Budget(steps=50, tokens=1_500, cost=20 * BILLION, cpu=60_000, output=1 << 20)
    job = quotes(daily=daily)
    for number, tokens in ((1, 1_000), (2, 400)):
        run = world.record(f"k3v9x0000{number}", job).take().start("rates").commit(used("rates", "m", tokens, 0.25))
        run.commit(SpendingAdded("2026-11-20", 3, 1_500, 2_048), SpendingAdded("2026-11-19", 9, 9_000, 9_000))
    world.record("k3v9x00003", quotes(name="other")).take().start("rates").commit(used("rates", "m", 77, 1))
    assert facts(world.call("status", "quotes")[1], "today") == [
        "today    1,400 of 1,500 tokens, cost 0.50 of 20.00, 6 of 50 attempts, CPU 3.0 s of 1 min 00 s,"
        " output 4.0 KiB of 1.0 MiB"
    ]
    assert facts(world.call("status", "other")[1], "today") == []


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("over its budget of tokens: 9 of 8", "the run's budget of tokens"),
        ("over its budget of tokens today: 9 of 8", "the budget of the day (tokens)"),
    ],
)
def test_which_budget_it_was(world: World, quotes: Quotes, error: str, named: str) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates").wait(100)
    why = {"reason": "budget", "error": "the run's budget"}
    run.end("rates", "over_budget", **why).settle("rates", "over_budget", **why)
    run.settle("customers", "skipped", reason="budget").finish("over_budget", reason="budget", error=error)
    lines = world.call("status", "quotes")[1].splitlines()
    assert [line for line in lines if line.endswith(f"  {named}")] == lines[lines.index("") + 2 :][:2]
    assert f"  why       {named}" in world.call("status", "quotes", "--step", "rates")[1].splitlines()
    assert f"step 1 of 4, rates: {named} (after 0.1 s)" in report(world, run)


def test_what_ended_the_run_comes_before_the_handler_that_failed(world: World) -> None:
    work, tell = steps("work", "tell")
    run = world.record("k3v9x00001", Job("quotes", (work, replace(tell, when="always")))).take()
    run.fail("tell").start("work").wait(100).end("work", "over_budget", reason="budget", error="the run's budget")
    run.settle("work", "over_budget", reason="budget", error="the run's budget")
    lines = report(world, run.finish("over_budget", reason="budget", error="over its budget of cost: 9.00 of 8.00"))
    assert lines[2] == "step 1 of 2, work: the run's budget of cost (after 0.1 s)"
    assert "also:      1 step failed as well: tell" in lines


def test_nothing_is_left_to_pay_for(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take()
    for name in ("rates", "customers", "quote", "mail"):
        run.succeed(name)
    run.finish("over_budget", reason="budget", error="over its budget of tokens: 9 of 8")
    assert report(world, run)[-1] == "done:      all its steps are done; nothing is left to run"
    assert world.call("status", "quotes")[1].splitlines()[-1] == "done: all its steps are done; nothing is left to run"
    assert "steps    4 of 4 done" in world.call("status", "quotes")[1].splitlines()


@pytest.mark.parametrize(("reason", "kind"), [("oom", "memory"), ("cpu", "cpu"), ("tokens", "tokens")])
def test_a_step_over_its_own_budget_needs_a_larger_one(world: World, quotes: Quotes, reason: str, kind: str) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates")
    why = {"reason": reason, "error": f"over its budget of {kind}: 1"}
    run.end("rates", "over_budget", **why).settle("rates", "over_budget", **why).finish("failed")
    change = f"raise the budget of step rates ({kind}) in /opt/quotes/quotes.yaml"
    assert world.call("status", "quotes")[1].splitlines()[-2:] == [
        f"first: {change}: as it is, the same would be paid for again",
        "go on: agentrun resume k3v9x00001 --spec /opt/quotes/quotes.yaml",
    ]
    assert not [line for line in report(world, run) if line.startswith("its log")], "it wrote nothing"


def test_the_live_view_tells_what_was_spent(world: World, quotes: Quotes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    shown = Progress(screen, Look(True, 100, False, True, 24))
    run = world.record("k3v9x00001", quotes(budget=Budget(tokens=20_000))).take()
    shown.begin(world.reader.run(run.id), run.job, None, START)
    shown.tick(START + 1_000)
    assert "tokens" not in screen.getvalue()
    usage = used("rates", "m", 400, 0.25)
    run.start("rates").commit(usage, used("rates", "n", 77, 1, counted=False))
    shown.changed([usage], START + 2_000)
    assert screen.getvalue().endswith("quotes/0001  0 of 4 done  2.0 s  400 of 20,000 tokens, cost 0.25\n")
    shown.end(world.reader.run(run.id), START + 3_000)
    shown = Progress(screen, Look(True, 100, False, True, 24))
    shown.begin(world.reader.run(run.id)._replace(resumes=1), run.job, None, START)
    assert screen.getvalue().endswith("  400 of 20,000 tokens, cost 0.25\n"), "what was spent before"
    shown.end(world.reader.run(run.id), START + 3_000)


def test_a_step_over_its_own_budget_says_it_too(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates").commit(used("rates", "m", 30_000, 0))
    run.write("rates", (1, b"line\n" * 100))
    why = {"reason": "tokens", "error": "over its budget of tokens: 30,000 of 20,000"}
    run.end("rates", "over_budget", **why).settle("rates", "over_budget", **why).finish("failed")
    lines = report(world, run)
    assert "step 1 of 4, rates: over its budget of tokens: 30,000 of 20,000 (after 0.0 s)" in lines
    assert "spent:     30,000 tokens by m (rates)" in lines


def test_the_report_of_a_spender_has_at_most_40_lines(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates")
    run.write("rates", (1, b"line\n" * 100)).commit(*(used("rates", f"m{n}", n, 0) for n in range(50)))
    run.end("rates", "over_budget", reason="tokens").settle("rates", "over_budget", reason="tokens").finish("failed")
    lines = report(world, run)
    assert len(lines) <= 40
    assert lines[lines.index("spent:     1,225 tokens") + 5] == "           and by 46 more"
    assert lines.count("    | line") > 20


# --- the calls


@pytest.fixture
def caller(world: World, quotes: Quotes) -> Recorded:
    run = world.record("k3v9x00001", quotes()).take().start("rates").start("customers")
    long = json.dumps("x" * 500)
    return run.commit(
        CallsTaken("rates", (
            Made("agent.ask", '{"topic":"rates","n":3}', '{"answer":"yes"}', started_at=START, ms=1234),
            Made("agent.fetch", "null", None, "ValueError: no \x1b[31m", "page 1", 2, START + 1),
        ), 10),
        CallsTaken("customers", (Made("write", f'{{"text":{long}}}', long, key="acme", started_at=START + 2),), 10),
    )  # fmt: skip


def test_the_calls_of_a_run(world: World, caller: Recorded) -> None:
    status, out, err = world.call("status", caller.id, "--calls")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == [
        'rates#1  agent.ask(topic="rates", n=3) → {"answer":"yes"}  1.2 s',
        r'rates#2  agent.fetch(key="page 1") failed: ValueError: no \x1b[31m  0.0 s',
    ]
    assert out.splitlines()[2].startswith('customers#1  write(text="xxxx')
    assert len(out.splitlines()[2]) < 190
    assert world.call("status", caller.id, "--calls", "--step", "rates")[1].splitlines() == out.splitlines()[:2]


def test_each_argument_is_shortened_and_no_module_is_named_that_nobody_gave(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates")
    arguments = json.dumps({"text": "x" * 100, "n": 3, "page": "last"})
    run.commit(CallsTaken("rates", tuple(
        Made(f"{module}ask", arguments, "1", started_at=START) for module in ("__main__.", "__step__.", "agent.")
    ), 10))  # fmt: skip
    lines = world.call("status", run.id, "--calls")[1].splitlines()
    told = f'(text="{"x" * 38}…, n=3, page="last") → 1  0.0 s'
    assert lines == [f"rates#1  {name}{told}" for name in ("ask", "ask", "agent.ask")]


def test_in_full(world: World, caller: Recorded) -> None:
    long = json.dumps("x" * 500)
    assert world.call("status", caller.id, "--calls", "-v", "--step", "customers")[1].splitlines() == [
        f"customers#1  write(text={long})",
        "    key   acme",
        f"    → {long}",
        "    2026-11-20 10:00:00 +0000, took 0.0 s",
    ]


def test_as_json(world: World, caller: Recorded) -> None:
    found = json.loads(world.call("status", caller.id, "--calls", "--json")[1])
    assert found[0] == {
        "schema": "agentrun.call/1", "run": caller.id, "job": "quotes", "instance": "rates", "seq": 1, "attempt": 1,
        "function": "agent.ask", "arguments": {"topic": "rates", "n": 3}, "key": None, "result": {"answer": "yes"},
        "error": None, "started_at": "2026-11-20T10:00:00.000Z", "ms": 1234,
    }  # fmt: skip
    assert [(call["key"], call["error"], call["result"] is None) for call in found[1:]] == [
        ("page 1", "ValueError: no \x1b[31m", True), ("acme", None, False),
    ]  # fmt: skip


def test_no_calls(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().succeed("rates")
    assert world.call("status", "quotes", "--calls")[1].startswith("no calls: ")
    assert world.call("status", "quotes", "--calls", "--json")[1] == "[]\n"
    assert world.call("status", "quotes", "--calls", "--step", "nope")[0] == 66
    status, _, err = world.call("status", "--calls")
    assert status == 2
    assert "--step, --verbose and --calls show a run: name it" in err
