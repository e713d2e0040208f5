"""Which attempts the shim says are stuck, against what the journal was told before: each silence is told once.

The shim says the whole list whenever it changes and to each new supervisor, so one that was killed between hearing
and committing, or while an attempt went on, leaves nothing untold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..store.changes import Change
from ..store.stuck import StepStuck, StepUnstuck

Key = tuple[str, int]


class Stuck:
    """Of one run."""

    def __init__(self, told: Mapping[str, tuple[int, int]]) -> None:
        """`told`: what the journal says, as `store/stuck.py` reads it."""
        self._since: dict[Key, int] = {(name, attempt): since for name, (attempt, since) in told.items()}
        self._by_shim: dict[Key, int] | None = None  # since it was last asked for news

    def hear(self, attempts: Iterable[tuple[str, int, int]]) -> None:
        """The shim says that these do nothing, and since when, and no others."""
        self._by_shim = {(name, attempt): since for name, attempt, since in attempts}

    def news(self, running: Callable[[], Iterable[Key]], now: int) -> list[Change]:
        """What is to be told now. To be asked when all ends that are known have been taken in."""
        by_shim, self._by_shim = self._by_shim, None
        if not self._since and not by_shim:
            return []
        at_work = set(running())
        changes: list[Change] = []
        for key in list(self._since):
            goes_on = by_shim is not None and by_shim.get(key) != self._since[key]  # if only for a while
            if key not in at_work or goes_on:
                del self._since[key]
                if key in at_work or key[1] == 0:
                    changes.append(StepUnstuck(*key, now))
        for key, since in (by_shim or {}).items():
            if key in at_work and key not in self._since:
                self._since[key] = since
                changes.append(StepStuck(*key, since, now))
        return changes
