"""Which programs the steps of a job name, and what was in them: so that a resume can say what has changed since.

Only files that are there when the run is created count, and of those only programs: data changes because steps
run. In `run`, a word is taken for a program where it is the path that a command begins with, the script of a
known interpreter, a path that begins with `./`, or an executable file; what output is redirected to is not.
The text is split into words as a shell does in plain cases, no more. A change is told: the run goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

from .. import effects
from ..digest import sha256_hex
from ..model import Job
from ..store.folders import RunFolder

_BIGGEST = 4 << 20  # bytes; a larger file is data, not program
# a comment, a redirection with its target's beginning, what ends a command, a word with its quotes
_TOKEN = re.compile(
    r"(?P<comment>(?<![^\s;&|()])\#[^\n]*)|(?P<redirection>\d*(?:>>?\|?&?|<<?<?-?&?)[ \t]*)"
    r"|(?P<end>[;&|()\n]+)|(?P<word>(?:\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s;&|()<>'\"\\])+)",
    re.VERBOSE | re.DOTALL,
)
_INTERPRETERS = re.compile(r"(?:.*/)?(?:(?:ba|da|k|z)?sh|python[\d.]*|pypy[\d.]*|perl|node|ruby|php|Rscript|awk|sed)")
_SOURCES = (".", "source")
_BEFORE_A_COMMAND = {
    *("!", "{", "if", "then", "elif", "else", "while", "until", "do", "time"),
    *("exec", "command", "nohup", "env", "sudo", "nice", "ionice", "setsid", "chronic"),
}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def save(folder: RunFolder, job: Job, job_folder: str) -> None:
    """Keep what the named files hold now. Not synced: without it a resume has nothing to tell, no more."""
    prints = _prints(job, job_folder)
    if prints:
        with open(effects.create(path_in(folder), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(prints, file)


def changed(folder: RunFolder) -> list[str]:
    """The named files that are not what they were, in order."""
    try:
        with open(path_in(folder)) as file:
            kept: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        return []
    return sorted(name for name, digest in kept.items() if _digest(name) != digest)


def path_in(folder: RunFolder) -> str:
    """Where they are kept."""
    return folder.path + "/files.json"


def _prints(job: Job, job_folder: str) -> dict[str, str]:
    base = os.path.join(job_folder, os.path.expanduser(job.working_dir or ""))
    prints: dict[str, str] = {}
    written: set[str] = set()
    for name, is_program in _names(job):
        path = os.path.normpath(os.path.join(base, name))
        if is_program is False:
            written.add(path)
        elif path not in prints and (is_program or _is_executable(path)):
            digest = _digest(path)
            if digest is not None:
                prints[path] = digest
    return {path: digest for path, digest in prints.items() if path not in written}


def _names(job: Job) -> Iterator[tuple[str, bool | None]]:
    """Names of files, and whether they are programs: False of what is written to, None: if it is executable."""
    for step in job.steps:
        if step.verify is not None:
            yield from named(step.verify)
        if step.run is not None:
            yield from named(step.run)
        elif step.python is not None and step.python.module is not None:
            for name in _module(step.python.module):
                yield name, True


def named(text: str) -> Iterator[tuple[str, bool | None]]:
    """The same of a shell's program text."""
    first, script, target = True, False, False  # what the next word is: a command, an interpreter's, written to
    module = False
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "end":
                first, script, target, module = True, False, False, False
            case "redirection":
                target = True
            case "word":
                word = _unquoted(token.group())
                if target:
                    target = False
                    yield word, False
                elif module:
                    module = False
                    for name in _module(word):
                        yield name, True
                elif script:
                    module, script = word == "-m", word.startswith("-") and word not in ("-c", "-e", "-m")
                    if not word.startswith("-"):
                        yield word, True
                elif first:
                    if not _ASSIGNMENT.match(word) and word not in _BEFORE_A_COMMAND:
                        first = False
                        script = word in _SOURCES or _INTERPRETERS.fullmatch(word) is not None
                        yield word, True if "/" in word else None
                elif "$" not in word:
                    yield word, True if word.startswith("./") else None


def _unquoted(word: str) -> str:
    return re.sub(r"['\"]|\\(?=.)", "", word)


def _module(name: str) -> tuple[str, str]:
    stem = name.replace(".", "/")
    return stem + ".py", stem + "/__init__.py"


def _is_executable(path: str) -> bool:
    return "\0" not in path and os.access(path, os.X_OK)


def _digest(path: str) -> str | None:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _BIGGEST:
            return None
        with open(path, "rb") as file:
            return sha256_hex(file.read())
    except (OSError, ValueError):
        return None
