"""The supervisor's side of the shim: make one or find one, give orders, hear the bell.

`fork` belongs at the very beginning of a supervisor, before the database, the lease and the heavy imports: what
is in memory then is what the shim carries for the whole run. Nothing here blocks but `hello`, `connect` and
`goodbye`, each with a limit. What ended is read from the results file alone; the bell only says when to look.

    link = Link.fork()                      …or Link.connect(folder, epoch) to adopt
    link.open(folder, epoch=…, …)
    running = link.hello()                  read the results *after* it: not running and no result = never seen
    link.start(order) … receive() … sweep() … goodbye()
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import _socket
import os
import select
import time

from .. import effects
from .protocol import VERSION, Wire, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..store.folders import RunFolder
    from .protocol import Message


class ShimGone(ConnectionError):
    """The shim hung up: it was killed, or said goodbye. Its lock tells which."""


class Link:
    """A connection to the shim of one run. `pid`: the shim's; it is our child only after `fork`.

    `enforced_by`: after `hello`, what holds limited attempts to their limits; None while nothing was limited yet.
    """

    __slots__ = ("_child", "_early", "_run_id", "_wire", "enforced_by", "pid")

    def __init__(self, wire: Wire, pid: int = 0) -> None:
        self._wire = wire
        self._early: list[Message] = []  # came while `hello` waited
        self._run_id = ""
        self._child = pid
        self.enforced_by: str | None = None
        self.pid = pid

    # ---- beginnings

    @classmethod
    def fork(cls) -> Link:
        """Fork the shim. It waits for `open`, and ends by itself if this process does before."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        # until the shim has its own handlers
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        pid = effects.fork()
        if pid == 0:
            status = 70
            try:
                ours.close()
                from . import shim

                try:
                    shim.serve(theirs)
                    status = 0
                except BaseException as error:
                    shim.die(error)
            finally:
                os._exit(status)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        theirs.close()
        return cls(Wire(ours), pid)

    @classmethod
    def spawn(cls) -> Link:
        """The same by exec: for a supervisor that has grown, and holds locks that a fork would copy."""
        import sys

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        os.set_inheritable(theirs.fileno(), True)
        argv = [sys.executable, "-P", "-m", "agentrun.step.shim", str(theirs.fileno())]
        pid = effects.posix_spawn(sys.executable, argv, os.environ)
        theirs.close()
        return cls(Wire(ours), pid)

    def open(
        self, folder: RunFolder, *, epoch: int, env: dict[str, str], umask: int, restart: list[str] | None,
        max_restarts: int, limits: dict[str, int] | None = None, spent: dict[str, int] | None = None,
        limited: bool = False, clock: int | None = None,
    ) -> None:
        """Say which run it is; `hello` hears the answer.

        `env` is the base of every order's, `umask` that of the steps. `restart` is the command line of a new
        supervisor, started with the environment, folder and descriptors of this one as they were at `fork`.
        `limits`: of all orders together that are `counted`: memory and output in bytes, cpu in ms, processes at
        once; what is not in it is not limited. `spent`: cpu and output that the run used under earlier shims.
        `limited`: orders will have limits of their own, and `enforced_by` is to be known from the beginning.
        `clock`: what the run's time is ahead of CLOCK_BOOTTIME, in ms.
        """
        self._run_id = folder.run_id
        self._wire.send({
            "is": "open", "version": VERSION, "folder": os.path.abspath(folder.path), "epoch": epoch, "env": env,
            "umask": umask, "restart": restart, "max_restarts": max_restarts, "limits": limits or {},
            "spent": spent or {}, "limited": limited, "clock": clock,
        })

    @classmethod
    def connect(cls, folder: RunFolder, epoch: int) -> Link:
        """Reach the shim of a run that has one. FileNotFoundError or ConnectionError where nobody listens."""
        handle = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock = stream()
        try:
            # a path that fits into 108 bytes, however long the folder's is
            effects.connect(sock, f"/proc/self/fd/{handle}/{os.path.basename(folder.socket)}")
        except BlockingIOError:
            sock.close()
            raise ShimGone(f"the shim of run {folder.run_id} does not answer")
        except OSError:
            sock.close()
            raise
        finally:
            os.close(handle)
        link = cls(Wire(sock))
        link._run_id = folder.run_id
        link._wire.send({"is": "connect", "version": VERSION, "epoch": epoch})
        return link

    def hello(self, timeout: float = 10.0) -> list[list[Any]]:
        """Wait for the answer to `open` or `connect`: [instance, attempt] of what runs there.

        ShimGone if it hangs up or does not answer in `timeout` seconds; Busy if it refuses us.
        """
        until = time.monotonic() + timeout
        while True:
            for message in self._hear():
                self._early.append(message)
            for message in self._early:
                if message["is"] == "hello":
                    self._early.remove(message)
                    self.pid = message["pid"]
                    self.enforced_by = message.get("enforced_by")
                    return list(message["running"])
            if self._wire.eof:
                raise ShimGone(f"the shim of run {self._run_id} hung up")
            if not self._wait(until):
                raise ShimGone(f"the shim of run {self._run_id} does not answer")

    # ---- orders

    def start(self, order: dict[str, Any]) -> None:
        """Begin an attempt: instance, attempt, argv, shell, env, cwd, timeout, grace, leave_running.

        `stuck_after` (ms), `on_stuck`: when doing nothing counts as stuck, and whether that ends it ("kill").
        `limits` (as in `open`) are its own. `counted` (default True): it uses up the run's. `gentle` (default
        False): its process is a supervisor that ends its own steps, so it alone is asked to; KILL goes to all.
        """
        self._wire.send({"is": "start", "order": order})

    def end(self, instance: str, attempt: int, cause: str, grace_ms: int) -> None:
        """End an attempt and its whole tree; its result then says `ended_by` cause. Over already: nothing."""
        self._wire.send({"is": "end", "instance": instance, "attempt": attempt, "cause": cause, "grace": grace_ms})

    def sweep(self) -> None:
        """End all that ended attempts left behind, but those of `leave_running`. "swept" comes back."""
        self._wire.send({"is": "sweep"})

    def retire(self) -> None:
        """The run is to stop: should this supervisor be killed, the shim starts no other."""
        self._wire.send({"is": "retire"})

    def goodbye(self, timeout: float = 15.0) -> None:
        """The run needs no shim any more. Returns when its lock and socket are free, or after `timeout` seconds."""
        self._wire.send({"is": "goodbye"})
        until = time.monotonic() + timeout
        while not self._wire.eof:
            self._wire.receive()
            if self._wire.eof or not self._wait(until):
                break
        self.close()

    # ---- the loop of the supervisor

    def fileno(self) -> int:
        return self._wire.fileno()

    @property
    def pending(self) -> int:
        """Bytes that the shim has not taken yet: watch for writing and `flush` while it is not 0."""
        return self._wire.pending

    def flush(self) -> None:
        self._wire.flush()

    def receive(self) -> list[Message]:
        """What the shim said since the last call; never waits.

        ShimGone once it has hung up and all before was given out. Busy if another supervisor took our place.
        """
        messages = self._early + self._hear()
        self._early = []
        if not messages and self._wire.eof:
            raise ShimGone(f"the shim of run {self._run_id} hung up")
        return messages

    def close(self) -> None:
        """Hang up without a goodbye: to the shim, this supervisor is lost."""
        self._wire.close()
        if self._child:
            try:
                if effects.waitpid(self._child, os.WNOHANG)[0]:
                    self._child = 0
            except ChildProcessError:
                self._child = 0

    def _hear(self) -> list[Message]:
        messages = self._wire.receive()
        for message in messages:
            if message["is"] in ("refused", "replaced"):
                from ..errors import Busy, CannotWrite, Missing

                words = f"run {self._run_id} cannot be advanced from here: "
                words += message.get("why", "another supervisor took over")
                if message["is"] == "replaced" or message.get("busy"):
                    raise Busy(words)
                if message.get("disk"):
                    raise CannotWrite(words, "free space, or mend the folder; then resume the run")
                raise Missing(words, "finish it with the program that began it, or end that shim and resume the run")
        return messages

    def _wait(self, until: float) -> bool:
        """Until there is something to read; False when it is too late."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        writers = [self] if self._wire.pending else []
        select.select([self], writers, [], left)
        self._wire.flush()
        return True
