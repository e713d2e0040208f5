"""A script cut into pieces after every line does what the whole one does: the same output, the same status.

The pieces are run here as the engine runs them, one process each, with nothing between them but the state.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from agentrun.step import carry

BASH, SH = "/bin/bash", "/bin/sh"
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LOGNAME": "ann", "SHELL": "/bin/sh"}


class End(NamedTuple):
    output: str
    status: int


def left(state: Path | str) -> carry.Left:
    return carry.Left(str(state), f"{state}.fds")


def execute(argv: Sequence[str], cwd: str, env: dict[str, str]) -> End:
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return End(done.stdout.decode(), done.returncode)


def whole(folder: Path, shell: str, script: str, args: Sequence[str]) -> End:
    path = folder / "script"
    path.write_text(script)
    return execute([shell, str(path), *args], str(folder), ENV)


def in_pieces(folder: Path, shell: str, script: str, args: Sequence[str], defines: Sequence[int] = ()) -> End:
    """A process for each line, but for the first, which is `#!`."""
    name, lines = str(folder / "script"), script.splitlines()[1:]
    bash = carry.is_bash(shell, "")
    before: carry.State | None = None
    output = ""
    for number, text in enumerate(lines, 2):
        last = number == len(lines) + 1
        piece, state = folder / f"{number}.sh", folder / f"{number}.state"
        piece.write_text(
            carry.piece(
                text, number, bash=bash, script=name, before=before, given={"AGENTRUN_STEP": str(number)},
                defined=[(line, lines[line - 2]) for line in defines if line < number],
                leaves=None if last else left(state),
            )
        )  # fmt: skip
        if before is None:
            end = execute([shell, str(piece), *args], str(folder), {**ENV, "AGENTRUN_STEP": str(number)})
        else:
            end = execute([shell, str(piece)], before.folder, {"AGENTRUN_STEP": str(number), "PWD": before.folder})
        output += end.output.replace(str(piece), name)
        if end.status or last or not state.exists():
            return End(output, end.status)
        before = carry.read(str(state))
        assert before is not None
        if before.status:
            Path(f"{state}.status").write_text(f"return {before.status}\n")
    raise AssertionError


BOTH = {
    "values, whatever is in them": r"""#!
X="a  b\$'\"c"; export Y=2; unset HOME; Z='-n'
N=$(printf 'two\nlines\n\n.'); T=$(printf 'a\tb'); E=''
printf '[%s]' "$X" "$Y" "${HOME-unset}" "$Z" "$N" "$T" "${E-unset}" "${NEVER-unset}"; echo
env | grep -Ev '^(_|SHLVL|OLDPWD|AGENTRUN_.*)=' | sort""",
    "an exported variable that is unset stays unset": "#!\nunset HOME LOGNAME\nenv | grep -c -E '^(HOME|LOGNAME)='",
    "a value that is changed stays exported": "#!\nHOME=/other\nenv | grep ^HOME",
    "parameters":
        '#!\nset -- one "two  three" "" "*"\nshift\nfor a; do echo "[$a]"; done\necho $#\nset --\necho $# "$@"',
    "the parameters of the call": '#!\nX=1\necho "$1" "$2" $#',
    "status": "#!\nfalse\necho $?\n(exit 7)\necho $?\necho $?",
    "status of the script": "#!\necho a\nfalse",
    "options": "#!\nset -eu\nset -f\necho * \"$-\" | tr -d hBs\nset +u\necho $NEVER\nset +f",
    "errexit fires where it stands": "#!\nset -e\necho a\nfalse\necho b",
    "errexit is not fired by a status of before": "#!\n! true\nset -e\necho a\nfalse || true\necho b",
    "nounset": "#!\nset -u\necho a\necho $NEVER\necho b",
    "an expansion that fails": "#!\necho a\necho ${NEVER:?is gone}\necho b",
    "exit in the middle": "#!\ntrap 'echo bye $?' EXIT\necho a\nexit 0\necho b",
    "exit with a status": "#!\ntrap 'echo bye $?' EXIT\necho a\nexit 3\necho b",
    "EXIT fires once, at the end": "#!\ntrap 'echo bye $?' EXIT\necho a\necho b\nfalse",
    "EXIT may be taken back": "#!\ntrap 'echo bye' EXIT\ntrap - EXIT\necho a",
    "a trap of a signal": "#!\ntrap 'echo term' TERM\ntrap '' USR1\nkill -USR1 $$\nkill -TERM $$\necho a",
    "folders": "#!\ncd /usr/bin/..\npwd\ncd lib\necho $PWD $OLDPWD\ncd - >/dev/null\npwd",
    "umask": "#!\numask 077\numask\numask 022",
    "IFS": '#!\nIFS=:\nv=a:b:c\nset -- $v\necho "$#" "$IFS"',
    "readonly": "#!\nreadonly R='r o'\necho $R\nR=2\necho never",
    "aliases": "#!\nalias greet='echo hello \"x\"'\nX=1",
    "getopts":
        '#!\ngetopts ab: o; echo $o $OPTIND\n'
        'getopts ab: o; echo $o "$OPTARG" $OPTIND\nshift $((OPTIND - 1)); echo $#',
    "messages name the script and the line": "#!\n\n\nno-such-command\ncd /nonexistent\necho ${X?no}",
    "line numbers": "#!\necho $LINENO\n\n\necho $LINENO",
    "the tail is not traced": "#!\nset -x\necho a\necho b\nset +x\necho c",
    "noclobber": "#!\nset -C\necho a > f\necho b > f\ncat f\nset +C\necho c > f",
    "functions that have names of builtins":
        "#!\nX=1\nprintf() { echo mine; }; umask() { echo mine; }; kill() { echo mine; }\necho $X $1\necho $X $1",
    "a variable PWD that is no folder": "#!\nPWD=secret\ncd /usr\nunset PWD\npwd",
    "aliases of our words":
        "#!\nalias set='echo S' read='echo R' printf='echo P' trap='echo T' exit='echo E'\nX=1\n: $X",
    "a readonly IFS": "#!\nIFS=:; X=a:b; readonly X\nset -- $X; echo $#\nexport IFS",
}  # fmt: skip
IN_BASH = {
    "arrays and attributes": r"""#!
declare -A M=([k 1]="v 1" [k2]=$'x\ny'); A=(1 "2 3" '' 4); declare -i I=5
declare -rx RX=1; declare -l low=ABC; declare -n ref=I
I+=3; ref+=1; A[7]=seven
declare -p M A I RX low ref; low=DEF; echo $low "${!A[@]}"
env | grep ^RX""",
    "functions":
        "#!\nf() { local x=1; echo \"$x ${#A[@]} $1\"; }; A=(1 2)\nf one\n"
        "export -f f\nbash -c 'f two'\n"
        "unset -f f\nf",
    "shopt and set -o":
        "#!\nshopt -s nullglob extglob; set -o pipefail\necho @(a|b)*.none\nshopt nullglob extglob\n"
        "set -o | grep -E 'pipefail|errexit'\nfalse | true\necho $?",
    "functions that have names of words of ours":
        "#!\ndeclare() { echo mine; }; unset() { echo mine; }; set() { echo mine; }; export() { echo mine; }\nX=1\n"
        "echo $X $1 ${__agentrun_status-unset}\nreturn() { echo mine; }\necho $1",
    "aliases are expanded":
        "#!\nshopt -s expand_aliases; alias hi='echo hi \"there\"'\nhi\nunalias hi\nhi",
    "the stack of folders":
        "#!\npushd /usr >/dev/null; pushd /etc >/dev/null\ndirs -l\npopd >/dev/null\ndirs -l\npwd",
    "ERR": "#!\ntrap 'echo failed at $LINENO' ERR\necho a\nfalse\nset -E\necho b",
    "SECONDS and RANDOM do no harm":
        "#!\nSECONDS=100\n"
        "[ $SECONDS -ge 100 ] && [ $SECONDS -lt 110 ] && echo counts on\n"
        "[ $RANDOM != $RANDOM ] && echo random",
    "matches": '#!\n[[ abc =~ b(.) ]]\necho "${BASH_REMATCH[1]}"',
    "bytes that are no text": "#!\nX=$'\\xff\\x01'\nprintf %s \"$X\" | od -An -tx1",
    "posix mode": "#!\nset -o posix\nX=1\necho $X\nset +o posix\necho $X",
    "what was set by the environment is not readonly":
        "#!\nPATH=$PATH:/opt; PS4='> '\necho $PATH\nset -x\necho a",
}  # fmt: skip


def check(folder: Path, shell: str, script: str) -> None:
    (folder / "whole").mkdir()
    (folder / "pieces").mkdir()
    args = ["-a", "-b", "x"] if "getopts" in script else ["1st", "2 nd"]
    a, b = whole(folder / "whole", shell, script, args), in_pieces(folder / "pieces", shell, script, args)
    assert End(b.output.replace(str(folder / "pieces"), str(folder / "whole")), b.status) == a


@pytest.mark.parametrize("shell", [BASH, SH])
@pytest.mark.parametrize("script", BOTH.values(), ids=BOTH)
def test_in_pieces_as_whole(tmp_path: Path, shell: str, script: str) -> None:
    check(tmp_path, shell, script)


@pytest.mark.parametrize("script", IN_BASH.values(), ids=IN_BASH)
def test_in_pieces_as_whole_in_bash(tmp_path: Path, script: str) -> None:
    check(tmp_path, BASH, script)


@pytest.mark.parametrize("shell", [BASH, SH])
def test_functions_that_are_given_as_they_stand(tmp_path: Path, shell: str) -> None:
    script = "#!\nX=1\nf() { echo $X; no-such-command; }\ng() { f; }\nX=2\ng\nf() { echo other; }\nf"
    (tmp_path / "whole").mkdir()
    expected = whole(tmp_path, shell, script, [])
    assert "line 3" in expected.output or ": 3:" in expected.output
    assert in_pieces(tmp_path, shell, script, [], defines=[3, 4, 7]) == expected


def test_a_state_that_is_not_whole(tmp_path: Path) -> None:
    state = tmp_path / "state"
    piece = carry.piece("X=1", 1, bash=True, script="s", before=None, given={}, defined=[], leaves=left(state))
    (tmp_path / "piece").write_text(piece)
    assert execute([BASH, str(tmp_path / "piece")], "/", ENV) == End("", 0)
    assert carry.read(str(state)) == carry.State(str(state), "/", 0, ("braceexpand", "hashall", "interactive-comments"))
    whole_one = state.read_bytes()
    for cut in (1, 9, 30, len(whole_one) // 2):
        state.write_bytes(whole_one[:-cut])
        with pytest.raises(ValueError, match="state"):
            carry.read(str(state))
    state.write_bytes(b"")
    assert carry.read(str(state)) is None, "its shell has not come to the tail"
    assert carry.read(str(tmp_path / "none")) is None


@pytest.mark.parametrize("shell", [BASH, SH])
def test_a_state_that_the_disk_refuses(tmp_path: Path, shell: str) -> None:
    piece = tmp_path / "piece"
    for number, place in enumerate(("/dev/full", str(tmp_path / "no" / "folder"))):
        text = carry.piece(
            f"echo {number}", 1, bash=shell == BASH, script="s", before=None, given={}, defined=[], leaves=left(place)
        )
        piece.write_text(text)
        assert execute([shell, str(piece)], "/", ENV) == End(f"{number}\n", 74)


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        (["/bin/bash"], (["/bin/bash"], [])),
        (["/usr/bin/env", "bash", "-eu"], (["/usr/bin/env", "bash"], ["-eu"])),
        (["dash", "-e"], (["dash"], ["-e"])),
    ],
)
def test_the_shell_and_its_options(shell: list[str], expected: tuple[list[str], list[str]]) -> None:
    assert carry.program_of(shell) == expected
    with pytest.raises(ValueError, match="bash"):
        carry.program_of(["/usr/bin/zsh", "-e"])
