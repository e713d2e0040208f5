"""What happens next in a run: a pure function of the job, the facts and the time. The law of agentrun.

    while decisions := decide(job, facts, now):
        for decision in decisions:
            facts.apply(decision)
    # then commit all of it at once, then act on it, then wait until something happens or until wake_at(facts)

`decide` changes no fact, asks no clock and has no chance in it: equal histories give equal decisions. Each
call is one small round; the rounds of a turn end when there is nothing left to decide. A round is the first
of these that has anything to say: the run is complete; what has ended is settled or waits; the run is being
stopped; the run closes; what cannot begin any more is settled, what may not go on is ended; steps begin; only
questions to a person are left, and the run is parked. So what ended in time has ended, however late that was
seen, and nothing begins before all that is known.

The rules are those of "The rules of a run" in the documentation. Each has one function or table: what follows an
attempt (`_after_attempt`), an `if`, a `verify` or an answer (`_after_…`), what is retried and when (`retries.py`),
what the end of a run lets go on (`BARRED`, `ENDED`), who begins (`_begin`), how a run ends (`_outcome`), what a
failed run takes up again (`reopen`, `requeued`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..model import Job, Outcome, Reason, Step, When, split_instance
from .facts import CLOSING_LIMIT, Facts, StepFacts
from .history import (
    Answered,
    Ask,
    BudgetSpent,
    CancelWished,
    Cause,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Gathered,
    Happened,
    Leave,
    Park,
    Question,
    Settle,
    Start,
    StopWished,
    Told,
    Unfold,
    Unfolded,
    Verify,
)
from .indices import RUN_ENDS
from .retries import delay_before_next, may_retry

__all__ = [
    "CLOSING_LIMIT", "Answered", "Ask", "BudgetSpent", "CancelWished", "Cause", "Close", "Complete", "Decision", "End",
    "Ended", "Facts", "Happened", "Leave", "Park", "Question", "Settle", "Start", "StepFacts", "StopWished", "Told",
    "Unfold", "Unfolded", "Verify", "decide", "reopen", "requeued", "wake_at",
]  # fmt: skip

MAX_INTERRUPTIONS = 3

# Which steps may not begin any more once a run is closed, and which of them are ended if they run.
EVERY: frozenset[When] = frozenset({"on_success", "on_failure", "always"})
BARRED: Mapping[Outcome, frozenset[When]] = {
    "cancelled": frozenset({"on_success", "on_failure"}),
    "timed_out": frozenset({"on_success"}),
    "over_budget": frozenset({"on_success"}),
}
# Under the budget of steps, what runs finishes; under another (`Facts.exceeded`) it does not.
ENDED: Mapping[Outcome, frozenset[When]] = {
    "cancelled": frozenset({"on_success", "on_failure"}),
    "timed_out": frozenset({"on_success"}),
    "over_budget": frozenset(),
}
OVERSPENT: frozenset[When] = frozenset({"on_success"})

# Why an attempt ended so, unless something else is said; a failed one is looked at more closely.
REASONS: Mapping[Outcome, Reason] = {"timed_out": "timeout", "cancelled": "cancel", "over_budget": "budget"}

# Skipped for one of these reasons, a step does not have to be made up for by `resume RUN`.
SETTLED_SKIPS: frozenset[Reason | None] = frozenset({"if", "on_interrupt", "done"})


def decide(job: Job, facts: Facts, now: int) -> list[Decision]:
    """The next decisions, in the order in which they are to be applied; empty if there is nothing to decide.

    `now` in ms since the epoch. Changes no fact; the cost is that of what changed, not of the size of the job.
    """
    if facts.completed is not None or facts.parked:
        return []
    if not facts.open_steps:
        return [Complete(_outcome(facts))]
    if verdicts := _verdicts(facts):
        return _with_instances(facts, verdicts)
    if facts.stopping:
        return _ends(facts, set().union(*facts.live.values()), "shutdown")
    facts.ripen(now)
    if close := _close(facts, now):
        return [close]
    return _with_instances(facts, _settle(facts)) or _begin(job, facts, now) or _leave(facts)


def wake_at(facts: Facts) -> int | None:
    """When to decide again even if nothing happens until then; None: only what happens can change anything."""
    if facts.completed is not None or facts.stopping:
        return None
    times = (facts.next_due(), _deadline(facts), facts.limit)
    return min((time for time in times if time is not None), default=None)


def _leave(facts: Facts) -> list[Decision]:
    """Park the run if nothing but answers can bring it on. Not once it is closed: its handlers have five minutes."""
    if not facts.asking or facts.closing or facts.stays or facts.slots_used or facts.undecided or facts.ready:
        return []
    return [Leave()] if facts.next_due() is None else []


def _outcome(facts: Facts) -> Outcome:
    if facts.closing:
        return facts.closing.outcome
    if facts.exceeded or facts.cut_short:
        return "over_budget"
    return "succeeded" if facts.first_failure is None else "failed"


def _close(facts: Facts, now: int) -> Close | None:
    """How the run begins to end, ends for a stronger reason, or ends for its handlers too."""
    closing = facts.closing
    deadline = _deadline(facts)
    if closing is None:
        if facts.cancels:
            return Close("cancelled", "cancel", now)
        if facts.exceeded:
            return Close("over_budget", "budget", now)
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
    for place in sorted(facts.unwanted):
        step = facts.step_at(place)
        if step.when not in barred:
            decisions.append(Settle(step.id, "skipped", "no_failure" if step.is_handler else "upstream"))
    decisions += _halt(facts)
    if closing is None:
        left = sorted(facts.idle["on_success"] - facts.unwanted) if facts.done else ()
        return [*decisions, *(Settle(facts.name_at(place), "skipped", "done") for place in left)]
    outcome, reason = _barred_as(closing)
    for place in sorted(set().union(*(facts.idle[when] for when in barred))):
        if not facts.is_halted(place):
            decisions.append(Settle(facts.name_at(place), outcome if _has_begun(facts, place) else "skipped", reason))
    ended = OVERSPENT if closing.outcome == "over_budget" and facts.exceeded else ENDED[closing.outcome]
    places = set().union(*(facts.live[when] for when in (EVERY if closing.final else ended)))
    return [*decisions, *_ends(facts, (one for one in places if not facts.is_halted(one)), RUN_ENDS[reason])]


def _with_instances(facts: Facts, decisions: list[Decision]) -> list[Decision]:
    """What is settled before it got to the instances that it would have gone on with: these are passed over."""
    if not facts.reopened:
        return decisions
    whole: list[Decision] = []
    for decision in decisions:
        if isinstance(decision, Settle):
            whole += [Settle(name, "skipped", decision.reason) for name in facts.left_below(decision.step)]
        whole.append(decision)
    return whole


def _halt(facts: Facts) -> list[Decision]:
    """One instance of a step with `fail_fast` has failed: what that means for the others."""
    if not facts.halted:
        return []
    idle = [place for places in facts.idle.values() for place in places if facts.is_halted(place)]
    live = (place for places in facts.live.values() for place in places if facts.is_halted(place))
    settled = (
        Settle(facts.name_at(place), "cancelled" if _has_begun(facts, place) else "skipped", "fail_fast")
        for place in sorted(idle)
    )
    return [*settled, *_ends(facts, live, "fail_fast")]


def _has_begun(facts: Facts, place: int) -> bool:
    return facts.facts_at(place).state != "queued"


def _ends(facts: Facts, places: Iterable[int], cause: Cause) -> list[Decision]:
    """End what runs there."""
    return [End(*facts.at_work(place), cause) for place in sorted(places)]


def _verdicts(facts: Facts) -> list[Decision]:
    """What follows each end, where it does not need a slot."""
    verdicts = (_verdict(facts, place) for place in sorted(facts.undecided))
    return [verdict for verdict in verdicts if verdict is not None]


def _verdict(facts: Facts, place: int) -> Decision | None:
    """What follows the end of an attempt, a condition or all instances. None: to begin again as soon as it can."""
    step, known = facts.step_at(place), facts.facts_at(place)
    name, news = facts.name_at(place), known.undecided
    closing = facts.closing if step.when in _barred(facts) else None
    match news:
        case Answered() if known.doubt:
            return _after_verify(step, name, known, news, _held_back(facts, place, closing))
        case Told():
            return _after_told(name, news, _held_back(facts, place, closing))
        case Answered() if known.round:
            return _after_until(step, known, news, closing)
        case Answered():
            return _after_answer(step, name, news, closing)
        case Unfolded():
            return Settle(name, "failed", "inputs", step.continue_on_error)
        case Gathered():
            return _after_instances(step, news, closing)
    assert news is not None
    if facts.stopping and news.outcome == "interrupted":
        return None  # decided when the run goes on
    verdict = _after_attempt(step, name, known, news, facts.seed)
    if isinstance(verdict, Settle):
        return verdict
    held_back = _held_back(facts, place, closing)
    return Settle(name, *held_back) if held_back else verdict


def _held_back(facts: Facts, place: int, closing: Close | None) -> tuple[Outcome, Reason] | None:
    """How it ends if it may not begin again."""
    if facts.is_halted(place):
        return "cancelled", "fail_fast"
    return _barred_as(closing) if closing else None


def _after_answer(step: Step, name: str, answer: Answered, closing: Close | None) -> Settle:
    """The `if` said no, or broke. That it broke while the run was closing says nothing about the step."""
    if answer.status == 1:
        return Settle(name, "skipped", "if")
    if closing:
        return Settle(name, "skipped", _barred_as(closing)[1])
    return Settle(name, "failed", "if_failed", step.continue_on_error)


def _after_until(step: Step, known: StepFacts, answer: Answered, closing: Close | None) -> Settle | Park:
    """The `until` after a round: 0 is enough, 1 is again, as often as the step allows."""
    assert step.repeat is not None
    if answer.status == 0:
        return Settle(step.id, "succeeded")
    if closing:
        return Settle(step.id, *_barred_as(closing))
    if answer.status != 1:
        return Settle(step.id, "failed", "until_failed", step.continue_on_error)
    if known.round >= step.repeat.max:
        return Settle(step.id, "failed", "max", step.continue_on_error)
    return Park(step.id, answer.at + step.repeat.interval)


def _after_verify(
    step: Step, name: str, known: StepFacts, answer: Answered, held_back: tuple[Outcome, Reason] | None
) -> Settle | Park | Question:
    """The `verify` has said whether the interrupted attempt did its work; if it cannot tell, a person has to."""
    if answer.status == 0:
        return Settle(name, "succeeded")
    if held_back:
        return Settle(name, *held_back)
    if answer.status != 1:
        return Question(name)
    if known.interruptions >= MAX_INTERRUPTIONS:
        return Settle(name, "failed", "interrupted", step.continue_on_error)
    return Park(name, answer.at)


def _after_told(name: str, told: Told, held_back: tuple[Outcome, Reason] | None) -> Settle | Park:
    """A person has said whether it took place."""
    if told.answer == "took_place":
        return Settle(name, "succeeded")
    return Settle(name, *held_back) if held_back else Park(name, told.at)


def _after_instances(step: Step, gathered: Gathered, closing: Close | None) -> Settle:
    """All instances are settled: one that failed fails the step, unless the end of the run came first."""
    if gathered.cut:  # by a budget of the run if the run goes on: its child runs found nothing left in it
        return Settle(step.id, *(_barred_as(closing) if closing else ("over_budget", "budget")))
    if gathered.failed:
        return Settle(step.id, "failed", "instances", step.continue_on_error)
    return Settle(step.id, "succeeded")


def _after_attempt(
    step: Step, name: str, known: StepFacts, ended: Ended, seed: str
) -> Settle | Park | Question | None:
    """What follows an attempt as long as nothing else ends the run."""
    match ended.outcome:
        case "succeeded":
            return Settle(name, "succeeded", ended.reason)
        case "interrupted":
            return _after_interruption(step, name, known)
        case "failed" | "timed_out" | "over_budget" if ended.reason not in RUN_ENDS:
            if known.tries < step.retry.max_attempts and may_retry(step.retry, ended.causes):
                return Park(name, ended.at + delay_before_next(step, known, ended, seed))
            return Settle(name, ended.outcome, _reason(ended), step.continue_on_error)
    return Settle(name, ended.outcome, _reason(ended))


def _after_interruption(step: Step, name: str, known: StepFacts) -> Settle | Question | None:
    if step.on_interrupt == "ask":
        return Question(name)
    if step.on_interrupt == "verify":
        return None  # it is asked before anything else
    if known.interruptions >= MAX_INTERRUPTIONS:
        return Settle(name, "failed", "interrupted", step.continue_on_error)
    match step.on_interrupt:
        case "skip":
            return Settle(name, "skipped", "on_interrupt")
        case "fail":
            return Settle(name, "failed", "on_interrupt", step.continue_on_error)
        case _:
            return None


def _reason(ended: Ended) -> Reason:
    """Why an attempt did not succeed, where the one who saw it end did not say."""
    if ended.reason:
        return ended.reason
    if ended.outcome == "failed":
        return "signal" if ended.signal else "exit"
    return REASONS[ended.outcome]


def _begin(job: Job, facts: Facts, now: int) -> list[Decision]:
    """Fill the free slots in file order: steps that are ready, due again, or to be rerun after an interruption."""
    slots = max(facts.max_parallel - facts.slots_used, 0)
    if facts.unheld:
        return []  # nobody could hold a process
    if facts.closing and facts.open_work:
        slots = 0  # handlers look after what is over
    reruns = sorted(facts.undecided)
    chosen = sorted([*reruns, *facts.first_ready(slots)])[:slots]
    if unfolding := [Unfold(facts.name_at(place)) for place in chosen if facts.is_folded(place)]:
        return list(unfolding)  # alone, or what comes later in the file would begin before their instances
    left = _steps_left(job, facts, len(chosen))
    decisions: list[Decision] = []
    for place in chosen:
        step = facts.step_at(place)
        name, attempt = facts.next_at(place)
        if facts.is_doubtful(place):
            decisions.append(Verify(facts.name_at(place)))
        elif attempt == 0:
            decisions.append(Ask(name))
        elif step.is_handler or left > 0:
            decisions.append(Start(name, attempt))
            left -= not step.is_handler
    if chosen and not decisions:
        return [Close("over_budget", "budget", now)]
    waiting = [place for place in reruns if place not in chosen]
    return [*decisions, *(Park(facts.name_at(place), now) for place in waiting)]


def _steps_left(job: Job, facts: Facts, wanted: int) -> int:
    """How many attempts the budgets of the run, of its day and of those that called it let begin."""
    if facts.used_up:
        return 0
    left = wanted if facts.lent is None else min(wanted, facts.lent)
    return left if job.budget.steps is None else min(left, job.budget.steps - facts.started - facts.started_below)


def reopen(job: Job, steps: Mapping[str, StepFacts]) -> list[str]:
    """The steps and instances that `resume RUN` of a failed run puts back to queued, in file order.

    All handlers, and what neither succeeded, nor was covered, nor was skipped for a reason of its own.
    """
    instances: dict[str, list[tuple[int, str]]] = {}
    for name in steps:
        step_id, number = split_instance(name)
        if number >= 0:
            instances.setdefault(step_id, []).append((number, name))
    unmet: list[str] = []
    for step in job.steps:
        if _is_unmet(step, steps[step.id]):
            unmet.append(step.id)
            unmet += [name for _, name in sorted(instances.get(step.id, ())) if _is_unmet(step, steps[name])]
    return unmet


def _is_unmet(step: Step, known: StepFacts) -> bool:
    if known.state != "finished":
        return False
    if step.is_handler:
        return True
    if known.outcome == "skipped":
        return known.reason not in SETTLED_SKIPS
    return known.outcome != "succeeded" and not known.covered


def requeued(step: Step, known: StepFacts) -> StepFacts:
    """The facts of a step or instance that is put back: attempts are numbered on, what counts against it begins anew.

    The answer to its `if` was a checkpoint and stands; that of a handler belonged to the end before this one. Rounds
    that succeeded stand, but for those of a handler; after the last one the `until` is asked again.
    """
    return StepFacts(
        attempt=known.attempt,
        asked=None if step.is_handler else known.asked,
        numbers=known.numbers,
        round=0 if step.is_handler else known.round,
        answered=0 if step.is_handler else max(min(known.answered, known.round - 1), 0),
    )
