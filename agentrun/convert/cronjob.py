"""One entry of a crontab as a job: what cron does with it, said in keys; and the reason where it stays as it is.

    times            schedule; `~` of cronie becomes jitter or a number; @reboot has no schedule
    variables above  SHELL is the shell, HOME the folder, CRON_TZ the time zone; PATH and all others are env
    command          what is left of it after its wrappers (wrappers.py), in one step or, for `a && b && c`, in several

What cron's sh does with the text is what the job's does: `shell` is the plain shell of the crontab, without the `-e` of
ours, wherever that could make a difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..digest import sha256_hex
from ..model import JSON
from ..spec import schedules
from ..step.contract import is_plain
from . import cronbugs, outside, percent
from .cmdline import foreseen, row, sequences
from .cronnames import Naming, naming, step_ids
from .crontab import Line
from .draft import Draft, DraftStep
from .endings import Piece, pieces
from .notes import Converted, Kind, Note
from .peeling import Peeling, Place, lasting
from .program import Program
from .syntax import broken, parse, walk
from .wrappers import peel

_SHELLS: Final = ("sh", "dash", "ash", "bash", "ksh", "zsh")
# of cron itself, and nothing to a command
_OF_CRON: Final = frozenset(
    ("SHELL", "MAILTO", "MAILFROM", "LOGNAME", "CRON_TZ", "RANDOM_DELAY", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING",
     "NO_MAIL_OUTPUT", "HOME")
)  # fmt: skip
_STARTS: Final = re.compile(
    r"(?:^|[\s;&|(/])(?:nohup|setsid|start-stop-daemon|daemonize|apachectl|pm2|tmux|screen)\s|--daemon(?:ize)?\b|"
    r"(?:/etc/init\.d/\S+|\bservice\s+\S+|\S+ctl)\s+(?:re)?start\b|\bscreen\s+-\w*d"
)
_FIRST: Final = {"minute": 0, "hour": 0, "day": 1, "month": 1, "weekday": 0}
_LAST: Final = {"minute": 59, "hour": 23, "day": 31, "month": 12, "weekday": 6}


@dataclass(frozen=True)
class Wishes:
    """How to convert. `homes`: the folders of users, by name; "" is who converts. `now`: ms. `here`: this machine's.

    `scripts`: makes jobs of the shell scripts that entries call (inlining.py); None leaves them alone.
    """

    take_logs: bool = False
    scripts: Callable[[bytes, str], Converted] | None = None
    here: bool = False
    homes: Mapping[str, str] = field(default_factory=dict)
    now: int = 0
    kept_locks: Container[str] = ()
    shared_locks: Container[str] = ()


class Prepared(NamedTuple):
    """An entry as a job without its name; `kept` is why it is none."""

    line: Line
    naming: Naming
    times: str  # as the new crontab has them, where that is not as they were written
    keys: list[tuple[str, JSON]]
    steps: list[DraftStep]
    comment: str
    notes: list[Note]
    kept: str = ""
    script: str = ""  # the shell script that its one step calls

    def draft(self, name: str) -> Draft:
        return Draft(name, self.keys, self.steps, self.comment)


def prepared(line: Line, variables: Mapping[str, str], about: tuple[str, str], wishes: Wishes) -> Prepared:
    """What becomes of an entry. `about`: its description and comment (croncomments.py)."""
    notes: list[Note] = []

    def say(kind: Kind, message: str, hint: str = "") -> None:
        notes.append(Note(kind, line.number, message, hint))

    times, jitter = fixed_times(line.times, line.text)
    kept, hint = _why_kept(line, times)
    if kept:
        say("bug" if hint else "kept", f"{kept}; the line stays as it is", hint)
        return Prepared(line, Naming("", (), ""), "", [], [], "", notes, kept)
    for message, hint in cronbugs.of_times(line.times, wishes.now):
        say("bug", message, hint)
    command, stdin = percent.as_cron_reads(line.command.rstrip("\r"))
    shell = variables.get("SHELL", "/bin/sh")
    bash, known = os.path.basename(shell) in ("bash", "zsh", "ksh"), os.path.basename(shell) in _SHELLS
    home = variables.get("HOME", "~")
    for message, hint in cronbugs.of_command(command, bash=bash, variables=variables, home=home, here=wishes.here):
        say("bug", message, hint)
    reboot = times == "@reboot"
    place = Place(variables, wishes.homes.get(line.user, ""), bash, not reboot and not jitter,
                  wishes.kept_locks, wishes.shared_locks)  # fmt: skip
    peeling = Peeling(command.strip(), place)
    if known:
        comment = row(peeling.text)
        if comment is not None and comment.comment:
            about = about if any(about) else (comment.comment, "")
            peeling.text = comment.rest(0)
        peel(peeling, logs=wishes.take_logs)
    found = _pieces(peeling, stdin, known=known, logs=wishes.take_logs)
    for kind, message, hint in peeling.notes:
        say(kind, message, hint)
    description, comment_above = about
    keys = _keys(peeling, variables, times, jitter, description)
    if chosen := _shell(shell, found, stdin):
        keys.append(("shell", chosen))
    if "notify" in peeling.keys:
        keys.append(("notify", peeling.keys["notify"]))
    main = naming(" && ".join(piece.text for piece in found), line.times, peeling.folder)
    steps = [
        _step(id_, piece, "bash" if bash else "sh", reboot=reboot)
        for id_, piece in zip(step_ids([piece.text for piece in found]), found, strict=True)
    ]
    if stdin is not None:
        steps = [DraftStep(steps[0].id, _with_input(steps[0].keys, stdin), said=steps[0].said)]
        say("lifted", "what stands behind the % is the command's input, in a here-document")
    script = ""
    if known and len(found) == 1:
        script = own_script(found[0].text, place.real(peeling.folder), variables.get("HOME", place.home))
    if script and not wishes.scripts:
        words = f"{script} is a shell script: its statements can be steps, each of which is done once"
        say("advice", words, "--scripts")
    return Prepared(line, main, times if times != line.times else "", keys, steps, comment_above, notes, script=script)


def own_script(command: str, folder: str, home: str = "") -> str:
    """The shell script that a command is a call of, if it can be read here; else ""."""
    found = row(command)
    if found is None or len(found.parts) != 1:
        return ""
    said = [found.parts[0].name, *found.parts[0].arguments]
    called = [foreseen(word, home) for word in found.parts[0].words]
    word = called[1] if said[0] in _SHELLS and len(called) > 1 else called[0] if called else None
    if word and word == called[0] and "/" not in word:
        return ""  # looked up in PATH
    if not word or word.startswith("-") or not (word.startswith("/") or folder):
        return ""
    path = os.path.normpath(os.path.join(folder, word))
    try:
        with open(path, "rb") as file:
            first = file.readline(200)
    except OSError:
        return ""
    return path if re.match(rb"#!.*\b(ba|da)?sh\b", first) or path.endswith(".sh") else ""


def _why_kept(line: Line, times: str) -> tuple[str, str]:
    """Why an entry is no job, and what to do where it is a mistake of its own."""
    if not times:
        return "its `~` cannot be told apart from the rest of the field", ""
    if not line.is_text:
        return "its command is not UTF-8, and a job file is", ""
    if any(ord(char) < 32 and char not in "\t\r" for char in line.command):
        return "its command has control characters", ""
    if percent.forgotten(line.command):
        hint = "write it as \\%, and convert again: " + re.sub(r"(?<!\\)%", r"\\%", line.command.strip())
        return "cron ends the command at its first %, and gives it the rest as input", hint
    if line.times.startswith("-n") or re.match(r"-[nqs]+\s", line.command):
        return "it begins with a flag of another system's cron", "Linux takes it for the program"
    if times != "@reboot":
        try:
            schedules.parse(times)
        except schedules.Wrong as wrong:
            return wrong.message, "correct it, or take the line out"
    return "", ""


def fixed_times(times: str, line: str) -> tuple[str, int]:
    """Times without what is cronie's alone, and the seconds that `~` in the minutes spreads over; "" if none."""
    bare = times.removeprefix("-")
    if "~" not in bare:
        return bare, 0
    fields, jitter = bare.split(), 0
    for at, (name, low) in enumerate(_FIRST.items()):
        if "~" not in fields[at]:
            continue
        found = re.fullmatch(r"(\d*)~(\d*)", fields[at])
        if found is None:
            return "", 0
        first, last = int(found[1] or low), int(found[2] or _LAST[name])
        if first > last:
            return "", 0
        if name == "minute" and last > first:
            jitter, fields[at] = 60 * (last - first), str(first)
        else:
            fields[at] = str(first + int(sha256_hex(line.encode(errors="replace"))[:8], 16) % (last - first + 1))
    return " ".join(fields), jitter


# -- keys -----------------------------------------------------------------------------------------------------------


def _keys(
    peeling: Peeling, variables: Mapping[str, str], times: str, jitter: int, description: str
) -> list[tuple[str, JSON]]:
    keys: list[tuple[str, JSON]] = [("description", description)] if description else []
    if times == "@reboot":
        keys.append(("on_tick", "restart"))  # one that the reboot cut off is not gone on with, but begun anew
    else:
        keys.append(("schedule", " ".join(times.split())))
    if variables.get("CRON_TZ"):
        keys.append(("timezone", variables["CRON_TZ"]))
    if jitter:
        keys.append(("jitter", lasting(jitter)))
    keys += [(key, peeling.keys[key]) for key in ("jitter", "concurrency", "env_file") if key in peeling.keys]
    env: dict[str, JSON] = {
        name: value for name, value in variables.items()
        if name not in _OF_CRON and name not in peeling.in_env_file and "${{" not in value and _is_text(value)
    }  # fmt: skip
    if "HOME" in variables and "HOME" not in peeling.in_env_file:
        env["HOME"] = variables["HOME"]
    own = peeling.keys.get("env")
    env |= own if isinstance(own, dict) else {}
    if env:
        keys.append(("env", env))
    keys.append(("working_dir", peeling.folder))
    return keys


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _pieces(peeling: Peeling, stdin: str | None, *, known: bool, logs: bool) -> list[Piece]:
    if not known:
        return [Piece(peeling.text, {})]
    found = pieces(peeling, whole=stdin is not None)
    if len(found) < 2:
        return found
    own = []
    for piece in found:
        one = Peeling(piece.text, peeling.place)
        peel(one, logs=logs, alone=True)
        peeling.notes += [note for note in one.notes if note not in peeling.notes]
        own.append(Piece(one.text, one.step))
    return own


def _shell(shell: str, found: Sequence[Piece], stdin: str | None) -> list[JSON] | None:
    """The shell of the crontab; None where ours does the same with the texts."""
    texts = [text for piece in found for text in (piece.text, str(piece.keys.get("if", ""))) if text]
    if stdin is None and all(is_plain(text) for text in texts):
        return None
    if os.path.basename(shell) in ("sh", "dash") and stdin is None and not any(sequences(text) for text in texts):
        return None
    return [shell]


def _step(id_: str, piece: Piece, dialect: str, *, reboot: bool) -> DraftStep:
    program = Program(piece.text, "bash" if dialect == "bash" else "sh")
    done = {} if broken(program.root) else outside.effects(program, list(program.root.children))
    keys: list[tuple[str, JSON]] = [("if", piece.keys["if"])] if "if" in piece.keys else []
    keys.append(("run", piece.text))
    keys += [(key, piece.keys[key]) for key in ("timeout", "grace") if key in piece.keys]
    said: dict[str, str] = {}
    if reboot or leaves_running(piece.text, bash=dialect == "bash"):
        keys.append(("leave_running", True))
        said["leave_running"] = "what it starts in the background is meant to stay"
    if done:
        what, command = next(iter(done.items()))
        keys.append(("on_interrupt", "ask"))
        said["on_interrupt"] = f"{command} {what}: after an interruption a person is asked"
    return DraftStep(id_, keys, said=said)


def leaves_running(command: str, *, bash: bool) -> bool:
    """Whether it is seen to start something that is to outlive it: cron would not end that."""
    if _STARTS.search(command) or (not bash and "&>" in command):  # to sh that is `&` and `>`
        return True
    return any(node.type == "&" for node in walk(parse(command)))


def _with_input(keys: Sequence[tuple[str, JSON]], stdin: str) -> list[tuple[str, JSON]]:
    return [(key, percent.with_input(str(value), stdin) if key == "run" else value) for key, value in keys]
