"""Floods: a GiB a minute and a GiB at once, one line of 100 MB, no newline, NUL, bytes that are not UTF-8, and
everything that a terminal would obey; while the supervisor works, stands still, or is killed.

What must hold: no write of the step takes longer than BLOCKED seconds, and the step keeps its pace; supervisor and shim
stay under MEMORY, told by the kernel's own high-water mark; `logs --raw`, and `logs --raw --follow` beside the step,
give exactly the bytes that were written (by SHA-256); nothing that a terminal obeys, and that is not agentrun's own
colour or cursor, comes out of `logs`, `status` and `run` on a terminal. So must what an output or an error holds.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .flood import ATTACKS
from .place import LIMIT, Place, Stuck, send, wait_gone
from .tally import Tally, Wanted

FLOOD = Path(__file__).with_name("flood.py")
MIB = 1 << 20
MEMORY = 40.0  # MiB
BLOCKED = 1.0  # seconds; the machine has other things to do too
A_MINUTE = (1 << 30) / 60  # bytes a second

# What agentrun itself says to a terminal: colours, up so many lines, erase to the end of the line or the screen.
_OUR_OWN = re.compile(
    r"\x1b\[(?:0|1|2|1;3[1-6]|2;3[1-6]|3[1-6])?m|\x1b\[\d?A|\x1b\[0?[JK]|\x1b\[\?(?:25|2026|7)[hl]|\r\n|\r(?=\x1b)"
)
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\udc80-\udcff]")

JOB = """
steps:
- {id: flood, run: '%s; %s'}
"""
NASTY = r"""
steps:
- {id: says, run: '%s; printf "value=a\033]0;TITLE\007b\302\2331m\n" >> "$AGENTRUN_OUTPUT"'}
- {id: fails, run: '%s; exit 3'}
"""


class Flood(NamedTuple):
    """A case. `meanwhile`: what is done to the supervisor: nothing, STOP or KILL."""

    kind: str
    size: int
    rate: float = 0.0
    meanwhile: str = ""

    def __str__(self) -> str:
        rate = f" at {self.rate / MIB:.1f} MiB/s" if self.rate else ""
        return f"{self.kind} {self.size / MIB:.1f} MiB{rate}{' ' + self.meanwhile if self.meanwhile else ''}"


class Seen(NamedTuple):
    """What was measured: MiB, seconds."""

    supervisor: float
    shim: float
    longest: float
    shown: float  # `logs` of it


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally, most = Tally("logs"), Seen(0, 0, 0, 0)
    for flood in _floods(wanted):
        if wanted.is_over:
            break
        try:
            found, seen = play(flood, wanted.package)
            most = Seen(*(max(pair) for pair in zip(most, seen, strict=True)))
        except Stuck as stuck:
            found = [str(stuck)]
        tally.add(found, case=str(flood))
    for name, commands in (("utf-8", "C.UTF-8"), ("ascii", "C")):
        tally.add(on_terminal(wanted.package, commands), case=f"terminal {name}", faults=len(ATTACKS))
    tally.notes.append(
        f"supervisor {most.supervisor:.1f} MiB, shim {most.shim:.1f} MiB, `logs` {most.shown:.1f} MiB at most; "
        f"longest write of a step {most.longest * 1000:.0f} ms"
    )
    return tally


def _floods(wanted: Wanted) -> Iterator[Flood]:
    seconds = wanted.pick(ci=1, normal=10, full=60)
    big = wanted.pick(ci=32 * MIB, normal=256 * MIB, full=1 << 30)
    small = wanted.pick(ci=MIB // 4, normal=32 * MIB, full=256 * MIB)
    yield Flood("lines", int(A_MINUTE * seconds), A_MINUTE)
    yield Flood("line", wanted.pick(ci=20_000_000, normal=100_000_000, full=100_000_000))
    yield Flood("lines", big, meanwhile="STOP")
    yield Flood("invalid", small, meanwhile="KILL")
    if wanted.scale != "ci":
        yield Flood("lines", big)
        yield Flood("line", 100_000_000, meanwhile="KILL")
        yield Flood("newlines", small)
    yield Flood("nul", small)
    yield Flood("escapes", 0)


def play(flood: Flood, package: Path) -> tuple[list[str], Seen]:
    """One step that floods, and what came of it."""
    with Place(package) as place:
        report, gate = place.root / "report", place.gate("gate")
        program = f"{sys.executable} {FLOOD} {flood.kind} {flood.size} {flood.rate} {report}"
        job = place.job("job", JOB % (program, gate.shell))
        process = place.start("run", str(job))
        place.wait_for(lambda: bool(place.runs()))
        run = place.runs()[0]
        place.wait_for(lambda: bool(place.of_run(run)))
        follower = _raw_reader(place, run, "--follow")
        stopped = _disturb(place, run, flood.meanwhile)
        gate.reached(LIMIT + flood.size / A_MINUTE)
        told = json.loads(report.read_text())
        if stopped:
            send(stopped, signal.SIGCONT)
        place.wait_for(lambda: (place.owner(run) or 0) in place.processes())
        supervisor, shim = _peak(place.owner(run)), max([_peak(pid) for pid in place.shims(run)], default=0.0)
        gate.open()
        place.wait_quiet()
        gate.close()
        found = [] if flood.meanwhile == "KILL" or process.wait() == 0 else [f"exit status {process.wait()}"]
        shown, text_peak = _digest(_raw_reader(place, run)), _shown(place, run)
        found += _judge(flood, told, {"logs --raw": shown, "logs --raw --follow": _digest(follower)})
        for name, peak in (("supervisor", supervisor), ("shim", shim)):
            if not 0 < peak < MEMORY:
                found.append(f"the {name} took {peak:.1f} MiB")
        if place.rows("SELECT outcome FROM runs") != [("succeeded",)]:
            found.append(f"the run has not succeeded: {place.said()[-300:]}")
        return found, Seen(supervisor, shim, told["longest"], text_peak)


def _judge(flood: Flood, told: dict[str, Any], digests: dict[str, tuple[str, int]]) -> Iterator[str]:
    if told["longest"] > BLOCKED:
        yield f"a write of the step took {told['longest']:.2f} s"
    wanted = flood.size / (flood.rate or A_MINUTE)
    if told["seconds"] > wanted * 1.1 + BLOCKED:
        yield f"the step took {told['seconds']:.1f} s for what takes {wanted:.1f} s"
    for name, (digest, count) in digests.items():
        if digest != told["sha256"]:
            yield f"{name} gave {count} bytes that are not the {told['bytes']} that were written"


def _disturb(place: Place, run: str, what: str) -> int:
    """Stop or kill the supervisor in the middle of the flood. The pid of the one that stands still."""
    if not what:
        return 0
    log = place.home / "runs" / run / "log" / "flood#1.log"
    place.wait_for(lambda: log.exists() and log.stat().st_size > 0)
    pid = place.owner(run)
    assert pid
    send(pid, signal.SIGSTOP if what == "STOP" else signal.SIGKILL)
    return pid if what == "STOP" else 0


def _raw_reader(place: Place, run: str, *more: str) -> subprocess.Popen[bytes]:
    """`agentrun logs --raw`, its bytes through sha256sum and wc: not through this process."""
    code = "import hashlib,sys;h=hashlib.sha256();n=0\nwhile b:=sys.stdin.buffer.read(1<<20):h.update(b);n+=len(b)\n"
    code += "print(h.hexdigest(),n)"
    return subprocess.Popen(
        ["sh", "-c", '"$0" -m agentrun logs "$@" --raw | "$0" -c "$CODE"', sys.executable, run, *more],
        env=place.env | {"CODE": code}, cwd=place.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip


def _digest(reader: subprocess.Popen[bytes]) -> tuple[str, int]:
    try:
        text = reader.communicate(timeout=LIMIT)[0].decode()
    except subprocess.TimeoutExpired:
        reader.kill()
        raise Stuck("agentrun logs --raw did not end") from None
    digest, count = text.split()
    return digest, int(count)


def _shown(place: Place, run: str) -> float:
    """The peak of `agentrun logs` of it, in MiB."""
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentrun", "logs", run], env=place.env, stdin=subprocess.DEVNULL, stdout=nowhere
        )
        peak, pidfd = 0.0, os.pidfd_open(process.pid)
        until = time.monotonic() + LIMIT
        while not select.select([pidfd], [], [], 0.01)[0] and time.monotonic() < until:
            peak = max(peak, _peak(process.pid))
        os.close(pidfd)
        process.kill()
        process.wait()
    return peak


def _peak(pid: int | None) -> float:
    """The most memory that a process ever had in RAM, in MiB, libraries shared with others included."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


# ---- terminals


def on_terminal(package: Path, locale: str) -> list[str]:
    """All attacks, on a terminal, in every command that shows what a step wrote."""
    with Place(package) as place:
        program = f"{sys.executable} {FLOOD} escapes 0 0 {place.root}/report"
        job = str(place.job("nasty", NASTY % (program, program)))
        place.env |= {"TERM": "xterm-256color", "LC_ALL": locale}
        commands = [
            ["run", job], ["logs", "nasty"], ["logs", "nasty", "--tail", "20"], ["logs", "nasty", "--follow"],
            ["logs", "nasty", "--grep", "before"], ["logs", "nasty", "--json"], ["status", "nasty"],
            ["status", "nasty", "--json"], ["status"], ["events", "nasty"], ["events", "nasty", "--json"],
        ]  # fmt: skip
        found = []
        for command in commands:
            status, output = terminal(place, command)
            if status != (3 if command[0] == "run" else 0):
                found.append(f"{' '.join(command)} ended with {status}: {output[-200:]!r}")
            found += [f"{' '.join(command[:1] + command[2:])}: {wrong}" for wrong in obeyed(output)]
            if command[0] == "logs" and b"before" not in output:
                found.append(f"{' '.join(command)} shows nothing")
        return found


def terminal(place: Place, arguments: list[str]) -> tuple[int, bytes]:
    """The exit status of a command, and what it says to a terminal of 100 columns."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.chdir(place.root)
            env = place.env | {"COLUMNS": "100", "LINES": "40"}
            os.execve(sys.executable, [sys.executable, "-m", "agentrun", *arguments], env)
        finally:
            os._exit(127)
    said, until = b"", time.monotonic() + LIMIT
    while time.monotonic() < until:
        if not select.select([master], [], [], LIMIT)[0]:
            break
        try:
            block = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    if not wait_gone(pid, 1):
        send(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(master)
    return status, said


def obeyed(output: bytes) -> Iterator[str]:
    """What a terminal would obey, or show otherwise than it is."""
    text = output.decode("utf-8", "surrogateescape")
    for attack in ATTACKS:
        if attack.decode("utf-8", "surrogateescape") in text:
            yield f"{attack!r} came through"
    text = _OUR_OWN.sub("", text)
    for line in text.split("\n"):
        if found := _OBEYED.search(line):
            yield f"{found[0]!r} in {line[:160]!r}"
            return
