"""All checks, in the order in which they are shown: the ground first, then what stands on it.

A check is a function of the site that answers with a finding, leaves nothing behind, and raises nothing but what the
system or agentrun itself may refuse: that becomes a finding too, and the next check goes on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

from ..errors import AgentrunError, StoreError
from . import cron, cronjobs, folder, kernel, mail, notices, record, runs, surroundings
from .finding import Check, Finding, bad
from .site import FIRST, NOT_KNOWN, Site

CHECKS: dict[str, Callable[[Site], Finding]] = {
    "python": surroundings.interpreter,
    "sqlite_version": record.sqlite_version,
    "sqlite_library": record.sqlite_library,
    "state_folder": folder.state_folder,
    "state_files": folder.state_files,
    "file_system": folder.file_system,
    "disk_space": folder.disk_space,
    "inodes": folder.inodes,
    "locks": folder.file_locks,
    "sockets": folder.sockets_and_pipes,
    "database": record.database_file,
    "wal": record.write_ahead_log,
    "journals": record.journals,
    "write_lock": record.write_lock,
    "run_journals": record.run_journals,
    "backups": record.copies,
    "clock": kernel.clock,
    "boot_id": kernel.boot_id,
    "proc": kernel.proc,
    "pidfd": kernel.pidfd,
    "subreaper": kernel.subreaper,
    "limits": kernel.limits,
    "open_files": kernel.open_files,
    "processes": kernel.processes,
    "leftover_processes": runs.leftover_processes,
    "stranded_runs": runs.stranded_runs,
    "waiting_runs": runs.waiting_runs,
    "lost_runs": runs.lost_runs,
    "orphan_folders": runs.orphan_folders,
    "notices": notices.notices,
    "config": notices.config_file,
    "cron_daemon": cron.cron_daemon,
    "crontab": cron.cron_table,
    "cron_resume": cron.cron_resume,
    "installed_jobs": cron.installed_jobs,
    "cron_path": cron.cron_path,
    "cron_home": cron.cron_home,
    "cron_mail": mail.cron_mail,
    "cron_programs": cronjobs.cron_programs,
    "cron_language": cronjobs.cron_language,
    "home": surroundings.home,
    "umask": surroundings.file_mask,
    "time_zone": surroundings.time_zone,
    "locale": surroundings.language,
}


def examine(site: Site) -> Iterator[Check]:
    """Every check, one after the other."""
    for name in CHECKS:
        yield Check(name, *look(name, site))


def look(name: str, site: Site) -> Finding:
    """One check."""
    try:
        return CHECKS[name](site)
    except StoreError as error:
        if name == "database":
            return bad(error.message, error.hint or "agentrun doctor --repair")
        return bad(NOT_KNOWN, FIRST)
    except AgentrunError as error:
        return bad(error.message, error.hint or "see the manual: agentrun(1)")
    except OSError as error:
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        return bad(f"cannot be looked at: {error.strerror or error}{where}", "look as the owner of the state folder")
    except (subprocess.SubprocessError, ValueError) as error:
        return bad(f"cannot be looked at: {error}", "do it by hand, and report it if it is agentrun's fault")
