"""The parser of crontabs: every line is something, by the rules of Debian's cron, which was asked (see the module)."""

from __future__ import annotations

import pytest

from agentrun.convert import crontab, percent
from agentrun.convert.crontab import Line, NotACrontab, read, setting


def kinds(text: bytes, **keys: object) -> list[str]:
    return [line.kind for line in read(text, **keys).lines]  # type: ignore[arg-type]


def entry(text: str, **keys: object) -> Line:
    [found] = read(text.encode(), **keys).entries  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", "blank"), (b" \t ", "blank"), (b"\r", "blank"), (b"# x", "comment"), (b"\t# x", "comment"),
        (b"#", "comment"),
        (b"A=1", "variable"), (b"A = 1 ", "variable"), (b"'A'=\"1\"", "variable"), (b"MAILTO=\"\"", "variable"),
        (b"MAILTO=", "variable"), (b"A=", "variable"), (b"A=\"1\" x", "unknown"), (b"A='1", "unknown"),
        (b"export A=1", "unknown"), (b"A B=1", "unknown"),
        (b"* * * * * x", "entry"), (b" \t*/5\t1-3,4 * jan-MAR sun x y", "entry"), (b"@daily x", "entry"),
        (b"@reboot x", "entry"), (b"-*/15 * * * * x", "entry"), (b"0~30 3 * * * x", "entry"), (b"~ 3 * * * x", "entry"),
        (b"0 0 31 2 * x", "entry"),  # never comes, and cron takes it
        (b"* * * * *", "unknown"), (b"* * * * * ", "unknown"), (b"* * * * * * x", "unknown"), (b"@daily", "unknown"),
        (b"@every 5m x", "unknown"), (b"@Daily x", "unknown"), (b"60 * * * * x", "unknown"),
        (b"5/10 * * * * x", "unknown"),
        (b"*/0 * * * * x", "unknown"), (b"0 0 0 * * x", "unknown"), (b"hello there my dear friend x", "unknown"),
        (b"* * * * * a\0b", "unknown"), (b"// a", "unknown"), (b"\xff\xfe", "unknown"),
        (b"* * * * * /caf\xe9", "entry"),
    ],
)  # fmt: skip
def test_every_line_is_something(line: bytes, kind: str) -> None:
    assert kinds(line + b"\n") == [kind]
    [found] = read(line + b"\n").lines
    assert found.raw == line + b"\n"
    assert bool(found.why) == (kind == "unknown" or line in (b"MAILTO=", b"A="))


@pytest.mark.parametrize("text", [b"", b"\n", b"A=1\n\n# x\r\n* * * * * x", b"\0\n\xff", b"* * * * * x\n" * 3])
def test_the_lines_are_the_file_to_the_byte(text: bytes) -> None:
    table = read(text)
    assert b"".join(line.raw for line in table.lines) == text
    assert [line.number for line in table.lines] == list(range(1, len(table.lines) + 1))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("A=1", "A", "1"), ("A = ' a b '  ", "A", " a b "), ("A=it's ", "A", "it's"), ("A=a # b", "A", "a # b"),
        ("A=1\r", "A", "1"), ('"A" = 1', "A", "1"), ("PATH=$HOME/bin:/bin", "PATH", "$HOME/bin:/bin"),
        ("A=\"q=1\"", "A", "q=1"),
    ],
)  # fmt: skip
def test_a_variable_is_read_as_cron_reads_it(text: str, name: str, value: str) -> None:
    assert setting(text) == (name, value, "")


@pytest.mark.parametrize("text", ["@daily A=1 x", "*/5 * * * * x A=1", "A 1", "=1", "1A=1", "A-B=1"])
def test_other_lines_are_no_variables(text: str) -> None:
    assert setting(text) is None


def test_variables_hold_for_the_lines_below() -> None:
    text = b"* * * * * a\nA=1\n* * * * * b\nA=2\nB=3\n@daily c\n"
    assert [dict(known) for _, known in crontab.variables_at(read(text))] == [{}, {"A": "1"}, {"A": "2", "B": "3"}]


def test_times_command_and_what_stands_before_it() -> None:
    found = entry("  17 *\t* * *   cd / && x  ")
    assert (found.times, found.command, found.head) == ("17 *\t* * *", "cd / && x  ", "  17 *\t* * *   ")
    found = entry("17 *\t* * *\troot    cd / && x", system=True)
    assert (found.user, found.command, found.head) == ("root", "cd / && x", "17 *\t* * *\troot    ")
    assert entry("@reboot\tx").times == "@reboot"


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("0 1 * * * root /a\n0 2 * * * www-data b\n", True),
        ("@daily root x", True),
        ("0 1 * * * /a\n", False), ("0 1 * * * php /a\n", False), ("0 1 * * * a\n", False),
        ("0 1 * * * ./a b\n", False),
        ("0 1 * * * sync /a\n0 1 * * * root /b\n0 2 * * * root /c\n", True),
        ("0 1 * * * /a\n0 1 * * * /c\n0 2 * * * root /c\n", False),
        ("0 1 * * * vulnscan /usr/bin/x\n0 1 * * * vulnscan /usr/bin/y\n", True),
        ("0 1 * * * backup-it everything now\n", False), ("0 1 * * * A=1 x\n", False), ("0 1 * * * git pull\n", False),
        ("0 1 * * * mail -s x y\n", False), ("", False), ("A=1\n# x\n", False),
    ],
)  # fmt: skip
def test_whether_entries_name_users_is_found_out(text: str, system: bool) -> None:
    assert read(text.encode()).system is system


def test_the_place_says_it_too() -> None:
    text = b"0 1 * * * munin-thing /a\n"
    assert read(text, path="/etc/cron.d/munin").system
    assert read(text, path="/etc/crontab").system
    assert not read(b"0 1 * * * frobnicate all\n", path="/home/me/crontab").system


def test_an_entry_without_its_user_is_named() -> None:
    table = read(b"0 1 * * * root /a\n0 2 * * * root /b\n0 3 * * * cd /x && y\n0 4 * * * /c\n0 5 * * * root d\n")
    assert [line.number for line in table.unknown] == [3, 4]
    assert "names no user" in table.unknown[0].why


@pytest.mark.parametrize(
    ("written", "command", "stdin"),
    [
        ("x", "x", None), ("a\\%b", "a%b", None), ("a\\\\b", "a\\b", None), ("a\\nb", "a\\nb", None), ("a%", "a", ""),
        ("a\\\\\\%b", "a\\%b", None), ("cat%l\\%1%l\\\\2%%e", "cat", "l%1\nl\\\\2\n\ne\n"), ("a%b%", "a", "b\n"),
        ("a\\\\%b", "a\\", "b\n"),
    ],
)  # fmt: skip
def test_a_percent_is_what_cron_makes_of_it(written: str, command: str, stdin: str | None) -> None:
    assert percent.as_cron_reads(written) == (command, stdin)


@pytest.mark.parametrize(
    ("command", "is_bug"),
    [
        ("x >log-$(date +%F)", True), ("date +%s >x", True), ("x `date '+%Y'`", True),
        ("sleep $((RANDOM % 9)); x", True),
        ("curl https://x.y/?q=a%20b", True), ("curl 'https://x.y/?q=a%20b'", True),
        ("mail -s \"It's 10pm\" joe%Joe,%%Where are your kids?%", False), ("cat%a", False), ("date +\\%F", False),
        ("x", False),
    ],
)  # fmt: skip
def test_a_forgotten_backslash_is_seen(command: str, is_bug: bool) -> None:
    assert percent.forgotten(command) is is_bug


@pytest.mark.parametrize(
    ("text", "path", "kind"),
    [
        (b"0 1 * * * x\n", None, "crontab"), (b"# x\n", None, "crontab"), (b"A=1\n0 1 * * * x\n", None, "crontab"),
        (b"#!/bin/sh\n0 1 * * * x\n", None, "script"), (b"cd /srv\nmake\n", None, "script"), (b"x", "a.sh", "script"),
        (b"A=1\nfor i in 1 2; do echo $i; done\n", None, "script"), (b"import os\n", "x.py", "script"),
    ],
)  # fmt: skip
def test_what_a_file_is_is_found_out(text: bytes, path: str | None, kind: str) -> None:
    assert crontab.kind_of(text, path) == kind


@pytest.mark.parametrize("text", [b"hello there\nthis is prose\n", b"{\"a\": 1}\n", b"\x01\x02\x03\n"])
def test_what_is_neither_is_refused(text: bytes) -> None:
    with pytest.raises(NotACrontab, match="neither a crontab"):
        crontab.kind_of(text, None)


def test_a_list_of_a_hundred_thousand_lines_is_refused() -> None:
    with pytest.raises(NotACrontab, match="100000 lines"):
        crontab.refuse_long(b"0 1 * * * x\n" * 100_000, "x")
