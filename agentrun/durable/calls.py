"""Which recorded call is which: the calls that a process makes, matched with those of earlier attempts.

A call is known by its function, its arguments (or its key), and by how many of the same were done before it under
the same outer call; each recorded result is given out once, in the order of the record. A call that raised is not
done: it is made again, and counts for nothing here but that it was made.

**Order.** Calls that overlap (threads, tasks, workers) come in any order, and are matched by that alone. All
others have a place in the order of their scope, `n`; where the record has another call next than the one
that is made, the script has changed or follows something that has, and what comes after would be built on sand:
Mismatch. A call that raised may succeed now, so which way the script goes from there is open: the order is not
looked at again before the next call that the record knows.

**Scopes.** Calls inside a call are known under it, so replaying the outer one shifts nobody's count; if it fails and
is made again, in this attempt or another, those that it had done are given back to it.
"""

from __future__ import annotations

import gc
import os
import sys
from _thread import RLock, get_ident

try:
    from _blake2 import blake2b  # hashlib takes 3 ms, for OpenSSL
except ImportError:
    from hashlib import blake2b

from .journal import Journal
from .within import SEVERAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .journal import Entry
    from .streams import Process


class Mismatch(RuntimeError):
    """A call is not the one that an earlier attempt made in its place. The message names both."""


class Running:
    """A call that is being made. `outer`: the call that it is made in."""

    __slots__ = ("_scope_id", "depth", "key", "n", "occurrence", "outer", "outputs", "overlapped", "owner")

    def __init__(self, key: str, outer: Running | None, owner: object) -> None:
        self.key = key
        self.outer = outer
        self.owner = owner
        self.depth: int = outer.depth + 1 if outer else 1
        self.n = self.occurrence = 0
        self.overlapped = False
        self.outputs: dict[str, Any] = {}
        self._scope_id = ""

    @property
    def scope_id(self) -> str:
        """The name of the scope that the calls inside this one have: the same in every attempt."""
        if not self._scope_id:
            outer = self.outer.scope_id if self.outer else ""
            text = f"{outer}\0{self.key}\0{self.occurrence}"
            self._scope_id = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        return self._scope_id


class Scope:
    """The calls that are made under one call, or under none, and what the record has of them. Knows no clock, no file.

    `done`: the entries that were done, in the order of the file; `failed`: the keys of calls that ever raised.
    """

    __slots__ = ("_at", "_begun", "_lone", "_loose", "_next", "_order", "_owners", "_queues", "active", "failed")

    def __init__(self, done: list[Entry], failed: set[str]) -> None:
        self._queues: dict[str, list[Entry]] = {}
        for entry in reversed(done):
            entry["given"] = False
            self._queues.setdefault(entry["key"], []).append(entry)
        self._order = sorted((entry for entry in done if entry["n"] is not None), key=lambda entry: int(entry["n"]))
        for place, entry in enumerate(self._order):
            entry["place"] = place
        self.failed = failed
        self.active: dict[Running, None] = {}
        self._at = self._next = 0
        self._loose = False
        self._lone: Running | None = None
        self._begun: dict[str, int] = {}
        self._owners: dict[str, object] = {}

    def find(self, key: str, in_line: bool, alone: Callable[[], bool], taken: set[int]) -> Entry | None:
        """What the record has for a call that begins; None: it is to be made, and begins with `start`.

        `in_line`: nothing outside of this scope keeps it from having a place in the order. `taken`: numbers of
        lines that others were given. Raises Mismatch, after which nothing has changed; `alone` has the last word
        on whether that may be.
        """
        queue = self._queues.get(key)
        while queue and taken and queue[-1]["line"] in taken:
            queue.pop()
        entry = queue[-1] if queue else None
        order = self._order
        while self._at < len(order) and order[self._at]["given"]:
            self._at += 1
        if self._at < len(order) and order[self._at] is not entry and in_line and not self.active:
            known = entry is None or entry["n"] is not None
            if known and not self._loose and key not in self.failed and alone():
                raise Mismatch(_mismatch(order[self._at], key))
        if entry is None:
            return None
        assert queue
        queue.pop()
        self._begun[key] = self._begun.get(key, 0) + 1
        entry["given"] = True
        n = entry["n"]
        if n is not None:
            self._at = max(self._at, entry["place"] + 1)
            self._next = max(self._next, n + 1)
            self._loose = key in self.failed
        return entry

    def start(self, call: Running, in_line: bool) -> None:
        """The call is made now; `end` it. TypeError: another object is in the very same call."""
        if call.owner is not None and self._owners.setdefault(call.key, call.owner) is not call.owner:
            raise TypeError(
                f"{_told(call.key)} is being called on two objects at once: on a retry nobody could tell the results"
                " apart; give @step(key=...) a function that names the object too"
            )
        call.occurrence = self._begun.get(call.key, 0)
        self._begun[call.key] = call.occurrence + 1
        call.overlapped = bool(self.active) or not in_line
        call.n = self._next
        self._next += 1
        if self._lone is not None:
            self._lone.overlapped = True
        self._lone = None if self.active else call
        self.active[call] = None

    def raised(self, key: str) -> None:
        """The call was made and raised: it may be made again."""
        self.failed.add(key)
        self._loose = True

    def end(self, call: Running, done: bool) -> None:
        """The call is over, its line written."""
        self.active.pop(call, None)
        if self._owners.get(call.key) is call.owner:
            self._owners.pop(call.key, None)
        if self._lone is call:
            self._lone = None
        if not done:
            self._begun[call.key] -= 1
        elif call.key in self.failed:
            self._loose = True  # it raised before, and does not now


class Book:
    """All calls of this process: its scopes, and the journal behind them. Any thread may use it."""

    __slots__ = ("_done", "_failed", "_journal", "_lock", "_main", "_scopes", "_taken", "is_first", "stream")

    def __init__(self, path: str, attempt: int, process: Process) -> None:
        self._lock = RLock()
        self._journal = Journal(path, attempt)
        self._done: dict[str, list[Entry]] = {}
        self._failed: dict[str, set[str]] = {}
        self._scopes: dict[str, Scope] = {}
        self._taken: set[int] = set()
        threading = sys.modules.get("threading")
        self._main = threading.main_thread().ident if threading else get_ident()
        collects = gc.isenabled()
        gc.disable()  # nothing that is read here is garbage, and looking for it takes half of the time
        try:
            for entry in self._journal.begin(process):
                self._note(entry)
            self._scope(None)
        finally:
            if collects:
                gc.enable()
        # what processes that are started in a call are known by; it must be the same in another attempt
        self.stream = None if self._journal.keyed or process.under == SEVERAL else self._journal.stream
        self.is_first = not (process.pool or process.under or self._journal.place) and attempt > 0

    def _note(self, entry: Entry) -> None:
        if "took" in entry:
            if entry["attempt"] == self._journal.attempt and entry.get("pid") != os.getpid():
                self._taken.add(entry["took"])
        elif entry["attempt"] != self._journal.attempt and "call" in entry and "n" in entry:
            key = entry["key"] = key_of(entry["call"], entry["args"], entry["key"])
            scope = entry.get("in", "")
            if type(entry.get("result")) is str:
                self._done.setdefault(scope, []).append(entry)
            else:
                self._failed.setdefault(scope, set()).add(key)

    def begin(self, key: str, outer: Running | None, owner: object) -> Entry | Running:
        """What the record has for a call, else the call, which is to be made. Raises Mismatch; OSError in a pool."""
        with self._lock:
            scope = self._scopes.get(outer.scope_id if outer else "") or self._scope(outer)
            in_line = get_ident() == self._main and not self._journal.shared
            if self._journal.keyed and not _is_keyed(key, outer):
                entry = None
            elif self._journal.shared:
                entry = self._find_in_pool(scope, key)
            else:
                entry = scope.find(key, in_line, _alone, self._taken)
            if entry is not None:
                return entry
            call = Running(key, outer, owner)
            scope.start(call, in_line)
            return call

    def _find_in_pool(self, scope: Scope, key: str) -> Entry | None:
        journal = self._journal
        journal.lock()
        try:
            for entry in journal.read_new():
                if entry["stream"] == journal.stream and "took" in entry:
                    self._note(entry)
            found = scope.find(key, False, _alone, self._taken)
            if found is not None and found["line"]:  # 0: recorded by this very process
                journal.put({"took": found["line"], "pid": os.getpid()})
            return found
        finally:
            journal.unlock()

    def _scope(self, outer: Running | None) -> Scope:
        name = outer.scope_id if outer else ""
        scope = self._scopes.get(name)
        if scope is None:
            failed = self._failed.setdefault(name, set())
            scope = self._scopes[name] = Scope(self._done.get(name, []), failed)
        return scope

    def raised(self, call: Running, fields: Entry, error: str) -> None:
        """Note a call that raised. `fields`: what its line shall say of it.

        Not synced, and a journal that cannot be written is no error here: what the call raised is what matters.
        """
        with self._lock:
            self._scope(call.outer).raised(call.key)
            self._scopes.pop(call._scope_id or "-", None)  # made again, it is given what it had done
            try:
                call.outputs.clear()  # made again, it hands them over again
                self._journal.append(self._line(call, dict(fields, error=error)))
            except (OSError, ValueError):
                pass

    def done(self, call: Running, fields: Entry, result: str) -> None:
        """Record a call that is done, durably. OSError: it is not known whether it is; ValueError: it is too long."""
        with self._lock:
            line = self._line(call, dict(fields, result=result))
            self._journal.append(line)
            if call.outer:  # which may be made again in this process
                self._done.setdefault(call.outer.scope_id, []).append(dict(line, key=call.key, line=0))
        self._journal.sync()

    def _line(self, call: Running, line: Entry) -> Entry:
        line["n"] = None if call.overlapped or self._journal.shared else call.n
        line["in"] = call.outer.scope_id if call.outer else ""
        if call.outputs:
            line["outputs"] = call.outputs
        return line

    def end(self, call: Running, done: bool) -> None:
        """The call is over: recorded, or it has raised for the last time."""
        with self._lock:
            self._scope(call.outer).end(call, done)
            if call._scope_id:
                self._scopes.pop(call._scope_id, None)
                if done:
                    self._done.pop(call._scope_id, None)

    def ended(self) -> None:
        """Say, durably, that this process has come to its end, and well."""
        with self._lock:
            self._journal.append({"ended": True})
        self._journal.sync()

    def close(self) -> None:
        """Let go of the file: in a forked child, which must not share its lock."""
        self._journal.close()


def key_of(function: str, arguments: str, key: str | None) -> str:
    """What calls are compared by: the function with its key, or with its arguments as JSON."""
    return f"{function}\0{arguments}" if key is None else f"{function}\0\0{key}"


def _is_keyed(key: str, outer: Running | None) -> bool:
    """Whether the call, and each that it is made in, is known by a key."""
    while "\0\0" in key:
        if outer is None:
            return True
        key, outer = outer.key, outer.outer
    return False


def _alone() -> bool:
    """Whether no other task could be making calls in this thread."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return "trio" not in sys.modules
    return len(asyncio.all_tasks()) < 2


# ---- words


def _mismatch(expected: Entry, key: str) -> str:
    run, instance = os.environ.get("AGENTRUN_RUN_ID", "RUN"), os.environ.get("AGENTRUN_STEP", "STEP")
    before, now = _told(expected["key"]), _told(key)
    begin = 0
    if len(before) > 200 or len(now) > 200:  # begin shortly before the first difference
        same = (place for place, pair in enumerate(zip(before, now)) if pair[0] != pair[1])
        begin = max(0, next(same, 0) - 60)
    return (
        "a retry or a resume must make the same calls in the same order: give @step(key=...) where arguments differ and"
        f" it does not matter, or start anew with `agentrun resume {run} --from {instance.partition('[')[0]}`; attempt"
        f" {expected['attempt']} of this step called {_cut(before, begin)}, and now {_cut(now, begin)} is called in its"
        " place"
    )


def _told(key: str) -> str:
    function, _, known_by = key.partition("\0")
    return f"{function} with the key {known_by[1:]!r}" if known_by[:1] == "\0" else f"{function}({known_by})"


def _cut(text: str, begin: int) -> str:
    return ("..." if begin else "") + (text[begin:] if len(text) <= begin + 200 else text[begin : begin + 197] + "...")
