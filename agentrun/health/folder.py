"""The state folder: whose it is, who else can read it, on what it lies, and whether the kernel does its part there.

What is tried is tried with files of our own in the state folder, which are gone afterwards. A folder that is not there
yet is no fault: the first run makes it, so only where it would be made is looked at.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable

from ..store import database, locks
from .finding import Finding, bad, good, size, some
from .site import Site

_ROOM = 100 << 20  # bytes: logs of some runs beside what the database itself may need
_INODES = 1000  # a run makes some ten files, and two for each attempt
_SHARE = 0.02  # of all inodes
_NETWORK = {
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "orangefs", "pvfs2", "coda", "ocfs2", "gfs2", "vboxsf", "vmhgfs", "prl_fs", "virtiofs", "davfs",
}  # fmt: skip
_LOCAL_FUSE = {"fuseblk", "fuse.fuse-overlayfs", "fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.gocryptfs"}
_PASSING = ("/tmp", "/run", "/dev/shm", "/var/run")  # whoever puts it there knows how long it lasts
_ELSEWHERE = "set AGENTRUN_HOME to a folder on a local disk"
_NOT_YET = "not tried: the first run makes the state folder"


def state_folder(site: Site) -> Finding:
    """It is there or can be made, it is ours, and nobody else can write into it."""
    explicit = site.environ.get("AGENTRUN_HOME")
    if explicit and not os.path.isabs(os.path.expanduser(explicit)):
        return bad(
            f"AGENTRUN_HOME is {explicit}, which is another folder from each place that agentrun is called from",
            f"set it to an absolute path, such as {site.root}",
        )
    if not site.is_there:
        above = site.standing
        if not os.path.isdir(above):
            return bad(f"{site.root} cannot be made: {above} is no folder", "set AGENTRUN_HOME to another folder")
        if not os.access(above, os.W_OK | os.X_OK):
            return bad(
                f"{site.root} is not there, and cannot be made in {above}",
                f"make it as root and give it to {_user(os.geteuid())}, or set AGENTRUN_HOME to a folder of your own",
            )
        return good(f"{site.root} is not there yet: the first run makes it")
    info = os.stat(site.root)
    if not stat.S_ISDIR(info.st_mode):
        return bad(f"{site.root} is no folder", "move it away, or set AGENTRUN_HOME to another folder")
    if info.st_uid != os.geteuid():
        return bad(
            f"{site.root} belongs to {_user(info.st_uid)}, and you are {_user(os.geteuid())}",
            f"run agentrun as {_user(info.st_uid)}, or set AGENTRUN_HOME to a folder of your own",
        )
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        who = "be changed" if mode & 0o022 else "be looked into"
        return bad(f"{site.root} can {who} by others (mode {mode:04o})", f"chmod go-rwx {site.root}")
    if mode & 0o700 != 0o700:
        return bad(f"{site.root} cannot be used by its owner (mode {mode:04o})", f"chmod u+rwx {site.root}")
    return good(f"{site.root}, yours alone (mode {mode:04o})")


def state_files(site: Site) -> Finding:
    """The database, its lock and what runs were started with are ours, and nobody else can read them."""
    if not site.is_there:
        return good("none yet")
    open_ones, strange = [], []
    count = 0
    for path in _files(site.root):
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            continue  # a run may go, and the -wal with its last reader
        count += 1
        if info.st_uid != os.geteuid():
            strange.append(f"{path} ({_user(info.st_uid)})")
        elif info.st_mode & 0o077 and not stat.S_ISLNK(info.st_mode):
            open_ones.append(f"{path} ({stat.S_IMODE(info.st_mode):04o})")
    if strange:
        return bad(
            f"not yours: {some(strange, 3)}",
            f"if they should be: chown -R {_user(os.geteuid())} {site.root}; agentrun is always run as one user",
        )
    if open_ones:
        return bad(f"others may have access to {some(open_ones, 3)}", f"chmod -R go-rwx {site.root}")
    return good(f"{count} looked at, all of them yours alone")


def _files(root: str) -> list[str]:
    names = [name for name in os.listdir(root) if name.startswith("agentrun.") or name in ("runs", "backups", "jobs")]
    found = [os.path.join(root, name) for name in names]
    runs = os.path.join(root, "runs")
    if os.path.isdir(runs):
        for name in sorted(os.listdir(runs), reverse=True)[:200]:  # the latest
            folder = os.path.join(runs, name)
            found += [folder, *(os.path.join(folder, part) for part in ("lock", "results", "env.json"))]
    return found


def file_system(site: Site) -> Finding:
    """Local, writable, and still there after a reboot."""
    place = os.path.realpath(site.standing)
    kind, mount = mounted(place)
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return bad(
            f"{mount} ({kind}) is mounted read-only: runs cannot be recorded, `status` and `logs` still work",
            f"mount -o remount,rw {mount} (look into dmesg for why it is so), or {_ELSEWHERE}",
        )
    return judge(kind, mount, site.root)


def judge(kind: str, mount: str, root: str) -> Finding:
    """Whether a file system of that kind will do for a state folder."""
    if kind in _NETWORK:
        return bad(f"{mount} is {kind}, shared with other machines: its locks are not to be trusted", _ELSEWHERE)
    if kind.startswith("fuse") and kind not in _LOCAL_FUSE:
        return bad(f"{mount} is {kind}: whether its locks hold is up to that program", _ELSEWHERE)
    if kind in ("tmpfs", "ramfs"):
        if (root + "/").startswith(tuple(f"{folder}/" for folder in _PASSING)):
            return good(f"{kind}, mounted on {mount}: all records are lost at a reboot, as you will know")
        return bad(
            f"{mount} is {kind}: after a reboot no run would be resumed, for all records are gone",
            "set AGENTRUN_HOME to a folder on a disk",
        )
    passing = "; it goes when the container goes, unless a volume is mounted there" if kind == "overlay" else ""
    return good(f"{kind}, mounted on {mount}: its locks are the kernel's own{passing}")


def mounted(path: str, table: str | None = None) -> tuple[str, str]:
    """(file system, mount point) of a path without symbolic links; `table` is the text of /proc/self/mountinfo."""
    if table is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    best = ("unknown", "/")
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.partition(" ")[0]
        if len(fields) < 5:
            continue
        point = _plain(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[1]):  # of those on one point, the last hides the others
            best = (kind, point)
    return best


def _plain(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def disk_space(site: Site) -> Finding:
    """Room for what the database needs to work and to be copied, and for logs."""
    info = os.statvfs(site.standing)
    free, whole = info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize
    try:
        used = os.path.getsize(database.path(site.root))
    except OSError:
        used = 0
    wanted = _ROOM + 2 * used
    said = f"{size(free)} of {size(whole)} free where {site.standing} lies (statvfs)"
    if free < wanted:
        return bad(
            f"{said}; {size(wanted)} are wanted: twice the database, for its -wal and a backup, and 100 MiB for logs",
            f"free space there, or {_ELSEWHERE}: nothing that was recorded is lost when it is full, but runs stop",
        )
    return good(said)


def inodes(site: Site) -> Finding:
    """Room for more files."""
    info = os.statvfs(site.standing)
    if not info.f_files:
        return good("the file system makes them as they are needed")
    said = f"{info.f_favail} of {info.f_files} inodes free where {site.standing} lies (statvfs)"
    if info.f_favail < _INODES or info.f_favail < min(_SHARE * info.f_files, 10 * _INODES):
        return bad(said, f"remove files there that nobody needs (many small ones), or {_ELSEWHERE}")
    return good(said)


def file_locks(site: Site) -> Finding:
    """Both kinds of locks that agentrun stands on: they exclude, they are seen, and they go with who held them."""
    if not site.is_there:
        return good(_NOT_YET)

    def try_all(folder: str) -> str:
        path = os.path.join(folder, "lock")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for name, take in (("OFD lock", _take_byte), ("flock", _take_all)):
            with _Holder(path, take) as holder:
                if not holder.has_it:
                    return f"a process cannot take it: {name}"
                if _free(path, take):
                    return f"two processes had the same {name}"
                if take is _take_byte and not locks.held(path, 0):
                    return "nobody is seen to hold an OFD lock that is held"
            if not _free(path, take):
                return f"the {name} of a process that has ended is still held"
        return ""

    wrong, remedy = _inside(site.root, try_all)
    if wrong:
        return bad(wrong, remedy)
    return good("OFD locks and flock exclude, are seen, and are let go by the death of their holder")


def _take_byte(fd: int) -> bool:
    return locks.try_lock(fd, 0)


def _take_all(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free(path: str, take: Callable[[int], bool]) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return take(fd)
    finally:
        os.close(fd)


class _Holder:
    """A child that takes a lock and keeps it until it is killed, or its parent is."""

    def __init__(self, path: str, take: Callable[[int], bool]) -> None:
        answer, answering = os.pipe()
        waiting, self._keeping = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.close(self._keeping)
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                os.write(answering, b"1" if take(fd) else b"0")
                os.read(waiting, 1)  # ends when nobody holds the other end any more
            finally:
                os._exit(1)
        os.close(answering)
        os.close(waiting)
        self.has_it = os.read(answer, 1) == b"1"
        os.close(answer)

    def __enter__(self) -> _Holder:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._keeping)


def sockets_and_pipes(site: Site) -> Finding:
    """A named pipe for what steps write, and a socket for their shim, by a path that may be longer than a socket's."""
    if not site.is_there:
        return good(_NOT_YET)

    def try_all(folder: str) -> str:
        os.mkfifo(os.path.join(folder, "pipe"), 0o600)
        both = os.open(os.path.join(folder, "pipe"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.write(both, b"!")
            if os.read(both, 1) != b"!":
                return "a named pipe does not give what was written into it"
            with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as calling:
                listening.bind(f"/proc/self/fd/{handle}/s")
                listening.listen(1)
                calling.connect(f"/proc/self/fd/{handle}/s")
        finally:
            os.close(both)
            os.close(handle)
        return ""

    wrong, remedy = _inside(site.root, try_all)
    if wrong:
        return bad(wrong, remedy)
    return good("both can be made in the state folder, however long its path is")


def _inside(root: str, attempt: Callable[[str], str]) -> tuple[str, str]:
    """What is wrong with what is tried in a folder of its own in the state folder, and the remedy; empty if nothing."""
    try:
        folder = tempfile.mkdtemp(prefix=".doctor-", dir=root)
    except OSError as error:
        first = "first do what is said at `state_folder`, `file_system`, `disk_space` and `inodes`"
        return f"cannot be tried in {root}: {error.strerror or error}", first
    try:
        wrong = attempt(folder)
    except OSError as error:
        wrong = f"tried in {root}: {error.strerror or error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return wrong, f"the file system does not do what agentrun stands on: {_ELSEWHERE}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
