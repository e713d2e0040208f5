"""What a family of torture reports, and how much of it is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Tally:
    """One line of the table. `faults`: what was done to it (kills, failed calls, …); `violations`: a sentence each."""

    family: str
    cases: int = 0
    faults: int = 0
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, violations: list[str], *, case: str, faults: int = 1) -> None:
        """One case is over."""
        self.cases += 1
        self.faults += faults
        self.violations += [f"{case}: {violation}" for violation in violations]


@dataclass(frozen=True)
class Wanted:
    """How much. `scale`: "ci" (each family in some 10 s), "normal" (some minutes), "full" (what the issue asks for).

    `minutes`: stop beginning new cases after so long. `package`: the folder that holds the program under test.
    """

    seed: int = 0
    scale: str = "normal"
    minutes: float | None = None
    package: Path = ROOT
    begun: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether no new case should begin."""
        return self.minutes is not None and time.monotonic() - self.begun > self.minutes * 60

    def pick(self, *, ci: int, normal: int, full: int) -> int:
        """A number by the scale."""
        return {"ci": ci, "normal": normal, "full": full}[self.scale]

    def seeds(self, number: int) -> Iterator[int]:
        """So many seeds, until the time is over."""
        for seed in range(self.seed, self.seed + number):
            if self.is_over:
                return
            yield seed
