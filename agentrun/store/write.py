"""The verbs that change the record: one transaction each, each conditional on the state that it leaves.

    record      a run exists; its key is taken                (before anything of it is started)
    take        this process may advance it: epoch + 1        (holding the lease)
    commit      one turn of the loop                          (every write names the epoch)
    reopen      a finished run that did not succeed goes on
    wish        somebody else wants something of the owner; `answer` is what a person says of an open question
    adopt_spec  an unfinished or reopened run goes on with another job file

Each of them is told to the run's journal (`redo.py`), from which `replay.py` does it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from ..errors import Busy, NotFound, UsageError
from ..model import JSON, split_instance
from . import admission, questions, redo
from .admission import Overlap, Skipped
from .changes import AttemptEnded, Change, StepSettled, dumps, guard, journal, take_wishes
from .database import Database
from .instances import base_steps, copy_instances, recount
from .jobs import Settlement, settle
from .read import Reader
from .snapshots import Snapshot
from .values import parsed_object

T = TypeVar("T")


class NewRun(NamedTuple):
    """What is known of a run before it starts. Times in ms since the epoch."""

    id: str
    job: str
    file: str
    params: Mapping[str, JSON]
    run_key: str | None
    scheduled_time: int | None
    created_at: int
    by: str
    steps_total: int
    parent: str | None = None
    caller: tuple[str, str] | None = None  # the run of which it is a step, and which
    overlap: Overlap | None = None
    ticks: Settlement | None = None  # of its own tick, and of those before it
    pausable: bool = False  # it was started for its tick: not while the job is paused
    catching_up: bool = False  # its tick was missed: not while another tick of the job is at work


class Stamp(NamedTuple):
    """When and in what boot a write happens. `elapsed` and `boottime` in ms; `now` in ms since the epoch."""

    now: int
    elapsed: int
    boottime: int
    boot_id: str


class RunKeyTaken(Exception):
    """A run of this job has this key already; `run_id` is it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Store:
    """The writing side of the record, over one open `Database`; `reader` is its other side. With `with`: closed."""

    def __init__(self, database: Database, journals: redo.Journals | None = None) -> None:
        self.database = database
        self.reader = Reader(database.connection)
        self._journals = journals or redo.Journals(database.root)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._journals.close()
        self.database.close()

    def _write(
        self, run_id: str, verb: str, work: Callable[[sqlite3.Cursor], T], said: Mapping[str, Any] | None = None
    ) -> T:
        """One transaction of a run, and its line in the run's journal. `said`: the verb's arguments there."""

        def told(cursor: sqlite3.Cursor) -> T:
            self._journals.begin()
            result = work(cursor)
            if not isinstance(result, Skipped):  # then there is no run
                self._journals.append(cursor, run_id, verb, said or {})
            return result

        return self.database.write(told, self._journals.take_back)

    def record(
        self,
        run: NewRun,
        snapshot: Snapshot,
        taken_over: Iterable[StepSettled] = (),
        *,
        owner: Mapping[str, JSON] | None = None,
        stamp: Stamp | None = None,
    ) -> Literal["taken", "queued"] | Skipped:
        """Record a new run: queued, or with its `owner` and `stamp` as taken in the same write (epoch 1).

        `taken_over`: finished steps that it keeps of its parent (`--from`). In the same transaction that would record
        it, it is seen whether it may begin: raises RunKeyTaken, with the run that has the key; a job that is paused,
        and runs of its `overlap` that are at work, let it be skipped, or queued although it has an owner. What is
        skipped has no run, and its account among the ticks of the job.
        """
        if not _is_text(run.file):
            raise UsageError(f"the path {run.file!a} is not UTF-8", "rename the job file or its folder")
        sha256 = snapshot.sha256
        decoded = snapshot.decoded()
        taken_over = list(taken_over)

        def work(cursor: sqlite3.Cursor) -> Literal["taken", "queued"] | Skipped:
            if run.run_key is not None:
                row = cursor.execute(  # a tick is taken by whoever has it, under whatever key
                    "SELECT id FROM runs WHERE job = :job AND run_key = :key UNION ALL SELECT id FROM runs"
                    " WHERE job = :job AND scheduled_time = :tick AND run_key IS NOT NULL LIMIT 1",
                    {"job": run.job, "key": run.run_key, "tick": run.scheduled_time},
                ).fetchone()
                if row:
                    raise RunKeyTaken(row[0])
            verdict = admission.verdict(cursor, run)
            if isinstance(verdict, Skipped):
                admission.skip(cursor, verdict, run)
                return verdict
            if run.ticks is not None:
                settle(cursor, run.ticks, run.created_at, run.by)
            snapshot.put(cursor, sha256, decoded)
            in_line = run.overlap is not None and run.overlap.queue and (verdict == "waits" or owner is None)
            _insert(cursor, run, sha256, in_line=in_line)
            for settled in taken_over:
                settled.write(cursor, run.id, 0)
            if run.parent and taken_over:
                copy_instances(cursor, run.parent, run.id)
                recount(cursor, run.id, run.steps_total)
            if owner is None or stamp is None or verdict == "waits":
                return "queued"
            _take(cursor, run.id, 0, owner, stamp, resumed=False)
            return "taken"

        return self._write(run.id, redo.BASE, work)

    def take(
        self,
        run_id: str,
        *,
        seen_epoch: int,
        owner: Mapping[str, JSON],
        stamp: Stamp,
        resumed: bool,
        in_turn: bool = False,
    ) -> int:
        """Become the owner of an unfinished run: returns the new epoch. The caller holds the lease.

        `resumed`: it had an owner before, who left it unfinished. `in_turn`: one that waits in line waits on, while
        others of its key are at work. Raises Overtaken if the epoch has moved, Busy.
        """

        def work(cursor: sqlite3.Cursor) -> int:
            if in_turn and seen_epoch == 0 and (other := admission.blocker(cursor, run_id)):
                raise Busy(f"run {run_id} waits until run {other} has ended", "it begins then by itself")
            return _take(cursor, run_id, seen_epoch, owner, stamp, resumed=resumed)

        said = {"seen_epoch": seen_epoch, "owner": owner, "stamp": stamp, "resumed": resumed}
        return self._write(run_id, "take", work, said)

    def supersede(self, run_id: str, newer: str, *, by: str, now: int) -> None:
        """Skip a run that waits in line: a newer one has taken its place. Raises Overtaken if it has begun."""

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute(
                "UPDATE runs SET state = 'finished', outcome = 'skipped', reason = 'overlap', error = ?,"
                " finished_at = max(?, created_at) WHERE id = ? AND state = 'queued' AND epoch = 0",
                (f"run {newer} has taken its place in line", now, run_id),
            )
            guard(cursor, f"run {run_id}")
            take_wishes(cursor, run_id, now)
            detail: dict[str, Any] = {"outcome": "skipped", "because": newer}
            journal(cursor, run_id, now, "run_finished", by, detail=detail)

        self._write(run_id, "supersede", work, {"newer": newer, "by": by, "now": now})

    def commit(
        self,
        run_id: str,
        epoch: int,
        stamp: Stamp,
        changes: Sequence[Change],
        *,
        results_seen: int,
        started: int = 0,
        stopped: bool = False,
    ) -> None:
        """One turn of the loop: all of its changes, or none.

        `results_seen`: how far the results file is in the record after it. `started`: attempts that count for
        the budget. `stopped`: the owner leaves on request.

        Raises Overtaken if this process no longer owns the run, StoreError if nothing can be written.
        """
        done = sum(isinstance(change, StepSettled) and change.counted for change in changes)

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute(
                "UPDATE runs SET started_steps = started_steps + ?,"
                " elapsed = ?, boot_id = ?, seen = ?, results_seen = ?, stopped = ?"
                " WHERE id = ? AND epoch = ? AND state = 'running'",
                (started, stamp.elapsed, stamp.boot_id, stamp.boottime, results_seen, int(stopped), run_id, epoch),
            )
            guard(cursor, f"run {run_id}")
            for change in changes:
                change.write(cursor, run_id, epoch)
            if done:  # last: some of these may be instances of a list that was frozen in this very turn
                cursor.execute("UPDATE runs SET steps_done = steps_done + ? WHERE id = ?", (done, run_id))

        said = {
            "epoch": epoch, "stamp": stamp, "changes": [redo.change(one) for one in changes],
            "results_seen": results_seen, "started": started, "stopped": stopped,
        }  # fmt: skip
        self._write(run_id, "commit", work, said)

    def reopen(
        self,
        run_id: str,
        steps: Sequence[str],
        *,
        handlers: Container[str],
        loops: Container[str] = (),
        in_doubt: Container[str] = (),
        by: str,
        now: int,
    ) -> None:
        """Let a finished run that did not succeed go on: `steps` are queued again, the deadline starts anew.

        The `if` of `handlers` is put again, and their `loops` begin again; the other answers and rounds stand, but
        the last `until` of a loop is asked again. Attempts and keys stay; budgets go on counting. What was wished of
        it before is over. Those `in_doubt` are as they were when their last attempt was interrupted: whoever goes on
        has to find out first what became of it. Raises Overtaken if the run is not finished any more.
        """

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute(
                "UPDATE runs SET state = 'running', outcome = NULL, reason = NULL, error = NULL,"
                " exit_code = NULL, finished_at = NULL, closing = NULL, closing_at = NULL, elapsed = 0,"
                " seen = NULL, resumes = 0 WHERE id = ? AND state = 'finished' AND outcome <> 'succeeded'",
                (run_id,),
            )
            guard(cursor, f"run {run_id}")
            base = base_steps(cursor, run_id)
            take_wishes(cursor, run_id, now)
            journal(cursor, run_id, now, "run_reopened", by, detail={"steps": list(steps)})
            for instance in steps:
                step = split_instance(instance)[0]
                cursor.execute(
                    "UPDATE steps SET state = CASE WHEN :doubt THEN 'running' ELSE 'queued' END, outcome = NULL,"
                    " reason = NULL, covered = 0,"
                    " asked = CASE WHEN :anew THEN 0 ELSE asked END,"
                    " instances = CASE WHEN :anew AND :loop THEN NULL ELSE instances END,"
                    " answered = CASE WHEN :anew THEN 0 ELSE max(0, min(answered, coalesce(instances, 1) - 1)) END,"
                    " tries = 0, interruptions = 0, outputs = NULL, exit_code = NULL, signal = NULL,"
                    " error = NULL, finished_at = NULL, started_at = NULL"
                    " WHERE run_id = :run AND instance = :instance AND state = 'finished'",
                    {
                        "anew": step in handlers, "loop": step in loops, "doubt": instance in in_doubt,
                        "run": run_id, "instance": instance,
                    },
                )
                guard(cursor, f"step {instance}")
            recount(cursor, run_id, base)

        ids = {split_instance(instance)[0] for instance in steps}
        said = {
            "steps": list(steps), "handlers": sorted(step for step in ids if step in handlers),
            "loops": sorted(step for step in ids if step in loops),
            "in_doubt": [instance for instance in steps if instance in in_doubt], "by": by, "now": now,
        }  # fmt: skip
        self._write(run_id, "reopen", work, said)

    def adopt_spec(
        self, run_id: str, snapshot: Snapshot, *, by: str, now: int, other_lists: Sequence[str] = ()
    ) -> None:
        """Let a run that nobody advances go on with another job file. `other_lists`: steps with another `foreach`.

        A step that is not in it keeps its rows, at position -1, where no question about the run's steps finds them:
        should a later file have it again, its attempts are numbered on. Raises NotFound, and Overtaken if the run
        has succeeded meanwhile.
        """
        sha256, decoded = snapshot.sha256, snapshot.decoded()

        def work(cursor: sqlite3.Cursor) -> None:
            snapshot.put(cursor, sha256, decoded)
            row = cursor.execute("SELECT params FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise NotFound(f"there is no run {run_id}")
            params = parsed_object(row[0])
            for name, param in snapshot.job.params.items():
                if name not in params and not param.required:
                    params[name] = param.default
            wanted = {step.id: step.index for step in snapshot.job.steps}
            for step in other_lists:
                _unfold_again(cursor, run_id, step, now)
            _place(cursor, run_id, wanted, now)
            cursor.execute(
                "UPDATE runs SET snapshot = ?, params = ? WHERE id = ? AND outcome IS NOT 'succeeded'",
                (sha256, dumps(params), run_id),
            )
            guard(cursor, f"run {run_id}")
            recount(cursor, run_id, len(wanted))
            journal(cursor, run_id, now, "spec_adopted", by, detail={"snapshot": sha256})

        self._write(run_id, redo.BASE, work)  # too much of it changes to be done again from its arguments

    def wish_to_cancel(self, run_id: str, *, by: str, now: int) -> None:
        """Ask the owner of a run, present or next, to cancel it. Raises Busy if it has finished."""

        def work(cursor: sqlite3.Cursor) -> None:
            row = cursor.execute("SELECT state, outcome FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise NotFound(f"there is no run {run_id}")
            if row[0] == "finished":
                raise Busy(f"run {run_id} has finished already: {row[1]}")
            questions.wish(cursor, run_id, "cancel", by, now)
            journal(cursor, run_id, now, "cancel_requested", by)

        self._write(run_id, "wish_to_cancel", work, {"by": by, "now": now})

    def answer(self, run_id: str, answers: Mapping[str, str], *, by: str, now: int) -> None:
        """Say of interrupted steps and instances what became of them (`took_place`, `rerun`): all, or none of it.

        Raises Busy if one waits for no answer.
        """

        def work(cursor: sqlite3.Cursor) -> None:
            questions.answer(cursor, run_id, answers, by, now)

        self._write(run_id, "answer", work, {"answers": dict(answers), "by": by, "now": now})


def _insert(cursor: sqlite3.Cursor, run: NewRun, sha256: str, *, in_line: bool) -> None:
    cursor.execute(
        "INSERT INTO runs (id, job, file, snapshot, params, run_key, scheduled_time, parent, state,"
        " created_at, steps_total, caller, caller_instance, overlap_key, overlap_limit, in_line)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
        (
            run.id, run.job, run.file, sha256, dumps(dict(run.params)), run.run_key, run.scheduled_time,
            run.parent, run.created_at, run.steps_total, *(run.caller or (None, None)),
            *((run.overlap.key, run.overlap.slots) if run.overlap else (None, None)), int(in_line),
        ),
    )  # fmt: skip
    detail = {"file": run.file, "job": run.job}
    if run.parent:
        detail["parent"] = run.parent
    if run.caller:
        detail["caller"] = "/".join(run.caller)
    journal(cursor, run.id, run.created_at, "run_created", run.by, detail=detail)


def _place(cursor: sqlite3.Cursor, run_id: str, wanted: Mapping[str, int], now: int) -> None:
    """Give each step's row its place in another job file; what a step that is gone was doing was interrupted."""
    rows = cursor.execute("SELECT instance FROM steps WHERE run_id = ?", (run_id,)).fetchall()
    for (instance,) in rows:
        cursor.execute(
            "UPDATE steps SET position = ? WHERE run_id = ? AND instance = ?",
            (wanted.get(split_instance(instance)[0], -1), run_id, instance),
        )
    cursor.execute(  # nor is an item that an earlier list dropped, unless the next list may have it again
        "UPDATE steps SET position = -1 WHERE run_id = ? AND number >= 0 AND EXISTS (SELECT 1 FROM items, steps AS own"
        " WHERE items.run_id = steps.run_id AND place < 0 AND steps.number = items.number"
        " AND steps.instance = items.step || '[' || items.number || ']'"
        " AND own.run_id = steps.run_id AND own.instance = items.step AND own.instances IS NOT NULL)",
        (run_id,),
    )
    _interrupt(cursor, run_id, now, lambda instance: split_instance(instance)[0] not in wanted)


def _unfold_again(cursor: sqlite3.Cursor, run_id: str, step: str, now: int) -> None:
    """Let the list of a step be frozen again, unless it has succeeded; its instances that ran were interrupted."""
    cursor.execute(
        "UPDATE steps SET instances = NULL WHERE run_id = ? AND instance = ? AND outcome IS NOT 'succeeded'"
        " AND NOT covered",
        (run_id, step),
    )
    if cursor.rowcount:
        _interrupt(cursor, run_id, now, lambda instance: instance.startswith(f"{step}["))
        cursor.execute(
            "UPDATE steps SET state = 'queued', due = NULL, question = NULL, verifying = 0"
            " WHERE run_id = ? AND number >= 0"
            " AND substr(instance, 1, ?) = ? AND state IN ('running', 'waiting')",
            (run_id, len(step) + 1, f"{step}["),
        )


def _interrupt(cursor: sqlite3.Cursor, run_id: str, now: int, which: Callable[[str], bool]) -> None:
    running = "SELECT instance, number, epoch FROM attempts WHERE run_id = ? AND state = 'running'"
    for instance, number, epoch in cursor.execute(running, (run_id,)).fetchall():
        if which(instance):
            ended = AttemptEnded(instance, number, "interrupted", now, reason="shutdown", requested=True)
            ended.write(cursor, run_id, epoch)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _take(
    cursor: sqlite3.Cursor, run_id: str, epoch: int, owner: Mapping[str, JSON], stamp: Stamp, *, resumed: bool
) -> int:
    # a takeover counts as a resume unless the last owner left on request
    cursor.execute(
        "UPDATE runs SET epoch = epoch + 1, state = 'running', owner = ?, wake_at = NULL,"
        " resumes = resumes + CASE WHEN ? AND NOT stopped THEN 1 ELSE 0 END, stopped = 0,"
        " started_at = coalesce(started_at, max(?, created_at)), elapsed = ?, boot_id = ?, seen = ?"
        " WHERE id = ? AND epoch = ? AND state <> 'finished'",
        (dumps(dict(owner)), resumed, stamp.now, stamp.elapsed, stamp.boot_id, stamp.boottime, run_id, epoch),
    )
    guard(cursor, f"run {run_id}")
    kind = "run_resumed" if resumed else "run_started"
    journal(cursor, run_id, stamp.now, kind, str(owner["user"]), detail={"epoch": epoch + 1, **owner})
    return epoch + 1
