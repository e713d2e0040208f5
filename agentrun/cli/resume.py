"""`agentrun resume [RUN]`: go on with what was interrupted, or with a failed run from its failed step."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from ..engine import create, fingerprints, reuse
from ..engine.clock import wall
from ..engine.lease import Lease, busy, overtake, this_process
from ..errors import Busy, Missing, UsageError
from ..render.fates import show_fates
from ..store.database import open_for_reading
from ..store.folders import RunFolder, home
from ..store.read import Reader, Run
from ..store.snapshots import Snapshot, stem_of
from ..store.write import Store
from . import advance
from .complete import complete_run


def resume(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run: its id, a unique part of it, a job's name, or JOB~2.",
            autocompletion=complete_run,
        ),
    ] = None,
    from_step: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Do it again from this step, as a new run with new keys."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be reused and what would run; do nothing.")
    ] = False,
    spec: Annotated[
        str | None, typer.Option(metavar="FILE", help="Go on with this job file instead of the run's own.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --spec: although finished steps differ there.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="End the process that holds the run, and take it over.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished run as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name the runs that others advance.")] = False,
) -> None:
    """Go on with an interrupted or failed run; without RUN, with every run that was interrupted."""
    if run is None:
        if from_step or plan or spec or force or as_json:
            raise UsageError("these options need a RUN", "for example: agentrun resume quotes --plan")
        raise typer.Exit(_resume_all(verbose=verbose))
    with advance.open_store() as store:
        reader = store.reader
        found = reader.find(run)
        if from_step:
            if spec or force:
                raise UsageError("--from starts a new run: it does not go together with --spec or --force")
            raise typer.Exit(_from(store, reader, found, from_step, plan=plan, as_json=as_json))
        if plan:
            adopted = reuse.load_spec(spec) if spec else None
            show_fates(reuse.of_run(reader, found, adopted.job if adopted else reader.job_of(found)))
            return
        if found.outcome == "succeeded":
            print(f"agentrun: {found.job}/{found.id} has succeeded already", file=sys.stderr)
            return
        raise typer.Exit(_resume(store, reader, found, spec, accept_changes, force=force, as_json=as_json))


def supervise(run: Annotated[str, typer.Argument()]) -> None:
    """Advance a run silently: what shims and `--detach` start."""
    with advance.open_store() as store:
        try:
            status = advance.advance(store, run, shown=advance.watcher(quiet=True))
        except Busy:  # somebody else was quicker: nothing is wrong, and nobody looks on
            status = Busy.exit_code
        raise typer.Exit(status)


def resume_one(run_id: str) -> int:
    """Advance an unfinished run that nobody holds: for verbs that need it brought to its end."""
    with advance.open_store() as store:
        return advance.advance(store, run_id, shown=advance.watcher())


def _resume(
    store: Store, reader: Reader, run: Run, spec: str | None, accept_changes: bool, *, force: bool, as_json: bool
) -> int:
    """The lease first: everything that is read before it may be different a moment later."""
    folder = RunFolder(home(), run.id)
    lease = overtake(folder, run.owner) if force else Lease.acquire(folder)
    if lease is None:
        raise busy(run.id, run.owner)
    run = reader.run(run.id)
    by = str(this_process()["user"])
    if spec:
        _adopt_spec(store, reader, run, spec, accept_changes, by)
    else:
        _tell_changes(reader, run, folder)
    if run.state == "finished" and run.outcome != "succeeded":
        job = reader.job_of(run)
        handlers = {step.id for step in job.steps if step.is_handler}
        store.reopen(run.id, reuse.reopened(reader, run, job), ask_again=handlers, by=by, now=wall())
    return advance.advance(store, run.id, shown=advance.watcher(), lease=lease, as_json=as_json)


def _adopt_spec(store: Store, reader: Reader, run: Run, spec: str, accept_changes: bool, by: str) -> None:
    snapshot = reuse.load_spec(spec)
    differences = reuse.differences(reader, run, snapshot.job)
    for line in differences:
        print(f"agentrun: {line}", file=sys.stderr)
    if differences and not accept_changes:
        raise UsageError(
            f"{spec} defines finished steps of run {run.id} otherwise", "go on all the same with --accept-changes"
        )
    store.adopt_spec(run.id, snapshot, by=by, now=wall())


def _tell_changes(reader: Reader, run: Run, folder: RunFolder) -> None:
    try:
        with open(run.file, encoding="utf-8") as file:
            changed = file.read() != reader.text_of(run)
    except (OSError, ValueError):
        changed = True
    if changed:
        print(
            f"agentrun: {run.file} has changed since the run was created; going on with the file as it was"
            f" (--spec {run.file} adopts the new one)",
            file=sys.stderr,
        )
    for name in fingerprints.changed(folder):
        print(f"agentrun: {name} has changed since the run was created", file=sys.stderr)


def _from(store: Store, reader: Reader, run: Run, step: str, *, plan: bool, as_json: bool) -> int:
    job = reader.job_of(run)
    if step not in {each.id for each in job.steps}:
        raise UsageError(f"job {run.job} has no step '{step}'", f"it has: {', '.join(s.id for s in job.steps)}")
    if run.held(home()):
        raise busy(run.id, run.owner)
    kept = reuse.kept_from(reader, run, job, step)
    if plan:
        show_fates(reuse.from_step(job, kept, step))
        return 0
    frozen = create.Frozen.here()
    snapshot = Snapshot(reader.text_of(run), job, stem_of(run.file))
    request = create.Request(snapshot, run.file, run.params, parent=run.id, taken_over=tuple(kept))
    new_id, _lease, clock = create.create(store, request, frozen, own=True)
    reuse.take_scratch(home(), run.id, new_id)
    return advance.advance(store, new_id, shown=advance.watcher(), clock=clock, as_json=as_json)


def _resume_all(*, verbose: bool) -> int:
    """Every unfinished run that nobody holds, each by a supervisor of its own, a bounded number at once."""
    root = home()
    connection = open_for_reading(root)
    if connection is None:
        return 0
    reader = Reader(connection)
    create.sweep_folders(root, reader)
    due: list[Run] = []
    for run in reader.unfinished():
        if run.held(root):
            if verbose:
                print(f"agentrun: {run.job}/{run.id} is being advanced by somebody else", file=sys.stderr)
        else:
            due.append(run)
    connection.close()
    failed = 0
    waiting = list(reversed(due))
    at_work: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    while waiting or at_work:
        while waiting and len(at_work) < 2 * (os.cpu_count() or 1):
            run = waiting.pop()
            process = _start(run)
            at_work[process.pid] = (run, process)
        run, process = at_work.pop(_wait_for_any(at_work))
        if process.wait() not in (0, 75):
            failed += 1
            print(f"agentrun: {run.job}/{run.id} did not succeed (exit status {process.returncode})", file=sys.stderr)
    return 1 if failed else 0


def _start(run: Run) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen([sys.executable, "-P", "-m", "agentrun", "supervise", run.id], stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Missing(f"cannot start {sys.executable}: {error.strerror}") from error


def _wait_for_any(at_work: dict[int, tuple[Run, subprocess.Popen[bytes]]]) -> int:
    """The pid of one of these that has ended; it is not reaped yet."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if ended.si_pid in at_work:
            return ended.si_pid
        os.waitpid(ended.si_pid, 0)  # the early shim, or some other child that is none of ours

