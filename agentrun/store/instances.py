"""Fan-outs and loops in the record: the list that is frozen, the rounds that are begun, and the questions about them.

The row of a step with `foreach` or `repeat` counts its instances; each of these has a row of its own from its first
transition on, as any step. A run's `steps_total` and `steps_done` count the instances in place of such a step.

An instance is known by the key of its item. So when another list takes the place of a frozen one (`resume --spec`),
what was done for an item stays done wherever the item stands now, and an item that is gone takes its row with it,
to position -1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..model import JSON, instance_name
from .changes import guard, journal
from .values import parsed, parsed_object

_SUPERVISOR = "supervisor"


class Item(NamedTuple):
    """An item of a list: the number of its instance, its place in the list, its key, itself as JSON."""

    number: int
    place: int
    key: str
    item: str


class ListFrozen(NamedTuple):
    """The list of a step is known: its instances may begin. `items` is None where it was frozen before."""

    step: str
    position: int
    total: int
    items: Sequence[Item] | None
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        _begin(cursor, run_id, self.step, self.position, self.total, self.at)
        if self.items is None:
            return
        self._freeze(cursor, run_id, self.items)
        journal(cursor, run_id, self.at, "list_frozen", _SUPERVISOR, instance=self.step, detail={"items": self.total})
        cursor.execute(  # those that are done are of an earlier list; what ends in this turn is counted after it
            "UPDATE runs SET steps_total = steps_total - 1 + ?, steps_done = steps_done + (SELECT count(*) FROM items"
            " JOIN steps ON steps.run_id = items.run_id AND steps.instance = step || '[' || items.number || ']'"
            " WHERE items.run_id = ? AND step = ? AND place >= 0 AND state = 'finished') WHERE id = ?",
            (self.total, run_id, self.step, run_id),
        )

    def _freeze(self, cursor: sqlite3.Cursor, run_id: str, items: Sequence[Item]) -> None:
        again = cursor.execute(
            "UPDATE items SET place = -1 WHERE run_id = ? AND step = ?", (run_id, self.step)
        ).rowcount
        cursor.executemany(
            "INSERT INTO items (run_id, step, number, place, key, item) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (run_id, step, number) DO UPDATE SET place = excluded.place, item = excluded.item",
            ((run_id, self.step, *item) for item in items),
        )
        if again:
            gone = cursor.execute(
                "SELECT number FROM items WHERE run_id = ? AND step = ? AND place < 0", (run_id, self.step)
            ).fetchall()
            cursor.executemany(
                "UPDATE steps SET position = -1 WHERE run_id = ? AND instance = ?",
                [(run_id, instance_name(self.step, number)) for (number,) in gone],
            )


class RoundBegun(NamedTuple):
    """A round of a loop is about to begin. Written with the start of its first attempt."""

    step: str
    position: int
    round: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        row = cursor.execute(
            "SELECT instances FROM steps WHERE run_id = ? AND instance = ?", (run_id, self.step)
        ).fetchone()
        known = row[0] if row and row[0] else 1
        _begin(cursor, run_id, self.step, self.position, self.round, self.at)
        if self.round > known:
            cursor.execute("UPDATE runs SET steps_total = steps_total + 1 WHERE id = ?", (run_id,))


class UntilAsked(NamedTuple):
    """The `until` of a loop is put to its shell, after this round. Written before the shell exists."""

    step: str
    round: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET state = 'running', due = NULL WHERE run_id = ? AND instance = ?"
            " AND state <> 'finished' AND instances = ?",
            (run_id, self.step, self.round),
        )
        guard(cursor, f"step {self.step}")
        name = instance_name(self.step, self.round)
        journal(cursor, run_id, self.at, "condition_asked", _SUPERVISOR, instance=name)


class UntilAnswered(NamedTuple):
    """It has answered: 1 is another round, anything else settles the step."""

    step: str
    round: int
    status: int
    at: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        if self.status == 1:
            cursor.execute(
                "UPDATE steps SET answered = instances WHERE run_id = ? AND instance = ? AND state = 'running'"
                " AND instances = ?",
                (run_id, self.step, self.round),
            )
            guard(cursor, f"step {self.step}")
        journal(
            cursor, run_id, self.at, "condition_answered", _SUPERVISOR,
            instance=instance_name(self.step, self.round), detail={"status": self.status},
        )  # fmt: skip


def _begin(cursor: sqlite3.Cursor, run_id: str, step: str, position: int, count: int, at: int) -> None:
    cursor.execute(
        "INSERT INTO steps (run_id, instance, position, state, instances, started_at) VALUES (?, ?, ?, 'running', ?, ?)"
        " ON CONFLICT (run_id, instance) DO UPDATE SET state = 'running', instances = excluded.instances, due = NULL,"
        " started_at = coalesce(started_at, excluded.started_at) WHERE state <> 'finished'",
        (run_id, step, position, count, at),
    )
    guard(cursor, f"step {step}")


def base_steps(cursor: sqlite3.Cursor, run_id: str) -> int:
    """How many steps the run's job has, from what its `steps_total` counts instead of some of them."""
    row = cursor.execute(
        "SELECT steps_total - (SELECT coalesce(sum(instances - 1), 0) FROM steps WHERE run_id = :run"
        " AND instances IS NOT NULL AND number < 0 AND position >= 0) FROM runs WHERE id = :run",
        {"run": run_id},
    ).fetchone()
    return int(row[0])


def recount(cursor: sqlite3.Cursor, run_id: str, base: int) -> None:
    """Count the instances of a run again, after more has changed than one of them. `base`: steps of its job."""
    cursor.execute(
        "UPDATE runs SET steps_total = :base + (SELECT coalesce(sum(instances - 1), 0) FROM steps"
        " WHERE run_id = :run AND instances IS NOT NULL AND number < 0 AND position >= 0),"
        " steps_done = (SELECT count(*) FROM steps AS one WHERE run_id = :run AND state = 'finished'"
        "  AND position >= 0 AND CASE WHEN number < 0 THEN instances IS NULL ELSE (SELECT own.instances FROM steps AS"
        "   own WHERE own.run_id = :run AND own.instance = substr(one.instance, 1, instr(one.instance, '[') - 1))"
        "   IS NOT NULL END) WHERE id = :run",
        {"run": run_id, "base": base},
    )


def copy_instances(cursor: sqlite3.Cursor, source: str, target: str) -> None:
    """Let the finished steps that a run has taken over of another one have their lists and their counts."""
    taken = "(SELECT instance FROM steps WHERE run_id = :target AND number < 0 AND state = 'finished')"
    values = {"source": source, "target": target}
    cursor.execute(
        "INSERT INTO items (run_id, step, number, place, key, item) SELECT :target, step, number, place, key, item"
        f" FROM items WHERE run_id = :source AND step IN {taken}",
        values,
    )
    cursor.execute(
        "UPDATE steps SET instances = (SELECT old.instances FROM steps AS old WHERE old.run_id = :source"
        " AND old.instance = steps.instance) WHERE run_id = :target AND number < 0",
        values,
    )


def frozen_numbers(connection: sqlite3.Connection, run_id: str, step: str) -> Sequence[int]:
    """The numbers of a step's instances, in the order of its list."""
    rows = connection.execute(
        "SELECT number FROM items WHERE run_id = ? AND step = ? AND place >= 0 ORDER BY place", (run_id, step)
    )
    numbers = [number for (number,) in rows]
    return range(len(numbers)) if numbers == list(range(len(numbers))) else numbers


def numbers_by_key(connection: sqlite3.Connection, run_id: str, step: str) -> dict[str, int]:
    """What numbers the items of a step have had, those included that are in its list no more."""
    rows = connection.execute("SELECT key, number FROM items WHERE run_id = ? AND step = ?", (run_id, step))
    return dict(rows.fetchall())


def item_of(connection: sqlite3.Connection, run_id: str, step: str, number: int) -> tuple[JSON, str]:
    """The item of an instance, and its key. KeyError if there is none."""
    row = connection.execute(
        "SELECT item, key FROM items WHERE run_id = ? AND step = ? AND number = ?", (run_id, step, number)
    ).fetchone()
    if row is None:
        raise KeyError(instance_name(step, number))
    return parsed(row[0]), row[1]


def items_of(connection: sqlite3.Connection, run_id: str) -> dict[str, JSON]:
    """The items of all frozen lists of a run, by the name of their instance; each list in its order."""
    rows = connection.execute(
        "SELECT step, number, item FROM items WHERE run_id = ? AND place >= 0 ORDER BY step, place", (run_id,)
    )
    return {instance_name(step, number): parsed(item) for step, number, item in rows}


def instance_counts(connection: sqlite3.Connection, run_id: str) -> dict[int, dict[str, int]]:
    """How many instances or rounds of each step have begun or ended: by its position, then by outcome or state."""
    counts: dict[int, dict[str, int]] = {}
    for position, word, number in connection.execute(
        "SELECT position, coalesce(outcome, state), count(*) FROM steps"
        " WHERE run_id = ? AND position >= 0 AND number >= 0 GROUP BY 1, 2",
        (run_id,),
    ):
        counts.setdefault(position, {})[word] = number
    return counts


def outputs_in_order(connection: sqlite3.Connection, run_id: str, step: str) -> list[tuple[str, str | None]]:
    """The name and the outputs (JSON) of each instance of a step with `foreach`, in the order of its list."""
    rows = connection.execute(
        "SELECT items.number, steps.outputs FROM items LEFT JOIN steps ON steps.run_id = items.run_id"
        " AND steps.instance = items.step || '[' || items.number || ']'"
        " WHERE items.run_id = ? AND items.step = ? AND items.place >= 0 ORDER BY items.place",
        (run_id, step),
    )
    return [(instance_name(step, number), outputs) for number, outputs in rows]


def lists_of(instances: Iterable[tuple[str, str | None]]) -> dict[str, list[JSON]]:
    """The outputs of all instances of a step: for each key a list in their order, null where one has none."""
    values = [parsed_object(outputs) for _, outputs in instances]
    keys = dict.fromkeys(key for one in values for key in one)
    return {key: [one.get(key) for one in values] for key in keys}
