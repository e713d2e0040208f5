"""What people wrap around the command of an entry by hand, taken off from the outside in, each by an exact rule.

    flock -n LOCK cmd           concurrency: forbid          timeout 5m cmd          timeout: 5m
    cd X && …                   working_dir: X               chronic, cronic cmd     the command alone
    . ENV && …, set -a; . ENV   env_file: ENV                export A=b && …         env: {A: b}
    sleep $((RANDOM % N)) && …  jitter: N                    test -x P && …          if: test -x P
    ( … ), { …; }               what stands in them          cmd &, nohup cmd &      the command alone

A rule that does not fit exactly leaves the text as it is, and says why where that is worth a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..errors import AgentrunError
from ..model import JSON
from ..step.contract import _SHELL_WORDS, read_env_file
from .cmdline import Part, Row, row, value, written
from .endings import ping, silence, take_logs
from .guards import guard, is_relative
from .peeling import Peeling, duration, lasting
from .syntax import Node, assignments, broken, literal, parse, text

_RANDOM: Final = re.compile(r"\$(?:\(\(|\[)\s*\$?\{?RANDOM\}?\s*%\s*(\d+)\s*(?:\)\)|\])")
_SCALED: Final = re.compile(r"\$\(\(\s*\$?RANDOM\s*\*\s*(\d+)\s*/\s*3276[78]\s*\)\)")
_SHUF: Final = re.compile(r"\$\(\s*shuf -i 0-(\d+) -n ?1\s*\)")
_PERL: Final = re.compile(r"sleep\s+int\s*\(?\s*rand\s*\(?(\d+)\)*;?")
_PYTHON: Final = re.compile(r"import random; ?import time; ?time\.sleep\(random\.random\(\) ?\* ?(\d+)\)")


Rule = Callable[[Peeling, Row], str | None]


def peel(peeling: Peeling, *, logs: bool = False, alone: bool = False) -> None:
    """Take off all that can be, from the outside in. `logs`: redirections to files, too. `alone`: one of several."""
    rules = (*(_OF_STEPS if alone else RULES), *((take_logs,) if logs else ()))
    for _ in range(40):  # each rule makes the text shorter; a command line has a few
        found = row(peeling.text)
        if found is None or (not peeling.place.bash and "&>" in peeling.text):
            return
        left = next((left for rule in rules if (left := rule(peeling, found)) is not None), None)
        if left is None:
            return
        peeling.text = left


# -- around all of it -----------------------------------------------------------------------------------------------


def _brackets(peeling: Peeling, found: Row) -> str | None:
    """A subshell or a group that is all there is."""
    if len(found.parts) != 1 or found.parts[0].redirections or found.parts[0].separator == "&":
        return None
    core = found.parts[0].core
    if core is None or core.type not in ("subshell", "compound_statement"):
        return None
    inner = text(core)[1:-1].strip()
    return inner if row(inner) is not None else None


def _background(peeling: Peeling, found: Row) -> str | None:
    """A `&` at the end, behind one command or list: cron waits for its output, and so for it, all the same."""
    separators = [part.separator for part in found.parts]
    if separators[-1] != "&" or separators.count("&") > 1 or ";" in separators:
        return None
    peeling.say("lifted", "the `&` at the end: the run is at work as long as the command is, and has its exit status")
    last = found.parts[-1]._replace(separator="")
    if len(found.parts) == 1 and last.name == "nohup" and _runs_a_program(last, 1):
        return last.without(1)
    return written((*found.parts[:-1], last))


def _flock(peeling: Peeling, found: Row) -> str | None:
    call = lock_of(found, peeling.place.variables)
    if call is None:
        return None
    path, waits, left = call
    if left is None:
        peeling.say("kept", f"flock {path}: {_why_kept(found.parts[0])}")
        return None
    if path in peeling.place.kept_locks:
        said = "a script, another user's entry, or a line that keeps its flock takes this lock too"
        hint = "concurrency: {key: …} in the jobs of all that take it, where one user runs them"
        peeling.say("kept", f"flock {path}: {said}", hint)
        return None
    policy = "queue" if waits else "forbid"
    key = re.sub(r"\.(lock|lck|pid|lockfile)$", "", os.path.basename(path)).lstrip(".") or "lock"
    shared = path in peeling.place.shared_locks
    peeling.keys["concurrency"] = {"policy": policy, "key": key} if shared else policy
    words = f"flock on {path}: concurrency: {f'{{policy: {policy}, key: {key}}}' if shared else policy}"
    more = " (of those that would wait, the newest begins; flock let all of them wait)" if waits else ""
    more += "; what takes the lock and is no job of this crontab is not kept out any more"
    peeling.say("lifted", words + more)
    return left


def _why_kept(part: Part) -> str:
    """Why `flock` stays, where nothing else is about its lock."""
    at, _, fits = _options(part)
    if not fits:
        return "with options that `concurrency` has no word for"
    if len(part.words) <= at + 1:
        return "it starts nothing"
    if any(one.start_byte < part.words[at + 1].start_byte for one in part.redirections):
        return "a redirection stands in front of what it starts"
    return "what it starts is put together by the shell, or is a word of the shell's own"


def _options(part: Part) -> tuple[int, bool, bool]:
    """Where the file of a `flock` stands, whether it waits, and whether `concurrency` has words for its options."""
    words, waits, fits, at = part.words, True, True, 1
    while at < len(words) and (said := literal(words[at]) or "").startswith("-"):
        at += 1
        if said in ("-n", "--nb", "--nonblock", "-xn", "-nx", "-en", "-ne", "-nox", "-xon", "-no", "-on"):
            waits = False
        elif said not in ("-x", "-e", "--exclusive", "-o", "--close"):
            fits = False
            at += said in ("-w", "--timeout", "--wait", "-E", "--conflict-exit-code")
    return at, waits, fits


def lock_of(found: Row, variables: Mapping[str, str]) -> tuple[str, bool, str | None] | None:
    """What `flock` around all of it locks, whether it waits, and what is left without it (None: it must stay)."""
    part = found.parts[0]
    if len(found.parts) != 1 or part.name != "flock" or part.separator == "&":
        return None
    words = part.words
    at, waits, fits = _options(part)
    path = value(words[at], variables) if at < len(words) else None
    if path is None or not path or path.isdigit():
        return None
    if not path.startswith(("/", "~")):
        path = os.path.join(variables.get("HOME", "~"), path)
    at += 1
    if not fits or at >= len(words):
        return path, waits, None
    if literal(words[at]) in ("-c", "--command"):
        return path, waits, _of_string(part, words, at + 1)
    return path, waits, part.without(at) if _runs_a_program(part, at) else None


def _of_string(part: Part, words: Sequence[Node], at: int) -> str | None:
    """What a shell is given as one word, with the redirections around it."""
    inner = literal(words[at]) if len(words) == at + 1 else None
    if inner is None or row(inner) is None or any(one.start_byte < words[at].start_byte for one in part.redirections):
        return None
    outer = " ".join(text(one) for one in part.redirections)
    if not outer:
        return inner
    one = row(inner)
    assert one is not None
    alone = len(one.parts) == 1 and not one.parts[0].separator and not one.comment and not one.parts[0].redirections
    return f"{inner} {outer}" if alone and one.parts[0].name else f"{{ {inner}; }} {outer}"


def _runs_a_program(part: Part, at: int) -> bool:
    """Whether the words from there on are a program to whatever starts them, and to the shell, too."""
    words = part.words
    name = literal(words[at]) if at < len(words) else None
    return name is not None and name not in _SHELL_WORDS and not name.startswith("-") and "=" not in name


def _timeout(peeling: Peeling, found: Row) -> str | None:
    part = found.parts[0]
    if len(found.parts) != 1 or part.name != "timeout" or part.separator == "&" or "timeout" in peeling.step:
        return None
    given, at, grace = part.arguments, 0, ""
    while at < len(given) and (said := given[at] or "").startswith("-"):
        at += 1
        option, _, argument = said.partition("=")
        if option in ("-k", "--kill-after", "-s", "--signal") and not argument:
            argument = (given[at] if at < len(given) else None) or ""
            at += 1
        if said.startswith("-k") and len(said) > 2:
            option, argument = "-k", said[2:]
        if option in ("-k", "--kill-after") and (lasts := duration(argument)):
            grace = lasts
        elif option not in ("-s", "--signal") or argument not in ("TERM", "15", "SIGTERM"):
            peeling.say("kept", f"timeout {said}: `timeout` has no word for that option")
            return None
    limit = duration((given[at] if at < len(given) else None) or "")
    if not limit or not _runs_a_program(part, at + 2):
        return None
    left = part.without(at + 2)
    if left is None:
        return None
    peeling.step["timeout"] = limit
    if grace:
        peeling.step["grace"] = grace
    after = "" if grace else "; what does not end by TERM is killed 10 s later (grace)"
    peeling.say("lifted", f"timeout: {limit}{after}")
    return left


def _quiet(peeling: Peeling, found: Row) -> str | None:
    """chronic and cronic: output only when it fails. That is how a run under cron is."""
    part = found.parts[0]
    if len(found.parts) != 1 or part.name not in ("chronic", "cronic") or part.separator == "&":
        return None
    if not _runs_a_program(part, 1):
        peeling.say("kept", f"{part.name} with options")
        return None
    more = "; that it writes to stderr is no failure" if part.name == "cronic" else ""
    peeling.say("lifted", f"{part.name}: cron is told of failures alone{more}")
    return part.without(1)


# -- in front of it -------------------------------------------------------------------------------------------------


def _cd(peeling: Peeling, found: Row) -> str | None:
    first = found.parts[0]
    if first.name != "cd" or first.redirections or len(found.parts) < 2:
        return None
    if len(first.words) != 2 or any(part.separator != "&&" for part in found.parts[:-1]):
        _say_cd(peeling, first)
        return None
    path = value(first.words[1], peeling.place.variables)
    if path is None or path.startswith("-") or (peeling.step.get("if") and is_relative(str(peeling.step["if"]))):
        return None
    peeling.keys["working_dir"] = peeling.below(path)
    peeling.say("lifted", f"cd: working_dir: {peeling.keys['working_dir']}")
    return found.rest(1)


def _say_cd(peeling: Peeling, first: Part) -> None:
    if first.separator == ";":
        peeling.say(
            "bug", f"`{first.text};` goes on where it is if that folder is not there, with what is behind it",
            f"`{first.text} &&` ends there, and becomes working_dir",
        )  # fmt: skip


def _export(peeling: Peeling, found: Row) -> str | None:
    """`export A=b` with text that nothing is put into."""
    first = found.parts[0]
    if first.core is None or first.core.type != "declaration_command" or first.redirections or len(found.parts) < 2:
        return None
    if not text(first.core).startswith("export ") or first.separator not in ("&&", ";"):
        return None
    given = {name: literal(node) if node is not None else "" for name, node in assignments(first.core)}
    if len(given) != len(first.core.named_children) or any(one is None or "~" in one for one in given.values()):
        return None
    peeling.keys["env"] = {**_mapping(peeling.keys.get("env")), **given}
    peeling.say("lifted", f"export: env: {', '.join(given)}")
    return found.rest(1)


def _mapping(known: JSON) -> dict[str, JSON]:
    return dict(known) if isinstance(known, Mapping) else {}


def _env_file(peeling: Peeling, found: Row) -> str | None:
    parts, exported, at = found.parts, False, 0
    if parts[0].name == "set" and parts[0].arguments in (["-a"], ["-o", "allexport"]) and len(parts) > 1:
        exported, at = True, 1
    part = parts[at]
    if part.name not in (".", "source") or part.redirections or len(part.words) != 2 or len(parts) < at + 2:
        return None
    path = value(part.words[1], peeling.place.variables)
    if path is None or "/" not in path or part.separator not in ("&&", ";") or "env_file" in peeling.keys:
        return None
    at += 1
    if exported and parts[at].name == "set" and parts[at].arguments in (["+a"], ["+o", "allexport"]):
        at += 1
    elif exported:
        return None  # whatever is assigned later is exported, too
    if at >= len(parts):
        return None
    path = peeling.below(path)
    names = env_file_of(peeling.place.real(path), exported)
    if isinstance(names, str):
        peeling.say("kept", f"{parts[0].text if exported else part.text}: {path} {names}")
        return None
    peeling.keys["env_file"], peeling.in_env_file = path, names
    left = {name: one for name, one in _mapping(peeling.keys.pop("env", None)).items() if name not in names}
    if left:
        peeling.keys["env"] = left
    peeling.say("lifted", f"{part.text}: env_file: {path}")
    return found.rest(at)


def env_file_of(path: str, exported: bool) -> frozenset[str] | str:
    """The names in a file that a shell reads as `env_file` does; else why it does not. `exported`: by `set -a`."""
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read(1 << 20)
    except (OSError, UnicodeDecodeError):
        return "cannot be read here, so nobody can tell whether it is a plain list of variables"
    root, plain = parse(source), dict[str, str | None]()
    for node in root.named_children:
        own = node.type == "declaration_command" and text(node).startswith("export ")
        if node.type == "comment":
            continue
        if broken(root) or not (own or node.type in ("variable_assignment", "variable_assignments")):
            return "is more than a list of variables"
        if not own and not exported:
            return "has variables that are not exported: programs do not see them"
        plain |= {name: literal(one) if one is not None else "" for name, one in assignments(node)}
    try:
        known = read_env_file(path)
    except AgentrunError:
        return "is more than a list of variables"
    if known != plain or any("~" in one for one in known.values()):
        return "has values that a shell puts something into"
    return frozenset(plain)


def _jitter(peeling: Peeling, found: Row) -> str | None:
    part = found.parts[0]
    seconds = _spread(part) if len(found.parts) > 1 and part.separator in ("&&", ";") else 0
    if not seconds or part.redirections or "jitter" in peeling.keys:
        return None
    if not peeling.place.scheduled:
        peeling.say("kept", f"`{part.text}`: `jitter` is for starts by a schedule")
        return None
    peeling.keys["jitter"] = lasting(seconds)
    peeling.say("lifted", f"`{part.text}`: jitter: {lasting(seconds)}, always the same on this machine for this job")
    return found.rest(1)


def _spread(part: Part) -> int:
    """Up to how many seconds a part waits, by chance; 0 if it is none that does."""
    words = part.words
    if part.name == "sleep" and len(words) == 2:
        shown = text(words[1])
        for pattern in (_RANDOM, _SCALED, _SHUF):
            if found := pattern.fullmatch(shown):
                return int(found[1])
    if part.name == "perl" and part.arguments[:1] == ["-e"] and len(words) == 3:
        found = _PERL.fullmatch((part.arguments[1] or "").strip())
        return int(found[1]) if found else 0
    if re.fullmatch(r"python[\d.]*", part.name) and part.arguments[:1] == ["-c"] and len(words) == 3:
        found = _PYTHON.fullmatch((part.arguments[1] or "").strip())
        return int(found[1]) if found else 0
    return 0


RULES: Final[tuple[Rule, ...]] = (
    ping, silence, _background, _brackets, _flock, _timeout, _quiet, _cd, _export, _env_file, _jitter, guard,
)  # fmt: skip
_OF_STEPS: Final[tuple[Rule, ...]] = (silence, _brackets, _timeout, _quiet)
