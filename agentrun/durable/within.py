"""Which call the code that runs now is inside of: here, in a thread that it started, in a process that it started.

A context variable knows it, and tasks inherit that; threads do not. So a thread works for the call that it was
started in, and an executor's for the call that the work was submitted in: `Thread.start` and
`ThreadPoolExecutor.submit` are wrapped to note it. Without that, a call in such a thread would stand beside the
call that it is a part of, and be given to the next equal one once the outer call is replayed.

Processes read it from their environment, where $AGENTRUN_CALLED_IN names the call that is being made; "?" while
several are, for then nobody can tell which of them a process belongs to: its calls are made anew in each attempt.

Where this ends: a thread or a worker process that was started outside of a call, and is handed work through a
queue of the script's own, works outside of it. Give what it calls a key.
"""

from __future__ import annotations

import os
import sys
import threading
from _contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .calls import Running

NAME = "AGENTRUN_CALLED_IN"
SEVERAL = "?"
_NOWHERE: Any = object()
_ATTRIBUTE = "_agentrun_call"

current: ContextVar[Running | None] = ContextVar("agentrun.durable")
_lock = threading.RLock()
_active: dict[Running, None] = {}  # in the order in which they began
_started_in = ""
_stream: int | None = None
_start: Any = threading.Thread.start
_submit: Any = None


def call_here() -> Running | None:
    """The innermost call that this code is a part of."""
    here: Any = current.get(_NOWHERE)
    if here is _NOWHERE:
        here = getattr(threading.current_thread(), _ATTRIBUTE, None)
    found: Running | None = here
    return found


# ---- threads


def _start_inside(thread: threading.Thread) -> None:
    setattr(thread, _ATTRIBUTE, call_here())
    _follow_executors()
    _start(thread)


def _follow_executors() -> None:
    global _submit
    module: Any = sys.modules.get("concurrent.futures.thread")
    if _submit is None and hasattr(module, "ThreadPoolExecutor"):
        _submit = module.ThreadPoolExecutor.submit
        module.ThreadPoolExecutor.submit = _submit_inside


def _submit_inside(executor: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    return _submit(executor, _run_inside, call_here(), function, *args, **kwargs)


def _run_inside(call: Running | None, function: Any, *args: Any, **kwargs: Any) -> Any:
    token = current.set(call)
    try:
        return function(*args, **kwargs)
    finally:
        current.reset(token)


threading.Thread.start = _start_inside  # type: ignore[method-assign, assignment]
_follow_executors()


# ---- processes


def opened(stream: int | None) -> None:
    """The journal of this process is open. `stream`: the one of its calls; None: they are not known again."""
    global _stream, _started_in
    _stream = stream
    _started_in = os.environ.get(NAME, "")
    with _lock:
        _tell()


def enter(call: Running) -> None:
    """The call is made from now on; processes that begin are a part of it."""
    with _lock:
        _active[call] = None
        _tell()


def leave(call: Running) -> None:
    """The call is over."""
    with _lock:
        _active.pop(call, None)
        _tell()


def forked() -> None:
    """In a forked child: no thread but this one goes on."""
    global _lock
    _lock = threading.RLock()
    call = call_here()
    chain = []
    while call is not None:
        chain.append(call)
        call = call.outer
    _active.clear()
    _active.update(dict.fromkeys(reversed(chain)))


def _tell() -> None:
    call = next(reversed(_active), None)
    if call is None:
        name = _started_in
    elif _stream is None or len(_active) != call.depth or not _is_chain(call):
        name = SEVERAL
    else:
        name = f"{_stream}.{call.scope_id}"
    if os.environ.get(NAME, "") != name:
        os.environ[NAME] = name


def _is_chain(call: Running) -> bool:
    outer = call.outer
    while outer is not None:
        if outer not in _active:
            return False
        outer = outer.outer
    return True
