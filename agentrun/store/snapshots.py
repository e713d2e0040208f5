"""Job files frozen: their text under its hash, and beside it what it decodes to.

Reading the YAML of 10,000 steps takes 300 ms at best; unpickling the decoded job a tenth of that. The pickle is
believed only if this very version of the program wrote it; everything else is decoded from the text again. It
is ours: a state folder that others can write to is refused (`folders.prepare`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from .. import __version__
from ..model import Job

# Another version of the program, or of the model, decodes the text again.
DECODER = f"agentrun {__version__} model 1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job file frozen: its text and what it decodes to."""

    text: str
    job: Job

    @property
    def sha256(self) -> str:
        """The name of the text."""
        import hashlib

        return hashlib.sha256(self.text.encode()).hexdigest()

    def decoded(self) -> bytes:
        """What `put` keeps beside the text."""
        import pickle

        return pickle.dumps(self.job, protocol=5)

    def put(self, cursor: sqlite3.Cursor, sha256: str, decoded: bytes) -> None:
        """Keep it, once, inside the caller's transaction."""
        cursor.execute(
            "INSERT INTO snapshots (sha256, text, decoder, decoded) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sha256) DO UPDATE SET decoder = excluded.decoder, decoded = excluded.decoded"
            " WHERE decoder <> excluded.decoder",
            (sha256, self.text, DECODER, decoded),
        )

    @staticmethod
    def job_in(text: str, decoder: str, decoded: bytes, path: str) -> Job:
        """The job in a row of `snapshots`; `path` is what its problems would be reported under."""
        if decoder == DECODER:
            import pickle

            job = pickle.loads(decoded)
            assert isinstance(job, Job)
            return job
        from ..spec.decode import decode

        return decode(text, path)
