"""How a script uses its own file and its own number: what that means once its text stands in a job file.

`$0` still says the script's path, so naming it does no harm (`basename "$0"`, `cd "$(dirname "$0")"`). A script that
runs itself again, or reads more of itself than its usage text, is kept whole: `why_whole`. `rewritten` replaces what
would say something else in each step: `$$`, and BASH_SOURCE, which is the file that the step's text stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .program import Program, called
from .syntax import Node, command_name, first_line, listed, redirects, text, walk, words

_OWN = re.compile(r"\$\{?0\b|\$\{?BASH_SOURCE\b")
_RUNS = listed(
    "exec sudo su bash sh dash zsh env nohup setsid flock timeout nice ionice watch xargs parallel source . ssh "
    "systemd-run at batch screen tmux time eval command"
)
_READS = listed("sed tail head awk gawk grep egrep cat dd tar base64 cut perl python python3 unzip gunzip zcat")
_NAMES = re.compile(
    r"\$\(\s*(dirname|basename|readlink|realpath|cd|pwd|echo|printf)\b|`\s*(dirname|basename|readlink|realpath|cd)\b|\$\{0[#%]|\$\{BASH_SOURCE(\[0\])?[#%]"
)
_USAGE = re.compile(r"usage|help|manual|version|license|show", re.I)

SHELL_PID = "AGENTRUN_SHELL_PID"
SCRIPT = "AGENTRUN_SCRIPT"  # sh cannot be told its `$0`
_WRITTEN_PID = f"`$$` is written ${SHELL_PID}: the same in all steps, and alive until the run ends or is cut off"
_WRITTEN_NAME = f"`$0` is written ${SCRIPT}: in sh it would name the step's own file"
_WRITTEN_SOURCE = "BASH_SOURCE is written $0: it would name the step's own file"
_NAME = re.compile(r"(?<!\\)((?:\\\\)*)(?:\$0(?![0-9A-Za-z_])|\$\{0(?=[}#%:]))")
_PID = re.compile(r"(?<!\\)((?:\\\\)*)(?:\$\$|\$\{\$\})(?=(\w)?)")
_SOURCE = re.compile(r"\$BASH_SOURCE\b(?!\[)|\$\{BASH_SOURCE(?:\[(?:0|-1)\])?(\}|[#%/:^,@-])")
_REACHES = listed("kill ps pstree renice ionice pgrep pkill taskset prlimit lsof chrt strace gdb nsenter choom wait")


def why_whole(program: Program) -> tuple[int, str] | None:
    """The line at which a script runs itself, or reads itself, and what it is."""
    for node in walk(program.root):
        if node.type == "command" and _OWN.search(text(node)):
            why = _uses_itself(program, node)
            if why:
                return first_line(node), why
    return None


def _uses_itself(program: Program, command: Node) -> str:
    said = words(command)
    if said and _is_own(said[0]):
        return "it runs itself again"
    first = command_name(command)
    name, _ = called(command)
    arguments = [word for word in said[1:] if _is_own(word)]
    behind = called(command)[0] if first in _RUNS else first
    if arguments and (first in _RUNS or name in _RUNS) and not _only_told(behind, command):
        return "it runs itself again"
    fed = any(re.match(r"\d*<", text(one)) and _OWN.search(text(one)) for one in redirects(command))
    if (fed or (arguments and name in _READS and any(word.id == said[-1].id for word in arguments))) and not _in_usage(
        command
    ):
        return "it reads its own file"
    return ""


def _is_own(word: Node) -> bool:
    """Whether the word is the path of the script and not a name made from it."""
    written = text(word)
    if not _OWN.search(written) or _NAMES.search(written):
        return re.search(r"\$\(\s*(readlink|realpath)[^)]*\$\{?(0|BASH_SOURCE)[^)]*\)\"?$", written) is not None
    return re.fullmatch(r"\"?(\./)?(\$0|\$\{0\}|\$BASH_SOURCE|\$\{BASH_SOURCE(\[0\])?\})\"?", written) is not None


def _only_told(name: str, command: Node) -> bool:
    """`sudo grep x "$0"`, `ssh host echo $0`: what is behind the prefix gets the path and does not run it."""
    return name in ("echo", "printf", "logger", "test", "[", "basename", "dirname", "readlink", "realpath")


def _in_usage(node: Node) -> bool:
    """Whether it stands in a function that prints the script's comments as its help, or in a branch for `--help`."""
    here: Node | None = node
    while here is not None:
        if here.type == "function_definition":
            name = here.child_by_field_name("name")
            return name is not None and _USAGE.search(text(name)) is not None
        if here.type == "case_item" and re.search(r"-h|help|usage", text(here).split(")")[0]):
            return True
        here = here.parent
    return False


def reads_history(program: Program) -> bool:
    return re.search(r"(?m)^\s*set\s+-o\s+history|^\s*fc\s+-", program.source) is not None


def rewritten(program: Program, changed: dict[str, list[int]]) -> list[str]:
    """The lines of the script, with `$$` and BASH_SOURCE (in sh: `$0`) replaced where the shell would expand them.

    What was done is added to `changed`, in words, with the numbers of the lines.
    """
    if not any(mark in program.source for mark in ("$$", "${$}", "$0", "${0", "BASH_SOURCE")):
        return list(program.lines)
    data = program.source.encode()
    parts, at = [], 0
    for start, end, kind in _spans(program.root):
        parts.append(_replaced(program, data[at:start].decode(errors="replace"), "text"))
        parts.append(_replaced(program, data[start:end].decode(errors="replace"), kind))
        at = end
    parts.append(_replaced(program, data[at:].decode(errors="replace"), "text"))
    lines = "".join(parts).split("\n")
    for number, (old, new) in enumerate(zip(program.lines, lines, strict=False), 1):
        if old == new:
            continue
        if new.count(SHELL_PID) > old.count(SHELL_PID):
            changed.setdefault(_WRITTEN_PID, []).append(number)
        if new.count(SCRIPT) > old.count(SCRIPT):
            changed.setdefault(_WRITTEN_NAME, []).append(number)
        if new.count("BASH_SOURCE") < old.count("BASH_SOURCE"):
            changed.setdefault(_WRITTEN_SOURCE, []).append(number)
    return lines[: len(program.lines)]


def _replaced(program: Program, part: str, kind: str) -> str:
    if kind == "kept":
        return part
    if kind == "said":  # the text of a trap: expanded when it fires, even behind a backslash
        part = re.sub(r"\\\$\\?\$", rf"\\${{{SHELL_PID}}}", part)
    part = _PID.sub(lambda found: found[1] + (f"${{{SHELL_PID}}}" if found[2] else f"${SHELL_PID}"), part)
    if program.dialect == "bash":
        return _SOURCE.sub(lambda found: "$0" if found[1] in (None, "}") else "${0" + found[1], part)
    return _NAME.sub(lambda found: found[1] + (f"${{{SCRIPT}" if found[0].endswith("{0") else f"${SCRIPT}"), part)


def _spans(root: Node) -> Iterator[tuple[int, int, str]]:
    """What is not to be touched (comments, single quotes, quoted here-documents, numbers of processes that are to be
    reached), and what a trap will run."""
    waiting: list[Node] = [root]
    while waiting:
        node = waiting.pop()
        kind = _kind(node)
        if kind:
            yield node.start_byte, node.end_byte, kind
        else:
            waiting += reversed(node.children)


def _kind(node: Node) -> str:
    if node.type in ("comment", "ansi_c_string"):
        return "kept"
    if node.type == "raw_string":
        return "said" if _is_action(node) or _is_prompt(node) else "kept"
    if node.type == "heredoc_body" and node.parent is not None:
        start = [text(child) for child in node.parent.children if child.type == "heredoc_start"]
        return "kept" if start and re.search(r"['\"\\]", start[0]) else ""
    if node.type == "string" and _is_action(node):
        return "said"
    if node.type == "command" and "$$" in text(node) and {called(node)[0], command_name(node)} & _REACHES:
        return "kept"
    return "kept" if node.type in ("word", "concatenation", "string") and "/proc/$$" in text(node) else ""


def _is_action(word: Node) -> bool:
    parent = word.parent
    return parent is not None and parent.type == "command" and command_name(parent) in ("trap", "eval")


def _is_prompt(word: Node) -> bool:
    """`PS4='${BASH_SOURCE}: '`: expanded before each line that is traced."""
    parent = word.parent
    return parent is not None and parent.type == "variable_assignment" and text(parent.children[0]) == "PS4"


def own_searches(program: Program, script: str | None) -> Sequence[int]:
    """Lines at which a script looks for itself among the processes."""
    own = re.escape(script.rsplit("/", 1)[-1]) if script else r"\0"
    pattern = re.compile(
        rf"(pgrep|pidof|\bps\b[^|;&\n]*\|[^;&\n]*grep|pkill)[^|;&\n]*(\$0|\$\{{0|basename|\$\{{?(SCRIPT|PROG|ME|SELF)\w*|{own})",
        re.I,
    )
    return [
        number
        for number, line in enumerate(program.lines, 1)
        if pattern.search(line) and not line.lstrip().startswith("#")
    ]
