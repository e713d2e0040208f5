"""`agentrun deliver`: what happened becomes notices, and they are sent until nothing is due.

One deliverer is at work for a state folder, and one more waits for it; who finds both there goes. The one that waits
lets go of its place before it looks, so what was committed before anybody was sent away is seen. Up to eight notices
are under way at once; pings of one job to one monitor go one by one, in their order, and one that a newer ping has
overtaken is not sent again. A start is told at once or never.

The order of effects: a try is counted and the next one due before anything is sent; then the notice is sent; then what
came of it is recorded. Killed in between, it is sent again when it is due: at least once. A receiver knows it again
by its id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ..store import locks
from ..store.database import open_for_writing
from ..store.notices import Notice, Notices
from . import occasions, senders
from .hearers import target_of
from .senders import Letter, Senders

_MOST: Final = 8      # notices under way at once
_LOOK: Final = 1.0    # seconds until what was raised meanwhile is seen
_SENDING, _WAITING = 0, 1  # bytes of the lock file


def deliver(root: str, tell: occasions.Tell, *, limit: float = senders.LIMIT) -> None:
    """Send what is due, if nobody else does. Raises StoreError, CannotWrite, Busy."""
    with _alone(root) as mine:
        if not mine:
            return
        database = open_for_writing(root, notice=lambda _: None)
        try:
            _work(Notices(database), tell, Senders(_MOST, limit))
        finally:
            database.close()


def _work(notices: Notices, tell: occasions.Tell, under_way: Senders[Notice]) -> None:
    while True:
        for raised in notices.raised():
            told, streaks = occasions.postings(notices, raised, tell)
            notices.post(raised, told, streaks, _now())
        queued = notices.queued()
        busy = {notice.seq for notice in under_way.tokens}
        overtaken = [notice for notice in _overtaken(queued) if notice.seq not in busy]
        notices.fold(overtaken, "a newer ping has been told since", _now())
        skip = {notice.seq for notice in overtaken}
        ready = _ready([notice for notice in queued if notice.seq not in skip], busy, _now())
        for notice in notices.claim(ready[: under_way.free], _now()):
            under_way.start(notice, _letter(notice))
        if not under_way.tokens:
            break
        notices.settle(list(under_way.wait(_LOOK)), _now())
    notices.forget_old(_now())


def _ready(queued: Iterable[Notice], busy: set[int], now: int) -> list[Notice]:
    """What may be sent now: of the pings of a job to a monitor only the oldest."""
    found, monitors = [], set()
    for notice in queued:
        if monitor := _monitor(notice):
            if monitor in monitors:
                continue
            monitors.add(monitor)
        if notice.seq not in busy and notice.due is not None and notice.due <= now:
            found.append(notice)
    return found


def _overtaken(queued: Iterable[Notice]) -> list[Notice]:
    """The pings that were tried in vain, and stand for nothing any more."""
    newest: dict[tuple[str, str], int] = {}
    pings = [(monitor, notice) for notice in queued if (monitor := _monitor(notice))]
    for monitor, notice in pings:
        newest[monitor] = notice.seq
    return [
        notice
        for monitor, notice in pings
        if notice.tries and (notice.seq < newest[monitor] or notice.event == "start")
    ]


def _monitor(notice: Notice) -> tuple[str, str] | None:
    return (notice.job, notice.target["address"]) if notice.target["kind"] == "ping" else None


def _letter(notice: Notice) -> Letter:
    said = notice.said
    return Letter(target_of(notice.target), said["notice"], notice.id, os.path.dirname(said["file"]))


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _alone(root: str) -> Iterator[bool]:
    """Be the one that sends; False where somebody else does and another one waits already."""
    fd = os.open(os.path.join(root, "deliver.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mine = locks.try_lock(fd, _SENDING)
        if not mine and (mine := locks.try_lock(fd, _WAITING)):
            locks.lock(fd, _SENDING)
            locks.unlock(fd, _WAITING)
        yield mine
    finally:
        os.close(fd)
