"""`agentrun run backup.sh`, without the script's name in the command lines that others can see.

Scripts look whether they run already by `pgrep -f backup.sh`, and would find whoever runs them: 8 of 128 scripts that
real crontabs start do. So the name is taken out of the process's own argument area before the shim is forked, which is
then without it, too. That memory is writable to its owner as any other; Python has read it long since.
"""

from __future__ import annotations

import os

_JOB_FILES = (b".yaml", b".yml", b".json")
_ARG_START = 45  # of the fields of /proc/PID/stat behind the name, from 0: proc(5) counts it as the 48th
_SHOWN = b"-"


def hide_script() -> None:
    """Take it out, if there is one. Where that cannot be done, the name is seen."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        number = _script(words)
        if number is None:
            return
        with open("/proc/self/stat", "rb") as file:
            start = int(file.read().rpartition(b")")[2].split()[_ARG_START])
        offset = start + sum(len(word) + 1 for word in words[:number])
        memory = os.open("/proc/self/mem", os.O_WRONLY)
        try:
            os.pwrite(memory, _SHOWN.ljust(len(words[number]), b"\0"), offset)
        finally:
            os.close(memory)
    except (OSError, ValueError, IndexError):
        return


def _script(words: list[bytes]) -> int | None:
    """The number of the word that is the script; `run` is the verb, whatever the interpreter was given before it."""
    if b"run" not in words:
        return None
    for number in range(words.index(b"run") + 1, len(words)):
        word = words[number]
        if word.lower().endswith(_JOB_FILES):
            return None  # what comes behind it are values of options
        if word and not word.startswith(b"-") and os.path.isfile(word):
            return number
    return None
