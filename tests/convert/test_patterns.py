"""Every regular expression of the converter on long lines: none of them may take its time over one."""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

import agentrun.convert

FOLDER = Path(agentrun.convert.__file__).parent
CALLS = frozenset(("compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer"))
FLAGS = {name: getattr(re, name) for name in ("I", "M", "S", "IGNORECASE", "MULTILINE", "DOTALL")}
LENGTH = 1_500
SECONDS = 5.0  # of the processor; one that goes through the rest of the line from each place needs a hundredth of it
PARTS = (" ", "a", "a ", "# ", "--a ", "'", '"', "$(", "\\ ", "ps ", "/a", "*", "1", "a=", "a=b ", "A_",
         "a.", "(", "[ ", "a, ")  # fmt: skip


class Pattern(NamedTuple):
    where: str
    text: str | bytes
    call: str
    flags: int


def patterns() -> Iterator[Pattern]:
    texts = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
    anywhere = set(re.findall(r"\b(\w+)\.(?:search|sub|split|findall|finditer)\(", "\n".join(texts.values())))
    for file, text in texts.items():
        tree = ast.parse(text)
        names = {id(node.value): target.id for node in ast.walk(tree) if isinstance(node, ast.Assign)
                 for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            of = node.func.value
            if node.func.attr not in CALLS or not isinstance(of, ast.Name) or of.id != "re":
                continue
            said = _said(node.args[0])
            if said is not None:
                named = [one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute) and one.attr in FLAGS]
                flags = sum({FLAGS[name] for name in named})
                begins = id(node) in names and names[id(node)] not in anywhere
                yield Pattern(f"{file}:{node.lineno}", said, "match" if begins else node.func.attr, flags)


def _said(node: ast.expr) -> str | bytes | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "name" for one in node.values)
    return None


def _ring(signum: int, frame: object) -> NoReturn:
    raise TimeoutError


def slow_on(pattern: Pattern) -> Iterator[str]:
    """What a line is made of that takes too long. A pattern that goes on for ever is cut off."""
    compiled = re.compile(pattern.text, pattern.flags)
    call = compiled.match if pattern.call in ("match", "fullmatch") else compiled.search
    before = signal.signal(signal.SIGVTALRM, _ring)
    try:
        for part in PARTS:
            line = (part * LENGTH)[:LENGTH] + "\0!"
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            try:
                call(line.encode() if isinstance(pattern.text, bytes) else line)  # type: ignore[arg-type]
            except TimeoutError:
                yield part
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


FOUND = list(patterns())


def test_there_are_some_and_a_bad_one_is_seen() -> None:
    assert len(FOUND) > 150
    assert list(slow_on(Pattern("", r"(a+)+$", "search", 0)))[:1] == ["a"]


@pytest.mark.parametrize("pattern", FOUND, ids=lambda one: one.where)
def test_none_takes_its_time(pattern: Pattern) -> None:
    assert list(slow_on(pattern)) == [], pattern.text
