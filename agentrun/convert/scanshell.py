"""What should be durable in a shell script: loops with a sleep, POSTs, locks by hand, what is sent to the background.

Read from the tree of `syntax`. A sleep counts for the innermost loop that it stands in; naps of less than a second, and
waiting for a process of its own, are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import finding
from .finding import Found
from .syntax import Node, arguments, command_name, commands, first_line, parse, text, walk, words

_LOOPS = ("while_statement", "for_statement", "c_style_for_statement")
_ALWAYS = re.compile(
    r"true|:|/bin/true|\[\[? *(1|true|:) *\]\]?|test (1|true)|\(\( *(1|true)? *\)\)"
    r"|\[\[? \"?(\w+)\"? (?:=|==|-eq) \"?\4\"? \]\]?"
)
_COUNTED = re.compile(r"^(\d+|[\d ]+|\{\d+\.\.\S+\}|\$\(seq\b.*\)|`seq\b.*`)( |$)")
_COUNTS = re.compile(r"attempt|retr|tries|count|\b[in]\b|max", re.I)
_OWN_CHILD = re.compile(r"kill -0|\$!|\bjobs\b|/proc/\$|\bps\b.*\$\{?(pid|!)", re.I)
_READS = re.compile(r"log-?in|auth|/token|session|search|query|graphql|oauth", re.I)
_HEADERS = re.compile(r"""(?:-H|--header|-u|--user)[= ]*(?:"(?:\\.|[^"\\])*"|'[^']*'|\S+)""")
_LOCK = re.compile(r"lock|\bpid_?file\b|\.pid\b|\bPID_?FILE\b|_pid\b", re.I)
_CRON_TEXT = re.compile(
    r"""["'(]\s*(?:@(?:reboot|hourly|daily|weekly|monthly)|[\d*][\d*/,-]*(?:\s+[\dA-Za-z*$][\w*/,-]*){4})\s+\S"""
)
_PID_FILE = re.compile(r"(echo|printf)\b.*\$(\$|BASHPID)[^>\n]*>.*")
_MAKES = r"(?:touch|>|echo|lockfile|ln -s)[^\n]*"
_DECIDES = ("if_statement", "list", "negated_command", "redirected_statement")
_POST_OPTIONS = re.compile(r"-d|-F|--data(-\w+)?|--form(-string)?|--json")


def found_in(source: bytes) -> Iterator[Found]:
    """All of a script, in no order."""
    root = parse(source)
    for node in walk(root):
        if node.type in _LOOPS:
            yield from _loop(node)
    wrappers = {"curl"} | _callers_of("curl", root)
    for command in commands(root):
        yield from _command(command, wrappers)
    yield from _lock_files(root)
    written = source.decode(errors="replace")
    if "crontab" in written or "cron.d" in written:
        for number, line in enumerate(written.splitlines(), 1):
            if _CRON_TEXT.search(line) and not line.lstrip().startswith("#"):
                yield finding.puts_into_crontab(number)


# -- loops


def _loop(loop: Node) -> Iterator[Found]:
    body = loop.child_by_field_name("body")
    if body is None or not any(_naps(command) for command in commands(body, _LOOPS)):
        return
    line = first_line(loop)
    leaves = any(command_name(command) in ("break", "return", "exit") for command in commands(body, _LOOPS))
    if loop.type == "for_statement":
        items = " ".join(text(each) for each in loop.children_by_field_name("value"))
        counted = bool(_COUNTED.match(items + " "))
        yield finding.retried(line) if counted and leaves else finding.paced(line) if items else finding.awaited(line)
        return
    if loop.type == "c_style_for_statement":
        head = text(loop).partition(")")[0]
        forever = re.search(r"\(\(\s*;\s*;\s*$", head)
        yield (finding.retried if leaves else finding.endless if forever else finding.paced)(line)
        return
    parts = [text(each) for each in loop.children_by_field_name("condition")]
    condition = " ".join(" ".join(parts).split()).rstrip(" ;")
    if _OWN_CHILD.search(condition):
        return
    is_until = text(loop).startswith("until")
    if condition == "false" if is_until else _ALWAYS.fullmatch(condition):
        yield finding.endless(line) if not leaves else _left(body, line)
    elif re.match(r"(IFS=\S* )?read\b", condition):
        yield finding.paced(line)
    elif re.match(r"\[|test|\(\(", condition) and _COUNTS.search(condition) and leaves:
        yield finding.retried(line)
    else:
        yield finding.awaited(line)


def _left(body: Node, line: int) -> Found:
    """An endless loop that is left somewhere: after a try that has succeeded, or at some condition."""
    written = text(body)
    if re.search(r"&&\s*\{?\s*(break|return|exit 0)|if\s+(?!\[|test)[^;\n]+[;\n]\s*then\s+(break|return)", written):
        return finding.retried(line)
    return finding.awaited(line) if "break" in written else finding.endless(line)


def _naps(command: Node) -> bool:
    if command_name(command) != "sleep":
        return False
    length = next(iter(arguments(command)), None)
    return not (length and re.fullmatch(r"0?\.\d+s?", length))


# -- single commands


def _callers_of(program: str, root: Node) -> set[str]:
    """The functions of the script that hand their arguments to a program."""
    found = set()
    for node in walk(root):
        name = node.child_by_field_name("name") if node.type == "function_definition" else None
        handed = (each for each in commands(node) if command_name(each) == program) if name is not None else ()
        if name is not None and any('"$@"' in text(each) for each in handed):
            found.add(text(name))
    return found


def _command(command: Node, curls: set[str]) -> Iterator[Found]:
    name = command_name(command).rpartition("/")[2]
    line = first_line(command)
    if _sends(name, command, curls):
        if not _READS.search(_HEADERS.sub("", text(command))) and "idempoten" not in text(command).lower():
            yield finding.posted(line, name)
    elif name in ("nohup", "setsid") and _is_sent_off(command):
        yield finding.detached(line, name)
    elif name == "flock" and arguments(command)[:1] != ["-u"]:
        yield finding.locked(line, "flock by hand")
    elif name in ("pgrep", "pidof") and re.search(r"\$0|\$\{0|BASH_SOURCE|\$\(basename|\$SCRIPT_?NAME", text(command)):
        yield finding.locked(line, f"{name}: looks for itself among the processes")


def _sends(name: str, command: Node, curls: set[str]) -> bool:
    if name == "wget":
        return bool(re.search(r"--post-(data|file)|--method[= ]POST", text(command)))
    if name in ("http", "https", "xh"):
        return arguments(command)[:1] == ["POST"]
    return name in curls and _posts(command)


def _posts(command: Node) -> bool:
    method, data = "", False
    before = ""
    for word in map(text, words(command)[1:]):
        if before in ("-X", "--request"):
            method = word.strip("'\"").upper()
        elif found := re.match(r"(?:-[a-zA-Z]*X|--request=)['\"]?([A-Za-z]+)['\"]?$", word):
            method = found[1].upper()
        if word in ("-G", "--get", "-I", "--head"):
            return False
        option = word.partition("=")[0]
        data = data or bool(_POST_OPTIONS.fullmatch(option) or re.match(r"-[dF].", word))
        before = "-X" if re.fullmatch(r"-[a-zA-WYZ]*X", word) else option
    return method in ("POST", "PATCH") or (data and not method)


def _is_sent_off(command: Node) -> bool:
    """Whether a `&` follows."""
    node = command
    while node.parent is not None and node.parent.type in ("redirected_statement", "pipeline", "list"):
        node = node.parent
    return node.next_sibling is not None and node.next_sibling.type == "&"


def _lock_files(root: Node) -> Iterator[Found]:
    """`echo $$ > file`; a test for a lock file that is made too; the making of a lock folder that decides."""
    whole = text(root)
    known = False
    for node in walk(root):
        if node.type == "redirected_statement" and _PID_FILE.fullmatch(text(node)):
            yield finding.locked(first_line(node), "a pid file")
        elif not known and (node.type == "test_command" or (node.type == "command" and command_name(node) == "test")):
            found = re.search(r"(?<!\w)-[ef]\s+[\"']?([^\s\"'\]]+)", text(node))
            if found and _LOCK.search(found[1]) and re.search(_MAKES + re.escape(found[1]), whole):
                known = True
                yield finding.locked(first_line(node), "a lock file")
        elif node.type == "command" and command_name(node) == "mkdir" and re.search("lock", text(node), re.I):
            decides = node.parent is not None and node.parent.type in _DECIDES
            yield from [finding.locked(first_line(node), "a lock folder")] if decides else []
