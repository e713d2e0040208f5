"""What to tell somebody whose script has become a job: what a resume keeps that may be old, what the job does better.

All of it is about the script's text; nothing of the job depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .cmdline import row
from .guards import asks
from .notes import Note
from .ownfile import own_searches
from .program import Program, called
from .syntax import Node, assignments, commands, first_line, listed, redirects, text, walk

_TOKENS = re.compile(
    r"token|sts\s+(assume|get)|get-login|access-?key|credential|session|login|/auth\b|vault\s|oauth|ssh-agent", re.I
)
_RUNNING = re.compile(
    r"\b(pgrep|pidof|is-active|lsof|fuser)\b|\bps\s+-?[a-z]|docker\s+(ps|inspect)|systemctl\s+status", re.I
)
_SPACE = re.compile(r"\b(df|du|free|vmstat|uptime|nproc)\b|/proc/(loadavg|meminfo|mounts)", re.I)
_LOCKERS = listed("flock lockfile lockfile-create setlock dotlockfile shlock lockrun")
_LOCK = re.compile(r"lock|\.pid\b|pid_?file", re.I)
# files that are called so, and lock nothing
_NO_LOCKS = re.compile(
    r"(package|yarn|composer|Gemfile|Cargo|poetry|Pipfile|uv|flake|pdm)[-.]?lock\b|block|clock|unlock", re.I
)
_SEEN = listed("tee ts awk sed while stdbuf grep")  # what lets output through that is sent into it
_MOST = 5  # names that a note lists
_NOT_ONCE = listed("function_definition subshell command_substitution for_statement while_statement")
_TAKE_OUT = "take it out; several jobs that call it get one key: concurrency: {policy: forbid, key: NAME}"


def advice(program: Program, script: str | None) -> list[Note]:
    """Remarks, in the order of the script's lines."""
    found = [*_frozen(program), *_dates(program), *_cleaning(program), *_locks(program, script), *_waiting(program)]
    found += [*_last_answer(program), *_redirected(program)]
    return sorted(found, key=lambda note: note.line)


def _taken(program: Program) -> Iterator[tuple[str, Node, str]]:
    """Variables assigned at the top level from the output of commands: name, where, and the commands."""
    for node in walk(program.root, without=_NOT_ONCE):
        for name, value in assignments(node) if node.type == "variable_assignment" else ():
            if value is not None and any(here.type == "command_substitution" for here in walk(value)):
                yield name, node, text(value)


def _frozen(program: Program) -> Iterator[Note]:
    hint = "if the run goes on after a long pause, assign it again in the step that uses it"
    found: dict[str, tuple[int, list[str]]] = {}
    for name, node, value in _taken(program):
        if _TOKENS.search(value) or re.search(r"TOKEN|_AUTH|COOKIE", name):
            said = "fetched once: a resume goes on with it, even if it has expired"
        elif re.search(r"\bkill\b|\bpid", name, re.I) or _RUNNING.search(value):
            said = "asked for once: a resume goes on with what was running then"
        elif _SPACE.search(value):
            said = "measured once: a resume goes on with the old figure"
        else:
            continue
        names = found.setdefault(said, (first_line(node), []))[1]
        names += [name] if name not in names else []
    for said, (line, names) in found.items():
        yield Note("advice", line, f"{_named(names)} {'is' if len(names) == 1 else 'are'} {said}", hint)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _dates(program: Program) -> Iterator[Note]:
    dated = [(name, first_line(node)) for name, node, value in _taken(program) if re.search(r"\bdate\b", value)]
    if dated:
        names = list(dict.fromkeys(name for name, _ in dated))
        verb = "keeps its value" if len(names) == 1 else "keep their values"
        yield Note("kept", dated[0][1], f"{_named(names)} {verb} over a resume: it goes on with the date of the run")


def _cleaning(program: Program) -> Iterator[Note]:
    made = {name for name, _, value in _taken(program) if "mktemp" in value}
    for command in commands(program.root):
        said = text(command)
        if called(command)[0] != "trap" or not re.search(r"\b(EXIT|0)\b", said):
            continue
        body = said + "".join(
            text(one)
            for name in program.functions
            for one in program.functions[name]
            if re.search(rf"\b{re.escape(name)}\b", said)
        )
        gone = sorted(name for name in made if re.search(rf"\brm\b[^\n;]*\$\{{?{name}\b", body))
        if gone:
            yield Note(
                "advice", first_line(command),
                f"the EXIT trap removes {', '.join('$' + name for name in gone)} when a step fails, and a"
                " resume of the failed run would go on without it",
                "keep it in $AGENTRUN_RUN_DIR, or begin again with `agentrun run`",
            )  # fmt: skip
            return


def _locks(program: Program, script: str | None) -> Iterator[Note]:
    searches = own_searches(program, script)
    if searches:
        said = "it looks for itself among the processes, where no job has its name; runs of one job never overlap"
        yield Note("advice", searches[0], said, _TAKE_OUT)
        return
    for node in walk(program.root):
        if node.type in ("command", "redirected_statement") and _takes_lock(node):
            said = "it keeps a lock of its own: runs of one job never overlap"
            yield Note("advice", first_line(node), said, f"{_TAKE_OUT}; not where another program looks at it")
            return


def _takes_lock(node: Node) -> bool:
    """Whether it takes a lock, or writes down that it runs; not whether it only looks at one, or removes it."""
    if node.type == "redirected_statement":
        written = " ".join(text(one) for one in redirects(node.children[0]) if re.match(r"\d?>", text(one)))
        body = text(node.children[0])
        own = re.search(r"\$(\$|\{?BASHPID\b)", body)
        if not own and re.match(r"(echo|:|date|true|printf|hostname)\b|: *$", body) and "$!" not in body:
            return _is_lock(re.sub(r"\.pid\b|pid_?file", "", written))
        return own is not None and _is_lock(written)
    name, said = called(node)
    if name in _LOCKERS:
        return not {"-u", "--unlock"} & set(said)
    if name == "mkdir" and any(re.match(r"-\w*p|--parents", one) for one in said):
        return False  # it is content with a folder that is there
    return name in ("mkdir", "ln", "touch") and any(map(_is_lock, said[-1:] if name == "ln" else said))


def _is_lock(file: str) -> bool:
    return _LOCK.search(_NO_LOCKS.sub("", file)) is not None


def _waiting(program: Program) -> Iterator[Note]:
    loops = [node for node in walk(program.root) if node.type == "while_statement"
             and any(called(one)[0] == "sleep" for one in commands(node))]  # fmt: skip
    endless = [node for node in loops if re.match(r"(while|until)\s+(true|:|\[ 1|\(\(\s*1)", text(node))]
    for node in (endless or loops)[:1]:
        said = "it never ends: a step that runs for ever" if endless else (
            "it waits in a loop: after an interruption it begins to wait anew"
        )  # fmt: skip
        yield Note("advice", first_line(node), said, "a step with `repeat` records each round")


def _last_answer(program: Program) -> Iterator[Note]:
    """`[ … ] && cmd` as the last statement: the script ends with 1 where the answer is no."""
    last = [node for node in program.root.children if node.type not in ("comment", ";", "\n")][-1:]
    node = last[0] if last else program.root
    if node.type == "redirected_statement":
        node = node.child_by_field_name("body") or node
    parts: list[Node] = []
    while node.type == "list" and len(node.children) == 3 and node.children[1].type == "&&":
        parts.insert(0, node.children[2])
        node = node.children[0]
    if not parts or not _asks(node) or all(map(_asks, parts)) or _sets_status(program):
        return
    asked = _short(text(node))
    said = f"the script ends with 1 where `{asked}` says no: cron took no notice, and a run has failed then"
    yield Note("advice", first_line(node), said, "`if …; then …; fi`, or `|| true` behind it")


def _asks(node: Node) -> bool:
    if node.type == "compound_statement":
        return text(node).startswith("((")
    found = row(text(node))
    return found is not None and len(found.parts) == 1 and asks(found.parts[0])


def _short(said: str) -> str:
    return said if len(said) <= 40 else f"{said[:39]}…"


def _sets_status(program: Program) -> bool:
    """Whether a trap at the exit may say another status."""
    for action in program.actions(program.root):
        if action.kind == "trap" and {"EXIT", "0", None} & set(action.signals):
            done = [] if action.tree is None else list(program.runs(action.tree))
            if action.tree is None or any(called(one)[0] == "exit" for one in done):
                return True
    return False


def _redirected(program: Program) -> Iterator[Note]:
    """`exec >>log 2>&1` at the top, for good. What goes through `tee` is seen all the same."""
    found: list[tuple[Node, str]] = []
    for node in program.root.children:
        if node.type == "redirected_statement" and text(node.children[0]) == "exec":
            found += [(node, " ".join(text(one).split())) for one in redirects(node.children[0])]
    if any(re.fullmatch(r"1?>& ?[3-9]\d*-?|1?> ?/dev/(tty|fd/\d+)", said) for _, said in found):
        return  # it is put back
    for node, said in found:
        where = re.fullmatch(r"(?:1?>>?\|?|&>>?|>&) ?([^&\d\s-].*)", said)
        if where is None or re.match(r"/dev/(stdout|stderr)|/proc/", where[1]):
            continue
        through = re.match(r">\( ?(?:\S*/)?(\w+)", where[1])
        if through and through[1] in _SEEN and not re.search(r">\s*\S+\s*\)$", where[1][1:]):
            continue
        words = f"`exec {_short(said)}`: its output goes there; `agentrun logs` and the report of a failure have none"
        yield Note("advice", first_line(node), words, "take it out: `agentrun logs` has the output then")
        return


__all__ = ["advice"]
