"""config.yaml: what a user says for all jobs at once, read by the same tables as a job file.

`configpath` says where it is; no file is an empty configuration. A wrong one raises JobFileError with every problem,
line and column. A run goes on without it: whoever starts one says so once (`load_or_say`), and `doctor` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ..errors import JobFileError
from ..model import Keep, Notify, Problem, Target
from . import document, notify
from .configpath import config_path
from .kinds import Choice, Integer, Name, Text
from .report import INVALID, Report
from .tables import Entry, Field, Table

MAX_TEXT: Final = 2**20


@dataclass(frozen=True)
class Smtp:
    """A mail server. `tls`: starttls for what a server says of itself, tls from the first byte, or none."""

    host: str
    port: int | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: str | None = None
    user: str | None = None
    password_file: str | None = None


@dataclass(frozen=True)
class Config:
    """What the file says; all None where there is none. `path`: the file, "" for none."""

    path: str = ""
    notify: Notify | None = None
    keep: Keep | None = None
    smtp: Smtp | None = None


SMTP = Table(
    "a mapping such as {host: mail.example.org}",
    "'smtp'",
    {field.name: field for field in (
        Field("host", Text("a host's name"), "The server.", "mail.example.org", required=True),
        Field("port", Integer(1, 65_535), "Its port.", "587", "587; 465 with tls, 25 with none"),
        Field(
            "tls", Choice(("starttls", "tls", "none")),
            "starttls: encrypted after the greeting; tls: from the first byte; none: for a server on this machine.",
            "tls", "starttls",
        ),
        Field(
            "from", Name("one address such as cron@example.org", r"[^\s@,<>]+@[^\s@,<>]+"),
            "The sender.", "cron@example.org", "this user at this host", attribute="sender",
        ),
        Field("user", Text("a name"), "Whom to log in as.", "cron@example.org", "nobody: no login"),
        Field(
            "password_file", Text("a path"), "A file of mode 0600 that holds the password and nothing else.",
            "smtp.password",
        ),
    )},
    rules={"dependencies": {"user": ["password_file"], "password_file": ["user"]}},
)  # fmt: skip

CONFIG = Table(
    "a mapping of keys",
    "config.yaml",
    {field.name: field for field in (
        Field(
            "notify", notify.NOTIFY, "Who is told of what, for jobs that have no notify of their own.",
            "{to: [{mail: ops@example.org}]}", "nobody",
        ),
        Field(
            "keep", notify.KEEP, "What agentrun prune leaves of finished runs, for jobs without a keep of their own.",
            "{runs: 200, days: 30}", "see agentrun prune",
        ),
        Field("smtp", SMTP, "The server for mail.", "{host: mail.example.org}", "the sendmail of this machine"),
    )},
)  # fmt: skip


def load(name: str | None = None) -> Config:
    """What the file says: `name`, or the one that counts. Raises JobFileError with every problem."""
    name = name or config_path()
    if name is None:
        return Config()
    return decode(_text(name), name)


def load_or_say(say: Callable[[str], object]) -> Config:
    """The same; of a wrong file one line is said, and it counts as empty."""
    try:
        return load()
    except JobFileError as error:
        first = error.problems[0]
        say(f"{first.path}:{first.line}: {first.message}: nothing of this file counts until it is right")
        return Config()


def decode(text: str, name: str) -> Config:
    """What `text` says; `name` stands in the problems, and paths begin in its folder. Raises JobFileError."""
    report = Report(name, text)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return Config(name)  # nothing but comments
    entry = CONFIG.read(document.read(report), os.path.basename(name), report)
    if entry is INVALID:
        report.stop()
    notify.check(entry, report)
    _check_smtp(entry.values.get("smtp"), report)
    report.stop_if_any()
    folder = os.path.dirname(os.path.abspath(name))
    values: dict[str, Any] = {"path": name}
    if "notify" in entry:
        values["notify"] = _based(notify.notify_of(entry.values["notify"]), folder)
    if "keep" in entry:
        values["keep"] = notify.keep_of(entry.values["keep"])
    if "smtp" in entry:
        values["smtp"] = _smtp(entry.values["smtp"], folder)
    return Config(**values)


def _text(name: str) -> str:
    why = "is larger than 1 MiB"
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            raw = file.read(MAX_TEXT + 1) or b""
        if len(raw) <= MAX_TEXT:
            return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        why = "is not UTF-8"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise JobFileError([Problem(name, 1, 1, f"the file {why}")])


def _check_smtp(smtp: Entry | None, report: Report) -> None:
    if smtp is None:
        return
    for one, other in (("user", "password_file"), ("password_file", "user")):
        if one in smtp and other not in smtp:
            report.add(smtp.keys[one].mark, f"'{one}' goes with '{other}'")


def _smtp(entry: Entry, folder: str) -> Smtp:
    values = dict(entry.values)
    values["sender"] = values.pop("from", None)
    if "password_file" in values:
        values["password_file"] = _absolute(values["password_file"], folder)
    return Smtp(**values)


def _based(told: Notify, folder: str) -> Notify:
    """Paths of the file's own folder: a notice of any job finds them."""
    return replace(told, to=tuple([_target(target, folder) for target in told.to]))


def _target(target: Target, folder: str) -> Target:
    if target.key_file is not None:
        target = replace(target, key_file=_absolute(target.key_file, folder))
    if isinstance(target.address, tuple) and "/" in target.address[0]:
        target = replace(target, address=(_absolute(target.address[0], folder), *target.address[1:]))
    return target


def _absolute(name: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
