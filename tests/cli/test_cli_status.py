from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentrun.model import Job
from agentrun.store.questions import StepQuestioned

from .recorded import START, World

Quotes = Callable[..., Job]


@pytest.fixture(autouse=True)
def one_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    time.tzset()
    monkeypatch.setattr("agentrun.cli.status.now_ms", lambda: START + 60_000)


def test_nothing_recorded_is_no_error(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AGENTRUN_HOME", str(tmp_path / "empty"))
    status, out, err = world.call("status")
    assert (status, out) == (0, "")
    assert err == f"agentrun: nothing has been run yet (no record in {tmp_path}/empty)\n"
    assert world.call("status", "--json")[:2] == (0, "[]\n")
    assert world.call("status", "quotes")[0] == 66
    assert not os.path.exists(tmp_path / "empty")


def test_overview_has_a_line_for_each_job_and_each_open_run(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().finish()
    world.record("k3v9x00002", quotes()).take().succeed("rates").start("customers").hold()
    world.record("k3v9x00003", quotes(name="backup")).take().succeed("rates")
    etl = world.record("k3v9x00004", quotes(name="etl")).take().fail("rates")
    etl.finish("failed", error="step 1 of 4, rates: exit status 3")
    world.record("k3v9x00005", quotes(name="new"))
    world.record("k3v9x00006", quotes(name="newest"), created_at=START + 55_000)
    status, out, _ = world.call("status")
    assert status == 0
    assert out.splitlines() == [
        "RUN         JOB     STATE        STEPS  STARTED   TOOK",
        "k3v9x00006  newest  queued         0/4  10:00:55  -           about to start",
        "k3v9x00005  new     queued         0/4  10:00:00  -           not started: agentrun resume k3v9x00005",
        "k3v9x00004  etl     failed         1/4  10:00:00  1.2 s       step 1 of 4, rates: exit status 3",
        "k3v9x00003  backup  interrupted    1/4  10:00:00  -           go on: agentrun resume k3v9x00003",
        "k3v9x00002  quotes  running        1/4  10:00:00  1 min 00 s  customers",
    ]


@pytest.mark.parametrize(("before", "slow"), [(3, True), (2, False)])
def test_a_run_that_takes_far_longer_than_usual_is_slow(
    world: World, quotes: Quotes, monkeypatch: pytest.MonkeyPatch, before: int, slow: bool
) -> None:
    monkeypatch.setattr("agentrun.cli.record.now_ms", lambda: START + 60_000)
    for number in range(before):
        world.record(f"k3v9x0000{number}", quotes()).take().wait(15_000).finish()
    run = world.record("k3v9x00009", quotes()).take().start("rates").hold()
    line = world.call("status")[1].splitlines()[1]
    assert line.endswith("slow, it usually takes 15.0 s: rates") == slow, line
    assert ("1 min 00 s, slow: it usually takes 15.0 s" in world.call("status", run.id)[1]) == slow
    shapes = json.loads(world.call("status", "--json")[1])
    assert [(one["id"], one["slow"]) for one in shapes] == [(run.id, slow)]
    monkeypatch.setattr("agentrun.cli.record.now_ms", lambda: START + 45_000)
    assert json.loads(world.call("status", run.id, "--json")[1])["slow"] is False, "three times is not more than that"
    monkeypatch.setattr("agentrun.cli.record.now_ms", lambda: START + 60_000)
    run.let_go()
    assert json.loads(world.call("status", run.id, "--json")[1])["slow"] is False, "nobody advances it"


def test_what_waits_for_an_answer(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates").start("quote").hold()
    run.end("rates", "interrupted").commit(StepQuestioned("rates", "did it take place?", 0, run.now))
    line = world.call("status")[1].splitlines()[1]
    assert line.endswith("quote; rates: was it done? agentrun status k3v9x00001"), line
    asked = [{"run": run.id, "step": "rates", "question": "did it take place?"}]
    assert json.loads(world.call("status", "--json")[1])[0]["questions"] == asked
    one = json.loads(world.call("status", run.id, "--json")[1])
    assert (one["questions"], one["steps"][0]["question"]) == (asked, "did it take place?")
    assert "agentrun resume k3v9x00001 --took-place rates" in world.call("status", run.id)[1]
    world.store.answer(run.id, {"rates": "rerun"}, by="ann", now=run.now)
    assert json.loads(world.call("status", "--json")[1])[0]["questions"] == []


def test_a_failed_run(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes(), params={"customer": "acme", "n": 3}).take().succeed("rates")
    run.fail("customers").settle("quote", "skipped", reason="upstream").settle("mail", "skipped", reason="upstream")
    run.finish("failed", error="step 2 of 4, customers: failed", exit_code=3)
    status, out, err = world.call("status", "quotes")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "quotes  failed: step 2 of 4, customers: failed",
        "run      k3v9x00001",
        "file     /opt/quotes/quotes.yaml",
        "started  2026-11-20 10:00:00 +0000, took 1.5 s",
        "steps    1 of 4 done, 1 failed, 2 skipped",
        "param    customer = acme",
        "param    n = 3",
        "",
        "   STEP       STATE      ATTEMPTS  STARTED   TOOK",
        "✓  rates      succeeded         1  10:00:00  0.3 s",
        "✗  customers  failed            1  10:00:00  1.2 s  exit status 3",
        "-  quote      skipped           -  -         -      something that it needs failed",
        "-  mail       skipped           -  -         -      something that it needs failed",
        "",
        "go on: agentrun resume k3v9x00001",
    ]


def test_a_handler_that_ran_before_a_resume(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().succeed("rates").start("mail").end("mail", exit_code=0)
    run.settle("mail", "skipped", reason="no_failure").settle("quote", "skipped", reason="no_failure")
    lines = world.call("status", "quotes")[1].splitlines()
    assert [line.endswith("nothing failed (it ran before the resume)") for line in lines[-4:-2]] == [False, True]
    assert lines[-4].endswith("nothing failed")


def test_an_interrupted_run_says_how_it_goes_on(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().succeed("rates").start("customers")
    out = world.call("status", "k3v")[1]
    assert out.startswith("quotes  interrupted\n")
    assert "   customers  interrupted         1  10:00:00  -\n   quote      queued" in out
    assert out.endswith("nobody advances this run; it goes on with: agentrun resume k3v9x00001\n")


def test_a_step_of_an_interrupted_run_is_called_so_everywhere(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().start("rates")
    run.end("rates", "interrupted", reason="interrupted", error="interrupted: nobody saw its end").start("rates", 2)
    lines = world.call("status", "quotes", "-s", "rates")[1].splitlines()
    assert lines[0] == "rates  interrupted"
    assert lines[2] == "  attempt 1 10:00:00  interrupted, nobody saw its end, 0.0 s"
    assert lines[3] == "  attempt 2 10:00:00  interrupted"


def test_the_process_that_advances_a_run(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold()
    assert "process  advanced by process 1" in world.call("status", "quotes")[1].splitlines()
    code = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", code, run.folder.lock]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as shim:
        assert shim.stdout and shim.stdout.readline() and shim.stdin
        told = f"process  advanced by process 1, its steps are held by {shim.pid}"
        assert told in world.call("status", "quotes")[1].splitlines()
        shim.stdin.close()
    assert json.loads(world.call("status", "quotes", "--json")[1])["pid"] == 1
    run.let_go()
    assert "process" not in world.call("status", "quotes")[1]
    assert json.loads(world.call("status", "quotes", "--json")[1])["pid"] is None


def test_all_runs_of_a_job(world: World, quotes: Quotes) -> None:
    for number in range(1, 4):
        world.record(f"k3v9x0000{number}", quotes()).take().finish()
    world.record("k3v9x00004", quotes(name="etl")).take().finish()

    def listed(*argv: str) -> list[str]:
        return [line.split()[0][-1] for line in world.call("status", "--all", *argv)[1].splitlines()[1:]]

    assert listed() == ["4", "3", "2", "1"]
    assert listed("quotes") == ["3", "2", "1"]
    assert listed("quotes", "-n", "2") == ["3", "2"]
    assert [run["job"] for run in json.loads(world.call("status", "--all", "etl", "--json")[1])] == ["etl"]
    assert world.call("status", "--all", "none")[0] == 66
    assert world.call("status", "quotes", "-n", "2")[0] == 2


def test_one_step_with_everything_that_is_known(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take()
    inputs = '{"env":{"WHO":"acme\\u001b[2J"},"with":{"list":[1,2],"text":"3"}}'
    run.start("rates", inputs=inputs).wait(500)
    run.end("rates", "failed", reason="exit", exit_code=127, cpu_ms=120, max_rss_kib=4096, output_bytes=2048)
    trace = "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"
    run.start("rates", 2, inputs).wait(500)
    run.end("rates", "failed", 2, reason="exit", exit_code=1, exception={"traceback": trace})
    run.start("rates", 3, inputs).wait(500).end("rates", attempt=3).settle("rates", outputs='{"count":3}')
    status, out, _ = world.call("status", "quotes", "--step", "rates")
    assert status == 0
    assert out.splitlines() == [
        "rates  succeeded",
        "  key       key-rates",
        "  input     env.WHO = acme\\x1b[2J",
        "  input     with.list = [1, 2]",
        '  input     with.text = "3"',
        "  output    count = 3",
        "  attempt 1 10:00:00  failed, exit status 127 (command not found), 0.5 s,"
        " CPU 0.1 s, memory 4.0 MiB, output 2.0 KiB",
        f"            {run.folder.log('rates', 1)}",
        "  attempt 2 10:00:00  failed, exit status 1, 0.5 s",
        "      Traceback (most recent call last):",
        "        ...",
        "      KeyError: 'x'",
        "  attempt 3 10:00:01  succeeded, 0.5 s",
    ]
    assert world.call("status", "quotes", "-v")[1].count("\n\n") == 5
    status, _, err = world.call("status", "quotes", "--step", "rate")
    assert status == 66
    assert "has no step rate (did you mean 'rates'?)" in err


def test_json_of_runs(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes(), scheduled_time=START).take().succeed("rates").start("customers").hold()
    [run] = json.loads(world.call("status", "--json")[1])
    assert {key: run[key] for key in list(run)[:2]} == {"schema": "agentrun.run/1", "id": "k3v9x00001"}
    assert run["current_step"] == "customers"
    assert run["scheduled_time"] == "2026-11-20T10:00:00.000Z"
    assert (run["state"], run["outcome"], run["interrupted"], run["steps_done"]) == ("running", None, False, 1)
    promised = "id job state outcome interrupted created_at started_at finished_at scheduled_time steps_done"
    assert {*promised.split(), "steps_total", "current_step", "error", "resumes", "schema"} <= set(run)


def test_json_of_one_run(world: World, quotes: Quotes) -> None:
    made = world.record("k3v9x00001", quotes()).take().write("rates", (0, b"x\n")).succeed("rates").start("customers")
    run = json.loads(world.call("status", "quotes", "--json")[1])
    assert run["interrupted"] is True
    assert [step["id"] for step in run["steps"]] == ["rates", "customers", "quote", "mail"]
    rates, customers, quote, _ = run["steps"]
    promised = "id instance state outcome attempts exit_code signal started_at finished_at inputs outputs error log"
    assert set(promised.split()) <= set(rates)
    assert rates["log"] == made.folder.log("rates", 1)
    assert (rates["attempts"], rates["exit_code"], rates["outcome"]) == (1, 0, "succeeded")
    assert (customers["state"], customers["outcome"], customers["log"]) == ("running", None, None)
    assert (quote["state"], quote["attempts"]) == ("queued", 0)


def test_watch_ends_with_the_run(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().succeed("rates").finish()
    status, out, _ = world.call("status", "quotes", "--watch")
    assert status == 0
    assert out.startswith("quotes  succeeded\n")


@pytest.mark.parametrize("name", ["k3v9x00001", "k3v9x00001".upper(), "00001", "quotes~1", "quotes/0001"])
def test_names_of_a_run(world: World, quotes: Quotes, name: str) -> None:
    world.record("k3v9x00001", quotes()).take().finish()
    world.record("k3v9x00002", quotes()).take().finish()
    assert json.loads(world.call("status", name, "--json")[1])["id"] == "k3v9x00001"


def test_options_that_need_a_run(world: World) -> None:
    assert world.call("status", "-v")[0] == 2


def test_status_loads_nothing_that_it_does_not_need(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().succeed("rates").finish()
    code = (
        "import sys; from agentrun.cli.app import run_app;"
        " run_app(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    heavy = {"yaml", "rich", "croniter", "psutil", "sqlite_utils", "asyncio", "pickle"}
    done = subprocess.run([sys.executable, "-c", code, "status"], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stderr.split())
    assert not {name for name in done.stderr.split() if name.startswith(("agentrun.engine", "agentrun.spec"))}
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    mine = {name for name in done.stderr.split() if name.startswith("agentrun.")}
    own = ("cli", "cli.app", "cli.outcome", "errors", "render", "render.terminal")
    assert mine == {f"agentrun.{name}" for name in own}
