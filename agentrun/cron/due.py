"""Which tick of a job is to run now, and what becomes of those before it: pure, so that histories test it.

Everything up to `settled` is accounted for. Behind it, the newest tick belongs to whoever was just started by a
scheduler (`fired`); a look that nobody fired leaves a tick alone until it is late: then cron had its time for it.

    catch_up    a scheduler fires us                        somebody looks, and ticks are late
    none        the newest runs, the others were missed     all were missed
    latest      the newest runs, the others were missed     the newest late one runs, the others were missed
    all         the oldest of them all runs first           the oldest runs

More than 100 are not caught up with, nor one that is older than `start_deadline`. One tick at a time: who has run it
asks again. Ticks that are a run's, or have been skipped, have their account already, and are not missed besides. That
the newest was called missed keeps it from nobody who is fired for it: cron may be late, and clocks are put right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Protocol

from ..store.jobs import Unrun, UnrunReason

LATE = 90_000  # ms after which a tick that nobody has begun was missed: cron wakes once a minute
AT_MOST = 100  # ticks that are caught up with

CatchUp = Literal["none", "latest", "all"]


class Ticks(Protocol):
    """When a job is due; ms since the epoch (cron/ticks.py)."""

    def next(self, after: int) -> int | None: ...
    def last(self, until: int) -> int | None: ...
    def count(self, after: int, until: int) -> int: ...


class Rules(NamedTuple):
    """What a job says about its ticks; `jitter` is how much later than its tick it begins here. In ms."""

    catch_up: CatchUp = "none"
    start_deadline: int | None = None
    jitter: int = 0


class Due(NamedTuple):
    """`own`: the tick to run now, if any. `unrun`: those that will not run. With both, `settled` is reached.

    `due_at`: when somebody has to look again, if nobody is fired before.
    """

    own: int | None
    unrun: tuple[Unrun, ...]
    settled: int
    due_at: int | None


def due(
    ticks: Ticks,
    rules: Rules,
    settled: int | None,
    now: int,
    *,
    fired: bool,
    taken: Collection[int] = (),
    told: Sequence[tuple[int, int]] = (),
) -> Due:
    """What is to be done about the ticks of a job.

    `settled`: None for a job of which nothing is known. `taken`: ticks behind it, and the newest, that are a run's.
    `told`: first and last of those that were skipped, and say so.
    """
    newest = ticks.last(now)
    until = newest if fired else ticks.last(now - rules.jitter - LATE)
    if settled is None or until is None or until <= settled:  # only the newest may be left to run
        reached = settled if settled is not None else newest if newest is not None else now
        if not fired or newest is None or newest in taken or any(first <= newest <= last for first, last in told):
            return _due(ticks, rules, None, (), reached)
        if rules.start_deadline is not None and now - newest > rules.start_deadline:
            late_one = Unrun(newest, newest, 1, "missed", "start_deadline")
            return _due(ticks, rules, None, (late_one,) if settled is None else (), reached)
        return _due(ticks, rules, newest, (), reached)
    open_ones = _newest(ticks, settled, until, taken)
    wanted, late = open_ones, rules.start_deadline
    if late is not None:
        wanted = [tick for tick in wanted if now - tick <= late]
    if rules.catch_up != "all":
        wanted = [tick for tick in wanted[-1:] if rules.catch_up == "latest" or (fired and tick == newest)]
    own = wanted[0] if wanted else None
    end = until if own is None else own - 1
    unrun: list[Unrun] = []
    if end > settled:
        limit = open_ones[0] - 1 if len(open_ones) == AT_MOST and rules.catch_up == "all" else settled
        old = end if late is None else min(max(now - late - 1, settled), end)
        begin = settled
        for reach, reason in _reasons(rules, settled, limit, old, end, has_deadline=late is not None):
            unrun += _missed(ticks, begin, reach, reason, taken, told)
            begin = max(begin, reach)
    return _due(ticks, rules, own, tuple(unrun), until if own is None else own)


def _reasons(
    rules: Rules, settled: int, limit: int, old: int, end: int, *, has_deadline: bool
) -> list[tuple[int, UnrunReason]]:
    """Up to which moment ticks were missed for which reason, in order."""
    if rules.catch_up == "none":
        return [(end, "catch_up")] if not has_deadline or old < end else [(end, "start_deadline")]
    reasons: list[tuple[int, UnrunReason]] = []
    if has_deadline and old > settled:
        reasons.append((old, "start_deadline"))
    if limit > settled:
        reasons.append((min(limit, end), "limit"))
    return [*reasons, (end, "catch_up")]


def _newest(ticks: Ticks, after: int, until: int, taken: Collection[int]) -> list[int]:
    """The newest 100 ticks that are nobody's, oldest first."""
    found: list[int] = []
    tick = ticks.last(until)
    while tick is not None and tick > after and len(found) < AT_MOST:
        if tick not in taken:
            found.append(tick)
        tick = ticks.last(tick - 1)
    return found[::-1]


def _missed(
    ticks: Ticks,
    after: int,
    until: int,
    reason: UnrunReason,
    taken: Collection[int],
    told: Sequence[tuple[int, int]],
) -> list[Unrun]:
    """A row for each stretch of ticks that has no account yet."""
    known = sorted([*((tick, tick) for tick in taken), *told])
    stretches: list[Unrun] = []
    for first, last in [*known, (until + 1, until + 1)]:
        end = min(first - 1, until)
        if end > after:
            begin, final = ticks.next(after), ticks.last(end)
            if begin is not None and final is not None and begin <= final:
                stretches.append(Unrun(begin, final, ticks.count(after, end), "missed", reason))
        after = max(after, min(last, until))
    return stretches


def _due(ticks: Ticks, rules: Rules, own: int | None, unrun: tuple[Unrun, ...], settled: int) -> Due:
    upcoming = ticks.next(settled)
    return Due(own, unrun, settled, None if upcoming is None else upcoming + rules.jitter + LATE)
