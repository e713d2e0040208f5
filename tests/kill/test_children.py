"""Child runs under kills: the next attempt of the step goes on with the same child, and nothing is done twice."""

from __future__ import annotations

import json
import os
import signal

import pytest

from .arena import LIMIT, Arena, Gate, wait_gone

pytestmark = pytest.mark.slow

# What is done is noted last, so that a step that was cut off at its gate has done nothing.
NOTE = 'echo "$AGENTRUN_JOB/$AGENTRUN_STEP $AGENTRUN_ATTEMPT" >> "$ARENA/ledger"'
ALL = ["job/before", "child/a", "child/b", "child/d", "job/after"]


def jobs(arena: Arena, gate: Gate, *, extra: str = "", step: str = "") -> str:
    arena.job("child", f"""
steps:
- {{id: a, run: '{NOTE}'}}
- {{id: b, run: '{gate.shell}; {NOTE}', grace: 1s}}
- {{id: d, run: '{NOTE}'}}
{extra}
""")  # fmt: skip
    return str(arena.job("job", f"""
steps:
- {{id: before, run: '{NOTE}'}}
- {{id: c, job: child.yaml{step}}}
- {{id: after, run: '{NOTE}'}}
"""))  # fmt: skip


def done(arena: Arena) -> list[str]:
    return [line.split()[0] for line in arena.lines()]


def id_of(arena: Arena, job: str) -> str:
    return str(arena.rows("SELECT id FROM runs WHERE job = ?", job)[0][0])


def owner_of(arena: Arena, job: str) -> int:
    return int(json.loads(arena.rows("SELECT owner FROM runs WHERE job = ?", job)[0][0])["pid"])


def holders(arena: Arena, job: str) -> list[int]:
    """The supervisor and the shim of the run: who has its lock open."""
    lock = f"{arena.home}/runs/{id_of(arena, job)}/lock"
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") == lock for fd in os.listdir(f"/proc/{pid}/fd")):
                found.append(pid)
        except OSError:
            continue
    return found


def shim_of(arena: Arena, job: str) -> int:
    (shim,) = (pid for pid in holders(arena, job) if pid != owner_of(arena, job))
    return shim


def tagged(arena: Arena, job: str) -> list[int]:
    return arena.step_processes(id_of(arena, job))


def kill_all_of(arena: Arena, *names: str) -> None:
    """As a power cut would: everything of these runs is frozen, then killed."""
    pids = {pid for job in names for pid in (*holders(arena, job), *tagged(arena, job))}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    for pid in pids:
        wait_gone(pid)
    for process in arena.processes:
        if process.pid in pids:
            process.wait(LIMIT)


def outcomes(arena: Arena) -> list[tuple[str, str]]:
    return [(job, outcome) for job, outcome in arena.rows("SELECT job, outcome FROM runs ORDER BY id")]


def test_everything_killed_a_resume_of_the_parent_goes_on_in_the_child(arena: Arena) -> None:
    gate = arena.gate("gate")
    arena.start("run", jobs(arena, gate))
    gate.reached()
    kill_all_of(arena, "job", "child")
    listed = json.loads(arena.command("status", "--json").stdout)
    assert [(one["job"], one["interrupted"]) for one in listed] == [("job", True)], "a child is no lost run"
    gate.open()
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", ""), "and is not taken up on its own"
    assert done(arena) == ALL
    assert outcomes(arena) == [("job", "succeeded"), ("child", "succeeded")]
    assert arena.rows("SELECT attempt FROM steps WHERE instance IN ('b', 'c') ORDER BY instance") == [(2,), (2,)]


@pytest.mark.parametrize("who", ["child's supervisor", "child's shim", "child's supervisor and shim"])
def test_whoever_of_the_child_is_killed_the_parent_goes_on_by_itself(arena: Arena, who: str) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    gate.reached()
    before = {pid for pid in tagged(arena, "child") if pid not in holders(arena, "child")}
    pids = {"supervisor": owner_of(arena, "child"), "shim": shim_of(arena, "child")}
    arena.kill(*(pid for name, pid in pids.items() if name in who))
    gate.reached()  # the second attempt
    assert not before & set(tagged(arena, "child")), "the first is gone"
    gate.open()
    assert run.wait(LIMIT) == 0
    assert done(arena) == ALL
    assert outcomes(arena) == [("job", "succeeded"), ("child", "succeeded")]
    attempts = arena.rows("SELECT attempt FROM steps WHERE instance = 'c'")[0][0]
    assert attempts == (1 if who == "child's shim" else 2)


def test_a_killed_supervisor_of_the_parent_is_replaced_and_the_child_knows_nothing_of_it(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    gate.reached()
    shim = shim_of(arena, "job")
    arena.kill(owner_of(arena, "job"))
    assert run.wait(LIMIT) == -signal.SIGKILL
    gate.open()
    wait_gone(shim)
    assert done(arena) == ALL
    assert outcomes(arena) == [("job", "succeeded"), ("child", "succeeded")]
    assert arena.rows("SELECT epoch FROM runs ORDER BY id") == [(2,), (1,)]


def test_a_killed_shim_of_the_parent_interrupts_the_child_which_goes_on_with_the_next_attempt(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    gate.reached()
    before = {*holders(arena, "child"), *tagged(arena, "child")}
    arena.kill(shim_of(arena, "job"))
    gate.reached()
    assert not before & {*holders(arena, "child"), *tagged(arena, "child")}, "nothing of the first goes on"
    gate.open()
    assert run.wait(LIMIT) == 0
    assert done(arena) == ALL
    assert outcomes(arena) == [("job", "succeeded"), ("child", "succeeded")]


def test_the_parent_killed_alone_leaves_no_child_that_goes_on(arena: Arena) -> None:
    """The supervisor and the shim of the parent die; the child's may live for a moment, but nothing is done twice."""
    gate = arena.gate("gate")
    arena.start("run", jobs(arena, gate))
    gate.reached()
    arena.kill(shim_of(arena, "job"), owner_of(arena, "job"))
    resumed = arena.start("resume", "job")
    gate.reached()
    gate.open()
    assert resumed.wait(LIMIT) == 0
    assert done(arena) == ALL
    assert outcomes(arena) == [("job", "succeeded"), ("child", "succeeded")]


def test_a_signal_to_the_parent_leaves_both_interrupted(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    gate.reached()
    run.send_signal(signal.SIGTERM)
    assert run.wait(LIMIT) == 143
    assert outcomes(arena) == [("job", None), ("child", None)]
    assert not holders(arena, "child") and not tagged(arena, "child")
    assert arena.rows("SELECT outcome, reason FROM attempts WHERE instance = 'c'") == [("interrupted", "shutdown")]
    gate.open()
    assert arena.command("resume").returncode == 0
    assert done(arena) == ALL
    assert arena.rows("SELECT outcome, resumes FROM runs") == [("succeeded", 0)] * 2, "asked for: it counts for nothing"


def test_a_signal_to_the_child_alone_interrupts_its_step(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    gate.reached()
    os.kill(owner_of(arena, "child"), signal.SIGTERM)
    gate.reached()
    gate.open()
    assert run.wait(LIMIT) == 0
    assert done(arena) == ALL


def test_a_child_of_a_child_goes_on_too(arena: Arena) -> None:
    gate = arena.gate("gate")
    held = f"- {{id: h, run: '{gate.shell}; {NOTE}', grace: 1s}}"
    arena.job("grandchild", f"steps:\n- {{id: g, run: '{NOTE}'}}\n{held}\n")
    arena.job("child", f"steps:\n- {{id: a, run: '{NOTE}'}}\n- {{id: b, job: grandchild.yaml}}\n")
    arena.start("run", str(arena.job("job", "steps:\n- {id: c, job: child.yaml}\n")))
    gate.reached()
    kill_all_of(arena, "job", "child", "grandchild")
    gate.open()
    assert arena.command("resume").returncode == 0
    assert done(arena) == ["child/a", "grandchild/g", "grandchild/h"]
    assert {outcome for _, outcome in outcomes(arena)} == {"succeeded"}


def test_cancel_of_an_interrupted_parent_ends_the_child_in_the_record(arena: Arena) -> None:
    gate = arena.gate("gate")
    arena.start("run", jobs(arena, gate, extra=f"- {{id: tidy, when: always, run: '{NOTE}'}}"))
    gate.reached()
    kill_all_of(arena, "job", "child")
    arena.command("cancel", "job")
    assert outcomes(arena)[0] == ("job", "cancelled")
    assert arena.rows("SELECT state FROM runs WHERE job = 'child'") == [("finished",)]
    assert not holders(arena, "child")
    gate.open()
    assert arena.command("resume", "job").returncode == 0, "a cancelled run goes on from there"
    assert sorted(set(done(arena)) - {"child/tidy"}) == sorted(ALL)
    assert len([name for name in done(arena) if name != "child/tidy"]) == len(ALL), "once each"


def test_three_deaths_of_the_childs_supervisor_fail_the_step_and_end_the_child(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", jobs(arena, gate))
    for _ in range(3):
        gate.reached()
        arena.kill(owner_of(arena, "child"))
    assert run.wait(LIMIT) == 1
    assert arena.rows("SELECT outcome, reason FROM steps WHERE instance = 'c'") == [("failed", "interrupted")]
    assert arena.rows("SELECT state FROM runs WHERE job = 'child'") == [("finished",)]
    gate.open()
    assert arena.command("resume", "job").returncode == 0
    assert done(arena) == ALL
