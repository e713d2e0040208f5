"""Fan-outs under `kill -9`: one effect for each item, however often and wherever the run was cut off."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from .arena import LIMIT, Arena

pytestmark = pytest.mark.slow

# The effect is outside agentrun: one line of one write, appended by the last thing that the instance does.
NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT $AGENTRUN_INTERRUPTED $AGENTRUN_ITEM" >> "$ARENA/ledger"'
BEGUN = 'echo "$AGENTRUN_STEP $AGENTRUN_ITEM" >> "$ARENA/begun"'


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; it must come."""
    give_up = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        os.sched_yield()


def items_of(arena: Arena) -> list[str]:
    return [line.split()[3] for line in arena.lines()]


def begun(arena: Arena) -> list[str]:
    """The items of the instances that were begun since the last call."""
    path = arena.root / "begun"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return [line.split()[1] for line in lines]


def hundred(arena: Arena, gate: str, *, at: int, at_once: int = 1) -> str:
    items = ", ".join(map(str, range(1, 101)))
    return str(arena.job("fan", f"""
max_parallel: {at_once}
steps:
- id: s
  foreach: [{items}]
  run: |
    {BEGUN}
    if [ $AGENTRUN_ITEM = {at} ]; then {gate}; fi
    {NOTE}
    echo v=$AGENTRUN_ITEM >> $AGENTRUN_OUTPUT
- id: t
  python: 'def main(v): assert v == [str(n) for n in range(1, 101)]'
  with: {{v: '${{{{ steps.s.outputs.v }}}}'}}
"""))  # fmt: skip


def test_a_hundred_items_killed_at_the_eighty_seventh_are_fourteen_more(arena: Arena) -> None:
    gate = arena.gate("gate")
    arena.start("run", hundred(arena, gate.shell, at=87))
    gate.reached()
    arena.kill_everything()
    assert begun(arena) == [str(n) for n in range(1, 88)]
    gate.open()
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    assert sorted(begun(arena), key=int) == [str(n) for n in range(87, 101)], "fourteen, not a hundred"
    assert items_of(arena) == [str(n) for n in range(1, 101)], "one effect for each"
    assert [line.split()[1:3] for line in arena.lines() if line.split()[3] == "87"] == [["2", "1"]]
    outcome, done, total = arena.rows("SELECT outcome, steps_done, steps_total FROM runs")[0]
    assert (outcome, done, total) == ("succeeded", 101, 101)
    assert arena.rows("SELECT count(*) FROM attempts") == [(102,)]


@pytest.mark.parametrize("who", ["supervisor", "shim"])
def test_with_eight_at_once_a_kill_of_either_repeats_nothing_that_is_done(arena: Arena, who: str) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", hundred(arena, gate.shell, at=40, at_once=8))
    gate.reached()
    if who == "supervisor":
        arena.kill(arena.owner())
        assert run.wait(LIMIT) == -signal.SIGKILL
        gate.open()
        arena.wait_until_let_go()
        assert sorted(begun(arena), key=int) == [str(n) for n in range(1, 101)]
    else:
        arena.kill(arena.shim())
        gate.reached()
        gate.open()
        assert run.wait(LIMIT) == 0
    assert arena.status("fan")["outcome"] == "succeeded"
    effects = sorted(items_of(arena), key=int)
    # what the shim held at its death may have had its effect with nobody to see its end
    again = {line.split()[3] for line in arena.lines() if line.split()[2] == "1"}
    assert set(effects) == {str(n) for n in range(1, 101)} and len(effects) <= 100 + len(again) and len(again) <= 8
    if who == "supervisor":
        assert not again and len(effects) == 100


def test_killed_again_and_again_every_item_has_its_effect_once(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("fan", f"""
max_parallel: 1
steps:
- id: make
  run: '{BEGUN}; echo "list=[1,2,3,4,5,6,7,8,9]" >> $AGENTRUN_OUTPUT'
- id: s
  foreach: ${{{{ steps.make.outputs.list }}}}
  run: 'test ! -e $ARENA/stop$AGENTRUN_ITEM || {{ {gate.shell}; }}; {NOTE}'
""")  # fmt: skip
    stops = [arena.root / f"stop{item}" for item in (1, 4, 5, 9)]
    for stop in stops:
        stop.touch()
    arena.start("run", str(job))
    for stop in stops:
        gate.reached()
        arena.kill_everything()
        stop.unlink()
        last = arena.start("resume", "fan")
    assert last.wait(LIMIT) == 0
    assert sorted(items_of(arena)) == [str(n) for n in range(1, 10)]
    assert arena.rows("SELECT max(attempt), sum(attempt) FROM steps WHERE number >= 0") == [(2, 13)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_the_instances_to_be_resumed(arena: Arena, number: signal.Signals, status: int) -> None:
    gate = arena.gate("gate")
    job = arena.job("fan", f"""
max_parallel: 2
steps:
- id: s
  foreach: [a, b, c, d]
  run: 'if [ $AGENTRUN_ITEM = b ]; then {gate.shell}; fi; {NOTE}'
""")  # fmt: skip
    run = arena.start("run", str(job))
    gate.reached()
    wait_for(lambda: arena.rows("SELECT steps_done FROM runs") == [(3,)])
    run.send_signal(number)
    assert run.wait(LIMIT) == status
    assert arena.status("fan")["interrupted"] is True
    gate.open()
    assert arena.command("resume", "fan").returncode == 0
    assert sorted(items_of(arena)) == ["a", "b", "c", "d"]
    assert arena.rows("SELECT resumes FROM runs") == [(0,)]


@pytest.mark.parametrize(("policy", "outcome"), [("skip", "succeeded"), ("fail", "failed"), ("rerun", "succeeded")])
def test_on_interrupt_is_of_each_instance(arena: Arena, policy: str, outcome: str) -> None:
    gate = arena.gate("gate")
    job = arena.job("fan", f"""
max_parallel: 2
steps:
- id: s
  foreach: [a, b, c, d]
  on_interrupt: {policy}
  run: 'if [ $AGENTRUN_ITEM = c ]; then {gate.shell}; fi; {NOTE}'
""")  # fmt: skip
    arena.start("run", str(job))
    gate.reached()
    wait_for(lambda: arena.rows("SELECT count(*) FROM steps WHERE number >= 0 AND state = 'finished'") == [(3,)])
    arena.kill_everything()
    gate.open()
    assert arena.command("resume", "fan").returncode == (outcome == "failed")
    assert arena.rows("SELECT outcome FROM runs") == [(outcome,)]
    assert sorted(items_of(arena)) == ["a", "b", *(["c"] if policy == "rerun" else []), "d"]


def test_a_list_is_not_changed_under_an_item_whose_end_nobody_saw(arena: Arena) -> None:
    """It is judged by the file that it was begun with, first: by a resume, or by a cancel."""
    gate = arena.gate("gate")
    text = "steps:\n- id: s\n  foreach: [a, b, c]\n  max_parallel: 1\n" + (
        f"  run: 'if [ $AGENTRUN_ITEM = b ]; then {gate.shell}; fi; {NOTE}'\n"
    )
    arena.start("run", str(arena.job("fan", text)))
    gate.reached()
    arena.kill_everything()
    other = str(arena.job("other", text.replace("[a, b, c]", "[c, a, d]")))
    refused = arena.command("resume", "fan", "--spec", other)
    assert refused.returncode == 2 and "in the middle of its list" in refused.stderr
    assert arena.command("cancel", "fan").returncode == 0
    assert arena.rows("SELECT outcome FROM runs") == [("cancelled",)]
    resumed = arena.command("resume", "fan", "--spec", other)
    assert resumed.returncode == 0, resumed.stderr
    assert items_of(arena) == ["a", "c", "d"]
    assert arena.rows("SELECT outcome, steps_done, steps_total FROM runs") == [("succeeded", 3, 3)]
    assert arena.rows("SELECT count(*) FROM attempts WHERE state = 'running'") == [(0,)]


@pytest.mark.parametrize(
    ("before", "after"),
    [("foreach: [a, b]", "repeat: {until: 'true', max: 3}"), ("repeat: {until: 'false', max: 2}", "foreach: [a, b, c]"),
     ("foreach: [a, b]", "timeout: 1m")],
)  # fmt: skip
def test_instances_do_not_become_rounds_nor_the_other_way_round(arena: Arena, before: str, after: str) -> None:
    text = "steps:\n- id: s\n  {}\n  run: 'test -e ok'\n"
    assert arena.command("run", str(arena.job("job", text.format(before)))).returncode == 1
    refused = arena.command("resume", "job", "--accept-changes", "--spec", str(arena.job("other", text.format(after))))
    assert refused.returncode == 2 and "changes between `foreach`, `repeat` and neither" in refused.stderr


def test_a_handler_that_is_a_loop_and_is_not_needed_any_more(arena: Arena) -> None:
    job = arena.job("job", """
steps:
- {id: a, run: 'test -e ok'}
- {id: h, when: on_failure, repeat: {until: 'test $AGENTRUN_ROUND = 3', max: 5}, run: 'true'}
""")
    assert arena.command("run", str(job)).returncode == 1
    (arena.root / "ok").touch()
    resumed = arena.command("resume", "job")
    assert resumed.returncode == 0, resumed.stderr
    assert arena.rows("SELECT outcome, steps_done, steps_total FROM runs") == [("succeeded", 2, 2)]
    assert arena.rows("SELECT count(*) FROM steps WHERE state <> 'finished'") == [(0,)]


def test_an_if_of_an_instance_that_was_cut_off_is_asked_again(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("fan", f"""
max_parallel: 1
steps:
- id: s
  foreach: [a, b, c]
  if: 'if [ $AGENTRUN_ITEM = b ]; then {gate.shell}; exit 1; fi'
  run: '{NOTE}'
""")  # fmt: skip
    arena.start("run", str(job))
    gate.reached()
    arena.kill_everything()
    gate.open()
    assert arena.command("resume", "fan").returncode == 0
    assert items_of(arena) == ["a", "c"]
    assert arena.rows("SELECT reason FROM steps WHERE instance = 's[1]'") == [("if",)]
