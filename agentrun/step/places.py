"""Where attempts run: an empty $TMPDIR and a FIFO each, handed from one attempt to the next.

To make and remove them costs more than all else that the shim does for a short attempt: on a journalling file
system each waits for the commits that the supervisor syncs. So a place is used again, if the attempt before left
its folder empty and nobody holds its FIFO any more; what is not as it was is thrown away. As many places exist
as attempts ran at once.

An attempt that may leave something running has a place of its own, named after it: after a crash the name says
whose output still flows.
"""

from __future__ import annotations

import os
import stat

from .. import effects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..store.folders import RunFolder
    from .tree import Key


class Place:
    """The paths of one place."""

    __slots__ = ("fifo", "lasting", "tmp")

    def __init__(self, tmp: str, fifo: str, lasting: bool) -> None:
        self.tmp = tmp
        self.fifo = fifo
        self.lasting = lasting


class Places:
    """All places of one shim."""

    __slots__ = ("_folder", "_free", "_made")

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._free: list[Place] = []
        self._made = 0

    def take(self, key: Key, *, own: bool) -> Place:
        """A place that nobody uses; a new one if there is no other, or if it must be this attempt's `own`.

        Raises OSError if it cannot be made.
        """
        if not own and self._free:
            return self._free.pop()
        if own:
            place = Place(self._folder.tmp(*key), self._folder.fifo(*key), lasting=False)
            try:
                effects.mkdir(place.tmp, 0o700)
            except FileExistsError:
                pass  # of a shim that was killed before it could start this same attempt
        else:
            place = self._make_folder()
        _make_fifo(place.fifo)
        return place

    def _make_folder(self) -> Place:
        while True:
            name = str(self._made)
            self._made += 1
            tmp = os.path.join(self._folder.path, "tmp", name)
            try:
                effects.mkdir(tmp, 0o700)
            except FileExistsError:
                continue  # left by another shim
            return Place(tmp, os.path.join(self._folder.path, "io", f"{name}.fifo"), lasting=True)

    def give_back(self, place: Place, *, unheld: bool) -> bool:
        """Keep it for the next attempt, if it is as good as new. `unheld`: nobody has its FIFO open.

        False if it has to be removed.
        """
        if not place.lasting or not unheld:
            return False
        try:
            if os.listdir(place.tmp) or stat.S_IMODE(os.stat(place.tmp).st_mode) != 0o700:
                return False
        except OSError:
            return False
        self._free.append(place)
        return True

    def close(self) -> None:
        """Remove the free ones: the run needs no more."""
        for place in self._free:
            for remove, path in ((effects.unlink, place.fifo), (effects.rmdir, place.tmp)):
                try:
                    remove(path)
                except OSError:
                    pass
        self._free.clear()


def _make_fifo(path: str) -> None:
    try:
        effects.mkfifo(path, 0o600)
    except FileExistsError:  # a new one, so that no reader or writer of the old is in it
        effects.unlink(path)
        effects.mkfifo(path, 0o600)
