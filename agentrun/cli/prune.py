"""`agentrun prune`: remove what is beyond a job's `keep`; and the same by itself, at most once a day, at a run's end.

What a job keeps is said by the options; else by its last run's job file; else by config.yaml; else it is
`store.prune.DEFAULT`. Which runs that leaves to be removed is in `store/prune.py`, how they go in `store/removal.py`.

By itself it takes SECONDS at most, and runs of each job MOST at most: what is left is due again soon, not in a day. It
never fails the run at whose end it happens. Where config.yaml is wrong, it looks only at jobs that say it themselves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from typing import Annotated, NamedTuple

import typer

from ..engine.clock import wall
from ..errors import AgentrunError, JobFileError, NotFound, UsageError
from ..model import Budget, Job, Keep
from ..render import jsonshape
from ..render.tables import Column, Row, table
from ..render.terminal import look_of, printable, talk
from ..render.words import count
from ..render.words import size as size_words
from ..spec import config
from ..spec.values import format_size, parse_size
from ..step import procs
from ..store import prune as rules
from ..store import removal
from ..store.folders import home
from ..store.read import Reader, Run
from ..store.write import Store
from . import complete as offers
from .record import open_record

DAY = removal.DAY
AGAIN = 600_000  # ms until the next one by itself, where time did not suffice
SECONDS = 2.0
_WORTH_A_WORD = 1 << 20  # bytes
MOST = 2_000


class Plan(NamedTuple):
    """What of a job goes. `finished`: its runs before that; `why`: who said what it keeps."""

    job: str
    keep: Keep
    why: str
    finished: int
    excess: rules.Excess


def prune(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB...", help="Jobs, by name; without any, all.", autocompletion=offers.complete_run),
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", metavar="N", min=1, help="Keep so many finished runs.")] = None,
    days: Annotated[
        int | None, typer.Option("--days", metavar="N", min=1, max=36_500, help="Keep runs that ended in so many days.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="SIZE", help="Keep as many as fit into this: 2GiB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Remove old runs, with their logs and all else in their folders.

    The options say for this once what each job keeps of its finished runs; without any, `keep` of the job does, or of
    config.yaml, or else 10000 runs are kept. A run that is beyond any of the limits goes, oldest first.

    These stay, whatever the limits: runs that are not finished; of each job the last run and the last success; a run
    that another one goes on from; what counts today against a job's daily budget. Child runs go with the run that
    called them. With a run its key is forgotten: the same key would be a new run.

    The same happens by itself at most once a day, at the end of a run.
    """
    given = _given(runs, days, size)
    record = open_record()
    if record is None:
        if as_json:
            print("[]")
        else:
            talk("nothing to remove: nothing has been run yet")
        return 0
    if dry_run:
        plans = _plans(record.reader, record.root, jobs or [], given)
        gone = {plan.job: removal.Removed(tuple(plan.excess.runs), _sizes(record.reader, record.root, plan))
                for plan in plans}  # fmt: skip
        ticks = {plan.job: _ticks(record.reader, plan) for plan in plans}
    else:
        plans, gone, ticks = _prune(jobs or [], given)
    if as_json:
        print(jsonshape.dumps([_shape(plan, gone[plan.job], ticks[plan.job], dry_run) for plan in plans]))
        return 0
    if not plans:
        talk("nothing to remove: nothing has been run yet")
        return 0
    _show(plans, gone, dry_run)
    if not dry_run and (free := rules.free_space(record.reader.connection)) > _WORTH_A_WORD:
        talk(f"{size_words(free)} of the database are free now: what is recorded next goes there")
    return 0


def by_itself(store: Store) -> None:
    """At the end of a run, when it is due: as far as that goes in a few seconds."""
    root, now = store.database.root, wall()
    until = time.monotonic() + SECONDS
    try:
        with removal.holding(root) as held:
            held.next_due(now + AGAIN)
            held.finish(store.database)
            plans = _plans(store.reader, root, [], None, most=MOST, lenient=True)
            for plan in plans:
                held.remove(store.database, plan.excess.runs, over=lambda: time.monotonic() > until)
                if plan.excess.ticks is not None:
                    rules.forget_ticks(store.database, plan.job, plan.excess.ticks)
            if time.monotonic() <= until and all(len(plan.excess.runs) < MOST for plan in plans):
                held.next_due(now + DAY)
    except AgentrunError as error:
        if sys.stderr.isatty():
            talk(f"old runs were not removed: {error.message}")


def _prune(
    jobs: list[str], given: Keep | None
) -> tuple[list[Plan], dict[str, removal.Removed], dict[str, int]]:
    from .advance import open_store

    gone, ticks = {}, {}
    with open_store() as store, removal.holding(home()) as held:
        held.finish(store.database)
        plans = _plans(store.reader, home(), jobs, given)
        for plan in plans:
            gone[plan.job] = held.remove(store.database, plan.excess.runs, measure=True)
            before = plan.excess.ticks
            ticks[plan.job] = 0 if before is None else rules.forget_ticks(store.database, plan.job, before)
    return plans, gone, ticks


def _given(runs: int | None, days: int | None, size: str | None) -> Keep | None:
    if runs is None and days is None and size is None:
        return None
    try:
        return Keep(runs, None if days is None else days * DAY, None if size is None else parse_size(size))
    except ValueError:
        raise UsageError(f"--size {size}: no size", "a whole number with its unit, such as 512MiB or 2GB") from None


def _plans(
    reader: Reader, root: str, jobs: list[str], given: Keep | None, *, most: int | None = None, lenient: bool = False
) -> list[Plan]:
    """What goes of each job, or of those named. `lenient`: what cannot be read is passed over. Raises NotFound."""
    connection, now = reader.connection, wall()
    usual = _configured(lenient)
    newest: dict[str, Run] = {}
    for run in reader.overview():
        newest.setdefault(run.job, run)
    for name in jobs:
        if name not in newest:
            raise NotFound(f"there is no run of a job {printable(name)}", "`agentrun status` lists the jobs")
    names = rules.job_names(connection)
    spare = rules.last_runs(connection, names)
    spare |= rules.counted_today(connection, _budgeted(reader, names), time.strftime("%Y-%m-%d"))
    spare |= _left_running(reader)
    plans = []
    for name in sorted(jobs or newest):
        try:
            keep, why = (given, "the options") if given else _keep(reader.job_of(newest[name]), usual)
        except AgentrunError as error:
            if not lenient:
                talk(f"job {name} is passed over: the file of its last run cannot be read: {error.message}")
            continue
        if keep is not None:
            excess = rules.excess(connection, root, name, keep, now, spare=spare, most=most)
            plans.append(Plan(name, keep, why, rules.finished(connection, name), excess))
    return plans


def _configured(lenient: bool) -> tuple[Keep | None, str]:
    """What jobs keep that do not say it; None where that cannot be read."""
    try:
        said = config.load()
    except JobFileError:
        if not lenient:
            raise
        return None, ""
    return (said.keep, said.path) if said.keep is not None else (rules.DEFAULT, "the default")


def _keep(job: Job, usual: tuple[Keep | None, str]) -> tuple[Keep | None, str]:
    return (job.keep, "its job file") if job.keep is not None else usual


def _budgeted(reader: Reader, names: Collection[str]) -> set[str]:
    """The jobs that have a budget for a day, by their last run."""
    found = set()
    for name in names:
        try:
            if any(reader.job_of(run).daily != Budget() for run in reader.runs(job=name, limit=1)):
                found.add(name)
        except AgentrunError:
            found.add(name)
    return found


def _left_running(reader: Reader) -> set[str]:
    """The runs of which a process lives on (`leave_running`): by its record it is known what it is."""
    found = set()
    for pid in procs.every_pid():
        run_id = procs.environment(pid).get(b"AGENTRUN_RUN_ID", b"").decode(errors="replace")
        if run_id and reader.outcome(run_id) is not None:
            found.add(reader.outermost(reader.run(run_id)).id)
    return found


# --- what is shown


def _sizes(reader: Reader, root: str, plan: Plan) -> int:
    return sum(rules.size_with_steps(reader.connection, root, run_id) for run_id in plan.excess.runs)


def _ticks(reader: Reader, plan: Plan) -> int:
    before = plan.excess.ticks
    return 0 if before is None else rules.ticks_before(reader.connection, plan.job, before)


def _shape(plan: Plan, gone: removal.Removed, ticks: int, dry_run: bool) -> jsonshape.Shape:
    return {
        "schema": "agentrun.pruned/1",
        "job": plan.job,
        "keep": {
            "runs": plan.keep.runs,
            "days": None if plan.keep.age is None else plan.keep.age // DAY,
            "size": plan.keep.size,
        },
        "said_by": plan.why,
        "dry_run": dry_run,
        "removed": list(gone.runs),
        "kept": plan.finished - len(gone.runs),
        "bytes": gone.bytes,
        "ticks": ticks,
    }


def _show(plans: list[Plan], gone: dict[str, removal.Removed], dry_run: bool) -> None:
    columns = (
        Column("JOB"), Column("WOULD GO" if dry_run else "REMOVED", right=True), Column("KEPT", right=True),
        Column("SIZE", right=True), Column("KEEPS"),
    )  # fmt: skip
    rows = [
        Row(
            (
                printable(plan.job), str(len(removed.runs)), str(plan.finished - len(removed.runs)),
                size_words(removed.bytes), f"{_words(plan.keep)} ({plan.why})",
            ),
            {},
        )
        for plan in plans
        for removed in [gone[plan.job]]
    ]  # fmt: skip
    print("\n".join(table(columns, rows, look_of(sys.stdout))))


def _words(keep: Keep) -> str:
    """`200 runs, 30 days, 2GiB`."""
    parts = [] if keep.runs is None else [count(keep.runs, "run")]
    parts += [] if keep.age is None else [count(keep.age // DAY, "day")]
    parts += [] if keep.size is None else [format_size(keep.size)]
    return ", ".join(parts) or "all"
