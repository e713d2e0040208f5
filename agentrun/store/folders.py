"""Where agentrun keeps things on disk: one state folder for a user, in it one folder for each run.

    $AGENTRUN_HOME | /var/lib/agentrun (root) | $XDG_STATE_HOME/agentrun | ~/.local/state/agentrun
    ├── agentrun.db, agentrun.lock      the database, and the lock that queues its writers
    ├── deliver.lock                    who sends notices (notify/deliverer.py)
    ├── backups/                        copies of the database
    ├── jobs/<job>/                     $AGENTRUN_JOB_DIR, lasts from run to run
    └── runs/<run id>/
        ├── lock                        byte 0: the lease, byte 1: the shim (OFD locks)
        ├── s                           the shim's socket
        ├── bell                        a FIFO: who wishes something of the supervisor rings here
        ├── results                     one line for each attempt that ended
        ├── journal                     one line for each transaction of the run (store/redo.py)
        ├── env.json                    the environment, umask and folder that the run was created in
        ├── log/<instance>#<n>.log|.idx what an attempt wrote, and when
        ├── io/<instance>#<n>.out|.use|.call|.exc
        │                               its $AGENTRUN_OUTPUT, $AGENTRUN_USAGE, what it calls, its exception
        ├── io/<instance>#verify.out    the $AGENTRUN_OUTPUT of its `verify`
        ├── io/<instance>#<n>.sh|.state|.fds  with `carry`: what its shell executes, the state and files that it leaves
        ├── io/<instance>.calls         $AGENTRUN_CALLS, of all its attempts
        ├── io/<k>.fifo, tmp/<k>/       the pipe and the $TMPDIR of whoever has place k; with leave_running,
        │                               <instance>#<n> instead of k (step/places.py)
        └── scratch/                    $AGENTRUN_RUN_DIR

Attempt 0 of an instance is its `if` command, and its `verify`. Plain strings and `os.path`: the shim imports this
module too, and pathlib alone would cost it more memory than all of its state.
"""

from __future__ import annotations

import os

from .. import effects
from ..errors import CannotWrite


def home() -> str:
    """The state folder of this user, absolute; it need not exist yet. Looks at the environment each time."""
    explicit = os.environ.get("AGENTRUN_HOME")
    if explicit:
        return os.path.abspath(os.path.expanduser(explicit))
    if os.geteuid() == 0:
        return "/var/lib/agentrun"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(os.path.abspath(state), "agentrun")


def prepare(root: str) -> None:
    """Create the state folder (0700) or check that it is ours and that nobody else can write into it.

    Raises CannotWrite: what a stranger can write to would decide what runs under our name.
    """
    try:
        effects.makedirs(root, mode=0o700, exist_ok=True)
        info = os.stat(root)
    except OSError as error:
        raise CannotWrite(
            f"cannot create the state folder {root}: {error.strerror}",
            "make it writable for you, or set AGENTRUN_HOME to a folder that is",
        ) from error
    if info.st_uid != os.geteuid():
        raise CannotWrite(
            f"the state folder {root} belongs to user {info.st_uid}, and you are {os.geteuid()}",
            "run agentrun as its owner, or set AGENTRUN_HOME to a folder of your own",
        )
    if info.st_mode & 0o022:
        raise CannotWrite(
            f"the state folder {root} can be written by others (mode {info.st_mode & 0o777:04o})",
            f"make it yours alone: chmod go-rwx {root}",
        )


def is_safe(root: str) -> bool:
    """Whether the state folder is ours and nobody else can write into it: what `prepare` insists on."""
    try:
        info = os.stat(root)
    except OSError:
        return False
    return info.st_uid == os.geteuid() and not info.st_mode & 0o022


class RunFolder:
    """The paths of one run. Holds names only: nothing is opened or created here."""

    __slots__ = ("path", "run_id")

    def __init__(self, root: str, run_id: str) -> None:
        self.run_id = run_id
        self.path = os.path.join(root, "runs", run_id)

    @classmethod
    def at(cls, path: str) -> RunFolder:
        """The same from the folder's own path."""
        runs, run_id = os.path.split(path)
        return cls(os.path.dirname(runs), run_id)

    @property
    def root(self) -> str:
        """The state folder."""
        return os.path.dirname(os.path.dirname(self.path))

    def create(self) -> None:
        """Make the folder and those below it, 0700. FileExistsError if the run's folder is there already."""
        effects.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        effects.mkdir(self.path, 0o700)
        for name in ("log", "io", "tmp", "scratch"):
            effects.mkdir(os.path.join(self.path, name), 0o700)

    @property
    def lock(self) -> str:
        return self.path + "/lock"

    @property
    def socket(self) -> str:
        return self.path + "/s"

    @property
    def bell(self) -> str:
        return self.path + "/bell"

    @property
    def results(self) -> str:
        return self.path + "/results"

    @property
    def journal(self) -> str:
        return self.path + "/journal"

    @property
    def environment(self) -> str:
        return self.path + "/env.json"

    @property
    def scratch(self) -> str:
        return self.path + "/scratch"

    def piece(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.sh"

    def state(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.state"

    def descriptors(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.fds"

    def log(self, instance: str, attempt: int) -> str:
        return f"{self.path}/log/{instance}#{attempt}.log"

    def log_index(self, instance: str, attempt: int) -> str:
        return f"{self.path}/log/{instance}#{attempt}.idx"

    def fifo(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.fifo"

    def output(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.out"

    def verified(self, instance: str) -> str:
        return f"{self.path}/io/{instance}#verify.out"

    def usage(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.use"

    def calls(self, instance: str) -> str:
        return f"{self.path}/io/{instance}.calls"

    def call(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.call"

    def exception(self, instance: str, attempt: int) -> str:
        return f"{self.path}/io/{instance}#{attempt}.exc"

    def tmp(self, instance: str, attempt: int) -> str:
        return f"{self.path}/tmp/{instance}#{attempt}"
