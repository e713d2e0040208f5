"""Whether the report of a failed run reaches anybody: cron mails what a run prints, or a `notify` tells of it.

cron hands mail to the machine's sendmail, unless MAILTO is empty above the line; where that is not to be had, it says
so in the system's log at best. A `notify` counts if it tells of failures: the job's own, or that of config.yaml.
"""

from __future__ import annotations

import shutil

from ..errors import AgentrunError, JobFileError
from ..model import Job, Notify
from ..spec import config
from ..spec.decode import load
from .cronjobs import file_of
from .finding import Finding, bad, good, some
from .site import Site

_MAILERS = "/usr/sbin:/usr/lib:/usr/local/sbin:/usr/bin:/usr/local/bin"  # where crons look, each of them in some


def cron_mail(site: Site) -> Finding:
    """Somebody hears of what fails in the runs that the crontab starts."""
    calls = [call for call in site.crontab.calls if call.verb == "run"]
    if not calls:
        return good("no runs are started by the crontab")
    everyone = for_all_jobs()
    silent: dict[str, str] = {}
    mailed = False
    for call in calls:
        file = file_of(call)
        job = _job(file) if file else None
        if is_told(job, everyone):
            continue
        if why := unmailed(call.variables.get("MAILTO")):
            silent[job.name if job else f"the line at `{call.schedule}`"] = why
        mailed = True
    if not silent:
        return good("cron mails what fails" if mailed else "`notify` tells of what fails")
    return bad(
        f"failures of {some(list(silent))} are reported to nobody: {some(list(dict.fromkeys(silent.values())))},"
        " and no `notify` tells of them",
        "name who is told, under notify: in the job file or in config.yaml (agentrun.yaml(5)); or let cron mail:"
        " MAILTO=you@example.org in the crontab, and a sendmail on this machine",
    )


def unmailed(mailto: str | None) -> str:
    """Why cron mails nothing, with this MAILTO (None: not set); "" if it does."""
    if mailto is not None and not mailto.strip():
        return 'MAILTO is "" in the crontab'
    if shutil.which("sendmail", path=_MAILERS) is None:
        return "this machine has no sendmail for cron to mail with"
    return ""


def is_told(job: Job | None, everyone: Notify | None) -> bool:
    """Whether a `notify` tells of a job's failures. `everyone`: that of config.yaml."""
    told = job.notify if job is not None and job.notify is not None else everyone
    return told is not None and bool(told.to) and "failure" in told.on


def for_all_jobs() -> Notify | None:
    """The `notify` of config.yaml; while that is wrong, none of it counts."""
    try:
        return config.load().notify
    except (JobFileError, OSError):
        return None


def _job(file: str) -> Job | None:
    try:
        return load(file)[0]
    except AgentrunError:
        return None
