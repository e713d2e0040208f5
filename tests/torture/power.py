"""Power cuts: the state folder is on an ext4 of its own (a loop device), which is shut down hard in the midst of runs:
EXT4_IOC_SHUTDOWN without a flush of its journal, so that all is lost that had not been synced. Then everything is
killed, the file system mounted again under another boot id, and `agentrun resume` called once.

The control writes on the same disk at the same time: lines with fdatasync after each, of which it says outside which
are done, and lines without (to see that the cut loses what is not synced). Acknowledged by agentrun is: what any reader
of its record saw before the cut, the exit status 0 of a run, an id that `run --detach` printed, and the start of a
step (the ledger is outside), for it is committed before.

What must hold: nothing acknowledged before is lost; the oracle's questions, but where the control lost a line of which
the kernel had said, in the very instant of the cut, that it is on the disk. Logs are not
synced: what is missing in them of steps that had ended before the cut is counted in a note. What a loop device cannot
show: a disk that says it has written what it has only in its cache.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import jobs, oracle
from .disks import NEEDS_LOOP, Loop, can_loop, loop
from .place import LIMIT, Place, Stuck, send, wait_gone
from .tally import Tally, Wanted

WORKERS = 2
MIB = 48

# Writes to FOLDER/synced and FOLDER/not-synced, and says in DONE how many lines are synced.
CONTROL = """
import os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
synced, loose = (os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder) for name in ("synced", "loose"))
os.fsync(folder)
done, n = os.open(sys.argv[2], os.O_WRONLY), 0
while True:
    for fd in (synced, loose):
        os.write(fd, b"%099d\\n" % n)
    os.fdatasync(synced)
    n += 1
    os.pwrite(done, b"%d" % n, 0)
"""
OTHER_BOOT = 'mount --bind "$BOOT" /proc/sys/kernel/random/boot_id && exec "$@"'


class Outcome(NamedTuple):
    """`lost_lines`: those of the control that were not synced. `lost_logs`: of steps that had ended.

    `untrue`: in the instant of the cut the kernel told the control that a line was synced, and it is lost.
    """

    violations: list[str]
    lost_lines: int
    lost_logs: int
    events: int
    untrue: bool = False


class Seen(NamedTuple):
    """What had been acknowledged before the cut. `events`: the last of each run; `good`: runs with exit 0."""

    events: dict[str, int]
    attempts: set[tuple[str, str, int, str]]
    good: int
    control: int
    after: int  # what the control said once all was dead: its last words may come from the instant of the cut


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("power")
    if not can_loop():
        tally.notes.append(NEEDS_LOOP)
        return tally
    lines = logs = events = untrue = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        seeds = list(wanted.seeds(wanted.pick(ci=4, normal=24, full=100)))
        for first in range(0, len(seeds), WORKERS):
            if wanted.is_over:
                break
            batch = seeds[first : first + WORKERS]
            for seed, outcome in zip(batch, pool.map(lambda seed: play(seed, wanted.package), batch), strict=True):
                tally.add(outcome.violations, case=f"seed {seed}")
                lines, logs = lines + outcome.lost_lines, logs + outcome.lost_logs
                events, untrue = events + outcome.events, untrue + outcome.untrue
    tally.notes.append(
        f"{events:,} lines of journals were acknowledged; of what nobody had synced were lost {lines:,} lines of the"
        f" control and {logs} logs; in {untrue} cuts the control lost synced lines, of the very instant"
    )
    return tally


def play(seed: int, package: Path) -> Outcome:
    """One cut."""
    chance = random.Random(seed)
    job = chance.choice(jobs.ALL)
    mode = chance.choice(("data=ordered", "data=writeback", "data=ordered,commit=1"))
    with Place(package) as place, loop(place, MIB, mode) as disk:
        path = job.write(place)
        try:
            processes = _begin(place, disk, path, chance)
            seen = _cut(place, disk, processes, job, chance)
            disk.unmount()
            disk.mount()
            found = list(_lost(place, disk, seen))
            untrue = seen.after - _synced(disk)
            _resume(place, path, chance.randrange(1 << 30))
            judged = [*oracle.violations(place, job)]
        except Stuck as stuck:
            return Outcome([f"{job.name}: {stuck}"], 0, 0, 0)
        logs = [each for each in judged if each.startswith("the log of")]
        found += [] if untrue > 0 else [each for each in judged if each not in logs]
        lost = max(seen.control - (disk.folder / "loose").read_bytes().count(b"\n"), 0)
        found = [f"{job.name} {mode}: {each}" for each in found]
        return Outcome(found, lost, len(logs), sum(seen.events.values()), untrue > 0)


def _begin(place: Place, disk: Loop, path: str, chance: random.Random) -> list[subprocess.Popen[bytes]]:
    """The control, and up to three runs of the job."""
    done = place.root / "done"
    done.touch()
    argv = [sys.executable, "-c", CONTROL, str(disk.folder), str(done)]
    place._started.append(subprocess.Popen(argv, env=place.env, stderr=subprocess.DEVNULL))
    place.wait_for(lambda: done.stat().st_size > 0)
    return [place.start("run", path) for _ in range(chance.randint(1, 3))]


def _cut(
    place: Place, disk: Loop, processes: list[subprocess.Popen[bytes]], job: jobs.Job, chance: random.Random
) -> Seen:
    """Wait for some instant in the midst of it, cut, and kill all. What had been acknowledged before."""
    lines = chance.randint(0, 2 * job.steps * len(processes))
    place.wait_for(
        lambda: place.ledger.read_bytes().count(b"\n") >= lines or all(one.poll() is not None for one in processes)
    )
    select.select([], [], [], chance.random() * 0.03)  # an instant between two lines of the ledger
    good = sum(one.poll() == 0 for one in processes)
    events, attempts = _acknowledged(place)
    control = int((place.root / "done").read_text())
    # Without power nobody goes on. With it, for some instants, the kernel confirms what this disk has lost already:
    # of 100 cuts without the freeze the control lost lines that it had synced in 4, and runs lost commits in 2.
    for pid in place.processes():
        send(pid, signal.SIGSTOP)
    disk.cut()
    place.kill_all()
    for one in processes:
        wait_gone(one.pid)
    return Seen(events, attempts, good, control, int((place.root / "done").read_text()))


def _acknowledged(place: Place) -> tuple[dict[str, int], set[tuple[str, str, int, str]]]:
    """What a reader of the record is told in one look."""
    file = place.home / "agentrun.db"
    if not file.exists() or not file.stat().st_size:
        return {}, set()
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN")
            events = dict(connection.execute("SELECT run_id, max(seq) FROM events GROUP BY run_id"))
            question = "SELECT run_id, instance, number, outcome FROM attempts WHERE outcome IS NOT NULL"
            return events, set(connection.execute(question))
        except sqlite3.OperationalError:  # no tables yet
            return {}, set()


def _lost(place: Place, disk: Loop, seen: Seen) -> Iterator[str]:
    """What was acknowledged before the cut and is not there any more."""
    there = _synced(disk)
    if there < seen.control:
        yield f"the control lost {seen.control - there} lines: this disk cannot tell anything"
        return
    events, attempts = _acknowledged(place)
    for run, last in seen.events.items():
        if events.get(run, 0) < last:
            yield f"the journal of run {run} ended at {last}, and now at {events.get(run, 0)}"
    if gone := seen.attempts - attempts:
        yield f"these ends are lost: {sorted(gone)}"
    good = place.rows("SELECT count(*) FROM runs WHERE outcome = 'succeeded'")
    if seen.good > (good[0][0] if good else 0):
        yield f"{seen.good} runs had ended with 0, and {good} read succeeded"


def _synced(disk: Loop) -> int:
    """The lines of the control that are on the disk."""
    return (disk.folder / "synced").read_bytes().count(b"\n")


def _resume(place: Place, path: str, seed: int) -> None:
    """After the power is back: another boot, and one `resume`; a run that never was recorded is begun again."""
    boot = place.root / "boot"
    boot.write_text(f"{uuid.UUID(int=seed, version=4)}\n")
    verb = ["resume"] if place.runs() else ["run", path]
    program = [sys.executable, "-m", "agentrun", *verb]
    try:
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", OTHER_BOOT, "sh", *program], env=place.env | {"BOOT": str(boot)},
            cwd=place.root, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Stuck(f"agentrun {' '.join(verb)} did not end in {LIMIT:.0f} s") from None
    place.wait_quiet()
    os.sync()
