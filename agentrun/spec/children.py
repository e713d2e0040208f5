"""The job files that the steps of a job name with `job`: they are there, they are right, and none leads back.

`decode` reads one text and nothing else, so that a snapshot means the same when its neighbours are gone; whoever
starts a run or validates a file asks here as well. All files that can be reached are read, each once, by their real
paths; a file whose steps lead back to it, over however many others, is refused. A problem stands in the parent, at
the step that names the child: its `job`, or the key of its `with` that the child does not know.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import AgentrunError, JobFileError
from ..model import Job, Problem, Step
from . import document
from .decode import load
from .document import ListNode, MapNode, Node, Scalar
from .nearest import suggestion
from .order import knots
from .report import Report


def child_path(job_file: str, written: str) -> str:
    """The absolute path of the job file that a step of `job_file` names as `written`; `~` is the user's home."""
    path = os.path.join(os.path.dirname(os.path.abspath(job_file)), os.path.expanduser(written))
    # `x/../y.yaml` stays: where x is a link, it is not y.yaml
    return path if os.pardir in path.split(os.sep) else os.path.normpath(path)


def check_children(job: Job, path: str, text: str = "") -> list[Problem]:
    """All that is wrong with the children of the job in the file `path`, in the order of the file; empty: nothing.

    `text` is the file's content, for the exact places; without it each problem is told at the first column of its step.
    """
    if not any(step.job is not None for step in job.steps):
        return []
    files = _Files()
    root = files.add(path, os.path.abspath(path), job)
    files.read_all()
    report = Report(path, text)
    nodes: Sequence[Node] | None = None
    try:
        for message, hint, step, key in files.problems(root):
            if nodes is None:
                nodes = _steps(text, path) if text else ()
            line, column = _place(nodes[step.index], key) if nodes else (step.line - 1, 0)
            report.add_at(line, column, message, hint)
    except JobFileError:
        pass  # so many that the report is full
    return sorted(report.problems, key=lambda problem: (problem.line, problem.column))


@dataclass
class _File:
    """A job file: its job, or what it is refused for; and the file that each of its steps with `job` names."""

    shown: str
    path: str
    job: Job | None = None
    refused: AgentrunError | None = None
    children: Mapping[str, int] = field(default_factory=dict)
    cause: str = ""  # the first thing wrong in it or below it, with its place


# message, hint, step, and the key of `with` that it is about
_Wrong = tuple[str, str | None, Step, str | None]


class _Files:
    """The job files that can be reached from one, by number."""

    def __init__(self) -> None:
        self._files: list[_File] = []
        self._by_real_path: dict[str, int] = {}
        self._knot: dict[int, int] = {}

    def add(self, shown: str, path: str, job: Job | None = None) -> int:
        number = self._by_real_path.setdefault(os.path.realpath(path), len(self._files))
        if number == len(self._files):
            self._files.append(_File(shown, path, job))
        return number

    def read_all(self) -> None:
        """Read what can be reached, find circles, and tell each file of one thing that is wrong below it."""
        for file in self._files:  # it grows meanwhile
            if file.job is None:
                try:
                    file.job, _ = load(file.path)
                except AgentrunError as error:
                    file.refused = error
            if file.job is not None:
                file.children = {step.job: self._child(file, step.job) for step in file.job.steps if step.job}
        for number, knot in enumerate(knots([sorted(set(file.children.values())) for file in self._files])):
            self._knot |= dict.fromkeys(knot, number)
        causes = [self._own_cause(number) for number in range(len(self._files))]
        for file, cause in zip(self._files, causes, strict=True):
            file.cause = cause
        wrong = deque(number for number, cause in enumerate(causes) if cause)
        parents: dict[int, list[int]] = {}
        for number, file in enumerate(self._files):
            for child in file.children.values():
                parents.setdefault(child, []).append(number)
        while wrong:
            number = wrong.popleft()
            for parent in parents.get(number, ()):
                if not self._files[parent].cause:
                    self._files[parent].cause = self._files[number].cause
                    wrong.append(parent)

    def _child(self, parent: _File, written: str) -> int:
        shown = os.path.join(os.path.dirname(parent.shown), os.path.expanduser(written))
        return self.add(os.path.normpath(shown), child_path(parent.path, written))

    def _own_cause(self, number: int) -> str:
        """The first problem of a file that does not lie in another one, with its place."""
        file = self._files[number]
        if isinstance(file.refused, JobFileError):
            first = file.refused.problems[0]
            return f"{file.shown}:{first.line}:{first.column}: {first.message}"
        if file.refused is not None:
            return ""  # there is no such file: that is a problem of whoever names it
        for message, _, step, _ in self.problems(number):
            return f"{file.shown}:{step.line}: {message}"
        return ""

    def problems(self, number: int) -> Iterator[_Wrong]:
        """What is wrong with the steps of a file that name others; once they have been read."""
        file = self._files[number]
        for step in file.job.steps if file.job is not None else ():
            if step.job is not None:
                child = self._files[file.children[step.job]]
                if self._knot[file.children[step.job]] == self._knot[number]:
                    back = f"leads back to {os.path.basename(file.shown)}: a job cannot run itself"
                    yield f"job '{step.job}' {back}", None, step, None
                elif child.refused is not None and not isinstance(child.refused, JobFileError):
                    yield f"there is no job file '{step.job}'", f"looked for it at {child.path}", step, None
                elif child.cause:
                    yield f"job '{step.job}' is wrong: {child.cause}", None, step, None
                elif child.job is not None:
                    yield from _check_params(step, child.job)


def _check_params(step: Step, child: Job) -> Iterator[_Wrong]:
    for name in step.args:
        if name not in child.params:
            near = suggestion(name, child.params)
            hint = None if near else f"its params are {', '.join(child.params)}" if child.params else "it has none"
            yield f"job '{step.job}' has no param '{name}'{near}", hint, step, name
    for name, param in child.params.items():
        if param.required and name not in step.args:
            yield f"job '{step.job}' needs the param '{name}'", f"as with: {{{name}: …}}", step, None


# -- where a problem stands --------------------------------------------------------------------------------------


def _place(step: Node, key: str | None) -> tuple[int, int]:
    """Line and column, both from 0: of a key of `with`, else of what stands under `job`, else of the step."""
    node = step
    for name in ("job",) if key is None else ("with", key):
        pair = next((pair for pair in _pairs(node) if pair[0].text == name), None)
        if pair is None:
            return step.mark.line, step.mark.column
        node = pair[0] if name == key else pair[1]
    return node.mark.line, node.mark.column


def _steps(text: str, path: str) -> list[Node]:
    root = document.read(Report(path, text))
    return next(node.items for key, node in _pairs(root) if key.text == "steps" and isinstance(node, ListNode))


def _pairs(node: Node) -> Iterator[tuple[Scalar, Any]]:
    if isinstance(node, MapNode):
        yield from ((key, value) for key, value in node.pairs if isinstance(key, Scalar))
