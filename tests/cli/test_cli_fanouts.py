"""What status, logs and the report say of instances, rounds and child runs, over real records."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from agentrun.model import Job, Repeat, Step
from agentrun.render.report import failure_report
from agentrun.store.instances import UntilAnswered, UntilAsked

from .recorded import PROGRAM, Recorded, World, steps

RUN, CHILD = "k3v9x00001", "k3v9x00002"


def fan() -> Job:
    list_, work, after = steps("list", "work", "after")
    return Job("fan", (list_, replace(work, foreach="${{ steps.list.outputs.all }}"), after))


def loop() -> Job:
    return Job("loop", (Step(id="think", index=0, run="true", repeat=Repeat("false", 50)),))


def parent() -> Job:
    return Job("parent", (Step(id="prep", index=0, run="true"), Step(id="settle", index=1, job="child.yaml")))


def instances(run: Recorded, *, good: int = 0, bad: int = 0, running: int = 0, first: int = 0) -> Recorded:
    """So many instances of `work` in this order, from the first on, with their items."""
    for n in range(first, first + good + bad + running):
        name = f"work[{n}]"
        run.start(name, inputs=json.dumps({"env": {}, "item": {"name": f"n{n}"}}))
        if n < first + good:
            run.wait(100).end(name, exit_code=0).settle(name, exit_code=0)
        elif n < first + good + bad:
            how: dict[str, Any] = {"reason": "exit", "exit_code": 3}
            run.wait(100).end(name, "failed", **how).settle(name, "failed", **how)
    return run


def fanned(world: World, items: int, **counts: int) -> Recorded:
    run = world.record(RUN, fan()).take().hold().succeed("list")
    return instances(run.freeze("work", *({"name": f"n{n}"} for n in range(items))), **counts)



def report(world: World, run_id: str = RUN) -> list[str]:
    return failure_report(world.reader, world.root, world.reader.run(run_id))


def test_a_fan_out_is_one_row_and_those_that_say_something(world: World) -> None:
    fanned(world, 100, good=3, bad=1, running=2)
    status, out, _ = world.call("status", "fan")
    lines = out.splitlines()
    assert status == 0
    assert "steps    4 of 102 done, 1 failed" in lines
    table = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in table[1:]] == ["✓", "work", "✗", "work[4]", "work[5]", "after"]
    assert table[2].endswith("  3 of 100 done, 1 failed, 2 running")
    assert table[3].endswith('  {"name": "n3"}: exit status 3')
    assert table[3].startswith("✗    work[3]  failed ")
    assert table[4].endswith('  {"name": "n4"}')


def test_of_many_failures_the_first_twenty(world: World) -> None:
    run = fanned(world, 40, bad=32).let_go()
    lines = world.call("status", "fan")[1].splitlines()
    assert sum("exit status 3" in line for line in lines) == 20
    assert f"     and 12 more failed: agentrun status {run.id} --step work" in lines
    for arguments in (("--step", "work"), ("-v",)):
        lines = world.call("status", "fan", *arguments)[1].splitlines()
        assert sum("exit status 3" in line for line in lines if line.startswith("✗    work[")) == 32
        assert sum(" queued " in line for line in lines if line.startswith("     work[")) == 8


def test_one_instance_in_full(world: World) -> None:
    run = fanned(world, 5, bad=1).write("work[0]", (1, b"oops\n"))
    out = world.call("status", "fan", "--step", "work[0]")[1]
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert lines[0] == ["work[0]", "failed"]
    assert ["why", "exit status 3"] in lines
    assert ["input", 'item.name = "n0"'] in lines
    assert "attempt 1" in out and run.id not in out
    waiting = world.call("status", "fan", "--step", "work[4]")[1].splitlines()
    assert waiting[0] == "work[4]  queued"
    assert '  input     item.name = "n4"' in waiting
    status, _, err = world.call("status", "fan", "--step", "work[5]")
    assert status == 66
    assert "has no step work[5]" in err


def test_as_json(world: World) -> None:
    fanned(world, 3, good=1, bad=1)
    shape = json.loads(world.call("status", "fan", "--json")[1])
    told = [
        tuple(step[key] for key in ("id", "instance", "number", "instances", "item", "state"))
        for step in shape["steps"]
    ]
    assert told == [
        ("list", "list", None, None, None, "finished"),
        ("work", "work", None, 3, None, "running"),
        ("work", "work[0]", 0, None, {"name": "n0"}, "finished"),
        ("work", "work[1]", 1, None, {"name": "n1"}, "finished"),
        ("work", "work[2]", 2, None, {"name": "n2"}, "queued"),
        ("after", "after", None, None, None, "queued"),
    ]
    shape = json.loads(world.call("status", "fan", "--json", "--step", "work[1]")[1])
    assert [(step["instance"], len(step["history"])) for step in shape["steps"]] == [("work[1]", 1)]


def test_a_loop(world: World) -> None:
    run = world.record(RUN, loop()).take().hold()
    run.begin_round("think", 1).wait(100).end("think[1]", exit_code=0).settle("think[1]", exit_code=0)
    run.commit(UntilAsked("think", 1, run.now), UntilAnswered("think", 1, 1, run.now)).begin_round("think", 2)
    lines = world.call("status", "loop")[1].splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["think", "think[2]"]
    assert lines[-2].endswith("  round 2 of at most 50")
    run.wait(100).fail("think[2]", attempt=2)
    run.settle("think", "failed", reason="instances", error="round 2 failed", counted=False)
    run.finish("failed").let_go()
    assert report(world)[:3] == [
        "agentrun: job loop failed after 1.4 s: 1 failed, 1 succeeded",
        f"run {RUN} of /opt/quotes/quotes.yaml",
        "step 1 of 1, think[2]: exit status 3 (after 1.2 s, attempt 2)",
    ]


def test_until_has_a_log_of_its_own(world: World) -> None:
    run = world.record(RUN, loop()).take().hold()
    run.begin_round("think", 1).write("think[1]", (1, b"round 1\n")).wait(100)
    run.end("think[1]", exit_code=0).settle("think[1]", exit_code=0).commit(UntilAsked("think", 1, run.now))
    run.write("think[1]", (110, b"is it done\n"), attempt=0)
    run.commit(UntilAnswered("think", 1, 5, run.now))
    run.settle("think", "failed", reason="until_failed", error="its `until` ended with 5", counted=False)
    run.finish("failed").let_go()
    for more in ((), ("-n", "9"), ("--step", "think[1]"), ("--step", "think")):
        assert [line.split(" ", 2)[2] for line in world.call("logs", "loop", *more)[1].splitlines()] == [
            "1/1 think[1]#1 | round 1", "1/1 think[1]? | is it done",
        ]  # fmt: skip
    assert [line.split(" | ")[1] for line in world.call("logs", "--failed")[1].splitlines()] == ["is it done"]
    assert report(world)[0].endswith(": 1 failed, 1 succeeded")
    assert report(world)[2:4] == ["step 1 of 1, think: its `until` ended with 5", "    | is it done"]
    assert report(world)[4].endswith(f"logs {RUN} --step 'think[1]'")


def test_follow_shows_rounds_that_begin_later(world: World) -> None:
    run = world.record(RUN, loop()).take().hold()
    run.begin_round("think", 1).write("think[1]", (1, b"round 1\n"))
    reader = subprocess.Popen(
        [sys.executable, "-m", "agentrun", "logs", "-f", "--step", "think"], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline().endswith(" 1/1 think[1]#1 | round 1\n")
        run.wait(100).end("think[1]", exit_code=0).settle("think[1]", exit_code=0)
        run.commit(UntilAsked("think", 1, run.now)).write("think[1]", (110, b"is it\n"), attempt=0)
        assert reader.stdout.readline().endswith(" 1/1 think[1]? | is it\n")
        run.write("think[1]", (120, b"no\n"), attempt=0).commit(UntilAnswered("think", 1, 1, run.now))
        run.wait(20).begin_round("think", 2).write("think[2]", (130, b"round 2\n"))
        assert reader.stdout.readline().endswith(" 1/1 think[1]? | no\n")
        assert reader.stdout.readline().endswith(" 1/1 think[2]#1 | round 2\n")
        run.end("think[2]", exit_code=0).settle("think[2]", exit_code=0).settle("think", counted=False)
        run.finish().let_go()
        assert reader.wait(10) == 0
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()


def test_logs_of_a_step_are_those_of_its_instances(world: World) -> None:
    run = fanned(world, 3, good=2)
    run.write("list", (0, b"list\n")).write("work[0]", (1, b"one\n")).write("work[1]", (2, b"two\n"))
    told = [line.split(" ", 2)[2] for line in world.call("logs", "fan", "--step", "work")[1].splitlines()]
    assert told == ["2/3 work[0]#1 | one", "2/3 work[1]#1 | two"]
    assert world.call("logs", "fan", "--step", "work[1]")[1].endswith(" 2/3 work[1]#1 | two\n")
    assert world.call("logs", "fan", "--step", "work[2]") == (0, "", "")
    shapes = [json.loads(line) for line in world.call("logs", "fan", "--json")[1].splitlines()]
    assert [(shape["position"], shape["steps_total"]) for shape in shapes] == [(1, 3), (2, 3), (2, 3)]


def test_the_report_of_a_fan_out(world: World) -> None:
    run = fanned(world, 10, good=1, bad=9).write("work[1]", (1, b"no luck\n"))
    run.settle("work", "failed", reason="instances", error="9 of 10 instances failed", counted=False)
    run.settle("after", "skipped", reason="upstream").finish("failed").let_go()
    home = f"AGENTRUN_HOME={world.root} {PROGRAM}"
    assert report(world) == [
        "agentrun: job fan failed after 1.3 s: 9 failed, 1 skipped, 2 succeeded",
        f"run {RUN} of /opt/quotes/quotes.yaml",
        "step 2 of 3, work[1]: exit status 3 (after 0.1 s)",
        'its item:  {"name": "n1"}',
        "    | no luck",
        "also:      8 other instances of work failed: [2], [3], [4], [5], [6] and 3 more",
        "not run:   1 step",
        f"its log:   {home} logs {RUN} --step 'work[1]'",
        f"go on:     {home} resume {RUN}",
    ]
    assert "2 of 10 instances" not in world.call("status", "fan")[1]


def test_instances_over_their_budget_go_on_beside_those_that_are_done(world: World) -> None:
    run = fanned(world, 3, good=1)
    for name in ("work[1]", "work[2]"):
        why: dict[str, Any] = {"reason": "oom", "error": "over its budget of memory: 64MiB"}
        run.start(name).end(name, "over_budget", **why).settle(name, "over_budget", **why)
    run.settle("work", "failed", reason="instances", error="2 of 3 instances failed", counted=False).finish("failed")
    assert world.call("status", RUN)[1].splitlines()[-2:] == [
        "first: raise the budget of step work (memory) in /opt/quotes/quotes.yaml: as it is, the same would be paid for"
        " again",
        f"go on: agentrun resume {RUN} --spec /opt/quotes/quotes.yaml",
    ]


def test_a_child_run(world: World) -> None:
    run = world.record(RUN, parent()).take().hold().succeed("prep").start("settle")
    child = world.record(CHILD, Job("child", steps("first", "boom")), "/opt/child.yaml", caller=(RUN, "settle"))
    child.take().hold().succeed("first").start("boom").write("boom", (5, b"no luck\n"))
    out = world.call("status", RUN)[1]
    assert out.splitlines()[-1].endswith(f"run {CHILD}, 1 of 2 settled: agentrun status {CHILD}")
    assert f"caller   {RUN}, step settle" in world.call("status", CHILD)[1].splitlines()
    silent = f"agentrun: the steps of run {RUN} of parent have written nothing"
    assert world.call("logs", RUN) == (0, "", f"{silent}; for the runs that it called: agentrun logs {CHILD}\n")
    failure: dict[str, Any] = {"reason": "exit", "exit_code": 3}
    child.wait(100).end("boom", "failed", **failure).settle("boom", "failed", **failure)
    child.finish("failed", error="step 2 of 2, boom: exit status 3").let_go()
    failure = {"reason": "child", "exit_code": 3, "error": f"run {CHILD}: step 2 of 2, boom: exit status 3"}
    run.wait(900).end("settle", "failed", **failure).settle("settle", "failed", **failure).finish("failed").let_go()
    home = f"AGENTRUN_HOME={world.root} {PROGRAM}"
    assert report(world)[2:] == [
        f"step 2 of 2, settle: run {CHILD}: step 2 of 2, boom: exit status 3 (after 0.9 s)",
        f"run {CHILD} of /opt/child.yaml",
        "step 2 of 2, boom: exit status 3 (after 0.1 s)",
        "    | no luck",
        f"its log:   {home} logs {CHILD} --step boom",
        f"go on:     {home} resume {RUN}",
    ]
    assert report(world, CHILD)[-2:] == [
        f"part of:   run {RUN}, as its step settle: it goes on with that",
        f"go on:     {home} resume {RUN}",
    ]
    assert world.call("status", CHILD)[1].splitlines()[-1] == f"go on: agentrun resume {RUN}"
    [settle] = [step for step in json.loads(world.call("status", RUN, "--json")[1])["steps"] if step["id"] == "settle"]
    assert settle["child"] == CHILD
    assert f"  run       {CHILD}, failed: agentrun status {CHILD}" in world.call("status", RUN, "-v")[1].splitlines()


def ended_loop(world: World, reason: str, outputs: str | None) -> Recorded:
    run = world.record(RUN, loop()).take().hold()
    for n in (1, 2):
        run.begin_round("think", n).write(f"think[{n}]", (n, b"hm\n"))
        run.end(f"think[{n}]", exit_code=0).settle(f"think[{n}]", exit_code=0, outputs=outputs)
    run.settle("think", "failed", reason=reason, error="2 rounds, and no end", counted=False)
    return run.finish("failed").let_go()


@pytest.mark.parametrize(
    ("reason", "change"),
    [("max", "raise `max` of step think, or change its `until`,"), ("until_failed", "mend the `until` of step think")],
)
def test_a_loop_that_would_end_in_the_same_way_again(world: World, reason: str, change: str) -> None:
    ended_loop(world, reason, json.dumps({"enough": "no", "found": ["x" * 100]}))
    last = f'OUT_enough = no, OUT_found = ["{"x" * 57}…'
    lines = report(world)
    assert lines[2:4] == ["step 1 of 1, think: 2 rounds, and no end", f"its last:  {last}"]
    assert lines[-2:] == [
        f"first:     {change} in /opt/quotes/quotes.yaml: as it is, the same would be paid for again",
        f"go on:     AGENTRUN_HOME={world.root} {PROGRAM} resume {RUN} --spec /opt/quotes/quotes.yaml",
    ]
    assert f"  round 2   {last}" in world.call("status", "loop", "--step", "think")[1].splitlines()
    out = world.call("status", "loop")[1].splitlines()
    assert "steps    2 of 2 done, 1 failed" in out
    assert out[-1] == f"go on: agentrun resume {RUN} --spec /opt/quotes/quotes.yaml"


def test_a_loop_whose_rounds_gave_nothing(world: World) -> None:
    ended_loop(world, "max", None)
    assert not [line for line in report(world) if line.startswith("its last")]
    assert "round 2 " not in world.call("status", "loop", "--step", "think")[1]


def test_the_plan_of_a_resume_is_in_words(world: World) -> None:
    a, b, c, d, work, late = steps("a", "b", "c", "d", "work", "late")
    job = Job("fan", tuple(replace(step, needs=()) for step in (a, b, c, d, replace(work, foreach=[1, 2]), late)))
    run = world.record(RUN, job).take().hold().settle("a", "skipped", reason="if").start("b")
    run.end("b", "over_budget", reason="oom").settle("b", "over_budget", reason="oom")
    run.settle("c", "skipped", reason="upstream").start("d").end("d", "timed_out").settle("d", "timed_out")
    instances(run.freeze("work", "x", "y"), good=1, running=1)
    plan = world.call("resume", RUN, "--plan")[1].splitlines()
    assert plan[4] == "> run     work  it has begun: another process advances this run; 1 of 2 instances is done"
    failure: dict[str, Any] = {"reason": "exit", "exit_code": 3}
    run.end("work[1]", "failed", **failure).settle("work[1]", "failed", **failure)
    run.settle("work", "failed", reason="instances", counted=False).finish("failed").let_go()
    assert [line.split(maxsplit=3)[1:] for line in world.call("resume", RUN, "--plan")[1].splitlines()[:-1]] == [
        ["reuse", "a", "skipped: its `if` said no"],
        ["run", "b", "it was over its budget of memory"],
        ["run", "c", "it was skipped: something that it needs failed"],
        ["run", "d", "it timed out"],
        ["run", "work", "it failed; 1 of 2 instances is done"],
        ["run", "late", "it has not started"],
    ]


def test_an_interrupted_fan_out(world: World) -> None:
    fanned(world, 5, good=1, running=2).let_go()
    lines = world.call("status", "fan")[1].splitlines()
    assert any(line.endswith("1 of 5 done, 2 interrupted") for line in lines)
    assert sum(line.split()[:2] == [f"work[{n}]", "interrupted"] for line in lines for n in (1, 2)) == 2


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("work", {"AGENTRUN_STEP": "work[0]", "AGENTRUN_ITEM": '{"name":"ann"}', "WHO": "ann"}),
        ("work[1]", {"AGENTRUN_STEP": "work[1]", "AGENTRUN_ITEM": '{"name":"bob"}', "WHO": "bob"}),
        ("each", {"AGENTRUN_STEP": "each[0]", "AGENTRUN_ITEM": "${{ item }}", "WHO": "${{ item.name }}"}),
        ("think", {"AGENTRUN_STEP": "think[2]", "AGENTRUN_ROUND": "2", "OUT_n": "${{ steps.think.outputs.n }}"}),
        ("think[1]", {"AGENTRUN_STEP": "think[1]", "AGENTRUN_ROUND": "1", "OUT_n": None, "AGENTRUN_ITEM": None}),
    ],
)
def test_env(world: World, tmp_path: Any, step: str, told: dict[str, str | None]) -> None:
    (tmp_path / "fan.yaml").write_text(
        "steps:\n"
        "- {id: work, run: 'true', foreach: [{name: ann}, {name: bob}], env: {WHO: '${{ item.name }}'}}\n"
        "- {id: think, run: 'true', outputs: {n: array}, repeat: {until: 'true', max: 3}}\n"
        "- {id: each, run: 'true', foreach: '${{ steps.think.outputs.n }}', env: {WHO: '${{ item.name }}'}}\n"
    )
    status, out, _ = world.call("env", str(tmp_path / "fan.yaml"), "--step", step)
    given = dict(line.partition("=")[::2] for line in out.splitlines() if "=" in line)
    assert status == 0
    assert {name: given.get(name) for name in told} == told
    assert given["AGENTRUN_USAGE"].endswith(f"/io/{told['AGENTRUN_STEP']}#1.use")
    assert given["AGENTRUN_CALLS"].endswith(f"/io/{told['AGENTRUN_STEP']}.calls")


def test_completion_offers_instances(world: World) -> None:
    from agentrun.cli.complete import complete_step

    fanned(world, 3, good=1, bad=1)

    class Asked:
        params = {"run": "fan"}  # noqa: RUF012

    assert complete_step(Asked, "w") == [("work", "3 instances"), ("work[", "3 instances")]
    assert complete_step(Asked, "work[") == [("work[0]", "succeeded"), ("work[1]", "failed")]
    assert complete_step(Asked, "work[1") == [("work[1]", "failed")]
    assert complete_step(Asked, "nothing[") == []
