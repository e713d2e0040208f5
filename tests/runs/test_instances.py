"""Fan-outs as whole runs: where the list comes from, what each instance is given, what its end means for the step."""

from __future__ import annotations

import json
from typing import Any

from ..kill.arena import LIMIT
from ..kill.test_instances import wait_for
from .place import MARK, Place

NOTE = 'echo "$AGENTRUN_STEP $AGENTRUN_ATTEMPT $AGENTRUN_ITEM" >> "$ARENA/ledger"'
KEYS = 'echo "$AGENTRUN_STEP $AGENTRUN_ITEM $AGENTRUN_IDEMPOTENCY_KEY" >> "$ARENA/ledger"'
BROKEN = f'{NOTE}; test "$AGENTRUN_ITEM" != b || test -e "$ARENA/mended"'


def outcomes(place: Place, job: str | None = None) -> dict[str, str]:
    """Every row of the latest run (of that job): its outcome, or its state; and the reason."""
    rows = place.rows(
        "SELECT instance, coalesce(outcome, state), reason FROM steps WHERE position >= 0 AND run_id ="
        " (SELECT max(id) FROM runs WHERE job = coalesce(?, job)) ORDER BY position, number",
        job,
    )
    return {name: outcome if reason is None else f"{outcome} ({reason})" for name, outcome, reason in rows}


def error_of(place: Place, name: str) -> str:
    return str(place.rows("SELECT error FROM steps WHERE instance = ? ORDER BY run_id DESC", name)[0][0])


def noted(place: Place) -> list[str]:
    """What was written into the ledger since the last call, in the order of the alphabet."""
    lines = place.marks()
    place.ledger.write_text("")
    return sorted(lines)


def given(place: Place, job: str, step: str = "get") -> Any:
    """What a python step that returns what it was given was given."""
    ran = place.run(job)
    assert ran.status == 0, ran.stderr
    return ran.step(step)["outputs"]


# --- where the list comes from ---


LISTS = """
- {id: py, needs: [], python: 'def main(): return {"list": [{"n": 1}, {"n": "two"}, {"n": [3]}]}'}
- id: sh
  run: |
    echo 'list=[{"n": 1}, {"n": "two"}, {"n": [3]}]' >> $AGENTRUN_OUTPUT
- id: deep
  run: |
    echo '{"deep": {"list": [[{"n": 1}, {"n": "two"}, {"n": [3]}]]}}' >> $AGENTRUN_OUTPUT
"""
SOURCES = {
    "literal": '[{n: 1}, {n: "two"}, {n: [3]}]',
    "params": "${{ params.list }}",
    "python": "${{ steps.py.outputs.list }}",
    "shell": "${{ steps.sh.outputs.list }}",
    "inner": "${{ steps.deep.outputs.deep.list.0 }}",
    "items": '["${{ params.list.0 }}", "${{ params.list.1 }}", {n: "${{ params.list.2.n }}"}]',
}


def test_the_list_is_one_or_a_reference_to_one(place: Place) -> None:
    steps = "".join(
        f"- {{id: {name}, run: '{NOTE}; echo $N >> $ARENA/n', env: {{N: '${{{{ item.n }}}}'}},"
        f" foreach: {foreach if foreach[0] == '[' else repr(foreach)}}}\n"
        for name, foreach in SOURCES.items()
    )
    ran = place.run(f"params: {{list: {{default: [{{n: 1}}, {{n: two}}, {{n: [3]}}]}}}}\nsteps:{LISTS}{steps}")
    assert ran.status == 0, ran.stderr
    items = ('[0] 1 {"n":1}', '[1] 1 {"n":"two"}', '[2] 1 {"n":[3]}')
    assert noted(place) == sorted(name + item for name in SOURCES for item in items)
    assert sorted(place.read("n").splitlines()) == ["1"] * 6 + ["[3]"] * 6 + ["two"] * 6
    assert (ran.run["steps_done"], ran.run["steps_total"]) == (21, 21)


def test_a_python_step_is_given_its_item_as_it_is(place: Place) -> None:
    assert given(place, """
steps:
- id: s
  foreach: [{a: [1, {b: null}]}, text, 7, null, true]
  python: 'def main(**given): return {"given": given}'
  with: {item: '${{ item }}', text: 'is ${{ item }}'}
- id: get
  python: 'def main(**given): return given'
  with: {all: '${{ steps.s.outputs.given }}'}
""") == {"all": [
        {"item": {"a": [1, {"b": None}]}, "text": 'is {"a":[1,{"b":null}]}'},
        {"item": "text", "text": "is text"}, {"item": 7, "text": "is 7"},
        {"item": None, "text": "is null"}, {"item": True, "text": "is true"},
    ]}  # fmt: skip


def test_an_empty_list_is_done_at_once_and_its_outputs_are_empty_lists(place: Place) -> None:
    assert given(place, f"""
params: {{list: {{default: []}}}}
steps:
- {{id: s, foreach: '${{{{ params.list }}}}', run: '{MARK}'}}
- id: get
  python: 'def main(**given): return given'
  with: {{any: '${{{{ steps.s.outputs.any }}}}', end: '${{{{ steps.s.outcome }}}}'}}
""") == {"any": [], "end": "succeeded"}
    assert place.marks() == [] and outcomes(place) == {"s": "succeeded", "get": "succeeded"}


def test_outputs_come_back_in_the_order_of_the_list_null_where_there_is_none(place: Place) -> None:
    first, second = place.gate("first"), place.gate("second")
    job = place.job("job", f"""
max_parallel: 4
steps:
- id: s
  foreach: [a, b, c, d]
  if: test "$AGENTRUN_ITEM" != c
  run: |
    case $AGENTRUN_ITEM in a) {first.shell};; b) {second.shell};; esac
    test $AGENTRUN_ITEM = d || echo "v=of $AGENTRUN_ITEM" >> $AGENTRUN_OUTPUT
    test $AGENTRUN_ITEM = a || echo "w=$AGENTRUN_STEP" >> $AGENTRUN_OUTPUT
- id: get
  python: 'def main(**given): return given'
  with:
    v: '${{{{ steps.s.outputs.v }}}}'
    one: '${{{{ steps.s.outputs.v.1 }}}}'
    none: '${{{{ steps.s.outputs.w.0 }}}}'
    w: '${{{{ steps.s.outputs.w }}}}'
""")  # fmt: skip
    run = place.start("run", str(job))
    first.reached()
    second.reached()
    second.open()  # the later one ends first
    wait_for(lambda: place.rows("SELECT outcome FROM steps WHERE instance = 's[1]'") == [("succeeded",)])
    first.open()
    assert run.wait(LIMIT) == 0
    (get,) = place.rows("SELECT outputs FROM steps WHERE instance = 'get'")
    assert json.loads(get[0]) == {
        "v": ["of a", "of b", None, None], "one": "of b", "none": None, "w": [None, "s[1]", None, "s[3]"],
    }  # fmt: skip
    assert outcomes(place)["s[2]"] == "skipped (if)"


def test_a_reference_beyond_the_list_or_to_no_output_fails_the_step_that_has_it(place: Place) -> None:
    steps = '- {id: s, foreach: [1, 2], run: "echo v=1 >> $AGENTRUN_OUTPUT"}\n'
    beyond = place.run(f"steps:\n{steps}- {{id: t, run: 'true', env: {{V: '${{{{ steps.s.outputs.v.2 }}}}'}}}}\n")
    assert beyond.status == 1 and "steps.s.outputs.v.2" in beyond.stderr
    nothing = place.run(f"steps:\n{steps}- {{id: t, run: 'true', env: {{V: '${{{{ steps.s.outputs.w }}}}'}}}}\n")
    assert nothing.status == 1 and "steps.s.outputs.w" in nothing.stderr


# --- how many at once, and what one failure means ---


def test_max_parallel_of_the_step_leaves_slots_to_others(place: Place) -> None:
    gate, other = place.gate("gate"), place.gate("other")
    job = place.job("job", f"""
max_parallel: 8
steps:
- {{id: s, foreach: [1, 2, 3, 4, 5], max_parallel: 2, run: '{NOTE}; {gate.shell}'}}
- {{id: other, needs: [], run: '{other.shell}'}}
- {{id: end, needs: [s], run: '{MARK}'}}
""")  # fmt: skip
    run = place.start("run", str(job))
    other.reached()  # begun after whatever of `s` may begin
    gate.reached()
    running = "SELECT count(*) FROM attempts WHERE state = 'running' AND instance LIKE 's[%'"
    assert place.rows(running) == [(2,)]
    for _ in range(5):
        assert place.rows(running)[0][0] <= 2
        gate.open()
    other.open()
    assert run.wait(LIMIT) == 0
    assert place.marks()[-1] == "end" and len(place.marks()) == 6


def test_one_failed_instance_stops_none_of_the_others_and_fails_the_step(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: s, foreach: [a, b, c], run: '{NOTE}; test $AGENTRUN_ITEM != b || exit 7'}}
- {{id: t, run: '{NOTE}'}}
- {{id: alarm, when: on_failure, run: '{NOTE}'}}
""")
    assert noted(place) == ["alarm 1 ", "s[0] 1 a", "s[1] 1 b", "s[2] 1 c"]
    assert ran.status == 7, "that of the first failing instance"
    assert outcomes(place) == {
        "s": "failed (instances)", "s[0]": "succeeded", "s[1]": "failed (exit)", "s[2]": "succeeded",
        "t": "skipped (upstream)", "alarm": "succeeded",
    }  # fmt: skip
    assert error_of(place, "s") == "1 of 3 instances failed: [1]"
    assert "s[1]" in ran.run["error"] and "exit status 7" in ran.run["error"]


def test_fail_fast_ends_those_that_run_and_skips_those_that_have_not_begun(place: Place) -> None:
    held = place.gate("held")
    ran = place.run(f"""
max_parallel: 2
steps:
- id: s
  foreach: [a, b, c, d]
  fail_fast: true
  grace: 100ms
  run: 'case $AGENTRUN_ITEM in a) {held.shell};; b) read _ < {held.here}; exit 3;; *) {NOTE};; esac'
- {{id: tidy, when: always, run: '{NOTE}'}}
""")
    assert (ran.status, noted(place)) == (3, ["tidy 1 "])
    assert outcomes(place) == {
        "s": "failed (instances)", "s[0]": "cancelled (fail_fast)", "s[1]": "failed (exit)",
        "s[2]": "skipped (fail_fast)", "s[3]": "skipped (fail_fast)", "tidy": "succeeded",
    }  # fmt: skip
    held.open()
    held.open()
    place.job("mended", place.read("job.yaml").replace(f"read _ < {held.here}; exit 3", NOTE))
    mended = place.call("resume", "job", "--spec", str(place.root / "mended.yaml"))
    assert mended.status == 0, mended.stderr
    assert noted(place) == ["s[1] 2 b", "s[2] 1 c", "s[3] 1 d", "tidy 2 "]


def test_each_instance_has_its_own_retries_timeout_and_interruption(place: Place) -> None:
    place.gate("never")
    ran = place.run(f"""
max_parallel: 3
steps:
- id: s
  foreach: [good, second, never, late]
  timeout: 700ms
  grace: 0s
  retry: {{max_attempts: 3, interval: 0s, never_on: [timeout]}}
  run: |
    {NOTE}
    case $AGENTRUN_ITEM in
      second) test $AGENTRUN_ATTEMPT = 2;;
      never) exit 4;;
      late) read _ < $ARENA/never.go;;
    esac
""")
    assert ran.status == 4
    assert noted(place) == [
        "s[0] 1 good", "s[1] 1 second", "s[1] 2 second", "s[2] 1 never", "s[2] 2 never", "s[2] 3 never", "s[3] 1 late",
    ]  # fmt: skip
    assert outcomes(place) == {
        "s": "failed (instances)", "s[0]": "succeeded", "s[1]": "succeeded", "s[2]": "failed (exit)",
        "s[3]": "timed_out (timeout)",
    }  # fmt: skip
    assert error_of(place, "s") == "2 of 4 instances failed: [2], [3]"


def test_an_if_that_breaks_fails_its_instance_alone(place: Place) -> None:
    ran = place.run(f"steps:\n- {{id: s, foreach: [0, 1, 2], if: exit $AGENTRUN_ITEM, run: '{NOTE}'}}\n")
    assert (ran.status, noted(place)) == (2, ["s[0] 1 0"])
    assert list(outcomes(place).values()) == ["failed (instances)", "succeeded", "skipped (if)", "failed (if_failed)"]


def test_continue_on_error_covers_failed_instances(place: Place) -> None:
    ran = place.run(f"""
steps:
- id: s
  foreach: [a, b, c]
  continue_on_error: true
  run: '{BROKEN}; echo v=$AGENTRUN_ITEM >> $AGENTRUN_OUTPUT'
- id: get
  python: 'def main(**given): return given'
  with: {{v: '${{{{ steps.s.outputs.v }}}}', end: '${{{{ steps.s.outcome }}}}'}}
- {{id: alarm, when: on_failure, run: '{NOTE}'}}
""")
    assert ran.status == 0 and ran.step("get")["outputs"] == {"v": ["a", None, "c"], "end": "failed"}
    assert outcomes(place)["alarm"] == "skipped (no_failure)"
    assert place.call("resume", "job").status == 0 and "s[1] 2 b" not in noted(place)


def test_declared_outputs_are_those_of_each_instance(place: Place) -> None:
    ran = place.run("""
steps:
- id: s
  foreach: [1, x]
  outputs: {v: integer}
  run: 'echo "{\\"v\\": $AGENTRUN_ITEM}" >> $AGENTRUN_OUTPUT'
""")
    assert ran.status == 1 and outcomes(place)["s[0]"] == "succeeded"
    assert outcomes(place)["s[1]"] == "failed (outputs)"


# --- what an instance is given ---


def test_every_instance_has_a_folder_and_a_log_of_its_own(place: Place) -> None:
    ran = place.run("""
max_parallel: 3
steps:
- id: s
  foreach: [a, b, c]
  run: |
    echo "hello from $AGENTRUN_ITEM"; echo "$TMPDIR" >> $ARENA/folders
    test -z "$(ls -A $TMPDIR)"; touch $TMPDIR/x
    echo all >> $AGENTRUN_RUN_DIR/shared
- {id: t, run: 'test $(wc -l < $AGENTRUN_RUN_DIR/shared) = 3'}
""")
    assert ran.status == 0, ran.stderr
    for item, number in zip("abc", range(3), strict=True):
        logged = place.call("logs", "job", "--step", f"s[{number}]", "--raw")
        assert logged.stdout == f"hello from {item}\n"
    assert sorted(place.call("logs", "job", "--step", "s", "--raw").stdout.splitlines()) == [
        "hello from a", "hello from b", "hello from c",
    ]  # fmt: skip


def test_the_key_of_an_instance_is_that_of_its_item(place: Place) -> None:
    ran = place.run(f"""
steps:
- {{id: s, foreach: [{{a: 1, b: 2}}, x], run: '{KEYS}; false', retry: {{max_attempts: 2, interval: 0s}}}}
- {{id: t, needs: [], foreach: [x, {{b: 2, a: 1}}], run: '{KEYS}; false'}}
- {{id: own, needs: [], foreach: [{{id: 7}}, {{id: 8}}], run: '{KEYS}', idempotency_key: 'k-${{{{ item.id }}}}'}}
""")
    assert ran.status == 1
    keys: dict[str, set[str]] = {}
    for line in noted(place):
        name, *_, key = line.split()
        keys.setdefault(name, set()).add(key)
    assert all(len(each) == 1 for each in keys.values()), "one for all attempts"
    assert len(set().union(*keys.values())) == 6 and keys["own[0]"] == {"k-7"} and keys["own[1]"] == {"k-8"}
    assert place.call("resume", "job").status == 1
    again = {line.split()[0]: {line.split()[-1]} for line in noted(place)}
    assert again == {name: keys[name] for name in again} and len(again) == 4


# --- again ---


def fan(*items: str, extra: str = "") -> str:
    return (
        f"steps:\n- {{id: s, foreach: [{', '.join(items)}], run: '{BROKEN};"
        f" echo v=$AGENTRUN_ITEM >> $AGENTRUN_OUTPUT'{extra}}}\n"
        "- id: t\n  python: 'def main(**given): return given'\n  with: {v: '${{ steps.s.outputs.v }}'}\n"
    )


def test_a_resume_runs_the_instances_that_are_not_done(place: Place) -> None:
    assert place.run(fan("a", "b", "c")).status == 1
    assert noted(place) == ["s[0] 1 a", "s[1] 1 b", "s[2] 1 c"]
    plan = place.call("resume", "job", "--plan")
    assert plan.status == 0 and "2 of 3 instances are done" in plan.stdout, plan.stdout
    assert noted(place) == []
    place.file("mended", "")
    again = place.call("resume", "job", "--json")
    assert (again.status, noted(place)) == (0, ["s[1] 2 b"])
    assert again.step("t")["outputs"] == {"v": ["a", "b", "c"]}
    assert (again.run["steps_done"], again.run["steps_total"]) == (4, 4)


def test_another_list_repeats_nothing_for_the_items_that_it_keeps(place: Place) -> None:
    keys = KEYS + "; "
    assert place.run(fan("a", "b", "c", "d").replace(BROKEN, keys + BROKEN)).status == 1
    before = {line.split()[1]: line.split()[-1] for line in noted(place) if len(line.split()[-1]) == 32}
    place.file("mended", "")
    other = str(place.job("other", fan("d", "new", "b", "a").replace(BROKEN, keys + BROKEN)))
    plan = place.call("resume", "job", "--plan", "--spec", other)
    assert plan.status == 0, plan.stderr
    again = place.call("resume", "job", "--spec", other, "--json")
    assert again.status == 0, again.stderr
    lines = noted(place)
    after = {line.split()[1]: line.split()[-1] for line in lines if len(line.split()[-1]) == 32}
    assert set(after) == {"b", "new"} and after["b"] == before["b"], "c is gone, d and a are done"
    assert again.step("t")["outputs"] == {"v": ["d", "new", "b", "a"]}
    assert (again.run["steps_done"], again.run["steps_total"]) == (5, 5)
    assert "s[2]" not in outcomes(place), "of c"


def test_a_list_that_is_given_back_an_item_takes_what_was_done_for_it(place: Place) -> None:
    assert place.run(fan("a", "b", "c")).status == 1
    noted(place)
    for name, items in (("less", ("b",)), ("more", ("c", "b", "a", "e"))):
        other = str(place.job(name, fan(*items)))
        again = place.call("resume", "job", "--spec", other, "--json")
        assert again.status == 1, again.stderr
        assert again.run["steps_total"] == len(items) + 1
    assert noted(place) == ["s[1] 2 b", "s[1] 3 b", "s[3] 1 e"]
    place.file("mended", "")
    again = place.call("resume", "job", "--json")
    assert (again.status, again.step("t")["outputs"]) == (0, {"v": ["c", "b", "a", "e"]})


def test_from_a_step_with_instances_all_of_them_run_again_and_after_it_none(place: Place) -> None:
    place.file("mended", "")
    job = fan("a", "b") + f"- {{id: u, run: '{KEYS}'}}\n"
    assert place.run(job.replace(BROKEN, KEYS)).status == 0
    first = noted(place)
    after = place.call("resume", "job", "--from", "t", "--json")
    assert after.status == 0, after.stderr
    assert after.step("t")["outputs"] == {"v": ["a", "b"]} and [line.split()[0] for line in noted(place)] == ["u"]
    assert (after.run["steps_done"], after.run["steps_total"]) == (4, 4)
    whole = place.call("resume", first_run(place), "--from", "s", "--json")
    again = noted(place)
    assert whole.status == 0 and [line.split()[0] for line in again] == [line.split()[0] for line in first]
    assert not {line.split()[-1] for line in first} & {line.split()[-1] for line in again}, "new keys"


def first_run(place: Place) -> str:
    return str(place.rows("SELECT min(id) FROM runs")[0][0])


def test_a_handler_with_instances_runs_at_every_end(place: Place) -> None:
    job = (
        f"steps:\n- {{id: a, run: 'test -e $ARENA/mended'}}\n"
        f"- {{id: alarm, when: on_failure, foreach: [x, y], run: '{NOTE}'}}\n"
        f"- {{id: tidy, when: always, foreach: [x, y], run: '{NOTE}'}}\n"
    )
    assert place.run(job).status == 1
    assert noted(place) == ["alarm[0] 1 x", "alarm[1] 1 y", "tidy[0] 1 x", "tidy[1] 1 y"]
    assert place.call("resume", "job").status == 1
    assert noted(place) == ["alarm[0] 2 x", "alarm[1] 2 y", "tidy[0] 2 x", "tidy[1] 2 y"]
    place.file("mended", "")
    ran = place.call("resume", "job", "--json")
    assert ran.status == 0 and noted(place) == ["tidy[0] 3 x", "tidy[1] 3 y"]
    assert outcomes(place)["alarm"] == "skipped (no_failure)"


def test_cancel_ends_the_instances_that_run_and_skips_the_others(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"""
max_parallel: 2
steps:
- {{id: s, foreach: [a, b, c, d], grace: 100ms, run: 'test $AGENTRUN_ITEM = a || {{ {gate.shell}; }}'}}
- {{id: tidy, when: always, run: '{NOTE}'}}
""")  # fmt: skip
    run = place.start("run", str(job))
    gate.reached()
    wait_for(lambda: place.rows("SELECT count(*) FROM attempts WHERE state = 'running'") == [(2,)])
    assert place.call("cancel", "job").status == 0
    assert run.wait(LIMIT) == 1
    assert list(outcomes(place).values()) == [
        "cancelled (cancel)", "succeeded", "cancelled (cancel)", "cancelled (cancel)", "skipped (cancel)", "succeeded",
    ]  # fmt: skip
    for _ in range(3):
        gate.open()
    assert place.call("resume", "job").status == 0, "a cancelled run goes on from there"
    assert set(outcomes(place).values()) == {"succeeded"}


# --- what is no list ---


BAD_LISTS = {
    "text": ("list=text", ["no list but text", '"text"']),
    "torn": ("list=[1,", ["no JSON"]),
    "object": ("list={}", ["no list", "{}"]),
    "nothing": ("list=", ["no list but text"]),
    "other": ("other=[]", ["steps.make_other.outputs.list", "no output of that name"]),
    "twice": ('list=["a", "b", "a"]', ["items 0 and 2", "one key"]),
    "same": ('list=[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', ["items 0 and 1", "one key"]),
}


def test_what_is_no_list_fails_the_step_with_words(place: Place) -> None:
    steps = "".join(
        f"- id: make_{name}\n  needs: []\n  run: |\n    echo '{text}' >> $AGENTRUN_OUTPUT\n"
        f"- {{id: {name}, foreach: '${{{{ steps.make_{name}.outputs.list }}}}', run: '{NOTE}'}}\n"
        for name, (text, _) in BAD_LISTS.items()
    )
    ran = place.run(f"steps:\n{steps}- {{id: alarm, when: on_failure, run: '{NOTE}'}}\n")
    assert ran.status == 1 and noted(place) == ["alarm 1 "] and "Traceback" not in ran.stderr
    for name, (_, words) in BAD_LISTS.items():
        assert outcomes(place)[name] == "failed (inputs)"
        assert [word for word in words if word not in error_of(place, name)] == [], error_of(place, name)


def test_a_run_whose_list_was_none_can_be_repaired(place: Place) -> None:
    place.file("list", "list=nonsense")
    job = f"""
steps:
- id: make
  run: 'cat $ARENA/list >> $AGENTRUN_OUTPUT'
- {{id: s, foreach: '${{{{ steps.make.outputs.list }}}}', run: '{NOTE}'}}
"""
    assert place.run(job).status == 1
    place.file("list", 'list=["x"]')
    again = place.call("resume", "job")
    assert again.status == 1 and noted(place) == [], "what `make` wrote is done and stays"
    anew = place.call("resume", "job", "--from", "make")
    assert anew.status == 0, anew.stderr
    assert noted(place) == ["s[0] 1 x"]
    mended = str(place.job("mended", job.replace("'${{ steps.make.outputs.list }}'", "[y, z]")))
    repaired = place.call("resume", first_run(place), "--spec", mended)
    assert repaired.status == 0, repaired.stderr
    assert noted(place) == ["s[0] 1 y", "s[1] 1 z"]


def test_items_of_one_key_are_told_apart_by_a_key_of_their_own(place: Place) -> None:
    def job(key: str, foreach: str) -> str:
        return (
            "params: {list: {default: [{k: 1, n: 1}, {k: 1, n: 2}]}}\n"
            f"steps:\n- {{id: s, foreach: {foreach}, run: '{NOTE}', idempotency_key: 'k${{{{ item.{key} }}}}'}}\n"
        )

    seen = place.run(job("k", "[{k: 1, n: 1}, {k: 1, n: 2}]"))
    assert seen.status == 65, "seen before it runs, where that is possible"
    assert place.run(job("k", "'${{ params.list }}'")).status == 1
    assert "items 0 and 1" in error_of(place, "s") and noted(place) == []
    assert place.run(job("n", "'${{ params.list }}'")).status == 0
    assert noted(place) == ['s[0] 1 {"k":1,"n":1}', 's[1] 1 {"k":1,"n":2}']


def test_an_item_without_what_is_asked_of_it_fails_alone(place: Place) -> None:
    ran = place.run(f"""
params: {{list: {{default: [{{n: 1}}, {{}}, 3]}}}}
steps:
- {{id: s, foreach: '${{{{ params.list }}}}', run: '{NOTE}', env: {{N: '${{{{ item.n }}}}'}}}}
""")
    assert ran.status == 1 and noted(place) == ['s[0] 1 {"n":1}']
    assert list(outcomes(place).values()) == ["failed (instances)", "succeeded", "failed (inputs)", "failed (inputs)"]
    assert "${{ item.n }}" in error_of(place, "s[1]")
