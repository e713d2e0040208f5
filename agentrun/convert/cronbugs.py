"""What looks wrong in an entry of a crontab as it runs today: said, and never mended in silence.

Only what can be seen in the line is looked at; a program is looked for on this machine alone where the crontab is this
machine's (`here`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from ..cron.oddities import oddities
from ..health.crontab import PATH
from ..model import Schedule
from ..spec import schedules
from ..step.contract import _SHELL_WORDS
from .cmdline import Row, row
from .program import peeled
from .syntax import Node, broken, is_background, literal, parse, redirects, text, walk, words

_SECRETS: Final = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@$`]{3,}@"), "a URL with a password"),
    (re.compile(r"(?:^|\s)--?(?:(?:http-|ftp-|proxy-)?password|passwd|passphrase|token|secret|api-?key)[= ]['\"]?"
                r"(?![$\s`/~@<'\"-])\S{3,}", re.I), "a password"),
    (re.compile(r"(?:^|[\s;(&'\"])\w*(?:PASSWORD|PASSWD|MYSQL_PWD|PASSPHRASE|SECRET|SECRET_(?:ACCESS_)?KEY|TOKEN|"
                r"API_?KEY|WEBHOOK(?:_URL)?)=(?![$\s/~`])['\"]?(?!\d+(?:[\s'\"]|$))[^\s'\"$`]{4,}", re.I), "a secret"),
    (re.compile(r"\bBearer\s+(?![$`{<])\S{6,}|Authorization:\s*Basic\s+(?![$`{<])\S{6,}", re.I), "a token"),
    (re.compile(r"https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks|api\.telegram\.org/bot)(?!\$)\S+"),
     "a webhook"),
    (re.compile(r"[?&](?:token|key|secret|password|cron_?key)=(?![$`])[^\s&\"']{6,}", re.I), "a key in a URL"),
)  # fmt: skip
_ATTACHED: Final = re.compile(r"mysql(?:admin|check|dump|import|show|slap|pump|binlog|_upgrade)?|mariadb(?:-\w+)*")
_OF_CURL: Final = re.compile(r"-[fsSLkvgiIjlnNqRaO#0-46]*[uU](.*)|--(?:proxy-)?user(?:=(.*))?", re.S)
_BASHISMS: Final = (
    "source", "pushd", "popd", "shopt", "mapfile", "readarray", "declare", "typeset", "let", "disown",
)  # fmt: skip
_BRACES: Final = re.compile(r"(?<![$\\{])\{(?:[\w./*-]*(?:,[\w./*-]*)+|-?\w+\.\.-?\w+(?:\.\.-?\d+)?)\}(?!\})")
_EXPANSIONS: Final = re.compile(r"\$\{(?:!|\w+(?::\s*[\d$(]|/|\^|,))")
_SH: Final = "where sh is dash, as on Debian,"
# programs that run others elsewhere
_ELSEWHERE: Final = (
    "docker", "docker-compose", "podman", "kubectl", "ssh", "lxc", "lxc-attach", "chroot", "su", "flock",
)  # fmt: skip
_HOLDERS: Final = frozenset(("command", "command_name", "list", "pipeline", "redirected_statement", "file_redirect"))
_NAMELESS: Final = frozenset(("1", "2"))  # no programs, but descriptors gone astray
_STARTERS: Final = re.compile(r"(?:ba|da)?sh|python[\d.]*|perl|ruby|node|php[\d.]*")

Found = tuple[str, str]  # what, and what to do


def of_times(times: str, now: int) -> Iterator[Found]:
    """About when it runs. `now`: ms."""
    bare = times.removeprefix("-")
    fields = bare.split()
    if len(fields) != 5 or "~" in bare:
        return
    try:
        schedule = schedules.parse(bare)
    except schedules.Wrong as wrong:
        yield wrong.message, wrong.hint or ""
        return
    if fields[0] == "*" and fields[1] != "*" and len(schedule.hours) <= 12:
        hours = len(schedule.hours) * 60
        hint = f"once an hour it is `0 {fields[1]}`"
        yield f"it runs in every minute of {'that hour' if hours == 60 else 'those hours'}: {hours} times a day", hint
    for words_ in oddities((schedule,), "UTC", now):
        yield words_.partition(": ")[2], "it may be meant so" if not schedule.either_day else ""


def every(schedule: Schedule) -> int:
    """The seconds between two starts, at least."""
    if len(schedule.minutes) > 1:
        gaps = [b - a for a, b in pairwise(schedule.minutes)]
        return 60 * min([*gaps, 60 - schedule.minutes[-1] + schedule.minutes[0]])
    if len(schedule.hours) > 1:
        gaps = [b - a for a, b in pairwise(schedule.hours)]
        return 3600 * min([*gaps, 24 - schedule.hours[-1] + schedule.hours[0]])
    return 86_400


def of_command(command: str, *, bash: bool, variables: Mapping[str, str], home: str, here: bool) -> Iterator[Found]:
    """About what it does. `home`: the folder that it begins in."""
    root = parse(command)
    if broken(root):
        yield "its shell cannot read it: the parser stumbles over it too", "run it by hand and look"
    plain = not bash and os.path.basename(variables.get("SHELL", "sh")) in ("sh", "dash")
    yield from dict.fromkeys(_of_text(root, bash=not plain))
    found = row(command)
    if found is not None:
        yield from _of_paths(found, variables, home, here=here)
    what = next((what for pattern, what in _SECRETS if pattern.search(command)), "")
    if what := what or ("a password" if _has_password(root) else ""):
        message = f"{what} stands in the line: `ps` shows it to everybody while it runs"
        yield message, "put it into a file of mode 0600: env_file"


def _of_text(root: Node, *, bash: bool) -> Iterator[Found]:
    """About a text, and those in it that another shell is given: `bash -c '…'`."""
    yield from _of_output(root, bash=bash)
    yield from _of_background(root)
    if not bash:
        yield from _of_words(root)
        yield from _of_syntax(root)
    for shell, inner in _inner(root):
        yield from _of_text(inner, bash=shell not in ("sh", "dash"))


def _inner(root: Node) -> Iterator[tuple[str, Node]]:
    """What is given to a shell as one word, by the shell's name."""
    for node in walk(root):
        said = [literal(word) for word in peeled(node)] if node.type == "command" else []
        for shell, option, text_ in [said[:3]] if len(said) > 2 else ():
            name = os.path.basename(shell or "")
            if re.fullmatch(r"(?:ba|da|k|z)?sh", name) and re.fullmatch(r"-[a-z]*c", option or "") and text_:
                yield name, parse(text_)


def _has_password(root: Node) -> bool:
    """Whether an option has one behind it that is no variable: -p of mysql and sshpass, -u of curl. -P is a port."""
    for node in walk(root):
        said = peeled(node) if node.type == "command" else []
        names = [os.path.basename(literal(word) or "") for word in said]
        for at, name in enumerate(names if names[:1] and names[0] in _ELSEWHERE else names[:1]):
            given = said[at + 1 :]
            if (
                (_ATTACHED.fullmatch(name) and any(re.match(r"-p.", literal(word) or "") for word in given))
                or (name == "sshpass" and _of_sshpass([literal(word) for word in given]))
                or (name == "curl" and _of_curl(given))
            ):
                return True
        inner = [literal(word) or text(word).strip('"') for word in said if re.search(r"\s-\S", text(word))]
        if any(len(one) < len(text(root)) and _has_password(parse(one)) for one in inner):
            return True
    return False


def _of_sshpass(said: Sequence[str | None]) -> bool:
    for at, word in enumerate(said):
        if word is None or not word.startswith("-"):
            return False
        if word.startswith("-p"):
            return bool(word[2:] or (said[at + 1 :] and said[at + 1]))
        if word in ("-f", "-d", "-P"):
            return False  # a file, or a prompt; what follows is not looked at
    return False


def _of_curl(given: Sequence[Node]) -> bool:
    shown = [re.sub(r"\$\{[^}]*\}|[\"']", lambda one: "$" if one[0][0] == "$" else "", text(word)) for word in given]
    for word, following in pairwise([*shown, ""]):
        found = _OF_CURL.fullmatch(word)
        if found is not None and re.match(r"[^:\s]+:(?![$`])\S", found[1] or found[2] or following):
            return True
    return False


def _of_output(root: Node, *, bash: bool) -> Iterator[Found]:
    for node in walk(root):
        if node.type == "redirected_statement":
            said = [re.sub(r"\s", "", text(one)) for one in redirects(node.child_by_field_name("body") or node)]
            piped = node.parent is not None and node.parent.type == "pipeline" and node.next_sibling is not None
            for first, second in pairwise(said):
                if first == "2>&1" and re.match(r"1?>>?[^&]", second) and not piped:  # `2>&1 >f | x`: errors to x
                    where = second.lstrip("1>")
                    yield f"`2>&1 {second}` sends errors where output went before, not to {where}", f"{second} 2>&1"
        if node.type != "file_redirect":
            continue
        found = re.fullmatch(r"([12])>{1,2}\s*([12])", text(node))
        if found:
            yield f"`{text(node)}` writes to a file called {found[2]}", f"{found[1]}>&{found[2]}"
        if re.fullmatch(r"1?>&\s*1", text(node)) and (leaf := _leaf_before(node)) and text(leaf) == "2":
            yield f"`2 {text(node)}` gives the command a word 2, and redirects nothing", "2>&1"
        if not bash and (found := re.match(r"&>>?", text(node))):
            where = text(node).lstrip("&> ")
            message = f"`{found[0]}` is bash's: sh starts the command in the background"
            message += f", and empties {where}" if found[0] == "&>" else ""
            yield message, f"{found[0][1:]}{where} 2>&1, or SHELL=/bin/bash above"
        if not bash and re.match(r">&\s*[^\d\s$-]", text(node)):
            where = text(node).lstrip(">& ")
            yield f"`>&{where}` is bash's: {_SH} it is a bad descriptor", f">{where} 2>&1"


def _of_background(root: Node) -> Iterator[Found]:
    """A `&` that was to be of a redirection or of a URL: `2&1>log`, `>log 2&1`, `&2>log`, `http://x/?a=1&b=2`."""
    for node in walk(root):
        first = node.next_sibling
        if not is_background(node) or first is None:
            continue
        while first.children and first.type != "file_redirect":
            first = first.children[0]
        leaf = _leaf_before(node)
        before, behind, holder = text(leaf) if leaf is not None else "", text(first), first.parent
        touches = first.start_byte == node.end_byte
        if touches and leaf is not None and leaf.end_byte == node.start_byte and re.search(r"://\S*[?]", before):
            yield "a `&` without quotes ends the command in its URL, and starts it in the background", "quote the URL"
        elif first.type == "file_redirect":
            to = re.match(r"([12])>", behind) if touches else None
            if to is None or (holder is not None and holder.child_by_field_name("body") is not None):
                continue
            if (before, to[1]) == ("2", "1"):
                where = behind.lstrip("1> ")
                message = f"`2&{behind}` starts the command in the background with a word 2, and redirects nothing"
                yield message, f">{where} 2>&1"
            else:
                message = f"`&{to[0]}` starts the command in the background, and redirects nothing"
                yield message, f"{to[0]}file, or >file 2>&1"
        elif behind in _NAMELESS and holder is not None and holder.type == "command_name":
            word = " with a word 2" if before == "2" else ""
            what = f"{'2' if word else ''}&{behind}"
            yield f"`{what}` starts the command in the background{word}, and then a program called {behind}", "2>&1"


def _leaf_before(node: Node) -> Node | None:
    """The word before it."""
    here: Node | None = node
    while here is not None and here.prev_sibling is None:
        here = here.parent
    here = here.prev_sibling if here is not None else None
    while here is not None and here.children and here.type in _HOLDERS:
        here = here.children[-1]
    return here


def _of_words(root: Node) -> Iterator[Found]:
    """What is bash's in a command's words, and in variables."""
    bash = "SHELL=/bin/bash above"
    for node in walk(root):
        said = words(node) if node.type == "command" else []
        name = literal(said[0]) if said else None
        if node.type == "variable_name" and text(node) == "RANDOM":
            yield f"sh has no $RANDOM: {_SH} it is 0", "jitter spreads the starts of a job"
        if name in _BASHISMS:
            yield f"`{name}` is bash's: {_SH} it is not found", f"{bash}{', or `.`' if name == 'source' else ''}"
        if name == "echo" and len(said) > 1 and re.fullmatch(r"-[neE]*e[neE]*", literal(said[1]) or ""):
            yield f"`echo {text(said[1])}` is bash's: {_SH} it prints {text(said[1])}, too", "printf"
        compares = name in ("test", "[") and any(text(word) == "==" for word in said)
        if compares or (node.type == "test_command" and not text(node).startswith("[[") and any(
            one.type == "==" for one in walk(node)
        )):  # fmt: skip
            yield f"`==` in a test is bash's: {_SH} it is an error, and the answer is no", "="
        for word in said if name != "curl" else ():  # curl has braces of its own
            if word.type in ("word", "concatenation", "brace_expression") and "://" not in text(word):
                bare = "".join(text(one) if one.type not in ("string", "raw_string") else "'" for one in _parts(word))
                if found := _BRACES.search(bare):
                    yield f"`{found[0]}` is bash's: {_SH} it stays as it is", f"{bash}, or write them out"
        if node.type == "expansion" and _EXPANSIONS.match(text(node)):
            yield f"`{text(node)}` is bash's: {_SH} it is a bad substitution", bash
        if node.type == "ansi_c_string":
            yield f"`$'…'` is bash's: {_SH} the $ stays in the text", f"{bash}, or \"$(printf '…')\""


def _parts(word: Node) -> Sequence[Node]:
    return word.children if word.type == "concatenation" else [word]


def _of_syntax(root: Node) -> Iterator[Found]:
    """What is bash's in the grammar."""
    bash = "SHELL=/bin/bash above"
    for node in walk(root):
        if node.type == "test_command" and text(node).startswith("[["):
            yield f"`[[` is bash's: {_SH} it is not found", f"{bash}, or [ … ]"
        if node.type == "function_definition" and text(node).startswith("function"):
            yield f"`function` is bash's: {_SH} it is not found, and the body runs at once", f"{bash}, or `name() {{`"
        if node.type == "process_substitution":
            yield f"`{text(node)[:2]}…)` is bash's: sh cannot read it", bash
        if node.type == "herestring_redirect":
            yield "`<<<` is bash's: sh cannot read it", f"{bash}, or printf … |"
        if node.type == "array" or node.type == "c_style_for_statement":
            yield f"`{text(node)[:12]}…` is bash's: {_SH} it cannot read it", bash
        if node.type == "|&":
            yield f"`|&` is bash's: {_SH} it cannot read it", "2>&1 |"
        if node.type == "for_statement" and (found := _BRACES.search(_list_of(node))):
            yield f"`{found[0]}` is bash's: {_SH} it stays as it is", f"{bash}, or write them out"


def _list_of(loop: Node) -> str:
    """What a `for` goes through, without what stands in quotes."""
    return " ".join(text(one) for one in loop.children_by_field_name("value") if "string" not in one.type)


def _of_paths(found: Row, variables: Mapping[str, str], home: str, *, here: bool) -> Iterator[Found]:
    moved = any(part.name == "cd" or (part.core and part.core.type == "subshell") for part in found.parts)
    for part in found.parts:
        said = part.words
        if not said or part.name in ("cd",):
            continue
        name = literal(said[0]) or ""
        script = part.arguments[0] if part.arguments and _STARTERS.fullmatch(part.name) else None
        for word in (name if "/" in name else "", script or ""):
            if word and not moved and not word.startswith(("/", "~", "-", "+")) and re.search(r"[/.]", word):
                hint = "write its whole path, or `cd … &&` before it"
                yield f"{word} is looked for in {home}, where cron begins", hint
        if here and name and name not in _SHELL_WORDS and not (moved and not name.startswith("/")):
            path = variables.get("PATH", PATH)
            real = os.path.expanduser(name)
            there = os.access(real, os.X_OK) if "/" in real else shutil.which(real, path=path) is not None
            if not there and not ("/" in real and not os.path.isabs(real)):
                yield f"{name} is not there{'' if '/' in name else f', on the PATH of cron: {path}'}", ""


def of_variable(name: str, value: str) -> Iterator[Found]:
    """About a variable of the crontab."""
    if "$" in value or (name == "PATH" and "~" in value):
        yield f"cron puts nothing in the place of $ or ~: {name} is {value}, letter by letter", "write the whole path"
    if name in ("LOGNAME",):
        yield f"{name} cannot be set: cron keeps the user's", ""
