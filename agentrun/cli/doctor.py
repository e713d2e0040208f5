"""`agentrun doctor`: whether this machine and the record are fit for what agentrun promises; the repair of the record.

It leaves nothing behind, but for `--repair`, and works where nothing else does: on a read-only disk, with a
damaged database, before the first run.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..errors import UsageError
from ..health.checkup import CHECKS, examine, look
from ..health.finding import Check, several
from ..health.site import Site
from ..render.checks import check_lines, check_shape, summary
from ..render.terminal import look_of, talk
from ..store.folders import home


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Bring back a damaged database, from its copies and the runs' journals.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check what agentrun stands on: this machine, the record, the runs and the crontab.

    Each check that is not good is followed by its remedy, and makes the exit status 1.
    Nothing is changed, and nothing is made where agentrun has never run.

    With --repair, a damaged database is moved aside, and made again from its last copy in backups/ and from the
    journals in the folders of the runs. What could not be brought back is named. The exit status is 0 if the
    database is good afterwards.
    """
    if repair:
        if as_json:
            raise UsageError("--repair does not go with --json", "look afterwards: agentrun doctor --json")
        return _repair(home())
    site = Site(home(), os.environ)
    found: list[Check] = []
    try:
        shown = look_of(sys.stdout)
        for check in examine(site):
            found.append(check)
            if not as_json:
                print(*check_lines(check, CHECKS, shown), sep="\n", flush=True)
    finally:
        site.close()
    if as_json:
        from ..render.jsonshape import dumps

        print(dumps([check_shape(check) for check in found]))
    else:
        print(summary(found))
    return 0 if all(check.ok for check in found) else 1


def _repair(root: str) -> int:
    """Repair what can be, and look at the database again: what is shown is what was found then."""
    from ..store import repair

    if not Site(root, os.environ).is_there:
        talk(f"nothing to repair: there is no record in {root}")
        return 0
    done = repair.repair(root, talk)
    if done.runs or done.kept is not None:
        runs, finished = several(done.runs, "run"), several(done.steps, "finished step")
        print(f"{runs} rebuilt from journals; {finished} in the record")
    for sentence in done.lost:
        print(f"not brought back: {sentence}")
    site = Site(root, os.environ)
    try:
        check = Check("database", *look("database", site))
    finally:
        site.close()
    print(*check_lines(check, [check.name], look_of(sys.stdout)), sep="\n")
    return 0 if check.ok else 1
