"""Commands whose effect is outside of this machine or seen by people, and must not happen twice: THE table.

A step with one of them gets `on_interrupt: ask`. Left out on purpose: what does the same when it is done again
(`git push`, `rsync`, `aws s3 sync`, `docker push`, downloads, `DELETE` and `PUT`), pings of a monitor, lines for a log
(`logger`), and what a function says that then ends the script (`die`): a word about a failure may come twice.
Where a command can do both (curl, aws, gh), its arguments decide; a URL in a variable is believed to be what its
method says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .program import Program, called
from .syntax import Node, redirects, text

Decides = Callable[[Sequence[str]], str]

_PINGS = re.compile(
    r"hc-ping|healthchecks|/ping\b|cronitor\.link|betteruptime|uptime|push\?status|heartbeat|dead_?man", re.I
)
_CHAT = re.compile(
    r"slack|discord|telegram|webhook|mattermost|teams|office\.com|ntfy|pushover|gotify|matrix|chat|TOKEN.*sendMessage",
    re.I,
)
_HANDS_ON = re.compile(r"\"?(\$[@*]|\$\{[@*](:[^}]*)?\})\"?")  # the arguments of a function, handed on
_PAYMENT = re.compile(r"stripe|paypal|adyen|/charges|/payments", re.I)


def _always(what: str) -> Decides:
    return lambda said: what


def _mails(said: Sequence[str]) -> str:
    """`mail` with nobody to send to reads a mailbox; `mail -e` asks whether there is one."""
    return "sends mail" if any(not one.startswith("-") or one in ("-s", "-t") for one in said) else ""


def _curl(said: Sequence[str]) -> str:
    line = " ".join(said)
    if _PINGS.search(line):
        return ""
    if re.search(r"--mail-(from|rcpt)|\bsmtps?://", line):
        return "sends mail"
    method = re.search(r"(?:^| )(?:-\w*X ?|--request[ =])([A-Za-z]+)", line)
    posts = re.search(r"(?:^| )(-[a-zA-Z]*[dF]\b|-d\S|-F\S|--data\b|--data-|--form\b|--form-|--json\b)", line)
    if method and method[1].upper() not in ("POST", "PATCH"):
        return ""
    if not method and (not posts or re.search(r"(?:^| )(-\w*G\b|--get\b)", line)):
        return _messages(line) if re.search(r"sendMessage|chat\.postMessage", line) else ""
    return _messages(line) or "sends a POST request"


def _messages(line: str) -> str:
    if _PAYMENT.search(line):
        return "may move money"
    return "sends a message" if _CHAT.search(line) else ""


def _wget(said: Sequence[str]) -> str:
    line = " ".join(said)
    if "--post" not in line and "--method=POST" not in line and "--method POST" not in line:
        return ""
    return "" if _PINGS.search(line) else _messages(line) or "sends a POST request"


def _http(said: Sequence[str]) -> str:
    """httpie: `http POST url`, or items, which make it one."""
    posts = "POST" in said or (
        not {"GET", "HEAD", "PUT", "DELETE"} & set(said) and any(re.match(r"\w+:?=", one) for one in said)
    )
    return "sends a POST request" if posts else ""


def _subcommands(table: Mapping[str, str]) -> Decides:
    """By the first words that are no options; the longest entry counts."""

    def decide(said: Sequence[str]) -> str:
        line = " ".join(one for one in said if not one.startswith("-"))
        found = [what for start, what in table.items() if re.search(rf"(?:^|\s){start}(?:\s|$)", line)]
        return found[0] if found else ""

    return decide


def _sql(said: Sequence[str]) -> str:
    return (
        "adds rows to a database"
        if re.search(r"\bINSERT\s+INTO\b(?!.*\bON CONFLICT\b)|\bUPDATE\b.*\bSET\b.*[+-]", " ".join(said), re.I | re.S)
        else ""
    )


_PUBLISHES, _MAIL, _MESSAGE = "publishes", "sends mail", "sends a message"

TABLE: Mapping[str, Decides] = {
    **dict.fromkeys(("mail", "mailx", "s-nail", "nail", "bsd-mailx", "heirloom-mailx"), _mails),
    **dict.fromkeys(
        ("sendmail", "mutt", "neomutt", "msmtp", "ssmtp", "swaks", "sendemail", "sendEmail", "mpack", "biabam", "exim",
         "smtp-cli"),
        _always(_MAIL),
    ),
    **dict.fromkeys(
        ("telegram-send", "slack", "slackcat", "slack-notify", "pushover", "gotify", "ntfy", "apprise", "sendsms",
         "twilio", "gammu", "gnokii", "sendxmpp", "wall", "write", "pushbullet", "notify-slack", "signal-cli",
         "matrix-commander", "discord.sh", "telegram.sh", "pagerduty", "pd-send", "opsgenie", "toot", "tweet"),
        _always(_MESSAGE),
    ),
    **dict.fromkeys(("stripe",), _always("may move money")),
    **dict.fromkeys(("lp", "lpr"), _always("prints on paper")),
    **dict.fromkeys(("xh", "http", "https"), _http),
    "curl": _curl,
    "wget": _wget,
    "aws": _subcommands({
        "sns publish": _MESSAGE, "ses send-email": _MAIL, "ses send-raw-email": _MAIL, "sesv2 send-email": _MAIL,
        "sqs send-message(?:-batch)?": _MESSAGE, "lambda invoke": "calls a function elsewhere",
        "ec2 run-instances": "starts machines", "ec2 create-(?:snapshot|image|volume)s?": "makes a snapshot",
        "rds create-db-snapshot": "makes a snapshot", "events put-events": _MESSAGE, "kinesis put-records?": _MESSAGE,
        "stepfunctions start-execution": "starts work elsewhere", "batch submit-job": "starts work elsewhere",
        "ecs run-task": "starts work elsewhere",
    }),
    "gcloud": _subcommands({
        "pubsub topics publish": _MESSAGE, "compute instances create": "starts machines",
        "compute disks snapshot": "makes a snapshot", "builds submit": "starts work elsewhere",
    }),
    "az": _subcommands({"vm create": "starts machines", "snapshot create": "makes a snapshot"}),
    "doctl": _subcommands({"compute droplet(?:-action)? (?:create|snapshot)": "starts machines"}),
    "gh": _subcommands({
        "release create": _PUBLISHES, "(?:issue|pr) (?:create|comment|close|merge)": _PUBLISHES,
        "workflow run": "starts work elsewhere", "gist create": _PUBLISHES, "api .*POST": "sends a POST request",
    }),
    "glab": _subcommands({"release create": _PUBLISHES, "(?:issue|mr) (?:create|note|merge)": _PUBLISHES}),
    "hub": _subcommands({"release create": _PUBLISHES, "pull-request": _PUBLISHES}),
    "npm": _subcommands({"publish": _PUBLISHES}), "yarn": _subcommands({"publish": _PUBLISHES}),
    "cargo": _subcommands({"publish": _PUBLISHES}), "gem": _subcommands({"push": _PUBLISHES}),
    "twine": _subcommands({"upload": _PUBLISHES}), "poetry": _subcommands({"publish": _PUBLISHES}),
    "kafka-console-producer": _always(_MESSAGE), "kafka-console-producer.sh": _always(_MESSAGE),
    "mosquitto_pub": _always(_MESSAGE), "amqp-publish": _always(_MESSAGE), "kcat": _subcommands({"P": _MESSAGE}),
    **dict.fromkeys(("psql", "mysql", "mariadb", "sqlite3", "clickhouse-client"), _sql),
    "reboot": _always("restarts the machine"), "shutdown": _always("stops the machine"),
    "poweroff": _always("stops the machine"), "halt": _always("stops the machine"),
}  # fmt: skip


def effects(program: Program, nodes: Sequence[Node]) -> dict[str, str]:
    """What they do outside, each with the command that does it: functions that they call are looked into."""
    return {what: name for node in nodes for name, what in _effects(program, node, _Call((), program.enders))}


class _Call(NamedTuple):
    """A function at work: what it was given, and which functions are not to be looked into (again)."""

    given: Sequence[str]
    seen: frozenset[str]


_MOST = 2_000  # calls of functions in functions that are looked at
_SHIFTS = 3  # arguments that a function may take away before it hands on the rest


def _effects(program: Program, node: Node, call: _Call) -> Iterator[tuple[str, str]]:
    waiting: list[tuple[Node, _Call]] = [(node, call)]
    known: set[tuple[str, tuple[str, ...]]] = set()
    while waiting and len(known) < _MOST:
        here, by = waiting.pop()
        for command in _commands(program, here):
            for words in _as_called(command, by.given):
                yield from _of_command(program, command, words)
                key = (words[0], tuple(words[1:]))
                if words[0] in program.functions and words[0] not in by.seen and key not in known:
                    known.add(key)
                    inner = _Call(words[1:], by.seen | {words[0]})
                    bodies = [one.child_by_field_name("body") for one in program.functions[words[0]]]
                    waiting += [(body, inner) for body in bodies if body is not None]


def _commands(program: Program, node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if not program.defines(here):
            waiting += reversed(here.children)
            if here.type == "command":
                yield here


def _as_called(command: Node, given: Sequence[str]) -> Iterator[list[str]]:
    """The words of a command in a function that was given these: `"$@"` stands for all of them, or for the last."""
    name, said = called(command)
    words = [name, *said]
    if not name:
        return
    if not any(_HANDS_ON.fullmatch(word) for word in words):
        yield words
        return
    for gone in range(min(_SHIFTS, max(len(given) - 1, 0)) + 1):
        found: list[str] = []
        for word in words:
            found += given[gone:] if _HANDS_ON.fullmatch(word) else [word]
        if found:
            yield [found[0].rsplit("/", 1)[-1], *found[1:]]


def _of_command(program: Program, command: Node, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    name, said = words[0], words[1:]
    decide = TABLE.get(name)
    what = decide(said) if decide is not None and name not in program.functions else ""
    if what:
        yield name, what
    holder = command.parent if command.parent is not None and command.parent.type == "redirected_statement" else command
    if name in ("psql", "mysql", "mariadb", "sqlite3") and not what and _sql([text(holder)]):
        yield name, _sql([text(holder)])
    if any(re.search(r">\s*/dev/(tcp|udp)/", text(one)) for one in redirects(command)):
        yield "/dev/tcp", _MESSAGE
