"""What looks wrong in an entry of a crontab as it runs today: said, and never mended in silence.

Only what can be seen in the line is looked at; a program is looked for on this machine alone where the crontab is this
machine's (`here`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from ..cron.oddities import oddities
from ..health.crontab import PATH
from ..model import Schedule
from ..spec import schedules
from ..step.contract import _SHELL_WORDS
from .cmdline import Row, row
from .syntax import Node, broken, literal, parse, redirects, text, walk, words

_SECRETS: Final = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@$]{3,}@"), "a URL with a password"),
    (re.compile(r"(?:^|\s)--?(?:password|passwd|passphrase|token|secret|api-?key)[= ](?![$\s-])\S{3,}", re.I),
     "a password"),
    (re.compile(r"\b\w*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|WEBHOOK)\w*=(?![$\s])['\"]?[^\s'\"$]{4,}"), "a secret"),
    (re.compile(r"\b(?:mysql\w*|mariadb\w*)\b[^|;&]*\s-p(?![\s$])\S+"), "a password"),
    (re.compile(r"\bBearer\s+(?!\$)\S{6,}", re.I), "a token"),
    (re.compile(r"https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks|api\.telegram\.org/bot)\S+"),
     "a webhook"),
    (re.compile(r"[?&](?:token|key|secret|password|cron_?key)=(?!\$)[^\s&\"']{6,}", re.I), "a key in a URL"),
)  # fmt: skip
_BASHISMS: Final = ("source", "pushd", "popd", "shopt", "mapfile", "declare")
_STARTERS: Final = re.compile(r"(?:ba|da)?sh|python[\d.]*|perl|ruby|node|php[\d.]*")

Found = tuple[str, str]  # what, and what to do


def of_times(times: str, now: int) -> Iterator[Found]:
    """About when it runs. `now`: ms."""
    bare = times.removeprefix("-")
    fields = bare.split()
    if len(fields) != 5 or "~" in bare:
        return
    try:
        schedule = schedules.parse(bare)
    except schedules.Wrong as wrong:
        yield wrong.message, wrong.hint or ""
        return
    if fields[0] == "*" and fields[1] != "*" and len(schedule.hours) <= 12:
        hours = len(schedule.hours) * 60
        hint = f"once an hour it is `0 {fields[1]}`"
        yield f"it runs in every minute of {'that hour' if hours == 60 else 'those hours'}: {hours} times a day", hint
    for words_ in oddities((schedule,), "UTC", now):
        yield words_.partition(": ")[2], "it may be meant so" if not schedule.either_day else ""


def every(schedule: Schedule) -> int:
    """The seconds between two starts, at least."""
    if len(schedule.minutes) > 1:
        gaps = [b - a for a, b in pairwise(schedule.minutes)]
        return 60 * min([*gaps, 60 - schedule.minutes[-1] + schedule.minutes[0]])
    if len(schedule.hours) > 1:
        gaps = [b - a for a, b in pairwise(schedule.hours)]
        return 3600 * min([*gaps, 24 - schedule.hours[-1] + schedule.hours[0]])
    return 86_400


def of_command(command: str, *, bash: bool, variables: Mapping[str, str], home: str, here: bool) -> Iterator[Found]:
    """About what it does. `home`: the folder that it begins in."""
    root = parse(command)
    if broken(root):
        yield "its shell cannot read it: the parser stumbles over it too", "run it by hand and look"
    yield from _of_output(root, bash=bash)
    yield from _of_words(root, bash=bash)
    found = row(command)
    if found is not None:
        yield from _of_paths(found, variables, home, here=here)
    for pattern, what in _SECRETS:
        if pattern.search(command):
            message = f"{what} stands in the line: `ps` shows it to everybody while it runs"
            yield message, "put it into a file of mode 0600: env_file"
            return


def _of_output(root: Node, *, bash: bool) -> Iterator[Found]:
    for node in walk(root):
        if node.type == "redirected_statement":
            said = [re.sub(r"\s", "", text(one)) for one in redirects(node.child_by_field_name("body") or node)]
            for first, second in pairwise(said):
                if first == "2>&1" and re.match(r"1?>>?[^&]", second):
                    where = second.lstrip("1>")
                    yield f"`2>&1 {second}` sends errors where output went before, not to {where}", f"{second} 2>&1"
        if node.type == "file_redirect" and not bash and text(node).startswith("&>"):
            where = text(node).lstrip("&> ")
            message = f"`&>` is bash's: sh starts the command in the background, and empties {where}"
            yield message, f">{where} 2>&1, or SHELL=/bin/bash above"
    if re.search(r"&\s*2>", text(root)) and not re.search(r"&&\s*2>", text(root)):
        yield "`&2>` starts the command in the background, and redirects nothing", "2>file, or >file 2>&1"


def _of_words(root: Node, *, bash: bool) -> Iterator[Found]:
    if bash:
        return
    if any(node.type == "variable_name" and text(node) == "RANDOM" for node in walk(root)):
        yield "sh has no $RANDOM: where it is dash, as on Debian, it is 0", "jitter spreads the starts of a job"
    for node in walk(root):
        if node.type == "command" and (said := words(node)) and (name := literal(said[0])) in _BASHISMS:
            hint = "SHELL=/bin/bash above, or `.` for source"
            yield f"`{name}` is bash's: where sh is dash, as on Debian, it is not found", hint
        if node.type == "test_command" and text(node).startswith("[["):
            yield "`[[` is bash's: where sh is dash, as on Debian, it is not found", "SHELL=/bin/bash above, or [ … ]"
        if node.type in ("process_substitution", "herestring_redirect"):
            yield f"`{text(node)[:3]}` is bash's: sh cannot read it", "SHELL=/bin/bash above"


def _of_paths(found: Row, variables: Mapping[str, str], home: str, *, here: bool) -> Iterator[Found]:
    moved = any(part.name == "cd" or (part.core and part.core.type == "subshell") for part in found.parts)
    for part in found.parts:
        said = part.words
        if not said or part.name in ("cd",):
            continue
        name = literal(said[0]) or ""
        script = part.arguments[0] if part.arguments and _STARTERS.fullmatch(part.name) else None
        for word in (name if "/" in name else "", script or ""):
            if word and not moved and not word.startswith(("/", "~", "-", "+")) and re.search(r"[/.]", word):
                hint = "write its whole path, or `cd … &&` before it"
                yield f"{word} is looked for in {home}, where cron begins", hint
        if here and name and name not in _SHELL_WORDS and not (moved and not name.startswith("/")):
            path = variables.get("PATH", PATH)
            real = os.path.expanduser(name)
            there = os.access(real, os.X_OK) if "/" in real else shutil.which(real, path=path) is not None
            if not there and not ("/" in real and not os.path.isabs(real)):
                yield f"{name} is not there{'' if '/' in name else f', on the PATH of cron: {path}'}", ""


def of_variable(name: str, value: str) -> Iterator[Found]:
    """About a variable of the crontab."""
    if "$" in value or (name == "PATH" and "~" in value):
        yield f"cron puts nothing in the place of $ or ~: {name} is {value}, letter by letter", "write the whole path"
    if name in ("LOGNAME",):
        yield f"{name} cannot be set: cron keeps the user's", ""
