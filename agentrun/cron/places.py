"""Where an installation goes: this user's crontab, through the `crontab` command alone, and the folders of units.

A crontab is changed by reading it, making the new text, reading it again, and writing only if it is still the same;
what is written is read back. All under a lock, so that two installations queue; for somebody's `crontab -e` at the
same time there is none, and the second look is what there is. A copy of the old text is made first, in backups/ of the
state folder.

`crontab -l` of Debian shows a carriage return as `\\r`, and a backspace as `\\b`. Where its answer has one of these,
the true text is what `crontab -e` hands to an editor, here one that only copies it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ..errors import Busy, CannotWrite, Missing
from ..store.backups import folder as backup_folder
from ..store.backups import sync_folder

KEPT = 10  # copies of crontabs
_PATIENCE = 20.0  # seconds for one call of another program
_QUEUE = 60.0     # seconds for another installation
_TRIES = 5        # against somebody who changes the crontab at the same time
_SHOWN_ESCAPED = (b"\\r", b"\\b")


def has_crontab() -> bool:
    """Whether this machine has the command."""
    return shutil.which("crontab") is not None


def read_crontab() -> bytes | None:
    """This user's crontab, to the byte; None if there is none. Raises Missing."""
    if not has_crontab():
        raise Missing(
            "there is no `crontab` command on the PATH",
            "install cron (Debian: the package cron), or install with --systemd",
        )
    status, out, said = _call(["crontab", "-l"])
    if status is None:
        raise Missing(f"the crontab cannot be read: `crontab -l` gave no answer within {_PATIENCE:g} s")
    if status:
        if "no crontab" in said.lower() or ("can't open" in said and "No such file" in said):  # the latter: busybox
            return None
        raise Missing(
            f"the crontab cannot be read: `crontab -l` says {said or f'nothing, with status {status}'}",
            "cron.allow and cron.deny say who may have a crontab; --systemd needs none"
            if "not allowed" in said
            else "look why: crontab -l",
        )
    escaped = any(one in out for one in _SHOWN_ESCAPED) and not any(byte in out for byte in (b"\r", b"\b"))
    return _read_exactly(out) if escaped else out


def _read_exactly(shown: bytes) -> bytes:
    """The text behind what `crontab -l` shows, as an editor is given it. Raises Missing."""
    with tempfile.TemporaryDirectory(prefix="agentrun-") as place:
        script = os.path.join(place, "copy")
        with open(script, "w") as file:
            file.write('exec cat -- "$1" >"${0%/*}/seen"\n')
        editor = f"/bin/sh {shlex.quote(script)}"  # the folder may be one that executes nothing
        status, _, said = _call(["crontab", "-e"], EDITOR=editor, VISUAL=editor)
        seen = b""
        with suppress(FileNotFoundError), open(os.path.join(place, "seen"), "rb") as copy:
            seen = copy.read()
    if shown not in (seen, seen.replace(b"\r", b"\\r").replace(b"\b", b"\\b")):
        raise Missing(
            "the crontab cannot be read to the byte: `crontab -l` shows backslashes that may stand for control"
            f" characters, and `crontab -e` did not show what they are ({said or f'status {status}'})",
            "take \\r and \\b out of it with `crontab -e`",
        )
    return seen


def change_crontab(root: str, make: Callable[[bytes | None], bytes | None]) -> bool:
    """Make the crontab what `make` makes of it; False if that is what it is. Raises Missing, CannotWrite, Busy.

    `root`: the state folder, for the backup.
    """
    with _alone(root):
        for _ in range(_TRIES):
            old = read_crontab()
            new = make(old)
            if new == old:
                return False
            if old is not None:
                _back_up(root, old)
            if read_crontab() == old:
                _write(old, new)
                return True
    raise Busy(
        "the crontab was changed by somebody else each time that it was about to be written; nothing was changed",
        "try again",
    )


def _write(old: bytes | None, new: bytes | None) -> None:
    if new is None:
        status, _, said = _call(["crontab", "-r"])
    else:
        status, _, said = _call(["crontab", "-"], new)
    if status:
        raise CannotWrite(
            f"the crontab cannot be written: `crontab` says {said or f'nothing, with status {status}'}",
            "cron.allow and cron.deny say who may have a crontab; --systemd needs none"
            if "not allowed" in said
            else "nothing in it was changed; look why: crontab -e",
        )
    seen = read_crontab()
    if seen == new:
        return
    late = f"`crontab` gave no answer within {_PATIENCE:g} s" if status is None else "somebody else wrote it just now"
    if seen == old:
        raise CannotWrite(f"the crontab is as it was: {late}", "try again")
    if status is None:
        raise CannotWrite(
            f"the crontab is neither as it was nor as it should be: {late}",
            "look at it with `crontab -l`; the text from before is in backups/ of the state folder",
        )
    raise CannotWrite(f"the crontab is not what was written: {late}", "look at it with `crontab -l`, and try again")


def _back_up(root: str, text: bytes) -> None:
    """Keep the text from before, if it is not what was kept last. Raises CannotWrite."""
    place = backup_folder(root)
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        kept = sorted(name for name in os.listdir(place) if name.startswith("crontab-") and name.endswith("Z"))
        if kept:
            with open(os.path.join(place, kept[-1]), "rb") as file:
                if file.read() == text:
                    return
        now = time.time()
        name = time.strftime("crontab-%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        put(os.path.join(place, name), text, 0o600)
        for old in kept[: max(len(kept) + 1 - KEPT, 0)]:
            os.unlink(os.path.join(place, old))
    except OSError as error:
        raise CannotWrite(
            f"no copy of the crontab can be kept in {place}: {error.strerror}; nothing was changed",
            "make that folder writable for you",
        ) from None


def put(path: str, text: bytes, mode: int) -> None:
    """Make a file, whole or not at all, and durable."""
    place = os.path.dirname(path)
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        file.write(text)
        os.fchmod(fd, mode)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)
    sync_folder(place)


@contextmanager
def _alone(root: str) -> Iterator[None]:
    """One installation of a user at a time, whatever their state folders: the lock is on the home folder itself."""
    home = os.path.expanduser("~")
    fd = os.open(home if os.path.isdir(home) else root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + _QUEUE
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Busy(f"another process has held {home} locked for {_QUEUE:g} s", "try again") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _call(words: Sequence[str], given: bytes = b"", **environ: str) -> tuple[int | None, bytes, str]:
    """Status, output and complaint of another program; None as the status of one that gave no answer in time."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Debian's would show three lines of its own otherwise, where a user has asked it to
        env={**os.environ, "LC_ALL": "C", "CRONTAB_NOHEADER": "Y", **environ},
        start_new_session=True,
    )
    try:
        out, said = process.communicate(given, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a child of its own may hold the pipe
            process.communicate(timeout=1)
        return None, b"", ""
    return process.returncode, out, os.fsdecode(said).strip()
