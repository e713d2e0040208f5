"""`agentrun plan JOB`: what a run of a job would do, and in which order, without doing it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..render import jsonshape
from ..render.plan import plan_lines, stages_of
from ..render.terminal import look_of
from ..spec.decode import load
from . import complete as offers


def plan(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job file.", autocompletion=offers.complete_job_file)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show what a run of a job would do, and in which order.

    Steps of the same stage need nothing of each other: they may run at the same time.
    """
    decoded, _ = load(job)
    stages = stages_of(decoded)
    if as_json:
        print(jsonshape.dumps(jsonshape.plan_shape(decoded, os.path.abspath(job), stages)))
    else:
        print("\n".join(plan_lines(decoded, stages, os.cpu_count() or 1, look_of(sys.stdout))))
    return 0
