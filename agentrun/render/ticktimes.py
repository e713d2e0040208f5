"""The coming ticks of a job: a table for people, and the JSON of `next`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cron.zones import local
from ..instants import rfc3339
from .tables import Column, Row, table
from .terminal import Look

if TYPE_CHECKING:
    from ..model import JSON

_COLUMNS = (Column("TICK"), Column("DAY"), Column("ZONE", drop=2), Column("", drop=1))
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def upcoming_table(ticks: Sequence[int], zone: str | None, name: str, now: int, look: Look) -> list[str]:
    """A line for each tick; `name` is what the zone is called."""
    rows = []
    for tick in ticks:
        at = local(tick, zone)
        cells = (f"{at:%Y-%m-%d %H:%M %z}", f"{at:%a}", name, distance(tick - now))
        rows.append(Row(cells, {3: ("dim",)}))
    return table(_COLUMNS, rows, look)


def upcoming_shapes(ticks: Sequence[int], zone: str | None, name: str) -> list[JSON]:
    """The same for programs."""
    shapes: list[JSON] = []
    for tick in ticks:
        at = local(tick, zone)
        shapes.append(
            {
                "schema": "agentrun.tick/1",
                "time": at.isoformat(),
                "utc": rfc3339(tick),
                "zone": name,
                "weekday": f"{at:%A}",
            }
        )
    return shapes


def distance(ms: int) -> str:
    """How far off it is: `in 3 h`, `in 12 d`, `4 min ago`, `now`; the unit is the largest of which there are two."""
    far = abs(ms)
    for unit, length in _UNITS:
        number = round(far / length)
        if number >= 2 or (unit == "s" and number):
            return f"in {number} {unit}" if ms > 0 else f"{number} {unit} ago"
    return "now"
