"""Which files the steps of a job name, and what was in them: so that a resume can say what has changed since.

Only files that are there when the run is created count, found word by word in `run` and from the module of
`python`; nothing is parsed. A change is told and nothing more: the run goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

from ..digest import sha256_hex
from ..model import Job
from ..store.folders import RunFolder

_WORD = re.compile(r"[A-Za-z0-9_./+@%-]{1,255}")
_BIGGEST = 4 << 20  # bytes; a larger file is data, not program


def save(folder: RunFolder, job: Job, job_folder: str) -> None:
    """Keep what the named files hold now. Not synced: without it a resume has nothing to tell, no more."""
    prints = _prints(job, job_folder)
    if prints:
        with open(os.open(path_in(folder), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(prints, file)


def changed(folder: RunFolder) -> list[str]:
    """The named files that are not what they were, in order."""
    try:
        with open(path_in(folder)) as file:
            kept: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        return []
    return sorted(name for name, digest in kept.items() if _digest(name) != digest)


def path_in(folder: RunFolder) -> str:
    """Where they are kept."""
    return folder.path + "/files.json"


def _prints(job: Job, job_folder: str) -> dict[str, str]:
    base = os.path.join(job_folder, os.path.expanduser(job.working_dir or ""))
    prints: dict[str, str] = {}
    for name in dict.fromkeys(_names(job)):
        path = os.path.normpath(os.path.join(base, name))
        digest = _digest(path)
        if digest is not None:
            prints[path] = digest
    return prints


def _names(job: Job) -> Iterator[str]:
    for step in job.steps:
        if step.run is not None:
            yield from _WORD.findall(step.run)
        elif step.python is not None and step.python.module is not None:
            stem = step.python.module.replace(".", "/")
            yield stem + ".py"
            yield stem + "/__init__.py"


def _digest(path: str) -> str | None:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _BIGGEST:
            return None
        with open(path, "rb") as file:
            return sha256_hex(file.read())
    except (OSError, ValueError):
        return None
