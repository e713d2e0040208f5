"""`agentrun run JOB`: record a run of a job file and bring it to its end in the foreground.

A start without a terminal stands for the newest tick of a job that has a schedule (`starts.py`); any other is a run of
its own. Either way a run of the job that was interrupted goes on first, as `on_tick` says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..engine import create
from ..engine.clock import wall
from ..engine.ending import status_of_run
from ..errors import JobFileError, Overtaken, UsageError
from ..instants import parse_rfc3339, rfc3339
from ..store.folders import home
from ..store.prune import forgotten_up_to
from ..store.read import Run
from ..store.snapshots import Snapshot, stem_of
from ..store.write import RunKeyTaken, Store
from . import advance, starts, turns
from .scripts import is_script, job_of

_READ_AT_MOST = 8 << 20  # characters; more than a job file may have


def run(
    job: str,
    args: Sequence[str] = (),
    *,
    param: Sequence[str] = (),
    run_key: str | None = None,
    scheduled_time: str | None = None,
    no_tick: bool = False,
    detach: bool = False,
    as_json: bool = False,
) -> int:
    """The verb (its command line: `parsed.py`). Returns the exit status. Raises UsageError, JobFileError and others."""
    if args and not is_script(job):
        raise UsageError(f"a job file takes no arguments: {' '.join(args)}", "its parameters are given by -p KEY=VALUE")
    path = create.job_file(job)
    tick = _tick(scheduled_time)
    with advance.open_store() as store:
        snapshot = snapshot_of(store, job, args)
        check_children(snapshot, job)
        params = create.parameters(snapshot.job, param)
        start = starts.Start(store, snapshot, path, params, as_json=as_json, detach=detach)
        own = run_key is not None or tick is not None or no_tick or detach
        if snapshot.job.schedule and not own and not turns.on_a_terminal():
            return start.by_schedule()
        if not detach and (status := start.heal()) is not None:
            return status
        key = run_key
        if key is None and tick is not None:
            key = f"tick {rfc3339(tick)}"
        if tick is not None:
            _check_known(store, snapshot.job.name, tick)
        try:
            pausable = tick is not None and not turns.on_a_terminal()
            return _begin(start, key, tick, pausable=pausable)
        except RunKeyTaken as taken:
            return _again(store, taken.run_id, params, key, as_json=as_json, detach=detach)


def _begin(start: starts.Start, key: str | None, tick: int | None, *, pausable: bool) -> int:
    while True:
        account = None if tick is None else start.account_of(tick, wall())
        with suppress(Overtaken):  # its ticks were accounted for by somebody else meanwhile
            return start.once(key, tick, account, pausable=pausable).status


def _check_known(store: Store, job: str, tick: int) -> None:
    """That it is not forgotten whether a tick has run. Raises UsageError."""
    forgotten = forgotten_up_to(store.database.connection, job)
    if forgotten is None or tick > forgotten or store.reader.of_tick(job, tick) is not None:
        return
    raise UsageError(
        f"runs of job {job} up to {rfc3339(forgotten)} were pruned: nobody knows whether this tick has run",
        "to run it all the same, give it no tick but a key of its own: --run-key",
    )


def snapshot_of(store: Store, path: str, args: Sequence[str] = ()) -> Snapshot:
    """The job, from its snapshot where this very text has been run before: cron runs the same file all day."""
    stem = stem_of(path)
    if is_script(path):
        job, text = job_of(path, args)
        return Snapshot(text, job, stem)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            known = Snapshot.known(store.database.connection, stem, file.read(_READ_AT_MOST))
        if known:
            return known
    except (OSError, ValueError):
        pass  # the decoder says what is wrong with it
    from ..spec.decode import load

    job, text = load(path)
    return Snapshot(text, job, stem)


def check_children(snapshot: Snapshot, path: str) -> None:
    """The files that its steps name with `job` are there and right. Raises JobFileError."""
    if any(step.job is not None for step in snapshot.job.steps):
        from ..spec.children import check_children as check

        if problems := check(snapshot.job, path, snapshot.text):
            raise JobFileError(problems)


def _again(
    store: Store, run_id: str, params: dict[str, object], key: str | None, *, as_json: bool, detach: bool
) -> int:
    """The key is taken: this call stands for the run that has it."""
    run = store.reader.run(run_id)
    if run.params != params:
        raise UsageError(
            f"the key '{key}' belongs to run {run_id}, which was started with {json.dumps(run.params)}",
            "the same key with other parameters would be another run: choose another key",
        )
    if run.state == "finished":
        _say(f"{run.job}/{run_id} has this key and has finished: {run.outcome}", run)
        if as_json:
            from ..render.jsonshape import print_run

            print_run(store.reader, home(), run)
        return status_of_run(run)
    if run.state == "waiting":
        from .answers import is_due

        if not is_due(store.reader, run):
            return advance.show_questions(store.reader, run, as_json=as_json)
    if run.held(home()):
        _say(f"{run.job}/{run_id} has this key and is being advanced", None)
        return 75
    if detach:
        advance.detach(run_id)
        print(run_id)
        return 0
    return advance.advance(store, run_id, shown=advance.watcher(), as_json=as_json)


def _say(line: str, run: Run | None) -> None:
    # silent without a terminal, as cron wants it, unless a failure would otherwise go unheard
    if sys.stderr.isatty() or (run is not None and run.outcome != "succeeded"):
        hint = f"; go on with: agentrun resume {run.id}" if run is not None and run.outcome != "succeeded" else ""
        print(f"agentrun: {line}{hint}", file=sys.stderr)


def _tick(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise UsageError(
            f"--scheduled-time {text}: this is no RFC 3339 time", "for example 2026-11-20T10:00:00Z"
        ) from error
