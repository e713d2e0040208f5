"""A Python script as a job: one step that calls it, and the calls in it that deserve to be checkpoints of their own.

The step starts the script as it is started now: by its path where it is executable and says `#!`, else by the Python of
its virtual environment, else by the one that its first line names, else by `python3`. Nothing in the script is changed:
`@step` of `agentrun.durable` is what would make one step of it many, and the notes say where (`pycalls`). A script that
sends something (mail, a POST) is not begun again unasked after an interruption, as long as those calls are no `@step`s.
What Python 3 cannot read (Python 2, a syntax error) is called all the same, and said.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import warnings
from collections.abc import Sequence
from itertools import dropwhile

from ..errors import UsageError
from . import calling
from .calling import first_line
from .notes import Converted, Note
from .pycalls import Call, calls
from .pytables import What

WHY: dict[What, str] = {
    "sent": "it changes something elsewhere, and a rerun of the script does it again",
    "mail": "a rerun of the script sends the mail again",
    "asked": "network: it takes its time, and fails, again with each rerun",
    "paid": "a model: a rerun pays for the answer again, and gets another one",
    "command": "a rerun starts the command again",
    "database": "a rerun writes the rows again",
    "files": "a rerun finds the file gone",
}
_MOST = 40  # calls that are listed one by one
_VENVS = (".venv", "venv", "env", ".env")
_PYTHON_2 = re.compile(
    rb"(?m)^\s*print\s+[^\s(=]|^\s*print\s*$|^\s*except\s+[\w.]+\s*,\s*\w+\s*:|^\s*exec\s+[\"']|^\s*raise\s+\w+\s*,\s*[\"']"
)


def is_python(data: bytes, path: str | None) -> bool:
    """Whether it says that it is a Python script: by its first line, else by its name."""
    first = data[:200].split(b"\n")[0]
    if first.startswith(b"#!"):
        return re.search(rb"\b(?:python|pypy)[\d.]*(?:\s|$)", first) is not None
    return path is not None and path.endswith((".py", ".pyw"))


def parsed(data: bytes) -> ast.Module | str:
    """The tree of a script, or what Python has against it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(data)
        except SyntaxError as error:
            return f"{error.msg} (line {error.lineno or 1})"
        except (ValueError, RecursionError, MemoryError) as error:
            return str(error) or type(error).__name__


def convert(data: bytes, path: str | None) -> Converted:
    """The job that calls the script, and the notes. UsageError where no path is known that it could call."""
    if path is None:
        raise UsageError("a Python script is called by its path, and standard input has none",
                         "name the file: agentrun convert FILE")  # fmt: skip
    whole = os.path.abspath(path)
    tree = parsed(data)
    notes = [Note("kept", 0, "a Python script stays one step: it is called as it is")]
    found: list[Call] = []
    if isinstance(tree, str):
        two = "this looks like Python 2" if _PYTHON_2.search(data) else "it is not Python 3"
        notes.append(Note("kept", _line_of(tree), f"not looked into: {two}: {tree}",
                          "calls that deserve @step cannot be listed"))  # fmt: skip
    else:
        found = calls(tree)
        notes += _advice(found)
    command = _command(data, whole)
    notes += _venv_unused(data, whole, command)
    keys, said = _on_interrupt(found)
    return calling.calls(whole, command, notes, description=_description(data, tree), keys=keys, said=said)


# -- how it is started


def _command(data: bytes, path: str) -> str:
    program, *options = first_line(data) or [""]
    if program and os.access(path, os.X_OK):
        return shlex.quote(path)
    if os.path.basename(program) == "env":
        program, *options = [*dropwhile(lambda word: word.startswith("-") or "=" in word, options)] or [""]
    is_ours = _is_venv(os.path.dirname(os.path.dirname(program))) if os.path.isabs(program) else False
    beside = None if is_ours else _venv_beside(path)
    if beside:
        program, options = os.path.join(beside, "bin", "python"), []
    return shlex.join([program or "python3", *options, path])


def _venv_beside(path: str) -> str | None:
    """The virtual environment in the script's folder, or in the one above it."""
    folder = os.path.dirname(path)
    for above in (folder, os.path.dirname(folder)):
        for name in _VENVS:
            venv = os.path.join(above, name)
            if _is_venv(venv):
                return venv
    return None


def _is_venv(folder: str) -> bool:
    python = os.path.join(folder, "bin", "python")
    return os.path.isfile(os.path.join(folder, "pyvenv.cfg")) and os.access(python, os.X_OK)


def _venv_unused(data: bytes, path: str, command: str) -> list[Note]:
    """A script that is started by its path, with an environment beside it that its first line does not name."""
    beside = _venv_beside(path)
    if beside is None or command != shlex.quote(path) or beside in " ".join(first_line(data)):
        return []
    return [
        Note("advice", 1, f"{beside} is not what its first line starts it with: what is installed there is not found",
             f"if it is meant, run: {shlex.join([os.path.join(beside, 'bin', 'python'), path])}")
    ]  # fmt: skip


# -- what is said of it


def _description(data: bytes, tree: ast.Module | str) -> str:
    """The first sentence of its docstring, else of the comment at its top."""
    text = "" if isinstance(tree, str) else ast.get_docstring(tree) or ""
    return calling.first_sentence(text) if text else calling.said_at_top(data)


def _line_of(complaint: str) -> int:
    found = re.search(r"\(line (\d+)\)$", complaint)
    return int(found[1]) if found else 0


def _advice(found: Sequence[Call]) -> list[Note]:
    """One note for all, then one for each call; calls of one name in one function are one."""
    if not found:
        return []
    alike: dict[tuple[str, str, What], list[Call]] = {}
    for call in found:
        alike.setdefault((call.function, call.name, call.what), []).append(call)
    count = f"{len(found)} calls deserve" if len(found) > 1 else "1 call deserves"
    notes = [
        Note("advice", 0, f"{count} @step: what is done is then not done again by a retry or a resume",
             "from agentrun.durable import step; arguments and result of a @step must be JSON (else @step(key=…))")
    ]  # fmt: skip
    names = {(call.function, call.name) for call in found}
    crowded = {name for name, _ in names if sum(each == name for each, _ in names) > 1}
    for calls_of_one in list(alike.values())[:_MOST]:
        first = calls_of_one[0]
        more = sorted({call.line for call in calls_of_one} - {first.line})
        also = f", lines {', '.join(map(str, more))} too" if len(more) > 1 else f", line {more[0]} too" if more else ""
        where = f" in {first.function}()" if first.function else ""
        loop = ", in a loop" if any(call.loop for call in calls_of_one) else ""
        own = first.function and first.function not in crowded and first.function != "main" and not loop
        hint = f"@step on {first.function}()" if own else "put it into a function of its own with @step"
        notes.append(Note("advice", first.line, f"{first.name}(){where}{loop}{also}: {WHY[first.what]}", hint))
    if len(alike) > _MOST:
        notes.append(Note("advice", 0, f"and {len(alike) - _MOST} more of the kind"))
    return notes


def _on_interrupt(found: Sequence[Call]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    sends = [call for call in found if call.what in ("sent", "mail") and not call.keyed]
    if not sends:
        return [], {}
    first = sends[0]
    more = f", and {len(sends) - 1} more" if len(sends) > 1 else ""
    said = f"{first.name}() (line {first.line}{more}) must not happen twice: after an interruption you are asked"
    return [("on_interrupt", "ask")], {"on_interrupt": said}
