"""Escapees: seven ways in which a process gets away from its step, six ends of a step, with a cgroup and without.

    ways      plain child, deaf to TERM, setsid, double fork, nohup with a gone parent, a daemon without environment and
              output, a moving target that forks on and on (escapee.py)
    ends      timeout, cancel, budget, end of the run, death of supervisor and shim and then `resume`, reboot
    held by   a cgroup v2 (`cgroup.kill`), or nothing; where there is v1, by that too at the larger scales

What must hold: no survivor when the step's end is recorded (timeout), when the run is over, or before the next attempt
begins (resume); what ran beside it is not touched; and no bystander ever hears a signal: they are given the pids of the
supervisor and the shim that died, of a process that the step had before, of one that dies of TERM while the others are
still being ended, and after a reboot of all that there was.

One cell of each 42 without a cgroup is a documented limit: a daemon without environment and output whose supervisor and
shim are killed. There it is told in a note how many survived; if none did, the README would be wrong.

Where cgroup v2 is there but hands no memory down (v1 has it), the program would not use it: then a `sitecustomize`
makes it, so that what is tried is what it does with a cgroup v2, and not whether it chooses it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from . import oracle
from .jobs import Job
from .machine import Machine, Report, apart, lacking
from .place import LIMIT, Place, Stuck, send, wait_gone
from .tally import Tally, Wanted

KINDS = ("plain", "deaf", "setsid", "fork", "nohup", "daemon", "moving")
ENDS = ("timeout", "cancel", "budget", "end", "killed", "reboot")
OUTCOMES = {"timeout": "failed", "cancel": "cancelled", "budget": "over_budget"}
WORKERS = 2
LOOKS = 20  # at all processes, for one that has another number at each
LIMITED = "A DOCUMENTED LIMIT"
ESCAPEE = Path(__file__).with_name("escapee.py")

BARE_V2 = '''
import agentrun.step.cgroups as cgroups

def make_v2(folder, own, name):
    root = f"{own}/{name}"
    cgroups._note(folder, [root])
    for path in (root, root + "/counted", root + "/beside"):
        cgroups.make(path)
    return cgroups.Cgroups("cgroup v2", cgroups.GroupV2({"cpu": root}), [own])

cgroups.make_v2 = make_v2
'''


class Cell(NamedTuple):
    """`held`: v2, bare v2 (without memory), v1, or nothing."""

    kind: str
    end: str
    held: str

    def __str__(self) -> str:
        return f"{self.kind} x {self.end} x {self.held}"


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("escapees")
    held = cgroups_here()
    why = lacking()
    cells = list(_plan(wanted, held))
    seen: Counter[str] = Counter()

    def one(cell: Cell) -> Report | None:
        if wanted.is_over:
            return None
        arguments = (*cell, str(wanted.package))
        return play(None, *arguments) if why else apart("escapees:play", *arguments)

    with ThreadPoolExecutor(WORKERS) as pool:
        for cell, report in zip(cells, pool.map(one, cells), strict=True):
            if report:
                tally.add(report.violations, case=str(cell), faults=report.faults)
                seen.update(report.notes)
    if not held:
        tally.notes.append("no cgroup can be had here: half of the cells were skipped")
    if "v2" not in held:
        tally.notes.append("cgroup v2 has no memory controller here" + (": it was forced" if "bare v2" in held else ""))
    if why:
        tally.notes.append(f"no bystanders and no reboot: needs {why}")
    tally.notes += [f"{number} x {what}" for what, number in sorted(seen.items())]
    return tally


def _plan(wanted: Wanted, held: list[str]) -> Iterator[Cell]:
    """All cells; at the smallest scale one of each kind, with every end and every holder among them."""
    holders = [*held[:1], "nothing"]
    if wanted.scale == "ci":
        chance = random.Random(wanted.seed)
        ends = [*ENDS, chance.choice(ENDS)]
        chance.shuffle(ends)
        for number, (kind, end) in enumerate(zip(KINDS, ends, strict=True)):
            yield Cell(kind, end, holders[number % len(holders)])
        return
    for holder in [*held, "nothing"]:
        for end in ENDS:
            for kind in KINDS:
                yield Cell(kind, end, holder)


def cgroups_here() -> list[str]:
    """What can hold an attempt here, best first."""
    found = []
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for _, mount, kind, *_ in mounts:
        if kind == "cgroup2" and os.access(folder := mount + own.get("", "/").rstrip("/"), os.W_OK):
            offered = Path(f"{folder}/cgroup.controllers").read_text().split()
            found.append("v2" if "memory" in offered else "bare v2")
        elif kind == "cgroup" and mount.endswith("/memory") and os.access(mount + own.get("memory", "/"), os.W_OK):
            found.append("v1")
    return sorted(found, reverse=True) if "v2" in found else sorted(found)


# ---- one cell


class Trial:
    """One cell under way. `machine`: None where there are no namespaces to play in."""

    def __init__(self, machine: Machine | None, cell: Cell, place: Place) -> None:
        self.machine, self.cell, self.place = machine, cell, place
        self.marker = f"escapee-of-{place.root.name}"
        self.file = place.root / "escaped"
        self.gate, self.beside = place.gate("gate"), place.gate("beside")
        self.found: list[str] = []
        self.notes: list[str] = []
        self.faults = 1
        self.hidden = cell.kind == "daemon" and cell.held == "nothing"  # from all but the shim that it descends from
        self.has_beside = cell.end in ("timeout", "end") and not self.hidden
        if cell.held == "bare v2":
            (place.root / "site").mkdir()
            (place.root / "site" / "sitecustomize.py").write_text(BARE_V2)
            place.env["PYTHONPATH"] = f"{place.root}/site:{place.env['PYTHONPATH']}"

    def job(self, timeout: int) -> Job:
        """The step that is left, and one beside it."""
        escape = f"{sys.executable} -I -S {ESCAPEE} %s {self.file} {self.marker}"
        decoys = ["gone"] + ["decoy"] * (self.cell.kind == "deaf")
        background = " & ".join(escape % kind for kind in (*decoys, self.cell.kind))
        again = "&& false" if self.cell.end in ("killed", "reboot") else ""
        work = f'if [ "$AGENTRUN_ATTEMPT" != 1 ] {again}; then exit 9; fi; '
        work += f'if [ "$AGENTRUN_ATTEMPT" = 1 ]; then {background} & fi; {self.gate.shell}'
        if self.cell.end == "budget":
            work += '; echo \'{"gen_ai.usage.input_tokens": 5000}\' >> "$AGENTRUN_USAGE"; ' + self.gate.shell
        step: dict[str, Any] = {"id": "escape", "run": "$STEP", "needs": [], "grace": "800ms", "env": {"WORK": work}}
        if self.cell.end == "timeout":
            step["timeout"] = f"{timeout}ms"
        if self.cell.held != "nothing":
            step["budget"] = {"memory": "2GiB"}
        steps = [step]
        if self.has_beside:
            steps.append({"id": "beside", "run": "$STEP", "needs": [], "env": {"WORK": self.beside.shell}})
        job: dict[str, Any] = {"max_parallel": 2, "steps": steps}
        if self.cell.end == "budget":
            job["budget"] = {"tokens": 1000}
        return Job("escape", json.dumps(job), outcome=OUTCOMES.get(self.cell.end, "succeeded"))

    def survivors(self) -> list[int]:
        """Who got away, by the marker in the command line."""
        found = set()
        for _ in range(LOOKS if self.cell.kind == "moving" else 2):
            for name in filter(str.isdigit, os.listdir("/proc")):
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if self.marker.encode() in words:
                    found.add(int(name))
        return sorted(found)

    def escaped(self) -> dict[str, int]:
        """Who has told where it is: kind and pid (the first, for one that moves on)."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return {kind: int(pid) for kind, pid in (line.split() for line in lines)}

    def arrived(self) -> bool:
        """Whether all are where they want to be."""
        here = self.escaped()
        return len(here) == 2 + (self.cell.kind == "deaf") and not Path(f"/proc/{here['gone']}").exists()

    def take(self, *pids: int) -> None:
        """Bystanders for pids that are free now."""
        if self.machine:
            self.faults += self.machine.take(*pids)

    def none_left(self, when: str) -> None:
        """Nobody may have got away."""
        left = self.survivors()
        if self.hidden and self.cell.end == "killed":
            self.notes.append(f"{LIMITED}: {len(left)} of 1 {self.cell.kind} survived ({self.cell})")
            if not left:
                self.found.append("the README says that this one survives, and it did not")
        elif left:
            self.found.append(f"survived {when}: {left}")
        for pid in left:
            send(pid, signal.SIGKILL)


def play(machine: Machine | None, kind: str, end: str, held: str, package: str) -> Report:
    """One cell."""
    cell = Cell(kind, end, held)
    if machine is None and end == "reboot":
        return Report([], 0)
    timeout = 1000
    while True:
        with Place(Path(package)) as place:
            trial = Trial(machine, cell, place)
            try:
                if _end_it(trial, timeout):
                    return Report(trial.found, trial.faults, trial.notes)
            except Stuck as stuck:
                return Report([*trial.found, str(stuck), place.said()[-300:]], trial.faults, trial.notes)
            finally:
                for pid in trial.survivors():
                    send(pid, signal.SIGKILL)
        timeout *= 2  # the machine is so busy that it came before anybody had got away


def _end_it(trial: Trial, timeout: int) -> bool:
    """Begin, end and look. False if the timeout came too early."""
    place, cell, job = trial.place, trial.cell, trial.job(timeout)
    process = place.start("run", job.write(place))
    trial.gate.reached()
    place.wait_for(lambda: trial.arrived() or process.poll() is not None)
    if not trial.arrived():
        return False
    trial.take(trial.escaped()["gone"])
    if cell.end in ("killed", "reboot"):
        process = _die_and_resume(trial, process.pid, process)
    else:
        _call_for_an_end(trial)
    if process.wait(LIMIT) and cell.end not in OUTCOMES:
        trial.found.append(f"exit status {process.returncode}: {place.said()[-300:]}")
    if cell.end != "killed":  # else it was looked at when the next attempt began
        trial.none_left("the end of the run")
    place.wait_quiet()
    trial.found += oracle.violations(place, job)
    trial.found += trial.machine.disturbed() if trial.machine else []
    trial.notes.append(f"held by {_held_by(trial)}")
    return True


def _call_for_an_end(trial: Trial) -> None:
    """End the step while the run is looked after."""
    place, cell = trial.place, trial.cell
    if cell.end == "cancel":
        place.command("cancel", place.runs()[0])
    elif cell.end in ("budget", "end"):
        trial.gate.open()
    if trial.has_beside and cell.end == "timeout":
        place.wait_for(lambda: bool(place.rows("SELECT 1 FROM attempts WHERE outcome = 'timed_out'")))
        trial.none_left("the end of the step, with another beside it")
    if trial.has_beside:
        trial.beside.reached()
        trial.beside.open()
    if cell.kind == "deaf":  # its fellow dies of TERM, and somebody gets its number before KILL comes to the rest
        fellow = trial.escaped()["decoy"]
        place.wait_for(lambda: not Path(f"/proc/{fellow}").exists())
        trial.take(fellow)


def _die_and_resume(trial: Trial, supervisor: int, process: Any) -> Any:
    """Kill who looks after the run, or all, and let somebody take it up."""
    place, machine = trial.place, trial.machine
    ours = place.supervisors()
    if trial.cell.end == "killed":
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in ours:
                send(pid, number)
        for pid in ours:
            wait_gone(pid)
    else:
        ours = sorted({*ours, *place.processes(), *trial.escaped().values()})
        assert machine
        machine.reboot()
    process.wait(LIMIT)
    trial.faults += len(ours) - 1
    place.wait_for(lambda: machine is None or not any(Path(f"/proc/{pid}").exists() for pid in ours))
    trial.take(*ours)
    again = place.start("resume", place.runs()[0])
    trial.gate.reached()
    trial.none_left("until the next attempt")
    trial.gate.open()
    return again


def _held_by(trial: Trial) -> str:
    """What the record says; a violation if it is not what the cell is about."""
    said = trial.place.rows("SELECT enforced_by FROM runs")[0][0] or "nothing"
    wanted = {"bare v2": "cgroup v2", "v2": "cgroup v2", "v1": "cgroup v1", "nothing": "nothing"}[trial.cell.held]
    if not said.startswith(wanted):
        trial.found.append(f"was to be held by {wanted}, and was by {said}")
    return f"{wanted}"
