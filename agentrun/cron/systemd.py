"""The systemd units of a job, as texts: NAME.service runs it, NAME.timer says when. Pure.

The timer's times are the job's own (`machine.calendar_times`). `Persistent=true` starts the service after a time in
which the machine was off; which of the missed ticks runs is the job's `catch_up`. A start without a due tick ends at
once.

`RandomizedDelaySec=` is 0 also for a job with `jitter`: that is agentrun's own, which waits until tick and jitter are
due. A delay of systemd's would come on top, and a tick would count as missed while systemd still holds it back.
`AccuracySec=1s`, for the same reason: the default is a minute.

KillMode=mixed: a stop asks agentrun, which ends its steps in order and records that; what is then left is killed.
The status 75 is no failure: the run waits, or another one was at work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MARK = "# Written by `agentrun install`; `agentrun uninstall` removes it."
RESUME = "agentrun-resume"


class Unit(NamedTuple):
    """A file in a folder of units."""

    name: str
    text: str


def unit_name(job: str) -> str:
    """Of its service and its timer, without the ending."""
    return f"agentrun-{job}"


def job_units(
    name: str, file: str, times: Sequence[str], words: Sequence[str], settings: Mapping[str, str]
) -> list[Unit]:
    """The service and the timer of a job. `times`: calendar expressions; `words`: the command."""
    unit = unit_name(name)
    timer = [
        *_head(f"The ticks of agentrun's job {name}"),
        "[Timer]",
        *(f"OnCalendar={time}" for time in times),
        "Persistent=true",
        "AccuracySec=1s",
        "# its jitter is agentrun's own: stable for host and job, and known where ticks are counted",
        "RandomizedDelaySec=0",
        *_foot("timers.target"),
    ]
    head = _head(f"agentrun's job {name}", f"# Job: {_quoted(file)}")
    return [
        Unit(f"{unit}.service", "\n".join([*head, *_service(words, settings), ""])),
        Unit(f"{unit}.timer", "\n".join(timer)),
    ]


def resume_units(words: Sequence[str], settings: Mapping[str, str]) -> list[Unit]:
    """The service that goes on with what was cut off, and its timer: at the boot and every minute."""
    about = "What agentrun has to go on with"
    timer = [
        *_head(about),
        "[Timer]",
        "OnBootSec=0",
        "OnStartupSec=0",
        "OnCalendar=minutely",
        "AccuracySec=1s",
        "RandomizedDelaySec=0",
        *_foot("timers.target"),
    ]
    return [
        Unit(f"{RESUME}.service", "\n".join([*_head(about), *_service(words, settings), ""])),
        Unit(f"{RESUME}.timer", "\n".join(timer)),
    ]


def job_file(text: str) -> str | None:
    """The job file that a service of ours is for; None if there is no telling."""
    found = re.search(r'^# Job: "(.*)"$', text, re.MULTILINE)
    return _unquoted(found[1]) if found else None


def setting(text: str, name: str) -> str | None:
    """What a service of ours sets a variable to; None if it does not."""
    found = re.search(rf'^Environment="{name}=(.*)"$', text, re.MULTILINE)
    return _unquoted(found[1]) if found else None


def _head(about: str, *more: str) -> list[str]:
    return [MARK, *more, "[Unit]", f"Description={about}", ""]


def _foot(target: str) -> list[str]:
    return ["", "[Install]", f"WantedBy={target}", ""]


def _service(words: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    command = " ".join(_quoted(word).replace("$", "$$") for word in words)
    return [
        "[Service]",
        "Type=oneshot",
        f"ExecStart={command}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in settings.items()),
        "KillMode=mixed",
        "TimeoutStartSec=infinity",
        "SuccessExitStatus=75",
    ]


def _quoted(word: str) -> str:
    """As units quote: backslashes and double quotes escaped, % doubled, bytes that are no UTF-8 as \\xff."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", escaped) + '"'


def _unquoted(text: str) -> str:
    def plain(escape: re.Match[str]) -> str:
        found = escape[0]
        return chr(0xDC00 + int(found[2:], 16)) if found[1] == "x" else found[1]

    return re.sub(r'\\(x[89a-f][0-9a-f]|\\|")|%%', plain, text)
