"""What a job file names that is not there, or cannot be executed: warnings, for it may be there where the job will run.

Looked at are `working_dir`, `env_file`, and a `run` whose first word is a path. What stands in a variable or behind a
`cd` is not guessed. A program that is not there is told only of handlers and of steps with none before them: those
before may make it. One that is there and not executable is told of every step.
"""

from __future__ import annotations

import os
import re

from ..errors import JobFileError
from ..model import Job, Problem, Step
from ..spec import document
from ..spec.document import MapNode, Scalar
from ..spec.report import Report
from ..step.contract import working_folder
from .programs import nodes_of_steps

_PROGRAM = re.compile(r"\s*((?:~|\.{1,2})?/[\w./@+=:,-]+|'(?:~|\.{1,2})?/[^'\n]+')(?=\s|[;&|]|$)")


def absent(job: Job, text: str, path: str) -> list[Problem]:
    """The warnings about a job that was decoded from `text`, in the order of the file."""
    report = Report(path, text)
    beside = os.path.dirname(os.path.abspath(path))
    folder = working_folder(job, beside)
    try:
        root = document.read(Report(path, text))
        assert type(root) is MapNode
        own = {key.text: value for key, value in root.pairs if isinstance(key, Scalar) and isinstance(value, Scalar)}
        if job.env_file is not None and "env_file" in own:
            file = os.path.join(beside, os.path.expanduser(job.env_file))
            if not os.path.exists(file):
                report.add(own["env_file"].mark, f"the env_file is not there: {file}")
        if job.working_dir is not None and "working_dir" in own and not os.path.isdir(folder):
            report.add(own["working_dir"].mark, f"the working_dir is not there: {folder}")
            return report.problems
        for step, nodes in zip(job.steps, nodes_of_steps(text, path), strict=True):
            if "run" in nodes and (words := _of_program(step, folder)):
                report.add(nodes["run"].mark, words)
    except JobFileError:
        pass  # so many that the report is full
    return sorted(report.problems, key=lambda one: (one.line, one.column))


def _of_program(step: Step, folder: str) -> str:
    """What is wrong with the program that `run` begins with, if it is named by a path; "" if nothing is seen."""
    found = _PROGRAM.match(step.run or "")
    if found is None:
        return ""
    word = found[1]
    named = word[1:-1] if word.startswith("'") else os.path.expanduser(word)
    program = os.path.normpath(os.path.join(folder, named))
    if not os.path.exists(program):
        return "" if step.needs and not step.is_handler else f"there is no {program}, which 'run' begins with"
    if os.path.isdir(program):
        return f"{program} is a folder, and no program"
    if not os.access(program, os.X_OK):
        return f"{program} is not executable: chmod +x it, or name its interpreter, as in sh {word}"
    return ""
