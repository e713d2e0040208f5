"""`agentrun install JOB…`: let cron or systemd start jobs at their times, or print what would do so.

The order: every file is read and every objection made before anything is changed. Then the crontab or the units, then
the record. A kill in between leaves a job that is started as it should be, and that `uninstall` finds; installing again
completes it. What is as it should be is not written again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import typer

from ..cron import crontab, machine, places, systemd, units
from ..cron.attend import Attendance, two_files
from ..cron.ticks import Calendar, offsets
from ..engine.clock import wall
from ..engine.create import job_file
from ..engine.lease import this_process
from ..errors import AgentrunError, JobFileError, Missing, UsageError
from ..model import Job, Problem
from ..render.terminal import printable, talk
from ..spec.children import check_children
from ..spec.decode import load
from ..store.database import open_for_reading
from ..store.folders import home
from ..store.jobs import JobQuestions, JobRow, Jobs
from . import advance, cautions
from .complete import complete_job_file

_LOCALTIME = "/etc/localtime"
_PATIENCE = 60.0  # seconds for the program to say its version


class Entry(NamedTuple):
    """A job to be installed."""

    job: Job
    file: str
    text: str


def install(
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="Job files.", autocompletion=complete_job_file)
    ],
    cron: Annotated[bool, typer.Option("--cron", help="In your crontab: the default, where there is one.")] = False,
    use_systemd: Annotated[bool, typer.Option("--systemd", help="As a service and a timer of systemd.")] = False,
    user: Annotated[bool, typer.Option("--user", help="With --systemd: yours. The default, but for root.")] = False,
    system: Annotated[bool, typer.Option("--system", help="With --systemd: the machine's. Root's default.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print what would be written; change nothing.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="With --print: as a CronJob of Kubernetes.")] = False,
) -> None:
    """Let cron or systemd start jobs at the times of their schedules.

    In the crontab a marked block is written, at its end. It has the paths and the PATH of now, a line or more for each
    job, and lines that go on with what was cut off, at the boot and every minute. Nothing else in it is touched, and a
    copy of it is kept in backups/ of the state folder. Installing again changes nothing, unless something else has: a
    schedule, the PATH, where agentrun is. uninstall takes out exactly that.

    A job whose time zone is not the machine's gets more lines than one, and some starts that find nothing to do.

    Warnings say what looks wrong about a schedule, that something a job uses is not the same under cron, and that
    nobody would be told of a failure.
    """
    how = _how(cron, use_systemd, user, system, only_print, kubernetes)
    entries = _entries(jobs)
    if kubernetes:
        from ..cron.kubernetes import manifests

        print("---\n".join(manifests(entry.job, entry.text) for entry in entries), end="")
        return
    scope: units.Scope = "system" if system or (os.geteuid() == 0 and not user) else "user"
    if only_print:
        _refuse_others(entries, how, _known())
        _print(entries, how, scope)
        return
    with advance.open_store() as store:
        record = Jobs(store.database)
        _refuse_others(entries, how, record.jobs())
        left, text = list[str](), b""
        if how == "cron":
            changed, text = _into_crontab(entries, store.database.root)
        else:
            changed, left = units.add(scope, _units(entries, scope))
        installed = {"how": how}
        if how == "systemd":
            installed |= {"scope": scope, "folder": units.folder(scope)}
        recorded = [entry for entry in entries if _record(record, entry, installed)]
    where = "in the crontab" if how == "cron" else f"in {units.folder(scope)}"
    for entry in entries:
        times = ", ".join(schedule.text for schedule in entry.job.schedule)
        zone = f" ({entry.job.timezone})" if entry.job.timezone else ""
        news = "installed" if changed or entry in recorded else "installed already"
        talk(f"job {entry.job.name} is {news} {where}: {times}{zone}")
    _caution(entries, text)
    _advise(how, scope, left)


def _how(cron: bool, use_systemd: bool, user: bool, system: bool, only_print: bool, kubernetes: bool) -> str:
    """Cron or systemd. Raises UsageError, Missing."""
    if cron and use_systemd:
        raise UsageError("--cron and --systemd are two ways: take one of them")
    if (user or system) and (not use_systemd or (user and system)):
        raise UsageError("--user and --system say whose units --systemd writes: give one of them, together with it")
    if kubernetes:
        if not only_print or cron or use_systemd:
            raise UsageError(
                "--kubernetes goes with --print alone", "agentrun install --print --kubernetes JOB | kubectl apply -f -"
            )
        return "kubernetes"
    if cron or use_systemd:
        return "cron" if cron else "systemd"
    if places.has_crontab() or units.has_systemd():
        return "cron" if places.has_crontab() else "systemd"
    raise Missing(
        "this machine has neither a `crontab` command nor systemd",
        "install cron (Debian: the package cron), or let something else start `agentrun run JOB` and `agentrun resume`",
    )


def _entries(files: Iterable[str]) -> list[Entry]:
    """The jobs, each file once. Raises the only objection; says them all and leaves with the first one's status."""
    entries: dict[str, Entry] = {}
    errors: list[AgentrunError] = []
    for given in files:
        try:
            file = job_file(given)
            if os.path.realpath(file) in entries:
                continue
            job, text = load(file)
            problems = [*check_children(job, file, text), *_problems(job, file)]
            for other in entries.values():
                if other.job.name == job.name:
                    problems.append(_same_name(job.name, file, other.file))
            if problems:
                raise JobFileError(problems)
            entries[os.path.realpath(file)] = Entry(job, file, text)
        except AgentrunError as error:
            errors.append(error)
    _raise_all(errors)
    return list(entries.values())


def _raise_all(errors: Sequence[AgentrunError]) -> None:
    if len(errors) > 1:
        from .outcome import tell

        for error in errors:
            tell(error)
        raise typer.Exit(errors[0].exit_code)
    if errors:
        raise errors[0]


def _problems(job: Job, file: str) -> list[Problem]:
    """Why a right job file cannot be installed."""
    if not file.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in file):
        return [Problem(file, 1, 1, "the file's path has control characters in it", hint="move it to another one")]
    if not job.schedule:
        hint = 'say when it runs, at the top of the file, for example: schedule: "*/15 * * * *"'
        return [Problem(file, 1, 1, f"job {job.name} has no schedule: nothing says when to start it", hint=hint)]
    if Calendar(job.schedule, job.timezone).next(wall()) is None:
        times = ", ".join(schedule.text for schedule in job.schedule)
        return [Problem(file, 1, 1, f"the schedule of job {job.name} never comes: {times}")]
    return []


def _same_name(name: str, file: str, other: str) -> Problem:
    hint = f"give one of the two another 'name', or let go of the other one: agentrun uninstall {name}"
    return Problem(file, 1, 1, f"job {name} is the name of another job file too: {other}", hint=hint)


def _known() -> list[JobRow]:
    connection = open_for_reading(home())
    return [] if connection is None else JobQuestions(connection).jobs()


def _refuse_others(entries: Iterable[Entry], how: str, rows: Sequence[JobRow]) -> None:
    """Raises JobFileError for names that belong to other files, UsageError for jobs installed in the other way."""
    known = {row.name: row for row in rows}
    problems, elsewhere = [], []
    for entry in entries:
        row = known.get(entry.job.name)
        if row is None:
            continue
        other = os.path.realpath(row.file) != os.path.realpath(entry.file)
        if other and row.installed is not None:
            problems.append(_same_name(row.name, entry.file, row.file))
        elif other and row.schedule is not None and os.path.exists(row.file):
            problems.append(two_files(row.name, entry.file, row.file))
        elif row.installed is not None and row.installed["how"] != how:
            elsewhere.append(f"job {row.name} is installed already, by {row.installed['how']}")
    if problems:
        raise JobFileError(problems)
    if elsewhere:
        raise UsageError("\n".join(elsewhere), "take it out there first: agentrun uninstall JOB")


# -- crontab ---------------------------------------------------------------------------------------------------------


def _command(*words: str) -> list[str]:
    """This very program with this very Python, as whoever starts it has to call it."""
    return [os.path.abspath(sys.executable), "-P", "-m", "agentrun", *words]


def _cron_times(job: Job) -> list[str]:
    """The first five fields of a job's lines. Raises Missing for a zone that this machine does not have."""
    with _as_a_daemon():
        return machine.cron_times(job.schedule, job.timezone, offsets(job.timezone), offsets(None), wall() // 1000)


@contextmanager
def _as_a_daemon() -> Iterator[None]:
    """The machine's zone, as cron and systemd have it: without $TZ."""
    zone = os.environ.pop("TZ", None)
    time.tzset()
    try:
        yield
    finally:
        if zone is not None:
            os.environ["TZ"] = zone
        time.tzset()


def _settings(table: crontab.Table | None) -> dict[str, str]:
    """The environment that the lines or units need. `table`: the crontab that they go into."""
    path, left_out = crontab.search_path(
        os.environ.get("PATH", crontab.PATH),
        {folder: os.path.isdir(folder) for folder in os.environ.get("PATH", "").split(":")},
    )
    if left_out:
        talk(f"left out of the PATH: {', '.join(left_out)}")
    settings = {"SHELL": "/bin/sh"} if table is not None else {}
    settings["PATH"] = path
    moved = table is not None and table.above("HOME") is not None
    if os.environ.get("AGENTRUN_HOME") or moved or (os.geteuid() and os.environ.get("XDG_STATE_HOME")):
        settings["AGENTRUN_HOME"] = home()
    if os.environ.get("XDG_CONFIG_HOME"):
        settings["XDG_CONFIG_HOME"] = os.path.abspath(os.environ["XDG_CONFIG_HOME"])
    return settings


def _into_crontab(entries: Sequence[Entry], root: str) -> tuple[bool, bytes]:
    """Whether anything was to be changed, and the crontab as it is now."""
    sections = [_section(entry) for entry in entries]
    _try(_settings(None))
    if zone := os.environ.get("TZ"):
        talk(f"TZ={zone} is set here, and not where cron starts the jobs: there the machine's zone holds")

    made = b""

    def make(text: bytes | None) -> bytes | None:
        nonlocal made
        table = crontab.parse(text)
        _refuse_sections(sections, table.jobs)
        made = _with(table, sections)
        return made

    return places.change_crontab(root, make), made


def _section(entry: Entry) -> crontab.Section:
    words = _command("run", entry.file)
    return crontab.section(entry.job.name, entry.file, _cron_times(entry.job), words)


def _with(table: crontab.Table, sections: Sequence[crontab.Section]) -> bytes:
    names = {section.name for section in sections}
    others = [section for section in table.jobs if section.name not in names]
    settings = _settings(table)
    if others:
        _refuse_home([one.name for one in others], table.inside("AGENTRUN_HOME"), settings.get("AGENTRUN_HOME"))
    return table.with_jobs([*others, *sections], settings, _resume_lines())


def _refuse_home(others: Sequence[str], theirs: str | None, ours: str | None) -> None:
    """One installation has one state folder: another would move the record of the jobs that are there."""
    if theirs != ours:
        raise UsageError(
            f"what is installed is recorded in {theirs or 'the state folder of the system'} ({', '.join(others)}),"
            f" and AGENTRUN_HOME is {ours or 'not set'} here",
            "install with the same AGENTRUN_HOME, or uninstall them first",
        )


def _resume_lines() -> list[bytes]:
    """The lines for all jobs."""
    line = os.fsencode(crontab.command(_command("resume")))
    return [b"@reboot " + line, b"* * * * * " + line]


def _refuse_sections(sections: Iterable[crontab.Section], there: Iterable[crontab.Section]) -> None:
    """The same as `_refuse_others`, of what the crontab itself says. Raises JobFileError."""
    files = {section.name: section.file for section in there}
    problems = [
        _same_name(section.name, section.file, files[section.name])
        for section in sections
        if os.path.realpath(files.get(section.name, section.file)) != os.path.realpath(section.file)
    ]
    if problems:
        raise JobFileError(problems)


# -- systemd ---------------------------------------------------------------------------------------------------------


def _units(entries: Iterable[Entry], scope: units.Scope) -> list[systemd.Unit]:
    settings = _settings(None)
    names = {entry.job.name for entry in entries}
    if others := [one.name for one in units.installed(scope) if one.name not in names]:
        _refuse_home(others, units.setting(scope, "AGENTRUN_HOME"), settings.get("AGENTRUN_HOME"))
    _try(settings)
    return _unit_texts(entries, scope, settings)


def _unit_texts(entries: Iterable[Entry], scope: units.Scope, settings: dict[str, str]) -> list[systemd.Unit]:
    if scope == "system":
        settings["HOME"] = os.path.expanduser("~")
    made = systemd.resume_units(_command("resume"), settings)
    for entry in entries:
        if systemd.unit_name(entry.job.name) == systemd.RESUME:
            raise UsageError(
                f"the units of job {entry.job.name} would have the name of agentrun's own: {systemd.RESUME}.timer",
                "give the job another name",
            )
        zone = entry.job.timezone
        with _as_a_daemon():
            times = machine.calendar_times(entry.job.schedule, zone, offsets(zone), wall() // 1000)
        made += systemd.job_units(entry.job.name, entry.file, times, _command("run", entry.file), settings)
    return made


# -- both ------------------------------------------------------------------------------------------------------------


def command() -> list[str]:
    """This very program, for whoever writes a crontab of his own (`convert`)."""
    return _command()


def try_as_cron() -> None:
    """Raises Missing if it does not start in the environment of cron."""
    _try(_settings(None))


def _try(settings: dict[str, str]) -> None:
    """Start the program as it will be started. Raises Missing: it must not be found out at three in the morning."""
    folder = os.path.expanduser("~")
    environ = {"HOME": folder, "LOGNAME": os.environ.get("LOGNAME", ""), "SHELL": "/bin/sh", **settings}
    words = _command("--version")
    try:
        done = subprocess.run(
            words, env=environ, cwd=folder if os.path.isdir(folder) else "/", stdin=subprocess.DEVNULL,
            capture_output=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        said = os.fsdecode(done.stderr).strip().splitlines() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    if said is not None:
        raise Missing(
            f"in the environment of cron this program does not start: {(said or ['no word of why'])[-1]}",
            f"`env -i {' '.join(words)}` shows it; PYTHONPATH for example is not set there",
        )


def _record(record: Jobs, entry: Entry, installed: dict[str, Any]) -> bool:
    """Say in the record where it is; False if that stands there. Its ticks count from now on."""
    job = entry.job
    whole = {
        **installed,
        "schedule": [schedule.text for schedule in job.schedule],
        "timezone": job.timezone,
        "machine": os.path.realpath(_LOCALTIME),
    }
    row = record.job(job.name)
    new = row is None or row.installed != whole or row.file != entry.file
    if new:
        record.install(job.name, entry.file, whole)
    attendance = Attendance.of(job, entry.file)
    if attendance is not None and (row is None or row.schedule is None):
        now = wall()
        if (begun := attendance.begin(record, now)) is not None:
            record.settle(begun, now=now, by=f"{this_process()['user']} (install)")
    return new


def _print(entries: Sequence[Entry], how: str, scope: units.Scope) -> None:
    if how == "cron":
        text = _with(crontab.parse(b""), [_section(entry) for entry in entries])
        sys.stdout.write(os.fsdecode(text).encode("utf-8", "replace").decode())
        return
    for unit in _unit_texts(entries, scope, _settings(None)):
        print(f"# {printable(os.path.join(units.folder(scope), unit.name))}\n{unit.text}")


def _caution(entries: Sequence[Entry], text: bytes) -> None:
    """What may not be as it is meant. `text`: the crontab, empty where there is none."""
    table = cautions.as_cron_reads(text)
    for entry in entries:
        with _as_a_daemon():
            said = list(cautions.of_schedule(entry.job, wall()))
        if text:
            said += [*cautions.of_lines(entry.job, entry.file, table)]
            said += cautions.of_surroundings(entry.job, entry.file, table)
        for words in said:
            talk(f"warning: {words}")
    if text:
        for words in cautions.of_reports([entry.job for entry in entries], table):
            talk(f"warning: {words}")


def _advise(how: str, scope: units.Scope, left: Sequence[str]) -> None:
    """What is left to somebody else."""
    if left:
        talk("no systemd runs here that would start them; when one does, give it these commands:")
        for line in left:
            print(f"  {line}", file=sys.stderr)
    if how == "systemd" and scope == "user" and shutil.which("loginctl"):
        name = this_process()["user"]
        if not os.path.exists(f"/var/lib/systemd/linger/{name}"):
            talk(f"they run while you are logged in; also without you after: loginctl enable-linger {name}")
