"""Limits with real processes: what crosses one ends, by what, and what stands beside it does not notice.

Each is tried with the mechanism of this machine and with sampling. What forks without end is tried in a cgroup
only: between two looks it would take the machine with it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentrun.step import cgroups
from agentrun.step.link import Link, ShimGone
from agentrun.step.tree import end_leftovers, leftovers

from .shim_rig import MIB, Rig, alive, eat, wait_gone

SAMPLING = "sampling every 0.5 s"
BOMB = "f() { f | f & }; f; exec sleep 100"


def folders(rig: Rig) -> list[str]:
    return Path(rig.folder.path, "cgroups").read_text().split()


# ---- attempts


def test_who_keeps_to_its_limits_does_not_notice_them(either: Rig) -> None:
    either.open().sh("echo x; (echo y)", limits={"memory": 512 * MIB, "cpu": 60_000, "processes": 100, "output": 4})
    result = either.result()
    assert (result.exit_code, result.ended_by, result.oom) == (0, None, False)
    assert result.enforced_by
    assert either.log() == b"x\ny\n"


def test_who_eats_memory_is_ended(either: Rig) -> None:
    either.open().start(eat(100), limits={"memory": 60 * MIB})
    result = either.result()
    if result.enforced_by == SAMPLING:
        assert (result.ended_by, result.signal, result.oom) == ("memory", signal.SIGKILL, False)
        assert result.max_rss_kib > 60 * 1024
    else:
        assert (result.signal, result.oom) == (signal.SIGKILL, True)
        assert result.ended_by in (None, "memory")  # where a look came before its end: it means the same


def test_who_uses_up_its_processor_time_is_ended_with_its_children(either: Rig) -> None:
    either.open().sh("(while :; do :; done) & echo $! >$NEWS; while :; do :; done", limits={"cpu": 100})
    child = int(either.news.line())
    result = either.result()
    assert (result.ended_by, result.signal) == ("cpu", signal.SIGTERM)
    assert result.cpu_ms >= 100
    assert not alive(child)


def test_processor_time_of_children_that_are_gone_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRUN_LIMITS", "sampling")
    burn = f"{sys.executable} -S -c 'import time\nwhile time.process_time() < 0.05: pass'"
    rig.open().sh(f"while :; do {burn}; done", limits={"cpu": 300})
    assert rig.result().ended_by == "cpu"


def test_who_starts_too_many_processes_is_ended(either: Rig) -> None:
    either.open().sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; wait", limits={"processes": 8})
    result = either.result()
    assert result.ended_by == "processes"
    either.swept()
    assert leftovers(either.folder.run_id, either.folder) == []


def test_who_forks_without_end_is_ended(kernel: Rig) -> None:
    kernel.sh(BOMB, limits={"processes": 40})
    assert kernel.result().ended_by == "processes"
    kernel.sh("echo fine", "beside")
    assert kernel.result("beside").exit_code == 0
    kernel.swept()
    assert leftovers(kernel.folder.run_id, kernel.folder) == []


@pytest.mark.parametrize(("size", "ended_by"), [(70_000, None), (70_001, "output")])
def test_output_beyond_the_limit_is_not_written(rig: Rig, size: int, ended_by: str | None) -> None:
    rig.open().sh(f"head -c {size} /dev/zero", limits={"output": 70_000})
    result = rig.result()
    assert (result.ended_by, result.output_bytes) == (ended_by, 70_000)
    assert len(rig.log()) == 70_000


def test_who_writes_without_end_is_ended_and_never_waits_for_its_pipe(rig: Rig) -> None:
    rig.open().sh("trap 'echo asked >$NEWS; exit 3' TERM; while :; do echo 0123456789; done", limits={"output": 95_000})
    result = rig.result()
    assert (result.ended_by, result.exit_code) == ("output", 3)
    assert rig.news.line() == "asked"
    assert len(rig.log()) == 95_000


def test_a_limit_is_said_only_of_those_that_have_one(rig: Rig) -> None:
    rig.open().start(["true"])
    result = rig.result()
    assert (result.enforced_by, result.oom) == (None, False)
    assert not os.path.exists(f"{rig.folder.path}/cgroups")


def test_the_leader_of_a_gentle_attempt_alone_is_asked_to_end(rig: Rig) -> None:
    child = "(trap 'echo child >$NEWS' TERM; echo up >$NEWS; while :; do sleep 0.01; done) &"
    rig.open().sh(f"{child} trap 'echo leader >$NEWS; exit 5' TERM; while :; do sleep 0.01; done", gentle=True)
    assert rig.news.line() == "up"
    rig.link.end("a", 1, "cancel", 300)
    assert rig.news.line() == "leader"
    result = rig.result()
    assert (result.ended_by, result.exit_code) == ("cancel", 5)
    rig.sh("echo last >$NEWS", "b")
    assert rig.news.line() == "last"  # and not "child": it was killed, never asked


CHILD_RUN = """
import sys
from pathlib import Path
from tests.step.shim_rig import Rig

rig = Rig(Path(sys.argv[1]))
rig.fork().link.open(rig.folder, epoch=1, env={}, umask=0o22, restart=None, max_restarts=0)
rig.link.hello()
rig.start(["/bin/cat", "/proc/self/cgroup"], limits={"memory": 100 << 20})
print(rig.result().enforced_by, rig.folder.run_id, rig.log().decode(), flush=True)
rig.start([sys.executable, "-S", "-c", "x = bytearray(250 << 20)"], "b", limits={"memory": int(sys.argv[2]) << 20})
print(rig.result("b").oom, flush=True)
rig.close()
"""


@pytest.mark.parametrize("inner", [60, 400])
def test_cgroups_of_a_child_run_stand_in_its_step(kernel: Rig, tmp_path: Path, inner: int) -> None:
    """What a step of the child eats is held by its own limit, or by that of the step that the child is."""
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-c", CHILD_RUN, str(tmp_path), str(inner)]
    kernel.start(argv, env=env, limits={"memory": 180 * MIB})
    result = kernel.result()
    if kernel.results["first", 1].enforced_by == "cgroup v2" and inner > 180:
        assert result.oom  # there the kernel ends all of the step
        return
    _, enforced_by, run_id, text = kernel.log().decode().split(None, 3)
    assert enforced_by in ("v1", "v2")
    outer = os.path.basename(folders(kernel)[0])
    assert f"/{outer}/beside/a#1/agentrun-{run_id}/beside/a#1\n" in text
    assert text.endswith("True\n")
    assert (result.ended_by, result.exit_code) == (None, 0)


# ---- the run


@pytest.mark.parametrize("mode", ["here", "sampling"])
def test_the_run_is_over_its_memory_though_no_attempt_is(
    rig: Rig, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "sampling":
        monkeypatch.setenv("AGENTRUN_LIMITS", mode)
    rig.open(limits={"memory": 100 * MIB})
    assert rig.link.enforced_by
    for name in "abc":
        rig.start(eat(50), name)
    rig.start(eat(120, "pass"), "beside", counted=False)
    assert rig.told_over("memory") >= 100 * MIB
    assert rig.result("beside").exit_code == 0
    for name in "abc":
        rig.link.end(name, 1, "budget", 0)
    ends = [rig.result(name) for name in "abc"]
    assert {(end.ended_by, end.oom) for end in ends} <= {("budget", False), (None, True)}
    assert ("budget", False) in {(end.ended_by, end.oom) for end in ends}


def test_the_run_is_over_its_processes(kernel: Rig, tmp_path: Path) -> None:
    kernel.link.goodbye()
    rig = Rig(tmp_path).open(limits={"processes": 10})
    try:
        for name in "ab":
            rig.sh("for i in 1 2 3 4 5 6; do sleep 100 & done; wait", name)
        assert rig.told_over("processes") >= 10
    finally:
        rig.close()


def test_processor_time_of_the_run_adds_up(either: Rig) -> None:
    either.open(limits={"cpu": 1_000}, spent={"cpu": 800})
    burn = [sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.12: pass"]
    either.start(burn, "a")
    either.result("a")
    assert not either.over
    either.start([*burn[:3], burn[3].replace("0.12", "9")], "b")
    assert either.told_over("cpu") > 1_000


def test_output_of_the_run_adds_up(rig: Rig) -> None:
    rig.open(limits={"output": 1_000}, spent={"output": 300})
    rig.sh("head -c 600 /dev/zero", "a")
    assert rig.result("a").output_bytes == 600
    rig.sh("head -c 600 /dev/zero; exec sleep 100", "b")
    assert rig.told_over("output") == 1_500
    rig.link.end("b", 1, "budget", 0)
    assert rig.result("b").output_bytes == 100
    rig.sh("head -c 600 /dev/zero", "beside", counted=False)
    assert rig.result("beside").output_bytes == 600
    rig.start(["true"], "late")
    assert (rig.result("late").ended_by, rig.result("late").exit_code) == ("budget", None)


def test_a_new_supervisor_is_told_again(rig: Rig) -> None:
    rig.open(limits={"cpu": 1_000}, spent={"cpu": 1_001})
    assert rig.told_over("cpu") == 1_001
    rig.over.clear()
    with closing(rig.link):
        rig.link = Link.connect(rig.folder, 2)
        rig.link.hello()
    assert rig.told_over("cpu") == 1_001


@pytest.mark.parametrize("limits", [{"cpu": 100}, {"output": 1_000}])
def test_without_a_supervisor_the_shim_ends_the_run_by_itself(
    rig: Rig, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrun.step.limits.UNHEARD", 0.1)
    waiter = ["/bin/sh", "-c", f"echo $$ >{rig.news.path}; exec sleep 100"]  # a supervisor that never comes
    rig.open(limits=limits, restart=waiter, max_restarts=1)
    rig.start(["sleep", "100"], "beside", counted=False)
    spend = "head -c 2000 /dev/zero; while :; do :; done"
    rig.sh(f"trap 'echo ended >$NEWS; exit' TERM; echo begun >$NEWS; {spend}", grace=20_000)
    assert rig.news.line() == "begun"
    rig.link.close()
    ended, waiting = sorted((rig.news.line(), rig.news.line()), key=str.isdigit)
    assert ended == "ended"
    rig.link = Link.connect(rig.folder, 2)  # while the other lives: its death now is not the last hope's
    rig.link.hello()
    os.kill(int(waiting), signal.SIGKILL)
    assert rig.result().ended_by == "budget"
    rig.link.end("beside", 1, "cancel", 0)
    assert rig.result("beside").ended_by == "cancel"


def test_a_supervisor_that_does_nothing_is_not_waited_for_without_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrun.step.limits.UNHEEDED", 0.1)
    rig.open(limits={"output": 1_000}).sh("head -c 2000 /dev/zero; exec sleep 100")
    assert rig.told_over("output") == 2_000
    assert rig.result().ended_by == "budget"


# ---- what is left


def test_cgroups_go_with_their_attempts_and_their_run(kernel: Rig) -> None:
    kernel.sh("exit 0", limits={"memory": 100 * MIB})
    kernel.result()
    kernel.swept()
    assert folders(kernel)
    for root in folders(kernel):
        assert [name for name in os.listdir(f"{root}/beside") if "#" in name] == []
    kernel.link.goodbye()
    assert not [root for root in folders(kernel) if os.path.exists(root)]


def test_who_hides_from_everything_else_is_found_by_its_cgroup_after_a_killed_shim(kernel: Rig) -> None:
    hide = "exec env -i NEWS=$NEWS setsid sh -c 'echo $$ >$NEWS; exec sleep 100 >/dev/null 2>&1'"
    kernel.sh(f"({hide}) & exit 0", limits={"memory": 100 * MIB})
    hidden = int(kernel.news.line())
    kernel.result()
    kernel.kill_shim()
    found = leftovers(kernel.folder.run_id, kernel.folder)
    assert [(one.process.pid, one.key) for one in found] == [(hidden, ("a", 1))]
    assert leftovers(kernel.folder.run_id, kernel.folder, [("a", 1)]) == []
    end_leftovers(kernel.folder.run_id, kernel.folder, grace_ms=0)
    assert not alive(hidden)
    assert not [root for root in folders(kernel) if os.path.exists(root)]


@pytest.mark.parametrize("output", ["", ">/dev/null 2>&1"])
def test_what_may_go_on_keeps_its_cgroup_as_long(kernel: Rig, tmp_path: Path, output: str) -> None:
    os.mkfifo(tmp_path / "go")
    lasting = f"(echo $$ >$NEWS; read x <go) {output} &"
    kernel.sh(f"{lasting} exit 0", limits={"memory": 100 * MIB}, leave_running=True)
    kernel.news.line()
    kernel.result()
    cgroup = f"{folders(kernel)[0]}/beside/a#1"
    [pid] = Path(cgroup, "cgroup.procs").read_text().split()
    kernel.link.goodbye()
    shim = kernel.shims[-1]
    assert Path(cgroup, "cgroup.procs").read_text().split() == [pid]
    (tmp_path / "go").write_text("\n")
    wait_gone(shim)
    assert not [root for root in folders(kernel) if os.path.exists(root)]


def test_the_same_attempt_under_a_new_shim_is_alone(kernel: Rig) -> None:
    """A shim that was killed before anybody heard that the attempt began."""
    kernel.sh("echo $$ >$NEWS; exec sleep 100", limits={"memory": 100 * MIB})
    first = int(kernel.news.line())
    kernel.kill_shim()
    kernel.link.close()
    assert alive(first)
    kernel.open(epoch=2).sh("exec sleep 0", limits={"memory": 100 * MIB})
    assert kernel.result().exit_code == 0
    wait_gone(first)


def test_a_shim_that_is_killed_at_once_leaves_nothing_for_long(kernel: Rig) -> None:
    for number in range(20):
        kernel.sh("exec sleep 100", f"s{number}", limits={"memory": 100 * MIB, "processes": 10})
    kernel.kill_shim()  # somewhere among them
    with pytest.raises(ShimGone):
        while True:
            kernel.link.receive()
    end_leftovers(kernel.folder.run_id, kernel.folder, grace_ms=0)
    assert cgroups.members(kernel.folder) == {}
    assert not [root for root in folders(kernel) if os.path.exists(root)]


def test_many_at_once_three_of_which_are_mad(kernel: Rig) -> None:
    """One eats memory, one forks without end, one fills its log: the others do not notice."""
    limits = {"memory": 200 * MIB, "processes": 50, "cpu": 60_000, "output": MIB}
    mad = {"eats": eat(400), "forks": ["/bin/sh", "-c", BOMB], "writes": ["yes"]}
    for number in range(57):
        kernel.sh("read x </proc/uptime; sleep 0.3; echo $x", f"s{number}", limits=limits)
        if number in (10, 20, 30):
            name = list(mad)[number // 10 - 1]
            kernel.start(mad[name], name, limits=limits)
    assert {kernel.result(f"s{number}").exit_code for number in range(57)} == {0}
    assert kernel.result("eats").oom
    assert kernel.result("forks").ended_by == "processes"
    assert kernel.result("writes").ended_by == "output" and len(kernel.log("writes")) == MIB
    kernel.swept()
    assert leftovers(kernel.folder.run_id, kernel.folder) == []
