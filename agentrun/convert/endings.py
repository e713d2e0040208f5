"""What stands behind a command, or about its output: pings of a monitor, redirections; and `a && b && c` as steps.

    cmd && curl https://hc-ping.com/ID       notify: {to: [{ping: …}]}; also `|| curl …/fail`, and `; curl …/$?`
    cmd >/dev/null 2>&1                      the command alone: a run prints nothing, and its log has it
    cmd >>log 2>&1                           stays, or with --take-logs as above
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..model import JSON
from ..step.contract import _SHELL_WORDS
from .cmdline import Part, Row, row, written
from .guards import asks
from .peeling import Peeling
from .syntax import Node, literal, text

_MONITOR: Final = re.compile(r"https?://(?:hc-ping\.com|hchk\.io|[^/\s?#]+/ping)/[\w./-]+")
_FLAGS: Final = re.compile(r"-[fsSLkq4]+|--(?:fail|silent|show-error|location|quiet|no-verbose)|-nv")
_WITH_VALUE: Final = frozenset(
    ("-m", "-o", "-O", "-T", "-t", "--retry", "--max-time", "--connect-timeout", "--retry-delay", "--output", "--tries",
     "--timeout", "--output-document", "-A", "--user-agent")
)  # fmt: skip
_SILENT: Final = re.compile(r"(?:1?>>?|&>>?|>&)/dev/null")
_STDOUT: Final = re.compile(r"(?:1?>>?\|?|&>>?)(?![&\d])(.+)")
_STATELESS: Final = frozenset(("echo", "printf", "true", ":", "test", "[", "kill", "pwd"))
_PREPARES: Final = frozenset(("echo", "printf", "date", "sleep", "mkdir", "true", ":", "touch"))


# -- monitors -------------------------------------------------------------------------------------------------------


def ping(peeling: Peeling, found: Row) -> str | None:
    """A monitor of the kind of healthchecks.io that is told of the end."""
    parts = found.parts
    if len(parts) < 2 or parts[-1].separator == "&" or "notify" in peeling.keys:
        return None
    last = _monitor(parts[-1])
    if last is None:
        return None
    url, kind = last
    if kind == "fail" and len(parts) > 2 and _monitor(parts[-2]) == (url, "") and _between(parts) == ("&&", "||"):
        left = parts[:-2]
    elif (kind == "" and parts[-2].separator == "&&") or (kind == "status" and parts[-2].separator == ";"):
        left = parts[:-1]
    else:
        return None
    if kind != "status" and any(part.separator != "&&" for part in left[:-1]):
        return None
    if left and left[0].separator == ";" and _monitor(left[0]) == (url, "start"):
        left = left[1:]
    if all(asks(part) or part.name in _PREPARES or part.text.startswith("systemctl is-") for part in left):
        return None  # it is what the monitor is told that matters, and no job
    peeling.keys["notify"] = {"to": [{"ping": url}]}
    host = url.split("/")[2]
    peeling.say("lifted", f"{parts[-1].name} {host}: notify: ping; {host} is told of every start and of failures, too")
    return written((*left[:-1], left[-1]._replace(separator="")))


def _between(parts: tuple[Part, ...]) -> tuple[str, str]:
    return parts[-3].separator, parts[-2].separator


def _monitor(part: Part) -> tuple[str, str] | None:
    """The URL of a monitor that is told by curl or wget and nothing else, and of what: "", start, fail, status."""
    if part.name not in ("curl", "wget") or any(not _SILENT.fullmatch(_bare(one)) and _bare(one) != "2>&1"
                                                for one in part.redirections):  # fmt: skip
        return None
    urls: list[Node] = []
    given = part.words[1:]
    while given:
        word, *given = given
        said = literal(word) or ""
        if said in _WITH_VALUE and given:
            given = given[1:]
        elif said.partition("=")[0] in _WITH_VALUE or _FLAGS.fullmatch(said) or re.fullmatch(r"-[mtT]\d+", said):
            continue
        else:
            urls.append(word)
    if len(urls) != 1:
        return None
    shown = literal(urls[0]) or text(urls[0]).strip('"')
    base, _, end = shown.rpartition("/")
    kind = {"$?": "status", "${?}": "status", "fail": "fail", "start": "start"}.get(end, "")
    url = base if kind else shown.rstrip("/")
    return (url, kind) if _MONITOR.fullmatch(url) else None


# -- output ---------------------------------------------------------------------------------------------------------


def silence(peeling: Peeling, found: Row) -> str | None:
    """Output that goes nowhere goes into the run's log instead."""
    parts = list(found.parts)
    for number, part in enumerate(parts):
        said = [_bare(one) for one in part.redirections]
        gone = [one for one, as_is in zip(part.redirections, said, strict=True) if _silences(as_is, said)]
        if gone and part.core is not None and not asks(part):
            parts[number] = part._replace(text=part.less(gone))
    if parts == list(found.parts):
        return None
    peeling.say("lifted", ">/dev/null: a run prints nothing while all goes well; what the command prints is in its log")
    return written(parts)


def _silences(said: str, beside: list[str]) -> bool:
    if "2>&1" in beside and not any(_SILENT.fullmatch(one) for one in beside[: beside.index("2>&1")]):
        return False  # `2>&1 >/dev/null` lets stderr through
    if _SILENT.fullmatch(said):
        return True
    return said in ("2>&1", "2>/dev/null", "2>>/dev/null") and any(_SILENT.fullmatch(one) for one in beside)


def take_logs(peeling: Peeling, found: Row) -> str | None:
    """Output that goes to a file of its own goes into the run's log instead."""
    parts = list(found.parts)
    for number, part in enumerate(parts):
        said = [_bare(one) for one in part.redirections]
        files = [match[1] for one in said if (match := _STDOUT.fullmatch(one))]
        if len(files) != 1 or any(not _STDOUT.fullmatch(one) and one != "2>&1" for one in said) or part.core is None:
            continue
        if said[0] == "2>&1" and len(said) > 1:
            continue
        parts[number] = part._replace(text=part.less(part.redirections))
        peeling.say("lifted", f"{said[0]}: in `agentrun logs` now; whoever reads that file finds nothing new there")
    return written(parts) if parts != list(found.parts) else None


def _bare(redirection: Node) -> str:
    return re.sub(r"\s+", "", text(redirection))


# -- steps ----------------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """The command of one step, and its keys."""

    text: str
    keys: dict[str, JSON]


def pieces(peeling: Peeling, *, whole: bool = False) -> list[Piece]:
    """What is left as steps. `whole`: as one, for it reads one input."""
    found = row(peeling.text)
    one = [Piece(peeling.text, dict(peeling.step))]
    if found is None or whole or len(found.parts) < 2 or "if" in peeling.step or not found.chain:
        return one
    if not all(_stands_alone(part, number) for number, part in enumerate(found.parts)):
        return one
    groups: list[list[Part]] = [[]]
    for part in found.parts:
        groups[-1].append(part)
        if part.name not in _PREPARES:
            groups.append([])
    if not groups[-1]:
        groups.pop()
    elif len(groups) > 1:  # what only tells of the end goes with it
        last = groups.pop()
        groups[-1] += last
    if len(groups) == 1:
        return one
    peeling.say("lifted", f"`&&`: {len(groups)} steps, each of which is done once")
    return [Piece(written((*group[:-1], group[-1]._replace(separator=""))), {}) for group in groups]


def _stands_alone(part: Part, number: int) -> bool:
    """Whether nothing of it is left in the shell for those behind it, and it asks for nothing that they left."""
    if part.core is None or (number and re.search(r"\$[?!_]", part.text)):
        return False
    if part.core.type in ("pipeline", "subshell", "test_command"):
        return True
    if part.core.type != "command" or not part.words:
        return False
    name = literal(part.words[0])
    if name is None:
        return "/" in text(part.words[0])
    return name not in _SHELL_WORDS or name in _STATELESS
