"""No limit is advice: at a timeout, a deadline, a budget, whatever a step has started is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..kill.arena import LIMIT, now_ms, wait_gone
from .place import MARK, Place, dead, milliseconds

TIMEOUT, GRACE = 300, 200  # ms

# Each writes the pid of what tries to stay, says that it is there, and goes on for ever. `$HERE` is a FIFO to say
# so, `$BLOCK` one that never gives anything: what reads it waits until it is killed.
STAY = 'echo $$ >> "$ARENA/pids"; echo here > "$HERE"; read _ < "$BLOCK"'
PYTHON = """
import os, signal, sys
kind, root, here, block = sys.argv[1:5]
def stay():
    with open(root + "/pids", "a") as file: file.write("%d\\n" % os.getpid())
    with open(here, "w") as file: file.write("here\\n")
    while True: open(block).read()
def fork():
    if os.fork(): return True
if kind == "double_fork":  # its parents are gone, its session is another one
    if not fork():
        os.setsid()
        if not fork(): stay()
        os._exit(0)
    os.wait()
elif kind == "daemon":  # and it has closed what it was given, ignores what it can, and stands elsewhere
    if not fork():
        os.setsid()
        if not fork():
            for number in (1, 2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)
            os.chdir("/"); os.closerange(0, 256)
            os.execve(sys.executable, [sys.executable, __file__, "stays", root, here, block], {})
        os._exit(0)
    os.wait()
elif kind == "stays":
    for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
    stay()
elif kind == "moving":  # a new process for ever, the old one ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setpgrp()
    said = False
    while True:
        if fork(): os._exit(0)
        with open(root + "/pids", "a") as file: file.write("%d\\n" % os.getpid())
        if not said:
            with open(here, "w") as file: file.write("here\\n")
            said = True
if len(sys.argv) == 5:
    open(block).read()
"""
ESCAPEES = {
    "child": f"({STAY}) & wait",
    "ignores_term": f"trap '' TERM INT HUP; {STAY}; read _ < \"$BLOCK\"",
    "nohup": f"nohup sh -c '{STAY}' > /dev/null 2>&1 & read _ < \"$BLOCK\"",
    "setsid": f"setsid sh -c 'trap \"\" TERM; {STAY}' & read _ < \"$BLOCK\"",
    "orphan": f"(setsid sh -c '{STAY}' &) ; read _ < \"$BLOCK\"",
    "double_fork": '"$PY" "$ARENA/escape.py" double_fork "$ARENA" "$HERE" "$BLOCK"',
    "daemon": '"$PY" "$ARENA/escape.py" daemon "$ARENA" "$HERE" "$BLOCK"',
    "moving": '"$PY" "$ARENA/escape.py" moving "$ARENA" "$HERE" "$BLOCK" & read _ < "$BLOCK"',
}


# The same for a step that ends at once and leaves it behind.
LEFT = {
    "child": f"sh -c '{STAY}' &",
    "ignores_term": f"sh -c 'trap \"\" TERM HUP; {STAY}; read _ < \"$BLOCK\"' &",
    "setsid": f"setsid sh -c '{STAY}' &",
    "daemon": f"{ESCAPEES['daemon']} leave",
}


def begin(place: Place, program: str, options: str, after: str = "") -> subprocess.Popen[str]:
    """Start a run whose first step is that program, and wait until what tries to stay is there."""
    place.file("escape.py", PYTHON)
    gate = place.gate("gate")
    job = place.job("escape", f"""
env: {{HERE: '{gate.here}', BLOCK: '{gate.go}', PY: '{sys.executable}'}}
steps:
- id: escapes
  {options}
  run: |
    {program}
{after}
""")  # fmt: skip
    run = place.start("run", str(job))
    gate.reached()
    return run


def pids(place: Place) -> list[int]:
    return [int(line) for line in place.read("pids").split()]


@pytest.mark.parametrize("kind", ESCAPEES)
def test_at_its_timeout_and_grace_everything_that_a_step_started_is_gone(place: Place, kind: str) -> None:
    tidy = f"- {{id: tidy, when: always, run: '{MARK}'}}"
    run = begin(place, ESCAPEES[kind], f"timeout: {TIMEOUT}ms\n  grace: {GRACE}ms", tidy)
    if kind != "moving":  # that one is another process by now
        wait_gone(pids(place)[0])
        gone = now_ms()
        begun = place.rows("SELECT started_at FROM attempts WHERE instance = 'escapes'")[0][0]
        assert gone - begun <= TIMEOUT + GRACE + 1_000
    assert run.wait(LIMIT) == 124
    assert place.marks() == ["tidy"]
    assert [pid for pid in pids(place) if not dead(pid)] == []
    step, _ = place.status("escape")["steps"]
    assert (step["outcome"], step["reason"], step["error"]) == ("timed_out", "timeout", f"timed out after {TIMEOUT}ms")
    took = milliseconds(step["history"][0]["finished_at"]) - milliseconds(step["history"][0]["started_at"])
    assert TIMEOUT - 2 <= took <= TIMEOUT + GRACE + 1_000


@pytest.mark.parametrize("kind", LEFT)
def test_what_a_step_left_behind_lives_until_the_end_of_the_run(place: Place, kind: str) -> None:
    next_step = place.gate("next")
    run = begin(place, LEFT[kind], "grace: 100ms", f"- {{id: next, run: '{next_step.shell}'}}")
    next_step.reached()
    (left,) = pids(place)
    assert not dead(left)
    next_step.open()
    assert run.wait(LIMIT) == 0
    assert dead(left)


@pytest.mark.parametrize("kind", LEFT)
def test_with_leave_running_it_lives_on(place: Place, kind: str) -> None:
    run = begin(place, LEFT[kind], "leave_running: true")
    try:
        assert run.wait(LIMIT) == 0
        assert not dead(pids(place)[0])
    finally:
        place.kill(*pids(place))


@pytest.mark.parametrize("kind", LEFT)
def test_what_an_attempt_left_behind_is_gone_before_the_next_begins(place: Place, kind: str) -> None:
    second = place.gate("second")
    # the first attempt fails as soon as what it leaves is there; the second stops at a gate of its own
    program = f"""if [ "$AGENTRUN_ATTEMPT" = 2 ]; then {second.shell}; exit; fi
    {LEFT[kind]}
    until test -e "$ARENA/pids"; do :; done
    exit 1"""
    run = begin(place, program, "grace: 100ms\n  retry: {max_attempts: 2, interval: 0s}")
    second.reached()
    assert dead(pids(place)[0])
    second.open()
    assert run.wait(LIMIT) == 0


def test_term_comes_first_and_a_step_may_use_its_grace(place: Place) -> None:
    gate = place.gate("gate")
    ran = place.run(f"""
steps:
- id: tidy
  run: 'trap "echo asked >> $ARENA/ledger; exit 0" TERM; {gate.shell} & wait'
  timeout: 300ms
  grace: 20s
""")
    assert (ran.status, place.marks()) == (124, ["asked"])
    assert ran.step("tidy")["outcome"] == "timed_out", "that it then ended with 0 changes nothing"


def test_the_deadline_ends_the_run_and_both_kinds_of_handlers_follow(place: Place) -> None:
    place.gate("never")
    ran = place.run(f"""
deadline: 500ms
max_parallel: 3
steps:
- {{id: quick, run: '{MARK}', needs: []}}
- {{id: slow, run: 'read _ < "$ARENA/never.go"', needs: [], grace: 100ms, retry: {{max_attempts: 5, interval: 0s}}}}
- {{id: waits, run: '{MARK}; exit 1', needs: [], retry: {{max_attempts: 5, interval: 1m, jitter: none}}}}
- {{id: after, run: '{MARK}', needs: [slow]}}
- {{id: alarm, when: on_failure, run: '{MARK}'}}
- {{id: tidy, when: always, run: '{MARK}; read _ < "$ARENA/never.go"', timeout: 700ms, grace: 0s}}
""")
    assert (ran.status, ran.run["outcome"], ran.run["reason"]) == (124, "timed_out", "deadline")
    assert ran.outcomes == {
        "quick": "succeeded", "slow": "timed_out", "waits": "timed_out", "after": "skipped (deadline)",
        "alarm": "succeeded", "tidy": "timed_out",
    }  # fmt: skip
    assert sorted(place.marks()) == ["alarm", "quick", "tidy", "waits"]
    assert (ran.step("slow")["attempts"], ran.step("slow")["reason"]) == (1, "deadline"), "no retry after it"
    assert ran.step("tidy")["reason"] == "timeout", "a handler stands outside the deadline, not its own timeout"


def test_the_step_budget_starts_nothing_more_lets_run_what_runs_and_then_its_handlers(place: Place) -> None:
    ran = place.run(f"""
budget: {{steps: 3}}
max_parallel: 1
steps:
- {{id: a, run: '{MARK}'}}
- {{id: b, run: '{MARK}; test "$AGENTRUN_ATTEMPT" = 2', retry: {{max_attempts: 3, interval: 0s}}, if: '{MARK}'}}
- {{id: c, run: '{MARK}'}}
- {{id: alarm, when: on_failure, run: '{MARK}'}}
- {{id: tidy, when: always, run: '{MARK}'}}
""")
    assert (ran.status, ran.run["outcome"], ran.run["reason"]) == (125, "over_budget", "budget")
    assert place.marks() == ["a", "b", "b", "b", "alarm", "tidy"], "the `if` and the handlers are not counted"
    assert ran.outcomes == {
        "a": "succeeded", "b": "succeeded", "c": "skipped (budget)", "alarm": "succeeded", "tidy": "succeeded",
    }  # fmt: skip


def test_a_budget_that_is_just_enough_is_enough(place: Place) -> None:
    ran = place.run(f"budget: {{steps: 2}}\nsteps:\n- {{id: a, run: '{MARK}'}}\n- {{id: b, run: '{MARK}'}}\n")
    assert (ran.status, ran.run["outcome"]) == (0, "succeeded")


def test_the_budget_goes_on_counting_over_a_resume(place: Place) -> None:
    job = f"budget: {{steps: 3}}\nsteps:\n- {{id: a, run: '{MARK}'}}\n- {{id: b, run: '{MARK}; exit 1'}}\n"
    assert place.run(job).status == 1
    assert place.call("resume", "job").status == 1
    assert place.call("resume", "job").status == 125
    assert place.marks() == ["a", "b", "b"]


def test_what_runs_when_the_budget_is_used_up_finishes(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"""
budget: {{steps: 2}}
max_parallel: 3
steps:
- {{id: long, needs: [], run: '{gate.shell}'}}
- {{id: short, needs: [], run: '{MARK}'}}
- {{id: next, needs: [short], run: '{MARK}'}}
""")  # fmt: skip
    run = place.start("run", str(job))
    gate.reached()
    gate.open()
    assert run.wait(LIMIT) == 125
    outcomes = {step["id"]: step["outcome"] for step in place.status("job")["steps"]}
    assert outcomes == {"long": "succeeded", "short": "succeeded", "next": "skipped"}


def test_a_second_cancel_ends_the_handlers_too(place: Place) -> None:
    work, tidy = place.gate("work"), place.gate("tidy")
    job = place.job("job", f"""
steps:
- {{id: work, run: '{work.shell}', grace: 100ms}}
- {{id: tidy, when: always, run: '{tidy.shell}', grace: 100ms}}
""")  # fmt: skip
    run = place.start("run", str(job))
    work.reached()
    assert place.call("cancel", "job").status == 0
    tidy.reached()
    assert place.call("cancel", "job").status == 0
    assert run.wait(LIMIT) == 1
    assert [step["outcome"] for step in place.status("job")["steps"]] == ["cancelled", "cancelled"]
