"""Does the judge see? Bugs are planted into copies of the program, one at a time, and a short month must see each."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..torture.place import Stuck
from ..torture.tally import ROOT
from . import month
from .machine import Machine

_BEGIN = int(datetime(2025, 10, 25, 12, tzinfo=UTC).timestamp())
_SEEDS = 3


class Bug(NamedTuple):
    """`old` stands in the file once; `seen` is a part of the violation that is wanted (a month that hangs is one)."""

    name: str
    file: str
    old: str
    new: str
    seen: str = ""


BUGS = (
    Bug("what did not run is not recorded", "store/jobs.py",
        "    _tell_all(cursor, one.job, one.file, one.unrun, one.notify, now, by)\n", "", "LOST"),
    Bug("an overlap leaves no account", "store/admission.py",
        "        jobs.settle(cursor, ticks, now, run.by)\n",
        "        return jobs.settle(cursor, ticks, now, run.by)\n", "LOST"),
    Bug("a pause is not kept", "store/jobs.py",  # that it holds is seen in two places
        "DO UPDATE SET paused_at = excluded.paused_at,", "DO UPDATE SET paused_at = NULL,", "paused"),
    Bug("runs of one key are not kept apart", "store/admission.py",
        "    if len(at_work) < overlap.slots:\n", "    if True:\n"),
    Bug("the next look is never due", "cron/due.py",
        "None if upcoming is None else upcoming + rules.jitter + LATE", "None", "LOST"),
    Bug("a tick has no key", "cli/starts.py",
        'self.once(f"tick {rfc3339(found.own)}", found.own, account, ',
        "self.once(None, found.own, account._replace(settled=found.own - 1), ", "TWICE"),
    Bug("those that ran are missed besides", "cron/due.py",
        "known = sorted([*((tick, tick) for tick in taken), *told])", "known = sorted(told)"),
)  # fmt: skip


def main() -> int:
    """Plant them all. Returns 1 if one was not seen."""
    missed = 0
    for bug in BUGS:
        seen = _seen(bug)
        missed += seen is None
        print(f"{bug.name}: {'NOT SEEN' if seen is None else seen.splitlines()[0]}", flush=True)
    return 1 if missed else 0


def _seen(bug: Bug) -> str | None:
    """The violation by which a month sees it."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        shutil.copytree(ROOT / "agentrun", f"{folder}/agentrun", ignore=shutil.ignore_patterns("__pycache__"))
        path = Path(folder, "agentrun", bug.file)
        text = path.read_text()
        assert text.count(bug.old) == 1, f"{bug.name}: its line stands {text.count(bug.old)} times in {bug.file}"
        path.write_text(text.replace(bug.old, bug.new))
        for seed in range(_SEEDS):
            with Machine(_BEGIN, package=Path(folder)) as machine:
                try:
                    found = month.Month(month.Wanted(_BEGIN, 0.5, 120, seed), machine).play()
                except Stuck as stuck:
                    found = [str(stuck)]
            if named := [one for one in found if bug.seen in one]:
                return f"seed {seed}: {named[0]}"
    return None
