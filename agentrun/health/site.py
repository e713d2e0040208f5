"""What all checks look at: one state folder, its record, the user's crontab, the environment and the time.

Nothing here is made or changed, and each part is looked at once, when it is first asked for. What cannot be looked
at raises an error that says so, each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property

from ..errors import AgentrunError, Missing
from ..store import inspection
from ..store.inspection import Inspection
from . import crontab

NOT_KNOWN, FIRST = "not known: the database cannot be read", "first do what is said at `database`"


class Site:
    """A state folder and what surrounds it. `now`: ms since the epoch."""

    def __init__(self, root: str, environ: Mapping[str, str], now: int | None = None) -> None:
        self.root = root
        self.environ = environ
        self.now = time.time_ns() // 1_000_000 if now is None else now

    @cached_property
    def is_there(self) -> bool:
        """Whether the state folder exists. Raises OSError where that cannot be told."""
        try:
            os.stat(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @cached_property
    def standing(self) -> str:
        """The state folder, or the nearest folder above it that exists: where it would be made."""
        path = self.root
        while True:
            try:
                os.stat(path)
                return path
            except (FileNotFoundError, NotADirectoryError):
                path = os.path.dirname(path)

    @cached_property
    def database(self) -> Inspection | None:
        """The database as it is, None where there is none yet. Raises StoreError, OSError."""
        return inspection.inspect(self.root)

    @property
    def record(self) -> Inspection | None:
        """The same, for who asks about runs. Raises Missing where it cannot be asked, or has been lost."""
        try:
            found = self.database
            if found is None and not self.folders:
                return None
        except (AgentrunError, OSError):
            found = None
        if found is not None and found.known:
            return found
        raise Missing(NOT_KNOWN, FIRST)

    @cached_property
    def folders(self) -> int:
        """How many there are of runs: whoever makes one has made the database before. Raises OSError."""
        try:
            return len(os.listdir(os.path.join(self.root, "runs")))
        except (FileNotFoundError, NotADirectoryError):
            return 0

    @cached_property
    def crontab(self) -> crontab.Crontab:
        """Of this user. Raises OSError, subprocess.SubprocessError."""
        return crontab.of_this_user(self.environ)

    def close(self) -> None:
        """End what was opened."""
        if found := self.__dict__.get("database"):
            found.close()
