"""Which steps run, when, and beside which others."""

from __future__ import annotations

from .place import MARK, Place


def test_without_needs_a_step_follows_the_one_above_it(place: Place) -> None:
    ran = place.run("steps:\n" + "".join(f"- {{id: s{n}, run: '{MARK}'}}\n" for n in range(5)))
    assert (ran.status, ran.run["outcome"]) == (0, "succeeded")
    assert place.marks() == ["s0", "s1", "s2", "s3", "s4"]


def test_needs_may_name_later_steps_and_make_a_diamond(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: join, run: '{MARK}', needs: [left, right]}}
- {{id: left, run: '{MARK}', needs: [root]}}
- {{id: right, run: '{MARK}', needs: [root]}}
- {{id: root, run: '{MARK}', needs: []}}
- {{id: last, run: '{MARK}', needs: [join]}}
""")
    assert ran.status == 0
    marks = place.marks()
    assert (marks[0], sorted(marks[1:3]), marks[3:]) == ("root", ["left", "right"], ["join", "last"])


def test_as_many_steps_run_at_once_as_max_parallel_says_and_no_more(place: Place) -> None:
    gates = [place.gate(f"gate{n}") for n in range(4)]
    steps = "".join(f"- {{id: s{n}, needs: [], run: '{MARK}; {gates[n].shell}'}}\n" for n in range(4))
    run = place.start("run", str(place.job("wide", f"max_parallel: 3\nsteps:\n{steps}")))
    for gate in gates[:3]:
        gate.reached()
    assert sorted(place.marks()) == ["s0", "s1", "s2"]
    assert place.rows("SELECT instance FROM steps WHERE state = 'running' ORDER BY 1") == [("s0",), ("s1",), ("s2",)]
    gates[1].open()
    gates[3].reached()
    for n in (0, 2, 3):
        gates[n].open()
    assert run.wait() == 0


def test_with_one_at_a_time_no_two_steps_overlap(place: Place) -> None:
    step = 'echo "+ $AGENTRUN_STEP" >> "$ARENA/ledger"; echo "- $AGENTRUN_STEP" >> "$ARENA/ledger"'
    steps = "".join(f"- {{id: s{n}, needs: [], run: '{step}'}}\n" for n in range(6))
    assert place.run(f"max_parallel: 1\nsteps:\n{steps}").status == 0
    assert place.marks() == [f"{sign} s{n}" for n in range(6) for sign in "+-"]


def test_a_branch_that_does_not_depend_on_a_failure_goes_on(place: Place) -> None:
    ran = place.run(f"""
max_parallel: 1
steps:
- {{id: bad, run: exit 3, needs: []}}
- {{id: after, run: '{MARK}', needs: [bad]}}
- {{id: after2, run: '{MARK}', needs: [after]}}
- {{id: good, run: '{MARK}', needs: []}}
- {{id: good2, run: '{MARK}', needs: [good]}}
- {{id: both, run: '{MARK}', needs: [good2, after]}}
""")
    assert ran.status == 3, "the failing step's own status"
    assert place.marks() == ["good", "good2"]
    upstream = "skipped (upstream)"
    assert ran.outcomes == {
        "bad": "failed", "after": upstream, "after2": upstream, "good": "succeeded", "good2": "succeeded",
        "both": upstream,
    }  # fmt: skip
    assert (ran.run["outcome"], ran.run["exit_code"]) == ("failed", 3)
    assert "step 1 of 6, bad: exit status 3" in ran.run["error"]


def test_the_exit_status_is_that_of_the_first_step_that_failed(place: Place) -> None:
    ran = place.run("max_parallel: 1\nsteps:\n- {id: a, run: exit 4, needs: []}\n- {id: b, run: exit 5, needs: []}\n")
    assert (ran.status, ran.outcomes) == (4, {"a": "failed", "b": "failed"})


def test_a_step_that_a_signal_ended_lends_128_and_the_number(place: Place) -> None:
    ran = place.run("steps:\n- {id: a, run: kill -SEGV $$}\n")
    assert ran.status == 139
    assert (ran.step("a")["signal"], ran.step("a")["error"]) == (11, "ended by SIGSEGV")


def test_handlers_run_after_every_step_above_them_and_only_if_due(place: Place) -> None:
    steps = f"""
- {{id: work, run: 'WORK'}}
- {{id: alarm, when: on_failure, run: '{MARK}'}}
- {{id: tidy, when: always, run: '{MARK}'}}
"""
    ran = place.run("steps:" + steps.replace("WORK", "exit 7"))
    assert ran.status == 7, "a handler does not change how the run ends"
    assert ran.outcomes == {"work": "failed", "alarm": "succeeded", "tidy": "succeeded"}
    ran = place.run("steps:" + steps.replace("WORK", "true"))
    assert ran.status == 0
    assert ran.outcomes == {"work": "succeeded", "alarm": "skipped (no_failure)", "tidy": "succeeded"}
    assert sorted(place.marks()) == ["alarm", "tidy", "tidy"]


def test_a_handler_that_had_nothing_to_handle_satisfies_who_needs_it(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: work, run: 'true'}}
- {{id: alarm, when: on_failure, run: '{MARK}'}}
- {{id: next, run: '{MARK}', needs: [alarm]}}
""")
    assert (ran.status, place.marks()) == (0, ["next"])


def test_a_failure_taints_through_a_handler_that_succeeded(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: bad, run: exit 1}}
- {{id: tidy, when: always, run: '{MARK}', needs: [bad]}}
- {{id: work, run: '{MARK}', needs: [tidy]}}
- {{id: alarm, when: on_failure, run: '{MARK}', needs: [tidy]}}
- {{id: calm, when: on_failure, run: '{MARK}', needs: []}}
""")
    assert ran.status == 1
    assert ran.outcomes == {
        "bad": "failed", "tidy": "succeeded", "work": "skipped (upstream)", "alarm": "succeeded",
        "calm": "skipped (no_failure)",
    }  # fmt: skip
    assert place.marks() == ["tidy", "alarm"]


def test_a_handler_that_fails_fails_the_run(place: Place) -> None:
    ran = place.run("steps:\n- {id: work, run: 'true'}\n- {id: tidy, when: always, run: exit 9}\n")
    assert (ran.status, ran.run["outcome"]) == (9, "failed")


def test_if_0_goes_1_skips_and_anything_else_fails(place: Place) -> None:
    ran = place.run(f"""
max_parallel: 1
steps:
- {{id: go, if: 'test "$WHO" = me', env: {{WHO: me}}, run: '{MARK}', needs: []}}
- {{id: skip, if: 'exit 1', run: '{MARK}', needs: []}}
- {{id: after_skip, run: '{MARK}', needs: [skip]}}
- {{id: broken, if: 'echo cannot tell; exit 2', run: '{MARK}', needs: [], retry: {{max_attempts: 3}}}}
- {{id: killed, if: 'kill -KILL $$', run: '{MARK}', needs: []}}
- {{id: unknown, if: no-such-command-anywhere, run: '{MARK}', needs: []}}
- {{id: after_broken, run: '{MARK}', needs: [broken]}}
- {{id: covered, if: exit 2, run: '{MARK}', needs: [], continue_on_error: true}}
- {{id: after_covered, run: '{MARK}', needs: [covered]}}
""")
    assert ran.status == 2, "what the first broken `if` ended with"
    assert place.marks() == ["go", "after_skip", "after_covered"]
    assert ran.outcomes == {
        "go": "succeeded", "skip": "skipped (if)", "after_skip": "succeeded", "broken": "failed", "killed": "failed",
        "unknown": "failed", "after_broken": "skipped (upstream)", "covered": "failed", "after_covered": "succeeded",
    }  # fmt: skip
    assert [ran.step(name)["attempts"] for name in ("go", "skip", "broken")] == [1, 0, 0], "an `if` is no attempt"
    assert {ran.step(name)["reason"] for name in ("broken", "killed", "unknown", "covered")} == {"if_failed"}
    assert [ran.step(name)["exit_code"] for name in ("killed", "unknown")] == [137, 127]
    assert "cannot tell" in place.call("logs", "job", "--step", "broken", "--raw").stdout


def test_the_answer_of_an_if_is_asked_for_once_and_kept(place: Place) -> None:
    ask = 'echo asked >> "$ARENA/ledger"'
    job = f"""
steps:
- id: a
  if: '{ask}'
  run: '{MARK}; test -e "$ARENA/mended"'
  retry: {{max_attempts: 3, interval: 0s}}
"""
    assert place.run(job).status == 1
    place.file("mended", "")
    assert place.call("resume", "job").status == 0
    assert place.marks() == ["asked", "a", "a", "a", "a"]


def test_an_if_that_hangs_is_ended_at_the_timeout_of_its_step(place: Place) -> None:
    gate = place.gate("never")
    ran = place.run(f"steps:\n- {{id: a, if: '{gate.shell}', run: '{MARK}', timeout: 300ms, grace: 100ms}}\n")
    assert (ran.status, ran.outcomes, ran.step("a")["reason"]) == (124, {"a": "failed"}, "if_failed")
    assert place.marks() == []
