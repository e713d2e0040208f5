"""What `run`, `resume` and `supervise` share: advance a run in this process, show it, end with its status."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from ..engine import recover
from ..engine.clock import Clock, wall
from ..engine.ending import status_of_run
from ..engine.lease import Lease
from ..engine.watcher import Silent, Watcher
from ..errors import StoreError
from ..notify import hearers
from ..store.database import open_for_writing, talk
from ..store.folders import home
from ..store.read import Reader, Run
from ..store.write import Store
from . import early

if TYPE_CHECKING:
    from ..engine.supervisor import Supervisor


def watcher(*, quiet: bool = False) -> Watcher:
    """Live progress on a terminal, silence elsewhere."""
    if quiet or not sys.stderr.isatty():
        return Silent()
    from ..render.progress import Progress

    return Progress()


def open_store() -> Store:
    """The record, for writing."""
    return Store(open_for_writing(home()))


def advance(
    store: Store,
    run_id: str,
    *,
    shown: Watcher,
    clock: Clock | None = None,
    lease: Lease | None = None,
    force: bool = False,
    replace_env: bool = False,
    as_json: bool = False,
) -> int:
    """Own the run, bring it to its end, show how it ended, and return the exit status.

    `clock`: the run was just created and taken with it. Raises Busy, Overtaken, StoreError.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # `recover` holds stop signals back, for the loop
    try:
        return _advance(store, run_id, shown, clock, lease, force=force, replace_env=replace_env, as_json=as_json)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        hearers.deliver_due(store.database.root, store.reader)


def _advance(
    store: Store,
    run_id: str,
    shown: Watcher,
    clock: Clock | None,
    lease: Lease | None,
    *,
    force: bool,
    replace_env: bool,
    as_json: bool,
) -> int:
    link = early.take()
    try:
        if clock is not None:
            supervisor: Supervisor | None = recover.supervise(
                store, run_id, link=link, watcher=shown, clock=clock
            )
        else:
            supervisor = recover.own(
                store, run_id, link=link, watcher=shown, force=force, lease=lease, replace_env=replace_env
            )
    except BaseException:
        if link:
            link.close()
        raise
    reader = store.reader
    if supervisor is None:
        if link:
            link.close()
        return show_end(reader, reader.run(run_id), shown, as_json=as_json)
    run = supervisor.run
    usual, slow = reader.usual_duration(run.job), reader.slow_after(run.job)
    active = reader.active_steps(run_id)
    shown.begin(run, supervisor.job, usual, wall(), active=active, slow_after=slow and slow[0])
    if run.caller is None:
        hearers.listen(store.database, run.id, supervisor.job, wall(), talk)
    match supervisor.advance():
        case "stopped":
            return _show_stop(supervisor, shown, reader)
        case "parked":
            shown.end(reader.run(run_id), wall())
            return show_questions(reader, reader.run(run_id), as_json=as_json)
    status = show_end(reader, reader.run(run_id), shown, as_json=as_json)
    if run.caller is None:
        _back_up(store)
        _prune(store)
    return status


def show_end(reader: Reader, run: Run, shown: Watcher, *, as_json: bool = False) -> int:
    """Say how a finished run ended; of a failure, what is needed to repair it."""
    report: list[str] = []
    if other := reader.replaced_by(run):  # as the job file wants it: nobody has to be told
        shown.end(run, wall(), [f"replaced by run {other}, as `concurrency` of job {run.job} says"])
        return 75
    if run.outcome != "succeeded":
        from ..render.report import failure_report

        report = failure_report(reader, home(), run)
    shown.end(run, wall(), report)
    if report and isinstance(shown, Silent):
        print("\n".join(report), file=sys.stderr)
    if as_json:
        from ..render.jsonshape import print_run

        print_run(reader, home(), run)
    return status_of_run(run)


def show_questions(reader: Reader, run: Run, *, as_json: bool = False) -> int:
    """Say what a parked run waits for; also where nobody looks on, so that cron mails it."""
    from ..render.questions import waiting_report

    print("\n".join(waiting_report(reader, home(), run)), file=sys.stderr, flush=True)
    if as_json:
        from ..render.jsonshape import print_run

        print_run(reader, home(), run)
    return 75


def _back_up(store: Store) -> None:
    """Copy the record, at most once an hour; a run does not fail by that."""
    from ..store.backups import back_up

    try:
        back_up(store.database.root, time.time())
    except StoreError as error:  # `doctor` tells of it elsewhere
        if sys.stderr.isatty():
            print(f"agentrun: {error.message}", file=sys.stderr)


def _prune(store: Store) -> None:
    """Remove old runs, at most once a day."""
    from ..store.removal import is_due

    if is_due(store.database.root, wall()):
        from .prune import by_itself

        by_itself(store)


def _show_stop(supervisor: Supervisor, shown: Watcher, reader: Reader) -> int:
    from ..render.status import command

    number = supervisor.stopped_by or signal.SIGTERM
    shown.end(reader.run(supervisor.run.id), wall())
    outermost = reader.outermost(supervisor.run).id
    print(
        f"agentrun: {supervisor.run.job}/{supervisor.run.id} was interrupted by {number.name};"
        f" go on with: {command('resume', outermost, anywhere=not sys.stderr.isatty())}",
        file=sys.stderr,
    )
    if number == signal.SIGINT and sys.stderr.isatty():
        print(f"  a `resume` in the crontab does so, too; to end it: agentrun cancel {outermost}", file=sys.stderr)
    return 128 + number


def detach(run_id: str) -> None:
    """Start a supervisor of its own for a queued run, which outlives this process and its terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "agentrun", "supervise", run_id],
        os.environ,
        file_actions=actions,
        setsid=True,
    )
    os.close(null)
