"""`agentrun status`: how the runs stand, or one run and its steps; `--watch` draws it again when it changes."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AgentrunError, NotFound, UsageError
from ..render import status as page
from ..render.terminal import look_of, talk
from ..render.times import now_ms, rfc3339_or_none
from ..store import spent
from ..store.folders import home
from ..store.jobs import JobQuestions, JobRow
from ..store.read import AttemptRow, Run, StepRow
from . import complete as offers
from .names import check_steps
from .record import Record, need_record, nothing_yet, open_record

if TYPE_CHECKING:
    from ..model import Job
    from ..render.instances import Known

_NOTHING: dict[str, Any] = {"paused": None, "unrun": [], "next_tick": None}
_POLL = 0.5  # seconds between two looks at the database
_RUNS = 20  # runs that --all shows
_LOOK = 1.0  # seconds after which it is looked at all the same: for the clock, and for owners that died


def status(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Show this run, and its steps.", autocompletion=offers.complete_run),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step", "-s", metavar="STEP", help="Show all of this step and its instances, or of the one: work[2].",
            autocompletion=offers.complete_step,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all instances, and inputs, outputs, attempts of all steps.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Show the last runs, or those of the job RUN, newest first.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("-n", metavar="N", min=1, help=f"With --all: so many runs; without it {_RUNS}.")
    ] = None,
    calls: Annotated[
        bool, typer.Option("--calls", help="Show the calls of its functions with @step; with -v in full.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again whenever it changes, until the run has finished.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show how the runs stand, or one run and its steps.

    Without RUN: the last run of each job, and every run that is not finished. With --all: every run, or with
    `--all JOB` every run of a job, the last ones first.

    A run is `interrupted` when it has begun, is not finished, and no process advances it any more.
    """
    if (run is None or every) and (step or verbose or calls):
        raise UsageError("--step, --verbose and --calls show a run: name it, as in `agentrun status RUN --step ID`")
    if limit is not None and not every:
        raise UsageError("-n goes with --all", "for example: agentrun status --all quotes -n 5")
    if run is None or every:
        record = open_record()
        if record is None:
            return _nothing_yet(as_json)
        listed = _listed(record, run, limit or _RUNS) if every else record.reader.overview
        show = _overview(record, listed, as_json, jobs=not every)
    else:
        record = need_record()
        found = _find(record, run)
        if isinstance(found, list):
            print("\n".join(found))
            return 0
        show = (_calls if calls else _one)(record, found, step or [], verbose, as_json)
    if watch:
        _watch(record, show)
    else:
        print("\n".join(show()[0]))
    return 0


def _nothing_yet(as_json: bool) -> int:
    if as_json:
        print("[]")
    else:
        talk(nothing_yet(home()).message)
    return 0


Show = Callable[[], tuple[list[str], bool]]  # the lines, and whether they can still change


def _listed(record: Record, job: str | None, limit: int) -> Callable[[], list[Run]]:
    """The last runs of all jobs or of one. Raises NotFound for a job that has none."""
    if job is not None and not record.reader.runs(job=job, limit=1):
        raise NotFound(f"there is no run of a job {job}", "`agentrun status` lists the jobs")
    return lambda: record.reader.runs(job=job, limit=limit)


def _overview(record: Record, runs: Callable[[], list[Run]], as_json: bool, *, jobs: bool) -> Show:
    def show() -> tuple[list[str], bool]:
        standings = [record.standing(run) for run in runs()]
        if as_json:
            from ..render import jsonshape

            shapes = [jsonshape.run_shape(one) for one in standings]
            if jobs:
                of_jobs = _shapes_of_jobs(record)
                shapes = [shape | of_jobs.get(shape["job"], _NOTHING) for shape in shapes]
            return [jsonshape.dumps(shapes)], True
        lines = page.overview(standings, look_of(sys.stdout), now_ms()) if standings else ["no runs"]
        return lines + (_jobs(record) if jobs else []), True

    return show


def _shapes_of_jobs(record: Record) -> dict[str, dict[str, Any]]:
    """What is to be said of each job, for programs: `paused`, and `unrun`, what did not run since its last run."""
    from ..render.ticks import fate_shape, pause_shape

    known = JobQuestions(record.reader.connection)
    shapes = {
        job.name: {**_NOTHING, "paused": pause_shape(job), "next_tick": rfc3339_or_none(_next(job))}
        for job in known.jobs()
    }
    for name, rows in known.since_last_run().items():
        shapes[name] = {**shapes.get(name, _NOTHING), "unrun": [fate_shape(row) for row in rows]}
    return shapes


def _jobs(record: Record) -> list[str]:
    """What is to be said of jobs besides their runs."""
    known, now = JobQuestions(record.reader.connection), now_ms()
    jobs, unrun = known.jobs(), known.since_last_run()
    if not jobs and not unrun:
        return []
    from ..render.ticks import job_lines, unrun_lines

    lines = [line for job in jobs for line in job_lines(job, unrun.pop(job.name, ()), now, _next(job))]
    lines += [line for rows in unrun.values() for line in unrun_lines(rows, now)]
    return ["", *lines] if lines else []


def _find(record: Record, name: str) -> Run | list[str]:
    """The run that is meant, or what is to be said of a job that has had none. Raises NotFound."""
    try:
        return record.find(name)
    except NotFound:
        if lines := _of_job(record, name):
            return lines
        raise


def _of_job(record: Record, name: str) -> list[str]:
    """What is to be said of a job that has had no run; nothing if nothing is known of it."""
    from ..render.ticks import job_lines

    known = JobQuestions(record.reader.connection)
    job = known.job(name)
    if job is None:
        return []
    lines = job_lines(job, known.since_last_run().get(name, ()), now_ms(), _next(job))
    return [f"job {name} of {job.file} has had no run yet", *lines]


def _next(job: JobRow) -> int | None:
    """When a job is due next, as far as the record knows; None if it is not scheduled."""
    if job.schedule is None:
        return None
    from ..cron.ticks import Calendar

    try:
        return Calendar.from_json(job.schedule).next(now_ms())
    except (AgentrunError, KeyError, TypeError, ValueError):  # a zone that is gone, or what nobody wrote
        return None


def _one(record: Record, run: Run, wanted: list[str], verbose: bool, as_json: bool) -> Show:
    from ..render import jsonshape
    from ..render.instances import ended_so, step_of, telling, whole
    from ..render.spent import account_facts, usage_table
    from ..render.steps import step_table

    job = _job(record, run)
    check_steps(record, run, wanted)
    in_full = bool(wanted or verbose or as_json)

    def show() -> tuple[list[str], bool]:
        standing = record.standing(record.reader.run(run.id))
        rows, known = (whole if in_full else telling)(record.reader, run.id, job)
        more = standing.run.state != "finished" and not standing.interrupted
        account = spent.account(record.reader, run.id)
        if as_json:
            rows = [row for row in rows if not wanted or row.instance in wanted or step_of(row) in wanted]
            folder, attempts = record.folder(run), _attempts(record, run, wanted)
            shape = jsonshape.run_with_steps_shape(standing, rows, attempts, folder, account, known)
            return [jsonshape.dumps(shape)], more
        look, now = look_of(sys.stdout), now_ms()
        lines: list[str] = []
        if not wanted:
            facts = account_facts(account, job, _today(record, job, now))
            ended, shim = ended_so(rows, known), _shim(record, standing)
            lines = [*page.head(standing, look, now, ended, facts, shim=shim), ""]
        if in_full:
            lines += _in_full(record, standing, rows, known, job, wanted)
        else:
            cut_off = standing.interrupted
            lines += step_table(rows, look, now, interrupted=cut_off, known=known, job=job, run=standing.run)
        if not wanted and (used := usage_table(account.uses, look)):
            lines += ["", *used]
        outermost = record.reader.outermost(run).id
        if not wanted and (advice := page.advice(standing, rows, now, outermost)):
            lines += ["", *advice]
        return lines, more

    return show


def _today(record: Record, job: Job | None, now: int) -> spent.Spent | None:
    """What all runs of a job with a daily budget took today, by the machine's own date."""
    from ..model import Budget

    if job is None or job.daily == Budget():
        return None
    from ..engine.budgets import local_day

    return spent.of_others(record.reader, job.name, local_day(now), "")


def _shim(record: Record, standing: page.Standing) -> int | None:
    """The process that holds the steps of a run that goes on."""
    if standing.run.state != "running" or standing.interrupted:
        return None
    from ..step.procs import holders

    found = holders(record.folder(standing.run).lock)
    return next((process.pid for process in found if process.pid != standing.pid), None)


def _attempts(record: Record, run: Run, wanted: list[str]) -> dict[str, list[AttemptRow]]:
    """The attempts of the run, by their instance; of one alone if no other is wanted."""
    attempts: dict[str, list[AttemptRow]] = {}
    only = wanted[0] if len(wanted) == 1 and "[" in wanted[0] else None
    for attempt in record.reader.attempts(run.id, only):
        attempts.setdefault(attempt.instance, []).append(attempt)
    return attempts


def _in_full(
    record: Record, standing: page.Standing, rows: list[StepRow], known: Known, job: Job | None, wanted: list[str]
) -> list[str]:
    """All that is known of the steps that are wanted, or of all; the instances of a step are a table below it."""
    from ..render.instances import step_of
    from ..render.steps import instance_table, step_details

    look, now, cut_off = look_of(sys.stdout), now_ms(), standing.interrupted
    folder, attempts = record.folder(standing.run), _attempts(record, standing.run, wanted)
    by_id = {} if job is None else {step.id: step for step in job.steps}
    lines: list[str] = []
    for step_id, group in itertools.groupby(rows, step_of):
        step, of_it = by_id.get(step_id), list(group)
        whole_step = not wanted or step_id in wanted
        for row in of_it:
            if row.instance in wanted or (whole_step and row.number < 0):
                mine = attempts.get(row.instance, [])
                last = of_it[-1] if of_it[-1].number >= 0 else None
                details = step_details(
                    row, step, mine, folder, look, now,
                    interrupted=cut_off, known=known, run=standing.run, last=last,
                )  # fmt: skip
                lines += [*details, ""]
        instances = [row for row in of_it if row.number >= 0]
        if whole_step and instances:
            run = standing.run
            lines += [*instance_table(instances, step, look, now, interrupted=cut_off, known=known, run=run), ""]
    return lines[:-1]


def _calls(record: Record, run: Run, wanted: list[str], verbose: bool, as_json: bool) -> Show:
    """The calls that the steps of a run made; a step stands for its instances."""
    from ..render import jsonshape
    from ..render.spent import call_lines

    check_steps(record, run, wanted)

    def show() -> tuple[list[str], bool]:
        standing = record.standing(record.reader.run(run.id))
        more = standing.run.state != "finished" and not standing.interrupted
        made = spent.calls(record.reader, run.id, wanted)
        if as_json:
            return [jsonshape.dumps([jsonshape.call_shape(run, call) for call in made])], more
        look = look_of(sys.stdout)
        lines = [line for call in made for line in call_lines(call, look, whole=verbose)]
        return lines or ["no calls: none of its steps has called a function with @step of agentrun.durable"], more

    return show


def _job(record: Record, run: Run) -> Job | None:
    try:
        return record.reader.job_of(run)
    except AgentrunError as error:  # this program cannot read the snapshot: the rows say most of it
        talk(f"the steps that have not begun are missing: {error.message}")
        return None


def _watch(record: Record, show: Show) -> None:
    """Show it whenever the database has changed, on a terminal each second, until nothing can change."""
    live = look_of(sys.stdout).terminal and os.environ.get("TERM", "dumb") != "dumb"
    version, looked_at, drawn = -1, 0.0, 0
    while True:
        current = record.reader.data_version()
        now = time.monotonic()
        if current != version or now - looked_at >= _LOOK:
            lines, more = show()
            if live:
                drawn = _redraw(lines, drawn, more)
            elif current != version or not more:
                print("\n".join(lines), end="\n\n" if more and len(lines) > 1 else "\n", flush=True)
            if not more:
                return
            version, looked_at = current, now
        time.sleep(_POLL)


def _redraw(lines: list[str], before: int, more: bool) -> int:
    """Draw over what was drawn before; only the last drawing may be longer than the screen."""
    if more:
        lines = lines[: look_of(sys.stdout).height - 1]
    up = f"\x1b[{before}A\r\x1b[J" if before else ""
    sys.stdout.write(up + "".join(line + "\n" for line in lines))
    sys.stdout.flush()
    return len(lines)
