"""What the history of a run is made of: what happened to it, and what the plan decided.

Happened: `Ended`, `Answered`, `CancelWished`, `StopWished`. Decided: `Ask`, `Start`, `Park`, `Settle`, `End`,
`Close`, `Complete`. `Facts.apply` takes both. Times are wall times, in ms since the epoch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..model import Outcome, Reason

Cause = Literal["cancel", "deadline", "shutdown", "budget"]


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
    """The `if` of a step ended with this status; None: it was interrupted or never ran, so it is asked again."""

    step: str
    status: int | None
    at: int


class CancelWished(NamedTuple):
    at: int


class StopWished(NamedTuple):
    """The supervisor was told to stop: the run is to be interrupted, and resumed some other time."""

    at: int


class Ask(NamedTuple):
    """Run the step's `if` (attempt 0). The step stays `queued`."""

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
    """End this attempt (0: the step's `if`) and all its processes."""

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


class Complete(NamedTuple):
    outcome: Outcome


Happened = Ended | Answered | CancelWished | StopWished
Decision = Ask | Start | Park | Settle | End | Close | Complete
