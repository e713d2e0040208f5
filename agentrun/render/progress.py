"""The live view of a run on the terminal that it was started from.

What has finished scrolls by, one line each; below it stands a block that is drawn again at each tick: how far
the run is, how long it has taken, what is left by the median of earlier runs, what was spent, and each step at work.
A fan-out is one line, and of its instances only those scroll by that did not succeed.

    ✓ rates  0.3 s
    quotes/7f3a  38 of 109 done  4.2 s, about 30 s left  21,430 of 200,000 tokens
      step 2 of 9  quote  37 of 100 done, 2 running  3.9 s  [37] [38]

The supervisor feeds it with the changes that it commits and asks for nothing back: no threads, one write for
each drawing, at most one drawing for each `interval`, however many steps finish. Whatever goes wrong with the
terminal ends the view and never the run. A process in the background draws nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from ..engine.watcher import Watcher
from ..model import Budget, split_instance
from ..store.changes import AttemptStarted, Change, RunClosing, StepSettled
from ..store.questions import StepQuestioned
from ..store.read import Run
from ..store.spent import UsageTaken
from . import times, words
from .board import Board, Group
from .spent import SoFar
from .status import command
from .terminal import Look, fit, look_of, printable

if TYPE_CHECKING:
    from ..model import Job

_INTERVAL = 200    # ms between two drawings
_AT_ONCE = 20      # more steps that end between two drawings than this are only counted
_STEP_LINES = 8    # of steps at work, in the block

_BAD = ("failed", "timed_out", "over_budget", "cancelled")


class Progress(Watcher):
    """One run's view. `interval` is the ms between ticks that it wants, None for no ticks."""

    def __init__(self, stream: TextIO | None = None, look: Look | None = None) -> None:
        self._stream = stream or sys.stderr
        self._look = look or look_of(self._stream)
        self._fixed_look = look
        self._moves = self._look.terminal and os.environ.get("TERM", "dumb") != "dumb"
        self.interval: int | None = _INTERVAL if self._moves else None
        self._broken = False
        self._block = 0                                         # lines of it on the screen
        self._drawn_at: int | None = None
        self._above: list[str] = []                             # lines that wait to scroll by
        self._counted: dict[str, int] = {}                      # ends by outcome that were too many to show
        self._begun: dict[str, tuple[int, int]] = {}            # instance: since, attempts that were seen
        self._board: Board | None = None
        self._spent: SoFar | None = None
        self._budget = words.RUN_BUDGET
        self._closing: str | None = None
        self._since = 0

    def begin(
        self, run: Run, job: Job, usual_ms: int | None, now: int, *, active: Sequence[tuple[str, str]] = (),
        slow_after: int | None = None,
    ) -> None:
        """The run is taken. `usual_ms`: the median of earlier runs; `active`: steps at work, if it is taken over.

        `slow_after`: after so many ms it is slow.
        """
        self._usual, self._name = usual_ms, f"{run.job}/{words.short_id(run.id)}"
        # a run that was taken over has lost time to something else: neither sum nor rest would mean anything
        fresh = run.resumes == 0 and run.steps_done == 0 and (run.epoch or 1) == 1
        self._slow_after = slow_after
        self._since = run.started_at if fresh and run.started_at is not None else now
        if not fresh:
            self._usual = None
        self._board = Board(run, job, active, now)
        self._spent = SoFar(run.id, job, used=not fresh)
        if job.daily != Budget():  # which of them it was is known when the run has ended
            self._budget = "the budget of the run or of the day"
        if not fresh:
            self._above.append(f"{self._name} goes on: {run.steps_done} of {run.steps_total} steps are done")
        self._safely(lambda: self._draw(now))

    def changed(self, changes: Sequence[Change], now: int) -> None:
        """These have been committed."""
        self._safely(lambda: self._take_in(changes, now))

    def tick(self, now: int) -> None:
        """Time has passed."""
        self._safely(lambda: self._draw_if_due(now))

    def say(self, line: str) -> None:
        """A line for the person at the terminal, above the block."""
        self._above.append(printable(line))
        self._safely(lambda: self._draw(self._drawn_at or self._since))

    def end(self, run: Run, now: int, report: Sequence[str] = ()) -> None:
        """The supervisor lets go of the run: the block goes, the result stays, and `report` below it."""
        self._safely(lambda: self._finish(run, now, report))

    # ---- what has happened

    def _take_in(self, changes: Sequence[Change], now: int) -> None:
        for change in changes:
            if isinstance(change, AttemptStarted):
                since, attempts = self._begun.get(change.instance, (change.at, 0))
                self._begun[change.instance] = (since, attempts + 1)
            elif isinstance(change, StepSettled):
                self._settled(change)
            elif isinstance(change, StepQuestioned):
                self._above.append(f"? {change.instance}  {printable(change.question)}")
            elif isinstance(change, RunClosing):
                self._closing = f"ending: {self._named(words.reason_words(change.reason))}"
            elif isinstance(change, UsageTaken) and self._spent is not None:
                self._spent.used()
            if self._board is not None:
                self._board.take_in(change)
        self._draw_if_due(now)

    def _settled(self, change: StepSettled) -> None:
        since, attempts = self._begun.pop(change.instance, (change.at, 0))
        group = self._board.groups.get(split_instance(change.instance)[0]) if self._board else None
        of_fan_out = group is not None and group.most_rounds is None and "[" in change.instance
        if of_fan_out and (change.outcome in ("succeeded", "skipped") or change.reason == "fail_fast"):
            return  # its step's line counts it
        bad = change.outcome in _BAD
        if len(self._above) >= _AT_ONCE and (not bad or len(self._above) >= 2 * _AT_ONCE):
            self._counted[change.outcome] = self._counted.get(change.outcome, 0) + 1
            return
        look = self._look
        parts = [look.paint(look.mark(change.outcome), *words.style(change.outcome)), change.instance]
        if attempts and change.outcome != "skipped":
            parts[-1] += f"  {times.duration(change.at - since)}"
        elif group is not None and "[" not in change.instance and change.outcome != "skipped":
            parts[-1] += f"  {_came(group)}  {times.duration(change.at - group.since)}"
        if attempts > 1:
            parts[-1] += f" ({attempts} attempts)"
        line = " ".join(parts)
        if change.outcome != "succeeded":
            cause = self._named(printable(words.cause(change)))
            line += f"  {change.outcome}{': ' + cause if cause else ''}{' (the run goes on)' if change.covered else ''}"
        self._above.append(line)

    def _named(self, cause: str) -> str:
        return cause.replace(words.RUN_BUDGET, self._budget)

    # ---- what is drawn

    def _draw_if_due(self, now: int) -> None:
        if self._drawn_at is None or now - self._drawn_at >= (self.interval or 0) or now < self._drawn_at:
            self._draw(now)

    def _draw(self, now: int) -> None:
        if self._in_background():
            return
        self._drawn_at = now
        if self._moves and self._fixed_look is None:
            self._look = look_of(self._stream)  # the window may have another size now
        self._put(self._scrolling() + (block := self._block_lines(now)), len(block))

    def _finish(self, run: Run, now: int, report: Sequence[str]) -> None:
        if self._spent is not None:
            self._spent.close()
        if self._in_background():
            return
        lines = [*self._scrolling(), *self._result(run, now, report)]
        self._put(lines, 0)

    def _put(self, lines: Sequence[str], block: int) -> None:
        erase = f"\r\x1b[{self._block}A\x1b[J" if self._block else ""
        self._block = block if self._moves else 0
        text = erase + "".join(line + "\n" for line in lines)
        if text:
            self._stream.write(text)
            self._stream.flush()

    def _scrolling(self) -> list[str]:
        lines, self._above = self._above, []
        counted, self._counted = self._counted, {}
        for outcome, number in counted.items():
            mark = self._look.paint(self._look.mark(outcome), *words.style(outcome))
            lines.append(f"{mark} and {words.count(number, 'more step')}: {outcome}")
        return lines

    def _block_lines(self, now: int) -> list[str]:
        if not self._moves or self._board is None:
            return []
        look, board = self._look, self._board
        width = (look.width or 80) - 1
        spent = self._spent.text(now) if self._spent else ""
        head = f"{self._name}  {board.ended(board.total)}  {self._clock(now)}" + (f"  {spent}" if spent else "")
        lines = [look.paint(fit(head, width, look.dots), "bold")]
        rest = list(board.lines(now))
        room = max(1, min(_STEP_LINES, look.height - 3))
        lines += [fit(line, width, look.dots) for line in rest[:room]]
        if len(rest) > room:
            lines.append(look.paint(fit(f"  and {len(rest) - room} more at work", width, look.dots), "dim"))
        return lines

    def _clock(self, now: int) -> str:
        elapsed = now - self._since
        if self._closing:
            return f"{times.duration(elapsed)}, {self._closing}"
        if self._usual is None:
            return times.duration(elapsed)
        left = self._usual - elapsed
        if left > 0:
            return f"{times.duration(elapsed)}, {times.roughly(left)} left"
        slow = "slow, " if self._slow_after is not None and elapsed > self._slow_after else ""
        return f"{times.duration(elapsed)}, {slow}longer than its usual {times.duration(self._usual)}"

    def _result(self, run: Run, now: int, report: Sequence[str]) -> list[str]:
        look, took = self._look, times.duration((run.finished_at or now) - self._since)
        if run.state == "waiting":
            return [f"{self._name} waits for an answer after {took}"]
        if run.state != "finished":  # whoever stopped it says how it goes on
            total = words.count(run.steps_total, "step")
            return [f"{self._name} stopped after {took}, {self._board.ended(total) if self._board else total}"]
        outcome = run.outcome or "failed"
        if report:  # its first line says all that ours would
            first = f"{look.mark(outcome)} {report[0].removeprefix('agentrun: ')}"
            return [look.paint(first, "bold", *words.style(outcome)), *report[1:]]
        mark = look.paint(f"{look.mark(outcome)} {self._name} {outcome}", "bold", *words.style(outcome))
        if outcome == "succeeded":
            otherwise = words.outcomes(self._board.otherwise) if self._board else ""
            line = f"{mark}: {words.count(run.steps_total, 'step')} in {took}"
            return [f"{line} ({otherwise})" if otherwise else line]
        return [
            f"{mark} after {took}" + (f": {printable(run.error)}" if run.error else ""),
            f"  its log:  {command('logs', run.id, '--failed')}",
            f"  go on:    {command('resume', run.id)}",
        ]

    # ---- the terminal's own troubles

    def _in_background(self) -> bool:
        if not self._moves:
            return False
        try:
            return os.tcgetpgrp(self._stream.fileno()) != os.getpgrp()
        except (OSError, ValueError):  # not our controlling terminal, or none at all
            return False

    def _safely(self, work: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            work()
        except Exception:  # a view that fails must not end a run: not a closed terminal, nor a mistake of ours
            self._broken = True
            self.interval = None


def _came(group: Group) -> str:
    """What there is to say of a step with instances that has ended."""
    if group.most_rounds is not None:
        return words.count(group.round, "round")
    return group.ended
