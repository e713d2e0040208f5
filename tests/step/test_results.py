"""The results file: whole lines only, each once, whatever was torn before them."""

from __future__ import annotations

import os
import random
import resource
import signal
from pathlib import Path

import pytest

from agentrun.step import protocol
from agentrun.step.results import Result, ResultsReader, append, line, open_results


def result(number: int, **more: object) -> Result:
    fields = {
        "instance": "quote[2]", "attempt": number, "epoch": 1, "boot_id": "b", "started_at": 1, "ended_at": 2,
        "exit_code": 0, "signal": None, "ended_by": None, "spawn_error": None, "cpu_ms": 3, "max_rss_kib": 4,
        "output_bytes": 5,
    }
    return Result(fields | more)


def test_there_and_back(tmp_path: Path) -> None:
    path = str(tmp_path / "results")
    fd = open_results(path)
    append(fd, result(1, spawn_error="grün\n\"x\" \udcff", exit_code=None, signal=9))
    os.close(fd)
    [back] = ResultsReader(path).read_new()
    assert (back.instance, back.attempt, back.exit_code, back.signal) == ("quote[2]", 1, None, 9)
    assert (back.spawn_error, back.ended_by) == ("grün\n\"x\" \udcff", None)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_reader_sees_each_line_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "results"
    reader = ResultsReader(str(path))
    assert reader.read_new() == []
    text = line(result(1)) + line(result(2))
    with path.open("ab", buffering=0) as file:
        seen = []
        for at in range(0, len(text), 7):
            file.write(text[at : at + 7])
            seen.append([one.attempt for one in reader.read_new()])
        assert [attempt for some in seen for attempt in some] == [1, 2]
        assert reader.offset == len(text)
    assert reader.read_new() == []
    reader.close()


def test_another_reader_goes_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(line(result(1)) + b"torn")
    first = ResultsReader(str(path))
    assert [one.attempt for one in first.read_new()] == [1]
    fd = open_results(str(path))
    append(fd, result(2))
    os.close(fd)
    second = ResultsReader(str(path), first.offset)
    assert [one.attempt for one in second.read_new()] == [2]
    first.close()
    second.close()


@pytest.mark.parametrize("cut", [1, 8, 9, 20, 60, -2, -1])
def test_after_a_torn_line_a_new_one_begins(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results"
    path.write_bytes(line(result(1)) + line(result(2))[:cut])
    fd = open_results(str(path))
    append(fd, result(3))
    os.close(fd)
    reader = ResultsReader(str(path))
    # cut off by its newline alone, the line is whole all the same
    assert [one.attempt for one in reader.read_new()] == ([1, 2, 3] if cut == -1 else [1, 3])
    reader.close()


def test_damage_costs_the_damaged_line_only(tmp_path: Path) -> None:
    path = tmp_path / "results"
    chance = random.Random(2)
    for _ in range(300):
        lines = [line(result(number)) for number in range(1, 6)]
        hit = chance.randrange(5)
        damaged = bytearray(lines[hit])
        place = chance.randrange(len(damaged) - 1)
        damaged[place] ^= chance.randrange(1, 256)
        lines[hit] = bytes(damaged)
        path.write_bytes(b"".join(lines))
        reader = ResultsReader(str(path))
        assert [one.attempt for one in reader.read_new()] == [n for n in range(1, 6) if n != hit + 1]
        reader.close()


def test_a_power_cut_may_leave_zeros(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(line(result(1)) + bytes(500) + b"\n" + line(result(2)))
    reader = ResultsReader(str(path))
    assert [one.attempt for one in reader.read_new()] == [1, 2]
    reader.close()


def test_a_full_disk_is_an_error_and_the_next_line_is_whole(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk."""
    path = str(tmp_path / "results")
    fd = open_results(path)
    append(fd, result(1))
    size = os.path.getsize(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, before[1]))
        with pytest.raises(OSError):
            append(fd, result(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    append(fd, result(2))
    os.close(fd)
    reader = ResultsReader(path)
    assert [one.attempt for one in reader.read_new()] == [1, 2]
    reader.close()


def test_the_codec_is_json() -> None:
    import json

    value = {"a": [1, -2, None, True, False, 1.5, "é\n\"\\\udc80", {}, []], "": {"b": "x" * 5_000}}
    assert json.loads(protocol.encode(value)) == value
    assert protocol.decode(json.dumps(value, separators=(",", ":"))) == value
    for bad in ("", "{", '{"a":}', "[1]]", "nan"):
        with pytest.raises((ValueError, StopIteration)):
            protocol.decode(bad)
