"""The manual: agentrun(1) made from the commands themselves, so that it cannot say anything else.

`page()` is mdoc(7) source. Commands, their arguments and options come from typer, the prose around them stands
below. A sentence begins on a line of its own, as mdoc wants it, and `mandoc -T lint` has nothing to say.
agentrun.yaml(5) is made by `spec/manual.py` from the table of fields; `agentrun manual` writes both.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..render.terminal import talk

_DATE = "November 20, 2026"

_HEAD = f""".Dd {_DATE}
.Dt AGENTRUN 1
.Os
.Sh NAME
.Nm agentrun
.Nd turn cron scripts into durable jobs
.Sh SYNOPSIS
.Nm agentrun
.Ar command
.Op Ar options
.Op Ar arguments
"""

_DESCRIPTION = """
A job is a YAML file of steps, which are shell commands or Python functions; `agentrun.yaml(5)` describes it.
`agentrun run` executes it, and records the outcome of each step before it goes on.
A step that is recorded as done is never run again: after a kill, a crash or a reboot, `agentrun resume` goes on
with the step that was interrupted. There is no daemon and no server: cron or systemd starts the jobs, and
`agentrun install JOB` writes the lines for that: one for the job, and two for `agentrun resume`, at the boot and every
minute, which goes on with what a kill or a reboot cut off, and runs or records what was missed meanwhile.

Runs of one job exclude each other, unless its file says otherwise. A tick that is skipped for that, or missed, is on
record: `agentrun ticks JOB` shows what became of each.

`agentrun doctor` says whether this machine, the record and the crontab are fit for all that, and what to do where they
are not.

A run with `--detach` goes on without anybody who could be told of its failure: look with `agentrun status`.

A run is named by its id, by a unique start or end of it, by its job's name (the latest run), as `JOB~2` (the one
two before the latest), or as the lines of its log name it (`quotes/7f3a`).

Data goes to standard output, everything else to standard error. Without a terminal, `run` and `resume` print
nothing as long as all goes well, and a report of at most 40 lines if it does not: what cron mails.

With `--json`, lists are one array, streams are JSON lines, and every object names its shape and version under
`schema`. Times are RFC 3339 in UTC with milliseconds. Keys may be added, and are never changed.
"""

_CONVERSION = """
`agentrun convert` makes job files of what cron runs today. Of a crontab it makes one for each entry, and a crontab in
which these entries run `agentrun run FILE`, with two lines for `agentrun resume` at its end; its other lines stay to
the byte. A line is kept as it is, and the report says why, where cron itself does not take it, where it is not UTF-8,
or where a forgotten backslash before a % cuts its command off.

The variables above an entry are its env; SHELL is its shell, HOME the folder it begins in, CRON_TZ its timezone.
Comments right above it are its description. What stands behind a % is its input.

Around a command, from the outside in, these are taken off. All else stays as it is, in one step, with the shell that
cron would have given it.
"""
_LIFTED = (
    ("flock -n LOCK", "concurrency: forbid, with a key where several entries take the lock; without -n it is queue."),
    ("timeout -k 10 5m", "timeout: 5m, grace: 10s."),
    ("cd X &&", "working_dir."),
    ("set -a; . FILE; set +a", "env_file, where a shell and agentrun read the same in it."),
    ("export A=b &&", "env."),
    ("sleep $((RANDOM % 300))", "jitter: 5m."),
    ("test … &&, [ … ] ||, pgrep … ||", "if, which is no failure where the answer is no."),
    ("chronic, cronic, nohup … &, >/dev/null", "Nothing at all: a run prints nothing unless it fails, and has a log."),
    ("&& curl https://hc-ping.com/…", "notify: ping, which tells of starts and failures, too."),
    ("a && b && c", "Steps, where none of them leaves anything in the shell for the next."),
    (">>log 2>&1", "Stays, unless with --take-logs."),
    ("/opt/backup.sh, and nothing more", "With --scripts the statements of the script, as steps (carry: shell)."),
)
_AFTER_CONVERSION = """
What differs after that: two runs of one job do not overlap; a status other than 0 is a failure, and told; on success
nothing is printed, and so nothing mailed; a run that a reboot cut off goes on.
"""

_EXITS = (
    ("0", "The run has succeeded, also if it had already; or the command has done what it was asked for."),
    ("1", "logs --grep has found nothing; a check of doctor is not good."),
    ("1-255", "The status of the first step that failed: 128+n if signal n ended it, 124 if its timeout did."),
    ("2", "The command line makes no sense."),
    ("65", "The job file is wrong."),
    ("66", "A file or a run is not there."),
    ("69", "Something that is needed is missing."),
    ("70", "A mistake in agentrun itself."),
    ("73, 74", "Something cannot be written; the disk, the system or the database failed."),
    ("75", "Not finished now, and nothing is wrong: another process advances the run, it waits for an answer or for its"
     " turn, or it is skipped because another run is at work, or the job is paused."),
    ("124", "The deadline of the run."),
    ("125", "The budget of the run."),
    ("130, 143", "Stopped by a signal; agentrun resume goes on."),
)

_ENVIRONMENT = (
    (
        "AGENTRUN_HOME",
        "The state folder. Without it /var/lib/agentrun for root, else agentrun below XDG_STATE_HOME, which is"
        " ~/.local/state if it is not set.",
    ),
    ("NO_COLOR", "If not empty, nothing is coloured."),
    ("COLUMNS, LINES", "The size of the terminal, if it is not what the terminal says."),
    ("AGENTRUN_DEBUG", "If not empty, a mistake in agentrun shows where it happened."),
)

_FILES = (
    ("agentrun.db", "In the state folder: the record, an SQLite database. Its views job_status, step_history and"
     " journal are there to be queried."),
    ("config.yaml", "In the folder agentrun of XDG_CONFIG_HOME, which is ~/.config if it is not set: what holds for all"
     " jobs, see agentrun.yaml(5)."),
    ("runs/ID", "In the state folder: the logs, the results and the scratch folder of a run."),
    ("pruned", "In the state folder: folders of runs that are about to be deleted, and when that is due again."),
    ("jobs/JOB", "In the state folder: what the steps of a job keep from run to run."),
)  # fmt: skip


def manual(
    write: Annotated[
        str | None, typer.Option("--write", metavar="DIR", help="Write agentrun.1 and agentrun.yaml.5 there.")
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="DIR", help="Only say whether those there are current.")
    ] = None,
) -> int:
    """Write the manual pages."""
    from ..spec.manual import page as yaml_page

    pages = {"agentrun.1": page(), "agentrun.yaml.5": yaml_page()}
    if write is None and check is None:
        print(pages["agentrun.1"], end="")
    stale = 0
    for name, text in pages.items():
        if check is not None and _read(os.path.join(check, name)) != text:
            talk(f"{os.path.join(check, name)} is not what the program makes now: agentrun manual --write {check}")
            stale = 1
        if write is not None:
            with open(os.path.join(write, name), "w", encoding="utf-8") as file:
                file.write(text)
    return stale


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def page() -> str:
    """agentrun(1), as mdoc source."""
    lines = [_HEAD.rstrip("\n"), ".Sh DESCRIPTION", *_prose(_DESCRIPTION), ".Sh COMMANDS"]
    lines += _commands()
    lines += [".Sh CONVERSION", *_prose(_CONVERSION)]
    lines += [*_items("", tuple((_escape(title), text) for title, text in _LIFTED)), *_prose(_AFTER_CONVERSION)]
    lines += [".Sh ENVIRONMENT", *_items("Ev", _ENVIRONMENT)]
    lines += [".Sh FILES", *_items("Pa", _FILES)]
    lines += [".Sh EXIT STATUS", *_items("", _EXITS)]
    lines += [".Sh SEE ALSO", *_prose("`agentrun.yaml(5)`, `crontab(5)`")]  # .Xr is checked against this machine
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[str]:
    from .app import VERBS, program

    group = program()
    top = typer.Context(group, info_name="agentrun")
    for name, verb in VERBS.items():
        if verb.hidden:
            continue
        command = group.commands[name]
        context = typer.Context(command, info_name=name, parent=top)
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option"]
        yield f".Ss agentrun {name}"
        yield f".Nm agentrun {name}"
        if options:
            yield ".Op Ar options"
        for argument in arguments:
            metavar = argument.make_metavar(context).strip("[]").removesuffix("...")
            dots = " ..." if argument.make_metavar(context).endswith("...") else ""
            yield f".{'' if argument.required else 'Op '}Ar {metavar}{dots}"
        yield ".Pp"
        yield from _prose(command.help or verb.summary)
        if options:
            yield ".Bl -tag -width Ds"
            for option in options:
                yield f".It {_flags(option, context)}"
                yield from _prose(option.help or "")
            yield ".El"


def _flags(option: Any, context: Any) -> str:
    value = "" if option.is_flag else f" Ar {option.make_metavar(ctx=context)}"
    # \- is the hyphen of the command line; a long option is "-" and its name to mdoc
    return " , ".join(f"Fl {flag[1:].replace('-', chr(92) + '-')}{value}" for flag in (*option.opts,))


def _items(macro: str, items: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for title, text in items:
        yield f".It {macro} {title}" if macro else f".It {title}"
        yield from _prose(text)
    yield ".El"


def _prose(text: str) -> Iterator[str]:
    """Paragraphs, a sentence on each line; a paragraph that is one line of code stands by itself."""
    first = True
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if not first:
            yield ".Pp"
        first = False
        whole = " ".join(paragraph.split())
        if whole.startswith("# ") or re.match(r"\d{4}-\d\d-\d\dT", whole):
            yield f".Dl {_escape(whole)}"
            continue
        for sentence in re.split(r"(?<=[a-z)`\]][.:]) (?=[A-Z`])", whole):
            for line in textwrap.wrap(sentence, 72, break_long_words=False, break_on_hyphens=False):
                yield _escape(line)


def _escape(text: str) -> str:
    """What roff would take for its own, written so that it does not; `code` becomes bold."""
    text = text.replace("\\", "\\e")
    text = re.sub(r"(?<!\w)-(?=-?\w)", r"\\-", text).replace("~", r"\(ti").replace("^", r"\(ha")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", text)
    return "\\&" + text if text[:1] in (".", "'") else text
