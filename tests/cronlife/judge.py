"""Whether every tick of a job has its account: it ran once, was skipped with a reason, or was missed with a reason.

Told from outside: the ticks are `cronsim`'s, what ran is what the steps wrote into the ledger, and of the program only
the answer of `agentrun ticks JOB --json` is asked. Each rule is a sentence below; no sentence, no violation.

    begin|end JOB TICK RUN STEP ATTEMPT KEY NOW         cut - - - - 0 - NOW      (everything was killed)
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

_SLACK = 5  # seconds that a command may take to pause a job
AT_MOST = 100  # ticks that are caught up with, as the README says

_MISSED = re.compile(r"agentrun: \d+ ticks? (was|were) missed of job |  `agentrun ticks \S+` shows them, ")


class Line(NamedTuple):
    """A line of the ledger. Times in seconds; `tick` is None for what belongs to none."""

    what: str
    job: str
    tick: int | None
    run: str
    step: str
    attempt: int
    key: str
    now: int


class Written(NamedTuple):
    """From when on a job file said which schedule."""

    since: int
    text: str


@dataclass
class Watched:
    """A job as the test knows it. `known`: from when on its ticks are promised. Times in seconds."""

    name: str
    catch_up: str = "none"
    zone: str = "UTC"
    start_deadline: int | None = None
    once: tuple[str, ...] = ()  # steps that an interruption does not begin again
    known: int = 0
    written: list[Written] = field(default_factory=list)
    pauses: list[list[int]] = field(default_factory=list)  # [from, until]
    fired: set[int] = field(default_factory=set)  # ticks whose start was not killed

    def ticks(self, until: int) -> list[int]:
        """All that are promised, not later than `until`."""
        found = []
        ends = [one.since for one in self.written[1:]] + [until]
        for one, end in zip(self.written, ends, strict=True):
            begin = max(one.since, self.known)
            found += [tick for tick in between(one.text, self.zone, begin, end) if begin < tick <= end]
        return sorted(set(found))


def between(text: str, zone: str, after: int, until: int) -> Iterator[int]:
    """The ticks of a schedule as cronsim has them."""
    for tick in CronSim(text, datetime.fromtimestamp(after, ZoneInfo(zone)) - timedelta(seconds=1)):
        at = int(tick.timestamp())
        if at > until:
            return
        if at > after:
            yield at


def ledger(text: str) -> list[Line]:
    """The ledger, in the order in which it was written."""
    lines = []
    for row in text.splitlines():
        what, job, tick, run, step, attempt, key, now = row.split(" ")
        lines.append(Line(what, job, seconds(tick) if tick != "-" else None, run, step, int(attempt), key, int(now)))
    return lines


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def shown(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def violations(job: Watched, answer: str, lines: Sequence[Line], end: int) -> list[str]:
    """What is wrong with the account of a job up to `end`. `answer`: that of `agentrun ticks`."""
    rows = [row for row in json.loads(answer) if row["scheduled"]]
    promised = job.ticks(max([end, *(seconds(row["last"]) for row in rows)]))
    mine = [line for line in lines if line.job == job.name or line.what == "cut"]
    found = [*_accounts(job, rows, promised, end), *_runs(job, rows, mine), *_steps(job, mine)]
    found += [*_reasons(job, rows, promised, mine), *_alone(mine)]
    return [f"{job.name}: {one}" for one in found]


def fates(answer: str) -> str:
    """How many ticks have which fate, by an answer of `agentrun ticks`."""
    numbers: dict[str, int] = defaultdict(int)
    for row in json.loads(answer):
        if row["scheduled"]:
            word = "superseded" if row["fate"] == "ran" and row["outcome"] == "skipped" else row["fate"]
            numbers[f"{word} {row['reason']}" if row["reason"] else word] += row["number"]
    return ", ".join(f"{number} {word}" for word, number in sorted(numbers.items()))


def _of(row: dict[str, Any], promised: Sequence[int]) -> list[int]:
    first, last = seconds(row["time"]), seconds(row["last"])
    return [tick for tick in promised if first <= tick <= last]


def _accounts(
    job: Watched, rows: Sequence[dict[str, Any]], promised: Sequence[int], end: int
) -> Iterator[str]:
    """Each tick has an account, one fate or skipped and then run, and no account is of something else."""
    fates: dict[int, list[str]] = {tick: [] for tick in promised}
    for row in rows:
        ticks = _of(row, promised)
        if len(ticks) != row["number"]:
            span = f"{shown(seconds(row['time']))} to {shown(seconds(row['last']))}"
            yield f"{row['number']} ticks {row['fate']} from {span}, where there are {len(ticks)}"
        for tick in ticks:
            fates[tick].append(row["fate"])
    for tick, fate in fates.items():
        if not fate and tick <= end:
            yield f"LOST: {shown(tick)}"
        elif fate.count("ran") > 1:
            yield f"TWICE: {shown(tick)} by the record"
        elif len(fate) > 1 and sorted(fate) != ["ran", "skipped"]:
            yield f"{shown(tick)} is {' and '.join(fate)}"
        elif "missed" in fate and tick in job.fired and job.catch_up != "all":
            yield f"{shown(tick)} is missed, and was started in time"


def _runs(job: Watched, rows: Sequence[dict[str, Any]], lines: Sequence[Line]) -> Iterator[str]:
    """What ran is what the record says ran, to its end, and nothing else."""
    by_tick: dict[int | None, set[str]] = defaultdict(set)
    ended: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what == "begin":
            by_tick[line.tick].add(line.run)
        elif line.what == "end":
            ended[line.run].add(line.step)
    for tick, runs in by_tick.items():
        if tick is None:
            yield f"runs {runs} belong to no tick"
        elif len(runs) > 1:
            yield f"TWICE: {shown(tick)} ran as {runs}"
    of_record = {row["run"]: row for row in rows if row["fate"] == "ran"}
    for tick, runs in by_tick.items():
        for run in runs:
            if run not in of_record or seconds(of_record[run]["time"]) != tick:
                yield f"run {run} of {tick and shown(tick)} is in the ledger, and in no account"
    for run, row in of_record.items():
        at = shown(seconds(row["time"]))
        if row["state"] != "finished":
            yield f"run {run} of {at} is {row['state']}"
        elif row["outcome"] == "skipped":
            if run in {line.run for line in lines if line.what == "begin"}:
                yield f"run {run} of {at} is skipped, and began"
        elif row["outcome"] != "succeeded":
            yield f"run {run} of {at} ended as {row['outcome']}"
        elif not {"a", "b"} - set(job.once) <= ended[run]:
            yield f"run {run} of {at} succeeded, and its steps did not end"


def _steps(job: Watched, lines: Sequence[Line]) -> Iterator[str]:
    """A step begins again only after an interruption, as its on_interrupt says, with its key, before later ones."""
    begun: dict[tuple[str, str], Line] = {}
    cut: set[tuple[str, str]] = set()
    later: dict[str, str] = {}
    for line in lines:
        if line.what == "cut":
            cut.update(begun)
        elif line.what == "begin":
            one = line.run, line.step
            name = f"step {line.step} of run {line.run}"
            if one in begun and one not in cut:
                yield f"{name} began twice, and nothing had interrupted it"
            if one in begun and line.step in job.once:
                yield f"{name} began twice, against its on_interrupt"
            if one in begun and begun[one].key != line.key:
                yield f"{name} had the key {begun[one].key}, and then {line.key}"
            if line.step < later.get(line.run, ""):
                yield f"{name} began after {later[line.run]}"
            begun[one], later[line.run] = line, line.step
            cut.discard(one)


def _reasons(
    job: Watched, rows: Sequence[dict[str, Any]], promised: Sequence[int], lines: Sequence[Line]
) -> Iterator[str]:
    """Each reason is true."""
    last_of: dict[str, int] = {}
    for line in lines:
        last_of[line.run] = max(line.now, last_of.get(line.run, 0))
    ran = {row["run"]: row for row in rows if row["fate"] == "ran"}
    for row in rows:
        at, ticks = seconds(row["at"]), _of(row, promised)
        name = f"{shown(seconds(row['time']))} is {row['fate']}"
        if row["fate"] == "ran":
            if any(begin + _SLACK < at < end - _SLACK for begin, end in job.pauses):
                yield f"{name} at {shown(at)}, when the job was paused"
            continue
        match row["fate"], row["reason"]:
            case "skipped", "overlap":
                if row["because"] not in ran:
                    yield f"{name} because of run {row['because']}, which has no account"
                elif last_of.get(row["because"], 0) < seconds(row["time"]):
                    yield f"{name} because of run {row['because']}, which was over"
            case "skipped", "paused":
                if not _paused(job.pauses, at):
                    yield f"{name} as paused at {shown(at)}, when it was not"
            case "missed", "catch_up":
                if job.catch_up == "all":
                    yield f"{name} because of catch_up, which says all"
            case "missed", "start_deadline":
                if job.start_deadline is None or any(at - tick <= job.start_deadline for tick in ticks):
                    yield f"{name} as too old at {shown(at)}"
            case "missed", "limit":
                newer = sum(ticks[-1] < tick <= at for tick in promised) if ticks else 0
                if job.catch_up != "all" or newer < AT_MOST:
                    yield f"{name} for the limit, with {newer} newer ones"
            case _:
                yield f"{name} for the reason {row['reason']!r}"


def _alone(lines: Sequence[Line]) -> Iterator[str]:
    """No two runs of the job at once: none of these jobs allows it."""
    at_work: str | None = None
    for line in lines:
        if line.what == "cut" or (line.what == "end" and line.step == "b" and line.run == at_work):
            at_work = None
        elif line.what == "begin" and at_work not in (None, line.run):
            yield f"run {line.run} began while {at_work} was at work"
        elif line.what == "begin":
            at_work = line.run


def _paused(pauses: Collection[Sequence[int]], at: int) -> bool:
    return any(begin <= at <= end for begin, end in pauses)


def but_missed(said: str) -> str:
    """What was said, without what `resume` says of missed ticks: that it has to."""
    return "\n".join(line for line in said.splitlines() if line.strip() and not _MISSED.match(line))
