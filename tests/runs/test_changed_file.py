"""A job file that is changed after its run has failed: the report names the command that takes the new one."""

from __future__ import annotations

import shlex
import subprocess

from .place import LIMIT, MARK, Place

WRONG = f"steps:\n- {{id: a, run: '{MARK}'}}\n- {{id: b, run: '{MARK}; exit 3'}}\n"


def line(stderr: str, label: str) -> str:
    """The command that stands behind a label of the report."""
    [found] = [line.partition(": ")[2].strip() for line in stderr.splitlines() if line.startswith(label)]
    return found


def test_the_commands_of_the_report_go_on_with_the_mended_file(place: Place) -> None:
    ran = place.run(WRONG)
    after = line(ran.stderr, "after a change of the job file")
    file = place.job("job", WRONG.replace("exit 3", "true"))
    again = place.call("resume", place.run_id)
    assert again.status == 3, "with the file as it was"
    go_on = line(again.stderr, "go on")
    assert go_on == after and go_on.endswith(f"resume {place.run_id} --spec {file}")
    done = subprocess.run(
        shlex.split(f"env -i PATH=/usr/bin:/bin {go_on}"), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert place.marks() == ["a", "b", "b", "b"]


def test_a_run_again_from_a_step_says_that_it_takes_the_old_file(place: Place) -> None:
    assert place.run(WRONG.replace("exit 3", "true")).status == 0
    assert place.call("resume", "job", "--from", "b").stderr == ""
    file = place.job("job", WRONG)
    again = place.call("resume", "job", "--from", "b")
    assert (again.status, again.stderr) == (0,
        f"agentrun: {file} has changed since the run was created; going on with the file as it was"
        f" (`agentrun run {file}` begins with the new one)\n",
    )  # fmt: skip
