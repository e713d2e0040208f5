"""The ticks of a job, looked after: what the record knows of them, what is due, and the account that is written.

A start asks `Attendance.look`, takes the tick that it is given together with the account of those before it
(`Store.record`, one transaction), and asks again, until nothing is left. Two that look at once write one account: the
second finds that `settled` has moved (Overtaken), and looks again; the tick itself is the run's key.

A job counts as scheduled from its first tick, or from its installation. When the schedule in its file changes, the old
one holds until the file was written, and the new one from there on.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ..errors import JobFileError
from ..model import Job, Problem
from ..notify.hearers import encoded, hearers
from ..store.jobs import JobQuestions, JobRow, Settlement, Unrun
from .due import LATE, Due, Rules, due
from .jitter import here, offset
from .ticks import Calendar


class Attendance(NamedTuple):
    """A job whose ticks are looked after. `file`: its job file, absolute."""

    job: Job
    file: str
    calendar: Calendar
    rules: Rules

    @classmethod
    def of(cls, job: Job, file: str) -> Attendance | None:
        """None for a job without a schedule."""
        calendar = Calendar.of(job)
        if calendar is None:
            return None
        wait = offset(job.name, here(), job.jitter) if job.jitter else 0
        return cls(job, file, calendar, Rules(job.catch_up, job.start_deadline, wait))

    def look(
        self, known: JobQuestions, now: int, *, fired: bool, healed: Collection[str] = ()
    ) -> tuple[Due, Settlement]:
        """What is due, and the account to be written with it. `fired`: by a scheduler, see `due`.

        `healed`: runs that were interrupted, and have been brought to their end for this: what was skipped because of
        them may run. Raises JobFileError if another job file has the name.
        """
        row = known.job(self.job.name)
        if row is not None:
            self._check_file(row)
        before = row.settled if row is not None and row.schedule is not None else None
        settled = before
        unrun: tuple[Unrun, ...] = ()
        if row is not None and before is not None and row.schedule != self.calendar.to_json():
            settled, unrun = self._change(row, known, before, now)
        newest = self.calendar.last(now) or now
        since = newest - 1 if settled is None else min(settled, newest - 1)
        taken = known.taken(self.job.name, since + 1, now)
        told = known.told(self.job.name, since, healed=healed)
        paused = row is not None and row.paused_at is not None
        if row is not None and row.paused_at is not None:
            found = self._account_for_pause(row.paused_at, settled, now, fired, taken, told)
        else:
            found = due(self.calendar, self.rules, settled, now, fired=fired, taken=taken, told=told)
        found = found._replace(unrun=(*unrun, *found.unrun))
        return found, Settlement(
            self.job.name,
            self.file,
            seen(self.file),
            self.calendar.to_json(),
            before,
            found.settled,
            found.due_at,
            found.unrun,
            own=found.own,
            catches_up=self.rules.catch_up != "none",
            notify=encoded(hearers(self.job)) if any(one.fate == "missed" for one in found.unrun) else None,
            paused=paused,
            before_own=None if found.own is None else self.calendar.last(found.own - 1),
        )

    def _account_for_pause(
        self,
        paused_at: int,
        settled: int | None,
        now: int,
        fired: bool,
        taken: Collection[int],
        told: Sequence[tuple[int, int]],
    ) -> Due:
        """While a job is paused nothing of it runs: what was due before the pause was missed, the rest is skipped."""
        rules = self.rules._replace(catch_up="none", start_deadline=None)
        before = settled if settled is not None else (self.calendar.last(now) or now) - 1
        until = now if fired else now - rules.jitter - LATE
        parts: list[Due] = []
        for reach in (min(paused_at, until), until):
            begin = parts[-1].settled if parts else before
            late = reach + rules.jitter + LATE  # all up to then: nobody else will ask for those that are not late yet
            parts.append(due(self.calendar, rules, begin, late, fired=False, taken=taken, told=told))
        skipped = [one._replace(fate="skipped", reason="paused") for one in parts[1].unrun]
        return parts[1]._replace(unrun=(*parts[0].unrun, *skipped))

    def begun_with(self, account: Settlement, tick: int) -> Settlement:
        """The account of a job whose first tick is one that its scheduler names."""
        found = due(self.calendar, self.rules, tick, tick, fired=False)
        return account._replace(settled=tick, own=tick, unrun=(), due_at=found.due_at)

    def begin(self, known: JobQuestions, now: int) -> Settlement | None:
        """The account of a job that counts as scheduled from now on; None if it does already."""
        row = known.job(self.job.name)
        if row is not None and row.schedule == self.calendar.to_json():
            return None
        found = due(self.calendar, self.rules, now, now, fired=False)
        before = row.settled if row is not None and row.schedule is not None else None
        return Settlement(
            self.job.name, self.file, seen(self.file), self.calendar.to_json(), before, now, found.due_at
        )

    def _change(
        self, row: JobRow, known: JobQuestions, settled: int, now: int
    ) -> tuple[int, tuple[Unrun, ...]]:
        """From when on this schedule is in force, and what the one before it leaves behind."""
        written = _written(self.file)
        if written <= settled and row.file_seen != seen(self.file):
            written = now  # it was put there with the time that it had elsewhere
        changed = min(max(settled, written), now)
        taken, told = known.taken(row.name, settled + 1, changed), known.told(row.name, settled)
        # all of them up to then: nobody else will ask for those that are not late yet
        old = due(_calendar(row.schedule), Rules(), settled, changed + LATE, fired=False, taken=taken, told=told)
        return changed, old.unrun

    def _check_file(self, row: JobRow) -> None:
        if row.schedule is None and row.installed is None:
            return
        if os.path.realpath(row.file) != os.path.realpath(self.file) and os.path.exists(row.file):
            raise JobFileError([two_files(self.job.name, self.file, row.file)])


def two_files(name: str, file: str, other: str) -> Problem:
    """The problem of two scheduled jobs with one name."""
    return Problem(
        file, 1, 1, f"job {name} is scheduled from {other} already: its ticks are taken by that file's runs",
        hint=f"give one of the two another 'name', or let go of the other one: agentrun uninstall {name}",
    )  # fmt: skip


def missed_since(row: JobRow, known: JobQuestions, now: int) -> tuple[Unrun, ...]:
    """What a job has missed whose file says nothing any more: gone, or without its schedule."""
    if row.schedule is None or row.settled is None:
        return ()
    taken, told = known.taken(row.name, row.settled + 1, now), known.told(row.name, row.settled)
    found = due(_calendar(row.schedule), Rules(), row.settled, now + LATE, fired=False, taken=taken, told=told)
    return tuple(one._replace(reason="file") for one in found.unrun)


def seen(file: str) -> str:
    """By what it is told whether a file has been written since: its time and its size."""
    try:
        status = os.stat(file)
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


def _written(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _calendar(schedule: Any) -> Calendar:
    return Calendar.from_json(schedule)
