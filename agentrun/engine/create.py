"""How a run comes to be: its id, its parameters, the environment that it keeps, and its record.

Order of effects: the run's folder (its lock is taken at once), the frozen environment on disk, the scratch files
that it takes over, then the record. Killed before the record there is no run, only a folder that nobody names
(`sweep_folders`); killed after it, the run is interrupted and `resume` finds everything that it needs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .. import effects
from ..errors import CannotWrite, NotFound, Overtaken, StoreError, UsageError
from ..model import JSON, Job
from ..spec.references import Unresolved, as_text, pick, resolve
from ..store import locks, redo
from ..store.admission import Overlap, Skipped
from ..store.changes import StepSettled
from ..store.folders import RunFolder
from ..store.jobs import Settlement
from ..store.read import Reader
from ..store.snapshots import Snapshot
from ..store.write import NewRun, Store
from . import carrying, fingerprints, scratch
from .clock import Clock, wall
from .lease import Lease, this_process

# Crockford's base 32: no letter that is mistaken for a digit, lower case to type
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SWEEP_AGE = 3600.0  # seconds: far more than lies between a folder and its record
_EPOCH = 1_735_689_600_000  # 2025-01-01: 40 bits of milliseconds from there last until 2059


class Request(NamedTuple):
    """What somebody wants to run. `file` is absolute; times in ms since the epoch.

    `scratch_of`: the run whose scratch files it begins with. `caller`: the run of which it is a step, and which.
    `overlap`: with which others it may not be at work (`overlap_of`). `ticks`: the account of its and earlier ticks.
    `pausable`: it was started for its tick, and is skipped while the job is paused. `catching_up`: one at a time.
    """

    snapshot: Snapshot
    file: str
    params: Mapping[str, JSON]
    run_key: str | None = None
    scheduled_time: int | None = None
    parent: str | None = None
    taken_over: tuple[StepSettled, ...] = ()
    scratch_of: str | None = None
    caller: tuple[str, str] | None = None
    overlap: Overlap | None = None
    ticks: Settlement | None = None
    pausable: bool = False
    catching_up: bool = False


class Created(NamedTuple):
    """A run that is on record, and held. `begun`: this process advances it; else it is queued."""

    run_id: str
    lease: Lease
    clock: Clock
    begun: bool


def _folder() -> str:
    """Where this process stands, by the name that its shell has for it: a link may lead there, and `cd ..` back."""
    said = os.environ.get("PWD", "")
    try:
        return said if os.path.isabs(said) and os.path.samefile(said, ".") else os.getcwd()
    except OSError:
        pass
    try:
        return os.getcwd()
    except (FileNotFoundError, PermissionError):  # removed, or a folder that this user may not look into
        return "/"


class Frozen(NamedTuple):
    """What a run keeps of the process that created it."""

    env: Mapping[str, str]
    umask: int
    cwd: str

    @classmethod
    def here(cls) -> Frozen:
        """Of this process, now."""
        umask = os.umask(0o077)
        os.umask(umask)
        return cls(_environment(), umask, _folder())

    @classmethod
    def load(cls, folder: RunFolder) -> Frozen | None:
        """As it was kept; None if the file is not there or not whole."""
        try:
            with open(folder.environment, encoding="utf-8", errors="surrogateescape") as file:
                kept = json.load(file)
            return cls(kept["env"], kept["umask"], kept["cwd"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, folder: RunFolder) -> None:
        """Save it for a run that has lost its own. Raises CannotWrite."""
        try:
            self.save(folder)
        except OSError as error:
            raise CannotWrite(f"cannot write {folder.environment}: {error.strerror}") from error

    def save(self, folder: RunFolder) -> None:
        """Keep it, readable by nobody else, on disk before the record names the run."""
        fd = effects.create(folder.environment, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({"env": dict(self.env), "umask": self.umask, "cwd": self.cwd}, file, ensure_ascii=False)
            file.flush()
            effects.fsync(fd)


def _environment() -> dict[str, str]:
    """Ours, as it was given to us: under cron's C locale Python sets LC_CTYPE for itself (PEP 538)."""
    env = dict(os.environ)
    if env.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        with open("/proc/self/environ", "rb") as file:
            given = [entry for entry in file.read().split(b"\0") if entry.startswith(b"LC_CTYPE=")]
        del env["LC_CTYPE"]
        if given:
            env["LC_CTYPE"] = os.fsdecode(given[0][9:])
    return env


def new_id(now: int, noise: int) -> str:
    """A run's id: 8 characters of time, so that ids sort by it, and 2 of noise."""
    number = (max(now - _EPOCH, 0) << 10 | noise & 0x3FF) & (1 << 50) - 1
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(45, -1, -5))


def create(store: Store, request: Request, frozen: Frozen, *, own: bool) -> Created | Skipped:
    """Record a new run and hold its lease. `own`: this process advances it, unless it has to wait; else it is queued.

    Skipped: why it does not begin. Raises store.write.RunKeyTaken, CannotWrite, StoreError. Nothing is left behind in
    these cases, but for the last: whether the run is on record is not known then.
    """
    root = store.database.root
    folder, lease = _make_folder(root)
    try:
        frozen.save(folder)
        fingerprints.save(folder, request.snapshot.job, os.path.dirname(request.file))
        if request.scratch_of is not None:
            scratch.copy(RunFolder(root, request.scratch_of), folder)
            kept = [settled.instance for settled in request.taken_over]
            carrying.take_over(store.reader, RunFolder(root, request.scratch_of), folder, request.snapshot.job, kept)
        # a run that is a step counts time as the one that called it does
        clock = Clock(owner=store.reader.run(request.caller[0]).owner if request.caller else None)
        owner = this_process(clock.ahead)
        verdict = store.record(
            NewRun(
                id=folder.run_id,
                job=request.snapshot.job.name,
                file=request.file,
                params=request.params,
                run_key=request.run_key,
                scheduled_time=request.scheduled_time,
                created_at=clock.now(),
                by=str(owner["user"]),
                steps_total=len(request.snapshot.job.steps),
                parent=request.parent,
                caller=request.caller,
                overlap=request.overlap,
                ticks=request.ticks,
                pausable=request.pausable,
                catching_up=request.catching_up,
            ),
            request.snapshot,
            request.taken_over,
            owner=owner if own else None,
            stamp=clock.stamp() if own else None,
        )
    except OSError as error:
        lease.release()
        remove(folder)
        raise CannotWrite(f"cannot write in {folder.path}: {error.strerror}", "free space and try again") from error
    except BaseException as error:
        lease.release()
        # a commit whose sync failed may stand in the -wal all the same: then `resume` needs the folder. Where there is
        # no record after all, `sweep_folders` removes it.
        if not isinstance(error, StoreError) or isinstance(error, Overtaken):
            remove(folder)
        raise
    if isinstance(verdict, Skipped):
        lease.release()
        remove(folder)
        return verdict
    return Created(folder.run_id, lease, clock, verdict == "taken")


def overlap_of(job: Job, params: Mapping[str, JSON], ignored: Iterable[str] = ()) -> Overlap | None:
    """What the job's `concurrency` means for a run with these parameters; None: it may run beside any other.

    Raises UsageError if they lack what its key names.
    """
    rule = job.concurrency
    if rule.slots is None:
        return None
    key = f"job {job.name}"
    if rule.key is not None:
        try:
            key = "key " + as_text(resolve(rule.key, lambda path: pick(dict(params), path, 1)))
        except Unresolved as error:
            raise UsageError(f"the key of 'concurrency' cannot be made: {error}", "give it with -p") from error
    return Overlap(key, rule.slots, rule.policy in ("queue", "replace"), frozenset(ignored))


def _make_folder(root: str) -> tuple[RunFolder, Lease]:
    while True:
        folder = RunFolder(root, new_id(wall(), int.from_bytes(os.urandom(2), "big")))
        try:
            folder.create()
        except FileExistsError:
            continue  # another run began in this millisecond and drew the same number
        except OSError as error:
            raise CannotWrite(
                f"cannot create {folder.path}: {error.strerror}", "free space, or set AGENTRUN_HOME"
            ) from error
        lease = Lease.acquire(folder, create=True)
        assert lease is not None, "a folder that was just made has no other owner"
        return folder, lease


def forget(folder: RunFolder) -> None:
    """A run that has succeeded needs its frozen environment no more, nor states of shells; both may hold secrets."""
    for path in (*carrying.files(folder), fingerprints.path_in(folder), folder.environment):
        try:
            effects.unlink(path)
        except FileNotFoundError:
            pass


def remove(folder: RunFolder) -> None:
    """Remove the folder of a run that has no record."""

    effects.remove_tree(folder.path)


def sweep_folders(root: str, reader: Reader) -> None:
    """Remove what was left behind by those who were killed between two steps of their work: old, held by nobody.

    Folders of creators that came to no record; environments of runs that have succeeded.
    """
    long_ago = time.time() - _SWEEP_AGE
    try:
        with os.scandir(os.path.join(root, "runs")) as entries:
            old = [entry.name for entry in entries if _is_old(entry, long_ago)]
    except FileNotFoundError:
        return
    for name in reader.unknown(old):
        folder = RunFolder(root, name)
        # one transaction may have been cut off before its end; more were recorded, and the database has forgotten them
        begun = redo.last_number(folder.journal) > 1 or not _is_empty(folder)
        if not begun and not locks.held(folder.lock, locks.LEASE):
            remove(folder)
    for folder in (RunFolder(root, name) for name in old):
        if os.path.exists(folder.environment) and reader.outcome(folder.run_id) == "succeeded":
            forget(folder)


def _is_old(entry: os.DirEntry[str], long_ago: float) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < long_ago
    except FileNotFoundError:
        return False


def _is_empty(folder: RunFolder) -> bool:
    """Whether it is a run's folder, made in part or whole, and no attempt has begun in it."""
    try:
        return not os.listdir(os.path.join(folder.path, "log"))
    except FileNotFoundError:
        return not os.listdir(folder.path)
    except NotADirectoryError:
        return False


def parameters(job: Job, given: Iterable[str]) -> dict[str, JSON]:
    """The run's parameters from `key=value` texts and the job's defaults. Raises UsageError, NotFound.

    Values are text, unless the parameter's default is of another JSON type and the text reads as one of it.
    """
    params = {name: param.default for name, param in job.params.items() if not param.required}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"-p {text}: this is no key=value", "for example -p customer=acme")
        if name not in job.params:
            known = ", ".join(job.params) or "none"
            raise UsageError(f"-p {text}: job {job.name} has no parameter '{name}'", f"it has: {known}")
        params[name] = _typed(name, value, job.params[name].default)
    if missing := [name for name in job.params if name not in params]:
        wanted = " ".join(f"-p {name}=…" for name in missing)
        raise UsageError(f"job {job.name} needs a value for {', '.join(missing)}", f"give it as {wanted}")
    return params


def _typed(name: str, text: str, default: JSON) -> JSON:
    if default is None or isinstance(default, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    number = isinstance(default, int | float) and not isinstance(default, bool)
    wanted: type | tuple[type, ...] = (int, float) if number else type(default)
    if not isinstance(value, wanted) or (number and isinstance(value, bool)):
        raise UsageError(f"-p {name}={text}: a value like {json.dumps(default)} is wanted")
    return value


def job_file(path: str) -> str:
    """The absolute path of a job file that must be there. Raises NotFound."""
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        near = next((f"{path}{end}" for end in (".yaml", ".yml") if os.path.exists(absolute + end)), None)
        meant = f" (did you mean {near}?)" if near else ""
        raise NotFound(f"there is no job file {path}{meant}", "give the path of a YAML file")
    return absolute
