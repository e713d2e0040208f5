"""What the jobs that cron starts will miss there: programs that are not on its PATH, variables that it does not set.

The jobs are those that the record knows as scheduled or installed, and those that a line of the crontab runs. What is
seen in them is what `ascron.py` can see: an honest part.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import AgentrunError, Missing
from ..model import Job
from ..spec.decode import decode, load
from . import ascron
from .crontab import Call
from .finding import Finding, bad, good, several, some
from .site import Site

_REFERENCE = re.compile(r"\$\{\{\s*env\.(\w+)\s*\}\}")


class CronJob(NamedTuple):
    """A job, and the line of the crontab that runs it, if one is seen to."""

    job: Job
    file: str
    call: Call | None


def cron_programs(site: Site) -> Finding:
    """Every program and variable that such a job is seen to use is there under cron, if it is here."""
    jobs = list(_jobs(site))
    if not jobs:
        return good("no job is known that cron starts")
    wrong: list[tuple[CronJob, ascron.Difference]] = []
    for one in jobs:
        here, cron = dict(site.environ), ascron.environment(site.environ, one.call)
        for step in one.job.steps:
            own = {**one.job.env, **step.env}
            found = ascron.of_step(one.job, step, _over(here, own), _over(cron, own))
            wrong += [(one, difference) for difference in found if difference.breaks]
    if not wrong:
        return good(f"what {several(len(jobs), 'job')} of cron's is seen to call and to use is there under cron, too")
    first, difference = wrong[0]
    names = some(list(dict.fromkeys(f"{one.job.name}: {found.about}" for one, found in wrong)))
    return bad(
        f"jobs will not find under cron what they find here: {names}; {difference.detail}",
        f"{difference.remedy}; all of it: agentrun env {shlex.quote(first.file)} --explain",
    )


def cron_language(site: Site) -> Finding:
    """What else is another way for them: said, for it need not matter."""
    jobs = list(_jobs(site))
    if not jobs:
        return good("no job is known that cron starts")
    said: dict[str, str] = {}
    for one in jobs:
        own, cron = one.job.env, ascron.environment(site.environ, one.call)
        for difference in ascron.of_all(_over(site.environ, own), _over(cron, own)):
            said.setdefault(difference.about, one.file)
    if not said:
        return good("home, language and time zone are the same under cron")
    return good(
        f"most jobs do not care, but here and under cron {some(list(said))} {'is' if len(said) == 1 else 'are'} not the"
        f" same; what that may mean: agentrun env {shlex.quote(next(iter(said.values())))} --explain"
    )


def _over(base: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """An environment with what a job file sets over it; of the references, those to it are replaced."""
    return {**base, **{
        name: _REFERENCE.sub(lambda found: base.get(found[1], ""), value) for name, value in own.items()
    }}  # fmt: skip


def _jobs(site: Site) -> Iterator[CronJob]:
    seen = set()
    try:
        record = site.record
    except Missing:
        record = None
    for known in record.scheduled() if record else []:
        seen.add(os.path.realpath(known.file))
        try:
            job = decode(known.text, known.file)
        except AgentrunError:
            continue  # of another version
        yield CronJob(job, known.file, ascron.call_of(site.crontab, known.file))
    for call in site.crontab.calls:
        if call.verb != "run":
            continue
        file = file_of(call)
        if file is not None and os.path.realpath(file) not in seen:
            seen.add(os.path.realpath(file))
            try:
                yield CronJob(load(file)[0], file, call)
            except AgentrunError:
                continue  # `validate` tells


def file_of(call: Call) -> str | None:
    """The job file that a call runs, if it is seen and there."""
    for word in call.arguments:
        file = os.path.join(call.variables.get("HOME", "/"), os.path.expanduser(word))
        if file.endswith((".yaml", ".yml")) and os.path.isfile(file):
            return file
    return None
