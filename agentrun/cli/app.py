"""The program: its verbs, and typer's part in them.

A command imports only what it uses. The table of verbs says what each is for; the module of a verb,
`cli/<verb>.py` with a function of that name, is imported when the verb is asked for, and typer makes a command
of that function. So `agentrun status` never loads the YAML parser, and `agentrun --help` loads no verb at all.

A line that needs no parser does not come here (`direct.py`); errors become words in `outcome.py`, but for mistakes in
the command line, which are typer's and leave with 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from .. import __version__
from .outcome import complain, guarded, say


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: what it is for in one line (the first of its docstring), and where it stands in the help."""

    summary: str
    family: str
    module: str | None = None

    @property
    def hidden(self) -> bool:
        return not self.family


VERBS = {
    "run": Verb("Run a job and wait for its end.", "Run", "parsed"),
    "resume": Verb("Go on with runs that were interrupted or have failed.", "Run", "parsed"),
    "cancel": Verb("End a run: its steps are ended, its `always` steps still run.", "Run"),
    "status": Verb("Show how the runs stand, or one run and its steps.", "Look"),
    "logs": Verb("Show what the steps of a run wrote.", "Look"),
    "events": Verb("Show the journal: what happened, when, and by whom.", "Look"),
    "install": Verb("Let cron or systemd start jobs at the times of their schedules.", "Schedules"),
    "uninstall": Verb("Take jobs out of the crontab or systemd again, and no longer count their ticks.", "Schedules"),
    "next": Verb("Show when a job is due, and what looks wrong about its schedule.", "Schedules"),
    "ticks": Verb("Show what became of a job's ticks: which ran, which were skipped or missed, and why.", "Schedules"),
    "pause": Verb("Let the ticks of a job be skipped until `unpause`.", "Schedules"),
    "unpause": Verb("Let the ticks of a paused job run again.", "Schedules", "pause"),
    "backfill": Verb("Run the ticks of a time that has gone by, oldest first: those that have not run.", "Schedules"),
    "doctor": Verb("Check what agentrun stands on: this machine, the record, the runs and the crontab.", "Look"),
    "prune": Verb("Remove old runs, with their logs and all else in their folders.", "Look"),
    "notify": Verb("Send a notice to all targets of a job now, and show what came of each.", "Look"),
    "convert": Verb("Make job files of a crontab or of scripts, and say what became of each line.", "Job files"),
    "init": Verb("Write a commented job file for a command line.", "Job files"),
    "validate": Verb("Check job files and show everything that is wrong in them.", "Job files"),
    "plan": Verb("Show what a run of a job would do, and in which order.", "Job files"),
    "env": Verb("Show the environment that a step's process is given.", "Job files"),
    "schema": Verb("Print the JSON Schema of job files, for editors.", "Job files"),
    "usage": Verb("Say, inside a step, what a call of a model used.", "Steps"),
    "supervise": Verb("Advance a run silently: what shims and `--detach` start.", "", "parsed"),
    "tick": Verb("Run or record what a job has missed.", ""),
    "child": Verb("Advance the run that a step with `job` is: what shims start.", "", "parsed"),
    "deliver": Verb("Send the notices that are due, and record what came of it.", ""),
    "manual": Verb("Write the manual pages.", ""),
}


class _Commands(MutableMapping[str, Any]):
    """The commands by name, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in VERBS:
                raise KeyError(name)
            function = getattr(import_module(f"{__package__}.{VERBS[name].module or name}"), name)
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(name, hidden=VERBS[name].hidden)(function)
            self._made[name] = get_command(app)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class _Program(TyperGroup):
    """The group of all verbs, which lists them from the table."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": {}})
        self.commands = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        families: dict[str, list[tuple[str, str]]] = {}
        for name, verb in VERBS.items():
            if not verb.hidden:
                families.setdefault(verb.family, []).append((name, verb.summary))
        for family, rows in families.items():
            with formatter.section(family):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from .complete import verbs

        return verbs(incomplete)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"agentrun {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Turn cron scripts into durable jobs: checkpointed steps that survive kills, crashes and reboots.

    A run is named by its id, a unique start or end of it, its job's name (the latest run), or JOB~2 (two before).
    """


def program() -> Any:
    """The whole command line, as typer's group."""
    app = typer.Typer(
        cls=_Program,
        callback=_program,
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog="agentrun COMMAND --help shows the options of a command. "
        "The manual: agentrun(1), and agentrun.yaml(5) for job files.",
    )
    return get_command(app)


def run_app(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit status. Never raises, but for SystemExit."""
    return guarded(lambda: _parse(sys.argv[1:] if argv is None else list(argv)))


def _parse(arguments: list[str]) -> object:
    try:
        return program().main(arguments, prog_name="agentrun", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        return _usage(error)


def _usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if message.startswith("Usage:"):  # the help, where no command was given
        say(message)
        return error.exit_code
    hint = f"{context.command_path} --help" if context is not None else "agentrun --help"
    more = "; what a script is given stands behind a --" if hint == "agentrun run --help" else ""
    complain(message[:1].lower() + message[1:], f"`{hint}` shows what it takes{more}")
    return error.exit_code
