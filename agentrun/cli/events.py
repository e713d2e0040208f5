"""`agentrun events`: the journal, what happened, when, and by whom."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ..errors import UsageError
from ..render import jsonshape
from ..render.events import event_line
from ..render.terminal import look_of, talk
from ..store.folders import home
from . import complete as offers
from .record import need_record, nothing_yet, open_record

_POLL = 0.2  # seconds between two looks for more
_NEWEST = 100  # events that are shown of all runs


def events(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Only this run, from its beginning.", autocompletion=offers.complete_run),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", "-n", metavar="N", min=0, help=f"Only the last N events; without RUN {_NEWEST}."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what happens, until the run has finished.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> int:
    """Show the journal: what happened, when, and by whom."""
    if follow and run is None:
        raise UsageError("--follow follows a run: name it, as in `agentrun events RUN --follow`")
    if run is None and open_record() is None:
        talk(nothing_yet(home()).message)
        return 0
    record = need_record()
    look = look_of(sys.stdout)
    run_id = None if run is None else record.find(run).id
    limit = _NEWEST if tail is None and run_id is None else -1 if tail is None else tail
    # of one run the store gives the first events, of all runs the newest
    found = record.reader.events(run_id, limit=-1 if run_id else limit)
    if run_id and tail is not None:
        found = found[len(found) - tail :] if tail < len(found) else found
    after = 0
    while True:
        for event in found:
            print(jsonshape.line(jsonshape.event_shape(event)) if as_json else event_line(event, look))
            after = event.seq
        sys.stdout.flush()
        if not follow or run_id is None:
            return 0
        standing = record.standing(record.reader.run(run_id))
        found = record.reader.events(run_id, after=after)
        if not found and (standing.run.state == "finished" or standing.interrupted):
            return 0
        if not found:
            time.sleep(_POLL)
