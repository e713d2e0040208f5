"""`agentrun validate JOB...`: read job files as `run` would, look at their programs, and show what is wrong."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import AgentrunError, JobFileError
from ..render import jsonshape
from ..render.problems import problem_lines
from ..render.terminal import look_of, printable
from ..render.words import count
from ..spec.children import check_children
from ..spec.decode import load
from . import complete as offers
from .absent import absent
from .programs import check


def validate(
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="Job files.", autocompletion=offers.complete_job_file)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as JSON.")] = False,
) -> int:
    """Check job files and show everything that is wrong in them.

    Programs are looked at too, and not executed: inline Python must compile, text for sh and bash must be readable to
    them, and a function of a module beside the job file must be there. So are the job files that steps name with job:
    they must be there and right, take what with gives them, and not lead back.

    What may be right where the job will run is a warning, on stderr: a module, a working_dir or an env_file that is not
    here, and a program named by a path in run that is not there or not executable.

    The exit status is 0 if all are right, 65 if one is wrong, 66 if one is not there.
    """
    status, shapes, look = 0, [], look_of(sys.stdout)
    for path in jobs:
        try:
            job, text = load(path)
            found = check(job, text, path)
            doubts = sorted(found.warnings + absent(job, text, path), key=lambda one: (one.line, one.column))
            if doubts and not as_json:
                sys.stdout.flush()
                print("\n".join(problem_lines(doubts, look_of(sys.stderr), "warning: ")), file=sys.stderr, flush=True)
            shapes += [jsonshape.problem_shape(problem, "warning") for problem in doubts]
            wrong = found.problems + check_children(job, path, text)
            if wrong:
                raise JobFileError(sorted(wrong, key=lambda problem: (problem.line, problem.column)))
        except AgentrunError as error:
            status = status or error.exit_code
            if as_json:
                shapes += jsonshape.refusal_shapes(path, error)
            elif isinstance(error, JobFileError):
                print("\n".join(problem_lines(error.problems, look)))
            else:
                print(printable(error.message))
        else:
            if not as_json:
                print(f"{printable(path)}: ok, job {job.name}, {count(len(job.steps), 'step')}")
    if as_json:
        print(jsonshape.dumps(shapes))
    return status
