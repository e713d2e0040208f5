"""What is told of which run, to whom, and what is folded: real runs, a real server that hears of them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from agentrun.notify import words
from agentrun.notify.hearers import encoded, hearers
from agentrun.spec.decode import load
from agentrun.store.database import open_for_writing
from agentrun.store.notices import Notices

from .receiver import Post, Receiver

TICK = 1_780_000_000_000  # 2026-05-28T20:26:40Z


def test_a_failure_is_told_with_all_that_it_takes_to_repair_it(post: Post, receiver: Receiver) -> None:
    steps = "- {id: fetch, run: echo no route to host; exit 3}\n- {id: send, run: 'true'}\n"
    ran = post.told(f"{{webhook: '{receiver.url('/hook')}'}}", steps, name="quotes")
    assert ran.status == 3
    [request] = receiver.all()
    said = request.json
    run = post.run_id
    assert (said["schema"], said["event"], said["job"], said["run"]) == ("agentrun.notice/1", "failure", "quotes", run)
    assert (said["outcome"], said["step"], said["exit_code"], said["number"]) == ("failed", "fetch", 3, 1)
    assert said["error"] == "step 1 of 2, fetch: exit status 3"
    assert said["text"].splitlines() == ran.stderr.splitlines(), "what cron mails"
    assert "no route to host" in said["text"]
    assert said["resume"].endswith(f"resume {run}") and str(post.home) in said["resume"]
    assert said["id"] == request.headers["X-Agentrun-Id"] and said["since"] == said["at"]


def test_nobody_is_told_of_a_success_or_a_cancel(post: Post, receiver: Receiver) -> None:
    to = f"{{webhook: '{receiver.url('/hook')}'}}"
    post.told(to, "- run: 'true'\n")
    gate = post.gate("held")
    process = post.start("run", str(post.job("job", f"notify: {{to: [{to}]}}\nsteps:\n- run: {gate.shell!r}\n")))
    gate.reached()
    post.call("cancel", "job")
    process.wait(60)
    post.delivered()
    assert post.rows("SELECT outcome FROM runs ORDER BY id") == [("succeeded",), ("cancelled",)]
    assert receiver.all() == [] and post.notices() == []
    assert post.rows("SELECT * FROM hearers") == []


@pytest.mark.parametrize(
    ("steps", "outcome", "status"),
    [
        ("- {run: sleep 60, timeout: 50ms}\n", "failed", 124),
        ("- {run: sleep 60}\ndeadline: 100ms\n", "timed_out", 124),
        ("- {run: 'true'}\n- {run: 'true'}\nbudget: {steps: 1}\n", "over_budget", 125),
    ],
)
def test_every_bad_end_is_a_failure(post: Post, receiver: Receiver, steps: str, outcome: str, status: int) -> None:
    ran = post.told(f"{{webhook: '{receiver.url('/hook')}'}}", steps)
    said = receiver.next().json
    assert (said["event"], said["outcome"], said["exit_code"]) == ("failure", outcome, status)
    assert ran.status == status


def test_the_same_failure_is_told_first_and_then_every_nth_time_until_it_recovers(
    post: Post, receiver: Receiver
) -> None:
    to = f"{{webhook: '{receiver.url('/hook')}'}}"
    for _ in range(5):
        post.told(to, every="2")
    heard = [request.json for request in receiver.all()]
    assert [said["number"] for said in heard] == [1, 2, 4]
    assert {said["since"] for said in heard} == {heard[0]["at"]} and heard[-1]["at"] > heard[0]["at"]
    folded = [row for row in post.notices() if row[1] == "folded"]
    assert [row[4] for row in folded] == [f"the {nth} of the same kind in a row: every 2nd is told" for nth in
                                          ("3rd", "5th")]  # fmt: skip
    post.told(to, "- run: exit 4\n", every="2")
    assert receiver.next().json["number"] == 1, "another cause"
    post.told(to, "- run: 'true'\n", every="2")
    recovery = receiver.next().json
    assert (recovery["event"], recovery["outcome"], recovery["exit_code"]) == ("recovery", "succeeded", 0)
    post.told(to, "- run: 'true'\n", every="2")
    post.told(to, "- run: exit 4\n", every="2")
    assert [(said["event"], said["number"]) for said in (r.json for r in receiver.all())] == [("failure", 1)]


def test_a_recovery_is_seen_before_the_failure_was_delivered(post: Post, receiver: Receiver) -> None:
    """Both runs end while no deliverer comes to work: somebody else holds its place."""
    to = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}]}}\n"
    post.call("status")
    post.home.mkdir(mode=0o700, exist_ok=True)
    with post.lock(0), post.lock(1):
        post.call("run", str(post.job("job", f"{to}steps:\n- run: exit 1\n")))
        post.call("run", str(post.job("job", f"{to}steps:\n- run: 'true'\n")))
        assert [row[:2] for row in post.notices()] == [("end", "raised"), ("end", "raised")]
    post.delivered()
    assert sorted(request.json["event"] for request in receiver.all()) == ["failure", "recovery"]


def test_on_says_what_is_told(post: Post, receiver: Receiver) -> None:
    to = f"{{webhook: '{receiver.url('/hook')}'}}"
    post.told(to, on="[recovery]")
    post.told(to, "- run: 'true'\n", on="[recovery]")
    post.told(to, "- run: 'true'\n", on="[success]")
    assert [request.json["event"] for request in receiver.all()] == ["recovery", "success"]


def test_pings_tell_of_every_start_and_end_with_one_id(post: Post, receiver: Receiver) -> None:
    to = f"{{ping: '{receiver.url('/ping')}'}}"
    post.told(to, on="[]")
    post.told(to, "- run: 'true'\n", on="[]")
    post.told(to, "- run: sleep 60\ndeadline: 100ms\n", on="[]")
    pings = receiver.all()
    paths = [ping.path.partition("?")[0] for ping in pings]
    assert paths == ["/ping/start", "/ping/3", "/ping/start", "/ping", "/ping/start", "/ping/124"]
    ids = [ping.path.partition("?rid=")[2] for ping in pings]
    assert ids[0] == ids[1] and ids[2] == ids[3] and len(set(ids)) == 3
    assert all(str(uuid.UUID(text)) == text for text in ids)
    assert b"exit status 3" in pings[1].body


def test_a_resumed_run_has_one_start_and_one_that_was_reopened_another(post: Post, receiver: Receiver) -> None:
    to = f"notify: {{to: [{{ping: '{receiver.url('/ping')}'}}]}}\n"
    gate = post.gate("held")
    process = post.start("run", str(post.job("job", f"{to}steps:\n- run: {gate.shell!r}\n- run: exit 2\n")))
    gate.reached()
    post.kill_everything()
    process.wait(60)
    gate.open()
    post.call("resume")
    post.delivered()
    assert [ping.path.partition("?")[0] for ping in receiver.all()] == ["/ping/start", "/ping/2"]
    post.call("resume", post.run_id)
    post.delivered()
    assert [ping.path.partition("?")[0] for ping in receiver.all()] == ["/ping/start", "/ping/2"]


def test_a_run_that_waits_is_told_with_the_commands_that_answer(post: Post, receiver: Receiver) -> None:
    gate = post.gate("held")
    text = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}]}}\nsteps:\n"
    shell = f"printf 'mail %s\\n' 1 2 '3 of 9'; {gate.shell}"
    text += f"- {{id: send, run: {json.dumps(shell)}, on_interrupt: ask}}\n"
    process = post.start("run", str(post.job("job", text)))
    gate.reached()
    post.kill_everything()
    process.wait(60)
    assert post.call("resume", post.run_id).status == 75
    post.delivered()
    said = receiver.next().json
    assert said["event"] == "waiting" and f"resume {post.run_id} --took-place send" in said["text"]
    lines = said["text"].splitlines()
    assert lines[2:5] == ["    | mail 1", "    | mail 2", "    | mail 3 of 9"], "what it said last"
    assert lines[5].startswith("  its log: ") and lines[5].endswith(f" logs {post.run_id} --step send")
    assert lines[-1] == "the next runs of job are skipped until you answer"
    assert post.call("run", str(post.root / "job.yaml")).status == 75, "so it is"
    assert post.call("resume", post.run_id, "--took-place", "send").status == 0
    post.delivered()
    assert receiver.all() == []


def test_a_child_run_tells_nobody_by_itself(post: Post, receiver: Receiver) -> None:
    to = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}, {{ping: '{receiver.url('/ping')}'}}]}}\n"
    post.job("inner", f"{to}steps:\n- run: exit 5\n")
    post.told(f"{{webhook: '{receiver.url('/hook')}'}}", "- {id: call, job: inner.yaml}\n")
    [request] = receiver.all()
    assert (request.json["job"], request.json["step"]) == ("job", "call")


def test_config_yaml_speaks_for_jobs_that_say_nothing(post: Post, receiver: Receiver) -> None:
    post.config(f"notify: {{to: [{{webhook: '{receiver.url('/config')}'}}]}}\n")
    assert post.call("run", str(post.job("plain", "steps:\n- run: exit 1\n"))).status == 1
    post.told(f"{{webhook: '{receiver.url('/own')}'}}", name="own")
    post.told("", name="none")
    post.delivered()
    assert sorted(request.path for request in receiver.all()) == ["/config", "/own"]


def test_a_wrong_config_yaml_stops_no_run_and_is_said_once(post: Post) -> None:
    path = post.config("notify: {to: [{mail: a}]}\nkeeep: {}\n")
    ran = post.call("run", str(post.job("job", "steps:\n- run: 'true'\n")))
    assert ran.status == 0
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"agentrun: {path}:1: 'mail' expects one address")


def test_missed_ticks_are_told_and_folded(post: Post, receiver: Receiver) -> None:
    post.told(f"{{webhook: '{receiver.url('/hook')}'}}", "- run: 'true'\n")
    file = str(post.root / "job.yaml")
    who = encoded(hearers(load(file)[0]))
    row = {"first": 1_780_000_000_000, "last": 1_780_000_120_000, "number": 3, "reason": "catch_up"}
    database = open_for_writing(str(post.home))
    notices = Notices(database)
    for _ in range(3):
        notices.miss("job", file, who, [row], at=1_780_000_200_000)
    notices.miss("job", file, None, [row], at=1_780_000_200_000)
    notices.miss("job", file, who, [], at=1_780_000_200_000)
    database.close()
    post.delivered()
    [request] = receiver.all()
    assert request.json["event"] == "missed" and request.json["run"] is None
    assert "3 ticks: 2026-05-28T20:26:40.000Z to 2026-05-28T20:28:40.000Z" in request.json["text"]
    assert [row[1] for row in post.notices()] == ["sent", "folded", "folded"]


def missed(post: Post, file: Path, *reasons: str) -> None:
    """A notice of missed ticks of job `job`, which are three for each reason."""
    who = encoded(hearers(load(str(file))[0]))
    rows = [
        {"first": TICK + n * 180_000, "last": TICK + n * 180_000 + 120_000, "number": 3, "reason": reason}
        for n, reason in enumerate(reasons)
    ]
    database = open_for_writing(str(post.home))
    Notices(database).miss("job", str(file), who, rows, at=TICK + 600_000)
    database.close()
    post.delivered()


def test_missed_ticks_name_the_command_that_runs_them(post: Post, receiver: Receiver) -> None:
    to = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}]}}\n"
    file = post.job("job", f"{to}steps: [{{run: 'true'}}]\n")
    missed(post, file, "catch_up")
    last = receiver.next().json["text"].splitlines()[-1]
    program, times = last.removeprefix("run them now:  ").split(" backfill job ")
    assert program.startswith(f"AGENTRUN_HOME={post.home} ") and "/" in program.partition(" ")[2]
    assert times == "--from 2026-05-28T20:26:40.000Z --to 2026-05-28T20:28:40.000Z"


def test_missed_ticks_for_which_a_newer_one_stands_need_no_command(post: Post, receiver: Receiver) -> None:
    to = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}]}}\n"
    file = post.job("job", f"{to}schedule: '* * * * *'\ncatch_up: latest\nsteps: [{{run: 'true'}}]\n")
    missed(post, file, "catch_up")
    text = receiver.next().json["text"]
    assert text.endswith("(a newer one stands for it)") and "backfill" not in text
    missed(post, file, "catch_up", "file")
    text = receiver.next().json["text"]
    assert "--from 2026-05-28T20:29:40.000Z --to 2026-05-28T20:31:40.000Z" in text, "of the others"


def test_a_stuck_step_is_told_while_it_is(post: Post, receiver: Receiver) -> None:
    gate = post.gate("held")
    text = f"notify: {{to: [{{webhook: '{receiver.url('/hook')}'}}]}}\nsteps:\n"
    text += f"- {{id: call, run: {gate.shell!r}, stuck_after: 1s}}\n"
    process = post.start("run", str(post.job("job", text)))
    gate.reached()
    said = receiver.next().json
    assert (said["event"], said["step"], said["run"]) == ("stuck", "call", post.run_id)
    assert said["since"] < said["at"]
    gate.open()
    assert process.wait(60) == 0


def test_who_gave_way_is_not_asked_for(post: Post) -> None:
    """Of a job that tells nobody nothing is written, and no deliverer begins."""
    post.run("steps:\n- run: exit 1\n")
    assert post.notices() == [] and not (post.home / "deliver.lock").exists()


def test_ordinals() -> None:
    numbers = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th", 20: "20th",
               21: "21st", 22: "22nd", 101: "101st", 111: "111th", 113: "113th", 123: "123rd"}  # fmt: skip
    assert {number: words.ordinal(number) for number in numbers} == numbers


