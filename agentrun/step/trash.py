"""Places that cannot be used again, removed when there is time for it.

Not before the next order is under way: to remove a folder takes longer than all else that we do for an attempt, and
while its process starts there is time for it.
"""

from __future__ import annotations

import time

from .launch import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .places import Place
    from .tree import Family

SETTLE = 0.002  # seconds without an order after which there is time to clean up


class Trash:
    """What is to be removed. `family` is told of the processes that do it."""

    __slots__ = ("_at", "_family", "_places")

    def __init__(self, family: Family) -> None:
        self._family = family
        self._places: list[Place] = []
        self._at = 0.0

    def put(self, place: Place) -> None:
        self._places.append(place)
        self._at = time.monotonic() + SETTLE

    def clean(self) -> None:
        """Remove it all, now."""
        places, self._places = self._places, []
        for place in places:
            if pid := remove(place):
                self._family.ignored.add(pid)

    def tick(self) -> float | None:
        """Remove it if it is time; seconds until then, None if there is nothing."""
        if not self._places:
            return None
        left = self._at - time.monotonic()
        if left > 0:
            return left
        self.clean()
        return None
