"""What a step of the family `logs` runs: it writes a lot, or something nasty, and says how that went.

    python flood.py KIND BYTES RATE REPORT      RATE in bytes a second, 0 for as fast as it goes

REPORT gets as JSON: sha256 and number of the bytes, the longest write and the whole time in seconds. Standard library
only, and no import of ours: it is a program of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator

# What a terminal must never be sent: titles, clipboards, other screens, queries that it would answer by typing, text
# that is hidden, moved, recoloured or turned round; as ESC sequences, as C1 characters and as bare C1 bytes.
ATTACKS = (
    b"\x1b]0;TITLE\x07", b"\x1b]2;TITLE\x1b\\", b"\x1b]52;c;Q0xJUA==\x07", b"\x1b]8;;http://evil.example\x1b\\link",
    b"\x1b[?1049h", b"\x1b[2J", b"\x1b[37A", b"\x1b[1K", b"\x1b[97;44m", b"\x1b[8mhidden", b"\x1b[6n", b"\x1b[c",
    b"\x1b[20;3h", b"\x1bP$q\"p\x1b\\", b"\x1b_APC\x1b\\", b"\x1bc", b"\x1b(0", b"\x1b#8", b"\x0e\x0f", b"\x07\x07",
    b"real\rfake", b"real\b\b\b\bfake", b"\x0b\x0c", b"\x7f\x7f", b"\x9b97;44m", b"\x9d0;TITLE\x9c", b"\x90\x98\x9f",
    "\x9b97;44m".encode(), "\x9d0;TITLE\x9c".encode(), "\u202eedoc\u202c".encode(), "\u2066x\u2069".encode(),
    "\u2028line\u2029".encode(), b"\x00\x00", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80",
    b"\xff\xfe",
)  # fmt: skip


def blocks(kind: str, total: int) -> Iterator[bytes]:
    """The bytes of a kind, `total` of them or, for `escapes`, what there is."""
    chance = random.Random(kind)
    if kind == "escapes":
        for n, attack in enumerate(ATTACKS):
            yield b"%d before %s after\n" % (n, attack)
        yield b"the end"
        return
    whole = {
        "lines": b"".join(b"%08d what a step says in a line that is not short\n" % n for n in range(1100)),
        "line": b"abcdefghijklmnopqrstuvwxyz" * 2600,
        "nul": b"\0" * 30_000 + b"a\0b\n\0\0\n" * 4_000,
        "invalid": chance.randbytes(65_536),
        "newlines": b"\n" * 65_536,
    }[kind]
    while total > 0:
        yield whole[:total]
        total -= len(whole)


def main() -> None:
    """Write, and report."""
    kind, total, rate, report = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    seen, written, longest, begun = hashlib.sha256(), 0, 0.0, time.monotonic()
    for block in blocks(kind, total):
        view = memoryview(block)
        seen.update(block)
        while view:
            at = time.monotonic()
            count = os.write(1, view)
            longest = max(longest, time.monotonic() - at)
            view, written = view[count:], written + count
        if rate and (ahead := written / rate - (time.monotonic() - begun)) > 0:
            time.sleep(ahead)
    told = {"sha256": seen.hexdigest(), "bytes": written, "longest": longest, "seconds": time.monotonic() - begun}
    with open(f"{report}.new", "w") as file:
        json.dump(told, file)
    os.rename(f"{report}.new", report)


if __name__ == "__main__":
    main()
