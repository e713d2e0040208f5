"""The command lines of the verbs that advance a run, apart from their work.

Here is what typer parses; `run.py`, `resume.py` and `child.py`, which do the work, load no typer: a line without
options is called by `direct.py` as it is, and its supervisor, which may live for days, is the smaller for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .complete import complete_job_file, complete_run, complete_step

_NO_TICK = "Belong to no tick, although there is no terminal: a run besides those of the schedule."
_Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="A run: its id, a unique part of it, a job's name, or JOB~2.",
        autocompletion=complete_run,
    ),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STEP",
        help="Do it again from this step, as a new run with new keys.",
        autocompletion=complete_step,
    ),
]
_TookPlace = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP",
        help="The answer: the interrupted step did its work, and has succeeded. May be given again.",
        autocompletion=complete_step,
    ),
]
_Rerun = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP", help="The answer: it did not, run it again. May be given again.", autocompletion=complete_step
    ),
]


def run(
    job: Annotated[
        str, typer.Argument(help="The job file, or a script.", metavar="JOB", autocompletion=complete_job_file)
    ],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG...]", help="What a script is given as $1, $2 and so on; behind a --."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help="A parameter of the job; may be given again."),
    ] = None,
    run_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key again is the same run: nothing happens twice."),
    ] = None,
    scheduled_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The tick that this run is for, in RFC 3339; it is also its key."),
    ] = None,
    no_tick: Annotated[bool, typer.Option("--no-tick", help=_NO_TICK)] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Go on in the background; print the run's id. Nobody is told of a failure: look with `status`.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished run as JSON.")] = False,
) -> int:
    """Run a job and wait for its end.

    On a terminal progress is shown. Elsewhere nothing is printed on success, and a short report on failure. Started
    without a terminal, a job with a schedule runs for its newest tick, once, whoever starts it. A shell script is run
    as the job that `agentrun convert` would make of it, without a file being written.
    """
    from .run import run as work

    return work(
        job,
        args or (),
        param=param or (),
        run_key=run_key,
        scheduled_time=scheduled_time,
        no_tick=no_tick,
        detach=detach,
        as_json=as_json,
    )


def resume(
    run: _Run = None,
    from_step: _From = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be reused and what would run; do nothing.")
    ] = False,
    took_place: _TookPlace = None,
    rerun: _Rerun = None,
    spec: Annotated[
        str | None, typer.Option(metavar="FILE", help="Go on with this job file instead of the run's own.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --spec: although finished steps differ there.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="End the process that holds the run, and take it over.")
    ] = False,
    env_here: Annotated[
        bool, typer.Option("--env-here", help="Go on in this environment where the run's own is gone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished run as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name the runs that others advance.")] = False,
) -> int:
    """Go on with an interrupted or failed run; without RUN, with every run that was interrupted."""
    from .resume import resume as work

    return work(
        run,
        from_step=from_step,
        plan=plan,
        took_place=took_place or (),
        rerun=rerun or (),
        spec=spec,
        accept_changes=accept_changes,
        force=force,
        env_here=env_here,
        as_json=as_json,
        verbose=verbose,
    )


def supervise(run: Annotated[str, typer.Argument()]) -> int:
    """Advance a run silently: what shims and `--detach` start."""
    from .resume import supervise as work

    return work(run)


def child(call: Annotated[str, typer.Argument()]) -> int:
    """Advance the run that a step with `job` is: what shims start."""
    from .child import child as work

    return work(call)
