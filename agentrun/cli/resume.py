"""`agentrun resume [RUN]`: go on with what was interrupted, or with a failed run from its failed step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..engine import create, fingerprints, reuse
from ..engine.clock import wall
from ..engine.lease import Lease, busy, overtake, this_process
from ..errors import Busy, JobFileError, Missing, NotFound, UsageError
from ..model import Job
from ..render.fates import show_fates
from ..store import admission
from ..store.folders import RunFolder, home
from ..store.read import Reader, Run
from ..store.snapshots import Snapshot, is_of, stem_of
from ..store.write import Store
from . import advance, answers, strays, sweep, turns
from .record import need_record
from .scripts import is_script, job_of


def resume(
    run: str | None = None,
    *,
    from_step: str | None = None,
    plan: bool = False,
    took_place: Sequence[str] = (),
    rerun: Sequence[str] = (),
    spec: str | None = None,
    accept_changes: bool = False,
    force: bool = False,
    env_here: bool = False,
    as_json: bool = False,
    verbose: bool = False,
) -> int:
    """The verb (its command line: `parsed.py`). Returns the exit status. Raises UsageError, NotFound and others."""
    if run is None:
        if from_step or plan or spec or force or env_here or as_json or took_place or rerun:
            raise UsageError("these options need a RUN", "for example: agentrun resume quotes --plan")
        return sweep.sweep(verbose=verbose)
    if from_step and (spec or force or env_here):
        raise UsageError("--from starts a new run: it does not go together with --spec, --force or --env-here")
    answered = bool(took_place or rerun)
    if answered and (from_step or plan or spec or force):
        raise UsageError("an answer goes on with the run as it is: without --from, --plan, --spec and --force")
    if plan:
        _plan(run, from_step, spec, as_json=as_json)
        return 0
    with advance.open_store() as store:
        found = store.reader.find(run)
        if from_step:
            return _from(store, found, from_step, as_json=as_json)
        options = _Options(spec, accept_changes, force, env_here, as_json)
        if answered:
            return _answer(store, found, took_place, rerun, options._replace(answers=True))
        _refuse_child(store.reader, found)
        if found.outcome == "succeeded":
            given = [name for name, it in (("--spec", spec), ("--force", force), ("--env-here", env_here)) if it]
            _nothing_to_do(store.reader, found, given, as_json=as_json)
            return 0
        if found.state == "waiting" and not (spec or env_here) and not answers.is_due(store.reader, found):
            return advance.show_questions(store.reader, found, as_json=as_json)
        return _resume(store, found, options)


def _refuse_child(reader: Reader, run: Run) -> None:
    """Raises UsageError for a child run that nobody advances."""
    if run.caller is not None and not run.held(home()):
        raise UsageError(
            f"run {run.id} of {run.job} is a step of another run, and goes on with it",
            f"go on with: agentrun resume {reader.outermost(run).id}",
        )


def supervise(run: str) -> int:
    """Advance a run silently: what shims and `--detach` start. Returns the exit status."""
    with advance.open_store() as store:
        try:
            turns.skip_older(store, run)
            status = advance.advance(store, run, shown=advance.watcher(quiet=True))
            turns.hand_over(store, store.reader.run(run).overlap_key)
        except Busy:  # somebody else was quicker: nothing is wrong, and nobody looks on
            status = Busy.exit_code
        except (Missing, NotFound) as error:  # cron's `resume` comes to it again every minute
            hint = f"\n  hint: {error.hint}" if error.hint else ""
            strays.say_once(store.database.root, run, f"agentrun: {error.message}{hint}")
            status = error.exit_code
        return status


def resume_one(run_id: str) -> int:
    """Advance an unfinished run that nobody holds: for verbs that need it brought to its end."""
    with advance.open_store() as store:
        lease = answers.take_parked(store, store.reader.run(run_id))
        return advance.advance(store, run_id, shown=advance.watcher(), lease=lease)


class _Options(NamedTuple):
    spec: str | None
    accept_changes: bool
    force: bool
    env_here: bool
    as_json: bool
    answers: bool = False  # it says something of the run as it stood: a finished one is not begun again


def _plan(name: str, from_step: str | None, spec: str | None, *, as_json: bool) -> None:
    """Show what a resume would do, without a trace in the record."""
    reader = need_record().reader
    run = reader.find(name)
    told: list[str] = []
    if from_step:
        job = _job_with(reader, run, from_step)
        fates = reuse.from_step(job, reuse.kept_from(reader, run, job, from_step), from_step)
    else:
        job = _load(spec, reader, run).job if spec else reader.job_of(run)
        if spec:
            reuse.check_instances(reader, run, job)
            if told := reuse.differences(reader, run, job):
                print(*(f"agentrun: {line}" for line in told), sep="\n", file=sys.stderr)
                print("agentrun: without --accept-changes this is refused", file=sys.stderr)
        fates = reuse.of_run(reader, run, job)
    if as_json:
        from ..render import jsonshape

        print(jsonshape.dumps(jsonshape.fates_shape(run, fates, told, from_step)))
    else:
        show_fates(fates)


def _nothing_to_do(reader: Reader, run: Run, given: list[str], *, as_json: bool) -> None:
    without_use = f": {', '.join(given)} did nothing" if given else ""
    print(f"agentrun: {run.job}/{run.id} has succeeded already{without_use}", file=sys.stderr)
    if as_json:
        from ..render.jsonshape import print_run

        print_run(reader, home(), run)


def _answer(store: Store, run: Run, took_place: Sequence[str], rerun: Sequence[str], options: _Options) -> int:
    """Write what a person says, and let the run go on: where it is, or here."""
    answers.answer(store, run, took_place, rerun)
    lease = answers.take_parked(store, run)
    run = store.reader.run(run.id)
    if lease is None and answers.goes_on_elsewhere(store, run):
        return 0
    if run.caller is None:
        return _resume(store, run, options, lease)
    outermost = store.reader.outermost(run)  # a child goes on with its parent
    if answers.goes_on_elsewhere(store, outermost):
        return 0
    return _resume(store, outermost, options)


def _resume(store: Store, run: Run, options: _Options, lease: Lease | None = None) -> int:
    """The lease first: everything that is read before it may be different a moment later."""
    reader = store.reader
    folder = RunFolder(home(), run.id)
    lease = lease or (overtake(folder, run.owner) if options.force else Lease.acquire(folder))
    if lease is None:
        raise busy(run.id, run.owner)
    run = reader.run(run.id)
    by = str(this_process()["user"])
    if options.spec:
        _adopt_spec(store, reader, run, options.spec, options.accept_changes, by)
        run = reader.run(run.id)
    else:
        _tell_changes(reader, run, folder)
    if run.state == "finished" and run.outcome != "succeeded" and not options.answers:
        with store.database.alone():  # nothing else begins between the look and the write
            if other := admission.blocker(store.database.connection, run.id):
                raise Busy(
                    f"run {other} is at work, and {run.id} may not be beside it (`concurrency` of job {run.job})",
                    f"wait for its end: agentrun status {other}",
                )
            reuse.reopen(store, run, by=by, now=wall())
    status = advance.advance(
        store,
        run.id,
        shown=advance.watcher(),
        lease=lease,
        force=options.force,
        replace_env=options.env_here,
        as_json=options.as_json,
    )
    turns.hand_over(store, run.overlap_key)
    return status


def _adopt_spec(store: Store, reader: Reader, run: Run, spec: str, accept_changes: bool, by: str) -> None:
    snapshot = _load(spec, reader, run)
    reuse.check_instances(reader, run, snapshot.job)
    differences = reuse.differences(reader, run, snapshot.job)
    for line in differences:
        print(f"agentrun: {line}", file=sys.stderr)
    if differences and not accept_changes:
        raise UsageError(
            f"{spec} defines finished steps of run {run.id} otherwise", "go on all the same with --accept-changes"
        )
    other_lists = reuse.other_lists(reader.job_of(run), snapshot.job)
    store.adopt_spec(run.id, snapshot, by=by, now=wall(), other_lists=other_lists)


def _load(path: str, reader: Reader, run: Run) -> Snapshot:
    """A job file or script that a run is to go on with, and those that it names. Raises NotFound, JobFileError."""
    if is_script(path):
        job, text = job_of(path, reader.job_of(run).args)
        return Snapshot(text, job, stem_of(path))
    from ..spec.children import check_children
    from ..spec.decode import load

    job, text = load(path)
    if problems := check_children(job, path, text):
        raise JobFileError(problems)
    return Snapshot(text, job, stem_of(path))


def _tell_changes(reader: Reader, run: Run, folder: RunFolder, way: str = "--spec {file} adopts the new one") -> None:
    told = hint = ""
    try:
        with open(run.file, "rb") as file:
            if not is_of(reader.text_of(run), file.read()):
                told = "has changed since the run was created"
                hint = "" if is_script(run.file) else f" ({way.format(file=run.file)})"
    except FileNotFoundError:
        told = "is gone"
    except OSError as error:
        told = f"cannot be read ({error})"
    if told:
        print(f"agentrun: {run.file} {told}; going on with the file as it was{hint}", file=sys.stderr)
    for name in fingerprints.changed(folder):
        print(f"agentrun: {name} has changed since the run was created", file=sys.stderr)


def _job_with(reader: Reader, run: Run, step: str) -> Job:
    """The job of a run, which has that step and which nobody advances."""
    job = reader.job_of(run)
    if step not in {each.id for each in job.steps}:
        raise UsageError(f"job {run.job} has no step '{step}'", f"it has: {', '.join(s.id for s in job.steps)}")
    if run.held(home()):
        raise busy(run.id, run.owner)
    return job


def _from(store: Store, run: Run, step: str, *, as_json: bool) -> int:
    reader = store.reader
    job = _job_with(reader, run, step)
    if asked := [name for name, _ in reader.questions(run.id)]:
        raise UsageError(
            f"run {run.id} waits for an answer about {', '.join(asked[:3])}, and a new run would do it again",
            f"say first what became of it: agentrun resume {run.id} --took-place {asked[0]}, or --rerun {asked[0]}",
        )
    _tell_changes(reader, run, RunFolder(home(), run.id), "`agentrun run {file}` begins with the new one")
    kept = tuple(reuse.kept_from(reader, run, job, step))
    snapshot = Snapshot(reader.text_of(run), job, stem_of(run.file))
    request = create.Request(
        snapshot,
        run.file,
        run.params,
        parent=run.id,
        scheduled_time=run.scheduled_time,
        taken_over=kept,
        scratch_of=run.id,
        overlap=create.overlap_of(job, run.params, (run.id,)),
    )
    return turns.begin(store, request, as_json=as_json).status
