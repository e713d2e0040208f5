"""Which finished runs a job may lose: what its `keep` leaves, and what other things need.

Limits are upper bounds: a run that is beyond any of them may go. It stays all the same if it

    is not finished, or a step of another run: those go with the run that called them
    is the last run of a job or its last success, or one of these is a step of it
    is what another run that stays goes on from (`resume --from`)
    counts today against the daily budget of a job that has one

How they go, and are gone, is in `removal.py`. Nothing here changes anything, but for `forget_ticks`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..model import Keep
from .database import Database
from .folders import RunFolder
from .removal import ROWS, size_of

DEFAULT = Keep(runs=10_000)  # of a job for which nobody says anything: at every minute, that is a week


class Excess(NamedTuple):
    """What of a job is beyond its `keep`, oldest first; ticks that did not run before `ticks` are, too (ms)."""

    runs: list[str]
    ticks: int | None


def job_names(connection: sqlite3.Connection) -> list[str]:
    """Of all jobs that have runs, child runs included."""
    # a loose index scan: one probe for each job, however many runs there are
    rows = connection.execute(
        "WITH RECURSIVE each (job) AS (SELECT min(job) FROM runs"
        " UNION ALL SELECT (SELECT min(job) FROM runs WHERE job > each.job) FROM each WHERE job IS NOT NULL)"
        " SELECT job FROM each WHERE job IS NOT NULL"
    )
    return [row[0] for row in rows]


def last_runs(connection: sqlite3.Connection, jobs: Iterable[str]) -> set[str]:
    """The last run and the last success of each, or the runs of which these are steps."""
    found: set[str] = set()
    for job in jobs:
        for question in (
            "SELECT id FROM runs WHERE job = ? ORDER BY id DESC LIMIT 1",
            "SELECT id FROM runs WHERE job = ? AND caller IS NULL ORDER BY id DESC LIMIT 1",
            "SELECT id FROM runs WHERE job = ? AND outcome = 'succeeded' ORDER BY finished_at DESC LIMIT 1",
        ):
            found.update(_outermost(connection, row[0]) for row in connection.execute(question, (job,)))
    return found


def counted_today(connection: sqlite3.Connection, jobs: Collection[str], day: str) -> set[str]:
    """The outermost runs that count on that day against the budgets of jobs."""
    if not jobs:
        return set()
    active = connection.execute(
        "SELECT run_id FROM spending WHERE day = :day UNION SELECT run_id FROM usage WHERE day = :day", {"day": day}
    ).fetchall()
    found = set()
    for (run_id,) in active:
        line = connection.execute(f"{_ABOVE} SELECT id, job FROM above ORDER BY height", (run_id,)).fetchall()
        if any(job in jobs for _, job in line):
            found.add(line[-1][0])
    return found


def excess(
    connection: sqlite3.Connection, root: str, job: str, keep: Keep, now: int, *,
    spare: Collection[str] = (), most: int | None = None,
) -> Excess:  # fmt: skip
    """The runs of a job that are beyond its `keep`, but for those in `spare`; the oldest `most` of them."""
    newest = None
    if keep.runs is not None:
        newest = _nth(connection, job, keep.runs)
    if keep.size is not None and (first := _beyond_size(connection, root, job, keep.size)):
        newest = max(newest or first, first, key=lambda one: one[0])
    limit, created = newest or ("", None)
    oldest = None if keep.age is None else now - keep.age
    found: list[str] = []
    for run_id, begun, ended in connection.execute(
        "SELECT id, created_at, finished_at FROM runs WHERE job = ? AND caller IS NULL ORDER BY id", (job,)
    ):
        if run_id > limit and (oldest is None or begun >= oldest):
            break  # ids sort by time: what comes now began too late to be beyond anything
        if ended is None or run_id in spare or not (run_id <= limit or (oldest is not None and ended < oldest)):
            continue
        found.append(run_id)
        if most is not None and len(found) >= most:
            break
    bounds = [bound for bound in (created, oldest) if bound is not None]
    return Excess(_in_order(connection, found), max(bounds, default=None))


def forget_ticks(database: Database, job: str, before: int) -> int:
    """Remove the accounts of ticks that did not run, those that end before a moment: how many."""

    def work(cursor: sqlite3.Cursor) -> int:
        cursor.execute(
            "DELETE FROM ticks WHERE (job, first, fate) IN"
            " (SELECT job, first, fate FROM ticks WHERE job = ? AND last < ? LIMIT ?)",
            (job, before, ROWS),
        )
        return cursor.rowcount

    known = database.connection.execute("SELECT 1 FROM ticks WHERE job = ? AND last < ? LIMIT 1", (job, before))
    if known.fetchone() is None:
        return 0
    total = 0
    while (some := database.write(work)) > 0:
        total += some
    return total


def ticks_before(connection: sqlite3.Connection, job: str, before: int) -> int:
    """How many such accounts there are."""
    row = connection.execute("SELECT count(*) FROM ticks WHERE job = ? AND last < ?", (job, before)).fetchone()
    return int(row[0])


def finished(connection: sqlite3.Connection, job: str) -> int:
    """How many finished runs a job has that are steps of no other."""
    row = connection.execute(
        "SELECT count(*) FROM runs WHERE job = ? AND caller IS NULL AND state = 'finished'", (job,)
    ).fetchone()
    return int(row[0])


def forgotten_up_to(connection: sqlite3.Connection, job: str) -> int | None:
    """The newest tick of a job that was a run's and is not known any more: up to it, no run does not mean none ran."""
    row = connection.execute("SELECT pruned_to FROM jobs WHERE name = ?", (job,)).fetchone()
    return None if row is None else row[0]


def size_with_steps(connection: sqlite3.Connection, root: str, run_id: str) -> int:
    """What the folders of a run and of those that are steps of it take, in bytes."""
    return sum(size_of(path) for path in _folders(connection, root, run_id))


def free_space(connection: sqlite3.Connection) -> int:
    """Bytes of the database that nothing is in: what is recorded next goes there."""
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(pages * size)


_ABOVE = (
    "WITH RECURSIVE above (id, job, caller, height) AS (SELECT id, job, caller, 0 FROM runs WHERE id = ?"
    " UNION ALL SELECT runs.id, runs.job, runs.caller, height + 1 FROM above JOIN runs ON runs.id = above.caller)"
)


def _outermost(connection: sqlite3.Connection, run_id: str) -> str:
    row = connection.execute(f"{_ABOVE} SELECT id FROM above ORDER BY height DESC LIMIT 1", (run_id,)).fetchone()
    return str(row[0])


def _nth(connection: sqlite3.Connection, job: str, number: int) -> tuple[str, int] | None:
    """(id, created_at) of the newest finished run behind so many; None if there are no more."""
    row: tuple[str, int] | None = connection.execute(
        "SELECT id, created_at FROM runs WHERE job = ? AND caller IS NULL AND state = 'finished'"
        " ORDER BY id DESC LIMIT 1 OFFSET ?",
        (job, number),
    ).fetchone()
    return row


def _beyond_size(connection: sqlite3.Connection, root: str, job: str, size: int) -> tuple[str, int] | None:
    """(id, created_at) of the newest finished run for whose folder there is no room, those of its steps counted."""
    for run_id, created in connection.execute(
        "SELECT id, created_at FROM runs WHERE job = ? AND caller IS NULL AND state = 'finished' ORDER BY id DESC",
        (job,),
    ):
        size -= size_with_steps(connection, root, run_id)
        if size < 0:
            return run_id, created
    return None


def _folders(connection: sqlite3.Connection, root: str, run_id: str) -> Iterator[str]:
    yield RunFolder(root, run_id).path
    for (below,) in connection.execute("SELECT id FROM runs WHERE caller = ?", (run_id,)).fetchall():
        yield from _folders(connection, root, below)


def _in_order(connection: sqlite3.Connection, found: Sequence[str]) -> list[str]:
    """Those that may go: without what a run that stays goes on from, and that behind what goes on from it."""
    going = set(found)
    goes_on_from = [
        (_outermost(connection, later), _outermost(connection, earlier))
        for later, earlier in connection.execute("SELECT id, parent FROM runs WHERE parent IS NOT NULL").fetchall()
    ]
    goes_on_from = [(later, earlier) for later, earlier in goes_on_from if later != earlier and earlier in going]
    while needed := {earlier for later, earlier in goes_on_from if later not in going} & going:
        going -= needed
    behind = {earlier for _, earlier in goes_on_from}
    return [run_id for run_id in found if run_id in going - behind] + sorted(going & behind, reverse=True)
