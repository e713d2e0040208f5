"""What validate and plan say about fan-outs, loops, child jobs and budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .recorded import World

FILE = """\
name: fan
params: {who: {default: x}}
budget: {steps: 60, tokens: 200k, cost: 2.5, cpu: 10m, memory: 2GiB, output: 1536KiB, processes: 1, daily: {cost: 20}}
steps:
- id: list
  run: ./list.sh
- id: quote
  run: ./ask.sh
  foreach: ${{ steps.list.outputs.all }}
  max_parallel: 8
  budget: {tokens: 20k, memory: 512MiB}
- id: each
  job: child.yaml
  foreach: [a, b, c]
  fail_fast: true
  with: {who: "${{ item }}"}
- id: loop
  run: ./think.sh
  repeat: {until: 'test "$OUT_done" = yes', max: 50, interval: 10s}
  if: test -s in
- id: again
  job: child.yaml
  repeat: {until: "true", max: 1}
  with: {who: "${{ params.who }}"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "jobs"
    made.mkdir()
    (made / "fan.yaml").write_text(FILE)
    (made / "child.yaml").write_text("params: {who: {}}\nsteps: [{run: ./settle.sh}]\n")
    monkeypatch.chdir(made)
    return made


def test_plan(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrun.cli.plan.os.cpu_count", lambda: 2)
    status, out, _ = world.call("plan", "fan.yaml")
    assert status == 0
    assert out.splitlines() == [
        "fan: 5 steps, at most 8 at once, budget 60 attempts, 200k tokens, cost 2.50, cpu 10m, memory 2GiB,"
        " output 1536KiB, 1 process, budget of a day cost 20",
        "",
        "STAGE  STEP   AFTER  TIMEOUT  ATTEMPTS",
        "    1  list   -      -               1",
        "    2  quote  list   -               1"
        "  for each of ${{ steps.list.outputs.all }}, 8 at once; budget 20k tokens, memory 512MiB",
        "    3  each   quote  -               1"
        "  job child.yaml; for each of 3 items; the first failure ends the others",
        "    4  loop   each   -               1"
        '  up to 50 rounds, 10s apart, until test "$OUT_done" = yes; if test -s in',
        "    5  again  loop   -               1  job child.yaml; up to 1 round, until true",
    ]


def test_plan_as_json(world: World, folder: Path) -> None:
    plan = json.loads(world.call("plan", "fan.yaml", "--json")[1])
    none = dict.fromkeys(("steps", "tokens", "cost", "cpu_ms", "memory_bytes", "output_bytes", "processes"))
    assert plan["budget"] == {
        "steps": 60, "tokens": 200_000, "cost": 2.5, "cpu_ms": 600_000, "memory_bytes": 2**31,
        "output_bytes": 1536 * 1024, "processes": 1,
    }  # fmt: skip
    assert plan["daily"] == none | {"cost": 20}
    keys = ("job", "foreach", "max_parallel", "fail_fast", "repeat")
    assert [tuple(step[key] for key in keys) for step in plan["steps"]] == [
        (None, None, None, False, None),
        (None, "${{ steps.list.outputs.all }}", 8, False, None),
        ("child.yaml", ["a", "b", "c"], None, True, None),
        (None, None, None, False, {"until": 'test "$OUT_done" = yes', "max": 50, "interval_ms": 10_000}),
        ("child.yaml", None, None, False, {"until": "true", "max": 1, "interval_ms": 0}),
    ]
    budgets = [step["budget"] for step in plan["steps"]]
    assert budgets == [none, none | {"tokens": 20_000, "memory_bytes": 2**29}, none, none, none]


def test_validate_reads_the_children(world: World, folder: Path) -> None:
    (folder / "list.sh").write_text("#!/bin/sh\n")
    (folder / "list.sh").chmod(0o755)
    assert world.call("validate", "fan.yaml") == (0, "fan.yaml: ok, job fan, 5 steps\n", "")
    (folder / "child.yaml").write_text("params: {whom: {}}\nsteps: [{job: fan.yaml}]\n")
    status, out, _ = world.call("validate", "fan.yaml")
    back = "job 'child.yaml' leads back to fan.yaml: a job cannot run itself"
    assert (status, [line for line in out.splitlines() if line.startswith("fan.yaml")]) == (
        65, [f"fan.yaml:13:8: {back}", f"fan.yaml:22:8: {back}"],
    )
    (folder / "child.yaml").write_text("params: {whom: {default: x}}\nsteps: [{run: ./a}]\n")
    shapes = json.loads(world.call("validate", "fan.yaml", "--json")[1])
    assert [(shape["line"], shape["column"], shape["message"]) for shape in shapes] == [
        (16, 10, "job 'child.yaml' has no param 'who' (did you mean 'whom'?)"),
        (24, 10, "job 'child.yaml' has no param 'who' (did you mean 'whom'?)"),
    ]


def test_validate_looks_at_until(world: World, folder: Path) -> None:
    (folder / "until.yaml").write_text(
        "steps:\n"
        "- run: ./a\n  repeat: {max: 3, until: 'test \"$OUT_done'}\n"
        "- run: ./a\n  repeat:\n    max: 3\n    until: |\n      true\n      if then\n"
        "- run: ./a\n  repeat: {max: 3, until: item.done}\n"
        "- run: ./a\n  repeat: {max: 3, until: 'test \"$OUT_done\" = yes'}\n"
    )
    status, out, _ = world.call("validate", "until.yaml")
    told = [line for line in out.splitlines() if line.startswith("until.yaml")]
    assert status == 65
    assert [line.split(": ")[0] for line in told] == ["until.yaml:3:27", "until.yaml:9:7", "until.yaml:11:27"]
    assert "sh cannot read this" in told[0]
    assert told[2].endswith("'until' is a shell command, and 'item.done' is none")


def test_validate_as_json_of_a_file_that_is_not_there(world: World, folder: Path) -> None:
    status, out, err = world.call("validate", "none.yaml", "--json")
    assert (status, err) == (66, "")
    assert [shape["message"] for shape in json.loads(out)] == ["there is no job file none.yaml"]
