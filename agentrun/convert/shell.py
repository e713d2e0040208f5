"""A shell script in, a job file out whose steps are its statements: `carry: shell`.

The script's text is not changed: its lines stand in the steps as they stood in the script, comments and empty lines
between them included. Left out are the first line (it is the job's `shell`) and the comment about the whole script
(the job's description, and the comment above it); replaced are `$$` and BASH_SOURCE (see ownfile.py). What cannot be
divided without being changed is kept whole: a job with one step that calls the script, and a note that says why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from ..errors import AgentrunError
from ..model import JSON
from . import calling, sourced
from . import loops as foreach
from .advice import advice
from .bonds import JOBS
from .draft import Draft, DraftStep
from .groups import Group, grouped
from .header import Header, Interpreter, header, interpreter
from .lifting import lifted
from .names import names
from .notes import Converted, Note
from .ownfile import reads_history, rewritten, why_whole
from .program import Dialect, Program
from .statements import MAX_LINES, cut
from .syntax import accepts, command_name, first_line, is_background, walk

_MOST = 5  # places that a note names


class NotAShellScript(AgentrunError):
    """Empty, binary, or of another language: nothing for this converter."""

    exit_code = 65


def convert(data: bytes, path: str | None, *, loops: bool = False) -> Converted:
    """The job that the script is. Raises NotAShellScript; `path` (None: not a file) is where it will be found."""
    where = os.path.abspath(path) if path else None
    source = _text(data, where)
    if source is None:
        return _calls(where, (), "it is not UTF-8", 0, Header("", (), range(0)))
    lines = source.split("\n")
    said = _interpreter(lines[0], source, where)
    top = header(lines)
    if said.language == "other shell":
        return _calls(
            where,
            said.shell,
            f"{os.path.basename(said.shell[-1])} cannot hand its state to another shell",
            0,
            top,
            source,
        )
    dialect: Dialect = "bash" if said.language == "bash" else "sh"
    unnamed = _unnamed(lines[0], dialect)
    about = {0} if lines[0].startswith("#!") else set()
    about |= {number - 1 for number in top.lines}
    program = Program("\n".join("" if number in about else line for number, line in enumerate(lines)), dialect)
    why = _why_not(program, said, source) or sourced.why_whole(program, where)
    if why is not None:
        return _calls(where, said.shell, why[1], why[0], top, source)
    body = lifted(program)
    if body is None:
        result = _divided(program, said, top, where, loops)
        return result._replace(notes=[*unnamed, *result.notes])
    result = _divided(Program(body.source, dialect), said, top, where, loops)
    note = Note("lifted", body.first, f"the body of {body.name} is the job's steps, since the script only calls it")
    return result._replace(notes=sorted([*unnamed, note, *result.notes], key=lambda each: each.line))


def _unnamed(first: str, dialect: Dialect) -> list[Note]:
    """What is wrong with its first line: that nothing says which shell it is for (whoever starts it by its path gives
    it to his own, cron to sh), or that it does not start by its path at all."""
    if said := first[2:].split(None, 1) if first.startswith("#!") else []:
        return _unstartable(said)
    if dialect != "bash":
        return []
    words = "its first line names no shell: cron's sh would run it, which does not know all of it; the job has bash"
    return [Note("bug", 1, words, "#!/bin/bash belongs in the first line")]


def _unstartable(words: list[str]) -> list[Note]:
    """The kernel gives the interpreter all that stands behind the first blank as one word."""
    behind = words[1].split() if len(words) > 1 else []
    if os.path.basename(words[0]) == "env" and len(behind) > 1 and not behind[0].startswith("-"):
        why = f"`env` is given `{words[1].strip()}` as one name, and finds no such program"
        hint = f"#!/usr/bin/env -S {words[1].strip()}"
    elif os.path.basename(words[0]) != "env" and len(behind) > 1:
        why, hint = f"its shell is given `{words[1].strip()}` as one option", "one option there, the others by `set`"
    elif not words[0].startswith("/"):
        why, hint = f"`{words[0]}` is looked for in the folder where it is started", f"#!/bin/{words[0]}"
    else:
        return []
    return [Note("bug", 1, f"its first line does not start it: {why}; the job does", hint)]


def _text(data: bytes, path: str | None) -> str | None:
    if not data.strip():
        raise NotAShellScript(f"{path or 'the input'} is empty", "name a script that does something")
    if b"\0" in data:
        raise NotAShellScript(f"{path or 'the input'} is not text", "name a shell script")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if path is None:
            line = data[: error.start].count(b"\n") + 1
            raise NotAShellScript(f"line {line} is not UTF-8", "store it as a file, and convert that") from None
        return None


def _interpreter(first: str, source: str, path: str | None) -> Interpreter:
    said = interpreter(first)
    if said is not None:
        if said.language == "no shell":
            raise NotAShellScript(f"{path or 'the input'} is no shell script but one for {' '.join(said.shell)}")
        return said
    name = path or ""
    other = re.search(r"\.(zsh|fish|csh|tcsh|ksh)$", name)
    if other:
        return Interpreter((other[1],), "other shell")
    needs_bash = (
        name.endswith(".bash") or (not accepts(("dash",), source) and accepts(("bash",), source)) or _bashisms(source)
    )
    return Interpreter(("/bin/bash",), "bash") if needs_bash else Interpreter(("/bin/sh",), "sh")


def _bashisms(source: str) -> bool:
    """What dash accepts as a command and does not have."""
    return (
        re.search(
            r"(?m)^\s*(if |while |until |elif )?(\[\[ |declare |shopt |pushd |mapfile )|\$\{BASH_SOURCE|<<<"
            r"|set -o pipefail",
            source,
        )
        is not None
    )


def _why_not(program: Program, said: Interpreter, source: str) -> tuple[int, str] | None:
    """Line and reason, where the script is kept whole."""
    if said.odd:
        return 1, f"the option {said.odd} of its first line"
    ends = source.count("\r\n")
    if ends and ends >= source.count("\n") / 2:
        return 1, "its lines end in CR LF, which no shell on this machine reads as line ends"
    if len(program.lines) > MAX_LINES:
        return 0, f"it has {len(program.lines)} lines"
    if not accepts(program.checker, program.source, warnings=True):
        return 0, f"{program.checker[0]} -n finds an error in it"
    if reads_history(program):
        return 0, "it uses the shell's history"
    return why_whole(program)


def _calls(path: str | None, shell: Sequence[str], why: str, line: int, top: Header, source: str = "") -> Converted:
    """The job with one step that calls the script."""
    if path is not None:
        note = Note("kept", line, f"kept whole: {why}", "its one step calls it, and begins again from its start")
        command = calling.command_of(path, shell or ("/bin/sh",))
        return calling.calls(path, command, [note], description=top.description, comment=top.comment)
    note = Note("kept", line, f"kept whole: {why}", "its one step is the whole text")
    keys: list[tuple[str, JSON]] = [("description", top.description)] if top.description else []
    keys.append(("shell", list(shell)))
    body = source.split("\n", 1)[1] if source.startswith("#!") else source
    step = DraftStep("script", (("run", body.strip("\n") + "\n"),))
    return Converted(Draft("script", keys, (step,), "\n".join(top.comment)), [note], 1, True)


def _divided(program: Program, said: Interpreter, top: Header, path: str | None, loops: bool) -> Converted:
    divided = cut(program, _plain_file)
    if not divided.pieces:
        raise NotAShellScript(
            f"{path or 'the input'} does nothing: it has only comments", "name a script that does something"
        )
    groups = foreach.divided(program, divided.pieces) if loops else grouped(program, divided.pieces)
    changed: dict[str, list[int]] = {}
    lines = rewritten(program, changed)
    notes = _notes(program, groups, changed, path)
    steps = _steps(program, groups, lines, notes, loops)
    keys: list[tuple[str, JSON]] = [("description", top.description)] if top.description else []
    keys += [("carry", "shell"), ("shell", list(said.shell))]
    if path is not None:
        keys.append(("script", path))
    draft = Draft(calling.job_name(path), keys, steps, calling.origin(path, top.comment))
    return Converted(draft, notes, divided.statements)


def _steps(
    program: Program, groups: Sequence[Group], lines: Sequence[str], notes: list[Note], loops: bool
) -> list[DraftStep]:
    steps: list[DraftStep] = []
    expected = 1
    for name, group in zip(names(program, groups), groups, strict=True):
        first, last = _bare(lines, group.first, group.last)
        keys: list[tuple[str, JSON]] = []
        if first != expected:
            keys.append(("line", first))
        expected = last + 2
        if _defines(program, group):
            keys.append(("defines", True))
        said = {}
        if group.outside:
            keys.append(("on_interrupt", "ask"))
            said["on_interrupt"] = _outside(group.outside)
        if _leaves_running(program, group):
            keys.append(("leave_running", True))
            said["leave_running"] = "what it starts in the background goes on after the script, as before"
        text = "\n".join(lines[first - 1 : last]) + "\n"
        for piece in filter(foreach.is_loop, group.pieces if loops else ()):
            loop = foreach.offered(program, piece, [piece for one in groups for piece in one.pieces])
            notes.append(_of_loop(loop, name))
            if not loop.why:
                keys, text = _instances(keys, loop), loop.text
        steps.append(DraftStep(name, (*keys, ("run", text)), said=said))
    return steps


def _of_loop(loop: foreach.Loop, name: str) -> Note:
    if loop.why:
        return Note("kept", loop.line, f"the loop stays a loop: {loop.why}")
    return Note("lifted", loop.line, f"each {loop.variable} of the loop is an instance of the step '{name}'")


def _instances(keys: Sequence[tuple[str, JSON]], loop: foreach.Loop) -> list[tuple[str, JSON]]:
    """One after the other, and as the loop does after a round that fails."""
    more: list[tuple[str, JSON]] = [("line", loop.text_line), ("foreach", list(loop.items)), ("max_parallel", 1)]
    more.append(("fail_fast", True) if loop.stops else ("continue_on_error", True))
    more.append(("env", {loop.variable: "${{ item }}"}))
    return [*(key for key in keys if key[0] != "line"), *more]


def _bare(lines: Sequence[str], first: int, last: int) -> tuple[int, int]:
    """Without the empty lines around it."""
    while first < last and not lines[first - 1].strip():
        first += 1
    while last > first and not lines[last - 1].strip():
        last -= 1
    return first, last


def _defines(program: Program, group: Group) -> bool:
    nodes = [node for piece in group.pieces for node in piece.nodes if node.type != ";"]
    return program.hands_on_text and all(map(program.defines, nodes))


def _leaves_running(program: Program, group: Group) -> bool:
    """Whether a job is started and nobody waits for it."""
    if any(JOBS in piece.why for piece in group.pieces):
        return False
    done = [here for piece in group.pieces for node in piece.nodes for here in program.executed(node)]
    waits = any(here.type == "command" and command_name(here) == "wait" for here in done)
    return not waits and any(is_background(here) for here in done)


def _outside(found: dict[str, str]) -> str:
    what = " and ".join(f"{deed} ({name})" if name not in deed else deed for deed, name in found.items())
    return f"it {what}: after an interruption somebody says whether that was done"


def _notes(
    program: Program, groups: Sequence[Group], changed: Mapping[str, Sequence[int]], path: str | None
) -> list[Note]:
    notes = [*_together(groups), *_asking(groups)]
    for what, lines in changed.items():
        notes.append(Note("kept", lines[0], f"{what} ({_lines(lines)})" if len(lines) > 1 else what))
    for group in groups:
        if _leaves_running(program, group):
            said = "what it starts in the background goes on after the job; after a crash no resume starts it anew"
            notes.append(Note("kept", first_line(group.pieces[-1].nodes[0]), said))
    for node in walk(program.root) if program.dialect == "sh" else ():
        if node.type == "function_definition" and not program.defines(node):
            said = "`function` is no word of sh: dash takes it for a command, and runs the body at once"
            notes.append(Note("bug", first_line(node), said, "`name() {`, or `#!/bin/bash`"))
    return sorted([*notes, *advice(program, path)], key=lambda note: note.line)


def _together(groups: Sequence[Group]) -> Iterator[Note]:
    """What was not divided, by its reason."""
    found: dict[str, list[tuple[int, int]]] = {}
    for piece in (piece for group in groups for piece in group.pieces):
        for why in piece.why:
            found.setdefault(why, []).append((first_line(piece.nodes[0]), piece.last))
    for why, spans in found.items():
        where = ", ".join(f"{first} to {last}" for first, last in spans[:_MOST])
        more = f" and {len(spans) - _MOST} more" if len(spans) > _MOST else ""
        yield Note("kept", spans[0][0], f"lines {where}{more} stay together{' each' * (len(spans) > 1)}: {why}")


def _asking(groups: Sequence[Group]) -> Iterator[Note]:
    found: dict[tuple[str, str], list[int]] = {}
    for group in groups:
        for deed, name in group.outside.items():
            found.setdefault((name, deed), []).append(first_line(group.pieces[-1].nodes[0]))
    hint = "`on_interrupt: verify` where a command can tell whether it was done"
    for (name, deed), lines in found.items():
        also = f" ({_lines(lines)})" if len(lines) > 1 else ""
        yield Note("advice", lines[0], f"`{name}` {deed}{also}: after an interruption the step asks", hint)


def _lines(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _MOST} more" if len(numbers) > _MOST else ""
    return f"lines {', '.join(map(str, numbers[:_MOST]))}{more}"


def _plain_file(path: str) -> bool | None:
    """Whether a file that the script reads defines no functions; None where it cannot be looked at."""
    if not path.startswith("/"):
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20)
    except OSError:
        return None
    return not Program(text.decode(errors="replace"), "sh").functions
