"""The shim that `__main__` forked before anything was loaded, for the one verb that uses it."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be carried by every shim
if TYPE_CHECKING:
    from ..step.link import Link

link: Link | None = None


def take() -> Link | None:
    """The early shim, once; the caller opens or closes it."""
    global link
    taken, link = link, None
    return taken
