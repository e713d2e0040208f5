"""A crontab as cron reads it (crontab(5)), and where in it agentrun is called.

    NAME = value            holds for the lines below it; nothing in the value is expanded
    */5 * * * *  command    five fields or @reboot, @daily, …; an unescaped % ends the command

A call is a word that is agentrun by its last part, or `-m agentrun`, with a verb behind it. What is hidden in a script
that the crontab calls is not seen. Lines of /etc/crontab and /etc/cron.d name a user in a further field; those of this
user are read too.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from .finding import some

BEGIN, END = "# BEGIN agentrun:", "# END agentrun"  # the lines around the block of `agentrun install`
PATH = "/usr/bin:/bin"  # where cron looks, unless the crontab says otherwise
_PATIENCE = 5.0  # seconds for `crontab -l`
_VARIABLE = re.compile(r"""\s*(['"]?)([A-Za-z_]\w*)\1\s*=\s*(.*?)\s*$""")
_VERBS = {
    "run", "resume", "cancel", "status", "logs", "events", "doctor", "prune", "export", "report", "stats", "validate",
    "approve", "reject", "signal",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of agentrun. `word` is what it is called by, `schedule` is `*/5 * * * *` or `@reboot`."""

    schedule: str
    word: str
    verb: str
    variables: Mapping[str, str]
    moved: bool  # after a `cd`, or of an unknown folder: a relative path cannot be judged
    arguments: tuple[str, ...] = ()  # the words behind the verb, as far as they are one command's
    installed: bool = False  # it stands in the block of `agentrun install`

    def found(self) -> str | None:
        """The program that cron would start; None if there is none."""
        word = os.path.expanduser(self.word.replace("~/", f"{self.variables['HOME']}/", 1))
        word = re.sub(r"\$\{?(\w+)\}?", lambda name: self.variables.get(name[1], name[0]), word)
        if "$" in word or (self.moved and "/" in word and not os.path.isabs(word)):
            return word  # nobody can say
        if "/" in word:
            word = os.path.join(self.variables["HOME"], word)
            return word if os.access(word, os.X_OK) and os.path.isfile(word) else None
        return shutil.which(word, path=self.variables.get("PATH", PATH))


@dataclass(frozen=True)
class Crontab:
    """All calls that cron makes for a user; `unreadable` is why there is no telling.

    `torn`: where the lines stand that begin and end the block of `agentrun install`, if that is not one pair of them.
    """

    calls: list[Call] = field(default_factory=list)
    unreadable: str = ""
    torn: str = ""


def of_this_user(environ: Mapping[str, str]) -> Crontab:
    """What `crontab -l` shows, and the lines for this user in the system's own tables."""
    user, home = who(environ)
    calls: list[Call] = []
    for path in _tables():
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                calls += parse(file.read(), home, user=user)
        except OSError:
            continue
    if shutil.which("crontab") is None:
        return Crontab(calls)
    try:
        asked = subprocess.run(
            ["crontab", "-l"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return Crontab(calls, f"nothing within {_PATIENCE:g} s")
    if asked.returncode:
        said = os.fsdecode(asked.stderr).strip()
        return Crontab(calls, "" if "no crontab" in said.lower() else said or f"exit status {asked.returncode}")
    text = os.fsdecode(asked.stdout)
    return Crontab([*calls, *parse(text, home)], torn=torn(text))


def torn(text: str) -> str:
    """What is wrong with the lines that begin and end the block of `agentrun install`; "" if nothing."""
    marks = [
        (number, line.startswith(BEGIN))
        for number, line in enumerate(text.split("\n"), 1)
        if line.startswith(BEGIN) or line.strip() == END
    ]
    if not marks or [begins for _, begins in marks] == [True, False]:
        return ""
    return some([f"line {number} {'begins' if begins else 'ends'} it" for number, begins in marks])


def who(environ: Mapping[str, str]) -> tuple[str, str]:
    """The name and home of this user, as cron will have them."""
    try:
        entry = pwd.getpwuid(os.geteuid())
        return entry.pw_name, entry.pw_dir
    except KeyError:
        return environ.get("LOGNAME", ""), environ.get("HOME", "/")


def _tables() -> Iterator[str]:
    yield "/etc/crontab"
    try:
        for name in sorted(os.listdir("/etc/cron.d")):
            if re.fullmatch(r"[\w-]+", name):  # cron passes over all others
                yield os.path.join("/etc/cron.d", name)
    except OSError:
        pass


def parse(text: str, home: str, *, user: str | None = None) -> list[Call]:
    """The calls in a crontab. With `user`, it is one of the system's, and only that user's lines count."""
    variables = {"HOME": home, "PATH": PATH}
    calls: list[Call] = []
    installed = False
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            installed = line.startswith(BEGIN) or (installed and line != END)
            continue
        if setting := _VARIABLE.match(line):
            value = setting[3]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            variables = {**variables, setting[2]: value}
            continue
        fields = line.split(None, (1 if line.startswith("@") else 5) + (user is not None))
        count = 1 if line.startswith("@") else 5
        if len(fields) <= count + (user is not None) or (user is not None and fields[count] != user):
            continue
        command = re.split(r"(?<!\\)%", fields[-1])[0].replace("\\%", "%")
        calls += _calls(" ".join(fields[:count]), command, variables, installed)
    return calls


def _calls(schedule: str, command: str, variables: Mapping[str, str], installed: bool) -> Iterator[Call]:
    words = _words(command)
    own = dict(variables)
    moved = False
    for place, word in enumerate(words):
        if setting := _VARIABLE.fullmatch(word):
            own[setting[2]] = setting[3]
        moved |= word == "cd"
        behind = words[place + 1 :]
        verb = next((other for other in behind if not other.startswith("-")), "")
        if verb not in _VERBS or os.path.basename(word) != "agentrun":
            continue
        arguments = tuple(takewhile(lambda other: not set(other) <= set(";&|()<>"), behind[behind.index(verb) + 1 :]))
        if place > 1 and words[place - 1] == "-m":
            interpreter = next((other for other in reversed(words[: place - 1]) if not other.startswith("-")), "")
            yield Call(schedule, interpreter, verb, dict(own), moved, arguments, installed)
        else:
            yield Call(schedule, word, verb, dict(own), moved, arguments, installed)


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # a quote without its end
        return command.split()
