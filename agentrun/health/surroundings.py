"""What this process was given: a home, a mask for new files, a time zone, a language, and its own interpreter."""

from __future__ import annotations

import locale
import os
import platform
import re
import subprocess
import sys

from .. import __version__
from .finding import Finding, bad, good
from .site import Site

_PATIENCE = 20.0  # seconds for an interpreter to start, on a machine that has much to do
_ZONES = "/usr/share/zoneinfo"
_RULE = re.compile(r"(<[-+\w]{3,}>|[A-Za-z]{3,})[-+]?\d{1,2}(:\d\d)*.*")  # tzset(3): CET-1CEST,M3.5.0,M10.5.0/3


def home(site: Site) -> Finding:
    """It is there: `~` of paths and, without AGENTRUN_HOME, the state folder lie in it."""
    folder = site.environ.get("HOME")
    needed = not site.environ.get("AGENTRUN_HOME") and os.geteuid() != 0
    if not folder:
        said, remedy = "HOME is not set", "set it, as cron and login do"
    elif not os.path.isdir(folder):
        said, remedy = f"HOME is {folder}, which is no folder", "make it, or set HOME to one that is there"
    elif needed and not os.access(folder, os.W_OK) and not site.is_there:
        said, remedy = f"HOME is {folder}, where nothing can be made", "set AGENTRUN_HOME to a folder of your own"
    else:
        return good(folder)
    if needed:
        return bad(said, remedy)
    return good(f"{said}: steps that need one will fail, agentrun itself does not")


def file_mask(site: Site) -> Finding:
    """New files are ours to read and write."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        found = re.search(r"^Umask:\s*([0-7]+)", file.read(), re.MULTILINE)
    if found is None:
        return good("this kernel does not say (before Linux 4.7)")
    if int(found[1], 8) & 0o700:
        return bad(f"umask is {found[1]}: what agentrun and its steps make could not be used", "umask 022, or 077")
    return good(f"umask {found[1]}, kept for the steps of a run")


def time_zone(site: Site) -> Finding:
    """TZ names a zone that is there; else all times of schedules and days of budgets would be those of UTC."""
    name = site.environ.get("TZ")
    if name is None:
        if os.path.islink("/etc/localtime") and not os.path.exists("/etc/localtime"):
            return bad(
                f"/etc/localtime points to {os.readlink('/etc/localtime')}, which is not there: it is UTC to all",
                "install tzdata, or set the zone: timedatectl set-timezone Europe/Riga",
            )
        return good("/etc/localtime" if os.path.exists("/etc/localtime") else "UTC, for there is no /etc/localtime")
    plain = name.removeprefix(":")
    path = os.path.join(site.environ.get("TZDIR") or _ZONES, plain)
    if not plain or plain.upper() in ("UTC", "UTC0", "GMT") or os.path.isfile(path) or _RULE.fullmatch(plain):
        return good(f"TZ={name}" if plain else "TZ is empty: UTC")
    return bad(f"TZ={name} names no zone that is there ({path}): it is UTC to all", "install tzdata, or correct TZ")


def language(site: Site) -> Finding:
    """Names of files and what steps print are taken for UTF-8."""
    coding = sys.getfilesystemencoding()
    chosen = next((site.environ[one] for one in ("LC_ALL", "LC_CTYPE", "LANG") if site.environ.get(one)), "")
    if coding.lower().replace("-", "") != "utf8":
        return bad(
            f"names of files are {coding} here ({chosen or 'no locale'}): others than plain ones will not be found",
            "set LANG=C.UTF-8",
        )
    if chosen and not _exists(chosen):
        return good(f"{chosen} is not installed here: programs take C in its place, some complain")
    return good(f"{chosen or 'none set'}; names of files are {coding}")


def _exists(name: str) -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
        return True
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def interpreter(site: Site) -> Finding:
    """The Python that shims start supervisors with is there, and finds this very agentrun."""
    said = f"agentrun {__version__}, Python {platform.python_version()} ({sys.executable})"
    if not sys.executable or not os.access(sys.executable, os.X_OK):
        return bad(
            f"the interpreter {sys.executable or 'of this process'} is gone, or not yours to execute",
            "install agentrun anew, where you can execute it: no supervisor that is killed could be started again",
        )
    asked = subprocess.run(
        [sys.executable, "-P", "-c", "import agentrun; print(agentrun.__file__)"],
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False,
    )  # fmt: skip
    if asked.returncode:
        why = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        return bad(
            f"{sys.executable} -P cannot import agentrun: {why}",
            "install it for that interpreter: no supervisor that is killed could be started again",
        )
    theirs, ours = os.path.dirname(asked.stdout.strip()), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.realpath(theirs) != os.path.realpath(ours):
        return bad(
            f"{sys.executable} -P imports another agentrun ({theirs}) than this one ({ours})",
            "remove one of them: a supervisor that is started again would be the other",
        )
    return good(said)
