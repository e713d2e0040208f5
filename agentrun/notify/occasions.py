"""What happened becomes notices: which event it was, how often in a row, who is told, and what is folded.

The same failure again, of the same step for the same cause, is told the first time and then every n-th (`every`);
the ones between are recorded as folded. So it is with ticks that are missed and steps that are stuck. A success ends
the rows of the job, and is a recovery if there was one of failures. Pings are folded by nothing: they are a monitor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import NotFound
from ..instants import rfc3339
from ..model import JSON, split_instance
from ..store.notices import Notice, NoticeQuestions, Posting, Streak
from ..store.read import Reader, Run, StepRow
from . import words
from .hearers import wants

_BAD = ("failed", "timed_out", "over_budget")
_STATUS = {"timed_out": 124, "over_budget": 125}


class Report(NamedTuple):
    """What a person is shown of a run, and the command that goes on with it, if any does."""

    lines: Sequence[str]
    resume: str | None


class Tell(NamedTuple):
    """What only the layers above know: how a person is shown it."""

    report: Callable[[str, Run], Report]     # by event: "failure", "waiting", …
    command: Callable[..., str]              # the command line of a verb with its arguments
    catch_up: Callable[[str], str | None]    # what a job file says; None where it cannot be read


Outcome = tuple[list[Posting], list[tuple[str, Streak | None]]]  # notices, and the rows that go on or end


def postings(questions: NoticeQuestions, raised: Notice, tell: Tell) -> Outcome:
    """What is to be sent or folded. Of a run that is gone from the record nobody is told."""
    if raised.event == "missed":
        return _missed(questions, raised, tell)
    reader = Reader(questions.connection)
    try:
        run = reader.run(raised.run_id or "")
    except NotFound:
        return [], []
    match raised.event:
        case "start":
            return _to_pings(raised, "start", _of_run("start", raised, run)), []
        case "waiting":
            report = tell.report("waiting", run)
            said = _of_run("waiting", raised, run) | {"text": "\n".join(report.lines), "resume": report.resume}
            return _to_people(raised, "waiting", said), []
        case "stuck":
            return _stuck(questions, raised, run, tell)
    if raised.said["outcome"] == "succeeded":
        return _success(questions, raised, run)
    return _failure(questions, reader, raised, run, tell)


def _failure(questions: NoticeQuestions, reader: Reader, raised: Notice, run: Run, tell: Tell) -> Outcome:
    outcome = raised.said["outcome"]
    failed = _first_failed(reader.steps(run.id))
    streak = _again(questions, raised, "failure", _cause(outcome, run, failed))
    report = tell.report("failure", run)
    said = _of_run("failure", raised, run) | {
        "outcome": outcome,
        "step": failed.instance if failed else None,
        "exit_code": _STATUS.get(outcome, run.exit_code or 1),
        "error": run.error,
        "number": streak.number,
        "since": rfc3339(streak.since),
        "text": "\n".join(report.lines),
        "resume": report.resume,
    }
    told = _to_people(raised, "failure", said, _folded(raised, streak)) + _to_pings(raised, "failure", said)
    return told, [("failure", streak)]


def _success(questions: NoticeQuestions, raised: Notice, run: Run) -> Outcome:
    said = _of_run("success", raised, run) | {"outcome": "succeeded", "exit_code": 0}
    said["text"] = f"agentrun: job {run.job} has succeeded\nrun {run.id} of {run.file}"
    told = _to_pings(raised, "success", said)
    before = questions.streak(raised.job, "failure")
    if before is not None and wants(raised.said["notify"], "recovery"):
        times = "once" if before.number == 1 else f"{before.number} times in a row"
        text = f"agentrun: job {run.job} has succeeded, after it failed {times}, first at {rfc3339(before.since)}"
        again = {"event": "recovery", "text": f"{text}\nrun {run.id} of {run.file}"}
        told += _to_people(raised, "recovery", said | again | {"since": rfc3339(before.since)})
    else:
        told += _to_people(raised, "success", said)
    return told, [(event, None) for event in ("failure", "missed", "stuck")]


def _stuck(questions: NoticeQuestions, raised: Notice, run: Run, tell: Tell) -> Outcome:
    step, since = raised.said["step"], raised.said["since"]
    streak = _again(questions, raised, "stuck", split_instance(step)[0])
    report = tell.report("stuck", run)
    first = f"agentrun: job {run.job}/{run.id}: step {step} has used no CPU and printed nothing since {rfc3339(since)}"
    said = _of_run("stuck", raised, run) | {
        "step": step, "number": streak.number, "since": rfc3339(since), "text": "\n".join([first, *report.lines]),
    }  # fmt: skip
    return _to_people(raised, "stuck", said, _folded(raised, streak)), [("stuck", streak)]


def _missed(questions: NoticeQuestions, raised: Notice, tell: Tell) -> Outcome:
    rows = raised.said["unrun"]
    replaced = tell.catch_up(raised.said["file"]) == "latest"
    reasons = _MISSED | ({"catch_up": "a newer one stands for it"} if replaced else {})
    streak = _again(questions, raised, "missed", ", ".join(sorted({row["reason"] for row in rows})))
    lines = [f"agentrun: job {raised.job} was not run when it should have been"]
    for row in rows:
        ticks = f"{row['number']} ticks" if row["number"] > 1 else "1 tick"
        until = f" to {rfc3339(row['last'])}" if row["number"] > 1 else ""
        lines.append(f"  {ticks}: {rfc3339(row['first'])}{until} ({reasons.get(row['reason'], row['reason'])})")
    if lost := [row for row in rows if not (replaced and row["reason"] == "catch_up")]:
        first, last = min(row["first"] for row in lost), max(row["last"] for row in lost)
        backfill = tell.command("backfill", raised.job, "--from", rfc3339(first), "--to", rfc3339(last))
        lines.append(f"run them now:  {backfill}")
    said = words.notice(
        "missed", raised.job, raised.at, error=streak.cause, scheduled_time=rows[-1]["last"], number=streak.number,
        since=streak.since, text=lines,
    )  # fmt: skip
    return _to_people(raised, "missed", said, _folded(raised, streak)), [("missed", streak)]


_MISSED = {
    "catch_up": "its catch_up does not run them late",
    "start_deadline": "older than its start_deadline",
    "limit": "more than 100 were missed",
    "file": "its job file was gone or wrong",
    "paused": "it was paused",
    "overlap": "another run was at work",
}


def _of_run(event: str, raised: Notice, run: Run) -> dict[str, JSON]:
    return words.notice(event, run.job, raised.at, run=run.id, scheduled_time=run.scheduled_time)


def _first_failed(rows: Iterable[StepRow]) -> StepRow | None:
    """The step that the run failed by: the first that ended badly, itself rather than what it is made of."""
    bad = [row for row in rows if row.outcome in _BAD and not row.covered and row.position >= 0]
    return min(bad, key=lambda row: (row.finished_at or 0, row.number >= 0), default=None)


def _cause(outcome: str, run: Run, failed: StepRow | None) -> str:
    """What makes two failures the same: the step, and how it ended; not the words of its error."""
    if failed is None or outcome != "failed":
        return f"{outcome} {run.reason}"
    step = split_instance(failed.instance)[0]
    return f"{outcome} {step} {failed.outcome} {failed.reason} {failed.exit_code} {failed.signal}"


def _again(questions: NoticeQuestions, raised: Notice, event: str, cause: str) -> Streak:
    before = questions.streak(raised.job, event)
    if before is None or before.cause != cause:
        return Streak(cause, raised.at, 1)
    return before._replace(number=before.number + 1)


def _folded(raised: Notice, streak: Streak) -> str | None:
    every = raised.said["notify"]["every"]
    if streak.number == 1 or streak.number % every == 0:
        return None
    return f"the {words.ordinal(streak.number)} of the same kind in a row: every {words.ordinal(every)} is told"


def _to_people(raised: Notice, event: str, said: JSON, folded: str | None = None) -> list[Posting]:
    notify = raised.said["notify"]
    if not wants(notify, event):  # type: ignore[arg-type]
        return []
    return [Posting(target, event, _to(raised, said), folded) for target in notify["to"] if target["kind"] != "ping"]


def _to_pings(raised: Notice, event: str, said: JSON) -> list[Posting]:
    targets: Iterable[Mapping[str, JSON]] = raised.said["notify"]["to"]
    return [Posting(target, event, _to(raised, said)) for target in targets if target["kind"] == "ping"]


def _to(raised: Notice, said: JSON) -> JSON:
    return {"notice": said, "file": raised.said["file"]}
