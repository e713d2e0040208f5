"""How the shim hands the descriptors of a carried shell on to the next one (what they are: descriptors.py).

    shell   writes its state, stops itself if it has more than it was started with (carry.py)
    shim    sees the stop; copies each descriptor (pidfd_getfd, Linux 5.6); writes the record; SIGCONT
    shell   looks that the record is there, ends with 0
    shim    appends the result; the supervisor syncs state and record, commits, orders the next attempt by the record
    shim    gives the next shell the copies as it is born, and closes its own

So a lock is held and an offset known without a gap, and from then on the script alone decides when a descriptor is
closed: who reads to the end of a pipe sees it when the script closes that, as ever. A stop without a whole state is
somebody else's, and left alone. A shim that has no copies (the run was killed or parked, the attempt is a second one)
opens all of it again from the record. Killed between two of these lines, the attempt has no result: it counts as
interrupted, another one writes another record, and a shell that is stopped is ended with all that has the run's tag.

Who reads what the script writes (`exec > >(tee log)`) lives on as our child. At the end of the run the copies are
closed first, so that it finds the end of its pipe (attempts.py).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import fcntl
import os
import time

from .. import effects
from . import procs
from .descriptors import CannotReopen, Look, read, reopen, write
from .launch import SpawnFailed, start_beside
from .results import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..store.folders import RunFolder
    from .attempt import Attempt
    from .descriptors import Entry
    from .tree import Family

_WHOLE = b"\0agentrun\0"  # how a state ends (carry.py)
AGAIN = 0.002         # seconds until a shell is looked at again, whose children are not there yet
UNREAD = 1.0          # seconds at most until what reads a script's pipe has read what is in it
_ANEW = "; start the job anew"


class Handing:
    """The descriptors that this shim holds between two shells."""

    __slots__ = (
        "_again", "_family", "_held", "_high", "_io", "_readers", "_record", "_since", "_umask",
        "_waiting",
    )  # fmt: skip

    def __init__(self, folder: RunFolder, family: Family, umask: int) -> None:
        self._io = os.path.realpath(folder.path) + "/io/"
        self._family = family
        self._umask = umask
        self._record: str | None = None
        self._held: dict[int, int] = {}     # number in the script → ours
        self._readers: list[int] = []       # started again for the attempt that is being launched
        self._high: list[int] = []          # to be closed when it was
        self._waiting: Attempt | None = None
        self._again = 0.0
        self._since = 0.0                   # when we began to look at the one that waits

    # ---- taken

    def look(self, attempts: Iterable[Attempt]) -> None:
        """A child may have stopped: take what it has, if it is a shell that waits for that, and let it go on."""
        for attempt in attempts:
            pid = attempt.kin.leader
            if attempt.leaves is None or not pid or attempt.killing:
                continue
            try:
                stopped = effects.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                continue
            if stopped and _is_whole(attempt.leaves[0]):
                self._take(attempt)

    def _take(self, attempt: Attempt) -> None:
        """Take what it has, or try again soon. Without a record the shell ends with a failure."""
        assert attempt.leaves is not None
        pid, record = attempt.kin.leader, attempt.leaves[1]
        self.let_go()
        try:
            look = Look(pid, self._io, self._everybody)
            self._since = self._since or time.monotonic()
            if look.early or (look.unread() and time.monotonic() - self._since < UNREAD):
                look.close()
                self._waiting = attempt
                self._again = time.monotonic() + AGAIN
                return
            try:
                write(record, look.entries)
            except BaseException:
                look.close()
                raise
            self._record, self._held = record, look.copies
        except OSError as error:
            complain(f"the descriptors of the script cannot be kept: {error}")
        self._since = 0.0
        procs.send_to_child(pid, _signal.SIGCONT)

    def tick(self) -> float | None:
        """Do what is due; seconds until the next due time, None if there is none."""
        attempt = self._waiting
        if attempt and (left := self._again - time.monotonic()) > 0:
            return left
        self._waiting = None
        if attempt and attempt.kin.leader:
            self._take(attempt)
        return AGAIN if self._waiting else None

    def _everybody(self) -> list[int]:
        return [process.pid for process in procs.descendants(procs.children(os.getpid()))]

    def let_go(self) -> None:
        """Close what is held."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}
        self._record = None

    # ---- given

    def actions(self, order: dict[str, Any], env: dict[str, str], writer: int, null: int) -> list[tuple[int, ...]]:
        """What posix_spawn does for an attempt that takes them. `launched` or `failed` follows. Raises SpawnFailed."""
        path = order["descriptors"]
        if self._record != path:
            self.let_go()
            self._record = path
        try:
            entries = read(path)
            top = max([2, *(entry["fd"] for entry in entries)])
            self._high = [_above(top, writer), _above(top, null)]
            for entry in entries:
                if entry["fd"] not in self._held:
                    self._open(entry, env)
        except CannotReopen as error:
            self.let_go()  # the locks too
            raise SpawnFailed(str(error), 126)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise SpawnFailed(f"{path}, where the descriptors of the script are written down: {why}{_ANEW}", 126)
        for number, fd in self._held.items():
            if fd <= top:  # or it could be overwritten before it is copied
                self._held[number] = _above(top, fd)
                os.close(fd)
        out, null = self._high
        # To write to a stdin fails like writing to a closed descriptor; and a shell born with a closed one would
        # have the file that it executes there.
        sources = {"out": out, "null": null, "closed": null}
        return [
            (os.POSIX_SPAWN_DUP2, sources.get(entry["is"]) or self._held[entry["fd"]], entry["fd"]) for entry in entries
        ]

    def _open(self, entry: Entry, env: dict[str, str]) -> None:
        """Have a descriptor again, of which there is no copy. Raises CannotReopen."""
        number, kind = entry["fd"], entry["is"]
        if kind == "file":
            self._held[number] = reopen(entry, self._umask)
        elif kind == "same":
            self._held[number] = _above(2, self._held[entry["as"]])
        elif kind == "pipe":
            self._held[number] = self._start_reader(entry, env)
        elif kind == "lost":
            what = "a pipe" if entry["what"].startswith("pipe:") else entry["what"]
            raise CannotReopen(f"descriptor {number} was {what}, which cannot be opened again{_ANEW}")

    def _start_reader(self, entry: Entry, env: dict[str, str]) -> int:
        """Start the process again that reads what the script writes; our end of the pipe into it."""
        opened: list[int] = []
        try:
            fds = []
            for one in (entry["out"], entry["errors"]):
                if one["is"] in ("out", "null"):
                    fds.append(self._high[one["is"] == "null"])
                else:
                    one = {"fd": entry["fd"], **one}
                    fds.append(self._start_reader(one, env) if one["is"] == "pipe" else reopen(one, self._umask))
                    opened.append(fds[-1])
            reader, writer = os.pipe2(os.O_CLOEXEC)
            opened.append(reader)
            tags = {name: value for name, value in env.items() if name.startswith("AGENTRUN_")}
            try:
                pid = start_beside(
                    entry["argv"], {**entry["env"], **tags}, entry["folder"], (reader, *fds), self._umask
                )
            except OSError as error:
                os.close(writer)
                name = entry["argv"][0]
                raise CannotReopen(
                    f"descriptor {entry['fd']} was a pipe to {name}, which cannot be started again: {error.strerror}"
                ) from error
            self._readers.append(pid)
            return writer
        finally:
            for fd in opened:
                os.close(fd)

    def launched(self, attempt: Attempt, left: Iterable[Attempt]) -> None:
        """The attempt has them now; so has this shim, if others are to be given the same.

        What `left` ones read for it (`tee`) and write on is output of this one from now on.
        """
        for pid in self._readers:
            self._family.adopt(attempt.kin, pid)
        self._end()
        if attempt.order.get("keeps_descriptors"):
            return
        self.let_go()
        for one in left:
            if one.carried and one.pipe is not None and attempt.pipe is not None:
                one.pipe.go_on_as(attempt.pipe)

    def failed(self) -> None:
        """The attempt did not begin: who was started for it reads to the end of its pipe, which is now."""
        if self._readers:
            self._family.ignored.update(self._readers)
            self.let_go()
        self._end()

    def _end(self) -> None:
        self._readers = []
        for fd in self._high:
            os.close(fd)
        self._high = []


def _above(top: int, fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, top + 1)


def _is_whole(state: str) -> bool:
    """Whether the shell has come to write all of its state."""
    try:
        fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return size >= len(_WHOLE) and os.pread(fd, len(_WHOLE), size - len(_WHOLE)) == _WHOLE
    finally:
        os.close(fd)
