"""The facts of a run from its rows: what a supervisor knows that has just taken it over.

A row says what was committed, and no more. What it says is running is in flight: the shim, the results file or the
plan tell what became of it (`recover.py`).
"""

from __future__ import annotations

import os
from typing import Literal

from ..model import Job, Reason, Step, instance_name, split_instance
from ..store.instances import frozen_numbers
from ..store.read import Reader, Run, StepState
from .clock import Clock
from .facts import Facts, StepFacts
from .history import CancelWished, Close, Ended

_REASONS: dict[str, Reason] = {"cancelled": "cancel", "timed_out": "deadline", "over_budget": "budget"}


def rebuild(
    reader: Reader, run: Run, job: Job, clock: Clock
) -> tuple[Facts, list[tuple[str, int]], list[Ended]]:
    """The facts of a run from its rows; the attempts that the record says are running; ends not decided on."""
    steps: dict[str, StepFacts] = {}
    in_flight: list[tuple[str, int]] = []
    ended: list[Ended] = []
    done: dict[int, StepFacts] = {}  # nothing of what has succeeded changes any more: equal ones are one
    for name, attempt in reader.succeeded(run.id):  # nearly all of them, after a crash late in a long run
        steps[name] = done.get(attempt) or done.setdefault(attempt, StepFacts("finished", "succeeded", attempt=attempt))
    for row in reader.step_states(run.id, but_succeeded=True):
        known = steps[row.instance] = StepFacts(
            state=row.state,
            outcome=row.outcome,
            reason=row.reason,  # type: ignore[arg-type]  # the words of the record are those of the model
            covered=bool(row.covered),
            attempt=row.attempt,
            tries=row.tries,
            interruptions=row.interruptions,
            due=row.due,
            asked="go" if row.asked else None,
            doubt=_doubt(job, row),
        )
        if row.instances is not None:
            _add_instances(reader, run, job.step(row.instance), row, known)
        if row.verifying and known.doubt is None:  # another file does not verify: what it says is asked anew
            known.state, known.due, known.running = "running", None, True
            ended.append(Ended(row.instance, row.attempt, "interrupted", 0, requested=True, reason="shutdown"))
        elif row.state == "running" and known.numbers is None:
            _running(reader, run, job, row, known, in_flight, ended)
    _open_untils(job, steps, in_flight)
    facts = Facts(
        job,
        seed=run.id,
        deadline_at=clock.deadline_at(job.deadline),
        max_parallel=job.slots(os.cpu_count() or 1),
        started=run.started_steps,
        steps=steps,
    )
    facts.stays = run.caller is not None
    for _ in range(reader.cancels_taken(run.id)):
        facts.apply(CancelWished(clock.now()))
    if run.closing is not None and run.closing_at is not None:
        # the handlers' five minutes are of a machine that is on: after a reboot they begin anew
        at = run.closing_at if run.boot_id == clock.boot_id else clock.now()
        facts.apply(Close(run.closing, _REASONS[run.closing], at))
    return facts, in_flight, ended


def _doubt(job: Job, row: StepState) -> Literal["verify", "ask"] | None:
    """A question stays whatever file the run goes on with; a `verify` is asked if that has one."""
    if row.question is not None:
        return "ask"
    step = job.step(split_instance(row.instance)[0])
    return "verify" if row.verifying and step.on_interrupt == "verify" else None


def _add_instances(reader: Reader, run: Run, step: Step, row: StepState, known: StepFacts) -> None:
    """What a step's own row knows of its instances."""
    if step.foreach is not None:
        known.numbers = frozen_numbers(reader.connection, run.id, step.id)
    elif step.repeat is not None:
        known.round, known.answered = row.instances or 0, row.answered


def _open_untils(job: Job, steps: dict[str, StepFacts], in_flight: list[tuple[str, int]]) -> None:
    """A loop that runs, and whose last round is done, was asking its `until`."""
    for step in job.steps:
        known = steps.get(step.id)
        if step.repeat is None or known is None or known.state != "running" or known.round <= known.answered:
            continue
        name = instance_name(step.id, known.round)
        last = steps.get(name)
        if last is not None and last.outcome in ("succeeded", "skipped"):
            known.running = True
            in_flight.append((name, 0))


def _running(
    reader: Reader,
    run: Run,
    job: Job,
    row: StepState,
    known: StepFacts,
    in_flight: list[tuple[str, int]],
    ended: list[Ended],
) -> None:
    """A step that the record says is running: its `if`, its attempt, or an end that nothing followed from yet."""
    step, number = job.step(split_instance(row.instance)[0]), split_instance(row.instance)[1]
    if step.repeat is not None and number < 0 and known.round:
        return  # its rounds run, or its `until` does
    if step.foreach is not None and number < 0:
        known.state = "queued"  # its list is to be found out again
        return
    if step.condition is not None and not row.asked and not (step.repeat is not None and number >= 0):
        known.state, known.running = "queued", True
        in_flight.append((row.instance, 0))
        return
    if known.doubt == "verify":
        known.running = True
        in_flight.append((row.instance, 0))
        return
    attempt = reader.attempt(run.id, row.instance, row.attempt) if row.attempt else None
    if attempt is None or (attempt.state == "finished" and attempt.outcome != "interrupted"):
        known.state = "queued"  # its `if` said go, and it waited for a slot
        return
    known.running = True
    if attempt.state == "running":
        in_flight.append((row.instance, attempt.number))
    else:  # interrupted by a stop: what follows was left to whoever goes on
        at = attempt.finished_at or 0
        ended.append(
            Ended(
                row.instance, attempt.number, "interrupted", at, requested=attempt.requested, reason="shutdown"
            )
        )
