"""What is printed, without a terminal: nothing on success, at most 40 lines on failure, JSON where it is asked for."""

from __future__ import annotations

import json
import subprocess

import pytest

from ..kill.arena import LIMIT
from .place import MARK, PROGRAM, Place

GOOD = {
    "plain": "steps:\n- {run: 'echo loud; echo louder >&2'}\n",
    "handlers": "steps:\n- {run: 'true'}\n- {when: always, run: echo hi}\n- {when: on_failure, run: echo ho}\n",
    "covered": "steps:\n- {run: exit 1, continue_on_error: true}\n- {run: 'true'}\n",
    "retried": "steps:\n- {run: 'test $AGENTRUN_ATTEMPT = 2', retry: {max_attempts: 2, interval: 0s}}\n",
    "python": "steps:\n- {python: 'print(1)'}\n",
    "skipped": "steps:\n- {if: exit 1, run: 'true'}\n",
}


@pytest.mark.parametrize("kind", GOOD)
def test_nothing_is_printed_on_success(place: Place, kind: str) -> None:
    ran = place.call("run", str(place.job("job", GOOD[kind])))
    assert ran[:3] == (0, "", "")


def test_a_failure_is_told_in_few_lines_that_say_what_to_do(place: Place) -> None:
    steps = "".join(f"- {{id: s{n}, run: 'true'}}\n" for n in range(1, 9))
    job = f"name: quotes\nsteps:\n{steps}- id: ask\n  run: 'for i in $(seq 1000); do echo line $i; done; exit 3'\n"
    ran = place.call("run", str(place.job("job", job + "- {id: last, run: 'true'}\n- {id: late, run: 'true'}\n")))
    lines = ran.stderr.splitlines()
    assert (ran.status, ran.stdout) == (3, "") and len(lines) <= 40
    assert "quotes" in lines[0] and "failed" in lines[0]
    text = ran.stderr
    assert "step 9 of 11, ask: exit status 3" in text and "line 1000" in text and "line 1\n" not in text
    assert "not run:   2 steps" in text
    assert f"resume {place.run_id}" in lines[-1], "the last line goes on"


def test_many_failures_and_wild_output_stay_readable(place: Place) -> None:
    wild = "printf \"\\033[2J\\033]0;title\\007\\r\\0%s\\n\" $(seq 5); head -c 100000 /dev/zero | tr \"\\0\" x; exit 1"
    steps = "".join(f"- {{id: s{n}, needs: [], run: '{wild}'}}\n" for n in range(12))
    ran = place.call("run", str(place.job("job", f"steps:\n{steps}")))
    assert len(ran.stderr.splitlines()) <= 40
    told = [line for line in ran.stderr.splitlines() if f" --spec {place.root}" not in line]  # commands are never cut
    assert max(map(len, told)) <= 250
    assert not set(ran.stderr) & set("\033\007\r\0"), "no control character reaches a mail"
    assert "11 steps failed as well" in ran.stderr


@pytest.mark.parametrize(
    ("job", "status", "words"),
    [
        ("steps:\n- {run: 'read _ < $ARENA/never.go', timeout: 200ms, grace: 0s}\n", 124, ["timeout of 200ms"]),
        ("deadline: 300ms\nsteps:\n- {run: 'read _ < $ARENA/never.go', grace: 0s}\n", 124, ["deadline of 300ms"]),
        ("budget: {steps: 1}\nsteps:\n- {run: 'true'}\n- {run: 'true'}\n", 125, ["over its budget of steps: 1 of 1"]),
        (
            "steps:\n- {run: 'true'}\n- {id: work, foreach: [a, b], run: 'echo no; test $AGENTRUN_ITEM != b'}\n", 1,
            ["1 failed, 2 succeeded", "step 2 of 2, work[1]: exit status 1", "its item:  b\n", "--step 'work[1]'"],
        ),
        (
            "steps:\n- {id: think, run: 'echo n=$AGENTRUN_ROUND > $AGENTRUN_OUTPUT',"
            " repeat: {until: 'echo hm; exit 1', max: 2}}\n", 1,
            [
                "step 1 of 1, think: 2 rounds", "    | hm\n", "--step 'think[2]'", "its last:  OUT_n = 2\n",
                "first:     raise `max` of step think", "/job.yaml\n",
            ],
        ),
        (
            "budget: {tokens: 10}\nsteps:\n- {id: ask, grace: 0s, run: 'agentrun usage add --input-tokens 11 --model m;"
            " read _ < $ARENA/never.go'}\n- {id: tell, when: always, run: 'exit 4'}\n", 125,
            ["step 1 of 2, ask: the run's budget of tokens", "also:      1 step failed as well: tell"],
        ),
        (
            "steps:\n- {id: ask, grace: 0s, budget: {tokens: 10}, run: 'agentrun usage add --input-tokens 11 --model m;"
            " read _ < $ARENA/never.go'}\n", 125,
            ["first:     raise the budget of step ask (tokens) in ", " --spec "],
        ),
        ("steps:\n- {run: kill -KILL $$}\n", 137, ["SIGKILL"]),
        ("steps:\n- {run: no-such-command-anywhere}\n", 127, ["no-such-command-anywhere", "not found"]),
        ("steps:\n- {python: 'raise ValueError(7)'}\n", 1, ["ValueError: 7", "Traceback"]),
        ("steps:\n- {run: 'echo nonsense > $AGENTRUN_OUTPUT'}\n", 1, ["line 1", "nonsense"]),
    ],
)
def test_the_report_names_the_cause(place: Place, job: str, status: int, words: list[str]) -> None:
    place.gate("never")
    ran = place.call("run", str(place.job("job", job)))
    assert (ran.status, ran.stdout) == (status, "")
    assert [word for word in words if word not in ran.stderr] == [], ran.stderr
    assert ("its log:" in ran.stderr) == ("    | " in ran.stderr or "of steps" in ran.stderr)
    assert len(ran.stderr.splitlines()) <= 40 and f"resume {place.run_id}" in ran.stderr


def test_a_run_that_is_over_its_budget_with_its_last_step_has_nothing_left_to_run(place: Place) -> None:
    use = 'echo "{\\"gen_ai.usage.input_tokens\\": 11}" >> "$AGENTRUN_USAGE"'
    ran = place.call("run", str(place.job("job", f"budget: {{tokens: 10}}\nsteps:\n- id: ask\n  run: '{use}'\n")))
    assert (ran.status, ran.stdout) == (125, "")
    assert "is over its budget of tokens: 11 of 10" in ran.stderr
    assert ran.stderr.splitlines()[-1] == "done:      all its steps are done; nothing is left to run"
    assert "raise" not in ran.stderr


def test_json_is_the_run_with_its_steps_whatever_became_of_it(place: Place) -> None:
    for ending, status in (("true", 0), ("exit 3", 3)):
        ran = place.run(f"steps:\n- {{id: a, run: '{ending}'}}\n")
        assert ran.status == status
        assert ran.run == json.loads(ran.stdout) and len(ran.stdout.splitlines()) == 1
        assert ran.run["schema"] == "agentrun.run/1" and set(ran.run) >= {
            "id", "job", "state", "outcome", "interrupted", "created_at", "started_at", "finished_at",
            "scheduled_time", "steps_done", "steps_total", "current_step", "error", "resumes", "steps",
        }  # fmt: skip
        assert set(ran.step("a")) >= {
            "id", "instance", "state", "outcome", "attempts", "exit_code", "signal", "started_at", "finished_at",
            "inputs", "outputs", "error", "log",
        }  # fmt: skip
        assert ran.run == place.status(ran.run["id"]), "the same as `status RUN --json`"
    (summary,) = json.loads(place.call("status", "--json").stdout)
    assert (summary["id"], summary["outcome"]) == (place.run_id, "failed")


def test_what_the_steps_wrote_is_in_the_log_as_they_wrote_it_and_can_be_grepped(place: Place) -> None:
    ran = place.run("""
name: quotes
steps:
- {id: first, run: 'echo one; echo two >&2; printf "no end"'}
- {id: again, run: 'echo try $AGENTRUN_ATTEMPT; test $AGENTRUN_ATTEMPT = 2', retry: {max_attempts: 2, interval: 0s}}
- {id: bytes, run: 'printf "\\\\377\\\\000\\\\r\\\\n"'}
""")
    assert ran.status == 0, ran.stderr
    lines = place.call("logs", "quotes").stdout.splitlines()
    assert [line.partition(" | ")[2] for line in lines][:5] == ["one", "two", "no end", "try 1", "try 2"]
    assert "quotes/" in lines[0] and " 1/3 first#1 | one" in lines[0] and " 2/3 again#2 | try 2" in lines[4]
    raw = subprocess.run([*PROGRAM, "logs", "quotes", "--raw"], env=place.env, capture_output=True, timeout=LIMIT)
    assert raw.stdout == b"one\ntwo\nno endtry 1\ntry 2\n\xff\0\r\n"
    assert place.call("logs", "quotes", "--failed").stdout.count(" | ") <= 1


def test_a_resume_is_as_silent_as_a_run(place: Place) -> None:
    job = f"steps:\n- {{id: a, run: '{MARK}; test -e \"$ARENA/mended\"'}}\n"
    assert place.call("run", str(place.job("job", job))).status == 1
    again = place.call("resume", "job")
    assert again.status == 1 and again.stdout == "" and "attempt 2" in again.stderr
    place.file("mended", "")
    assert place.call("resume", "job")[:3] == (0, "", "")
