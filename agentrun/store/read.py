"""The questions that are asked of the record, each one statement, answered with values.

A reader never blocks a writer and never waits for one. A run that says `running` while nobody holds it is
interrupted: `Run.interrupted` asks the kernel's locks at each look, and nothing is stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from .rows import Asked, AttemptRow, Event, Run, StepRow, StepState
from .snapshots import Snapshot
from .values import made, parsed_object

if TYPE_CHECKING:  # a look at the record costs 5 ms less without it
    from ..model import JSON, Job, Outcome, State

__all__ = ["Asked", "AttemptRow", "Event", "Reader", "Run", "StepRow", "StepState"]

_RUN = (
    "id, job, file, snapshot, params, run_key, scheduled_time, parent, state, outcome, reason, error, exit_code,"
    " closing, closing_at, created_at, started_at, finished_at, epoch, owner, resumes, elapsed, boot_id, seen,"
    " results_seen, stopped, started_steps, steps_total, steps_done, caller, caller_instance, enforced_by,"
    " wake_at, overlap_key, overlap_limit"
)
_STEP = (
    "instance, position, state, outcome, reason, covered, asked, attempt, tries, interruptions, due,"
    " idempotency_key, inputs, outputs, exit_code, signal, error, started_at, finished_at, number, instances, answered,"
    " question, verifying"
)
_ATTEMPT = (
    "instance, number, epoch, state, outcome, reason, requested, exit_code, signal, error, causes, exception,"
    " retry_after, cpu_ms, max_rss_kib, output_bytes, started_at, finished_at"
)
_KNOWN_BY = 3  # runs that have succeeded: of fewer nobody can say what is usual
_SLOW, _SLOW_BY = 3, 10_000  # a run that takes so many times as long as usual, and so many ms longer, is slow


class Reader:
    """The reading side of the record, over any connection, also one that writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._jobs: dict[str, Job] = {}

    def run(self, run_id: str) -> Run:
        """The run of that full id. Raises NotFound."""
        row = self.connection.execute(f"SELECT {_RUN} FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no run {run_id}")
        return _run(row)

    def find(self, name: str) -> Run:
        """The run that a person means: an id, a unique start or end of one, a job's name, or JOB~N.

        A job's name means a child run only where there is no other. Raises NotFound, which names what would fit.
        """
        name = name.encode(errors="replace").decode()  # an argument need not be UTF-8
        job, tilde, back = name.partition("~")
        if tilde and back.isdecimal() and len(back) < 10:
            return self._nth(job, int(back))
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE id = :name UNION ALL"
            f" SELECT * FROM (SELECT {_RUN} FROM runs WHERE job = :name AND caller IS NULL ORDER BY id DESC LIMIT 1)",
            {"name": name},
        ).fetchall() or self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE job = ? ORDER BY id DESC LIMIT 1", (name,)
        ).fetchall()
        if rows:
            return _run(rows[0])
        pattern = name.lower()
        if len(pattern) >= 3 and pattern.isalnum():
            rows = self.connection.execute(
                f"SELECT {_RUN} FROM runs WHERE id >= :start AND id < :start || '~' LIMIT 3", {"start": pattern}
            ).fetchall() or self.connection.execute(
                f"SELECT {_RUN} FROM runs WHERE id LIKE '%' || ? LIMIT 3", (pattern,)
            ).fetchall()
            if len(rows) == 1:
                return _run(rows[0])
            if rows:
                ids = ", ".join(row[0] for row in rows)
                raise NotFound(f"{name} could be several runs: {ids}", "give more of the id")
        raise NotFound(f"there is no run or job {name}", "`agentrun status` lists the runs")

    def of_tick(self, job: str, tick: int) -> Run | None:
        """The run that has a tick of a job, under whatever key."""
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE job = ? AND scheduled_time = ? AND run_key IS NOT NULL LIMIT 1", (job, tick)
        ).fetchall()
        return _run(rows[0]) if rows else None

    def ticks_run(self, job: str, *, limit: int) -> list[Run]:
        """The runs of a job that were for a tick, the newest tick first."""
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE job = ? AND scheduled_time IS NOT NULL"
            " AND caller IS NULL AND parent IS NULL ORDER BY scheduled_time DESC LIMIT ?",
            (job, limit),
        )
        return made(Run, rows)

    def short(self, job: str, end: str) -> Run | None:
        """The newest run of a job whose id ends so: how the lines of its log name it (`quotes/7f3a`)."""
        row = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE job = :job AND substr(id, -length(:end)) = :end ORDER BY id DESC LIMIT 1",
            {"job": job, "end": end.lower()},
        ).fetchone()
        return None if row is None else _run(row)

    def _nth(self, job: str, back: int) -> Run:
        question = f"SELECT {_RUN} FROM runs WHERE job = ? AND caller IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?"
        row = self.connection.execute(question, (job, back)).fetchone()
        if row is None:
            raise NotFound(f"job {job} has no run {back} before its last", "`agentrun status` lists the runs")
        return _run(row)

    def overview(self) -> list[Run]:
        """The last run of each job and everything that is not finished, newest first; but for child runs."""
        # a loose index scan: one probe of runs_of_their_own for each job, however many runs there are
        rows = self.connection.execute(
            "WITH RECURSIVE last (job, id) AS ("
            "  SELECT * FROM (SELECT job, id FROM runs WHERE caller IS NULL ORDER BY job DESC, id DESC LIMIT 1)"
            "  UNION ALL"
            "  SELECT next.job, next.id FROM last, runs AS next WHERE next.id = (SELECT id FROM runs"
            "    WHERE job < last.job AND caller IS NULL ORDER BY job DESC, id DESC LIMIT 1)"
            ")"
            f" SELECT {_RUN} FROM runs WHERE caller IS NULL AND id IN"
            " (SELECT id FROM last UNION SELECT id FROM runs WHERE state <> 'finished') ORDER BY id DESC"
        )
        return made(Run, rows)

    def runs(self, *, job: str | None = None, limit: int = 50) -> list[Run]:
        """Runs, newest first."""
        where, values = ("WHERE job = ?", [job]) if job else ("", [])
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs {where} ORDER BY id DESC LIMIT ?", (*values, limit)
        )
        return made(Run, rows)

    def unfinished(self) -> list[Run]:
        """Every run that is not finished, oldest first; but for child runs, which go on with their parent."""
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE state <> 'finished' AND caller IS NULL ORDER BY id"
        )
        return made(Run, rows)

    def unfinished_of(self, job: str) -> list[Run]:
        """The same of one job."""
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE state <> 'finished' AND caller IS NULL AND job = ? ORDER BY id", (job,)
        )
        return made(Run, rows)

    def child_of(self, run_id: str, instance: str) -> Run | None:
        """The run that a step of a run is, if it has begun."""
        row = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE caller = ? AND caller_instance = ?", (run_id, instance)
        ).fetchone()
        return None if row is None else _run(row)

    def open_children(self, run_id: str) -> list[Run]:
        """The child runs of a run that are not finished."""
        rows = self.connection.execute(
            f"SELECT {_RUN} FROM runs WHERE caller = ? AND state <> 'finished' ORDER BY id", (run_id,)
        )
        return made(Run, rows)

    def children(self, run_id: str) -> dict[str, Run]:
        """The child runs of a run, by the step or instance that each of them is."""
        rows = self.connection.execute(f"SELECT {_RUN} FROM runs WHERE caller = ?", (run_id,))
        return {str(run.caller_instance): run for run in made(Run, rows)}

    def outermost(self, run: Run) -> Run:
        """The run that it belongs to: itself, unless another one called it."""
        while run.caller is not None:
            run = self.run(run.caller)
        return run

    def outcome(self, run_id: str) -> Outcome | None:
        """How a run ended; None if it has not, or there is none."""
        row = self.connection.execute("SELECT outcome FROM runs WHERE id = ?", (run_id,)).fetchone()
        return None if row is None else row[0]

    def unknown(self, run_ids: Iterable[str]) -> list[str]:
        """Those that are no run's id."""
        return [
            run_id
            for run_id in run_ids
            if run_id.isascii()  # SQLite takes no name that is not UTF-8, and ours all are this
            and self.connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None
        ]

    def run_ids(self, start: str, limit: int = 50) -> list[tuple[str, str]]:
        """(id, job) of runs whose id or job begins with `start`, newest first: for completion."""
        return self.connection.execute(
            "SELECT id, job FROM runs WHERE id LIKE :start || '%' OR job LIKE :start || '%' ORDER BY id DESC LIMIT :n",
            {"start": start, "n": limit},
        ).fetchall()

    def steps(self, run_id: str, *, telling: bool = False) -> list[StepRow]:
        """All steps of a run that have a row, in the order of the file.

        Here as everywhere: not those that the file which the run goes on with does not have (position -1).
        `telling`: of instances and rounds only those that run, wait or failed.
        """
        which = ""
        if telling:
            which = (
                " AND (number < 0 OR state IN ('running', 'waiting')"
                " OR outcome IN ('failed', 'timed_out', 'over_budget'))"
            )
        rows = self.connection.execute(
            f"SELECT {_STEP} FROM steps WHERE run_id = ? AND position >= 0{which} ORDER BY position, number", (run_id,)
        )
        return made(StepRow, rows)

    def active_steps(self, run_id: str) -> list[tuple[str, State]]:
        """(instance, state) of the steps and instances that run or wait, in the order of the file.

        A step whose instances are at work is not among them.
        """
        return self.connection.execute(
            "SELECT instance, state FROM steps WHERE run_id = ? AND state IN ('running', 'waiting')"
            " AND position >= 0 AND NOT (state = 'running' AND coalesce(instances, 0) > 0)"
            " ORDER BY position, number",
            (run_id,),
        ).fetchall()

    def step_states(self, run_id: str, *, but_succeeded: bool = False) -> list[StepState]:
        """What recovery needs of each step that has a row; `but_succeeded`: of those that have not succeeded."""
        which = " AND outcome IS NOT 'succeeded'" if but_succeeded else ""
        rows = self.connection.execute(
            "SELECT instance, state, outcome, reason, covered, asked, attempt, tries, interruptions, due,"
            " finished_at, instances, answered, question, verifying"
            f" FROM steps WHERE run_id = ? AND position >= 0{which}",
            (run_id,),
        )
        return made(StepState, rows)

    def succeeded(self, run_id: str) -> list[tuple[str, int]]:
        """(instance, last attempt) of what has succeeded."""
        return self.connection.execute(
            "SELECT instance, attempt FROM steps WHERE run_id = ? AND outcome = 'succeeded' AND position >= 0",
            (run_id,),
        ).fetchall()

    def rows_of(self, run_id: str, position: int) -> list[StepRow]:
        """The rows of the step at a position of the file: its own, and those of its instances."""
        rows = self.connection.execute(
            f"SELECT {_STEP} FROM steps WHERE run_id = ? AND position = ? ORDER BY number", (run_id, position)
        )
        return made(StepRow, rows)

    def outputs(self, run_id: str, instance: str) -> dict[str, JSON]:
        """The outputs of a finished step; empty if it has none."""
        row = self.connection.execute(
            "SELECT outputs FROM steps WHERE run_id = ? AND instance = ?", (run_id, instance)
        ).fetchone()
        return {} if row is None else parsed_object(row[0])

    def key_of(self, run_id: str, instance: str) -> str | None:
        """The idempotency key that the attempts of a step have had; None before the first."""
        row = self.connection.execute(
            "SELECT idempotency_key FROM steps WHERE run_id = ? AND instance = ?", (run_id, instance)
        ).fetchone()
        return None if row is None else row[0]

    def attempts(self, run_id: str, instance: str | None = None) -> list[AttemptRow]:
        """The attempts of a run, or of one step, in the order of their starts."""
        where, values = ("AND instance = ?", [instance]) if instance else ("", [])
        rows = self.connection.execute(
            f"SELECT {_ATTEMPT} FROM attempts WHERE run_id = ? {where} ORDER BY started_at, instance, number",
            (run_id, *values),
        )
        return made(AttemptRow, rows)

    def attempt(self, run_id: str, instance: str, number: int) -> AttemptRow | None:
        """One attempt."""
        row = self.connection.execute(
            f"SELECT {_ATTEMPT} FROM attempts WHERE run_id = ? AND instance = ? AND number = ?",
            (run_id, instance, number),
        ).fetchone()
        return None if row is None else made(AttemptRow, (row,))[0]

    def interrupted_steps(self, run_id: str) -> set[str]:
        """The steps of which some attempt was interrupted."""
        rows = self.connection.execute(
            "SELECT DISTINCT instance FROM attempts WHERE run_id = ? AND outcome = 'interrupted'", (run_id,)
        )
        return {row[0] for row in rows}

    def step_row(self, run_id: str, instance: str) -> StepRow | None:
        """One step, if it has a row."""
        row = self.connection.execute(
            f"SELECT {_STEP} FROM steps WHERE run_id = ? AND instance = ?", (run_id, instance)
        ).fetchone()
        return None if row is None else made(StepRow, (row,))[0]

    def events(self, run_id: str | None = None, *, after: int = 0, limit: int = -1) -> list[Event]:
        """The journal of a run from event `after` on, or the newest `limit` events of all runs, oldest first."""
        columns = "e.run_id, r.job, e.seq, e.at, e.kind, e.instance, e.attempt, e.by, e.detail"
        if run_id is not None:
            rows = self.connection.execute(
                f"SELECT {columns} FROM events AS e JOIN runs AS r ON r.id = e.run_id"
                " WHERE e.run_id = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
                (run_id, after, limit),
            ).fetchall()
        else:
            rows = self.connection.execute(
                f"SELECT {columns} FROM events AS e JOIN runs AS r ON r.id = e.run_id"
                " ORDER BY e.at DESC, e.run_id DESC, e.seq DESC LIMIT ?",
                (limit,),
            ).fetchall()[::-1]
        return made(Event, rows)

    def questions(self, run_id: str) -> list[tuple[str, str]]:
        """(instance, question) of what waits for an answer that nobody has given yet, in the order of the file."""
        return self.connection.execute(
            "SELECT instance, question FROM steps WHERE run_id = :run AND state = 'waiting' AND position >= 0"
            " AND question IS NOT NULL AND NOT EXISTS (SELECT 1 FROM wishes WHERE wishes.run_id = :run"
            " AND wishes.instance = steps.instance AND taken_at IS NULL) ORDER BY position, number",
            {"run": run_id},
        ).fetchall()

    def asked(self, run_id: str) -> list[Asked]:
        """What waits for an answer in a run, and in the runs that it called and that are not finished."""
        rows = self.connection.execute(
            "WITH RECURSIVE open (id, via) AS (SELECT :run, NULL UNION ALL"
            " SELECT runs.id, coalesce(via, runs.caller_instance) FROM runs JOIN open ON runs.caller = open.id"
            " WHERE runs.state <> 'finished')"
            " SELECT open.id, instance, question, via FROM open JOIN steps ON steps.run_id = open.id"
            " WHERE state = 'waiting' AND position >= 0 AND question IS NOT NULL AND NOT EXISTS (SELECT 1 FROM wishes"
            " WHERE wishes.run_id = open.id AND wishes.instance = steps.instance AND taken_at IS NULL)"
            " ORDER BY via IS NOT NULL, open.id, position, number",
            {"run": run_id},
        )
        return made(Asked, rows)

    def wishes(self, run_id: str) -> list[tuple[int, str, str | None]]:
        """(id, kind, instance) of what has been asked of the owner and not been taken up, oldest first."""
        return self.connection.execute(
            "SELECT id, kind, instance FROM wishes WHERE run_id = ? AND taken_at IS NULL ORDER BY id", (run_id,)
        ).fetchall()

    def cancels_taken(self, run_id: str) -> int:
        """How many cancels have been taken up since the run was last opened."""
        wished, still_open = self.connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE taken_at IS NULL) FROM wishes"
            " WHERE run_id = ? AND kind = 'cancel'",
            (run_id,),
        ).fetchone()
        if wished == still_open:
            return 0
        # each wish has its line in the journal, whose numbers tell before from after as no clock can; a reopening
        # closes what was open before it, so what is open now came after
        row = self.connection.execute(
            "SELECT count(*) FROM events WHERE run_id = :run AND kind = 'cancel_requested' AND seq > coalesce("
            " (SELECT max(seq) FROM events WHERE run_id = :run AND kind = 'run_reopened'), 0)",
            {"run": run_id},
        ).fetchone()
        return int(row[0]) - int(still_open)

    def cancels_wished(self, run_id: str, by: str | None = None) -> int:
        """How often somebody (None: anybody) has wished a run's cancel since it was last opened."""
        row = self.connection.execute(
            "SELECT count(*) FROM events WHERE run_id = :run AND kind = 'cancel_requested'"
            " AND (by = :by OR :by IS NULL)"
            " AND seq > coalesce((SELECT max(seq) FROM events WHERE run_id = :run AND kind = 'run_reopened'), 0)",
            {"run": run_id, "by": by},
        ).fetchone()
        return int(row[0])

    def replaced_by(self, run: Run) -> str | None:
        """The run that has cancelled one to take its place (`concurrency: replace`)."""
        if run.outcome != "cancelled" or run.caller is not None:
            return None
        row = self.connection.execute(
            "SELECT by FROM events WHERE run_id = ? AND kind = 'cancel_requested' AND by LIKE 'run %' LIMIT 1",
            (run.id,),
        ).fetchone()
        return None if row is None else row[0].removeprefix("run ")

    def last_success(self, job: str) -> int | None:
        """When the job last succeeded."""
        row = self.connection.execute(
            "SELECT max(finished_at) FROM runs WHERE job = ? AND outcome = 'succeeded'", (job,)
        ).fetchone()
        return None if row is None else row[0]

    def usual_duration(self, job: str, runs: int = 11, least: int = 1) -> int | None:
        """The median time of the last successful runs of a job, in ms; None if there are fewer than `least`."""
        rows = self.connection.execute(
            "SELECT finished_at - started_at FROM runs WHERE job = ? AND outcome = 'succeeded'"
            " ORDER BY finished_at DESC LIMIT ?",
            (job, runs),
        ).fetchall()
        times = sorted(row[0] for row in rows)
        return times[len(times) // 2] if len(times) >= least else None

    def slow_after(self, job: str) -> tuple[int, int] | None:
        """After how many ms a run of a job is slow, and what it usually takes; None if too few have succeeded."""
        usual = self.usual_duration(job, least=_KNOWN_BY)
        return None if usual is None else (max(_SLOW * usual, usual + _SLOW_BY), usual)

    def data_version(self) -> int:
        """A number that is another one when somebody else has changed the record since the last look."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def job_of(self, run: Run) -> Job:
        """The job that a run works from: its snapshot, decoded, once for each reader."""
        if known := self._jobs.get(run.snapshot):
            return known
        row = self.connection.execute(
            "SELECT text, decoder, decoded FROM snapshots WHERE sha256 = ?", (run.snapshot,)
        ).fetchone()
        if row is None:
            raise NotFound(f"the job file of run {run.id} is not in the record any more")
        job = self._jobs[run.snapshot] = Snapshot.job_in(row[0], row[1], row[2], run.file)
        return job

    def text_of(self, run: Run) -> str:
        """The text of the job file that a run works from."""
        row = self.connection.execute("SELECT text FROM snapshots WHERE sha256 = ?", (run.snapshot,)).fetchone()
        return "" if row is None else str(row[0])


def _run(row: Sequence[Any]) -> Run:
    return made(Run, (row,))[0]
