"""Every call with an effect outside of this process that engine, step and store make, in one place.

They are the functions of the standard library themselves: nothing is wrapped and nothing costs anything, unless
AGENTRUN_FAULTS is set. Then each has a point before and a point behind it, named by who calls, at which `faults.py`
may end this process. So the torture tests can ask of every line what no review can: what if it ends here? A test
reads the syntax tree and finds whoever goes round this module.

Only reading is not here, nor what an open descriptor does by being closed, nor what ends with this process anyway
(its working folder, its limits, its signal handlers).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the shim loads this module: see step/protocol.py
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, Protocol, TypeVar

    F = TypeVar("F")

    class Transaction(Protocol):
        """A cursor or a connection of sqlite3."""

        def execute(self, sql: str, /) -> object: ...
        def close(self) -> None: ...

if "AGENTRUN_FAULTS" in os.environ:
    from .faults import bear
else:

    def bear(function: F) -> F:
        """The function itself: nobody asked for points."""
        return function


# files
create = bear(os.open)  # an open that may make the file
write = bear(os.write)
pwrite = bear(os.pwrite)
fsync = bear(os.fsync)
fdatasync = bear(os.fdatasync)
ftruncate = bear(os.ftruncate)
unlink = bear(os.unlink)
rename = bear(os.rename)
replace = bear(os.replace)
link = bear(os.link)
mkdir = bear(os.mkdir)
makedirs = bear(os.makedirs)
rmdir = bear(os.rmdir)
chmod = bear(os.chmod)
mkfifo = bear(os.mkfifo)
flock = bear(fcntl.flock)
ofd_lock = bear(fcntl.fcntl)  # F_OFD_SETLK

# processes
fork = bear(os.fork)
posix_spawn = bear(os.posix_spawn)
posix_spawnp = bear(os.posix_spawnp)
setsid = bear(os.setsid)
wait4 = bear(os.wait4)
waitid = bear(os.waitid)
waitpid = bear(os.waitpid)
kill = bear(os.kill)
killpg = bear(os.killpg)
pidfd_send_signal = bear(_signal.pidfd_send_signal)


@bear
def remove_tree(path: str) -> None:
    """Remove a folder and all in it, as far as that goes."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


@bear
def commit(cursor: Transaction) -> None:
    """End a transaction: durable when it returns."""
    cursor.execute("COMMIT")


@bear
def close_database(connection: Transaction) -> None:
    """The last connection to go writes the WAL back and removes it."""
    connection.close()


@bear
def connect(sock: _socket.socket, address: str) -> None:
    """Reach whoever listens there."""
    sock.connect(address)


@bear
def bind(sock: _socket.socket, address: str) -> None:
    """Make a socket's file."""
    sock.bind(address)


@bear
def copy_tree(source: str, target: str, **how: Any) -> None:
    """Copy a folder into another. shutil.Error for what could not be copied."""
    import shutil

    shutil.copytree(source, target, **how)


@bear
def copy_file(source: str, target: str) -> None:
    """Copy what a file holds."""
    import shutil

    shutil.copyfile(source, target)
