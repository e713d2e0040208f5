from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from agentrun.model import Job, Step
from agentrun.store.changes import StepAsked, WishTaken
from agentrun.store.questions import RunParked, StepQuestioned

from .recorded import START, Recorded, World, steps

Quotes = Callable[..., Job]


@pytest.fixture
def run(world: World, quotes: Quotes) -> Recorded:
    """rates wrote two lines, quote failed twice and wrote while customers did."""
    made = world.record("k3v9x07f3a", quotes()).take()
    made.write("rates", (100, b"one\ntwo\n")).succeed("rates", 1000)
    made.start("customers").start("quote")
    made.write("customers", (1100, b"c1\n"), (1300, b"c2\n"), (1500, b"c3"))
    made.write("quote", (1200, b"\x1b[31mred\x07\r\n"), (1400, b"\xff caf\xc3\xa9\n"))
    made.wait(600).end("customers").settle("customers").end("quote", "failed", reason="exit", exit_code=1)
    made.start("quote", 2).write("quote", (1700, b"again\n"), attempt=2)
    made.wait(500).end("quote", "failed", 2, reason="exit", exit_code=1)
    return made.settle("quote", "failed", reason="exit", exit_code=1).finish("failed")


def texts(out: str) -> list[str]:
    return [line.partition(" | ")[2] for line in out.splitlines()]


ALL = ["one", "two", "c1", "\\x1b[31mred\\x07", "c2", "\\xff café", "c3", "again"]


def test_lines_are_merged_by_time_and_made_harmless(world: World, run: Recorded) -> None:
    status, out, err = world.call("logs")
    assert (status, err) == (0, "")
    assert texts(out) == ALL
    assert out.splitlines()[0] == "2026-11-20T10:00:00.100Z quotes/7f3a 1/4 rates#1 | one"
    assert out.splitlines()[-1] == "2026-11-20T10:00:01.700Z quotes/7f3a 3/4 quote#2 | again"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--step", "rates"], ["one", "two"]),
        (["-s", "rates", "-s", "customers"], ["one", "two", "c1", "c2", "c3"]),
        (["--failed"], ["\\x1b[31mred\\x07", "\\xff café", "again"]),
        (["--grep", "^(c[12]|again)$"], ["c1", "c2", "again"]),
        (["--since", "2026-11-20T10:00:01.300Z"], ["c2", "\\xff café", "c3", "again"]),
        (["--since", "2026-11-20T11:00:01.5+01:00"], ["c3", "again"]),
        (["--tail", "3"], ["\\xff café", "c3", "again"]),
        (["--tail", "1", "--grep", "c"], ["c3"]),
        (["--tail", "0"], []),
        (["--tail", "100"], ALL),
        (["--step", "customers", "-n", "1"], ["c3"]),
    ],
)
def test_selections(world: World, run: Recorded, options: list[str], expected: list[str]) -> None:
    status, out, err = world.call("logs", "quotes", *options)
    assert (status, texts(out), err) == (0, expected, "")


def test_since_a_while_ago(world: World, run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrun.cli.logs.now_ms", lambda: START + 61_700)
    assert texts(world.call("logs", "--since", "1m")[1]) == ["again"]


def test_json_lines_hold_the_text_itself(world: World, run: Recorded) -> None:
    lines = [json.loads(line) for line in world.call("logs", "--json", "--step", "quote")[1].splitlines()]
    assert [line["text"] for line in lines] == ["\x1b[31mred\x07", "\ufffd café", "again"]
    assert lines[-1] == {
        "schema": "agentrun.line/1", "run": "k3v9x07f3a", "job": "quotes", "time": "2026-11-20T10:00:01.700Z",
        "instance": "quote", "attempt": 2, "position": 3, "steps_total": 4, "text": "again",
    }  # fmt: skip


def test_raw_bytes_by_the_starts_of_the_attempts(run: Recorded) -> None:
    done = agentrun("logs", "quotes", "--raw")
    assert done.stdout == b"one\ntwo\nc1\nc2\nc3\x1b[31mred\x07\r\n\xff caf\xc3\xa9\nagain\n"


def agentrun(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *argv], capture_output=True, check=True)


PROGRAM = "import sys; from agentrun.cli.app import run_app; sys.exit(run_app(sys.argv[1:]))"


def test_a_condition_is_shown_with_a_question_mark(world: World) -> None:
    job = Job("asks", (Step(id="a", index=0, run="true", condition="test -f x"),))
    run = world.record("k3v9x00001", job).take().commit(StepAsked("a", 0, START))
    run.write("a", (5, b"no file\n"), attempt=0).wait(10).settle("a", "failed", reason="if_failed").finish("failed")
    assert world.call("logs")[1] == "2026-11-20T10:00:00.005Z asks/0001 1/1 a? | no file\n"
    assert texts(world.call("logs", "--failed")[1]) == ["no file"]


def test_attempts_one_after_the_other_are_shown_in_blocks(world: World, quotes: Quotes) -> None:
    """The same lines as one by one: times, long lines, and what is not fit for a terminal."""
    run = world.record("k3v9x00001", quotes()).take()
    run.write(
        "rates", (1, b"one\ntwo\r\nbegun "), (2, b"before\nnext\n"), (2, "é \x1b[2J\n".encode() + b"\xff\n\n"),
        (900, b"x" * 2_500_000 + b"\nlast"),
    )  # fmt: skip
    run.succeed("rates").write("customers", (1_300, b"c\n")).succeed("customers").finish()
    blocks, lines = world.call("logs", "quotes"), world.call("logs", "quotes", "--tail", "1000")
    assert blocks == lines
    shown = blocks[1].splitlines()
    assert [line[20:24] for line in shown[:4]] == ["001Z", "001Z", "001Z", "002Z"]
    assert shown[2].endswith("| begun before")
    assert shown[4].endswith("| é \\x1b[2J")
    assert shown[-1].endswith("| c")
    assert texts(world.call("logs", "quotes", "--grep", "^(one|c)$")[1]) == ["one", "c"]
    assert texts(world.call("logs", "quotes", "--since", "2026-11-20T10:00:01Z")[1]) == ["c"]


def test_grep_says_by_its_status_whether_it_found_something(world: World, run: Recorded) -> None:
    assert world.call("logs", "--grep", "c1")[0] == 0
    assert world.call("logs", "--grep", "nowhere")[0] == 1
    assert world.call("logs", "--grep", "nowhere", "--json") == (1, "", "")


def test_mistakes(world: World, run: Recorded) -> None:
    assert world.call("logs", "--grep", "(")[0] == 2
    assert world.call("logs", "--since", "tomorrow")[0] == 2
    assert world.call("logs", "--raw", "--grep", "x")[0] == 2
    status, _, err = world.call("logs", "--step", "qoute")
    assert status == 66
    assert "has no step qoute (did you mean 'quote'?)" in err


def test_silence_is_told(world: World, quotes: Quotes) -> None:
    world.record("k3v9x00001", quotes()).take().finish("succeeded")
    assert world.call("logs") == (0, "", "agentrun: the steps of run k3v9x00001 of quotes have written nothing\n")


def test_many_attempts_need_few_open_files(world: World) -> None:
    names = [f"s{n}" for n in range(60)]
    run = world.record("k3v9x00001", Job("many", steps(*names))).take()
    for n, name in enumerate(names):
        run.write(name, (n * 10 + 1, f"{n}\n".encode())).succeed(name, 10)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
    try:
        out = world.call("logs")[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert texts(out) == [str(n) for n in range(60)]


def test_follow_until_the_run_has_finished(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold().start("rates").write("rates", (1, b"first\nhalf"))
    reader = subprocess.Popen([sys.executable, "-c", PROGRAM, "logs", "-f"], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline().endswith("| first\n")
        run.write("rates", (2, b" a line\n"))
        assert reader.stdout.readline().endswith("| half a line\n")
        run.wait(10).end("rates").settle("rates").start("customers").write("customers", (20, b"last"))
        run.end("customers").settle("customers").finish().let_go()
        assert reader.stdout.readline().endswith("customers#1 | last\n")
        assert reader.wait(10) == 0
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()


@pytest.mark.parametrize("options", [["-f"], ["-f", "--raw"]], ids=["lines", "raw"])
def test_follow_says_what_a_run_waits_for_and_waits_with_it(
    world: World, quotes: Quotes, options: list[str]
) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold().start("rates").write("rates", (1, b"first\n"))
    run.end("rates", "interrupted").commit(StepQuestioned("rates", "did it?", 0, run.now), RunParked(None, run.now))
    run.let_go()
    command = [sys.executable, "-c", PROGRAM, "logs", *options]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reader.stderr is not None
    try:
        said = reader.stderr.readline()
        assert "waits for an answer (rates: was it done?); see agentrun status k3v9x00001" in said
        world.store.answer(run.id, {"rates": "took_place"}, by="ann", now=run.now)
        run.hold().take(resumed=True).commit(WishTaken(1, run.now)).settle("rates")
        run.start("customers").write("customers", (20, b"last\n")).end("customers").settle("customers").finish()
        run.let_go()
        out, err = reader.communicate(timeout=30)
    finally:
        reader.kill()
    assert out.endswith("last\n") and "first" in out
    assert err == "", "it is said once"


def test_follow_leaves_an_interrupted_run(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().hold().start("rates").write("rates", (1, b"first\n"))
    begun = time.monotonic()
    command = [sys.executable, "-c", PROGRAM, "logs", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().endswith("| first\n")
        run.let_go()
        _, err = reader.communicate(timeout=10)
    assert "nobody advances this run any more; it goes on with: agentrun resume k3v9x00001" in err
    assert time.monotonic() - begun < 10


def test_a_reader_that_leaves_early_ends_it_without_a_word(world: World, quotes: Quotes) -> None:
    run = world.record("k3v9x00001", quotes()).take().write("rates", (1, b"line\n" * 50_000)).succeed("rates")
    run.finish()
    program = f"{sys.executable} -c '{PROGRAM}' logs"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{program} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1:] == ["141"]
    assert done.stderr == ""


@pytest.mark.parametrize("options", [[], ["--raw"], ["--tail", "1"]])
def test_a_log_that_lacks_something_says_so(world: World, quotes: Quotes, options: list[str]) -> None:
    made = world.record("k3v9x07f3a", quotes()).take().start("rates")
    made.write("rates", (100, b"one\n")).wait(100).end("rates", output_bytes=2000).settle("rates")
    status, _, err = world.call("logs", *options)
    told = "agentrun: the log of rates#1 lacks 1,996 bytes: the disk was full, or the power was cut\n"
    assert (status, err) == (0, told)


def test_a_log_that_has_all_says_nothing(world: World, quotes: Quotes) -> None:
    made = world.record("k3v9x07f3a", quotes()).take().start("rates")
    made.write("rates", (100, b"one\n")).wait(100).end("rates", output_bytes=4).settle("rates")
    assert world.call("logs")[2] == ""
