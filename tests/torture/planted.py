"""Does the oracle see? Bugs are planted into a copy of the program, one at a time, and each must be caught.

A bug is a line of the program that is replaced by another: the kind of mistake that looks right in a review. It is
caught when a family that is named for it reports a violation; the cases of that family end at the first. A line that
is not there any more, or twice, is an error: the bug has to be planted anew.
"""

from __future__ import annotations

import importlib
import random
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from . import jobs, points
from .place import Stuck
from .tally import Tally, Wanted


class Bug(NamedTuple):
    """`file` is below the package; `old` stands in it once. `seen_by` gives the first violation, or none."""

    name: str
    file: str
    old: str
    new: str
    seen_by: Callable[[Path, Wanted], str | None]


def at_points(job: jobs.Job, action: str, *, seeds: tuple[int, ...] = (0, 1)) -> Callable[[Path, Wanted], str | None]:
    """The points of one job, one after the other."""

    def search(package: Path, wanted: Wanted) -> str | None:
        total = len(points.points(job, package))
        numbers = range(1, total * 3 // 2)
        with ThreadPoolExecutor(points.WORKERS) as pool:
            for first in range(0, len(seeds) * len(numbers), 8):
                every = [points.Case(job, at, action, seed) for seed in seeds for at in numbers]
                cases = every[first : first + 8]
                for case, outcome in zip(cases, pool.map(lambda one: points.play(one, package), cases), strict=True):
                    if outcome.violations:
                        return f"points: {case} ({outcome.name}): {outcome.violations[0]}"
        return None

    return search


def by(family: str) -> Callable[[Path, Wanted], str | None]:
    """A whole family at its smallest, for some seeds."""

    def search(package: Path, wanted: Wanted) -> str | None:
        for seed in range(3):
            module = importlib.import_module(f".{family}", __package__)
            try:
                tally: Tally = module.torture(Wanted(seed=seed, scale="ci", package=package))
            except (Stuck, TimeoutExpired) as hanging:
                return f"{family}: {hanging}"
            if tally.violations:
                return f"{family}: {tally.violations[0]}"
        return None

    return search


BUGS = (
    Bug(
        "a lease let go early",
        "engine/lease.py",
        "        if locks.try_lock(fd, locks.LEASE):\n            return cls(fd)",
        "        if locks.try_lock(fd, locks.LEASE):\n            locks.unlock(fd, locks.LEASE)\n"
        "            return cls(fd)",
        by("races"),
    ),
    Bug(
        "a start recorded after the spawn",
        "engine/supervisor.py",
        "        if turn.changes or self._meter.has_changes:\n            self._commit()\n",
        "        for order in turn.orders:\n            self._link.start(order.order)\n"
        "        turn.orders = []\n"
        "        if turn.changes or self._meter.has_changes:\n            self._commit()\n",
        at_points(jobs.SEQUENCE, "stop"),
    ),
    Bug(
        "a commit left out",
        "engine/supervisor.py",
        "            self._clock.stamp(),\n            changes,\n",
        "            self._clock.stamp(),\n"
        "            [one for one in changes if type(one).__name__ != 'StepSettled' or one.position != 1],\n",
        at_points(jobs.SEQUENCE, "stop"),
    ),
    Bug(
        "a result believed without its commit",
        "engine/turn.py",
        "        foreign = result.boot_id != self._boot_id",
        "        foreign = False",
        by("reboot"),
    ),
    Bug(
        "an end forgotten once it was read",
        "engine/recover.py",
        "        run = run._replace(results_seen=min(run.results_seen, _size(folder.results)))",
        "        run = run._replace(results_seen=_size(folder.results))",
        at_points(jobs.SEQUENCE, "stop"),
    ),
    Bug(
        "what nobody saw the end of counts as never started",
        "engine/supervisor.py",
        "            if adopted and attempt:",
        "            if attempt:",
        at_points(jobs.SEQUENCE, "stop"),
    ),
    Bug(
        "killpg only",
        "step/tree.py",
        "    for process in processes:\n        _send(process, _signal.SIGKILL, kin)\n    for pid in kin.roots():\n"
        "        procs.send_to_child(pid, _signal.SIGKILL)\n",
        "    if kin.leader:\n        procs.send_to_group(kin.leader, _signal.SIGKILL)\n",
        by("escapees"),
    ),
    Bug(
        "leftovers of a dead shim are not looked for",
        "engine/recover.py",
        "            tree.end_leftovers(run_id, folder, keep=left_running(job, facts))",
        "            pass",
        by("escapees"),
    ),
    Bug(
        "a key that changes with the attempt",
        "engine/inputs.py",
        "            return self.default_key(name)",
        "            return self.default_key(f'{name}#{attempt}')",
        at_points(jobs.RETRIES, "kill"),
    ),
    Bug(
        "an on_interrupt that is not asked",
        "engine/plan.py",
        '        case "interrupted":\n            return _after_interruption(step, name, known)',
        '        case "interrupted":\n            return None',
        at_points(jobs.POLICIES, "stop"),
    ),
    Bug(
        "a result written before the log is whole",
        "step/attempts.py",
        "            self._drain(attempt, LARGE_PIPE)  # all that was in it when its leader ended",
        "            pass",
        at_points(jobs.SEQUENCE, "kill"),
    ),
    Bug(
        "commits that are not synced",
        "store/database.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        by("power"),
    ),
    Bug(
        "timeouts by the wall clock",
        "step/attempts.py",
        "\nimport time\n",
        "\nimport time as _time\n\n\nclass time:\n    monotonic = _time.time\n\n\n",
        by("clock"),
    ),
)

QUICK = [bug for bug in BUGS if bug.name in ("a key that changes with the attempt", "an on_interrupt that is not asked",
                                             "a start recorded after the spawn")]  # fmt: skip


def torture(wanted: Wanted) -> Tally:
    """The family: each bug is a case, each that nobody saw a violation."""
    tally = Tally("planted")
    bugs = BUGS if wanted.scale != "ci" else random.Random(wanted.seed).sample(QUICK, 2)
    for bug in bugs:
        if wanted.is_over:
            tally.notes.append(f"{bug.name}: not tried")
            continue
        with tempfile.TemporaryDirectory(prefix="planted-") as folder:
            package = _plant(bug, wanted.package, Path(folder))
            seen = bug.seen_by(package, wanted)
        print(f"    {bug.name}: {seen or 'NOT SEEN'}", flush=True)
        tally.add([] if seen else ["nobody saw it"], case=bug.name)
    return tally


def _plant(bug: Bug, package: Path, folder: Path) -> Path:
    """A copy of the program that has this bug."""
    shutil.copytree(package / "agentrun", folder / "agentrun", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "agentrun" / bug.file
    text = path.read_text()
    assert text.count(bug.old) == 1, f"{bug.name}: its line stands {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new))
    return folder
