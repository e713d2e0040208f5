"""How a notice reaches each kind of target: real processes, real servers, a sendmail that writes down what it gets."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from agentrun.model import Target
from agentrun.notify import web, words
from agentrun.notify.senders import Letter, Senders

from ..kill.arena import wait_gone
from .receiver import MailServer, Post, Receiver

PAGE = """#!/bin/sh
env | grep ^AGENTRUN_ | sort > "$ARENA/paged.env"
pwd > "$ARENA/paged.pwd"
echo "$@" > "$ARENA/paged.words"
cat > "$ARENA/paged.json"
"""
SENDMAIL = """#!/bin/sh
echo "$@" > "$ARENA/sendmail.words"
cat > "$ARENA/sendmail.mail"
"""


def tried(post: Post, to: str) -> tuple[int, str]:
    """`agentrun notify` of a job that tells `to`: the exit status, and the line about the target."""
    ran = post.call("notify", str(post.job("job", f"notify: {{to: [{to}]}}\nsteps: [{{run: 'true'}}]\n")))
    return ran.status, ran.stdout.strip()


# --- commands


def test_a_command_is_given_the_notice_and_stands_in_the_jobs_folder(post: Post) -> None:
    post.file("page.sh", PAGE, 0o755)
    post.told("{command: [./page.sh, urgent, 'two words']}")
    said = json.loads(post.read("paged.json"))
    assert (said["event"], said["exit_code"]) == ("failure", 3)
    assert post.read("paged.pwd").strip() == str(post.root) and post.read("paged.words") == "urgent two words\n"
    environment = dict(line.split("=", 1) for line in post.read("paged.env").splitlines())
    assert environment == {
        "AGENTRUN_EVENT": "failure", "AGENTRUN_HOME": str(post.home), "AGENTRUN_JOB": "job",
        "AGENTRUN_NOTICE_ID": said["id"], "AGENTRUN_RUN_ID": post.run_id,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words_", "error"),
    [
        ("[sh, -c, 'echo no pager >&2; exit 4']", "sh: it ended with 4: no pager"),
        ("[sh, -c, 'kill -9 $$']", "sh: signal 9 ended it"),
        ("[./nothing.sh]", "./nothing.sh cannot be started in {root}: No such file or directory"),
        ("[./job.yaml]", "./job.yaml cannot be started in {root}: Permission denied"),
    ],
)
def test_a_command_that_fails_says_why(post: Post, words_: str, error: str) -> None:
    assert tried(post, f"{{command: {words_}}}")[0] == 1
    assert tried(post, f"{{command: {words_}}}")[1].endswith(error.format(root=post.root))


def test_a_command_need_not_read_and_may_leave_something_running(post: Post) -> None:
    assert tried(post, "{command: [sh, -c, 'sleep 3 & exit 0']}") == (0, "command sh: sent")


# --- webhooks


def test_a_webhook_is_signed_with_the_key_of_a_private_file(post: Post, receiver: Receiver) -> None:
    key = post.file("hook.key", "s3cret\n", 0o600)
    to = f"{{webhook: '{receiver.url('/hook')}', key_file: hook.key}}"
    assert tried(post, to)[0] == 0
    request = receiver.next()
    stamp = request.headers["X-Agentrun-Timestamp"]
    digest = hmac.new(b"s3cret", stamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-Agentrun-Signature"] == f"sha256={digest}"
    assert request.json["test"] is True and request.headers["Content-Type"] == "application/json"
    key.chmod(0o640)
    status, line = tried(post, to)
    assert status == 1 and line.endswith(f"{key} can be read by others (mode 0640): chmod 600 {key}")
    key.unlink()
    assert tried(post, to)[1].endswith(f"{key} cannot be read: No such file or directory")
    assert receiver.all() == [], "nothing was sent without its signature"


def test_a_webhook_that_refuses_says_so_without_its_path(post: Post, receiver: Receiver) -> None:
    receiver.answers["/secret-token"] = (503, {})
    status, line = tried(post, f"{{webhook: '{receiver.url('/secret-token')}'}}")
    host = web.host_of(receiver.url("/"))
    assert (status, line) == (1, f"webhook {host}: {host} answered 503 Service Unavailable: no thanks")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_keeps_to_the_host(post: Post, receiver: Receiver, code: int) -> None:
    receiver.answers |= {
        "/moved": (code, {"Location": "/here"}),
        "/away": (code, {"Location": receiver.url("/here", host="localhost")}),
    }
    assert tried(post, f"{{webhook: '{receiver.url('/moved')}'}}")[0] == 0
    assert [(request.path, request.json["event"]) for request in receiver.all()] == [
        ("/moved", "failure"), ("/here", "failure"),
    ]  # fmt: skip
    status, line = tried(post, f"{{webhook: '{receiver.url('/away')}'}}")
    assert status == 1 and f"it answered {code}, a redirect to http://localhost:" in line
    assert [request.path for request in receiver.all()] == ["/away"]


def test_redirects_come_to_an_end(post: Post, receiver: Receiver) -> None:
    receiver.answers["/loop"] = (302, {"Location": "/loop"})
    assert tried(post, f"{{webhook: '{receiver.url('/loop')}'}}")[0] == 1
    assert len(receiver.all()) <= 4


def test_nobody_there(post: Post) -> None:
    status, line = tried(post, "{webhook: 'http://127.0.0.1:1/x'}")
    assert (status, line) == (1, "webhook 127.0.0.1:1: 127.0.0.1:1 cannot be reached: [Errno 111] Connection refused")


@pytest.mark.parametrize(
    ("url", "event", "status", "expected"),
    [
        ("https://hc.example/u", "start", None, "https://hc.example/u/start?rid={}"),
        ("https://hc.example/u/", "success", 0, "https://hc.example/u?rid={}"),
        ("https://hc.example/u", "failure", 7, "https://hc.example/u/7?rid={}"),
        ("https://hc.example/u", "failure", None, "https://hc.example/u/fail?rid={}"),
        ("https://hc.example/u?create=1", "failure", 256, "https://hc.example/u/fail?create=1&rid={}"),
    ],
)
def test_where_a_ping_goes(url: str, event: str, status: int | None, expected: str) -> None:
    rid = web.run_uuid("1qfxqg11mb")
    assert uuid.UUID(str(rid)) == web.run_uuid("1qfxqg11mb") != web.run_uuid("1qfxqg11mc")
    assert web.ping_url(url, event, "1qfxqg11mb", status) == expected.format(rid)


def test_a_test_leaves_pings_out_unless_an_event_is_given(post: Post, receiver: Receiver) -> None:
    to = f"{{ping: '{receiver.url('/ping')}'}}, {{webhook: '{receiver.url('/hook')}'}}"
    file = str(post.job("job", f"notify: {{to: [{to}]}}\nsteps: [{{run: 'true'}}]\n"))
    left_out = "agentrun: pings are left out: the monitor would take it for the end of a run; --event success sends it"
    ran = post.call("notify", file)
    assert (ran.status, ran.stderr) == (0, f"{left_out} one\n")
    assert [request.path for request in receiver.all()] == ["/hook"]
    for event, path in (("failure", "/ping/1"), ("success", "/ping")):
        assert post.call("notify", file, "--event", event).status == 0
        assert sorted(request.path for request in receiver.all()) == ["/hook", path]
    ran = post.call("notify", file, "--event", "start")
    assert ran.stderr == "agentrun: only pings tell of a start: the other targets are left out\n"
    assert [request.path for request in receiver.all()] == ["/ping/start"]
    ran = post.call("notify", file, "--event", "recovery")
    assert ran.stderr == (
        "agentrun: pings are left out: they tell of starts and ends of runs, and nothing of recovery\n"
    )
    assert [request.path for request in receiver.all()] == ["/hook"]


def test_what_is_said_beside_a_test_is_said_once_by_name(post: Post) -> None:
    file = str(post.job("job", "notify: {to: [{command: ['true']}], on: [failure]}\nsteps: [{run: 'true'}]\n"))
    post.run("steps: [{run: 'true'}]\n", name="other")
    wrong = post.config("notify: {to: [{mail: a}]}\n")
    plain = str(post.job("plain", "steps: [{run: 'true'}]\n"))
    first = [
        post.call(*words_).stderr.splitlines()[0]
        for words_ in (("notify", file, "--event", "recovery"), ("notify", "other", "--list"), ("notify", plain))
    ]
    assert first[0].startswith("agentrun: of recovery nobody but pings is told in earnest")
    assert first[1] == "agentrun: nothing was told of job other"
    assert first[2].startswith(f"agentrun: {wrong}:1:")


def test_two_targets_of_one_host_are_numbered(post: Post, receiver: Receiver) -> None:
    receiver.answers["/b"] = (503, {})
    hooks = ", ".join(f"{{webhook: '{receiver.url(path)}'}}" for path in ("/a", "/b"))
    to = f"{hooks}, {{command: ['true']}}"
    host = web.host_of(receiver.url("/"))
    file = str(post.job("job", f"notify: {{to: [{to}]}}\nsteps: [{{run: 'true'}}]\n"))
    lines = sorted(post.call("notify", file).stdout.splitlines())
    assert lines[:2] == ["command true: sent", f"webhook {host} (1): sent"]
    assert lines[2].startswith(f"webhook {host} (2): {host} answered 503")
    post.told(to)
    post.job("job", f"notify: {{to: [{hooks.partition(', ')[2]}]}}\nsteps: [{{run: 'true'}}]\n")
    assert post.call("notify", "job").stdout.startswith(f"webhook {host}: "), "alone it needs none"
    post.job("job", f"notify: {{to: [{to}]}}\nsteps: [{{run: 'true'}}]\n")
    listed = post.call("notify", "job", "--list").stdout
    assert [f"webhook {host} ({n})" in line for line in listed.splitlines() for n in (1, 2) if "webhook" in line] == [
        False, True, True, False,
    ], listed  # fmt: skip
    shapes = json.loads(post.call("notify", "job", "--list", "--json").stdout)
    assert [shape["to"] for shape in shapes] == ["true", f"{host} (2)", f"{host} (1)"]


# --- mail


def parsed(text: str) -> Any:
    return email.message_from_string(text, policy=email.policy.default)


def test_mail_goes_through_sendmail(post: Post) -> None:
    post.file("bin/sendmail", SENDMAIL, 0o755)
    post.env["PATH"] = f"{post.root}/bin:{os.environ['PATH']}"
    post.told("{mail: ops@example.org}", "- {id: ünïcode, run: echo gone; exit 3}\n".replace("ünïcode", "fetch"))
    assert post.read("sendmail.words") == "-t -i\n"
    mail = parsed(post.read("sendmail.mail"))
    assert mail["To"] == "ops@example.org" and mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == f"[{os.uname().nodename}] job has failed: step 1 of 1, fetch: exit status 3"
    assert "| gone" in mail.get_content() and f"resume {post.run_id}" in mail.get_content()
    post.file("bin/sendmail", "#!/bin/sh\necho no such user >&2; exit 67\n", 0o755)
    assert tried(post, "{mail: nobody@example.org}")[1].endswith("/bin/sendmail ended with 67: no such user")


def test_mail_goes_to_the_server_of_config_yaml(post: Post, mail_server: MailServer) -> None:
    post.config(f"smtp: {{host: 127.0.0.1, port: {mail_server.port}, tls: none, from: cron@example.org}}\n")
    assert tried(post, "{mail: ops@example.org}") == (0, "mail ops@example.org: sent")
    commands, text = mail_server.mails.get(timeout=30)
    assert "mail FROM:<cron@example.org>" in commands and "rcpt TO:<ops@example.org>" in commands
    assert "This is a test" in parsed(text).get_content()


def test_a_mail_server_that_refuses_and_one_without_tls(post: Post) -> None:
    server = MailServer(refuse=b"550 not here\r\n")
    try:
        post.config(f"smtp: {{host: 127.0.0.1, port: {server.port}, tls: none}}\n")
        said = f"127.0.0.1:{server.port} did not take the mail:"
        assert tried(post, "{mail: ops@example.org}") == (1, f"mail ops@example.org: {said} 550 not here")
        post.file("p", "pass\n", 0o600)
        post.config(f"smtp: {{host: 127.0.0.1, port: {server.port}, user: me, password_file: {post.root}/p}}\n")
        status, line = tried(post, "{mail: ops@example.org}")
        assert status == 1 and "STARTTLS" in line, "no password is sent in clear"
    finally:
        server.close()


def test_a_wrong_config_yaml_is_why_no_mail_is_sent(post: Post) -> None:
    path = post.config("smtp: {hosts: mail}\n")
    assert tried(post, "{mail: ops@example.org}")[1].startswith(f"mail ops@example.org: {path}:1: unknown key 'hosts'")


# --- apprise


APPRISE = """
class Apprise:
    def add(self, url): return not url.startswith("odd")
    def notify(self, **said):
        print(said["title"], said["notify_type"], file=open(__import__("os").environ["ARENA"] + "/apprised", "w"))
        return True
"""


def test_apprise_is_an_extra_that_is_named_where_it_is_missing(post: Post) -> None:
    status, line = tried(post, "{apprise: 'tgram://token/chat'}")
    assert status == 1 and line.startswith("apprise tgram://: the library apprise is missing: it is the extra agentrun")
    assert "token" not in line
    post.file("lib/apprise.py", APPRISE)
    post.env["PYTHONPATH"] = str(post.root / "lib")
    assert tried(post, "{apprise: 'tgram://token/chat'}") == (0, "apprise tgram://: sent")
    assert post.read("apprised").endswith("job has failed failure\n")
    assert tried(post, "{apprise: 'odd://token'}")[1].endswith("apprise does not take this URL of odd://")


# --- all of them


def test_nothing_takes_longer_than_its_limit(tmp_path: Path) -> None:
    """A command that hangs is ended with what it started; one beside it is not held up."""
    said = words.notice("failure", "job", 0)
    hanging = Target("command", ("sh", "-c", "sleep 1000 & echo $! > pid; wait"))
    under_way: Senders[str] = Senders(2, limit=4.0)
    under_way.start("hangs", Letter(hanging, said, "a", str(tmp_path)))
    under_way.start("goes", Letter(Target("command", ("true",)), said, "b", str(tmp_path)))
    assert under_way.free == 0
    came = []
    while under_way.tokens:
        came += list(under_way.wait(60))
    assert came == [("goes", None), ("hangs", "no answer within 4 seconds")]
    wait_gone(int((tmp_path / "pid").read_text()))
