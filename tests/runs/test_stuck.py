"""Steps that do nothing, in whole runs: reported once for each silence or ended, whoever is killed meanwhile."""

from __future__ import annotations

import pytest

from ..kill.arena import LIMIT, Gate
from ..kill.test_instances import wait_for
from .place import MARK, Place

STUCK, UNSTUCK = ("step_stuck", "quiet", 1), ("step_unstuck", "quiet", 1)


def told(place: Place) -> list[tuple[str, str, int]]:
    return place.rows("SELECT kind, instance, attempt FROM events WHERE kind LIKE 'step_%stuck' ORDER BY seq")  # type: ignore[return-value]


def since(place: Place) -> str | None:
    found: str | None = place.status("job")["steps"][0]["stuck_since"]
    return found


def begin(place: Place, then: str = "") -> Gate:
    """A run whose step waits at a gate until it is told to be stuck; `then` is what it does after that."""
    gate = place.gate("gate")
    program = gate.shell + then
    job = place.job("job", f"steps:\n- id: quiet\n  stuck_after: 1s\n  grace: 100ms\n  run: '{program}'\n")
    place.start("run", str(job))
    gate.reached()
    wait_for(lambda: told(place))
    assert told(place) == [STUCK]
    return gate


def test_a_stuck_step_is_reported_until_it_goes_on(place: Place) -> None:
    gate = begin(place, "; echo on; read _ < $ARENA/gate.go")
    assert since(place) is not None
    (line,) = [line for line in place.call("status", "job").stdout.splitlines() if "quiet" in line]
    assert "running" in line and "no output and no CPU for " in line
    gate.open()
    wait_for(lambda: told(place) == [STUCK, UNSTUCK, STUCK])
    at = "SELECT json_extract(detail, '$.since') FROM events WHERE kind = 'step_stuck'"
    (first,), (second,) = place.rows(at)
    assert first < second
    gate.open()
    assert place.processes[0].wait(LIMIT) == 0, "a report ends nothing"
    assert place.processes[0].communicate() == ("", ""), "and cron has nothing to mail"
    assert told(place) == [STUCK, UNSTUCK, STUCK]
    assert since(place) is None


def test_with_kill_it_is_ended_as_by_its_timeout(place: Place) -> None:
    ran = place.run(f"""
steps:
- id: quiet
  stuck_after: 1s
  on_stuck: kill
  retry: {{max_attempts: 2, interval: 0s, on: [stuck]}}
  run: '{MARK}; sleep 100'
- {{id: alarm, when: on_failure, run: '{MARK}'}}
""")
    assert (ran.status, ran.run["outcome"], place.marks()) == (124, "failed", ["quiet", "quiet", "alarm"])
    step = ran.step("quiet")
    error = "stuck: no output and no CPU for 1s"
    assert (step["outcome"], step["reason"], step["error"], step["attempts"]) == ("timed_out", "stuck", error, 2)
    assert told(place) == [], "what is ended has its end told"
    assert error in ran.stderr
    (line,) = [line for line in place.call("status", "job").stdout.splitlines() if " quiet " in line]
    assert "timed_out" in line and line.endswith(error)


@pytest.mark.parametrize(("retry", "attempts"), [
    ("{max_attempts: 2, interval: 0s}", 2), ("{max_attempts: 2, interval: 0s, on: [timeout]}", 2),
    ("{max_attempts: 2, interval: 0s, on: [75]}", 1), ("{max_attempts: 2, interval: 0s, never_on: [stuck]}", 1),
])  # fmt: skip
def test_it_is_tried_again_as_after_a_timeout(place: Place, retry: str, attempts: int) -> None:
    ran = place.run(f"""
steps:
- {{id: quiet, stuck_after: 1s, on_stuck: kill, run: 'exec sleep 100', retry: {retry}}}
""")
    assert (ran.status, ran.step("quiet")["attempts"]) == (124, attempts)


def test_a_condition_that_does_nothing_does_not_answer(place: Place) -> None:
    ran = place.run(f"steps:\n- {{id: a, if: sleep 100, run: '{MARK}', stuck_after: 1s, on_stuck: kill}}\n")
    error = "its `if` did not answer: stuck: no output and no CPU for 1s"
    assert (ran.status, ran.step("a")["error"], place.marks()) == (124, error, [])


def test_a_stuck_condition_is_reported_and_is_not_stuck_when_it_has_answered(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"steps:\n- {{id: quiet, if: '{gate.shell}', run: '{gate.shell}', stuck_after: 1s}}\n")
    place.start("run", str(job))
    gate.reached()
    wait_for(lambda: told(place) == [("step_stuck", "quiet", 0)])
    assert since(place) is not None
    gate.open()
    gate.reached()
    wait_for(lambda: told(place)[:2] == [("step_stuck", "quiet", 0), ("step_unstuck", "quiet", 0)])
    gate.open()
    assert place.processes[0].wait(LIMIT) == 0


@pytest.mark.parametrize("kills", [1, 3])
def test_the_next_supervisor_does_not_tell_it_again(place: Place, kills: int) -> None:
    gate = begin(place, "; echo on; read _ < $ARENA/gate.go")
    before = since(place)
    for number in range(kills):
        place.kill(place.owner())
        epoch = [(number + 2,)]
        wait_for(lambda epoch=epoch: place.rows("SELECT epoch FROM runs") == epoch)
    gate.open()  # that it went on is told after all that the new one was told when it came
    wait_for(lambda: told(place)[2:])
    assert told(place) == [STUCK, UNSTUCK, STUCK]
    assert since(place) not in (None, before)
    gate.open()
    place.wait_until_let_go()
    assert place.rows("SELECT outcome FROM runs") == [("succeeded",)]


def test_the_shim_ends_it_while_nobody_supervises(place: Place) -> None:
    gate = place.gate("gate")
    job = place.job("job", f"""
steps:
- {{id: quiet, run: '{gate.shell}', stuck_after: 1s, on_stuck: kill}}
""")  # fmt: skip
    place.start("run", str(job))
    gate.reached()
    place.kill(place.owner())
    place.wait_until_let_go()
    step = place.status("job")["steps"][0]
    assert (step["outcome"], step["reason"], step["attempts"]) == ("timed_out", "stuck", 1)


def test_after_everything_was_killed_the_next_attempt_begins_anew(place: Place) -> None:
    gate = begin(place)
    place.kill_everything()
    assert since(place) is None, "nobody holds it: it is interrupted, not stuck"
    resume = place.start("resume", "job")
    gate.reached()
    wait_for(lambda: told(place)[1:])
    assert told(place) == [STUCK, ("step_stuck", "quiet", 2)]
    gate.open()
    assert resume.wait(LIMIT) == 0


def test_the_journal_says_enough_to_have_it_again(place: Place) -> None:
    gate = begin(place)
    gate.open()
    assert place.processes[0].wait(LIMIT) == 0
    for name in ("agentrun.db", "agentrun.db-wal", "agentrun.db-shm"):
        (place.home / name).unlink(missing_ok=True)
    assert place.call("doctor", "--repair").status == 0
    assert told(place) == [STUCK]
