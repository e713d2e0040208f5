from __future__ import annotations

import pytest

from agentrun.spec.values import (
    format_cost,
    format_count,
    format_duration,
    format_size,
    parse_cost,
    parse_count,
    parse_duration,
    parse_size,
)


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


@pytest.mark.parametrize("text", ["", "5", "0MiB", "1.5GB", "1mb", "MiB", "1 GB", "1234567TiB"])
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


@pytest.mark.parametrize("size", [1, 1_000, 1_024, 1_536, 2**29, 2 * 10**9, 999_999 * 2**40])
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("largest", ["999999999GiB", "999999TiB"])
def test_every_size_fits_the_database(largest: str) -> None:
    assert parse_size(largest) < 2**63


@pytest.mark.parametrize(
    ("text", "billionths"),
    [("20", 20 * 10**9), ("2.50", 2_500_000_000), ("0.000000001", 1), ("999999999.999999999", 10**18 - 1)],
)
def test_costs(text: str, billionths: int) -> None:
    assert parse_cost(text) == billionths


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "+1", "1.", ".5", "1e3", "01", "1_000", "2,50", "1.0000000001", "1000000000", "1\n"]
)
def test_no_costs(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        parse_cost(text)


def test_what_is_shown_of_amounts() -> None:
    assert [format_cost(cost) for cost in (0, 10**9, 2_500_000_000, 1, 10**9 + 12_340_000)] == [
        "0", "1", "2.50", "0.000000001", "1.01234",
    ]
    assert [format_count(count) for count in (1, 999, 1_000, 1_500, 2_000_000)] == ["1", "999", "1k", "1500", "2M"]
    assert [format_size(size) for size in (1, 1_000, 2**30, 3 * 2**19)] == ["1B", "1kB", "1GiB", "1536KiB"]
    with pytest.raises(ValueError, match="at least one byte"):
        format_size(0)
