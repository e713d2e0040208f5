"""Moments in words: RFC 3339 in UTC with milliseconds, as the record and every `--json` write them."""

from __future__ import annotations

import time


def rfc3339(ms: int) -> str:
    """`2026-11-20T10:00:00.123Z` for milliseconds since the epoch."""
    seconds, rest = divmod(ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds since the epoch; a time without an offset is local. ValueError if it is no RFC 3339 time."""
    from datetime import datetime  # a command that is given no time does not pay for it

    return round(datetime.fromisoformat(text.strip()).timestamp() * 1000)
