"""`agentrun next JOB`: when a job is due, as cron will fire it, and what looks wrong about its schedule."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..cron.jitter import here, offset
from ..cron.oddities import oddities
from ..cron.ticks import LATEST, Calendar
from ..cron.zones import machine_zone, moment
from ..errors import UsageError
from ..render import jsonshape
from ..render.terminal import look_of, printable, talk
from ..render.ticktimes import upcoming_shapes, upcoming_table
from ..render.times import now_ms
from ..spec.decode import load
from ..spec.values import format_duration
from . import complete as offers
from .names import find_job
from .record import open_record

if TYPE_CHECKING:
    from ..model import Job


def next(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The job file, or the job's name.", autocompletion=offers.complete_job_file),
    ],
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, max=100_000, help="So many ticks.")] = 10,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="T", help="The ticks after T, a date or RFC 3339; default: after now."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show when a job is due, and what looks wrong about its schedule.

    A tick is a moment at which the schedule says that cron starts the job. A T without an offset is a time of the
    schedule's zone. What looks wrong is said on stderr; the exit status is 0 all the same.
    """
    file = job if os.path.isfile(job) and "." in job else find_job(open_record(), job)[1]
    decoded, _ = load(file)
    calendar = Calendar.of(decoded)
    if calendar is None:
        raise UsageError(
            f"job {decoded.name} has no schedule, so it has no ticks",
            f'give it one in {file}, as schedule: "*/15 * * * *"',
        )
    now = now_ms()
    ticks = calendar.between(_after(start, now, decoded.timezone), 1000 * LATEST, number)
    name = decoded.timezone or machine_zone()
    if as_json:
        print(jsonshape.dumps(upcoming_shapes(ticks, decoded.timezone, name)))
    elif ticks:
        print("\n".join(upcoming_table(ticks, decoded.timezone, name, now, look_of(sys.stdout))))
    sys.stdout.flush()
    if not ticks:
        talk(f"job {decoded.name} has no tick until the year 2100")
    _warn(decoded, now)
    return 0


def _after(start: str | None, now: int, zone: str | None) -> int:
    if start is None:
        return now
    try:
        return moment(start, zone)
    except (ValueError, OverflowError):
        hint = "for example 2027-03-28, 2027-03-28T03:00 or 2027-03-28T03:00:00Z"
        raise UsageError(f"--from expects a date or a time in RFC 3339, not '{start}'", hint) from None


def _warn(job: Job, now: int) -> None:
    for words in oddities(job.schedule, job.timezone, now):
        print(f"warning: {printable(words)}", file=sys.stderr)
    if job.jitter:
        wait = format_duration(offset(job.name, here(), job.jitter) // 1000 * 1000)
        talk(f"each start waits up to {format_duration(job.jitter)} (jitter), here always {wait}; shown without it")
