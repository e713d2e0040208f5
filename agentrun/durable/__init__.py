"""Checkpoints inside a Python step: what a script has done, it does not do again.

    from agentrun.durable import step, output, usage

    @step(retry=3)
    def ask(prompt):
        reply = client.chat(prompt)
        usage(reply.tokens_in, reply.tokens_out, model="small", cost=0.002)
        return reply.text

    output(answer=ask("Why?"))

On a retry or a resume the script starts again from its top. Calls of a `@step` that are done return what they
returned before, without running; so between them a script must do the same each time. What was in flight when
everything was killed is called again. Outside a run a `@step` is a plain function.

Arguments and results are JSON, and a result is always given as JSON has it (a tuple is a list). A call is known by its
function, its arguments and its order; `self` and `cls` are not looked at. Threads, tasks, forks and calls within
calls may be used; several processes are told apart by their command lines. Any Python from 3.8, nothing to install.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

    from .calls import Mismatch

__all__ = ["Mismatch", "output", "step", "usage"]

_RETRY = ("max_attempts", "interval", "backoff", "max_interval", "on")
_ASYNC, _YIELDS = 0x80, 0x20 | 0x200  # flags of a function's code (inspect.CO_*, whose import takes 10 ms)

argv = list(getattr(sys, "argv", ()))  # before the script changes it
try:
    folder = os.getcwd()
except OSError:  # it was removed
    folder = ""
forked = False  # since this was imported
_making: ModuleType | None = None  # loaded at the first call in a run


def __getattr__(name: str) -> Any:
    if name == "Mismatch":
        from .calls import Mismatch

        return Mismatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def step(function: Callable[..., Any] | None = None, *, retry: Any = None, key: Any = None) -> Any:
    """Make each call of the function a checkpoint: done once, it is not done again in a retry or a resume.

    `retry`: how often it is called in all while it raises, or a dict of `max_attempts`, `interval` and
    `max_interval` (seconds between two calls: 1, at most 300), `backoff` (their growth: 2) and `on` (an
    exception class or several; default: Exception). Without it, what it raises goes to the caller at once.
    `key`: what a call is known by instead of its arguments: a text, or a function of the same arguments that
    gives one. Needed where arguments are not JSON.

    A call raises what the function raises; TypeError where arguments or result are not JSON; Mismatch where an
    earlier attempt made another call in its place; OSError where it cannot be recorded.
    """
    tries = _tries(retry)
    if key is not None and not isinstance(key, str) and not callable(key):
        raise TypeError(f"@step(key=...) is a text or a function that gives one, not {key!r}")
    if function is None:
        return lambda function: _checkpointed(function, tries, key)
    return _checkpointed(function, tries, key)


def output(*mapping: Mapping[str, Any], **values: Any) -> None:
    """Hand values to the outputs of the step: `output(count=3)` or `output({"count": 3})`, as often as needed.

    Of equal names the last counts; `retry_after` holds the next attempt back (seconds). What a `@step` hands over is
    handed over again when it is not run again. TypeError: a value is not JSON. Outside a run nothing happens.
    """
    from .handing import output

    output(mapping, values)


def usage(
    input_tokens: Any = None, output_tokens: Any = None, model: str | None = None, cost: Any = None, **more: Any
) -> None:
    """Report what was spent; it is counted against the budgets while the step runs.

    Report a call when it is done, inside its `@step`: so it counts once. `cost` in the currency of the job's budget.
    `more` is recorded with it. A mapping of OpenTelemetry's names (`gen_ai.usage.input_tokens`, ...) may be given
    instead. TypeError, ValueError: something is no count, no amount, or negative, or there is nothing to count.
    Outside a run nothing happens.
    """
    from .handing import usage

    usage(input_tokens, output_tokens, model, cost, more)


# ---- decorating


class Tries:
    """How often a function is called while it raises, and the pauses between, in seconds."""

    __slots__ = ("backoff", "interval", "max_attempts", "max_interval", "on")

    def __init__(
        self, max_attempts: Any = 1, interval: Any = 1, backoff: Any = 2, max_interval: Any = 300, on: Any = Exception
    ) -> None:
        if type(max_attempts) is not int or max_attempts < 1:
            raise ValueError(f"@step(retry=...) counts the first attempt too: 1 or more, not {max_attempts!r}")
        seconds = (("interval", interval, 0), ("backoff", backoff, 1), ("max_interval", max_interval, 0))
        for name, value, least in seconds:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
                raise ValueError(f"@step(retry=...): {name} is a number, {least} or more, not {value!r}")
        self.on = tuple(on) if isinstance(on, (tuple, list)) else (on,)
        for kind in self.on:
            if not isinstance(kind, type) or not issubclass(kind, BaseException):
                raise TypeError(f"@step(retry=...): on holds exception classes, not {kind!r}")
        self.max_attempts = max_attempts
        self.interval = interval
        self.backoff = backoff
        self.max_interval = max_interval

    def pause(self, made: int) -> float:
        """Seconds between the call of that number and the next."""
        try:
            return float(min(self.interval * self.backoff ** (made - 1), self.max_interval))
        except OverflowError:
            return float(self.max_interval)


def _tries(retry: Any) -> Tries:
    if retry is None:
        return Tries()
    if isinstance(retry, int):
        return Tries(retry)
    if not isinstance(retry, dict):
        raise TypeError(f"@step(retry=...) is a number of attempts or a dict of {', '.join(_RETRY)}, not {retry!r}")
    for name in retry:
        if name not in _RETRY:
            raise TypeError(f"@step(retry=...): there is no {name!r}, but {', '.join(_RETRY)}")
    return Tries(**retry)


class Checkpointed:
    """A function that was decorated, and what all its calls have in common.

    `names`: its positional parameters; `named`: those that may be given by name; `is_method`: the first is `self`.
    """

    __slots__ = ("function", "is_method", "key", "name", "named", "names", "tries")

    def __init__(self, function: Any, tries: Tries, key: Any) -> None:
        code = getattr(function, "__code__", None)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        count = getattr(code, "co_argcount", 0)
        every = getattr(code, "co_varnames", ())
        inside = name.rpartition(".")[0]
        self.function = function
        self.tries = tries
        self.key = key
        self.name = f"{getattr(function, '__module__', None) or '?'}.{name}"
        self.names: tuple[str, ...] = every[:count]
        self.named = frozenset(
            every[getattr(code, "co_posonlyargcount", 0) : count + getattr(code, "co_kwonlyargcount", 0)]
        )
        self.is_method = bool(inside) and not inside.endswith("<locals>") and self.names[:1] in (("self",), ("cls",))


def _checkpointed(function: Any, tries: Tries, key: Any) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        raise TypeError(f"@step stands below @{type(function).__name__}, next to the function")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"@step is for functions, not {function!r}; options have names: @step(retry=3)")
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    checkpointed = Checkpointed(function, tries, key)
    if flags & _YIELDS:
        raise TypeError(f"@step: {checkpointed.name} yields, and a checkpoint is one result: return a list")
    call = _asynchronous(checkpointed) if flags & _ASYNC else _synchronous(checkpointed)
    _dress(call, function)
    return call


def _synchronous(checkpointed: Checkpointed) -> Any:
    function = checkpointed.function

    def call(*args: Any, **kwargs: Any) -> Any:
        if _making is None and not _in_a_run():
            return function(*args, **kwargs)
        return _making.call(checkpointed, args, kwargs)  # type: ignore[union-attr]

    return call


def _asynchronous(checkpointed: Checkpointed) -> Any:
    function = checkpointed.function

    async def call(*args: Any, **kwargs: Any) -> Any:
        if _making is None and not _in_a_run():
            return await function(*args, **kwargs)
        return await _making.call_async(checkpointed, args, kwargs)  # type: ignore[union-attr]

    return call


def _in_a_run() -> bool:
    global _making
    if not os.environ.get("AGENTRUN_CALLS"):
        return False
    from . import making

    _making = making
    return True


def _dress(call: Any, function: Any) -> None:
    """Let the wrapper look like what it wraps; functools.wraps, without the import."""
    noted = "__annotate__" if hasattr(function, "__annotate__") else "__annotations__"
    for name in ("__module__", "__name__", "__qualname__", "__doc__", noted):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    call.__dict__.update(getattr(function, "__dict__", {}))
    call.__wrapped__ = function


def _after_fork() -> None:
    global forked
    forked = True
    if _making is not None:
        _making.let_go()


os.register_at_fork(after_in_child=_after_fork)
