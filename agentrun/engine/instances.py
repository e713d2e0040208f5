"""Places of steps and instances, and the books of a fan-out.

The facts number what can run by its place: the position of the step in the file, and below it the number of
the instance, so that places in ascending order are the order of the file, an item after the other. The step
itself has place `position << BITS`; what `quote[3]` names comes four after it.
"""

from __future__ import annotations

from heapq import heappop, heappush

BITS = 24  # of a place that tell the instances of a step apart
_MASK = (1 << BITS) - 1


def place_of(position: int, number: int = -1) -> int:
    """The place of an instance; of the step itself without a number."""
    return position << BITS | number + 1


def position_of(place: int) -> int:
    """The position in the file of the step that has this place, or an instance there."""
    return place >> BITS


def number_of(place: int) -> int:
    """The number of the instance; -1 of a step itself."""
    return (place & _MASK) - 1


def is_instance(place: int) -> bool:
    """True of an instance or a round, False of a step itself."""
    return place & _MASK != 0


class Group:
    """The instances of one step: how many are not settled, and what became of the others.

    At most `window` of them are `active`: ready, or at work. The others wait in a queue, so that the order of who
    is ready stays short however long the list is. A loop has one instance at a time, and no queue.
    """

    __slots__ = ("_queue", "active", "cut", "failed", "open", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.open = 0
        self.failed = False  # an instance failed, covered or not
        self.cut = False     # an instance did not get to its end because the run was ended
        self.active: set[int] = set()
        self._queue: list[int] = []

    def wait(self, place: int) -> None:
        """This instance may begin as soon as there is room in the window."""
        heappush(self._queue, place)

    def admit(self) -> int | None:
        """The next of those that wait, if there is room; it is active now. It may have been settled meanwhile."""
        if not self._queue or len(self.active) >= self.window:
            return None
        place = heappop(self._queue)
        self.active.add(place)
        return place
