"""What the decoder does not look into: whether the programs of a job file can run at all.

Only `validate` asks, for it starts shells and reads other files. Inline Python must compile; text for `sh` and
`bash` must pass their own `-n`, which executes nothing; `module:function` must be there if its module stands
in the folder where the step would find it first. A module found nowhere is only a warning: it may be installed
where the job will run. What another interpreter or shell accepts is not guessed.

The decoded job has the programs, the nodes of the file the places: both are walked side by side.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import JobFileError
from ..model import Job, Problem, PythonCode, Step
from ..spec import document
from ..spec.document import ListNode, MapNode, Scalar
from ..spec.fields import SHELLS
from ..spec.nearest import suggestion
from ..spec.report import Report
from ..step.contract import working_folder

_PLAIN = re.compile(r"[\w./@%+=:,-]+( [\w./@%+=:,-]+)*")  # a command of words: nothing in it can be wrong
_KEYWORDS = frozenset(
    ("if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in", "function",
     "select", "time")
)  # fmt: skip
_EXPRESSION = re.compile(r"!?\s*((?:steps|params|run|env|item)\.[\w.-]+)")
_TIMEOUT = 10  # seconds for a shell that reads a text and executes nothing


@dataclass
class Findings:
    """Problems, and what may be one."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def check(job: Job, text: str, path: str) -> Findings:
    """All that is wrong with the programs of a job that was decoded from `text`."""
    errors, doubts = Report(path, text), Report(path, text)
    folder = working_folder(job, os.path.dirname(os.path.abspath(path)))
    shell = next((name for name, argv in SHELLS.items() if argv == tuple(job.shell)), None)
    checked: dict[str, tuple[int, str] | None] = {}
    try:
        for step, nodes in zip(job.steps, nodes_of_steps(text, path), strict=True):
            for key in ("run", "if", "until"):
                if key not in nodes:
                    continue
                if key != "run" and (found := _EXPRESSION.match(nodes[key].text)):
                    _refuse_expression(nodes[key], key, found[1], errors)
                elif shell:
                    _check_shell(nodes[key], shell, checked, errors, doubts)
            if step.python is not None:
                _check_python(job, step, step.python, nodes["python"], folder, errors, doubts)
    except JobFileError:
        pass  # so many that the report is full
    return Findings(*(sorted(each.problems, key=lambda one: (one.line, one.column)) for each in (errors, doubts)))


def nodes_of_steps(text: str, path: str) -> Iterator[dict[str, Scalar]]:
    """The keys of each step that are scalars, and the `until` of its `repeat`."""
    root = document.read(Report(path, text))
    assert type(root) is MapNode
    steps = next(value for key, value in root.pairs if isinstance(key, Scalar) and key.text == "steps")
    assert type(steps) is ListNode
    for step in steps.items:
        assert type(step) is MapNode
        pairs = [*step.pairs]
        for key, value in step.pairs:
            if isinstance(key, Scalar) and key.text == "repeat" and isinstance(value, MapNode):
                pairs += value.pairs
        yield {key.text: value for key, value in pairs if isinstance(key, Scalar) and isinstance(value, Scalar)}


def _refuse_expression(node: Scalar, key: str, name: str, errors: Report) -> None:
    hint = f"a variable has the value: env: {{VALUE: \"${{{{ {name} }}}}\"}}, and if: test \"$VALUE\" = succeeded"
    if key == "until":
        hint = "the outputs of the round are variables, as in until: test \"$OUT_done\" = yes"
    errors.add_inside(node.mark, name, f"'{key}' is a shell command, and '{name}' is none", hint)


# -- shell ---------------------------------------------------------------------------------------------------


def _check_shell(
    node: Scalar, shell: str, checked: dict[str, tuple[int, str] | None], errors: Report, doubts: Report
) -> None:
    text = node.text
    if _PLAIN.fullmatch(text.strip()) and text.split()[0] not in _KEYWORDS:
        return
    if text not in checked:
        try:
            checked[text] = _complaint(text, shell)
        except (OSError, subprocess.SubprocessError) as error:
            checked[text] = None
            doubts.add(node.mark, f"not checked: {shell} cannot be asked ({error})")
    found = checked[text]
    if found:
        line, message = found
        _add(errors, node, line, f"{shell} cannot read this: {message}")


def _complaint(text: str, shell: str) -> tuple[int, str] | None:
    """What `sh -n` has against a text: the line, from 1, and its words; None if nothing."""
    done = subprocess.run(
        [SHELLS[shell][0], "-n"], input=text, capture_output=True, encoding="utf-8", errors="replace", check=False,
        timeout=_TIMEOUT, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode == 0:
        return None
    first = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
    match = re.match(r"[^:]*: (?:line )?(\d+): (.*)", first)
    return (int(match[1]), match[2]) if match else (1, first)


def _add(report: Report, node: Scalar, line: int, message: str, column: int = 0) -> None:
    """A problem in a line, from 1, of a program: where that stands in the file, if it is written line by line."""
    at = node.mark.line + min(line, node.text.rstrip().count("\n") + 1)  # a shell may name the line after the last
    lines = report.text.split("\n")
    if node.style != "|" or at >= len(lines):
        report.add(node.mark, message)
        return
    indent = len(lines[node.mark.line + 1]) - len(lines[node.mark.line + 1].lstrip(" ")) if column else 0
    blank = len(lines[at]) - len(lines[at].lstrip(" "))
    report.add_at(at, min(indent + column - 1 if column else blank, len(lines[at])), message)


# -- Python --------------------------------------------------------------------------------------------------


def _check_python(
    job: Job, step: Step, code: PythonCode, node: Scalar, folder: str, errors: Report, doubts: Report
) -> None:
    if code.source is not None:
        wrong = _syntax_error(code.source)
        if wrong is not None:  # another interpreter may know another Python
            report = doubts if step.interpreter else errors
            _add(report, node, wrong.lineno or 1, f"this is not Python: {wrong.msg}", wrong.offset or 0)
        return
    module, function = code.module or "", code.function or ""
    file = _module_file(folder, module)
    if file is None:
        if not step.interpreter and "PYTHONPATH" not in {**os.environ, **job.env, **step.env} and not _known(module):
            hint = f"looked for it in {folder} and among what is installed here"
            doubts.add(node.mark, f"no module '{module}' was found", hint)
        return
    shown = os.path.relpath(file, folder)
    tree = _parsed(file)
    if isinstance(tree, SyntaxError):
        report = doubts if step.interpreter else errors
        report.add(node.mark, f"{shown}:{tree.lineno or 1}: this is not Python: {tree.msg}")
    elif tree is not None:
        names = set(_names(tree.body))
        if function not in names and not names & {"*", "__getattr__"}:
            errors.add(node.mark, f"{shown} has no function '{function}'{suggestion(function, sorted(names))}")


def _syntax_error(source: str) -> SyntaxError | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "<step>", "exec", dont_inherit=True)
        except SyntaxError as error:
            return error
        except (ValueError, RecursionError, MemoryError) as error:
            return SyntaxError(str(error) or type(error).__name__)
    return None


def _module_file(folder: str, module: str) -> str | None:
    """The file of a module below the folder that stands first on the step's path."""
    base = os.path.join(folder, *module.split("."))
    candidates = (os.path.join(base, "__init__.py"), base + ".py")
    return next((file for file in candidates if os.path.isfile(file)), None)


def _known(module: str) -> bool:
    """Whether the Python that runs agentrun has it; nothing of it is executed."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _parsed(file: str) -> ast.Module | SyntaxError | None:
    """The syntax of a file; None where it cannot be read, which is not a matter of the job file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open(file, "rb") as stream:
                return ast.parse(stream.read())
        except SyntaxError as error:
            return error
        except (OSError, ValueError, RecursionError, MemoryError):
            return None


def _names(body: list[Any]) -> Iterator[str]:
    """The names that the statements of a module bind, also those inside of `if`, `try` and `with`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.stmt):
            for child in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    yield child.id
            for part in ("body", "orelse", "finalbody"):
                yield from _names(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _names(handler.body)
