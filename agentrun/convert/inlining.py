"""An entry of a crontab that only calls a shell script, and the script's statements, as one job.

    17 3 * * *  cd /srv && ./backup.sh --all      one job: the times, the folder and the variables of the entry, the
                                                  steps of the script; `script` is ./backup.sh, `args` is [--all]

Only where nothing stands between the two: who calls the script must be its own interpreter, its words must be known
before it runs, and its output must go where a step's goes. Otherwise the entry's one step calls it as before, and a
note says why. `timeout` of the entry becomes that of each step: a limit of the whole would go on counting while the
machine is off, and leave a resume no time.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from typing import Final, NamedTuple

from ..errors import AgentrunError
from ..model import JSON
from .calling import first_line
from .cmdline import foreseen, row
from .cronjob import Prepared
from .notes import Converted, Note
from .syntax import Node, text

_SHELLS: Final = ("sh", "dash", "bash")
_SCRIPT: Final = re.compile(r"[\w./~${}+-]*[\w}]\.(?:ba)?sh\b")
_TO_A_LOG: Final = re.compile(r"(1?>>?|&>>?)(?!&|/dev/).+")
_HANDED_ON: Final = frozenset(("run", "timeout", "grace", "on_interrupt"))
_OF_CRON: Final = "/usr/bin:/bin"  # its PATH, where the crontab sets none
_MOST: Final = 4 << 20  # bytes, as of a job file


class Script(NamedTuple):
    """What was found in the place of a step. `notes`: about its own lines."""

    path: str
    steps: int
    notes: list[Note]


class Call(NamedTuple):
    """`shell`: the one that is called to read it, "" where the script says by what; `name`: what $0 is."""

    shell: str
    name: str
    args: list[str]


class _No(Exception):
    """Why the step stays a call."""


class _Logged(_No):
    """That is all: what it prints goes into a log, which could be the job's."""


def inlined(
    one: Prepared, home: str, convert: Callable[[bytes, str], Converted], *, logs: bool = False
) -> tuple[Prepared, Script | None]:
    """The entry with the steps of its script, or as it is. `home`: of its user, "" where it is not known.

    `logs`: what went into logs goes to the job's already.
    """
    try:
        if not one.script:
            raise _No("more is done than to call it, or it is not found, or another program calls it")
        return _inlined(one, home, convert)
    except _No as why:
        script = one.script or _named(one)
        if not script or one.kept:
            return one, None
        words = f"{script} stays one step: {why}"
        hint = "--take-logs, and its statements can be steps" if isinstance(why, _Logged) and not logs else ""
        return one._replace(notes=[*one.notes, Note("kept", one.line.number, words, hint)]), None


def _named(one: Prepared) -> str:
    """A shell script of which its steps speak."""
    found = (_SCRIPT.search(str(value)) for step in one.steps for key, value in step.keys if key == "run")
    return next((each[0] for each in found if each), "")


def _inlined(one: Prepared, home: str, convert: Callable[[bytes, str], Converted]) -> tuple[Prepared, Script]:
    [step] = one.steps
    given = dict(step.keys)
    if "if" in given:
        raise _No("what is asked before it is asked of a step")
    if others := [key for key in given if key not in _HANDED_ON]:
        raise _No(f"`{others[0]}` is meant for it as a whole")
    env = dict(one.keys).get("env")
    own_home = str(env["HOME"]) if isinstance(env, dict) and "HOME" in env else home
    call = call_of(str(given["run"]), own_home)
    search = str(env["PATH"]) if isinstance(env, dict) and "PATH" in env else _OF_CRON
    made = _converted(call, one.script, search, convert)
    own = dict(made.draft.keys)
    keys: list[tuple[str, JSON]] = [] if any(key == "description" for key, _ in one.keys) else [
        (key, value) for key, value in made.draft.keys if key == "description"
    ]
    keys += [(key, value) for key, value in one.keys if key not in ("shell", "notify")]
    keys += [("carry", "shell"), ("shell", own["shell"]), ("script", call.name)]
    keys += [("args", list[JSON](call.args))] if call.args else []
    limits: dict[str, JSON] = {key: given[key] for key in ("timeout", "grace") if key in given}
    keys += [("defaults", limits)] if limits else []
    keys += [(key, value) for key, value in one.keys if key == "notify"]
    count = len(made.draft.steps)
    words = f"{one.script}: its statements are {count} steps; what changes in it from now on does not in the job"
    notes = [*one.notes, Note("lifted", one.line.number, words)]
    if "timeout" in given:
        words = f"timeout {given['timeout']}: it is that of each step now, and was that of the whole script"
        notes.append(Note("advice", one.line.number, words, "`deadline` limits a whole run"))
    comment = "\n\n".join(each for each in (one.comment, made.draft.comment) if each)
    entry = one._replace(keys=keys, steps=list(made.draft.steps), comment=comment, notes=notes)
    return entry, Script(one.script, count, made.notes)


def _converted(call: Call, path: str, search: str, convert: Callable[[bytes, str], Converted]) -> Converted:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise _No(f"it cannot be read ({error.strerror})") from error
    if len(data) > _MOST:
        raise _No("it is larger than 4 MiB")
    _check_interpreter(call, path, first_line(data), search)
    try:
        made = convert(data, path)
    except AgentrunError as error:
        raise _No(error.message) from error
    if made.whole:
        why = next((note.message for note in made.notes if note.kind == "kept"), "it cannot be divided")
        raise _No(why.removeprefix("kept whole: "))
    if len(made.draft.steps) < 2:
        raise _No("it is one step by itself, too")
    return made


def _check_interpreter(call: Call, path: str, words: list[str], search: str) -> None:
    """That the script is read by what its first line names, whoever calls it. `search`: PATH of the entry."""
    if not call.shell:
        if not os.access(path, os.X_OK):
            raise _No("it cannot be executed")
        if not words:
            raise _No("its first line is no #!, so it is cron's shell that reads it")
        return
    if not words:
        raise _No(f"{os.path.basename(call.shell)} reads it, and it has no first line that says so")
    named = [word for word in words if not word.startswith("-")] or words
    if not _same(shutil.which(call.shell, path=search), shutil.which(named[-1], path=search)):
        raise _No(f"{call.shell} reads it, and its first line names {' '.join(words)}")
    if any(word.startswith("-") for word in words):
        raise _No(f"its first line has options, {' '.join(words)}, which {call.shell} does not see when it is called")


def _same(one: str | None, other: str | None) -> bool:
    """Whether both are one program, by one name: bash that is called sh is another shell."""
    if one is None or other is None or os.path.basename(one) != os.path.basename(other):
        return False
    return os.path.samefile(one, other)


# -- the call -------------------------------------------------------------------------------------------------------


def call_of(command: str, home: str) -> Call:
    """What is called. Raises _No where that is not known, or where more than a call stands there."""
    found = row(command)
    if found is None or len(found.parts) != 1 or found.parts[0].separator == "&":
        raise _No("its step does more than to call it")
    [part] = found.parts
    written = [re.sub(r"\s", "", text(one)) for one in part.redirections]
    if written and written != ["2>&1"]:  # both go into one log anyway
        logged = len(written) < 3 and _TO_A_LOG.fullmatch(written[0]) and set(written[1:]) <= {"2>&1"}
        shown = " ".join(text(one) for one in part.redirections)
        raise (_Logged if logged else _No)(f"what it reads or prints is elsewhere ({shown})")
    words = part.words
    if part.core is None or not words or part.core.start_byte != words[0].start_byte:
        raise _No("variables are set in front of it")
    said = [_word(word, home) for word in words]
    shell = said[0] if os.path.basename(said[0]) in _SHELLS else ""
    said = said[1:] if shell else said
    if not said or said[0].startswith("-"):
        raise _No("options are given to its shell")
    return Call(shell, said[0], said[1:])


def _word(word: Node, home: str) -> str:
    said = foreseen(word, home)
    if said is None:
        raise _No(f"`{text(word)}` is known only when it runs")
    return said
