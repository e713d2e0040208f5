"""What will happen when cron starts agentrun: whether it does, finds the program, and goes on after a reboot."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

from ..errors import JobFileError, NotFound
from ..spec.decode import load
from ..step import procs
from ..store.jobs import JobQuestions, JobRow
from .crontab import PATH, who
from .finding import Finding, bad, good, several, some
from .site import Site

_DAEMONS = {b"cron", b"crond", b"fcron", b"anacron", b"cronie", b"dcron"}


def cron_daemon(site: Site) -> Finding:
    """It runs, if anything is left to it."""
    running = [pid for pid in procs.every_pid() if procs.read(f"/proc/{pid}/comm").strip() in _DAEMONS]
    if running:
        return good(f"process {running[0]} ({os.fsdecode(procs.read(f'/proc/{running[0]}/comm')).strip()})")
    if site.crontab.calls:
        return bad(
            "no cron daemon is seen to run, and the crontab calls agentrun",
            "start it: systemctl enable --now cron (or crond)",
        )
    return good("none is seen to run, and nothing that agentrun knows of is left to it")


def cron_table(site: Site) -> Finding:
    """Every line of the crontab that calls agentrun finds it."""
    table = site.crontab
    if table.torn:
        return bad(
            f"the block of `agentrun install` is torn: {table.torn}; what is in it cannot be told from your own lines",
            "crontab -e: leave one pair of lines `# BEGIN agentrun: …` and `# END agentrun` around what is agentrun's,"
            " or take all of it out and install again",
        )
    lost = [call for call in table.calls if call.found() is None]
    if lost:
        call = lost[0]
        trap = " (cron expands nothing in a PATH)" if "$" in call.variables.get("PATH", "") else ""
        return bad(
            f"cron would not find {call.word} of the line at `{call.schedule}`; its PATH is "
            f"{call.variables.get('PATH', PATH)}{trap}",
            f"name it by its whole path in the crontab: {program()} {call.verb} …",
        )
    if table.unreadable:
        if "not allowed" in table.unreadable:  # cron.allow
            return good(f"this user may not have one: {table.unreadable}")
        return bad(f"it cannot be read: `crontab -l` says {table.unreadable}", "look why: crontab -l")
    if not table.calls:
        return good("no line of this user's calls agentrun")
    return good(f"{several(len(table.calls), 'call')} of agentrun, each by a path that cron finds")


def cron_resume(site: Site) -> Finding:
    """A line goes on with what a reboot or a kill cut off, if runs are started from the crontab."""
    calls = site.crontab.calls
    if not any(call.verb == "run" for call in calls):
        return good("no runs are started by the crontab")
    schedules = sorted({call.schedule for call in calls if call.verb == "resume"})
    if not schedules:
        return bad(
            "the crontab starts runs, and no line of it resumes them: a run cut off by a reboot would wait for you",
            "`agentrun install JOB.yaml` writes what it takes; by hand it is two lines:"
            f" `@reboot {program()} resume` and `* * * * * {program()} resume`",
        )
    if schedules == ["@reboot"]:
        return good(
            "`@reboot` alone: after a kill of everything without a reboot, the next `agentrun resume` is yours"
            " (a line at `*/5 * * * *` would do it)"
        )
    return good(f"`agentrun resume` at {some([f'`{one}`' for one in schedules])}")


def installed_jobs(site: Site) -> Finding:
    """What `install` has put somewhere is there, and says what the job files say now."""
    record = site.record
    rows = JobQuestions(record.connection).jobs() if record and "jobs" in record.tables() else []
    rows = [row for row in rows if row.installed is not None]
    wrong = [(row, *said) for row in rows if (said := _amiss(site, row))]
    if not rows:
        return good("none")
    if not wrong:
        return good(f"{some([row.name for row in rows])}: where they were put, with the schedules of their files")
    row, what, remedy = wrong[0]
    more = f"; something is amiss with {some([other.name for other, *_ in wrong[1:]])} too" if wrong[1:] else ""
    return bad(f"job {row.name}: {what}{more}", remedy)


def _amiss(site: Site, row: JobRow) -> tuple[str, str] | None:
    """What is wrong with one, and the remedy."""
    again, out = f"agentrun install {shlex.quote(row.file)}", f"agentrun uninstall {row.name}"
    if row.installed["how"] == "systemd":
        again += f" --systemd --{row.installed['scope']}"
        timer = os.path.join(row.installed["folder"], f"agentrun-{row.name}.timer")
        if not os.path.exists(timer):
            return f"its timer is gone: {timer}", f"{again}, or {out}"
    elif not site.crontab.unreadable and not any(
        call.verb == "run" and row.file in call.arguments for call in site.crontab.calls
    ):
        return "the crontab has no line for it", f"{again}, or {out}"
    try:
        job, _ = load(row.file)
    except NotFound:
        return f"its file is gone: {row.file}", f"put it back, or {out}"
    except JobFileError as error:
        return f"its file is wrong: {error.message.splitlines()[0]}", f"agentrun validate {shlex.quote(row.file)}"
    if job.name != row.name:
        return f"its file calls itself {job.name} now: {row.file}", f"{out}, then {again}"
    if not job.schedule:
        return f"its file has no schedule any more: {row.file}", out
    if [schedule.text for schedule in job.schedule] != row.installed["schedule"]:
        return f"it is installed with another schedule than its file has: {row.file}", again
    if job.timezone != row.installed["timezone"]:
        return f"it is installed for another time zone than its file has: {row.file}", again
    if job.timezone and os.path.realpath("/etc/localtime") != row.installed["machine"]:
        return "the zone of this machine is another than when it was installed", again
    return None


def cron_path(site: Site) -> Finding:
    """What `agentrun` means to cron, where a line does not say its path."""
    calls = site.crontab.calls
    if calls and all("/" in call.word for call in calls):
        return good("each line of the crontab that calls agentrun has its path, whatever cron's PATH is")
    found = shutil.which("agentrun", path=PATH)
    if found is None:
        return good(f"a line of the crontab calls it by its path, {program()}: cron's own PATH is {PATH}")
    if os.path.realpath(found) != os.path.realpath(program()):
        return good(f"`agentrun` is {found} to cron; this program is {program()}")
    return good(f"`agentrun` is {found} to cron")


def cron_home(site: Site) -> Finding:
    """What cron starts is recorded in the state folder that is looked at here."""
    for call in site.crontab.calls:
        theirs = _home(site, dict(call.variables))
        if os.path.realpath(theirs) == os.path.realpath(site.root):
            continue
        remedy = f"set AGENTRUN_HOME={site.root} at the top of the crontab, or unset it here"
        if call.installed:
            block = (one for one in site.crontab.calls if one.installed and one.verb == "run")
            jobs = [shlex.quote(one.arguments[0]) for one in block if one.arguments]
            remedy = (
                f"to look at them: AGENTRUN_HOME={theirs}; to have them recorded here, leave AGENTRUN_HOME as it is"
                f" and install again: agentrun install {' '.join(dict.fromkeys(jobs)) or 'JOB'}"
            )
        detail = f"runs of the line at `{call.schedule}` are recorded in {theirs}, and here it is {site.root}"
        return bad(detail, remedy)
    return good("what the crontab starts is recorded here" if site.crontab.calls else "nothing is started by cron")


def _home(site: Site, variables: dict[str, str]) -> str:
    """The state folder of a call from a crontab: as `store.folders.home` finds it there."""
    home = variables.get("HOME") or who(site.environ)[1]
    if explicit := variables.get("AGENTRUN_HOME"):
        return os.path.join(home, explicit.replace("~", home, 1) if explicit.startswith("~") else explicit)
    if os.geteuid() == 0:
        return "/var/lib/agentrun"
    return os.path.join(variables.get("XDG_STATE_HOME") or f"{home}/.local/state", "agentrun")


def program() -> str:
    """This program, as a crontab could name it."""
    called = shutil.which(sys.argv[0]) if os.path.basename(sys.argv[0]) == "agentrun" else None
    beside = os.path.join(os.path.dirname(sys.executable), "agentrun")
    return os.path.abspath(called) if called else beside if os.path.exists(beside) else f"{sys.executable} -m agentrun"
