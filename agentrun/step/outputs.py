"""What a step gave back: its outputs, and the exception that ended a Python step.

A step writes `$AGENTRUN_OUTPUT`; what a Python function returns stands beside it under the same name with
`.ret` (written by `pystep.py`), and what `agentrun.durable.output` handed over with `.set`: one JSON object a line.
They are laid over each other key by key: the file, the lines in their order, the return value. Read after the
attempt has ended.

The file is one of two things, by its first character that is not blank:

    {"count": 3, "list": [1, 2]}        one JSON object: its members are the outputs, of any JSON type
    count=3                             lines: everything after the first = is the value, as text;
    list<<EOF                           a block: the lines up to one that is only EOF, no newline at its end
    ...
    EOF

Empty lines are passed over; of equal keys the last counts. A key of a line is a letter or _, then letters,
digits, _ and -. `retry_after` is no output: it is the pause before the next attempt, in seconds or as a
duration.

Everything wrong is an OutputsError, which fails the step: a value that may be half of what was meant is worse
than none. The checkpoint is a row, hence the limit of 1 MiB.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from io import BufferedReader
from typing import NamedTuple, NoReturn

from ..model import JSON
from ..spec.values import parse_duration

LIMIT = 1 << 20  # bytes of all outputs together
_HANDED_LIMIT = 256 << 20  # bytes of what `output()` handed over, in which later values replace earlier ones
_SPARE = 1 << 10  # bytes that a line may have beside its values
_LONGEST_PAUSE = 366 * 86_400_000  # ms; beyond it a typing mistake is likelier than a wish
_DEEPEST = 100  # levels of JSON: far from where Python's recursion ends, far beyond what anybody means
_TOO_DEEP = f"it is nested more than {_DEEPEST} levels deep"

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_TYPE_NAMES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


ENDINGS = ("", ".ret", ".set")  # of the files that outputs are read from


class OutputsError(Exception):
    """The outputs of a step cannot be used. The message says what, where and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Outputs(NamedTuple):
    """What a step gave back. `retry_after` in milliseconds."""

    values: dict[str, JSON]
    retry_after: int | None = None


class Raised(NamedTuple):
    """The exception that ended a Python step.

    `mro` holds the names of its class and of those above it, plain and, where not built in, with the module
    (`Timeout`, `requests.exceptions.Timeout`, ...): the causes that `on` and `never_on` are compared with.
    """

    type: str
    message: str
    traceback: str
    mro: tuple[str, ...]


# ---- reading


def read(path: str) -> Outputs:
    """The outputs of an attempt; no file is no outputs. OutputsError where there is one of no use."""
    written = _read_file(path)
    returned = _read_file(path + ".ret")
    if len(written) + len(returned) > LIMIT:
        _too_big("the outputs of this step are")
    values = _parse(_decode(written))
    handed = _read_handed(path + ".set")
    values.update(handed)
    values.update(_parse(_decode(returned)))
    if handed and len(written) + len(returned) + len(json.dumps(handed, ensure_ascii=False).encode()) > LIMIT:
        _too_big("the outputs of this step are")
    return Outputs(values, _retry_after(values.pop("retry_after", None)))


def read_exception(path: str) -> Raised | None:
    """The exception that `pystep.py` recorded. None where there is none, or no whole one."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        return Raised(record["type"], record["message"], record["traceback"], tuple(record["mro"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_file(path: str) -> bytes:
    file = _open(path)
    if file is None:
        return b""
    with file:
        try:
            data = file.read(LIMIT + 1)
        except OSError as error:
            _cannot_read(error)
    if len(data) > LIMIT:
        _too_big("the output file is")
    return data


def _read_handed(path: str) -> dict[str, JSON]:
    """What `output()` handed over: of equal names the last counts, so the file may be far larger than its values."""
    values: dict[str, JSON] = {}
    file = _open(path)
    if file is None:
        return values
    number = left = 0
    with file:
        try:
            if os.fstat(file.fileno()).st_size > _HANDED_LIMIT:
                _too_big("what output() handed over is", _HANDED_LIMIT)
            while line := file.readline(LIMIT + _SPARE):
                number += 1
                if len(line) == LIMIT + _SPARE:
                    _too_big(f"line {number} of what output() handed over is")
                if line.strip():
                    values.update(_parse_handed(line.rstrip(b"\n"), number))
                    left -= len(line)
                    if left < 0 and len(json.dumps(values, ensure_ascii=False).encode()) > LIMIT:
                        _too_big("the outputs of this step are")
                    left = LIMIT if left < 0 else left  # no more than that is held before it is looked at again
        except OSError as error:
            _cannot_read(error)
    return values


def _open(path: str) -> BufferedReader | None:
    """None where there is no file."""
    if not os.access(path, os.F_OK, follow_symlinks=False):
        return None  # as most are: a fifth of the time that an exception takes
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # it may be a FIFO
    except FileNotFoundError:
        return None
    except OSError as error:
        _cannot_read(error)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OutputsError("the output file is no file any more; append to $AGENTRUN_OUTPUT, do not replace it")


def _cannot_read(error: OSError) -> NoReturn:
    raise OutputsError(f"cannot read the output file: {error.strerror}; leave $AGENTRUN_OUTPUT a plain file")


def _too_big(what: str, limit: int = LIMIT) -> NoReturn:
    raise OutputsError(
        f"{what} larger than {limit >> 20} MiB; write large data to a file in $AGENTRUN_RUN_DIR"
        " and give its path as the output"
    )


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OutputsError(
            f"the output file is not UTF-8: line {line} has the byte 0x{data[error.start]:02x};"
            " convert the value (iconv) or encode it (base64)"
        )
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise OutputsError(f"line {line} of the output file has a NUL character; encode the value (base64)")
    return text


def _parse(text: str) -> dict[str, JSON]:
    return _parse_json(text) if text.lstrip()[:1] == "{" else _parse_lines(text.split("\n"))


def _parse_json(text: str) -> dict[str, JSON]:
    try:
        values: dict[str, JSON] = _loads(text)
    except json.JSONDecodeError as error:
        what = "after the JSON object there is more" if error.msg == "Extra data" else error.msg
        raise OutputsError(
            f"line {error.lineno} of the output file: {what} (column {error.colno}); it begins with a"
            " brace, so it must be one JSON object and nothing else"
        )
    except ValueError as error:
        raise OutputsError(f"the JSON object in the output file cannot be used: {error}")
    if "" in values:
        raise OutputsError("the JSON object in the output file has an empty key; give every output a name")
    return values


def _parse_handed(line: bytes, number: int) -> dict[str, JSON]:
    """What one call of `output()` handed over; a line that is torn was cut off by a full disk or a kill."""
    try:
        values = _loads(line.decode())
    except ValueError as error:
        raise OutputsError(
            f"what output() handed over is not whole: line {number} of it cannot be used ({error}); is the disk full?"
        )
    if not isinstance(values, dict) or "" in values:
        raise OutputsError(f"line {number} of what output() handed over is no JSON object with names")
    return values


def _loads(text: str) -> JSON:
    """json.loads, strict: ValueError also for what could not be written again, or not be walked through."""
    try:
        value = json.loads(text)
        # refuses NaN and infinities; and half of a surrogate pair is no text
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(_TOO_DEEP)
    except UnicodeEncodeError:
        raise ValueError("it has half of a \\u pair, which is no character")
    if text.count("[") + text.count("{") > _DEEPEST and _is_deeper(value, _DEEPEST):
        raise ValueError(_TOO_DEEP)
    return value


def _is_deeper(value: JSON, levels: int) -> bool:
    level = [value]
    while level and levels:
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer if isinstance(outer, list) else outer.values())
        ]
        levels -= 1
    return bool(level)


def _parse_lines(lines: list[str]) -> dict[str, JSON]:
    values: dict[str, JSON] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip():
            continue
        key, mark, rest = _split(line, number)
        if mark == "=":
            values[key] = rest
            continue
        try:
            end = lines.index(rest, number)
        except ValueError:
            raise OutputsError(
                f"line {number} of the output file: the block {key}<<{rest} has no end;"
                f" write a line that is only {rest} after it"
            )
        values[key] = "\n".join(lines[number:end])
        number = end + 1
    return values


def _split(line: str, number: int) -> tuple[str, str, str]:
    """A line as key, mark (= or <<, whichever comes first) and the rest."""
    equals, block = line.find("="), line.find("<<")
    mark = "<<" if block >= 0 and (equals < 0 or block < equals) else "="
    key, found, rest = line.partition(mark)
    if not found:
        raise OutputsError(
            f"line {number} of the output file is neither key=value nor key<<END: {_shown(line)};"
            " write several lines as a key<<END block"
        )
    if not _KEY.fullmatch(key):
        raise OutputsError(
            f"line {number} of the output file: {_shown(key)} is no key; a key is a letter or _, then"
            " letters, digits, _ and -, with no space around it"
        )
    if mark == "<<" and not rest.strip():
        raise OutputsError(f"line {number} of the output file: {key}<< needs a word that ends the block")
    return key, mark, rest


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _retry_after(value: JSON) -> int | None:
    """The pause in milliseconds: a number of seconds (as a number or as text), or a duration."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value.strip()):
            pause = parse_duration(value.strip())
        else:
            pause = round(float(value) * 1_000)
    except (ValueError, OverflowError):
        pause = -1
    if not 0 <= pause <= _LONGEST_PAUSE:
        raise OutputsError(
            f"retry_after={_shown(str(value))} is no pause; give seconds (retry_after=30) or a duration"
            " (retry_after=5m), a year at most"
        )
    return pause


# ---- checking against what the step declares


def check(values: Mapping[str, JSON], declared: Mapping[str, str]) -> dict[str, JSON]:
    """The values, each declared one of its type: text is read as that type. OutputsError: one is not."""
    checked = dict(values)
    for key, kind in declared.items():
        if key not in checked:
            raise OutputsError(
                f"the output {key!r} is missing ({_there(values)}); the step declares it as {kind}:"
                f' echo "{key}=..." >> "$AGENTRUN_OUTPUT"'
            )
        checked[key] = _as_kind(key, checked[key], kind)
    return checked


def _there(values: Mapping[str, JSON]) -> str:
    return "there is " + ", ".join(sorted(values)) if values else "there are none"


def _as_kind(key: str, value: JSON, kind: str) -> JSON:
    if isinstance(value, str) and kind != "string":
        try:
            value = _READ[kind](value)
        except ValueError:
            raise OutputsError(
                f"the output {key!r} is {_shown(value)}, which is no {kind}, as the step declares"
            )
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    actual = _TYPE_NAMES.get(type(value), type(value).__name__)
    if actual == kind or (kind == "number" and actual == "integer"):
        return value
    raise OutputsError(f"the output {key!r} is of type {actual}, and the step declares it as {kind}")


def _read_integer(text: str) -> JSON:
    if not re.fullmatch(r"[+-]?[0-9]+", text.strip()):
        raise ValueError
    return int(text)


def _read_number(text: str) -> JSON:
    value = _loads(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return value


def _read_boolean(text: str) -> JSON:
    if text.strip() not in ("true", "false"):
        raise ValueError
    return text.strip() == "true"


_READ: Mapping[str, Callable[[str], JSON]] = {
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "array": _loads,
    "object": _loads,
}
