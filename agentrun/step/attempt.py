"""One order and what became of it, as the shim knows it; `attempts.py` moves it from state to state."""

from __future__ import annotations

import time

from .results import Result
from .tree import Key, Kin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .output import Pipe
    from .places import Place


def wall() -> int:
    """Wall time in ms since the epoch."""
    return time.time_ns() // 1_000_000


class Attempt:
    """One order and what became of it."""

    __slots__ = (
        "begun",
        "begun_at",
        "cause",
        "due",
        "ending",
        "epoch",
        "grace",
        "key",
        "killing",
        "kin",
        "leave",
        "order",
        "pipe",
        "place",
        "recorded",
        "result",
        "written",
    )

    def __init__(self, order: dict[str, Any], epoch: int, kin: Kin | None = None) -> None:
        self.order = order
        self.key: Key = (order["instance"], order["attempt"])
        self.kin = kin or Kin(self.key)
        self.leave: bool = bool(order.get("leave_running"))
        self.grace = 10_000 if order.get("grace") is None else int(order["grace"])
        self.epoch = epoch
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
        self.recorded = False
