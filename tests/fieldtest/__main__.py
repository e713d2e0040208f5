"""`python -m tests.fieldtest [FILE|FOLDER …]`: whether a converted script behaves as the script does.

Each script runs as itself and as the job that it becomes, in a sandbox with stubs for what reaches outside of it, and
what both left is compared: output, status, calls, files (trial.py). With `--kill` the job also is killed after each of
its steps and resumed. Prints a line for each script and the totals; `--out` gets the job files and the differences.
The exit status is 1 if any differs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import sandbox, trial
from .trial import Trial

SCRIPTS = Path(__file__).with_name("scripts")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fieldtest", description=__doc__.split("\n")[0])
    parser.add_argument("place", nargs="*", type=Path, default=[SCRIPTS], metavar="FILE|FOLDER")
    parser.add_argument("--kill", action="store_true", help="kill the job after each step, too, and resume it")
    parser.add_argument("--plain", action="store_true", help="only whether each script equals itself")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="scripts at once")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where job files and differences go")
    options = parser.parse_args()
    if lacking := sandbox.missing():
        print(f"needs {lacking}", file=sys.stderr)
        return 1
    files = [file for place in options.place for file in (sorted(place.glob("*.*sh")) if place.is_dir() else [place])]
    print(f"{'script':<58} {'lines':>5} {'stmts':>5} {'steps':>5} {'calls':>5}  {'as job':<20} killed and resumed")
    with ThreadPoolExecutor(options.jobs) as pool:
        done = []
        for one in pool.map(lambda file: trial.put(file, options.kill, options.plain), files):
            print(_row(one), flush=True)
            done.append(one)
            if options.out:
                _write(options.out / one.name, one)
    print(*_totals(done), sep="\n")
    return 1 if any(one.broken or (not one.aside and (one.different or one.killed)) for one in done) else 0


def _row(one: Trial) -> str:
    if one.broken:
        told = f"BROKEN {one.broken}".replace("\n", " ")[:100]
    elif one.aside:
        told = f"({one.aside})"
    else:
        kills = f", {one.kills} times" if one.kills else ""
        told = f"{_verdict(one.different):<20} {_verdict(one.killed)}{kills}"
    whole = "  whole: " + "; ".join(one.why)[:80] if one.whole else ""
    counts = f"{one.lines:>5} {one.statements or '':>5} {one.steps or '':>5} {one.calls:>5}"
    return f"{one.name[-58:]:<58} {counts}  {told}{whole}".rstrip()


def _verdict(different: dict[str, str] | None) -> str:
    if different is None:
        return "-"
    return "DIFFERENT " + ", ".join(different) if different else "equal"


def _totals(done: Sequence[Trial]) -> list[str]:
    judged = [one for one in done if not one.aside and not one.broken and one.different is not None]
    killed = [one for one in judged if one.killed is not None]
    split = [one for one in judged if one.steps > 1]
    long = [one for one in judged if one.statements > 5]
    whole = [one for one in judged if one.whole]
    lines = [f"{len(done)} scripts; {sum(bool(one.aside) for one in done)} set aside"]
    lines.append(f"{sum(bool(one.broken) for one in done)} broken in conversion")
    if judged:
        steps = sum(one.steps for one in split) / max(1, len(split))
        lines += [
            f"{len(split)} of {len(judged)} split, into {steps:.1f} steps on average; {len(whole)} kept whole",
            f"{_share(sum(one.steps > 1 for one in long), len(long))} split of those with more than five statements",
            f"{_share(sum(not one.different for one in judged), len(judged))} equal as a job",
            f"{_share(sum(not one.different for one in split), len(split))} of those that are split",
        ]
    if killed:
        kills = sum(one.kills for one in killed)
        lines.append(f"{_share(sum(not one.killed for one in killed), len(killed))} equal after {kills} kills")
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(1, whole):.1f} %)"


def _write(folder: Path, one: Trial) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(one.job)
    for name, different in (("different", one.different), ("killed", one.killed)):
        told = "".join(f"== {part}\n{diff}\n" for part, diff in (different or {}).items())
        (folder / name).write_text(f"{one.aside or one.broken}\n{told}" if one.aside or one.broken else told)


if __name__ == "__main__":
    sys.exit(main())
