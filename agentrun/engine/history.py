"""What the history of a run is made of: what happened to it, and what the plan decided.

Happened: `Ended`, `Answered`, `Told`, `Unfolded`, `BudgetSpent`, `CancelWished`, `StopWished`. Decided: `Unfold`,
`Ask`, `Verify`, `Question`, `Start`, `Park`, `Settle`, `End`, `Close`, `Leave`, `Complete`. `Facts.apply` takes both.
Times are wall times, in ms since the epoch. `step` is the name of a step, or of an instance or round of it:
`quote[3]`. Attempt 0 is a condition: of a step or an instance its `if`, of a round the `until` that follows it; of
what was interrupted its `verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..model import Outcome, Reason

Answer = Literal["took_place", "rerun"]  # what a person says of an attempt whose end nobody saw
Cause = Literal["cancel", "deadline", "shutdown", "budget", "fail_fast"]


class Ended(NamedTuple):
    """An attempt is over. `causes` is what `retry.on` may name; `retry_after` in ms; `requested`: we asked for it."""

    step: str
    attempt: int
    outcome: Outcome
    at: int
    causes: tuple[str, ...] = ()
    requested: bool = False
    retry_after: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: Reason | None = None
    message: str | None = None


class Answered(NamedTuple):
    """A condition ended with this status; None: it was interrupted or never ran, so it is asked again."""

    step: str
    status: int | None
    at: int


class Told(NamedTuple):
    """A person has answered the question about an interrupted attempt."""

    step: str
    answer: Answer
    at: int


class Unfolded(NamedTuple):
    """The list of a `foreach` is known: the numbers of its instances, in its order. None: it cannot be had."""

    step: str
    numbers: Sequence[int] | None
    at: int


class Gathered(NamedTuple):
    """All instances of a step are settled: one `failed`, or the end of the run `cut` one off. Facts tell it themselves.
    """

    step: str
    failed: bool
    cut: bool


class BudgetSpent(NamedTuple):
    """Nothing is left of a budget of the run but that of steps, which the plan knows; `exceeded`: more was spent."""

    exceeded: bool
    at: int


class CancelWished(NamedTuple):
    at: int


class StopWished(NamedTuple):
    """The supervisor was told to stop: the run is to be interrupted, and resumed some other time."""

    at: int


class Unfold(NamedTuple):
    """Find out for what the step is to be run; `Unfolded` answers. Takes no slot."""

    step: str


class Ask(NamedTuple):
    """Run a condition (attempt 0). A step whose `if` it is stays `queued`."""

    step: str


class Verify(NamedTuple):
    """Run the `verify` of what was interrupted (attempt 0): 0, it did take place; 1, it did not; else a person says."""

    step: str


class Question(NamedTuple):
    """The step waits until a person says whether its interrupted attempt did its work."""

    step: str


class Start(NamedTuple):
    step: str
    attempt: int


class Park(NamedTuple):
    """The step waits until then for its next attempt; until now: for a slot."""

    step: str
    until: int


class Settle(NamedTuple):
    """The step is finished. `covered`: it failed, and `continue_on_error` lets the others see success."""

    step: str
    outcome: Outcome
    reason: Reason | None = None
    covered: bool = False


class End(NamedTuple):
    """End this attempt (0: a condition) and all its processes."""

    step: str
    attempt: int
    cause: Cause


class Close(NamedTuple):
    """The run begins to end; `at`: since when its handlers have their five minutes.

    Decided again when a stronger outcome comes, when what a budget let run is over, and with `final`, which says
    why the handlers have to end too: `cancel`, a second one; `deadline`, their time is over. The last one counts;
    without its `final` it comes to the same.
    """

    outcome: Outcome
    reason: Reason
    at: int
    final: Literal["cancel", "deadline"] | None = None


class Leave(NamedTuple):
    """Nothing goes on without an answer, so nobody needs to stay: the run is parked. `Told` or a cancel goes on."""


class Complete(NamedTuple):
    outcome: Outcome


Happened = Ended | Answered | Told | Unfolded | BudgetSpent | CancelWished | StopWished
Decision = Unfold | Ask | Verify | Question | Start | Park | Settle | End | Close | Leave | Complete
