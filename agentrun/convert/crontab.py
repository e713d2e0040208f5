"""A crontab, line by line, to the byte: what cron takes each line for, and what it does with it.

    NAME = value                      a variable, for the lines below it; Debian's cron expands nothing in it
    */5 * * * *  [user]  command      an entry: five fields, or @reboot, @daily, …
    # …                               a comment, where it is the first thing of its line

Every line is one of these, or blank, or `unknown`, with the reason. The rules are those of Debian's cron (env.c and
entry.c there, asked of a real one); what cronie has besides is taken too: `~`, a leading `-`, CRON_TZ, RANDOM_DELAY. Of
a line that is wrong Debian's cron says so in the log, and leaves out the whole file.

Whether entries name a user is said by whoever asks, or by the file's place, or found out by all entries together.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from ..errors import AgentrunError
from ..spec import schedules
from ..step.contract import _SHELL_WORDS

Kind = Literal["blank", "comment", "variable", "entry", "unknown"]

MOST_LINES: Final = 10_000
_FIELDS: Final = re.compile(r"-?(?:\S+[ \t]+){4}\S+")
_NICKNAME: Final = re.compile(r"-?@\S+")
_USER: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*\$?)([ \t]+)(?=\S)")
_SPACE: Final = " \t\v\f\r"
# who has entries in system crontabs on machines that this one may know nothing of
_USERS: Final = frozenset(
    """root www-data www apache nginx httpd nobody postgres mysql daemon munin nagios icinga zabbix ubuntu debian
    centos ec2-user vagrant pi deploy git jenkins mail mailman list news uucp asterisk backup redis rabbitmq
    elasticsearch logstash prometheus grafana gitlab sympa smmsp amavis clamav bin sys operator""".split()  # noqa: SIM905
)
_SYSTEM_PLACES: Final = re.compile(r"(?:^|/)(?:etc/crontab|etc/cron\.d/[^/]+|debian/(?:[^/]+\.)?cron\.d)$")


class NotACrontab(AgentrunError):
    """Empty, binary, prose, a script: nothing that cron would run."""

    exit_code = 65


@dataclass(frozen=True)
class Line:
    """A line. `raw` has its end; `times`, `user` and `command` are an entry's, as they are written; `number` from 1.

    `head`: what stands before the command, to the byte. `why`: what cron has against an unknown line or a variable.
    """

    number: int
    raw: bytes
    kind: Kind
    text: str = ""
    times: str = ""
    user: str = ""
    command: str = ""
    head: str = ""
    name: str = ""
    value: str = ""
    why: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is UTF-8: all else stays as it is."""
        return not any("\ud800" <= char <= "\udfff" for char in self.command)


@dataclass(frozen=True)
class Crontab:
    """A crontab, taken apart. `system`: its entries name a user."""

    lines: tuple[Line, ...]
    system: bool

    @property
    def entries(self) -> list[Line]:
        return [line for line in self.lines if line.kind == "entry"]

    @property
    def unknown(self) -> list[Line]:
        return [line for line in self.lines if line.kind == "unknown"]


def read(data: bytes, *, system: bool | None = None, path: str | None = None) -> Crontab:
    """Take a crontab apart. `system`: None to find it out, also by its place."""
    lines = [_line(number, raw) for number, raw in enumerate(_split(data), 1)]
    if system is None:
        system = bool(path and _SYSTEM_PLACES.search(os.path.abspath(path))) or _names_users(lines)
    if system:
        lines = [_with_user(line) if line.kind == "entry" else line for line in lines]
    return Crontab(tuple(lines), system)


def refuse_long(data: bytes, name: str) -> None:
    """Raises NotACrontab."""
    lines = data.count(b"\n")
    if lines > MOST_LINES:
        words = f"{name} has {lines} lines: more than {MOST_LINES} are not read as a crontab"
        raise NotACrontab(words, "convert a part of it, or correct what makes it so long")


def refuse_none(table: Crontab, name: str) -> None:
    """Raises NotACrontab."""
    if table.unknown and not table.entries:
        first = table.unknown[0]
        raise NotACrontab(f"{name} is no crontab: line {first.number}: {first.why}", "--as script, if it is one")


def kind_of(data: bytes, path: str | None) -> Literal["crontab", "script"]:
    """What a file is, by its content. Raises NotACrontab for what is neither."""
    name = path or "the input"
    if data.startswith(b"#!") or (path and path.endswith((".sh", ".bash", ".py", ".zsh", ".ksh", ".fish", ".csh"))):
        return "script"
    lines = [_line(number, raw) for number, raw in enumerate(_split(data)[:MOST_LINES], 1)]
    count = {kind: sum(line.kind == kind for line in lines) for kind in ("entry", "unknown", "variable", "comment")}
    if count["entry"] and count["entry"] + count["variable"] >= count["unknown"] // 4:
        return "crontab"
    if not count["unknown"] and count["comment"]:
        return "crontab"
    if count["entry"] or not _reads_like_shell(lines):
        first = next((line for line in lines if line.kind == "unknown"), None)
        where = f"line {first.number}: {first.why}" if first else "nothing in it is an entry"
        hint = "--as crontab or --as script says what it is"
        raise NotACrontab(f"{name} is neither a crontab ({where}) nor a script", hint)
    return "script"


def _reads_like_shell(lines: Sequence[Line]) -> bool:
    """Whether the first line that is no comment begins with a command or an assignment."""
    first = next((line.text.strip() for line in lines if line.kind not in ("blank", "comment")), "")
    word = re.match(r"[^\s;&|()<>]+", first)
    return word is not None and (setting(first) is not None or _is_program(word[0]))


def variables_at(table: Crontab) -> Iterator[tuple[Line, Mapping[str, str]]]:
    """Each entry with the variables that stand above it."""
    known: dict[str, str] = {}
    for line in table.lines:
        if line.kind == "variable":
            known = {**known, line.name: line.value}
        elif line.kind == "entry":
            yield line, known


def _split(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _line(number: int, raw: bytes) -> Line:
    text = raw.removesuffix(b"\n").decode(errors="surrogateescape")
    bare = text.lstrip(_SPACE)
    if not bare:
        return Line(number, raw, "blank", text)
    if bare.startswith("#"):
        return Line(number, raw, "comment", text)
    if "\0" in bare:
        return Line(number, raw, "unknown", text, why="it has a NUL character")
    if found := setting(bare):
        name, value, why = found
        return Line(number, raw, "variable", text, name=name, value=value, why=why)
    return _entry(number, raw, text, bare)


def _entry(number: int, raw: bytes, text: str, bare: str) -> Line:
    """An entry, its user still in its command; or why it is none."""
    found = _NICKNAME.match(bare) if bare.lstrip("-").startswith("@") else _FIELDS.match(bare)
    if found is None or not re.search(r"[\d*@~?]", bare.split()[0]):
        return Line(number, raw, "unknown", text, why=_what_it_is(bare))
    if why := wrong_times(found[0]):
        return Line(number, raw, "unknown", text, why=why)
    rest = bare[found.end() :]
    command = rest.lstrip(" \t")
    if not command.strip(_SPACE):
        return Line(number, raw, "unknown", text, why="it has times and no command")
    if command.startswith("*"):
        return Line(number, raw, "unknown", text, why="a sixth field of times: cron has five, and no seconds or years")
    head = text[: len(text) - len(command)]
    return Line(number, raw, "entry", text, times=found[0], command=command, head=head)


def wrong_times(times: str) -> str:
    """Why cron does not take these times; "" if it does. What never comes, cron takes."""
    bare = times.removeprefix("-")
    if bare == "@reboot":
        return ""
    plain = re.sub(r"(?<=[\d])~(?=\d)", "-", bare)
    plain = re.sub(r"(?:^|(?<=\s))~(?=\s|$)", "*", plain)
    try:
        schedules.parse(plain)
    except schedules.Wrong as wrong:
        return "" if wrong.message.startswith("it never comes") else wrong.message
    return ""


def _what_it_is(bare: str) -> str:
    if re.match(r"[A-Za-z_]\w*\s*=\s*$", bare):
        return "a variable without a value: Debian's cron wants \"\" there"
    if re.match(r"[A-Za-z_]\w*\s*=\s*['\"]", bare):
        return "a variable with something behind the quotes of its value"
    if re.match(r"(?:export\s|set\s)", bare):
        return "a command of a shell: a variable of a crontab is NAME=value alone"
    return "neither a comment, nor a variable, nor five fields of times and a command"


def setting(text: str) -> tuple[str, str, str] | None:
    """Name, value and what is to be said against a line NAME=value, as Debian's cron (env.c) reads it; None: none."""
    found = re.match(r"""(?:(['"])([^'"=]*)\1|([^\s='"][^\s=]*))\s*=\s*""", text)
    if found is None:
        return None
    name, rest = found[2] if found[1] else found[3], text[found.end() :]
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        return None
    if rest[:1] in ("'", '"') and rest:
        end = rest.find(rest[0], 1)
        if end < 0 or rest[end + 1 :].strip(_SPACE):
            return None
        return name, rest[1:end], ""
    value = rest.rstrip(_SPACE)
    if not value:  # cronie takes it for an empty value
        return name, "", "it has no value: Debian's cron refuses the whole file for that, and wants \"\" there"
    return name, value, ""


# -- the user -------------------------------------------------------------------------------------------------------


def _names_users(lines: Sequence[Line]) -> bool:
    """Whether the entries have a user before the command: all of them together say so."""
    users = commands = 0
    unsure: list[str] = []
    for line in lines:
        if line.kind != "entry":
            continue
        found = _USER.match(line.command)
        if found is None or line.command[found.end()] in "=|;&<>-" or line.command.startswith((".", "[")):
            commands += 1
        elif _is_user(found[1]) and not _is_program(found[1]):
            users += 1
        elif _is_program(found[1]):
            commands += 1
        else:
            unsure.append(found[1] + "\0" + line.command[found.end() :])
    if users or commands:
        return users > commands
    behind = [one.partition("\0")[2].split()[0] for one in unsure]
    return bool(unsure) and all("/" in word or _is_program(word) for word in behind)


def _is_user(word: str) -> bool:
    if word in _USERS:
        return True
    try:
        pwd.getpwnam(word)
    except (KeyError, ValueError):
        return False
    return True


def _is_program(word: str) -> bool:
    if word in _SHELL_WORDS or word in _PROGRAMS:
        return True
    return word not in _USERS and shutil.which(word) is not None


_PROGRAMS: Final = frozenset(
    """php python python3 ruby perl node bash sh zsh curl wget sudo su env nice ionice flock timeout chronic cronic
    rsync tar find rm cp mv docker docker-compose podman git service systemctl mysqldump pg_dump psql mysql certbot
    rclone restic borg npm yarn npx rake bundle java screen tmux nohup logger mail mailx aws gcloud kubectl crontab
    run-parts source cd test echo date apt-get apt yum dnf pip duplicity ntpdate emacs Rscript wp drush""".split()  # noqa: SIM905
)


def _with_user(line: Line) -> Line:
    found = _USER.match(line.command)
    if found is None or (not _is_user(found[1]) and _is_program(found[1])):
        why = "it names no user before its command, as the lines of a system crontab do"
        return replace(line, kind="unknown", command="", head="", times="", why=why)
    command = line.command[found.end() :]
    return replace(line, user=found[1], command=command, head=line.text[: len(line.text) - len(command)])
