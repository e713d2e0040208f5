"""What one limited attempt uses, and which of its limits that crosses.

Where the kernel counts (a cgroup), its count is read; what it does not count is found by walking the attempt's
tree. Resident memory counts what processes share once for each, so a sum above the limit is asked again as
proportional shares. Processor time of the dead is what was waited for, by their parents or by us, and a sum never
goes back. Threads count as processes, as in the kernel.

Output is counted as it arrives, exactly: what is above the limit is not written.
"""

from __future__ import annotations

import os
import resource

from . import procs, scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .cgroup import Group
    from .cgroups import Cgroups
    from .limits import Limits
    from .tree import Kin

SAMPLING = "sampling every 0.5 s"
RESOURCES = ("memory", "processes", "cpu")  # what is ended at once comes first
_TICK = 1000 // os.sysconf("SC_CLK_TCK")    # ms
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROOM = 4 << 30  # bytes


class Meter:
    """One attempt's. `use`: memory in bytes and processes at the last look, cpu in ms so far, and output in bytes.

    `group`: the cgroup that holds it, if any. `run`: whose limits it counts towards, if anybody's.
    """

    __slots__ = (
        "_cgroups", "_pid", "_wanted", "cut", "enforced_by", "group", "kin", "limits", "peak", "reaped", "run",
        "unit", "use",
    )  # fmt: skip

    def __init__(self, kin: Kin, limits: dict[str, int], wanted: Collection[str], run: Limits | None) -> None:
        self.kin = kin
        self.limits = limits
        self.run = run
        self.cut = False                     # it wrote more than its limit
        self.use = {"memory": 0, "processes": 0, "cpu": 0, "output": 0}
        self.peak = 0
        self.reaped = 0.0                    # seconds of processor time of those that we waited for
        self.group: Group | None = None
        self.unit: str | None = None         # of the scope that its group will be
        self.enforced_by = ""
        self._cgroups: Cgroups | None = None
        self._wanted = wanted                # what any limit is about
        self._pid = 0

    # ---- its birth

    def place(self, cgroups: Cgroups, group: Group) -> None:
        """It will be born in this cgroup."""
        self._cgroups, self.group = cgroups, group

    def wrap(self, argv: list[str]) -> list[str]:
        """The command that starts it."""
        return scopes.command(self.limits, self.unit, argv) if self.unit else argv

    def enter(self) -> None:
        """Now its process is born."""
        if self._cgroups and self.group and not self._cgroups.enter(self.group):
            self._do_without()

    def leave(self) -> None:
        """It was."""
        if self._cgroups and self.group and not self._cgroups.leave():
            self._do_without()

    def _do_without(self) -> None:
        self.group = self._cgroups = None
        self.enforced_by = SAMPLING

    def begun(self, pid: int) -> None:
        """Its process exists: from now on it is held to its limits.

        Where the kernel does not count its memory the looks do, and between two of them a process that runs away is
        refused more at 4 GiB above the limit. Not at less: RLIMIT_DATA counts what was asked for, used or not, so
        the stacks of 100 threads are 800 MiB.
        """
        self._pid = pid
        if self.group:
            self.group.limit(self.limits)
        if "memory" in self.limits and not self._covered("memory") and not self.unit:
            wanted = self.limits["memory"] + _ROOM
            try:
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                if hard == resource.RLIM_INFINITY or hard > wanted:
                    resource.prlimit(pid, resource.RLIMIT_DATA, (wanted, wanted))
            except (OSError, ValueError):
                pass  # it is gone, or became another user's: the looks remain

    def _covered(self, what: str) -> bool:
        return self.group is not None and what in self.group.folders

    # ---- its use

    def admit(self, count: int) -> int:
        """So many bytes have come; how many of them may be written."""
        kept = count
        if "output" in self.limits:
            kept = min(kept, self.limits["output"] - self.use["output"])
            self.cut = self.cut or kept < count
        if self.run:
            kept = min(kept, self.run.admit(kept))
        self.use["output"] += kept
        return kept

    def look(self) -> str | None:
        """Measure; which of its own limits is crossed."""
        self._measure()
        for what in RESOURCES:
            if what in self.limits and self._crossed(what):
                return what
        return None

    def _measure(self) -> None:
        if self.unit and not self.group and self._pid == self.kin.leader:
            self.group = scopes.adopt(self._pid, self.unit)
        walk = False
        for what in self._wanted:
            if self.group is None or what not in self.group.folders:
                walk = True
            elif what == "cpu":
                self.use["cpu"] = max(self.use["cpu"], self.group.cpu())
            elif self.unit and what == "memory":  # of a scope: what the run uses is the sum of all
                self.use["memory"] = self.group.memory()
            elif self.unit:
                self.use["processes"] = self.group.processes()
        if walk:
            self._walk()

    def _walk(self) -> None:
        everybody = procs.descendants(self.kin.roots())
        ticks = sum(process.cpu for process in everybody)
        self.use["cpu"] = max(self.use["cpu"], ticks * _TICK + int(self.reaped * 1000))
        if not self._covered("processes"):
            self.use["processes"] = sum(process.threads for process in everybody if process.alive)
        if not self._covered("memory"):
            self.use["memory"] = sum(process.resident for process in everybody) * _PAGE
            if self.use["memory"] > self.limits.get("memory", self.use["memory"]):
                self.divide()
            self.peak = max(self.peak, self.use["memory"])

    def divide(self) -> None:
        """Memory again, more dearly: what is shared counts once."""
        if not self._covered("memory"):
            everybody = procs.descendants(self.kin.roots())
            self.use["memory"] = sum(procs.proportional(one.pid) or one.resident * _PAGE for one in everybody)

    def _crossed(self, what: str) -> bool:
        if self.group and what != "cpu" and self._covered(what):
            if what == "memory":
                return self.group.full() and ("memory" in self.group.tight or self.group.kills() > 0)
            return self.group.crowded(self.limits[what])
        return self.use[what] > self.limits[what]

    def blames_run(self, what: str) -> bool:
        """The kernel killed in it, or refused it a fork, and no limit of its own explains that."""
        if not self.group or not self._covered(what) or (what in self.limits and self._crossed(what)):
            return False
        return (self.group.kills() if what == "memory" else self.group.refused()) > 0

    # ---- its end

    @property
    def tells_kills(self) -> bool:
        """Whether `kills` is all that the kernel killed in it: a scope's cgroup is gone as soon as who was in it."""
        return self.unit is None and self._covered("memory")

    def kills(self) -> int:
        """How many in it the kernel has killed for want of memory, as far as its cgroup tells."""
        return self.group.kills() if self.group and self.tells_kills else 0

    @property
    def holds(self) -> bool:
        """Whether there is a cgroup that only we can remove."""
        return self.group is not None and self.unit is None

    def totals(self) -> tuple[int, int, bool]:
        """Processor time in ms, the most memory in bytes, whether the kernel killed in it for want of memory."""
        if self.group is None:
            return self.use["cpu"], self.peak, False
        self.use["cpu"] = max(self.use["cpu"], self.group.cpu())
        self.peak = max(self.peak, self.group.peak())
        return self.use["cpu"], self.peak, self.group.kills() > 0

    def kill(self) -> None:
        """Kill whoever is in its cgroup."""
        if self.group and not (self._cgroups and self._cgroups.stuck):
            self.group.kill()

    def remove(self) -> bool:
        """Its cgroup is not needed any more. False while somebody lives in it."""
        return self.group is None or self.unit is not None or self.group.remove()
