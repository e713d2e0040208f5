"""Times as people and programs read them.

Programs get RFC 3339 in UTC with milliseconds, always the same width, so that they sort as text. People get
their own time zone: the time of day for today, else the day.
"""

from __future__ import annotations

import re
import time

from ..instants import parse_rfc3339, rfc3339

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def now_ms() -> int:
    """The time of day, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def rfc3339_or_none(ms: int | None) -> str | None:
    """RFC 3339 of what may not have happened yet."""
    return None if ms is None else rfc3339(ms)


def short(ms: int | None, now: int) -> str:
    """When it was, in local time: `10:00:07` today, `Nov 20 10:00` in this half year, else `2026-11-20`."""
    if ms is None:
        return "-"
    at, today = time.localtime(ms / 1000), time.localtime(now / 1000)
    if at[:3] == today[:3]:
        return time.strftime("%H:%M:%S", at)
    if abs(now - ms) < 180 * 86_400_000:
        return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2d} {at.tm_hour:02d}:{at.tm_min:02d}"
    return time.strftime("%Y-%m-%d", at)


def minute(ms: int) -> str:
    """When it was, in local time, whatever the day: `Nov 20 10:00`."""
    at = time.localtime(ms / 1000)
    return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2d} {at.tm_hour:02d}:{at.tm_min:02d}"


def full(ms: int) -> str:
    """When it was, in local time, with its offset: `2026-11-20 10:00:07 +0100`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(ms / 1000))


def duration(ms: int | None) -> str:
    """How long it took: `0.3 s`, `12.4 s`, `4 min 07 s`, `2 h 05 min`, `3 d 04 h`; `-` if unknown."""
    if ms is None:
        return "-"
    ms = max(ms, 0)
    tenths = round(ms / 100)
    if tenths < 600:
        return f"{tenths // 10}.{tenths % 10} s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = seconds // 60
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"


def roughly(ms: int) -> str:
    """How long it may take, without false exactness: `about 30 s`, `about 4 min`, `about 2 h 10 min`."""
    seconds = max(ms, 0) // 1000
    if seconds < 10:
        return "a few seconds"
    if seconds < 60:
        return f"about {seconds // 10 * 10} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60 // 10 * 10:02d} min"


def moment(text: str, now: int) -> int:
    """The ms since the epoch of a moment in the past as people give it.

    A duration ago (`10m`), a time of day (`03:00`: the last one), `today` and `yesterday` (when they began), or
    RFC 3339. What has no offset is local. Raises ValueError.
    """
    from ..spec.values import parse_duration

    text = text.strip()
    if text in ("today", "yesterday"):
        return _midnight(now, -1 if text == "yesterday" else 0)
    if match := re.fullmatch(r"(\d\d?):(\d\d)(?::(\d\d))?", text):
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError(f"no time of day: {text!r}")
        today = _midnight(now, 0, hour, minute, second)
        return today if today <= now else _midnight(now, -1, hour, minute, second)
    try:
        return now - parse_duration(text)
    except ValueError:
        return parse_rfc3339(text)


def _midnight(now: int, days: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """A time of the local day that lies `days` from today; without a time, its beginning."""
    day = time.localtime(now / 1000)
    return int(time.mktime((day.tm_year, day.tm_mon, day.tm_mday + days, hour, minute, second, 0, 0, -1))) * 1000
