"""Disks that are full, that fail, and that become read-only in the midst of a run.

full      a small tmpfs with 0, 1, 2, … 19 pages left in the midst of a run of three steps (each writes 12 kB of log, or
          a file of 9 kB): at the database (the runs lie elsewhere), at the logs, at the scratch folder.
          Then, by turns: there is space again; everything is killed, and there is space; the run gives up by itself.
calls     every call that reads or writes in the state folder fails in turn (strace), once or from then on.
readonly  an ext4 that the kernel makes read-only under a run, as it does after an error of the disk; and one that is
          mounted read-only: `status` and `logs` work on both.

What must hold: nothing reads succeeded that is not (the oracle); `status` and `logs` answer while it lasts; with space
back one `resume` finishes the run; no traceback; a log that is not whole says so. A step that cannot write its own
file fails by itself: the run is then failed, and `resume` finishes it too.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from . import disks, injection
from .jobs import SEQUENCE
from .place import Place, Stuck, send, wait_gone
from .points import after
from .syscalls import WORKERS
from .tally import Tally, Wanted

LEVELS = 20
WHERE = ("database", "logs", "scratch")
ENDINGS = ("space", "killed", "given up")
ROOMY = 16_384  # pages
PATIENCE = "1.5"  # seconds, and not 30
RUN = "1tortured0"

TALK = "printf %012000d 0"
KEEP = 'head -c 9000 /dev/zero > "$AGENTRUN_RUN_DIR/$AGENTRUN_STEP" || status=9'
FILLER = "0" * 12_000
GATED = replace(
    SEQUENCE,
    text="""
steps:
- {id: a, run: $STEP, env: {WORK: '%s'}}
- {id: b, run: $STEP, env: {WORK: '%s'}}
- {id: c, run: $STEP, env: {WORK: '%s'}}
""",
)
IO = (
    "openat", "write", "pwrite64", "read", "pread64", "readv", "fsync", "fdatasync", "ftruncate", "fallocate", "mkdir",
    "mknodat", "rename", "unlink", "rmdir", "newfstatat", "lseek", "getdents64", "fchown", "bind", "connect",
)  # fmt: skip


class Full(NamedTuple):
    """A case of `full`."""

    where: str
    pages: int
    ending: str

    def __str__(self) -> str:
        return f"{self.where} {self.pages} pages, {self.ending}"


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally, chance = Tally("disk"), random.Random(wanted.seed)
    lost: list[str] = []  # logs that the kernel threw away
    cases: list[tuple[str, Callable[[], list[str]]]] = []
    if disks.can_mount():
        for full in _fulls(wanted, chance):
            cases.append((str(full), lambda full=full: fill(full, wanted.package)))  # type: ignore[misc]
    else:
        tally.notes.append(f"full: {disks.NEEDS}")
    if disks.can_loop():
        for seed in wanted.seeds(wanted.pick(ci=2, normal=8, full=20)):
            cases.append((f"readonly seed {seed}", lambda seed=seed: turn(seed, wanted.package, lost)))  # type: ignore[misc]
    else:
        tally.notes.append(f"readonly: {disks.NEEDS_LOOP}")
    if injection.available():
        for fault in _faults(wanted, chance):
            cases.append((str(fault), lambda fault=fault: fail(fault, wanted.package)))  # type: ignore[misc]
    else:
        tally.notes.append(f"calls: {injection.NEEDS}")
    chance.shuffle(cases)
    _play(cases, wanted, tally)
    tally.notes.append(f"{len(lost)} logs, which are not synced, were lost when the kernel made their disk read-only")
    return tally


def _play(cases: list[tuple[str, Callable[[], list[str]]]], wanted: Wanted, tally: Tally) -> None:
    """So many at once, until the time is over."""

    def one(case: tuple[str, Callable[[], list[str]]]) -> list[str] | None:
        if wanted.is_over:
            return None
        try:
            return case[1]()
        except (Stuck, sqlite3.Error) as error:
            return [f"{type(error).__name__}: {error}"]

    with ThreadPoolExecutor(WORKERS) as pool:
        for case, found in zip(cases, pool.map(one, cases), strict=True):
            if found is not None:
                tally.add(found, case=case[0])


def _fulls(wanted: Wanted, chance: random.Random) -> list[Full]:
    every = [
        Full(where, pages, ENDINGS[(pages + n) % len(ENDINGS)])
        for n, where in enumerate(WHERE)
        for pages in range(LEVELS)
    ]
    return every if wanted.scale != "ci" else [chance.choice(every[n * LEVELS : (n + 1) * LEVELS]) for n in range(3)]


def _faults(wanted: Wanted, chance: random.Random) -> list[injection.Fault]:
    """At the full scale each call with each of its errors, once and lasting; else some of each name."""
    kinds: dict[tuple[str, str], list[injection.Fault]] = {}
    for role in injection.ROLES:
        calls = injection.baseline(wanted.package, role, SEQUENCE.text, RUN_ID=RUN)
        files, number = injection.files_of(calls), dict.fromkeys(IO, 0)
        for call in calls:
            if call.name in IO and any(file in files for file in injection.files_of([call])):
                number[call.name] += 1
                for error in injection.errors_of(call):
                    once = injection.Fault(role, call.name, call.number, error)
                    # of these files alone: Python is told of signals by a write to a pipe, which no disk makes fail
                    lasting = injection.Fault(role, call.name, number[call.name], error, lasting=True, paths=files)
                    kinds.setdefault((role, call.name), []).extend((once, lasting))
    if wanted.scale == "full":
        return [fault for faults in kinds.values() for fault in faults]
    if wanted.scale == "normal":
        return [fault for faults in kinds.values() for fault in chance.sample(faults, min(6, len(faults)))]
    return [chance.choice(kinds[key]) for key in chance.sample(sorted(kinds), 4)]


# ---- full


def fill(full: Full, package: Path) -> list[str]:
    """A run on a disk that has so many pages left, and what came of it with space back."""
    with Place(package) as place, contextlib.ExitStack() as stack:
        here = stack.enter_context(disks.small(place, place.root / "disk", ROOMY))
        gate = place.gate("gate")
        stack.callback(gate.close)
        work, filler = (KEEP, "") if full.where == "scratch" else (TALK, FILLER)
        path = str(place.job("sequence", GATED.text % (f"{gate.shell}; {work}", work, work)))
        if full.where == "logs":
            disks.move_home(place, here.folder)
        elif full.where == "database":
            disks.move_home(place, here.folder)
            stack.enter_context(disks.small(place, place.home / "runs", ROOMY))
        tracer = _start(place, path)
        gate.reached()
        run = place.runs()[0]
        if full.where == "scratch":
            here = stack.enter_context(disks.small(place, place.home / "runs" / run / "scratch", ROOMY))
        here.fill(full.pages)
        gate.open()
        _until_it_notices(place, tracer)
        found = looks(place, run)
        if full.ending == "killed":
            place.kill_all()
        elif full.ending == "given up":
            wait_gone(tracer.pid)
        here.free()
        place.wait_quiet()
        return found + finish(place, path, gate_open=gate.open, filler=filler)


def _start(place: Place, path: str) -> subprocess.Popen[bytes]:
    with open(place.root / "said", "ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", injection.DRIVER, "run", path], env=place.env | {"PATIENCE": PATIENCE},
            cwd=place.root, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    place._started.append(process)
    return process


def _until_it_notices(place: Place, process: subprocess.Popen[bytes]) -> None:
    """Until the run has ended, well or not, or somebody has said that the disk gives trouble."""
    place.wait_for(lambda: process.poll() is not None or b"agentrun:" in (place.root / "said").read_bytes())


def looks(place: Place, run: str) -> list[str]:
    """What is wrong with what `status` and `logs` say in the midst of it."""
    found = []
    for command in (["status"], ["status", run], ["status", run, "--json"], ["logs", run], ["logs", run, "--raw"]):
        done = place.command(*command)
        if done.returncode or "Traceback" in done.stderr or (command[0] == "status" and run[-4:] not in done.stdout):
            found.append(f"{' '.join(command)} gives {done.returncode}: {(done.stderr or done.stdout)[-200:]}")
    return found


def finish(place: Place, path: str, *, gate_open: Callable[[], None] | None = None, filler: str = "") -> list[str]:
    """With the disk well again: what is wrong after one `resume`."""
    if gate_open:
        gate_open()  # an attempt that is done again comes there once more
    found = []
    if ended := place.rows("SELECT id, error FROM runs WHERE state = 'finished' AND outcome <> 'succeeded'"):
        resumed = place.command("resume", ended[0][0])
        if resumed.returncode:
            found.append(f"failed ({ended[0][1]}), and resume: {resumed.stderr[-300:]}")
        place.wait_quiet()
    found += [each for each in after(place, SEQUENCE, path) if not each.startswith("the log of")]
    found += logs(place, filler)
    if "Traceback" in (said := place.said()):
        found.append(f"a traceback: {said[-600:]}")
    return found


def logs(place: Place, filler: str = "") -> Iterator[str]:
    """The log of what succeeded holds what its step wrote, or says that something is missing."""
    for run, step, number in place.rows("SELECT run_id, instance, number FROM attempts WHERE outcome = 'succeeded'"):
        path = place.home / "runs" / run / "log" / f"{step}#{number}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        whole = f"begin {step}#{number}\n{filler}end {step}#{number}\n"
        if text != whole and "bytes of output could not be written]" not in text:
            if " lacks " in place.command("logs", run, "--raw", "--step", step).stderr:
                continue  # where there was no room for a word in the log itself, the record has the count
            yield f"the log of {step}#{number} lacks {len(whole) - len(text)} bytes and does not say so"


# ---- calls


def fail(fault: injection.Fault, package: Path) -> list[str]:
    """A run in which a call fails, once or for as long as it is at work."""
    with Place(package) as place:
        path = SEQUENCE.write(place)
        tracer = injection.Tracer(place, fault.role, fault.options(place), "run", path, PATIENCE=PATIENCE, RUN_ID=RUN)
        if fault.lasting:
            _until_it_notices(place, tracer.process)
            found = [] if not place.runs() else looks(place, place.runs()[0])
            tracer.end()
        else:
            found = []
        try:
            place.wait_quiet()
        except Stuck:
            if injection.missed(fault, (tracer.injected() or [""])[0]):
                return []
            raise
        hit = tracer.injected()
        if injection.missed(fault, (hit or [""])[0]):
            return []
        status = tracer.process.wait()
        if status == 0 and place.rows("SELECT outcome FROM runs") != [("succeeded",)]:
            found.append("exit status 0, and the record does not say succeeded")
        found += finish(place, path)
        return [f"[{hit[0] if hit else 'not reached'}] {each}" for each in found]


# ---- read-only


def turn(seed: int, package: Path, lost: list[str]) -> list[str]:
    """The kernel makes the file system read-only in the midst of a run; later it is repaired."""
    chance = random.Random(seed)
    with Place(package) as place, disks.loop(place, 32) as disk:
        path = SEQUENCE.write(place)
        process = _start(place, path)
        lines = chance.randint(1, 2 * SEQUENCE.steps)
        place.wait_for(lambda: place.ledger.read_bytes().count(b"\n") >= lines or process.poll() is not None)
        run = place.runs()[0]
        disk.fail()
        found = [f"read-only under it: {each}" for each in looks(place, run)]
        if chance.random() < 0.5:
            wait_gone(process.pid)
        else:
            send(process.pid, 9)
        place.kill_all()
        disk.unmount()
        found += disk.repair()
        disk.mount("ro")
        found += [f"mounted read-only: {each}" for each in looks(place, run)]
        disk.unmount()
        disk.mount()
        found += finish(place, path)
        # what was in the page cache never reached this disk, and logs are not synced: as after a power cut
        lost += [each for each in found if each.startswith("the log of")]
        return [each for each in found if each not in lost]


