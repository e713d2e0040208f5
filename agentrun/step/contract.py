"""What a step's process is given: its command line, its folder, its environment, the call of a Python step.

Pure but for two files: `read_env_file` reads the job's file, `write_call` writes what `pystep.py` calls.
A step's environment is made of layers, each over the one before (references resolved by the supervisor):

    base_environment(...)   what the run was created in, as `inherit_env` lets it through
    read_env_file(...)      the job's env_file
    job.env, step.env       what the job file says
    environment(...)        the contract itself: AGENTRUN_*, TRACEPARENT, PWD; nothing can shadow it

**The plain-command rule.** A program text that is one simple command of harmless words (`./ask.sh --all`) is
executed without a shell: half the processes, half the time. It holds for the shells `sh` and `bash` only,
and only where nobody can tell: the command is no builtin or keyword of either, no word has a character that
a shell looks at, and nothing in the environment changes what a shell does at its start. Whoever starts it
finds the program on the step's own PATH; where that fails (no such file, not executable, a script without
`#!`), the shell form is started instead, so that message and exit status are the shell's own.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from .. import effects
from ..digest import sha256_hex
from ..errors import JobFileError, NotFound
from ..model import JSON, Job, Problem, Step, split_instance
from ..spec.references import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..store.folders import RunFolder

# What a step may find in its environment from a run around its own: none of it is meant for it.
_CONTRACT = """
    AGENTRUN_RUN_ID AGENTRUN_JOB AGENTRUN_STEP AGENTRUN_ATTEMPT AGENTRUN_IDEMPOTENCY_KEY
    AGENTRUN_SCHEDULED_TIME AGENTRUN_INTERRUPTED AGENTRUN_OUTPUT AGENTRUN_USAGE AGENTRUN_CALLS AGENTRUN_RUN_DIR
    AGENTRUN_JOB_DIR AGENTRUN_LAST_SUCCESS AGENTRUN_ITEM AGENTRUN_ROUND AGENTRUN_PYTHON AGENTRUN_SCRIPT
    AGENTRUN_SHELL_PID TRACEPARENT TRACESTATE
"""
CONTRACT = frozenset(_CONTRACT.split())
# What a shell says about itself and where it stands: untrue in another process in another folder.
_OF_A_SHELL = frozenset({"PWD", "OLDPWD", "_"})

_PLAIN_SHELLS = frozenset({("/bin/sh", "-e"), ("/bin/bash", "-eo", "pipefail"), ("bash", "-eo", "pipefail")})
_PLAIN_COMMAND = re.compile(
    r"[ \t\n]*[A-Za-z0-9_./+-][A-Za-z0-9_./:,@%+-]*(?:[ \t]+[A-Za-z0-9_./:,@%+=-]+)*[ \t\n]*"
)
# Builtins, keywords and special words of dash and bash; and two that print the environment, in which a shell
# leaves traces of itself (SHLVL, _).
_WORDS = """
    . : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc
    declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function
    getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray
    readonly return select set shift shopt source suspend test then time times trap true type typeset ulimit
    umask unalias unset until wait while env printenv
"""
_SHELL_WORDS = frozenset(_WORDS.split())
_SHELL_STARTUP = ("BASH_", "BASHOPTS", "SHELLOPTS")

LONGEST_VALUE = 128 * 1024 - 1  # bytes of one variable with its name: MAX_ARG_STRLEN of Linux, the end counted

# What a step's Python finds `agentrun.durable` in, and nothing else (see agentrun/inside/agentrun/__init__.py).
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_INSIDE = os.path.join(_PACKAGE, "inside")
_BIN = os.path.join(_PACKAGE, "bin")  # holds the command alone
_PYSTEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pystep.py")


# ---- command lines


def command(
    job: Job, step: Step, job_folder: str, call_path: str, env: Mapping[str, str] | None = None
) -> tuple[list[str], list[str] | None]:
    """The command line of an attempt, and the one to start where it cannot be (None: there is no other).

    `env` is the environment that the step will get; it is looked at only for what would change a shell.
    """
    if step.job is not None:
        return [sys.executable, "-P", "-m", "agentrun", "child", call_path], None
    if step.run is None:
        return [_interpreter(step, job_folder), _PYSTEP, call_path], None
    return _in_shell(job, step.run, env)


def condition(
    job: Job, step: Step, env: Mapping[str, str] | None = None, *, until: bool = False, verify: bool = False
) -> tuple[list[str], list[str] | None]:
    """The same for the step's `if`, the `until` of one with `repeat`, or its `verify`; the step must have one."""
    text = step.verify if verify else step.repeat.until if until and step.repeat else step.condition
    assert text is not None
    return _in_shell(job, text, env)


def is_plain(text: str) -> bool:
    """Whether a shell would do nothing with this text but execute it, word by word."""
    return bool(_PLAIN_COMMAND.fullmatch(text)) and text.split(None, 1)[0] not in _SHELL_WORDS


def shell_startup(env: Mapping[str, str]) -> dict[str, str]:
    """Of an environment, what changes a shell at its start."""
    return {name: value for name, value in env.items() if name.startswith(_SHELL_STARTUP)}


def _in_shell(job: Job, text: str, env: Mapping[str, str] | None) -> tuple[list[str], list[str] | None]:
    shell = [*job.shell, "-c", text]
    if (
        job.shell in _PLAIN_SHELLS
        and is_plain(text)
        and not shell_startup(env or {})
    ):
        return text.split(), shell
    return shell, None


def _interpreter(step: Step, job_folder: str) -> str:
    """The step's Python: a path is relative to the job file's folder, a bare name is looked up on PATH."""
    if step.interpreter is None:
        return sys.executable
    written = os.path.expanduser(step.interpreter)
    return os.path.join(job_folder, written) if "/" in written else written


def working_folder(job: Job, job_folder: str, started_in: str | None = None) -> str:
    """Where the steps of the job run, absolute. `started_in`: the folder in which the run was started, or would be."""
    folder = os.path.abspath(job_folder)
    if job.working_dir is None:
        return started_in or os.getcwd() if job.carry else folder
    return os.path.normpath(os.path.join(folder, os.path.expanduser(job.working_dir)))


# ---- the environment


def environment(
    *,
    job: Job,
    step: Step,
    instance: str,
    attempt: int,
    run_id: str,
    key: str,
    scheduled_time: str,
    interrupted: bool,
    folder: RunFolder,
    job_dir: str,
    last_success: str,
    working_folder: str | None = None,
    python_path: str = "",
    path: str | None = None,
) -> dict[str, str]:
    """The variables of the contract, to be laid over all others. The two times are RFC 3339, or empty.

    `python_path` and `path`: the PYTHONPATH and the PATH that the step would have without us. A round knows its number
    by $AGENTRUN_ROUND; the item of a `foreach` is not among these: whoever knows it adds it (`item_variable`).
    """
    given = {
        "AGENTRUN_RUN_ID": run_id,
        "AGENTRUN_JOB": job.name,
        "AGENTRUN_STEP": instance,
        "AGENTRUN_ATTEMPT": str(attempt),
        "AGENTRUN_IDEMPOTENCY_KEY": key,
        "AGENTRUN_SCHEDULED_TIME": scheduled_time,
        "AGENTRUN_INTERRUPTED": "1" if interrupted else "0",
        "AGENTRUN_OUTPUT": folder.output(instance, attempt),
        "AGENTRUN_USAGE": folder.usage(instance, attempt),
        "AGENTRUN_CALLS": folder.calls(instance),
        "AGENTRUN_RUN_DIR": folder.scratch,
        "AGENTRUN_JOB_DIR": job_dir,
        "AGENTRUN_LAST_SUCCESS": last_success,
        "TRACEPARENT": _traceparent(run_id, instance, attempt),
        "PYTHONPATH": with_inside(python_path),
        "AGENTRUN_PYTHON": sys.executable,
    }
    if path is not None:
        given["PATH"] = with_command(path)
    number = split_instance(instance)[1]
    if step.repeat and number >= 0:
        given["AGENTRUN_ROUND"] = str(number)
    if working_folder is not None:
        given["PWD"] = working_folder  # a shell would set it: a plain command has none
    return given


@lru_cache(maxsize=8)
def with_inside(python_path: str) -> str:
    """A PYTHONPATH with the folder of `agentrun.durable` in front."""
    if python_path.split(os.pathsep)[0] == _INSIDE:
        return python_path  # of a run around this one
    return _INSIDE + os.pathsep + python_path if python_path else _INSIDE


@lru_cache(maxsize=8)
def with_command(path: str) -> str:
    """A PATH at whose end `agentrun` is found, for `agentrun usage add` where cron's PATH does not have it."""
    return path if path.split(os.pathsep)[-1] == _BIN else path + os.pathsep + _BIN


def item_variable(item: JSON) -> dict[str, str]:
    """$AGENTRUN_ITEM: the item as references would write it; left out where it is longer than a variable can be."""
    text = as_text(item)
    fits = "\0" not in text and len(text.encode(errors="surrogateescape")) < LONGEST_VALUE - len("AGENTRUN_ITEM=")
    return {"AGENTRUN_ITEM": text} if fits else {}


def round_variables(outputs: Mapping[str, JSON]) -> dict[str, str]:
    """The outputs of a round as its `until` and the next round see them: OUT_<key>."""
    return {"OUT_" + key.replace("-", "_"): as_text(value) for key, value in outputs.items()}


def base_environment(inherit_env: bool | tuple[str, ...], frozen: Mapping[str, str]) -> dict[str, str]:
    """What of the environment that the run was created in reaches its steps.

    True: all of it; False: what cron itself would give; names: these, on top of what cron would give.
    """
    if inherit_env is True:
        return {
            name: value for name, value in frozen.items() if name not in CONTRACT and name not in _OF_A_SHELL
        }
    base = _as_cron(frozen)
    base.update((name, frozen[name]) for name in inherit_env or () if name in frozen and name not in CONTRACT)
    return base


def _as_cron(frozen: Mapping[str, str]) -> dict[str, str]:
    """The four variables that cron sets for a user's job (crontab(5) of Debian 12: no USER)."""
    import pwd  # not every run asks for it

    try:
        entry = pwd.getpwuid(os.getuid())
        user, home = entry.pw_name, entry.pw_dir
    except KeyError:  # a container's user without an entry
        user = frozen.get("LOGNAME") or frozen.get("USER") or str(os.getuid())
        home = frozen.get("HOME") or "/"
    return {"HOME": home, "LOGNAME": user, "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}


def default_key(run_id: str, instance: str) -> str:
    """The idempotency key of a step that names none: the same for all attempts of the instance in the run."""
    return _digest(run_id, instance)[:32]


def item_key(run_id: str, step: str, item: JSON) -> str:
    """The same for the instance of an item: made from the item, wherever in the list it stands."""
    return _digest(run_id, step, json.dumps(item, sort_keys=True, separators=(",", ":")))[:32]


def _traceparent(run_id: str, instance: str, attempt: int) -> str:
    """W3C Trace Context, version 00: one trace for the run, one span for the attempt, sampled."""
    return f"00-{_trace_id(run_id)}-{_digest(run_id, instance, str(attempt))[:16]}-01"


@lru_cache(maxsize=1)
def _trace_id(run_id: str) -> str:
    return _digest(run_id)[:32]


def _digest(*parts: str) -> str:
    return sha256_hex("\0".join(parts).encode())


# ---- the call of a Python step


def write_call(
    step: Step,
    *,
    args: Mapping[str, JSON],
    folder: RunFolder,
    instance: str,
    attempt: int,
    job_file: str,
    job_folder: str,
) -> str:
    """Write what `pystep.py` or `agentrun child` is to call; return the path. `args`: the step's `with`, resolved.

    The file may be torn by a crash: an attempt never outlives its start, and the next has a file of its own.
    """
    call: dict[str, JSON]
    if step.job is not None:
        call = {
            "file": step.job,
            "parent_file": job_file,
            "params": dict(args),
            "caller": [folder.run_id, instance],
            "root": folder.root,
            "output": folder.output(instance, attempt),
        }
    else:
        assert step.python is not None
        code = step.python
        call = {
            "module": code.module,
            "function": code.function,
            "source": code.source,
            "filename": job_file,
            "line": code.line,
            "args": dict(args),
            "output": folder.output(instance, attempt),
            "exception": folder.exception(instance, attempt),
            "job_folder": job_folder,
        }
    path = folder.call(instance, attempt)
    with open(effects.create(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(call, file)
    return path


# ---- env_file

_ENV_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
_ENV_BLANK = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_ENV_SINGLE = re.compile(r"'([^']*)'")
_ENV_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ENV_PLAIN = re.compile(r"(?:(?![ \t]#)[^\n])*")
_ENV_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\n": "", '"': '"', "\\": "\\", "$": "$", "`": "`"}


def read_env_file(path: str) -> dict[str, str]:
    """The variables of an env file: `KEY=value` lines, `#` comments, an `export` in front, values in quotes.

    In single quotes all stands as written, over lines too; in double quotes `\\n`, `\\"`, `\\\\` and the
    like are read. `$` is not expanded anywhere. NotFound, or JobFileError with every line that is wrong.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobFileError([Problem(path, 1, 1, f"the env_file is not UTF-8 (byte {error.start + 1})")])
    except OSError as error:
        raise NotFound(
            f"cannot read the env_file {path}: {error.strerror}", "create it, or take env_file out of the job"
        )
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    position = 0
    while position < len(text):
        blank = _ENV_BLANK.match(text, position)
        if blank:
            position = blank.end()
            continue
        try:
            key, value, position = _env_line(text, position)
            variables[key] = value
        except _BadLine as error:
            problems.append(_env_problem(path, text, error.position, error.message))
            position = (text.find("\n", position) + 1) or len(text)
    if problems:
        raise JobFileError(problems)
    return variables


class _BadLine(Exception):
    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


def _env_line(text: str, start: int) -> tuple[str, str, int]:
    """The variable that begins at `start`, and where the next line begins."""
    key = _ENV_KEY.match(text, start)
    if not key:
        raise _BadLine(
            start, "this is no KEY=value line (a name is letters, digits and _; comments begin with #)"
        )
    at = key.end()
    mark = text[at : at + 1]
    if mark not in ("'", '"'):
        plain = _ENV_PLAIN.match(text, at)
        assert plain
        value = plain.group().rstrip(" \t\r")
        if value.startswith("#"):
            value = ""
        end = plain.end()
    else:
        quoted = (_ENV_SINGLE if mark == "'" else _ENV_DOUBLE).match(text, at)
        if not quoted:
            raise _BadLine(at, f"the quote {mark} that begins here is never closed")
        value, end = quoted.group(1), quoted.end()
        if mark == '"':
            value = re.sub(r"\\(.)", lambda m: _ENV_ESCAPES.get(m[1], m[0]), value, flags=re.DOTALL)
    if "\0" in value:
        raise _BadLine(at, f"the value of {key[1]} has a NUL character: no environment can hold it")
    rest = _ENV_BLANK.match(text, end)
    if not rest:
        raise _BadLine(end, "text after the closing quote: put all of the value between the quotes")
    return key[1], value, rest.end()


def _env_problem(path: str, text: str, position: int, message: str) -> Problem:
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].split("\n", 1)[0]
    return Problem(path, text.count("\n", 0, position) + 1, position - start + 1, message, line.rstrip("\r"))
