"""The folders of systemd's units, and systemd itself: units put there and started, stopped and removed.

Where no systemd runs (a container, an image being made), the files are written all the same, and the commands that are
left to be given are returned for somebody to be told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from ..errors import CannotWrite, Missing
from . import systemd
from .places import put
from .systemd import MARK, RESUME, Unit, job_file, unit_name

Scope = Literal["user", "system"]

SYSTEM_FOLDER = "/etc/systemd/system"
_PATIENCE = 60.0  # seconds for one call of systemctl
_ALIVE = {"initializing", "starting", "running", "degraded", "maintenance"}


class Installed(NamedTuple):
    """A job that has units in a folder. `file`: its job file, as far as the service says."""

    name: str
    file: str | None
    scope: Scope


def folder(scope: Scope) -> str:
    """Where the units of this user or of the machine are."""
    if scope == "system":
        return SYSTEM_FOLDER
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(os.path.abspath(config), "systemd", "user")


def has_systemd() -> bool:
    """Whether this machine has the command."""
    return shutil.which("systemctl") is not None


def installed(scope: Scope) -> list[Installed]:
    """The jobs that have units of ours there."""
    found = []
    for name in _ours(scope):
        job = name.removeprefix(unit_name("")).removesuffix(".timer")
        if name.endswith(".timer") and job != RESUME.removeprefix(unit_name("")):
            found.append(Installed(job, job_file(_text(scope, f"{unit_name(job)}.service")), scope))
    return found


def setting(scope: Scope, name: str) -> str | None:
    """What a variable is set to for all of them."""
    return systemd.setting(_text(scope, f"{RESUME}.service"), name)


def add(scope: Scope, units: Sequence[Unit]) -> tuple[bool, list[str]]:
    """Put units there and start their timers; whether anything changed, and the commands that are left to be given.

    Raises CannotWrite, for a unit of somebody else too, and Missing if systemd refuses.
    """
    changed = [unit for unit in units if _text(scope, unit.name) != unit.text]
    for unit in changed:
        theirs = _text(scope, unit.name)
        if theirs and MARK not in theirs:
            raise CannotWrite(
                f"the unit {os.path.join(folder(scope), unit.name)} was not written by agentrun",
                "move it away, or give the job another name",
            )
    try:
        if changed:
            os.makedirs(folder(scope), exist_ok=True)
        for unit in changed:
            put(os.path.join(folder(scope), unit.name), os.fsencode(unit.text), 0o644)
    except OSError as error:
        raise CannotWrite(
            f"the units cannot be written to {folder(scope)}: {error.strerror}",
            "as root, or without --system: the units of a user need no right",
        ) from None
    timers = [unit.name for unit in units if unit.name.endswith(".timer")]
    if not _runs(scope):
        left = [["daemon-reload"], ["enable", "--now", *timers]] if changed else []
        return bool(changed), [_shown(scope, words) for words in left]
    if changed:
        _order(scope, "daemon-reload")
        again = {unit.name.rpartition(".")[0] + ".timer" for unit in changed}.intersection(timers)
        _order(scope, "enable", *timers)
        _order(scope, "restart", *sorted(again))
    idle = [timer for timer in timers if not _is(scope, "is-enabled", timer) or not _is(scope, "is-active", timer)]
    if idle:
        _order(scope, "enable", "--now", *idle)
    return bool(changed or idle), []


def remove(scope: Scope, jobs: Sequence[str]) -> None:
    """Stop the timers of these jobs and remove their units; `resume` goes with the last.

    A run that is at work goes on: only its timer is stopped. Raises CannotWrite, Missing.
    """
    gone = [unit_name(job) for job in jobs]
    if not {one.name for one in installed(scope)} - set(jobs):
        gone.append(RESUME)
    ours = _ours(scope)
    names = [name for unit in gone for name in (f"{unit}.timer", f"{unit}.service") if name in ours]
    timers = [name for name in names if name.endswith(".timer")]
    runs = _runs(scope)
    if runs and timers:
        _order(scope, "disable", "--now", *timers)
    try:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder(scope), "timers.target.wants", name))
            os.unlink(os.path.join(folder(scope), name))
    except OSError as error:
        raise CannotWrite(f"the units cannot be removed from {folder(scope)}: {error.strerror}") from None
    if runs and names:
        _order(scope, "daemon-reload")


def _ours(scope: Scope) -> list[str]:
    try:
        names = sorted(os.listdir(folder(scope)))
    except OSError:
        return []
    mine = (name for name in names if name.startswith(unit_name("")) and name.endswith((".service", ".timer")))
    return [name for name in mine if MARK in _text(scope, name)]


def _text(scope: Scope, name: str) -> str:
    try:
        with open(os.path.join(folder(scope), name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return ""


def _runs(scope: Scope) -> bool:
    return has_systemd() and _ask(scope, "is-system-running")[1].strip() in _ALIVE


def _is(scope: Scope, question: str, unit: str) -> bool:
    return _ask(scope, question, "--quiet", unit)[0] == 0


def _order(scope: Scope, *words: str) -> None:
    status, _, said = _ask(scope, *words)
    if status:
        raise Missing(
            f"systemd refuses `{_shown(scope, words)}`: {said.strip() or f'status {status}'}",
            "the files are in place: when that is repaired, give the command by hand",
        )


def _ask(scope: Scope, *words: str) -> tuple[int, str, str]:
    try:
        asked = subprocess.run(
            _words(scope, words), stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False,
            text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, "", f"no answer within {_PATIENCE:g} s"
    return asked.returncode, asked.stdout, asked.stderr


def _words(scope: Scope, words: Sequence[str]) -> list[str]:
    return ["systemctl", *(["--user"] if scope == "user" else []), *words]


def _shown(scope: Scope, words: Sequence[str]) -> str:
    return " ".join(_words(scope, words))
