"""Nothing waits for a delivery, nothing is lost, nothing is sent twice by two: real deliverers, killed and hung."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from agentrun.notify.deliverer import _overtaken, _ready
from agentrun.store.notices import PAUSES, TRIES, Notice

from ..kill.arena import LIMIT, wait_gone
from ..runs.place import PROGRAM
from .receiver import Post, Receiver, is_locked

MINUTE = 60_000


def hook(receiver: Receiver, path: str = "/hook") -> str:
    return f"{{webhook: '{receiver.url(path)}'}}"


def deliverers(post: Post) -> list[int]:
    """The processes that send for this place."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue
        if b"deliver" in arguments and f"AGENTRUN_HOME={post.home}".encode() in environment:
            found.append(pid)
    return found


def test_a_webhook_that_hangs_holds_up_nothing(post: Post, receiver: Receiver) -> None:
    """Neither the run nor its steps, nor who reads its output to the end, nor who holds a lock around it."""
    receiver.hanging.add("/hook")
    job = post.job("job", f"notify: {{to: [{hook(receiver)}]}}\nsteps:\n- run: exit 3\n")
    lock = os.open(post.root / "flock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    ran = subprocess.run(
        [*PROGRAM, "run", str(job)], env=post.env, capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
        pass_fds=[lock],
    )  # fmt: skip
    assert ran.returncode == 3
    receiver.next()
    at_work = deliverers(post)
    assert at_work and is_locked(post.home / "deliver.lock")
    for pid in at_work:  # the deliverer and its sender
        assert os.getsid(pid) == pid
        held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert {held[fd] for fd in "012"} == {os.devnull} and str(post.root / "flock") not in held.values()
    receiver.let_go.set()
    post.delivered()


def test_where_nothing_outlives_the_command_it_waits_for_the_delivery(post: Post, receiver: Receiver) -> None:
    """As the main process of a systemd unit."""
    receiver.hanging.add("/hook")
    job = post.job("job", f"notify: {{to: [{hook(receiver)}]}}\nsteps:\n- run: exit 3\n")
    shell = f"SYSTEMD_EXEC_PID=$$ exec {' '.join(PROGRAM)} run {job}"
    process = subprocess.Popen(["sh", "-c", shell], env=post.env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    receiver.next()
    assert process.stderr is not None and b"failed" in process.stderr.readline(), "the run has ended"
    assert process.poll() is None
    receiver.let_go.set()
    assert process.wait(LIMIT) == 3
    process.stderr.close()
    assert not deliverers(post)


def test_another_notice_does_not_wait_for_one_that_hangs(post: Post, receiver: Receiver) -> None:
    receiver.hanging.add("/hang")
    text = "notify: {{to: [{}]}}\nsteps:\n- run: exit 3\n"
    post.call("run", str(post.job("slow", text.format(hook(receiver, "/hang")))))
    assert receiver.next().path == "/hang"
    post.call("run", str(post.job("quick", text.format(hook(receiver, "/quick")))))
    assert receiver.next().path == "/quick"
    assert post.rows("SELECT state FROM notices WHERE job = 'slow'") == [("queued",)]
    receiver.let_go.set()
    post.delivered()


def test_a_killed_deliverer_loses_nothing(post: Post, receiver: Receiver) -> None:
    receiver.hanging.add("/hook")
    post.call("run", str(post.job("job", f"notify: {{to: [{hook(receiver)}]}}\nsteps:\n- run: exit 3\n")))
    first = receiver.next()
    pids = deliverers(post)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_gone(pid)
    receiver.hanging.clear()
    [(state, tries, due, done)] = post.rows("SELECT state, tries, due, done_at FROM notices")
    assert (state, tries, done) == ("queued", 1, None)
    assert due >= time.time() * 1000 + 50_000, "it is claimed for a minute"
    post.call("deliver")
    assert receiver.all() == [], "not before it is due"
    post.due_now()
    post.delivered()
    again = receiver.next()
    assert again.headers["X-Agentrun-Id"] == first.headers["X-Agentrun-Id"] and again.body == first.body
    assert post.notices() == [("failure", "sent", "webhook", 2, None)]


def test_a_run_that_is_killed_right_after_its_end_is_told_by_whoever_comes_next(post: Post, receiver: Receiver) -> None:
    """The end and its notice are one transaction; the deliverer is begun after it."""
    job = post.job("job", f"notify: {{to: [{hook(receiver)}]}}\nsteps:\n- run: exit 3\n")
    post.home.mkdir(mode=0o700)
    with post.lock(0), post.lock(1):  # as if it had never begun
        assert post.call("run", str(job)).status == 3
        assert post.notices() == [("end", "raised", None, 0, None)]
        assert receiver.all() == []
    post.call("run", str(post.job("other", "steps:\n- run: 'true'\n")))
    post.delivered()
    assert receiver.next().json["job"] == "job"
    assert [row[1] for row in post.notices()] == ["sent"]


def test_many_deliverers_at_once_send_each_notice_once(post: Post, receiver: Receiver) -> None:
    post.home.mkdir(mode=0o700)
    with post.lock(0), post.lock(1):
        for number in range(4):
            text = f"notify: {{to: [{hook(receiver)}, {hook(receiver, '/more')}]}}\nsteps:\n- run: exit {number + 1}\n"
            post.call("run", str(post.job(f"job{number}", text)))
    all_of_them = [post.start("deliver") for _ in range(6)]
    assert [process.wait(LIMIT * 2) for process in all_of_them] == [0] * 6
    post.delivered()
    ids = [request.headers["X-Agentrun-Id"] for request in receiver.all()]
    assert len(ids) == len(set(ids)) == 8
    assert {row[1:4] for row in post.notices()} == {("sent", "webhook", 1)}


def test_what_fails_is_tried_again_with_growing_pauses_and_then_given_up(post: Post, receiver: Receiver) -> None:
    receiver.answers["/hook"] = (500, {})
    post.told(hook(receiver))
    assert [pause // MINUTE for pause in PAUSES] == [1, 5, 30, 120, 360]
    for tries, pause in enumerate(PAUSES, 1):
        [(state, tried, due, error)] = post.rows("SELECT state, tries, due, error FROM notices")
        assert (state, tried) == ("queued", tries) and error.endswith("answered 500 Internal Server Error: no thanks")
        assert abs(due - time.time() * 1000 - pause) < MINUTE / 2
        post.due_now()
        post.delivered()
    [row] = post.notices()
    assert row[:4] == ("failure", "failed", "webhook", TRIES) and "answered 500" in row[4]
    assert len(receiver.all()) == TRIES
    listed = post.call("notify", "job", "--list")
    assert "failed" in listed.stdout and "answered 500" in listed.stdout
    [shape] = json.loads(post.call("notify", "job", "--list", "--json").stdout)
    assert (shape["state"], shape["tries"], shape["notice"]["event"]) == ("failed", TRIES, "failure")


def ping(seq: int, event: str, *, job: str = "job", tries: int = 0, due: int = 0) -> Notice:
    target = {"kind": "ping", "address": "https://hc.example/u"}
    return Notice(seq, f"id{seq}", "queued", event, job, "run", 0, {}, target, tries, due, None, None)


def test_pings_go_one_by_one_and_the_newest_stands_for_those_that_failed() -> None:
    start, end, other = ping(1, "start"), ping(2, "failure"), ping(3, "start", job="other")
    assert _ready([start, end, other], set(), 10) == [start, other]
    assert _ready([start, end], {1}, 10) == [], "its start is still under way"
    assert _ready([end._replace(due=99)], set(), 10) == []
    assert _overtaken([start, end]) == []
    assert _overtaken([start._replace(tries=1)]) == [start._replace(tries=1)], "a start that comes late says nothing"
    failed = end._replace(tries=2, due=99)
    assert _overtaken([failed]) == []
    assert _overtaken([failed, ping(4, "start")]) == [failed]


def test_a_monitor_that_was_away_hears_the_last_word_only(post: Post, receiver: Receiver) -> None:
    for path in ("/p/start", "/p/3"):
        receiver.answers[path] = (503, {})
    post.told(f"{{ping: '{receiver.url('/p')}'}}", on="[]")
    post.told(f"{{ping: '{receiver.url('/p')}'}}", "- run: 'true'\n", on="[]")
    assert [request.path.partition("?")[0] for request in receiver.all()] == ["/p/start", "/p/3", "/p/start", "/p"]
    assert [row[:2] for row in post.notices()] == [
        ("start", "folded"), ("failure", "folded"), ("start", "folded"), ("success", "sent"),
    ]  # fmt: skip
