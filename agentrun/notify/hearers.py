"""Who wants to hear of a job, and the outbox as those see it who have something to tell.

`listen` before a run goes on, `deliver_due` when something may have been raised: both cost next to nothing where there
is nobody to tell. A deliverer is a process of its own session that holds no descriptor of ours, so neither cron's pipe
nor a lock of `flock` stays open for it. Where it could not outlive us (we are the main process of a systemd unit, or
process 1 of a container: all else is ended with us), we wait for it, a minute at most.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import AgentrunError
from ..model import JSON, Event, Job, Notify, Target
from ..spec.configpath import config_path
from ..store.database import Database, open_for_reading
from ..store.notices import NoticeQuestions, Notices
from ..store.trouble import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..store.read import Reader

_PATIENCE: Final = 60.0  # seconds for a deliverer that would be ended with us
_FAILURES: Final = (AgentrunError, OSError, *UNREADABLE)
_SIGNALS: Final = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def hearers(job: Job | None, say: Callable[[str], object] = lambda _: None) -> Notify | None:
    """Who is to be told of a job; None: nobody. `job`: None where its file cannot be read. `say`: see `load_or_say`."""
    notify = job.notify if job is not None else None
    if notify is None and config_path() is not None:
        from ..spec import config

        notify = config.load_or_say(say).notify
    return notify if notify is not None and notify.to else None


def encoded(notify: Notify | None) -> JSON:
    """As the record keeps it."""
    if notify is None:
        return None
    to = [
        {"kind": one.kind, "address": list(one.address) if isinstance(one.address, tuple) else one.address}
        | ({"key_file": one.key_file} if one.key_file else {})
        for one in notify.to
    ]
    return {"on": list(notify.on), "to": to, "every": notify.every}


def target_of(known: Mapping[str, JSON]) -> Target:
    """The inverse, for one target."""
    address = known["address"]
    return Target(known["kind"], tuple(address) if isinstance(address, list) else address, known.get("key_file"))


def wants(notify: Mapping[str, JSON], event: Event) -> bool:
    """Whether an event is to be told."""
    return event in notify["on"]


def listen(database: Database, run_id: str, job: Job, now: int, say: Callable[[str], object]) -> None:
    """Let those who want to hear of this run; called by its owner, before it goes on. It goes on if this fails."""
    with suppress(*_FAILURES):
        if Notices(database).hear(run_id, encoded(hearers(job, say)), now):
            start(database.root)


def deliver_due(root: str, reader: Reader | None = None) -> bool:
    """Start a deliverer if anything is due; whether it was. One look into an index, over `reader` if given.

    Nobody fails by it: where the record cannot be read, that is for others to say.
    """
    with suppress(*_FAILURES):
        reading = reader.connection if reader else open_for_reading(root)
        if reading is None:
            return False
        try:
            due = NoticeQuestions(reading).is_due(time.time_ns() // 1_000_000)
        finally:
            if reader is None:
                reading.close()
        if due:
            start(root)
        return due
    return False


def start(root: str) -> None:
    """Start `agentrun deliver`. That it cannot be started is no reason to fail: what is due stays so."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTRUN_")}
    environment["AGENTRUN_HOME"] = root
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            actions: list[tuple[int, int] | tuple[int, int, int]] = [
                (os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)
            ]
            actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "agentrun", "deliver", "--program", sys.argv[0]],
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        finally:
            os.close(null)
        if os.getpid() == 1 or os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
            _wait(pid)


def _inherited() -> list[int]:
    """Descriptors that came from whoever started us, and would go on to a child."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _wait(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        select.select([fd], [], [], _PATIENCE)
    finally:
        os.close(fd)
