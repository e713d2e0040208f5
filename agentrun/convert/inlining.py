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
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from ..errors import AgentrunError
from ..model import JSON
from .calling import first_line
from .cmdline import Part, foreseen, row
from .cronjob import Prepared
from .draft import Draft
from .notes import Converted, Note
from .syntax import Node, text

_SHELLS: Final = ("sh", "dash", "bash")
_HANDED_ON: Final = frozenset(("run", "timeout", "grace", "on_interrupt"))
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


def inlined(
    one: Prepared, home: str, convert: Callable[[bytes, str], Converted]
) -> tuple[Prepared, Script | None]:
    """The entry with the steps of its script, or as it is. `home`: of its user, "" where it is not known."""
    if not one.script:
        return one, None
    try:
        return _inlined(one, home, convert)
    except _No as why:
        note = Note("kept", one.line.number, f"{one.script} stays one step: {why}")
        return one._replace(notes=[*one.notes, note]), None


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
    made = _converted(call, one.script, convert)
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
    notes = [*one.notes, Note("lifted", one.line.number, f"{one.script}: its statements are {count} steps")]
    if "timeout" in given:
        words = f"timeout {given['timeout']}: it is that of each step now, and was that of the whole script"
        notes.append(Note("advice", one.line.number, words, "`deadline` limits a whole run"))
    comment = "\n\n".join(each for each in (one.comment, made.draft.comment) if each)
    entry = one._replace(keys=keys, steps=list(made.draft.steps), comment=comment, notes=notes)
    return entry, Script(one.script, count, made.notes)


def _converted(call: Call, path: str, convert: Callable[[bytes, str], Converted]) -> Converted:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise _No(f"it cannot be read ({error.strerror})") from error
    if len(data) > _MOST:
        raise _No("it is larger than 4 MiB")
    _check_interpreter(call, path, first_line(data))
    try:
        made = convert(data, path)
    except AgentrunError as error:
        raise _No(error.message) from error
    if made.whole:
        why = next((note.message for note in made.notes if note.kind == "kept"), "it cannot be divided")
        raise _No(why.removeprefix("kept whole: "))
    if len(made.draft.steps) < 2:
        raise _No("it is one step by itself, too")
    shell = dict(made.draft.keys)["shell"]
    if call.shell and isinstance(shell, list) and os.path.basename(str(shell[-1])) != call.shell:
        raise _No(f"{call.shell} is to read it, and it is one for {shell[-1]}")
    if call.shell and isinstance(shell, list) and not first_line(data):
        made = made._replace(draft=_with_shell(made, call.shell))
    return made


def _with_shell(made: Converted, shell: str) -> Draft:
    keys: list[tuple[str, JSON]] = [(key, [shell] if key == "shell" else value) for key, value in made.draft.keys]
    return replace(made.draft, keys=keys)


def _check_interpreter(call: Call, path: str, words: list[str]) -> None:
    """That the script is read by what its first line names, whoever calls it."""
    if not call.shell:
        if not os.access(path, os.X_OK):
            raise _No("it cannot be executed")
        if not words:
            raise _No("its first line is no #!, so it is cron's shell that reads it")
        return
    if not words:
        return
    named = [os.path.basename(word) for word in words if not word.startswith("-")]
    if named[-1] != call.shell:
        raise _No(f"{call.shell} reads it, and its first line names {' '.join(words)}")
    if any(word.startswith("-") for word in words):
        raise _No(f"its first line has options, {' '.join(words)}, which {call.shell} does not see when it is called")


# -- the call -------------------------------------------------------------------------------------------------------


def call_of(command: str, home: str) -> Call:
    """What is called. Raises _No where that is not known, or where more than a call stands there."""
    found = row(command)
    if found is None or len(found.parts) != 1 or found.parts[0].separator == "&":
        raise _No("its step does more than to call it")
    [part] = found.parts
    if part.redirections:
        raise _No(_redirected(part))
    words = part.words
    if part.core is None or not words or part.core.start_byte != words[0].start_byte:
        raise _No("variables are set in front of it")
    said = [_word(word, home) for word in words]
    shell = os.path.basename(said[0]) if os.path.basename(said[0]) in _SHELLS else ""
    said = said[1:] if shell else said
    if not said or said[0].startswith("-"):
        raise _No("options are given to its shell")
    return Call(shell, said[0], said[1:])


def _redirected(part: Part) -> str:
    written = " ".join(text(one) for one in part.redirections)
    if all(re.match(r"[12&]?>", text(one)) for one in part.redirections):
        return f"what it prints goes elsewhere ({written}); with --take-logs its statements can be steps"
    return f"it reads from elsewhere ({written})"


def _word(word: Node, home: str) -> str:
    said = foreseen(word, home)
    if said is None:
        raise _No(f"`{text(word)}` is known only when it runs")
    return said
