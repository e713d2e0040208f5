"""Which loops are offered as `foreach`, what the step says then, and why the others stay loops."""

from __future__ import annotations

import pytest

from agentrun.convert.shell import Converted, convert


def offered(text: str) -> Converted:
    result = convert(f"#!/bin/bash\n{text}\n".encode(), "/opt/x.sh", loops=True)
    result.draft.checked("x.yaml")
    return result


def test_a_loop_as_a_step() -> None:
    loop = "# Copy to all\nfor host in $HOSTS; do\n  rsync x \"$host:\"\ndone"
    result = offered(f"set -e\nHOSTS=\"a b\"\n\n{loop}\n\ntar c x")
    step = result.draft.steps[1]
    assert step.id == "copy"
    assert dict(step.keys) == {
        "line": 6, "foreach": ["a", "b"], "max_parallel": 1, "fail_fast": True, "env": {"host": "${{ item }}"},
        "run": "# Copy to all\nrsync x \"$host:\"\n",
    }  # fmt: skip
    assert result.notes[-1].kind == "lifted"


LOOPS = [
    ("for a in b c; do\n  x $a\ndone\ny", ""),
    ("L=(b 'c d')\nfor a in \"${L[@]}\"; do\n  x $a\ndone\ny", ""),
    ("for a in b c; do\n  D=/x/$a\n  x $D\ndone\ny", ""),
    ("for a in *.c; do\n  x $a\ndone\ny", "its list is known only when it runs"),
    ("for a in $(ls); do\n  x $a\ndone\ny", "its list is known only when it runs"),
    ("for a in \"$@\"; do\n  x $a\ndone\ny", "its list is known only when it runs"),
    ("L=\"b c\"\nL=\"$L d\"\nfor a in $L; do\n  x $a\ndone\ny", "its list is known only when it runs"),
    ("for a in b b; do\n  x $a\ndone\ny", "names something twice"),
    ("for a in b c; do\n  x $a || break\ndone\ny", "`break`"),
    ("for a in b c; do\n  cd $a\ndone\ny", "`cd`"),
    ("N=0\nfor a in b c; do\n  N=$((N + 1))\ndone\ny", "N of the one before"),
    ("for a in b c; do\n  ((N++))\ndone\ny", "it counts"),
    ("for a in b c; do\n  R+=$a\ndone\ny", "R of the one before"),
    ("for a in b c; do\n  R=$(x $a)\ndone\ny $R", "R is read after it"),
    ("for a in b c; do\n  x $a\ndone\ny $a", "a is read after it"),
    ("for a in b c; do\n  x $a &\ndone\ny", "starts a job"),
    ("for a in b c; do\n  x $a\ndone", "its last round is the status of the script"),
    ("f() { R=1; }\nfor a in b c; do\n  f\ndone\ny", "f assigns"),
    ("for a in b c; do x $a; done\ny", "on one line"),
]


@pytest.mark.parametrize(("text", "why"), LOOPS)
def test_what_is_offered(text: str, why: str) -> None:
    result = offered(text)
    loops = [step for step in result.draft.steps if "foreach" in dict(step.keys)]
    said = [note.message for note in result.notes if "loop" in note.message]
    assert bool(loops) == (not why) and any(why in one for one in said), said


def test_only_where_it_is_asked_for() -> None:
    result = convert(b"#!/bin/sh\nfor a in b c; do\n  x $a\ndone\ny\n", "/opt/x.sh")
    assert not any("foreach" in dict(step.keys) for step in result.draft.steps)
