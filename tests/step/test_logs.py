"""Logs: bytes as they came, the time of each line, the end without the beginning."""

from __future__ import annotations

import os
import random
import resource
import signal
from pathlib import Path

import pytest

from agentrun.step import logs
from agentrun.step.logs import LogReader, LogWriter


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    return str(tmp_path / "a#1.log"), str(tmp_path / "a#1.idx")


def write(paths: tuple[str, str], *blocks: tuple[int, bytes]) -> None:
    writer = LogWriter(*paths)
    for ms, block in blocks:
        writer.write(memoryview(block), ms)
    assert writer.size == sum(len(block) for _, block in blocks)
    writer.close()


def read(paths: tuple[str, str], tail: int | None = None) -> list[tuple[int, bytes]]:
    reader = LogReader(*paths)
    if tail is not None:
        reader.tail(tail)
    try:
        return list(reader.lines())
    finally:
        reader.close()


def test_nothing_written_nothing_there(paths: tuple[str, str]) -> None:
    write(paths)
    assert not os.path.exists(paths[0]) and not os.path.exists(paths[1])
    assert read(paths) == []
    assert read(paths, tail=5) == []


def test_bytes_as_they_came(paths: tuple[str, str]) -> None:
    write(paths, (5, b"a\r\n\0\xff"), (5, b"b"), (6, b"\n"))
    assert Path(paths[0]).read_bytes() == b"a\r\n\0\xffb\n"
    assert Path(paths[1]).read_bytes() == b"0 5\n6 6\n"
    assert os.stat(paths[0]).st_mode & 0o777 == 0o600
    assert read(paths) == [(5, b"a\r"), (5, b"\0\xffb")]


def test_a_line_has_the_time_at_which_it_began(paths: tuple[str, str]) -> None:
    write(paths, (10, b"one\ntw"), (20, b"o\nthree\n"), (30, b"four"))
    assert read(paths) == [(10, b"one"), (10, b"two"), (20, b"three"), (30, b"four")]


def test_following_gives_each_line_once_and_no_half_ones(paths: tuple[str, str]) -> None:
    reader = LogReader(*paths)
    assert list(reader.lines(ended=False)) == []
    writer = LogWriter(*paths)
    writer.write(b"one\ntw", 10)
    assert list(reader.lines(ended=False)) == [(10, b"one")]
    assert list(reader.lines(ended=False)) == []
    writer.write(b"o\n", 20)
    writer.write(b"end", 30)
    assert list(reader.lines(ended=False)) == [(10, b"two")]
    writer.close()
    assert list(reader.lines()) == [(30, b"end")]
    assert list(reader.lines()) == []
    reader.close()


def test_an_attempt_that_is_written_by_a_second_shim_goes_on(paths: tuple[str, str]) -> None:
    write(paths, (10, b"one\n"))
    write(paths, (20, b"two\n"))
    assert read(paths) == [(10, b"one"), (20, b"two")]


def test_a_shim_killed_between_index_and_log(paths: tuple[str, str]) -> None:
    write(paths, (10, b"one\n"))
    with Path(paths[1]).open("ab") as index:
        index.write(b"4 20\n4 3")
    assert read(paths) == [(10, b"one")]


@pytest.mark.parametrize("block", [1, 7, 64, 262_144])
@pytest.mark.parametrize("last", [b"", b"without newline"])
def test_the_tail_is_the_end_of_the_whole(
    paths: tuple[str, str], last: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    text = b"".join(b"%d %s\n" % (n, b"x" * chance.randrange(0, 40)) for n in range(100)) + b"\n\n" + last
    blocks = []
    at = ms = 0
    while at < len(text):
        size = chance.randrange(1, 60)
        blocks.append((ms := ms + chance.randrange(0, 3), text[at : at + size]))
        at += size
    write(paths, *blocks)
    whole = read(paths)
    monkeypatch.setattr(logs, "_BLOCK", block)
    assert read(paths) == whole
    for count in (0, 1, 2, 3, 4, 10, 99, 102, 103, 500):
        assert read(paths, tail=count) == (whole[-count:] if count else []), count


def test_the_tail_of_a_large_log_reads_little_of_it(paths: tuple[str, str]) -> None:
    """A sparse file of 100 GiB: whoever reads it all is found out at once."""
    Path(paths[0]).touch()
    with Path(paths[0]).open("r+b") as log:
        log.seek(100 << 30)
        log.write(b"\nthe\nend\n")
    Path(paths[1]).write_bytes(b"".join(b"%d %d\n" % (n << 20, n) for n in range(100 << 10)))
    assert read(paths, tail=2) == [((100 << 10) - 1, b"the"), ((100 << 10) - 1, b"end")]


def test_a_line_without_end_comes_in_pieces(paths: tuple[str, str]) -> None:
    write(paths, (1, b"x" * (3 * logs.LONGEST_LINE + 5) + b"\nend\n"))
    pieces = read(paths)
    assert b"".join(piece for _, piece in pieces[:-1]) == b"x" * (3 * logs.LONGEST_LINE + 5)
    assert max(len(piece) for _, piece in pieces) < 2 * logs.LONGEST_LINE
    assert pieces[-1] == (1, b"end")


def test_what_a_full_disk_refuses_is_told_later(paths: tuple[str, str]) -> None:
    writer = LogWriter(*paths)
    writer.write(b"before\n", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        writer.write(b"0123456789", 2)
        writer.write(b"0123456789", 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    writer.write(b"after\n", 4)
    writer.close()
    assert writer.size == 7 + 20 + 6
    text = Path(paths[0]).read_bytes()
    assert text == b"before\n012\n[agentrun: 17 bytes of output could not be written]\nafter\n"


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "gone" / "log"), str(tmp_path / "gone" / "idx"))
    writer.write(b"lost\n", 1)
    (tmp_path / "gone").mkdir()
    writer.write(b"kept\n", 2)
    writer.close()
    text = (tmp_path / "gone" / "log").read_bytes()
    assert text.endswith(b"[agentrun: 5 bytes of output could not be written]\nkept\n")
