"""What somebody who looks on a run is told by its supervisor; and nobody."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Job
from ..store.changes import Change
from ..store.read import Run


class Watcher:
    """Somebody who looks on, and does nothing about what is not overridden. None of these may raise.

    `interval`: ms between two ticks, None for none.
    """

    interval: int | None = None

    def begin(
        self, run: Run, job: Job, usual_ms: int | None, now: int, *, active: Sequence[tuple[str, str]] = (),
        slow_after: int | None = None,
    ) -> None: ...
    def changed(self, changes: Sequence[Change], now: int) -> None: ...
    def tick(self, now: int) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self, run: Run, now: int, report: Sequence[str] = ()) -> None: ...


class Silent(Watcher):
    """Nobody, as under cron and with pipes: nothing is said while all goes well."""
