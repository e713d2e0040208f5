"""`agentrun backfill JOB --from T --to T`: run the ticks of a time that has gone by, each that has not run yet.

Oldest first, one after the other, each as the run of its tick: what ran already is passed over, whoever ran it, and the
same backfill again goes on where this one stopped.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..cron.ticks import Calendar
from ..engine import create
from ..errors import UsageError
from ..instants import rfc3339
from ..render.terminal import talk
from ..render.times import full, moment, now_ms
from ..store.jobs import JobQuestions
from ..store.prune import forgotten_up_to
from ..store.write import RunKeyTaken
from . import advance, starts
from . import complete as offers
from .names import find_job
from .record import open_record
from .run import check_children, snapshot_of

_MOST = 10_000  # ticks; more are a slip
_ASK = 20  # of which a person is not asked


def backfill(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's name, or its file.", autocompletion=offers.complete_run)
    ],
    begin: Annotated[
        str, typer.Option("--from", metavar="TIME", help="The first tick: 2026-11-20T03:00, 03:00, 2h, yesterday.")
    ],
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="The last one; without it, until now.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help="A parameter of the runs; may be given again."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which ticks would run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Do not ask, though they are more than {_ASK}.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on with the next tick when one fails.")] = False,
) -> int:
    """Run the ticks of a time that has gone by, oldest first: those that have not run."""
    name, file = find_job(open_record(), job)
    now = now_ms()
    first, last = _moment("--from", begin, now), now if to is None else _moment("--to", to, now)
    if last < first:
        end = f"--to {to}" if to else "now"
        raise UsageError(f"--from {begin} comes after {end}")
    if last > now:
        raise UsageError(f"--to {to} has not come yet", "a tick is run when it is due, not before")
    file = create.job_file(file)
    with advance.open_store() as store:
        snapshot = snapshot_of(store, file)
        check_children(snapshot, file)
        calendar = Calendar.of(snapshot.job)
        if calendar is None:
            raise UsageError(f"job {name} has no schedule: it has no ticks", f"add one to {file}")
        if calendar.count(first - 1, last) > _MOST:
            raise UsageError(f"these are more than {_MOST:,} ticks", "fill them a part at a time")
        ran = JobQuestions(store.database.connection).taken(name, first, last)
        ticks = [tick for tick in calendar.between(first - 1, last) if tick not in ran]
        if ran:
            talk(f"{len(ran)} of these ticks have run already")
        forgotten = forgotten_up_to(store.database.connection, name)
        if forgotten is not None and ticks and ticks[0] <= forgotten:
            talk(f"runs up to {full(forgotten)} were pruned, and nobody knows whether a tick before that has run")
            ticks = [tick for tick in ticks if tick > forgotten]
        if dry_run:
            print("\n".join(rfc3339(tick) for tick in ticks))
            return 0
        if ticks:
            talk(f"{len(ticks)} of the ticks from {full(ticks[0])} to {full(ticks[-1])} have not run")
        if len(ticks) > _ASK and not yes and sys.stdin.isatty():
            typer.confirm("Run them all?", abort=True, err=True)
        start = starts.Start(store, snapshot, file, create.parameters(snapshot.job, param or ()))
        return _fill(start, ticks, keep_going=keep_going)


def _fill(start: starts.Start, ticks: list[int], *, keep_going: bool) -> int:
    worst = done = 0
    for place, tick in enumerate(ticks, 1):
        if (stopped := start.heal()) is not None:
            return stopped
        talk(f"tick {place} of {len(ticks)}: {full(tick)}")
        try:
            status, over = start.once(f"tick {rfc3339(tick)}", tick)
        except RunKeyTaken:
            continue  # somebody has run it meanwhile
        done += over and status == 0
        if not over:
            talk(f"{done} of {len(ticks)} ticks were run; the same command goes on with the others")
            return status
        worst = worst or status
        if status and not keep_going:
            left = len(ticks) - place
            talk(f"this tick failed; {left} are left, and --keep-going would go on with them" if left else "it failed")
            return status
    talk(f"{done} of {len(ticks)} ticks were run" if ticks else "no tick of that time is left to run")
    return worst


def _moment(option: str, text: str, now: int) -> int:
    try:
        return moment(text, now)
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: this is no time", "for example 2026-11-20T03:00, 03:00, 2h (ago), yesterday"
        ) from error


