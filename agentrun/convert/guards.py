"""What is asked in front of a command, and decides whether it runs at all: `test -x P && …` becomes a step's `if`.

Cron says nothing where the answer is no, for nothing was printed; a step that ends with 1 has failed, and is told. What
counts as asking is known: it changes nothing, prints next to nothing, and says no with the status 1.
"""

from __future__ import annotations

import re
from typing import Final

from .cmdline import Part, Row, row, written
from .peeling import Peeling
from .syntax import Node, text

_ASKS: Final = frozenset(("test", "[", "pgrep", "pidof"))
_LOOKS: Final = frozenset(
    ("ps", "ls", "cat", "df", "echo", "printf", "date", "pgrep", "ip", "ss", "netstat", "grep", "head", "tail",
     "uptime", "lsof", "mount", "systemctl", "hostname", "whoami")
)  # fmt: skip
_FILE_TESTS: Final = re.compile(r"-[a-hkprstuwxLGNOS]|-nt|-ot|-ef")
_DEVNULL: Final = frozenset((">/dev/null", "1>/dev/null", ">>/dev/null", "2>/dev/null", "2>&1", "&>/dev/null"))


def guard(peeling: Peeling, found: Row) -> str | None:
    """What is asked first, and is no failure where the answer is no."""
    if "if" in peeling.step:
        return None
    compound = _if_statement(found)
    if compound is not None:
        condition, left = compound
    else:
        number = next((at for at, part in enumerate(found.parts) if not asks(part)), len(found.parts))
        if not 0 < number < len(found.parts):
            return None
        guards, rest = found.parts[:number], found.parts[number:]
        if any(part.separator != "&&" for part in rest[:-1]) or rest[-1].separator == "&":
            return None
        condition, left = written((*guards[:-1], guards[-1]._replace(separator=""))), written(rest)
        if any(part.text.startswith("systemctl is-") and part.core is not None and part.core.type == "command"
               for part in guards):  # fmt: skip
            condition += " || false"  # it says no with 3 or 4, and `if` takes 1 for no
        if guards[-1].separator == "||" and number == 1:
            condition = condition.removesuffix(" || false")
            condition = condition[1:].lstrip() if condition.startswith("! ") else f"! {condition}"
        elif any(part.separator != "&&" for part in guards):
            return None
    peeling.step["if"] = condition
    peeling.say("lifted", f"if: {condition}")
    return left


def _if_statement(found: Row) -> tuple[str, str] | None:
    """`if [ -x P ]; then P; fi`."""
    core = found.parts[0].core
    if len(found.parts) != 1 or core is None or core.type != "if_statement" or found.parts[0].redirections:
        return None
    condition = core.child_by_field_name("condition")
    body = [child for child in core.named_children if child != condition]
    asked_for = [child for child in core.children_by_field_name("condition") if child.is_named]
    if condition is None or len(asked_for) != 1 or len(body) != 1:
        return None
    asked = row(text(condition))
    if asked is None or not all(asks(part) for part in asked.parts) or body[0].type in ("else_clause", "elif_clause"):
        return None
    return text(condition), text(body[0])


def asks(part: Part) -> bool:
    """Whether a part only asks, and says no with 1."""
    core = part.core
    if core is None:
        return False
    if core.type == "negated_command" and len(core.named_children) == 1:
        inner = row(text(core.named_children[0]))
        return inner is not None and len(inner.parts) == 1 and not part.redirections and asks(inner.parts[0])
    said = [re.sub(r"\s+", "", text(one)) for one in part.redirections]
    if any(one not in _DEVNULL for one in said):
        return False
    if core.type == "pipeline":
        return _looks(core, part)
    if core.type == "test_command" or part.name in _ASKS:
        return True
    given = part.arguments
    if part.name == "systemctl":
        return bool(given) and (given[0] or "") in ("is-active", "is-enabled", "is-failed")
    if part.name in ("grep", "egrep", "fgrep", "zgrep"):
        return any(one and re.match(r"-\w*q|--quiet|--silent", one) for one in given) or ">/dev/null" in said
    if part.name in ("cmp", "diff", "mountpoint"):
        return any(one and re.match(r"-\w*[sq]", one) for one in given)
    return (part.name == "command" and given[:1] == ["-v"]) or part.name in ("which", "type")


def _looks(pipe: Node, part: Part) -> bool:
    """Whether a pipe ends in a question, and its other commands only look: `ps aux | grep -q …`."""
    *others, last = pipe.named_children
    shown = [row(text(one)) for one in others]
    if any(one is None or len(one.parts) != 1 or one.parts[0].name not in _LOOKS for one in shown):
        return False
    ends = " ".join((text(last), *(text(one) for one in part.redirections)))
    asked = row(ends)
    return asked is not None and len(asked.parts) == 1 and asks(asked.parts[0])


def is_relative(condition: str) -> bool:
    """Whether a condition looks at a file by a path that depends on the folder."""
    tree = row(condition)
    words = " ".join(part.text for part in tree.parts).split() if tree else ["-f", "x"]
    if not any(_FILE_TESTS.fullmatch(word) or word in ("grep", "cmp", "diff") for word in words):
        return False
    named = [word for word in words if word not in ("test", "command", "grep")]
    return any(re.match(r"[\"']?[^/~\"'$!\]\[()=<>&-]", word) for word in named)
