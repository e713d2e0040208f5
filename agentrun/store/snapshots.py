"""Job files frozen: the text under its hash, and beside it what it decodes to.

Reading the YAML of 10,000 steps takes 300 ms at best; unpickling the decoded job a tenth of that. The pickle is
believed only if this very version of the program wrote it; everything else is decoded from the text again. It
is ours: a state folder that others can write to is refused (`folders.prepare`).
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

try:
    from _pickle import dumps, loads  # what `pickle` takes them from: without its Python half, 0.3 MiB for each run
except ImportError:  # another Python
    from pickle import dumps, loads

from .. import __version__
from ..digest import sha256_hex

if TYPE_CHECKING:
    from ..model import Job

# Another version of the program, or of the model, decodes the text again.
DECODER = f"agentrun {__version__} model 5"


def sha256(stem: str, text: str) -> str:
    """The key of a snapshot: equal texts under other names may be other jobs."""
    return sha256_hex(f"{stem}\n{text}".encode())


def stem_of(path: str) -> str:
    """`quotes` for `/opt/quotes.yaml`."""
    return os.path.splitext(os.path.basename(path))[0]


def script_mark(data: bytes) -> str:
    """What stands in the first comment of a job that was made of a script to be run at once."""
    return f"sha256 of the script: {sha256_hex(data)}"


def is_of(text: str, data: bytes) -> bool:
    """Whether a run with this text is one of the file with these bytes: a job file, or a script."""
    return text.encode(errors="surrogateescape") == data or text.startswith(f"# {script_mark(data)}\n")


class Snapshot(NamedTuple):
    """A job file frozen: its text, what it decodes to, and the file's stem, which may be the job's name."""

    text: str
    job: Job
    stem: str = ""

    @property
    def sha256(self) -> str:
        """What it is known by."""
        return sha256(self.stem, self.text)

    def decoded(self) -> bytes:
        """What `put` keeps beside the text."""
        return dumps(self.job, protocol=5)

    def put(self, cursor: sqlite3.Cursor, sha256: str, decoded: bytes) -> None:
        """Keep it, once, inside the caller's transaction."""
        cursor.execute(
            "INSERT INTO snapshots (sha256, text, decoder, decoded) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sha256) DO UPDATE SET decoder = excluded.decoder, decoded = excluded.decoded"
            " WHERE decoder <> excluded.decoder",
            (sha256, self.text, DECODER, decoded),
        )

    @classmethod
    def known(cls, connection: sqlite3.Connection, stem: str, text: str) -> Snapshot | None:
        """The snapshot of a file that has been run before, without reading its YAML again."""
        row = connection.execute(
            "SELECT decoded FROM snapshots WHERE sha256 = ? AND decoder = ?", (sha256(stem, text), DECODER)
        ).fetchone()
        return None if row is None else cls(text, cls.job_in(text, DECODER, row[0], stem), stem)

    @staticmethod
    def job_in(text: str, decoder: str, decoded: bytes, path: str) -> Job:
        """The job in a row of `snapshots`; `path` is what its problems would be reported under."""
        if decoder == DECODER:
            try:
                job: Job = loads(decoded)
                return job
            except Exception:  # whatever bytes may do that nobody wrote: the text has it too
                pass
        from ..spec.decode import decode

        return decode(text, path)
