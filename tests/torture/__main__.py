"""Torture: kill, fill, cut, flood and confuse agentrun, and see whether it keeps its promises.

    python -m tests.torture [FAMILY …] [--seed N] [--minutes N] [--scale ci|normal|full] [--at-once N]

Prints a table: family, cases, faults injected, violations. Any violation is a bug; exit status 1. `--minutes` is for
each family. `planted` plants bugs into a copy of the program, one at a time, and wants each to be seen.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import TimeoutExpired

from .place import Stuck
from .tally import ROOT, Tally, Wanted

FAMILIES = (
    "points", "syscalls", "kills", "escapees", "signals", "disk", "power", "reboot", "races", "damage", "crowd",
    "logs", "clock", "changed", "planted",
)  # fmt: skip
MOST = 20  # violations that are printed of a family


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.split("\n")[0])
    parser.add_argument("family", nargs="*", choices=[[], *FAMILIES], metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=0, help="0")
    parser.add_argument("--minutes", type=float, help="begin no new case of a family after so long")
    parser.add_argument("--scale", choices=("ci", "normal", "full"), default="normal", help="normal")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="families beside each other; 1")
    parser.add_argument("--package", type=Path, default=ROOT, help="the folder with the program under test")
    wanted = parser.parse_args()
    head = f"{'family':<10} {'cases':>7} {'faults':>8} {'violations':>11} {'seconds':>8}"
    print(f"{head}  seed {wanted.seed}, {wanted.scale}", flush=True)
    with ThreadPoolExecutor(wanted.at_once) as pool:
        failed = sum(pool.map(lambda name: torture(name, wanted), wanted.family or FAMILIES))
    return 1 if failed else 0


def torture(name: str, wanted: argparse.Namespace) -> int:
    """One family, and its line of the table. How many violations there were."""
    begun = time.monotonic()
    how = Wanted(seed=wanted.seed, scale=wanted.scale, minutes=wanted.minutes, package=wanted.package.resolve())
    try:
        tally: Tally = importlib.import_module(f".{name}", __package__).torture(how)
    except (Stuck, TimeoutExpired) as hanging:
        tally = Tally(name, violations=[f"something does not end: {hanging}"])
    except Exception:  # the other families go on, and this one has failed
        tally = Tally(name, violations=[f"the test itself is broken: {traceback.format_exc()}"])
    seconds = time.monotonic() - begun
    row = f"{name:<10} {tally.cases:>7,} {tally.faults:>8,} {len(tally.violations):>11,} {seconds:>8.0f}"
    lines = [f"{row}  {'; '.join(tally.notes)}", *(f"    {violation}" for violation in tally.violations[:MOST])]
    if len(tally.violations) > MOST:
        lines.append(f"    and {len(tally.violations) - MOST} more")
    print("\n".join(lines), flush=True)
    return len(tally.violations)


if __name__ == "__main__":
    sys.exit(main())
