"""Rows about schedules: what a tick costs at the start of a run, and what the minute costs in which nothing is due."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from . import floors
from .arena import Arena, middle
from .rows import Row


def schedule(arena: Arena, quick: bool) -> Row:
    """A start for a tick, against the same job without a schedule, in turns: how much later it has ended."""
    plain = arena.agentrun("run", arena.job(["id: only, run: 'true'"], name="plain"))
    due = arena.agentrun("run", arena.job(["id: only, run: 'true'"], 'schedule: "*/5 * * * *"\n', name="due"))
    arena.seconds(plain)
    arena.seconds(due)
    triples = []
    for _ in range(3 if quick else 41):
        _open_again(arena)
        triples.append((arena.seconds(plain), arena.seconds(due), floors.bare(arena)))
        # it did run for a tick: its newest run has one
        (key,) = arena.one("SELECT run_key FROM runs WHERE job = 'due' ORDER BY id DESC LIMIT 1")
        assert key is not None, "it took no tick"
    without, ours, bare = zip(*triples, strict=True)
    later = tuple(sorted(one - other for one, other in zip(ours, without, strict=True)))
    return Row(
        "a job with a schedule starts later than one without, by", later, 0.015,
        (("without", middle(without)), ("bare interpreter", middle(bare))), note=f"with {middle(ours) * 1000:.0f} ms",
    )  # fmt: skip


def _open_again(arena: Arena) -> None:
    """Let the newest tick be one that nobody has taken."""
    db = sqlite3.connect(f"{arena.home}/agentrun.db", isolation_level=None)
    db.execute("UPDATE jobs SET settled = settled - 300000 WHERE settled > 1000 * strftime('%s') - 300000")
    db.execute("UPDATE runs SET run_key = NULL, scheduled_time = NULL")
    db.close()


def idle_resume(arena: Arena, quick: bool) -> Row:
    """`resume` with nothing to do: 100 ms where a bare interpreter takes 10."""
    for number in range(3):
        head = 'schedule: "0 0 1 1 *"\n'
        arena.seconds(arena.agentrun("run", arena.job(["id: only, run: 'true'"], head, name=f"job{number}")))
    command = arena.agentrun("resume")
    pairs = [(arena.seconds(command), floors.bare(arena)) for _ in range(3 if quick else 61)]
    ours, bare = (tuple(sorted(column)) for column in zip(*pairs, strict=True))
    ratio = middle([one / other for one, other in pairs])
    return Row(
        "`resume` with nothing to do", ours, 10 * middle(bare), (("bare interpreter", middle(bare)),),
        note=f"{ratio:.1f} times the bare interpreter beside it",
    )  # fmt: skip


ROWS: dict[str, Callable[[Arena, bool], Row]] = {
    row.__name__.replace("_", "-"): row for row in (schedule, idle_resume)
}
