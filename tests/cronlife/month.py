"""A month of a machine with cron, under a moved clock: the real commands, a process for each start.

Cron is played here: at each tick that cronsim names, while the machine and cron are up, `agentrun run JOB` is started
for each job, at once, as cron does; `agentrun resume` at each boot, and in each minute in which the record says that
something is due, and in some others. By the seed comes trouble:

    kill     everything is killed, at any moment of a start     off      the same, and the machine is off for a while
    cron     cron does not run for a while                      twice    two schedulers start the same ticks
    long     a run takes longer than the time to the next tick  pause    a job is paused for a while
    edit     the schedule of a job is written anew

At the end all of it is let go, `resume` is called until nothing is due, and `judge` is asked about each job.
"""

from __future__ import annotations

import heapq
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..torture.place import LIMIT, Stuck
from . import judge
from .judge import Watched, Written
from .machine import Machine

DAY = 86_400
TROUBLE = {"kill": 0.05, "off": 0.015, "cron": 0.015, "twice": 0.06, "long": 0.04, "pause": 0.015, "edit": 0.02}
LEAST = 2.5  # of each kind of trouble, however short it is
_LATE = 240  # seconds after the end, when everything that was due has become late
_JITTER = 2


@dataclass(frozen=True)
class Wanted:
    """How much. `every`: minutes between two ticks of the densest job. `minutes`: real ones, then the month ends."""

    begin: int
    days: float
    every: int = 1
    seed: int = 0
    minutes: float | None = None
    folder: Path | None = None


class Job(Watched):
    """A job of the month. `schedules`: the one that it begins with, and those that an edit chooses from."""

    def __init__(self, name: str, head: str, schedules: Sequence[str], **known: object) -> None:
        super().__init__(name, **known)  # type: ignore[arg-type]
        self.head, self.schedules = head, schedules

    @property
    def text(self) -> str:
        once = "on_interrupt: skip, " if "b" in self.once else ""
        lines = [f'schedule: "{self.written[-1].text}"', f"timezone: {self.zone}", f"catch_up: {self.catch_up}"]
        return "\n".join([*lines, self.head, "steps:", "- {id: a, run: $STEP}", f"- {{id: b, {once}run: $STEP}}", ""])

    def next(self, after: int) -> int:
        """The tick after a moment, by the schedule of now."""
        return next(judge.between(self.written[-1].text, self.zone, after, after + 400 * DAY))


def jobs(every: int) -> list[Job]:
    """The densest has a tick every so many minutes; the others are not denser."""
    dense, quarter = _each(every), _each(max(15, every))
    hourly = "7 * * * *" if every <= 60 else f"7 */{min(every // 60, 12)} * * *"
    return [
        Job("minutely", "concurrency: forbid", [dense]),
        Job("quarter", "concurrency: forbid\nstart_deadline: 6h", [quarter], catch_up="latest", once=("b",),
            start_deadline=6 * 3600),
        Job("hourly", f"concurrency: forbid\njitter: {_JITTER}s", [hourly], catch_up="all"),
        Job("nightly", "concurrency: queue", ["30 2 * * *"], catch_up="latest", zone="Europe/Berlin"),
        Job("business", "concurrency: queue", ["20 0-22/3 * * *"], catch_up="all", zone="America/New_York"),
        Job("edited", "concurrency: forbid", ["11 */2 * * *", "41 1-23/4 * * 1-5", "3,33 2-20/3 * * *"]),
    ]  # fmt: skip


def _each(minutes: int) -> str:
    return f"*/{minutes} * * * *" if minutes < 60 else f"0 */{minutes // 60} * * *"


class Month:
    """One month on one machine."""

    def __init__(self, wanted: Wanted, machine: Machine, say: Callable[[str], None] = lambda line: None) -> None:
        self.wanted, self.machine, self.say = wanted, machine, say
        self.end = wanted.begin + round(wanted.days * DAY)
        self.chance = random.Random(wanted.seed)
        self.jobs = jobs(wanted.every)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._on = self._cron = True
        self._interrupted = False  # something was killed since the last `resume`
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._alive: list[tuple[subprocess.Popen[bytes], str]] = []
        self._odds = self._likelihoods()

    def play(self) -> list[str]:
        """All of it, and what is wrong."""
        began, at = time.monotonic(), self.wanted.begin
        self._install()
        while True:
            following = min(job.next(at) for job in self.jobs)
            event = self._agenda[0][0] if self._agenda else self.end
            over = self.wanted.minutes is not None and time.monotonic() - began > self.wanted.minutes * 60
            if over or min(following, event) >= self.end:
                self.end = min(self.end, int(self.machine.now) + 1) if over else self.end
                break
            self._minutes(min(following, event))
            if event <= following:
                self.machine.set(event)
                heapq.heappop(self._agenda)[2]()
            else:
                at = following
                self._tick(at)
        self._finish()
        return self._judge()

    # ---- time

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.machine.now + seconds, next(self._numbers), what))

    def _minutes(self, until: float) -> None:
        """The minutes until then in which cron's `resume` has something to do, at most two."""
        for _ in range(2):
            if not (self._on and self._cron) or (due := self._due()) is None:
                break
            minute = -(-due // 60) * 60
            if minute >= until:
                break
            self.machine.set(minute + self.chance.random() * 3)
            self._resume()
            self._wait()
        quiet = self._on and self._cron and not self._interrupted and not self.machine.held and self._due() is None
        if quiet and until - self.machine.now > 120 and self.chance.random() < 0.05:
            self._resume(idle=True)
            self._wait()

    def _due(self) -> float | None:
        """When there is something for `resume`; None if there is nothing before the next tick."""
        if self._interrupted:
            return self.machine.now + 1
        ((at,),) = self.machine.rows("SELECT min(due_at) FROM jobs") or [(None,)]
        return None if at is None else max(at / 1000, self.machine.now + 1)

    def _tick(self, at: int) -> None:
        """An instant at which some jobs have a tick."""
        if not (self._on and self._cron):
            return
        due = self._due()
        now = [job for job in self.jobs if job.next(at - 1) == at]
        self.machine.set(at + self.chance.random() * 3)
        trouble = next((kind for kind, odds in self._odds.items() if self.chance.random() < odds), None)
        self.counts["ticks fired"] += len(now)
        if trouble == "long" and (free := [job for job in now if job.name not in self.machine.held]):
            self._hold(self.chance.choice(free), at)
        for job in now * (2 if trouble == "twice" else 1):
            self._start(job.name, "run", f"{job.name}.yaml")
        if (due is not None and due <= at + 59) or self.chance.random() < 0.05:
            self._resume()
        if trouble is not None:
            self.counts[trouble] += 1
        if trouble in ("kill", "off"):
            self._cut(off=trouble == "off")
            return
        self._wait()
        for job in now:
            job.fired.add(at)
        if trouble in ("cron", "pause", "edit"):
            self.machine.set(at + 20 + self.chance.random() * 20)
        if trouble == "cron":
            self._stop_cron()
        elif trouble == "pause":
            self._pause(self.chance.choice(now))
        elif trouble == "edit":
            self._edit()

    # ---- trouble

    def _likelihoods(self) -> dict[str, float]:
        number = 0
        at = self.wanted.begin
        while at < self.end:
            at = min(job.next(at) for job in self._begun())
            number += 1
        return {kind: max(odds, LEAST / number) for kind, odds in TROUBLE.items()}

    def _begun(self) -> list[Job]:
        for job in self.jobs:
            job.written = job.written or [Written(self.wanted.begin, job.schedules[0])]
        return self.jobs

    def _duration(self, most: float) -> float:
        """Short ones and long ones, from two minutes; none is longer than a fifth of it all."""
        most = max(min(most, self.wanted.days * DAY / 5), 240)
        return float(120 * (most / 120) ** self.chance.random())

    def _cut(self, *, off: bool) -> None:
        until = time.monotonic() + self.chance.random() * 1.5
        self.machine.wait_for(lambda: time.monotonic() >= until)
        self.counts["processes killed"] += self.machine.cut()
        self._reap()
        self._interrupted = True
        if off:
            self._on = False
            self._later(self._duration(3 * DAY), self._boot)

    def _boot(self) -> None:
        self._on = True
        self._resume()
        self._wait()

    def _stop_cron(self) -> None:
        self._cron = False
        self._later(self._duration(DAY), self._start_cron)

    def _start_cron(self) -> None:
        self._cron = True

    def _hold(self, job: Job, at: int) -> None:
        self.machine.hold(job.name)
        self._later((job.next(at) - at) * (0.5 + 3 * self.chance.random()), lambda: self._let_go(job.name))

    def _let_go(self, name: str) -> None:
        if name in self.machine.held:
            self.machine.let_go(name)
            self._wait()

    def _pause(self, job: Job) -> None:
        if not job.pauses or job.pauses[-1][1] < self.machine.now:
            job.pauses.append([int(self.machine.now), 1 << 40])
            self._command("pause", job.name, "--why", "the test says so")
            begun = int(self.machine.now)
            least = 1.2 * (job.next(begun) - begun)  # for one tick
            self._later(max(self._duration(DAY), least), lambda: self._unpause(job))

    def _unpause(self, job: Job) -> None:
        self._command("unpause", job.name)
        job.pauses[-1][1] = int(self.machine.now) + 1

    def _edit(self) -> None:
        job = self.jobs[-1]
        if job.written[-1].since + 60 < self.machine.now:
            other = [text for text in job.schedules if text != job.written[-1].text]
            job.written.append(Written(int(self.machine.now), self.chance.choice(other)))
            self.machine.write(job.name, job.text)

    # ---- processes

    def _install(self) -> None:
        for job in self._begun():
            self.machine.write(job.name, job.text)
        begun = self.machine.now
        self._command("install", "--cron", *(f"{job.name}.yaml" for job in self.jobs))
        self.say(f"installed after {self.machine.now - begun:.0f} s")
        for job in self.jobs:
            row = self.machine.rows("SELECT settled FROM jobs WHERE name = ?", job.name)
            job.known = row[0][0] // 1000 if row else 0

    def _command(self, *words: str) -> None:
        done = self.machine.command(*words)
        if done.returncode:
            self.violations.append(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")

    def _start(self, job: str, *words: str) -> None:
        self.counts["processes started"] += 1
        self._alive.append((self.machine.start(*words), job))

    def _resume(self, *, idle: bool = False) -> None:
        self._interrupted = False
        self.counts["resume with nothing due" if idle else "resume"] += 1
        self._start("", "resume")

    def _reap(self) -> None:
        """Forget what has ended; what it ended with must be a status of `run` where nothing failed."""
        for process, job in self._alive:
            if process.poll() not in (None, 0, 75, -signal.SIGKILL):
                at = judge.shown(int(self.machine.now))
                self.violations.append(f"{job or 'resume'} at {at} ended with {process.returncode}")
        self._alive = [(process, job) for process, job in self._alive if process.poll() is None]

    def said(self) -> str:
        return self.machine.said()[-2000:]

    def _wait(self) -> None:
        """Until all that was started has ended, but for one of each job that is held, and who waits for it."""
        try:
            self.machine.wait_for(self._is_quiet, 2 * LIMIT)
        except Stuck:
            who = [(process.pid, job) for process, job in self._alive]
            raise Stuck(f"at {judge.shown(int(self.machine.now))} these do not end: {who}; {self.said()}") from None

    def _is_quiet(self) -> bool:
        self._reap()
        numbers = Counter(job for _, job in self._alive)
        waiting = [job for job in self.machine.held if self.machine.reached(job)]
        if numbers.pop("", 0) and not waiting:
            return False
        return all(job in waiting and number == 1 for job, number in numbers.items())

    # ---- the end

    def _finish(self) -> None:
        self._on = self._cron = True
        for name in self.machine.held:
            self.machine.let_go(name)
        self._wait()
        for job in self.jobs:
            if job.pauses and job.pauses[-1][1] > self.machine.now:
                self._unpause(job)
        self.machine.set(self.end + _LATE)
        for _ in range(5):
            self._resume()
            self._wait()
        self.machine.wait_quiet()

    def _judge(self) -> list[str]:
        found: list[str] = []
        lines = judge.ledger(self.machine.ledger.read_text())
        self.counts["attempts of steps"] = sum(line.what == "begin" for line in lines)
        for job in self.jobs:
            answer = self.machine.command("ticks", job.name, "--json", "-n", "1000000")
            if answer.returncode:
                found.append(f"ticks {job.name} ended with {answer.returncode}: {answer.stderr}")
                continue
            found += judge.violations(job, answer.stdout, lines, self.end)
            fates = judge.fates(answer.stdout)
            self.counts["ticks promised"] += len(job.ticks(self.end))
            self.say(f"{job.name}: {len(job.ticks(self.end))} ticks: {fates}")
        if left := self.machine.unfinished():
            found.append(f"runs that are not finished: {left}")
        if said := judge.but_missed(self.machine.said()):
            found.append(f"something was said: {said[-3000:]}")
        return found + self.violations
