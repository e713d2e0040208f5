"""The shim: the small process that holds the step processes of one run, and survives the supervisor.

It is forked from the very young supervisor, makes its own session, becomes the subreaper of all that its steps
start, takes byte 1 of the run's lock file and listens on the run's socket. It serves one supervisor at a time. A
newer one (its epoch is not lower) replaces the old; what the old one said and was not read was never said.

    event                     what it does
    frame of the supervisor   starts, ends, sweeps (attempts.py); what it says is in protocol.py
    supervisor hangs up       starts a new one at once; the next ones after growing pauses, max_restarts in all
    restarts used up          ends what it holds, says so on the stderr that it inherited, ends
    goodbye                   sweeps, removes the socket, lets go of the lock, hangs up, ends
    hang-up before open       ends: there is no run yet
    TERM, INT, HUP, …         nothing: whoever wants the run to end says so to the supervisor

Killed at any instant it leaves: a lock that the kernel freed, an end of file at the supervisor, results that are
whole lines, and processes that carry the run's tag (tree.py finds them). What is left running by permission after a
goodbye keeps its output and its cgroup: the shim then stays for these alone, without lock, socket or the terminal.

It imports only what it needs (see protocol.py), and everything before its first order: an upgrade of the program
under a run changes nothing for it.
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import sys
import time

from .. import effects
from ..store.folders import RunFolder
from ..store.locks import SHIM, try_lock
from .attempt import set_clock
from .attempts import Attempts
from .detach import become_subreaper, catch_signals, let_go, tidy_descriptors
from .launch import start_supervisor
from .limits import Limits
from .protocol import VERSION, Wire, stream
from .results import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .protocol import Message

LONGEST_WAIT = 86_400.0  # seconds; epoll takes 24 days at most
PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)  # seconds before each restart; the last for all that follow


class Peer:
    """A connection. `epoch` is -1 until it said who it is."""

    __slots__ = ("epoch", "wire", "writing")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.epoch = -1
        self.writing = False


class Shim:
    """State of the process; `run` is its life."""

    def __init__(self, sock: _socket.socket, kept: list[int]) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._peers: dict[int, Peer] = {}
        self._supervisor: Peer | None = None    # the one that is served
        self._attempts: Attempts | None = None
        self._folder: RunFolder | None = None
        self._lock = -1
        self._socket: _socket.socket | None = None
        self._epoch = 0
        self._sweeping = False
        self._closing: str | None = None         # "goodbye" or "lost": nothing new, and then the end
        self._over = False
        self._restart: list[str] | None = None
        self._retired = False                    # the supervisor that is served was told to stop the run
        self._max_restarts = self._restarts = 0
        self._restart_at: float | None = None
        self._restarted = 0                      # pid of the supervisor that we started last
        self._umask = os.umask(0o077)
        self._home = _here()
        self._kept = [*kept, self._home]
        self._woken = catch_signals()
        self._watch(self._woken, self._on_signal)
        self._add(sock)

    # ---- the loop

    def run(self) -> None:
        """Until there is nothing left to hold and nobody left to serve."""
        while not self._over:
            wait = self._tick()
            if self._over:
                break
            self._wait(wait)

    def _wait(self, seconds: float | None) -> None:
        """For the next event, or so long; then do what it asks for."""
        for fd, _ in self._poll.poll(None if seconds is None else min(seconds, LONGEST_WAIT)):
            handler = self._handlers.get(fd)  # none: an earlier event of this turn closed it
            if handler:
                handler()

    def _tick(self) -> float | None:
        """Do what is due; seconds until the next, None if only an event can bring it."""
        wait = self._attempts.tick() if self._attempts else None
        if self._restart_at is not None:
            left = self._restart_at - time.monotonic()
            if left <= 0:
                self._start_supervisor()
                return 0
            wait = left if wait is None else min(wait, left)
        self._look_for_an_end()
        return wait

    def _look_for_an_end(self) -> None:
        attempts = self._attempts
        if attempts and (self._sweeping or self._closing) and not attempts.swept:
            attempts.sweep()  # what came since: an attempt that has just ended, a stray
        if self._sweeping and attempts and attempts.swept:
            self._sweeping = False
            self._say({"is": "swept"})
        if self._closing and (attempts is None or attempts.idle):
            self._finish()

    def _watch(self, fd: int, handler: Callable[[], None] | None) -> None:
        if handler is None:
            del self._handlers[fd]
            self._poll.unregister(fd)
        else:
            self._poll.register(fd, select.EPOLLIN)
            self._handlers[fd] = handler

    def _on_signal(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        attempts = self._attempts
        if attempts is None:
            return
        ours = self._restarted in attempts.family.ignored
        attempts.reap()
        if ours and self._restarted not in attempts.family.ignored:
            self._restarted = 0
            if self._supervisor is None and self._restart_at is None and not self._closing:
                self._lost()  # it ended without ever connecting

    # ---- peers

    def _add(self, sock: _socket.socket) -> None:
        peer = Peer(Wire(sock))
        self._peers[peer.wire.fileno()] = peer
        self._watch(peer.wire.fileno(), lambda: self._on_peer(peer))

    def _accept(self) -> None:
        assert self._socket
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        self._add(stream(fd))

    def _on_peer(self, peer: Peer) -> None:
        peer.wire.flush()
        for message in peer.wire.receive():
            self._handle(peer, message)
        if peer.wire.eof:
            self._hung_up(peer)
        else:
            self._mind(peer)

    def _mind(self, peer: Peer) -> None:
        """Watch for writing exactly while something waits to be written."""
        writing = peer.wire.pending > 0
        if writing != peer.writing:
            peer.writing = writing
            self._poll.modify(peer.wire.fileno(), select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def _say(self, message: Message) -> None:
        if self._supervisor:
            self._supervisor.wire.send(message)
            self._mind(self._supervisor)

    def _ring(self) -> None:
        """Bells that were not heard yet are one bell."""
        if self._supervisor and not self._supervisor.wire.pending:
            self._say({"is": "bell"})

    def _part(self, peer: Peer, last: Message | None = None) -> None:
        """Hang up, after a last word if the kernel takes it."""
        fd = peer.wire.fileno()
        if last:
            peer.wire.send(last)
        if self._peers.pop(fd, None):
            self._watch(fd, None)
        peer.wire.close()
        if peer is self._supervisor:
            self._supervisor = None

    def _hung_up(self, peer: Peer) -> None:
        was = peer is self._supervisor
        self._part(peer)
        if self._attempts is None:
            self._over = True  # before `open` there is no run
        elif was and not self._closing:
            self._lost()

    # ---- what peers say

    def _handle(self, peer: Peer, message: Message) -> None:
        kind = message.get("is")
        if peer is self._supervisor:
            assert self._attempts
            if kind == "start":
                self._attempts.start(message["order"], peer.epoch)
            elif kind == "end":
                key = (message["instance"], message["attempt"])
                self._attempts.end(key, message["cause"], message["grace"])
            elif kind == "sweep":
                self._attempts.sweep()
                self._sweeping = True
            elif kind == "retire":
                self._retired = True
            elif kind == "goodbye":
                self._goodbye()
        elif kind == "open" and self._attempts is None:
            self._open(peer, message)
        elif kind == "connect":
            self._connect(peer, message)

    def _open(self, peer: Peer, message: Message) -> None:
        """The first frame: which run this is. Refused if another shim holds it or the folder is not usable."""
        folder = RunFolder.at(message["folder"])
        try:
            self._lock = effects.create(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not try_lock(self._lock, SHIM):
                raise BlockingIOError(11, "another shim holds this run")
            self._listen(folder)
            run, spent = message.get("limits") or {}, message.get("spent") or {}
            limits = Limits(folder, run, spent, self._say_over, self._say_stuck)
            self._attempts = Attempts(folder, message["env"], message["umask"], self._watch, self._ring, limits)
        except OSError as error:
            why = f"{folder.path}: {error.strerror or error}"
            busy = isinstance(error, BlockingIOError)
            self._part(peer, {"is": "refused", "why": why, "busy": busy, "disk": not busy})
            self._over = True
            return
        self._attempts.refused = lambda why: self._say({"is": "refusing", "why": why})  # type: ignore[method-assign]
        self._attempts.attended = lambda: self._supervisor is not None  # type: ignore[method-assign]
        limits.begin(limited=bool(message.get("limited")))  # nobody hears what it says yet: `_serve` does it again
        self._folder = folder
        self._restart = message["restart"]
        self._max_restarts = message["max_restarts"]
        set_clock(message.get("clock"))
        self._serve(peer, message["epoch"])

    def _listen(self, folder: RunFolder) -> None:
        """Bind the socket by a path that is short however long the folder's is (108 bytes are the limit)."""
        handle = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                effects.unlink(folder.socket)  # of a shim that was killed: the lock is ours
            except FileNotFoundError:
                pass
            self._socket = stream()
            effects.bind(self._socket, f"/proc/self/fd/{handle}/{os.path.basename(folder.socket)}")
            self._socket.listen(16)
        finally:
            os.close(handle)
        self._watch(self._socket.fileno(), self._accept)

    def _connect(self, peer: Peer, message: Message) -> None:
        if message.get("version") != VERSION:
            why = f"its shim speaks version {VERSION} of the protocol, and this program {message.get('version')}"
            self._part(peer, {"is": "refused", "why": why})
        elif message["epoch"] < self._epoch:
            self._part(peer, {"is": "refused", "why": "a newer supervisor was here already", "busy": True})
        elif self._closing == "goodbye":
            self._part(peer, {"is": "refused", "why": "it is being closed", "busy": True})
        else:
            self._closing = None
            if self._supervisor:
                self._part(self._supervisor, {"is": "replaced"})
            self._serve(peer, message["epoch"])
            self._say_stuck()  # also that there is nobody: the one before may have heard otherwise

    def _serve(self, peer: Peer, epoch: int) -> None:
        assert self._attempts
        self._supervisor = peer
        self._epoch = peer.epoch = epoch
        self._sweeping = False
        self._restart_at = None
        self._retired = False
        limits = self._attempts.limits
        self._say({
            "is": "hello", "version": VERSION, "pid": os.getpid(), "running": self._attempts.running(),
            "enforced_by": limits.enforced_by,
        })
        for what, spent in limits.over.items():
            self._say_over(what, spent)
        if self._attempts.refusal is not None:
            self._say({"is": "refusing", "why": self._attempts.refusal})

    def _say_over(self, what: str, spent: int) -> None:
        """A limit of the run was crossed."""
        self._say({"is": "over", "what": what, "spent": spent})

    def _say_stuck(self) -> None:
        """Who does nothing, by now."""
        assert self._attempts
        self._say({"is": "stuck", "attempts": self._attempts.limits.stillness.stuck()})

    # ---- without a supervisor

    def _lost(self) -> None:
        """Nobody supervises: start somebody, or give up."""
        if self._restart is None or self._retired or self._restarts >= self._max_restarts:
            assert self._attempts
            self._closing = "lost"
            self._attempts.end_all("lost")
        else:
            pause = PAUSES[min(self._restarts, len(PAUSES) - 1)]
            self._restart_at = time.monotonic() + pause

    def _start_supervisor(self) -> None:
        assert self._attempts and self._restart is not None
        self._restart_at = None
        self._restarts += 1
        try:
            self._restarted = start_supervisor(self._restart, self._umask, self._home)
            self._attempts.family.ignored.add(self._restarted)
        except (OSError, ValueError):
            self._lost()

    # ---- the end

    def _goodbye(self) -> None:
        assert self._attempts
        self._closing = "goodbye"
        self._stop_listening()
        self._attempts.end_all("shutdown")

    def _stop_listening(self) -> None:
        if self._socket and self._folder:
            try:
                effects.unlink(self._folder.socket)
            except OSError:
                pass
            self._watch(self._socket.fileno(), None)
            self._socket.close()
            self._socket = None

    def _finish(self) -> None:
        """Nothing is held any more: let go of the run, then hang up, so that who waits for that finds it free."""
        if self._attempts:
            self._attempts.clean()
        self._stop_listening()
        if self._attempts:
            self._attempts.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._closing == "lost":
            self._complain()
        draining = self._attempts is not None and self._attempts.draining()
        if draining:
            let_go(self._kept)
        if self._supervisor:
            self._supervisor.wire.flush()
        for peer in list(self._peers.values()):
            self._part(peer)
        while draining and self._attempts and self._attempts.draining():
            self._wait(None)
        if draining and self._attempts:
            self._attempts.close()
        self._over = True

    def _complain(self) -> None:
        assert self._folder
        run = self._folder.run_id
        what = "while it was to stop the run" if self._retired else f"{self._restarts} restarts did not help"
        complain(
            f"the supervisor of run {run} ended unexpectedly, {what}, and its steps were ended; "
            f"to go on: agentrun resume {run}"
        )


def _here() -> int:
    """The folder that we were started in; the root where this user may not enter it (`sudo -u` from /root)."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(".", flags)
    except OSError:
        return os.open("/", flags)


def serve(sock: _socket.socket) -> None:
    """What the forked child does instead of going on: be the shim, to its end."""
    gc.freeze()  # what the supervisor had loaded is not ours to collect; touching it would copy its pages
    gc.enable()
    effects.setsid()
    become_subreaper()
    kept = tidy_descriptors(sock.fileno())
    Shim(sock, kept).run()


def die(error: BaseException) -> None:
    """A mistake of ours: say where. The supervisor, or the next one, clears up what we held."""
    sys.__excepthook__(type(error), error, error.__traceback__)


if __name__ == "__main__":  # made by Link.spawn
    os.set_inheritable(int(sys.argv[1]), False)  # or a step would keep the connection open after our death
    serve(_socket.socket(fileno=int(sys.argv[1])))
