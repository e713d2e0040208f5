"""What `init` is given: a command line, a line of a crontab, or the path of a script; and what it makes of each.

A line of a crontab is taken apart: its schedule becomes the job's, the folder is where cron runs it, and what stands
behind a `%` is given to it as cron does. A script is started by what its first line names, else by what its ending or
its text says; what cannot be told is refused. `notes` are what is worth a word to whoever asked: what was taken for
what, a redirection that keeps the output from agentrun, a pipe.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
from typing import NamedTuple

from ..errors import UsageError
from ..health.crontab import who
from ..render.terminal import printable
from ..step.contract import _SHELL_WORDS

_FIELD = r"[0-9*][0-9*/,-]*"
_NAMED = r"[0-9*A-Za-z][0-9*/,A-Za-z-]*"
_TIMES = rf"(?:@[a-z]+|{_FIELD}\s+{_FIELD}\s+{_FIELD}\s+{_NAMED}\s+{_NAMED})"
_CRON_LINE = re.compile(rf"\s*({_TIMES})\s+(\S.*)", re.DOTALL)
_TIMES_ALONE = re.compile(rf"\s*({_TIMES})\s*")
_SETTING = re.compile(r"""\s*([A-Za-z_]\w*)(?:=(?:"[^"]*"|'[^']*'|[^\s;&|<>()"'$`]*)|[ \t]*=[ \t].*|[ \t]+=.*)\s*""")
_WITH_USER = re.compile(r"([a-z_][a-z0-9_-]*)\s+(\S.*)", re.DOTALL)
# what is quoted, or a comment, means nothing to the shell
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?:(?<=\s)|^)\#[^\n]*""", re.DOTALL)
_PIPE = re.compile(r"(?<![|>])\|(?!\|)")
_AWAY = re.compile(r">>?\s*[^\s;&|<>]+\s+2>\s*&1|&>>?\s*[^\s;&|<>]+|2>>?\s*/dev/null")
_ENDINGS = {
    ".py": "python3", ".pl": "perl", ".rb": "ruby", ".js": "node", ".php": "php", ".bash": "bash", ".zsh": "zsh",
    ".sh": "sh",
}  # fmt: skip
_HEAD = 2**16  # bytes of a script that are looked at
_PATIENCE = 10  # seconds for a shell that reads a file and executes nothing


class Wanted(NamedTuple):
    """What the file is to say. `shell`: None for the default."""

    command: str
    schedule: str | None
    folder: str
    shell: str | None = None
    notes: tuple[str, ...] = ()


def wanted(command: str, schedule: str | None) -> Wanted:
    """What is meant by a command line. Raises UsageError."""
    _refuse_what_is_none(command)
    if line := _CRON_LINE.fullmatch(command):
        if schedule is not None:
            raise UsageError("this is a line of a crontab, with a schedule of its own", "leave --schedule out")
        if line[1] == "@reboot":
            raise UsageError(
                "@reboot is no schedule of a job: it has no times",
                f"agentrun init {shlex.quote(line[2])}, and `@reboot agentrun run FILE` in the crontab",
            )
        times, text = " ".join(line[1].split()), line[2].rstrip("\n")
        _refuse_user(times, text)
        shell, notes = _of_shell(re.split(r"(?<!\\)%", text)[0])
        return Wanted(_as_cron_reads(text), times, who(os.environ)[1], shell, notes)
    if os.path.isfile(path := os.path.expanduser(command)):
        call, notes = _call_of(os.path.abspath(path))
        return Wanted(call, schedule, _here(), None, notes)
    return Wanted(command.strip("\n"), schedule, _here(), *_of_shell(command))


def _refuse_what_is_none(command: str) -> None:
    try:
        command.encode()
    except UnicodeEncodeError:
        raise UsageError("the command line is not UTF-8", "put it into a script, and name that") from None
    if not command.strip():
        raise UsageError("there is no command line", "for example: agentrun init './backup.sh --all'")
    if all(line.lstrip()[:1] in ("", "#") for line in command.splitlines()):
        raise UsageError("this is a comment, and no command line", "leave the # out, if it is to run again")
    if times := _TIMES_ALONE.fullmatch(command):
        alone = " ".join(times[1].split())
        raise UsageError(
            f"this is a schedule without a command: {alone}",
            f"put the command behind it, or: agentrun init COMMAND --schedule {shlex.quote(alone)}",
        )
    if setting := _SETTING.fullmatch(command):
        raise UsageError(
            f"this sets a variable, and is no command line: {setting[1]}",
            "who is told of a failure stands in the job file under notify:"
            if setting[1] in ("MAILTO", "MAILFROM")
            else "what a job needs of a crontab's variables stands in the job file under env:",
        )


def _refuse_user(times: str, text: str) -> None:
    """A line of /etc/crontab or /etc/cron.d has a field more: the user. A program of that name is what is meant."""
    words = _WITH_USER.fullmatch(text)
    if words is None or words[1] in _SHELL_WORDS or shutil.which(words[1]) is not None:
        return
    behind = words[2].split(None, 1)[0]
    if not (behind in _SHELL_WORDS or shutil.which(behind) or (behind[0] == "/" and not os.path.isdir(behind))):
        return  # the name is a program's that is not here, and this is what it is given
    try:
        pwd.getpwnam(words[1])
    except KeyError:
        return
    raise UsageError(
        f"this line names a user, as those of /etc/crontab and /etc/cron.d do: {words[1]}",
        f"leave it out, and do it as {words[1]}: agentrun init {shlex.quote(f'{times} {words[2]}')}",
    )


def _as_cron_reads(command: str) -> str:
    """A % of a crontab is a line break, and what follows the first is the command's input (crontab(5))."""
    first, *rest = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", command)]
    if not rest:
        return first
    end = "END_OF_INPUT"
    while end in rest:
        end += "_"
    return "\n".join(["{", first.strip(), f"}} <<'{end}'", *rest, end]) + "\n"


def _of_shell(command: str) -> tuple[str | None, tuple[str, ...]]:
    """The shell that the command is better given to, and the words about it and about its redirections."""
    plain = _QUOTED.sub("q", command)
    shell, notes = None, []
    if _PIPE.search(plain):
        if shutil.which("bash"):
            shell = "bash"
            notes.append("there is a pipe: `shell: bash` makes it fail if any of its commands does, not only the last")
        else:
            notes.append("there is a pipe, which sh calls good if its last command is; there is no bash here")
    if away := _AWAY.search(plain):
        notes.append(
            f"agentrun keeps the output itself, for `agentrun logs`: with `{away[0]}` the report of a failure has"
            " nothing of it; take that out of `run`"
        )
    return shell, tuple(notes)


# -- scripts ---------------------------------------------------------------------------------------------------------


def _call_of(path: str) -> tuple[str, tuple[str, ...]]:
    """How a file is started, and a word about it where that is not plain to see. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        if os.access(path, os.X_OK):
            return shlex.quote(path), ()  # a program may be executed by who cannot read it
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}", "chmod u+rx makes it yours") from None
    executable = os.access(path, os.X_OK)
    first = head.split(b"\n", 1)[0]
    named = first[2:].decode(errors="replace").strip() if first.startswith(b"#!") else ""
    if executable and (named or b"\0" in head):
        return shlex.quote(path), ()
    if named:
        return f"{named} {shlex.quote(path)}", ()
    base = os.path.basename(path)
    program = _ENDINGS.get(os.path.splitext(base)[1])
    if program is None and _looks_like_shell(path, head):
        program = "sh"
    if program is None:
        raise UsageError(
            f"nobody can tell what runs {printable(base)}: it has no `#!` line, no ending that is known, and does not"
            " read like a shell script",
            f"name the program, for example: agentrun init {shlex.quote(f'python3 {shlex.quote(path)}')}",
        )
    return f"{program} {shlex.quote(path)}", (f"{base} has no `#!` line: {program} is taken to run it",)


def _looks_like_shell(path: str, head: bytes) -> bool:
    """Whether its first command is one that can be run, and sh can read all of it."""
    if b"\0" in head:
        return False
    lines = (line.strip() for line in head.decode(errors="replace").splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    words = re.match(r"[^\s;&|()<>]+", first)
    if words is None or not (
        words[0] in _SHELL_WORDS or re.match(r"[A-Za-z_]\w*=", words[0]) or shutil.which(words[0]) is not None
    ):
        return False
    try:
        asked = subprocess.run(
            ["sh", "-n", path], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 0


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"
