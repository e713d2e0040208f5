"""What a person is asked about an interrupted step, and the commands that answer.

    agentrun: job/1a2b3c waits for an answer: step send
      attempt 1 began at … and was interrupted, …: did it take place?
        | 3 of 10 mails sent
      its log:     agentrun logs 1a2b3c --step send
      it did:      agentrun resume 1a2b3c --took-place send
      it did not:  agentrun resume 1a2b3c --rerun send
    the next runs of job are skipped until you answer

The report of a parked run, for a mail, has the last lines of the log too; at most 40 lines, as that of a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import AgentrunError
from ..model import split_instance
from ..store.folders import RunFolder
from ..store.read import Reader, Run
from .report import last_lines
from .status import command
from .terminal import fit, printable

_MOST = 8        # questions of a run that are written out
_WITH_LOG = 3    # of which the end of the log is shown
_LOG_LINES = 10  # at most
_LINES = 40      # of the whole report
_WIDTH = 200     # columns of a line of the log


def waiting_report(reader: Reader, root: str, run: Run) -> list[str]:
    """What cron mails of a run that waits for answers: the questions, what the steps said last, what becomes of the
    next runs.
    """
    questions = reader.questions(run.id)
    plain, after = question_lines(run, questions), _next_runs(reader, run)
    shown = [instance for instance, _ in questions[:_WITH_LOG]]
    room = min(_LOG_LINES, (_LINES - len(plain) - len(after)) // max(len(shown), 1) - 1)
    logs = {instance: _end_of_log(reader, root, run, instance, room) for instance in shown if room > 0}
    return question_lines(run, questions, logs=logs) + after


def _end_of_log(reader: Reader, root: str, run: Run, instance: str, room: int) -> list[str]:
    row = reader.step_row(run.id, instance)
    lines = last_lines(RunFolder(root, run.id), instance, row.attempt, room) if row else []
    if not lines:
        return []
    log = command("logs", run.id, "--step", instance, anywhere=True)
    return [*(fit(line, _WIDTH) for line in lines), f"  {'its log:':<12} {log}"]


def _next_runs(reader: Reader, run: Run) -> list[str]:
    """What becomes of them while nobody answers: a run that waits is at work."""
    try:
        concurrency = reader.job_of(run).concurrency
    except AgentrunError:  # a snapshot that this program cannot read
        return []
    if run.caller is not None or concurrency.slots != 1:
        return []
    runs = f"the next runs of {run.job}" + (" with the same key" if concurrency.key else "")
    became = {"forbid": f"{runs} are skipped until you answer", "queue": f"{runs} wait until you answer"}
    return [became[concurrency.policy]] if concurrency.policy in became else []


def question_lines(
    run: Run,
    questions: Sequence[tuple[str, str]],
    *,
    anywhere: bool = True,
    logs: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """All that a person needs who is to answer; `questions` are (instance, question), `logs` what stands below them."""
    lines: list[str] = []
    for instance, question in questions[:_MOST]:
        lines.append(f"agentrun: {run.job}/{run.id} waits for an answer: step {instance}")
        lines.append(f"  {printable(question)}")
        lines += (logs or {}).get(instance, ())
        lines += [f"  {label:<12} {text}" for label, text in answers(run, instance, anywhere=anywhere)]
    several: dict[str, int] = {}
    for instance, _ in questions:
        step = split_instance(instance)[0]
        several[step] = several.get(step, 0) + 1
    for step, number in several.items():
        if number > 1:
            lines.append(f"agentrun: for all {number} of step {step} at once: --took-place {step}, or --rerun {step}")
    if more := questions[_MOST:]:
        lines.append(f"agentrun: and {len(more)} more questions: {command('status', run.id, anywhere=anywhere)}")
    return lines


def answers(run: Run, instance: str, *, anywhere: bool = False) -> list[tuple[str, str]]:
    """What can be said, and the command that says it."""
    return [
        ("it did:", command("resume", run.id, "--took-place", instance, anywhere=anywhere)),
        ("it did not:", command("resume", run.id, "--rerun", instance, anywhere=anywhere)),
    ]
