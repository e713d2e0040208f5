"""The time of a supervisor: wall time that does not jump while it runs, and how long the run has been at it.

`now` is the wall clock as it was when the clock was made, carried on by CLOCK_BOOTTIME: setting the machine's
clock moves no timeout and makes no negative duration; a suspended machine counts as on. `elapsed` is what
counts against the deadline: everything since the run's first start but the time in which the machine was off,
so it goes on across a restart of the supervisor in the same boot, and stands still across a reboot.
"""

from __future__ import annotations

import time

from ..step.boot import boot_id
from ..store.write import Stamp


def wall() -> int:
    """The wall clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def boottime() -> int:
    """Milliseconds since the machine was started, suspends included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Clock:
    """`elapsed`, `seen` and `seen_boot` are those of the run's last write; None where it never had an owner."""

    def __init__(self, elapsed: int = 0, seen: int | None = None, seen_boot: str | None = None) -> None:
        self.boot_id = boot_id()
        self._boottime = boottime()
        self._wall = wall()
        on = self._boottime - seen if seen is not None and seen_boot == self.boot_id else 0
        self._elapsed = elapsed + max(on, 0)

    def now(self) -> int:
        """Milliseconds since the epoch, never running backwards."""
        return self._wall + boottime() - self._boottime

    def stamp(self) -> Stamp:
        """The present moment as a write records it."""
        at = boottime()
        since = at - self._boottime
        return Stamp(self._wall + since, self._elapsed + since, at, self.boot_id)

    def deadline_at(self, deadline: int | None) -> int | None:
        """When a deadline of that many ms of elapsed time is reached, as `now` counts."""
        return None if deadline is None else self._wall + deadline - self._elapsed
