"""The files of cgroups. v1 is tried for real in test_limits.py; of v2 what needs no controller is real here too.

Its controllers can seldom be had in a test (on a machine with v1 they belong to that), so who hands them down and
reads their counts works on files that only look like the kernel's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.step import cgroups, scopes
from agentrun.step.cgroup import Group, GroupV2, pids_in, put
from agentrun.step.cgroups import Cgroups, make_v2, own_folders
from agentrun.store.folders import RunFolder

from .shim_rig import Rig

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(str(tmp_path), f"v2-{os.getpid()}-{tmp_path.name}")
    folder.create()
    return folder


# ---- v2 without controllers, for real


@pytest.fixture
def real(folder: RunFolder) -> Iterator[tuple[Cgroups, Group]]:
    own = own_folders().get("", "")
    if not os.access(own + "/cgroup.procs", os.W_OK):
        pytest.skip("no cgroup v2 here that we may write to")
    root = GroupV2({"cpu": f"{own}/agentrun-{folder.run_id}"})
    for group in (root, root.below("counted"), root.below("beside")):
        group.make()
    all_of_them = Cgroups("cgroup v2", root, [own])
    yield all_of_them, all_of_them.make(("a", 1), counted=True)
    all_of_them.close()
    assert not os.path.exists(root.paths[0])


def test_what_is_started_inside_stays_inside_and_we_come_back(real: tuple[Cgroups, Group]) -> None:
    ours, group = real
    before = own_folders()
    assert ours.enter(group)
    assert own_folders()[""] == group.paths[0]
    with subprocess.Popen(["sh", "-c", "sleep 100 & echo; wait"], stdout=subprocess.PIPE) as process:
        assert ours.leave()
        assert own_folders() == before
        assert process.stdout and process.stdout.readline() == b"\n"
        assert process.pid in group.pids() and len(group.pids()) == 2
        assert not group.remove()
        group.kill()
        assert process.wait() == -9
    assert group.cpu() > 0
    while not group.remove():  # the second is dead too, and perhaps not yet buried
        os.sched_yield()


def test_a_name_that_is_taken_is_cleared_first(real: tuple[Cgroups, Group]) -> None:
    ours, first = real
    assert ours.enter(first)
    with subprocess.Popen(["sleep", "100"]) as process:
        ours.leave()
        again = ours.make(("a", 1), counted=True)
        assert process.wait() == -9
    assert again.paths != first.paths or again.pids() == []
    text = f"0::/x/agentrun-run/counted/{os.path.basename(again.paths[0])}\n"
    assert cgroups.key_of(text.encode(), "run") == ("a", 1)
    first.remove()
    again.remove()


def test_we_move_back_when_nobody_is_left_in_an_attempts_cgroup(folder: RunFolder) -> None:
    top = own_folders().get("", "")
    if not os.access(top + "/cgroup.procs", os.W_OK):
        pytest.skip("no cgroup v2 here that we may write to")
    own = GroupV2({"cpu": f"{top}/own-{folder.run_id}"})
    root = own.below(f"agentrun-{folder.run_id}")
    leaf = root.below("shim")
    for group in (own, root, root.below("counted"), root.below("beside"), leaf):
        group.make()
    ours = Cgroups("cgroup v2", root, leaf.paths, [])
    attempt = ours.make(("a", 1), counted=False)
    with subprocess.Popen(["sleep", "100"]) as supervisor, subprocess.Popen(["sleep", "100"]) as lasting:
        assert put(f"{leaf.paths[0]}/cgroup.procs", str(supervisor.pid)) == 0
        assert put(f"{attempt.paths[0]}/cgroup.procs", str(lasting.pid)) == 0
        ours.close()
        assert pids_in(leaf.paths[0]) == [supervisor.pid] and pids_in(attempt.paths[0]) == [lasting.pid]
        lasting.kill()
        lasting.wait()
        ours.close()
        assert pids_in(own.paths[0]) == [supervisor.pid]
        assert not os.path.exists(root.paths[0])
        supervisor.kill()
    assert own.remove()


# ---- v2 with controllers, on files that look like its


@pytest.fixture
def own(tmp_path: Path, folder: RunFolder) -> Path:
    """A delegated cgroup with nobody in it, and in it what the kernel would make for ours."""
    own = tmp_path / "own"
    root = own / f"agentrun-{folder.run_id}"
    for path in (own, root, root / "shim", root / "counted", root / "beside", root / "counted" / "a#1"):
        path.mkdir()
        for name in ("subtree_control", "procs", "type", "kill"):
            (path / f"cgroup.{name}").write_text("")
        for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
            (path / name).write_text("")
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    return own


def test_controllers_are_handed_down_and_we_move_into_a_leaf(own: Path, folder: RunFolder) -> None:
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    found = make_v2(folder, str(own), f"agentrun-{folder.run_id}")
    assert found and set(found.covers) == {"memory", "cpu", "processes"}
    root = own / f"agentrun-{folder.run_id}"
    for path in (own, root, root / "counted", root / "beside"):
        assert (path / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (root / "shim" / "cgroup.procs").read_text() == str(os.getpid())
    assert Path(folder.path, "cgroups").read_text() == f"{root}\n"
    found.hold_run({"memory": 5 * MIB, "processes": 7, "cpu": 1})
    assert (root / "counted" / "memory.max").read_text() == str(5 * MIB)
    assert (root / "counted" / "memory.oom.group").read_text() == "0"
    found.counted.below("a#1").limit({"memory": MIB})
    assert (root / "counted" / "a#1" / "memory.oom.group").read_text() == "1"
    assert (root / "counted" / "a#1" / "memory.swap.max").read_text() == "0"
    assert (root / "counted" / "pids.max").read_text() == "7"
    assert (root / "beside" / "memory.max").read_text() == ""
    found.close()
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"  # attempts' cgroups are there
    shutil.rmtree(root / "counted")
    shutil.rmtree(root / "beside")
    found.close()
    for path in (root, own):
        assert (path / "cgroup.subtree_control").read_text() == "-memory -pids"
    assert (own / "cgroup.procs").read_text().split() == [str(os.getpid())]


def test_where_somebody_else_stands_v2_cannot_be_used(own: Path, folder: RunFolder) -> None:
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    assert make_v2(folder, str(own), f"agentrun-{folder.run_id}") is None
    assert (own / "cgroup.subtree_control").read_text() == ""


def test_without_memory_v2_is_not_used(own: Path, folder: RunFolder) -> None:
    (own / "cgroup.controllers").write_text("cpu pids\n")
    assert make_v2(folder, str(own), f"agentrun-{folder.run_id}") is None


def test_a_run_that_is_a_step_of_another_stands_beside_it(own: Path, folder: RunFolder) -> None:
    leaf = own / "agentrun-outer" / "shim"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    found = make_v2(folder, str(leaf), f"agentrun-{folder.run_id}")
    assert found and found.counted.paths == [str(own / f"agentrun-{folder.run_id}" / "counted")]
    assert found.leave()
    assert (leaf / "cgroup.procs").read_text().startswith("0")
    found.close()


def test_the_counts_of_v2(own: Path, folder: RunFolder) -> None:
    path = own / f"agentrun-{folder.run_id}" / "counted" / "a#1"
    group = GroupV2({what: str(path) for what in ("memory", "cpu", "processes")})
    assert (group.cpu(), group.peak(), group.kills(), group.full(), group.crowded(5)) == (0, 0, 0, False, False)
    (path / "cpu.stat").write_text("usage_usec 1234567\nuser_usec 1\n")
    (path / "memory.peak").write_text("4096\n")
    (path / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 3\n")
    (path / "pids.events").write_text("max 4\n")
    assert (group.cpu(), group.peak(), group.kills(), group.full(), group.crowded(5)) == (1234, 4096, 3, True, True)
    (path / "memory.events.local").write_text("max 0\noom 0\noom_kill 3\n")  # a limit above it or below it
    (path / "pids.events.local").write_text("max 0\n")
    assert (group.kills(), group.full(), group.crowded(5)) == (3, False, False)
    (path / "pids.current").write_text("6\n")
    group.limit({"processes": 5})
    assert group.crowded(5)


# ---- what is left


def test_names_of_attempts_come_back_from_proc() -> None:
    text = b"8:pids:/x/agentrun-r1/beside/a.b[3]#12.1/agentrun-r2/counted/c#1\n4:memory:/\n"
    assert cgroups.key_of(text, "r1") == ("a.b[3]", 12)
    assert cgroups.key_of(text, "r2") == ("c", 1)
    assert cgroups.key_of(text, "r3") is None
    assert cgroups.key_of(b"0::/agentrun-r1/shim\n", "r1") is None


def test_only_cgroups_of_the_run_itself_are_removed(folder: RunFolder, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "x" / "agentrun-other", tmp_path / "x" / f"agentrun-{folder.run_id}"
    theirs.mkdir(parents=True)
    ours.mkdir()
    Path(folder.path, "cgroups").write_text(f"{theirs}\n{ours}\n/torn")
    cgroups.remove_all(folder)
    assert theirs.exists() and not ours.exists()


# ---- systemd

SYSTEMD_RUN = """#!/bin/sh
echo "$@" >>"$0.calls"
while [ "$1" != -- ]; do
    case $1 in --unit=*) unit=${1#--unit=};; TasksMax=*) tasks=${1#TasksMax=};; esac
    shift
done
shift
if [ "$unit" ] && [ "$SCOPES" ]; then
    mkdir "$SCOPES/$unit"; echo "$tasks" >"$SCOPES/$unit/pids.max"; echo $$ >"$SCOPES/$unit/cgroup.procs"
fi
exec "$@"
"""


def test_the_command_line_for_systemd() -> None:
    words = scopes.command({"memory": 5 * MIB, "processes": 9, "cpu": 1}, "u.scope", ["/bin/echo", "-n", "x y"])
    assert words[0] == "systemd-run"
    assert words[-4:] == ["--", "/bin/echo", "-n", "x y"]
    assert {"--scope", "--quiet", "--collect", "--unit=u.scope"} < set(words)
    assert ("--user" in words) == (os.geteuid() != 0)
    properties = {words[at + 1] for at, word in enumerate(words) if word == "-p"}
    assert properties == {f"MemoryMax={5 * MIB}", "MemorySwapMax=0", "TasksMax=9"}
    assert scopes.unit_name("r1", ("sum[3]/é", 2)).startswith("agentrun-r1-sum_3___-2-")


def test_a_scope_of_systemd_holds_an_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in makes the scope: it does what systemd-run does, with the controller for processes alone."""
    pids = own_folders().get("pids", "")
    if not os.access(pids, os.W_OK):
        pytest.skip("no cgroup v1 here that we may write to")
    program = tmp_path / "systemd-run"
    program.write_text(SYSTEMD_RUN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("AGENTRUN_LIMITS", "systemd")
    rig = Rig(tmp_path).open(limits={"processes": 50})
    try:
        assert rig.link.enforced_by == "systemd scope; processes of the run: sampling every 0.5 s"
        bad = tmp_path / "words"
        bad.write_text("echo from the shell\n")
        bad.chmod(0o755)
        rig.start([str(bad)], "words", limits={"processes": 20}, shell=["/bin/sh", str(bad)])
        assert rig.result("words").exit_code == 0 and rig.log("words") == b"from the shell\n"
        rig.start(["no-such"], "none", limits={"processes": 20})
        assert "there is no such program" in (rig.result("none").spawn_error or "")
        mad = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; exec sleep 100"
        rig.sh(f"sleep 0.7; ({mad})", limits={"processes": 6}, env={"SCOPES": pids})  # after it was seen in its scope
        result = rig.result()
        assert result.ended_by == "processes"
        assert result.enforced_by and result.enforced_by.startswith("systemd scope")
        assert "--scope" in Path(f"{program}.calls").read_text()
    finally:
        rig.close()
        for name in os.listdir(pids):
            if name.startswith(f"agentrun-{rig.folder.run_id}-"):
                os.rmdir(f"{pids}/{name}")
