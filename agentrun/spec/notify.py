"""The keys `notify` and `keep`, which a job file and `config.yaml` share, and what they become in the model."""

from __future__ import annotations

from typing import Any, get_args

from ..model import Event, Keep, Notify, Target
from .amounts import Size
from .kinds import Choice, Integer, ListOf, Name, Text
from .report import INVALID, Report
from .tables import Entry, Field, Table

DAY = 86_400_000
_KINDS = ("command", "webhook", "ping", "mail", "apprise")
_URL = r"https?://[^\s/?#]+[^\s]*"

TARGET = Table(
    "a mapping such as {mail: ops@example.org}",
    "a target of 'notify'",
    {field.name: field for field in (
        Field(
            "command", ListOf("a list of words such as [./page.sh, urgent]", Text("a word", blank=True), empty=False),
            "A program and its arguments, started in the job file's folder with the notice on its standard input and"
            " AGENTRUN_EVENT, AGENTRUN_JOB and AGENTRUN_RUN_ID in its environment. It has 30 seconds.",
            "[./page.sh, urgent]",
        ),
        Field(
            "webhook", Name("a URL that begins with https:// or http://", _URL),
            "A URL that the notice is posted to, as JSON. Any status from 200 to 299 is success.",
            "https://example.org/hooks/cron",
        ),
        Field(
            "key_file", Text("a path"),
            "With webhook: a file of mode 0600 with the key that the notice is signed with, see NOTICES.", "hook.key",
        ),
        Field(
            "ping", Name("a URL that begins with https:// or http://", _URL),
            "A monitor of the kind of healthchecks.io, which is told of every start and every end of a run, whatever"
            " on says.",
            "https://hc-ping.com/5c8a5c0e-8a2c-4f0e-9d6c-0d4b2e3f6a11",
        ),
        Field(
            "mail", Name("one address such as ops@example.org", r"[^\s@,<>]+@[^\s@,<>]+"),
            "An address, by the server that smtp in config.yaml names, else by this machine's sendmail.",
            "ops@example.org",
        ),
        Field(
            "apprise", Name("a URL of apprise such as tgram://…", r"[A-Za-z][A-Za-z0-9+.-]*://\S+"),
            "Whatever the library apprise can reach; it comes with the extra notify.", "tgram://123456:token/chat",
        ),
    )},
    rules={
        "oneOf": [{"required": [kind]} for kind in _KINDS],
        "dependencies": {"key_file": ["webhook"]},
    },
)  # fmt: skip

NOTIFY = Table(
    "a mapping such as {to: [{mail: ops@example.org}]}",
    "'notify'",
    {field.name: field for field in (
        Field(
            "on", ListOf("a list of events", Choice(get_args(Event))),
            "What is told: failure (a run failed, timed out or was over its budget), recovery (one succeeded after"
            " that), missed (ticks that were not run), stuck (a step that does nothing any more), waiting (a run that"
            " waits for an answer), success (every one).",
            "[failure, recovery]", "all but success",
        ),
        Field(
            "to", ListOf("a list of targets", TARGET), "Whom; [] for nobody.",
            "[{mail: ops@example.org}]", required=True,
        ),
        Field(
            "every", Integer(1),
            "When a job fails in the same way again and again, the first time is told, and then every so many.",
            "10", "10",
        ),
    )},
    absent={"smtp": "the server for mail is named in config.yaml, for all jobs"},
)  # fmt: skip

KEEP = Table(
    "a mapping such as {runs: 200, days: 30}",
    "'keep'",
    {field.name: field for field in (
        Field("runs", Integer(1), "So many finished runs.", "200", "no limit"),
        Field("days", Integer(1, 36_500), "Runs that finished in so many days.", "30", "no limit"),
        Field("size", Size(), "So much on disk, newest first.", "2GiB", "no limit"),
    )},
)  # fmt: skip


def check(entry: Entry, report: Report) -> None:
    """What a table with a `notify` does not show by one value: each target has exactly one kind."""
    notify = entry.values.get("notify")
    for target in notify.values.get("to", ()) if notify is not None else ():
        if target is INVALID:
            continue
        has = [kind for kind in _KINDS if kind in target]
        if len(has) > 1:
            message = f"a target is one of {', '.join(_KINDS)}: here are '{has[0]}' and '{has[1]}'"
            report.add(target.keys[has[1]].mark, message, "each in an item of its own")
        elif not has and not target.unclear:
            report.add(target.node.mark, f"a target needs one of {', '.join(_KINDS)}")
        elif "key_file" in target and has != ["webhook"]:
            report.add(target.keys["key_file"].mark, "'key_file' belongs to 'webhook': nothing else is signed")


def notify_of(entry: Entry) -> Notify:
    """A `notify` without a problem, as the model has it."""
    values: dict[str, Any] = dict(entry.values)
    values["to"] = tuple([_target(target) for target in values["to"]])
    return Notify(**values)


def _target(entry: Entry) -> Target:
    kind = next(kind for kind in _KINDS if kind in entry)
    return Target(kind, entry.values[kind], entry.values.get("key_file"))  # type: ignore[arg-type]


def keep_of(entry: Entry) -> Keep:
    """A `keep` without a problem, as the model has it."""
    days = entry.values.get("days")
    return Keep(entry.values.get("runs"), None if days is None else days * DAY, entry.values.get("size"))
