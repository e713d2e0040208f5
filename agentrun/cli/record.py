"""The record as commands come to it: opened for reading, a run found by what a person calls it, looked at.

A run may be named by all that `Reader.find` knows, and as the lines of its log name it: `quotes/7f3a`.
"""

from __future__ import annotations

from ..errors import NotFound
from ..render.status import Standing
from ..render.times import now_ms
from ..store import admission, folders
from ..store.database import open_for_reading
from ..store.read import Reader, Run


class Record:
    """The state folder and its record, for one command."""

    def __init__(self, root: str, reader: Reader) -> None:
        self.root = root
        self.reader = reader

    def find(self, name: str | None) -> Run:
        """The run that is meant; without a name, the latest of all. Raises NotFound."""
        if name is None:
            latest = self.reader.runs(limit=1)
            if not latest:
                raise nothing_yet(self.root)
            return latest[0]
        job, slash, end = name.rpartition("/")
        if slash:
            run = self.reader.short(job, end)
            if run is None:
                raise NotFound(f"job {job} has no run whose id ends with {end}", "`agentrun status` lists the runs")
            return run
        return self.reader.find(name)

    def standing(self, run: Run) -> Standing:
        """How it stands now, asked of the record and of the kernel's locks."""
        if run.state == "finished":
            return Standing(run)
        if run.interrupted(self.root):
            # It may have finished between the row and the lock: only a row read after the look at the lock counts.
            run = self.reader.run(run.id)
            if run.state == "running" and run.interrupted(self.root):
                return Standing(run, True, self.reader.active_steps(run.id), asked=self.reader.asked(run.id))
            if run.state == "finished":
                return Standing(run)
        if run.state == "queued":
            return Standing(run, behind=admission.blocker(self.reader.connection, run.id))
        active, asked = self.reader.active_steps(run.id), self.reader.asked(run.id)
        return Standing(run, False, active, self._slow(run), asked)

    def _slow(self, run: Run) -> int | None:
        """What a run usually takes, if it runs and has taken far longer."""
        if run.state != "running" or run.started_at is None:
            return None
        after = self.reader.slow_after(run.job)
        return after[1] if after is not None and now_ms() - run.started_at > after[0] else None

    def folder(self, run: Run) -> folders.RunFolder:
        """The run's folder."""
        return folders.RunFolder(self.root, run.id)


def open_record() -> Record | None:
    """The record of this user, or None if nothing was ever recorded. Raises StoreError."""
    root = folders.home()
    connection = open_for_reading(root)
    return None if connection is None else Record(root, Reader(connection))


def need_record() -> Record:
    """The same, where a run is asked for. Raises NotFound."""
    record = open_record()
    if record is None:
        raise nothing_yet(folders.home())
    return record


def nothing_yet(root: str) -> NotFound:
    """The answer to a question about runs where there are none."""
    return NotFound(f"nothing has been run yet (no record in {root})", "start with: agentrun run JOB.yaml")
