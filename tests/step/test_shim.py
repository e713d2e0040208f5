"""The shim with real processes: what a step is started with, how it ends, what is recorded, what is left."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.step.attempts import pause
from agentrun.step.boot import boot_id
from agentrun.store.locks import SHIM, held

from .shim_rig import Rig, alive, wait_gone


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path).open()
    yield rig
    rig.close()


# ---- the plain path


def test_a_success_is_recorded_with_all_its_fields(rig: Rig) -> None:
    before = time.time_ns() // 1_000_000
    rig.sh("echo out; echo err >&2")
    result = rig.result()
    assert (result.instance, result.attempt, result.epoch, result.boot_id) == ("a", 1, 1, boot_id())
    assert (result.exit_code, result.signal, result.ended_by, result.spawn_error) == (0, None, None, None)
    assert before <= result.started_at <= result.ended_at
    assert result.output_bytes == 8
    assert result.max_rss_kib > 0
    assert rig.log() == b"out\nerr\n"


def test_exit_status_and_signal(rig: Rig) -> None:
    rig.sh("exit 75", "status")
    rig.sh("kill -SEGV $$", "signal")
    assert (rig.result("status").exit_code, rig.result("status").signal) == (75, None)
    assert (rig.result("signal").exit_code, rig.result("signal").signal) == (None, signal.SIGSEGV)


def test_what_the_process_is_given(rig: Rig, tmp_path: Path) -> None:
    program = """
import json, os, signal, stat, sys
print(json.dumps({
    "cwd": os.getcwd(), "umask": os.umask(0), "stdin": os.path.realpath("/proc/self/fd/0"),
    "session": os.getsid(0) == os.getpid(), "env": dict(os.environ), "out": stat.S_ISFIFO(os.fstat(1).st_mode),
    "same": os.fstat(1).st_ino == os.fstat(2).st_ino, "tmp": os.listdir(os.environ["TMPDIR"]),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "status": {k: v for k, v in (l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines())},
}))
"""
    env = {"GIVEN": "é", "NEWS": None}
    rig.start([sys.executable, "-S", "-c", program], env=env)
    assert rig.result().exit_code == 0, rig.log()
    seen = json.loads(rig.log())
    assert seen["cwd"] == str(tmp_path)
    assert seen["umask"] == 0o022
    assert seen["stdin"] == "/dev/null"
    assert seen["session"] and seen["out"] and seen["same"] and seen["tmp"] == []
    assert seen["fds"] == [0, 1, 2]
    assert seen["env"]["GIVEN"] == "é" and "NEWS" not in seen["env"] and "HOME" not in seen["env"]
    assert seen["env"]["AGENTRUN_RUN_ID"] == rig.folder.run_id
    assert (seen["env"]["AGENTRUN_STEP"], seen["env"]["AGENTRUN_ATTEMPT"]) == ("a", "1")
    assert int(seen["status"]["SigBlk"], 16) == 0
    # Python ignores PIPE (13) and XFSZ (25) by itself; nothing else may be ignored
    assert _ignored(seen["status"]["SigIgn"]) <= {signal.SIGPIPE, signal.SIGXFSZ}


def test_ignored_signals_are_default_again(rig: Rig) -> None:
    rig.sh("grep SigIgn /proc/self/status")
    assert rig.result().exit_code == 0
    assert _ignored(rig.log().split()[1].decode()) == set()


def test_descriptor_limit_is_the_one_we_were_given(rig: Rig) -> None:
    import resource

    rig.sh("ulimit -Sn")
    rig.result()
    assert int(rig.log()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_stderr_can_be_opened_again_and_the_order_is_true(rig: Rig) -> None:
    rig.sh("echo 1; echo 2 >/dev/stderr; echo 3; echo 4 >/dev/stdout; echo 5 >&2")
    rig.result()
    assert rig.log() == b"1\n2\n3\n4\n5\n"


def test_no_output_makes_no_log_and_nothing_else_is_left(rig: Rig) -> None:
    rig.start(["true"])
    assert rig.result().output_bytes == 0
    rig.link.goodbye()
    assert sorted(os.listdir(rig.folder.path)) == ["io", "lock", "log", "results", "scratch", "tmp"]
    for folder in ("io", "log", "tmp"):
        assert os.listdir(f"{rig.folder.path}/{folder}") == []


def test_the_temporary_folder_is_removed_with_its_contents(rig: Rig) -> None:
    rig.sh('mkdir -p "$TMPDIR/a/b" && echo x >"$TMPDIR/a/b/c" && echo "$TMPDIR"')
    rig.result()
    folder = rig.log().decode().strip()
    assert os.path.dirname(folder) == f"{rig.folder.path}/tmp"
    rig.link.goodbye()
    # rm runs on its own; the shim waits for nothing, and so it may end before it
    until = time.monotonic() + 10
    while os.path.exists(folder):
        assert time.monotonic() < until
        os.sched_yield()


def test_many_at_once(rig: Rig) -> None:
    for number in range(100):
        rig.sh(f"echo {number}; exit {number % 7}", f"s{number}")
    for number in range(100):
        assert rig.result(f"s{number}").exit_code == number % 7
        assert rig.log(f"s{number}") == b"%d\n" % number


def test_output_of_many_megabytes_arrives_whole(rig: Rig) -> None:
    rig.sh("head -c 50000000 /dev/zero; echo end")
    assert rig.result().output_bytes == 50_000_004
    log = rig.log()
    assert len(log) == 50_000_004 and log.endswith(b"\0end\n")


# ---- what cannot be started


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["no-such-program-xyz"], 127, ["cannot start no-such-program-xyz in PATH=", "no such program"]),
        (["/no/such/program"], 127, ["cannot start /no/such/program", "no such program"]),
        (["./data"], 126, ["cannot start ./data", "Permission denied"]),
        (["./odd"], 127, ["cannot start ./odd", "the interpreter that its first line names is not there"]),
        (["./text"], 126, ["cannot start ./text", "Exec format error"]),
        (["/"], 126, ["cannot start /", "Permission denied"]),
        (["true", "a\0b"], 126, ["cannot start 'true'", "null byte"]),
        (["true", "x" * 3_000_000], 126, ["cannot start true", "Argument list too long"]),
    ],
)
def test_what_cannot_be_executed(rig: Rig, tmp_path: Path, argv: list[str], code: int, words: list[str]) -> None:
    (tmp_path / "data").write_text("x")
    (tmp_path / "odd").write_text("#!/no/such/interpreter\n")
    (tmp_path / "text").write_text("echo text\n")
    for name in ("odd", "text"):
        (tmp_path / name).chmod(0o755)
    rig.start(argv)
    result = rig.result()
    assert (result.exit_code, result.signal, result.ended_by) == (code, None, None)
    assert result.spawn_error is not None
    for word in words:
        assert word in result.spawn_error
    assert os.listdir(rig.folder.path + "/log") == []


def test_a_working_folder_that_is_gone(rig: Rig, tmp_path: Path) -> None:
    rig.start(["true"], cwd=str(tmp_path / "gone"))
    result = rig.result()
    assert result.spawn_error == f"cannot enter the working folder {tmp_path}/gone: No such file or directory"
    assert result.exit_code == 126


def test_the_shell_is_tried_when_the_program_cannot_be_executed(rig: Rig, tmp_path: Path) -> None:
    rig.start(["no-such-program-xyz"], shell=["/bin/sh", "-ec", "no-such-program-xyz"])
    result = rig.result()
    assert (result.exit_code, result.spawn_error) == (127, None)
    assert b"not found" in rig.log()


def test_the_path_of_the_order_decides(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "here"
    program.write_text("#!/bin/sh\necho found $0\n")
    program.chmod(0o755)
    rig.start(["here"], env={"PATH": f"/nowhere:{tmp_path}/bin"})
    assert rig.result().exit_code == 0
    assert rig.log() == f"found {program}\n".encode()


def test_a_place_that_is_as_new_serves_the_next_attempt_and_no_other_does(rig: Rig) -> None:
    places = []
    for number, mess in enumerate(["true", "true", 'touch "$TMPDIR/x"', "true", 'chmod 755 "$TMPDIR"', "true"]):
        rig.sh(f'{mess}; ls -A "$TMPDIR"; stat -c %a "$TMPDIR"; echo "$TMPDIR"', instance=f"s{number}")
        rig.result(f"s{number}")
        *listed, mode, folder = rig.log(f"s{number}").decode().splitlines()
        assert (mess.startswith("touch") or not listed) and (mess.startswith("chmod") or mode == "700")
        places.append(os.path.basename(folder))
    assert places == ["0", "0", "0", "1", "1", "2"]


@pytest.mark.parametrize("leave_running", [False, True])
def test_remains_of_a_killed_shim_do_not_hinder_the_same_attempt(rig: Rig, leave_running: bool) -> None:
    for fifo, tmp in ((rig.folder.fifo("a", 1), rig.folder.tmp("a", 1)), ("io/0.fifo", "tmp/0")):
        os.mkfifo(os.path.join(rig.folder.path, fifo))
        os.mkdir(os.path.join(rig.folder.path, tmp))
    rig.sh("echo ok", leave_running=leave_running)
    assert rig.result().exit_code == 0
    assert rig.log() == b"ok\n"


# ---- ends


def test_a_timeout_says_so(rig: Rig) -> None:
    rig.start(["sleep", "600"], timeout=50)
    result = rig.result()
    assert (result.ended_by, result.signal, result.exit_code) == ("timeout", signal.SIGTERM, None)
    assert 50 <= result.ended_at - result.started_at < 2_000


def test_a_step_may_use_its_grace(rig: Rig) -> None:
    rig.sh('trap "echo bye; exit 3" TERM; echo up >"$NEWS"; while :; do sleep 0.01; done', grace=10_000)
    rig.news.line()
    rig.link.end("a", 1, "cancel", 10_000)
    result = rig.result()
    assert (result.ended_by, result.exit_code) == ("cancel", 3)
    assert rig.log().endswith(b"bye\n")


def test_a_stopped_step_hears_term(rig: Rig) -> None:
    rig.sh('echo $$ >"$NEWS"; kill -STOP $$; exec sleep 600')
    rig.news.line()
    rig.link.end("a", 1, "cancel", 10_000)
    assert rig.result().signal == signal.SIGTERM


def test_term_ignored_means_kill_after_the_grace(rig: Rig) -> None:
    rig.sh('trap "" TERM; echo up >"$NEWS"; while :; do sleep 600; done')
    rig.news.line()
    rig.link.end("a", 1, "deadline", 100)
    result = rig.result()
    assert (result.ended_by, result.signal) == ("deadline", signal.SIGKILL)


def test_a_second_end_can_only_shorten_the_grace(rig: Rig) -> None:
    rig.sh('trap "" TERM; echo up >"$NEWS"; while :; do sleep 600; done')
    rig.news.line()
    rig.link.end("a", 1, "cancel", 600_000)
    rig.link.end("a", 1, "deadline", 600_000)
    rig.link.end("a", 1, "deadline", 0)
    assert rig.result().ended_by == "cancel"


def test_an_end_that_comes_too_late_changes_nothing(rig: Rig) -> None:
    rig.sh("exit 0")
    rig.result()
    rig.link.end("a", 1, "cancel", 0)
    rig.link.end("never", 7, "cancel", 0)
    rig.sh("exit 4", "b")
    assert rig.result("b").ended_by is None
    assert rig.reader.read_new() == []


def test_an_ended_attempt_waits_for_its_whole_tree(rig: Rig) -> None:
    """The leader goes at TERM; the result comes only when the child that ignores it was killed."""
    rig.sh('(trap "" TERM; echo up >"$NEWS"; sleep 600) & echo $! >"$NEWS"; wait')
    lines = [rig.news.line(), rig.news.line()]
    child = int(next(line for line in lines if line != "up"))
    rig.link.end("a", 1, "cancel", 200)
    result = rig.result()
    assert result.signal == signal.SIGTERM
    assert not alive(child)
    assert result.ended_at - result.started_at >= 200


# ---- what is left


def test_an_attempt_ends_with_its_leader_and_leftovers_with_the_run(rig: Rig) -> None:
    rig.sh('sleep 600 & echo $! >"$NEWS"; echo done')
    assert rig.result().exit_code == 0
    left = int(rig.news.line())
    assert alive(left)
    rig.swept()
    assert not alive(left)


def test_what_a_leftover_writes_is_still_logged(rig: Rig) -> None:
    rig.sh('(read x <"$GO"; echo late; echo said >"$NEWS") & echo early', env={"GO": _fifo(rig, "go")})
    rig.result()
    assert rig.log() == b"early\n"
    Path(rig.root / "go").write_text("x\n")
    assert rig.news.line() == "said"
    rig.link.goodbye()
    assert rig.log() == b"early\nlate\n"


def test_leftovers_end_before_the_next_attempt_of_the_instance(rig: Rig) -> None:
    go = _fifo(rig, "go")
    rig.sh('(trap "" TERM; echo up >"$NEWS"; sleep 600) & echo $!; read x <"$GO"', grace=100, env={"GO": go})
    rig.news.line()
    Path(go).write_text("x\n")
    rig.result()
    left = rig.log().decode().strip()
    rig.sh('kill -0 "$LEFT" 2>/dev/null && echo alive || echo gone', attempt=2, env={"LEFT": left})
    rig.sh("exit 0", "other")
    assert rig.result("other").exit_code == 0  # nobody else has to wait
    rig.result("a", 2)
    assert rig.log("a", 2) == b"gone\n"
    assert rig.result("a", 2).started_at - rig.result().ended_at >= 100


def test_an_attempt_that_is_held_can_be_ended_before_it_begins(rig: Rig) -> None:
    rig.sh('(trap "" TERM; echo up >"$NEWS"; sleep 600) & read x <"$GO"', grace=600_000, env={"GO": _fifo(rig, "go")})
    rig.news.line()
    Path(rig.root / "go").write_text("x\n")
    rig.result()
    rig.sh("echo never", attempt=2)
    rig.link.end("a", 2, "cancel", 0)
    result = rig.result("a", 2)
    assert (result.ended_by, result.exit_code, result.signal) == ("cancel", None, None)
    assert not os.path.exists(rig.folder.log("a", 2))
    rig.kill_shim()


def test_leave_running_outlives_sweep_and_goodbye_and_keeps_its_log(rig: Rig) -> None:
    rig.sh('(echo $$; read x <"$GO"; echo late) & echo $! >"$NEWS"', leave_running=True, env={"GO": _fifo(rig, "go")})
    rig.result()
    left = int(rig.news.line())
    rig.swept()
    rig.link.goodbye()
    assert alive(left)
    assert not held(rig.folder.lock, SHIM)
    assert not os.path.exists(rig.folder.socket)
    shim = rig.shims[-1]
    assert os.path.realpath(f"/proc/{shim}/fd/2") == "/dev/null"
    Path(rig.root / "go").write_text("x\n")
    wait_gone(left)
    wait_gone(shim)
    assert rig.log().endswith(b"late\n")


def test_goodbye_ends_what_still_runs(rig: Rig) -> None:
    rig.sh('echo $$ >"$NEWS"; exec sleep 600')
    pid = int(rig.news.line())
    rig.link.goodbye()
    assert not alive(pid)
    [result] = rig.reader.read_new()
    assert (result.ended_by, result.signal) == ("shutdown", signal.SIGTERM)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "PIPE", "USR1", "USR2", "ALRM", "TSTP"])
def test_signals_do_not_end_the_shim(rig: Rig, name: str) -> None:
    os.kill(rig.link.pid, getattr(signal, "SIG" + name))
    rig.sh("echo still here")
    assert rig.result().exit_code == 0


def test_a_leftover_that_writes_on_and_on_does_not_delay_the_end(rig: Rig) -> None:
    rig.sh("yes & echo $! >$NEWS; exit 5")
    assert rig.result().exit_code == 5
    rig.swept()
    assert not alive(int(rig.news.line()))


def test_a_result_that_the_disk_refuses_is_written_later(rig: Rig) -> None:
    """The file's size limit stands in for a full disk: lifted, the result comes."""
    import resource

    size = os.path.getsize(rig.folder.results)
    resource.prlimit(rig.link.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    rig.sh('echo x; echo ended >"$NEWS"')
    rig.news.line()
    rig.start(["true"], "b")
    resource.prlimit(rig.link.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert rig.result("b").exit_code == 0
    assert rig.result().exit_code == 0


def _ignored(mask: str) -> set[int]:
    """Signal numbers of a mask of /proc; 32 and 33 are the C library's own, which nobody can set."""
    return {number for number in range(1, 65) if int(mask, 16) >> (number - 1) & 1} - {32, 33}


def _fifo(rig: Rig, name: str) -> str:
    path = str(rig.root / name)
    os.mkfifo(path)
    return path


def test_what_cannot_be_killed_is_tried_once_a_second_for_ever() -> None:
    pauses = [pause(rounds) for rounds in (1, 2, 8, 9, 5_000)]  # a process that waits for a dead disk: 80 minutes
    assert pauses == [0.004, 0.008, 0.512, 1.0, 1.0]
