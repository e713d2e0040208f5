"""What should be durable in a Python file: loops with a sleep, schedules in memory, POSTs in scripts, locks by hand.

A sleep counts for the innermost loop that it stands in. What that loop is for is told by its form: a `try` that is left
by `break` or `return` is a retry; `while True` goes on for ever; another `while` waits for something; a `for` paces
itself. Naps of less than a second, and files that drive hardware or a screen, are left alone: nothing in them could be
gone on with. In a file that does nothing when it is started, which is no script, only endless loops and schedules
count: how a library waits is its own affair.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from . import finding
from .finding import Found
from .pycalls import calls, written
from .pynames import Function, Scope, dotted, inner_scope, scope_of, text_of

_SLEEPS = {"time.sleep", "asyncio.sleep", "gevent.sleep", "trio.sleep", "anyio.sleep", "eventlet.sleep"}
_PLAYING = {
    "RPi", "gpiozero", "board", "machine", "pygame", "turtle", "curses", "pyautogui", "keyboard", "serial", "smbus",
    "smbus2", "picamera", "picamera2", "pynput", "tkinter", "digitalio", "adafruit_dht", "neopixel", "blessed",
    "asciimatics",
}  # fmt: skip
_GOES_ON = re.compile(r"(not )?[\w.]*(running|stop|keep|shutdown|forever|exit|quit|terminate)\w*(\.is_set\(\))?", re.I)
_COUNTS = re.compile(r"\b\w*(attempt|retr|tries|trial|max_)\w*\b", re.I)
_SCHEDULERS = {
    "apscheduler": {"add_job", "scheduled_job"},
    "celery": {"add_periodic_task", "periodic_task"},
    "huey": {"periodic_task"},
    "rq_scheduler": {"cron", "schedule"},
    "aiocron": {"crontab"},
    "fastapi_utils": {"repeat_every"},
    "rocketry": {"task"},
}
_TABLES = {"beat_schedule", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE", "CRONJOBS", "CELERY_BEAT_SCHEDULER"}
_PLANNED = re.compile("|".join(["schedule", *_SCHEDULERS, *_TABLES]))
# what is asked for by a POST, and changes nothing
_READS = re.compile(
    r"log-?in|auth|token|session|search|query|graphql|/rpc\b|/api/(generate|chat)|/v1/(chat|completions|embed)", re.I
)
_PLACES = re.compile(r"[\"'](?!application/)([^\"'\s]*/[^\"'\s]*)[\"']")  # texts that may be URLs
_SHORT = 1.0  # seconds


def found_in(tree: ast.Module, source: str) -> Iterator[Found]:
    """All of a file, in no order."""
    script = _is_script(tree, source)
    sleeps, planned = "sleep" in source, _PLANNED.search(source) is not None
    if not (script or sleeps or planned):  # most files of a tree
        return
    scope = scope_of(tree)
    imported = {name.partition(".")[0] for name in scope.imported.values()}
    if imported & _PLAYING:
        return
    if sleeps:
        yield from _loops(tree, scope, script)
    if planned:
        yield from _schedules(tree, scope, imported)
    if script:
        if "idempoten" not in source.lower():
            yield from _posts(tree, source)
        yield from _locks(tree, scope)


def _is_script(tree: ast.Module, source: str) -> bool:
    """Whether it does something when it is started: by its first line, its guard, or a call at its top level."""
    guarded = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)
    called = sum(isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) for node in tree.body)
    working = any(isinstance(node, ast.For | ast.While | ast.With) for node in tree.body)
    return source.startswith("#!") or guarded or working or called > 0


# -- loops


def _loops(tree: ast.Module, scope: Scope, script: bool) -> Iterator[Found]:
    waiting: list[tuple[ast.AST, Scope]] = [(tree, scope)]
    while waiting:
        node, here = waiting.pop()
        if isinstance(node, Function):
            here = inner_scope(node, here.root)
        if isinstance(node, ast.While | ast.For | ast.AsyncFor) and _naps(node, here):
            found = _kind(node, here)
            generates = any(isinstance(each, ast.Yield | ast.YieldFrom) for each in _body(node))
            if script or (found == finding.endless(node.lineno) and not generates):
                yield found
        waiting += [(child, here) for child in ast.iter_child_nodes(node)]


def _naps(loop: ast.While | ast.For | ast.AsyncFor, scope: Scope) -> bool:
    """Whether the loop itself sleeps, for a second or more where that can be seen."""
    for node in _body(loop):
        if isinstance(node, ast.Call) and dotted(node.func, scope) in _SLEEPS and node.args:
            said = node.args[0]
            if not (isinstance(said, ast.Constant) and isinstance(said.value, int | float) and said.value < _SHORT):
                return True
    return False


def _body(loop: ast.While | ast.For | ast.AsyncFor) -> Iterator[ast.AST]:
    """What is of this loop and of no other one in it, nor of a function."""
    waiting: list[ast.AST] = list(loop.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda | ast.While | ast.For | ast.AsyncFor):
            waiting += ast.iter_child_nodes(node)


def _kind(loop: ast.While | ast.For | ast.AsyncFor, scope: Scope) -> Found:
    nodes = list(_body(loop))
    leaves = any(isinstance(node, ast.Break | ast.Return | ast.Raise) for node in nodes)
    tries = any(isinstance(node, ast.Try) and node.handlers for node in nodes)
    if not isinstance(loop, ast.While):
        counted = dotted(loop.iter, scope) in ("?range()", "itertools.count()")
        retries = counted and (tries or _COUNTS.search(ast.unparse(loop.target))) and leaves
        return finding.retried(loop.lineno, True) if retries else finding.paced(loop.lineno, True)
    condition = ast.unparse(loop.test)
    if isinstance(loop.test, ast.Constant) and loop.test.value:
        if not leaves:
            return finding.endless(loop.lineno)
        return finding.retried(loop.lineno, True) if tries and _left_by_success(nodes) else (
            finding.endless(loop.lineno) if tries else finding.awaited(loop.lineno))  # fmt: skip
    if _COUNTS.search(condition) and (tries or leaves):
        return finding.retried(loop.lineno, True)
    return finding.endless(loop.lineno) if _GOES_ON.fullmatch(condition) else finding.awaited(loop.lineno)


def _left_by_success(nodes: list[ast.AST]) -> bool:
    """Whether a `try` is left in its body or `else`, not only in a handler (as by KeyboardInterrupt)."""
    for node in nodes:
        if isinstance(node, ast.Try):
            for statement in [*node.body, *node.orelse]:
                if any(isinstance(each, ast.Break | ast.Return) for each in ast.walk(statement)):
                    return True
    return False


# -- schedules, POSTs, locks


def _schedules(tree: ast.Module, scope: Scope, imported: set[str]) -> Iterator[Found]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = dotted(node.func, scope)
            verb = node.func.attr if isinstance(node.func, ast.Attribute) else name.rpartition(".")[2]
            if verb == "do" and name.startswith("schedule.every()"):
                yield finding.in_memory(node.lineno, "schedule")
            for library, verbs in _SCHEDULERS.items():
                if library in imported and verb in verbs and not written(node.func).startswith(("self.add_", "super")):
                    yield finding.in_memory(node.lineno, {"apscheduler": "APScheduler"}.get(library, library))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict | ast.List | ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {ast.unparse(target).rpartition(".")[2] for target in targets}
            if names & _TABLES and not (isinstance(node.value, ast.Dict) and not node.value.keys):
                yield finding.in_memory(node.lineno, "django-crontab" if "CRONJOBS" in names else "celery beat")


def _posts(tree: ast.Module, source: str) -> Iterator[Found]:
    lines = source.splitlines()
    seen = set()
    for call in calls(tree):
        here = " ".join(_PLACES.findall(" ".join(lines[call.line - 1 : call.line + 2])))
        key = (call.function, call.name)
        if call.what == "sent" and key not in seen and not _READS.search(f"{here} {call.function}"):
            seen.add(key)
            is_http = call.name.endswith(("post", "patch", "request", "urlopen"))
            yield finding.posted(call.line, f"{call.name}()", "a POST" if is_http else "a message or an order")


def _locks(tree: ast.Module, scope: Scope) -> Iterator[Found]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, scope)
        if name in ("fcntl.flock", "fcntl.lockf") and "LOCK_UN" not in ast.unparse(node):
            yield finding.locked(node.lineno, f"{name}()")
        elif name.endswith((".write", ".write_text")) and any("getpid()" in ast.unparse(each) for each in node.args):
            yield finding.locked(node.lineno, "a pid file")
        elif name == "?open" and len(node.args) > 1 and "x" in text_of(node.args[1], scope):
            lock = re.search(r"lock|pid", ast.unparse(node.args[0]), re.I)
            yield from [finding.locked(node.lineno, "a lock file")] if lock else []
