"""Durable loops under `kill -9`: a crash loses at most the round in flight, and no `until` is taken for answered."""

from __future__ import annotations

import signal

import pytest

from .arena import LIMIT, Arena
from .test_instances import wait_for

pytestmark = pytest.mark.slow

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT ${OUT_n:-0} $AGENTRUN_IDEMPOTENCY_KEY" >> "$ARENA/ledger"'
ROUNDS = 4


def loop(arena: Arena, *, round_gate: str = "true", until_gate: str = "true", at: int = 2, extra: str = "") -> str:
    return str(arena.job("loop", f"""
steps:
- id: s
  run: |
    {NOTE}
    n=$((${{OUT_n:-0}} + 1)); echo n=$n >> $AGENTRUN_OUTPUT
    if [ $n = {at} ]; then {round_gate}; fi
  repeat:
    until: 'echo "until $OUT_n" >> $ARENA/asked; if [ $OUT_n = {at} ]; then {until_gate}; fi; test $OUT_n = {ROUNDS}'
    max: 9
{extra}
- id: t
  run: 'test $N = {ROUNDS}'
  env: {{N: '${{{{ steps.s.outputs.n }}}}'}}
"""))  # fmt: skip


def rounds(arena: Arena) -> list[str]:
    """`round attempt` of all that began, in order; what each was given is that of the round before it."""
    lines = [line.split() for line in arena.lines()]
    keys: dict[str, str] = {}
    for name, _, before, key in lines:
        assert name == f"s[{int(before) + 1}]"
        assert keys.setdefault(name, key) == key, "the same key for each attempt of a round"
    assert len(set(keys.values())) == len(keys)
    return [f"{name[2:-1]} {attempt}" for name, attempt, *_ in lines]


def asked(arena: Arena) -> list[str]:
    return [line.split()[1] for line in (arena.root / "asked").read_text().splitlines()]


@pytest.mark.parametrize("at", [1, ROUNDS])
def test_killed_in_a_round_that_one_alone_is_done_again(arena: Arena, at: int) -> None:
    gate = arena.gate("gate")
    arena.start("run", loop(arena, round_gate=gate.shell, at=at))
    gate.reached()
    arena.kill_everything()
    gate.open()
    resumed = arena.command("resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    expected = [f"{n} 1" for n in range(1, ROUNDS + 1)]
    assert rounds(arena) == [*expected[:at], f"{at} 2", *expected[at:]]
    assert asked(arena) == [str(n) for n in range(1, ROUNDS + 1)]
    assert arena.rows("SELECT steps_done, steps_total FROM runs") == [(ROUNDS + 1, ROUNDS + 1)]


@pytest.mark.parametrize("at", [1, ROUNDS])
def test_killed_in_an_until_it_is_asked_again_and_no_round_is_repeated(arena: Arena, at: int) -> None:
    gate = arena.gate("gate")
    arena.start("run", loop(arena, until_gate=gate.shell, at=at))
    gate.reached()
    arena.kill_everything()
    gate.open()
    assert arena.command("resume").returncode == 0
    assert rounds(arena) == [f"{n} 1" for n in range(1, ROUNDS + 1)]
    assert asked(arena) == sorted([*(str(n) for n in range(1, ROUNDS + 1)), str(at)])


def test_killed_between_two_rounds_the_wait_goes_on(arena: Arena) -> None:
    job = loop(arena)
    text = (arena.root / "loop.yaml").read_text().replace("    max: 9", "    max: 9\n    interval: 1h")
    (arena.root / "loop.yaml").write_text(text)
    arena.start("run", job)
    waits = "SELECT 1 FROM steps WHERE instance = 's' AND state = 'waiting'"
    wait_for(lambda: (arena.root / "asked").exists() and arena.rows(waits))
    due = arena.rows("SELECT due FROM steps WHERE instance = 's'")
    arena.kill_everything()
    resumed = arena.start("resume", "loop")
    wait_for(lambda: arena.rows("SELECT epoch FROM runs") == [(2,)])
    assert arena.rows("SELECT state, instances, answered FROM steps WHERE instance = 's'") == [("waiting", 1, 1)]
    assert arena.rows("SELECT due FROM steps WHERE instance = 's'") == due
    resumed.send_signal(signal.SIGTERM)
    assert resumed.wait(LIMIT) == 143
    sooner = arena.job("sooner", text.replace("    interval: 1h\n", ""))
    done = arena.start("resume", "loop", "--spec", str(sooner))
    wait_for(lambda: arena.rows("SELECT epoch FROM runs") == [(3,)])
    assert rounds(arena) == ["1 1"] and asked(arena) == ["1"]
    arena.command("cancel", "loop", "--wait")
    assert done.wait(LIMIT) == 1


@pytest.mark.parametrize("where", ["round", "until"])
@pytest.mark.parametrize("who", ["supervisor", "shim"])
def test_a_loop_whose_supervisor_or_shim_was_killed_goes_on_by_itself(arena: Arena, who: str, where: str) -> None:
    gate = arena.gate("gate")
    gates = {f"{where}_gate": gate.shell}
    run = arena.start("run", loop(arena, **gates))  # type: ignore[arg-type]
    gate.reached()
    if who == "supervisor":
        arena.kill(arena.owner())
        gate.open()
        arena.wait_until_let_go()
    else:
        arena.kill(arena.shim())
        gate.reached()
        gate.open()
        assert run.wait(LIMIT) == 0
    assert arena.rows("SELECT outcome FROM runs") == [("succeeded",)]
    again = ["2 2"] if (who, where) == ("shim", "round") else []
    assert rounds(arena) == ["1 1", "2 1", *again, "3 1", "4 1"]


@pytest.mark.parametrize("where", ["round", "until"])
def test_a_signal_leaves_the_loop_to_be_resumed(arena: Arena, where: str) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", loop(arena, **{f"{where}_gate": gate.shell}))  # type: ignore[arg-type]
    gate.reached()
    run.send_signal(signal.SIGTERM)
    assert run.wait(LIMIT) == 143
    gate.open()
    assert arena.command("resume", "loop").returncode == 0
    again = ["2 2"] if where == "round" else []
    assert rounds(arena) == ["1 1", "2 1", *again, "3 1", "4 1"]
    assert arena.rows("SELECT outcome, resumes FROM runs") == [("succeeded", 0)]


@pytest.mark.parametrize(("policy", "status"), [("skip", 1), ("fail", 1)])
def test_on_interrupt_is_of_each_round(arena: Arena, policy: str, status: int) -> None:
    gate = arena.gate("gate")
    arena.start("run", loop(arena, round_gate=gate.shell, extra=f"  on_interrupt: {policy}"))
    gate.reached()
    arena.kill_everything()
    gate.open()
    resumed = arena.command("resume", "loop")
    assert resumed.returncode != 0
    assert "Traceback" not in resumed.stderr
    words = arena.rows("SELECT instance, outcome, reason FROM steps WHERE instance IN ('s', 's[2]') ORDER BY 1")
    if policy == "fail":
        assert words == [("s", "failed", "instances"), ("s[2]", "failed", "on_interrupt")]
    else:  # its `until` has nothing to look at, and says so
        assert words == [("s", "failed", "until_failed"), ("s[2]", "skipped", "on_interrupt")]
    assert rounds(arena) == ["1 1", "2 1"]


def test_three_interruptions_of_a_round_fail_it_and_the_loop(arena: Arena) -> None:
    gate = arena.gate("gate")
    run = arena.start("run", loop(arena, round_gate=gate.shell))
    for _ in range(3):
        gate.reached()
        arena.kill(arena.shim())
    assert run.wait(LIMIT) == 1
    assert rounds(arena) == ["1 1", "2 1", "2 2", "2 3"]
    gate.open()
    assert arena.command("resume", "loop").returncode == 0
    assert rounds(arena)[4:] == ["2 4", "3 1", "4 1"]
