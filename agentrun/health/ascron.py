"""The environment in which cron starts a command, and what a job will miss there: why it works by hand and not there.

Cron starts a user's command with what follows, later ones over earlier ones (cron of Debian, do_command.c; crontab(5)):

    /etc/environment, /etc/default/locale   by way of PAM, where /etc/pam.d/cron says so
    HOME, LOGNAME, PATH=/usr/bin:/bin, SHELL=/bin/sh
    NAME=value lines of the crontab above the command's line, MAILTO too; LOGNAME stays
    NAME=value words in front of the command

No profile of a shell is read. A shell adds PWD, OLDPWD, _ and (bash) SHLVL for itself, which are not counted here. A
test asks a real cron daemon.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..model import Job, Step
from . import texts
from .crontab import PATH, Call, Crontab, who

_PAM = "/etc/pam.d/cron"
_FILES = ("/etc/environment", "/etc/default/locale")
_SETTING = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)")
_LANGUAGE = ("LC_ALL", "LC_CTYPE", "LANG")
_SHELLS = ("sh", "bash", "dash")  # whose words `texts` knows
_PLACES = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS")


class Difference(NamedTuple):
    """Something that is one way here and another under cron. `step`: of which, "" for all. `about`: one word.

    `breaks`: it is there or set here, and not under cron.
    """

    step: str
    about: str
    detail: str
    remedy: str
    breaks: bool = True


def environment(environ: Mapping[str, str], call: Call | None = None) -> dict[str, str]:
    """What cron gives a command of this user; of a line of a crontab, with what that sets."""
    user, home = who(environ)
    given = _by_pam() | {"HOME": home, "LOGNAME": user, "PATH": PATH, "SHELL": "/bin/sh"}
    return given | dict(call.variables if call else {}) | {"LOGNAME": user}


def call_of(table: Crontab, file: str) -> Call | None:
    """The line of a crontab that runs a job file; None if none does."""
    wanted = os.path.realpath(file)
    for call in table.calls:
        home = call.variables.get("HOME", "/")
        if call.verb == "run" and any(
            os.path.realpath(os.path.join(home, os.path.expanduser(word))) == wanted for word in call.arguments
        ):
            return call
    return None


def _by_pam() -> dict[str, str]:
    found: dict[str, str] = {}
    if "pam_env" not in _read(_PAM):
        return found
    for path in _FILES:
        for line in _read(path).splitlines():
            if setting := _SETTING.fullmatch(line.partition("#")[0].rstrip()):
                found[setting[1]] = setting[2].strip("\"'")
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# --- what differs


def of_all(here: Mapping[str, str], cron: Mapping[str, str]) -> Iterator[Difference]:
    """What differs for every step. `here` and `cron`: the environments that runs are created in."""
    if os.path.realpath(here.get("HOME", "")) != os.path.realpath(cron["HOME"]):
        yield Difference(
            "", "HOME", f"HOME is {here.get('HOME', 'not set')} here, and {cron['HOME']} under cron",
            "name files by whole paths, or set it: env: {HOME: …}", breaks=False,
        )  # fmt: skip
    language = next((here[name] for name in _LANGUAGE if here.get(name)), "")
    if language and not any(cron.get(name) for name in _LANGUAGE) and language not in ("C", "POSIX"):
        yield Difference(
            "", "locale",
            f"the language is {language} here, and not set under cron: programs take C, sort in another order, and may"
            " fail at or change what is not ASCII",
            "env: {LANG: C.UTF-8}", breaks=False,
        )  # fmt: skip
    if here.get("TZ", "") != cron.get("TZ", ""):
        yield Difference(
            "", "TZ", f"TZ is {here.get('TZ') or 'not set'} here, and {cron.get('TZ') or 'not set'} under cron",
            f"env: {{TZ: {here.get('TZ') or 'UTC'}}}", breaks=False,
        )  # fmt: skip


def of_step(job: Job, step: Step, here: Mapping[str, str], cron: Mapping[str, str]) -> Iterator[Difference]:
    """What the programs of a step would miss. `here` and `cron`: what its process is given."""
    texts_of = [text for text in (step.run, step.condition, step.verify, step.repeat and step.repeat.until) if text]
    names = [job.shell[0]] if texts_of and "/" not in job.shell[0] else []
    if step.interpreter and "/" not in step.interpreter:
        names.append(step.interpreter)
    certain = os.path.basename(job.shell[0]) in _SHELLS and all(texts.is_certain(text) for text in texts_of)
    for name in dict.fromkeys([*names, *(name for text in texts_of for name in texts.calls(text))]):
        found = shutil.which(name, path=here.get("PATH", ""))
        theirs = shutil.which(name, path=cron.get("PATH", ""))
        if not found and not theirs and (certain or name in names):
            yield Difference(
                step.id, name, f"{name} is found nowhere: neither here nor on the PATH that cron gives",
                "install it, or correct the name", breaks=False,
            )  # fmt: skip
        elif found and not theirs:
            path = f"{os.path.dirname(found)}:{cron.get('PATH', PATH)}"
            yield Difference(
                step.id, name, f"{name} is {found} here, and not found on the PATH that cron gives ({_path(cron)})",
                f"write {found}, or env: {{PATH: {_quoted(_path({'PATH': path}))}}}",
            )  # fmt: skip
        elif found and theirs and not _same(found, theirs):
            venv = _venv(found)
            whose = f" of the virtual environment {venv}" if venv and venv != _venv(theirs) else ""
            yield Difference(
                step.id, name, f"{name} is {found}{whose} here, and {theirs} under cron",
                f"write {found} if that is the one that is meant", breaks=False,
            )  # fmt: skip
    for name in dict.fromkeys(name for text in texts_of for name in texts.variables(text)):
        if name in here and name not in cron:
            remedy = f"env: {{{name}: {_quoted(here[name])}}}" if _may_be_shown(name) else "put it into an env_file"
            yield Difference(
                step.id, name, f"${name} is used, set here, and not under cron",
                f"{remedy}" if name not in _PLACES else f"{remedy}, if it lasts longer than this login",
            )  # fmt: skip


def _same(one: str, other: str) -> bool:
    """Whether two paths are one program. A virtual environment's Python is a link to another, with its own modules."""
    return os.path.realpath(one) == os.path.realpath(other) and _venv(one) == _venv(other)


def _venv(program: str) -> str:
    """The virtual environment that a Python is of; "" if of none, or no Python."""
    if not re.fullmatch(r"(?:python|pypy)[\d.]*", os.path.basename(program)):
        return ""
    root = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(program))))
    return root if os.path.exists(os.path.join(root, "pyvenv.cfg")) else ""


def _path(env: Mapping[str, str]) -> str:
    """A PATH without the folder that agentrun adds itself."""
    parts = env.get("PATH", PATH).split(os.pathsep)
    return os.pathsep.join(part for part in parts if not part.endswith("agentrun/bin"))


def _may_be_shown(name: str) -> bool:
    return not re.search("KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", name, re.IGNORECASE)


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w./:-]+", value) and not value.isdigit() else shlex.quote(value)
