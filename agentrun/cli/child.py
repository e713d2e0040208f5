"""`agentrun child CALL`: the process of a step with `job`. It brings the step's run to its end, and ends as that does.

The record says what there is to do: no run yet, then one is created; one that was interrupted or has failed goes on;
one that has succeeded is done. So it does not matter which attempt of the step this is, or when the last one ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..engine import create, reuse
from ..engine.clock import wall
from ..engine.lease import this_process
from ..engine.watcher import Silent
from ..errors import NotFound, UsageError
from ..model import JSON, Job
from ..store.changes import Change
from ..store.questions import StepQuestioned
from ..store.read import Reader, Run
from ..store.snapshots import Snapshot, stem_of
from ..store.write import Store
from . import advance


def child(call: str) -> int:
    """Advance the run that a step with `job` is: what shims start. Returns the exit status."""
    told = _read(call)
    os.environ["AGENTRUN_HOME"] = told["root"]  # whatever the step's environment says
    caller, instance = told["caller"]
    with advance.open_store() as store:
        shown = _Asking()
        run = store.reader.child_of(caller, instance)
        if run is None:
            made = _create(store, told)
            return advance.advance(store, made.run_id, shown=shown, clock=made.clock)
        if run.state == "finished" and run.outcome != "succeeded":
            reuse.reopen(store, run, by=str(this_process()["user"]), now=wall())
        elif run.state == "finished":
            return 0
        return advance.advance(store, run.id, shown=shown)


class _Asking(Silent):
    """Writes questions into the log of the step that the run is: its run is not parked, so nobody else says them."""

    def begin(
        self, run: Run, job: Job, usual_ms: int | None, now: int, *, active: Sequence[tuple[str, str]] = (),
        slow_after: int | None = None,
    ) -> None:
        self._run = run

    def changed(self, changes: Sequence[Change], now: int) -> None:
        asked = [(change.instance, change.question) for change in changes if isinstance(change, StepQuestioned)]
        if asked:
            from ..render.questions import question_lines

            try:
                print("\n".join(question_lines(self._run, asked)), flush=True)
            except OSError:
                pass  # whoever reads the log: the record has the question


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            told: dict[str, Any] = json.load(file)
            return told
    except (OSError, ValueError) as error:
        raise NotFound(f"cannot read {path}: {error}", "this command is for steps with `job` alone") from error


def _create(store: Store, told: Mapping[str, Any]) -> create.Created:
    from ..spec.children import child_path
    from ..spec.decode import load

    path = child_path(told["parent_file"], told["file"])
    caller, instance = told["caller"]
    for run in _line(store.reader, caller):
        if os.path.realpath(run.file) == os.path.realpath(path):
            raise UsageError(
                f"{told['file']} leads back to itself: run {run.id} of it is being advanced by way of this step",
                "a job cannot run itself, however long the way",
            )
    job, text = load(path)
    request = create.Request(
        Snapshot(text, job, stem_of(path)),
        path,
        _parameters(job, told["params"]),
        scheduled_time=store.reader.run(caller).scheduled_time,
        caller=(caller, instance),
    )
    made = create.create(store, request, create.Frozen.here(), own=True)
    assert isinstance(made, create.Created), "a child's turn is its parent's"
    return made


def _line(reader: Reader, run_id: str | None) -> Iterator[Run]:
    """The run that calls, the one that called it, and so on."""
    while run_id is not None:
        run = reader.run(run_id)
        yield run
        run_id = run.caller


def _parameters(job: Job, given: Mapping[str, JSON]) -> dict[str, JSON]:
    """The child's parameters from the step's `with`: values of any type. Raises UsageError."""
    params = {name: param.default for name, param in job.params.items() if not param.required}
    if unknown := [name for name in given if name not in job.params]:
        known = ", ".join(job.params) or "none"
        raise UsageError(f"job {job.name} has no parameter '{unknown[0]}'", f"it has: {known}")
    params |= given
    if missing := [name for name in job.params if name not in params]:
        raise UsageError(f"job {job.name} needs a value for {', '.join(missing)}", "give it by the step's `with`")
    return params
