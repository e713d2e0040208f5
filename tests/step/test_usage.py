"""The usage file, as steps write it well, badly, and on purpose."""

from __future__ import annotations

import json
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentrun.step.usage import BadUsage, Usage, UsageReader, cost_text, usage_line

IN, OUT, MODEL = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.model"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usage"


def append(file: Path, *lines: bytes | dict[str, Any]) -> None:
    with file.open("ab") as stream:
        for line in lines:
            stream.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


# What a line says, and what is counted: model, input tokens, output tokens, billionths.
GOOD: list[tuple[str, bytes, tuple[str, int, int, int]]] = [
    ("all of it", b'{"%s": "m", "%s": 3, "%s": 4, "cost": 0.5}', ("m", 3, 4, 500_000_000)),
    ("the model asked for", b'{"gen_ai.request.model": "asked", "cost": 1}', ("asked", 0, 0, 10**9)),
    ("the one that answered", b'{"gen_ai.request.model": "asked", "%s": "gave", "%s": 1}', ("gave", 1, 0, 0)),
    ("older names", b'{"gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.completion_tokens": 4}', ("", 3, 4, 0)),
    ("both names are one figure", b'{"gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.input_tokens": 3}', ("", 3, 0, 0)),
    ("the other name of the cost", b'{"gen_ai.usage.cost": 0.25}', ("", 0, 0, 250_000_000)),
    ("null is nothing", b'{"gen_ai.usage.input_tokens": null, "gen_ai.usage.output_tokens": 2}', ("", 0, 2, 0)),
    ("other keys", b'{"gen_ai.usage.input_tokens": 1, "note": [1, {"a": -5}]}', ("", 1, 0, 0)),
    ("a span", b'{"name": "chat", "attributes": {"gen_ai.usage.input_tokens": 7}}', ("", 7, 0, 0)),
    ("whole numbers with a point", b'{"gen_ai.usage.input_tokens": 12.0}', ("", 12, 0, 0)),
    ("or an exponent", b'{"gen_ai.usage.input_tokens": 1e3}', ("", 1000, 0, 0)),
    ("as jq writes", b'{"cost": 1e-05}', ("", 0, 0, 10_000)),
    ("a binary float would not do", b'{"cost": 0.1}', ("", 0, 0, 100_000_000)),
    ("up to the next billionth", b'{"cost": 0.0000000011}', ("", 0, 0, 2)),
    ("however little it is", b'{"cost": 1e-400}', ("", 0, 0, 1)),
    ("the most", b'{"gen_ai.usage.input_tokens": 9007199254740992}', ("", 2**53, 0, 0)),
    ("nothing", b'{"cost": -0.0}', ("", 0, 0, 0)),
]


def named(line: bytes) -> bytes:
    names = iter((MODEL, IN, OUT))
    while b"%s" in line:
        line = line.replace(b"%s", next(names).encode(), 1)
    return line


@pytest.mark.parametrize(("line", "counted"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_line(file: Path, line: bytes, counted: tuple[str, int, int, int]) -> None:
    append(file, named(line) + b"\n")
    model, *figures = counted
    assert UsageReader(str(file)).read_new() == [Usage(model, 1, *figures)]


BAD: list[tuple[str, bytes, str]] = [
    ("no JSON", b"tokens=5", "line 3 of $AGENTRUN_USAGE is not JSON: tokens=5"),
    ("no UTF-8", b"\xff{}", "is not JSON"),
    ("no object", b"[1, 2]", "is no JSON object: [1, 2]"),
    ("a number alone", b"17", "is no JSON object: 17"),
    ("no key that is known", b'{"tokens": 5}', 'and cost: {"tokens": 5}'),
    ("a batch of spans", b'{"resourceSpans": []}', "has none of"),
    ("negative", b'{"gen_ai.usage.output_tokens": -1}', "says that gen_ai.usage.output_tokens is -1: it cannot be neg"),
    ("a negative cost", b'{"cost": -0.01}', "says that cost is -0.01: it cannot be negative"),
    ("NaN", b'{"cost": NaN}', "is not JSON"),
    ("infinite", b'{"cost": Infinity}', "is not JSON"),
    ("infinite by its exponent", b'{"cost": 1e999999}', "more than any call costs"),
    ("beyond any exponent", b'{"cost": 1e99999999999999999999}', "is not JSON"),
    ("a text", b'{"cost": "0.01"}', 'says that cost is "0.01": that is no number'),
    ("a truth", b'{"gen_ai.usage.input_tokens": true}', "is true: that is no number"),
    ("a list", b'{"gen_ai.usage.input_tokens": [1]}', "is [1]: that is no number"),
    ("half a token", b'{"gen_ai.usage.input_tokens": 0.5}', "is 0.5: tokens are whole"),
    ("too many", b'{"gen_ai.usage.input_tokens": 9007199254740993}', "more than any model takes"),
    ("too dear", b'{"cost": 9007199.254740993}', "more than any call costs"),
    ("thousands of digits", b'{"gen_ai.usage.input_tokens": ' + b"9" * 4000 + b"}", "more than any model takes"),
    ("too many digits", b'{"gen_ai.usage.input_tokens": ' + b"9" * 9000 + b"}", "is not JSON"),
    ("too deep", b"[" * 200_000, "is not JSON"),
    ("a model without a name", b'{"gen_ai.response.model": 4, "cost": 1}', "names a model that is no text: 4"),
    ("longer than a MiB", b'{"cost": 1, "x": "' + b"x" * (1 << 20) + b'"}', "line 3 of $AGENTRUN_USAGE is longer"),
]


@pytest.mark.parametrize(("line", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
@pytest.mark.parametrize("final", [False, True])
def test_a_line_that_cannot_be_counted(file: Path, line: bytes, message: str, final: bool) -> None:
    append(file, {"cost": 1}, b"\n", line + b"\n", {"cost": 2})
    reader = UsageReader(str(file))
    assert reader.read_new(final) == [Usage("", 1, 0, 0, 10**9)], "what stands before it counts"
    for again in (reader, UsageReader(str(file), reader.offset)):
        with pytest.raises(BadUsage) as refused:
            again.read_new(final)
        assert message in str(refused.value)
        assert len(str(refused.value)) < 250
        assert "line 3 of" in str(refused.value)
    assert reader.pass_over()
    assert reader.read_new(final) == [Usage("", 1, 0, 0, 2 * 10**9)], "and so does what comes after it"
    assert not reader.pass_over()
    assert reader.offset == file.stat().st_size


def test_it_is_summed_up_by_model(file: Path) -> None:
    append(file, {MODEL: "a", IN: 1, "cost": 0.1}, {MODEL: "b", OUT: 5}, {MODEL: "a", IN: 2, OUT: 3, "cost": 0.2})
    assert UsageReader(str(file)).read_new() == [Usage("a", 2, 3, 3, 300_000_000), Usage("b", 1, 0, 5, 0)]


def test_it_goes_on_where_it_was(file: Path) -> None:
    reader = UsageReader(str(file))
    assert reader.read_new() == []
    append(file, {IN: 1})
    assert reader.read_new() == [Usage("", 1, 1, 0, 0)]
    assert reader.read_new() == []
    append(file, {IN: 2})
    assert UsageReader(str(file), reader.offset).read_new() == reader.read_new() == [Usage("", 1, 2, 0, 0)]


def test_a_line_counts_when_it_is_whole(file: Path) -> None:
    reader = UsageReader(str(file))
    append(file, b'{"cost"')
    assert reader.read_new() == []
    append(file, b": 3}")
    assert reader.read_new() == []
    append(file, b"\n")
    assert reader.read_new() == [Usage("", 1, 0, 0, 3 * 10**9)]


def test_the_last_line_may_lack_its_end(file: Path) -> None:
    append(file, b'{"cost": 1}\n{"cost": 2}')
    assert UsageReader(str(file)).read_new(final=True) == [Usage("", 2, 0, 0, 3 * 10**9)]


def test_what_a_kill_has_torn_is_passed_over(file: Path) -> None:
    append(file, b'{"cost": 1}\n{"cost": ')
    reader = UsageReader(str(file))
    assert reader.read_new(final=True) == [Usage("", 1, 0, 0, 10**9)]
    assert reader.read_new(final=True) == []


def test_but_not_what_is_whole_and_wrong(file: Path) -> None:
    append(file, b'{"cost": -1}')
    with pytest.raises(BadUsage):
        UsageReader(str(file)).read_new(final=True)


@pytest.mark.parametrize("text", [b"", b'{"cost": 5}\n', b'{"cost": 500, "a": 1, "b": 2}\n'])
def test_who_writes_over_it_is_told(file: Path, text: bytes) -> None:
    append(file, b'{"cost": 1, "long": 1}\n')
    reader = UsageReader(str(file))
    assert len(reader.read_new()) == 1
    file.write_bytes(text)
    with pytest.raises(BadUsage, match="was written over: append to it, as with `>>`"):
        reader.read_new()
    assert not reader.pass_over()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to a device", "held fifo"])
def test_what_is_no_file_is_not_waited_for(file: Path, kind: str) -> None:
    match kind:
        case "folder":
            file.mkdir()
        case "device":
            file = Path("/dev/zero")
        case "link to a device":
            file.symlink_to("/dev/zero")
        case _:
            os.mkfifo(file)
    held = os.open(file, os.O_RDWR) if kind == "held fifo" else None
    try:
        with pytest.raises(BadUsage, match="is no plain file any more"):
            UsageReader(str(file)).read_new(final=True)
    finally:
        if held is not None:
            os.close(held)


def test_a_file_that_has_been_taken_away_is_nothing(file: Path) -> None:
    append(file, {"cost": 1})
    reader = UsageReader(str(file))
    reader.read_new()
    file.unlink()
    assert reader.read_new() == reader.read_new(final=True) == []


def test_a_flood_is_read_piece_by_piece_until_the_end(file: Path) -> None:
    line = json.dumps({IN: 1, "x": "x" * 1000}).encode() + b"\n"
    file.write_bytes(line * 10_000)
    reader = UsageReader(str(file))
    pieces = []
    while used := reader.read_new():
        pieces.append(used[0].calls)
    assert sum(pieces) == 10_000
    assert max(pieces) < 2_000
    assert UsageReader(str(file)).read_new(final=True) == [Usage("", 10_000, 10_000, 0, 0)]
    file.write_bytes(line * 35_000)
    with pytest.raises(BadUsage, match="larger than 32 MiB"):
        UsageReader(str(file)).read_new()


def test_sums_are_exact(file: Path) -> None:
    """Where those of floats are not."""
    random.seed(3)
    costs = [f"{random.randrange(10**7) / 10**7:.7f}" for _ in range(5_000)]
    append(file, *(b'{"cost": %s}\n' % cost.encode() for cost in costs))
    assert UsageReader(str(file)).read_new()[0].cost == sum(map(Decimal, costs)) * 10**9
    assert Decimal(sum(map(float, costs))) != sum(map(Decimal, costs))


def test_what_usage_add_writes_is_what_is_read(file: Path) -> None:
    append(file, usage_line('a "model"\n', 5, 7, ".50"), usage_line(None, None, None, "007"))
    append(file, usage_line(None, 0, None, None), usage_line("a\ud800", 1, 1, "1e-05"))
    read = UsageReader(str(file)).read_new()
    assert read == [
        Usage('a "model"\n', 1, 5, 7, 500_000_000),
        Usage("", 2, 0, 0, 7 * 10**9),
        Usage("a\ud800", 1, 1, 1, 10_000),
    ]


@pytest.mark.parametrize("cost", ["", "free", "-1", "nan", "inf", "1e999", "1,5", "0x10", "1_0", "\u0661", "1e30"])
def test_a_cost_that_is_none(cost: str) -> None:
    with pytest.raises(ValueError, match="cost is"):
        usage_line(None, None, None, cost)


@pytest.mark.parametrize(
    ("billionths", "text"),
    [(0, "0.00"), (20 * 10**9, "20.00"), (20_130_000_000, "20.13"), (125_000, "0.000125"), (1, "0.000000001"),
     (1_250_130_000_000, "1,250.13"), (2_500_000_000, "2.50")],
)  # fmt: skip
def test_a_cost_in_words(billionths: int, text: str) -> None:
    assert cost_text(billionths) == text
