from __future__ import annotations

import pytest

from agentrun.spec.values import format_duration, parse_count, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("50ms", 50), ("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("3d", 259_200_000),
        ("1h30m", 5_400_000), ("1d2h3m4s5ms", 93_784_005), ("0s", 0), ("1m500ms", 60_500), ("007s", 7_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text", ["", "5", "m", "1.5h", "-1s", "1 h", "30m1h", "1h1h", "1w", "5M", "1:30", "٣s", "1s\n", "9" * 30 + "d"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("ms", [0, 1, 999, 1_000, 61_001, 3_600_000, 86_400_000, 93_784_005])
def test_format_is_the_inverse(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


def test_format() -> None:
    assert [format_duration(ms) for ms in (0, 90_000, 5_400_000)] == ["0s", "1m30s", "1h30m"]
    with pytest.raises(ValueError, match="never negative"):
        format_duration(-1)


@pytest.mark.parametrize(("text", "size"), [("512MiB", 2**29), ("2GB", 2 * 10**9), ("1kB", 1000), ("7B", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "0MiB", "1.5GB", "1mb", "MiB", "1 GB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("60", 60), ("200k", 200_000), ("2M", 2_000_000)])
def test_counts(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "0", "01", "k", "1.5M", "-1", "1K", "1 k"])
def test_no_counts(text: str) -> None:
    with pytest.raises(ValueError, match="not a count"):
        parse_count(text)
