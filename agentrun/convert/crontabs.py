"""A crontab in, out come a job file for each entry and the crontab that runs them: all other lines as they were.

    17 3 * * *  cd /srv && ./backup.sh      becomes      17 3 * * *  PYTHON -P -m agentrun run FOLDER/backup.yaml

A line that is no job stays as it is, and the report says why. At the end stand two lines for `agentrun resume`, at the
boot and every minute, once for each user whose jobs run. Pure, but for what wrappers.py and cronbugs.py look at.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ..cron.crontab import LONGEST_COMMAND, command, setting
from ..errors import JobFileError
from ..health.crontab import BEGIN
from ..health.crontab import parse as calls_of
from . import cronbugs, croncomments, percent
from .cmdline import row
from .cronjob import Prepared, Wishes, prepared
from .cronnames import unique
from .crontab import Crontab, Line, variables_at
from .inlining import Script, inlined
from .notes import Note
from .peeling import Peeling, Place
from .wrappers import lock_of, peel

_MOST_OF_A_SCRIPT: Final = 1 << 20  # bytes that are looked at for a lock
_RESUME: Final = b"# all jobs of agentrun: go on with what was cut off"


class JobFile(NamedTuple):
    """A job that was an entry: `line` is its number, `text` the file."""

    name: str
    line: int
    text: str
    user: str


class Conversion(NamedTuple):
    jobs: list[JobFile]
    crontab: bytes
    notes: list[Note]
    kept: int  # entries that stay as they are
    scripts: list[tuple[str, Script]]  # whose statements are steps now, and the job that has them


class Target(NamedTuple):
    """Where the job files go, how agentrun is called there, and the state folder if it is not the usual one."""

    folder: str
    program: Sequence[str]
    state: str | None = None

    def file(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.yaml")


def convert(table: Crontab, wishes: Wishes, target: Target, taken: set[str]) -> Conversion:
    """The jobs of a crontab, and what becomes of it. `taken`: names that are used already; those used here join."""
    notes = list(_of_lines(table))
    entries = [(line, variables) for line, variables in variables_at(table) if not _is_ours(line)]
    wishes = _with_locks(entries, wishes)
    about = croncomments.of_entries(table.lines)
    found = [prepared(line, variables, about[line.number], wishes) for line, variables in entries]
    inside: dict[int, Script] = {}
    if wishes.scripts is not None:
        found = list(_with_scripts(found, wishes, inside))
    good = [one for one in found if not one.kept]
    names = unique([one.naming for one in good], taken)
    jobs: list[JobFile] = []
    lines: dict[int, bytes] = {}
    for one, name in zip(good, names, strict=True):
        made = _made(one, name, target)
        if isinstance(made, str):
            notes.append(Note("kept", one.line.number, f"{made}; the line stays as it is"))
            continue
        jobs.append(made)
        lines[one.line.number] = _line(one, target.file(name), target)
    for one in found:
        notes += one.notes
    notes += _doubles(good)
    notes += _general(table, jobs)
    scripts = [(job.name, inside[job.line]) for job in jobs if job.line in inside]
    return Conversion(jobs, _crontab(table, jobs, lines, target), sorted(notes, key=lambda note: note.line),
                      len(entries) - len(jobs), scripts)  # fmt: skip


def _with_scripts(found: Sequence[Prepared], wishes: Wishes, inside: dict[int, Script]) -> Iterator[Prepared]:
    """The entries; those that call a script with its steps. What is found in their place joins `inside`, by line."""
    assert wishes.scripts is not None
    for one in found:
        made, script = inlined(one, wishes.homes.get(one.line.user, ""), wishes.scripts, logs=wishes.take_logs)
        if script is not None:
            inside[one.line.number] = script
        yield made


def _made(one: Prepared, name: str, target: Target) -> JobFile | str:
    """The job file, or why there is none."""
    words = command([*target.program, "run", target.file(name)])
    if len(os.fsencode(words)) > LONGEST_COMMAND:
        return f"the command that would run it is longer than the {LONGEST_COMMAND} bytes that cron takes"
    try:
        text, _ = one.draft(name).checked(target.file(name))
    except JobFileError as error:
        return f"it cannot be said in a job file: {error.problems[0].message}"
    except ValueError as error:
        return f"it cannot be said in a job file: {error}"
    return JobFile(name, one.line.number, text, one.line.user)


# -- the new crontab ------------------------------------------------------------------------------------------------


def _line(one: Prepared, file: str, target: Target) -> bytes:
    head = one.line.head
    if one.times:
        before, _, behind = head.partition(one.line.times)
        head = before + one.times + behind
    return os.fsencode(head + command([*target.program, "run", file])) + b"\n"


def _crontab(table: Crontab, jobs: Sequence[JobFile], lines: Mapping[int, bytes], target: Target) -> bytes:
    if not jobs:
        return b"".join(line.raw for line in table.lines)
    moved = any(line.kind == "variable" and line.name == "HOME" for line in table.lines)
    own = target.state and not table.system and (moved or os.environ.get("AGENTRUN_HOME"))
    pieces = [setting("AGENTRUN_HOME", target.state or "") + b"\n"] if own else []
    pieces += [lines.get(line.number, line.raw) for line in table.lines]
    if pieces and not pieces[-1].endswith(b"\n"):
        pieces.append(b"\n")
    if any(line.text.startswith((BEGIN, _RESUME.decode())) for line in table.lines):
        return b"".join(pieces)
    pieces.append(b"\n" + _RESUME + b"\n")
    call = os.fsencode(command([*target.program, "resume"]))
    for user in dict.fromkeys(job.user for job in jobs):
        who = os.fsencode(f"{user} ") if table.system else b""
        pieces += [b"@reboot " + who + call + b"\n", b"* * * * * " + who + call + b"\n"]
    return b"".join(pieces)


def _is_ours(line: Line) -> bool:
    """Whether an entry calls agentrun already."""
    return bool(calls_of(f"{line.times.removeprefix('-')} {line.command}", "/"))


# -- locks ----------------------------------------------------------------------------------------------------------


def _with_locks(entries: Sequence[tuple[Line, Mapping[str, str]]], wishes: Wishes) -> Wishes:
    """Which locks of `flock` must stay: those that something else takes that stays as it is."""
    takers: dict[str, list[Line]] = defaultdict(list)
    left: dict[str, bool] = {}
    for line, variables in entries:
        if not line.is_text:
            left |= dict.fromkeys(_locks_in(line.command, variables), True)
            continue
        peeling = Peeling(percent.as_cron_reads(line.command).command.strip(), Place(variables))
        peel(peeling)
        for text in (line.command, peeling.text):
            found = row(text)
            call = lock_of(found, variables) if found is not None else None
            if call is not None and call[2] is None:
                left[call[0]] = True
        for path in _locks_in(line.command, variables):
            takers[path].append(line)
        if "concurrency" not in peeling.keys:
            left |= dict.fromkeys(_locks_in(line.command, variables), True)
    shared = {path for path, lines in takers.items() if len(lines) > 1}
    kept = set(left) | {path for path in shared if len({line.user for line in takers[path]}) > 1}
    lines = [line for line, _ in entries]
    kept |= {path for path in takers if path not in kept and any(_script_takes(path, line) for line in lines)}
    return replace(wishes, kept_locks=frozenset(kept), shared_locks=frozenset(shared - kept))


def _locks_in(written: str, variables: Mapping[str, str]) -> Iterator[str]:
    """The files behind each `flock` of a command line, wherever it stands."""
    for found in re.finditer(r"\bflock\b((?:\s+-\w+(?:\s+\d+)?|\s+--[\w-]+(?:[= ]\d+)?)*)\s+([^\s;&|]+)", written):
        known = {"HOME": "~", **variables}
        path = re.sub(r"\$\{?(\w+)\}?", lambda name, at=known: at.get(name[1], name[0]), found[2].strip("'\""))
        yield path if path.startswith(("/", "~")) else os.path.join(variables.get("HOME", "~"), path)


def _script_takes(path: str, line: Line) -> bool:
    """Whether a script that the line names speaks of the lock itself."""
    for word in re.findall(r"/[\w./+@-]+", line.command):
        if word == path or not os.path.isfile(word):
            continue
        try:
            with open(word, "rb") as file:
                if os.fsencode(os.path.basename(path)) in file.read(_MOST_OF_A_SCRIPT):
                    return True
        except OSError:
            continue
    return False


# -- what is said of all of it --------------------------------------------------------------------------------------


def _of_lines(table: Crontab) -> Iterator[Note]:
    for line in table.lines:
        if line.kind == "unknown":
            hint = "Debian's cron leaves out the whole file for such a line"
            yield Note("bug", line.number, f"{line.why}; the line stays as it is", hint)
        elif line.kind == "variable":
            if line.why:
                yield Note("bug", line.number, line.why)
            for message, hint in cronbugs.of_variable(line.name, line.value):
                yield Note("bug", line.number, message, hint)
            if line.name == "RANDOM_DELAY":
                words = "RANDOM_DELAY: cronie delays the starts as before"
                yield Note("kept", line.number, words, "jitter does it for a job")
            if line.name == "CRON_TZ" and line.value:
                words = f"CRON_TZ={line.value}: timezone; cronie starts the lines by it, Debian's cron does not know it"
                yield Note("lifted", line.number, words, "`agentrun install` starts them at their own times")
        elif line.kind == "entry" and not table.system and re.match(r"(?:root|www-data)\s+\S", line.command):
            user = line.command.split()[0]
            words = f"`{user}` is taken for the program: a user's crontab has no column for the user"
            yield Note("bug", line.number, words, "--system, if it is one of the system's")
    carriage = [line.number for line in table.lines if line.text.endswith("\r")]
    if carriage:
        words = f"lines end in a carriage return ({len(carriage)} of them), which cron gives to the commands"
        yield Note("bug", carriage[0], words, "the jobs are without; take it out of the rest: sed -i 's/\\r$//'")
    if table.lines and not table.lines[-1].raw.endswith(b"\n") and table.lines[-1].kind != "blank":
        words = "the last line has no newline: Debian's cron leaves out the whole file"
        yield Note("bug", table.lines[-1].number, words, "the new one has it")


def _doubles(found: Sequence[Prepared]) -> Iterator[Note]:
    seen: Counter[tuple[str, str, str]] = Counter()
    for one in found:
        key = (one.line.times, one.line.user, one.line.command.strip())
        seen[key] += 1
        if seen[key] == 2:
            words = "the same line stands here twice: it runs twice at the same time"
            yield Note("bug", one.line.number, words, "take one out")


def _general(table: Crontab, jobs: Sequence[JobFile]) -> Iterator[Note]:
    if not jobs:
        return
    mailto = {line.value for line in table.lines if line.kind == "variable" and line.name == "MAILTO"}
    told = f" to {', '.join(sorted(mailto - {''}))}" if mailto - {""} else ""
    yield Note(
        "advice", 0,
        f"cron mailed{told} whatever a command printed; a run prints nothing unless it fails, by a status other than 0:"
        " what it printed is in `agentrun logs`",
        "MAILTO=\"\" lets nobody hear of failures: notify: says who is told" if "" in mailto else "",
    )  # fmt: skip
    yield Note(
        "advice", 0,
        "a start that finds the job's last run at work is skipped; cron would have begun it beside the other",
        "concurrency: allow is as it was, queue lets it wait",
    )  # fmt: skip


__all__ = ["Conversion", "JobFile", "Target", "convert"]
