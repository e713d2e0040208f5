"""What agentrun needs of the kernel and of this machine: clocks, /proc, the care of processes, limits.

Where something is missing that can be done without, the finding is good and says what is done instead. What could
leave a trace in this process is tried in a child of it.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable

from ..errors import AgentrunError
from ..step import boot, cgroups, detach, procs, scopes
from ..step.cgroup import pids_in
from .finding import Finding, bad, good
from .site import Site

_FROM, _TO = 2025, 2100  # years; ids of runs begin in 2025
_AHEAD = 60_000  # ms that a record may lie in the future, for a clock that is being corrected
_FILES = 256  # open files: a supervisor or shim needs some 30, and 3 for each step that runs at once
_PROCESSES = 50
_SET = "set it, and let NTP keep it: timedatectl set-ntp true"


def clock(site: Site) -> Finding:
    """It says a likely time, it was not set back, and there is one that nobody sets."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    year = time.gmtime(site.now / 1000).tm_year
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(site.now / 1000))
    if not _FROM <= year < _TO:
        return bad(f"it is {text} by the clock of this machine", _SET)
    newest = _newest(site)
    if newest is not None and newest > site.now + _AHEAD:
        ahead = (newest - site.now) / 1000
        return bad(
            f"the newest run was created {ahead:.0f} s after now ({text}): the clock was set back, or was wrong then",
            "set it, and let NTP keep it; timeouts are not touched by that, timers and the order of runs are",
        )
    return good(f"{text}; {since_boot / 3600:.0f} hours since the boot, by which timeouts are measured")


def _newest(site: Site) -> int | None:
    """When the newest run was created; None if there is none, or the record cannot be asked."""
    try:
        return site.record.newest() if site.record else None
    except AgentrunError:
        return None


def boot_id(site: Site) -> Finding:
    """Which boot this is: what was left by another one is not believed."""
    if found := boot.boot_id():
        return good(found)
    return bad(
        "the kernel does not say (/proc/sys/kernel/random/boot_id cannot be read)",
        "mount /proc; without it the results of before a reboot cannot be told from those of today",
    )


def proc(site: Site) -> Finding:
    """Processes can be found and told apart: by start time, environment and children."""
    pid = os.getpid()
    if procs.look_up(pid) is None or not procs.environment(pid):
        return bad("/proc does not say anything about this process", "mount -t proc proc /proc")
    if not os.path.exists(f"/proc/self/task/{pid}/children"):
        return good("processes are seen; children are found by asking all (a kernel without CONFIG_PROC_CHILDREN)")
    return good("processes, their start times, marks and children are seen")


def pidfd(site: Site) -> Finding:
    """Signals that reach the process that was meant, and no other that got its number."""
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except (OSError, AttributeError) as error:
        return good(f"not to be had ({error}): processes are told by number and start time, just before each signal")
    return good("signals go to the process that was meant, whoever gets its number")


def subreaper(site: Site) -> Finding:
    """What a step leaves behind comes back to its shim."""
    answer = in_child(_comes_back)
    if answer == 0:
        return good("what a step leaves behind comes back to its shim")
    return bad(
        "a process that lost its parent does not come to its subreaper (PR_SET_CHILD_SUBREAPER)",
        "use Linux 3.4 or newer, and a container that allows prctl: else what escapes from a step is not ended",
    )


def in_child(attempt: Callable[[], int]) -> int:
    """The exit status of a child that does this and nothing else; 1 where it raised something."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = attempt()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _comes_back() -> int:
    detach.become_subreaper()
    go, going = os.pipe()
    answer, answering = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            if not os.fork():
                os.close(going)
                os.read(go, 1)  # ends when the one between has gone
                os.write(answering, str(os.getppid()).encode())
        finally:
            os._exit(0)
    os.waitpid(parent, 0)
    os.close(answering)
    os.write(going, b"!")
    return 0 if os.read(answer, 20) == str(os.getpid()).encode() else 1


def limits(site: Site) -> Finding:
    """What would hold steps to their limits, if a run began from here."""
    if forced := site.environ.get("AGENTRUN_LIMITS"):
        return good(f"AGENTRUN_LIMITS={forced} chooses; unset it for what the machine can do")
    own = cgroups.own_folders()
    if (v2 := own.get("")) and _divisible(v2):
        return good(f"cgroup v2: the kernel holds memory and processes of a step's whole tree, below {v2}")
    v1 = {what for what, one in cgroups.CONTROLLERS.items() if one in own and os.access(own[one], os.W_OK)}
    if "memory" in v1:
        return good(f"cgroup v1: the kernel holds or counts {', '.join(sorted(v1))} of a step's whole tree")
    if scopes.available():
        return good("systemd scopes: the kernel holds memory and processes of each step's whole tree")
    counted = f"; {' and '.join(sorted(v1))} by cgroup v1" if v1 else ""
    return good(
        f"a look every half second{counted}, for no cgroup of ours can be written: what grows faster than that is"
        " stopped by RLIMIT_DATA, or too late. As root, or as a service with Delegate=yes, the kernel would hold it"
    )


def _divisible(own: str) -> bool:
    """Whether a run could make cgroups in ours that have a controller for memory."""
    if b"memory" not in procs.read(own + "/cgroup.controllers").split():
        return False
    if not os.access(own + "/cgroup.subtree_control", os.W_OK):
        return False
    # what hands controllers down may hold no process; the root of all may
    return not os.path.exists(own + "/cgroup.type") or set(pids_in(own)) <= {os.getpid()}


def open_files(site: Site) -> Finding:
    """The hard limit leaves room for as many steps at once as somebody will want."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return good("no limit")
    if hard < _FILES:
        return bad(
            f"no more than {hard} for a process: enough for {max(0, hard - 40) // 3} steps at once",
            "raise it: ulimit -Hn, or nofile in /etc/security/limits.conf",
        )
    return good(f"{hard} for a process: enough for {(hard - 40) // 3} steps at once")


def processes(site: Site) -> Finding:
    """There is room for more of them, by the user's limit and by that of each cgroup that we are in."""
    rooms: list[tuple[int, str]] = []
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid():  # root is not held to it
        rooms.append((soft - _threads_of(os.getuid()), f"ulimit -u is {soft}"))
    folders = cgroups.own_folders()
    for folder in {folders[one] for one in ("", "pids") if one in folders}:
        path = folder
        while path.startswith("/sys/fs/cgroup"):
            most, now = procs.read(path + "/pids.max").strip(), procs.read(path + "/pids.current").strip()
            if most.isdigit() and now.isdigit():
                rooms.append((int(most) - int(now), f"{path}/pids.max is {int(most)}"))
            path = os.path.dirname(path)
    if not rooms:
        return good("no limit but the kernel's")
    room, why = min(rooms)
    if room < _PROCESSES:
        return bad(f"room for {max(room, 0)} more only: {why}", "raise that limit, or end what runs")
    return good(f"room for {room} more: {why}")


def _threads_of(uid: int) -> int:
    count = 0
    for pid in procs.every_pid():
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                process = procs.look_up(pid)
                count += process.threads if process else 0
        except OSError:
            continue
    return count
