"""Some minutes of Debian's cron, with two jobs of every minute that `agentrun install` put into a crontab.

The daemon runs in a mount namespace of its own, with folders of its own for crontabs, and is ended by its pid; the
machine's crontabs and its cron are not touched. What it mails goes to a file, where the kernel lets a `sendmail` be
laid over /usr/sbin. In the middle everything but the daemon is killed; in ten minutes the daemon itself is ended for
two of them, and stopped by a signal for two more. The ledger and the record are judged as those of the month are.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..torture.place import Place, Stuck, send
from . import judge
from .judge import Watched, Written
from .machine import STEP

# binds what is ours over what is the machine's, for this process and what it starts
_INSIDE = """set -e
mount --bind "$OURS/spool" /var/spool/cron/crontabs
mount --bind "$OURS/cron.d" /etc/cron.d
mount --bind "$OURS/crontab" /etc/crontab
mount -t tmpfs tmpfs /run
mkdir /run/over /run/work
install -m 755 "$OURS/sendmail" /run/over/sendmail
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/over,workdir=/run/work /usr/sbin 2>/dev/null ||
    : > "$OURS/no-mail"
exec "$@"
"""
_PATIENCE = 75  # seconds until cron has started something; it wakes once a minute


def missing() -> str | None:
    """What is not here that this needs."""
    if os.geteuid() != 0:
        return "root, for a mount namespace"
    if shutil.which("cron") is None or shutil.which("crontab") is None:
        return "Debian's cron (package cron)"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "mount namespaces (unshare --mount)"
    return None


class Daemon:
    """Debian's cron, with crontabs of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ours = place.root / "cron"
        (self.ours / "cron.d").mkdir(parents=True)
        (self.ours / "spool").mkdir()
        shutil.chown(self.ours / "spool", "root", "crontab")
        (self.ours / "spool").chmod(0o1730)
        (self.ours / "crontab").touch()
        (self.ours / "sendmail").write_text(f"#!/bin/sh\ncat >> {self.mails}\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def mails(self) -> Path:
        return self.place.root / "mails"

    def inside(self, *words: str) -> list[str]:
        """A command that sees our crontabs."""
        return ["unshare", "--mount", "sh", "-c", _INSIDE, "sh", *words]

    def call(self, *words: str, said: str = "") -> str:
        """Call a command there. Raises Stuck if it fails."""
        env = self.place.env | {"OURS": str(self.ours)}
        done = subprocess.run(self.inside(*words), env=env, input=said, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Stuck(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start it, with the environment that an init would give it."""
        env = {"OURS": str(self.ours), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.process = subprocess.Popen(
            self.inside("cron", "-f"), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def end(self) -> None:
        """End the daemon, not what it has started."""
        if self.process is not None:
            send(self.process.pid, signal.SIGCONT)
            send(self.process.pid, signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def children(self) -> list[int]:
        """What it has started, and waits for."""
        if self.process is None:
            return []
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_all(self) -> int:
        """Kill everything but the daemon: its children, supervisors, shims, steps."""
        children = self.children()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in children:
                send(pid, number)
        killed = self.place.kill_all() + len(children)
        with open(self.place.ledger, "a") as file:
            file.write(f"cut - - - - 0 - {int(time.time())}\n")
        return killed


@contextmanager
def daemon() -> Iterator[Daemon]:
    """One in a place of its own."""
    with Place() as place:
        found = Daemon(place)
        try:
            yield found
        finally:
            found.end()
            for pid in found.children():
                send(pid, signal.SIGKILL)


def main(minutes: int) -> int:
    """So many minutes; prints what was done and what is wrong."""
    if need := missing():
        print(f"real: skipped: needs {need}")
        return 0
    with daemon() as cron:
        try:
            told, found = play(cron, minutes)
        except Stuck as stuck:
            told, found = "", [str(stuck)]
    print(f"real: {minutes} minutes of cron: {told}; {len(found)} violations")
    print(*(f"  {violation}" for violation in found), sep="\n")
    return 1 if found else 0


def play(cron: Daemon, minutes: int) -> tuple[str, list[str]]:
    """What was done, and what is wrong."""
    place = cron.place
    jobs = [Watched("keeps"), Watched("misses", "all")]
    for job in jobs:
        steps = "- {id: a, run: $STEP}\n- {id: b, run: sleep 3; $STEP}\n"
        place.job(job.name, f'schedule: "* * * * *"\ncatch_up: {job.catch_up}\nsteps:\n{steps}')
    above = [f"TORTURE={place.root}", f"STEP=sh {STEP}", "MAILTO=root", "# a line of the user's own", ""]
    cron.call("crontab", "-", said="\n".join(above))
    program = (sys.executable, "-P", "-m", "agentrun")
    cron.call(*program, "install", "--cron", *(str(place.root / f"{job.name}.yaml") for job in jobs))
    for job in jobs:
        ((settled,),) = place.rows("SELECT settled FROM jobs WHERE name = ?", job.name)
        job.known, job.written = settled // 1000, [Written(settled // 1000 - 60, "* * * * *")]
    cron.start()
    killed = _minutes(cron, minutes)
    cron.end()
    end = int(time.time()) - 5
    place.wait_quiet()
    place.command("resume")
    lines = judge.ledger(place.ledger.read_text())
    found, told = [], [f"{killed} processes killed"]
    for job in jobs:
        answer = place.command("ticks", job.name, "--json", "-n", "100000").stdout
        found += judge.violations(job, answer, lines, end)
        told.append(f"{job.name}: {len(job.ticks(end))} ticks: {judge.fates(answer)}")
        if sum(line.what == "begin" and line.job == job.name and line.step == "a" for line in lines) < minutes // 2:
            found.append(f"{job.name} hardly ran: {told[-1]}")
    mails = cron.mails.read_text() if cron.mails.exists() else ""
    said = [line for line in mails.splitlines() if line and not re.match(r"[A-Z][A-Za-z-]*: ", line)]
    if judge.but_missed("\n".join(said)):
        found.append(f"cron mailed: {mails}")
    if (cron.ours / "no-mail").exists():
        told.append("mails not looked at (no overlay)")
    cron.call(*program, "uninstall", *(job.name for job in jobs))
    if (left := cron.call("crontab", "-l")).splitlines()[-len(above) + 1 :] != above[:-1]:
        found.append(f"the crontab is not as it was: {left}")
    return "; ".join(told), found


def _minutes(cron: Daemon, minutes: int) -> int:
    """Let them go by, and do what is to be done in them. How many processes were killed."""
    killed = 0
    begun = time.time() // 60 * 60
    for number in range(1, minutes + 1):
        tick = begun + 60 * number
        _until(cron, tick)
        if number in (1, 9) and cron.process is not None:
            _until_begun(cron.place, tick)
            _until(cron, max(time.time(), tick) + 1.5)  # into step b, or between
            killed += cron.kill_all()
        if minutes >= 10 and number == 3:
            cron.end()
        if minutes >= 10 and number == 5:
            _until(cron, tick + 10)
            cron.start()
        if minutes >= 10 and number in (6, 8) and cron.process is not None:
            _until(cron, tick + 20)
            send(cron.process.pid, signal.SIGSTOP if number == 6 else signal.SIGCONT)
    _until(cron, begun + 60 * minutes + 40)
    return killed


def _until(cron: Daemon, at: float) -> None:
    if cron.process is not None and cron.process.poll() is not None:
        raise Stuck(f"cron has ended with {cron.process.returncode}")
    cron.place.wait_for(lambda: time.time() >= at, at - time.time() + 60)


def _until_begun(place: Place, tick: float) -> None:
    place.wait_for(lambda: any((line.tick or 0) >= tick for line in judge.ledger(place.ledger.read_text())), _PATIENCE)
