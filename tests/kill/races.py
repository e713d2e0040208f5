"""Two `resume` at once, many times: one goes on, the other says who has it.

    python -m tests.kill.races [ROUNDS]        200 by default
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from .arena import LIMIT, Arena


def race(arena: Arena, rounds: int) -> dict[str, int]:
    """What came of each round, counted."""
    gate = arena.gate("race")
    job = arena.job("raced", f"max_resumes: 100000\nsteps:\n- id: s\n  run: '{gate.shell}'\n")
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        arena.start("run", str(job))
        gate.reached()
        arena.kill_everything()
        both = [arena.start("resume", arena.run_id) for _ in range(2)]
        gate.reached()  # one of them has started the step again
        loser = _first_to_end(both)
        gate.open()
        for process in both:
            process.wait(LIMIT)
        statuses = sorted(process.returncode for process in both)
        words = loser.stderr.read() if loser.stderr else ""
        attempts = arena.rows("SELECT count(*) FROM attempts WHERE run_id = ?", arena.run_id)[0][0]
        if statuses == [0, 75] and "is being advanced by process" in words and attempts == 2:
            seen["one went on, the other said who"] += 1
        else:
            seen[f"statuses {statuses}, attempts {attempts}, {words!r}"] += 1
        arena.close_pipes()
    return dict(seen)


def _first_to_end(both: list) -> object:  # type: ignore[type-arg]
    import os
    import select

    fds = {os.pidfd_open(process.pid): process for process in both}
    ready, _, _ = select.select(list(fds), [], [], LIMIT)
    for fd in fds:
        os.close(fd)
    return fds[ready[0]] if ready else both[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place = Arena(Path(folder))
        print(race(place, int(sys.argv[1]) if len(sys.argv) > 1 else 200))
        place.close()
