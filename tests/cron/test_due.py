"""What is due, as a table of histories: ticks every ten minutes, written as minutes of one hour.

    settled | now | how | rules | runs and skips behind settled -> own tick, what did not run, settled, looked at again
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from agentrun.cron.due import AT_MOST, LATE, Rules, due
from agentrun.store.jobs import Unrun

MINUTE = 60_000


class Every(NamedTuple):
    """A calendar with a tick every so many minutes, from minute 0 on."""

    minutes: int = 10

    def next(self, after: int) -> int | None:
        step = self.minutes * MINUTE
        return max(after // step + 1, 0) * step

    def last(self, until: int) -> int | None:
        step = self.minutes * MINUTE
        return until // step * step if until >= 0 else None

    def count(self, after: int, until: int) -> int:
        step = self.minutes * MINUTE
        return max(until // step - after // step, 0)


def at(minute: float | None) -> int | None:
    return None if minute is None else round(minute * MINUTE)


NONE, LATEST, ALL = Rules("none"), Rules("latest"), Rules("all")

# settled, now, fired, rules, taken, told -> own, [(first, last, number, reason)], settled
HISTORIES = [
    ("its first tick", None, 30.1, True, NONE, (), (), 30, [], 30),
    ("its first tick is another's", None, 30.1, True, NONE, (30,), (), None, [], 30),
    ("nothing is known and nobody fires", None, 30.1, False, ALL, (), (), None, [], 30),
    ("in time", 20, 30.1, True, NONE, (), (), 30, [], 30),
    ("fired twice", 30, 30.5, True, NONE, (30,), (), None, [], 30),
    ("fired between ticks", 30, 35, True, ALL, (30,), (), None, [], 30),
    ("called missed a moment ago", 30, 35, True, NONE, (), (), 30, [], 30),
    ("skipped a moment ago", 30, 35, True, NONE, (), ((20, 30),), None, [], 30),
    ("called missed, and too old by now", 30, 38, True, Rules("none", 5 * MINUTE), (), (), None, [], 30),
    ("its first tick is too old", None, 38, True, Rules("none", 5 * MINUTE), (), (),
     None, [(30, 30, 1, "start_deadline")], 30),
    ("a look at what is not late", 20, 31, False, ALL, (), (), None, [], 20),
    ("a look at what is late: none", 20, 32, False, NONE, (), (), None, [(30, 30, 1, "catch_up")], 30),
    ("a look at what is late: latest", 20, 32, False, LATEST, (), (), 30, [], 30),
    ("off for half an hour: none", 0, 52, False, NONE, (), (), None, [(10, 50, 5, "catch_up")], 50),
    ("off for half an hour: latest", 0, 52, False, LATEST, (), (), 50, [(10, 40, 4, "catch_up")], 50),
    ("off for half an hour: all", 0, 52, False, ALL, (), (), 10, [], 10),
    ("and on", 10, 52, False, ALL, (), (), 20, [], 20),
    ("the newest is not late yet", 0, 50.5, False, LATEST, (), (), 40, [(10, 30, 3, "catch_up")], 40),
    ("back with cron: none", 0, 50.1, True, NONE, (), (), 50, [(10, 40, 4, "catch_up")], 50),
    ("back with cron: latest", 0, 50.1, True, LATEST, (), (), 50, [(10, 40, 4, "catch_up")], 50),
    ("back with cron: all", 0, 50.1, True, ALL, (), (), 10, [], 10),
    ("one of them ran by hand: none", 0, 52, False, NONE, (30,), (),
     None, [(10, 20, 2, "catch_up"), (40, 50, 2, "catch_up")], 50),
    ("one of them ran by hand: all", 0, 52, False, ALL, (10, 20), (), 30, [], 30),
    ("all of them ran by hand", 0, 52, False, ALL, (10, 20, 30, 40, 50), (), None, [], 50),
    ("skipped ones have said so", 0, 52, False, LATEST, (), ((20, 30),),
     50, [(10, 10, 1, "catch_up"), (40, 40, 1, "catch_up")], 50),
    ("a skipped one is caught up with", 20, 45, False, LATEST, (), ((30, 40),), 40, [], 40),
    ("too old: latest", 0, 45, False, Rules("latest", 3 * MINUTE), (), (), None, [(10, 40, 4, "start_deadline")], 40),
    ("too old: all", 0, 52, False, Rules("all", 25 * MINUTE), (), (), 30, [(10, 20, 2, "start_deadline")], 30),
    ("fired too late", 20, 39, True, Rules("none", 5 * MINUTE), (), (), None, [(30, 30, 1, "start_deadline")], 30),
    ("fired by a machine that was off", 20, 39, True, NONE, (), (), 30, [], 30),
    ("jitter is no lateness", 20, 36, False, Rules("latest", None, 5 * MINUTE), (), (), None, [], 20),
    ("but for so long only", 20, 37, False, Rules("latest", None, 5 * MINUTE), (), (), 30, [], 30),
    ("the clock was set back", 50, 32, True, ALL, (), (), 30, [], 50),
    ("it was set back, and somebody looks", 50, 39, False, ALL, (), (), None, [], 50),
]  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES, ids=[history[0] for history in HISTORIES])
def test_history(history: tuple) -> None:  # type: ignore[type-arg]
    _, settled, now, fired, rules, taken, told, own, unrun, reached = history
    found = due(
        Every(), rules, at(settled), at(now) or 0, fired=fired,
        taken=[tick * MINUTE for tick in taken], told=[(a * MINUTE, b * MINUTE) for a, b in told],
    )  # fmt: skip
    expected = tuple(
        Unrun(a * MINUTE, b * MINUTE, number, "missed", reason) for a, b, number, reason in unrun
    )
    assert (found.own, found.unrun, found.settled) == (at(own), expected, reached * MINUTE)


def test_somebody_has_to_look_when_the_next_tick_is_late() -> None:
    found = due(Every(), Rules(jitter=2 * MINUTE), 20 * MINUTE, 30 * MINUTE, fired=True)
    assert found.due_at == (40 + 2) * MINUTE + LATE


@pytest.mark.parametrize("fired", [False, True])
def test_more_than_a_hundred_are_not_caught_up_with(fired: bool) -> None:
    now = 500 * MINUTE * 10 + 3 * MINUTE
    found = due(Every(), ALL, 0, now, fired=fired)
    last_left_out = (500 - AT_MOST) * 10 * MINUTE
    assert found.unrun == (Unrun(10 * MINUTE, last_left_out, 500 - AT_MOST, "missed", "limit"),)
    assert found.own == found.settled == last_left_out + 10 * MINUTE


@pytest.mark.parametrize("rules", [NONE, LATEST, ALL, Rules("all", 40 * MINUTE), Rules("latest", 15 * MINUTE)])
@pytest.mark.parametrize("fired", [False, True])
@pytest.mark.parametrize("ran", [(), (30, 40), (10,), (20, 50, 70)])
def test_every_tick_has_one_account(rules: Rules, fired: bool, ran: tuple[int, ...]) -> None:
    taken, now = {tick * MINUTE for tick in ran}, 93 * MINUTE
    accounts: list[int] = []
    settled = 0
    for _ in range(20):
        found = due(Every(), rules, settled, now, fired=fired, taken=taken)
        for row in found.unrun:
            ticks = [t for t in range(row.first, row.last + 1, 10 * MINUTE) if t not in taken]
            assert len(ticks) == row.number
            accounts += ticks
        settled = found.settled
        if found.own is None:
            break
        accounts.append(found.own)
        taken.add(found.own)
    assert sorted(accounts + [t * MINUTE for t in ran]) == list(range(10 * MINUTE, 91 * MINUTE, 10 * MINUTE))
