"""The steps of one run: a row for each step of its job, begun or not, and everything that is known of one.

A step gets its row in the record when something first happens to it; those of the snapshot that have none are
queued. Ten thousand steps are ten thousand lines: `agentrun status RUN | less`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..store.folders import RunFolder
from ..store.read import AttemptRow, StepRow
from . import times, words
from .tables import Column, Row, table
from .terminal import Look, fit, printable

if TYPE_CHECKING:
    from ..model import JSON, Job, Step

_COLUMNS = (
    Column(" "),
    Column("STEP", cut=True),
    Column("STATE"),
    Column("ATTEMPTS", right=True, drop=2),
    Column("STARTED", drop=3),
    Column("TOOK", drop=1),
)
_VALUE_LIMIT = 2_000  # characters of one input or output that are shown


def queued_row(position: int, instance: str) -> StepRow:
    """The row of a step that nothing has happened to."""
    return StepRow(
        instance=instance, position=position, state="queued", outcome=None, reason=None, covered=False, asked=False,
        attempt=0, tries=0, interruptions=0, due=None, idempotency_key=None, inputs=None, outputs=None,
        exit_code=None, signal=None, error=None, started_at=None, finished_at=None,
    )  # fmt: skip


def complete(rows: Sequence[StepRow], job: Job | None) -> list[StepRow]:
    """The rows of all steps of the job, in its order. Without a job, those that there are."""
    if job is None:
        return list(rows)
    known = {row.instance: row for row in rows}
    return [known.get(step.id) or queued_row(step.index, step.id) for step in job.steps]


def step_table(rows: Iterable[StepRow], look: Look, now: int, *, interrupted: bool = False) -> list[str]:
    """The table of the steps. `interrupted`: nobody advances the run, so what says running is not."""
    return table(_COLUMNS, [_row(row, look, now, interrupted) for row in rows], look)


def _row(row: StepRow, look: Look, now: int, interrupted: bool) -> Row:
    word = _word(row, interrupted)
    took = None
    if row.started_at is not None and word != "interrupted":
        took = (row.finished_at or now) - row.started_at
    cells = (
        look.mark(row.outcome),
        row.instance,
        word,
        str(row.attempt) if row.attempt else "-",
        times.short(row.started_at, now),
        times.duration(took),
    )
    colours = words.style(word)
    return Row(cells, {0: colours, 2: colours}, _note(row, now, interrupted))


def _note(row: StepRow, now: int, interrupted: bool) -> str:
    if interrupted and row.state != "finished":
        return ""
    if row.state == "waiting" and row.due is not None:
        return f"next attempt in {times.duration(max(row.due - now, 0))}"
    if row.state == "running" and row.attempt == 0:
        return "its `if` is asked"
    note = printable(words.cause(row))
    if note == row.outcome:
        return ""
    return f"{note} (the run goes on: continue_on_error)" if row.covered else note


def step_details(
    row: StepRow,
    step: Step | None,
    attempts: Sequence[AttemptRow],
    folder: RunFolder,
    look: Look,
    now: int,
    *,
    interrupted: bool = False,
) -> list[str]:
    """Everything about one step: what it was given, what it gave, and each of its attempts.

    `interrupted`: nobody advances the run, so what says running is not.
    """
    word = _word(row, interrupted)
    lines = [f"{look.paint(row.instance, 'bold')}  {look.paint(word, *words.style(word))}"]
    facts: list[tuple[str, str]] = []
    if step is not None and step.name:
        facts.append(("name", step.name))
    if step is not None and step.needs:
        facts.append(("needs", ", ".join(step.needs)))
    if note := _note(row, now, interrupted):
        facts.append(("why", note))
    if row.idempotency_key:
        facts.append(("key", row.idempotency_key))
    facts += [("input", text) for text in _values(row.inputs)]
    facts += [("output", text) for text in _values(row.outputs, "outputs")]
    lines += [f"  {look.paint(name.ljust(9), 'dim')} {printable(value)}" for name, value in facts]
    for attempt in attempts:
        lines += _attempt(attempt, folder, look, now, interrupted)
    return lines


def _word(what: StepRow | AttemptRow, interrupted: bool) -> str:
    return "interrupted" if interrupted and what.state == "running" else what.outcome or what.state


def _attempt(attempt: AttemptRow, folder: RunFolder, look: Look, now: int, interrupted: bool) -> Iterator[str]:
    word = _word(attempt, interrupted)
    parts = [look.paint(word, *words.style(word))]
    if cause := words.cause(attempt):
        parts.append(printable(cause))
    if attempt.finished_at is not None:
        parts.append(times.duration(attempt.finished_at - attempt.started_at))
    if attempt.cpu_ms is not None:
        parts.append(f"CPU {times.duration(attempt.cpu_ms)}")
    if attempt.max_rss_kib:
        parts.append(f"memory {words.size(attempt.max_rss_kib * 1024)}")
    if attempt.output_bytes:
        parts.append(f"output {words.size(attempt.output_bytes)}")
    title = f"attempt {attempt.number}".ljust(9)
    yield f"  {look.paint(title, 'dim')} {times.short(attempt.started_at, now)}  {', '.join(parts)}"
    trace = attempt.exception.get("traceback") if isinstance(attempt.exception, dict) else None
    if isinstance(trace, str):
        yield from (f"      {printable(line)}" for line in trace.rstrip().splitlines())
    if attempt.output_bytes:
        yield f"  {' ' * 9} {look.paint(folder.log(attempt.instance, attempt.number), 'dim')}"


def _values(value: JSON, kind: str = "", name: str = "") -> Iterator[str]:
    """`env.CUSTOMER = acme`, `with.n = 3`: objects as dotted names two levels deep, anything below as JSON.

    `kind` is what the value is part of. Variables are texts and shown as they are; what can be of any type is
    JSON, so that the text "3" and the number 3 look as different as they are.
    """
    if isinstance(value, dict) and value and name.count(".") < 1:
        for key, part in value.items():
            yield from _values(part, kind or str(key), f"{name}.{key}" if name else str(key))
    elif value is not None or name:
        text = value if isinstance(value, str) and kind == "env" else words.compact(value)
        if text != "{}":
            yield f"{name} = {fit(text, _VALUE_LIMIT)}" if name else fit(text, _VALUE_LIMIT)
