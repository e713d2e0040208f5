"""What was spent, as rows: the changes that add to it, and the questions about it.

`usage` holds what attempts said that they used (tokens, cost), `spending` what a run itself took (attempts, CPU,
output), both by the day. How far a file has been read is written with what was in it, in one transaction: killed
before the commit, the next owner reads it again; after it, no more. So nothing is lost and nothing counted twice.

A run is counted together with the runs that it called, and those that they called. Handlers are in the record, but
not counted (`counted` = 0). No sum can fail, however wild the figures: beyond 2**62 all is the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from .changes import guard, plain
from .read import Reader
from .values import made

_CEILING = 2**62  # two of them still fit into a column


class Spent(NamedTuple):
    """What was taken of a budget, in its units: `cost` in billionths, `cpu` in ms, `output` in bytes."""

    steps: int = 0
    tokens: int = 0
    cost: int = 0
    cpu: int = 0
    output: int = 0

    def plus(self, other: Spent) -> Spent:
        """The sum."""
        return Spent(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.cpu + other.cpu,
            self.output + other.output,
        )

    def minus(self, other: Spent) -> Spent:
        """The difference, never below nothing."""
        return Spent(*(max(mine - its, 0) for mine, its in zip(self, other, strict=True)))


class ModelUse(NamedTuple):
    """What a step used of a model. `step` of a called run is `caller's step/its own step`; `cost` in billionths."""

    step: str
    model: str
    counted: bool
    calls: int
    input_tokens: int
    output_tokens: int
    cost: int


class Account(NamedTuple):
    """What a run and those that it called used, who called it, and what enforces its limits, in words."""

    uses: list[ModelUse]
    caller: str | None
    caller_instance: str | None
    enforced_by: str | None


class CallRow(NamedTuple):
    """A row of `calls`. `arguments` and `result` are JSON as it was written; times in ms."""

    instance: str
    seq: int
    attempt: int
    function: str
    arguments: str
    key: str | None
    result: str | None
    error: str | None
    started_at: int
    ms: int


class MadeCall(Protocol):
    """A call as the journal of a step instance tells of it."""

    @property
    def attempt(self) -> int: ...
    @property
    def function(self) -> str: ...
    @property
    def arguments(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def result(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def started_at(self) -> int: ...
    @property
    def ms(self) -> int: ...


# --- changes


class UsageTaken(NamedTuple):
    """An attempt, or a condition (0), has used something of a model. `seen`: how far its file has been read with it."""

    instance: str
    attempt: int
    model: str
    day: str
    counted: bool
    calls: int
    input_tokens: int
    output_tokens: int
    cost: int
    seen: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        table, number = ("attempts", " AND number = :attempt") if self.attempt else ("steps", "")
        cursor.execute(
            f"UPDATE {table} SET usage_seen = :seen WHERE run_id = :run AND instance = :instance"
            f" AND usage_seen <= :seen{number}",
            {"seen": self.seen, "run": run_id, "instance": self.instance, "attempt": self.attempt},
        )
        guard(cursor, f"the usage of attempt {self.attempt} of step {self.instance}")
        cursor.execute(
            "INSERT INTO usage (run_id, instance, attempt, model, day, counted, calls, input_tokens, output_tokens,"
            " cost) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (run_id, instance, attempt, model, day) DO UPDATE SET calls = calls + excluded.calls,"
            f" input_tokens = min(input_tokens + excluded.input_tokens, {_CEILING}),"
            f" output_tokens = min(output_tokens + excluded.output_tokens, {_CEILING}),"
            f" cost = min(cost + excluded.cost, {_CEILING})",
            (
                run_id, self.instance, self.attempt, plain(self.model), self.day, int(self.counted), self.calls,
                min(self.input_tokens, _CEILING), min(self.output_tokens, _CEILING), min(self.cost, _CEILING),
            ),
        )  # fmt: skip


class SpendingAdded(NamedTuple):
    """What the run itself has taken on a day since it was last said."""

    day: str
    steps: int
    cpu_ms: int
    output_bytes: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "INSERT INTO spending (run_id, day, steps, cpu_ms, output_bytes) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (run_id, day) DO UPDATE SET steps = steps + excluded.steps,"
            f" cpu_ms = min(cpu_ms + excluded.cpu_ms, {_CEILING}),"
            f" output_bytes = min(output_bytes + excluded.output_bytes, {_CEILING})",
            (run_id, self.day, self.steps, min(self.cpu_ms, _CEILING), min(self.output_bytes, _CEILING)),
        )


class CallsTaken(NamedTuple):
    """Calls of a step instance that have ended. `seen`: how far its journal of calls has been read with them."""

    instance: str
    calls: tuple[MadeCall, ...]
    seen: int

    def write(self, cursor: sqlite3.Cursor, run_id: str, epoch: int) -> None:
        cursor.execute(
            "UPDATE steps SET calls_seen = :seen WHERE run_id = :run AND instance = :instance AND calls_seen < :seen",
            {"seen": self.seen, "run": run_id, "instance": self.instance},
        )
        guard(cursor, f"the calls of step {self.instance}")
        (last,) = cursor.execute(
            "SELECT coalesce(max(seq), 0) FROM calls WHERE run_id = ? AND instance = ?", (run_id, self.instance)
        ).fetchone()
        # SQLite takes less JSON than Python writes (a depth of 1,000): what it does not take is kept as a text
        cursor.executemany(
            "INSERT INTO calls (run_id, instance, seq, attempt, function, arguments, key, result, error, started_at,"
            " ms) VALUES (:run, :instance, :seq, :attempt, :function,"
            " CASE WHEN json_valid(:arguments) THEN :arguments ELSE json_quote(:arguments) END, :key,"
            " CASE WHEN :result IS NULL OR json_valid(:result) THEN :result ELSE json_quote(:result) END,"
            " :error, :started_at, :ms)",
            (
                {
                    "run": run_id, "instance": self.instance, "seq": seq, "attempt": call.attempt,
                    "function": plain(call.function), "arguments": plain(call.arguments), "key": plain(call.key),
                    "result": plain(call.result), "error": plain(call.error), "started_at": call.started_at,
                    "ms": call.ms,
                }
                for seq, call in enumerate(self.calls, last + 1)
            ),
        )  # fmt: skip


# --- questions

# total(), not sum(): it does not fail beyond 2**63; below 2**53 it is exact
_USED = "CAST(total(input_tokens) + total(output_tokens) AS INTEGER), CAST(total(cost) AS INTEGER)"
_TOOK = "CAST(total(steps) AS INTEGER), CAST(total(cpu_ms) AS INTEGER), CAST(total(output_bytes) AS INTEGER)"


def of_run(reader: Reader, run_id: str, day: str | None = None) -> Spent:
    """What the run itself took of its budgets, without the runs that it called; `day`: on that day."""
    return _of(reader, "(SELECT ?)", (run_id,), day)


def of_called(reader: Reader, run_id: str, instance: str | None = None) -> Spent:
    """What the runs that a run has called took, with all that those called; `instance`: only the one of this step."""
    which, values = ("caller = ?", [run_id]) if instance is None else (
        "caller = ? AND caller_instance = ?", [run_id, instance]
    )
    return _of(
        reader,
        f"(WITH RECURSIVE below (id) AS (SELECT id FROM runs WHERE {which}"
        " UNION ALL SELECT runs.id FROM below JOIN runs ON runs.caller = below.id) SELECT id FROM below)",
        values,
    )


def callers(reader: Reader, run_id: str) -> list[str]:
    """The step instances of a run that have called another run."""
    rows = reader.connection.execute("SELECT caller_instance FROM runs WHERE caller = ?", (run_id,))
    return [row[0] for row in rows]


def of_others(reader: Reader, job: str, day: str, run_id: str) -> Spent:
    """What all runs of a job took on a day, with the runs that they called, but for the rows of `run_id` itself."""
    return _of(
        reader,
        "(WITH RECURSIVE active (id) AS ("
        "  SELECT run_id FROM spending WHERE day = ? UNION SELECT run_id FROM usage WHERE day = ?),"
        " line (id, job, caller) AS ("  # each with those above it
        "  SELECT active.id, runs.job, runs.caller FROM active JOIN runs ON runs.id = active.id WHERE active.id <> ?"
        "  UNION SELECT line.id, runs.job, runs.caller FROM line JOIN runs ON runs.id = line.caller)"
        " SELECT id FROM line WHERE job = ?)",
        (day, day, run_id, job),
        day,
    )


def _of(reader: Reader, runs: str, values: Sequence[str], day: str | None = None) -> Spent:
    that_day, days = ("", []) if day is None else (" AND day = ?", [day])
    ask = reader.connection.execute
    where = f"WHERE run_id IN {runs}{that_day}"
    steps, cpu, output = ask(f"SELECT {_TOOK} FROM spending {where}", [*values, *days]).fetchone()
    tokens, cost = ask(f"SELECT {_USED} FROM usage {where} AND counted", [*values, *days]).fetchone()
    return Spent(steps, tokens, cost, cpu, output)


def of_attempt(reader: Reader, run_id: str, instance: str, number: int) -> tuple[int, Spent]:
    """How far the usage file of an attempt is in the record, and the tokens and cost that were in it."""
    key = (run_id, instance, number)
    ask = reader.connection.execute
    if number:
        row = ask("SELECT usage_seen FROM attempts WHERE run_id = ? AND instance = ? AND number = ?", key).fetchone()
    else:
        row = ask("SELECT usage_seen FROM steps WHERE run_id = ? AND instance = ?", key[:2]).fetchone()
    tokens, cost = ask(
        f"SELECT {_USED} FROM usage WHERE run_id = ? AND instance = ? AND attempt = ?", key
    ).fetchone()
    return (row[0] if row else 0), Spent(tokens=tokens, cost=cost)


def calls_seen(reader: Reader, run_id: str, instance: str) -> int:
    """How far the journal of calls of a step instance is in the record."""
    row = reader.connection.execute(
        "SELECT calls_seen FROM steps WHERE run_id = ? AND instance = ?", (run_id, instance)
    ).fetchone()
    return row[0] if row else 0


def by_model(reader: Reader, run_id: str) -> list[ModelUse]:
    """What the steps of a run used, and those of the runs that it called: by step and model, the dearest first."""
    step_of = "substr({0}, 1, instr({0} || '[', '[') - 1)"
    rows = reader.connection.execute(
        "WITH RECURSIVE below (id, path) AS (SELECT ?, ''"
        f" UNION ALL SELECT runs.id, below.path || {step_of.format('runs.caller_instance')} || '/'"
        "  FROM below JOIN runs ON runs.caller = below.id)"
        f" SELECT below.path || {step_of.format('usage.instance')} AS step, model, counted, sum(calls),"
        "  CAST(total(input_tokens) AS INTEGER), CAST(total(output_tokens) AS INTEGER), CAST(total(cost) AS INTEGER)"
        " FROM below JOIN usage ON usage.run_id = below.id GROUP BY 1, 2, 3"
        " ORDER BY total(cost) DESC, total(input_tokens) + total(output_tokens) DESC, 1, 2",
        (run_id,),
    )
    return [ModelUse(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]


def account(reader: Reader, run_id: str) -> Account:
    """What there is to say of a run's spending."""
    row = reader.connection.execute(
        "SELECT caller, caller_instance, enforced_by FROM runs WHERE id = ?", (run_id,)
    ).fetchone()
    return Account(by_model(reader, run_id), *(row or (None, None, None)))


def calls(reader: Reader, run_id: str, steps: Iterable[str] = ()) -> list[CallRow]:
    """The calls of a run in the order in which they began; of these steps or instances only, if any are named."""
    wanted = set(steps)
    rows = reader.connection.execute(
        "SELECT instance, seq, attempt, function, arguments, key, result, error, started_at, ms FROM calls"
        " WHERE run_id = ? ORDER BY started_at, instance, seq",
        (run_id,),
    )
    return [
        row
        for row in made(CallRow, rows)
        if not wanted or not wanted.isdisjoint((row.instance, row.instance.partition("[")[0]))
    ]
