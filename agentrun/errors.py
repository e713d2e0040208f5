"""Everything that agentrun refuses, as one tree; `cli` turns it into words and an exit status in one place.

    AgentrunError                     exit status
    ├── UsageError                    2    the command line asks for something that makes no sense
    ├── JobFileError                  65   the job file is wrong; carries every Problem found
    ├── NotFound                      66   a file or a run that is not there
    ├── Missing                       69   something that is needed is not installed or not reachable
    ├── CannotWrite                   73   a file or folder that cannot be written or is not safe to use
    ├── StoreError                    74   the database: damaged, newer than us, full, locked too long
    │   └── Overtaken                 75   a guarded write changed no row: somebody else owns the run now
    └── Busy                          75   not now, and nothing is wrong: somebody else advances it

A message says what, where and what to do, in one or two sentences. The numbers are those of sysexits.h.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would cost the shim, which loads this module, 1.7 MiB
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from .model import Problem


class AgentrunError(Exception):
    """What a user can act on. `hint` is what to do, where the message itself does not say."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AgentrunError):
    exit_code = 2


class JobFileError(AgentrunError):
    exit_code = 65

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{p.path}:{p.line}:{p.column}: {p.message}" for p in problems))
        self.problems = tuple(problems)


class NotFound(AgentrunError):
    exit_code = 66


class Missing(AgentrunError):
    exit_code = 69


class CannotWrite(AgentrunError):
    exit_code = 73


class StoreError(AgentrunError):
    exit_code = 74


class Overtaken(StoreError):
    exit_code = 75


class Busy(AgentrunError):
    exit_code = 75
