"""How runs stand: one row for each, and the head of a single one.

A row's note says what a person would ask next: which steps are at work, why it failed, how an interrupted run
goes on.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..instants import rfc3339
from ..store.folders import home
from ..store.read import Asked, Run, StepRow
from . import times, words
from .tables import Column, Row, table
from .terminal import Look, printable

_COLUMNS = (
    Column("RUN"),
    Column("JOB", cut=True),
    Column("STATE"),
    Column("STEPS", right=True, drop=1),
    Column("STARTED", drop=3),
    Column("TOOK", drop=2),
)
_ON_ITS_WAY = 10_000  # ms
_LOGIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of root; what others have is in it
_QUESTIONS = 5  # for which the commands that answer are shown


@dataclass(frozen=True, slots=True)
class Standing:
    """A run, whether it was found interrupted, and its steps that run or wait, with their states.

    `slow`: how long it usually takes, in ms, where it runs and has taken far longer. `asked`: the questions that wait
    for an answer, those of the runs that it called included. `behind`: the run that a queued one waits for.
    """

    run: Run
    interrupted: bool = False
    active: Sequence[tuple[str, str]] = ()
    slow: int | None = None
    asked: Sequence[Asked] = ()
    behind: str | None = None

    @property
    def word(self) -> str:
        """Its state or, if it has one, its outcome."""
        return "interrupted" if self.interrupted else self.run.outcome or self.run.state

    @property
    def current_step(self) -> str | None:
        """The first step that runs, else the first that waits."""
        at_work = [instance for instance, state in self.active if state == "running"]
        return next(iter(at_work or [instance for instance, _ in self.active]), None)

    @property
    def pid(self) -> int | None:
        """The supervisor's process id, while it runs."""
        if self.run.state != "running" or self.interrupted or not self.run.owner:
            return None
        pid = self.run.owner.get("pid")
        return pid if isinstance(pid, int) else None

    def took(self, now: int) -> int | None:
        """How long it has taken, in ms. Of an interrupted run that is not known."""
        run = self.run
        if run.started_at is None or self.interrupted:
            return None
        return (run.finished_at or now) - run.started_at


def command(verb: str, *arguments: str, anywhere: bool = False) -> str:
    """The command line to type for `verb`.

    `anywhere`: it names the state folder, and the program by its path where the PATH does not lead to it: for
    whoever reads it in a mail and not where the run was started. Without a terminal that is the PATH of a login shell:
    ours may be that of a crontab's block, which no shell of the reader has.
    """
    parts = [_program() if anywhere else "agentrun", verb, *(shlex.quote(argument) for argument in arguments)]
    if anywhere and os.environ.get("AGENTRUN_HOME"):
        parts.insert(0, f"AGENTRUN_HOME={shlex.quote(home())}")
    return " ".join(parts)


def _program() -> str:
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) != "agentrun":  # started as a module: by a line of `agentrun install`, or by ourselves
        script = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "agentrun")
    if not os.access(script, os.X_OK):
        return shlex.join([os.path.abspath(sys.executable), "-P", "-m", "agentrun"])
    found = shutil.which("agentrun", path=None if sys.stderr.isatty() else _LOGIN_PATH)
    return "agentrun" if found and os.path.samefile(found, script) else shlex.quote(script)


def overview(standings: Sequence[Standing], look: Look, now: int) -> list[str]:
    """The table of several runs."""
    rows = []
    for standing in standings:
        run = standing.run
        cells = (
            run.id,
            run.job,
            standing.word,
            f"{run.steps_done}/{run.steps_total}",
            times.short(run.started_at or run.created_at, now),
            times.duration(standing.took(now)),
        )
        rows.append(Row(cells, {2: words.style(standing.word)}, _note(standing, now)))
    return table(_COLUMNS, rows, look)


def _note(standing: Standing, now: int) -> str:
    run = standing.run
    if standing.interrupted:
        return f"go on: {command('resume', run.id)}"
    if run.state == "waiting":
        return _questions(standing.asked, run.id) if standing.asked else "it was answered, and is about to go on"
    if run.state == "queued":
        if standing.behind:
            return f"waits in line: run {standing.behind} is at work"
        return "about to start" if _is_new(run, now) else f"not started: {command('resume', run.id)}"
    if run.state != "finished":
        slow = "" if standing.slow is None else f"slow, {_usually(standing.slow)}: "
        asking = {asked.via or asked.step for asked in standing.asked}
        others = at_work([(instance, state) for instance, state in standing.active if instance not in asking])
        return slow + "; ".join(part for part in (others, _questions(standing.asked, run.id)) if part)
    return _why(run)


def _questions(asked: Sequence[Asked], run_id: str) -> str:
    """`mail: was it done? agentrun status RUN`; of a called run as `call/mail`. Empty where nothing is asked."""
    if not asked:
        return ""
    names = ", ".join(one.step if one.via is None else f"{one.via}/{one.step}" for one in asked[:3])
    more = f" and {len(asked) - 3} more" if asked[3:] else ""
    return f"{names}{more}: was it done? {command('status', run_id)}"


def _usually(ms: int) -> str:
    return f"it usually takes {times.duration(ms)}"


def _why(run: Run) -> str:
    if run.state != "finished" or run.outcome == "succeeded":
        return ""
    why = printable(run.error or words.reason_words(run.reason))
    return "" if why == run.outcome else why


def at_work(active: Sequence[tuple[str, str]]) -> str:
    """Which steps run and wait: the first three by name."""
    names = [instance if state == "running" else f"{instance} (waiting)" for instance, state in active[:3]]
    if len(active) > 3:
        names.append(f"and {len(active) - 3} more")
    return ", ".join(names)


def head(
    standing: Standing,
    look: Look,
    now: int,
    ended: Mapping[str, int],
    more: Sequence[tuple[str, str]] = (),
    *,
    shim: int | None = None,
) -> list[str]:
    """What there is to say of one run, above its steps.

    `ended`: how many of its steps and instances ended how. `more`: labels and what stands behind them. `shim`: the
    process that holds its steps.
    """
    run = standing.run
    error = _why(run)
    state = look.paint(standing.word, "bold", *words.style(standing.word))
    lines = [f"{look.paint(run.job, 'bold')}  {state}" + (f": {error}" if error else "")]
    facts = [("run", run.id), ("file", printable(run.file))]
    if processes := _processes(standing.pid, shim):
        facts.append(("process", processes))
    took = standing.took(now)
    if run.started_at is not None:
        ending = f", took {times.duration(took)}" if run.finished_at else ""
        facts.append(("started", times.full(run.started_at) + ending))
        if took is not None and not run.finished_at:
            slow = "" if standing.slow is None else f", slow: {_usually(standing.slow)}"
            facts.append(("elapsed", times.duration(took) + slow))
    facts.append(("steps", words.so_many_done(ended, run.steps_total)))
    if run.scheduled_time is not None:
        facts.append(("tick", rfc3339(run.scheduled_time)))
    if run.run_key is not None:
        facts.append(("key", printable(run.run_key)))
    for name, value in run.params.items():
        facts.append(("param", f"{name} = {printable(value if isinstance(value, str) else words.compact(value))}"))
    if run.parent:
        facts.append(("parent", run.parent))
    if run.resumes:
        facts.append(("resumed", words.count(run.resumes, "time")))
    if run.closing and run.state == "running":
        facts.append(("ending", f"{run.closing}, since {times.short(run.closing_at, now)}"))
    return lines + [f"{look.paint(name.ljust(8), 'dim')} {value}" for name, value in (*facts, *more)]


def _processes(supervisor: int | None, shim: int | None) -> str:
    """`advanced by process 123, its steps are held by 456`."""
    parts = [f"advanced by process {supervisor}"] if supervisor is not None else []
    return ", ".join(parts + ([f"its steps are held by {shim}"] if shim is not None else []))


def advice(standing: Standing, rows: Sequence[StepRow], now: int, outermost: str) -> list[str]:
    """What to do about a run that does not go on by itself. `outermost`: the run that it belongs to."""
    run = standing.run
    asked = standing.asked
    if asked and (run.state == "waiting" or not standing.interrupted):
        lines = []
        for one in asked[:_QUESTIONS]:
            of_child = "" if one.via is None else f" of run {one.run}, which is step {one.via} of this one,"
            lines.append(f"{one.step}{of_child} waits for an answer. If it did take place:")
            lines.append(f"  {command('resume', one.run, '--took-place', one.step)}")
            lines.append(f"else: {command('resume', one.run, '--rerun', one.step)}")
        return lines + ([f"and {len(asked) - _QUESTIONS} more"] if asked[_QUESTIONS:] else [])
    if standing.interrupted:
        return [f"nobody advances this run; it goes on with: {command('resume', outermost)}"]
    if run.state == "finished" and run.outcome not in ("succeeded", None):
        return [f"{label}: {text}" for label, text in way_on(run, rows, outermost)]
    if run.state != "queued":
        return []
    if standing.behind:
        return [f"it waits in line until run {standing.behind} has ended, and begins then by itself"]
    if _is_new(run, now):
        return ["it is about to start"]
    return [f"it has not started; it does with: {command('resume', run.id)}"]


def way_on(
    run: Run, rows: Sequence[StepRow], outermost: str, *, anywhere: bool = False, changed: str | None = None
) -> list[tuple[str, str]]:
    """How a run that did not succeed goes on: labels and what stands behind them, the command last.

    A child run goes on with the run that it belongs to (`outermost`), never alone. `changed`: the job file of that one,
    where it is not any more as it was when that run was created.
    """
    if run.outcome == "over_budget" and _all_done(run, rows):
        return [("done", "all its steps are done; nothing is left to run")]
    lines = []
    unseen = [row.instance for row in rows if _is_unseen(row)]
    if unseen:
        names = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if unseen[3:] else "")
        lines.append(("look first", f"nobody saw how {names} ended: was it done? `resume` runs it again"))
    arguments = [outermost]
    if outermost != run.id:
        lines.append(("part of", f"run {run.caller}, as its step {run.caller_instance}: it goes on with that"))
    elif run.outcome == "over_budget" and " today: " in (run.error or ""):
        way = f"or raise the daily budget in the job file and add --spec {shlex.quote(printable(run.file))}"
        lines.append(("first", f"wait for tomorrow (the day ends at midnight, local time), {way}"))
    elif run.outcome == "over_budget":
        lines.append(("first", "raise the budget in the job file: without a larger one nothing more is started"))
        arguments += ["--spec", run.file]
    elif changes := _to_change(rows):
        lines.append(("first", printable(f"{changes} in {run.file}: as it is, the same would be paid for again")))
        arguments += ["--spec", run.file]
    if changed is not None and len(arguments) == 1:
        what = "the job file is not as it was when the run was created; without --spec the run goes on with the old one"
        lines.append(("changed", what))
        arguments += ["--spec", changed]
    return [*lines, ("go on", printable(command("resume", *arguments, anywhere=anywhere)))]


def _is_unseen(row: StepRow) -> bool:
    """Whether a step began, is not done, and nobody knows how far it came: then there is no status or signal of it."""
    if row.outcome == "failed":
        return row.reason in ("on_interrupt", "interrupted") and not row.covered
    by_itself = row.reason in ("timeout", "stuck")
    ended_with_the_run = row.outcome in ("cancelled", "timed_out", "over_budget") and not by_itself
    nothing_seen = row.exit_code is None and row.signal is None
    return bool(ended_with_the_run and nothing_seen and row.attempt and row.instances is None)


def _all_done(run: Run, rows: Sequence[StepRow]) -> bool:
    """Whether nothing of it failed or was left out, so that a resume would find nothing to do."""
    settled = ("if", "no_failure", "on_interrupt", "done")
    own = [row for row in rows if row.number < 0]
    return run.steps_done >= run.steps_total and all(
        row.outcome == "succeeded" or row.covered or (row.outcome == "skipped" and row.reason in settled) for row in own
    )


def _own_budget(row: StepRow) -> str | None:
    """Which budget of its own ended it, if one did and the run failed by it."""
    ended = row.outcome == "over_budget" and not row.covered
    return words.OWN_BUDGETS.get(row.reason or "") if ended else None


def _to_change(rows: Sequence[StepRow]) -> str:
    """What would end a resumed run in the same way: budgets of single steps, and loops. Empty if nothing would."""
    changes: dict[str, None] = {}  # of a hundred instances that were over their budget, one
    for row in rows:
        step = row.instance.partition("[")[0]
        if row.covered or row.outcome is None:
            continue
        if kind := _own_budget(row):
            changes[f"raise the budget of step {step} ({kind})"] = None
        elif row.reason == "max":
            changes[f"raise `max` of step {step}, or change its `until`,"] = None
        elif row.reason == "until_failed":
            changes[f"mend the `until` of step {step}"] = None
    named = list(changes)
    return " and ".join(named[:3]) + (f" and {len(named) - 3} more" if named[3:] else "")


def _is_new(run: Run, now: int) -> bool:
    """Whether it was recorded so short a time ago that its supervisor may be on its way: `run --detach`."""
    return now - run.created_at < _ON_ITS_WAY
