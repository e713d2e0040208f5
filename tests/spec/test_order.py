from __future__ import annotations

import pytest

from agentrun.spec.order import ancestors, circles


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        ([], []),
        ([[], [0], [1, 0]], []),
        ([[1], []], []),
        ([[2], [0], []], []),
        ([[0]], [[0]]),
        ([[1], [0]], [[0, 1]]),
        ([[1], [2], [0], [2]], [[0, 1, 2]]),
        ([[1], [0, 2], [0]], [[0, 1]]),
        ([[], [2], [1], [4], [3]], [[1, 2], [3, 4]]),
        ([[0], [1]], [[0], [1]]),
    ],
)
def test_circles(needs: list[list[int]], found: list[list[int]]) -> None:
    assert circles(needs) == found


def test_a_long_circle_is_found_without_recursion() -> None:
    length = 20_000
    assert circles([[(step + 1) % length] for step in range(length)]) == [list(range(length))]


def test_ancestors() -> None:
    assert ancestors([[1], [3], [], []]) == [0b1010, 0b1000, 0, 0]
    assert ancestors([[], [0], [1], [0, 2]]) == [0, 0b1, 0b11, 0b111]
