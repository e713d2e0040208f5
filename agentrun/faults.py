"""Points at which a test ends this process: loaded only where AGENTRUN_FAULTS is set, which no user does.

    AGENTRUN_FAULTS=FILE:AT:ACTION:SEED

Every point that any process of the program reaches is appended to FILE as a record of RECORD bytes, so that its place
in the file is its number, from 1 on, across all processes. The process that reaches number AT does the ACTION:

    kill    SIGKILL to itself
    stop    one byte into the FIFO FILE.here, then SIGSTOP to itself: whoever reads there kills all of the run at
            once, as a power cut would
    none    nothing: the points are counted

With a SEED that is not 0, one in eight of the points waits for up to 4 ms, chosen by seed and number: other things
happen first.
"""

from __future__ import annotations

import os
import sys
import time
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    F = TypeVar("F")

RECORD = 96
_FILE, _AT, _ACTION, _SEED = os.environ["AGENTRUN_FAULTS"].rsplit(":", 3)
_SIGNALS = {"kill": 9, "stop": 19}


def bear(function: F) -> F:
    """The function with a point before it and one behind it."""
    effect = function.__name__  # type: ignore[attr-defined]

    def borne(*arguments: Any, **named: Any) -> Any:
        code = sys._getframe(1)
        place = f"{code.f_globals['__name__'].removeprefix('agentrun.')}:{code.f_code.co_name}"
        point(f"before {effect} {place}")
        result = function(*arguments, **named)  # type: ignore[operator]
        point(f"behind {effect} {place}")
        return result

    return borne  # type: ignore[return-value]


def point(name: str) -> None:
    """Number it, and do what is to be done there."""
    # opened each time: a forked shim closes what it did not open itself
    fd = os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{os.getpid():>7} {name}"[: RECORD - 1].ljust(RECORD - 1).encode() + b"\n")
        number = os.lseek(fd, 0, os.SEEK_CUR) // RECORD
    finally:
        os.close(fd)
    if _SEED != "0":
        chance = crc32(f"{_SEED}/{number}".encode())
        if chance & 7 == 0:
            time.sleep((chance >> 8) % 4000 / 1e6)
    if number == int(_AT) and _ACTION in _SIGNALS:
        if _ACTION == "stop":
            bell = os.open(f"{_FILE}.here", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(bell, b"!")
        os.kill(os.getpid(), _SIGNALS[_ACTION])
