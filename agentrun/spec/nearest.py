"""The nearest right name to a wrong one.

Distance counts letters that are added, missing, changed, or swapped with their neighbour. One slip is forgiven
in a short name, up to three in a long one: a suggestion that is not what was meant is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

MAX_CANDIDATES = 1_000  # names looked at: a wrong name in a job of many thousand steps is still told at once


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The closest of `names`, the first of equals; None if none is close."""
    limit = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    best: str | None = None
    for name in islice(names, MAX_CANDIDATES):
        if abs(len(name) - len(word)) <= limit:
            far = distance(word.lower(), name.lower())
            if far <= limit:
                best, limit = name, far - 1
    return best


def suggestion(word: str, names: Iterable[str]) -> str:
    """` (did you mean 'timeout'?)`, or nothing."""
    found = nearest(word, names)
    return f" (did you mean '{found}'?)" if found is not None else ""


def distance(a: str, b: str) -> int:
    """Insertions, deletions, changes and swaps of neighbours that turn one into the other."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
