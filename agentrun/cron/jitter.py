"""How long a scheduled start waits where its job has a `jitter`: always the same for one machine and job.

What many machines start at the same minute then comes spread over the jitter, and each of them at its own time.
"""

from __future__ import annotations

import os

from ..digest import sha256_hex

_MACHINE = "/etc/machine-id"


def offset(job: str, host: str, jitter: int) -> int:
    """Ms from the tick to the start: at least 0, less than `jitter`."""
    return int(sha256_hex(f"{host}\0{job}".encode())[:16], 16) % jitter if jitter > 0 else 0


def here() -> str:
    """What tells this machine from others and outlives a reboot: its machine-id, else its name."""
    try:
        with open(_MACHINE, encoding="ascii", errors="replace") as file:
            return file.read().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename
