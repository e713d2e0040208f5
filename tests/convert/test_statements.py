"""Where a script is cut, and what stays in one piece: tables of scripts, and the pieces as their lines."""

from __future__ import annotations

import pytest

from agentrun.convert.program import Dialect, Program
from agentrun.convert.statements import cut


def pieces(source: str, dialect: Dialect = "bash", plain: bool | None = None) -> list[str]:
    """The lines of each piece, joined by `|`; empty lines and comments left out."""
    program = Program(source, dialect)
    found = []
    for piece in cut(program, lambda path: plain).pieces:
        lines = program.lines[piece.first - 1 : piece.last]
        found.append("|".join(line for line in lines if line.strip() and not line.startswith("#")))
    return found


# each script as its lines; the pieces as their lines
CUT = [
    ("a\nb\n", ["a", "b"]),
    ("a; b\nc\n", ["a; b", "c"]),
    ("a \\\n  -x\nb\n", ["a \\|  -x", "b"]),
    ("a && b ||\n  c\nd\n", ["a && b |||  c", "d"]),
    ("if a; then\n  b\nelse\n  c\nfi\nd\n", ["if a; then|  b|else|  c|fi", "d"]),
    ("case $1 in\n  a) b ;;\nesac\nc\n", ["case $1 in|  a) b ;;|esac", "c"]),
    ("cat <<E\nx\n# y\n\nE\nb\n", ["cat <<E|x|E", "b"]),
    ("cat <<A; cat <<'B'\nx\nA\n$y\nB\nc\n", ["cat <<A; cat <<'B'|x|A|$y|B", "c"]),
    ("cat <<-E | b\n\tx\n\tE\nc\n", ["cat <<-E | b|\tx|\tE", "c"]),
    ("A='x\ny'\nb\n", ["A='x|y'", "b"]),
    ("f() {\n  g() { h; }\n  g\n}\nf\n", ["f() {|  g() { h; }|  g|}", "f"]),
    ("a=(1\n2)\nfor x in ${a[@]}; do\n  y\ndone\n", ["a=(1|2)", "for x in ${a[@]}; do|  y|done"]),
    ("a # b\n# c\nd\n", ["a # b", "d"]),
    ("(\ncd a\nb\n)\n{ c; }\n", ["(|cd a|b|)", "{ c; }"]),
    ("a <<< 'b'\nc\n", ["a <<< 'b'", "c"]),
]

# what a shell cannot hand to the next one
TIED = [
    # jobs, up to the last one who asks for them
    ("a &\nb\nwait\nc\n", ["a &|b|wait", "c"]),
    ("a &\nP=$!\nb\nkill $P\nc\n", ["a &|P=$!|b|kill $P", "c"]),
    ("for i in 1 2; do a & done\nwait\nb\n", ["for i in 1 2; do a & done|wait", "b"]),
    ("a &\nb\n", ["a &", "b"]),
    ("f() { a & }\nf\nb\nwait\n", ["f() { a & }", "f|b|wait"]),
    ("a &\nb\nkill %1\nc\n", ["a &|b|kill %1", "c"]),
    ("a &\nb\njobs\nc\n", ["a &|b|jobs", "c"]),
    ("trap 'kill $P' EXIT\na &\nP=$!\nb\n", ["trap 'kill $P' EXIT|a &|P=$!|b"]),
    ("(a &)\nb\n", ["(a &)", "b"]),
    ("a\nwait\n", ["a", "wait"]),
    # the status of what is right above
    ("a\nif [ $? -ne 0 ]; then b; fi\nc\n", ["a|if [ $? -ne 0 ]; then b; fi", "c"]),
    ("a\nrc=$?\nb\n", ["a|rc=$?", "b"]),
    ("a | b\nif [ ${PIPESTATUS[0]} -ne 0 ]; then c; fi\nd\n", ["a | b|if [ ${PIPESTATUS[0]} -ne 0 ]; then c; fi", "d"]),
    ("a\nb || rc=$?\n", ["a", "b || rc=$?"]),
    ("a\ncase $? in 0) b ;; esac\n", ["a|case $? in 0) b ;; esac"]),
    ("c() { if [ $? -ne 0 ]; then x; fi; }\na\nc\nb\n", ["c() { if [ $? -ne 0 ]; then x; fi; }", "a|c", "b"]),
    ("mkdir a\ncd $_\nb\n", ["mkdir a|cd $_", "b"]),
    ("a\nb=$(echo $?)\nc\n", ["a|b=$(echo $?)", "c"]),
    ("trap 'echo $?' EXIT\na\n", ["trap 'echo $?' EXIT", "a"]),
    # the end of the script
    ("a\nexit 0\nb\n", ["a", "exit 0|b"]),
    ("a\nexec b\nc\n", ["a", "exec b|c"]),
    ("a\n[ b ] || exit 1\nc\n", ["a", "[ b ] || exit 1", "c"]),
    # descriptors: of files they are handed on, of pipes not
    ("exec >>log 2>&1\na\n", ["exec >>log 2>&1", "a"]),
    ("exec 3<file\nread -u 3 a\nb\n", ["exec 3<file", "read -u 3 a", "b"]),
    ("exec 3< <(a)\nread b <&3\nc\n", ["exec 3< <(a)|read b <&3", "c"]),
    ("exec 3<<E\nx\nE\nb\nread c <&3\nd\n", ["exec 3<<E|x|E|b|read c <&3", "d"]),
    ("exec > >(tee -a log) 2>&1\na\n", ["exec > >(tee -a log) 2>&1", "a"]),
    ("exec > >(ts | tee log) 2>&1\na\nb\n", ["exec > >(ts | tee log) 2>&1", "a", "b"]),
    ("exec > >(while read l; do c; done)\na\nb\n", ["exec > >(while read l; do c; done)|a|b"]),
    ("f() { c; }\nexec 2> >(f)\na\nb\n", ["f() { c; }", "exec 2> >(f)|a|b"]),
    ("exec {fd}>lock\nflock $fd\na\n", ["exec {fd}>lock", "flock $fd", "a"]),
    # the script's own input
    ("read a\nb\nread c\nd\n", ["read a|b|read c", "d"]),
    ("read a\nb\n", ["read a", "b"]),
    ("read a <f\nb\nc | while read d; do e; done\n", ["read a <f", "b", "c | while read d; do e; done"]),
    # the process itself
    ("a\ncoproc b\nc\n", ["a", "coproc b|c"]),
    ("a\ntrap x DEBUG\nb\nc\n", ["a", "trap x DEBUG|b|c"]),
    ("a\nset -m\nb\nc\n", ["a", "set -m|b|c"]),
    ("a\nset -v\nb\nc\n", ["a", "set -v|b|c"]),
    ("set -- -v -n x\na\nb\n", ["set -- -v -n x", "a", "b"]),
    ("set -euo pipefail\na\nb\n", ["set -euo pipefail", "a", "b"]),
    ("a\nulimit -n 99\nb\nc\n", ["a", "ulimit -n 99|b|c"]),
    ("ulimit -n\na\n", ["ulimit -n", "a"]),
    ("a\nrenice 9 -p $$\nb\nc\n", ["a", "renice 9 -p $$|b|c"]),
    ("a\nP=$$\nb\nkill $P\nc\n", ["a", "P=$$|b|kill $P|c"]),
    ("F=/tmp/x.$$\na >$F\nb\n", ["F=/tmp/x.$$", "a >$F", "b"]),
    ("RANDOM=42\na\necho $RANDOM\n", ["RANDOM=42|a|echo $RANDOM"]),
    ("shopt -s extglob\nls !(*.txt)\nb\n", ["shopt -s extglob", "ls !(*.txt)", "b"]),
]

OF_SH = [
    ("f() { a; }\nb\nf\n", None, ["f() { a; }", "b", "f"]),
    ("a\nif b; then\n  f() { c; }\nfi\nd\nf\n", None, ["a", "if b; then|  f() { c; }|fi|d|f"]),
    ("a\nf() { g() { b; }; }\nc\n", None, ["a", "f() { g() { b; }; }|c"]),
    ("a\n. /x/lib.sh\nb\nc\n", None, ["a", ". /x/lib.sh|b|c"]),
    ("a\n. /x/lib.sh\nb\nc\n", True, ["a", ". /x/lib.sh", "b", "c"]),
    ("a\n. /x/app.env\nb\nc\n", None, ["a", ". /x/app.env", "b", "c"]),
    ("a\n. /x/app.env\nb\nc\n", False, ["a", ". /x/app.env|b|c"]),
    ("a\neval \"$x\"\nb\nc\n", None, ["a", "eval \"$x\"|b|c"]),
    ("a\neval \"$(ssh-agent -s)\"\nb\n", None, ["a", "eval \"$(ssh-agent -s)\"", "b"]),
    ("a\neval 'b=1'\nc\n", None, ["a", "eval 'b=1'", "c"]),
    ("f() { a; }\nunset -f f\nb\n", None, ["f() { a; }", "unset -f f|b"]),
    ("cat <<E\na\nE\nb\n", None, ["cat <<E|a|E", "b"]),
    ("RANDOM=1\na\n", None, ["RANDOM=1", "a"]),
    ("function f\n{\n  a\n}\nb\n", None, ["function f|{|  a|}", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), CUT + TIED)
def test_bash(source: str, expected: list[str]) -> None:
    assert pieces(source) == expected


@pytest.mark.parametrize(("source", "plain", "expected"), OF_SH)
def test_sh(source: str, plain: bool | None, expected: list[str]) -> None:
    assert pieces(source, "sh", plain) == expected


def test_every_line_is_in_one_piece() -> None:
    source = "\n# a\n\nb # c\n\n\n# d\ne <<E\n#\n\nE\n# f\n\n"
    program = Program(source, "bash")
    found = cut(program, lambda path: None).pieces
    assert [(piece.first, piece.last) for piece in found] == [(1, 4), (5, 13)]


def test_where_the_parser_is_lost_the_shell_says_where_a_statement_ends() -> None:
    source = "a\nb \\\n  -x\nf() {\n  g\n}\n# c\nh <<E\n)\nE\n\ni; (\nj )\n"
    program = Program(source, "bash")
    program.root = Program("a\n)\n", "bash").root  # as if it had met something that it does not know
    found = cut(program, lambda path: None).pieces
    assert [(piece.first, piece.last) for piece in found] == [(1, 1), (2, 3), (4, 6), (7, 10), (11, 13)]
    assert found[2].nodes[0].start_point.row == 3


def test_why_is_said() -> None:
    program = Program("a &\nb\nwait\n", "bash")
    assert cut(program, lambda path: None).pieces[0].why == (
        "a child in the background belongs to the shell that started it",
    )


def test_nothing_in_it() -> None:
    assert cut(Program("# a\n\n", "sh"), lambda path: None).pieces == []
