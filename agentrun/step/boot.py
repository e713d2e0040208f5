"""Which boot of the machine this is: what a result of another boot says cannot be trusted to be on the disk."""

from __future__ import annotations

import os

_known = ""


def boot_id() -> str:
    """The kernel's random id of this boot, as text; empty where the kernel does not tell."""
    global _known
    if not _known:
        try:
            fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            _known = os.read(fd, 64).decode("ascii").strip()
        finally:
            os.close(fd)
    return _known
