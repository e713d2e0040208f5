"""`on_interrupt: verify` and `ask` under real kills: nothing runs again before somebody has looked into it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .arena import LIMIT, Arena, Gate

pytestmark = pytest.mark.slow

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT $AGENTRUN_IDEMPOTENCY_KEY" >> "$ARENA/ledger"'
ASKED = 'echo "verify $AGENTRUN_ATTEMPT $AGENTRUN_IDEMPOTENCY_KEY $AGENTRUN_INTERRUPTED" >> "$ARENA/ledger"'


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; it must come."""
    give_up = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        os.sched_yield()


def job(arena: Arena, gate: Gate, how: str, *, extra: str = "", last: str = NOTE, head: str = "") -> Path:
    """A step that stops at the gate, and one behind it. `how`: what becomes of it if it is interrupted."""
    return arena.job("job", f"""
{head}
steps:
- id: send
  run: '{NOTE}; {gate.shell}'
  {how}
- id: after
  run: '{last}'
  {extra}
""")  # fmt: skip


def verify(command: str) -> str:
    return f"on_interrupt: verify\n  verify: '{ASKED}; {command}'"


def interrupted(arena: Arena, how: str, **more: str) -> Gate:
    """A run that was killed in `send`; the gate is open for the next attempt."""
    gate = arena.gate("gate")
    arena.start("run", str(job(arena, gate, how, **more)))
    gate.reached()
    arena.kill_everything()
    gate.open()
    return gate


def parked(arena: Arena, how: str = "on_interrupt: ask", **more: str) -> None:
    interrupted(arena, how, **more)
    assert arena.command("resume", "job").returncode == 75
    assert run_state(arena) == "waiting"


def run_state(arena: Arena) -> str:
    return str(arena.rows("SELECT state FROM runs ORDER BY id DESC LIMIT 1")[0][0])


def steps(arena: Arena) -> list[str]:
    """What ran, in the order of the ledger: `send 1`, `verify 0`."""
    return [" ".join(line.split()[:2]) for line in arena.lines()]


def kinds(arena: Arena, *which: str) -> list[tuple[str, str | None, str]]:
    rows = arena.rows("SELECT kind, instance, by FROM events ORDER BY run_id, seq")
    return [(kind, instance, by) for kind, instance, by in rows if kind in which]


def user(arena: Arena) -> str:
    return str(json.loads(arena.rows("SELECT owner FROM runs")[0][0])["user"])


def is_held(arena: Arena) -> bool:
    from agentrun.store import locks

    lock = f"{arena.home}/runs/{arena.run_id}/lock"
    return locks.held(lock, locks.LEASE) or locks.held(lock, locks.SHIM)


# --- verify ---


def test_what_verify_finds_done_is_not_done_again(arena: Arena) -> None:
    shown = "outputs: {id: string}\n  " + verify('echo id=x7 >> "$AGENTRUN_OUTPUT"')
    extra = 'env: {ID: "${{ steps.send.outputs.id }}"}'
    interrupted(arena, shown, last='echo "after $ID" >> "$ARENA/ledger"', extra=extra)
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert steps(arena) == ["send 1", "verify 0", "after x7"]
    keys = {line.split()[2] for line in arena.lines()[:2]}
    assert len(keys) == 1, "it is asked about the key of the attempt"
    assert arena.lines()[1].split()[3] == "1", "AGENTRUN_INTERRUPTED"
    row = arena.rows("SELECT outcome, attempt, outputs, error, verifying, question FROM steps WHERE instance = 'send'")
    assert row == [("succeeded", 1, '{"id":"x7"}', None, 0, None)]
    assert arena.rows("SELECT number, outcome FROM attempts WHERE instance = 'send'") == [(1, "interrupted")]


def test_what_verify_finds_undone_is_done_again_with_the_same_key(arena: Arena) -> None:
    interrupted(arena, verify("exit 1"))
    assert arena.command("resume").returncode == 0
    assert steps(arena) == ["send 1", "verify 0", "send 2", "after 1"]
    assert len({line.split()[2] for line in arena.lines()[:3]}) == 1


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (verify("exit 2"), "it ended with 2 (0: it did take place, 1: it did not)"),
        (verify("kill -9 $$"), "ended by SIGKILL"),
        ("timeout: 4s\n  " + verify("read _ < $ARENA/gate.never"), "not done within its timeout"),
        ("outputs: {id: string}\n  " + verify("true"), "id"),
        (verify('echo "no output" >> "$AGENTRUN_OUTPUT"'), "line 1 of the output file is neither key=value"),
        ("budget: {output: 1KiB}\n  " + verify("head -c 100000 /dev/zero"), "over its budget of output"),
        ("on_interrupt: verify\n  verify: no-such-program-here", "it ended with 127"),
    ],
    ids=["status", "signal", "timeout", "undeclared", "garbage", "budget", "missing"],
)
def test_verify_that_cannot_tell_asks_a_person(arena: Arena, how: str, told: str) -> None:
    os.mkfifo(arena.root / "gate.never")
    interrupted(arena, how)
    resumed = arena.command("resume", "job")
    assert resumed.returncode == 75
    assert "did it take place?" in resumed.stderr and told in resumed.stderr, resumed.stderr
    assert f"resume {arena.run_id} --took-place send" in resumed.stderr
    assert f"resume {arena.run_id} --rerun send" in resumed.stderr
    if "outputs:" in how:  # nobody knows what it gave
        assert arena.command("resume", "job", "--took-place", "send").returncode == 2
        assert arena.command("resume", "job", "--rerun", "send").returncode != 2
        return
    assert arena.command("resume", "job", "--took-place", "send").returncode == 0
    assert [line for line in steps(arena) if line != "verify 0"] == ["send 1", "after 1"]
    assert arena.rows("SELECT outputs FROM steps WHERE instance = 'send'") == [(None,)]


def test_what_an_earlier_verify_wrote_is_not_believed(arena: Arena) -> None:
    gate = arena.gate("gate")
    command = 'test -e "$ARENA/done" && exit 0; echo id=old >> "$AGENTRUN_OUTPUT"; exit 1'
    running = arena.start("run", str(job(arena, gate, "outputs: {id: string}\n  " + verify(command))))
    gate.reached()
    arena.kill(arena.shim())
    gate.reached()
    (arena.root / "done").touch()
    arena.kill(arena.shim())
    _, stderr = running.communicate(timeout=LIMIT)
    assert running.returncode == 75 and "its `verify` cannot tell" in stderr, "it has given no id"
    assert steps(arena) == ["send 1", "verify 0", "send 2", "verify 0"]


def test_a_verify_survives_its_supervisor(arena: Arena) -> None:
    second = arena.gate("second")
    interrupted(arena, verify(f"{second.shell}; exit 0"))
    arena.start("resume", "job")
    second.reached()
    arena.kill(arena.owner())
    second.open()
    arena.wait_until_let_go()
    assert arena.rows("SELECT outcome FROM runs") == [("succeeded",)]
    assert steps(arena) == ["send 1", "verify 0", "after 1"]


def test_a_verify_that_is_interrupted_is_asked_again_and_a_person_after_three_times(arena: Arena) -> None:
    second = arena.gate("second")
    interrupted(arena, verify(f"{second.shell}; exit 0"))
    resumed = arena.start("resume", "job")
    for _ in range(3):
        second.reached()
        arena.kill(arena.shim())
    _, stderr = resumed.communicate(timeout=LIMIT)
    assert resumed.returncode == 75
    assert "interrupted itself, three times" in stderr
    assert steps(arena) == ["send 1", "verify 0", "verify 0", "verify 0"]


def test_a_verify_that_everything_died_with_is_asked_again(arena: Arena) -> None:
    second = arena.gate("second")
    interrupted(arena, verify(f"{second.shell}; exit 0"))
    arena.start("resume", "job")
    second.reached()
    arena.kill_everything()
    second.open()
    assert arena.command("resume").returncode == 0
    assert steps(arena) == ["send 1", "verify 0", "verify 0", "after 1"]


def test_a_stop_during_verify_asks_again_when_the_run_goes_on(arena: Arena) -> None:
    second = arena.gate("second")
    interrupted(arena, verify(f"{second.shell}; exit 0"))
    resumed = arena.start("resume", "job")
    second.reached()
    resumed.terminate()
    assert resumed.wait(LIMIT) == 143
    second.open()
    assert arena.command("resume", "job").returncode == 0
    assert steps(arena) == ["send 1", "verify 0", "verify 0", "after 1"]


def test_a_cancel_during_verify(arena: Arena) -> None:
    second = arena.gate("second")
    interrupted(arena, "grace: 1s\n  " + verify(second.shell))
    resumed = arena.start("resume", "job")
    second.reached()
    assert arena.command("cancel", "job", "--wait").returncode == 0
    assert resumed.wait(LIMIT) == 1
    assert arena.rows("SELECT instance, outcome FROM steps ORDER BY position") == [
        ("send", "cancelled"), ("after", "skipped")
    ]  # fmt: skip


def test_the_log_of_a_verify(arena: Arena) -> None:
    interrupted(arena, "on_interrupt: verify\n  verify: 'echo looked it up'")
    assert arena.command("resume").returncode == 0
    assert "send? | looked it up" in arena.command("logs", "job").stdout


# --- ask ---


def test_a_run_that_waits_for_an_answer_is_parked(arena: Arena) -> None:
    interrupted(arena, "on_interrupt: ask")
    resumed = arena.command("resume")
    assert resumed.returncode == 0, "nothing went wrong"
    assert f"job/{arena.run_id} waits for an answer: step send" in resumed.stderr, "cron mails it"
    assert not is_held(arena) and arena.step_processes() == []
    assert (run_state(arena), steps(arena)) == ("waiting", ["send 1"])
    silent = arena.command("resume")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", ""), "not every minute"
    typed = arena.command("resume", "job")
    assert typed.returncode == 75 and "did it take place?" in typed.stderr
    shown = arena.status("job")
    assert (shown["state"], shown["interrupted"], shown["outcome"]) == ("waiting", False, None)
    assert shown["steps"][0]["state"] == "waiting" and "did it take place?" in shown["steps"][0]["question"]
    page = arena.command("status", "job").stdout
    assert f"agentrun resume {arena.run_id} --rerun send" in page
    assert "? ask" in arena.command("resume", "job", "--plan").stdout
    assert arena.rows("SELECT epoch FROM runs") == [(2,)], "nobody took it for any of that"


@pytest.mark.parametrize(("option", "ran"), [("--took-place", []), ("--rerun", ["send 2"])])
def test_an_answer_goes_on_with_it(arena: Arena, option: str, ran: list[str]) -> None:
    parked(arena)
    answered = arena.command("resume", "job", option, "send")
    assert (answered.returncode, answered.stderr) == (0, "")
    assert steps(arena) == ["send 1", *ran, "after 1"]
    assert kinds(arena, "answered") == [("answered", "send", user(arena))]
    assert arena.rows("SELECT outcome, resumes, steps_done FROM runs") == [("succeeded", 1, 2)]
    assert arena.rows("SELECT count(*) FROM wishes WHERE taken_at IS NULL") == [(0,)]


def test_the_command_that_started_it_parks_it(arena: Arena) -> None:
    gate = arena.gate("gate")
    running = arena.start("run", str(job(arena, gate, "on_interrupt: ask")))
    gate.reached()
    arena.kill(arena.shim())
    stdout, stderr = running.communicate(timeout=LIMIT)
    assert (running.returncode, stdout) == (75, "")
    assert f"resume {arena.run_id} --took-place send" in stderr
    assert not is_held(arena)


def test_the_same_key_does_not_take_up_a_parked_run(arena: Arena) -> None:
    gate = arena.gate("gate")
    file = str(job(arena, gate, "on_interrupt: ask"))
    running = arena.start("run", file, "--run-key", "k")
    gate.reached()
    arena.kill(arena.shim())
    running.wait(LIMIT)
    again = arena.command("run", file, "--run-key", "k")
    assert again.returncode == 75 and "did it take place?" in again.stderr
    assert arena.rows("SELECT epoch FROM runs") == [(1,)]


@pytest.mark.parametrize("word", ["after", "nobody", "send[3]"])
def test_what_asks_nothing_takes_no_answer(arena: Arena, word: str) -> None:
    parked(arena)
    refused = arena.command("resume", "job", "--rerun", word)
    assert refused.returncode == 2
    assert f"step {word} of run {arena.run_id} waits for no answer" in refused.stderr
    assert "send" in refused.stderr.split("hint")[1]
    both = arena.command("resume", "job", "--rerun", "send", "--took-place", "send")
    assert both.returncode == 2 and "one or the other" in both.stderr
    assert arena.rows("SELECT count(*) FROM wishes") == [(0,)]


def write_answer(arena: Arena, kind: str, step: str = "send") -> None:
    """As the command that was killed right after it had written the answer."""
    script = (
        "import sys; from agentrun.store.database import open_for_writing; from agentrun.store.write import Store\n"
        "with Store(open_for_writing(sys.argv[1])) as store:\n"
        "    store.answer(sys.argv[2], {sys.argv[3]: sys.argv[4]}, by='ada', now=1)\n"
    )
    import subprocess

    words = [sys.executable, "-c", script, str(arena.home), arena.run_id, step, kind]
    subprocess.run(words, check=True, timeout=LIMIT)


def test_an_answer_that_nobody_took_up_is_taken_by_the_next_resume(arena: Arena) -> None:
    parked(arena)
    write_answer(arena, "rerun")
    again = arena.command("resume", "job", "--took-place", "send")
    assert again.returncode == 2 and "none of its steps does" in again.stderr, "it has been answered"
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert steps(arena) == ["send 1", "send 2", "after 1"]
    assert kinds(arena, "answered") == [("answered", "send", "ada")]


@pytest.mark.parametrize("option", ["--took-place", "--rerun"])
def test_an_answer_survives_a_kill_at_every_effect(arena: Arena, option: str) -> None:
    """The answering command and what it starts are killed at their 1st, 4th, … effect, until one gets through."""
    at, kills = 1, 0
    gate = arena.gate("gate")
    file = str(job(arena, gate, "on_interrupt: ask"))
    while True:
        arena.ledger.unlink(missing_ok=True)
        running = arena.start("run", file)
        gate.reached()
        arena.kill(arena.shim())
        assert running.wait(LIMIT) == 75
        points = arena.root / f"points-{at}"
        gate.open()  # for the second attempt, if there is one
        arena.env["AGENTRUN_FAULTS"] = f"{points}:{at}:kill:0"
        answered = arena.command("resume", "job", option, "send")
        del arena.env["AGENTRUN_FAULTS"]
        arena.wait_until_let_go()
        if not arena.rows("SELECT 1 FROM events WHERE kind = 'answered' AND run_id = ?", arena.run_id):
            assert answered.returncode == -9
            arena.command("resume", "job", option, "send")
            arena.wait_until_let_go()
        while run_state(arena) != "finished":  # a second attempt may have been interrupted as well
            if arena.rows("SELECT 1 FROM steps WHERE run_id = ? AND question IS NOT NULL", arena.run_id) and not (
                arena.rows("SELECT 1 FROM wishes WHERE run_id = ? AND taken_at IS NULL", arena.run_id)
            ):
                gate.open()
                arena.command("resume", "job", "--rerun", "send")
            else:
                arena.command("resume")
            arena.wait_until_let_go()
        assert arena.rows("SELECT outcome FROM runs WHERE id = ?", arena.run_id) == [("succeeded",)]
        ran = [line.split()[0] for line in steps(arena)]
        assert "after" in ran  # in its second attempt, where the shim was killed that held the first
        if option == "--took-place":
            assert ran.count("send") == 1
        assert arena.rows("SELECT count(*) FROM wishes WHERE taken_at IS NULL") == [(0,)]
        arena.close_pipes()
        drain(gate)
        if points.stat().st_size // 96 < at:
            break
        kills += 1
        at += 4
    assert kills > 20


def drain(gate: Gate) -> None:
    for fd in gate._fds:
        try:
            os.read(fd, 4096)
        except BlockingIOError:
            pass


def test_parking_survives_a_kill_at_every_effect(arena: Arena) -> None:
    """Wherever its owner is killed: the question is there, nothing has run again, and an answer goes on."""
    at, gate = 1, arena.gate("gate")
    file = str(job(arena, gate, "on_interrupt: ask"))
    while True:
        arena.ledger.unlink(missing_ok=True)
        running = arena.start("run", file)
        gate.reached()
        arena.kill_everything()
        running.wait(LIMIT)
        points = arena.root / f"points-{at}"
        arena.env["AGENTRUN_FAULTS"] = f"{points}:{at}:kill:0"
        arena.command("resume", "job")
        del arena.env["AGENTRUN_FAULTS"]
        arena.wait_until_let_go()
        if run_state(arena) != "waiting":
            assert arena.command("resume", "job").returncode == 75
        arena.wait_until_let_go()
        assert (run_state(arena), steps(arena)) == ("waiting", ["send 1"])
        assert arena.command("resume", "job", "--took-place", "send").returncode == 0
        assert steps(arena) == ["send 1", "after 1"]
        arena.close_pipes()
        if points.stat().st_size // 96 < at:
            break
        at += 4


def test_an_answer_at_the_moment_of_parking_is_not_lost(arena: Arena) -> None:
    gate = arena.gate("gate")
    file = str(job(arena, gate, "on_interrupt: ask"))
    for _ in range(8):
        arena.ledger.unlink(missing_ok=True)
        running = arena.start("run", file)
        gate.reached()
        arena.kill(arena.shim())
        run_id = arena.run_id
        wait_for(lambda run_id=run_id: arena.rows(
            "SELECT 1 FROM steps WHERE run_id = ? AND question IS NOT NULL", run_id
        ))  # fmt: skip
        answered = arena.command("resume", run_id, "--took-place", "send")
        assert answered.returncode == 0
        assert running.wait(LIMIT) in (0, 75)
        arena.wait_until_let_go()
        assert arena.rows("SELECT outcome FROM runs WHERE id = ?", run_id) == [("succeeded",)]
        assert steps(arena) == ["send 1", "after 1"]


def test_what_needs_no_answer_goes_on_meanwhile(arena: Arena) -> None:
    gate, other = arena.gate("gate"), arena.gate("other")
    file = arena.job("job", f"""
max_parallel: 2
steps:
- {{id: send, run: '{NOTE}; {gate.shell}', on_interrupt: ask}}
- {{id: aside, needs: [], run: '{other.shell}; {NOTE}'}}
- {{id: after, needs: [send], run: '{NOTE}'}}
""")  # fmt: skip
    running = arena.start("run", str(file))
    gate.reached()
    other.reached()
    arena.kill(arena.shim())
    other.reached()
    assert run_state(arena) == "running"
    answered = arena.command("resume", "job", "--took-place", "send")
    assert answered.returncode == 0 and "goes on where it is being advanced" in answered.stderr
    wait_for(lambda: "after 1" in steps(arena))
    other.open()
    assert running.wait(LIMIT) == 0
    assert sorted(steps(arena)) == ["after 1", "aside 2", "send 1"]


def test_a_cancel_of_a_parked_run(arena: Arena) -> None:
    parked(arena, extra="when: always")
    assert arena.command("cancel", "job").returncode == 0
    assert arena.rows("SELECT outcome FROM runs") == [("cancelled",)]
    assert arena.rows("SELECT instance, outcome, question FROM steps ORDER BY position") == [
        ("send", "cancelled", None), ("after", "succeeded", None)
    ]  # fmt: skip
    assert steps(arena) == ["send 1", "after 1"]
    reopened = arena.command("resume", "job")
    assert reopened.returncode == 75, "nobody has said yet what became of it"
    assert arena.command("resume", "job", "--rerun", "send").returncode == 0
    assert steps(arena)[2] == "send 2"


def set_run(arena: Arena, change: str) -> None:
    import sqlite3

    connection = sqlite3.connect(f"{arena.home}/agentrun.db", isolation_level=None)
    connection.execute(f"UPDATE runs SET {change}")
    connection.close()


def test_the_deadline_of_a_parked_run_goes_on_counting(arena: Arena) -> None:
    parked(arena, head="deadline: 1h", extra="when: on_failure")
    assert arena.rows("SELECT wake_at FROM runs") == [(3_600_000,)]
    assert arena.command("resume").stderr == ""
    assert run_state(arena) == "waiting"
    set_run(arena, "elapsed = elapsed + 3600000")
    resumed = arena.command("resume")
    assert resumed.returncode == 1 and "exit status 124" in resumed.stderr
    assert arena.rows("SELECT outcome, wake_at FROM runs") == [("timed_out", None)]
    assert arena.rows("SELECT instance, outcome FROM steps ORDER BY position") == [
        ("send", "timed_out"), ("after", "succeeded")
    ]  # fmt: skip


def test_after_a_reboot_the_deadline_counts_from_there(arena: Arena) -> None:
    parked(arena, head="deadline: 1h")
    set_run(arena, "boot_id = 'another'")
    resumed = arena.command("resume")
    assert resumed.returncode == 0 and "waits for an answer" in resumed.stderr
    silent = arena.command("resume")
    assert (silent.returncode, silent.stderr) == (0, "")
    assert arena.command("resume", "job", "--took-place", "send").returncode == 0


def test_another_file_keeps_the_question(arena: Arena) -> None:
    parked(arena)
    other = arena.root / "other.yaml"
    other.write_text((arena.root / "job.yaml").read_text().replace("on_interrupt: ask", "on_interrupt: rerun"))
    adopted = arena.command("resume", "job", "--spec", str(other))
    assert adopted.returncode == 75 and "did it take place?" in adopted.stderr
    assert steps(arena) == ["send 1"]
    assert arena.command("resume", "job", "--took-place", "send").returncode == 0
    assert steps(arena) == ["send 1", "after 1"]


def test_instances_ask_each_for_itself(arena: Arena) -> None:
    gates = [arena.gate(f"gate{n}") for n in range(2)]
    step = f'test "$AGENTRUN_ITEM" = c || {{ {gates[0].shell.replace("gate0", "gate$AGENTRUN_ITEM")}; }}'
    file = arena.job("fan", f"""
max_parallel: 3
steps:
- {{id: s, foreach: [0, 1, c], run: '{NOTE}; {step}', on_interrupt: ask}}
- {{id: after, run: '{NOTE}'}}
""")  # fmt: skip
    running = arena.start("run", str(file))
    for gate in gates:
        gate.reached()
    wait_for(lambda: arena.rows("SELECT 1 FROM steps WHERE instance = 's[2]' AND state = 'finished'"))
    arena.kill(arena.shim())
    _, stderr = running.communicate(timeout=LIMIT)
    assert running.returncode == 75
    assert "step s[0]" in stderr and "step s[1]" in stderr and "--rerun 's[1]'" in stderr
    first = arena.command("resume", "fan", "--took-place", "s[0]")
    assert first.returncode == 75, "the other question is open"
    assert "step s[1]" in first.stderr and "step s[0]" not in first.stderr
    other = arena.command("resume", "fan", "--rerun", "s[0]")
    assert other.returncode == 2 and "those that do: s[1]" in other.stderr
    gates[1].open()
    assert arena.command("resume", "fan", "--rerun", "s").returncode == 0, "all of it that waits"
    assert sorted(steps(arena)) == ["after 1", "s[0] 1", "s[1] 1", "s[1] 2", "s[2] 1"]
    assert arena.rows("SELECT outcome, steps_done, steps_total FROM runs") == [("succeeded", 4, 4)]


def asking_instances(arena: Arena, number: int, keys: str = "") -> None:
    """A run of that many instances, all of which wait for an answer."""
    gate = arena.gate("gate")
    file = arena.job("fan", f"""
max_parallel: {number}
steps:
- {{id: s, foreach: {list(range(number))}, run: '{NOTE}; echo x >> "$ARENA/begun"; {gate.shell}', on_interrupt: ask}}
- {{id: after, run: '{NOTE}'}}
""")  # fmt: skip
    arena.start("run", str(file))
    wait_for(lambda: (arena.root / "begun").exists() and len((arena.root / "begun").read_text().split()) == number)
    arena.kill_everything()
    arena.command("resume", "fan")
    assert run_state(arena) == "waiting"


def test_a_step_is_answered_for_all_its_instances_but_for_those_named_themselves(arena: Arena) -> None:
    asking_instances(arena, 12)
    shown = arena.command("resume", "fan").stderr
    assert "for all 12 of step s at once: --took-place s, or --rerun s" in shown
    both = arena.command("resume", "fan", "--took-place", "s", "--rerun", "s")
    assert both.returncode == 2 and "one or the other" in both.stderr
    (arena.root / "gate.go").unlink()
    (arena.root / "gate.go").write_text("go\n")
    answered = arena.command("resume", "fan", "--rerun", "s[3]", "--took-place", "s")
    assert answered.returncode == 0, answered.stderr
    assert [line for line in steps(arena) if line.endswith("2")] == ["s[3] 2"]
    assert arena.rows("SELECT count(*) FROM wishes WHERE kind = 'took_place'") == [(11,)]


READS = """; echo "$ID" >> "$ARENA/ledger"'
  env: {ID: "${{ steps.send.outputs.id }}"}
  if: 'true"""


@pytest.mark.parametrize(
    ("extra", "last"),
    [
        ("outputs: {id: string}", NOTE),
        ("timeout: 1h", NOTE + READS),
    ],
    ids=["declared", "read"],
)
def test_what_gives_outputs_is_not_said_to_have_taken_place(arena: Arena, extra: str, last: str) -> None:
    """Nobody knows them: what reads them would fail. The job file takes what they were in their place."""
    parked(arena, f"on_interrupt: ask\n  {extra}", last=last)
    refused = arena.command("resume", "job", "--took-place", "send")
    assert refused.returncode == 2, refused.stderr
    assert "step send gives outputs (id), which are not known" in refused.stderr
    assert f"agentrun resume {arena.run_id} --spec FILE" in refused.stderr
    assert (run_state(arena), arena.rows("SELECT count(*) FROM wishes")) == ("waiting", [(0,)])
    text = (arena.root / "job.yaml").read_text()
    for old, new in (("outputs: {id: string}", ""), ("${{ steps.send.outputs.id }}", "i-42")):
        text = text.replace(old, new)
    (arena.root / "other.yaml").write_text(text)
    assert arena.command("resume", "job", "--spec", str(arena.root / "other.yaml")).returncode == 75
    answered = arena.command("resume", "job", "--took-place", "send")
    assert answered.returncode == 0, answered.stderr
    assert steps(arena)[:2] == ["send 1", "after 1"]


@pytest.mark.parametrize("policy", ["ask", "verify"])
def test_rounds_ask_each_for_itself(arena: Arena, policy: str) -> None:
    gate = arena.gate("gate")
    looks = f"verify: '{ASKED}; echo n=2 >> $AGENTRUN_OUTPUT'" if policy == "verify" else "timeout: 1h"
    file = arena.job("job", f"""
steps:
- id: s
  repeat: {{until: 'test "$AGENTRUN_ROUND" = 3', max: 5}}
  run: '{NOTE}; if [ $AGENTRUN_ROUND = 2 ]; then {gate.shell}; fi; echo n=$AGENTRUN_ROUND >> $AGENTRUN_OUTPUT'
  on_interrupt: {policy}
  {looks}
""")  # fmt: skip
    arena.start("run", str(file))
    gate.reached()
    arena.kill_everything()
    resumed = arena.command("resume", "job")
    if policy == "ask":
        assert resumed.returncode == 75 and "step s[2]" in resumed.stderr
        resumed = arena.command("resume", "job", "--took-place", "s[2]")
    assert resumed.returncode == 0, resumed.stderr
    assert [line for line in steps(arena) if "verify" not in line] == ["s[1] 1", "s[2] 1", "s[3] 1"]
    given = arena.rows("SELECT instance, outputs FROM steps WHERE number >= 0 ORDER BY number")
    second = '{"n":"2"}' if policy == "verify" else None
    assert given == [("s[1]", '{"n":"1"}'), ("s[2]", second), ("s[3]", '{"n":"3"}')]


def test_a_child_run_stays_and_waits_for_its_answer(arena: Arena) -> None:
    gate = arena.gate("gate")
    job(arena, gate, "on_interrupt: ask")
    parent = arena.job("parent", "steps:\n- {id: call, job: job.yaml}\n")
    running = arena.start("run", str(parent))
    gate.reached()
    child = arena.rows("SELECT id FROM runs WHERE job = 'job'")[0][0]
    arena.kill(arena.shim())  # of the latest run: the child's
    wait_for(lambda: arena.rows("SELECT 1 FROM steps WHERE question IS NOT NULL"))
    assert arena.rows("SELECT job, state FROM runs ORDER BY job") == [("job", "running"), ("parent", "running")]
    wait_for(lambda: "did it take place?" in arena.command("logs", "parent").stdout)
    parent_id = arena.rows("SELECT id FROM runs WHERE job = 'parent'")[0][0]
    listed = [line for line in arena.command("status").stdout.splitlines() if parent_id in line]
    assert [f"call/send: was it done? agentrun status {parent_id}" in line for line in listed] == [True], listed
    shown = arena.command("status", "parent").stdout
    assert f"agentrun resume {child} --took-place send" in shown
    as_json = arena.status("parent")
    assert [(one["run"], one["step"]) for one in as_json["questions"]] == [(child, "send")]
    assert as_json["steps"][0]["question"] == f"{child}, send: {as_json['questions'][0]['question']}"
    checks = {one["check"]: one["detail"] for one in json.loads(arena.command("doctor", "--json").stdout)}
    assert f"1 run with a step that waits for an answer: parent/{parent_id}" in checks["waiting_runs"]
    answered = arena.command("resume", child, "--took-place", "send")
    assert answered.returncode == 0 and "goes on where it is being advanced" in answered.stderr
    assert running.wait(LIMIT) == 0
    assert steps(arena) == ["send 1", "after 1"]


def test_an_answer_to_a_child_of_an_interrupted_run_goes_on_with_its_parent(arena: Arena) -> None:
    from .test_children import kill_all_of

    gate = arena.gate("gate")
    job(arena, gate, "on_interrupt: ask")
    parent = arena.job("parent", "steps:\n- {id: call, job: job.yaml}\n")
    arena.start("run", str(parent))
    gate.reached()
    child = arena.rows("SELECT id FROM runs WHERE job = 'job'")[0][0]
    arena.kill(arena.shim())
    wait_for(lambda: arena.rows("SELECT 1 FROM steps WHERE question IS NOT NULL"))
    kill_all_of(arena, "parent", "job")
    answered = arena.command("resume", child, "--took-place", "send")
    assert answered.returncode == 0, answered.stderr
    assert arena.rows("SELECT job, outcome FROM runs ORDER BY job") == [("job", "succeeded"), ("parent", "succeeded")]
    assert steps(arena) == ["send 1", "after 1"]


def test_three_interruptions_in_a_row_that_verify_says_were_not_done(arena: Arena) -> None:
    gate = arena.gate("gate")
    running = arena.start("run", str(job(arena, gate, verify("exit 1"))))
    for _ in range(3):
        gate.reached()
        arena.kill(arena.shim())
    _, stderr = running.communicate(timeout=LIMIT)
    assert running.returncode == 1 and "interrupted three times in a row" in stderr
    assert steps(arena) == ["send 1", "verify 0", "send 2", "verify 0", "send 3", "verify 0"]


def test_an_answer_while_the_owner_clears_up_before_it_parks_is_not_lost(arena: Arena) -> None:
    """What a step left running ignores TERM: between the last decision and the parking lies its grace."""
    gate = arena.gate("gate")
    path = arena.job("job", f"""
max_parallel: 2
steps:
- {{id: send, run: '{NOTE}; {gate.shell}', on_interrupt: ask}}
- id: aside
  needs: []
  grace: 3s
  run: |
    if [ $AGENTRUN_ATTEMPT = 1 ]; then {gate.shell}; fi
    mkfifo "$ARENA/deaf"
    (trap "" TERM; echo > "$ARENA/deaf"; while :; do sleep 1; done) &
    read _ < "$ARENA/deaf"
- {{id: after, needs: [send], run: '{NOTE}'}}
""")  # fmt: skip
    arena.start("run", str(path))
    gate.reached()
    wait_for(lambda: arena.rows("SELECT count(*) FROM attempts")[0][0] == 2)
    arena.kill_everything()
    gate.open()
    owner = arena.start("resume", "job")
    wait_for(lambda: arena.rows("SELECT 1 FROM steps WHERE instance = 'aside' AND state = 'finished'"))
    wait_for(lambda: arena.rows("SELECT 1 FROM steps WHERE question IS NOT NULL"))
    assert arena.command("resume", "job", "--took-place", "send").returncode == 0
    assert owner.wait(LIMIT) == 0
    assert arena.rows("SELECT outcome FROM runs") == [("succeeded",)]
    assert steps(arena) == ["send 1", "after 1"]


@pytest.mark.parametrize("policy", ["ask", "fail", "skip"])
def test_another_file_may_change_what_follows_a_verify_that_was_cut_off(arena: Arena, policy: str) -> None:
    gate = arena.gate("gate")
    again = arena.gate("again")
    arena.start("run", str(job(arena, gate, f"on_interrupt: verify\n  verify: '{again.shell}'")))
    gate.reached()
    arena.kill_everything()
    arena.start("resume", "job")
    again.reached()
    arena.kill_everything()
    other = job(arena, gate, f"on_interrupt: {policy}")
    resumed = arena.command("resume", "job", "--spec", str(other))
    expected = {"ask": (75, "waiting"), "fail": (1, "finished"), "skip": (0, "finished")}[policy]
    assert (resumed.returncode, run_state(arena)) == expected, resumed.stderr


def test_another_file_makes_no_instances_of_a_step_that_waits_for_an_answer(arena: Arena) -> None:
    parked(arena)
    other = arena.job("other", "steps:\n- {id: send, foreach: [1, 2], run: 'true', on_interrupt: ask}\n")
    refused = arena.command("resume", "job", "--spec", str(other))
    assert refused.returncode == 2 and "was interrupted, and in the new file it has instances" in refused.stderr
    assert steps(arena) == ["send 1"]


def test_wishes_are_numbered_in_their_run(arena: Arena) -> None:
    """So that a repair can bring back both of two runs, of which one was answered in a database that is lost."""
    parked(arena)
    first = arena.run_id
    gate = arena.gate("second")
    arena.start("run", str(arena.job("second", f"steps:\n- {{id: send, run: '{gate.shell}', on_interrupt: ask}}\n")))
    gate.reached()
    arena.kill_everything()
    assert arena.command("resume", arena.run_id).returncode == 75
    for run_id in (first, arena.run_id):
        assert arena.command("resume", run_id, "--took-place", "send").returncode == 0
    assert arena.rows("SELECT id FROM wishes") == [(1,), (1,)]


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("policy", ["ask", "verify"])
def test_a_run_that_ended_with_an_open_question_asks_again_when_it_is_resumed(
    arena: Arena, how: str, policy: str
) -> None:
    """Nobody has said yet what became of the attempt, so `resume RUN` does not run it again just so."""
    line = verify("exit 2") if policy == "verify" else "on_interrupt: ask"
    parked(arena, line, head="deadline: 1h" if how == "deadline" else "")
    if how == "cancel":
        assert arena.command("cancel", "job", "--wait").returncode == 0
    else:
        set_run(arena, "elapsed = 7200000, wake_at = 0")
        assert arena.command("resume").returncode == 1
    assert run_state(arena) == "finished"
    again = arena.command("resume", "job")
    assert (again.returncode, run_state(arena)) == (75, "waiting"), again.stderr
    assert [step for step in steps(arena) if step.startswith("send")] == ["send 1"]
    assert arena.command("resume", "job", "--took-place", "send").returncode == 0
    assert [step for step in steps(arena) if not step.startswith("verify")] == ["send 1", "after 1"]


def test_instances_of_a_run_that_ended_with_open_questions_ask_again(arena: Arena) -> None:
    gate = arena.gate("gate")
    path = arena.job("job", f"""
max_parallel: 2
steps:
- {{id: send, foreach: [x, y], run: '{NOTE}; {gate.shell}', on_interrupt: ask}}
- {{id: after, run: '{NOTE}'}}
""")  # fmt: skip
    arena.start("run", str(path))
    gate.reached()
    wait_for(lambda: len(steps(arena)) == 2)
    arena.kill_everything()
    assert arena.command("resume", "job").returncode == 75
    assert arena.command("cancel", "job", "--wait").returncode == 0
    assert arena.command("resume", "job").returncode == 75
    answered = arena.command("resume", "job", "--took-place", "send[0]", "--took-place", "send[1]")
    assert answered.returncode == 0, answered.stderr
    assert sorted(steps(arena)) == ["after 1", "send[0] 1", "send[1] 1"]


def test_a_new_run_from_a_later_step_does_not_pass_over_a_question(arena: Arena) -> None:
    parked(arena)
    refused = arena.command("resume", "job", "--from", "after")
    assert refused.returncode == 2 and "waits for an answer about send" in refused.stderr
    assert steps(arena) == ["send 1"]
