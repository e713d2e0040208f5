"""`python -m tests.cronlife month|real [options]`: every tick is accounted for, under a moved clock and a real cron.

    month [--days N] [--every MINUTES] [--seed N] [--begin TIME] [--minutes N] [--package FOLDER]
    real [--minutes N]
    planted

`month` plays cron, with trouble by a seed (month.py); `real` starts Debian's cron, and kills everything in the middle
(real.py). Both are judged from outside (judge.py); `planted` plants bugs into copies of the program, each of which a
month must see (planted.py). Prints what was done and what is wrong; the exit status is 1 if
anything is.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ..torture.tally import ROOT
from . import month, planted, real
from .machine import Machine
from .moved import library


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cronlife", description=__doc__.split("\n")[0])
    which = parser.add_subparsers(dest="which", required=True)
    of_month = which.add_parser("month", help="cron is played, under a moved clock")
    of_month.add_argument("--days", type=float, default=0.75, help="0.75; a month is 31")
    of_month.add_argument("--every", type=int, default=120, help="minutes between ticks of the densest job; 120")
    of_month.add_argument("--seed", type=int, default=0, help="0")
    of_month.add_argument("--begin", default="2025-10-25T12:00", help="2025-10-25T12:00, before a change in Berlin")
    of_month.add_argument("--minutes", type=float, help="end after so many real ones, wherever that is")
    of_month.add_argument("--folder", type=Path, help="where the machine's files are")
    of_month.add_argument("--package", type=Path, default=ROOT, help="the folder with the program under test")
    of_real = which.add_parser("real", help="Debian's cron, as root")
    of_real.add_argument("--minutes", type=int, default=2, help="2, with a kill of everything; 10: cron stops too")
    which.add_parser("planted", help="whether the judge sees bugs that are planted into the program")
    options = parser.parse_args()
    if options.which == "planted":
        return planted.main()
    return _month(options) if options.which == "month" else real.main(options.minutes)


def _month(options: argparse.Namespace) -> int:
    if library() is None:
        print("needs libfaketime (package faketime)", file=sys.stderr)
        return 1
    begin = int(datetime.fromisoformat(options.begin).replace(tzinfo=UTC).timestamp())
    wanted = month.Wanted(begin, options.days, options.every, options.seed, options.minutes, options.folder)
    began = time.monotonic()
    with Machine(begin, options.folder, options.package.resolve()) as machine:
        life = month.Month(wanted, machine, lambda line: print(f"  {line}", flush=True))
        violations = life.play()
    took = time.monotonic() - began
    days = (life.end - begin) / month.DAY
    did = ", ".join(f"{number:,} {what}" for what, number in life.counts.items())
    print(f"month: {days:.1f} days, a tick every {options.every} min, seed {options.seed}: {did}")
    print(f"month: {took:.0f} s; {len(violations)} violations")
    print(*(f"  {violation}" for violation in violations[:40]), sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
