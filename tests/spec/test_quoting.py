"""Any text, written as a scalar and read back by our own reader: it is the same."""

from __future__ import annotations

import random
import shlex

import pytest

from agentrun.spec.decode import decode
from agentrun.spec.quoting import quoted, scalar

TEXTS = [
    "./backup.sh", "echo hi", "echo 'it''s'", 'echo "a"', "a: b", "a #b", "#", "- a", "? x", "* * *", "&a",
    "!t", "%d", "@x", "`x`", "{a: b}", "[a]", "| cat", "> x", "null", "~", "true", "0755", "1:30", "1.10",
    "2026-01-01", "y", "<<", "=", "it's \"both\" \\ ways", "tab\there", "\ttab first", " blank first",
    "blank last ", "a\nb", "a\nb\n", "a\n\n", "\na", "a\n\nb", "a\n  b\n c", " a\nb", "a \nb", "a\n\tb",
    "a\r\nb", "a\n# b\n", "a\n--- b", "---", "...", "ü€😀", "a\u2028b", "a\x85b", "a\x00b", "a\x1bb", "a\ufeffb",
    "\ufeffa", "a\x7fb", "\u202ea", "x" * 500, "a\\nb", "'", '"', "\\", ":", "a:", ": a", "a,b", ",",
    "grep -c '^a: #1$' \"$f\" | mail -s \"it's\" x@y && true || { echo no; }", "\N{NO-BREAK SPACE}a", "\u3000",
    "a\n\u3000", "a \n b\t\n  \n\nc  \n", "  a\n b\n", "\ta\n", " \na\n", "a\n \n", "a\n\t\nb\n", " 'a' \"b\" \\",
    "  \ta\n\n\n# b \n", "if a \nthen\t\n\tb\nfi \n", "a\n\n\n", "cat <<-E\n\tx \n\tE\n", "|2\n  a\n",
]  # fmt: skip
PIECES = [
    " ", "\n", "\t", "'", '"', "\\", "#", ":", ": ", " #", "-", "- ", "%", "{", "}", "[", "]", ",", "&", "*",
    "!", "|", ">", "@", "`", "~", "?", "=", "$x", "ü", "😀", "\r", "\x85", "\u2028", "\x07", "\ufeff", "a", "b1",
    "null", "0", "...", "---", "\n\n",
]  # fmt: skip


def read(written: str) -> object:
    """As a value of any type, at the depth of a step's key."""
    text = f"params:\n  it:\n    default: {written}\nsteps: [{{run: x}}]\n"
    return decode(text, "a.yaml").params["it"].default


@pytest.mark.parametrize("text", TEXTS)
def test_each_is_read_as_it_was(text: str) -> None:
    assert read(quoted(text)) == text
    written = scalar(text, 4)
    if written == text:  # plain: what it is read as is decided by the key, and here any type could be
        job = decode(f"steps:\n- run: {written}\n  needs: []\n", "a.yaml")
        assert job.steps[0].run == text
    else:
        assert read(written) == text


def test_any_other_too() -> None:
    chance = random.Random(5)
    for _ in range(2_000):
        text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 12)))
        written = scalar(text, 4)
        assert written == text or read(written) == text, (text, written)
        if text.strip() and "\0" not in text and "${{" not in text:
            job = decode(f"steps:\n- run: {scalar(text, 2)}\n  needs: []\n", "a.yaml")
            assert job.steps[0].run == text, (text, written)


def test_what_people_write_stays_readable() -> None:
    assert scalar("./backup.sh --all", 2) == "./backup.sh --all"
    assert scalar('test "$A" = b || exit 1', 2) == 'test "$A" = b || exit 1'
    assert scalar("set -e\ncd x\n", 2) == "|\n    set -e\n    cd x"
    assert scalar("echo 'a: b'", 2) == '"echo \'a: b\'"'
    assert scalar("if a \n\tthen\t\n  \nfi\n", 2) == "|\n    if a \n    \tthen\t\n      \n    fi"  # blanks at the ends
    assert scalar("  a\nb\n", 2) == "|2\n      a\n    b"  # which without the 2 would be its indentation
    assert scalar("don't \"do\" it: \\", 2) == "|-\n    don't \"do\" it: \\"


def test_no_text_at_all() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        scalar("a\udc80", 0)
    assert shlex.split(str(read(scalar(shlex.quote("a 'b' \"c\""), 4)))) == ["a 'b' \"c\""]
