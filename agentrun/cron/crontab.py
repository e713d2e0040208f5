"""A user's crontab with our block in it, as bytes: what `install` and `uninstall` make of it. Pure.

    # BEGIN agentrun: …                 and what the end of the text before it was, if it was not an ordinary one
    SHELL=, PATH=, …                    what the lines need of the environment of the installation
    # job NAME: FILE                    a section for each job, with its lines
    # all jobs                          `resume`, at the boot and every minute
    # for the lines below               the variables as they were above: the block changes nothing for others
    # END agentrun

The block stands at the end; one that has got lines below it is replaced where it is. Every other byte stays as it is,
and `without` gives back the text from before, a missing final newline or a missing crontab included. A block without
its end, or a second one, is refused: nobody can know what in it is ours.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import CannotWrite

LONGEST_COMMAND = 998   # bytes: MAX_COMMAND of Debian's cron less its end
LONGEST_SETTING = 998   # bytes of NAME=value: MAX_ENVSTR there; it cuts off what is longer without a word
PATH = "/usr/bin:/bin"  # cron's own

_BEGIN = b"# BEGIN agentrun:"
_END = b"# END agentrun"
_ABOUT = b" written by `agentrun install`, taken out by `agentrun uninstall`"
_NO_CRONTAB = b"# (there was no crontab before)"
_NO_NEWLINE = b"# (the line above had no newline at its end)"
_EVERY = b"# all jobs: go on with what was cut off"
_BELOW = b"# for the lines below: as it was above"
_JOB = re.compile(rb"# job ([A-Za-z0-9_][A-Za-z0-9_.-]*): (.*)")
_SETTING = re.compile(rb"\s*(['\"]?)([A-Za-z_]\w*)\1\s*=\s*(.*?)\s*")


class Section(NamedTuple):
    """What is installed of one job. `lines`: as they stand in the crontab."""

    name: str
    file: str
    lines: tuple[bytes, ...]


class Table(NamedTuple):
    """A crontab, taken apart. `before` and `after` are the bytes of others; `sections` is None where no block is."""

    before: bytes
    sections: tuple[Section, ...] | None
    after: bytes
    no_crontab: bool = False   # there was none before the block
    no_newline: bool = False   # `before` had none at its end
    begin: bytes = b""         # the block's first line, as it stands there
    body: tuple[bytes, ...] = ()  # what stands between that and its last
    end: bytes = b""

    @property
    def jobs(self) -> tuple[Section, ...]:
        """The jobs that are installed."""
        return self.sections or ()

    def above(self, name: str) -> str | None:
        """What a variable is set to above the block, for the lines that follow."""
        return _value(_last_setting(self.before.splitlines(), name))

    def inside(self, name: str) -> str | None:
        """What it is set to for the jobs."""
        lines = self.body[: self.body.index(_EVERY)] if _EVERY in self.body else self.body
        return _value(_last_setting(lines, name))

    def without(self) -> bytes | None:
        """The crontab without the block; None where there was none, and nothing has come to it."""
        if self.no_crontab and not self.before and not self.after:
            return None
        cut = self.no_newline and not self.after
        return (self.before[:-1] if cut else self.before) + self.after

    def with_jobs(
        self, sections: Sequence[Section], settings: Mapping[str, str], resume: Sequence[bytes]
    ) -> bytes:
        """The crontab with these jobs, and no others: a new block."""
        fresh = self.sections is None
        no_newline = bool(self.before) and not self.before.endswith(b"\n") if fresh else self.no_newline
        before = self.before + b"\n" if fresh and no_newline else self.before
        lines = [_BEGIN + _ABOUT]
        lines += [_NO_CRONTAB] * self.no_crontab + [_NO_NEWLINE] * no_newline
        lines += [setting(name, value) for name, value in settings.items()]
        for section in sorted(sections):
            lines += [os.fsencode(f"# job {section.name}: {section.file}"), *section.lines]
        lines += [_EVERY, *resume, _BELOW]
        for name in settings:
            above = _last_setting(self.before.splitlines(), name)
            lines.append(setting(name, _DEFAULTS.get(name, "")) if above is None else above)
        return before + b"\n".join([*lines, _END, b""]) + self.after


    def without_jobs(self, names: Container[str]) -> bytes | None:
        """The crontab less the sections of these jobs; with the last of them the block goes."""
        if all(section.name in names for section in self.jobs):
            return self.without()
        kept, ours = [], False
        for line in self.body:
            plain = line.rstrip(b"\r")
            if plain == _EVERY:
                ours = False
            elif begin := _JOB.fullmatch(plain):
                ours = begin[1].decode() in names
            if not ours:
                kept.append(line)
        return self.before + b"\n".join([self.begin, *kept, self.end, b""]) + self.after


_DEFAULTS = {"SHELL": "/bin/sh", "PATH": PATH}


def _last_setting(lines: Iterable[bytes], name: str) -> bytes | None:
    last = None
    for line in lines:
        found = _SETTING.fullmatch(line)
        if found and found[2] == name.encode():
            last = line
    return last


def _value(line: bytes | None) -> str | None:
    found = _SETTING.fullmatch(line) if line is not None else None
    return os.fsdecode(found[3].strip(b"'\"")) if found else None


def parse(text: bytes | None) -> Table:
    """Take a crontab apart; None is one that is not there. Raises CannotWrite for a block that is torn."""
    if text is None:
        return Table(b"", None, b"", no_crontab=True)
    lines = text.split(b"\n")
    plain = [line.rstrip(b"\r") for line in lines]
    begins = [number for number, line in enumerate(plain) if line.startswith(_BEGIN)]
    ends = [number for number, line in enumerate(plain) if line.strip() == _END]
    if not begins and not ends:
        return Table(text, None, b"")
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        where = ", ".join(f"line {number + 1}" for number in sorted({*begins, *ends}))
        raise CannotWrite(
            f"the crontab's block of agentrun is torn: it has {len(begins)} lines '{_BEGIN.decode()}' and {len(ends)}"
            f" '{_END.decode()}' ({where}); nothing was changed",
            "repair it by hand with `crontab -e`: leave one pair of them around the lines of agentrun, or take all out",
        )
    begin, end = begins[0], ends[0]
    body = plain[begin + 1 : end]
    before = b"".join(line + b"\n" for line in lines[:begin])
    after = b"\n".join(lines[end + 1 :])
    return Table(
        before, _sections(body), after, _NO_CRONTAB in body, _NO_NEWLINE in body,
        begin=lines[begin], body=tuple(lines[begin + 1 : end]), end=lines[end],
    )  # fmt: skip


def _sections(body: Iterable[bytes]) -> tuple[Section, ...]:
    found: list[tuple[bytes, bytes, list[bytes]]] = []
    for line in body:
        if line == _EVERY:
            break
        if begin := _JOB.fullmatch(line):
            found.append((begin[1], begin[2], []))
        elif found:
            found[-1][2].append(line)
    return tuple(Section(name.decode(), os.fsdecode(file), tuple(lines)) for name, file, lines in found)


def setting(name: str, value: str) -> bytes:
    """A variable as a line. Raises CannotWrite for a value that cron would not read as it is."""
    line = os.fsencode(f"{name}={value}")
    if not value or value != value.strip() or value.startswith(("'", '"')):
        quote = "'" if '"' in value else '"'
        line = os.fsencode(f"{name}={quote}{value}{quote}")
    if len(line) > LONGEST_SETTING or any(byte < 32 for byte in line):
        raise CannotWrite(f"{name} has a value that a crontab cannot hold: {value!r}", "install with another one")
    return line


def command(words: Sequence[str]) -> str:
    """Words as a crontab's line has them: quoted for sh, and each % for cron."""
    text = " ".join(map(shlex.quote, words))
    # a backslash right before a % would be taken for that %'s: two quotes, which are nothing to sh, stand between
    return re.sub(r"(\\?)%", lambda at: f"{at[1]}''\\%" if at[1] else "\\%", text)


def section(name: str, file: str, times: Iterable[str], words: Sequence[str]) -> Section:
    """The lines of a job. Raises CannotWrite for a command that cron would not take."""
    line = command(words)
    if len(os.fsencode(line)) > LONGEST_COMMAND:
        raise CannotWrite(
            f"the line of job {name} would have a command of {len(os.fsencode(line))} bytes, and cron takes"
            f" {LONGEST_COMMAND} at most: {file}",
            "move the job file to where its path is shorter",
        )
    return Section(name, file, tuple(os.fsencode(f"{time} {line}") for time in times))


def search_path(value: str, exists: Mapping[str, bool]) -> tuple[str, list[str]]:
    """The PATH for the block, and the folders that were left out of it. Raises CannotWrite if it is too long.

    Folders that are not absolute mean nothing there; if it is too long for cron, those that are not there
    (by `exists`) go too.
    """
    folders = [folder for folder in dict.fromkeys(value.split(":")) if folder]
    kept = [folder for folder in folders if folder.startswith("/") and folder.isprintable()]
    if _length(kept) > LONGEST_SETTING:
        kept = [folder for folder in kept if exists.get(folder, True)]
    if _length(kept) > LONGEST_SETTING:
        raise CannotWrite(
            f"PATH has {_length(kept)} bytes, and cron cuts off what is more than {LONGEST_SETTING}",
            "install with a shorter one, with the folders that the jobs need: PATH=… agentrun install …",
        )
    return ":".join(kept) or PATH, [folder for folder in folders if folder not in kept]


def _length(folders: Sequence[str]) -> int:
    return len(os.fsencode("PATH=" + ":".join(folders)))
