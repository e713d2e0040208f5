"""The plan against its law: the histories of histories.txt, and small tables for what a history would not show.

A job is `step; step | limits`. A step is its id and any of: `needs=a,b` (nothing after `=`: none; left out: as
in a job file), `when=`, `if`, `coe` (continue_on_error), `skip`, `fail`, `verify`, `ask` (on_interrupt), `job`,
`retry=` (max_attempts, without jitter), `interval=`, `max=`, `backoff=`, `on=`, `never_on=`; `each=N` (foreach over N
items; `each=none`: the list cannot be had), `par=` (its max_parallel), `fast` (fail_fast); `loop=N` (repeat, at most N
rounds), `every=` (its interval). Limits: `parallel=`, `budget=`, `deadline=`, `child=1` (the run is a step of another).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentrun.engine import retries
from agentrun.engine.plan import (
    Answered,
    Ask,
    BudgetSpent,
    CancelWished,
    Close,
    Complete,
    Decision,
    End,
    Ended,
    Facts,
    Happened,
    Leave,
    Park,
    Question,
    Settle,
    Start,
    StepFacts,
    StopWished,
    Told,
    Unfold,
    Unfolded,
    Verify,
    decide,
    reopen,
    requeued,
    wake_at,
)
from agentrun.model import Budget, Job, Repeat, Retry, Step, split_instance


def parse_step(text: str, index: int, above: tuple[str, ...]) -> Step:
    step_id, *words = text.split()
    options = dict(word.partition("=")[::2] for word in words)
    when = options.get("when", "on_success")
    needs = tuple(filter(None, options["needs"].split(","))) if "needs" in options else above
    if "needs" not in options and when == "on_success":
        needs = above[-1:]
    return Step(
        id=step_id,
        index=index,
        needs=needs,
        run=None if "job" in options else "true",
        job="child.yaml" if "job" in options else None,
        condition="true" if "if" in options else None,
        when=when,  # type: ignore[arg-type]
        continue_on_error="coe" in options,
        on_interrupt=next((word for word in ("skip", "fail", "verify", "ask") if word in options), "rerun"),
        verify="true" if "verify" in options else None,
        retry=Retry(
            max_attempts=int(options.get("retry", 1)),
            interval=int(options.get("interval", 1000)),
            backoff=float(options.get("backoff", 2)),
            max_interval=int(options.get("max", 300_000)),
            jitter="none",
            on=tuple(options["on"].split(",")) if "on" in options else (),
            never_on=tuple(options["never_on"].split(",")) if "never_on" in options else (),
        ),
        foreach=None if "each" not in options else "none" if options["each"] == "none" else [0] * int(options["each"]),
        max_parallel=int(options["par"]) if "par" in options else None,
        fail_fast="fast" in options,
        repeat=Repeat("true", int(options["loop"]), int(options.get("every", 0))) if "loop" in options else None,
    )


def parse_job(line: str) -> tuple[Job, Facts]:
    """A job and the facts of a run of it that has just been created."""
    text, _, limits = line.partition("|")
    steps: list[Step] = []
    for part in text.split(";"):
        steps.append(parse_step(part, len(steps), tuple(step.id for step in steps)))
    limit = {key: int(value) for key, _, value in (word.partition("=") for word in limits.split())}
    job = Job(name="job", steps=tuple(steps), budget=Budget(limit.get("budget")))
    parallel = limit.get("parallel", 16)
    facts = Facts(job, seed="r1", deadline_at=limit.get("deadline"), max_parallel=parallel)
    facts.stays = "child" in limit
    return job, facts


def parse_event(text: str, facts: Facts, now: int) -> Happened | None:
    """`a HOW [after MS]`, `a if N|lost`, `a[1] until N|lost`, `a verify N|lost`, `a told ANSWER`, `cancel`,
    `stop`; `-` is nothing but time.

    `spent`: a budget other than that of steps is used up; `overspent`: more was spent than there was;
    `below N`: child runs have started so many attempts. HOW is one of:
    ok, exit N, sig NAME, raise NAMES, cause NAME, timeout, cancelled, deadline, over (its own budget), oom, budget
    (the run's), halted (fail_fast), child OUTCOME (the run that the step is ended so),
    lost (an interruption), shut (one that was asked for).
    """
    match text.split():
        case ["-"]:
            return None
        case ["cancel"]:
            return CancelWished(now)
        case ["stop"]:
            return StopWished(now)
        case ["below", count]:
            facts.started_below = int(count)
            return None
        case ["spent" | "overspent" as how]:
            return BudgetSpent(how == "overspent", now)
        case [step, "told", answer]:
            return Told(step, answer, now)  # type: ignore[arg-type]
        case [step, "if" | "until" | "verify", status]:
            return Answered(step, None if status == "lost" else int(status), now)
        case [step, *words, "after", after]:
            ended = parse_event(f"{step} {' '.join(words)}", facts, now)
            assert isinstance(ended, Ended)
            return ended._replace(retry_after=int(after))
        case [step, kind, *words]:
            end = Ended(step, facts.steps[step].attempt, "failed", now)
            match kind:
                case "exit":
                    return end._replace(causes=tuple(words), exit_code=int(words[0]))
                case "sig":
                    return end._replace(causes=("signal", *words), signal=words[0])
                case "raise":
                    return end._replace(causes=("1", *words), exit_code=1)
                case "child":  # how the run ended that the step is
                    outcomes = {"failed": "1", "timed_out": "timeout", "over_budget": "budget"}
                    outcome: Any = words[0]
                    return end._replace(outcome=outcome, reason="child", causes=(outcomes[words[0]],))
                case "cause":
                    return end._replace(causes=tuple(words), reason=words[0])  # type: ignore[arg-type]
            others: dict[str, Ended] = {
                "ok": end._replace(outcome="succeeded"),
                "timeout": end._replace(outcome="timed_out", causes=("timeout",)),
                "lost": end._replace(outcome="interrupted"),
                "shut": end._replace(outcome="interrupted", requested=True, reason="shutdown"),
                "cancelled": end._replace(outcome="cancelled", reason="cancel"),
                "deadline": end._replace(outcome="timed_out", reason="deadline"),
                "budget": end._replace(outcome="over_budget", reason="budget"),
                "halted": end._replace(outcome="cancelled", reason="fail_fast"),
                "over": end._replace(outcome="over_budget", reason="tokens", causes=("budget",)),
                "oom": end._replace(outcome="over_budget", reason="oom", causes=("oom",)),
            }
            return others[kind]
    raise ValueError(text)


def show(decision: Decision) -> str:
    match decision:
        case Unfold(step):
            return f"unfold {step}"
        case Ask(step):
            return f"ask {step}"
        case Verify(step):
            return f"verify {step}"
        case Question(step):
            return f"question {step}"
        case Leave():
            return "leave"
        case Start(step, attempt):
            return f"start {step}#{attempt}"
        case Park(step, until):
            return f"park {step} {until}"
        case Settle(step, outcome, reason, covered):
            return " ".join(filter(None, [step, outcome, reason, "covered" * covered]))
        case End(step, attempt, cause):
            return f"end {step}#{attempt} {cause}"
        case Close(outcome, _, _, final):
            return f"close! {outcome} {final}" if final else f"close {outcome}"
        case Complete(outcome):
            return f"complete {outcome}"


def unfolded(job: Job, step: str, now: int) -> Unfolded:
    """What the supervisor finds out about the list of a step."""
    items = job.step(step).foreach
    return Unfolded(step, None if items == "none" else range(len(items)), now)


def turn(job: Job, facts: Facts, now: int) -> list[Decision]:
    """One turn of the supervisor's loop."""
    decided: list[Decision] = []
    while decisions := decide(job, facts, now):
        for decision in decisions:
            facts.apply(decision)
            if isinstance(decision, Unfold):
                facts.apply(unfolded(job, decision.step, now))
        decided += decisions
        assert len(decided) < 10 * len(facts.steps) + 10, "a turn without an end"
    return decided


def reloaded(job: Job, facts: Facts) -> Facts:
    """What a new supervisor knows: the rows of the steps and of the run, and none of what they were made from."""
    rows = {step: replace(row, ending=None, undecided=None) for step, row in facts.steps.items()}
    fresh = Facts(
        job,
        seed=facts.seed,
        deadline_at=facts.deadline_at,
        max_parallel=facts.max_parallel,
        started=facts.started,
        steps=rows,
    )
    fresh.stays = facts.stays
    for _ in range(facts.cancels):
        fresh.apply(CancelWished(facts.clock))
    if facts.closing:
        fresh.apply(facts.closing._replace(final=None))
    return fresh


def reopened(job: Job, facts: Facts, expected: list[str]) -> Facts:
    """What `resume RUN` of a failed run makes of it."""
    again = reopen(job, facts.steps)
    assert again == expected
    rows = {
        name: requeued(job.step(split_instance(name)[0]), row) if name in again else row
        for name, row in facts.steps.items()
    }
    parallel, started = facts.max_parallel, facts.started
    return Facts(job, seed="r1", deadline_at=None, max_parallel=parallel, started=started, steps=rows)


def replay(job_line: str, lines: list[str]) -> None:
    job, facts = parse_job(job_line)
    now = 0
    for line in lines:
        said, _, expected = line.partition(">")
        if said.startswith("@"):
            clock, _, said = said.partition(" ")
            now = int(clock[1:])
        match said.split():
            case ["reload"]:
                facts = reloaded(job, facts)
            case ["reopen", *steps]:
                facts = reopened(job, facts, steps)
            case _:
                for part in said.split("+"):
                    if event := parse_event(part, facts, now):
                        facts.apply(event)
        wanted = [part.strip() for part in expected.split(",") if part.strip()]
        got = [show(decision) for decision in turn(job, facts, now)]
        if wanted and wanted[-1].startswith("wake"):
            wake = wake_at(facts)
            got.append(f"wake {'none' if wake is None else wake}")
        assert got == wanted, line


def histories() -> list[tuple[str, str, list[str]]]:
    text = (Path(__file__).parent / "histories.txt").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    blocks = [block.strip().splitlines() for block in lines.split("\n\n") if block.strip()]
    return [(block[0], block[1], block[2:]) for block in blocks]


@pytest.mark.parametrize(("title", "job", "lines"), histories(), ids=lambda x: x if isinstance(x, str) else "")
def test_history(title: str, job: str, lines: list[str]) -> None:
    replay(job, lines)


def test_decide_changes_nothing_and_repeats_itself() -> None:
    job, facts = parse_job("a retry=2 interval=10; b needs=; c needs=a,b if; h when=always | parallel=1")
    for event in ["-", "a exit 1", "b ok", "a ok", "cancel"]:
        if happened := parse_event(event, facts, 20):
            facts.apply(happened)
        for _ in range(9):
            before = deepcopy(facts.steps)
            decisions = decide(job, facts, 20)
            assert facts.steps == before
            assert decide(job, facts, 20) == decisions
            for decision in decisions:
                facts.apply(decision)
        assert decisions == []


@pytest.mark.parametrize(
    ("entry", "cause", "named"),
    [
        ("75", "75", True), ("75", "175", False), ("100-110", "100", True), ("100-110", "110", True),
        ("100-110", "99", False), ("100-110", "111", False), ("100-110", "signal", False), ("110-100", "105", False),
        ("0-5", "-1", False), ("-5", "5", False), ("5-", "5", False), ("timeout", "timeout", True),
        ("SIGSEGV", "SIGSEGV", True), ("Error", "OSError", False), ("a-b", "a-b", True), ("a-b", "1", False),
    ],
)  # fmt: skip
def test_what_an_entry_of_on_names(entry: str, cause: str, named: bool) -> None:
    assert retries._names(entry, cause) is named


@pytest.mark.parametrize(
    ("retry", "tries", "delay"),
    [
        (Retry(interval=1000), 1, 1000), (Retry(interval=1000), 2, 2000), (Retry(interval=1000), 9, 256_000),
        (Retry(interval=1000), 10, 300_000), (Retry(interval=1000), 100_000, 300_000), (Retry(interval=0), 100_000, 0),
        (Retry(interval=1000, backoff=1.0), 100_000, 1000), (Retry(interval=1000, backoff=0.5), 3, 250),
        (Retry(interval=600_000), 1, 300_000), (Retry(interval=1000, backoff=1.5), 3, 2250),
    ],
)  # fmt: skip
def test_delay_without_jitter(retry: Retry, tries: int, delay: int) -> None:
    step = Step("a", 0, retry=replace(retry, jitter="none"))
    assert retries.delay_before_next(step, StepFacts(tries=tries), Ended("a", tries, "failed", 0), "r1") == delay


def test_full_jitter_is_spread_evenly_over_the_delay() -> None:
    step = Step("a", 0, retry=Retry(interval=1000))
    ended = Ended("a", 1, "failed", 0)
    delays = [retries.delay_before_next(step, StepFacts(tries=1), ended, f"run-{n}") for n in range(10_000)]
    assert min(delays) >= 0 and max(delays) <= 1000
    tenths = [sum(1 for delay in delays if tenth * 100 <= delay < tenth * 100 + 100) for tenth in range(10)]
    assert all(850 < count < 1150 for count in tenths)
    assert delays[7] == retries.delay_before_next(step, StepFacts(tries=1), ended, "run-7")


def test_first_failure_is_the_first_in_time() -> None:
    job, facts = parse_job("a coe; b needs=; c needs=; h when=on_failure")
    turn(job, facts, 0)
    for event in ["a exit 1", "c exit 2", "b exit 3", "h exit 4"]:
        happened = parse_event(event, facts, 0)
        assert happened
        facts.apply(happened)
        turn(job, facts, 0)
    assert facts.first_failure == "c"
    assert facts.completed == "failed"


def test_load_and_ready_up_are_as_good_as_the_constructor() -> None:
    job, facts = parse_job("a; b; c")
    facts.load("a", StepFacts(state="finished", outcome="succeeded", attempt=1))
    facts.ready_up()
    assert turn(job, facts, 0) == [Start("b", 1)]


def test_news_is_told_from_what_is_known() -> None:
    job, facts = parse_job("a if; b")
    turn(job, facts, 0)
    assert not facts.apply(Ended("a", 0, "failed", 0)), "the if is answered, not ended"
    assert facts.apply(Answered("a", 0, 0))
    assert not facts.apply(Answered("a", 1, 0))
    turn(job, facts, 0)
    assert not facts.apply(Answered("a", 1, 0))
    assert not facts.apply(Ended("a", 2, "failed", 0))
    assert facts.apply(Ended("a", 1, "succeeded", 0))
    assert not facts.apply(Ended("a", 1, "succeeded", 0))
