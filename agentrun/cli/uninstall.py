"""`agentrun uninstall JOB…`: take jobs out of the crontab or systemd again, and no longer count their ticks.

The crontab and the units themselves are looked at, besides the record: a job is taken out wherever it is found, whether
its file is still there or not. They go first, the record last: what is still started would count as scheduled anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import typer

from ..cron import crontab, places, units
from ..errors import Missing, NotFound, UsageError
from ..render.terminal import talk
from ..store.jobs import Jobs
from . import advance
from . import complete as offers


class _Place(NamedTuple):
    """A job, found somewhere: in the record, in the crontab, among the units of a scope."""

    name: str
    file: str | None
    where: str


def uninstall(
    job: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB...]", help="Names of jobs, or their files.", autocompletion=offers.complete_run),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are installed.")] = False,
) -> None:
    """Take jobs out of the crontab or systemd again, and no longer count their ticks.

    A run that is at work goes on, and runs stay in the record. With the last job everything that install wrote is gone:
    the crontab is what it was before, and what was added to it since.
    """
    jobs = job or []
    if bool(jobs) == everything:
        raise UsageError("name the jobs to be taken out, or say --all", "for example: agentrun uninstall quotes")
    with advance.open_store() as store:
        record = Jobs(store.database)
        found = [*_recorded(record), *_in_units()]
        by_cron = any(place.where == "cron" and (everything or _is_meant(place, jobs)) for place in found)
        if everything or by_cron or _lost(jobs, found):
            found += _in_crontab(needed=by_cron)
        if lost := _lost(jobs, found):
            raise _unknown(lost, found)
        names = {place.name for place in found if _is_meant(place, jobs) or (everything and place.where != "record")}
        there = {(place.name, place.where) for place in found}
        if any((name, "crontab") in there for name in names):
            places.change_crontab(store.database.root, lambda text: crontab.parse(text).without_jobs(names))
        for scope in _SCOPES:
            if theirs := [name for name in sorted(names) if (name, scope) in there]:
                units.remove(scope, theirs)
        record.uninstall(sorted(names))
    for name in sorted(names):
        talk(f"job {name} is not scheduled any more")
    if not names:
        talk("no job is installed")


_SCOPES: tuple[units.Scope, ...] = ("user", "system")


def _recorded(record: Jobs) -> Iterable[_Place]:
    for row in record.jobs():
        if row.installed is not None:
            yield _Place(row.name, row.file, str(row.installed["how"]))
        elif row.schedule is not None:  # started by a line of somebody's own
            yield _Place(row.name, row.file, "record")


def _in_crontab(*, needed: bool) -> list[_Place]:
    """The jobs in the crontab's block. Raises Missing if it cannot be read and is `needed`."""
    try:
        return [_Place(one.name, one.file, "crontab") for one in crontab.parse(places.read_crontab()).jobs]
    except Missing:
        if needed:
            raise
        return []


def _in_units() -> list[_Place]:
    return [_Place(one.name, one.file, scope) for scope in _SCOPES for one in units.installed(scope)]


def _is_meant(place: _Place, given: Iterable[str]) -> bool:
    """Whether somebody named the job, or its file."""
    files = {os.path.realpath(one) for one in given}
    return place.name in given or (place.file is not None and os.path.realpath(place.file) in files)


def _lost(given: Iterable[str], found: list[_Place]) -> list[str]:
    """What was named and is not there."""
    return [one for one in given if not any(_is_meant(place, [one]) for place in found)]


def _unknown(lost: list[str], found: Iterable[_Place]) -> NotFound:
    there = ", ".join(sorted({place.name for place in found if place.where != "record"}))
    return NotFound(
        "\n".join(f"{one} is not installed" for one in lost),
        (f"installed: {there}; nothing was changed" if there else "no job is installed")
        + "; lines of your own are yours to take out: crontab -e",
    )
