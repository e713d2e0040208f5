"""config.yaml: where it is looked for, what it says, and how it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrun.errors import JobFileError
from agentrun.model import Keep, Notify, Target
from agentrun.spec import config, configpath
from agentrun.spec.config import Config, Smtp
from agentrun.spec.decode import decode as decode_job

FULL = """
notify:
  on: [failure, success]
  every: 3
  to:
  - {command: [./page.sh, urgent]}
  - {command: [logger, -t, cron]}
  - {webhook: 'https://example.org/hook', key_file: hook.key}
  - {mail: ops@example.org}
  - {ping: 'https://hc.example/u'}
  - {apprise: 'tgram://a/b'}
keep: {runs: 200, days: 30, size: 2GiB}
smtp: {host: mail.example.org, port: 465, tls: tls, from: cron@example.org, user: me, password_file: ~/smtp}
"""


def test_everything_of_it() -> None:
    read = config.decode(FULL, "/etc/agentrun/config.yaml")
    assert read.notify == Notify(
        ("failure", "success"),
        (
            Target("command", ("/etc/agentrun/page.sh", "urgent")),
            Target("command", ("logger", "-t", "cron")),
            Target("webhook", "https://example.org/hook", "/etc/agentrun/hook.key"),
            Target("mail", "ops@example.org"),
            Target("ping", "https://hc.example/u"),
            Target("apprise", "tgram://a/b"),
        ),
        3,
    )
    assert read.keep == Keep(200, 30 * 86_400_000, 2 << 30)
    password = os.path.expanduser("~/smtp")
    assert read.smtp == Smtp("mail.example.org", 465, "tls", "cron@example.org", "me", password)


def test_a_job_says_the_same_by_the_same_keys_but_its_paths_are_its_own() -> None:
    lines = [line for line in FULL.splitlines(keepends=True) if not line.startswith("smtp")]
    job = decode_job("".join(lines) + "steps: [{run: 'true'}]\n", "a.yaml")
    assert job.keep == Keep(200, 30 * 86_400_000, 2 << 30) and job.notify is not None
    assert job.notify.to[0] == Target("command", ("./page.sh", "urgent"))
    assert job.notify.to[2].key_file == "hook.key"


@pytest.mark.parametrize("text", ["", "# nothing yet\n\n", "smtp: {host: h}\n"])
def test_what_it_does_not_say_is_none(text: str) -> None:
    read = config.decode(text, "c.yaml")
    assert (read.notify, read.keep) == (None, None)


BAD = """keeep: {}
notify: {on: [fail], to: [{mail: a}, {ping: x, mail: b@c}]}
keep: {runs: 0}
smtp: {port: 70000, user: me}
"""


def test_all_problems_are_told_with_their_places() -> None:
    with pytest.raises(JobFileError) as caught:
        config.decode(BAD, "c.yaml")
    assert [(p.path, p.line, p.column, p.message.partition(",")[0]) for p in caught.value.problems] == [
        ("c.yaml", 1, 1, "unknown key 'keeep' (did you mean 'keep'?)"),
        ("c.yaml", 2, 15, "'on' expects failure"),
        ("c.yaml", 2, 34, "'mail' expects one address such as ops@example.org"),
        ("c.yaml", 2, 45, "'ping' expects a URL that begins with https:// or http://"),
        ("c.yaml", 2, 48, "a target is one of command"),
        ("c.yaml", 3, 14, "'runs' expects a whole number from 1"),
        ("c.yaml", 4, 7, "'smtp' needs 'host'"),
        ("c.yaml", 4, 14, "'port' expects a whole number from 1 to 65535"),
        ("c.yaml", 4, 21, "'user' goes with 'password_file'"),
    ]
    assert caught.value.problems[0].source == "keeep: {}"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"\xff"), "the file is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (2**20 + 1)), "the file is larger than 1 MiB"),
        (lambda path: path.mkdir(), "the file cannot be read: Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "the file cannot be read: No such file or directory"),
        (lambda path: path.write_text("notify: [\n"), "not YAML"),
        (lambda path: path.write_text("- a\n"), "'config.yaml' expects a mapping of keys, not a list"),
    ],
)
def test_what_cannot_be_read_is_said_once_and_counts_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, said: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "agentrun").mkdir()
    make(tmp_path / "agentrun/config.yaml")  # type: ignore[operator]
    heard: list[str] = []
    assert config.load_or_say(heard.append) == Config()
    [line] = heard
    assert line.startswith(f"{tmp_path}/agentrun/config.yaml:") and said in line
    with pytest.raises(JobFileError):
        config.load()


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert configpath.candidates() == [f"{tmp_path}/.config/agentrun/config.yaml"]
    assert configpath.config_path() is None and config.load() == Config()
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}/xdg")
    assert configpath.candidates() == [f"{tmp_path}/xdg/agentrun/config.yaml"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert configpath.candidates()[1:] == ["/etc/agentrun/config.yaml"]
