"""When something is due for an attempt: one heap for all of them, in which an attempt has one valid time at most."""

from __future__ import annotations

import time
from heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attempt import Attempt


class Due:
    """The due times of a shim's attempts; `attempt.due` tells which of its times is the valid one."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Attempt]] = []
        self._count = 0

    def put(self, attempt: Attempt, seconds: float, attempts: int) -> None:
        """So long from now; a time that it had before counts no more. `attempts`: how many there are."""
        attempt.due = time.monotonic() + seconds
        self._count += 1
        if len(self._heap) > 64 + 4 * attempts:
            # most are of attempts that ended long before their timeout, and each keeps one in memory
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapify(self._heap)
        heappush(self._heap, (attempt.due, self._count, attempt))

    def take(self) -> Attempt | None:
        """The next attempt for which the time has come: it has none any more."""
        while self._heap:
            when, _, attempt = self._heap[0]
            if attempt.due == when and when > time.monotonic():
                return None
            heappop(self._heap)
            if attempt.due == when:  # else an end came first
                attempt.due = None
                return attempt
        return None

    def wait(self) -> float | None:
        """Seconds until `take` may have one; None if there is nothing."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
