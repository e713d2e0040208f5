"""A script that is cut off in the middle, by a kill of everything, goes on with its variables as they were."""

from __future__ import annotations

import pytest

from .arena import Arena

STEPS = 4


def script(arena: Arena, shell: str, cut: int) -> str:
    """Each step changes what the next ones see; one of them stops at a gate, once, before or after its work."""
    gate = arena.gate("gate")
    steps = []
    for number in range(1, STEPS + 1):
        begins = f'echo "{number} $COUNT $F" >> "$ARENA/ledger"'
        work = f'COUNT=$((COUNT + 1)); F="$F/{number}"; export COUNT; cd "$ARENA/{number}"'
        wait = f'[ -e "$ARENA/cut" ] || {{ : > "$ARENA/cut"; {gate.shell}; }}'
        ends = f'echo "{number} ended $COUNT $F ${{PWD##*/}}" >> "$ARENA/ledger"'
        parts = [begins, work, *([wait] if number == cut else []), ends]
        steps.append(f"- run: |\n    {'; '.join(parts)}\n")
        (arena.root / str(number)).mkdir()
    first = "- run: |\n    set -u; COUNT=0 F=start; trap 'echo bye $COUNT >> \"$ARENA/ledger\"' EXIT\n"
    return f"carry: shell\nshell: [{shell}]\nsteps:\n{first}{''.join(steps)}"


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
@pytest.mark.parametrize("cut", range(1, STEPS + 1))
def test_cut_off_in_any_step(arena: Arena, shell: str, cut: int) -> None:
    process = arena.start("run", str(arena.job("job", script(arena, shell, cut))))
    here = arena.root / "gate.here"
    with here.open() as gate:
        assert gate.readline() == "here\n"
    arena.kill_everything()
    process.wait()
    done = arena.command("resume")
    assert (done.returncode, done.stderr) == (0, "")
    path = "start"
    expected = []
    for number in range(1, STEPS + 1):
        begin = f"{number} {number - 1} {path}"
        path += f"/{number}"
        expected += [begin] * (2 if number == cut else 1) + [f"{number} ended {number} {path} {number}"]
    assert arena.lines() == [*expected, f"bye {STEPS}"]


def test_a_supervisor_that_is_killed_between_two_steps(arena: Arena) -> None:
    """The shell has left its state, nobody has committed it: the new supervisor believes the result, and goes on."""
    gate = arena.gate("gate")
    text = (
        f"carry: shell\nsteps:\n- run: A=1; {gate.shell}; echo a >> \"$ARENA/ledger\"\n"
        '- run: echo "b $A" >> "$ARENA/ledger"\n'
    )
    process = arena.start("run", str(arena.job("job", text)))
    gate.reached()
    arena.kill(arena.owner())
    gate.open()
    process.wait()
    arena.wait_until_let_go()
    assert arena.lines() == ["a", "b 1"]
    assert arena.status(arena.run_id)["outcome"] == "succeeded"


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_script_that_is_told_to_stop_clears_nothing_up(arena: Arena, shell: str) -> None:
    """Its EXIT trap is for its end, and it has not come to that: what it has made is there for the rest of it."""
    gate = arena.gate("gate")
    work = f'[ -e "$ARENA/cut" ] || {{ : > "$ARENA/cut"; {gate.shell}; }}; echo "$(cat "$W")" >> "$ARENA/ledger"'
    text = (
        f"carry: shell\nshell: [{shell}]\nsteps:\n"
        "- run: W=$ARENA/work; trap 'rm -f \"$W\"; echo bye >> \"$ARENA/ledger\"' EXIT; trap 'exit 9' TERM\n"
        f"- run: echo made > \"$W\"\n- run: |\n    {work}\n- run: echo after >> \"$ARENA/ledger\"\n"
    )
    process = arena.start("run", str(arena.job("job", text)))
    gate.reached()
    process.terminate()
    assert process.wait() == 143
    assert arena.lines() == []
    assert arena.command("resume").returncode == 0
    assert arena.lines() == ["made", "after", "bye"]
