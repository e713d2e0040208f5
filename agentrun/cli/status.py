"""`agentrun status`: how the runs stand, or one run and its steps; `--watch` draws it again when it changes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import AgentrunError, NotFound, UsageError
from ..render import status as page
from ..render.terminal import look_of, talk
from ..render.times import now_ms
from ..store import spent
from ..store.folders import home
from ..store.read import AttemptRow, Run
from . import complete as offers
from .record import Record, need_record, nothing_yet, open_record

if TYPE_CHECKING:
    from ..model import Job

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
            "--step",
            "-s",
            metavar="STEP",
            help="Show all that is known of this step.",
            autocompletion=offers.complete_step,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show inputs, outputs and attempts of every step.")
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
            if as_json:
                print("[]")
            else:
                talk(nothing_yet(home()).message)
            return 0
        show = _overview(record, _listed(record, run, limit or _RUNS) if every else record.reader.overview, as_json)
    else:
        record = need_record()
        show = (_calls if calls else _one)(record, record.find(run), step or [], verbose, as_json)
    if watch:
        _watch(record, show)
    else:
        print("\n".join(show()[0]))
    return 0


Show = Callable[[], tuple[list[str], bool]]  # the lines, and whether they can still change


def _listed(record: Record, job: str | None, limit: int) -> Callable[[], list[Run]]:
    """The last runs of all jobs or of one. Raises NotFound for a job that has none."""
    if job is not None and not record.reader.runs(job=job, limit=1):
        raise NotFound(f"there is no run of a job {job}", "`agentrun status` lists the jobs")
    return lambda: record.reader.runs(job=job, limit=limit)


def _overview(record: Record, runs: Callable[[], list[Run]], as_json: bool) -> Show:
    def show() -> tuple[list[str], bool]:
        standings = [record.standing(run) for run in runs()]
        if as_json:
            from ..render import jsonshape

            return [jsonshape.dumps([jsonshape.run_shape(standing) for standing in standings])], True
        if not standings:
            return ["no runs"], True
        return page.overview(standings, look_of(sys.stdout), now_ms()), True

    return show


def _one(record: Record, run: Run, wanted: list[str], verbose: bool, as_json: bool) -> Show:
    from ..render import jsonshape
    from ..render.spent import account_facts, usage_table
    from ..render.steps import complete, step_details, step_table

    job = _job(record, run)
    _check_steps(record, run, job, wanted)

    def show() -> tuple[list[str], bool]:
        standing = record.standing(record.reader.run(run.id))
        rows = complete(record.reader.steps(run.id), job)
        if wanted:
            rows = [row for row in rows if row.instance in wanted]
        attempts: dict[str, list[AttemptRow]] = {}
        if as_json or verbose or wanted:
            for attempt in record.reader.attempts(run.id, wanted[0] if len(wanted) == 1 else None):
                attempts.setdefault(attempt.instance, []).append(attempt)
        more = standing.run.state != "finished" and not standing.interrupted
        folder = record.folder(run)
        account = spent.account(record.reader, run.id)
        if as_json:
            return [jsonshape.dumps(jsonshape.run_with_steps_shape(standing, rows, attempts, folder, account))], more
        look, now = look_of(sys.stdout), now_ms()
        lines = [] if wanted else [*page.head(standing, look, now, account_facts(account, job)), ""]
        if wanted or verbose:
            by_id = {} if job is None else {step.id: step for step in job.steps}
            for row in rows:
                mine, step = attempts.get(row.instance, []), by_id.get(row.instance)
                lines += step_details(row, step, mine, folder, look, now, interrupted=standing.interrupted)
                lines.append("")
            lines.pop()
        else:
            lines += step_table(rows, look, now, interrupted=standing.interrupted)
        if not wanted and (used := usage_table(account.uses, look)):
            lines += ["", *used]
        if not wanted and (advice := page.advice(standing, rows, now)):
            lines += ["", *advice]
        return lines, more

    return show


def _calls(record: Record, run: Run, wanted: list[str], verbose: bool, as_json: bool) -> Show:
    """The calls that the steps of a run made; a step stands for its instances."""
    from ..render import jsonshape
    from ..render.spent import call_lines

    _check_steps(record, run, _job(record, run), wanted)

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


def _check_steps(record: Record, run: Run, job: Job | None, wanted: list[str]) -> None:
    known = {row.instance for row in record.reader.steps(run.id)} if wanted else set()
    known |= {step.id for step in job.steps} if job and wanted else set()
    for name in wanted:
        if name not in known:
            from ..spec.nearest import suggestion

            raise NotFound(
                f"run {run.id} of {run.job} has no step {name}{suggestion(name, known)}",
                f"`agentrun status {run.id}` lists its steps",
            )


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
