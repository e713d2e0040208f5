"""A script that is one function and its call: what becomes of the body, and where the function stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.convert.lifting import lifted
from agentrun.convert.program import Dialect, Program
from agentrun.convert.shell import convert


def body(source: str, dialect: Dialect = "bash") -> list[str] | None:
    """The lines that are left, without the empty ones; None where the function stays."""
    found = lifted(Program(source, dialect))
    return None if found is None else [line for line in found.source.split("\n") if line.strip()]


def script(inside: str, *, before: str = "", call: str = 'main "$@"', after: str = "") -> str:
    lines = "".join(f"    {line}\n" if line else "\n" for line in inside.split("\n"))
    return f"{before}main() {{\n{lines}}}\n\n{call}\n{after}"


LIFTED = [
    (script("a\nb\nc"), ["a", "b", "c"]),
    (script("a\nif b; then\n    c\nfi\nd"), ["a", "if b; then", "    c", "fi", "d"]),
    (script("a $1\nshift\nc"), ["a $1", "shift", "c"]),
    (script("a\nb\nc", call="main"), ["a", "b", "c"]),
    (script("a\nb\nc", call='if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then\n    main "$@"\nfi'), ["a", "b", "c"]),
    (script("a\nb\nc", after="exit 0\n"), ["a", "b", "c", "exit 0"]),
    (script("a\nb\nc", after="exit $?\n"), ["a", "b", "c", "exit $?"]),
    (script("a\nb\nreturn 3"), ["a", "b", "exit 3"]),
    (script("a\nb\nc", before="set -e\nlog() { return 1; }\n"), ["set -e", "log() { return 1; }", "a", "b", "c"]),
    # what stands in a string or a here-document keeps its blanks
    (script("cat <<E\n  x\nE\na 'b\n  c'\nd \\\n  e").replace("    E\n", "E\n"),
     ["cat <<E", "      x", "E", "a 'b", "      c'", "d \\", "  e"]),
    # local
    (script("local x=1\na $x\nb"), ["x=1", "a $x", "b"]),
    (script("local x\na $x\nb"), ["declare x", "a $x", "b"]),
    (script("local x=1 y=$x\na $x\nb"), ["declare x=1 y=$x", "a $x", "b"]),
    (script("local x=$(false)\na $x\nb"), ["declare x=$(false)", "a $x", "b"]),
    (script("local -a x=(1 2)\na $x\nb"), ["declare -a x=(1 2)", "a $x", "b"]),
    (script("local x=1\na $x\nb", before="f() { local x=2; g $x; }\n"),
     ["f() { local x=2; g $x; }", "x=1", "a $x", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "lines"), LIFTED)
def test_the_body_becomes_the_script(source: str, lines: list[str]) -> None:
    assert body(source) == lines
    found = lifted(Program(source, "bash"))
    assert found is not None and len(found.source.split("\n")) == len(source.split("\n"))


KEPT = [
    script("a\nb"),  # not worth it
    # it does not end at its end
    script("a\nreturn 1\nb\nc"), script("a\nb || return 1\nc"), script("a\nb\nreturn 1", after="exit 0\n"),
    # it is called otherwise, or more than once
    script("a\nb\nmain x"), script("a\nb\nc", call="main a b"), script("a\nb\nc", call='main "$@" | tee log'),
    script("a\nb\nc", call='main "$@" >log'), script("a\nb\nc", call='main "$@" || exit 1'),
    script("a\nb\nc", call="main $@"), script("a\nb\nc", before="trap main EXIT\n"),
    script("a\nb\nc", before="f() { main; }\n"), script("a\nb\nc", before="eval main\n"),
    script("a\nb\nc", after="d\n"), script("a\nb\nc", call="f() { x; }\nmain"),
    # its parameters are not the script's
    script("a $1\nb\nc", call="main"), script("shift\nb\nc", call="main"), script('a "$#"\nb\nc', call="main"),
    # somebody asks how deep it is called, or sees each line
    script("a\nb\nc", before="log() { echo ${FUNCNAME[1]}; }\n"), script("caller\nb\nc"),
    script("a ${BASH_SOURCE[1]}\nb\nc"), script("a\nb\nc", before="trap 'x' ERR\n"),
    script("trap 'x' RETURN\nb\nc"), script("a\nb\nc", before="set -x\n"), script("set -eux\nb\nc"),
    script("alias x=y\nb\nc"), script("a\nf() { b; }\nf\nc"),
    # a name that is not its own alone
    script("local x=1\nb\nc", before="x=2\n"), script("local x=1\nb\nc", before="f() { echo $x; }\n"),
    script("local PATH=/bin\nb\nc"), script("local no_proxy=a\nb\nc"), script("local IFS=,\nb\nc"),
    script("local x=1\ntrap 'rm $x' EXIT\nc"), script("declare x=1\nb\nc", before="x=2\n"),
    script('local "$x"\nb\nc'), script("local -\nb\nc"),
    # it is no function of lines, or no function
    "main() (\na\nb\nc\n)\nmain\n", "main() { a; b; c; }\nmain\n", "main() {\na\nb\nc\n} >log\nmain\n",
    "a\nb\nc\n", "main\n", "main() {\na\nb\nc\n}\n",
]  # fmt: skip


@pytest.mark.parametrize("source", KEPT)
def test_the_function_stays_where_somebody_could_tell(source: str) -> None:
    assert body(source) is None


def test_in_sh_only_what_it_has_no_word_for() -> None:
    assert body(script("local x=1\na $x\nb"), "sh") == ["x=1", "a $x", "b"]
    assert body(script("local x\na $x\nb"), "sh") is None
    assert body(script("local x=$(a)\nb\nc"), "sh") is None


SCRIPT = """\
#!/bin/bash
# Counts the files
set -euo pipefail
trap 'echo "end $? $LINENO"' EXIT

say() {
    echo "$LINENO: $*"
}

main() {
    local n=0 where=$1
    # First
    say first "$where" $#
    gzip -c "$0" >x.gz

    # Second
    for one in a "b c"; do
        n=$((n + 1))
        gzip -dc x.gz | wc -l
    done
    cat <<-END
\tline $n
\t  kept
\tEND
    say "two
    lines"

    # Third
    gzip -t x.gz
    shift
    say "$n $#"
    tar cf nothing.tar nothing 2>/dev/null
    say never
}

main "$@"
"""


def test_the_job_does_what_the_script_does(tmp_path: Path) -> None:
    path = tmp_path / "count.sh"
    path.write_text(SCRIPT)
    done = convert(path.read_bytes(), str(path))
    assert len(done.draft.steps) >= 4
    assert "the body of main is the job's steps" in done.notes[0].message and done.notes[0].kind == "lifted"
    ends = []
    for number, argv in enumerate((["/bin/bash"], [sys.executable, "-m", "agentrun", "run"])):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        env = {**os.environ, "AGENTRUN_HOME": str(tmp_path / "home")}
        behind = ["--"] if number else []
        ran = subprocess.run([*argv, str(path), *behind, "x y", "z"], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, check=False)  # fmt: skip
        output = ran.stdout
        if number:
            logs = [sys.executable, "-m", "agentrun", "logs", "--raw", "count"]
            output = subprocess.run(logs, env=env, capture_output=True, text=True, check=True).stdout
        ends.append((ran.returncode, output))
    assert ends[0] == ends[1]
    assert ends[0][0] != 0 and "first x y 2" in ends[0][1]
