"""Budgets of runs, steps and days in whole runs: what is counted, what a crossed line ends, what can be resumed."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ..kill.arena import LIMIT
from ..kill.test_instances import wait_for
from .place import MARK, Place, dead
from .test_instances import NOTE, error_of, noted, outcomes

ADD = '"$PY" -P -m agentrun usage add --model m'
WAITS = 'read _ < $ARENA/never.go'
ALARM = f"- {{id: alarm, when: on_failure, run: '{NOTE}'}}\n"


def job(steps: str, *, budget: str = "", name: str = "") -> str:
    return f"{name}{budget}\nenv: {{PY: '{sys.executable}'}}\nsteps:\n{steps}"


def spends(tokens: int, then: str = "true", *, cost: str = "0", keys: str = "", name: str = "s") -> str:
    """A step that says who it is, what it used, and goes on."""
    line = f'{{"gen_ai.usage.input_tokens": {tokens - 1}, "gen_ai.usage.output_tokens": 1, "cost": {cost},'
    line += ' "gen_ai.request.model": "m"}'
    return f"- id: {name}\n  grace: 100ms\n{keys}  run: |\n    echo $$ > $ARENA/pid\n" + (
        f"    echo '{line}' >> $AGENTRUN_USAGE\n    {then}\n"
    )


def used(place: Place) -> list[tuple[Any, ...]]:
    return place.rows("SELECT instance, sum(input_tokens + output_tokens), sum(cost) FROM usage GROUP BY 1 ORDER BY 1")


@pytest.mark.parametrize(
    ("budget", "words"), [("tokens: 100", "tokens: 101 of 100"), ("cost: 1.00", "cost: 1.01 of 1")]
)
def test_a_run_over_its_budget_ends_what_runs_and_looks_after_it(place: Place, budget: str, words: str) -> None:
    place.gate("never")
    ran = place.run(job(spends(101, WAITS, cost="1.01") + f"- {{id: t, run: '{NOTE}'}}\n" + ALARM,
                        budget=f"budget: {{{budget}}}"))  # fmt: skip
    assert (ran.status, ran.run["outcome"], ran.run["reason"]) == (125, "over_budget", "budget"), ran.stderr
    assert words in ran.run["error"] and dead(int(place.read("pid")))
    assert noted(place) == ["alarm 1 "]
    assert outcomes(place) == {"s": "over_budget (budget)", "t": "skipped (budget)", "alarm": "succeeded"}
    assert used(place) == [("s", 101, 1_010_000_000)] and [use["model"] for use in ran.run["usage"]] == ["m"]


@pytest.mark.parametrize("budget", ["tokens: 100", "cost: 1.00"])
def test_a_step_over_its_own_budget_ends_alone(place: Place, budget: str) -> None:
    place.gate("never")
    keys = f"  budget: {{{budget}}}\n"
    aside = f"- {{id: aside, needs: [], run: '{NOTE}'}}\n"
    ran = place.run(job(spends(101, WAITS, cost="1.01", keys=keys) + aside + ALARM))
    assert ran.status == 125 and ran.run["outcome"] == "failed", ran.stderr
    kind = budget.partition(":")[0]
    assert outcomes(place) == {"s": f"over_budget ({kind})", "aside": "succeeded", "alarm": "succeeded"}
    assert f"over its budget of {kind}" in error_of(place, "s") and dead(int(place.read("pid")))


def test_a_budget_that_is_just_enough_lets_a_step_finish_and_nothing_more_begin(place: Place) -> None:
    ran = place.run(job(spends(100) + f"- {{id: t, run: '{NOTE}'}}\n", budget="budget: {tokens: 100}"))
    assert (ran.status, noted(place)) == (125, []), "nothing is left for t"
    assert outcomes(place) == {"s": "succeeded", "t": "skipped (budget)"}
    alone = place.run(job(spends(100), budget="budget: {tokens: 100}"))
    assert alone.status == 0, "nothing was to begin after it"


def test_a_raised_budget_lets_the_run_go_on_and_what_was_spent_stays_spent(place: Place) -> None:
    steps = spends(60, f"{MARK}", name="a") + spends(60, f"{MARK}", name="b")
    ran = place.run(job(steps, budget="budget: {tokens: 50}"))
    assert ran.status == 125
    before, outcome = noted(place), outcomes(place)["a"]
    same = place.call("resume", "job")
    assert same.status == 125 and noted(place) == [], "nothing is left"
    more = place.job("more", job(steps, budget="budget: {tokens: 10k}", name="name: job\n"))
    again = place.call("resume", "job", "--spec", str(more))
    assert again.status == 0, again.stderr
    # how much of `a` was done before its line was seen is left to chance
    assert noted(place) == [name for name in ("a", "b") if name not in before or outcome == "over_budget (budget)"]
    assert sum(row[1] for row in used(place)) == (120 if outcome == "succeeded" else 180)


def test_the_budget_of_a_run_counts_all_instances_and_attempts(place: Place) -> None:
    ran = place.run(job(
        "- id: s\n  foreach: [1, 2, 3, 4, 5, 6]\n  max_parallel: 1\n  retry: {max_attempts: 2, interval: 0s}\n"
        f"  run: |\n    {ADD} --input-tokens 10\n    {NOTE}\n    test $AGENTRUN_ATTEMPT = 2\n",
        budget="budget: {tokens: 40}",
    ))  # fmt: skip
    assert ran.status == 125
    assert noted(place) == ["s[0] 1 1", "s[0] 2 1", "s[1] 1 2", "s[1] 2 2"], "four calls of ten are all that is allowed"
    assert outcomes(place)["s"] == "over_budget (budget)"


def test_the_budget_of_steps_counts_instances_rounds_and_attempts(place: Place) -> None:
    ran = place.run(f"""
budget: {{steps: 5}}
max_parallel: 1
steps:
- {{id: s, foreach: [a, b, c], if: 'true', run: '{NOTE}; test $AGENTRUN_ATTEMPT = 2 || test $AGENTRUN_ITEM != a',
    retry: {{max_attempts: 2, interval: 0s}}}}
- {{id: r, run: '{NOTE}', repeat: {{until: 'false', max: 9}}}}
{ALARM}""")
    assert ran.status == 125
    assert noted(place) == ["alarm 1 ", "r[1] 1 ", "s[0] 1 a", "s[0] 2 a", "s[1] 1 b", "s[2] 1 c"]


def test_a_day_has_its_budget_for_all_runs_of_the_job(place: Place) -> None:
    text = job(spends(60, MARK), budget="budget: {daily: {tokens: 100}}")
    assert place.run(text).status == 0
    second = place.run(text)
    assert second.status in (0, 125), second.stderr
    third = place.run(text)
    assert (third.status, third.run["outcome"]) == (125, "over_budget") and "today" in third.run["error"]
    assert len(place.marks()) <= 2
    other = place.run(text, name="other")
    assert other.status == 0, "another job has a day of its own"


def test_what_a_child_uses_counts_for_its_parent(place: Place) -> None:
    place.gate("never")
    place.job("child", job(spends(60, name="a") + spends(60, WAITS, name="b")
                           + f"- {{id: tidy, when: always, run: '{NOTE}'}}\n"))  # fmt: skip
    ran = place.run(f"budget: {{tokens: 100}}\nsteps:\n- {{id: c, job: child.yaml}}\n{ALARM}")
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget"), ran.stderr
    assert "120 of 100" in ran.run["error"] and dead(int(place.read("pid")))
    assert noted(place) == ["alarm 1 ", "tidy 1 "]
    own = place.run("steps:\n- {id: c, job: child.yaml, budget: {tokens: 100}}\n", name="own")
    assert own.status == 125 and outcomes(place, "own")["c"] == "over_budget (tokens)", own.stderr


def test_the_steps_of_a_child_count_for_its_parent(place: Place) -> None:
    place.job("child", f"steps:\n- {{id: a, run: '{NOTE}'}}\n- {{id: b, run: '{NOTE}'}}\n- {{id: d, run: '{NOTE}'}}\n")
    ran = place.run(f"budget: {{steps: 3}}\nsteps:\n- {{id: c, job: child.yaml}}\n- {{id: e, run: '{NOTE}'}}\n")
    assert ran.status == 125 and noted(place) == ["a 1 ", "b 1 "], ran.stderr
    enough = place.run(f"budget: {{steps: 5}}\nsteps:\n- {{id: c, job: child.yaml}}\n- {{id: e, run: '{NOTE}'}}\n")
    assert enough.status == 0, enough.stderr


BAD_LINES = {
    "words": ("nonsense", "is not JSON"),
    "list": ("[1]", "no JSON object"),
    "tokens": ('{"gen_ai.usage.input_tokens": -1}', "-1"),
    "cost": ('{"cost": -0.5}', "-0.5"),
    "many": ('{"gen_ai.usage.input_tokens": "many"}', "many"),
}


@pytest.mark.parametrize("then", ["true", "test -e $ARENA/mended || read _ < $ARENA/never.go"], ids=["ends", "stays"])
def test_usage_that_cannot_be_counted_fails_the_step_and_the_run_can_be_resumed(place: Place, then: str) -> None:
    place.gate("never")
    steps = ""
    for name, (line, _) in BAD_LINES.items():
        place.file(name, line + "\n")
        steps += f"- id: {name}\n  needs: []\n  grace: 100ms\n  retry: {{max_attempts: 3, interval: 0s}}\n  run: |\n"
        steps += f"    {NOTE}\n    cat $ARENA/$AGENTRUN_STEP >> $AGENTRUN_USAGE\n    {then}\n"
    ran = place.run(job(steps + ALARM, budget="max_parallel: 5\nbudget: {tokens: 1k}"))
    assert ran.status == 1, ran.stderr
    assert noted(place) == sorted(["alarm 1 ", *(f"{name} 1 " for name in BAD_LINES)]), "no retry helps"
    assert "line 1 of $AGENTRUN_USAGE" in ran.stderr and "Traceback" not in ran.stderr
    for name, (_, words) in BAD_LINES.items():
        assert outcomes(place)[name] == "failed (usage)" and words in error_of(place, name)
        place.file(name, '{"gen_ai.usage.input_tokens": 7, "gen_ai.request.model": "m"}\n')
    place.file("mended", "")
    assert place.call("resume", "job").status == 0
    assert [row[1] for row in used(place)] == [7] * 5


def test_usage_outlives_a_killed_supervisor_and_is_counted_once(place: Place) -> None:
    gate = place.gate("gate")
    text = job(spends(60, gate.shell, name="a") + spends(60, WAITS, name="b"), budget="budget: {tokens: 100}")
    place.gate("never")
    place.start("run", str(place.job("job", text)))
    gate.reached()
    wait_for(lambda: sum(row[1] for row in used(place)) == 60)
    place.kill_everything()
    resumed = place.start("resume", "job")
    gate.reached()  # it has paid again
    assert resumed.wait(LIMIT) == 125, "120 of 100"
    assert used(place) == [("a", 120, 0)]


@pytest.mark.parametrize(
    ("budget", "program", "reason"),
    [
        ("cpu: 300ms", "while :; do :; done", "cpu"),
        ("output: 64KiB", "yes; read _ < $ARENA/never.go", "output"),
        ("memory: 48MiB", "exec \"$PY\" -c 'x = b\"x\" * (200 << 20); open(\"never.go\").read()'", "oom"),
        ("processes: 12", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do\n"
         "      (read _ < $ARENA/never.go) &\n    done\n    wait", "processes"),
    ],
)  # fmt: skip
def test_the_limits_of_a_step_end_its_whole_tree(place: Place, budget: str, program: str, reason: str) -> None:
    place.gate("never")
    steps = f"- id: s\n  grace: 100ms\n  budget: {{{budget}}}\n  run: |\n    {program}\n"
    ran = place.run(job(steps + f"- {{id: aside, needs: [], run: '{NOTE}'}}\n" + ALARM))
    assert ran.status == 125, ran.stderr
    assert outcomes(place) == {"s": f"over_budget ({reason})", "aside": "succeeded", "alarm": "succeeded"}
    assert not place.step_processes()


@pytest.mark.parametrize(
    ("budget", "program"), [("cpu: 300ms", "while :; do :; done"), ("output: 64KiB", "yes; read _ < $ARENA/never.go")]
)
def test_the_limits_of_a_run_end_all_of_it(place: Place, budget: str, program: str) -> None:
    place.gate("never")
    steps = f"- id: s\n  grace: 100ms\n  run: |\n    {program}\n- {{id: t, run: '{NOTE}'}}\n"
    ran = place.run(job(steps + ALARM, budget=f"budget: {{{budget}}}"))
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget"), ran.stderr
    assert budget.partition(":")[0] in ran.run["error"]
    assert outcomes(place) == {"s": "over_budget (budget)", "t": "skipped (budget)", "alarm": "succeeded"}


def test_memory_that_ran_out_can_be_retried_as_oom(place: Place) -> None:
    ran = place.run(job(f"""
- id: s
  budget: {{memory: 48MiB}}
  retry: {{max_attempts: 2, interval: 0s, on: [oom]}}
  run: |
    {NOTE}
    test $AGENTRUN_ATTEMPT = 2 || exec "$PY" -c 'import time; x = b"x" * (200 << 20); open("/dev/zero").read(1)'
"""))
    assert ran.status == 0, ran.stderr
    assert noted(place) == ["s 1 ", "s 2 "]


def test_a_child_begins_no_more_than_its_callers_have_left(place: Place) -> None:
    place.job("child", f"steps:\n{''.join(f'- {{id: s{n}, run: {MARK!r}}}' + chr(10) for n in range(5))}")
    ran = place.run("budget: {steps: 4}\nsteps: [{id: sub, job: child.yaml}]\n")
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget")
    assert len(place.marks()) == 3, "its own attempt is one of the four"
    assert "steps: 4 of 4" in ran.run["error"]


def test_a_day_of_so_many_attempts_is_a_limit_for_a_fan_out_too(place: Place) -> None:
    step = f"{{id: s, foreach: [1, 2, 3, 4, 5], run: {MARK!r}}}"
    ran = place.run(f"budget: {{daily: {{steps: 3}}}}\nmax_parallel: 8\nsteps: [{step}]\n")
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget")
    assert len(place.marks()) == 3


def test_what_a_condition_uses_counts(place: Place) -> None:
    use = """printf '{"gen_ai.usage.input_tokens": 400}\\n' >> $AGENTRUN_USAGE"""
    ran = place.run(
        "budget: {tokens: 1000}\nsteps:\n- id: s\n"
        f"  run: {MARK!r}\n  repeat:\n    max: 9\n    until: |\n      {use}\n      exit 1\n"
    )
    assert (ran.status, ran.run["outcome"]) == (125, "over_budget")
    assert len(place.marks()) == 3
    assert ran.run["error"] == "over its budget of tokens: 1,200 of 1,000"


def test_a_condition_that_its_limit_ends_says_so(place: Place) -> None:
    ran = place.run("steps: [{id: s, if: 'yes', run: 'true', budget: {output: 100kB}}]\n")
    assert ran.status == 125
    assert ran.step("s")["error"] == "its `if` did not answer: over its budget of output: 100kB"
