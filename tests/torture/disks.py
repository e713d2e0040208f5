"""Disks that can be made full, read-only, or dead: a small tmpfs, and an ext4 in a file by a loop device.

Only root can mount. Each disk belongs to a place, whose processes are ended before the disk goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .place import LIMIT, Place, Stuck

PAGE = 4096
_EXT4_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), of XFS first
_NO_LOG_FLUSH = 2            # what the journal has not on the disk yet is lost, as is all that was not written back
NEEDS = "skipped: needs root, who may mount"
NEEDS_LOOP = "skipped: needs root, loop devices and mkfs.ext4"


class Small:
    """A tmpfs of so many pages."""

    def __init__(self, folder: Path, pages: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={pages * PAGE},mode=0700", "torture", str(folder))

    @property
    def left(self) -> int:
        """Pages that are free."""
        return os.statvfs(self.folder).f_bfree

    def fill(self, left: int) -> None:
        """Until so many pages are left. Others may write meanwhile."""
        with open(self.folder / ".ballast", "ab", buffering=0) as file:
            while (more := self.left - left) > 0:
                try:
                    file.write(b"x" * (PAGE * more))
                except OSError:
                    return

    def free(self) -> None:
        """Take the ballast away."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / ".ballast").unlink()

    def close(self) -> None:
        """Away with it, also while somebody has files open there."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)


class Loop:
    """An ext4 of so many MiB in a file."""

    def __init__(self, folder: Path, mib: int, options: str = "") -> None:
        self.folder, self._options = folder, options
        self.image = folder.with_suffix(".img")
        folder.mkdir(mode=0o700, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(mib << 20)
        # no lazy work of the kernel's in the background; a read-only file system after an error, as Debian has it
        extended = "lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-F", "-e", "remount-ro", "-E", extended, str(self.image))
        self.mount()

    def mount(self, *options: str) -> None:
        """The journal is replayed."""
        every = ",".join(["loop", *options, *filter(None, [self._options])])
        _run("mount", "-o", every, str(self.image), str(self.folder))

    def unmount(self) -> None:
        """Until the kernel has let go of it: another mount namespace may have it too, for as long as that lives."""
        _run("umount", str(self.folder))
        until = time.monotonic() + LIMIT
        while subprocess.run(["losetup", "-j", str(self.image)], capture_output=True, check=True).stdout:
            if time.monotonic() > until:
                raise Stuck(f"{self.image} is still mounted in some namespace")
            select.select([], [], [], 0.01)

    def cut(self) -> None:
        """From now on nothing reaches the disk, nor does what was on its way."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def fail(self) -> None:
        """The kernel finds an error of the file system, and makes it read-only under whoever writes."""
        device = os.stat(self.folder).st_dev
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("torture\n")

    def repair(self) -> list[str]:
        """Check it with all the kernel's and e2fsck's knowledge; what is wrong beyond the marks of `fail`."""
        done = subprocess.run(["e2fsck", "-fp", str(self.image)], capture_output=True, text=True, check=False)
        return [] if done.returncode in (0, 1) else [f"e2fsck: {done.stdout[-300:]}"]

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        self.image.unlink(missing_ok=True)


@contextlib.contextmanager
def small(place: Place, folder: Path, pages: int) -> Iterator[Small]:
    """A tmpfs there, until the end."""
    disk = Small(folder, pages)
    try:
        yield disk
    finally:
        place.kill_all()
        disk.close()


@contextlib.contextmanager
def loop(place: Place, mib: int, options: str = "") -> Iterator[Loop]:
    """An ext4 for the state folder of the place, until the end."""
    disk = Loop(place.root / "disk", mib, options)
    try:
        move_home(place, disk.folder)
        yield disk
    finally:
        place.kill_all()
        disk.close()


def move_home(place: Place, folder: Path) -> None:
    """The state folder is there from now on."""
    place.home = folder / "home"
    place.env["AGENTRUN_HOME"] = str(place.home)


@functools.cache
def can_mount() -> bool:
    """Whether a tmpfs can be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            Small(Path(folder) / "disk", 1).close()
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


@functools.cache
def can_loop() -> bool:
    """Whether an ext4 can be made, mounted and cut off."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = Loop(Path(folder) / "disk", 8)
        except (OSError, subprocess.CalledProcessError):
            return False
        try:
            disk.cut()
        except OSError:
            return False
        finally:
            disk.close()
        return True


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
