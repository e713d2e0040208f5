"""The values that have a unit: durations `1h30m`, sizes `512MiB`, counts `200k`; and money, `2.50`, that has none.

Each parser takes the text as written and raises ValueError for anything else; the patterns are shared with the
JSON Schema, so both refuse the same. Durations are whole milliseconds inside, units from large to small, each
once. Money is whole billionths inside, so that sums are exact. Each `format_…` is the inverse of its `parse_…`.
"""

from __future__ import annotations

import re

_DURATION_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_SIZE_UNITS = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}
_COUNT_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
BILLION = 10**9

# No number is longer than nine digits, or six with the largest units: all stay below 2**63, what the database can hold.
DURATION_PATTERN = r"^(?=[0-9])([0-9]{1,6}d)?([0-9]{1,7}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
POSITIVE_DURATION_PATTERN = DURATION_PATTERN.replace("(?=[0-9])", "(?=.*[1-9])", 1)
SIZE_PATTERN = r"^([1-9][0-9]{0,8}(B|kB|MB|GB|KiB|MiB|GiB)|[1-9][0-9]{0,5}(TB|TiB))$"
COUNT_PATTERN = r"^[1-9][0-9]{0,8}[kMG]?$"
COST_PATTERN = r"^(?=.*[1-9])(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$"

_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)
_COUNT = re.compile(COUNT_PATTERN)
_COST = re.compile(COST_PATTERN)


def parse_duration(text: str) -> int:
    """Milliseconds of `50ms`, `90s`, `15m`, `2h`, `3d`, `1h30m`. ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r}")
    parts = zip(match.groups(), _DURATION_UNITS.items(), strict=True)
    return sum(int(part.removesuffix(unit)) * ms for part, (unit, ms) in parts if part)


def format_duration(ms: int) -> str:
    """`5400000` as `1h30m`; nothing at all is `0s`. ValueError below zero."""
    if ms < 0:
        raise ValueError(f"a duration is never negative: {ms}")
    words = []
    for unit, size in _DURATION_UNITS.items():
        amount, ms = divmod(ms, size)
        if amount:
            words.append(f"{amount}{unit}")
    return "".join(words) or "0s"


def parse_size(text: str) -> int:
    """Bytes of `512MiB` (powers of 1024) or `2GB` (powers of 1000). ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    unit = match[2] or match[3]
    return int(text.removesuffix(unit)) * _SIZE_UNITS[unit]


def format_size(size: int) -> str:
    """`536870912` as `512MiB`: in the largest unit that divides it. ValueError below one."""
    if size < 1:
        raise ValueError(f"a size is at least one byte: {size}")
    units = sorted(_SIZE_UNITS.items(), key=lambda unit: unit[1], reverse=True)
    return next(f"{size // large}{unit}" for unit, large in units if size % large == 0)


def parse_count(text: str) -> int:
    """A number from 1, as `60`, `200k` or `2M`. ValueError for anything else."""
    if not _COUNT.fullmatch(text):
        raise ValueError(f"not a count: {text!r}")
    digits = text.rstrip("kMG")
    return int(digits) * _COUNT_UNITS[text[len(digits):]]


def format_count(number: int) -> str:
    """`200000` as `200k`: in the largest unit that divides it."""
    unit = next(unit for unit in ("G", "M", "k", "") if number % _COUNT_UNITS[unit] == 0)
    return f"{number // _COUNT_UNITS[unit]}{unit}"


def parse_cost(text: str) -> int:
    """Billionths of `20` or `2.50`; more than nothing. ValueError for anything else."""
    if not _COST.fullmatch(text):
        raise ValueError(f"not an amount of money: {text!r}")
    whole, _, fraction = text.partition(".")
    return int(whole) * BILLION + int(fraction.ljust(9, "0"))


def format_cost(cost: int) -> str:
    """`2500000000` as `2.50`: with two digits after the point, or none, or as many as it takes."""
    whole, fraction = divmod(cost, BILLION)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{whole}.{digits.ljust(2, '0')}" if digits else str(whole)
