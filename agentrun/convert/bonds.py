"""Which statements of a script have to stay in one process, and why: what a shell cannot hand to the next one.

Variables, functions, options, traps, descriptors of files are handed on; children, jobs, coprocesses, pipes and what
belongs to the process itself (limits, priority, its number) are not. Each rule looks at all statements at once and
answers with spans of them; spans that touch are one later. A rule that cannot see enough takes too much, never too
little: a script kept whole runs as before.

`whole` is about the script as such: one that reads or calls its own file, or that leaves shell language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .program import Program, called, mentioned
from .syntax import (
    SUBSHELLS,
    Node,
    arguments,
    command_name,
    first_line,
    is_background,
    literal,
    redirects,
    text,
    walk,
    words,
)

JOBS = "a child in the background belongs to the shell that started it"


class Bond(NamedTuple):
    """Statements `first` to `last` (both by their number) stay together; `why` completes "kept together: ..."."""

    first: int
    last: int
    why: str


Statements = Sequence[Sequence[Node]]  # each with the nodes that stand on its lines
Rule = Callable[[Program, Statements], Iterator[Bond]]

_JOBS = frozenset(("wait", "jobs", "fg", "bg", "disown"))
_OF_THE_PROCESS = {
    "ulimit": "limits of a process are not handed on",
    "enable": "builtins that are switched off or loaded are not handed on",
    "complete": "completions are not handed on",
    "bind": "key bindings are not handed on",
    "hash": "remembered places of commands are not handed on",
}
_PRIORITY = frozenset(("renice", "ionice", "chrt", "taskset", "prlimit", "schedtool", "choom"))
_HARMLESS_EVALS = re.compile(
    r"\$\(\s*(\S*/)?(ssh-agent|dircolors|keychain|docker-machine|minikube|brew|getopt|pyenv)\b"
)
_PLAIN_FILES = re.compile(
    r"(^|/)(\.env[\w.-]*|[\w.-]*\.(env|conf|cfg|config|vars|ini)|os-release)\"?$|^\"?/etc/(default|sysconfig)/"
)


def bonds(program: Program, statements: Statements, plain_file: Callable[[str], bool | None]) -> list[Bond]:
    """All spans. `plain_file` says whether a sourced file defines no functions (None: it cannot be looked at)."""
    found: list[Bond] = []
    for rule in _RULES:
        found += rule(program, statements)
    if program.dialect == "sh":
        found += _of_sh(program, statements, plain_file)
    return [bond for bond in found if bond.last > bond.first]


def _background(program: Program, statements: Statements) -> Iterator[Bond]:
    """A job, up to the last statement that waits for it, asks for it or ends it."""
    end = len(statements) - 1
    starts = [number for number, nodes in enumerate(statements) if starts_job(program, nodes)]
    if not starts:
        return
    names = _holders(program, r"\$!|\$\{!\}|\bjobs\s+-p|\$\(jobs")
    for number in range(end, starts[0], -1):
        if any(_asks_for_job(program, node, names) for node in statements[number]):
            yield Bond(starts[0], number, JOBS)
            break
    for number in range(len(statements)):
        for node in statements[number]:
            for action in program.actions(node):
                if action.tree is not None and _asks_for_job(program, action.tree, names):
                    yield Bond(min(number, starts[0]), end, "a trap ends a child in the background")
                    return


def starts_job(program: Program, nodes: Sequence[Node]) -> bool:
    """Whether a job is left in the background when these are done (one of a subshell is nobody's child any more)."""
    for node in nodes:
        if node.type == "&":
            return True
        if node.type in SUBSHELLS:
            continue
        inside = {one.id for here in program.executed(node) if here.type in SUBSHELLS for one in walk(here)}
        if any(is_background(here) and here.id not in inside for here in program.executed(node)):
            return True
    return False


def _holders(program: Program, source: str) -> set[str]:
    """Variables that get their value from this."""
    pattern = re.compile(rf"\b([A-Za-z_]\w*)(?:\[[^]]*\])?\+?=\(?\"?[^\n;]*?(?:{source})")
    return {found[1] for found in pattern.finditer(program.source)}


def _asks_for_job(program: Program, node: Node, names: set[str]) -> bool:
    for here in program.executed(node):
        if here.type == "special_variable_name" and text(here) == "!":
            return True
        if here.type == "variable_name" and text(here) in names:
            return True
        if here.type == "command":
            name = command_name(here)
            if name in _JOBS or (name == "kill" and any((one or "").startswith("%") for one in arguments(here))):
                return True
    return False


def _rest(program: Program, statements: Statements) -> Iterator[Bond]:
    """What holds for the rest of the script, from the statement that does it."""
    end = len(statements) - 1
    for number, nodes in enumerate(statements):
        for node in nodes:
            for command in program.runs(node):
                why = _holds_on(command)
                if why:
                    yield Bond(number, end, why)


def _holds_on(command: Node) -> str:
    name, said = command_name(command), arguments(command)
    if name == "coproc":
        return "a coprocess belongs to the shell that started it"
    if name == "trap" and "DEBUG" in said and said[:1] != ["-"]:
        return "a DEBUG trap would see how the state is handed on"
    if name == "set":
        said = _options(said)
        flags = "".join(one[1:] for one in said if one and re.fullmatch(r"-[a-zA-Z]+", one))
        for letter, option, why in (
            ("m", "monitor", "job control belongs to one shell"),
            ("v", "verbose", "`set -v` would show how the state is handed on"),
            ("n", "noexec", "`set -n` runs nothing of what follows"),
            ("t", "onecmd", "`set -t` ends the shell after one command"),
        ):
            if letter in flags or (option in said and said[said.index(option) - 1] == "-o"):
                return why
        if "history" in said:
            return "a history belongs to one shell"
    if name in _OF_THE_PROCESS and not (name == "hash" and "-r" not in said and said) and said:
        return "" if name == "hash" or _only_shows(name, said) else _OF_THE_PROCESS[name]
    if name in _PRIORITY and any("$$" in text(word) for word in words(command)):
        return f"`{name}` changes the shell's own process"
    return ""


def _options(said: Sequence[str | None]) -> list[str | None]:
    """The words of `set` that are options; what follows are parameters."""
    found: list[str | None] = []
    for one in said:
        of_option = bool(found) and re.fullmatch(r"[-+][a-zA-Z]*o", found[-1] or "") is not None
        if one in ("-", "--") or not ((one or "").startswith(("-", "+")) or of_option):
            break
        found.append(one)
    return found


def _only_shows(name: str, said: Sequence[str | None]) -> bool:
    return name == "ulimit" and (len(said) == 1 and (said[0] or "").startswith("-"))


def _after_end(program: Program, statements: Statements) -> Iterator[Bond]:
    """An `exit` that is always reached, or `exec command`: what follows is never run."""
    end = len(statements) - 1
    for number, nodes in enumerate(statements):
        for node in nodes:
            inner = node.child_by_field_name("body") if node.type == "redirected_statement" else node
            if inner is not None and inner.type == "command":
                name = command_name(inner)
                if name == "exit" or (name == "exec" and _replaces(inner)):
                    yield Bond(number, end, f"nothing after this `{name}` is run")
                    return


def _replaces(command: Node) -> bool:
    """`exec command`; not `exec >file` and not `exec {fd}>file`."""
    said = [text(word) for word in words(command)[1:]]
    return bool(said) and not (len(said) == 1 and re.fullmatch(r"\{\w+\}", said[0]))


def _status(program: Program, statements: Statements) -> Iterator[Bond]:
    """A statement that first of all asks how the one before it ended."""
    for number, nodes in enumerate(statements[1:], 1):
        real = [node for node in nodes if node.type not in (";", "&")]
        if real and _asks_status(program, real[0], set()):
            yield Bond(number - 1, number, "the status of a command is asked for right behind it")


def _asks_status(program: Program, node: Node, seen: set[str]) -> bool:
    """Whether `$?`, `$_` or PIPESTATUS is read before any command has run."""
    first = _first(node)
    if first is None:
        return False
    read = (text(here) for here in walk(first) if here.type in ("special_variable_name", "variable_name"))
    if not {"?", "PIPESTATUS", "_"}.isdisjoint(read):
        return True
    if first.type != "command" or command_name(first) in seen:
        return False
    seen.add(command_name(first))
    for definition in program.functions.get(command_name(first), ()):
        body = definition.child_by_field_name("body")
        if body is not None and _asks_status(program, body, seen):
            return True
    return False


_SIMPLE = frozenset(
    ("command", "declaration_command", "unset_command", "test_command", "variable_assignment", "variable_assignments")
)


def _first(node: Node) -> Node | None:
    """What of a statement is run first, and what its words are made of: the list of a `for`, the word of a `case`."""
    while node.type not in _SIMPLE:
        if node.type == "function_definition" or not node.named_children:
            return None
        if node.type in ("for_statement", "case_statement"):
            return node.child_by_field_name("value")
        if node.type == "compound_statement" and text(node).startswith("(("):
            return node
        following = [child for child in node.named_children if child.type != "comment"]
        if not following:
            return None
        node = following[0]
    return node


def _own_input(program: Program, statements: Statements) -> Iterator[Bond]:
    """Statements that read what the script itself is given: from the first to the last."""
    readers = [number for number, nodes in enumerate(statements) if any(map(_reads_input, nodes))]
    if len(readers) > 1:
        yield Bond(readers[0], readers[-1], "they read the script's own input, one after the other")


def _reads_input(node: Node) -> bool:
    for here in walk(node, without=("function_definition",)):
        if here.type == "command" and command_name(here) in ("read", "mapfile", "readarray"):
            named = any("-u" in (one or "") for one in arguments(here))
            if not named and not _is_given(here, node):
                return True
    return False


def _is_given(command: Node, outermost: Node) -> bool:
    """Whether its input comes from a redirection or a pipe that it stands in."""
    here: Node | None = command
    while here is not None:
        if any("<" in text(one)[:4] for one in redirects(here)):
            return True
        parent = here.parent
        if parent is not None and parent.type == "pipeline" and parent.named_children[0].id != here.id:
            return True
        if here.id == outermost.id:
            return False
        here = parent
    return False


_OF_A_SHELL = frozenset(
    ("while_statement", "for_statement", "if_statement", "case_statement", "compound_statement", "subshell", "list")
)


def _pipes(program: Program, statements: Statements) -> Iterator[Bond]:
    """A descriptor that is a pipe (`exec 3< <(command)`, a here-document): up to the last statement that names it."""
    for number, nodes in enumerate(statements):
        for node in nodes:
            if node.type != "redirected_statement" or command_name(node.children[0]) != "exec":
                continue
            for redirect in node.children_by_field_name("redirect"):
                said = text(redirect)
                if ">(" in said and not _begins_again(program, redirect):
                    yield Bond(number, len(statements) - 1, "what reads its output is a part of this shell")
                if re.match(r"\d*<(?!&)", said) and (re.match(r"\d*<<", said) or "<(" in said or _is_standard(said)):
                    yield Bond(
                        number, _last_use(statements, number, said), "what is left in a pipe cannot be handed on"
                    )


def _begins_again(program: Program, redirect: Node) -> bool:
    """Whether what reads behind `> >(...)` is programs alone (`tee -a log`): those can be started again."""
    for node in redirect.named_children:
        for inner in node.named_children if node.type == "process_substitution" else ():
            parts = [here for here in walk(inner) if here.type == "command"]
            if any(here.type in _OF_A_SHELL for here in walk(inner)):
                return False
            names = {command_name(part) for part in parts}
            if not parts or names & (program.functions.keys() | {"read", "echo", "printf", "eval", "source", "."}):
                return False
    return True


def _is_standard(said: str) -> bool:
    return re.match(r"0?<(?![<(&])", said) is not None


def _last_use(statements: Statements, number: int, said: str) -> int:
    digits = re.match(r"\d*", said)
    name = digits[0] if digits else ""
    if name in ("", "0"):
        return len(statements) - 1
    pattern = re.compile(rf"<&\s*{name}\b|-u\s*{name}\b|/dev/fd/{name}\b|\b{name}<&-")
    uses = [n for n, nodes in enumerate(statements) if n >= number and pattern.search("\n".join(map(text, nodes)))]
    return max(uses, default=number)


def _numbers(program: Program, statements: Statements) -> Iterator[Bond]:
    """The number of the process itself, kept in a variable that is used to reach it; and a seeded RANDOM."""
    kill = {text(here) for command in walk(program.root) if command.type == "command" and called(command)[0] in
            ("kill", "ps", "pstree", "renice", "ionice", "pgrep", "pkill", "wait", "lsof", "strace")
            for here in walk(command) if here.type == "variable_name"}  # fmt: skip
    own = _holders(program, r"\$\$|\$\{\$\}|\$BASHPID|\$\{BASHPID\}") & kill | _holders(
        program, r"\$BASHPID|\$\{BASHPID\}"
    )
    why = "the number of the shell's own process is used to reach it"
    for name, reason in [(name, why) for name in own] + [("RANDOM", "a seeded RANDOM goes on in one shell only")]:
        if name == "RANDOM" and not (program.dialect == "bash" and re.search(r"(?m)(^|[\s;])RANDOM=", program.source)):
            continue
        uses = [number for number, nodes in enumerate(statements) if any(name in mentioned(node) for node in nodes)]
        if uses:
            yield Bond(uses[0], len(statements) - 1, reason)


_RULES: tuple[Rule, ...] = (_background, _rest, _after_end, _status, _own_input, _pipes, _numbers)


def _of_sh(program: Program, statements: Statements, plain_file: Callable[[str], bool | None]) -> Iterator[Bond]:
    """dash cannot print its functions: those that are not in the script's own text cannot be handed on."""
    end = len(statements) - 1
    for number, nodes in enumerate(statements):
        for node in nodes:
            why = _hides_functions(program, node, plain_file)
            if why:
                yield Bond(number, end, f"line {first_line(node)} {why}, and sh cannot hand functions on")
                return


def _hides_functions(program: Program, node: Node, plain_file: Callable[[str], bool | None]) -> str:
    body = node.child_by_field_name("body") if program.defines(node) else node
    for here in walk(body or node, without=SUBSHELLS):
        if program.defines(here) and here.id != node.id:
            return "defines a function on a condition"
    if program.defines(node):
        return ""
    for command in program.runs(node):
        name, said = command_name(command), words(command)[1:]
        if name == "unset" or (command.type == "unset_command" and "-f" in arguments(command)):
            if "-f" in arguments(command):
                return "takes a function back"
        elif name in (".", "source") and said:
            target = text(said[0])
            plain = plain_file(literal(said[0]) or "")
            if not (plain or (plain is None and _PLAIN_FILES.search(target))):
                return "reads another script, which may define functions"
        elif name == "eval" and not _HARMLESS_EVALS.search(text(command)):
            known = " ".join(literal(word) or "" for word in said) if all(map(literal, said)) else None
            if known is None and re.fullmatch(r"[\"']?\w+=.*", text(said[0]) if said else "", re.DOTALL):
                continue
            if known is None or re.search(r"\w\s*\(\s*\)", known):
                return "evaluates text that may define functions"
    return ""
