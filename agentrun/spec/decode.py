"""A job file to a `Job`: complete, checked, or refused with every problem at once.

The order: bytes to text, text to nodes (`document`), nodes to entries by the table of fields (`fields`, `tables`,
`kinds`), then what one value alone does not show: ids and needs (`steps`), references (`scope`), keys that exclude
each other. Only a file without a problem is built into the model: defaults merged, needs spelled out.

The garbage collector rests meanwhile: a large file is a million young objects and not one circle among them.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import NotFound
from ..model import Budget, Concurrency, Job, Param, PythonCode, Repeat, Retry, Step
from . import carrying, document, fields, instances, notify, stuck
from .document import MAX_TEXT, Scalar
from .report import INVALID, Report
from .scope import Scope
from .steps import Draft, check_circles, draft
from .tables import Entry
from .values import format_duration

_FUNCTION = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_NEARLY_FUNCTION = re.compile(r"[\w.]+(\s*:\s*[\w.]*)?")


def load(path: str) -> tuple[Job, str]:
    """The job in the file at `path`, and the file's text. Raises NotFound, or JobFileError with every problem."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            raw = file.read(MAX_TEXT + 1) or b""  # a FIFO that nobody writes has nothing
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no job file {path}") from None
    except OSError as error:
        report = Report(path, "")
        report.add_at(0, 0, f"the file cannot be read: {error.strerror}")
        report.stop()
    text = _text(raw, path)
    return decode(text, path), text


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def decode(text: str, path: str) -> Job:
    """The job that `text` says; `path` gives its default name and stands in the problems. Raises JobFileError."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        report = Report(path, text)
        root = document.read(report)
        entry = fields.JOB.read(root, os.path.basename(path), report)
        if entry is INVALID:
            report.stop()
        drafts = draft(entry.values.get("steps", ()), report)
        _check(entry, drafts, report)
        name = _job_name(entry, path, report)
        report.stop_if_any()
        return _job(entry, drafts, name)
    finally:
        if collecting:
            gc.enable()


def _text(raw: bytes, path: str) -> str:
    if len(raw) > MAX_TEXT:
        report = Report(path, "")
        report.add_at(0, 0, "the file is larger than 4 MiB")
        report.stop()
    if b"\0" in raw[:1024]:
        report = Report(path, "")
        report.add_at(0, 0, "a binary file, and no job file")
        report.stop()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        report = Report(path, raw.decode("utf-8", "replace"))
        before = error.object[: error.start].decode("utf-8", "replace")
        report.add_offset(len(before), f"not UTF-8: byte 0x{error.object[error.start]:02x}", "save the file as UTF-8")
        report.stop()


def _job_name(entry: Entry, path: str, report: Report) -> str:
    if "name" in entry:
        return str(entry.values.get("name"))
    stem = os.path.splitext(os.path.basename(path))[0]
    if not re.fullmatch(fields.JOB_NAME, stem):
        report.add_at(0, 0, f"the file's name '{stem}' cannot be the name of a job", "add a line with a 'name'")
    return stem


# -- what one value alone does not show ------------------------------------------------------------------------


def _check(job: Entry, drafts: Sequence[Draft], report: Report) -> None:
    for name, param in job.values.get("params", {}).items():
        if param is not INVALID and param.values.get("required") is True and "default" in param:
            report.add(param.keys["required"].mark, f"param '{name}' has a default, so it is not required")
    notify.check(job, report)
    defaults = job.values.get("defaults")
    base = _retry_values(defaults, {})
    if defaults is not None:
        _check_retry(defaults, base, report)
    usual = None if defaults is None else defaults.values.get("on_interrupt")
    stuck.check_defaults(defaults, [step.entry for step in drafts], report)
    carrying.check(job, [step.entry for step in drafts], report)
    for step in drafts:
        _check_program(step.entry, report)
        _check_interrupt(step.entry, usual, report)
        stuck.check_step(step.entry, defaults, report)
        instances.check(step.entry, report)
        if "retry" in step.entry:
            _check_retry(step.entry, _retry_values(step.entry, base), report)
    circular = check_circles(drafts, report)
    if "${{" in report.text:
        scope = Scope(report, job.values.get("params", {}), drafts, ordered=not circular)
        scope.check(fields.JOB, job, None)
        for step in drafts:
            scope.check(fields.STEP, step.entry, step)


_PROGRAMS = ("run", "python", "job")
_LOOKS_INTO = ("verify", "ask")  # values of `on_interrupt` that a step with `job` has no use for


def _check_program(step: Entry, report: Report) -> None:
    """Exactly one of `run`, `python` and `job`, and what belongs to some of them only."""
    has = [name for name in _PROGRAMS if name in step]
    if len(has) > 1:
        two = f"either '{has[0]}' or '{has[1]}', not both"
        all_three = "one of 'run', 'python' and 'job', not all"
        report.add(step.keys[has[1]].mark, f"a step has {two if len(has) == 2 else all_three}")
        return
    if not has:
        if not step.unclear:
            report.add(step.node.mark, "this step does nothing: it has none of 'run', 'python' and 'job'")
        return
    if "python" in step.values and _python(step.nodes["python"]) is None:
        report.add(step.nodes["python"].mark, "'python' names no function", "as module:function, or Python code")
    if "with" in step and has == ["run"]:
        hint = "a command gets its values through 'env'"
        report.add(step.keys["with"].mark, "'with' belongs to 'python' and 'job'", hint)
    if "interpreter" in step and has != ["python"]:
        instead = "a command runs in the job's 'shell'" if has == ["run"] else None
        report.add(step.keys["interpreter"].mark, "'interpreter' belongs to 'python'", instead)
    if "leave_running" in step and has == ["job"]:
        hint = "the steps of the other file say for themselves what may go on"
        report.add(step.keys["leave_running"].mark, "'leave_running' belongs to 'run' and 'python'", hint)


def _check_interrupt(step: Entry, usual: str | None, report: Report) -> None:
    """`verify` stands exactly where `on_interrupt` says so, by itself or by the defaults (`usual`)."""
    if "job" in step:
        for name in ("on_interrupt", "verify"):
            if name in step and (name == "verify" or step.values.get(name) in _LOOKS_INTO):
                hint = "an interrupted child run goes on by itself: its steps have their own 'on_interrupt'"
                report.add(step.keys[name].mark, "'verify' and 'ask' do not go with 'job'", hint)
                return
        return
    chosen = step.values.get("on_interrupt") if "on_interrupt" in step else usual
    if "verify" in step and chosen != "verify" and chosen is not INVALID and not step.unclear:
        how = f"and this step has '{chosen}'" if chosen else "and the default is 'rerun'"
        report.add(step.keys["verify"].mark, f"'verify' goes with on_interrupt: verify, {how}")
    elif chosen == "verify" and "verify" not in step and not step.unclear:
        where = step.keys["on_interrupt"].mark if "on_interrupt" in step else step.node.mark
        by_default = "" if "on_interrupt" in step else " (from 'defaults')"
        hint = "a command that ends with 0 if the interrupted attempt did its work, with 1 if it did not"
        report.add(where, f"on_interrupt: verify{by_default} needs a 'verify'", hint)


def _check_retry(entry: Entry, merged: Mapping[str, Any], report: Report) -> None:
    """A first pause that is longer than the longest. Told where one of the two is written."""
    retry = entry.values.get("retry")
    if retry is None:
        return
    written = retry.keys.get("interval") or retry.keys.get("max_interval")
    interval = merged.get("interval", Retry.interval)
    longest = merged.get("max_interval", Retry.max_interval)
    if written is not None and interval > longest:
        words = f"'interval' ({format_duration(interval)}) is longer than 'max_interval' ({format_duration(longest)})"
        report.add(written.mark, words)


# -- a file without a problem, as the model has it ---------------------------------------------------------------


def _job(entry: Entry, drafts: Sequence[Draft], name: str) -> Job:
    values = dict(entry.values)
    defaults = values.pop("defaults", None)
    values["name"] = name
    values["steps"] = _steps(drafts, defaults, carried="carry" in values)
    if "params" in values:
        values["params"] = {key: _param(param.values) for key, param in values["params"].items()}
    if "budget" in values:
        limits = dict(values["budget"].values)
        if "daily" in limits:
            values["daily"] = Budget(**limits.pop("daily").values)
        values["budget"] = Budget(**limits)
    if "concurrency" in values:
        written = values["concurrency"]
        values["concurrency"] = Concurrency(**({"policy": written} if isinstance(written, str) else written.values))
    if "notify" in values:
        values["notify"] = notify.notify_of(values["notify"])
    if "keep" in values:
        values["keep"] = notify.keep_of(values["keep"])
    if "shell" in values:
        values["shell"] = fields.SHELLS.get(values["shell"], values["shell"])
    return Job(**values)


def _param(values: Mapping[str, Any]) -> Param:
    required = values.get("required", "default" not in values)
    return Param(values.get("default"), required, values.get("description"))


def _steps(drafts: Sequence[Draft], defaults: Entry | None, *, carried: bool) -> tuple[Step, ...]:
    ids = [step.id for step in drafts]
    common = dict(defaults.values) if defaults is not None else {}
    retry = _retry_values(defaults, {})
    common.pop("retry", None)
    if retry:
        common["retry"] = Retry(**retry)
    lines = carrying.lines([step.entry for step in drafts]) if carried else [1] * len(drafts)
    return tuple([_step(step, ids, common, retry, line) for step, line in zip(drafts, lines, strict=True)])


def _step(
    step: Draft, ids: Sequence[str], common: Mapping[str, Any], retry: Mapping[str, Any], text_line: int
) -> Step:
    values = {**common, **step.entry.values}
    values["id"] = step.id
    if "retry" in step.entry:
        values["retry"] = Retry(**_retry_values(step.entry, retry))
    if "budget" in values:
        values["budget"] = Budget(**values["budget"].values)
    if "repeat" in values:
        values["repeat"] = Repeat(**values["repeat"].values)
    if "python" in values:
        values["python"] = _python(step.entry.nodes["python"])
    else:
        values.pop("interpreter", None)  # from the defaults: it is for Python steps
    if "job" in values and values.get("on_interrupt") in _LOOKS_INTO:
        values.pop("on_interrupt")  # from the defaults: it is for steps that do something themselves
    stuck.settle(values)
    values.pop("line", None)
    for name, attribute in (("with", "args"), ("if", "condition")):
        if name in values:
            values[attribute] = values.pop(name)
    values["needs"] = tuple([ids[before] for before in step.needs])
    return Step(index=step.index, line=step.entry.node.mark.line + 1, text_line=text_line, **values)


def _retry_values(entry: Entry | None, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry's `retry`, merged key by key over `base`."""
    own = entry.values.get("retry") if entry is not None else None
    return base if own is None else {**base, **own.values}


def _python(node: Any) -> PythonCode | None:
    """`module:function`, else source code; None for what looks like the first and is not."""
    assert type(node) is Scalar
    text = node.text.strip()
    match = _FUNCTION.fullmatch(text)
    if match:
        return PythonCode(module=match[1], function=match[2])
    if _NEARLY_FUNCTION.fullmatch(text):
        return None
    line = node.mark.line + (2 if node.style in ("|", ">") else 1)
    return PythonCode(source=node.text, line=line)
