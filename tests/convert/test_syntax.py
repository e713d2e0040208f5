"""Shell text as a tree: what its words say, which commands stand in it, what the shells accept."""

from __future__ import annotations

import pytest

from agentrun.convert.syntax import (
    accepts,
    arguments,
    assignments,
    broken,
    command_name,
    commands,
    fields,
    first_line,
    is_background,
    last_line,
    literal,
    parse,
    redirects,
    text,
    walk,
    words,
)

WORDS = {
    "abc": "abc", "a\\ b": "a b", "'a $b'": "a $b", '"a b"': "a b", '"a \\" \\$ \\n"': 'a " $ \\n', 
    "a'b'\"c\"": "abc",
    "$'a b'": "a b", "$a": None,
    '"$a"': None, "a$(b)": None, "`b`": None, "12": "12", "''": "", '""': "",
    "$'a\\n'": None,
}  # fmt: skip


@pytest.mark.parametrize(("word", "says"), WORDS.items())
def test_what_a_word_says(word: str, says: str | None) -> None:
    command = next(commands(parse(f"x {word}\n")))
    assert arguments(command) == [says]


@pytest.mark.parametrize(("word", "one"), [("a", True), ("'*'", True), ("*", False), ("~", False), ("{a,b}", False)])
def test_a_word_that_is_one_word(word: str, one: bool) -> None:
    assert fields(words(next(commands(parse(f"x {word}\n"))))[1]) is one


def test_commands_and_their_parts() -> None:
    found = list(commands(parse("A=1 b c >d 2>&1\nexport E=2\nif [ -f g ]; then /h/i; fi\n")))
    assert [command_name(one) for one in found] == ["b", "export", "[", "/h/i"]
    assert [text(one) for one in redirects(found[0])] == [">d", "2>&1"]
    assert [name for one in found for name, _ in assignments(one)] == ["A", "E"]
    assert first_line(found[3]) == last_line(found[3]) == 3


def test_commands_below_a_function_can_be_left_out() -> None:
    root = parse("f() { a; }\nb $(c)\n")
    assert [command_name(one) for one in commands(root, without=("function_definition",))] == ["b", "c"]


JOBS = [("a &", 1), ("a & b &", 2), ("echo $((1 & 2))", 0), ("a && b", 0), ("a &>b", 0)]


@pytest.mark.parametrize(("line", "jobs"), JOBS)
def test_jobs(line: str, jobs: int) -> None:
    assert sum(map(is_background, walk(parse(line + "\n")))) == jobs


def test_text_that_is_no_shell() -> None:
    assert broken(parse("if then fi )\n")) and not broken(parse("if a; then b; fi\n"))
    assert literal(parse("")) is None


def test_a_deep_tree_is_walked() -> None:
    assert sum(1 for _ in commands(parse("( " * 300 + "a" + " )" * 300))) == 1


ACCEPTED = [("a\n", True), ("if a\n", False), ("cat <<E\na\n", False), ("'a\n", False), ("f() {\n", False)]


@pytest.mark.parametrize(("source", "right"), ACCEPTED)
def test_what_bash_accepts(source: str, right: bool) -> None:
    assert accepts(("bash",), source) is right


def test_a_shell_that_is_not_there_accepts_everything() -> None:
    assert accepts(("no-such-shell",), "if (\n")
