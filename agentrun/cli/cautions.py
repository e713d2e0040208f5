"""What `install` says of a job beside that cron will start it: a line each, and nothing is refused for it.

What looks wrong about the schedule, as `next` says it; that a line of the user's own starts it, too; that something the
job uses is not the same under cron, of which `env --explain` has the whole; and that a failure would be reported to
nobody.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence

from ..cron.oddities import oddities
from ..errors import AgentrunError
from ..health import ascron, cronjobs, crontab, mail
from ..health.finding import some
from ..model import Job
from .env import differences


def as_cron_reads(text: bytes) -> crontab.Crontab:
    """A crontab of this user."""
    return crontab.Crontab(crontab.parse(os.fsdecode(text), crontab.who(os.environ)[1]))


def of_schedule(job: Job, now: int) -> Iterator[str]:
    """What may not be meant. `now`: ms."""
    for words in oddities(job.schedule, job.timezone, now):
        yield f"job {job.name}: {words}"


def of_lines(job: Job, file: str, table: crontab.Crontab) -> Iterator[str]:
    """That somebody else in the crontab starts it."""
    for call in table.calls:
        named = None if call.installed or call.verb != "run" else cronjobs.file_of(call)
        if named is not None and os.path.realpath(named) == os.path.realpath(file):
            yield f"job {job.name}: a line of your own starts it, too ({call.schedule}): take it out by `crontab -e`"


def of_surroundings(job: Job, file: str, table: crontab.Crontab) -> Iterator[str]:
    """What the job would miss. `table`: with its lines."""
    try:
        found = differences(job, file, ascron.environment(os.environ, ascron.call_of(table, file)))
    except (AgentrunError, OSError, subprocess.SubprocessError):
        return  # an env_file that is not there: `validate` and the run tell
    if any(one.step for one in found):
        things = "1 thing differs" if len(found) == 1 else f"{len(found)} things differ"
        yield f"job {job.name}: {things} under cron: agentrun env {shlex.quote(file)} --as-cron --explain"


def of_reports(jobs: Sequence[Job], table: crontab.Crontab) -> Iterator[str]:
    """That nobody would hear of a failure. `table`: with the lines of the jobs, in one block."""
    everyone = mail.for_all_jobs()
    silent = [job.name for job in jobs if not mail.is_told(job, everyone)]
    mailto = [call.variables.get("MAILTO") for call in table.calls if call.installed]
    why = mail.unmailed(mailto[0] if mailto else None)
    if silent and why:
        yield f"a failure of {some(silent)} would be reported to nobody: {why}; notify: says who is told"
