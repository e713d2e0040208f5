"""`agentrun logs`: what the steps of a run wrote, line by line, those of parallel steps merged by time."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Annotated

import typer

from ..errors import UsageError
from ..render import jsonshape
from ..render.logs import LineFormat, text_of
from ..render.status import Standing, command
from ..render.terminal import look_of, printable_lines, talk
from ..render.times import moment, now_ms
from . import complete as offers
from .logfiles import Line, LogFile, Selection, blocks, last_lines, merged, one_after_other
from .names import check_steps
from .record import need_record

_POLL = 0.2  # seconds between two looks for more
_CHILDREN = 5  # called runs that are named where nothing else is to be shown

Text = tuple[int, LogFile, str]  # a line as it is shown


def logs(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run; without it, the latest.", autocompletion=offers.complete_run),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has finished, and say what it waits for.")
    ] = False,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            "-s",
            metavar="STEP",
            help="Only this step, or one instance: work[2]; may be given again.",
            autocompletion=offers.complete_step,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: 10m (ago), 03:00, yesterday, RFC 3339.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only lines in which this regular expression is found.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only of attempts that failed or timed out.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N lines.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes as they were written, attempt after attempt.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> int:
    """Show what the steps of a run wrote.

    A line says when it was written, which job and run it belongs to, which step of how many, and the attempt:

    2026-11-20T10:00:00.123Z quotes/7f3a 3/9 quote#1 | text

    `quote[2]#1` is an instance or a round. `quote?` is a condition: the `if` of the step, after a round its
    `until`, after an interruption its `verify`. Control characters are shown as escapes, but for --raw. With
    --grep the exit status is 1 if no line was found.
    """
    record = need_record()
    selection = Selection(record, record.find(run), tuple(step or ()), failed)
    check_steps(record, selection.run, selection.steps)
    if raw and (grep is not None or since is not None or as_json or tail is not None):
        raise UsageError("--raw gives the bytes as they are: leave out --grep, --since, --tail and --json")
    if raw:
        _raw(selection, follow)
        return _tell_what_lacks(selection)
    pattern, moment_ms = _pattern(grep), _since(since)
    files = [] if as_json or follow or tail is not None else _to_copy(selection)
    if files:
        shown = _show_blocks(selection, files, pattern, moment_ms)
    else:
        sieve = _sieve(pattern, moment_ms, harmless=not as_json)
        shown = _show(selection, sieve, _printer(selection, as_json), tail, follow)
    if grep is None and not as_json:
        _tell_if_parked(selection)
        _tell_what_lacks(selection)
        if not (shown or follow or step or since or failed or tail == 0):
            talk(_nothing_written(selection))
    return 1 if grep is not None and not shown else 0


def _nothing_written(selection: Selection) -> str:
    """That there is nothing to show, and where there may be: in the runs that its steps are."""
    run = selection.run
    told = f"the steps of run {run.id} of {run.job} have written nothing"
    called = [command("logs", child.id) for child in selection.record.reader.children(run.id).values()]
    if not called:
        return told
    more = f" and {len(called) - _CHILDREN} more" if called[_CHILDREN:] else ""
    return f"{told}; for the runs that it called: {', '.join(called[:_CHILDREN])}{more}"


def _pattern(grep: str | None) -> re.Pattern[str] | None:
    try:
        return None if grep is None else re.compile(grep)
    except re.error as error:
        raise UsageError(f"--grep: {grep!r} is no regular expression: {error}")


def _since(text: str | None) -> int:
    try:
        return 0 if text is None else moment(text, now_ms())
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: {text!r} is no time",
            "give a duration (10m, 2h), a time of day (03:00), or a time (2026-11-20T10:00Z)",
        )


Sieve = Callable[[Iterable[Line]], Iterator[Text]]
Printer = Callable[[Iterable[Text]], bool]


def _sieve(pattern: re.Pattern[str] | None, since: int, *, harmless: bool) -> Sieve:
    def sieve(lines: Iterable[Line]) -> Iterator[Text]:
        for at, file, piece in lines:
            if at >= since:
                text = text_of(piece, harmless)
                if pattern is None or pattern.search(text):
                    yield at, file, text

    # without a condition, the last n lines are those at the ends of the files
    sieve.__dict__["lets_all_through"] = pattern is None and since == 0
    return sieve


def _printer(selection: Selection, as_json: bool) -> Printer:
    run, steps = selection.run, selection.steps_of_file()
    look, write = look_of(sys.stdout), sys.stdout.write
    forms: dict[LogFile, LineFormat] = {}

    def as_line(at: int, file: LogFile, text: str) -> str:
        form = forms.get(file)
        if form is None:
            form = forms[file] = LineFormat(run, file.instance, file.number, file.position, steps, look)
        return form.line(at, text)

    def as_shape(at: int, file: LogFile, text: str) -> str:
        shape = jsonshape.line_shape(run, file.instance, file.number, file.position, steps, at, text)
        return jsonshape.line(shape)

    form_of = as_shape if as_json else as_line

    def show(texts: Iterable[Text]) -> bool:
        shown = False
        for at, file, text in texts:
            write(form_of(at, file, text) + "\n")
            shown = True
        sys.stdout.flush()
        return shown

    return show


def _to_copy(selection: Selection) -> list[LogFile]:
    """The logs in their order if they need no merging and nothing more comes, else none."""
    standing = selection.record.standing(selection.record.reader.run(selection.run.id))
    files = selection.find(over=_is_over(standing))
    return files if one_after_other(files) else []


def _show_blocks(
    selection: Selection, files: Iterable[LogFile], pattern: re.Pattern[str] | None, since: int
) -> bool:
    """Print logs that came one after the other, many lines at once; returns whether anything was printed."""
    run, steps = selection.run, selection.steps_of_file()
    look, write, shown = look_of(sys.stdout), sys.stdout.write, False
    for file in files:
        form = LineFormat(run, file.instance, file.number, file.position, steps, look)
        for at, piece in blocks(file):
            if at < since:
                continue
            text = printable_lines(piece)
            if pattern is not None:
                found = [line for line in text.split("\n") if pattern.search(line)]
                if not found:
                    continue
                text = "\n".join(found)
            write(form.lines(at, text))
            write("\n")  # apart: where stdout is unbuffered, only the next write tells that the reader has gone
            shown = True
    sys.stdout.flush()
    return shown


def _is_over(standing: Standing) -> bool:
    return standing.run.state == "finished" or standing.interrupted


def _show(selection: Selection, sieve: Sieve, show: Printer, tail: int | None, follow: bool) -> bool:
    """Print what is there, and with `follow` what comes; returns whether anything was printed."""
    record = selection.record
    standing = record.standing(record.reader.run(selection.run.id))
    files = selection.find(over=_is_over(standing))
    if tail is None:
        shown = show(sieve(merged(files)))
    elif sieve.__dict__["lets_all_through"]:
        shown = show(sieve(last_lines(files, tail)))
    else:
        shown = show(deque(sieve(merged(files)), maxlen=tail))
    if follow:
        if not _is_over(standing):
            standing = _follow(selection, files, lambda lines: show(sieve(lines)))
        _tell_if_interrupted(standing)
    return shown


def _tell_if_interrupted(standing: Standing) -> None:
    if standing.interrupted:
        talk(f"nobody advances this run any more; it goes on with: {command('resume', standing.run.id)}")


def _tell_what_lacks(selection: Selection) -> int:
    """Logs are not synced, and a disk may be full: nobody is to take what is left for all that there was."""
    if os.path.isdir(selection.record.folder(selection.run).path):  # else all are gone, as its owner wanted
        for name, number in islice(selection.lacking(), _CHILDREN):
            talk(f"the log of {name} lacks {number:,} bytes: the disk was full, or the power was cut")
    return 0


def _tell_if_parked(selection: Selection) -> None:
    run = selection.record.reader.run(selection.run.id)
    if run.state == "waiting":
        asked = ", ".join(instance for instance, _ in selection.record.reader.questions(run.id)[:3])
        talk(f"this run waits for an answer ({asked}: was it done?); see {command('status', run.id)}")


def _tell_new_questions(standing: Standing, told: set[tuple[str, str]]) -> None:
    """What waits for an answer, once: nothing is written until somebody gives it, and who looks on would not know."""
    new = [one for one in standing.asked if (one.run, one.step) not in told]
    told.clear()
    told.update((one.run, one.step) for one in standing.asked)
    if new:
        names = ", ".join(one.step if one.via is None else f"{one.via}/{one.step}" for one in new[:3])
        talk(f"this run waits for an answer ({names}: was it done?); see {command('status', standing.run.id)}")


def _follow(selection: Selection, files: list[LogFile], show: Callable[[Iterable[Line]], object]) -> Standing:
    """Print what comes until the run is over; returns how it stands then."""
    record = selection.record
    known = {(file.instance, file.number): file for file in files}
    live = [file for file in files if not file.ended]
    version = -1
    told: set[tuple[str, str]] = set()
    while True:
        standing = record.standing(record.reader.run(selection.run.id))
        over = _is_over(standing)
        current = record.reader.data_version()
        if over or current != version:  # what ended before this look has been written whole
            version = current
            for found in selection.find(over=over):
                file = known.setdefault((found.instance, found.number), found)
                if file is found:
                    live.append(file)
                file.ended = found.ended
        lines = [(at, file, piece) for file in live for at, piece in file.reader.lines(ended=file.ended)]
        show(sorted(lines, key=lambda line: line[0]))
        for file in live:
            if file.ended:
                file.reader.close()
        live = [file for file in live if not file.ended]
        if over:
            return standing
        _tell_new_questions(standing, told)
        time.sleep(_POLL)


def _raw(selection: Selection, follow: bool) -> None:
    """The bytes, attempt after attempt in the order of their starts; with `follow`, each until it has ended."""
    sys.stdout.flush()
    done: set[tuple[str, int]] = set()
    told: set[tuple[str, str]] = set()
    while True:
        standing = selection.record.standing(selection.record.reader.run(selection.run.id))
        over = _is_over(standing)
        for file in selection.find(over=over):
            if (file.instance, file.number) in done:
                continue
            if follow and not file.ended:
                _copy_until_ended(selection, file)
            else:
                _copy(file.path, 0)
            done.add((file.instance, file.number))
        if over or not follow:
            return
        _tell_new_questions(standing, told)
        time.sleep(_POLL)


def _copy_until_ended(selection: Selection, file: LogFile) -> None:
    at = _copy(file.path, 0)
    while True:
        standing = selection.record.standing(selection.record.reader.run(selection.run.id))
        found = selection.find(over=_is_over(standing))
        ended = all(other.ended for other in found if (other.instance, other.number) == (file.instance, file.number))
        at = _copy(file.path, at)
        if ended:
            return
        time.sleep(_POLL)


def _copy(path: str, offset: int) -> int:
    """Copy the file from an offset on to stdout, and return where it ends now. It need not be there."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 18)
            sys.stdout.buffer.flush()
            return file.tell()
    except FileNotFoundError:
        return offset
