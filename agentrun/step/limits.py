"""The limits of a run and of its attempts: chosen once what enforces them, then one look every 0.5 s.

    cgroup v2, cgroup v1   the kernel holds memory and processes to their limits (cgroups.py)
    systemd scope          so it does, for each attempt by itself (scopes.py)
    sampling               /proc is read (meter.py); RLIMIT_DATA stops a process that runs away between two looks

Processor time is counted by the kernel and compared at the looks, whatever enforces the rest; output is
counted as it arrives. `enforced_by` says what is in force, and names what is only sampled. An attempt that ends with
0 before anybody ended it has kept to them: what it had crossed by then is nobody's to say any more.

What the run has used: what it did under earlier shims (`spent`), the attempts that are gone, and those that live. A
limit that is crossed stays crossed: it is told once, and to each new supervisor; who is to be ended then is the
supervisor's to say, and ours only if nobody says it.

AGENTRUN_LIMITS=sampling or =systemd, in the environment, chooses for a test what would not be chosen here.
"""

from __future__ import annotations

import os
import time

from . import procs, scopes
from .cgroups import Cgroups, find
from .meter import RESOURCES, SAMPLING, Meter
from .stillness import Stillness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store.folders import RunFolder
    from .attempt import Attempt
    from .results import Result

LOOK = 0.5          # seconds
COUNTING = "counted as it is written"
UNHEARD = 2.0       # seconds after which a run over its limit is ended by us if there is no supervisor
UNHEEDED = 10.0     # and if there is one
KILLS_AGE = 0.05    # seconds; 60 µs to read the machine's count again are too many for each of 10,000 attempts
KILLED_FOR = ("memory", "processes")  # who crosses one of these is not asked to clear up first


class Limits:
    """All that is limited in one shim. `over`: limits of the run that were crossed, with what was used by then."""

    __slots__ = (
        "_cgroups", "_decided", "_ended", "_explained", "_folder", "_kills", "_kills_at", "_live", "_next", "_over_at",
        "_own_at", "_own_kills", "_scopes", "_stale", "_tell", "enforced_by", "over", "run", "spent", "stillness",
    )  # fmt: skip

    def __init__(
        self, folder: RunFolder, run: dict[str, int], spent: dict[str, int], tell: Callable[[str, int], None],
        tell_stuck: Callable[[], None],
    ) -> None:
        self._folder = folder
        self.run = run
        self.spent = {"cpu": 0, "output": 0, **spent}
        self._tell = tell
        self.over: dict[str, int] = {}
        self.enforced_by: str | None = None
        self._next: float | None = None      # when to look; None: nothing limited lives
        self.stillness = Stillness(tell_stuck)
        self._decided = self._scopes = self._ended = False
        self._cgroups: Cgroups | None = None
        self._live: dict[Attempt, Meter] = {}
        self._stale: list[Meter] = []        # whose cgroup could not be removed yet
        self._over_at = 0.0
        self._explained = 0                  # kills of the kernel's that attempts account for which have ended
        self._own_kills = 0                  # and those that live, when they were asked last
        self._kills = 0.0                    # of the machine
        self._kills_at = self._own_at = -1.0

    def begin(self, *, limited: bool) -> None:
        """The run is known, and whether any order will be limited; what is spent already may be too much."""
        if limited or any(what in self.run for what in RESOURCES):
            self._decide()
        for what in ("cpu", "output"):
            self._check(what, self.spent[what])

    def _decide(self) -> None:
        if self._decided:
            return
        self._decided = True
        forced = os.environ.get("AGENTRUN_LIMITS")
        found = find(self._folder) if forced not in ("sampling", "systemd") else None
        if found is None or "memory" not in found.covers:
            self._scopes = scopes.works() if forced == "systemd" else not forced and scopes.available()
            if found and self._scopes:
                found.close()
                found = None
        self._cgroups = found
        if found and self.run:
            found.hold_run(self.run)
        self.enforced_by = self._words()

    def _words(self) -> str:
        if self._scopes:
            summed = [what for what in ("memory", "processes") if what in self.run]
            return "systemd scope" + (f"; {' and '.join(summed)} of the run: {SAMPLING}" if summed else "")
        if self._cgroups is None or self._cgroups.stuck:
            return SAMPLING
        sampled = [what for what in RESOURCES if what not in self._cgroups.covers]
        return self._cgroups.name + (f"; {' and '.join(sampled)}: {SAMPLING}" if sampled else "")

    # ---- attempts

    def measure(self, attempt: Attempt) -> None:
        """Give it a meter, before its process exists, if anything limits it."""
        limits: dict[str, int] = attempt.order.get("limits") or {}
        shared = self.run if attempt.counted else {}
        if not limits and not shared:
            return
        wanted = [what for what in RESOURCES if what in limits or what in shared]
        meter = attempt.meter = Meter(attempt.kin, limits, wanted, self if shared else None)
        self._live[attempt] = meter
        meter.enforced_by = COUNTING
        if wanted:
            self._decide()
            meter.enforced_by = self._words()
            self._enclose(attempt, meter, limits, shared)
            if self._next is None:
                self._next = time.monotonic() + LOOK

    def _enclose(self, attempt: Attempt, meter: Meter, limits: dict[str, int], shared: dict[str, int]) -> None:
        if self._scopes:
            if "memory" in limits or "processes" in limits:
                meter.unit = scopes.unit_name(self._folder.run_id, attempt.key)
            return
        if self._cgroups is None or self._cgroups.stuck:
            return
        try:
            meter.place(self._cgroups, self._cgroups.make(attempt.key, counted=bool(shared)))
        except OSError:
            meter.enforced_by = SAMPLING

    def begun(self, attempt: Attempt, pid: int) -> None:
        """Its process exists."""
        if attempt.meter:
            attempt.meter.begun(pid)
            if attempt.meter.group and (attempt.meter.group.tight or (self._cgroups and self._cgroups.counted.tight)):
                self._next = time.monotonic()
        self.stillness.watch(attempt)

    def ended(self, attempt: Attempt) -> None:
        """Its leader has ended: what the result says of what it used. A look at what it crossed unseen."""
        meter, result = attempt.meter, attempt.result
        assert result
        if attempt.ending and attempt.cause in KILLED_FOR and result.exit_code == 0:
            attempt.cause = None  # a KILL leaves no status: it was over before ours came
        if meter:
            self._account(attempt, meter, result)
        told = attempt.ending or attempt.cause or result.oom or (meter and meter.tells_kills)
        if result.signal == 9 and not told:
            result.oom = self._machine_killed(attempt)

    def _account(self, attempt: Attempt, meter: Meter, result: Result) -> None:
        crossed = meter.look()
        cpu, peak, victims = meter.totals()
        result.cpu_ms = max(result.cpu_ms, cpu)
        result.max_rss_kib = max(result.max_rss_kib, peak >> 10)
        result.oom = victims and result.exit_code != 0
        result.enforced_by = meter.enforced_by
        if result.exit_code != 0 and not attempt.ending and attempt.cause is None:
            if crossed == "processes":
                attempt.cause = crossed  # what forks without end may leave others to it
            elif not result.oom and result.cpu_ms > meter.limits.get("cpu", result.cpu_ms):
                attempt.cause = "cpu"
        self._blame(meter)

    def gone(self, attempt: Attempt) -> None:
        """Nothing of it lives."""
        self.stillness.forget(attempt)
        meter = self._live.pop(attempt, None)
        if meter is None:
            return
        if meter.run:
            self.spent["cpu"] += meter.totals()[0]
        if kills := meter.kills():
            self._explained += kills
            self._own_kills = max(0, self._own_kills - kills)
            self._kills_at = -1.0
        attempt.meter = None
        if not meter.remove():
            self._stale.append(meter)

    # ---- the look

    @property
    def next(self) -> float | None:
        """When to look; None: there is nothing to look at."""
        times = [one for one in (self._next, self.stillness.next) if one is not None]
        return min(times, default=None)

    def look(self) -> list[tuple[Attempt, str]]:
        """Which attempts crossed a limit of their own, and which; "stuck" is one."""
        crossed = [(attempt, "stuck") for attempt in self.stillness.look()]
        return crossed if self._next is None or self._next > time.monotonic() else crossed + self._measure()

    def _measure(self) -> list[tuple[Attempt, str]]:
        """Measure all that lives."""
        crossed = []
        for attempt, meter in list(self._live.items()):
            what = meter.look()
            if what:
                crossed.append((attempt, what))
            else:
                self._blame(meter)
        self._look_at_run()
        if self._cgroups and self._cgroups.stuck:
            self._cgroups.leave()
        self._stale = [meter for meter in self._stale if not meter.remove()]
        self._next = time.monotonic() + LOOK if self._live or self._stale else None
        return crossed

    def _look_at_run(self) -> None:
        live = [meter for meter in self._live.values() if meter.run]
        for what in RESOURCES:
            if what not in self.run or what in self.over:
                continue
            if what != "cpu" and self._cgroups and not self._cgroups.stuck and what in self._cgroups.covers:
                counted = self._cgroups.counted  # the kernel holds it
                if what in counted.tight:
                    self._check(what, counted.memory() if what == "memory" else counted.processes())
                continue
            used = self.spent.get(what, 0) + sum(meter.use[what] for meter in live)
            if what == "memory" and used > self.run[what]:
                for meter in live:
                    meter.divide()
                used = sum(meter.use[what] for meter in live)
            self._check(what, used)

    def _blame(self, meter: Meter) -> None:
        """What the kernel did to an attempt that kept to its own limits, it did for the run's."""
        if meter.run is None or self._cgroups is None:
            return
        counted = self._cgroups.counted
        if "memory" in self.run and meter.blames_run("memory") and counted.full():
            self._cross("memory", max(self.run["memory"], counted.memory()))
        if "processes" in self.run and meter.blames_run("processes"):
            self._cross("processes", max(self.run["processes"], counted.processes()))

    def admit(self, count: int) -> int:
        """How many of these bytes of output the run's limit leaves room for."""
        limit = self.run.get("output")
        if limit is None:
            return count
        kept = max(0, min(count, limit - self.spent["output"]))
        self.spent["output"] += kept
        if kept < count:
            self._cross("output", self.spent["output"] + count - kept)
        return kept

    def _check(self, what: str, used: int) -> None:
        if what in self.run and used > self.run[what]:
            self._cross(what, used)

    def _cross(self, what: str, used: int) -> None:
        if what in self.over:
            return
        if not self.over:
            self._over_at = time.monotonic()
            if self._next is None:
                self._next = self._over_at + LOOK  # nothing is measured, but somebody may have to end it
        self.over[what] = used
        self._tell(what, used)

    def left_alone(self, attended: bool) -> bool:
        """Whether the run has been over so long that what counts is ours to end. True once."""
        patience = UNHEEDED if attended else UNHEARD
        if not self.over or self._ended or time.monotonic() - self._over_at < patience:
            return False
        self._ended = True
        return True

    # ---- memory of the machine

    def kills_before(self, attempt: Attempt) -> float:
        """What `_machine_killed` compares with: to be asked just before its process exists."""
        if attempt.meter and attempt.meter.tells_kills:
            return float("inf")  # by its own count alone, or by none if it cannot enter its cgroup after all
        own = self._own_kills_now(LOOK)
        return self._machine_kills(KILLS_AGE) - own

    def _machine_killed(self, attempt: Attempt) -> bool:
        """Whether the KILL that ended it was the kernel's, for want of memory: it killed, and no other explains it.

        Where that cannot be told it was not: what the cgroups of attempts count is taken off, each of the others
        is believed of one attempt only. The kernel counts for the machine first, so that is read first.
        """
        if self._machine_kills(0) - self._own_kills_now(0) <= attempt.kills:
            return False
        self._explained += 1
        return True

    def _machine_kills(self, age: float) -> float:
        """How often this machine's kernel killed for want of memory; the answer may be so many seconds old."""
        if time.monotonic() - self._kills_at >= age:
            self._kills_at = time.monotonic()
            text = procs.read("/proc/vmstat")
            _, found, rest = text.partition(b"\noom_kill ")
            self._kills = float(rest.partition(b"\n")[0]) if found else 0.0
        return self._kills

    def _own_kills_now(self, age: float) -> int:
        """How many of them attempts of ours account for; of those that live the answer may be so old."""
        if time.monotonic() - self._own_at >= age:
            self._own_at = time.monotonic()
            self._own_kills = sum(meter.kills() for meter in self._live.values())
            self._kills_at = -1.0  # what is compared with it must not be older
        return self._explained + self._own_kills

    def close(self) -> None:
        """Remove all cgroups in which nobody lives."""
        for meter in self._stale:
            meter.remove()
        if self._cgroups:
            self._cgroups.close()
