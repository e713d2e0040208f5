"""What cron makes of a `%` in a command, and of what stands behind it.

The first one that has no backslash ends the command; what follows is its input, in which each further one is a line
break. `\\%` is a `%`, and before the first one `\\\\` is a `\\` (Debian's cron, do_command.c, asked of a real one).
Most who write one did not know that: `date +%F` is a live bug.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .syntax import broken, parse


class Given(NamedTuple):
    """The command as its shell gets it, and what it reads; None: nothing."""

    command: str
    stdin: str | None


def as_cron_reads(written: str) -> Given:
    """The command of an entry, as it stands in the crontab."""
    command: list[str] = []
    escaped = False
    for at, char in enumerate(written):
        if escaped:
            if char in "%\\":
                command.pop()
            command.append(char)
            escaped = False
            continue
        if char == "%":
            return Given("".join(command), _input(written[at + 1 :]))
        command.append(char)
        escaped = char == "\\"
    return Given("".join(command), None)


def _input(written: str) -> str:
    lines = re.sub(r"\\%|%", lambda found: "%" if found[0] == "\\%" else "\n", written)
    return lines + "\n" if lines and not lines.endswith("\n") else lines


def forgotten(written: str) -> bool:
    """Whether the `%` that ends the command looks like one of a date, a format or a URL."""
    given = as_cron_reads(written)
    if given.stdin is None:
        return False
    behind = written[re.match(r"(?:\\.|[^%\\])*", written, re.DOTALL).end() + 1 :]  # type: ignore[union-attr]
    if broken(parse(given.command)):
        return True
    if re.search(r"[+\-_:/.]$", given.command) and re.match(r"[A-Za-z]", behind):
        return True
    return bool(re.search(r"https?://\S*$", given.command) and re.match(r"[0-9A-Fa-f]{2}", behind))


def with_input(command: str, stdin: str) -> str:
    """A command that reads this, for a shell."""
    if not stdin:
        return command
    end = "END"
    while end in stdin.split("\n"):
        end += "_"
    root = parse(command)
    simple = len(root.children) == 1 and root.children[0].type == "command" and not broken(root)
    if simple and "\n" not in command and "#" not in command:
        return f"{command.strip()} <<'{end}'\n{stdin}{end}\n"
    return f"{{\n{command.strip()}\n}} <<'{end}'\n{stdin}{end}\n"
