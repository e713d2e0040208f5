"""Ends of trees: every way in which a process leaves its group, its session, its parent or its environment."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.errors import Busy
from agentrun.step import procs, tree
from agentrun.step.tree import end_leftovers, leftovers

from .shim_rig import Rig, alive, wait_gone, wait_readable

# Each tells its pid as a line of $NEWS and then stays; the leader of the step stays too, unless $GO lets it go.
MOVING = textwrap.dedent(
    """
    import os, time
    news = os.open(os.environ["NEWS"], os.O_WRONLY)
    os.write(news, b"%d\\n" % os.getpid())
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        os.setsid()
    """
)
ESCAPEES = {
    "plain child": "sh -c 'echo $$ >\"$NEWS\"; exec sleep 600' &",
    "ignores TERM": "sh -c 'trap \"\" TERM; echo $$ >\"$NEWS\"; while :; do sleep 600; done' &",
    "setsid": "setsid sh -c 'echo $$ >\"$NEWS\"; exec sleep 600' &",
    "double fork": "(setsid sh -c '(echo $$ >\"$NEWS\"; exec sleep 600) &' &)",
    "nohup": "(nohup sh -c 'echo $$ >\"$NEWS\"; exec sleep 600' >/dev/null 2>&1 &)",
    "env -i daemon": (
        "(env -i NEWS=\"$NEWS\" setsid sh -c '(sh -c \"echo \\$\\$ >$NEWS; exec sleep 600\" &)'"
        " </dev/null >/dev/null 2>&1 &)"
    ),
    "moving target": f"{sys.executable} -S -c \"$MOVING\" &",
}
# what cannot be found once the shim is dead: nothing ties it to the run any more
HIDDEN = {"env -i daemon"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path).open()
    yield rig
    rig.close()


def begin(rig: Rig, name: str, instance: str = "a", **more: object) -> int:
    """Start a step with that escapee and wait until it is there; its pid (the first, for one that moves on)."""
    end = 'read x <"$GO"' if "env" in more else "sleep 600"
    env = {"MOVING": MOVING, **more.pop("env", {})}  # type: ignore[dict-item]
    rig.sh(f"{ESCAPEES[name]}\n{end}", instance, env=env, **more)
    return int(rig.news.line())


def nothing_left(rig: Rig) -> bool:
    """Whether the shim has no living child any more."""
    below = procs.descendants(procs.children(rig.link.pid))
    return not [process for process in below if process.alive]


@pytest.mark.parametrize("name", ESCAPEES)
def test_a_timeout_ends_every_escapee(rig: Rig, name: str) -> None:
    pid = begin(rig, name, timeout=200, grace=100)
    result = rig.result()
    assert result.ended_by == "timeout"
    assert result.ended_at - result.started_at < 200 + 100 + 1_000
    assert not alive(pid)
    assert nothing_left(rig)


@pytest.mark.parametrize("name", [name for name in ESCAPEES if name not in HIDDEN])
def test_a_cancel_ends_every_escapee_beside_another_step(rig: Rig, name: str) -> None:
    rig.sh('echo $$ >"$NEWS"; exec sleep 600', "other")
    other = int(rig.news.line())
    pid = begin(rig, name)
    rig.link.end("a", 1, "cancel", 100)
    rig.result()
    assert not alive(pid)
    assert alive(other)
    assert [process.pid for process in procs.descendants(procs.children(rig.link.pid)) if process.alive] == [other]


def test_beside_another_step_a_daemon_without_marks_ends_with_the_run(rig: Rig) -> None:
    rig.start(["sleep", "600"], "other")
    pid = begin(rig, "env -i daemon")
    for instance in ("a", "other"):
        rig.link.end(instance, 1, "cancel", 100)
        rig.result(instance)
    rig.swept()
    assert not alive(pid)
    assert nothing_left(rig)


@pytest.mark.parametrize("name", ESCAPEES)
def test_the_sweep_ends_every_escapee_of_a_step_that_succeeded(rig: Rig, name: str) -> None:
    go = str(rig.root / "go")
    os.mkfifo(go)
    pid = begin(rig, name, env={"GO": go}, grace=100)
    Path(go).write_text("x\n")
    assert rig.result().exit_code == 0
    rig.swept()
    assert not alive(pid)
    assert nothing_left(rig)


def test_all_at_once(rig: Rig) -> None:
    pids = [begin(rig, name, f"s{number}") for number, name in enumerate(ESCAPEES)]
    for number in range(len(pids)):
        rig.link.end(f"s{number}", 1, "cancel", 100)
    for number in range(len(pids)):
        assert rig.result(f"s{number}").ended_by == "cancel"
    rig.swept()
    assert not any(map(alive, pids))
    assert nothing_left(rig)


@pytest.mark.parametrize("name", ESCAPEES)
def test_leftovers_of_a_killed_shim(rig: Rig, name: str) -> None:
    pid = begin(rig, name)
    rig.kill_shim()
    found = leftovers(rig.folder.run_id, rig.folder)
    # one that was just being executed has no environment to read: its FIFO ties it to the run, not to an attempt
    assert found and {one.key for one in found if one.key and one.key[0]} == {("a", 1)}
    end_leftovers(rig.folder.run_id, rig.folder, grace_ms=100)
    assert leftovers(rig.folder.run_id, rig.folder) == []
    if name in HIDDEN:
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    assert not alive(pid)
    assert os.listdir(rig.folder.path + "/io") == []
    assert os.listdir(rig.folder.path + "/tmp") == []


def test_a_holder_of_the_pipe_without_the_tag_is_found(rig: Rig) -> None:
    rig.sh('env -i setsid sh -c "echo \\$\\$ >$NEWS; exec sleep 600" & wait')
    pid = int(rig.news.line())
    rig.kill_shim()
    assert pid in [one.process.pid for one in leftovers(rig.folder.run_id, rig.folder)]
    end_leftovers(rig.folder.run_id, rig.folder, grace_ms=0)
    assert not alive(pid)


def test_what_may_keep_running_is_kept(rig: Rig) -> None:
    rig.sh('echo $$ >"$NEWS"; exec sleep 600', "keep", leave_running=True)
    rig.sh('echo $$ >"$NEWS"; exec sleep 600', "end")
    pids = {int(rig.news.line()), int(rig.news.line())}
    rig.kill_shim()
    ended = end_leftovers(rig.folder.run_id, rig.folder, keep=[("keep", 1)])
    assert {one.key for one in ended} == {("end", 1)}
    assert len([pid for pid in pids if alive(pid)]) == 1
    assert len(end_leftovers(rig.folder.run_id, rig.folder)) == 1
    assert not any(map(alive, pids))


def test_what_a_living_shim_holds_is_not_touched(rig: Rig) -> None:
    rig.sh('echo $$ >"$NEWS"; exec sleep 600')
    pid = int(rig.news.line())
    with pytest.raises(Busy, match="in the care of its shim"):
        end_leftovers(rig.folder.run_id, rig.folder)
    assert alive(pid)


def test_neither_we_nor_our_ancestors_are_leftovers(rig: Rig) -> None:
    """A resume that is typed inside a step must not end itself."""
    program = (
        "import sys, os; from agentrun.step.tree import leftovers; "
        "print([one.process.pid for one in leftovers(os.environ['AGENTRUN_RUN_ID'])])"
    )
    here = str(Path(tree.__file__).parents[2])
    rig.start([sys.executable, "-c", program], env={"PYTHONPATH": here})
    assert rig.result().exit_code == 0
    assert rig.log() == b"[]\n"


def test_a_pid_that_came_round_again_is_not_signalled() -> None:
    """The same number with another start time is another process."""
    reader, writer = os.pipe()
    pid = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
    try:
        process = procs.look_up(pid)
        assert process is not None and process.parent == os.getpid()
        process.start -= 1
        assert procs.send_signal(process, signal.SIGKILL) is False
        process.start += 1
        assert procs.send_signal(process, signal.SIGKILL) is True
    finally:
        os.close(reader)
        os.close(writer)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert procs.look_up(pid) is None
    assert procs.send_signal(process, signal.SIGKILL) is False


def test_a_program_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    pid = os.posix_spawn(str(odd), ["x", "600"], {})
    handle = os.pidfd_open(pid)
    try:
        process = procs.look_up(pid)
        assert process is not None
        assert (process.pid, process.parent, process.group) == (pid, os.getpid(), os.getpgid(0))
        assert process.alive
        os.kill(pid, signal.SIGKILL)
        wait_readable(handle, "its end")
        zombie = procs.look_up(pid)
        assert zombie is not None and not zombie.alive
    finally:
        os.close(handle)
        os.waitpid(pid, 0)
