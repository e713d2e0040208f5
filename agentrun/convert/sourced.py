"""Files that a script reads in with `.`, as far as they can be found: beside the script, or by a whole path.

A later step's bash has their functions as text, and has forgotten which file they came from. So a function that asks
for its file (`${BASH_SOURCE[0]}`, to find what lies beside it) would be told another one: such a script is kept whole.
"""

from __future__ import annotations

import os
import re

from .program import Program, called
from .syntax import Node, first_line, literal, text, walk, words

_MOST = 1 << 20  # bytes of a file that are looked at
_BESIDE = re.compile(r"[)`}\w]/([\w./+-]+)\"?$")  # what stands behind `$(dirname "$0")/`, `${DIR}/`, `$HERE/`


def why_whole(program: Program, script: str | None) -> tuple[int, str] | None:
    """The line that reads in such a file, and why that keeps the script whole; None where there is none."""
    if program.dialect != "bash" or script is None:
        return None
    for node in walk(program.root):
        if node.type != "command" or called(node)[0] not in (".", "source"):
            continue
        file = _found(node, os.path.dirname(script))
        if file and _asks(file):
            name = os.path.basename(file)
            return first_line(node), f"functions of {name} ask which file they stand in, and later steps cannot say it"
    return None


def _found(command: Node, folder: str) -> str:
    """The file that is read in; "" where that is not known."""
    arguments = words(command)[1:]
    if not arguments:
        return ""
    said = literal(arguments[0])
    if said is None:
        beside = _BESIDE.search(text(arguments[0]))
        said = beside[1] if beside else ""
    path = os.path.join(folder, said)
    return path if said and os.path.isfile(path) else ""


def _asks(file: str) -> bool:
    try:
        with open(file, "rb") as opened:
            source = opened.read(_MOST).decode(errors="replace")
    except OSError:
        return False
    if "BASH_SOURCE" not in source:
        return False
    functions = (node for node in walk(Program(source, "bash").root) if node.type == "function_definition")
    return any("BASH_SOURCE" in text(node) for node in functions)
