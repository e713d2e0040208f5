"""`python -m tests.calendars [ZONE...]`: every zone × every transition from 2020 to 2037 × 12 expressions.

Prints a table of what was compared and what differed; the exit status is 1 if anything differs that no rule explains.
What happens around a transition follows from its moment and the offsets before and after it, as long as the next one is
days away: transitions that are alike in this are compared once, for the first zone that has them, and all are counted.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from zoneinfo import available_timezones

from .compare import EXPRESSIONS, Difference, Transition, Zone, differences, explained

_APART = 5 * 86_400


def _transitions(name: str) -> tuple[str, tuple[Transition, ...]]:
    return name, Zone(name).transitions


def _compared(work: tuple[str, Transition]) -> list[tuple[str, Difference, str | None]]:
    name, transition = work
    zone = Zone(name, ())
    return [(who, one, explained(who, zone, one)) for who, one in differences(zone, transition)]


def main(names: Sequence[str]) -> int:
    began = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found_in: dict[object, list[tuple[str, Transition]]] = {}
        changing = 0
        for name, transitions in pool.map(_transitions, sorted(names), chunksize=8):
            changing += bool(transitions)
            near = any(later.at - one.at < _APART for one, later in pairwise(transitions))
            for one in transitions:
                found_in.setdefault((name, one) if near else one, []).append((name, one))
        explanations: Counter[tuple[str, str]] = Counter()
        unexplained = []
        for found in pool.map(_compared, [places[0] for places in found_in.values()], chunksize=4):
            for who, one, rule in found:
                explanations[who, rule or "NOT EXPLAINED"] += 1
                if rule is None:
                    unexplained.append(f"{who}: {one}")
    rows = [
        ("zones", f"{len(names)}, {changing} of them with transitions"),
        ("transitions", str(sum(map(len, found_in.values())))),
        ("of these with other offsets than any before", str(len(found_in))),
        ("expressions", str(len(EXPRESSIONS))),
        ("comparisons, with each of the two", str(len(found_in) * len(EXPRESSIONS))),
        *((f"differs from {who}: {rule}", str(number)) for (who, rule), number in sorted(explanations.items())),
        ("not explained", str(len(unexplained))),
        ("time", f"{time.monotonic() - began:.0f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {value}" for name, value in rows))
    print("\n".join(unexplained[:40]))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or sorted(available_timezones())))
