"""The rows of the record as values, as the questions of `read.py` answer with them.

A run that says `running` while nobody holds it is interrupted: `Run.interrupted` asks the kernel's locks at each
look, and nothing is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import locks
from .folders import RunFolder

if TYPE_CHECKING:  # a look at the record costs 5 ms less without it
    from ..model import JSON, Outcome, State


class Run(NamedTuple):
    """A row of `runs`. Times in ms since the epoch, `elapsed` and `seen` in ms."""

    id: str
    job: str
    file: str
    snapshot: str
    params: dict[str, JSON]
    run_key: str | None
    scheduled_time: int | None
    parent: str | None
    state: State
    outcome: Outcome | None
    reason: str | None
    error: str | None
    exit_code: int | None
    closing: Outcome | None
    closing_at: int | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    epoch: int
    owner: dict[str, JSON] | None
    resumes: int
    elapsed: int
    boot_id: str | None
    seen: int | None
    results_seen: int
    stopped: bool
    started_steps: int
    steps_total: int
    steps_done: int
    caller: str | None = None
    caller_instance: str | None = None
    enforced_by: str | None = None
    wake_at: int | None = None
    overlap_key: str | None = None
    overlap_limit: int | None = None

    def held(self, root: str) -> bool:
        """Whether a supervisor or a shim holds it now."""
        lock = RunFolder(root, self.id).lock
        return locks.held(lock, locks.LEASE) or locks.held(lock, locks.SHIM)

    def interrupted(self, root: str) -> bool:
        """Whether it was begun, is not finished, and nobody holds it."""
        return self.state == "running" and not self.held(root)


class StepRow(NamedTuple):
    """A row of `steps`."""

    instance: str
    position: int
    state: State
    outcome: Outcome | None
    reason: str | None
    covered: bool
    asked: bool
    attempt: int
    tries: int
    interruptions: int
    due: int | None
    idempotency_key: str | None
    inputs: JSON
    outputs: JSON
    exit_code: int | None
    signal: int | None
    error: str | None
    started_at: int | None
    finished_at: int | None
    number: int = -1
    instances: int | None = None
    answered: int = 0
    question: str | None = None
    verifying: bool = False


class AttemptRow(NamedTuple):
    """A row of `attempts`."""

    instance: str
    number: int
    epoch: int
    state: State
    outcome: Outcome | None
    reason: str | None
    requested: bool
    exit_code: int | None
    signal: int | None
    error: str | None
    causes: tuple[str, ...]
    exception: JSON
    retry_after: int | None
    cpu_ms: int | None
    max_rss_kib: int | None
    output_bytes: int | None
    started_at: int
    finished_at: int | None


class Event(NamedTuple):
    """A line of the journal."""

    run_id: str
    job: str
    seq: int
    at: int
    kind: str
    instance: str | None
    attempt: int | None
    by: str
    detail: dict[str, Any] | None


class StepState(NamedTuple):
    """The few columns of a step that recovery needs, for ten thousand of them at once."""

    instance: str
    state: State
    outcome: Outcome | None
    reason: str | None
    covered: bool
    asked: bool
    attempt: int
    tries: int
    interruptions: int
    due: int | None
    finished_at: int | None
    instances: int | None
    answered: int
    question: str | None
    verifying: int


class Asked(NamedTuple):
    """A question that waits for a person's answer: `agentrun resume <run> --took-place <step>` is one.

    `via`: in the run that was looked at, the step or instance whose run it is a question of; None: its own.
    """

    run: str
    step: str
    question: str
    via: str | None = None
