"""Child runs: what goes in and comes out, how they end with their parent, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..kill.arena import LIMIT
from ..kill.test_instances import wait_for
from .place import MARK, Place, Ran
from .test_instances import error_of, noted, outcomes

NOTE = 'echo "$AGENTRUN_JOB/$AGENTRUN_STEP $AGENTRUN_ATTEMPT" >> "$ARENA/ledger"'
PARENT = f"""
steps:
- {{id: before, run: '{NOTE}'}}
- {{id: c, job: child.yaml}}
- {{id: after, run: '{NOTE}'}}
"""
CHILD = f"""
steps:
- {{id: a, run: '{NOTE}'}}
- {{id: b, run: '{NOTE}; test -e $ARENA/mended || exit 9'}}
- {{id: tidy, when: always, run: '{NOTE}'}}
"""


def runs(place: Place) -> list[tuple[Any, ...]]:
    return place.rows("SELECT job, outcome, caller_instance FROM runs ORDER BY id")


def failed(place: Place) -> Ran:
    place.job("child", CHILD)
    ran = place.run(PARENT)
    assert ran.status == 9, ran.stderr
    assert noted(place) == ["child/a 1", "child/b 1", "child/tidy 1", "job/before 1"]
    return ran


def test_params_go_in_by_with_and_outputs_come_up(place: Place) -> None:
    place.job("child", """
params: {who: {}, list: {default: []}, n: {default: 7}}
steps:
- id: one
  python: 'def main(**given): return {"given": given, "x": 1}'
  with: {who: '${{ params.who }}', list: '${{ params.list }}', n: '${{ params.n }}'}
- {id: two, run: 'echo x=2 >> $AGENTRUN_OUTPUT'}
- {id: fan, foreach: [p, q], run: 'echo f=$AGENTRUN_ITEM >> $AGENTRUN_OUTPUT'}
- {id: tidy, when: always, run: 'echo x=3 >> $AGENTRUN_OUTPUT'}
""")  # fmt: skip
    ran = place.run("""
steps:
- {id: c, job: child.yaml, with: {who: {name: [a, null]}, list: [1, 2]}}
- id: get
  python: 'def main(**given): return given'
  with: {given: '${{ steps.c.outputs.given }}', f: '${{ steps.c.outputs.f }}', x: '${{ steps.c.outputs.x }}'}
""")
    assert ran.status == 0, ran.stderr
    given = {"who": {"name": ["a", None]}, "list": [1, 2], "n": 7}
    assert ran.outputs["get"] == {"given": given, "f": ["p", "q"], "x": "2"}
    assert runs(place) == [("job", "succeeded", None), ("child", "succeeded", "c")]


def test_declared_outputs_that_a_child_does_not_hand_up_fail_its_step(place: Place) -> None:
    place.job("child", "steps: [{run: 'true'}]")
    ran = place.run("steps: [{id: c, job: child.yaml, outputs: {x: string}}]")
    assert ran.status == 1 and outcomes(place, "job")["c"] == "failed (outputs)"


def test_a_child_that_fails_fails_its_step_with_its_own_status(place: Place) -> None:
    ran = failed(place)
    assert outcomes(place, "job") == {"before": "succeeded", "c": "failed (child)", "after": "skipped (upstream)"}
    child = place.rows("SELECT id FROM runs WHERE job = 'child'")[0][0]
    assert child in error_of(place, "c") and "step 2 of 3, b: exit status 9" in error_of(place, "c")
    assert "step 2 of 3, c" in ran.run["error"]


def test_a_resume_of_the_parent_goes_on_from_the_failed_step_of_the_child(place: Place) -> None:
    failed(place)
    assert place.call("resume", "job").status == 9
    assert noted(place) == ["child/b 2", "child/tidy 2"]
    place.file("mended", "")
    done = place.call("resume", "job")
    assert (done.status, noted(place)) == (0, ["child/b 3", "child/tidy 3", "job/after 1"])
    assert runs(place) == [("job", "succeeded", None), ("child", "succeeded", "c")], "no other run"


def test_a_retry_of_the_step_goes_on_with_the_same_child(place: Place) -> None:
    place.job("child", f"""
steps:
- {{id: a, run: '{NOTE}'}}
- {{id: b, run: '{NOTE}; test $AGENTRUN_ATTEMPT = 3'}}
""")  # fmt: skip
    ran = place.run("steps: [{id: c, job: child.yaml, retry: {max_attempts: 3, interval: 0s}}]")
    assert ran.status == 0, ran.stderr
    assert noted(place) == ["child/a 1", "child/b 1", "child/b 2", "child/b 3"]
    assert ran.step("c")["attempts"] == 3


def test_from_a_step_with_a_job_is_another_child(place: Place) -> None:
    place.job("child", f"steps: [{{id: a, run: '{NOTE}; echo x=1 >> $AGENTRUN_OUTPUT'}}]")
    assert place.run(PARENT).status == 0
    noted(place)
    assert place.call("resume", "job", "--from", "after").status == 0
    assert noted(place) == ["job/after 1"]
    assert place.call("resume", "job~1", "--from", "c").status == 0
    assert noted(place) == ["child/a 1", "job/after 1"]
    assert [job for job, *_ in runs(place)].count("child") == 2


def test_each_item_may_be_a_child(place: Place) -> None:
    place.job("child", f"""
params: {{n: {{}}}}
steps:
- {{id: a, run: '{NOTE}; echo n=$N >> $AGENTRUN_OUTPUT', env: {{N: '${{{{ params.n }}}}'}}}}
- {{id: b, run: '{NOTE}; test $N != y || test -e $ARENA/mended', env: {{N: '${{{{ params.n }}}}'}}}}
""")  # fmt: skip
    job = """
steps:
- {id: c, job: child.yaml, foreach: [x, y, z], with: {n: '${{ item }}'}, max_parallel: 2}
- {id: get, python: 'def main(**given): return given', with: {n: '${{ steps.c.outputs.n }}'}}
"""
    assert place.run(job).status == 1
    assert noted(place) == ["child/a 1"] * 3 + ["child/b 1"] * 3
    place.file("mended", "")
    ran = place.call("resume", "job", "--json")
    assert ran.status == 0 and noted(place) == ["child/b 2"]
    assert ran.step("get")["outputs"] == {"n": ["x", "y", "z"]}
    assert sorted(runs(place)[1:]) == [("child", "succeeded", f"c[{n}]") for n in range(3)]


def test_rounds_may_be_children_and_children_have_children(place: Place) -> None:
    place.job("grandchild", f"steps: [{{id: g, run: '{NOTE}; echo n=$((${{OUT_n:-0}}+1)) >> $AGENTRUN_OUTPUT'}}]")
    place.job("child", "steps: [{id: c, job: grandchild.yaml}]")
    ran = place.run("steps: [{id: r, job: child.yaml, repeat: {until: 'test $AGENTRUN_STEP = \"r[2]\"', max: 3}}]")
    assert ran.status == 0, ran.stderr
    assert noted(place) == ["grandchild/g 1", "grandchild/g 1"]
    assert ran.outputs["r"] == {"n": "2"}, "what a round is told reaches the runs that it calls"
    assert [(job, caller) for job, _, caller in runs(place)] == [
        ("job", None), ("child", "r[1]"), ("grandchild", "c"), ("child", "r[2]"), ("grandchild", "c"),
    ]  # fmt: skip


def test_cancel_of_the_parent_cancels_the_child_and_a_second_one_ends_what_tidies_up(place: Place) -> None:
    work, tidy = place.gate("work"), place.gate("tidy")
    place.job("child", f"""
steps:
- {{id: a, run: '{work.shell}', grace: 100ms}}
- {{id: tidy, when: always, run: '{NOTE}; {tidy.shell}; {NOTE}', grace: 100ms}}
""")  # fmt: skip
    run = place.start("run", str(place.job("job", PARENT)))
    work.reached()
    assert place.call("cancel", "job").status == 0
    tidy.reached()
    assert place.call("cancel", "job").status == 0
    assert run.wait(LIMIT) == 1
    assert outcomes(place, "child") == {"a": "cancelled (cancel)", "tidy": "cancelled (cancel)"}
    assert outcomes(place, "job")["c"] == "cancelled (cancel)"
    assert runs(place) == [("job", "cancelled", None), ("child", "cancelled", "c")]
    assert noted(place) == ["child/tidy 1", "job/before 1"]


@pytest.mark.parametrize(("key", "reason"), [("deadline: 1500ms", "deadline"), ("budget: {tokens: 10}", "budget")])
def test_the_end_of_the_parent_is_that_of_the_child(place: Place, key: str, reason: str) -> None:
    place.gate("never")
    usage = """printf '{"gen_ai.usage.input_tokens": 11}\\n' >> $AGENTRUN_USAGE; """
    place.job("child", f"""
steps:
- id: a
  grace: 100ms
  run: |
    {usage if reason == "budget" else ""}read _ < $ARENA/never.go
- {{id: tidy, when: always, run: '{NOTE}'}}
""")  # fmt: skip
    ran = place.run(f"{key}\nsteps:\n- {{id: c, job: child.yaml}}\n- {{id: alarm, when: on_failure, run: '{NOTE}'}}\n")
    outcome = {"deadline": "timed_out", "budget": "over_budget"}[reason]
    assert (ran.status, ran.run["outcome"]) == ({"deadline": 124, "budget": 125}[reason], outcome), ran.stderr
    assert noted(place) == ["child/tidy 1", "job/alarm 1"]
    assert outcomes(place, "job")["c"] == f"{outcome} ({reason})"
    assert runs(place)[1][:2] == ("child", "cancelled")


def test_the_timeout_of_its_step_interrupts_the_child_and_a_retry_goes_on_with_it(place: Place) -> None:
    place.gate("never")
    place.job("child", f"""
steps:
- {{id: a, run: '{NOTE}'}}
- {{id: b, grace: 100ms, run: '{NOTE}; test $AGENTRUN_ATTEMPT = 2 || read _ < $ARENA/never.go'}}
""")  # fmt: skip
    ran = place.run("steps: [{id: c, job: child.yaml, timeout: 3s, retry: {max_attempts: 2, interval: 0s}}]")
    assert ran.status == 0, ran.stderr
    assert noted(place) == ["child/a 1", "child/b 1", "child/b 2"]
    assert [one["outcome"] for one in ran.step("c")["history"]] == ["timed_out", "succeeded"]


def test_a_child_whose_step_timed_out_for_good_is_ended_in_the_record(place: Place) -> None:
    place.gate("never")
    place.job("child", "steps: [{id: b, grace: 100ms, run: 'read _ < $ARENA/never.go'}]")
    ran = place.run("steps: [{id: c, job: child.yaml, timeout: 1500ms}]")
    assert ran.status == 124
    (child,) = place.rows("SELECT state, outcome, error FROM runs WHERE job = 'child'")
    assert child[0] == "finished" and child[1] != "succeeded"
    assert place.call("resume").status == 0, "nothing is left to be resumed"


# --- what is refused ---


def test_a_job_that_leads_back_to_itself_is_refused(place: Place) -> None:
    assert place.run("steps: [{id: c, job: job.yaml}]").status == 65
    place.job("other", "steps: [{id: c, job: job.yaml}]")
    ran = place.run("steps: [{id: c, job: other.yaml}]")
    assert ran.status == 65 and "cannot run itself" in ran.stderr


def test_a_child_that_is_changed_to_lead_back_is_refused_as_it_runs(place: Place) -> None:
    place.job("child", "steps: [{run: 'true'}]")
    ran = place.run("""
steps:
- run: |
    echo 'steps: [{job: job.yaml}]' > $ARENA/child.yaml
- {id: c, job: child.yaml}
""")
    assert ran.status not in (0, 75), ran.stderr
    assert len(runs(place)) <= 2 and "itself" in ran.stderr + error_of(place, "c"), ran.stderr
    place.job("child", "steps: [{run: 'true'}]")
    assert place.call("resume", "job").status != 0, "its run goes on with the file as it was"
    again = place.call("resume", "job", "--from", "c")
    assert again.status == 0, again.stderr


def test_a_child_file_that_is_gone_or_wrong_by_now_fails_its_step(place: Place) -> None:
    good = f"steps: [{{id: a, run: '{NOTE}'}}]"
    gone, wrong = place.job("gone", good), place.job("wrong", good)
    ran = place.run(f"""
max_parallel: 1
steps:
- run: rm {gone}; echo nonsense > {wrong}
- {{id: g, job: gone.yaml}}
- {{id: w, job: wrong.yaml, needs: [step-1]}}
""")
    assert ran.status == 66, ran.stderr
    assert "gone.yaml" in ran.stderr and "Traceback" not in ran.stderr
    assert place.rows("SELECT exit_code FROM steps WHERE instance = 'w'") == [(65,)]
    place.job("gone", good)
    place.job("wrong", good)
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["gone/a 1", "wrong/a 1"]


def test_a_child_that_is_changed_meanwhile_goes_on_as_it_began(place: Place) -> None:
    failed(place)
    place.file("mended", "")
    place.job("child", f"steps: [{{id: other, run: '{NOTE}'}}]")
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["child/b 2", "child/tidy 2", "job/after 1"]


def test_params_that_do_not_fit_any_more_fail_the_step(place: Place) -> None:
    was = {"no": "{}", "one": "{n: {}}", "two": "{n: {}}"}
    now = {"no": "{n: {}}", "one": "{}", "two": "{n: {}, m: {}}"}
    for name, params in was.items():
        place.job(name, f"params: {params}\nsteps: [{{run: 'true'}}]")
    for name, params in now.items():
        place.file(f"{name}.new", f"params: {params}\nsteps: [{{run: 'true'}}]")
    ran = place.run("""
steps:
- {id: change, run: 'for job in no one two; do mv $ARENA/$job.new $ARENA/$job.yaml; done'}
- {id: a, job: no.yaml}
- {id: b, job: one.yaml, needs: [change], with: {n: 1}}
- {id: c, job: two.yaml, needs: [change], with: {n: 1}}
""")
    assert ran.status == 2 and "Traceback" not in ran.stderr, ran.stderr
    assert outcomes(place) == {"change": "succeeded", **dict.fromkeys("abc", "failed (exit)")}
    assert "needs a value for n" in place.call("logs", "job", "--step", "a", "--raw").stdout


# --- beside others ---


def test_children_are_no_runs_of_their_own_for_status_and_resume(place: Place) -> None:
    gate = place.gate("gate")
    place.job("child", f"steps: [{{id: a, run: '{NOTE}; {gate.shell}'}}]")
    run = place.start("run", str(place.job("job", PARENT)))
    gate.reached()
    listed = json.loads(place.call("status", "--json").stdout)
    assert [(one["job"], one["interrupted"]) for one in listed] == [("job", False)]
    gate.open()
    assert run.wait(LIMIT) == 0
    assert [one["job"] for one in json.loads(place.call("status", "--json").stdout)] == ["job"]


def test_a_child_is_not_resumed_or_run_on_its_own_while_its_parent_has_it(place: Place) -> None:
    gate = place.gate("gate")
    place.job("child", f"steps: [{{id: a, run: '{NOTE}; {gate.shell}'}}]")
    run = place.start("run", str(place.job("job", PARENT)))
    gate.reached()
    assert place.call("resume", "child").status == 75
    gate.open()
    assert run.wait(LIMIT) == 0
    alone = place.call("resume", "child")
    assert alone.status == 2 and "goes on with it" in alone.stderr
    assert noted(place) == ["child/a 1", "job/after 1", "job/before 1"]


def test_a_child_has_its_own_environment_folder_and_key(place: Place) -> None:
    place.job("child", f"""
env: {{MINE: '${{{{ run.id }}}}'}}
steps:
- id: a
  run: '{MARK}; echo "id=$AGENTRUN_RUN_ID dir=$AGENTRUN_RUN_DIR out=${{FROM_PARENT:-none}}" >> $ARENA/seen'
""")  # fmt: skip
    ran = place.run("steps: [{id: c, job: child.yaml, env: {FROM_PARENT: 'yes'}}]")
    assert ran.status == 0, ran.stderr
    (child,) = place.rows("SELECT id FROM runs WHERE job = 'child'")
    assert place.read("seen") == f"id={child[0]} dir={place.home}/runs/{child[0]}/scratch out=yes\n"
    wait_for(lambda: not place.step_processes())
