"""`agentrun deliver`: send the notices that are due. Started by runs and by `resume`, of a session of its own."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Annotated

import typer

from ..errors import AgentrunError
from ..notify import deliverer
from ..notify.occasions import Report, Tell
from ..render.questions import waiting_report
from ..render.report import failure_report, way_out
from ..render.status import command
from ..store.database import open_for_reading
from ..store.folders import home
from ..store.read import Reader, Run


def deliver(
    program: Annotated[
        str | None, typer.Option(metavar="PATH", help="How whoever started it was called: for the commands it names.")
    ] = None,
) -> None:
    """Send the notices that are due, and record what came of it."""
    if program:
        sys.argv[0] = program
    root = home()
    if not os.path.isdir(root):
        return
    reading = open_for_reading(root)
    if reading is None:
        return
    reader = Reader(reading)
    try:
        tell = Tell(lambda event, run: report(reader, event, run), partial(command, anywhere=True), _catch_up)
        deliverer.deliver(root, tell)
    finally:
        reading.close()


def report(reader: Reader, event: str, run: Run) -> Report:
    """What a person is shown of a run."""
    if event == "waiting":
        go_on = command("resume", reader.outermost(run).id, anywhere=True)
        return Report(waiting_report(reader, home(), run), go_on)
    if event == "failure":
        way = way_out(reader, run)
        try:
            return Report(failure_report(reader, home(), run), way)
        except (AgentrunError, OSError) as error:  # its logs or its file are gone: it is told all the same
            return Report([f"agentrun: job {run.job} {run.outcome}: {run.error}", f"(no report: {error})"], way)
    look = [f"look at it:  {command('status', run.id, anywhere=True)}"]
    return Report([*look, f"end it:      {command('cancel', run.id, anywhere=True)}"], None)


def _catch_up(file: str) -> str | None:
    """What a job file says of missed ticks; None where it cannot be read."""
    from ..spec.decode import load

    try:
        return load(file)[0].catch_up
    except AgentrunError:
        return None
