"""What `agentrun convert --scan` finds: a place, what stands there, why it should be durable, and what to do.

Whoever looks into one kind of file yields `Found`s, of which the file is known; the sentences that several of them say
are here, so that the same thing has the same words in every language.
"""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One place. `file` is relative to the folder that was looked through, `line` counts from 1."""

    file: str
    line: int
    what: str
    why: str
    to_do: str


class Found(NamedTuple):
    """A finding in a file that is known."""

    line: int
    what: str
    why: str
    to_do: str

    def at(self, file: str) -> Finding:
        return Finding(file, *self)


def endless(line: int) -> Found:
    return Found(
        line,
        "an endless loop with a sleep",
        "what it was at is lost with its process, and nobody is told that it is gone",
        "a job whose step is one round: with `schedule`, or with `repeat` where rounds build on each other",
    )


def retried(line: int, python: bool = False) -> Found:
    return Found(
        line,
        "retries by hand",
        "a kill or a reboot between two tries ends it for good, and no try is recorded",
        "`retry: {max_attempts: …, interval: …}` of a step" + (", or @step(retry=…)" if python else ""),
    )


def awaited(line: int) -> Found:
    return Found(
        line,
        "waits for something in a loop with a sleep",
        "the wait dies with its process, and mostly has no end",
        "a step `wait: {check: …, every: …, timeout: …}`: it holds no process and outlives a reboot",
    )


def paced(line: int, python: bool = False) -> Found:
    return Found(
        line,
        "a loop over a list with a sleep in each round",
        "cut off in the middle, it begins with the first item again",
        "`foreach`: a checkpoint for each item" + (", or @step on what is done for one" if python else ""),
    )


def posted(line: int, name: str, what: str = "a POST") -> Found:
    return Found(
        line,
        f"{name}: {what} without an idempotency key",
        "cut off after it was sent and before anybody knew, it is sent again",
        "a step of its own with `on_interrupt: ask` or `verify`, or a header with $AGENTRUN_IDEMPOTENCY_KEY",
    )


def locked(line: int, what: str) -> Found:
    return Found(
        line,
        what,
        "a lock by hand: left behind by a kill, or a run is left out without a word",
        "`concurrency: forbid` of the job (or queue): the kernel lets go of it, and what was left out is recorded",
    )


def in_memory(line: int, name: str) -> Found:
    return Found(
        line,
        f"a schedule in memory ({name})",
        "a tick at which this process is down is lost without a word, and so is what it was at",
        "a job file with `schedule` (and `catch_up`) for what it starts, then agentrun install",
    )


def detached(line: int, name: str) -> Found:
    return Found(
        line,
        f"{name} … &",
        "nobody sees how it ends, and nothing goes on with it after a reboot",
        "a job of its own, started with agentrun run --detach: its end, its output and its resume are kept",
    )


def puts_into_crontab(line: int) -> Found:
    return Found(
        line,
        "puts a line into the crontab",
        "what cron starts and a reboot cuts off is not gone on with, and a missed time is lost without a word",
        "a job file with `schedule`, then agentrun install",
    )
