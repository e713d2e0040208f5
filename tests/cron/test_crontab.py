"""The block in a crontab, to the byte: put in, changed, taken out, in texts as people have them."""

from __future__ import annotations

import random
import subprocess

import pytest

from agentrun.cron import crontab
from agentrun.errors import CannotWrite

RESUME = [b"@reboot a resume", b"* * * * * a resume"]
SETTINGS = {"SHELL": "/bin/sh", "PATH": "/a:/b", "AGENTRUN_HOME": "/home/ann/state"}
THIRTY = b"".join(b"%d 3 * * * job-%d # \xff\xe9 %% \\%%\t \n" % (n, n) for n in range(30))


def job(name: str, *times: str) -> crontab.Section:
    return crontab.section(name, f"/jobs/{name}.yaml", times or ["0 3 * * *"], ["a", "run", f"/jobs/{name}.yaml"])


def put(text: bytes | None, *names: str) -> bytes:
    table = crontab.parse(text)
    others = [one for one in table.jobs if one.name not in names]
    return table.with_jobs([*others, *map(job, names)], SETTINGS, RESUME)


TEXTS = [
    None, b"", b"\n", b"\n\n", b"0 3 * * * x\n", b"0 3 * * * x", b"# only a comment", b"A=b\r\n0 3 * * * x\r\n", b"x\r",
    THIRTY, THIRTY[:-1], b"\xff\xfe\x00\n", b"# END\n# BEGIN\n", b"#BEGIN agentrun:\n", b" \t",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_what_was_there_comes_back(text: bytes | None) -> None:
    one = put(text, "quotes")
    assert one.startswith(text or b"") and one.endswith(b"# END agentrun\n")
    assert put(one, "quotes") == one
    two = put(one, "backup")
    assert [section.name for section in crontab.parse(two).jobs] == ["backup", "quotes"]
    assert crontab.parse(two).without_jobs({"backup"}) == one
    assert crontab.parse(two).without_jobs({"nobody"}) == two
    assert crontab.parse(one).without_jobs({"quotes"}) == text
    assert crontab.parse(two).without() == text


def test_the_block() -> None:
    assert put(b"MAILTO=ann\nPATH = '/opt'\n", "quotes").decode().splitlines() == [
        "MAILTO=ann",
        "PATH = '/opt'",
        "# BEGIN agentrun: written by `agentrun install`, taken out by `agentrun uninstall`",
        "SHELL=/bin/sh",
        "PATH=/a:/b",
        "AGENTRUN_HOME=/home/ann/state",
        "# job quotes: /jobs/quotes.yaml",
        "0 3 * * * a run /jobs/quotes.yaml",
        "# all jobs: go on with what was cut off",
        "@reboot a resume",
        "* * * * * a resume",
        "# for the lines below: as it was above",
        "SHELL=/bin/sh",
        "PATH = '/opt'",
        'AGENTRUN_HOME=""',
        "# END agentrun",
    ]


def test_a_block_that_got_lines_below_it_stays_where_it_is() -> None:
    text = put(b"0 1 * * * mine", "quotes") + b"0 2 * * * mine too"
    changed = put(text, "backup")
    assert changed.startswith(b"0 1 * * * mine\n# BEGIN") and changed.endswith(b"# END agentrun\n0 2 * * * mine too")
    assert crontab.parse(changed).without() == b"0 1 * * * mine\n0 2 * * * mine too"
    assert crontab.parse(put(None, "quotes") + b"x\n").without() == b"x\n"


def test_a_changed_schedule_takes_the_place_of_the_old_lines() -> None:
    table = crontab.parse(put(THIRTY, "quotes", "backup"))
    other = crontab.parse(put(THIRTY, "backup")).jobs
    text = table.with_jobs([*other, job("quotes", "1 4 * * *", "2 5 * * *")], SETTINGS, RESUME)
    assert text.count(b"run /jobs/quotes.yaml") == 2 and b"0 3 * * * a run /jobs/quotes" not in text
    assert crontab.parse(text).without() == THIRTY


def test_line_ends_that_an_editor_has_changed() -> None:
    text = put(b"x\n", "quotes", "backup").replace(b"\n", b"\r\n")
    table = crontab.parse(text)
    assert [(one.name, one.file) for one in table.jobs] == [
        ("backup", "/jobs/backup.yaml"),
        ("quotes", "/jobs/quotes.yaml"),
    ]
    assert table.without() == b"x\r\n"
    assert b"quotes" not in (table.without_jobs({"quotes"}) or b"")


BLOCK = put(b"", "quotes")


@pytest.mark.parametrize(
    "text",
    [
        BLOCK.replace(b"# END agentrun\n", b""),
        BLOCK.replace(b"# BEGIN agentrun:", b"# begun"),
        BLOCK + BLOCK,
        b"# END agentrun\n" + BLOCK.replace(b"# END agentrun\n", b""),
        b"x\n" + BLOCK + b"# END agentrun",
    ],
)
def test_a_torn_block_is_refused(text: bytes) -> None:
    with pytest.raises(CannotWrite, match=r"block of agentrun is torn: .* nothing was changed") as refused:
        crontab.parse(text)
    assert "crontab -e" in (refused.value.hint or "")


def test_random_texts_survive() -> None:
    chance = random.Random(5)
    pieces = [b"\n", b"\r\n", b"x", b"# c", b"\xff", b"%", b"A=b", b" ", b"\0", b"# END agentru", b"0 3 * * * y"]
    for _ in range(2000):
        before = b"".join(chance.choices(pieces, k=chance.randrange(8)))
        after = b"".join(chance.choices(pieces, k=chance.randrange(8)))
        text = put(put(before, "quotes") + after, "backup")
        gone = crontab.parse(text).without()
        if after:
            assert gone == before + (b"\n" if before and not before.endswith(b"\n") else b"") + after
        else:
            assert gone == before


# -- commands and settings -------------------------------------------------------------------------------------------


def run_by_cron(line: str) -> list[str]:
    """The words that a line's command gives: cron ends it at a %, turns \\% into %, and hands the rest to sh.

    As do_command.c of Debian's cron does it.
    """
    command, escaped = "", False
    for character in line:
        if escaped:
            command = (command[:-1] if character == "%" else command) + character
            escaped = False
            continue
        if character == "%":
            break
        escaped = character == "\\"
        command += character
    words = subprocess.run(
        ["/bin/sh", "-c", f"for word in {command}; do printf '%s\\0' \"$word\"; done"], capture_output=True, check=True
    ).stdout
    return [word.decode("utf-8", "surrogateescape") for word in words.split(b"\0")[:-1]]


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/a.yaml", "/jobs/a b.yaml", "/jobs/50%.yaml", "/jobs/it's.yaml", "/jobs/a\\b.yaml", "/jobs/a\\%b.yaml",
        "/jobs/a\\\\%%b.yaml", "/jobs/'%'.yaml", "/jobs/$HOME`x`\"*.yaml", "/jobs/ü%é.yaml", "/jobs/\udcff%.yaml",
        "/jobs/\\'%\\'\\%.yaml", "/jobs/;&|<>().yaml", "/jobs/#.yaml", "/jobs/~%.yaml", "%",
    ],
)  # fmt: skip
def test_a_path_arrives_as_it_is(path: str) -> None:
    assert run_by_cron(crontab.command(["a", "run", path])) == ["a", "run", path]


def test_paths_of_awkward_characters_arrive() -> None:
    chance = random.Random(7)
    for _ in range(60):
        path = "/" + "".join(chance.choices("\\%'\" a", k=12))
        assert run_by_cron(crontab.command([path])) == [path], path


def test_a_command_that_cron_would_cut_off_is_refused() -> None:
    with pytest.raises(CannotWrite, match=r"job long would have a command of 1\d{3} bytes, and cron takes 998"):
        crontab.section("long", "/x", ["0 3 * * *"], ["a", "run", "/" + "ü" * 600])
    assert crontab.section("long", "/x", ["0 3 * * *"], ["a" * 998]).lines == (b"0 3 * * * " + b"a" * 998,)


def test_settings_are_quoted_where_cron_would_change_them() -> None:
    assert crontab.setting("A", "/a b") == b"A=/a b"
    assert crontab.setting("A", "") == b'A=""'
    assert crontab.setting("A", " b ") == b'A=" b "'
    assert crontab.setting("A", '"b"') == b"A='\"b\"'"
    for value in ("a\nb", "a\rb", "x" * 998):
        with pytest.raises(CannotWrite, match="a value that a crontab cannot hold"):
            crontab.setting("A", value)


def test_the_search_path() -> None:
    assert crontab.search_path("/a:/b:/a", {}) == ("/a:/b", [])
    assert crontab.search_path("./x::/a:~/b:/c\n", {}) == ("/a", ["./x", "~/b", "/c\n"])
    assert crontab.search_path("", {}) == ("/usr/bin:/bin", [])
    gone, there = "/gone" + "x" * 500, "/there" + "y" * 600
    assert crontab.search_path(f"{gone}:{there}", {gone: False, there: True}) == (there, [gone])
    assert crontab.search_path(f"/gone:{there}", {"/gone": False}) == (f"/gone:{there}", [])
    with pytest.raises(CannotWrite, match=r"PATH has 1\d{3} bytes, and cron cuts off"):
        crontab.search_path(f"{there}:{gone}", {})
