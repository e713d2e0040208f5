"""Durable loops as whole runs: how long they go on, what a round hands to the next, what ends them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ..kill.arena import LIMIT
from ..kill.test_instances import wait_for
from .place import Place, milliseconds
from .test_instances import KEYS, error_of, noted, outcomes

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT ${OUT_n:-none}" >> "$ARENA/ledger"'
COUNT = f"{NOTE}; echo n=$((${{OUT_n:-0}} + 1)) >> $AGENTRUN_OUTPUT"


def loop(until: str = 'test "$OUT_n" = 3', most: int = 5, extra: str = "", run: str = COUNT) -> str:
    return f"""
steps:
- id: s
  run: '{run}'
  repeat: {{until: '{until}', max: {most}{extra}}}
- {{id: t, run: 'echo "t $N" >> $ARENA/ledger', env: {{N: '${{{{ steps.s.outputs.n }}}}'}}}}
"""


def test_rounds_hand_their_outputs_on_until_it_is_enough(place: Place) -> None:
    ran = place.run(loop())
    assert ran.status == 0, ran.stderr
    assert place.marks() == ["s[1] 1 none", "s[2] 1 1", "s[3] 1 2", "t 3"]
    assert ran.outputs["s"] == {"n": "3"}, "those of the last round"
    assert (ran.run["steps_done"], ran.run["steps_total"]) == (4, 4)
    assert outcomes(place) == dict.fromkeys(["s", "s[1]", "s[2]", "s[3]", "t"], "succeeded")


def test_a_loop_that_is_never_done_fails_at_its_max_and_goes_on_only_if_that_is_raised(place: Place) -> None:
    ran = place.run(loop(until="false", most=3))
    assert ran.status == 1 and len(noted(place)) == 3
    assert outcomes(place)["s"] == "failed (max)" and "3 rounds" in error_of(place, "s")
    assert outcomes(place)["t"] == "skipped (upstream)"
    again = place.call("resume", "job")
    assert again.status == 1 and noted(place) == [], "its `until` is asked once more, and no round is begun"
    assert outcomes(place)["s"] == "failed (max)"
    other = str(place.job("more", loop(until='test "$OUT_n" = 5', most=6)))
    more = place.call("resume", "job", "--spec", other, "--json")
    assert more.status == 0, more.stderr
    assert noted(place) == ["s[4] 1 3", "s[5] 1 4", "t 5"]
    assert (more.run["steps_done"], more.run["steps_total"]) == (6, 6)


def test_an_until_that_breaks_fails_the_step_and_is_asked_again(place: Place) -> None:
    ran = place.run(loop(until='test ! -e $ARENA/mended && exit 2; test "$OUT_n" = 2'))
    assert ran.status == 2 and noted(place) == ["s[1] 1 none"]
    assert outcomes(place)["s"] == "failed (until_failed)" and "ended with 2" in error_of(place, "s")
    place.file("mended", "")
    again = place.call("resume", "job")
    assert again.status == 0, again.stderr
    assert noted(place) == ["s[2] 1 1", "t 2"]


def test_the_interval_is_between_two_rounds(place: Place) -> None:
    assert place.run(loop(extra=", interval: 200ms")).status == 0
    times = place.rows("SELECT started_at, finished_at FROM steps WHERE number >= 1 ORDER BY number")
    assert [second[0] - first[1] >= 199 for first, second in pairwise(times)] == [True, True]


def test_a_round_has_its_own_retries_and_timeout(place: Place) -> None:
    place.gate("never")
    ran = place.run(f"""
steps:
- id: s
  timeout: 700ms
  grace: 0s
  retry: {{max_attempts: 2, interval: 0s}}
  run: |
    {NOTE}
    if [ "$OUT_n" = 1 ] && [ $AGENTRUN_ATTEMPT = 1 ]; then exit 3; fi
    if [ "$OUT_n" = 2 ]; then read _ < $ARENA/never.go; fi
    echo n=$((${{OUT_n:-0}} + 1)) >> $AGENTRUN_OUTPUT
  repeat: {{until: 'false', max: 10}}
""")
    assert ran.status == 124
    assert place.marks() == ["s[1] 1 none", "s[2] 1 1", "s[2] 2 1", "s[3] 1 2", "s[3] 2 2"]
    assert outcomes(place) == {
        "s": "failed (instances)", "s[1]": "succeeded", "s[2]": "succeeded", "s[3]": "timed_out (timeout)",
    }  # fmt: skip
    noted(place)
    mended = place.read("job.yaml").replace('"$OUT_n" = 2', '"$OUT_n" = 99').replace("'false'", "'test $OUT_n = 4'")
    again = place.call("resume", "job", "--spec", str(place.job("mended", mended)), "--accept-changes")
    assert again.status == 0, again.stderr
    assert noted(place) == ["s[3] 3 2", "s[4] 1 3"]


def test_each_round_has_a_key_of_its_own_the_same_for_its_attempts(place: Place) -> None:
    job = f"""
steps:
- id: s
  run: '{KEYS}; test "$AGENTRUN_ATTEMPT" = 2'
  retry: {{max_attempts: 2, interval: 0s}}
  repeat: {{until: 'test "$AGENTRUN_STEP" = "s[2]"', max: 3}}"""
    for own in ("", "\n  idempotency_key: k-${{ run.id }}"):
        assert place.run(job + own).status == 0
        first, second, third, fourth = [line.split()[-1] for line in noted(place)]
        assert first == second != third == fourth
        if own:
            assert (first, third) == (f"k-{place.run_id}#1", f"k-{place.run_id}#2")


def test_python_steps_are_rounds_too(place: Place) -> None:
    ran = place.run("""
steps:
- id: s
  python: |
    import os
    def main(start):
        done = [int(x) for x in os.environ.get("OUT_done", "[]").strip("[]").split(",") if x]
        return {"done": [*done, start + len(done)], "enough": "yes" if len(done) == 2 else "no"}
  with: {start: 7}
  repeat: {until: 'test "$OUT_enough" = yes', max: 9}
""")
    assert ran.status == 0, ran.stderr
    assert ran.outputs["s"] == {"done": [7, 8, 9], "enough": "yes"}


def test_an_if_is_asked_once_before_the_first_round(place: Place) -> None:
    yes = loop().replace("- id: s", "- id: s\n  if: echo asked >> $ARENA/ledger")
    assert place.run(yes).status == 0
    assert place.marks().count("asked") == 1
    ran = place.run(loop().replace("- id: s", "- id: s\n  if: exit 1"))
    assert outcomes(place) == {"s": "skipped (if)", "t": "failed (inputs)"}, "what it would have written is not there"
    assert (ran.run["steps_done"], ran.run["steps_total"]) == (2, 2)


def test_a_failed_round_fails_the_step_and_is_done_again_by_a_resume(place: Place) -> None:
    job = loop(run=COUNT + '; test "$OUT_n" != 1 || test -e $ARENA/mended')
    ran = place.run(job)
    assert ran.status == 1 and noted(place) == ["s[1] 1 none", "s[2] 1 1"]
    assert error_of(place, "s") == "round 2 failed" and "s[2]" in ran.run["error"]
    plan = place.call("resume", "job", "--plan")
    assert "1 of its rounds is done" in plan.stdout, plan.stdout
    place.file("mended", "")
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["s[2] 2 1", "s[3] 1 2", "t 3"]


def test_a_covered_loop_that_failed_hands_on_nothing_that_is_not_there(place: Place) -> None:
    job = loop(until="false", most=2).replace("- id: s", "- id: s\n  continue_on_error: true")
    ran = place.run(job)
    assert ran.status == 1 and "steps.s.outputs.n" in ran.stderr, "a reference never becomes empty"
    assert outcomes(place)["t"] == "failed (inputs)"


def test_outputs_do_not_leak_from_an_earlier_round(place: Place) -> None:
    ran = place.run("""
steps:
- id: s
  run: |
    echo "$AGENTRUN_STEP ${OUT_a:-none} ${OUT_b:-none}" >> $ARENA/ledger
    if [ "$AGENTRUN_STEP" = "s[1]" ]; then echo a=1 >> $AGENTRUN_OUTPUT; else echo b-x=2 >> $AGENTRUN_OUTPUT; fi
  repeat: {until: 'test "$AGENTRUN_STEP" = "s[3]"', max: 3}
""")
    assert ran.status == 0, ran.stderr
    assert place.marks() == ["s[1] none none", "s[2] 1 none", "s[3] none none"]


def test_cancel_ends_a_loop_and_resume_goes_on_in_its_round(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", loop(run=f'{COUNT}; if [ "$OUT_n" = 1 ]; then {gate.shell}; fi'))
    run = place.start("run", str(job))
    gate.reached()
    assert place.call("cancel", "job").status == 0
    assert run.wait(LIMIT) == 1
    assert outcomes(place) == {
        "s": "cancelled (cancel)", "s[1]": "succeeded", "s[2]": "cancelled (cancel)", "t": "skipped (cancel)",
    }  # fmt: skip
    gate.open()
    noted(place)
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["s[2] 2 1", "s[3] 1 2", "t 3"]


def test_cancel_during_an_until_and_between_two_rounds(place: Place) -> None:
    gate = place.gate("gate")
    asking = place.job("job", loop(until=f'{gate.shell}; test "$OUT_n" = 2'))
    run = place.start("run", str(asking))
    gate.reached()
    assert place.call("cancel", "job").status == 0
    assert run.wait(LIMIT) == 1
    assert outcomes(place)["s"] == "cancelled (cancel)"
    gate.open()
    gate.open()
    noted(place)
    assert place.call("resume", "job").status == 0
    assert noted(place) == ["s[2] 1 1", "t 2"]
    waits = place.job("waits", loop(extra=", interval: 1h"))
    run = place.start("run", str(waits))
    state = "SELECT state FROM steps WHERE run_id = (SELECT max(id) FROM runs WHERE job = 'waits') AND instance = 's'"
    wait_for(lambda: place.rows(state) == [("waiting",)])
    assert place.call("cancel", "waits", "--wait").status == 0
    assert run.wait(LIMIT) == 1
    assert outcomes(place, "waits") == {"s": "cancelled (cancel)", "s[1]": "succeeded", "t": "skipped (cancel)"}


def test_the_deadline_ends_a_loop_between_two_rounds(place: Place) -> None:
    ran = place.run("deadline: 500ms" + loop(extra=", interval: 1h"))
    assert (ran.status, ran.run["outcome"]) == (124, "timed_out")
    assert outcomes(place)["s"] == "timed_out (deadline)"


def test_a_handler_that_loops_begins_anew_at_every_end(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: a, run: 'exit 1'}}
- id: tidy
  when: always
  run: '{COUNT}'
  repeat: {{until: 'test "$OUT_n" = 2', max: 3}}
""")
    assert ran.status == 1 and noted(place) == ["tidy[1] 1 none", "tidy[2] 1 1"]
    assert place.call("resume", "job").status == 1
    assert noted(place) == ["tidy[1] 2 none", "tidy[2] 2 1"]


def test_from_a_loop_all_rounds_run_again(place: Place) -> None:
    assert place.run(loop()).status == 0
    first = noted(place)
    ran = place.call("resume", "job", "--from", "t", "--json")
    assert ran.status == 0 and noted(place) == ["t 3"]
    assert (ran.run["steps_done"], ran.run["steps_total"]) == (4, 4)
    assert place.call("resume", "job", "--from", "s").status == 0
    assert noted(place) == first


@pytest.mark.parametrize("most", [1, 2])
def test_the_step_budget_counts_rounds(place: Place, most: int) -> None:
    ran = place.run(f"budget: {{steps: {most}}}" + loop())
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget")
    assert len(place.marks()) == most
    assert outcomes(place)["s"] == "over_budget (budget)"
    noted(place)
    more = str(place.job("more", "budget: {steps: 10}" + loop()))
    again = place.call("resume", "job", "--spec", more)
    assert again.status == 0, again.stderr
    assert noted(place)[-1] == "t 3" and len(place.rows("SELECT 1 FROM attempts WHERE instance LIKE 's[%'")) == 3


def test_no_round_is_begun_before_the_last_until_has_answered(place: Place) -> None:
    ran = place.run(loop(until='echo "until $AGENTRUN_STEP $OUT_n" >> $ARENA/ledger; test "$OUT_n" = 2'))
    assert ran.status == 0
    assert place.marks() == ["s[1] 1 none", "until s[1] 1", "s[2] 1 1", "until s[2] 2", "t 2"]
    step = ran.step("s")
    assert milliseconds(step["finished_at"]) >= milliseconds(step["started_at"])
