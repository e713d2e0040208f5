"""A script that is not divided as a job: one step that calls it, as it is called now.

By its path alone where it can be executed and says by what, else by the interpreter that its first line names, else by
the one that its ending stands for. `convert` is for all that is neither a shell's nor Python's: perl, ruby, node, php.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

from ..errors import UsageError
from ..spec.fields import JOB_NAME
from .draft import Draft, DraftStep, Keys
from .notes import Converted, Note

# above the `carry` of a job whose one step calls a script
IN_PLACE = "begins where the run is started, as the script does"

_INTERPRETERS = {
    ".pl": "perl", ".rb": "ruby", ".js": "node", ".mjs": "node", ".php": "php", ".lua": "lua", ".r": "Rscript",
    ".tcl": "tclsh", ".awk": "awk -f",
}  # fmt: skip
_SHELLS = ("sh", "dash", "ash", "ksh", "ksh93", "mksh", "zsh", "fish", "csh", "tcsh", "yash", "rc", "xonsh", "nu")
_ENDINGS = re.compile(r"\.(sh|bash|ksh|zsh|fish|csh|tcsh|pyw?|pl|rb|m?js|php|lua|[rR]|tcl|awk)$")
_NO_DESCRIPTION = re.compile(r"coding[:=]|vim:|-\*-|copyright|licen[sc]e|spdx|\bauthor\b", re.IGNORECASE)
_LONGEST = 200


def calls(
    path: str,
    command: str,
    notes: list[Note],
    *,
    description: str = "",
    comment: Sequence[str] = (),
    keys: Keys = (),
    said: Mapping[str, str] | None = None,
) -> Converted:
    """The job; `keys` and `said` are the step's, `comment` is what the script says of itself. Raises UsageError."""
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise UsageError(f"the name of {path!r} is not UTF-8, and cannot stand in a job file", "rename the script")
    name = job_name(path)
    draft = Draft(
        name,
        [*([("description", description)] if description else []), ("carry", "shell")],
        [DraftStep(step_id(name), [*keys, ("run", command)], said=said or {})],
        comment=origin(path, comment),
        said={"carry": IN_PLACE},
    )
    return Converted(draft, notes, 1, whole=True)


def origin(path: str | None, comment: Sequence[str]) -> str:
    """What stands at the top of the job file."""
    parts = (f"Converted from {path}" if path else "", "\n".join(comment))
    return "\n\n".join(part for part in parts if part)


def command_of(path: str, interpreter: Sequence[str]) -> str:
    """What calls it: its path where that can be executed."""
    return shlex.quote(path) if os.access(path, os.X_OK) else shlex.join([*interpreter, path])


def job_name(path: str | None) -> str:
    """What a job is called that starts this file: `nightly-sync` for `/opt/nightly sync.py`."""
    stem = _ENDINGS.sub("", os.path.basename(path or "script")).lstrip(".")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64].rstrip("-.")
    return name if re.fullmatch(JOB_NAME, name) else "job"


def step_id(name: str) -> str:
    """The id of its one step."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return plain if re.match("[A-Za-z_]", plain) else f"run-{plain}"[:64]


def first_line(data: bytes) -> list[str]:
    """The interpreter that the first line names, and its options. The kernel takes all behind the first blank for one
    option; `env -S` takes it apart, and so does everybody who reads it."""
    line = data[:256].split(b"\n")[0]
    return line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []


def said_at_top(data: bytes) -> str:
    """The first sentence of the comment at the top of a script."""
    comment: list[str] = []
    for line in data[:4096].decode(errors="replace").splitlines():
        plain = line.strip().lstrip("#").strip(" \t-=*#")
        if line.startswith(("#!", "<?")) or _NO_DESCRIPTION.search(line):
            continue
        if not line.startswith("#") or (comment and not plain):
            break
        comment += [plain] if plain else []
    return first_sentence(" ".join(comment))


def first_sentence(text: str) -> str:
    """What a description says at most."""
    sentence = re.split(r"(?<=[.!?])\s|\n\s*\n", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    sentence = "".join(char for char in sentence if char.isprintable()).strip().removesuffix(".")
    return sentence if len(sentence) <= _LONGEST else sentence[: _LONGEST - 1].rstrip() + "…"


def is_called(data: bytes, path: str | None) -> bool:
    """Whether it is a script of something that is neither a shell nor Python."""
    words = first_line(data)
    if not words:
        return not data.startswith(b"#!") and os.path.splitext(path or "")[1].lower() in _INTERPRETERS
    if os.path.basename(words[0]) in ("env", "busybox"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    name = os.path.basename(words[0]) if words else ""
    return name not in _SHELLS and re.fullmatch(r"(bash|python|pypy)[-\d.]*", name) is None


def convert(data: bytes, path: str | None) -> Converted:
    """The job that calls it. UsageError where no path is known that could be called."""
    words = first_line(data) or _INTERPRETERS[os.path.splitext(path or "")[1].lower()].split()
    named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    language = os.path.basename(named[0] if os.path.basename(words[0]) == "env" and named else words[0])
    if path is None:
        raise UsageError(f"a script for {language} is called by its path, and standard input has none",
                         "name the file: agentrun convert FILE")  # fmt: skip
    whole = os.path.abspath(path)
    note = Note("kept", 0, f"a script for {language} stays one step: it is called as it is")
    return calls(whole, command_of(whole, words), [note], description=said_at_top(data))
