"""The attempts that a shim holds: from the order to the result, to the last of what it left behind.

    held ──▶ running ──────────────▶ recorded ──▶ gone
      │         │ timeout, limit, end   ▲  │ what it left: until the next attempt of its
      │         ▼                       │  │ instance or the sweep, then ended likewise
      │      ending: TERM, grace, KILL ─┘  ▼
      └─▶ recorded (ended before it began)

An attempt is over when its leader is: what is in the pipe goes to the log, then the result to the file, then the
bell rings, and only then anything is cleaned up. One that we end is over when its whole tree is. The next attempt of
an instance is held until what earlier ones left is gone, so two never run at the same time.

No step here waits: everything is driven by the death of children, by bytes in pipes, and by one heap of due times.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import os
import time

from .. import effects
from . import procs, tree
from .attempt import Attempt, wall
from .due import Due
from .launch import Launcher, SpawnFailed
from .limits import KILLED_FOR, Limits
from .logs import LogWriter
from .output import LARGE_PIPE, Output, Pipe
from .places import Place, Places
from .results import append, complain, open_results
from .trash import Trash
from .tree import Family, Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..store.folders import RunFolder
    from .handing import Handing

    Watch = Callable[[int, Callable[[], None] | None], None]

TURN = 4 << 20          # bytes of one pipe before the others have their turn
RETRY_WRITE = 1.0       # seconds until a result that the disk refused is written again
STRAY_GRACE = 2_000
READING = 5.0           # seconds for what a script left to read its pipe to the end
LOOKS = 100             # at who came to us, if they are dead before we know whose they are


def pause(rounds: int) -> float:
    """Seconds until a tree that survived so many rounds of KILL gets another: 4 ms, twice as much each time, 1 s."""
    return min(1.0, 0.002 * (1 << min(rounds, 9)))


class Attempts:
    """All attempts of one shim. `bell` rings when a result was written."""

    def __init__(
        self, folder: RunFolder, env: dict[str, str], umask: int, watch: Watch, bell: Callable[[], None],
        limits: Limits,
    ) -> None:
        self.family = Family(folder)
        self._folder = folder
        self._launcher = Launcher(folder, env, umask)
        self._places = Places(folder)
        self._results = open_results(folder.results)
        self._watch = watch
        self._bell = bell
        self.limits = limits
        self._open: dict[Key, Attempt] = {}   # without a result in the file
        self._left: dict[Key, Attempt] = {}   # with one, but not gone
        self._held: list[Attempt] = []
        self._busy: set[str] = set()          # instances of which something is there that must be alone
        self._due = Due()
        self._umask = umask
        self._handing: Handing | None = None  # of a run with `carry`
        self.refusal: str | None = None       # why the disk refuses a result
        self._output = Output()
        self._trash = Trash(self.family)
        self._strays = Attempt({"instance": "", "attempt": -1}, 0, self.family.strays)
        self._strays.recorded = self._strays.begun = True

    # ---- orders

    def refused(self, why: str | None) -> None:
        """The disk refuses a result; None: it takes them again. The shim puts its own in this one's place."""

    def attended(self) -> bool:
        """Whether a supervisor is there to say what becomes of a run over its limits. The shim knows."""
        return False

    def running(self) -> list[Key]:
        """Attempts whose result is not in the file yet."""
        return list(self._open)

    def start(self, order: dict[str, Any], epoch: int) -> None:
        attempt = Attempt(order, epoch)
        if attempt.key in self._open:
            return  # said twice
        self._open[attempt.key] = attempt
        if attempt.carried and self._handing is None:
            from .handing import Handing

            self._handing = Handing(self._folder, self.family, self._umask)
        self._held.append(attempt)
        for one in list(self._left.values()):
            if one.key[0] == attempt.key[0] and not one.leave:
                self._end(one, None, one.grace)
        self._release(attempt.key[0])

    def _release(self, instance: str) -> None:
        """Launch the instance's next attempt, unless something of an earlier one is still there."""
        if instance in self._busy:
            return
        for attempt in self._held:
            if attempt.key[0] == instance:
                self._held.remove(attempt)
                self._launch(attempt)
                return

    def end(self, key: Key, cause: str, grace_ms: int) -> None:
        """End an attempt; one that is over already has its result, and this changes nothing."""
        attempt = self._open.get(key)
        if attempt:
            self._end(attempt, cause, grace_ms)

    def end_all(self, cause: str) -> None:
        """End every attempt that is not over, and what ended ones left."""
        held, self._held = self._held, []
        for attempt in held:
            self._record(attempt, None, cause, None)
        for attempt in list(self._open.values()):
            self._end(attempt, cause, attempt.grace)
        self.sweep()

    def sweep(self) -> None:
        """End all that attempts left behind, but those of `leave_running`. `swept` tells when that is done."""
        if self._handing:
            self._handing.let_go()
        self.family.look()
        for attempt in list(self._left.values()):
            if not attempt.leave:
                self._end(attempt, None, attempt.grace)
        if self.family.strays.orphans:
            self._end(self._strays, None, STRAY_GRACE)

    @property
    def swept(self) -> bool:
        return not self.family.strays.orphans and all(one.leave for one in self._left.values())

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing is left that must not be."""
        return not self._open and self.swept

    def draining(self) -> bool:
        """Whether something that may be left running can still write into its pipe, or lives in a cgroup of ours."""
        return any(one.pipe is not None or (one.meter and one.meter.holds) for one in self._left.values())

    # ---- the life of one

    def _launch(self, attempt: Attempt) -> None:
        if attempt.counted and self.limits.over:
            self._record(attempt, None, "budget", None)
            return
        attempt.begun_at = wall()
        handing = self._handing if "descriptors" in attempt.order else None
        try:
            attempt.place = self._take_place(attempt)
            self.limits.measure(attempt)
            attempt.kills = self.limits.kills_before(attempt)
            pid, reader = self._launcher.launch(attempt.order, attempt.place, attempt.meter, handing)
        except (SpawnFailed, KeyError) as error:
            if handing:
                handing.failed()
            failed = error if isinstance(error, SpawnFailed) else SpawnFailed(f"the order has no {error}", 126)
            self._record(attempt, failed.code, None, failed.message)
            return
        attempt.begun = True
        self._busy.add(attempt.key[0])
        self.family.born(attempt.kin, pid, attempt.place.fifo)
        self.limits.begun(attempt, pid)
        log = LogWriter(self._folder.log(*attempt.key), self._folder.log_index(*attempt.key))
        attempt.pipe = Pipe(reader, log, attempt.meter, attempt.order.get("known_as"))
        self._watch(reader, lambda: self._readable(attempt))
        if handing:
            handing.launched(attempt, self._left.values())
        timeout = attempt.order.get("timeout")
        attempt.order = {}  # an environment each, of hundreds at once: not needed any more
        if timeout is not None:
            self._at(attempt, timeout / 1000)
        self._trash.clean()

    def _take_place(self, attempt: Attempt) -> Place:
        try:
            return self._places.take(attempt.key, own=attempt.leave)
        except OSError as error:
            raise SpawnFailed(f"cannot prepare the attempt in {self._folder.path}: {error.strerror}", 126)

    def close(self) -> None:
        """Nothing runs any more, and the run's lock is still ours: remove what attempts were given."""
        self.clean()
        self._places.close()
        self.limits.close()

    def reap(self) -> None:
        """Children have died: record what is over, look at who came to us, clean up."""
        if self._handing:
            self._handing.look(list(self._open.values()))
        touched: list[Attempt] = []
        for _ in range(LOOKS):
            self._reap_into(touched)
            if self.family.look():
                break
        for attempt in touched:
            self._settle(attempt)

    def _reap_into(self, touched: list[Attempt]) -> None:
        while True:
            try:
                pid, status, usage = effects.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            kin = self.family.died(pid)
            attempt = kin and (self._open.get(kin.key) or self._left.get(kin.key))
            if attempt and attempt.kin is kin:
                touched.append(attempt)
                attempt.stirred = True
                if attempt.meter:
                    attempt.meter.reaped += usage.ru_utime + usage.ru_stime
                if attempt.result is None and not kin.leader:
                    self._leader_ended(attempt, status, usage)
            elif kin is self.family.strays:
                touched.append(self._strays)

    def _leader_ended(self, attempt: Attempt, status: int, usage: Any) -> None:
        if attempt.pipe is not None:
            self._drain(attempt, LARGE_PIPE)  # all that was in it when its leader ended
        code = os.waitstatus_to_exitcode(status)
        attempt.ended(code if code >= 0 else None, -code if code < 0 else None, usage)
        self.limits.ended(attempt)
        if not attempt.ending:
            attempt.due = None
            if not attempt.carried or not self._reads_on(attempt):  # else `_settle` writes it, or `_expired`
                self._write(attempt)

    def _settle(self, attempt: Attempt) -> None:
        """Go on with an attempt of which a process has died."""
        if attempt.kin.alive:
            if attempt.recorded and not attempt.ending:
                attempt.kin.remember()
            return
        if attempt is self._strays:
            attempt.ending, attempt.killing, attempt.due = False, 0, None
            self.family.hunted.discard(attempt.kin)
            return
        attempt.kin.over = True
        if not attempt.recorded:
            if attempt.pipe is not None:
                self._drain(attempt, LARGE_PIPE)
            self._write(attempt)
        if attempt.recorded and (attempt.pipe is None or attempt.ending or self._drain(attempt, LARGE_PIPE)):
            self._gone(attempt)

    def _free(self, attempt: Attempt) -> None:
        """The next attempt of its instance need not wait for this one any more."""
        if attempt.begun:
            self._busy.discard(attempt.key[0])
        self._release(attempt.key[0])

    def _gone(self, attempt: Attempt) -> None:
        if self._left.pop(attempt.key, None) is None:
            return  # known already
        attempt.due = None
        self.limits.gone(attempt)
        unheld = attempt.pipe is None
        self._close_pipe(attempt)
        if attempt.place:
            self.family.gone(attempt.kin, attempt.place.fifo)
            if not self._places.give_back(attempt.place, unheld=unheld):
                self._trash.put(attempt.place)
        if not attempt.leave:
            self._free(attempt)

    def clean(self) -> None:
        """Remove the places that cannot be used again."""
        self._trash.clean()

    def _record(self, attempt: Attempt, code: int | None, cause: str | None, error: str | None) -> None:
        """The end of an attempt that never had a process."""
        attempt.cause = cause
        attempt.ended(code, None, None).spawn_error = error
        self._write(attempt)
        if attempt.recorded:
            self._gone(attempt)

    def _write(self, attempt: Attempt) -> None:
        """The attempt is over: say so in the file, then ring. A disk that refuses is asked again."""
        result = attempt.result
        assert result is not None
        result.ended_by = attempt.cause
        if result.ended_at is None:
            result.ended_at = max(wall(), attempt.begun_at)
            result.output_bytes = attempt.pipe.log.size if attempt.pipe else attempt.written
        try:
            append(self._results, result)
        except OSError as error:
            if self.refusal is None:
                self.refusal = f"{self._folder.results}: {error.strerror}"
                self.refused(self.refusal)
                complain(f"cannot record the end of step {attempt.key[0]}: {error.strerror}; waiting for room")
            self._at(attempt, RETRY_WRITE)
            return
        if self.refusal is not None:
            self.refusal = None
            self.refused(None)
        attempt.recorded = True
        del self._open[attempt.key]
        self._left[attempt.key] = attempt
        self._bell()
        if attempt.leave:
            self._free(attempt)

    # ---- ends and due times

    def _end(self, attempt: Attempt, cause: str | None, grace_ms: int) -> None:
        """TERM now, KILL after `grace_ms`. Ending what is being ended can only make it sooner."""
        if attempt.result is not None and not attempt.recorded and not attempt.ending:
            return  # over; its result waits for room on the disk
        if not attempt.begun:
            self._held.remove(attempt)
            self._record(attempt, None, cause, None)
            return
        if attempt.ending:
            if not attempt.killing and attempt.due and time.monotonic() + grace_ms / 1000 < attempt.due:
                self._at(attempt, grace_ms / 1000)
            return
        if cause is None and self._reads_on(attempt):
            return
        attempt.ending = True
        if not attempt.recorded:
            attempt.cause = cause
        self.family.look()
        if not attempt.kin.alive:
            self._settle(attempt)
            return
        # a script that is to go on must not clear up (its EXIT trap) what it will go on with
        abrupt = attempt.carried and cause == "shutdown"
        tree.ask_to_end(attempt.kin, gentle=attempt.gentle, abrupt=abrupt)
        self._at(attempt, grace_ms / 1000)

    def _reads_on(self, attempt: Attempt) -> bool:
        """Whether something that it left still reads what it wrote (`exec > >(tee log)`), and may: for a moment."""
        self.family.look()
        if not any(procs.reads_to_the_end(pid) for pid in attempt.kin.orphans):
            return False
        if attempt.patience is None:
            attempt.patience = time.monotonic() + READING
            self._at(attempt, READING)
        return time.monotonic() < attempt.patience

    def _over_limit(self, attempt: Attempt, what: str) -> None:
        """What eats memory or forks without end is not asked to clear up first."""
        if what not in KILLED_FOR:
            self.reap()  # who ended by itself since the look was not ended by us
            if what != "stuck" or attempt.result is None:
                self._end(attempt, what, attempt.grace)
        elif attempt.kin.alive and not attempt.killing:
            if not attempt.ending and not attempt.result:
                attempt.cause = what
            attempt.ending = True
            tree.signal_group(attempt.kin, _signal.SIGKILL)  # no fork can slip through between two of its processes
            self.family.look()
            self._kill(attempt)

    def _kill(self, attempt: Attempt) -> None:
        """Stop and kill its tree until it is empty; give others their turn every 20 ms."""
        until = time.monotonic() + 0.02
        self.family.hunted.add(attempt.kin)
        while attempt.kin.alive and time.monotonic() < until:
            if attempt.meter:
                attempt.meter.kill()
            tree.kill_kin(attempt.kin)
            self.reap()
        if attempt.kin.alive:
            attempt.killing += 1
            self._at(attempt, pause(attempt.killing))

    def _expired(self, attempt: Attempt) -> None:
        if attempt.result and not attempt.recorded and not (attempt.ending and attempt.kin.alive):
            self._write(attempt)
            if attempt.recorded:
                self._settle(attempt)
        elif attempt.ending:
            self._kill(attempt)
        else:
            self._end(attempt, "timeout", attempt.grace)

    def _at(self, attempt: Attempt, seconds: float) -> None:
        self._due.put(attempt, seconds, len(self._open) + len(self._left))

    def tick(self) -> float | None:
        """Do what is due; seconds until the next due time, None if there is none."""
        while attempt := self._due.take():
            self._expired(attempt)
        wait = self._due.wait()
        if self.limits.next is not None:
            if self.limits.next <= time.monotonic():
                self._look_at_limits()
            left = (self.limits.next or time.monotonic()) - time.monotonic()
            wait = max(0.0, left if wait is None else min(wait, left))
        waits = (wait, self._trash.tick(), self._handing.tick() if self._handing else None)
        return min((one for one in waits if one is not None), default=None)

    def _look_at_limits(self) -> None:
        self.family.look()  # who has left a parent that was waited for by another
        for attempt, what in self.limits.look():
            self._over_limit(attempt, what)
        if self.limits.left_alone(self.attended()):
            for attempt in list(self._open.values()):
                if attempt.counted:
                    self._end(attempt, "budget", attempt.grace)

    # ---- output

    def _readable(self, attempt: Attempt) -> None:
        if self._drain(attempt, TURN) and attempt.recorded and not attempt.kin.alive:
            self._gone(attempt)

    def _drain(self, attempt: Attempt, limit: int) -> bool:
        """Take what is in its pipe. True once nobody can write into it any more."""
        if attempt.pipe is not None and self._output.drain(attempt.pipe, limit):
            self._close_pipe(attempt)
        if attempt.meter and attempt.meter.cut and not attempt.ending:
            if attempt.kin.leader or attempt.recorded:
                self._end(attempt, "output", attempt.grace)
            else:
                attempt.cause = "output"  # it has just ended, with more than its limit in the pipe
        return attempt.pipe is None

    def _close_pipe(self, attempt: Attempt) -> None:
        if attempt.pipe is not None:
            attempt.written = attempt.pipe.log.size
            self._watch(attempt.pipe.fd, None)
            self._output.close(attempt.pipe)
            attempt.pipe = None
