"""What cron mails when a run did not succeed: at most 40 lines that answer what a person asks at once.

Which job, which step of how many, how it ended, the last lines of its log, what else became of the run, and
the commands that show more and go on. Nothing in it needs a terminal; control characters of the log are shown
as escapes, and lines are cut, so that no log can make a mail unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import AgentrunError
from ..spec.values import format_duration
from ..step.logs import LogReader
from ..store.folders import RunFolder
from ..store.read import Reader, Run, StepRow
from ..store.spent import by_model
from . import times, words
from .logs import text_of
from .spent import report_lines
from .status import command, way_on
from .terminal import fit, printable

if TYPE_CHECKING:
    from ..model import Job

_LINES = 40
_LOG_LINES = 25
_WIDTH = 200
_BAD = ("failed", "timed_out", "over_budget")
_NOT_RUN = ("upstream", "cancel", "deadline", "budget")  # reasons of steps that would have run otherwise


def failure_report(reader: Reader, root: str, run: Run, width: int = _WIDTH) -> list[str]:
    """The lines, for a run that has ended otherwise than in success, or that was stopped."""
    job = _job(reader, run)
    rows = reader.steps(run.id)
    failed = _failed(rows)
    became = f"{_what_became(run, job)}: {_counts(run, rows)}"
    lines = [f"agentrun: job {run.job} {became}", f"run {run.id} of {printable(run.file)}"]
    below = _others(rows, failed[1:])
    if run.outcome == "over_budget" or any(row.outcome == "over_budget" for row in failed):
        below += report_lines(by_model(reader, run.id), None if job is None else job.budget)
    if failed:
        lines += _first_failure(reader, run, failed[0], job)
    elif run.error and run.outcome == "failed":  # given up: no step says why
        lines.append(printable(run.error))
    step = ("--step", failed[0].instance) if failed else ()
    below.append(f"its log:   {command('logs', run.id, *step, anywhere=True)}")
    below += [f"{label + ':':<10} {text}" for label, text in way_on(run, rows, anywhere=True)]
    if failed:
        room = min(_LOG_LINES, _LINES - len(lines) - len(below))
        lines += _last_words(RunFolder(root, run.id), failed[0], room)
    return [fit(line, width) for line in lines + below[-(_LINES - len(lines)) :]]


def _job(reader: Reader, run: Run) -> Job | None:
    try:
        return reader.job_of(run)
    except AgentrunError:  # the report does without what it would add
        return None


def _what_became(run: Run, job: Job | None) -> str:
    if run.state != "finished":
        return "was stopped"
    took = times.duration((run.finished_at or 0) - (run.started_at or run.created_at))
    if run.outcome == "timed_out" and job is not None and job.deadline is not None:
        return f"was ended at its deadline of {format_duration(job.deadline)}"
    if run.outcome == "over_budget" and run.error and run.error.startswith("over its budget"):
        return f"is {printable(run.error)}, after {took}"
    if run.outcome == "over_budget" and job is not None and job.budget.steps is not None:
        return f"has used up its budget of {words.count(job.budget.steps, 'attempt')} after {took}"
    verb = {"failed": "failed", "cancelled": "was cancelled", "timed_out": "was ended at its deadline"}
    return f"{verb.get(run.outcome or '', run.outcome or 'ended')} after {took}"


def _counts(run: Run, rows: Sequence[StepRow]) -> str:
    """`1 failed, 5 skipped, 1 succeeded`."""
    counts: dict[str, int] = {}
    for row in rows:
        word = row.outcome or "unfinished"
        counts[word] = counts.get(word, 0) + 1
    counts["not run"] = counts.get("not run", 0) + run.steps_total - len(rows)
    return words.outcomes(counts)


def _failed(rows: Sequence[StepRow]) -> list[StepRow]:
    """The steps that failed, the first to fail first; those that only a deadline ended after the others."""
    bad = [row for row in rows if row.outcome in _BAD and not row.covered]
    return sorted(bad, key=lambda row: (row.reason in ("deadline", "budget"), row.finished_at or 0, row.position))


def _first_failure(reader: Reader, run: Run, row: StepRow, job: Job | None) -> list[str]:
    step = next((step for step in job.steps if step.id == row.instance), None) if job else None
    cause = printable(row.error if row.reason == "timeout" and row.error else words.cause(row)) or (row.outcome or "")
    if row.reason == "timeout" and step is not None and step.timeout is not None:
        cause = f"not done within its timeout of {format_duration(step.timeout)}"
    line = f"step {row.position + 1} of {run.steps_total}, {row.instance}: {cause}"
    attempt = reader.attempt(run.id, row.instance, row.attempt) if row.attempt else None
    facts = []
    if attempt is not None and attempt.finished_at is not None:
        facts.append(f"after {times.duration(attempt.finished_at - attempt.started_at)}")
    if row.attempt > 1:
        facts.append(f"attempt {row.attempt}")
    return [line + (f" ({', '.join(facts)})" if facts else "")]


def _last_words(folder: RunFolder, row: StepRow, room: int) -> list[str]:
    number = 0 if row.reason == "if_failed" else row.attempt
    reader = LogReader(folder.log(row.instance, number), folder.log_index(row.instance, number))
    try:
        reader.tail(room)
        lines = [f"    | {text_of(piece)}".rstrip() for _, piece in reader.lines()]
    except OSError as error:
        return [f"    (its log cannot be read: {error.strerror})"]
    finally:
        reader.close()
    return lines[-room:] if lines else (["    (it wrote nothing)"] if number or row.reason == "if_failed" else [])


def _others(rows: Sequence[StepRow], failed: Sequence[StepRow]) -> list[str]:
    lines = []
    if failed:
        names = ", ".join(row.instance for row in failed[:5]) + (f" and {len(failed) - 5} more" if failed[5:] else "")
        lines.append(f"also:      {words.count(len(failed), 'step')} failed as well: {names}")
    skipped = sum(row.outcome == "skipped" and row.reason in _NOT_RUN for row in rows)
    if skipped:
        lines.append(f"not run:   {words.count(skipped, 'step')}")
    return lines
