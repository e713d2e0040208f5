"""What a new owner makes of what it finds: shutdowns, lost files, stopped shims, runs that are given up."""

from __future__ import annotations

import os
import signal

import pytest

from .arena import LIMIT, Arena, wait_gone
from .test_kill import LEDGER, nine_steps, steps_of


def test_a_shutdown_that_signals_everybody_leaves_the_run_interrupted(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 3, gate.shell))
    gate.reached()
    for pid in [*arena.step_processes(), run.pid]:  # the step hears it first, as the order of pids has it
        os.kill(pid, signal.SIGTERM)
    assert run.wait(LIMIT) == 143
    assert arena.rows("SELECT outcome, reason FROM attempts WHERE instance = 's3'") == [("interrupted", "shutdown")]
    gate.open()
    assert arena.command("resume", "nine").returncode == 0
    assert steps_of(arena) == ["s1", "s2", "s3", "s3", *(f"s{n}" for n in range(4, 10))]


def test_a_step_that_somebody_else_terminated_has_failed(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 3, gate.shell))
    gate.reached()
    for pid in arena.step_processes():
        os.kill(pid, signal.SIGTERM)
    assert run.wait(LIMIT) == 143, "the step's own status: 128 + SIGTERM"
    assert arena.status("nine")["outcome"] == "failed"


def test_killed_after_it_was_told_to_stop_nobody_goes_on(arena: Arena) -> None:
    gate = arena.gate("gate")
    stopped = arena.gate("stopped")
    job = arena.job(
        "deaf", f"steps:\n- id: s\n  grace: 60s\n  run: |\n    trap '{stopped.shell}' TERM\n    {gate.shell}\n"
    )
    run = arena.start("run", str(job))
    gate.reached()
    run.send_signal(signal.SIGTERM)
    stopped.reached()  # the step has heard it: so the supervisor has told the shim, and the record
    run.kill()
    assert run.wait(LIMIT) == -signal.SIGKILL
    stopped.open()
    gate.open()
    arena.wait_until_let_go()
    assert arena.status("deaf")["interrupted"] is True
    assert arena.rows("SELECT epoch, stopped FROM runs") == [(1, 1)], "no other supervisor was started"


@pytest.mark.parametrize("lost", ["all", "tail"])
def test_a_results_file_that_the_disk_lost_does_not_matter(arena: Arena, lost: str) -> None:
    gate = arena.gate("gate")
    arena.start("run", nine_steps(arena, 4, gate.shell))
    gate.reached()
    arena.kill_everything()
    results = f"{arena.home}/runs/{arena.run_id}/results"
    os.unlink(results) if lost == "all" else os.truncate(results, 10)
    gate.open()
    assert arena.command("resume", "nine").returncode == 0
    assert steps_of(arena) == ["s1", "s2", "s3", "s4", *(f"s{n}" for n in range(4, 10))]


def test_a_timeout_of_a_month_is_one(arena: Arena) -> None:
    job = arena.job("month", "deadline: 60d\nsteps:\n- {id: s, run: 'true | true', timeout: 30d}\n")
    assert arena.command("run", str(job)).returncode == 0


def test_a_run_that_is_given_up_keeps_what_was_done_and_what_may_stay(arena: Arena) -> None:
    gate, held = arena.gate("gate"), arena.gate("held")
    job = arena.job(
        "doomed",
        "max_resumes: 0\nmax_parallel: 2\nsteps:\n"
        f"- {{id: daemon, needs: [], run: 'sleep 300 & echo $! > $ARENA/daemon', leave_running: true}}\n"
        f"- {{id: once, needs: [daemon], run: '{LEDGER}; {gate.shell}', on_interrupt: skip}}\n"
        f"- {{id: quick, needs: [daemon], run: '{LEDGER}; {held.shell}'}}\n"
        "- {id: never, needs: [quick], run: 'true'}\n",
    )
    arena.start("run", str(job))
    gate.reached()
    held.reached()
    daemon = int((arena.root / "daemon").read_text())
    os.kill(arena.owner(), signal.SIGSTOP)  # so that the end of `quick` reaches the file and not the record
    before = os.stat(f"{arena.home}/runs/{arena.run_id}/results").st_size
    held.open()
    while os.stat(f"{arena.home}/runs/{arena.run_id}/results").st_size == before:
        os.sched_yield()
    arena.kill_everything(spare=[daemon])
    answer = arena.command("resume", "doomed")
    assert answer.returncode == 1 and "max_resumes" in answer.stderr
    outcomes = {step["id"]: step["outcome"] for step in arena.status("doomed")["steps"]}
    assert outcomes == {"daemon": "succeeded", "once": "skipped", "quick": "succeeded", "never": "skipped"}
    os.kill(daemon, signal.SIGKILL)  # it was alive, or this would fail
    wait_gone(daemon)


def test_an_if_whose_supervisors_all_die_is_asked_again(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("asks", f"steps:\n- id: s\n  if: '{gate.shell}'\n  run: '{LEDGER}'\n")
    arena.start("run", str(job))
    gate.reached()
    owners = set()
    while True:
        shim = arena.shim()
        owner = arena.owner()
        if owner not in owners:
            owners.add(owner)
            arena.kill(owner)
        if len(owners) == 6:  # the first and five restarts
            break
    wait_gone(shim)
    gate.open()
    assert arena.command("resume", "asks").returncode == 0
    assert steps_of(arena) == ["s"]


def test_a_stopped_shim_is_named_and_force_ends_it(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", nine_steps(arena, 2, gate.shell))
    gate.reached()
    shim = arena.shim()
    os.kill(shim, signal.SIGSTOP)
    arena.kill(arena.owner())
    run.wait(LIMIT)
    refused = arena.command("resume", "nine")
    assert refused.returncode == 69 and f"(pid {shim})" in refused.stderr and "--force" in refused.stderr
    assert arena.rows("SELECT epoch, resumes FROM runs") == [(1, 0)], "who could not take it up is not counted"
    forced = arena.start("resume", "nine", "--force")
    gate.reached()
    gate.open()
    assert forced.wait(LIMIT) == 0
    wait_gone(shim)
    assert steps_of(arena) == ["s1", "s2", *(f"s{n}" for n in range(2, 10))]


def test_cancels_while_the_leftovers_are_swept_do_no_harm(arena: Arena) -> None:
    gate, deaf, behind = arena.gate("gate"), arena.gate("deaf"), arena.gate("behind")
    job = arena.job(
        "messy",
        "steps:\n- id: s\n  grace: 2s\n  run: |\n"
        f"    (trap '{deaf.shell}' TERM; {behind.shell}; while :; do sleep 1; done) &\n    {gate.shell}\n",
    )
    run = arena.start("run", str(job))
    gate.reached()
    behind.reached()
    behind.open()
    gate.open()
    deaf.reached()  # the background process has heard its TERM: the sweep is under way
    for _ in range(2):
        assert arena.command("cancel", "messy").returncode == 0
    run.send_signal(signal.SIGTERM)
    assert run.wait(LIMIT) == 0, "what is done is done"
    assert arena.rows("SELECT epoch, resumes, outcome FROM runs") == [(1, 0, "succeeded")]


def test_the_first_key_that_a_step_begins_with_is_the_declared_one(arena: Arena) -> None:
    job = arena.job(
        "keyed",
        "env_file: later.env\nparams: {n: {default: '7'}}\nsteps:\n"
        f"- {{id: s, idempotency_key: 'order-${{{{ params.n }}}}', run: '{LEDGER}'}}\n",
    )
    assert arena.command("run", str(job)).returncode == 1
    (arena.root / "later.env").write_text("A=1\n")
    assert arena.command("resume", "keyed").returncode == 0
    assert [line.split()[-1] for line in arena.lines()] == ["order-7"]


def test_a_cancelled_run_that_is_given_up_was_cancelled(arena: Arena) -> None:
    gate, behind, deaf = arena.gate("gate"), arena.gate("behind"), arena.gate("deaf")
    job = arena.job(
        "both",
        "max_resumes: 0\nsteps:\n- id: a\n  grace: 60s\n  run: |\n"
        f"    (trap '{deaf.shell}' TERM; {behind.shell}; while :; do sleep 1; done) &\n    {gate.shell}\n"
        f"- id: b\n  run: '{gate.shell}'\n",
    )
    arena.start("run", str(job))
    gate.reached()
    behind.reached()
    behind.open()
    gate.open()
    gate.reached()  # b
    assert arena.command("cancel", "both").returncode == 0
    deaf.reached()  # the sweep is under way, all steps are settled
    arena.kill_everything()
    assert arena.command("resume", "both").returncode == 1
    assert arena.status("both")["outcome"] == "cancelled"


@pytest.mark.parametrize("action", ["before mkfifo engine.attention:__enter__", "behind bind step.shim:_listen"])
def test_a_new_shim_is_not_asked_for_what_another_one_held(arena: Arena, action: str) -> None:
    """Supervisor and shim die; whoever takes over dies just after it has begun a new shim, which starts another."""
    gate = arena.gate("gate")
    step = f'echo begin >> "$ARENA/ledger"; {gate.shell}'
    job = arena.job("held", f"steps:\n- {{id: s, on_interrupt: fail, run: '{step}'}}\n")
    number = 0
    while True:  # the first time only to learn which number the point has
        arena.ledger.unlink(missing_ok=True)
        arena.start("run", str(job))
        gate.reached()
        arena.kill_everything()
        points = arena.root / f"points-{number}"
        arena.env["AGENTRUN_FAULTS"] = f"{points}:{number}:kill:0"
        arena.start("resume", "held").wait(LIMIT)
        del arena.env["AGENTRUN_FAULTS"]
        arena.wait_until_let_go()
        arena.command("resume")
        assert arena.lines() == ["begin"], "its on_interrupt says that it must not run again"
        assert arena.status("held")["outcome"] == "failed"
        if number:
            break
        names = [line[8:].strip() for line in points.read_text().splitlines()]
        number = names.index(action) + 1
