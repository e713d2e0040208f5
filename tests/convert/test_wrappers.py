"""What is taken off a command line of a crontab, and what is not: a row for each rule and each of its edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentrun.convert.endings import pieces
from agentrun.convert.peeling import Peeling, Place
from agentrun.convert.wrappers import peel

PING = "https://hc-ping.com/1f4df795-b3a7-4e69-9a02-dbf138bfcce9"


def peeled(text: str, *, logs: bool = False, **place: Any) -> Peeling:
    peeling = Peeling(text, Place(**place))
    peel(peeling, logs=logs)
    return peeling


@pytest.mark.parametrize(
    ("text", "left", "keys", "step"),
    [
        # flock
        ("flock -n /tmp/l x -y", "x -y", {"concurrency": "forbid"}, {}),
        ("/usr/bin/flock -xn /tmp/l x", "x", {"concurrency": "forbid"}, {}),
        ("flock --nonblock -o /tmp/l x >l 2>&1", "x >l 2>&1", {"concurrency": "forbid"}, {}),
        ("flock /tmp/l x", "x", {"concurrency": "queue"}, {}),
        ("flock -n $HOME/l x", "x", {"concurrency": "forbid"}, {}),
        ("flock -n /tmp/l -c 'cd /a && x'", "x", {"concurrency": "forbid", "working_dir": "/a"}, {}),
        ("flock -n /tmp/l -c 'x' >>l 2>&1", "x >>l 2>&1", {"concurrency": "forbid"}, {}),
        ("flock -n /tmp/l -c 'x; y' >l", "{ x; y; } >l", {"concurrency": "forbid"}, {}),
        ("A=1 flock -n /tmp/l x", "A=1 x", {"concurrency": "forbid"}, {}),
        ("flock -n /tmp/l timeout 60 nice x", "nice x", {"concurrency": "forbid"}, {"timeout": "1m"}),
        # timeout
        ("timeout 90 x a", "x a", {}, {"timeout": "90s"}),
        ("timeout 2h x", "x", {}, {"timeout": "2h"}),
        ("timeout 1d x", "x", {}, {"timeout": "24h"}),
        ("timeout -k 10 5m x", "x", {}, {"timeout": "5m", "grace": "10s"}),
        ("timeout --kill-after=1m --signal=TERM 5m x", "x", {}, {"timeout": "5m", "grace": "1m"}),
        ("timeout -s 15 -k5 5m x >l", "x >l", {}, {"timeout": "5m", "grace": "5s"}),
        # chronic, cronic
        ("chronic x a", "x a", {}, {}),
        ("cronic ./x", "./x", {}, {}),
        # cd
        ("cd /a && x", "x", {"working_dir": "/a"}, {}),
        ("cd ~/a && x", "x", {"working_dir": "~/a"}, {}),
        ('cd "$HOME/a b" && x', "x", {"working_dir": "~/a b"}, {}),
        ("cd a && x", "x", {"working_dir": "~/a"}, {}),
        ("cd /a && cd ../b && x >>l", "x >>l", {"working_dir": "/b"}, {}),
        ("cd $D/x && y", "y", {"working_dir": "/d/x"}, {}),
        ("(cd /a && x)", "x", {"working_dir": "/a"}, {}),
        ("{ cd /a && x; }", "x", {"working_dir": "/a"}, {}),
        # export
        ("export A=1 B='c d' && x", "x", {"env": {"A": "1", "B": "c d"}}, {}),
        ("export A=1; export B=2; x", "x", {"env": {"A": "1", "B": "2"}}, {}),
        # sleep
        ("sleep $((RANDOM % 300)); x", "x", {"jitter": "5m"}, {}),
        ("sleep $(($RANDOM%60)) && x", "x", {"jitter": "1m"}, {}),
        ("sleep $[ RANDOM % 90 ] ; x", "x", {"jitter": "90s"}, {}),
        ("sleep $((RANDOM*3600/32768)) && x", "x", {"jitter": "1h"}, {}),
        ("sleep $(shuf -i 0-600 -n 1); x", "x", {"jitter": "10m"}, {}),
        ("perl -e 'sleep int(rand(43200))' && certbot -q renew", "certbot -q renew", {"jitter": "12h"}, {}),
        ("python -c 'import random; import time; time.sleep(random.random() * 3600)' && x", "x", {"jitter": "1h"}, {}),
        # conditions
        ("test -x /a && /a", "/a", {}, {"if": "test -x /a"}),
        ("[ -x /a ] && [ ! -f /b ] && /a", "/a", {}, {"if": "[ -x /a ] && [ ! -f /b ]"}),
        ("! [ -e /b ] && /a", "/a", {}, {"if": "! [ -e /b ]"}),
        ("test -x /a || ( cd / && x )", "x", {"working_dir": "/"}, {"if": "! test -x /a"}),
        ("! test -x /a || x", "x", {}, {"if": "test -x /a"}),
        ("if [ -x /a ]; then /a -q; fi", "/a -q", {}, {"if": "[ -x /a ]"}),
        ("command -v x >/dev/null && x", "x", {}, {"if": "command -v x >/dev/null"}),
        ("pgrep -x y >/dev/null || y -d", "y -d", {}, {"if": "! pgrep -x y >/dev/null"}),
        ("ps aux | grep -q '[y]' || y", "y", {}, {"if": "! ps aux | grep -q '[y]'"}),
        ("grep -q a /b && x", "x", {}, {"if": "grep -q a /b"}),
        ("systemctl is-active --quiet a && x", "x", {}, {"if": "systemctl is-active --quiet a || false"}),
        ("systemctl is-active --quiet a || x", "x", {}, {"if": "! systemctl is-active --quiet a"}),
        # output
        ("x >/dev/null 2>&1", "x", {}, {}),
        ("x > /dev/null", "x", {}, {}),
        ("x >>/dev/null 2>/dev/null", "x", {}, {}),
        ("x </dev/null >/dev/null 2>&1", "x </dev/null", {}, {}),
        ("x >/dev/null 2>&1 && y >/dev/null || true", "x && y || true", {}, {}),
        ("(cd /a && x) >/dev/null 2>&1", "x", {"working_dir": "/a"}, {}),
        # background
        ("x &", "x", {}, {}),
        ("nohup x a >l 2>&1 &", "x a >l 2>&1", {}, {}),
        ("cd /a && x | y &", "x | y", {"working_dir": "/a"}, {}),
        # monitors
        (f"x && curl -fsS -m 10 --retry 5 -o /dev/null {PING}", "x", {"notify": {"to": [{"ping": PING}]}}, {}),
        (f"x && curl -fsS {PING} >/dev/null || curl -fsS {PING}/fail", "x", {"notify": {"to": [{"ping": PING}]}}, {}),
        (f"x ; curl -fsS \"{PING}/$?\"", "x", {"notify": {"to": [{"ping": PING}]}}, {}),
        (f"curl {PING}/start; x; curl {PING}/$?", "x", {"notify": {"to": [{"ping": PING}]}}, {}),
        (f"x && wget -q -T 10 -t 5 -O /dev/null {PING}", "x", {"notify": {"to": [{"ping": PING}]}}, {}),
        ("x && curl -s https://me.example/ping/abc",
        "x", {"notify": {"to": [{"ping": "https://me.example/ping/abc"}]}}, {}),
    ],
)  # fmt: skip
def test_it_is_lifted(text: str, left: str, keys: dict[str, Any], step: dict[str, Any]) -> None:
    found = peeled(text, variables={"D": "/d"})
    assert (found.text, found.keys, found.step) == (left, keys, step)
    assert [kind for kind, _, _ in found.notes if kind == "lifted"]


@pytest.mark.parametrize(
    "text",
    [
        "flock -w 15 /tmp/l x", "flock -s /tmp/l x", "flock -n -E 0 /tmp/l x", "flock -n 9", "flock -n $(mktemp) x",
        "flock -n /tmp/l echo x", "flock -n /tmp/l x || echo busy", "flock -n /tmp/l -c \"x $Y\"",
        ">l flock -n /tmp/l x",
        "timeout 5 echo x", "timeout -s INT 5 x", "timeout --foreground 5 x", "timeout 0 x", "timeout $N x",
        "timeout 5",
        "timeout 5 x || y", "timeout 5 A=1 x",
        "chronic -e x", "chronic", "cronic test -f x",
        "cd /a; x", "cd /a || exit; x", "cd /a && x || y", "cd $UNKNOWN && x", "cd a* && x", "cd - && x", "cd /a",
        "cd /a b && x",
        "cd $(dirname $0) && x", "cd /a && x; y",
        "export PATH=$PATH:/a && x", "export A=~/b; x", "A=1; x", "export A=$(x) && y",
        "sleep 30; x", "sleep $((RANDOM % 40 + 10)); x", "sleep $((RANDOM % N)); x", "sleep $((RANDOM % 60))m; x",
        "sleep $((RANDOM % 60)) || x", "perl -e 'sleep 5' && x",
        "x && y || z", "test -x /a && x || y", "test -x /a && x; y", "test -x /a; x", "[ -x /a ] || [ -x /b ] || x",
        "grep a /b && x", "x | y && z", "if [ -x /a ]; then x; else y; fi", "if x; then y; fi", "test -x /a",
        "x 2>/dev/null", "x 2>&1 >/dev/null", "x >>l 2>&1", "x | y", "x &>/dev/null",
        "x; y &", "x & y", "x & y &",
        f"x; curl {PING}", f"curl {PING}", f"sleep 3 && curl {PING}", f"x && curl -X POST -d a {PING}",
        f"x || curl {PING}/fail",
        "x && curl https://example.org/done", f"x && curl {PING} {PING}", f"test -f /a && curl {PING}/",
        ". /nosuch/env; x", ". env; x", "source /nosuch/env && x", "set -a; . /nosuch/env; x", "exec x", "x; y",
        "echo 'a' \"$B\" `c`",
        "x <<E\nE", "x (", "",
    ],
)  # fmt: skip
def test_it_stays_as_it_is(text: str) -> None:
    found = peeled(text)
    assert found.text == text or (found.text, found.step.get("if")) == (f"curl {PING}/", "test -f /a")
    assert not found.keys


def test_bash_says_more() -> None:
    assert peeled("x &>/dev/null", bash=True).text == "x"


def test_what_is_not_scheduled_has_no_jitter() -> None:
    assert peeled("sleep $((RANDOM % 30)); x", scheduled=False).text == "sleep $((RANDOM % 30)); x"


def test_logs_are_taken_where_that_is_wanted() -> None:
    assert peeled("x >>/a/l 2>&1", logs=True).text == "x"
    assert peeled("x > l && y >>m 2>&1", logs=True).text == "x && y"
    assert peeled("x 2>&1 >>l", logs=True).text == "x 2>&1 >>l"
    assert peeled("x >l 2>m", logs=True).text == "x >l 2>m"
    assert peeled("x <a >l", logs=True).text == "x <a >l"


def test_a_condition_on_a_relative_file_keeps_its_folder() -> None:
    found = peeled("[ -f flag ] && ( cd /a && x )")
    assert (found.text, found.step, found.keys) == ("cd /a && x", {"if": "[ -f flag ]"}, {})


@pytest.mark.parametrize(
    ("content", "text", "fits"),
    [
        ("A=1\n# b\nC='d e'\n\n", "set -a; . {}; set +a; x", True),
        ("A=1\n", "set -o allexport && . {} && set +o allexport && x", True),
        ("export A=1\nexport B=\"c d\"\n", ". {} && x", True), ("export A=1\n", "source {}; x", True),
        ("A=1\n", ". {}; x", False), ("A=$B\n", "set -a; . {}; set +a; x", False),
        ("A=~/b\n", "set -a; . {}; set +a; x", False),
        ("A=1; B=2\n", "set -a; . {}; set +a; x", True), ("A=1\necho hi\n", "set -a; . {}; set +a; x", False),
        ("A=1 # two\n", "set -a; . {}; set +a; x", True), ("if", "set -a; . {}; set +a; x", False),
        ("A=1\n", "set -a; . {}; x", False), ("A=\"a\\nb\"\n", "set -a; . {}; set +a; x", False),
    ],
)  # fmt: skip
def test_a_file_of_variables_is_an_env_file_where_both_read_the_same(
    tmp_path: Path, content: str, text: str, fits: bool
) -> None:
    file = tmp_path / "env"
    file.write_text(content)
    found = peeled(text.format(file))
    if fits and ";" in content:  # one line, two variables: the file's own rules say otherwise
        fits = False
    assert found.keys == ({"env_file": str(file)} if fits else {})
    assert found.text == ("x" if fits else text.format(file))


def test_an_env_file_is_looked_for_where_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "env").write_text("export A=1\n")
    found = peeled("cd a && . ./env && x", home=str(tmp_path))
    assert found.keys == {"working_dir": "~/a", "env_file": "~/a/env"}


def test_locks_that_others_take_stay_and_shared_ones_are_named() -> None:
    assert peeled("flock -n /l x", kept_locks={"/l"}).text == "flock -n /l x"
    assert peeled("flock -n /run/wiki.lock x", shared_locks={"/run/wiki.lock"}).keys == {
        "concurrency": {"policy": "forbid", "key": "wiki"}
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flock -n /l x",
         "lifted: flock on /l: concurrency: forbid; what takes the lock and is no job of this crontab is"),
        ("flock /l x", "lifted: flock on /l: concurrency: queue (of those that would wait, the newest begins;"),
        ("flock -n /shared x", "lifted: flock on /shared: concurrency: {policy: forbid, key: shared}"),
        ("flock -n /kept x", "kept: flock /kept: a script, another user's entry, or a line that keeps its flock takes"),
        ("flock -w 5 /l x", "kept: flock /l: with options that `concurrency` has no word for"),
        ("flock -n /l echo x",
         "kept: flock /l: what it starts is put together by the shell, or is a word of the shell's"),
        ("flock -n /l -c \"x $Y\"", "kept: flock /l: what it starts is put together by the shell"),
        (">l flock -n /l x", "kept: flock /l: a redirection stands in front of what it starts"),
        ("flock -n /l", "kept: flock /l: it starts nothing"),
        ("a && flock -n /l x || b", ""), ("flock -n 9", ""), ("x", ""),
    ],
)  # fmt: skip
def test_what_is_said_of_a_lock(text: str, words: str) -> None:
    found = peeled(text, kept_locks={"/kept"}, shared_locks={"/shared"})
    notes = [f"{kind}: {message}" for kind, message, _ in found.notes]
    assert len(notes) == bool(words) and "".join(notes).startswith(words)
    assert ("concurrency" in found.keys) == words.startswith("lifted")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a && b && c", ["a", "b", "c"]), ("a | b && c", ["a | b", "c"]),
        ("a >l && b >>l 2>&1", ["a >l", "b >>l 2>&1"]),
        ("echo hi && a && echo done", ["echo hi && a && echo done"]),
        ("echo hi && a && b && echo done", ["echo hi && a", "b && echo done"]),
        ("mkdir -p x && a && b", ["mkdir -p x && a", "b"]), ("sleep 5 && a", ["sleep 5 && a"]),
        ("$D/a && $D/b", ["$D/a", "$D/b"]),
        ("(a; b) && c", ["(a; b)", "c"]), ("A=1 a && b", ["A=1 a", "b"]),
        ("a && b || c", ["a && b || c"]), ("a; b", ["a; b"]), ("A=1 && b", ["A=1 && b"]),
        ("a && cd x && b", ["a && cd x && b"]),
        ("a && echo $? && b", ["a && echo $? && b"]), ("$a && b", ["$a && b"]), (". /x && a && b", [". /x && a && b"]),
        ("{ a; } && b", ["{ a; } && b"]), ("a", ["a"]), ("if a; then b; fi && c", ["if a; then b; fi && c"]),
    ],
)  # fmt: skip
def test_a_chain_becomes_steps_where_nothing_is_left_in_the_shell(text: str, steps: list[str]) -> None:
    assert [piece.text for piece in pieces(Peeling(text, Place()))] == steps


def test_what_has_a_condition_or_an_input_is_one_step() -> None:
    assert len(pieces(peeled("test -f /x && a && b"))) == 1
    assert len(pieces(Peeling("a && b", Place()), whole=True)) == 1
