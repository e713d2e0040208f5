"""`agentrun cancel RUN`: write the wish, ring; where nobody advances the run, bring it to its end here."""

from __future__ import annotations

import getpass
import time
from typing import Annotated

import typer

from ..engine import lost
from ..render.terminal import talk
from ..render.times import now_ms
from ..store.database import open_for_writing
from ..store.folders import RunFolder
from ..store.read import Run
from ..store.write import Store
from . import complete as offers
from .record import Record, need_record

_POLL = 0.1  # seconds between two looks at whether it has ended


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run.", autocompletion=offers.complete_run)],
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run has ended.")] = False,
) -> int:
    """End a run: its steps are ended, its `always` steps still run.

    The process that advances the run does it; this command does not wait for it. Where no process does, as after a
    crash, this command brings the run to its end itself. A second cancel ends the `always` steps too.
    """
    record = need_record()
    found = record.find(run)
    database = open_for_writing(record.root)
    try:
        store = Store(database)
        store.wish_to_cancel(found.id, by=_user(), now=now_ms())
        if lost.is_lost(record.root, found):
            lost.cancel(store, store.reader.run(found.id))
            talk(f"run {found.id} of {found.job} had lost its folder: its record says cancelled now")
            return 0
        # read after the wish: who parks the run later sees it, who has parked it does not
        parked = store.reader.run(found.id).state == "waiting"
        held = found.held(record.root) and not parked
        if held:
            from ..engine.attention import ring

            ring(RunFolder(database.root, found.id))
    finally:
        database.close()
    if not held:
        from .resume import resume_one

        resume_one(found.id)
    found = _wait(record, found) if wait else record.reader.run(found.id)
    ended = found.state == "finished"
    talk(f"run {found.id} of {found.job} {'has ended: ' + str(found.outcome) if ended else 'is being cancelled'}")
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        import os

        return str(os.getuid())


def _wait(record: Record, run: Run) -> Run:
    while True:
        standing = record.standing(record.reader.run(run.id))
        if standing.run.state == "finished" or standing.interrupted:
            return standing.run
        time.sleep(_POLL)
