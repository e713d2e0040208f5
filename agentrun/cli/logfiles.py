"""The logs of a run's attempts as one stream: which there are, merged by time, followed, or only their end.

Steps that run at the same time write at the same time, so lines are merged by when they arrived. A log is
opened only when the merging reaches the start of its attempt, and closed at its end: ten thousand attempts,
eight at a time, need eight open files. Where attempts came one after the other there is nothing to merge, and
lines that have the same time are given out together (`blocks`): ten million of them in seconds.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AgentrunError
from ..step.logs import LONGEST_LINE, LogReader
from ..store.read import Run, StepRow
from .record import Record

if TYPE_CHECKING:
    from ..model import Job

_BLOCK = 1 << 18
_BAD = ("failed", "timed_out", "over_budget")


class LogFile:
    """The log of one attempt; number 0 is a condition: an `if`, the `until` of a round, a `verify`.

    Times in ms; `ended`: nothing more will come.
    """

    __slots__ = ("ended", "ended_at", "index", "instance", "number", "path", "position", "reader", "started_at")

    def __init__(
        self, path: str, index: str, instance: str, number: int, position: int, started_at: int, ended_at: int | None
    ) -> None:
        self.path = path
        self.index = index
        self.instance = instance
        self.number = number
        self.position = position
        self.started_at = started_at
        self.ended_at = ended_at
        self.ended = ended_at is not None
        self.reader = LogReader(path, index)

    @property
    def order(self) -> tuple[int, int, int]:
        """Attempts in the order of their starts."""
        return self.started_at, self.position, self.number


Line = tuple[int, LogFile, bytes]  # when, whose, what


@dataclass(frozen=True, slots=True)
class Selection:
    """Which logs of a run are wanted: those of `steps` (all if empty), and only those of failures if `failed`."""

    record: Record
    run: Run
    steps: tuple[str, ...] = ()
    failed: bool = False

    def steps_of_file(self) -> int:
        """How many steps the job has; instances are not counted."""
        job = self._job()
        return self.run.steps_total if job is None else len(job.steps)

    def find(self, *, over: bool) -> list[LogFile]:
        """The logs that there are or may be, by their starts. `over`: nobody advances the run any more."""
        all_rows = {row.instance: row for row in self.record.reader.steps(self.run.id)}
        rows = {name: row for name, row in all_rows.items() if self._wants(row)}
        found = []
        for row in rows.values():
            # an `if` has no row of its own; its start is not before that of its step
            if row.asked or row.attempt == 0 or row.reason in ("if", "if_failed"):
                if self.failed and row.reason != "if_failed":
                    continue
                answered = row.asked or row.state == "finished" or over
                ended_at = (row.finished_at or self.run.created_at) if answered else None
                found.append(self._file(row, 0, row.started_at or self.run.created_at, ended_at))
        for attempt in self.record.reader.attempts(self.run.id):
            step = rows.get(attempt.instance)
            if step is None or (self.failed and attempt.outcome not in _BAD):
                continue
            ended_at = attempt.finished_at or (attempt.started_at if over else None)
            found.append(self._file(step, attempt.number, attempt.started_at, ended_at))
        found += self._untils(all_rows, over)
        known = {file.path for file in found}
        found += (file for file in self._verifies(rows, over) if file.path not in known)
        return sorted(found, key=lambda file: file.order)

    def lacking(self) -> Iterator[tuple[str, int]]:
        """Attempts whose logs lack something, and how many bytes: what was written is counted in the record."""
        folder = self.record.folder(self.run)
        rows = {row.instance: row for row in self.record.reader.steps(self.run.id)}
        for attempt in self.record.reader.attempts(self.run.id):
            row = rows.get(attempt.instance)
            if not attempt.output_bytes or row is None or not self._wants(row):
                continue
            try:
                size = os.stat(folder.log(attempt.instance, attempt.number)).st_size
            except OSError:
                size = 0
            if size < attempt.output_bytes:
                yield f"{attempt.instance}#{attempt.number}", attempt.output_bytes - size

    def _untils(self, rows: Mapping[str, StepRow], over: bool) -> Iterator[LogFile]:
        """The logs of the `until` of each round that has ended: attempt 0 of the round."""
        job = self._job()
        loops = {step.id for step in job.steps if step.repeat is not None} if job else set()
        for row in rows.values():
            step = row.instance.partition("[")[0]
            if row.number < 0 or step not in loops or row.outcome != "succeeded" or not self._wants(row):
                continue
            own, after = rows.get(step), rows.get(f"{step}[{row.number + 1}]")
            last = own is not None and own.instances == row.number
            if self.failed and not (last and own and own.reason == "until_failed"):
                continue
            began = row.finished_at or self.run.created_at
            # nothing says when it answered, but for what came of it: the next round, or the end of the step
            ended_at = (after.started_at if after else None) or (own.finished_at if own else None)
            yield self._file(row, 0, began, ended_at or (began if over else None))

    def _verifies(self, rows: Mapping[str, StepRow], over: bool) -> Iterator[LogFile]:
        """The logs of the `verify` of what was interrupted: attempt 0, whose log may be that of a condition as well."""
        job = self._job()
        verified = {step.id for step in job.steps if step.verify is not None} if job else set()
        if not verified or self.failed:
            return
        for attempt in self.record.reader.attempts(self.run.id):
            row = rows.get(attempt.instance)
            if row is None or attempt.outcome != "interrupted" or attempt.instance.partition("[")[0] not in verified:
                continue
            ended = over or not row.verifying
            yield self._file(row, 0, attempt.finished_at or attempt.started_at, row.finished_at if ended else None)

    def _file(self, row: StepRow, number: int, started_at: int, ended_at: int | None) -> LogFile:
        folder = self.record.folder(self.run)
        return LogFile(
            folder.log(row.instance, number), folder.log_index(row.instance, number), row.instance, number,
            row.position + 1, started_at, ended_at,
        )  # fmt: skip

    def _job(self) -> Job | None:
        try:
            return self.record.reader.job_of(self.run)
        except AgentrunError:  # a snapshot that this program cannot read: the rows are what there is
            return None

    def _wants(self, row: StepRow) -> bool:
        return not self.steps or row.instance in self.steps or row.instance.partition("[")[0] in self.steps


def merged(files: Iterable[LogFile]) -> Iterator[Line]:
    """All lines that are there, by time; the files in the order of their starts. Those that ended are closed."""
    waiting = sorted(files, key=lambda file: file.order, reverse=True)
    heap: list[tuple[int, tuple[int, int, int], bytes, LogFile, Iterator[tuple[int, bytes]]]] = []
    while waiting or heap:
        while waiting and (not heap or waiting[-1].started_at <= heap[0][0]):
            file = waiting.pop()
            lines = file.reader.lines(ended=file.ended)
            _push(heap, file, lines)
        if not heap:
            continue
        at, _, piece, file, lines = heapq.heappop(heap)
        yield at, file, piece
        for at, piece in lines:
            if (heap and at > heap[0][0]) or (waiting and at >= waiting[-1].started_at):
                heapq.heappush(heap, (at, file.order, piece, file, lines))
                break
            yield at, file, piece
        else:
            _let_go(file)


def _push(
    heap: list[tuple[int, tuple[int, int, int], bytes, LogFile, Iterator[tuple[int, bytes]]]],
    file: LogFile,
    lines: Iterator[tuple[int, bytes]],
) -> None:
    for at, piece in lines:
        heapq.heappush(heap, (at, file.order, piece, file, lines))
        return
    _let_go(file)


def _let_go(file: LogFile) -> None:
    if file.ended:
        file.reader.close()


def last_lines(files: Iterable[LogFile], count: int) -> list[Line]:
    """The last `count` lines of all, by time, without reading what comes before. Readers stand at the end."""
    if count <= 0:
        for file in files:
            file.reader.tail(0)
        return []
    newest: list[Line] = []
    # those that ended last first; one that ended before the oldest line kept cannot have a newer one
    far = float("inf")
    for file in sorted(files, key=lambda file: far if file.ended_at is None else file.ended_at, reverse=True):
        if len(newest) >= count and file.ended_at is not None and file.ended_at < newest[-count][0]:
            file.reader.tail(0)
            file.reader.close()
            continue
        file.reader.tail(count)
        newest += [(at, file, piece) for at, piece in file.reader.lines(ended=file.ended)]
        _let_go(file)
        newest.sort(key=lambda line: line[0])
        del newest[:-count]
    return newest


def one_after_other(files: Iterable[LogFile]) -> bool:
    """Whether all have ended, and none began before the one ahead of it had: then there is nothing to merge."""
    ended_at = 0
    for file in sorted(files, key=lambda file: file.order):
        if file.ended_at is None or file.started_at < ended_at:
            return False
        ended_at = file.ended_at
    return True


def blocks(file: LogFile) -> Iterator[tuple[int, bytes]]:
    """The log of an attempt that has ended as (time, lines that have this time, joined by newlines): what the lines
    of `LogReader` are, without a step in Python for each of them."""
    try:
        with open(file.path, "rb") as log, open(file.index, "rb") as index:
            times = _Ahead(index)
            at, rest = 0, b""
            while block := log.read(_BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield from _by_time(whole + newline, at, times)
                    at += len(whole) + 1
                while len(rest) >= LONGEST_LINE:
                    yield times.of(at), rest[:LONGEST_LINE]
                    at, rest = at + LONGEST_LINE, rest[LONGEST_LINE:]
            if rest:
                yield times.of(at), rest
    except FileNotFoundError:
        return  # it wrote nothing


def _by_time(lines: bytes, at: int, times: _Ahead) -> Iterator[tuple[int, bytes]]:
    """Whole lines, the first of which begins at an offset, cut where a line has another time than the one before."""
    start = 0
    while start < len(lines):
        time = times.of(at + start)
        end = len(lines) if times.next is None else lines.find(b"\n", max(times.next - 1 - at, start)) + 1 or len(lines)
        yield time, lines[start : end - 1]
        start = end


class _Ahead:
    """The index of a log, read along with it: the time of an offset, and the next offset that has another one."""

    def __init__(self, index: Iterable[bytes]) -> None:
        self._lines = iter(index)
        self._time = self._next_time = 0
        self.next: int | None = 0
        self._step()

    def of(self, offset: int) -> int:
        """The time of the byte at an offset; offsets must not go back."""
        while self.next is not None and self.next <= offset:
            self._time = self._next_time
            self._step()
        return self._time

    def _step(self) -> None:
        for line in self._lines:
            offset, _, ms = line.strip().partition(b" ")
            if offset.isdigit() and ms.isdigit():
                self.next, self._next_time = int(offset), int(ms)
                return
        self.next = None
