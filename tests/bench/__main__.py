"""`python -m tests.bench [NAME ...] [--quick]`: what agentrun costs, beside its floors and the design's goals.

A program that prints a table, not a timed test: how long something takes says nothing about whether it is right.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import time

from .arena import Broken, arena
from .instances import ROWS as INSTANCES
from .rows import ROWS as COSTS
from .rows import Row
from .schedules import ROWS as SCHEDULES

ROWS = COSTS | INSTANCES | SCHEDULES


def main() -> int:
    """Measure the rows that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + " ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures little")
    parser.add_argument("--dir", metavar="FOLDER", help="the disk to measure on (default: where temporary files go)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ROWS]:
        parser.error(f"no such row: {' '.join(unknown)} (there are: {' '.join(ROWS)})")
    print(_machine())
    broken = 0
    for name in options.names or ROWS:
        began = time.perf_counter()
        try:
            with arena(options.dir) as place:
                lines = _lines(ROWS[name](place, options.quick))
        except (Broken, AssertionError, OSError) as error:
            broken += 1
            lines = [f"{name}: BROKEN: {error}"]
        print("\n".join(lines), f"   ({name}, {time.perf_counter() - began:.0f} s)", flush=True)
    return 1 if broken else 0


def _machine() -> str:
    load = os.getloadavg()[0]
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"Python {python}, SQLite {sqlite3.sqlite_version}, Linux {platform.release()}, {os.cpu_count()} processors,"
        f" load {load:.1f}"
    )


def _lines(row: Row) -> list[str]:
    verdict = "reached" if row.ratio <= 1 else "missed, but not by the best" if row.best <= 1 else "MISSED"
    spread = f"{_amount(row.results[0], row.unit)} … {_amount(row.results[-1], row.unit)}, {len(row.results)} times"
    floors = "; ".join(f"{name} {_amount(value, row.unit)}" for name, value in row.floors)
    lines = [
        f"{row.work:<52} {_amount(row.measured, row.unit):>9}   goal {_amount(row.goal, row.unit):>9}"
        f"   {row.ratio:5.2f} of it: {verdict}",
        f"    {spread}" + (f"; floors: {floors}" if floors else ""),
    ]
    return lines + ([f"    {row.note}"] if row.note else [])


def _amount(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:.1f} {unit}"


if __name__ == "__main__":
    sys.exit(main())
