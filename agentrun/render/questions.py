"""What a person is asked about an interrupted step, and the commands that answer.

    agentrun: job/1a2b3c waits for an answer: step send
      attempt 1 began at … and was interrupted, …: did it take place?
      it did:      agentrun resume 1a2b3c --took-place send
      it did not:  agentrun resume 1a2b3c --rerun send
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import split_instance
from ..store.read import Run
from .status import command
from .terminal import printable

_MOST = 10  # questions of a run that are written out


def question_lines(run: Run, questions: Sequence[tuple[str, str]], *, anywhere: bool = True) -> list[str]:
    """All that a person needs who is to answer; `questions` are (instance, question)."""
    lines: list[str] = []
    for instance, question in questions[:_MOST]:
        lines.append(f"agentrun: {run.job}/{run.id} waits for an answer: step {instance}")
        lines.append(f"  {printable(question)}")
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
