"""Cgroups of limited attempts: where the kernel counts, and holds to, what a whole tree of processes uses.

    <our own cgroup>/agentrun-<run id>/counted/<instance>#<n>      limits of the run, then of the attempt
                                      /beside/<instance>#<n>       what does not count towards the run's limits
                                      /shim                        v2 only: where we stand ourselves

v2 is one hierarchy: a cgroup that hands controllers down may hold no process itself, so what stands in ours (the
supervisor and we; if anybody else does, it cannot be used) moves into `shim` first, and back when all attempts'
cgroups are gone. v1 is one for each controller.

A process is born where its parent stands: so the shim goes into the attempt's cgroup, spawns, and comes back, and no
early fork can slip away. While it is inside no limit is in force, neither the attempt's nor the run's, since at
a limit the kernel might kill *it*. Killed inside, it leaves a cgroup without limits to the next one. One that
cannot come back never sets the limits, and the run goes on by sampling.

The folders' names are written into the run's folder before they are made: who clears up after a killed shim, from
wherever, finds whom they hold (`members`) and removes them (`remove_all`).
"""

from __future__ import annotations

import errno
import os

from .. import effects
from . import procs
from .cgroup import Group, GroupV1, GroupV2, below, inner, make, pids_in, put, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..store.folders import RunFolder
    from .tree import Key

_ROUNDS = 10  # for one who forks while we move him
CONTROLLERS = {"memory": "memory", "cpu": "cpuacct", "processes": "pids"}  # resource → its controller in v1


class Cgroups:
    """The cgroups of one run, and the way of its shim into them and back."""

    __slots__ = ("_back", "_lent", "_root", "_run_limits", "beside", "counted", "name", "stuck")

    def __init__(self, name: str, root: Group, homes: Collection[str], lent: Collection[str] | None = None) -> None:
        """`homes`: where we come from. `lent`: we moved into a leaf, and these controllers were handed down for it."""
        self.name = name
        self._lent = lent
        self.counted = root.below("counted")
        self.beside = root.below("beside")
        self.stuck = False  # we could not come back out
        self._root = root
        self._run_limits: dict[str, int] = {}
        self._back = [os.open(home + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for home in homes]

    @property
    def covers(self) -> Collection[str]:
        """Of which resources the kernel keeps count here."""
        return self._root.folders.keys()

    def hold_run(self, limits: dict[str, int]) -> None:
        """Hold all counted attempts together to these."""
        self._run_limits = {what: limits[what] for what in ("memory", "processes") if what in limits}
        self.counted.limit(self._run_limits, whole=False)

    def make(self, key: Key, *, counted: bool) -> Group:
        """A new cgroup for an attempt. OSError where it cannot be made."""
        parent = self.counted if counted else self.beside
        again = 0
        while True:
            name = f"{key[0]}#{key[1]}" + (f".{again}" if again else "")
            group = parent.below(name)
            try:
                group.make()
                return group
            except FileExistsError:  # of a shim that was killed before it could tell that this attempt began
                group.kill()
                group.remove()
                again += 1

    def enter(self, group: Group) -> bool:
        """Go in, where what we start now is born. False: we are still outside."""
        if self._run_limits:
            self.counted.lift()
        for path in group.paths:
            if put(path + "/cgroup.procs", "0"):
                self.leave()
                return False
        return True

    def leave(self) -> bool:
        """Come back. False: we could not, and nothing in there may be limited."""
        for fd in self._back:
            try:
                effects.pwrite(fd, b"0", 0)
            except OSError:
                self.stuck = True
        if self.stuck:
            return False
        if self._run_limits:
            self.counted.limit(self._run_limits, whole=False)
        return True

    def close(self) -> None:
        """Remove what is empty. Again, if somebody may live on in it, when nobody does."""
        if self._lent is not None and self.counted.remove() and self.beside.remove():
            _move_back(self._root.paths[0], self._lent)
        self._root.remove()
        for fd in self._back:
            os.close(fd)
        self._back = []


def find(folder: RunFolder) -> Cgroups | None:
    """Cgroups for a run, if we may make any: v2 if it has memory, else v1. Not all of them need cover everything."""
    own = own_folders()
    remove_all(folder)
    name = f"agentrun-{folder.run_id}"
    found = make_v2(folder, own[""], name) if "" in own else None
    return found or make_v1(folder, own, name)


def make_v2(folder: RunFolder, own: str, name: str) -> Cgroups | None:
    """In the cgroup `own`, if it can hand memory down."""
    home = own
    if inside_run := os.path.basename(own) == "shim" and os.path.basename(os.path.dirname(own)).startswith("agentrun-"):
        own = os.path.dirname(os.path.dirname(own))  # where the run that started us as a step of its own made room
    offered = procs.read(own + "/cgroup.controllers").split()
    wanted = [one for one in ("memory", "pids") if one.encode() in offered]
    root = f"{own}/{name}"
    lent = wanted if home == root + "/shim" else None  # room that an earlier shim of this run made
    if "memory" not in wanted or not os.access(own + "/cgroup.subtree_control", os.W_OK):
        return None
    try:
        _note(folder, [root])
        make(root)
        if not inside_run and os.path.exists(own + "/cgroup.type"):  # the root of all has none, and may hold processes
            home = root + "/shim"
            lent = wanted
            if not _vacate(own, home):
                remove(root)
                return None
        for path in (own, root, root + "/counted", root + "/beside"):
            make(path)
            if put(path + "/cgroup.subtree_control", " ".join("+" + one for one in wanted)):
                raise OSError(errno.EBUSY, "controllers cannot be handed down")
        resources = {"memory": root, "cpu": root} | ({"processes": root} if "pids" in wanted else {})
        return Cgroups("cgroup v2", GroupV2(resources), [home], lent)
    except OSError:
        put(home + "/cgroup.procs" if inside_run else own + "/cgroup.procs", "0")
        if lent is not None:
            _move_back(root, lent)
        remove(root)
        return None


def _vacate(own: str, home: str) -> bool:
    """Move the supervisor and ourselves into a leaf; False if somebody else stands there too."""
    ours = {os.getpid(), os.getppid()}
    standing = set(pids_in(own))
    if standing - ours:
        return False
    make(home)
    refused = [pid for pid in standing if put(home + "/cgroup.procs", str(pid))]
    return not refused


def _move_back(root: str, lent: Collection[str]) -> None:
    """Undo `_vacate` where nothing but the leaf is left, for it cannot go before who stands in it.

    Another run that was given controllers by the same cgroup keeps us from it: then the leaf stays.
    """
    own, leaf = os.path.dirname(root), root + "/shim"
    for path in (root, own):  # what hands controllers down may hold no process
        if put(path + "/cgroup.subtree_control", " ".join("-" + one for one in lent)):
            return
    for _ in range(_ROUNDS):
        standing = pids_in(leaf)
        if not [pid for pid in standing if put(own + "/cgroup.procs", str(pid)) == 0]:
            break


def make_v1(folder: RunFolder, own: dict[str, str], name: str) -> Cgroups | None:
    """In our own cgroup of each hierarchy in which we may make one. None if it is none."""
    roots = {what: f"{own[one]}/{name}" for what, one in CONTROLLERS.items() if one in own}
    roots = {what: root for what, root in roots.items() if os.access(os.path.dirname(root), os.W_OK)}
    made: dict[str, str] = {}
    try:
        _note(folder, list(dict.fromkeys(roots.values())))
    except OSError:
        return None
    for what, root in roots.items():
        try:
            for path in (root, root + "/counted", root + "/beside"):
                make(path)
                flat = what == "memory" and procs.read(path + "/memory.use_hierarchy").strip() == b"0"
                if flat and put(path + "/memory.use_hierarchy", "1"):
                    raise OSError(errno.EINVAL, "it would not count what is below it")
            if not os.access(os.path.dirname(root) + "/cgroup.procs", os.W_OK):
                raise OSError(errno.EACCES, "there is no way back from it")
            made[what] = root
        except OSError:
            remove(root)
    if not made:
        return None
    return Cgroups("cgroup v1", GroupV1(made), list(dict.fromkeys(map(os.path.dirname, made.values()))))


def own_folders(pid: int | None = None) -> dict[str, str]:
    """Controller → the folder of the cgroup that a process (this one) is in; "" is v2. Only what is mounted here."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in os.fsdecode(procs.read("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] == "cgroup2":
            mounts.setdefault("", (fields[3], fields[4]))
        elif kind[0] == "cgroup":
            for controller in kind[2].split(","):
                mounts.setdefault(controller, (fields[3], fields[4]))
    found = {}
    for line in os.fsdecode(procs.read(f"/proc/{pid or 'self'}/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                top, mount = mounts[controller]
                inner = path.removeprefix(top) if top != "/" else path
                found[controller] = (mount + "/" + inner.strip("/")).rstrip("/")
    return found


# ---- what a killed shim left


def key_of(text: bytes, run_id: str) -> Key | None:
    """The attempt of a run that a text of /proc/<pid>/cgroup names."""
    for line in os.fsdecode(text).splitlines():
        _, found, rest = line.partition(f"/agentrun-{run_id}/")
        part, _, name = rest.partition("/")
        if found and part in ("counted", "beside"):
            return _key(name.partition("/")[0])
    return None


def _key(name: str) -> Key:
    instance, _, number = name.rpartition("#")
    number = number.partition(".")[0]
    return (instance, int(number)) if number.isdigit() else ("", -1)


def members(folder: RunFolder) -> dict[int, Key]:
    """Who is in the cgroups of a run, and in which attempt's."""
    found = {}
    for path in _noted(folder):
        for part in ("counted", "beside"):
            for one in below(f"{path}/{part}"):
                for pid in pids_in(one):
                    if key := key_of(procs.read(f"/proc/{pid}/cgroup"), folder.run_id):
                        found[pid] = key
    return found


def bar(folder: RunFolder, keep: Collection[Key]) -> None:
    """Let nobody in a run's cgroups fork any more, those of the attempts `keep` excepted."""
    for path in _noted(folder):
        for part in ("counted", "beside"):
            for name in inner(f"{path}/{part}"):
                if _key(name) not in keep:
                    put(f"{path}/{part}/{name}/pids.max", "0")


def remove_all(folder: RunFolder) -> None:
    """Remove a run's cgroups, but for those in which somebody lives."""
    for path in _noted(folder):
        remove(path)


def _note(folder: RunFolder, paths: list[str]) -> None:
    known = _noted(folder)
    text = "".join(path + "\n" for path in paths if path not in known)
    if text:
        fd = effects.create(_notes(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            effects.write(fd, os.fsencode(text))
        finally:
            os.close(fd)


def _noted(folder: RunFolder) -> list[str]:
    lines = os.fsdecode(procs.read(_notes(folder))).splitlines()
    return [line for line in lines if line.endswith(f"/agentrun-{folder.run_id}")]


def _notes(folder: RunFolder) -> str:
    return folder.path + "/cgroups"
