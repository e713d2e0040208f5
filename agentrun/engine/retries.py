"""What is tried again, and when: a table of causes, and a pause that grows with each failure.

Pure, as the plan is whose part it is: the chance in a pause is a fixed one for each attempt of each run.
"""

from __future__ import annotations

from zlib import crc32

from ..model import Retry, Step
from .history import Ended
from .indices import StepFacts

# Causes that are not retried unless `on` names them; those of NEVER not even then.
UNLESS_NAMED = frozenset({"126", "127", "spawn", "outputs", "budget", "usage"})
NEVER = frozenset({"inputs"})


def may_retry(retry: Retry, causes: tuple[str, ...]) -> bool:
    """Whether an attempt that failed for these causes may be followed by another."""
    if NEVER.intersection(causes) or _names_any(retry.never_on, causes):
        return False
    if retry.on:
        return _names_any(retry.on, causes)
    return UNLESS_NAMED.isdisjoint(causes)


def _names_any(entries: tuple[str, ...], causes: tuple[str, ...]) -> bool:
    return any(_names(entry, cause) for entry in entries for cause in causes)


def _names(entry: str, cause: str) -> bool:
    """`75` and `timeout` name themselves, `100-110` the exit statuses from 100 to 110."""
    if entry == cause:
        return True
    low, _, high = entry.partition("-")
    return cause.isdecimal() and low.isdecimal() and high.isdecimal() and int(low) <= int(cause) <= int(high)


def delay_before_next(step: Step, known: StepFacts, ended: Ended, seed: str) -> int:
    """How long to wait before the next attempt, in ms: what the step asked for, else growing with each failure."""
    if ended.retry_after is not None:
        return ended.retry_after
    retry = step.retry
    delay = min(retry.max_interval, retry.interval)
    if delay and retry.backoff != 1:
        try:
            delay = int(min(retry.max_interval, retry.interval * retry.backoff ** (known.tries - 1)))
        except OverflowError:
            delay = retry.max_interval
    if retry.jitter == "none":
        return delay
    # Chance would not be pure: each attempt of each run has its own fixed place in the interval.
    return crc32(f"{seed}/{ended.step}/{ended.attempt}".encode()) * (delay + 1) >> 32
