"""Which call starts a run, and which only stands for one: keys, ticks, parameters, detached runs."""

from __future__ import annotations

import pytest

from ..kill.arena import LIMIT
from .place import MARK, Place

JOB = f"steps:\n- {{id: a, run: '{MARK}'}}\n"


def test_the_same_key_again_is_the_same_run(place: Place) -> None:
    first = place.run(JOB, "--run-key", "order 7")
    again = place.run(JOB, "--run-key", "order 7")
    assert (first.status, again.status, again.stderr) == (0, 0, "")
    assert first.run["id"] == again.run["id"] and again.run["run_key"] == "order 7"
    assert place.run(JOB, "--run-key", "order 8").run["id"] != first.run["id"]
    assert place.run(JOB, "--run-key", "order 7", name="other").run["id"] != first.run["id"], "a key is a job's own"
    assert place.marks() == ["a", "a", "a"]


def test_the_key_of_a_failed_run_gives_its_status_again_and_runs_nothing(place: Place) -> None:
    job = f"steps:\n- {{id: a, run: '{MARK}; exit 6'}}\n"
    assert place.run(job, "--run-key", "k").status == 6
    again = place.run(job, "--run-key", "k")
    assert again.status == 6 and f"agentrun resume {again.run['id']}" in again.stderr
    assert place.marks() == ["a"]


def test_the_key_with_other_parameters_is_refused(place: Place) -> None:
    job = f"params: {{n: {{default: 1}}}}\n{JOB}"
    assert place.run(job, "--run-key", "k", "-p", "n=1").status == 0
    refused = place.run(job, "--run-key", "k", "-p", "n=2")
    assert refused.status == 2 and "n" in refused.stderr
    assert place.marks() == ["a"]


def test_five_at_once_with_one_key_are_one_run(place: Place) -> None:
    gate = place.gate("gate")
    job = str(place.job("job", f"steps:\n- {{id: a, run: '{MARK}; {gate.shell}'}}\n"))
    processes = [place.start("run", job, "--run-key", "k") for _ in range(5)]
    gate.reached()
    # the four others find it taken, and end; the one that has it waits at the gate
    owner = place.owner()
    others = [process for process in processes if process.pid != owner]
    assert len(others) == 4
    assert [process.wait(LIMIT) for process in others] == [75] * 4
    assert [process.communicate() for process in others] == [("", "")] * 4, "silent: nothing is wrong"
    gate.open()
    assert [process.wait(LIMIT) for process in processes if process.pid == owner] == [0]
    assert place.marks() == ["a"] and place.rows("SELECT count(*) FROM runs") == [(1,)]
    assert len(list((place.home / "runs").iterdir())) == 1, "and no folder of theirs is left"


def test_the_key_of_an_interrupted_run_takes_it_up(place: Place) -> None:
    gate = place.gate("gate")
    job = str(place.job("job", f"steps:\n- {{id: a, run: '{MARK}'}}\n- {{id: b, run: '{gate.shell}'}}\n"))
    place.start("run", job, "--run-key", "k")
    gate.reached()
    place.kill_everything()
    second = place.start("run", job, "--run-key", "k")
    gate.reached()
    gate.open()
    assert second.wait(LIMIT) == 0
    assert place.marks() == ["a"] and place.rows("SELECT outcome FROM runs") == [("succeeded",)]


def test_a_tick_is_run_once_however_it_is_written(place: Place) -> None:
    first = place.run(JOB, "--scheduled-time", "2026-11-20T10:00:00Z")
    again = place.run(JOB, "--scheduled-time", "2026-11-20T11:00:00+01:00")
    later = place.run(JOB, "--scheduled-time", "2026-11-20T10:15:00Z")
    assert first.run["id"] == again.run["id"] != later.run["id"]
    assert first.run["scheduled_time"] == "2026-11-20T10:00:00.000Z"
    assert place.marks() == ["a", "a"]
    refused = place.run(JOB, "--scheduled-time", "yesterday")
    assert refused.status == 2 and "RFC 3339" in refused.stderr


def test_parameters_are_of_the_type_of_their_default(place: Place) -> None:
    job = """
params: {who: {}, n: {default: 1}, yes: {default: false}, list: {default: []}, text: {default: "5"}, free: {required: false}}
steps:
- python: |
    def main(**given): return given
  with: {who: '${{ params.who }}', n: '${{ params.n }}', yes: '${{ params.yes }}', list: '${{ params.list }}', text: '${{ params.text }}', free: '${{ params.free }}'}
"""  # noqa: E501
    given = ["-p", "who=a=b c", "-p", "n=7", "-p", "yes=true", "-p", 'list=[1,"x"]', "--param", "text=0012"]
    ran = place.run(job, *given)
    assert ran.status == 0, ran.stderr
    expected = {"who": "a=b c", "n": 7, "yes": True, "list": [1, "x"], "text": "0012", "free": None}
    assert ran.run["params"] == expected and ran.run["steps"][0]["outputs"] == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ["who"]),
        (["-p", "who"], ["-p who", "key=value"]),
        (["-p", "who=x", "-p", "whom=y"], ["whom", "who"]),
        (["-p", "who=x", "-p", "n=many"], ["n=many", "1"]),
        (["-p", "who=x", "-p", "n=true"], ["n=true"]),
    ],
)
def test_wrong_parameters_are_a_mistake_in_the_command(place: Place, given: list[str], words: list[str]) -> None:
    ran = place.run("params: {who: {}, n: {default: 1}}\nsteps:\n- {run: 'true'}\n", *given)
    assert (ran.status, ran.stdout) == (2, "")
    assert [word for word in words if word not in ran.stderr] == [], ran.stderr
    assert place.rows("SELECT count(*) FROM runs") == [(0,)], "nothing was begun"


def test_a_detached_run_goes_on_by_itself(place: Place) -> None:
    gate = place.gate("gate")
    job = str(place.job("job", f"steps:\n- {{id: a, run: '{gate.shell}'}}\n- {{id: b, run: '{MARK}'}}\n"))
    done = place.call("run", job, "--detach", "--run-key", "k")
    assert (done.status, done.stdout, done.stderr) == (0, f"{place.run_id}\n", "")
    gate.reached()
    assert place.status("job")["interrupted"] is False
    assert place.call("run", job, "--detach", "--run-key", "k").status == 75, "somebody advances it"
    gate.open()
    place.wait_until_let_go()
    assert place.status("job")["outcome"] == "succeeded"
    assert place.marks() == ["b"]


def test_a_detached_run_whose_key_has_finished_is_not_run_again(place: Place) -> None:
    assert place.run(JOB, "--run-key", "k").status == 0
    again = place.call("run", str(place.root / "job.yaml"), "--detach", "--run-key", "k")
    assert again.status == 0 and place.marks() == ["a"]
