"""`agentrun init 'COMMAND LINE'`: a first job file for what is in a crontab or a script now.

The command becomes the one step, in the folder of now; `commandline.py` says what is made of a script or of a line of a
crontab. All else that a job can say about it stands there as a comment, with what it is for. The file is read by our
own decoder before it is written, and never takes the place of another one.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from ..errors import CannotWrite, JobFileError, UsageError
from ..render.problems import problem_lines
from ..render.terminal import look_of, printable, talk
from ..spec.decode import decode
from ..spec.fields import JOB_NAME
from ..spec.quoting import quoted, scalar
from .commandline import Wanted, wanted

_EXAMPLE = "17 3 * * *"
# programs that start the one that is meant, and those whose script is meant
_WRAPPERS = {
    "env", "exec", "nice", "ionice", "nohup", "time", "timeout", "flock", "sudo", "chronic", "setsid", "command",
}  # fmt: skip
_INTERPRETERS = {"sh", "bash", "dash", "zsh", "python", "python3", "perl", "ruby", "node", "php", "Rscript"}
_FILLERS = {"cd", "source", ".", "set", "export", "test", "[", "if", "then", "(", "{", "!", "&&", "||", ";", "&", "|"}


def init(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="A command line, a line of a crontab, or the path of a script.")
    ],
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="CRON", help=f"When cron is to start it: '{_EXAMPLE}'.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The job file; - is standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write it even where there is a file already.")] = False,
) -> int:
    """Write a commented job file for a command line.

    The name of the job and of its file comes from the program, or the other way round with -o. Quote the command line,
    so that the shell gives it to agentrun as it is.
    """
    meant = wanted(command, schedule)
    name = _name(meant.command)
    if output is None:
        output = f"{name}.yaml"
    elif output != "-":
        stem = os.path.splitext(os.path.basename(output))[0]
        name = stem if re.fullmatch(JOB_NAME, stem) else name
    text = _text(name, meant, output)
    _check(text, meant, output)
    if output == "-":
        print(text, end="", flush=True)
        _say(meant.notes)
        return 0
    _write(output, text, force)
    shown = shlex.quote(printable(output))
    print(printable(output))
    for line in (
        f"look at it, then: agentrun validate {shown}",
        f"try it:           agentrun run {shown}",
        f"let cron run it:  agentrun install {shown}" if meant.schedule else
        f"let cron run it:  give it a schedule, then agentrun install {shown}",
    ):  # fmt: skip
        talk(line)
    _say(meant.notes)
    return _complain(text, output)


def _name(command: str) -> str:
    """Of the program that is meant: `backup` for `nice -n 5 /opt/backup.sh --all`."""
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        words = command.split()
    found = ""
    after_cd = False
    for word in words:
        base = os.path.basename(word.rstrip("/"))
        plain = re.sub(r"[\d.]+$", "", base) in _INTERPRETERS
        skipped = (
            after_cd or base in _WRAPPERS or word in _FILLERS or word.startswith("-") or "=" in word.split("/")[0]
            or not re.search("[A-Za-z]", base) or re.fullmatch(r"[\d.]+[smhd]?|[;&|()<>]+", word)
        )  # fmt: skip
        after_cd = word in ("cd", ".", "source")
        if skipped:
            continue
        found = found or base
        if not plain:
            found = base
            break
    stem = os.path.splitext(found)[0].lstrip(".") or found
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64]
    return name if re.fullmatch(JOB_NAME, name) else "job"


def _text(name: str, meant: Wanted, output: str) -> str:
    path = shlex.quote(output) if output != "-" else f"{name}.yaml"
    shown = path if path.isprintable() else f"{name}.yaml"
    schedule = f"schedule: {quoted(meant.schedule)}" if meant.schedule else f'# schedule: "{_EXAMPLE}"'
    step = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    step = step if re.match("[A-Za-z_]", step) else f"run-{step}"[:64]
    return f"""\
# A job of agentrun. A line that begins with `# ` and a key is an offer: take the `# ` away to have it.
# All keys are in agentrun.yaml(5); `agentrun validate {shown}` checks what you write.

name: {scalar(name, 0)}

# When cron starts it (minute, hour, day, month, weekday), once `agentrun install {shown}` has told it.
{schedule}

# A time that is missed, because the machine was off, is made up for: by the latest one, by all, or by none.
# catch_up: latest

# What becomes of a start while the last run is still at work: forbid (skipped, and recorded), queue, replace, allow.
# concurrency: forbid

# The folder in which it runs.
working_dir: {scalar(meant.folder, 0)}

# Cron gives it next to no environment: no profile is read, PATH is /usr/bin:/bin, there is no LANG.
# `agentrun env --as-cron --explain {shown}` says what that means for this job.
# env: {{PATH: "/usr/local/bin:/usr/bin:/bin", LANG: C.UTF-8}}

# How long all of it may take.
# deadline: 2h

# sh ends at the first command that fails, but calls a pipe good if its last command is; bash calls it failed if any is.
{"" if meant.shell else "# "}shell: {meant.shell or "bash"}

# How many finished runs are kept, with their logs, and for how long; what is beyond any of it is removed.
# keep: {{runs: 200, days: 30}}

steps:
- id: {scalar(step, 2)}
  run: {scalar(meant.command, 2)}

  # An attempt that hangs is ended after so long, with all that it has started; without, it hangs until you look.
  # timeout: 1h

  # What fails may be tried again; the pauses grow.
  # retry: {{max_attempts: 3, interval: 30s}}

  # Cut off in the middle, by a kill or a reboot, nobody knows how far it came. rerun (the default) does it again: right
  # for what can be done twice. ask waits for you, fail and skip do not run it, verify lets a command find out.
  # on_interrupt: ask

# Long scripts become several steps: what is done is not done again after a failure or a reboot.
# - id: report
#   run: ./report.sh

# Runs only if a step has failed. Cron mails the report of a failure by itself.
# - id: page
#   run: ./page.sh
#   when: on_failure
"""


def _check(text: str, meant: Wanted, output: str) -> None:
    """That it says what it is to say."""
    try:
        job = decode(text, "job.yaml" if output == "-" else output)
    except JobFileError as error:
        problem = error.problems[0]
        what = "the schedule" if "schedule" in problem.source.partition(":")[0] else "the command line"
        raise UsageError(f"{what} cannot stand in a job file: {problem.message}", problem.hint) from error
    if job.steps[0].run != meant.command or job.working_dir != meant.folder:
        raise UsageError("the command line cannot stand in a job file as it is", "put it into a script, and name that")


def _write(output: str, text: str, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(output, flags, 0o666), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        hint = "--force writes over it, -o FILE names another"
        raise CannotWrite(f"{printable(output)} is there already", hint) from None
    except OSError as error:
        message = f"cannot write {printable(output)}: {error.strerror}"
        raise CannotWrite(message, "-o FILE names another place") from error


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        talk(note)


def _complain(text: str, output: str) -> int:
    """What a look at the program of the step finds: 65 if its shell cannot read it, a word if it is not there."""
    from .absent import absent
    from .programs import check

    job = decode(text, output)
    _say(problem.message for problem in absent(job, text, output))
    found = check(job, text, output)
    if found.problems:
        print("\n".join(problem_lines(found.problems, look_of(sys.stderr))), file=sys.stderr)
        return 65
    return 0
