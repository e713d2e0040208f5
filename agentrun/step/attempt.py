"""One order and what became of it, as the shim knows it; `attempts.py` moves it from state to state."""

from __future__ import annotations

import time

from .boot import boot_id
from .results import Result
from .tree import Key, Kin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .meter import Meter
    from .output import Pipe
    from .places import Place


_ahead: int | None = None


def set_clock(ahead: int | None) -> None:
    """Count time as the run's supervisors do (engine/clock.py): `ahead` ms before CLOCK_BOOTTIME."""
    global _ahead
    _ahead = ahead


def wall() -> int:
    """Wall time in ms since the epoch, which does not jump with the machine's clock."""
    if _ahead is None:
        return time.time_ns() // 1_000_000
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 + _ahead


class Attempt:
    """One order and what became of it."""

    __slots__ = (
        "begun",
        "begun_at",
        "carried",
        "cause",
        "counted",
        "due",
        "ending",
        "epoch",
        "gentle",
        "grace",
        "key",
        "killing",
        "kills",
        "kin",
        "leave",
        "leaves",
        "meter",
        "order",
        "patience",
        "pipe",
        "place",
        "recorded",
        "result",
        "stirred",
        "written",
    )

    def __init__(self, order: dict[str, Any], epoch: int, kin: Kin | None = None) -> None:
        self.order = order
        self.key: Key = (order["instance"], order["attempt"])
        self.kin = kin or Kin(self.key)
        self.leave: bool = bool(order.get("leave_running"))
        self.grace = 10_000 if order.get("grace") is None else int(order["grace"])
        self.epoch = epoch
        self.counted = bool(order.get("counted", True))  # towards the run's limits
        self.gentle = bool(order.get("gentle"))          # its process ends its own tree when it is told to
        self.carried = "known_as" in order               # its shell goes on where another one ended
        self.leaves: list[str] | None = order.get("leaves")  # state and record of what it hands on (handing.py)
        self.patience: float | None = None               # until then what it left may read its pipe to the end
        self.meter: Meter | None = None                  # none: nothing limits it
        self.kills = 0.0                                 # for want of memory, before it began (limits.py)
        self.pipe: Pipe | None = None
        self.place: Place | None = None
        self.begun = False       # it has or had a process
        self.begun_at = wall()
        self.due: float | None = None
        self.cause: str | None = None
        self.ending = False
        self.killing = 0         # rounds so far
        self.result: Result | None = None
        self.written = 0         # bytes, once its pipe is closed
        self.stirred = False     # a process of it was waited for (stillness.py)
        self.recorded = False

    def ended(self, code: int | None, number: int | None, usage: Any) -> Result:
        """Its result so far: how its leader ended, and what the kernel says that this used."""
        self.result = Result(
            {
                "instance": self.key[0],
                "attempt": self.key[1],
                "epoch": self.epoch,
                "boot_id": boot_id(),
                "started_at": self.begun_at,
                "exit_code": code,
                "signal": number,
                "cpu_ms": int((usage.ru_utime + usage.ru_stime) * 1000) if usage else 0,
                "max_rss_kib": usage.ru_maxrss if usage else 0,
            }
        )
        return self.result
