"""Fan-outs, loops and child runs as people see them: what is asked of the record, and how far each of them is.

A step with instances is one row, which says how far it is; below it stand those of its instances that say something:
they run, wait, or failed (`telling`). Whoever asks for one step, or for JSON, gets all of them, those included that
have not begun (`whole`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..store.instances import instance_counts, items_of
from ..store.read import Reader, Run, StepRow
from ..store.stuck import told_stuck
from . import times, words
from .terminal import fit, printable

if TYPE_CHECKING:
    from ..model import JSON, Job, Step

_ITEM = 40  # characters of an item beside its instance


class Known(NamedTuple):
    """What there is to say beside the rows of a run's steps.

    `counts`: of instances, by the position of their step and their outcome or state. `children`: child runs, by the
    name of the step or instance. `items`: by the name of the instance. `stuck`: by the same, the attempt that was last
    told to be stuck, and since when.
    """

    counts: Mapping[int, Mapping[str, int]] = {}
    children: Mapping[str, Run] = {}
    items: Mapping[str, JSON] = {}
    stuck: Mapping[str, tuple[int, int]] = {}


NOTHING = Known()


def telling(reader: Reader, run_id: str, job: Job | None) -> tuple[list[StepRow], Known]:
    """The steps of a run, and those instances that say something."""
    known = _known(reader, run_id, {})
    return complete(reader.steps(run_id, telling=True), job), known


def whole(reader: Reader, run_id: str, job: Job | None) -> tuple[list[StepRow], Known]:
    """The steps of a run, each followed by all of its instances that are known, begun or not."""
    items = items_of(reader.connection, run_id)
    known = _known(reader, run_id, items)
    return complete(reader.steps(run_id), job, items), known


def _known(reader: Reader, run_id: str, items: Mapping[str, JSON]) -> Known:
    counts, children = instance_counts(reader.connection, run_id), reader.children(run_id)
    return Known(counts, children, items, told_stuck(reader.connection, run_id))


def queued_row(position: int, instance: str, number: int = -1) -> StepRow:
    """The row of a step or instance that nothing has happened to."""
    return StepRow(
        instance=instance, position=position, state="queued", outcome=None, reason=None, covered=False, asked=False,
        attempt=0, tries=0, interruptions=0, due=None, idempotency_key=None, inputs=None, outputs=None,
        exit_code=None, signal=None, error=None, started_at=None, finished_at=None, number=number,
    )  # fmt: skip


def complete(rows: Sequence[StepRow], job: Job | None, items: Mapping[str, JSON] | None = None) -> list[StepRow]:
    """The rows of all steps of the job, in its order, with those of their instances below them.

    `items`: in the order of their lists; an instance that has no row is queued. Without a job, the rows that there are.
    """
    if job is None:
        return list(rows)
    own = {row.instance: row for row in rows if row.number < 0}
    below: dict[str, dict[str, StepRow]] = {}
    for name in items or ():
        step, number = _split(name)
        if step in own:
            below.setdefault(step, {})[name] = queued_row(own[step].position, name, number)
    for row in rows:
        if row.number >= 0:
            below.setdefault(step_of(row), {})[row.instance] = row
    found: list[StepRow] = []
    for step_ in job.steps:
        found.append(own.get(step_.id) or queued_row(step_.index, step_.id))
        found += below.get(step_.id, {}).values()
    return found


def step_of(row: StepRow) -> str:
    """The id of the step that the row is of, or of an instance of."""
    return row.instance.partition("[")[0]


def _split(name: str) -> tuple[str, int]:
    step, _, number = name.partition("[")
    return step, int(number[:-1])


def progress(row: StepRow, step: Step | None, counts: Mapping[str, int], *, interrupted: bool = False) -> str:
    """How far a step with instances is: `59 of 100 done, 2 failed, 8 running`, or `round 3 of at most 50`.

    Empty for a step that has none, or none yet.
    """
    if row.number >= 0 or row.instances is None:
        return ""
    if step is not None and step.repeat is not None:
        if row.state == "finished":
            return f"after {words.count(row.instances, 'round')}" if row.outcome == "succeeded" else ""
        return f"round {row.instances} of at most {step.repeat.max}"
    active = ("running", "waiting", "queued")
    ended = {word: number for word, number in counts.items() if word not in active}
    parts = [words.so_many_done(ended, row.instances)]
    for word in active[:2]:
        if counts.get(word):
            parts.append(f"{counts[word]} {'interrupted' if interrupted and word == 'running' else word}")
    return ", ".join(parts)


def ended_so(rows: Sequence[StepRow], known: Known) -> dict[str, int]:
    """How many steps ended how, and in place of one that has instances those."""
    ended: dict[str, int] = {}
    for row in rows:
        if row.number >= 0:
            continue
        counts: dict[str, int] = {} if row.outcome is None else {row.outcome: 1}
        if row.instances is not None:
            active = ("running", "waiting", "queued")
            of_it = known.counts.get(row.position, {}).items()
            # a loop can fail although each of its rounds was good
            counts = counts if row.reason in words.OF_LOOPS else {}
            counts |= {word: number + counts.get(word, 0) for word, number in of_it if word not in active}
        for word, number in counts.items():
            ended[word] = ended.get(word, 0) + number
    return ended


def item_text(row: StepRow, known: Known, width: int = _ITEM) -> str:
    """The item of an instance, shortened; empty where there is none or it is not known."""
    found, item = item_of(row, known)
    if not found:
        return ""
    return fit(printable(item if isinstance(item, str) else words.compact(item)), width)


def item_of(row: StepRow, known: Known) -> tuple[bool, JSON]:
    """Whether the item of an instance is known, and the item."""
    if row.instance in known.items:
        return True, known.items[row.instance]
    if row.number >= 0 and isinstance(row.inputs, dict) and "item" in row.inputs:
        return True, row.inputs["item"]
    return False, None


def stuck_since(row: StepRow, known: Known) -> int | None:
    """Since when the attempt, or the condition, that a row is at does nothing; None where it is not stuck."""
    if row.state != "running":
        return None
    until = f"{row.instance}[{row.instances}]"  # a loop asks it for its last round, which is over
    for name, attempts in ((row.instance, (0, row.attempt)), (until, (0,))):
        attempt, since = known.stuck.get(name, (-1, 0))
        if attempt in attempts:
            return since
    return None


def stuck_text(since: int, now: int) -> str:
    """`no output and no CPU for 31 min 04 s`."""
    return f"no output and no CPU for {times.duration(now - since)}"
