"""What cron mails when a run did not succeed: at most 40 lines that answer what a person asks at once.

Which job, which step of how many, how it ended, the last lines of its log, what else became of the run, and
the commands that show more and go on. Of a fan-out that is its first instance that failed, of a step that is a run of
its own the step that this run failed by. Nothing in it needs a terminal; control characters of the log are shown
as escapes, and lines are cut, so that no log can make a mail unreadable.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import AgentrunError
from ..spec.values import format_duration
from ..step.logs import LogReader
from ..store.folders import RunFolder
from ..store.read import Reader, Run, StepRow
from ..store.snapshots import is_of
from ..store.spent import by_model
from . import times, words
from .instances import NOTHING, item_text, step_of
from .logs import text_of
from .spent import report_lines
from .status import command, way_on
from .steps import round_text
from .terminal import fit, printable

if TYPE_CHECKING:
    from ..model import Job

_LINES = 40
_LOG_LINES = 25
_WIDTH = 200
_ITEM = 150  # characters of an item
_NO_PROGRAM = 127  # a shell's exit status where a program is not found
_BAD = ("failed", "timed_out", "over_budget")
_NOT_RUN = ("upstream", "interrupted", "cancel", "deadline", "budget")  # reasons of steps that would have run otherwise


def failure_report(reader: Reader, root: str, run: Run, width: int = _WIDTH) -> list[str]:
    """The lines, for a run that has ended otherwise than in success, or that was stopped."""
    job = _job(reader, run)
    rows = reader.steps(run.id)
    failed = _failed(rows, job)
    became = f"{_what_became(run, job)}: {_counts(run, rows)}"
    lines = [f"agentrun: job {run.job} {became}", f"run {run.id} of {printable(run.file)}"]
    below, commands = _others(rows, failed), []
    if run.outcome == "over_budget" or any(row.outcome == "over_budget" for row in failed):
        below += report_lines(by_model(reader, run.id), None if job is None else job.budget)
    culprit = _Culprit(run, failed[0], job) if failed else None
    if culprit is not None:
        lines += _first_failure(reader, culprit)
        while (inner := _inner(reader, culprit)) is not None:
            culprit = inner
            lines.append(f"run {culprit.run.id} of {printable(culprit.run.file)}")
            lines += _first_failure(reader, culprit)
    elif run.error and run.outcome == "failed":  # given up: no step says why
        lines.append(printable(run.error))
    if culprit is None:
        commands.append(f"its log:   {command('logs', run.id, anywhere=True)}")
    elif _wrote(RunFolder(root, culprit.run.id), culprit):
        commands.append(f"its log:   {command('logs', culprit.run.id, '--step', culprit.log[0], anywhere=True)}")
    if culprit is not None and culprit.row.exit_code == _NO_PROGRAM and os.path.isfile(culprit.run.file):
        look = command("env", culprit.run.file, "--as-cron", "--explain", anywhere=True)
        commands.append(f"what it does not find under cron: {printable(look)}")
    commands += _ways_on(reader, run, rows)
    if culprit is not None:
        room = min(_LOG_LINES, _LINES - len(lines) - len(below) - len(commands))
        lines += _last_words(RunFolder(root, culprit.run.id), culprit, room)
    lines += below[: _LINES - len(lines) - len(commands)]
    return [fit(line, width) for line in lines] + commands  # half a command is worse than a long line


def _ways_on(reader: Reader, run: Run, rows: Sequence[StepRow]) -> list[str]:
    """The commands that go on, also after the job file was mended: a run keeps the file that it began with."""
    outermost = reader.outermost(run)
    ways, changed = _ways(reader, run, rows, outermost)
    lines = [f"{label + ':':<10} {text}" for label, text in ways]
    label, last = ways[-1]
    if changed is False and run.outcome in ("failed", "timed_out") and label == "go on" and " --spec " not in last:
        other = command("resume", outermost.id, "--spec", outermost.file, anywhere=True)
        lines.append(f"after a change of the job file: {printable(other)}")
    return lines


def way_out(reader: Reader, run: Run) -> str | None:
    """The command that goes on with a run that failed, as its report names it; None where nothing is left to run."""
    label, text = _ways(reader, run, reader.steps(run.id), reader.outermost(run))[0][-1]
    return text if label == "go on" else None


def _ways(
    reader: Reader, run: Run, rows: Sequence[StepRow], outermost: Run
) -> tuple[list[tuple[str, str]], bool | None]:
    changed = _has_changed(reader, outermost)
    named = outermost.file if changed else None
    return way_on(run, rows, outermost.id, anywhere=True, changed=named), changed


def _has_changed(reader: Reader, run: Run) -> bool | None:
    """Whether the job file is another one than the run began with; None where there is none to go on with."""
    try:
        with open(run.file, "rb") as file:
            return not is_of(reader.text_of(run), file.read())
    except (OSError, ValueError, AgentrunError):
        return None


class _Culprit(NamedTuple):
    """The step or instance that a run failed by."""

    run: Run
    row: StepRow
    job: Job | None

    @property
    def log(self) -> tuple[str, int]:
        """Whose log says why: the instance, and the attempt; 0 is its `if` or, of a round, its `until`."""
        row = self.row
        if row.reason in words.OF_LOOPS and row.instances:
            return f"{row.instance}[{row.instances}]", 0
        return row.instance, 0 if row.reason == "if_failed" else row.attempt


def _inner(reader: Reader, culprit: _Culprit) -> _Culprit | None:
    """Where that is a run of its own: what this one failed by."""
    if culprit.row.reason != "child" or (child := reader.child_of(culprit.run.id, culprit.row.instance)) is None:
        return None
    job = _job(reader, child)
    failed = _failed(reader.steps(child.id), job)
    return _Culprit(child, failed[0], job) if failed else None


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
    """`1 failed, 5 skipped, 1 succeeded`: steps, and in place of one that has instances those."""
    unfolded = {row.instance for row in rows if row.instances is not None}
    counted = [row for row in rows if (row.instance not in unfolded if row.number < 0 else step_of(row) in unfolded)]
    # a loop can fail although each of its rounds was good
    extra = [row for row in rows if row.instance in unfolded and row.outcome in _BAD and row.reason in words.OF_LOOPS]
    counts: dict[str, int] = {}
    for row in [*counted, *extra]:
        word = row.outcome or ("not run" if row.state == "queued" else "unfinished")
        counts[word] = counts.get(word, 0) + 1
    counts["not run"] = counts.get("not run", 0) + max(run.steps_total - len(counted), 0)
    return words.outcomes(counts)


def _failed(rows: Sequence[StepRow], job: Job | None) -> list[StepRow]:
    """The steps and instances that failed, the first to fail first; those that only a deadline ended after the others,
    handlers after all: they came when something else had happened.

    A step that failed because of its instances is not among them.
    """
    handlers = {step.id for step in job.steps if step.is_handler} if job else set()
    bad = [row for row in rows if row.outcome in _BAD and not row.covered and row.reason != "instances"]
    cut_off = ("deadline", "budget")
    return sorted(
        bad,
        key=lambda row: (
            step_of(row) in handlers, row.reason in cut_off, row.finished_at or 0, row.position, row.number,
        ),
    )  # fmt: skip


def _first_failure(reader: Reader, culprit: _Culprit) -> list[str]:
    run, row, job = culprit
    step = next((step for step in job.steps if step.id == step_of(row)), None) if job else None
    cause = printable(row.error if row.reason == "timeout" and row.error else words.cause(row)) or (row.outcome or "")
    if row.reason == "timeout" and step is not None and step.timeout is not None:
        cause = f"not done within its timeout of {format_duration(step.timeout)}"
    cause = cause.replace(words.RUN_BUDGET, words.which_budget(run.error))
    steps = f" of {len(job.steps)}" if job else ""
    line = f"step {row.position + 1}{steps}, {row.instance}: {cause}"
    attempt = reader.attempt(run.id, row.instance, row.attempt) if row.attempt else None
    facts = []
    if attempt is not None and attempt.finished_at is not None:
        facts.append(f"after {times.duration(attempt.finished_at - attempt.started_at)}")
    if row.attempt > 1:
        facts.append(f"attempt {row.attempt}")
    more = []
    if item := item_text(row, NOTHING, _ITEM):
        more.append(f"its item:  {item}")
    if row.reason in words.OF_LOOPS and (last := reader.step_row(run.id, culprit.log[0])) and (out := round_text(last)):
        more.append(f"its last:  {out}")
    return [line + (f" ({', '.join(facts)})" if facts else ""), *more]


def _wrote(folder: RunFolder, culprit: _Culprit) -> bool:
    """Whether there is anything in the log that says why it failed, or in that of the step as a whole."""
    instance, number = culprit.log
    logs = {folder.log(instance, number), *(folder.log(instance, n) for n in range(1, culprit.row.attempt + 1))}
    if culprit.row.reason in words.OF_LOOPS:
        logs.add(folder.log(instance, 1))
    return any(os.path.exists(log) and os.path.getsize(log) > 0 for log in logs)


def _last_words(folder: RunFolder, culprit: _Culprit, room: int) -> list[str]:
    lines = last_lines(folder, *culprit.log, room)
    asked = culprit.row.reason in ("if_failed", "until_failed")
    return lines or (["    (it wrote nothing)"] if culprit.log[1] or asked else [])


def last_lines(folder: RunFolder, instance: str, number: int, room: int) -> list[str]:
    """The end of an attempt's log, at most `room` lines of it; empty if it wrote nothing."""
    reader = LogReader(folder.log(instance, number), folder.log_index(instance, number))
    try:
        reader.tail(room)
        lines = [f"    | {text_of(piece)}".rstrip() for _, piece in reader.lines()]
    except OSError as error:
        return [f"    (its log cannot be read: {error.strerror})"]
    finally:
        reader.close()
    return lines[-room:]


def _others(rows: Sequence[StepRow], failed: Sequence[StepRow]) -> list[str]:
    """What failed beside the first of `failed`, by name, and how many did not run."""
    lines = []
    siblings: list[StepRow] = []
    steps: dict[str, list[StepRow]] = {}
    for row in failed[1:]:
        is_sibling = row.number >= 0 and row.position == failed[0].position
        (siblings if is_sibling else steps.setdefault(step_of(row), [])).append(row)
    if siblings:
        thing = words.count(len(siblings), "other instance")
        names = _names([f"[{row.number}]" for row in siblings])
        lines.append(f"also:      {thing} of {step_of(siblings[0])} failed: {names}")
    if steps:
        named = [one[0].instance if len(one) == 1 else f"{step} ({len(one)} instances)" for step, one in steps.items()]
        lines.append(f"also:      {words.count(len(steps), 'step')} failed as well: {_names(named)}")
    skipped = sum(row.outcome == "skipped" and row.reason in _NOT_RUN and row.number < 0 for row in rows)
    if skipped:
        lines.append(f"not run:   {words.count(skipped, 'step')}")
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
