"""The same job once more: resume, with what it keeps and what it runs; and what a resume refuses."""

from __future__ import annotations

import pytest

from ..kill.arena import LIMIT
from .place import MARK, Place, Ran

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT $AGENTRUN_IDEMPOTENCY_KEY" >> "$ARENA/ledger"'
JOB = f"""
max_parallel: 1
steps:
- {{id: a, run: '{NOTE}; echo n=1 >> "$AGENTRUN_OUTPUT"; touch "$AGENTRUN_RUN_DIR/of_a"'}}
- {{id: b, run: '{NOTE}; test -e "$ARENA/mended"'}}
- {{id: c, run: '{NOTE}; test -e "$AGENTRUN_RUN_DIR/of_a"; test "$N" = 1', env: {{N: '${{{{ steps.a.outputs.n }}}}'}}}}
- {{id: aside, needs: [], run: '{NOTE}'}}
- {{id: no, needs: [], if: exit 1, run: '{NOTE}'}}
- {{id: covered, needs: [], run: '{NOTE}; exit 1', continue_on_error: true}}
- {{id: alarm, when: on_failure, run: '{NOTE}'}}
- {{id: tidy, when: always, run: '{NOTE}'}}
"""


def noted(place: Place) -> list[str]:
    """`step attempt` of all that ran since the last call."""
    lines = place.marks()
    place.ledger.write_text("")
    return [" ".join(line.split()[:2]) for line in lines]


def failed(place: Place) -> Ran:
    ran = place.run(JOB)
    assert ran.status == 1
    assert noted(place) == ["a 1", "b 1", "aside 1", "covered 1", "alarm 1", "tidy 1"]
    return ran


def test_a_resume_runs_only_what_is_needed_in_the_same_run_with_the_same_keys(place: Place) -> None:
    first = failed(place)
    again = place.call("resume", "job", "--json")
    assert again.status == 1, "nothing was mended"
    assert noted(place) == ["b 2", "alarm 2", "tidy 2"]
    place.file("mended", "")
    done = place.call("resume", first.run["id"], "--json")
    assert (done.status, done.stderr) == (0, "")
    assert noted(place) == ["b 3", "c 1", "tidy 3"]
    assert done.run["id"] == again.run["id"] == first.run["id"]
    assert {done.step(name)["idempotency_key"] for name in "b"} == {first.step("b")["idempotency_key"]}
    assert done.outcomes == {
        "a": "succeeded", "b": "succeeded", "c": "succeeded", "aside": "succeeded", "no": "skipped (if)",
        "covered": "failed", "alarm": "skipped (no_failure)", "tidy": "succeeded",
    }  # fmt: skip
    assert (done.run["outcome"], done.run["error"], done.run["exit_code"]) == ("succeeded", None, None)
    assert place.rows("SELECT count(*) FROM runs") == [(1,)]


def test_a_run_that_has_succeeded_is_left_alone(place: Place) -> None:
    assert place.run(f"steps:\n- {{id: a, run: '{NOTE}'}}\n").status == 0
    before = place.status("job")
    again = place.call("resume", "job")
    assert (again.status, again.stdout) == (0, "") and "succeeded already" in again.stderr
    assert noted(place) == ["a 1"] and place.status("job") == before


def test_a_fresh_deadline_and_fresh_attempts_for_a_resumed_run(place: Place) -> None:
    job = f"""
deadline: 1500ms
steps:
- id: a
  run: '{NOTE}; test -e "$ARENA/mended" || read _ < "$ARENA/never.go"'
  timeout: 600ms
  grace: 0s
  retry: {{max_attempts: 2, interval: 0s}}
- {{id: b, run: '{NOTE}'}}
"""
    place.gate("never")
    ran = place.run(job)
    assert (ran.status, ran.step("a")["attempts"]) == (124, 2)
    assert place.call("resume", "job").status == 124
    place.file("mended", "")
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["a 1", "a 2", "a 3", "a 4", "a 5", "b 1"]


def test_from_a_step_is_a_new_run_with_new_keys_that_keeps_what_came_before(place: Place) -> None:
    first = failed(place)
    place.file("mended", "")
    done = place.call("resume", "job", "--from", "b", "--json")
    assert (done.status, done.stderr) == (0, "")
    assert noted(place) == ["b 1", "c 1", "tidy 1"], "c found the folder and the outputs that a left"
    assert done.run["id"] != first.run["id"] and done.run["parent"] == first.run["id"]
    assert done.step("b")["idempotency_key"] != first.step("b")["idempotency_key"]
    assert done.step("a")["outputs"] == {"n": "1"} and done.step("a")["attempts"] == 0
    assert place.status(first.run["id"])["outcome"] == "failed", "the first run stays as it was"


def test_from_works_on_a_run_that_succeeded_too(place: Place) -> None:
    place.file("mended", "")
    assert place.run(JOB).status == 0
    noted(place)
    assert place.call("resume", "job", "--from", "c").status == 0
    assert noted(place) == ["c 1", "tidy 1"]
    refused = place.call("resume", "job", "--from", "absent")
    assert refused.status == 2 and "absent" in refused.stderr and "aside" in refused.stderr


def test_plan_shows_what_would_happen_and_does_nothing(place: Place) -> None:
    failed(place)
    before = place.status("job"), place.rows("SELECT count(*) FROM events")
    for options in ([], ["--from", "b"]):
        shown = place.call("resume", "job", "--plan", *options)
        assert shown.status == 0
        rows = [line.split() for line in shown.stdout.splitlines() if line[:1] in "=>?"]
        fates = {step: fate for _, fate, step, *_ in rows}
        assert fates == {
            "a": "reuse", "b": "run", "c": "run", "aside": "reuse", "no": "reuse", "covered": "reuse",
            "alarm": "decide", "tidy": "decide",
        }, shown.stdout  # fmt: skip
    assert noted(place) == []
    assert (place.status("job"), place.rows("SELECT count(*) FROM events")) == before


def test_spec_adopts_a_changed_file_if_what_is_done_is_still_there(place: Place) -> None:
    failed(place)
    mended = JOB.replace('test -e "$ARENA/mended"', "true")
    mended = mended.replace("- {id: c,", f"- {{id: new, run: '{NOTE}'}}\n- {{id: c,")
    file = str(place.job("mended", "name: job\n" + mended))
    done = place.call("resume", "job", "--spec", file, "--json")
    assert (done.status, done.stderr) == (0, "")
    assert noted(place) == ["b 2", "new 1", "c 1", "tidy 2"]
    assert [step["id"] for step in done.run["steps"]][:4] == ["a", "b", "new", "c"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("echo n=1", "echo n=2", ["step a", "run"]),
        ("id: aside", "id: elsewhere", ["step aside", "not in the new file"]),
        ("if: exit 1", "if: exit 0", ["step no", "if"]),
    ],
)
def test_spec_refuses_another_definition_of_what_is_done_unless_told_to(
    place: Place, old: str, new: str, words: list[str]
) -> None:
    failed(place)
    place.file("mended", "")
    file = str(place.job("other", "name: job\n" + JOB.replace(old, new)))
    before = place.status("job")
    refused = place.call("resume", "job", "--spec", file)
    assert (refused.status, refused.stdout) == (2, "")
    assert [word for word in [*words, "--accept-changes"] if word not in refused.stderr] == [], refused.stderr
    assert noted(place) == [] and place.status("job") == before
    accepted = place.call("resume", "job", "--spec", file, "--accept-changes")
    assert accepted.status == 0, accepted.stderr
    assert "b 2" in noted(place)


def test_a_resume_says_that_the_file_or_a_script_has_changed_and_goes_on_with_the_snapshot(place: Place) -> None:
    place.file("ask.sh", f"#!/bin/sh\n{MARK}\ntest -e \"$ARENA/mended\"\n", mode=0o755)
    assert place.run("steps:\n- {id: a, run: ./ask.sh}\n").status == 1
    place.job("job", "steps:\n- {id: a, run: 'false'}\n")
    place.file("ask.sh", f"#!/bin/sh\n{MARK}\n", mode=0o755)
    done = place.call("resume", "job")
    assert done.status == 0
    assert "job.yaml has changed" in done.stderr and "ask.sh has changed" in done.stderr
    (place.root / "job.yaml").unlink()
    assert place.call("resume", "job", "--from", "a").status == 0, "not even the file is needed"


def test_resume_without_a_run_takes_up_all_that_were_interrupted(place: Place) -> None:
    gates = [place.gate(f"gate{n}") for n in range(3)]
    ends = ("true", "true", "exit 5")
    for n, gate in enumerate(gates):
        job = place.job(f"job{n}", f"steps:\n- {{id: a, run: '{NOTE}'}}\n- {{id: b, run: '{gate.shell}; {ends[n]}'}}\n")
        place.start("run", str(job))
        gate.reached()
        place.kill_everything()
    assert len(noted(place)) == 3
    resume = place.start("resume")
    for gate in gates:  # all three at once
        gate.reached()
    for gate in gates:
        gate.open()
    _, stderr = resume.communicate(timeout=LIMIT)
    assert resume.returncode == 1
    assert [line for line in stderr.splitlines() if "did not succeed" in line and "job2/" in line], stderr
    assert "job0/" not in stderr and "job1/" not in stderr
    outcomes = dict(place.rows("SELECT job, outcome FROM runs"))
    assert outcomes == {"job0": "succeeded", "job1": "succeeded", "job2": "failed"}
    assert noted(place) == [], "no finished step ran again"
    assert place.call("resume")[:3] == (0, "", ""), "nothing is left"


def test_a_second_resume_says_who_is_at_work(place: Place) -> None:
    gate = place.gate("gate")
    run = place.start("run", str(place.job("job", f"steps:\n- {{id: a, run: '{gate.shell}'}}\n")))
    gate.reached()
    busy = place.call("resume", "job")
    assert busy.status == 75 and str(place.owner()) in busy.stderr
    assert place.call("resume")[:3] == (0, "", ""), "passed over in silence"
    assert place.run_id in place.call("resume", "-v").stderr
    gate.open()
    assert run.wait(LIMIT) == 0
