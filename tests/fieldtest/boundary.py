"""agentrun, but that it stands still at the end of each step: `python boundary.py run JOB`, `… resume RUN`.

A step has ended, its result and the state of its shell are on the disk, the record does not know of it yet, and the
step after it has not begun: there the supervisor says so in a FIFO and stops itself. Whoever reads that kills
everything. Each step is stopped at once: the file `boundaries` names those that were. Both are in $FIELD, or /.field.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from agentrun import __main__ as program
from agentrun.step.link import Link

FOLDER = os.environ.get("FIELD", "/.field")


def _watch() -> None:
    from agentrun.store.changes import StepSettled
    from agentrun.store.write import Store

    commit = Store.commit

    def watched(self: Store, run_id: str, epoch: int, stamp: Any, changes: Any, **named: Any) -> None:
        settled = [change.instance for change in changes if isinstance(change, StepSettled)]
        with open(f"{FOLDER}/boundaries", "a+") as file:
            file.seek(0)
            known = file.read().split("\n")
            new = [name for name in settled if name not in known]
            file.writelines(f"{name}\n" for name in new)
        if new:
            with open(f"{FOLDER}/boundary", "wb", 0) as bell:
                bell.write(b"!")
            os.kill(os.getpid(), signal.SIGSTOP)
        commit(self, run_id, epoch, stamp, changes, **named)

    Store.commit = watched  # type: ignore[method-assign]


def _fork() -> Link:
    link = _forked()
    _watch()  # only here: the shim, which has just been forked, loads nothing of the store
    return link


_forked = Link.fork
Link.fork = _fork  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(program.main())  # type: ignore[func-returns-value]
