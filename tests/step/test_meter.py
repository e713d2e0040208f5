"""What is said of an attempt in the end: whose doing it was where a limit, the kernel or somebody else might be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from agentrun.step import cgroups, procs
from agentrun.step.attempt import Attempt
from agentrun.step.limits import Limits
from agentrun.store.folders import RunFolder

from .shim_rig import MIB, Rig, eat

GIB = 1 << 30
NEVER = 1_000.0  # seconds until a look that does not come


def words(argv: list[str]) -> str:
    return " ".join(f"'{word}'" for word in argv)


def kills() -> int:
    """How often this machine's kernel killed for want of memory."""
    return int(procs.read("/proc/vmstat").partition(b"\noom_kill ")[2].split()[0])


# ---- memory


def test_a_child_that_the_kernel_killed_for_memory_ends_its_parent(kernel: Rig) -> None:
    kernel.sh(f"{words(eat(100))}; echo $?; exec sleep 100", limits={"memory": 60 * MIB})
    result = kernel.result()
    assert (result.ended_by, result.oom, result.signal) == ("memory", True, signal.SIGKILL)


def test_a_child_that_the_kernel_killed_and_nobody_minds_is_no_failure(
    kernel: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.link.goodbye()
    monkeypatch.setattr("agentrun.step.limits.LOOK", NEVER)
    kernel.open(epoch=2).sh(f"{words(eat(100))}; exit 0", limits={"memory": 60 * MIB})
    result = kernel.result()
    assert (result.ended_by, result.oom, result.exit_code) == (None, False, 0)


@pytest.mark.parametrize("looks", [0.05, NEVER])
def test_a_child_that_the_kernel_killed_and_that_failed_its_parent_is_out_of_memory(
    kernel: Rig, looks: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.link.goodbye()
    monkeypatch.setattr("agentrun.step.limits.LOOK", looks)
    kernel.open(epoch=2).sh(f"{words(eat(100))}; exit 3", limits={"memory": 60 * MIB})
    result = kernel.result()
    assert result.oom
    # it may end by itself just as it is about to be ended
    assert (result.ended_by, result.exit_code) in ((None, 3), ("memory", None), ("memory", 3))
    assert looks != NEVER or result.ended_by is None


def test_a_kill_by_the_kernel_is_known_where_nothing_of_ours_was_limited(kernel: Rig) -> None:
    """Memory of the machine, or of a container: here of a cgroup that the step makes for itself."""
    own = cgroups.own_folders()
    path = f"{own.get('memory', own.get(''))}/agentrun-test-{kernel.folder.run_id}"
    limit = f"{path}/memory.limit_in_bytes" if "memory" in own else f"{path}/memory.max"
    kernel.sh(f"mkdir {path}; echo 50M >{limit}; echo $$ >{path}/cgroup.procs; exec {words(eat(100))}")
    try:
        result = kernel.result()
        assert (result.signal, result.oom, result.ended_by) == (signal.SIGKILL, True, None), kernel.log()
    finally:
        os.rmdir(path)


@pytest.mark.parametrize("limits", [{}, {"memory": 500 * MIB}, {"output": MIB}])
def test_a_kill_is_the_kernels_only_if_no_other_attempt_explains_it(kernel: Rig, limits: dict[str, int]) -> None:
    for number in range(50):
        before = kills()
        kernel.sh("echo $$ >$NEWS; exec sleep 100", f"victim{number}", limits=limits)
        victim = int(kernel.news.line())
        kernel.start(eat(100), f"eater{number}", limits={"memory": 60 * MIB})
        assert kernel.result(f"eater{number}").oom
        os.kill(victim, signal.SIGKILL)
        result = kernel.result(f"victim{number}")
        if kills() == before + 1:  # else somebody else's too, which nothing of ours explains
            break
    assert (result.signal, result.oom, result.ended_by) == (signal.SIGKILL, False, None)


def test_memory_that_is_asked_for_and_not_used_is_not_counted(sampled: Rig) -> None:
    several = """
import threading
threading.stack_size(8 << 20)
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(100)]
for thread in threads:
    thread.start()
end.set()
"""
    sampled.open().start([sys.executable, "-S", "-c", several], limits={"memory": 100 * MIB})
    result = sampled.result()
    assert (result.exit_code, result.ended_by) == (0, None), sampled.log()


def test_who_runs_away_between_two_looks_is_refused_more(sampled: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrun.step.limits.LOOK", NEVER)
    sampled.open().start(eat(4 * 1024 + 200, "pass"), limits={"memory": 100 * MIB})
    assert sampled.result().exit_code == 1
    assert b"MemoryError" in sampled.log()


def test_memory_that_is_shared_counts_once(sampled: Rig) -> None:
    several = "import os, time; [os.fork() for _ in range(3)]; time.sleep(0.3)"  # sees two looks
    sampled.open().start(eat(50, several), limits={"memory": 150 * MIB})
    result = sampled.result()
    assert (result.exit_code, result.ended_by) == (0, None)


# ---- processor time


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)", "pass"])
def test_processor_time_that_nobody_saw_used_up_explains_a_failure(
    either: Rig, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrun.step.limits.LOOK", NEVER)
    burn = f"import time\nwhile time.process_time() < 0.2: pass\n{end}"
    either.open().start([sys.executable, "-S", "-c", burn], limits={"cpu": 100})
    result = either.result()
    assert result.cpu_ms > 100
    assert result.ended_by == (None if result.exit_code == 0 else "cpu")
    assert (result.exit_code == 0) == (end == "pass")


def test_a_failure_within_its_processor_time_is_its_own(either: Rig) -> None:
    either.open().sh("exit 3", limits={"cpu": 60_000})
    assert (either.result().exit_code, either.result().ended_by) == (3, None)


@pytest.mark.parametrize(("cause", "code", "said"), [
    ("memory", 0, None), ("processes", 0, None), ("memory", None, "memory"), ("cpu", 0, "cpu"),
    ("timeout", 0, "timeout"),
])  # fmt: skip
def test_who_was_killed_has_no_status(tmp_path: Path, cause: str, code: int | None, said: str | None) -> None:
    """So one that has was over when it was killed; who was asked to end may well answer with 0."""
    attempt = Attempt({"instance": "a", "attempt": 1}, 1)
    attempt.ending, attempt.cause = True, cause
    attempt.ended(code, 9 if code is None else None, None)
    Limits(RunFolder(str(tmp_path), "r"), {}, {}, lambda what, spent: None, lambda: None).ended(attempt)
    assert attempt.cause == said
