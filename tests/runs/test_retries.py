"""When a failed attempt is followed by another, after how long, and what stays the same."""

from __future__ import annotations

from itertools import pairwise

import pytest

from .place import Place, Ran, milliseconds

RAISE = """
class Ours(ConnectionError): pass
class Deep(Ours): pass
def os_error(): raise FileNotFoundError(2, "no such thing")
def deep(): raise Deep("far away")
def value(): raise ValueError("not this one")
def leave(): raise SystemExit(75)
"""

# what the step does, its `retry` beside max_attempts and interval, and the attempts that follow from both
CAUSES = {
    "any_status": ("run: exit 1", "", 3),
    "status": ("run: exit 75", "on: [75]", 3),
    "other_status": ("run: exit 74", "on: [75]", 1),
    "in_range": ("run: exit 105", "on: [100-110]", 3),
    "first_of_range": ("run: exit 100", "on: [100-110]", 3),
    "last_of_range": ("run: exit 110", "on: [100-110]", 3),
    "beyond_range": ("run: exit 111", "on: [100-110]", 1),
    "any_signal": ("run: kill -TERM $$", "on: [signal]", 3),
    "this_signal": ("run: kill -SEGV $$", "on: [SIGSEGV]", 3),
    "other_signal": ("run: kill -TERM $$", "on: [SIGSEGV]", 1),
    "signal_is_no_status": ("run: kill -TERM $$", "on: [143]", 1),
    "status_is_no_signal": ("run: exit 143", "on: [signal]", 1),
    "timeout_too": ("run: 'read _ < \"$ARENA/never\"', timeout: 100ms, grace: 0s", "", 3),
    "timeout": ("run: 'read _ < \"$ARENA/never\"', timeout: 100ms, grace: 0s", "on: [timeout]", 3),
    "timeout_only": ("run: exit 124", "on: [timeout]", 1),
    "no_timeout": ("run: 'read _ < \"$ARENA/never\"', timeout: 100ms, grace: 0s", "never_on: [timeout]", 1),
    "exception": ("python: 'bad:os_error'", "on: [FileNotFoundError]", 3),
    "base_class": ("python: 'bad:os_error'", "on: [OSError]", 3),
    "own_class": ("python: 'bad:deep'", "on: [Ours]", 3),
    "far_base": ("python: 'bad:deep'", "on: [OSError]", 3),
    "other_class": ("python: 'bad:value'", "on: [OSError, KeyError]", 1),
    "exception_status": ("python: 'bad:value'", "on: [1]", 3),
    "sys_exit": ("python: 'bad:leave'", "on: [75]", 3),
    "never_status": ("run: exit 65", "never_on: [65]", 1),
    "never_beats_on": ("run: exit 65", "on: [60-70], never_on: [65]", 1),
    "never_base": ("python: 'bad:deep'", "on: [Deep], never_on: [OSError]", 1),
    "never_other": ("run: exit 66", "never_on: [65]", 3),
    "not_found": ("run: no-such-command-anywhere", "", 1),
    "not_executable": ("run: ./plain.txt", "", 1),
    "not_found_by_name": ("run: no-such-command-anywhere", "on: [127]", 3),
    "exit_126": ("run: exit 126", "", 1),
    "exit_127": ("run: exit 127", "", 1),
    "bad_outputs": ("run: 'echo nonsense > \"$AGENTRUN_OUTPUT\"'", "", 1),
    "bad_outputs_by_name": ("run: 'echo nonsense > \"$AGENTRUN_OUTPUT\"'", "on: [outputs]", 3),
}


@pytest.mark.parametrize("part", range(2))
def test_the_cause_decides_whether_an_attempt_is_followed_by_another(place: Place, part: int) -> None:
    causes = dict(list(CAUSES.items())[part::2])
    place.file("bad.py", RAISE)
    place.file("plain.txt", "not a program\n")
    place.gate("never")  # a FIFO `never.go`, and one that nobody writes to:
    (place.root / "never").symlink_to(place.root / "never.go")
    steps = "".join(
        f"- {{id: {name}, needs: [], {what}, retry: {{max_attempts: 3, interval: 0s, {retry}}}}}\n"
        for name, (what, retry, _) in causes.items()
    )
    ran = place.run(f"steps:\n{steps}")
    assert ran.run["outcome"] == "failed"
    assert {name: step["attempts"] for name, step in ran.steps.items()} == {
        name: attempts for name, (_, _, attempts) in causes.items()
    }
    assert {step["outcome"] for step in ran.steps.values()} <= {"failed", "timed_out"}


def test_attempts_are_numbered_and_have_one_key(place: Place) -> None:
    tell = 'echo "$AGENTRUN_ATTEMPT $AGENTRUN_IDEMPOTENCY_KEY $AGENTRUN_INTERRUPTED" >> "$ARENA/ledger"'
    job = f"""
params: {{who: {{default: acme}}}}
steps:
- {{id: a, run: '{tell}; test "$AGENTRUN_ATTEMPT" = 3', retry: {{max_attempts: 5, interval: 0s}}}}
- {{id: b, run: '{tell}'}}
- {{id: c, run: '{tell}', idempotency_key: '${{{{ params.who }}}}-7'}}
"""
    ran = place.run(job)
    assert ran.status == 0
    numbers, keys, interrupted = zip(*(line.split() for line in place.marks()), strict=True)
    assert numbers == ("1", "2", "3", "1", "1")
    assert len(set(keys[:3])) == 1 and keys[3] != keys[0] and keys[4] == "acme-7"
    assert set(interrupted) == {"0"}, "a failure is no interruption"
    assert ran.step("a")["idempotency_key"] == keys[0]
    assert [(each["number"], each["exit_code"]) for each in ran.step("a")["history"]] == [(1, 1), (2, 1), (3, 0)]
    assert place.run(job).step("a")["idempotency_key"] != keys[0], "another run, another key"


def pauses(ran: Ran, step: str) -> list[int]:
    """Between each end and the next start, in ms; 2 added, since two processes round two clocks."""
    history = ran.step(step)["history"]
    return [
        milliseconds(later["started_at"]) - milliseconds(earlier["finished_at"]) + 2
        for earlier, later in pairwise(history)
    ]


def test_pauses_grow_up_to_their_limit(place: Place) -> None:
    retry = "{max_attempts: 4, interval: 80ms, backoff: 2, max_interval: 200ms, jitter: none}"
    ran = place.run(f"steps:\n- {{id: a, run: exit 1, retry: {retry}}}\n")
    assert [pause >= least for pause, least in zip(pauses(ran, "a"), (80, 160, 200), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    "write", ["echo retry_after=0.25", "echo retry_after=250ms", "echo {\\\"retry_after\\\": 0.25}"]
)
def test_a_step_says_itself_when_it_wants_to_be_tried_again(place: Place, write: str) -> None:
    # without its word the next attempt would come in an hour: the test ends because it was heard
    ran = place.run(f"""
steps:
- id: a
  run: |
    {write} > "$AGENTRUN_OUTPUT"
    test "$AGENTRUN_ATTEMPT" = 2
  retry: {{max_attempts: 3, interval: 1h, max_interval: 1h, jitter: none}}
""")
    assert (ran.status, ran.step("a")["attempts"]) == (0, 2)
    assert pauses(ran, "a")[0] >= 250
    assert ran.step("a")["outputs"] in (None, {}), "it is no output"


def test_a_python_step_says_so_too(place: Place) -> None:
    place.file("later.py", """
import os
def main():
    with open(os.environ["AGENTRUN_OUTPUT"], "w") as file:
        file.write("retry_after=0\\n")
    if os.environ["AGENTRUN_ATTEMPT"] == "1":
        raise ConnectionError("busy")
""")  # fmt: skip
    retry = "{max_attempts: 2, interval: 1h, max_interval: 1h, jitter: none}"
    ran = place.run(f"steps:\n- {{id: a, python: 'later:main', retry: {retry}}}\n")
    assert (ran.status, ran.step("a")["attempts"]) == (0, 2)


def test_continue_on_error_covers_a_step_after_its_last_attempt(place: Place) -> None:
    place.gate("never")
    ran = place.run("""
steps:
- {id: bad, run: exit 3, continue_on_error: true, retry: {max_attempts: 2, interval: 0s}}
- {id: slow, run: 'read _ < "$ARENA/never.go"', timeout: 100ms, grace: 0s, continue_on_error: true}
- {id: next, run: 'echo "$BAD $SLOW" >> "$ARENA/ledger"', env: {BAD: '${{ steps.bad.outcome }}', SLOW: '${{ steps.slow.outcome }}'}}
- {id: alarm, when: on_failure, run: 'echo alarm >> "$ARENA/ledger"'}
""")  # noqa: E501
    assert (ran.status, ran.run["outcome"]) == (0, "succeeded")
    assert ran.outcomes == {
        "bad": "failed", "slow": "timed_out", "next": "succeeded", "alarm": "skipped (no_failure)",
    }  # fmt: skip
    assert place.marks() == ["failed timed_out"]
    assert ran.step("bad")["attempts"] == 2
    assert [ran.step(name)["continued"] for name in ("bad", "slow", "next")] == [True, True, False]


def test_defaults_are_merged_key_by_key(place: Place) -> None:
    ran = place.run("""
defaults: {retry: {max_attempts: 3, interval: 0s}}
steps:
- {id: a, run: exit 1, needs: []}
- {id: b, run: exit 1, needs: [], retry: {max_attempts: 2}}
- {id: c, run: exit 1, needs: [], retry: {never_on: [1]}}
""")
    assert [ran.step(name)["attempts"] for name in "abc"] == [3, 2, 1]


def test_a_step_that_waits_for_its_retry_holds_no_slot(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("slots", f"""
max_parallel: 1
steps:
- {{id: a, needs: [], run: 'test "$AGENTRUN_ATTEMPT" = 2', retry: {{max_attempts: 2, interval: 1s, jitter: none}}}}
- {{id: b, needs: [], run: '{gate.shell}'}}
""")  # fmt: skip
    run = place.start("run", str(job))
    gate.reached()
    assert place.rows("SELECT instance, state FROM steps ORDER BY 1") == [("a", "waiting"), ("b", "running")]
    gate.open()
    assert run.wait() == 0
