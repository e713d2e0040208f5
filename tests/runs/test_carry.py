"""Jobs whose steps are one script (`carry: shell`), run by the real command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..kill.arena import wait_gone
from .place import MARK, Place

JOB = f"""\
carry: shell
shell: [/bin/bash]
script: /opt/backup.sh
args: [--all, two words]
steps:
- id: setup
  line: 3
  run: |
    set -u
    TODAY=$(date +%F) N=1
    {MARK}; no-such-command
- id: use
  line: 9
  run: |
    {MARK}; echo "$TODAY" "$0" "$1" "$2" $LINENO "${{AGENTRUN_SHELL_PID:?}}" >> "$ARENA/said"
    [ "$N" = "${{WANTED-1}}" ] || exit "${{STATUS-0}}"
- id: last
  run: |
    {MARK}; N=$((N + 1)); echo "$N $AGENTRUN_STEP" >> "$ARENA/said"
"""


def files(place: Place) -> list[str]:
    return sorted(os.listdir(place.home / "runs" / place.run_id / "io"))


def test_a_step_goes_on_where_the_one_before_it_ended(place: Place) -> None:
    ran = place.run(JOB)
    assert (ran.status, place.marks()) == (0, ["setup", "use", "last"])
    first, second = place.read("said").splitlines()
    today, script, one, *_, line, pid = first.split()
    assert (script, one, line) == ("/opt/backup.sh", "--all", "9") and pid.isdigit() and len(today) == 10
    assert second == "2 last"
    log = place.call("logs", "--raw", "job").stdout
    assert log == "/opt/backup.sh: line 5: no-such-command: command not found\n"
    assert files(place) == [], "states hold what variables hold"


def test_exit_0_ends_the_script_and_it_has_succeeded(place: Place) -> None:
    ran = place.run(JOB, env={"WANTED": "2"})
    assert (ran.status, place.marks()) == (0, ["setup", "use"])
    assert ran.outcomes == {"setup": "succeeded", "use": "succeeded", "last": "skipped (done)"}
    shown = place.call("status", "job").stdout
    assert "the script had ended" in shown
    assert place.call("resume", "job").status == 0, "nothing is left to do"


def test_handlers_come_after_an_exit_too(place: Place) -> None:
    more = f"- {{id: always, when: always, run: '{MARK}'}}\n- {{id: failed, when: on_failure, run: '{MARK}'}}\n"
    ran = place.run(JOB + more, env={"WANTED": "2"})
    assert (ran.status, place.marks()) == (0, ["setup", "use", "always"])


def test_a_failed_script_goes_on_with_its_failed_statement(place: Place) -> None:
    ran = place.run(JOB, env={"WANTED": "2", "STATUS": "3"})
    assert (ran.status, place.marks()) == (3, ["setup", "use"])
    assert all((place.home / "runs" / place.run_id / "io" / name).stat().st_mode & 0o077 == 0 for name in files(place))
    again = place.call("resume", "job")
    assert (again.status, place.marks()) == (3, ["setup", "use", "use"])
    days = {line.split()[0] for line in place.read("said").splitlines()}
    pids = {line.split()[-1] for line in place.read("said").splitlines()}
    assert len(days) == len(pids) == 1


def test_do_it_again_from_a_step(place: Place) -> None:
    place.run(JOB, env={"WANTED": "2", "STATUS": "3"})
    again = place.call("resume", "job", "--from", "use")
    assert (again.status, place.marks()) == (3, ["setup", "use", "use"])
    first, second = place.read("said").splitlines()
    assert first.split()[-1] == second.split()[-1], "its variables are those of the first run"
    again = place.call("resume", "job", "--from", "setup")
    assert (again.status, place.marks()[3:]) == (0, ["setup", "use", "last"]), "all anew, in the environment of now"


def test_nothing_is_taken_over_of_a_run_that_has_succeeded(place: Place) -> None:
    place.run(JOB)
    again = place.call("resume", "job", "--from", "last")
    assert again.status == 2
    assert "not kept any more" in again.stderr and f"agentrun run {place.root}/job.yaml" in again.stderr


def test_the_folder_is_the_one_in_which_the_run_was_started(place: Place, tmp_path: Path) -> None:
    text = "carry: shell\nsteps:\n- run: pwd > \"$ARENA/a\"; cd /\n- run: pwd > \"$ARENA/b\"\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = place.job("job", text)
    assert place.call("run", str(file), cwd=elsewhere).status == 0
    assert (place.read("a"), place.read("b")) == (f"{elsewhere}\n", "/\n")
    assert place.run("working_dir: /usr\n" + text).status == 0
    assert place.read("a") == "/usr\n"


def test_what_a_script_makes_in_its_tmpdir_is_there_for_the_rest_of_it(place: Place) -> None:
    text = "carry: shell\nsteps:\n- run: F=$(mktemp); echo kept > \"$F\"\n- run: cp \"$F\" \"$ARENA/copy\"; rm \"$F\"\n"
    assert place.run(text, env={"TMPDIR": str(place.root)}).status == 0
    assert place.read("copy") == "kept\n"


def test_env_is_of_the_first_step_and_a_steps_own_of_those_after_it(place: Place) -> None:
    text = """\
carry: shell
env: {A: of the job, B: of the job}
steps:
- run: A=changed; unset B
- {run: 'env | grep -E "^[ABC]=" | sort > "$ARENA/second"', env: {C: of the step}}
- run: env | grep -E "^[ABC]=" | sort > "$ARENA/third"
"""
    assert place.run(text).status == 0
    assert place.read("second") == "A=changed\nC=of the step\n" == place.read("third")


def test_a_step_that_is_skipped_or_may_fail_is_passed_over(place: Place) -> None:
    text = """\
carry: shell
steps:
- run: A=1
- {run: A=2, if: 'false'}
- {run: A=3; exit 4, continue_on_error: true}
- run: echo $A > "$ARENA/said"
"""
    assert place.run(text).status == 0
    assert place.read("said") == "1\n"


@pytest.mark.parametrize("policy", ["on_interrupt: ask", "on_interrupt: verify, verify: 'true'", "on_interrupt: skip"])
def test_a_step_that_would_ask_after_an_interruption_hands_on_as_any_other(place: Place, policy: str) -> None:
    text = f"""\
carry: shell
steps:
- {{run: A=1, {policy}}}
- {{run: B=2, {policy}}}
- run: echo "$A $B" > "$ARENA/said"
"""
    assert place.run(text).status == 0
    assert place.read("said") == "1 2\n"


def test_instances_see_the_state_and_leave_none(place: Place) -> None:
    text = """\
carry: shell
steps:
- run: A=1
- {run: 'echo "$A $AGENTRUN_ITEM" >> "$ARENA/said"; A=2', foreach: [x, y], max_parallel: 1}
- run: echo $A >> "$ARENA/said"
"""
    assert place.run(text).status == 0
    assert place.read("said") == "1 x\n1 y\n1\n"


def test_a_state_that_is_gone_or_damaged_is_said(place: Place) -> None:
    place.run(JOB, env={"WANTED": "2", "STATUS": "3"})
    state = place.home / "runs" / place.run_id / "io" / "setup#1.state"
    whole = state.read_bytes()
    state.write_bytes(whole[:-5])
    again = place.call("resume", "job")
    assert again.status == 1 and "the state that step setup left is damaged: " in again.stderr
    state.unlink()
    again = place.call("resume", "job")
    assert again.status == 1 and "the state that step setup left is gone: " in again.stderr
    assert place.marks() == ["setup", "use"]


def test_a_state_that_cannot_be_written_fails_its_step(place: Place) -> None:
    """The step makes room for nothing: its own state file is a device that is full."""
    text = f"""\
carry: shell
steps:
- run: |
    {MARK}
    rm "$AGENTRUN_RUN_DIR"/../io/step-1#1.state
    ln -s /dev/full "$AGENTRUN_RUN_DIR"/../io/step-1#1.state
- run: {MARK}
"""
    ran = place.run(text)
    assert (ran.status, place.marks()) == (74, ["step-1"])


@pytest.mark.parametrize("shell", ["[/bin/sh]", "[/bin/bash]"])
def test_messages_in_the_middle_of_much_output(place: Place, shell: str) -> None:
    text = f"""\
carry: shell
shell: {shell}
script: /opt/much.sh
steps:
- run: i=0; while [ $i -lt 3000 ]; do no-such-command; echo /var /opt /; i=$((i + 1)); done
"""
    assert place.run(text).status == 0
    lines = place.call("logs", "--raw", "job").stdout.splitlines()
    assert len(lines) == 6000
    assert set(lines[1::2]) == {"/var /opt /"}
    [message] = set(lines[::2])
    assert message.startswith("/opt/much.sh: ") and message.endswith("not found")


def test_a_lock_that_holds_a_pid_is_somebodys_until_the_end(place: Place) -> None:
    place.run(
        f"""
carry: shell
steps:
- run: |
    {MARK}; echo $AGENTRUN_SHELL_PID > "$ARENA/lock"
- run: |
    {MARK}; kill -0 "$(cat "$ARENA/lock")" && echo alive >> "$ARENA/said"
- run: |
    {MARK}; [ "$AGENTRUN_SHELL_PID" = "$(cat "$ARENA/lock")" ] && echo same >> "$ARENA/said"
"""
    )
    assert place.read("said") == "alive\nsame\n"
    wait_gone(int(place.read("lock")))  # the run is over, and what held it is just ending


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_variables_that_no_shell_takes_from_its_environment(place: Place, shell: str) -> None:
    place.run(
        f"""
carry: shell
shell: [{shell}]
env: {{IFS: ':', WORDS: 'a:b c'}}
steps:
- run: |
    {MARK}; set -- $WORDS; echo $# >> "$ARENA/said"
- run: |
    {MARK}; set -- $WORDS; echo $# >> "$ARENA/said"
"""
    )
    assert place.read("said") == "2\n2\n"
