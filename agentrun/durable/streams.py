"""Which process of an earlier attempt this one is again: whose calls it may be given.

A process is known by its command line, its folder and stdin (where that is a file), the call that it was started in,
and the environment variables that differ from those of the step's first process (ours and those of a shell's own
making are not looked at). What a result is given to must be certain, else the call is made again:

- **Several of one kind** in one attempt (`python a.py; python a.py`, a queue that is worked off in a loop) cannot be
  told apart: if one is left out, each would be taken for the one before it. In later attempts only their calls with a
  `key=` are given; the others are made again, and stderr says so. Not seen is a queue whose worker had begun once.
- **Another command line** (`mktemp`, `date`): the first process of an attempt is the first of an earlier one if all
  of them ran this program once, and no more: unless that one came to its end and ended well, for in a queue the
  next has another item. What it calls is compared in order as ever. Where that does not hold, stderr says why.
- **Workers** that one program forks or spawns share a stream: what differs between them are their arguments.

Conditions (attempt 0) ask how things are now: they are given nothing, and nothing is given of theirs.
"""

from __future__ import annotations

import os
import sys

try:
    from _blake2 import blake2b  # hashlib takes 3 ms, for OpenSSL
except ImportError:
    from hashlib import blake2b

from . import argv as _argv
from . import folder as _folder
from .within import NAME, SEVERAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .journal import Entry

_OF_A_SHELL = {"PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "TRACEPARENT", "LINES", "COLUMNS"}
_OURS = ("AGENTRUN_", "OUT_")


class Process:
    """This process, as it is known in every attempt. `pool`: it is one of several that share their work."""

    __slots__ = ("argv", "pool", "under", "where")

    def __init__(self, argv: list[str], pool: bool, where: str = "", under: str = "") -> None:
        self.argv = argv
        self.pool = pool
        self.where = where
        self.under = under

    def line(self) -> Entry:
        """What the journal says of it."""
        line: Entry = {"argv": self.argv, "where": self.where, "under": self.under}
        return dict(line, pool=True) if self.pool else line

    def is_same(self, begun: Entry) -> bool:
        """Whether it cannot be told from the one that began there."""
        return begun["argv"] == self.argv and self.under != SEVERAL and (
            begun.get("where"), begun.get("under"), begun.get("pool", False)
        ) == (self.where, self.under, self.pool)  # fmt: skip

    def is_program(self, begun: Entry) -> bool:
        """Whether that one ran the same program, as a part of nothing."""
        words = 2 if self.argv[:1] == ["-c"] else 1
        return not begun.get("pool") and not begun.get("under") and begun["argv"][:words] == self.argv[:words]


class Stream:
    """Where a process writes its calls, and what of the record it may be given.

    `shared`: others may be given the same, so what is taken is noted. `keyed`: only calls with a key are given.
    `nth`, `place`: how many of its kind, and of all, began before it in this attempt. `note`: what to tell the user.
    """

    __slots__ = ("entries", "keyed", "note", "nth", "number", "place", "shared")

    def __init__(self, number: int, nth: int, place: int, shared: bool) -> None:
        self.number = number
        self.nth = nth
        self.place = place
        self.shared = shared
        self.keyed = False
        self.entries: list[Entry] = []
        self.note = ""


def choose(entries: list[Entry], process: Process, attempt: int) -> Stream:
    """The stream of a process that begins. `entries`: all that the journal has."""
    begun = [entry for entry in entries if _is_begin(entry)]
    now = [entry for entry in begun if entry["attempt"] == attempt and not entry.get("pool")]
    earlier = [entry for entry in begun if entry["attempt"] not in (0, attempt)] if attempt else []
    nth = 0 if process.pool else sum(map(process.is_same, now))
    stream = Stream(max((entry["stream"] for entry in begun), default=-1) + 1, nth, len(now), process.pool)
    same = [entry for entry in earlier if process.is_same(entry)]
    if process.pool:
        same = [entry for entry in begun if process.is_same(entry) and (entry["attempt"] > 0) == (attempt > 0)]
    streams = {entry["stream"] for entry in same}
    if not process.pool and any(entry["nth"] for entry in same):
        stream.shared = stream.keyed = True
        stream.number = min(streams)
        if not nth and any(entry["stream"] in streams and _is_done(entry) and entry["key"] is None
                           for entry in entries):  # fmt: skip
            stream.note = (
                f"{_shown(process.argv)} began more than once in an attempt: which calls were whose cannot be told, so"
                " they are made again; give them @step(key=...), or each process arguments of its own"
            )
    elif nth:
        return stream  # what there is was for the first of its kind
    elif streams:
        stream.number = min(streams)
    elif not process.pool and not now and attempt and not process.under:
        _take_over(stream, entries, earlier, process)
        streams = {stream.number}
    stream.entries = [entry for entry in entries if entry["stream"] in streams and (attempt or process.pool)]
    return stream


def _take_over(stream: Stream, entries: list[Entry], earlier: list[Entry], process: Process) -> None:
    """The first process of an attempt has another command line, or place, than each before: find it its stream."""
    like = [entry for entry in earlier if process.is_program(entry)]
    streams = {entry["stream"] for entry in like}
    if not any(entry["stream"] in streams and _is_done(entry) for entry in entries):
        return
    if len(streams) > 1 or any(entry["nth"] or entry.get("place") for entry in like):
        why = "it began more than once"
    elif any("ended" in entry and entry["stream"] in streams for entry in entries):
        why = "it came to its end there"
    else:
        stream.number = streams.pop()
        return
    before, after = _shown(like[-1]["argv"]), _shown(process.argv)
    what = f"as {before}, and now as {after}" if before != after else f"as {after}, in another folder or environment"
    stream.note = (
        f"what {process.argv[0]} called in an earlier attempt is called again: it ran {what}, and {why}; give it the"
        " same arguments and variables in each attempt"
    )


def _is_begin(entry: Entry) -> bool:
    words = entry.get("argv")
    return isinstance(words, list) and bool(words) and type(entry.get("nth")) is int


def _is_done(entry: Entry) -> bool:
    return "call" in entry and "result" in entry


def _shown(words: list[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 120 else text[:117] + "..."


# ---- this process


def this_process() -> Process:
    """What this process is known by."""
    under = os.environ.get(NAME, "")
    pool = _is_worker()
    given = _environment("self")
    return Process(_command_line(), pool, "" if pool else _where(given), under)


def _is_worker() -> bool:
    """Whether this process is one of several that one program started to share its work."""
    from . import forked

    multiprocessing = sys.modules.get("multiprocessing.process")
    return forked or (multiprocessing is not None and multiprocessing.parent_process() is not None)


def _command_line() -> list[str]:
    """Its arguments, without what is another one in each attempt."""
    words = _argv
    if words[:1] == ["-c"]:  # the program itself is not in sys.argv
        with open("/proc/self/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[1:-1]]
    return [_lasting(word) for word in words] or [""]


def _lasting(text: str) -> str:
    for name in ("TMPDIR", "AGENTRUN_OUTPUT"):
        value = os.environ.get(name)
        if value:
            text = text.replace(value, "$" + name)
    return text


def _where(given: dict[str, str]) -> str:
    """A digest: variables may be secrets."""
    parts = [_folder, _stdin()]
    base = _first_environment(given)
    for name in sorted({*given, *base}):
        if name not in _OF_A_SHELL and not name.startswith(_OURS) and given.get(name) != base.get(name):
            parts.append(f"{name}={given.get(name)}")
    text = "\0".join(map(_lasting, parts))
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _stdin() -> str:
    try:
        path = os.readlink("/proc/self/fd/0")
    except OSError:
        return ""
    return path if path.startswith("/") and not path.endswith(" (deleted)") else ""  # a pipe; a shell's here-document


def _first_environment(given: dict[str, str]) -> dict[str, str]:
    """What the step's first process was given: a resume may give all of them another environment."""
    base, pid = given, os.getppid()
    while pid > 1:
        found = _environment(pid)
        if not found or any(found.get(name) != given.get(name) for name in ("AGENTRUN_CALLS", "AGENTRUN_ATTEMPT")):
            break
        base, pid = found, _parent(pid)
    if base is given and os.getpid() != os.getsid(0):
        return {}  # an orphan: the first process is gone
    return base


def _environment(pid: Any) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return {}
    return {name: value for name, mark, value in (os.fsdecode(word).partition("=") for word in words) if mark}


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
