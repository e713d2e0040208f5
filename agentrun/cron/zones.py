"""What the machine's own zone is called, and local times with their offset from UTC."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone

from .ticks import offsets

_LINK = "/etc/localtime"
_FOLDER = "zoneinfo/"


def machine_zone() -> str:
    """The name that $TZ or the link /etc/localtime has; where there is none, what the C library calls it."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name and os.path.islink(_LINK):
        name = os.path.realpath(_LINK)
    return name.rpartition(_FOLDER)[2] or time.tzname[0]


def local(at: int, zone: str | None) -> datetime:
    """A moment (ms) as the clocks of a zone show it; None is the machine's."""
    offset = offsets(zone)(at // 1000)
    return datetime.fromtimestamp(at / 1000, timezone(timedelta(seconds=offset)))


def moment(text: str, zone: str | None) -> int:
    """The ms of an RFC 3339 time or a date; without an offset it is what the clocks of the zone show. ValueError."""
    written = datetime.fromisoformat(text.strip())
    if written.tzinfo is not None:
        return round(written.timestamp() * 1000)
    shown = round(written.replace(tzinfo=UTC).timestamp())
    offset = offsets(zone)
    return 1000 * (shown - offset(shown - offset(shown)))
