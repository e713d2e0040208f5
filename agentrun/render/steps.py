"""The steps of one run: a row for each step of its job, begun or not, and everything that is known of one.

A step gets its row in the record when something first happens to it; those of the snapshot that have none are
queued. A step with instances is a row that says how far it is, and below it, indented, stand those that say
something; of a thousand failures the first twenty. Ten thousand steps are ten thousand lines: `agentrun status RUN |
less`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..step.contract import round_variables
from ..store.folders import RunFolder
from ..store.read import AttemptRow, Run, StepRow
from . import times, words
from .instances import NOTHING, Known, item_text, progress, step_of, stuck_since, stuck_text
from .status import command
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
_OUT = 60  # characters of a value that the last round of a loop gave
_FAILURES = 20  # instances of one step that failed, and as many that wait, for which there is a row


def step_table(
    rows: Iterable[StepRow],
    look: Look,
    now: int,
    *,
    interrupted: bool = False,
    known: Known = NOTHING,
    job: Job | None = None,
    run: Run | None = None,
) -> list[str]:
    """The table of the steps, and of the instances that are among the rows.

    `interrupted`: nobody advances the run, so what says running is not.
    """
    by_id = {} if job is None else {step.id: step for step in job.steps}
    page = _Page(look, now, interrupted, known, run)
    lines: list[Row | str] = []
    shown: dict[str, int] = {}  # of the step that the last row was of, by state or outcome
    last: StepRow | None = None
    for row in [*rows, None]:
        if last is not None and (row is None or row.number < 0):
            lines += _and_more(last, shown, "" if run is None else run.id)
        if row is None:
            break
        if row.number < 0:
            shown = {}
        last = row
        word = row.outcome or row.state
        shown[word] = shown.get(word, 0) + (row.number >= 0)
        if shown[word] <= _FAILURES:
            lines.append(page.row(row, by_id.get(step_of(row))))
    return table(_COLUMNS, lines, look)


def _and_more(row: StepRow, shown: dict[str, int], run_id: str) -> Iterator[str]:
    for word, number in shown.items():
        if number > _FAILURES:
            more = f"and {number - _FAILURES} more {word.replace('_', ' ')}"
            yield f"     {more}: {command('status', run_id, '--step', step_of(row))}"


class _Page:
    """What the rows of one table have in common."""

    def __init__(self, look: Look, now: int, interrupted: bool, known: Known, run: Run | None = None) -> None:
        self.look, self.now, self.interrupted, self.known = look, now, interrupted, known
        self.budget = words.which_budget(None if run is None else run.error)

    def row(self, row: StepRow, step: Step | None) -> Row:
        word = _word(row, self.interrupted)
        took = None
        if row.started_at is not None and word != "interrupted":
            took = (row.finished_at or self.now) - row.started_at
        cells = (
            self.look.mark(row.outcome),
            row.instance if row.number < 0 else f"  {row.instance}",
            word,
            str(row.attempt) if row.attempt else "-",
            times.short(row.started_at, self.now),
            times.duration(took),
        )
        colours = words.style(word)
        return Row(cells, {0: colours, 2: colours}, self.note(row, step))

    def note(self, row: StepRow, step: Step | None) -> str:
        """What a person would ask next: how far it is, why it failed, what its item is, which run it is."""
        counts = self.known.counts.get(row.position, {})
        child = self.known.children.get(row.instance)
        far = progress(row, step, counts, interrupted=self.interrupted)
        parts = [
            far,
            "" if far and row.reason == "instances" else self.why(row),  # they stand below
            "" if child is None else _child_note(row, child),
        ]
        said = "; ".join(part for part in parts if part)
        item = item_text(row, self.known)
        return f"{item}: {said}" if item and said else item or said

    def why(self, row: StepRow) -> str:
        """Why it waits, that it is stuck, or why it ended as it did; a budget of all by its name."""
        said = _note(row, self.now, self.interrupted).replace(words.RUN_BUDGET, self.budget)
        since = None if self.interrupted else stuck_since(row, self.known)
        return "; ".join(part for part in (said, "" if since is None else stuck_text(since, self.now)) if part)


def _child_note(row: StepRow, child: Run) -> str:
    if row.outcome == "succeeded":
        return f"run {child.id}"
    if child.state == "finished":
        return command("status", child.id)
    return f"run {child.id}, {child.steps_done} of {child.steps_total} settled: {command('status', child.id)}"


def _note(row: StepRow, now: int, interrupted: bool) -> str:
    if row.question is not None:
        return printable(row.question)
    if interrupted and row.state != "finished":
        return ""
    if row.verifying:
        return "its `verify` is asked" if row.state == "running" else "its `verify` is to be asked"
    if row.state == "waiting" and row.due is not None:
        what = "round" if row.instances is not None else "attempt"
        return f"next {what} in {times.duration(max(row.due - now, 0))}"
    if row.state == "running" and row.attempt == 0 and row.instances is None:
        return "its `if` is asked"
    note = printable(words.cause(row))
    if note == row.outcome:
        return ""
    if row.reason == "no_failure" and row.attempt:
        return f"{note} (it ran before the resume)"
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
    known: Known = NOTHING,
    run: Run | None = None,
    last: StepRow | None = None,
) -> list[str]:
    """Everything about one step or instance: what it was given, what it gave, and each of its attempts.

    `interrupted`: nobody advances the run, so what says running is not. `last`: the last round of a loop.
    """
    word = _word(row, interrupted)
    lines = [f"{look.paint(row.instance, 'bold')}  {look.paint(word, *words.style(word))}"]
    facts: list[tuple[str, str]] = []
    if step is not None and step.name:
        facts.append(("name", step.name))
    if step is not None and step.needs:
        facts.append(("needs", ", ".join(step.needs)))
    if far := progress(row, step, known.counts.get(row.position, {}), interrupted=interrupted):
        facts.append(("rounds" if step is not None and step.repeat else "instances", far))
    if row.question is not None:
        facts.append(("question", row.question))
    elif note := _Page(look, now, interrupted, known, run).why(row):
        facts.append(("why", note))
    if row.reason in words.OF_LOOPS and last is not None and (given := round_text(last)):
        facts.append((f"round {last.number}", given))
    if (child := known.children.get(row.instance)) is not None:
        facts.append(("run", f"{child.id}, {child.outcome or child.state}: {command('status', child.id)}"))
    if not row.inputs and row.instance in known.items:
        facts += [("input", text) for text in _values({"item": known.items[row.instance]})]
    if row.idempotency_key:
        facts.append(("key", row.idempotency_key))
    facts += [("input", text) for text in _values(row.inputs)]
    facts += [("output", text) for text in _values(row.outputs, "outputs")]
    lines += [f"  {look.paint(name.ljust(9), 'dim')} {printable(value)}" for name, value in facts]
    for attempt in attempts:
        lines += _attempt(attempt, folder, look, now, interrupted)
    return lines


def round_text(row: StepRow) -> str:
    """What a round gave, as its `until` saw it: `OUT_enough = no, OUT_found = ["a","b"]`; each shortened."""
    given = row.outputs if isinstance(row.outputs, dict) else {}
    return ", ".join(f"{name} = {fit(printable(text), _OUT)}" for name, text in round_variables(given).items())


def instance_table(
    rows: Sequence[StepRow],
    step: Step | None,
    look: Look,
    now: int,
    *,
    interrupted: bool,
    known: Known,
    run: Run | None = None,
) -> list[str]:
    """All instances of one step, as a table."""
    page = _Page(look, now, interrupted, known, run)
    return table(_COLUMNS, [page.row(row, step) for row in rows], look)


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
