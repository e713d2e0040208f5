"""`resume` and `cancel` where something is missing, late or odd: they say what is so, and the record stays true."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from .arena import LIMIT, Arena

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT" >> "$ARENA/ledger"'


def interrupted(arena: Arena, *, end: str = "true", extra: str = "", last: str = "") -> Path:
    """A run that was killed in its second step; `gate` is open for the next attempt."""
    gate = arena.gate("gate")
    job = arena.job(
        "job", f"{extra}steps:\n- {{id: a, run: '{NOTE}'}}\n- {{id: b, run: '{NOTE}; {gate.shell}; {end}'}}\n{last}"
    )
    arena.start("run", str(job))
    gate.reached()
    arena.kill_everything()
    gate.open()
    return job


def folder(arena: Arena) -> Path:
    return arena.home / "runs" / arena.run_id


# --- resume, of all ---


def test_a_step_that_ends_with_75_has_failed_all_the_same(arena: Arena) -> None:
    interrupted(arena, end="exit 75")
    resumed = arena.command("resume")
    assert resumed.returncode == 1
    assert f"job/{arena.run_id} did not succeed (exit status 75)" in resumed.stderr


def test_a_supervisor_that_was_stopped_left_its_run_unfinished(arena: Arena) -> None:
    gate = arena.gate("again")
    interrupted(arena, end=gate.shell)
    resumed = arena.start("resume")
    gate.reached()
    os.kill(arena.owner(), signal.SIGTERM)
    _, stderr = resumed.communicate(timeout=LIMIT)
    assert resumed.returncode == 1
    assert f"job/{arena.run_id} did not finish (exit status 143)" in stderr


def test_a_run_whose_shim_goes_on_without_the_supervisor_is_not_reported(arena: Arena) -> None:
    gate = arena.gate("again")
    interrupted(arena, end=gate.shell)
    resumed = arena.start("resume")
    gate.reached()
    arena.kill(arena.owner())
    assert resumed.wait(LIMIT) == 0, "its shim has started another supervisor"
    gate.open()
    arena.wait_until_let_go()
    assert resumed.communicate(timeout=LIMIT) == ("", "")
    assert arena.status("job")["outcome"] == "succeeded"


def test_a_run_that_cannot_go_on_is_reported(arena: Arena) -> None:
    interrupted(arena)
    (folder(arena) / "env.json").unlink()
    resumed = arena.command("resume")
    assert resumed.returncode == 1
    assert f"job/{arena.run_id} did not finish (exit status 69)" in resumed.stderr
    assert "--env-here" in resumed.stderr


# --- what is gone ---


def test_a_lost_environment_is_replaced_only_if_told(arena: Arena) -> None:
    interrupted(arena, last="- {id: c, run: 'echo $COLOUR >> $ARENA/ledger'}\n")
    (folder(arena) / "env.json").unlink()
    before = arena.status("job")
    arena.env["COLOUR"] = "blue"
    refused = arena.command("resume", "job")
    assert refused.returncode == 69
    assert f"the environment that run {arena.run_id} was created in is gone" in refused.stderr
    assert arena.status("job") == before, "refusing is no resume"
    assert arena.command("resume", "job", "--env-here").returncode == 0
    assert arena.lines() == ["a 1", "b 1", "b 2", "blue"]
    kinds = [kind for (kind,) in arena.rows("SELECT kind FROM events ORDER BY seq")]
    assert kinds.count("environment_replaced") == 1


def test_a_replaced_environment_is_the_runs_own_from_then_on(arena: Arena) -> None:
    interrupted(arena, end="false")
    (folder(arena) / "env.json").unlink()
    arena.env["COLOUR"] = "blue"
    assert arena.command("resume", "job", "--env-here").returncode == 1
    assert json.loads((folder(arena) / "env.json").read_text())["env"]["COLOUR"] == "blue"


def test_a_run_without_its_folder_is_reported_and_can_be_cancelled(arena: Arena) -> None:
    interrupted(arena, last="- {id: c, run: 'true'}\n")
    epoch = arena.rows("SELECT epoch FROM runs")[0][0]
    shutil.rmtree(folder(arena))
    advice = f"agentrun cancel {arena.run_id}"
    everything = arena.command("resume")
    assert everything.returncode == 1 and everything.stderr.count(advice) == 1, everything.stderr
    one = arena.command("resume", "job")
    assert one.returncode == 66 and advice in one.stderr
    cancelled = arena.command("cancel", "job")
    assert cancelled.returncode == 0 and "had lost its folder" in cancelled.stderr
    assert arena.rows("SELECT state, outcome, steps_done, epoch FROM runs") == [("finished", "cancelled", 3, epoch + 1)]
    assert arena.rows("SELECT outcome FROM steps ORDER BY position") == [("succeeded",), ("cancelled",), ("skipped",)]
    assert arena.rows("SELECT DISTINCT state FROM attempts") == [("finished",)]
    assert arena.rows("SELECT count(*) FROM wishes WHERE taken_at IS NULL") == [(0,)]
    assert arena.command("resume").returncode == 0, "nothing is left of it"
    assert arena.command("status", "job").returncode == 0


def test_a_run_that_cannot_go_on_is_said_to_cron_once_a_day(arena: Arena) -> None:
    interrupted(arena)
    (folder(arena) / "env.json").unlink()
    first, second = arena.command("resume"), arena.command("resume")
    assert first.returncode == second.returncode == 1
    assert "--env-here" in first.stderr and f"job/{arena.run_id} did not finish" in first.stderr
    assert second.stderr == "", "the minute after"
    tick = arena.command("run", "--no-tick", str(arena.root / "job.yaml"))
    assert tick.returncode == 0, "it is in nobody's way"


def test_cancel_waits_for_nothing_where_the_folder_is_gone(arena: Arena) -> None:
    gate = arena.gate("gate")
    arena.start("run", str(arena.job("job", f"steps: [{{run: '{gate.shell}'}}]\n")))
    gate.reached()
    arena.kill_everything()
    shutil.rmtree(folder(arena))
    assert arena.command("cancel", "job", "--wait").returncode == 0
    assert arena.status("job")["outcome"] == "cancelled"


# --- cancels ---


def test_a_cancel_of_before_the_end_does_not_reach_the_run_reopened(arena: Arena) -> None:
    interrupted(arena, extra="max_resumes: 0\n")
    arena.command("cancel", "job")
    assert arena.status("job")["state"] == "finished"
    assert arena.rows("SELECT count(*) FROM wishes WHERE taken_at IS NULL") == [(0,)]
    assert arena.command("resume", "job").returncode == 0
    assert arena.status("job")["outcome"] == "succeeded"


# --- --from ---


def test_from_takes_files_and_leaves_what_is_no_file(arena: Arena) -> None:
    job = arena.job(
        "job",
        "steps:\n- id: a\n  run: 'cd $AGENTRUN_RUN_DIR; echo 1 > kept; mkdir deep; mkfifo deep/pipe; ln -s kept link'\n"
        "- {id: b, run: 'cat $AGENTRUN_RUN_DIR/kept >> $ARENA/ledger; test -e $ARENA/mended'}\n",
    )
    assert arena.command("run", str(job)).returncode == 1
    first = folder(arena)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(first / "scratch")
        listener.bind("socket")
        os.chdir("/")
    (arena.root / "mended").touch()
    done = arena.command("resume", "job", "--from", "b")
    assert (done.returncode, done.stderr) == (0, "")
    assert arena.lines() == ["1", "1"]
    scratch = folder(arena) / "scratch"
    assert sorted(path.name for path in scratch.iterdir()) == ["deep", "kept", "link"]
    assert list((scratch / "deep").iterdir()) == [] and os.readlink(scratch / "link") == "kept"
    assert stat.S_ISFIFO(os.stat(first / "scratch" / "deep" / "pipe").st_mode)


def test_from_leaves_no_run_behind_where_the_files_cannot_be_copied(arena: Arena) -> None:
    job = arena.job("job", "steps: [{id: a, run: 'echo 1 > $AGENTRUN_RUN_DIR/kept'}, {id: b, run: 'false'}]\n")
    assert arena.command("run", str(job)).returncode == 1
    name = "n" * 250  # a copy into a folder of a longer path than the system takes: nothing else stops root
    deep = folder(arena) / "scratch"
    shallow = os.open(deep, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=shallow)
        below = os.open(name, os.O_RDONLY, dir_fd=shallow)
        os.close(shallow)
        shallow = below
    os.close(shallow)
    failed = arena.command("resume", "job", "--from", "b")
    assert failed.returncode == 73, failed.stderr
    assert "Traceback" not in failed.stderr and "cannot copy" in failed.stderr
    assert arena.rows("SELECT count(*) FROM runs") == [(1,)]
    assert len(list((arena.home / "runs").iterdir())) == 1
    shutil.rmtree(deep, ignore_errors=True)


# --- --spec ---


def test_a_step_that_comes_back_is_numbered_on(arena: Arena) -> None:
    run = f"{NOTE}; echo from=$AGENTRUN_ATTEMPT > $AGENTRUN_OUTPUT; test -e $ARENA/ok"
    a, b = (f"- {{id: {name}, run: '{run}{name}'}}\n" for name in "ab")
    head = "name: job\nsteps:\n"
    job = arena.job("job", head + a + b)
    assert arena.command("run", str(job)).returncode == 1
    without = arena.job("without", head + b)
    assert arena.command("resume", "job", "--spec", str(without), "--accept-changes").returncode == 1
    shown = arena.status("job")
    assert ([step["id"] for step in shown["steps"]], shown["steps_done"], shown["steps_total"]) == (["b"], 1, 1)
    for name in "ab":
        (arena.root / f"ok{name}").touch()
    back = arena.command("resume", "job", "--spec", str(job), "--accept-changes")
    assert back.returncode == 0, back.stderr
    assert arena.lines() == ["a 1", "b 1", "a 2", "b 2"]
    assert [step["outputs"]["from"] for step in arena.status("job")["steps"]] == ["2", "2"]


# --- what is said ---


def test_a_file_with_carriage_returns_has_not_changed(arena: Arena) -> None:
    job = arena.root / "job.yaml"
    job.write_bytes(b"steps:\r\n- {id: a, run: 'test -e $ARENA/mended'}\r\n")
    assert arena.command("run", str(job)).returncode == 1
    again = arena.command("resume", "job")
    assert again.returncode == 1 and "has changed" not in again.stderr
    job.unlink()
    gone = arena.command("resume", "job")
    assert f"{job} is gone" in gone.stderr and "has changed" not in gone.stderr


def test_data_that_steps_write_is_no_program_that_changed(arena: Arena) -> None:
    for name, text in {"data.txt": "", "helper.sh": "true\n", "tool": "#!/bin/sh\ntrue\n", "in.csv": "1\n"}.items():
        (arena.root / name).write_text(text)
    (arena.root / "tool").chmod(0o755)
    run = "date >> data.txt; date >> ./data.txt; cat in.csv >/dev/null; sh helper.sh; ./tool; false"
    assert arena.command("run", str(arena.job("job", f"steps: [{{id: a, run: '{run}'}}]\n"))).returncode == 1
    (arena.root / "in.csv").write_text("2\n")
    assert " has changed" not in arena.command("resume", "job").stderr
    (arena.root / "helper.sh").write_text("true # now\n")
    (arena.root / "tool").write_text("#!/bin/sh\n")
    told = [line.split()[1] for line in arena.command("resume", "job").stderr.splitlines() if " has changed" in line]
    assert told == [str(arena.root / "helper.sh"), str(arena.root / "tool")]


def test_resume_of_what_has_succeeded_shows_it_and_says_what_did_nothing(arena: Arena) -> None:
    job = arena.job("job", "steps: [{id: a, run: 'true'}]\n")
    assert arena.command("run", str(job)).returncode == 0
    again = arena.command("resume", "job", "--json", "--force", "--spec", str(job))
    assert again.returncode == 0
    assert json.loads(again.stdout)["outcome"] == "succeeded"
    assert "has succeeded already: --spec, --force did nothing" in again.stderr


@pytest.mark.parametrize(
    ("policy", "fates"),
    [
        ("rerun", {"a": "reuse", "b": "run", "c": "run", "d": "run", "h": "decide"}),
        ("skip", {"a": "reuse", "b": "skip", "c": "run", "d": "run", "h": "decide"}),
        ("fail", {"a": "reuse", "b": "fail", "c": "skip", "d": "skip", "h": "decide"}),
        ("fail, continue_on_error: true", {"a": "reuse", "b": "fail", "c": "run", "d": "run", "h": "decide"}),
    ],
)
def test_the_plan_follows_what_becomes_of_an_interrupted_step(arena: Arena, policy: str, fates: dict[str, str]) -> None:
    gate = arena.gate("gate")
    job = arena.job(
        "job",
        f"steps:\n- {{id: a, run: 'true'}}\n- {{id: b, run: '{gate.shell}', on_interrupt: {policy}}}\n"
        f"- {{id: d, run: 'true', needs: [c]}}\n- {{id: c, run: '{NOTE}', needs: [b]}}\n"
        f"- {{id: h, run: 'true', when: always}}\n",
    )
    arena.start("run", str(job))
    gate.reached()
    arena.kill_everything()
    before = (arena.home / "agentrun.db").read_bytes()
    shown = arena.command("resume", "job", "--plan")
    assert {line.split()[2]: line.split()[1] for line in shown.stdout.splitlines()[:-1]} == fates
    assert (arena.home / "agentrun.db").read_bytes() == before
    as_json = json.loads(arena.command("resume", "job", "--plan", "--json").stdout)
    assert (as_json["schema"], as_json["run"], as_json["from"]) == ("agentrun.resume_plan/1", arena.run_id, None)
    assert {step["id"]: step["fate"] for step in as_json["steps"]} == fates
    assert all(step["why"] for step in as_json["steps"])
    gate.open()
    arena.command("resume", "job")
    assert ("c 1" in arena.lines()) == (fates["c"] == "run"), "and so it came"


def test_an_environment_that_a_kill_left_behind_is_swept(arena: Arena) -> None:
    assert arena.command("run", str(arena.job("job", "steps: [{run: 'true'}]\n"))).returncode == 0
    kept = folder(arena) / "env.json"
    kept.write_text("{}")
    os.utime(folder(arena), (1, 1))
    assert arena.command("resume").returncode == 0
    assert not kept.exists()


def _without_the_powers_of_root() -> None:
    """Before exec: give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)); PR_CAPBSET_DROP is 24."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be put into a folder that it may not enter by itself")
def test_a_run_can_be_started_in_a_folder_that_its_user_may_not_enter(arena: Arena) -> None:
    closed = arena.root / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 65534, 65534)
    job = arena.job("job", "steps: [{id: a, run: 'pwd'}]\n")
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "agentrun", "run", str(job)],
        env=arena.env, cwd=closed, preexec_fn=_without_the_powers_of_root,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
