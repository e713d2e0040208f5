"""What to tell somebody whose script has become a job: what a resume keeps that may be old, what the job does better.

All of it is about the script's text; nothing of the job depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .notes import Note
from .ownfile import own_searches
from .program import Program, called
from .syntax import Node, assignments, commands, first_line, listed, text, walk

_TOKENS = re.compile(
    r"token|sts\s+(assume|get)|get-login|access-?key|credential|session|login|/auth\b|vault\s|oauth|ssh-agent", re.I
)
_RUNNING = re.compile(
    r"\b(pgrep|pidof|is-active|lsof|fuser)\b|\bps\s+-?[a-z]|docker\s+(ps|inspect)|systemctl\s+status", re.I
)
_SPACE = re.compile(r"\b(df|du|free|vmstat|uptime|nproc)\b|/proc/(loadavg|meminfo|mounts)", re.I)
_LOCKS = re.compile(
    r"\b(flock|lockfile(-create)?|setlock|dotlockfile)\b|mkdir\s+\S*lock|\bln\s+-s\s+\S+\s+\S*lock|\.(pid|lock)\b|\bpid_?file\b|\block_?file\b",
    re.I,
)


_MOST = 5  # names that a note lists
_NOT_ONCE = listed("function_definition subshell command_substitution for_statement while_statement")


def advice(program: Program, script: str | None) -> list[Note]:
    """Remarks, in the order of the script's lines."""
    found = [*_frozen(program), *_dates(program), *_cleaning(program), *_locks(program, script), *_waiting(program)]
    return sorted(found, key=lambda note: note.line)


def _taken(program: Program) -> Iterator[tuple[str, Node, str]]:
    """Variables assigned at the top level from the output of commands: name, where, and the commands."""
    for node in walk(program.root, without=_NOT_ONCE):
        for name, value in assignments(node) if node.type == "variable_assignment" else ():
            if value is not None and any(here.type == "command_substitution" for here in walk(value)):
                yield name, node, text(value)


def _frozen(program: Program) -> Iterator[Note]:
    hint = "if the run goes on after a long pause, assign it again in the step that uses it"
    found: dict[str, tuple[int, list[str]]] = {}
    for name, node, value in _taken(program):
        if _TOKENS.search(value) or re.search(r"TOKEN|_AUTH|COOKIE", name):
            said = "fetched once: a resume goes on with it, even if it has expired"
        elif re.search(r"\bkill\b|\bpid", name, re.I) or _RUNNING.search(value):
            said = "asked for once: a resume goes on with what was running then"
        elif _SPACE.search(value):
            said = "measured once: a resume goes on with the old figure"
        else:
            continue
        names = found.setdefault(said, (first_line(node), []))[1]
        names += [name] if name not in names else []
    for said, (line, names) in found.items():
        yield Note("advice", line, f"{_named(names)} {'is' if len(names) == 1 else 'are'} {said}", hint)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _dates(program: Program) -> Iterator[Note]:
    dated = [(name, first_line(node)) for name, node, value in _taken(program) if re.search(r"\bdate\b", value)]
    if dated:
        names = list(dict.fromkeys(name for name, _ in dated))
        verb = "keeps its value" if len(names) == 1 else "keep their values"
        yield Note("kept", dated[0][1], f"{_named(names)} {verb} over a resume: it goes on with the date of the run")


def _cleaning(program: Program) -> Iterator[Note]:
    made = {name for name, _, value in _taken(program) if "mktemp" in value}
    for command in commands(program.root):
        said = text(command)
        if called(command)[0] != "trap" or not re.search(r"\b(EXIT|0)\b", said):
            continue
        body = said + "".join(
            text(one)
            for name in program.functions
            for one in program.functions[name]
            if re.search(rf"\b{re.escape(name)}\b", said)
        )
        gone = sorted(name for name in made if re.search(rf"\brm\b[^\n;]*\$\{{?{name}\b", body))
        if gone:
            yield Note(
                "advice", first_line(command),
                f"the EXIT trap removes {', '.join('$' + name for name in gone)} when a step fails, and a"
                " resume of the failed run would go on without it",
                "keep it in $AGENTRUN_RUN_DIR, or begin again with `agentrun run`",
            )  # fmt: skip
            return


def _locks(program: Program, script: str | None) -> Iterator[Note]:
    searches = own_searches(program, script)
    if searches:
        said = "it looks for itself among the processes: runs of one job never overlap"
        yield Note("advice", searches[0], said, "take it out; `concurrency: forbid` is the default")
        return
    for number, line in enumerate(program.lines, 1):
        if _LOCKS.search(line) and not line.lstrip().startswith("#"):
            hint = "take it out where no other program looks at it; `concurrency: forbid` is the default"
            yield Note("advice", number, "it keeps a lock of its own: runs of one job never overlap", hint)
            return


def _waiting(program: Program) -> Iterator[Note]:
    loops = [node for node in walk(program.root) if node.type == "while_statement"
             and any(called(one)[0] == "sleep" for one in commands(node))]  # fmt: skip
    endless = [node for node in loops if re.match(r"(while|until)\s+(true|:|\[ 1|\(\(\s*1)", text(node))]
    for node in (endless or loops)[:1]:
        said = "it never ends: a step that runs for ever" if endless else (
            "it waits in a loop: after an interruption it begins to wait anew"
        )  # fmt: skip
        yield Note("advice", first_line(node), said, "a step with `repeat` records each round")


__all__ = ["advice"]
