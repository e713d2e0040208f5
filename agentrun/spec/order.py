"""The order of steps: circles in it, and who comes before whom.

Steps are numbers here, and `needs[i]` are the numbers that step i needs. Written as loops: a chain of ten thousand
steps is deeper than Python's stack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

Needs = Sequence[Sequence[int]]


def circles(needs: Needs) -> list[list[int]]:
    """One shortest circle for each knot of steps that need each other, beginning with its first step."""
    if all(before < step for step, steps in enumerate(needs) for before in steps):
        return []  # as nearly every file is written
    found = []
    for knot in knots(needs):
        first = min(knot)
        circle = _way_back(needs, first, set(knot))
        if circle:
            found.append(circle)
    return sorted(found)


def ancestors(needs: Needs) -> list[int]:
    """For each step all that come before it, as a set of bits. There must be no circle."""
    masks = [-1] * len(needs)
    for start in range(len(needs)):
        stack = [start]
        while stack:
            step = stack[-1]
            if masks[step] >= 0:
                stack.pop()
                continue
            missing = [before for before in needs[step] if masks[before] < 0]
            if missing:
                stack.extend(missing)
                continue
            mask = 0
            for before in needs[step]:
                mask |= masks[before] | 1 << before
            masks[step] = mask
            stack.pop()
    return masks


def knots(needs: Needs) -> list[list[int]]:
    """The strongly connected components (Tarjan 1972, without recursion)."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    knots = []
    for root in range(len(needs)):
        work = [(root, 0)] if root not in order else []
        while work:
            step, at = work.pop()
            if at == 0:
                order[step] = lowest[step] = len(order)
                path.append(step)
                on_path.add(step)
            if at < len(needs[step]):
                work.append((step, at + 1))
                before = needs[step][at]
                if before not in order:
                    work.append((before, 0))
                elif before in on_path:
                    lowest[step] = min(lowest[step], order[before])
                continue
            if work:
                parent = work[-1][0]
                lowest[parent] = min(lowest[parent], lowest[step])
            if lowest[step] == order[step]:
                knot = [path.pop()]
                while knot[-1] != step:
                    knot.append(path.pop())
                on_path.difference_update(knot)
                knots.append(knot)
    return knots


def _way_back(needs: Needs, first: int, knot: set[int]) -> list[int]:
    """The shortest way from a step back to itself inside of its knot; empty if there is none."""
    came_from: dict[int, int] = {}
    queue = deque([first])
    while queue:
        step = queue.popleft()
        for before in needs[step]:
            if before == first:
                circle = [step]
                while circle[-1] != first:
                    circle.append(came_from[circle[-1]])
                return circle[::-1]
            if before in knot and before not in came_from:
                came_from[before] = step
                queue.append(before)
    return []
