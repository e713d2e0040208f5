"""A command line of a crontab while it is peeled: what is left of the text, what became keys, what is to be said."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from ..model import JSON
from .notes import Kind


@dataclass(frozen=True)
class Place:
    """Where a command line runs. `home`: the real folder of `~`, "" where it is not known; `locks`: those to keep."""

    variables: Mapping[str, str] = field(default_factory=dict)
    home: str = ""
    bash: bool = False
    scheduled: bool = True
    kept_locks: Container[str] = ()
    shared_locks: Container[str] = ()

    def real(self, path: str) -> str:
        """Where a file is on this machine; "" where that is not known."""
        if path == "~" or path.startswith("~/"):
            path = self.home + path[1:] if self.home else ""
        return path if os.path.isabs(path) else ""


@dataclass
class Peeling:
    """What is left of a command line. `keys` are the job's, `step` those of its one step."""

    text: str
    place: Place
    keys: dict[str, JSON] = field(default_factory=dict)
    step: dict[str, JSON] = field(default_factory=dict)
    notes: list[tuple[Kind, str, str]] = field(default_factory=list)
    in_env_file: frozenset[str] = frozenset()  # names that the env_file has the last word about

    def say(self, kind: Kind, message: str, hint: str = "") -> None:
        if (kind, message, hint) not in self.notes:
            self.notes.append((kind, message, hint))

    @property
    def folder(self) -> str:
        """Where the text runs, as far as that is lifted; relative to the home where nothing was."""
        found = self.keys.get("working_dir")
        return str(found) if found else self.place.variables.get("HOME", "~")

    def below(self, path: str) -> str:
        """A path as it is meant there."""
        if path.startswith(("/", "~")):
            return path
        return os.path.normpath(os.path.join(self.folder, path))


def duration(written_: str) -> str:
    """A duration of coreutils as ours; "" where there is none, or none at all."""
    found = re.fullmatch(r"(\d+)(?:\.0+)?([smhd]?)", written_)
    if found is None or not int(found[1]):
        return ""
    return lasting(int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]])


def lasting(seconds: int) -> str:
    """As people write it: 90s, 5m, 12h."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0 and seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
