"""`agentrun notify JOB`: try who is told of a job, or show what was told."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, get_args

import typer

from ..errors import AgentrunError, Missing, UsageError
from ..instants import rfc3339
from ..model import Event, Notify, Target
from ..notify import words
from ..notify.hearers import hearers, target_of
from ..notify.senders import Letter, Senders
from ..render import jsonshape
from ..render.notices import notice_lines, notice_shape, target_names, target_text
from ..render.terminal import look_of, talk
from ..render.times import now_ms
from ..spec.decode import load
from ..store.notices import NoticeQuestions
from . import complete as offers
from .names import find_job
from .record import need_record, open_record

_STATUS = {"failure": 1, "success": 0}
_PINGED = ("failure", "success", "start")
_EVENTS = (*get_args(Event), "start")


def notify(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's name, or its file.", autocompletion=offers.complete_run)
    ],
    event: Annotated[
        str | None,
        typer.Option(
            "--event",
            metavar="EVENT",
            help=f"What it says: {', '.join(get_args(Event))}; failure without it. A monitor is pinged only where this"
            " names failure, success or start.",
        ),
    ] = None,
    shown: Annotated[
        bool, typer.Option("--list", help="Send nothing: show what was told of the job, the newest first.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="With --list: so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Send a notice to all targets of a job now, and show what came of each.

    It says that it is a test, and is recorded nowhere. A ping says nothing but what it stands for, so that the monitor
    would take the test for the real thing: pings are left out, unless --event says failure, success or start, which is
    what the monitor then hears. The exit status is 1 if a target did not take it.
    """
    if shown:
        return _list(job, limit, as_json=as_json)
    if event is not None and event not in _EVENTS:
        raise UsageError(f"there is no event '{event}'", f"events are {', '.join(_EVENTS)}")
    name, file = find_job(open_record(), job)
    decoded, _ = load(file)
    told = hearers(decoded, talk)
    if told is None:
        hint = "agentrun.yaml(5) describes it under notify; config.yaml can say it for all jobs"
        raise Missing(f"nobody is told of job {name}: neither its file nor config.yaml has a notify", hint)
    says = event or "failure"
    if says not in told.on and says != "start":
        talk(f"of {says} nobody but pings is told in earnest: 'on' is {', '.join(told.on)}")
    failed = 0
    names = target_names(told.to)
    for target, error in _try(_targets(told, event), _test(name, says), os.path.dirname(file)):
        failed += error is not None
        outcome = {"target": target_text(target, names), "sent": error is None, "error": error}
        line = f"{outcome['target']}: {'sent' if error is None else error}"
        print(jsonshape.line({"schema": "agentrun.notice-test/1", **outcome}) if as_json else line, flush=True)
    return 1 if failed else 0


def _targets(told: Notify, event: str | None) -> list[Target]:
    """Whom the test is for: of pings only those that somebody wants to be sent what they stand for."""
    pings = [target for target in told.to if target.kind == "ping"]
    if event == "start":
        if len(pings) < len(told.to):
            talk("only pings tell of a start: the other targets are left out")
        return pings
    if event in _PINGED or not pings:
        return list(told.to)
    why = f"they tell of starts and ends of runs, and nothing of {event}"
    if event is None:
        why = "the monitor would take it for the end of a run; --event success sends it one"
    talk(f"pings are left out: {why}")
    return [target for target in told.to if target.kind != "ping"]


def _test(name: str, event: str) -> dict[str, object]:
    now = now_ms()
    text = f"This is a test of who is told of job {name}, sent by hand at {rfc3339(now)}. Nothing has happened."
    said = words.notice(event, name, now, exit_code=_STATUS.get(event), text=[text])
    return said | {"test": True}


def _try(targets: Sequence[Target], said: dict[str, object], folder: str) -> Iterator[tuple[Target, str | None]]:
    """Each target, as it answers, and why it did not take it."""
    under_way: Senders[Target] = Senders(max(len(targets), 1))
    for target in targets:
        under_way.start(target, Letter(target, said, uuid.uuid4().hex, folder))
    while under_way.tokens:
        yield from under_way.wait(60)


def _list(job: str, limit: int, *, as_json: bool) -> int:
    record = need_record()
    name, file = find_job(record, job)
    rows = [
        (notice, target_of(notice.target) if notice.target else None)
        for notice in NoticeQuestions(record.reader.connection).of_job(name, limit=limit)
    ]
    names = target_names([*_targets_now(file), *(target for _, target in reversed(rows) if target)])
    if as_json:
        print(jsonshape.dumps([notice_shape(*row, names) for row in rows]))
    elif rows:
        print("\n".join(notice_lines(rows, names, look_of(sys.stdout), now_ms())))
    else:
        talk(f"nothing was told of job {name}")
    return 0


def _targets_now(file: str) -> Sequence[Target]:
    """Whom the job file names today, so that each has the number here that the test gives it; gone: nobody."""
    with suppress(AgentrunError, OSError):
        told = hearers(load(file)[0])
        return told.to if told is not None else ()
    return ()
