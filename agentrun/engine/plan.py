"""What happens next in a run: a pure function of the job, the facts and the time. The law of agentrun.

    while decisions := decide(job, facts, now):
        for decision in decisions:
            facts.apply(decision)
    # then commit all of it at once, then act on it, then wait until something happens or until wake_at(facts)

`decide` changes no fact, asks no clock and has no chance in it: equal histories give equal decisions. Each
call is one small round; the rounds of a turn end when there is nothing left to decide. A round is the first
of these that has anything to say: the run is complete; what has ended is settled or waits; the run is being
stopped; the run closes; what cannot begin any more is settled, what may not go on is ended; steps begin.
So what ended in time has ended, however late that was seen, and nothing begins before all that is known.

The rules are those of "The rules of a run" in the documentation. Each has one function or table here:
what follows an attempt (`_after_attempt`) or an `if` (`_after_answer`), what is retried and when
(`_may_retry`, `_retry_delay`), which steps the end of a run lets go on (`BARRED`, `ENDED`), who begins
(`_begin`), how a run ends (`_outcome`), and what a failed run takes up again (`reopen`, `requeued`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from zlib import crc32

from ..model import Job, Outcome, Reason, Retry, Step, When
from .facts import CLOSING_LIMIT, Facts, StepFacts, must_ask
from .history import (
    Answered,
    Ask,
    CancelWished,
    Cause,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Happened,
    Park,
    Settle,
    Start,
    StopWished,
)

__all__ = [
    "CLOSING_LIMIT", "Answered", "Ask", "CancelWished", "Cause", "Close", "Complete", "Decision", "End", "Ended",
    "Facts", "Happened", "Park", "Settle", "Start", "StepFacts", "StopWished",
    "decide", "reopen", "requeued", "wake_at",
]  # fmt: skip

MAX_INTERRUPTIONS = 3

# Which steps may not begin any more once a run is closed, and which of them are ended if they run.
EVERY: frozenset[When] = frozenset({"on_success", "on_failure", "always"})
BARRED: Mapping[Outcome, frozenset[When]] = {
    "cancelled": frozenset({"on_success", "on_failure"}),
    "timed_out": frozenset({"on_success"}),
    "over_budget": frozenset({"on_success"}),
}
# Under a budget, what runs finishes.
ENDED: Mapping[Outcome, frozenset[When]] = {
    "cancelled": frozenset({"on_success", "on_failure"}),
    "timed_out": frozenset({"on_success"}),
    "over_budget": frozenset(),
}
RUN_ENDS: Mapping[Reason, Cause] = {"cancel": "cancel", "deadline": "deadline", "budget": "budget"}

# Why an attempt ended so, unless something else is said; a failed one is looked at more closely.
REASONS: Mapping[Outcome, Reason] = {"timed_out": "timeout", "cancelled": "cancel", "over_budget": "budget"}

# Causes that are not retried unless `on` names them; those of NEVER not even then.
UNLESS_NAMED = frozenset({"126", "127", "spawn", "outputs"})
NEVER = frozenset({"inputs"})

# Skipped for one of these reasons, a step does not have to be made up for by `resume RUN`.
SETTLED_SKIPS: frozenset[Reason | None] = frozenset({"if", "on_interrupt"})


def decide(job: Job, facts: Facts, now: int) -> list[Decision]:
    """The next decisions, in the order in which they are to be applied; empty if there is nothing to decide.

    `now` in ms since the epoch. Changes no fact; the cost is that of what changed, not of the size of the job.
    """
    if facts.completed is not None:
        return []
    if not facts.open_steps:
        return [Complete(_outcome(facts))]
    if verdicts := _verdicts(facts):
        return verdicts
    if facts.stopping:
        return _ends(facts, EVERY, "shutdown")
    facts.ripen(now)
    if close := _close(facts, now):
        return [close]
    return _settle(facts) or _begin(job, facts, now)


def wake_at(facts: Facts) -> int | None:
    """When to decide again even if nothing happens until then; None: only what happens can change anything."""
    if facts.completed is not None or facts.stopping:
        return None
    times = (facts.next_due(), _deadline(facts), facts.limit)
    return min((time for time in times if time is not None), default=None)


def _outcome(facts: Facts) -> Outcome:
    if facts.closing:
        return facts.closing.outcome
    return "succeeded" if facts.first_failure is None else "failed"


def _close(facts: Facts, now: int) -> Close | None:
    """How the run begins to end, ends for a stronger reason, or ends for its handlers too."""
    closing = facts.closing
    deadline = _deadline(facts)
    if closing is None:
        if facts.cancels:
            return Close("cancelled", "cancel", now)
        if deadline is not None and now >= deadline:
            return Close("timed_out", "deadline", now if facts.open_work else deadline - CLOSING_LIMIT)
        return None
    begun = now if facts.limit is None and not closing.final else closing.at
    if facts.cancels and closing.outcome != "cancelled":
        return Close("cancelled", "cancel", begun, closing.final)
    if closing.final:
        return None
    if facts.cancels > 1:
        return Close(closing.outcome, closing.reason, begun, final="cancel")
    if deadline is not None and now >= deadline:
        return Close("timed_out", "deadline", now)
    if facts.limit is None:
        return None if facts.open_work else Close(closing.outcome, closing.reason, now)
    return Close(closing.outcome, closing.reason, begun, final="deadline") if now >= facts.limit else None


def _deadline(facts: Facts) -> int | None:
    """When the deadline closes the run. Handlers stand outside it, but not for longer than after its end."""
    if facts.deadline_at is None:
        return None
    if facts.open_work:
        return facts.deadline_at if facts.closing is None or facts.closing.outcome == "over_budget" else None
    return facts.deadline_at + CLOSING_LIMIT if facts.closing is None else None


def _barred(facts: Facts) -> frozenset[When]:
    """Which steps may not begin any more."""
    if facts.closing is None:
        return frozenset()
    return EVERY if facts.closing.final else BARRED[facts.closing.outcome]


def _barred_as(closing: Close) -> tuple[Outcome, Reason]:
    """How a step ends that has begun and that the end of the run keeps from another attempt."""
    if closing.final == "deadline":
        return "timed_out", "deadline"
    return ("cancelled", "cancel") if closing.final == "cancel" else (closing.outcome, closing.reason)


def _settle(facts: Facts) -> list[Decision]:
    """Everything else that needs no slot: what its `when` or the end of the run keeps from beginning."""
    decisions: list[Decision] = []
    closing, barred = facts.closing, _barred(facts)
    for position in sorted(facts.unwanted):
        step = facts.step_at(position)
        if step.when not in barred:
            decisions.append(Settle(step.id, "skipped", "no_failure" if step.is_handler else "upstream"))
    if closing is None:
        return decisions
    outcome, reason = _barred_as(closing)
    for position in sorted(set().union(*(facts.idle[when] for when in barred))):
        begun = facts.facts_at(position).state != "queued"
        decisions.append(Settle(facts.step_at(position).id, outcome if begun else "skipped", reason))
    ended = EVERY if closing.final else ENDED[closing.outcome]
    return [*decisions, *_ends(facts, ended, RUN_ENDS[reason])]


def _ends(facts: Facts, whens: Iterable[When], cause: Cause) -> list[Decision]:
    """End what runs of these and was not told to yet."""
    decisions: list[Decision] = []
    for position in sorted(set().union(*(facts.live[when] for when in whens))):
        step, known = facts.step_at(position), facts.facts_at(position)
        decisions.append(End(step.id, 0 if must_ask(step, known) else known.attempt, cause))
    return decisions


def _verdicts(facts: Facts) -> list[Decision]:
    """What follows each end, where it does not need a slot."""
    verdicts = (_verdict(facts, position) for position in sorted(facts.undecided))
    return [verdict for verdict in verdicts if verdict is not None]


def _verdict(facts: Facts, position: int) -> Decision | None:
    """What follows the end of an attempt or an `if`. None: the step is to begin again as soon as it can."""
    step, known = facts.step_at(position), facts.facts_at(position)
    closing = facts.closing if step.when in _barred(facts) else None
    news = known.undecided
    if isinstance(news, Answered):
        return _after_answer(step, news, closing)
    assert news is not None
    if facts.stopping and news.outcome == "interrupted":
        return None  # decided when the run goes on
    verdict = _after_attempt(step, known, news, facts.seed)
    if closing and not isinstance(verdict, Settle):
        return Settle(step.id, *_barred_as(closing))
    return verdict


def _after_answer(step: Step, answer: Answered, closing: Close | None) -> Settle:
    """The `if` said no, or broke. That it broke while the run was closing says nothing about the step."""
    if answer.status == 1:
        return Settle(step.id, "skipped", "if")
    if closing:
        return Settle(step.id, "skipped", _barred_as(closing)[1])
    return Settle(step.id, "failed", "if_failed", step.continue_on_error)


def _after_attempt(step: Step, known: StepFacts, ended: Ended, seed: str) -> Settle | Park | None:
    """What follows an attempt as long as nothing else ends the run."""
    match ended.outcome:
        case "succeeded":
            return Settle(step.id, "succeeded")
        case "interrupted":
            return _after_interruption(step, known)
        case "failed" | "timed_out" if ended.reason not in RUN_ENDS:
            if known.tries < step.retry.max_attempts and _may_retry(step.retry, ended.causes):
                return Park(step.id, ended.at + _retry_delay(step, known, ended, seed))
            return Settle(step.id, ended.outcome, _reason(ended), step.continue_on_error)
    return Settle(step.id, ended.outcome, _reason(ended))


def _after_interruption(step: Step, known: StepFacts) -> Settle | None:
    if known.interruptions >= MAX_INTERRUPTIONS:
        return Settle(step.id, "failed", "interrupted", step.continue_on_error)
    match step.on_interrupt:
        case "skip":
            return Settle(step.id, "skipped", "on_interrupt")
        case "fail":
            return Settle(step.id, "failed", "on_interrupt", step.continue_on_error)
        case _:
            return None


def _reason(ended: Ended) -> Reason:
    """Why an attempt did not succeed, where the one who saw it end did not say."""
    if ended.reason:
        return ended.reason
    if ended.outcome == "failed":
        return "signal" if ended.signal else "exit"
    return REASONS[ended.outcome]


def _may_retry(retry: Retry, causes: tuple[str, ...]) -> bool:
    """Whether an attempt that failed for these causes may be followed by another."""
    if NEVER.intersection(causes) or _names_any(retry.never_on, causes):
        return False
    if retry.on:
        return _names_any(retry.on, causes)
    return UNLESS_NAMED.isdisjoint(causes)


def _names_any(entries: tuple[str, ...], causes: tuple[str, ...]) -> bool:
    return any(_names(entry, cause) for entry in entries for cause in causes)


def _names(entry: str, cause: str) -> bool:
    """`75` and `timeout` name themselves, `100-110` the exit statuses from 100 to 110."""
    if entry == cause:
        return True
    low, _, high = entry.partition("-")
    return cause.isdecimal() and low.isdecimal() and high.isdecimal() and int(low) <= int(cause) <= int(high)


def _retry_delay(step: Step, known: StepFacts, ended: Ended, seed: str) -> int:
    """How long to wait before the next attempt, in ms: what the step asked for, else growing with each failure."""
    if ended.retry_after is not None:
        return ended.retry_after
    retry = step.retry
    delay = min(retry.max_interval, retry.interval)
    if delay and retry.backoff != 1:
        try:
            delay = int(min(retry.max_interval, retry.interval * retry.backoff ** (known.tries - 1)))
        except OverflowError:
            delay = retry.max_interval
    if retry.jitter == "none":
        return delay
    # Chance would not be pure: each attempt of each run has its own fixed place in the interval.
    return crc32(f"{seed}/{step.id}/{ended.attempt}".encode()) * (delay + 1) >> 32


def _begin(job: Job, facts: Facts, now: int) -> list[Decision]:
    """Fill the free slots in file order: steps that are ready, due again, or to be rerun after an interruption."""
    slots = max(facts.max_parallel - facts.slots_used, 0)
    if facts.closing and facts.open_work:
        slots = 0  # handlers look after what is over
    reruns = sorted(facts.undecided)
    chosen = sorted([*reruns, *facts.first_ready(slots)])[:slots]
    budget = job.budget.steps
    left = len(chosen) if budget is None else budget - facts.started
    decisions: list[Decision] = []
    for position in chosen:
        step, known = facts.step_at(position), facts.facts_at(position)
        if must_ask(step, known):
            decisions.append(Ask(step.id))
        elif step.is_handler or left > 0:
            decisions.append(Start(step.id, known.attempt + 1))
            left -= not step.is_handler
    if chosen and not decisions:
        return [Close("over_budget", "budget", now)]
    waiting = [position for position in reruns if position not in chosen]
    return [*decisions, *(Park(facts.step_at(position).id, now) for position in waiting)]


def reopen(job: Job, steps: Mapping[str, StepFacts]) -> list[str]:
    """The steps that `resume RUN` of a failed run puts back to queued, in file order.

    All handlers, and what neither succeeded, nor was covered, nor was skipped for a reason of its own.
    """
    return [step.id for step in job.steps if _is_unmet(step, steps[step.id])]


def _is_unmet(step: Step, known: StepFacts) -> bool:
    if known.state != "finished":
        return False
    if step.is_handler:
        return True
    if known.outcome == "skipped":
        return known.reason not in SETTLED_SKIPS
    return known.outcome != "succeeded" and not known.covered


def requeued(step: Step, known: StepFacts) -> StepFacts:
    """The facts of a step that is put back: attempts are numbered on, what counts against it begins anew.

    The answer to its `if` was a checkpoint and stands; that of a handler belonged to the end before this one.
    """
    return StepFacts(attempt=known.attempt, asked=None if step.is_handler else known.asked)
