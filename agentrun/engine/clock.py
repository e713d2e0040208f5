"""The time of a supervisor: wall time that does not jump while it runs, and how long the run has been at it.

`now` is the wall clock as it was when the run's first clock in this boot was made, carried on by CLOCK_BOOTTIME, in
every supervisor of the run, in its shim and in its child runs: setting the machine's clock moves no timeout and makes
no negative duration; a suspended machine counts as on. `elapsed` is what counts against the deadline: everything since
the run's first start but the time in which the machine was off, so it goes on across a restart of the supervisor in
the same boot, and stands still across a reboot.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..model import JSON
from ..step.boot import boot_id
from ..store.write import Stamp


def wall() -> int:
    """The wall clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def boottime() -> int:
    """Milliseconds since the machine was started, suspends included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Clock:
    """`elapsed`, `seen` and `seen_boot` are those of the run's last write; None where it never had an owner.

    `owner`: its last owner, or that of the run that called it; the record keeps the `ahead` of its clock.
    """

    def __init__(
        self,
        elapsed: int = 0,
        seen: int | None = None,
        seen_boot: str | None = None,
        owner: Mapping[str, JSON] | None = None,
    ) -> None:
        self.boot_id = boot_id()
        self._boottime = boottime()
        ahead = owner.get("clock") if owner and owner.get("boot") == self.boot_id else None
        self._wall = wall() if ahead is None else self._boottime + ahead
        on = self._boottime - seen if seen is not None and seen_boot == self.boot_id else 0
        self._elapsed = elapsed + max(on, 0)

    @property
    def ahead(self) -> int:
        """What `now` is ahead of CLOCK_BOOTTIME, in ms: the same for all who count the time of a run in one boot."""
        return self._wall - self._boottime

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
