"""A crowd: 500 runs at once, each from a process of its own, all in one state folder.

The first step of each run waits until every run has begun; then each goes through STEPS steps that take some seconds,
drawn by the seed, so that the machine has work and is not only choked. A reader with a connection of its own (and the
5 s of patience that Python's sqlite3 has by itself) asks the database all the while, and so do `status` commands.

    SQLITE_BUSY    seen by nobody: not by the runs (what they say goes to one file), not by the readers
    all finish     and the oracle is asked about each
    memory         of all supervisors and shims, when all have begun: under 9 GiB for 500; at other scales as much for
                   each, and SHARED for what is not shared by so many
    transition     once all have begun: from the end of a step to the begin of the next, told by the steps themselves
                   from /proc/uptime (10 ms); p99 under 250 ms (under 1 s at the smallest scale, where few are seen).
                   Beside it what a shell needed to start at the same time. Where that is slow also before or after
                   the crowd, the machine has others to serve: then the note says so, and the p99 is not judged.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from . import jobs, oracle
from .place import Gate, Place, Stuck, wait_gone
from .tally import Tally, Wanted

STEPS = 4  # after the first, of each run
PATIENCE = 600.0  # seconds for 500 commands to start on two processors
MEMORY = 9 * 2**30 / 500  # bytes for each run
SHARED = 64 * 2**20  # bytes of libraries, in a crowd of few
P99 = 0.25  # seconds
QUIET = 0.03  # seconds that a shell may take where nobody else wants the processors
WORDS = ("database is locked", "table is locked", "busy", "BUSY", "has been locked", "cannot write", "Traceback")
STAMP = 'read t _ < /proc/uptime; echo "{} $AGENTRUN_RUN_ID $AGENTRUN_STEP $t" >> "$TORTURE/stamps"'


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("crowd")
    count = wanted.pick(ci=24, normal=150, full=500)
    pauses = {"ci": (0.2, 0.8), "normal": (2.0, 8.0), "full": (5.0, 20.0)}[wanted.scale]
    with Place(wanted.package) as place:
        crowd = Crowd(place, count, random.Random(wanted.seed), pauses)
        try:
            found = crowd.play()
        except Stuck as stuck:
            found = [str(stuck)]
        finally:
            crowd.gate.close()
        tally.add(found, case=f"{count} runs, seed {wanted.seed}", faults=0)
        tally.cases = count
        tally.notes += crowd.notes
    return tally


class Crowd:
    """The runs, and what was measured."""

    def __init__(self, place: Place, count: int, chance: random.Random, pauses: tuple[float, float]) -> None:
        self.place, self.count = place, count
        self.gate: Gate = place.gate("gate")
        self.notes: list[str] = []
        self._chance, self._pauses = chance, pauses
        self._over = threading.Event()
        self._here = threading.Event()  # all runs
        self._alone = threading.Lock()  # no command looks on
        self._shells: list[float] = []
        self._seen: list[str] = []  # by the readers

    def play(self) -> list[str]:
        """All of it."""
        job = self._job()
        path = job.write(self.place)
        before = _shell(20)
        readers = [threading.Thread(target=self._read), threading.Thread(target=self._look),
                   threading.Thread(target=self._floor)]  # fmt: skip
        for thread in readers:
            thread.start()
        try:
            commands = [self.place.start("run", path, **self._drawn()) for _ in range(self.count)]
            for number in range(self.count):
                if number % 100 == 99 and not self.place.supervisors():  # a look at 1,500 processes takes its time
                    raise Stuck(f"no run is left, and {self.count - number} have not come to the gate")
                self.gate.reached(PATIENCE)
            with self._alone:
                found = list(self._memory())
            self._here.set()
            since = _uptime()
            self.gate.open(self.count)
            for command in commands:  # first: each look at all processes costs as much as some transitions
                wait_gone(command.pid, PATIENCE)
            self.place.wait_quiet(PATIENCE)
        finally:
            self._over.set()
            for thread in readers:
                thread.join()
        found += self._transitions(since, max(_p99(before), _p99(_shell(20))))
        found += self._busy()
        if (runs := len(self.place.runs())) != self.count:
            found.append(f"{runs} runs are recorded, and {self.count} were started")
        return found + oracle.violations(self.place, job)

    def _job(self) -> jobs.Job:
        names = [f"s{number}" for number in range(STEPS + 1)]
        run = f"|\n    {STAMP.format('begin')}\n    $STEP\n    {STAMP.format('end')}\n"
        works = [f"'{self.gate.shell}'", *(f"sleep $PAUSE{number}" for number in range(1, STEPS + 1))]
        each = zip(names, works, strict=True)
        lines = [f"- id: {name}\n  env: {{WORK: {work}}}\n  run: {run}" for name, work in each]
        needs: dict[str, tuple[str, ...]] = {name: (before,) for before, name in pairwise(names)}
        return jobs.Job("crowd", "concurrency: allow\nsteps:\n" + "".join(lines), needs, steps=STEPS + 1)

    def _drawn(self) -> dict[str, str]:
        return {f"PAUSE{number}": f"{self._chance.uniform(*self._pauses):.2f}" for number in range(1, STEPS + 1)}

    def _memory(self) -> Iterator[str]:
        """Of the program's processes, with all runs at the gate."""
        pss = private = number = 0
        for pid in self.place.supervisors():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
                fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in list(file)[1:]}
                pss += fields["Pss:"]
                private += fields["Private_Clean:"] + fields["Private_Dirty:"]
                number += 1
        self.notes.append(f"{number} processes, {pss / 2**30:.2f} GiB of Pss, {private / 2**30:.2f} GiB private")
        if number < 2 * self.count:
            yield f"{self.count} runs have {number} processes"
        limit = MEMORY * self.count + (SHARED if self.count < 500 else 0)
        if pss > limit:
            yield f"{self.count} runs have {pss / 2**30:.2f} GiB, and may have {limit / 2**30:.2f}"

    def _transitions(self, since: float, floor: float) -> list[str]:
        """From the end of a step to the begin of the next, of each run, in the time when all were there."""
        ended: dict[str, float] = {}
        took: list[float] = []
        for line in (self.place.root / "stamps").read_text().splitlines():
            what, run, step, at = line.split()
            if what == "end":
                ended[run] = float(at)
            elif step != "s0" and ended[run] > since + 2 * self._settling():
                took.append(float(at) - ended[run])
        if not took:
            return ["no transition was seen"]
        p99 = _p99(took)
        self.notes.append(
            f"{len(took)} transitions: median {median(took) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms,"
            f" longest {max(took) * 1000:.0f} ms; a shell: median {median(self._shells) * 1000:.0f} ms,"
            f" p99 {_p99(self._shells) * 1000:.0f} ms; load {os.getloadavg()[0]:.0f}"
        )
        if p99 <= (P99 if self.count > 100 else 4 * P99):
            return []
        if floor > QUIET:
            self.notes.append(f"p99 not judged: a shell takes {floor * 1000:.0f} ms here without us")
            return []
        return [f"p99 of a transition is {p99 * 1000:.0f} ms"]

    def _settling(self) -> float:
        """The gate lets all go in one moment, which no crowd does: half of the shortest step goes by first."""
        return self._pauses[0] / 4

    # ---- others, meanwhile

    def _read(self) -> None:
        """Somebody with Datasette, who opens it anew each time."""
        file = self.place.home / "agentrun.db"
        while not self._over.wait(0.2):
            if not self.place.rows("SELECT 1 FROM runs LIMIT 1"):
                continue
            try:
                with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                    for view in ("job_status", "step_history", "journal"):
                        connection.execute(f"SELECT count(*) FROM {view}").fetchall()
            except sqlite3.Error as error:
                self._seen.append(f"a reader was told: {error}")

    def _look(self) -> None:
        """`status`, again and again."""
        while not self._over.wait(1.0):
            if not self._here.is_set():
                continue  # 500 that start want both processors; nobody promised more than that they come
            try:
                with self._alone:
                    answer = self.place.command("status")
            except Stuck as stuck:
                self._seen.append(str(stuck))
                continue
            if answer.returncode or answer.stderr:
                self._seen.append(f"status ended with {answer.returncode}: {answer.stderr}")

    def _floor(self) -> None:
        """What this machine needs for the least there is in a transition: a shell that starts and ends."""
        while not self._over.wait(0.2):
            self._shells += _shell(1)

    def _busy(self) -> list[str]:
        """What the runs and the readers said of it."""
        lines = [line for line in self.place.said().splitlines() if any(word in line for word in WORDS)]
        waited = self.place.said().count("waiting for the write lock")
        if waited:
            self.notes.append(f"{waited} told that one writer had the lock for long")
        return [f"somebody said: {line}" for line in dict.fromkeys(lines)] + list(dict.fromkeys(self._seen))


def _uptime() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def _shell(times: int) -> list[float]:
    """How long it takes to start a shell that does nothing, and to see it end."""
    took = []
    for _ in range(times):
        begun = time.monotonic()
        subprocess.run(["/bin/sh", "-c", ":"])
        took.append(time.monotonic() - begun)
    return took


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
