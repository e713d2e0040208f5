"""Which process belongs to which attempt, and how what is left of a run is found when its shim is gone.

While the shim lives it is the subreaper: whatever a step's process does (setsid, double fork, a cleared
environment), it stays below the shim. So the shim's own children tell all: leaders, and orphans that came to it. An
attempt is over when its leader and its orphans are: the kernel hands orphans on before it reports a death, so none
slips through between two looks. Whose an orphan is: what was remembered of its descent; its session; its
cgroup; its environment tag (AGENTRUN_RUN_ID, _STEP, _ATTEMPT); the FIFO it holds; the one attempt that was alive at its
start, if there was only one. An orphan that nothing ties is a stray, and ends with the run.

After a dead shim or a reboot there is no descent from one root any more. `leftovers` goes by cgroup, tag and FIFOs,
then by descent and session from those. What cleared its environment, closed its output and made its own session
is then not found unless it had a cgroup: the promise ends there. `end_leftovers` ends what is found, and refuses
while a shim lives.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import os
import select
import time

from .. import effects
from . import cgroups, procs
from .procs import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..store.folders import RunFolder

Key = tuple[str, int]
_LOOKS = 50  # at the list of processes, for one that forks on and on; two if nothing is born meanwhile


class Kin:
    """One attempt's processes as the shim knows them: the leader, and the orphans that came to the shim."""

    __slots__ = ("begun", "key", "leader", "orphans", "over", "remembered", "sessions")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.leader = 0                          # 0: not yet, or not any more
        self.over = False                        # its last process is gone: no orphan can be its own any more
        self.orphans: set[int] = set()
        self.remembered: dict[int, int] = {}     # pid → start time, of all that was ever seen below it
        self.sessions: set[int] = set()
        self.begun = 0.0                         # seconds since boot, as start times are counted

    @property
    def alive(self) -> bool:
        return bool(self.leader or self.orphans)

    def roots(self) -> list[int]:
        return [self.leader, *self.orphans] if self.leader else list(self.orphans)

    def remember(self) -> list[Process]:
        """Walk the tree as it is now, and remember it. Parents before children, the dead left out."""
        found = [process for process in procs.descendants(self.roots()) if process.alive]
        for process in found:
            self.remembered[process.pid] = process.start
            self.sessions.add(process.session)
        return found


class Family:
    """All that lives below the shim, sorted by attempt. `strays` are those that nothing ties to one."""

    __slots__ = ("_children", "_fifos", "_known", "_run_id", "_ticks", "hunted", "ignored", "kin", "leaders", "strays")

    def __init__(self, folder: RunFolder) -> None:
        self.kin: dict[Key, Kin] = {}
        self.leaders: dict[int, Kin] = {}
        self.strays = Kin(("", -1))
        self.hunted: set[Kin] = set()      # those that are being killed
        self.ignored: set[int] = set()     # children of ours that are no step's: supervisors, removals
        self._known: dict[int, Kin] = {}   # orphan → whose
        self._run_id = folder.run_id
        self._fifos: dict[str, Kin] = {}
        self._ticks = os.sysconf("SC_CLK_TCK")
        try:
            path = f"/proc/self/task/{os.getpid()}/children"
            self._children = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._children = -1

    def born(self, kin: Kin, pid: int, fifo: str) -> None:
        """The attempt's leader exists now."""
        kin.leader = pid
        kin.begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        kin.sessions.add(pid)
        self.kin[kin.key] = kin
        self.leaders[pid] = kin
        self._fifos[fifo] = kin

    def adopt(self, kin: Kin, pid: int) -> None:
        """A child of ours that we started for an attempt."""
        self._known[pid] = kin
        kin.orphans.add(pid)

    def died(self, pid: int) -> Kin | None:
        """A child of ours was waited for; whose leader or orphan it was."""
        self.ignored.discard(pid)
        kin = self.leaders.pop(pid, None)
        if kin:
            kin.leader = 0
            return kin
        kin = self._known.pop(pid, None)
        if kin:
            kin.orphans.discard(pid)
        return kin

    def gone(self, kin: Kin, fifo: str) -> None:
        """Nothing of the attempt is left."""
        self.kin.pop(kin.key, None)
        self.hunted.discard(kin)
        self._fifos.pop(fifo, None)

    def look(self) -> bool:
        """See who has come to us since the last look, and whose they are.

        False if one of them was dead before we knew: wait for it, then look again, since a child of its own may
        have come to us meanwhile. While a tree is being killed, who comes is stopped before it is asked
        anything: one that forks on and on would be another by then.
        """
        stable = True
        for pid in self._own_children():
            if pid in self.leaders or pid in self._known or pid in self.ignored:
                continue
            if self.hunted:
                procs.send_to_child(pid, _signal.SIGSTOP)
            try:
                kin = self._whose(pid)
            except ProcessLookupError:
                stable = False
                continue
            if self.hunted and kin not in self.hunted:
                procs.send_to_child(pid, _signal.SIGCONT)
            if kin:
                self._known[pid] = kin
                kin.orphans.add(pid)
        return stable

    def _own_children(self) -> Iterable[int]:
        if self._children < 0:
            return procs.children(os.getpid())
        text = b""
        while block := os.pread(self._children, 65_536, len(text)):
            text += block
        return map(int, text.split())

    def _whose(self, pid: int) -> Kin | None:
        there = [kin for kin in self.kin.values() if not kin.over]
        try:
            session = os.getsid(pid)
        except OSError:
            session = 0
        if session in self.ignored:
            return None  # a supervisor's own
        if len(there) == 1 and not self.strays.orphans:
            return there[0]  # with no other question asked: a target that forks on and on is hit only at once
        process = procs.look_up(pid)
        if process is None or not process.alive:
            raise ProcessLookupError
        kin = self._by_memory(process, there) or self._by_marks(process)
        if kin is None:
            again = procs.look_up(pid)
            if again is None or not again.alive:
                raise ProcessLookupError  # it had no marks because it had ended
            kin = self._by_time(process, there)
        return kin

    def _by_memory(self, process: Process, candidates: list[Kin]) -> Kin | None:
        for kin in (*candidates, self.strays):
            if kin.remembered.get(process.pid) == process.start:
                return kin
        # a number may have come round again: the latest to use it is meant
        same = [kin for kin in candidates if process.session in kin.sessions]
        return max(same, key=lambda kin: kin.begun) if same else None

    def _by_marks(self, process: Process) -> Kin | None:
        key = tagged(procs.environment(process.pid), self._run_id)
        key = key or cgroups.key_of(procs.read(f"/proc/{process.pid}/cgroup"), self._run_id)
        if key and (kin := self.kin.get(key)):
            return kin
        if key:
            same = [kin for kin in self.kin.values() if kin.key[0] == key[0]]
            if same:
                return max(same, key=lambda kin: kin.begun)
        for path, kin in self._fifos.items():
            if procs.written_fifos(process.pid, os.path.realpath(path)):
                return kin
        return None

    def _by_time(self, process: Process, candidates: list[Kin]) -> Kin:
        """A tick of the start time is 10 ms: one that may have been there counts as there."""
        started = (process.start + 1) / self._ticks
        there = [kin for kin in candidates if kin.begun <= started]
        return there[0] if len(there) == 1 and not self.strays.orphans else self.strays


def signal_kin(kin: Kin, *numbers: int) -> None:
    """Signal all of an attempt: its group in one go, then who is not in it; parents before children."""
    processes = kin.remember()
    group = kin.leader  # not waited for yet, so its number is still its own
    for number in numbers:
        if group:
            procs.send_to_group(group, number)
        for process in processes:
            if not group or process.group != group:
                _send(process, number, kin)


def signal_group(kin: Kin, number: int) -> None:
    """Signal all in the leader's own group at once; nobody, if the leader is gone."""
    if kin.leader:
        procs.send_to_group(kin.leader, number)


def ask_to_end(kin: Kin, *, gentle: bool, abrupt: bool) -> None:
    """TERM to all of a tree. `gentle`: to its leader alone, which ends the others; `abrupt`: that one is killed."""
    if abrupt and kin.leader:
        procs.send_to_child(kin.leader, _signal.SIGKILL)
    if gentle and kin.leader:
        for number in (_signal.SIGTERM, _signal.SIGCONT):
            procs.send_to_child(kin.leader, number)
    else:
        signal_kin(kin, _signal.SIGTERM, _signal.SIGCONT)  # who is stopped cannot hear the first


def kill_kin(kin: Kin) -> None:
    """Stop the whole tree so that nobody forks or restarts another, then kill it. Once over: look again after it."""
    for pid in kin.roots():
        procs.send_to_child(pid, _signal.SIGSTOP)
    stopped: set[tuple[int, int]] = set()
    for _ in range(20):
        processes = kin.remember()
        fresh = [process for process in processes if (process.pid, process.start) not in stopped]
        if not fresh:
            break
        for process in fresh:
            _send(process, _signal.SIGSTOP, kin)
            stopped.add((process.pid, process.start))
    for process in processes:
        _send(process, _signal.SIGKILL, kin)
    for pid in kin.roots():
        procs.send_to_child(pid, _signal.SIGKILL)


def _send(process: Process, number: int, kin: Kin) -> None:
    if process.pid == kin.leader or process.pid in kin.orphans:
        procs.send_to_child(process.pid, number)
    else:
        procs.send_signal(process, number)


def tagged(environment: dict[bytes, bytes], run_id: str) -> Key | None:
    """The attempt of this run that a process's environment names."""
    if environment.get(b"AGENTRUN_RUN_ID") != os.fsencode(run_id):
        return None
    attempt = environment.get(b"AGENTRUN_ATTEMPT", b"")
    return os.fsdecode(environment.get(b"AGENTRUN_STEP", b"")), int(attempt) if attempt.isdigit() else -1


class Leftover:
    """A process of a run that nobody holds any more. `key`: its attempt, as far as that is known."""

    __slots__ = ("key", "process")

    def __init__(self, process: Process, key: Key | None) -> None:
        self.process = process
        self.key = key

    def __repr__(self) -> str:
        return f"Leftover(pid={self.process.pid}, key={self.key})"


def leftovers(run_id: str, folder: RunFolder | None = None, keep: Collection[Key] = ()) -> list[Leftover]:
    """What lives of a run, found without its shim. Never this process or one that it descends from.

    `keep`: attempts that ended and whose steps say `leave_running`. With `folder`, who holds a FIFO in it too.
    """
    return _scan(run_id, folder, keep, stop=False)


def _scan(run_id: str, folder: RunFolder | None, keep: Collection[Key], *, stop: bool) -> list[Leftover]:
    """One look at all processes, and quick ones at those that came meanwhile, as long as some do.

    A process that forks on and on has another number before the list is read to its end; only a number that is
    looked at as soon as it turns up is still there. `stop`: stop each as soon as it is found, for the same reason.
    """
    fifos = os.path.realpath(folder.path) + "/io/" if folder else None
    spared = _own_line()
    known: set[int] = set()
    everybody: dict[int, Process] = {}
    found: dict[int, Key] = {}
    for _ in range(_LOOKS):
        fresh = [pid for pid in procs.every_pid() if pid not in known]
        if not fresh:
            break
        known.update(fresh)
        inside = cgroups.members(folder) if folder else {}
        for pid in reversed(fresh):  # the newest is the first to go
            process = procs.look_up(pid)
            if process is None or not process.alive:
                continue
            everybody[pid] = process
            key = None if pid in spared else inside.get(pid) or _marked(pid, run_id, fifos)
            if key and key not in keep:
                found[pid] = key
                if stop:
                    procs.send_signal(process, _signal.SIGSTOP)
        _add_relatives(found, everybody, spared)
    return [Leftover(everybody[pid], key) for pid, key in found.items()]


def _own_line() -> set[int]:
    """This process and those that it descends from."""
    line = {1}
    pid = os.getpid()
    while pid and pid not in line:
        line.add(pid)
        process = procs.look_up(pid)
        pid = process.parent if process else 0
    return line


def _marked(pid: int, run_id: str, fifos: str | None) -> Key | None:
    key = tagged(procs.environment(pid), run_id)
    if key or fifos is None:
        return key
    for path in procs.written_fifos(pid, fifos):
        instance, _, number = path[len(fifos) :].removesuffix(".fifo").rpartition("#")
        if number.isdigit():
            return instance, int(number)
    return None


def _add_relatives(found: dict[int, Key], everybody: dict[int, Process], spared: set[int]) -> None:
    """Children of what was found, and who is in a session of theirs that one of them began or that has no leader."""
    grown = True
    while grown:
        grown = False
        sessions = {
            everybody[pid].session: key
            for pid, key in found.items()
            if everybody[pid].session in found or everybody[pid].session not in everybody
        }
        for pid, process in everybody.items():
            if pid in found or pid in spared or not process.alive:
                continue
            key = found.get(process.parent) or sessions.get(process.session)
            if key:
                found[pid] = key
                grown = True


def end_leftovers(
    run_id: str, folder: RunFolder, *, grace_ms: int = 2_000, keep: Collection[Key] = ()
) -> list[Leftover]:
    """End all that `leftovers` finds, clear away its FIFOs and temporary folders, and say what it was.

    TERM, `grace_ms`, then STOP and KILL until nothing is found. Busy if the run's shim lives after all, or if
    something cannot be ended (a process that waits for a dead disk, or that is another user's).
    """
    from ..errors import Busy, Missing
    from ..store.locks import SHIM, held

    if held(folder.lock, SHIM):
        raise Busy(f"the processes of run {run_id} are in the care of its shim", f"agentrun cancel {run_id}")
    ended = found = leftovers(run_id, folder, keep)
    for number in (_signal.SIGTERM, _signal.SIGCONT):
        for one in found:
            procs.send_signal(one.process, number)
    _wait_for(found, grace_ms)
    patience = time.monotonic() + 10
    cgroups.bar(folder, keep)
    while found := _scan(run_id, folder, keep, stop=True):
        for number in (_signal.SIGSTOP, _signal.SIGKILL):
            for one in found:
                procs.send_signal(one.process, number)
        _wait_for(found, 100)
        if time.monotonic() > patience:
            pids = ", ".join(str(one.process.pid) for one in found)
            raise Missing(f"processes of run {run_id} cannot be ended: {pids}", "end them, then resume the run")
    cgroups.remove_all(folder)
    _clear(folder, keep)
    return ended


def _wait_for(found: list[Leftover], limit_ms: int) -> None:
    """Until all of them have ended, or so long."""
    until = time.monotonic() + limit_ms / 1000
    for one in found:
        try:
            handle = os.pidfd_open(one.process.pid)
        except (OSError, AttributeError):
            continue
        try:
            now = procs.look_up(one.process.pid)
            if now and now.start == one.process.start:
                select.select([handle], [], [], max(0.0, until - time.monotonic()))
        finally:
            os.close(handle)


def _clear(folder: RunFolder, keep: Collection[Key]) -> None:

    kept = {f"{instance}#{attempt}" for instance, attempt in keep}
    for part, ending in (("io", ".fifo"), ("tmp", "")):
        try:
            names = os.listdir(os.path.join(folder.path, part))
        except FileNotFoundError:
            continue
        for name in names:
            path = os.path.join(folder.path, part, name)
            if not name.endswith(ending) or name.removesuffix(ending) in kept:
                continue
            if ending:
                effects.unlink(path)
            else:
                effects.remove_tree(path)
