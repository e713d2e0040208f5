"""The promise under `kill -9`: what was done is not done again, what was cut off is done again with the same key."""

from __future__ import annotations

import signal

import pytest

from .arena import LIMIT, Arena, now_ms

STEPS = 9
LEDGER = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT $AGENTRUN_INTERRUPTED $AGENTRUN_IDEMPOTENCY_KEY" >> "$ARENA/ledger"'


def nine_steps(arena: Arena, stop_at: int, gate: str) -> str:
    lines = ["steps:"]
    for number in range(1, STEPS + 1):
        wait = f"; {gate}" if number == stop_at else ""
        lines += [f"- id: s{number}", f"  run: '{LEDGER}{wait}'"]
    return str(arena.job("nine", "\n".join(lines) + "\n"))


def steps_of(arena: Arena) -> list[str]:
    return [line.split()[0] for line in arena.lines()]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_killed_supervisor_is_replaced_and_every_step_runs_once(arena: Arena, step: int) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, step, gate.shell))
    gate.reached()
    arena.kill(arena.owner())
    assert run.wait(LIMIT) == -signal.SIGKILL
    gate.open()
    arena.wait_until_let_go()
    assert steps_of(arena) == [f"s{n}" for n in range(1, STEPS + 1)]
    assert {line.split()[2] for line in arena.lines()} == {"0"}
    outcome, resumes, epoch = arena.rows("SELECT outcome, resumes, epoch FROM runs")[0]
    assert (outcome, resumes, epoch) == ("succeeded", 1, 2)


@pytest.mark.parametrize("step", [1, 5, 9])
def test_after_everything_was_killed_resume_runs_only_what_was_cut_off(arena: Arena, step: int) -> None:
    gate = arena.gate("gate")
    arena.start("run", nine_steps(arena, step, gate.shell))
    gate.reached()
    arena.kill_everything()
    assert arena.status("nine")["interrupted"] is True
    gate.open()
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    expected = [f"s{n}" for n in range(1, STEPS + 1)]
    assert steps_of(arena) == [*expected[:step], *expected[step - 1 :]]
    first, second = (line.split() for line in arena.lines()[step - 1 : step + 1])
    assert first[1:3] == ["1", "0"] and second[1:3] == ["2", "1"], "the rerun knows that it is one"
    assert first[3] == second[3], "the same idempotency key"
    assert arena.status("nine")["outcome"] == "succeeded"


def test_a_killed_shim_interrupts_what_it_held_and_the_run_goes_on(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 4, gate.shell))
    gate.reached()
    held = arena.step_processes()
    arena.kill(arena.shim())
    gate.reached()  # the second attempt
    assert not set(held) & set(arena.step_processes()), "what the dead shim held is gone"
    gate.open()
    assert run.wait(LIMIT) == 0
    assert steps_of(arena) == ["s1", "s2", "s3", "s4", "s4", "s5", "s6", "s7", "s8", "s9"]


def test_three_interruptions_in_a_row_fail_the_step(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 2, gate.shell))
    for _ in range(3):
        gate.reached()
        arena.kill(arena.shim())
    assert run.wait(LIMIT) == 1
    assert steps_of(arena) == ["s1", "s2", "s2", "s2"]
    step = arena.status("nine")["steps"][1]
    assert (step["outcome"], step["attempts"]) == ("failed", 3)
    assert "interrupted three times" in step["error"]


@pytest.mark.parametrize(("policy", "outcome", "status"), [("skip", "succeeded", 0), ("fail", "failed", 1)])
def test_on_interrupt_decides_what_becomes_of_an_interrupted_step(
    arena: Arena, policy: str, outcome: str, status: int
) -> None:
    gate = arena.gate("gate")
    job = arena.job("policy", f"steps:\n- id: only\n  run: '{LEDGER}; {gate.shell}'\n  on_interrupt: {policy}\n")
    arena.start("run", str(job))
    gate.reached()
    arena.kill_everything()
    assert arena.command("resume", "policy").returncode == status
    assert steps_of(arena) == ["only"]
    assert arena.status("policy")["outcome"] == outcome


def test_the_timeout_is_held_while_the_supervisor_is_dead(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job(
        "late", f"max_resumes: 10\nsteps:\n- id: slow\n  run: '{gate.shell}'\n  timeout: 2s\n  grace: 100ms\n"
    )
    arena.start("run", str(job))
    gate.reached()
    begun = now_ms()
    for _ in range(2):
        arena.kill(arena.owner())
    arena.wait_until_let_go()
    assert now_ms() - begun < 6_000
    assert arena.status("late")["steps"][0]["outcome"] == "timed_out"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_steps_and_leaves_the_run_to_be_resumed(
    arena: Arena, number: signal.Signals, status: int
) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 3, gate.shell))
    gate.reached()
    run.send_signal(number)
    assert run.wait(LIMIT) == status
    assert f"agentrun resume {arena.run_id}" in (run.stderr.read() if run.stderr else "")
    assert not arena.step_processes()
    arena.wait_until_let_go()
    assert arena.status("nine")["interrupted"] is True
    gate.open()
    assert arena.command("resume", "nine").returncode == 0
    assert steps_of(arena) == ["s1", "s2", "s3", "s3", *(f"s{n}" for n in range(4, 10))]
    assert arena.rows("SELECT resumes FROM runs") == [(0,)], "asked for: it counts for nothing"


def test_a_closed_terminal_stops_nothing(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 3, gate.shell))
    gate.reached()
    run.send_signal(signal.SIGHUP)
    gate.open()
    assert run.wait(LIMIT) == 0
    assert steps_of(arena) == [f"s{n}" for n in range(1, 10)]


def test_a_run_that_was_interrupted_too_often_is_given_up(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("doomed", f"max_resumes: 1\nsteps:\n- id: s\n  run: '{gate.shell}'\n- id: t\n  run: 'true'\n")
    arena.start("run", str(job))
    for _ in range(2):
        gate.reached()
        arena.kill_everything()
        answer = arena.start("resume", "doomed")
    assert answer.wait(LIMIT) == 1
    assert answer.stderr is not None and "max_resumes" in answer.stderr.read()
    assert arena.status("doomed")["outcome"] == "failed"
    # by hand it can be taken up again
    arena.start("resume", "doomed")
    gate.reached()
    gate.open()
    arena.wait_until_let_go()
    assert arena.status("doomed")["outcome"] == "succeeded"


def test_cancel_ends_the_run_of_another_process(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job(
        "long",
        f"steps:\n- id: s\n  run: '{gate.shell}'\n- id: never\n  run: '{LEDGER}'\n"
        f"- id: tidy\n  when: always\n  run: '{LEDGER}'\n- id: alarm\n  when: on_failure\n  run: '{LEDGER}'\n",
    )
    run = arena.start("run", str(job))
    gate.reached()
    assert arena.command("cancel", "long").returncode == 0
    assert run.wait(LIMIT) == 1
    assert steps_of(arena) == ["tidy"]
    run_row = arena.status("long")
    assert run_row["outcome"] == "cancelled"
    assert [step["outcome"] for step in run_row["steps"]] == ["cancelled", "skipped", "succeeded", "skipped"]


def test_cancel_of_an_interrupted_run_finishes_it(arena: Arena) -> None:
    gate = arena.gate("gate")
    arena.start("run", nine_steps(arena, 2, gate.shell))
    gate.reached()
    arena.kill_everything()
    arena.command("cancel", "nine")
    arena.wait_until_let_go()
    assert arena.status("nine")["outcome"] == "cancelled"
    assert steps_of(arena) == ["s1", "s2"]


def test_two_resumes_at_once_have_one_owner(arena: Arena) -> None:
    """Twenty rounds here; two hundred with `python -m tests.kill.races`."""
    from .races import race

    assert race(arena, rounds=6) == {"one went on, the other said who": 6}
