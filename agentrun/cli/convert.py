"""`agentrun convert`: crontabs, shell scripts and Python scripts as job files, and a report of each line.

What a file is, is found out by its content. Everything is made before anything is written: a file that is there
already, or an entry that cannot be said, is found out first. Nothing runs, and no crontab is changed without --install.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from ..cron import places
from ..engine.clock import wall
from ..errors import CannotWrite, NotFound, UsageError
from ..health.crontab import who
from ..render.terminal import look_of, printable, talk
from ..render.words import count
from ..store.folders import home as state_folder
from . import install as installing
from . import scripts

if TYPE_CHECKING:
    from ..convert.crontab import Crontab
    from ..convert.notes import Note
    from ..render.convert import Made, Report

_MOST = 16 << 20  # bytes of a file
_STDIN = "standard input"
_OWN_PLACES = ("/etc/crontab", "/etc/cron.d/", "/var/spool/cron/")
_TAKE_LOGS = "Drop `>>log 2>&1`: `agentrun logs` has the output."
_OF_SCRIPTS = "In crontabs: the statements of the shell scripts that entries call, as the steps of their jobs."
_LOOPS = "In scripts: loops over a list as `foreach`, where they are independent."
_INSTALL = "Make the new crontab yours; a copy of the old one is kept."
Kind = Literal["crontab", "script"]


class Source(NamedTuple):
    """What is to be converted. `path`: None for standard input and for the crontab of this user."""

    name: str
    path: str | None
    data: bytes
    own: bool = False  # this user's crontab, as `crontab -l` shows it


class How(NamedTuple):
    output: str | None
    system: bool | None
    take_logs: bool
    loops: bool
    install: bool
    scripts: bool


def convert(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Crontabs or scripts; - or none: standard input.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT", help="A folder; for one script a file.")
    ] = None,
    as_kind: Annotated[
        str | None, typer.Option("--as", metavar="KIND", help="What the files are: crontab or script.")
    ] = None,
    system: Annotated[bool, typer.Option("--system", help="A crontab that names users, as in /etc/cron.d.")] = False,
    take_logs: Annotated[bool, typer.Option("--take-logs", help=_TAKE_LOGS)] = False,
    with_scripts: Annotated[bool, typer.Option("--scripts", help=_OF_SCRIPTS)] = False,
    loops: Annotated[bool, typer.Option("--loops", help=_LOOPS)] = False,
    install: Annotated[bool, typer.Option("--install", help=_INSTALL)] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    scan: Annotated[
        str | None, typer.Option("--scan", metavar="DIR", help="Only list what in a folder should be durable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Make job files of a crontab or of scripts, and say what became of each line.

    A crontab becomes a job file for each entry, and a crontab that runs them; its other lines stay to the byte. What
    people wrap around a command by hand becomes a key, where that is exactly the same: flock, timeout, cd, env files,
    sleep for a random time, chronic, pings of healthchecks.io, redirections to /dev/null, test … &&. All else stays as
    it is. What looks wrong in it today is said, and not mended.

    A shell script becomes a job whose steps are its own statements; a Python script one step. With --scripts an entry
    that only calls a shell script is one job with it: its times, and the statements of the script.

    Without -o everything is printed. Nothing that is there is written over without --force, nothing is run, and no
    crontab is changed without --install.
    """
    if scan is not None:
        return _scan(scan, files, as_json=as_json)
    if as_kind not in (None, "crontab", "script"):
        raise UsageError(f"--as says what the files are: crontab or script, and not {as_kind}")
    output = None if output == "-" else output  # as without it: everything is printed
    how = How(output, True if system else None, take_logs, loops, install, with_scripts)
    sources = _sources(files or [], install=install)
    if install and output is None:
        raise UsageError("--install needs -o DIR: the new crontab names the job files, which must stay somewhere")
    reports = _reports(sources, as_kind, how)
    made = [one for report in reports for one in report.files]
    if install:
        _refuse_install(sources[0], reports[0])
    if output is not None:
        _write(made, sources, force=force)
    _show(reports, made, written=output is not None, as_json=as_json)
    if install:
        _install(sources[0], reports[0])
    elif output is not None:
        _advise(reports)
    return 0


def _scan(folder: str, files: Sequence[str] | None, *, as_json: bool) -> int:
    if files:
        raise UsageError("--scan looks through its folder alone", f"without: {' '.join(map(printable, files))}")
    from ..render.scan import show_scan

    return show_scan(folder, as_json)


# -- what is given --------------------------------------------------------------------------------------------------


def _sources(files: Sequence[str], *, install: bool) -> list[Source]:
    if install and len(files) > 1:
        raise UsageError("--install makes one crontab yours: name one, or none for the one that you have")
    if files:
        return [_stdin() if name == "-" else _file(name) for name in files]
    piped = b"" if sys.stdin.isatty() else sys.stdin.buffer.read(_MOST + 1)
    if piped or not (install or sys.stdin.isatty()):
        return [_stdin(piped)]
    if install:
        data = places.read_crontab()
        if data is None:
            raise NotFound("you have no crontab", "crontab -e makes one; agentrun convert FILE takes a file")
        return [Source("your crontab", None, data, own=True)]
    raise UsageError("nothing to convert", "crontab -l | agentrun convert -o jobs, or: agentrun convert FILE")


def _stdin(data: bytes | None = None) -> Source:
    data = sys.stdin.buffer.read(_MOST + 1) if data is None else data
    _refuse_size(data, _STDIN)
    return Source(_STDIN, None, data)


def _file(name: str) -> Source:
    if os.path.isdir(name):
        hint = f"name the files in it, or: agentrun convert --scan {printable(name)}"
        raise NotFound(f"{printable(name)} is a folder", hint)
    try:
        with open(name, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise NotFound(f"{printable(name)} cannot be read: {error.strerror}") from None
    _refuse_size(data, name)
    return Source(name, name, data)


def _refuse_size(data: bytes, name: str) -> None:
    from ..convert.crontab import NotACrontab

    if len(data) > _MOST:
        raise NotACrontab(f"{printable(name)} is larger than {_MOST >> 20} MiB: neither a crontab nor a script", None)
    if not data.strip():
        raise NotACrontab(f"{printable(name)} is empty", "name a crontab or a script that does something")
    head = data[:4096]
    if sum(byte < 9 or 13 < byte < 27 for byte in head) > len(head) // 20:
        raise NotACrontab(f"{printable(name)} is binary: neither a crontab nor a script", "name the source of it")


def _reports(sources: Sequence[Source], as_kind: str | None, how: How) -> list[Report]:
    from ..convert import crontab

    kinds: list[Kind] = []
    for source in sources:
        found = crontab.kind_of(source.data, source.path) if as_kind is None else as_kind
        kinds.append("crontab" if found == "crontab" else "script")
    if how.install and kinds != ["crontab"]:
        raise UsageError("--install is for a crontab, and this is a script", "agentrun install JOB is for a job")
    tables, taken, reports = kinds.count("crontab"), set[str](), []
    for source, kind in zip(sources, kinds, strict=True):
        if kind == "crontab":
            reports += _crontab(source, how, taken, alone=tables == 1)
        else:
            reports.append(_script(source, how, taken, alone=len(sources) == 1))
    return reports


# -- crontabs -------------------------------------------------------------------------------------------------------


def _crontab(source: Source, how: How, taken: set[str], *, alone: bool) -> list[Report]:
    from ..convert import crontab, crontabs, shell
    from ..convert.cronjob import Wishes
    from ..render.convert import Made, Report

    crontab.refuse_long(source.data, source.name)
    table = crontab.read(source.data, system=how.system, path=source.path)
    crontab.refuse_none(table, source.name)
    folder = os.path.abspath(how.output or ".")
    here = source.own or how.install or source.path is None or os.path.abspath(source.path).startswith(_OWN_PLACES)
    inside = partial(shell.convert, loops=how.loops) if how.scripts else None
    wishes = Wishes(how.take_logs, inside, here, _homes(table), wall())
    target = crontabs.Target(folder, installing.command(), state_folder())
    found = crontabs.convert(table, wishes, target, taken)
    inside_of = dict(found.scripts)
    mode = _mode(source.path, 0o666 if table.system else 0o600)
    made = [
        Made(
            f"{job.name}.yaml", target.file(job.name), job.text.encode(), job.line, job.user,
            mode & _mode(inside_of[job.name].path, mode) if job.name in inside_of else mode,
        )
        for job in found.jobs
    ]  # fmt: skip
    if found.jobs:
        name = "crontab" if alone else f"crontab-{os.path.basename(source.path or 'stdin')}"
        made.append(Made(name, os.path.join(folder, name), found.crontab, mode=mode))
    notes = [*found.notes, *_of_users(table, found.jobs)]
    of_scripts = [
        Report(script.path, "script", [], script.notes, steps=(script.steps, f"{name}.yaml"))
        for name, script in found.scripts
    ]
    return [Report(source.name, "crontab", made, notes, found.kept), *of_scripts]


def _homes(table: Crontab) -> dict[str, str]:
    """The folders of those whose entries they are."""
    homes = {"": who(os.environ)[1]}
    for line in table.entries:
        try:
            homes[line.user] = homes[""] if not line.user else pwd.getpwnam(line.user).pw_dir
        except (KeyError, ValueError):
            continue
    return homes


def _of_users(table: Crontab, jobs: Iterable[object]) -> list[Note]:
    from ..convert.notes import Note

    others = sorted({line.user for line in table.entries if line.user and line.user != who(os.environ)[0]})
    if not table.system or not others:
        return []
    words = f"jobs of {', '.join(others)} are recorded in their own state folders, and must be readable to them"
    return [Note("advice", 0, words, f"as them: sudo -u {others[0]} agentrun status")]


# -- scripts --------------------------------------------------------------------------------------------------------


def _script(source: Source, how: How, taken: set[str], *, alone: bool) -> Report:
    from ..render.convert import Made, Report

    draft, notes, *_ = scripts.converted(source.data, source.path, loops=how.loops)
    name, number = draft.name, 1
    while name.lower() in taken:
        number += 1
        name = f"{draft.name}-{number}"
    taken.add(name.lower())
    path = os.path.abspath(f"{name}.yaml")
    if how.output is not None:
        into = not alone or os.path.isdir(how.output) or how.output.endswith("/")
        path = os.path.abspath(os.path.join(how.output, f"{name}.yaml") if into else how.output)
    try:
        text, _ = draft.checked(path)
    except ValueError as error:
        raise UsageError(f"{printable(source.name)} cannot stand in a job file: {error}") from error
    made = Made(os.path.basename(path), path, text.encode(), mode=_mode(source.path, 0o666))
    return Report(source.name, "script", [made], notes)


def _mode(path: str | None, otherwise: int) -> int:
    """Who may read what a file is made of: a crontab may be nobody else's business, and have a password in it."""
    if path is None:
        return otherwise
    try:
        return os.stat(path).st_mode & 0o666 | 0o600
    except OSError:
        return otherwise


# -- what is made ---------------------------------------------------------------------------------------------------


def _write(made: Sequence[Made], sources: Sequence[Source], *, force: bool) -> None:
    """All of it or nothing: whatever is in the way is found before the first is written. Raises CannotWrite."""
    read = {os.path.realpath(source.path) for source in sources if source.path is not None}
    if own := next((one.path for one in made if os.path.realpath(one.path) in read), None):
        raise CannotWrite(f"{printable(os.path.relpath(own))} is what was to be converted", "-o names another place")
    there = [one.path for one in made if os.path.lexists(one.path)]
    folders = [path for path in there if os.path.isdir(path)]
    if folders or (there and not force):
        names = ", ".join(printable(os.path.relpath(path)) for path in (folders or there)[:5])
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        hint = "-o names another place" if folders else "--force writes over it, -o names another place"
        raise CannotWrite(f"{names}{more}: there already; nothing was written", hint)
    umask = os.umask(0o077)
    os.umask(umask)
    folder = ""
    try:
        for folder in dict.fromkeys(os.path.dirname(one.path) for one in made):
            os.makedirs(folder, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "it is not yours to write to", folder)
        for one in made:
            folder = one.path
            places.put(one.path, one.text, one.mode & ~umask)
            if one.user and not one.mode & 0o004 and os.geteuid() == 0:  # as what it is made of: private, and theirs
                with suppress(LookupError):  # of another machine's crontab
                    shutil.chown(one.path, one.user)
    except OSError as error:
        raise CannotWrite(f"cannot write {printable(folder)}: {error.strerror}", "-o names another place") from error


def _show(reports: Sequence[Report], made: Sequence[Made], *, written: bool, as_json: bool) -> None:
    from ..render.convert import report_lines, report_shape
    from ..render.jsonshape import dumps

    if as_json:
        print(dumps([report_shape(report, texts=not written) for report in reports]), flush=True)
        return
    if not written:
        for number, one in enumerate(made):
            if len(made) > 1:
                print(f"{chr(10) if number else ''}# ---- {one.name} ----\n", flush=True)
            sys.stdout.flush()
            sys.stdout.buffer.write(one.text)
            sys.stdout.buffer.flush()
    look = look_of(sys.stderr)
    for number, report in enumerate(reports):
        between = "\n" if number else ""
        print(between + "\n".join(report_lines(report, look)), file=sys.stderr, flush=True)


def _advise(reports: Sequence[Report]) -> None:
    """What comes next."""
    for report in reports:
        if not report.files:
            continue
        folder = printable(os.path.relpath(os.path.dirname(report.files[0].path)))
        if report.kind == "crontab":
            table = report.files[-1]
            talk(f"{count(len(report.files) - 1, 'job file')} and {table.name} in {folder}; nothing is installed")
            if not any(made.user for made in report.files):
                talk(f"look at them, then: crontab {printable(os.path.relpath(table.path))}")
        else:
            talk(f"{printable(os.path.relpath(report.files[0].path))} is written")


# -- install --------------------------------------------------------------------------------------------------------


def _refuse_install(source: Source, report: Report) -> None:
    """What speaks against it, before anything is written. Raises UsageError, Missing."""
    if any(made.user for made in report.files):
        raise UsageError(
            "this is one of the system's crontabs: --install is for your own",
            "without --install the new one is written: look at it, and put it in its place",
        )
    if places.read_crontab() not in (source.data, *(made.text for made in report.files[-1:])):
        raise UsageError(
            f"your crontab is another one than {printable(source.name)}: nothing was written",
            "agentrun convert --install -o DIR converts yours; crontab FILE makes one yours",
        )
    installing.try_as_cron()


def _install(source: Source, report: Report) -> None:
    """Make the new crontab this user's, if the old one is still there. Raises UsageError, CannotWrite."""
    if not report.files:
        talk("nothing was installed: no entry has become a job")
        return
    fresh = report.files[-1].text

    def make(old: bytes | None) -> bytes | None:
        if old not in (source.data, fresh):
            hint = f"the files are written; look, then: crontab {printable(report.files[-1].path)}"
            raise UsageError("your crontab was changed meanwhile: it was not touched", hint)
        return fresh

    root = state_folder()
    os.makedirs(root, mode=0o700, exist_ok=True)
    changed = places.change_crontab(root, make)
    talk(
        f"{count(len(report.files) - 1, 'job file')} and the new crontab are in use; a copy of the old one is in"
        " backups/ of the state folder" if changed else "the crontab was so already"
    )  # fmt: skip
