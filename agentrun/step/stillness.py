"""Attempts that do nothing: none of their processes has used processor time, and nothing was printed, for so long.

Only an attempt with `stuck_after` is looked at, ten times in that while, at least every 30 s and at most every 0.1 s.
A look reads the processor time that its cgroup counts, if it has one; else it walks the tree: a process that has come,
gone, been waited for by us or used a tick (10 ms) has used some. So short-lived children are seen, whoever waits
for them.

Time is what passes while we look: a look that comes late, because the machine was asleep or we were stopped, counts
as twice the usual pause at most. `since` is the look that saw the last sign of life, in wall time.

An attempt that is stuck is ended, or told of; once it has given a sign of life it is not stuck any more. What is
told is always the whole list, so whoever supervises next needs to be told of nothing else.
"""

from __future__ import annotations

import time

from . import procs
from .attempt import wall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .attempt import Attempt

_LOOKS = 10      # in the time after which an attempt is stuck
_SHORTEST = 0.1  # seconds between two looks
_LONGEST = 30.0


class _Watch:
    """One attempt. `quiet`: seconds without a sign of life; `seen`: what the last look saw."""

    __slots__ = ("attempt", "due", "kill", "limit", "looked_at", "pause", "quiet", "seen", "since", "stuck")

    def __init__(self, attempt: Attempt, limit: float, *, kill: bool) -> None:
        self.attempt = attempt
        self.limit = limit
        self.kill = kill
        self.pause = min(max(limit / _LOOKS, _SHORTEST), _LONGEST)
        self.looked_at = time.monotonic()
        self.due = self.looked_at + self.pause
        self.since = attempt.begun_at
        self.quiet = 0.0
        self.stuck = False
        self.seen: object = None

    def look(self, now: float) -> bool:
        """Whether it has begun or ceased to be stuck."""
        self.quiet += min(now - self.looked_at, 2 * self.pause)
        self.looked_at, self.due = now, now + self.pause
        seen = _signs(self.attempt)
        if seen != self.seen or self.attempt.stirred:
            self.seen, self.since, self.quiet = seen, wall(), 0.0
            self.attempt.stirred = False
        before, self.stuck = self.stuck, self.quiet >= self.limit
        return self.stuck != before


def _signs(attempt: Attempt) -> object:
    """What is another value when the attempt has done something."""
    written = attempt.pipe.log.size if attempt.pipe else attempt.written
    group = attempt.meter.group if attempt.meter else None
    if group and "cpu" in group.folders:
        return written, group.cpu()
    return written, [(one.pid, one.start, one.cpu) for one in procs.descendants(attempt.kin.roots())]


class Stillness:
    """All attempts with `stuck_after` of one shim. `tell` is called when `stuck` has changed."""

    __slots__ = ("_tell", "_watched", "next")

    def __init__(self, tell: Callable[[], None]) -> None:
        self.next: float | None = None  # when to look; None: there is nothing to look at
        self._tell = tell
        self._watched: dict[Attempt, _Watch] = {}

    def watch(self, attempt: Attempt) -> None:
        """Its process exists now; its order says whether it can be stuck."""
        limit = attempt.order.get("stuck_after")
        if limit is None:
            return
        watch = self._watched[attempt] = _Watch(attempt, limit / 1000, kill=attempt.order.get("on_stuck") == "kill")
        self.next = watch.due if self.next is None else min(self.next, watch.due)

    def forget(self, attempt: Attempt) -> None:
        """Nothing of it lives, and its result is known: until then it stays as stuck as it was."""
        self._watched.pop(attempt, None)

    def look(self) -> list[Attempt]:
        """Look at those whose time has come; which are to be ended."""
        now = time.monotonic()
        running = [one for one in self._watched.values() if not one.attempt.ending and one.attempt.result is None]
        changed = [watch for watch in running if watch.due <= now and watch.look(now)]
        self.next = min((watch.due for watch in running), default=None)
        if not all(watch.kill for watch in changed):
            self._tell()
        return [watch.attempt for watch in changed if watch.kill and watch.stuck]

    def stuck(self) -> list[tuple[str, int, int]]:
        """Instance, attempt and since when, in wall time, of those that do nothing."""
        return [(*watch.attempt.key, watch.since) for watch in self._watched.values() if watch.stuck and not watch.kill]
