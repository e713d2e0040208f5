"""`agentrun notify JOB`: try who is told of a job, or show what was told."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Annotated, get_args

import typer

from ..errors import Missing, UsageError
from ..instants import rfc3339
from ..model import Event, Target
from ..notify import words
from ..notify.hearers import hearers, target_of
from ..notify.senders import Letter, Senders
from ..render import jsonshape
from ..render.notices import notice_lines, notice_shape, target_text
from ..render.terminal import look_of, talk
from ..render.times import now_ms
from ..spec.decode import load
from ..store.notices import NoticeQuestions
from . import complete as offers
from .names import find_job
from .record import need_record, open_record

_STATUS = {"failure": 1, "success": 0}


def notify(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's name, or its file.", autocompletion=offers.complete_run)
    ],
    event: Annotated[
        str, typer.Option("--event", metavar="EVENT", help=f"What it says: {', '.join(get_args(Event))}.")
    ] = "failure",
    shown: Annotated[
        bool, typer.Option("--list", help="Send nothing: show what was told of the job, the newest first.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="With --list: so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Send a notice to all targets of a job now, and show what came of each.

    It says that it is a test, and is recorded nowhere. The exit status is 1 if a target did not take it.
    """
    if shown:
        return _list(job, limit, as_json=as_json)
    if event not in get_args(Event):
        raise UsageError(f"there is no event '{event}'", f"events are {', '.join(get_args(Event))}")
    name, file = find_job(open_record(), job)
    decoded, _ = load(file)
    told = hearers(decoded, lambda sentence: talk(f"agentrun: {sentence}"))
    if told is None:
        hint = "agentrun.yaml(5) describes it under notify; config.yaml can say it for all jobs"
        raise Missing(f"nobody is told of job {name}: neither its file nor config.yaml has a notify", hint)
    if event not in told.on:
        talk(f"agentrun: of {event} nobody is told in earnest: 'on' is {', '.join(told.on)}")
    failed = 0
    targets = [target for target in told.to if target.kind != "ping" or event in _STATUS]
    if len(targets) < len(told.to):
        talk(f"agentrun: pings tell of starts and ends of runs, and nothing of {event}")
    for target, error in _try(targets, _test(name, event), os.path.dirname(file)):
        failed += error is not None
        outcome = {"target": target_text(target), "sent": error is None, "error": error}
        line = f"{outcome['target']}: {'sent' if error is None else error}"
        print(jsonshape.line({"schema": "agentrun.notice-test/1", **outcome}) if as_json else line, flush=True)
    return 1 if failed else 0


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
    name, _ = find_job(record, job)
    rows = [
        (notice, target_of(notice.target) if notice.target else None)
        for notice in NoticeQuestions(record.reader.connection).of_job(name, limit=limit)
    ]
    if as_json:
        print(jsonshape.dumps([notice_shape(*row) for row in rows]))
    elif rows:
        print("\n".join(notice_lines(rows, look_of(sys.stdout), now_ms())))
    else:
        talk(f"agentrun: nothing was told of job {name}")
    return 0
