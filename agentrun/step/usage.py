"""What a step says that it used: the JSON lines of its $AGENTRUN_USAGE, read while they are written.

A line is one call of a model, with OpenTelemetry's names (semantic conventions for generative AI):

    gen_ai.usage.input_tokens, gen_ai.usage.output_tokens     once: prompt_tokens, completion_tokens
    gen_ai.response.model, else gen_ai.request.model
    cost, or gen_ai.usage.cost                                in the currency of the budget

or a span as the SDKs print one, with these in its `attributes`; a span without them is passed over. Whole batches
(`resourceSpans`) are refused: spans of agents repeat the figures of the calls in them. Other keys are ignored,
but a line with no key that is known is an error, as is each that cannot be counted: a limit that counts only what
it understands is none. Costs are billionths inside, rounded up, so that sums are exact.

The file belongs to the step: it may be absent, torn, huge, or no file at all any more.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from io import BufferedReader
from typing import Any, NamedTuple

BILLION = 10**9

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")  # the first that is there counts
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_COST = ("cost", "gen_ai.usage.cost")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model")
_KNOWN = frozenset((*_INPUT, *_OUTPUT, *_COST, *_MODEL))

_MOST = 2**53  # of tokens, and of billionths: what every JSON writer can write exactly
_MODEL_LIMIT = 200  # characters
_LINE_LIMIT = 1 << 20
_FILE_LIMIT = 32 << 20  # some 250,000 calls of one attempt
_AT_ONCE = 1 << 20  # bytes read before others get their turn, while the attempt runs
_SHOWN = 60  # characters of what is complained about
_DECIMAL = re.compile(r"([0-9]{1,20}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?")  # as jq writes 1e-05


class Usage(NamedTuple):
    """Calls of one model: how many, and their sums. `model` is empty where none was named; `cost` in billionths."""

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: int

    def plus(self, other: Usage) -> Usage:
        """The sum of two of the same model."""
        return Usage(
            self.model,
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


class BadUsage(Exception):
    """A line that cannot be counted, or a usage file that is none; the text says where and why."""


class UsageReader:
    """Reads the usage file of one attempt from `offset` on; `offset` then says how far it has been read."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self.offset = offset
        self._path = path
        self._bad_line: int | None = None  # the length of the line at `offset`, if it is one

    def read_new(self, final: bool = False) -> list[Usage]:
        """What was appended since, summed up by model.

        Whole lines only. `final`: the attempt is over; a last line without its end counts if it is JSON, and is
        what a kill has torn if not. Raises BadUsage; what stood before the bad line was returned before.
        """
        file = self._open()
        if file is None:
            return []
        with file:
            used: dict[str, Usage] = {}
            stop = None if final else self.offset + _AT_ONCE
            file.seek(self.offset)
            while stop is None or self.offset < stop:
                line = file.readline(_LINE_LIMIT + 1)
                torn = not line.endswith(b"\n")
                if not line or (torn and not final and len(line) <= _LINE_LIMIT):
                    break
                try:
                    usage = _usage_in(line, torn=torn)
                except _Bad as bad:
                    if used:
                        break  # the next call begins with it
                    self._bad_line = len(line)
                    raise BadUsage(f"line {self._line_number(file)} of $AGENTRUN_USAGE {bad}") from None
                self.offset += len(line)
                if usage is not None:
                    known = used.get(usage.model)
                    used[usage.model] = usage if known is None else known.plus(usage)
            return list(used.values())

    def pass_over(self) -> bool:
        """Step over the line that was bad, so that what follows can be counted. False: there is nothing more."""
        if self._bad_line is None:
            return False
        length, self._bad_line = self._bad_line, None
        try:
            file = self._open()
        except BadUsage:
            return False
        if file is None:
            return False
        with file:
            file.seek(self.offset + length - 1)
            while (block := file.readline(_LINE_LIMIT)) and not block.endswith(b"\n"):
                pass  # a line of any length, a MiB at a time
            self.offset = file.tell()
        return True

    def _open(self) -> BufferedReader | None:
        """The file, if there is something new in it. Raises BadUsage."""
        try:
            info = os.stat(self._path)
            if stat.S_ISREG(info.st_mode):
                if info.st_size == self.offset:
                    return None
                # what has become a FIFO since is not waited for
                descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                file = os.fdopen(descriptor, "rb")
                try:
                    self._check(file)
                except BaseException:
                    file.close()
                    raise
                return file
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadUsage(f"$AGENTRUN_USAGE cannot be read: {error.strerror}")
        raise BadUsage("$AGENTRUN_USAGE is no plain file any more: append to it, never replace it")

    def _check(self, file: BufferedReader) -> None:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise BadUsage("$AGENTRUN_USAGE is no plain file any more: append to it, never replace it")
        if info.st_size > _FILE_LIMIT:
            raise BadUsage(f"$AGENTRUN_USAGE is larger than {_FILE_LIMIT >> 20} MiB: it is for one line for each call")
        if self.offset:
            file.seek(self.offset - 1)
            if info.st_size < self.offset or file.read(1) != b"\n":
                raise BadUsage("$AGENTRUN_USAGE was written over: append to it, as with `>>`")

    def _line_number(self, file: BufferedReader) -> int:
        """Of the line at `offset`. Costs a look at all before it, and is asked for once."""
        file.seek(0)
        left, lines = self.offset, 1
        while left > 0 and (block := file.read(min(left, 1 << 18))):
            lines += block.count(b"\n")
            left -= len(block)
        return lines


def usage_line(model: str | None, input_tokens: int | None, output_tokens: int | None, cost: str | None) -> bytes:
    """The line for one call; `cost` as a person writes it. Raises ValueError, which says what is wrong with which."""
    parts = {}
    if model:
        parts[_MODEL[0]] = json.dumps(model)
    if input_tokens is not None:
        parts[_INPUT[0]] = str(input_tokens)
    if output_tokens is not None:
        parts[_OUTPUT[0]] = str(output_tokens)
    if cost is not None:
        if not _DECIMAL.fullmatch(cost):
            raise ValueError(f"the cost is not a number such as 0.0042: {_shown(cost)}")
        parts[_COST[0]] = format(Decimal(cost), "f")  # JSON has no .5 and no 007
    line = ("{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}\n").encode()
    try:
        _usage_in(line)
    except _Bad as bad:
        raise ValueError(str(bad).removeprefix("says that "))
    return line


def cost_text(billionths: int) -> str:
    """A cost with as many digits as it has, two at least: `20.00`, `1,250.13`, `0.000125`."""
    whole, rest = divmod(billionths, BILLION)
    return f"{whole:,}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"


class _Bad(Exception):
    """What is wrong with a line, as the end of a sentence about it."""


def _usage_in(line: bytes, *, torn: bool = False) -> Usage | None:
    """The call that a line tells of; None for a line that tells of none. `torn`: its end is missing."""
    if len(line) > _LINE_LIMIT + 1 or (torn and len(line) > _LINE_LIMIT):
        raise _Bad("is longer than 1 MiB")
    if not line.strip():
        return None
    try:
        value = _decode(line.decode())
    except (ValueError, InvalidOperation, RecursionError):  # also what is not UTF-8
        if torn:
            return None
        raise _Bad(f"is not JSON: {_shown(line.decode(errors='replace').strip())}") from None
    if not isinstance(value, dict):
        raise _Bad(f"is no JSON object: {_shown(line.decode().strip())}")
    inner = value.get("attributes")
    figures = {**value, **inner} if isinstance(inner, dict) else value
    if not _KNOWN.intersection(figures):
        if isinstance(inner, dict):
            return None  # a span of something else
        raise _Bad(f"has none of {_INPUT[0]}, {_OUTPUT[0]} and cost: {_shown(line.decode().strip())}")
    model = _first(figures, _MODEL)[1]
    if model is not None and not isinstance(model, str):
        raise _Bad(f"names a model that is no text: {_shown(repr(model))}")
    return Usage((model or "")[:_MODEL_LIMIT], 1, _tokens(figures, _INPUT), _tokens(figures, _OUTPUT), _cost(figures))


def _first(figures: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of the names that has a value; null is none."""
    return next(((name, figures[name]) for name in names if figures.get(name) is not None), (names[0], None))


def _tokens(figures: Mapping[str, Any], names: tuple[str, ...]) -> int:
    name, value = _number(figures, names)
    if value > _MOST:
        raise _Bad(f"says that {name} is {_shown(str(value))}: more than any model takes")
    if value != int(value):
        raise _Bad(f"says that {name} is {_shown(str(value))}: tokens are whole")
    return int(value)


def _cost(figures: Mapping[str, Any]) -> int:
    name, value = _number(figures, _COST)
    if value * BILLION > _MOST if isinstance(value, int) else value > Decimal(_MOST) / BILLION:
        raise _Bad(f"says that {name} is {_shown(str(value))}: more than any call costs")
    # up: nothing that was paid for counts as free
    return int(Decimal(value).quantize(Decimal((0, (1,), -9)), rounding=ROUND_CEILING).scaleb(9))


def _number(figures: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, int | Decimal]:
    name, value = _first(figures, names)
    if value is None:
        return name, 0
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _Bad(f"says that {name} is {_shown(json.dumps(value, default=str))}: that is no number")
    if value < 0:
        raise _Bad(f"says that {name} is {_shown(str(value))}: it cannot be negative")
    return name, value


def _refuse(word: str) -> Any:
    raise ValueError(word)  # NaN and the infinities are no JSON, and nothing can be counted with them


_decode = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse).decode  # made once: it costs more than a line


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
