"""Scopes of systemd: cgroups for those who may not make any themselves, but may ask the manager of services.

The command is wrapped: systemd-run asks for a scope with itself in it, then becomes the command, so the leader's
pid stays the same. The scope's cgroup is then found by the unit's name, and read as any other; we cannot put one
around all attempts of a run, so what a run may use in all is summed up at each look.
"""

from __future__ import annotations

import os
import select

from .. import effects
from . import procs
from .cgroup import Group, GroupV1, GroupV2
from .cgroups import CONTROLLERS, own_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .tree import Key

PROBE = 3.0  # seconds until a manager that does not answer is none


def command(limits: dict[str, int], unit: str, argv: list[str]) -> list[str]:
    """The command line that holds a command to limits of memory and processes (systemd.resource-control(5))."""
    words = [*_base(), f"--unit={unit}"]
    if "memory" in limits:
        words += ["-p", f"MemoryMax={limits['memory']}", "-p", "MemorySwapMax=0"]
    if "processes" in limits:
        words += ["-p", f"TasksMax={limits['processes']}"]
    return [*words, "--", *argv]


def _base() -> list[str]:
    user = ["--user"] if os.geteuid() else []
    return ["systemd-run", *user, "--scope", "--quiet", "--collect"]


def unit_name(run_id: str, key: Key) -> str:
    """A name for the scope of an attempt; characters that a unit's name may not have become underscores."""
    instance = "".join(one if (one.isalnum() and one.isascii()) or one in "_-." else "_" for one in key[0])
    return f"agentrun-{run_id}-{instance[:100]}-{key[1]}-{os.getpid()}.scope"


def available() -> bool:
    """Whether systemd runs this machine and makes a scope for us: tried once, with `true`."""
    return os.path.isdir("/run/systemd/system") and works()


def works() -> bool:
    """Whether systemd-run can be had: it must make a scope for us within a few seconds."""
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    streams = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    try:
        argv = [*_base(), "--", "true"]
        pid = effects.posix_spawnp("systemd-run", argv, os.environ, file_actions=streams, setsid=True)
    except OSError:
        return False
    finally:
        os.close(null)
    try:
        handle = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return effects.waitpid(pid, 0)[1] == 0
    try:
        if not select.select([handle], [], [], PROBE)[0]:
            effects.kill(pid, 9)
    finally:
        os.close(handle)
    return effects.waitpid(pid, 0)[1] == 0


def adopt(pid: int, unit: str) -> Group | None:
    """The cgroup of a scope in which a process is by now; None while it is not there yet."""
    if os.fsencode(unit) not in procs.read(f"/proc/{pid}/cgroup"):
        return None
    found = {one: path for one, path in own_folders(pid).items() if f"/{unit}" in path}
    v1 = {what: found[one] for what, one in CONTROLLERS.items() if one in found}
    if "memory" in v1 or "" not in found:
        return GroupV1(v1) if v1 else None
    path = found[""]
    files = {"memory": "memory.events", "cpu": "cpu.stat", "processes": "pids.events"}
    return GroupV2({what: path for what, name in files.items() if os.path.exists(f"{path}/{name}")})
