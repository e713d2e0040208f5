"""How a call of a `@step` is made in a run: asked of the record, else made, recorded, and only then returned.

Loaded at the first such call. The order of effects: the function has run; its line is written; its line is on the
disk; the caller has the result. Killed before the line is written, it is called again; after, never.
A forked child opens the journal anew: a lock of the file that two processes share would be no lock.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from _thread import RLock

from . import handing, within
from .calls import Book, Mismatch, Running, key_of
from .journal import culprit, text_of, value_of
from .streams import this_process
from .within import call_here, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from . import Checkpointed
    from .journal import Entry

_SHOWN = 2_000  # characters of an error that the journal keeps
_MOST = 1 << 20  # bytes of a result, and of arguments: a checkpoint is for what is decided, not for data
_REMEDY = "return text, numbers, None, lists and dicts of them"

_opening = RLock()
_book: Book | None = None


def call(checkpointed: Checkpointed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a call, made now or before."""
    book = _book or _open()
    key, fields = _identify(checkpointed, args, kwargs)
    owner = args[0] if args and checkpointed.is_method and checkpointed.key is None else None
    found = book.begin(key, call_here(), owner)
    if isinstance(found, dict):
        return _given(found)
    making = _Making(book, checkpointed, found, fields)
    try:
        while True:
            making.enter()
            try:
                value = checkpointed.function(*args, **kwargs)
            except BaseException as error:
                pause = making.raised(error)
                if pause is None:
                    raise
            else:
                return making.done(value)
            time.sleep(pause)
    finally:
        making.leave()


async def call_async(checkpointed: Checkpointed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same for a function that is awaited."""
    book = _book or _open()
    key, fields = _identify(checkpointed, args, kwargs)
    owner = args[0] if args and checkpointed.is_method and checkpointed.key is None else None
    found = book.begin(key, call_here(), owner)
    if isinstance(found, dict):
        return _given(found)
    making = _Making(book, checkpointed, found, fields)
    try:
        while True:
            making.enter()
            try:
                value = await checkpointed.function(*args, **kwargs)
            except BaseException as error:
                pause = making.raised(error)
                if pause is None:
                    raise
            else:
                return making.done(value)
            import asyncio

            await asyncio.sleep(pause)
    finally:
        making.leave()


def let_go() -> None:
    """In a forked child: what was open is the parent's."""
    global _book, _opening
    _opening = RLock()
    within.forked()
    if _book is not None:
        _book.close()
        _book = None


class _Making:
    """One call while it is made, attempt by attempt. `leave` it whatever happens."""

    __slots__ = ("book", "checkpointed", "clock", "fields", "is_done", "made", "running")

    def __init__(self, book: Book, checkpointed: Checkpointed, running: Running, fields: Entry) -> None:
        self.book = book
        self.checkpointed = checkpointed
        self.running = running
        self.fields = fields
        self.made = 0
        self.is_done = False
        within.enter(running)

    def enter(self) -> None:
        self.made += 1
        self.fields["at"] = time.time_ns() // 1_000_000
        self.clock = time.monotonic()
        current.set(self.running)

    def raised(self, error: BaseException) -> float | None:
        """Note it; the pause before the next attempt in seconds, None for none."""
        self._raised(error)
        tries = self.checkpointed.tries
        if self.made >= tries.max_attempts or not isinstance(error, tries.on) or isinstance(error, Mismatch):
            return None
        return tries.pause(self.made)

    def _raised(self, error: BaseException) -> None:
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception:
            text = type(error).__name__
        self._stop()
        self.book.raised(self.running, self.fields, text[:_SHOWN])

    def done(self, value: object) -> Any:
        """Record the result; returns it as JSON has it. TypeError: it is none; OSError: it may not be recorded."""
        self._stop()
        name = self.checkpointed.name
        try:
            text, copy = _result(value, f"the result of {name}")
        except (TypeError, ValueError) as error:
            self._raised(error)
            raise
        try:
            self.book.done(self.running, self.fields, text)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{name} was called, and its result could not be recorded ({error.strerror}), so it may be called"
                f" again: make room for {os.environ.get('AGENTRUN_CALLS')}",
            ) from error
        except ValueError as error:
            self._raised(error)
            raise ValueError(f"{name} was called, and its result and outputs are too large: {error}") from None
        self.is_done = True
        return copy

    def _stop(self) -> None:
        self.fields["ms"] = round((time.monotonic() - self.clock) * 1_000)
        current.set(self.running.outer)

    def leave(self) -> None:
        current.set(self.running.outer)
        within.leave(self.running)
        self.book.end(self.running, self.is_done)


def _result(value: object, what: str) -> tuple[str, Any]:
    """The value as JSON text and what that text says. TypeError: it is not JSON, and where; ValueError: too large."""
    try:
        text = text_of(value)
        copy = value_of(text)
        wrong = "" if copy == value else culprit(value)  # unequal: a tuple, or a key that is no text
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{what} is not JSON: {culprit(value) or error}; {_REMEDY}") from None
    if wrong:
        raise TypeError(f"{what} is not JSON: {wrong}; {_REMEDY}")
    _check_size(text, what)
    return text, copy


def _check_size(text: str, what: str) -> None:
    if len(text) > _MOST // 4 and (size := len(text.encode())) > _MOST:
        raise ValueError(
            f"{what} has {size:,} bytes as JSON, and 1 MiB is the most: write it to a file in $AGENTRUN_RUN_DIR and"
            " give its path"
        )


def _given(entry: Entry) -> Any:
    if entry.get("outputs"):
        handing.hand_over(entry["outputs"])
    return value_of(entry["result"])


# ---- what a call is known by


def _identify(checkpointed: Checkpointed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Entry]:
    """What the call is compared by, and what its line says of it."""
    bound = _bound(checkpointed, args, kwargs)
    known_by = None
    try:
        text = text_of(bound, True)
    except (TypeError, ValueError, RecursionError) as error:
        if checkpointed.key is None:
            raise TypeError(_unknown(checkpointed, culprit(bound) or str(error))) from None
        text = "null"
    if checkpointed.key is not None:
        known_by = checkpointed.key if isinstance(checkpointed.key, str) else checkpointed.key(*args, **kwargs)
        if not isinstance(known_by, str):
            raise TypeError(f"what a call of {checkpointed.name} is known by must be a text; key= gave {known_by!r}")
    name = checkpointed.name
    if len(text) > _MOST // 4:
        if known_by is None:
            _check_size(text, f"what {name} is called with")
        elif len(text.encode()) > _MOST:
            text = "null"  # the key says which call it is
    return key_of(name, text, known_by), {"call": name, "args": text, "key": known_by}


def _bound(checkpointed: Checkpointed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name: f(1) and f(x=1) are one call. What does not fit is for the function to refuse."""
    names = checkpointed.names
    bound = dict(zip(names, args))
    if len(args) > len(names):
        bound["*"] = args[len(names) :]
    if kwargs and checkpointed.named.issuperset(kwargs) and not bound.keys() & kwargs.keys():
        bound.update(kwargs)
    elif kwargs:
        others = {name: value for name, value in kwargs.items() if name in bound or name not in checkpointed.named}
        bound.update((name, value) for name, value in kwargs.items() if name not in others)
        if others:
            bound["**"] = others
    if checkpointed.is_method:
        bound.pop(names[0], None)
    return bound


def _unknown(checkpointed: Checkpointed, wrong: str) -> str:
    return (
        f"the arguments of {checkpointed.name} are not JSON: {wrong}; give @step(key=...), a text or a function of the"
        " same arguments that gives one, by which a call is known instead"
    )


# ---- the journal of this process


def _open() -> Book:
    global _book
    with _opening:
        if _book is None:
            path = os.environ["AGENTRUN_CALLS"]
            attempt = os.environ.get("AGENTRUN_ATTEMPT", "")
            try:
                book = Book(path, int(attempt) if attempt.isdigit() else 1, this_process())
            except OSError as error:
                raise OSError(
                    error.errno, f"the journal of this step's calls cannot be written ({error.strerror}): {path}"
                ) from error
            within.opened(book.stream)
            if book.is_first:
                _watch_the_end(book)
            _book = book
        return _book


def _watch_the_end(book: Book) -> None:
    """Note in the journal if the process ends by itself and well, as far as that can be known from inside."""
    pid, leave = os.getpid(), sys.exit
    failed = []

    def exit(status: Any = None, /) -> NoReturn:
        if status not in (None, 0):
            failed.append(status)
        leave(status)

    def ended() -> None:
        if os.getpid() == pid and not failed and getattr(sys, "last_value", None) is None:
            try:
                book.ended()
            except OSError:
                pass

    sys.exit = exit
    atexit.register(ended)
