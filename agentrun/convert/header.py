"""What stands at the top of a script before it does anything: its interpreter, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from .titles import is_code, sentence

Language = Literal["bash", "sh", "other shell", "no shell"]

_SH = frozenset(("sh", "dash", "ash"))
_OTHER_SHELLS = frozenset(
    (
        "zsh",
        "fish",
        "csh",
        "tcsh",
        "ksh",
        "ksh93",
        "mksh",
        "pdksh",
        "lksh",
        "yash",
        "rc",
        "es",
        "elvish",
        "nu",
        "xonsh",
        "osh",
    )
)
_OPTIONS = re.compile(r"-[euxfhEBaCp]+")
_PREPARES = re.compile(
    r"(set|define|load|import|get|check|config\w*|variables?|settings|source|stop|exit|make|create|abort|parse|read|ensure|usage|strict|bail|fail|default\w*|constants?|if|cd|change|go|enable|export)\b",
    re.I,
)
_SECTION = re.compile(
    r"(script )?(config\w*|variables?|settings|setup|constants?|parameters?|options|defaults?)( \w+)?", re.I
)
_LABELS = re.compile(
    r"^([\w.-]+\.(ba)?sh\s*([-–—:]+\s*|$))?"
    r"((desc(ription)?|purpose|summary|synopsis|what|name|title|script|author|info|about|file)\s*:\s*)?",
    re.I,
)
_NO_SENTENCE = re.compile(
    r"(usage|author|copyright|license|date|version|created|modified|added|step \d|in order to|inspired by|make sure"
    r"|note|add (to )?cron|run (with|using|this)|this program is free|todo|params?|options?)\b|(https?|docs?|source):"
    r"|\(c\)|@|\$[ \d{]|\./|--?\w|>",
    re.I,
)
_UNFINISHED = re.compile(r"(,|\b(in|to|of|the|and|or|for|with|a|an|from|by))$")
_MAX_DESCRIPTION = 100


class Interpreter(NamedTuple):
    """`shell`: the words of the first line; `language`: what they run; `odd`: an option that cannot be handed on."""

    shell: tuple[str, ...]
    language: Language
    odd: str = ""


class Header(NamedTuple):
    """What a script says of itself: `lines` are those of the comment that it was taken from."""

    description: str
    comment: tuple[str, ...]
    lines: range


def interpreter(first: str) -> Interpreter | None:
    """What the first line names. None where it names nothing."""
    if not first.startswith("#!"):
        return None
    said = first[2:].split()
    if not said:
        return None
    shell = said
    if said[0].rsplit("/", 1)[-1] == "env":
        shell = [word for word in said[1:] if word != "-S" and "=" not in word]
    if not shell:
        return Interpreter(tuple(said), "no shell")
    name = shell[0].rsplit("/", 1)[-1]
    if name == "busybox" and len(shell) > 1 and shell[1] in _SH:
        return Interpreter(tuple(shell), "sh", "" if len(shell) == 2 else shell[2])
    if name in _OTHER_SHELLS:
        return Interpreter(tuple(said), "other shell")
    if name not in _SH and re.fullmatch(r"bash(-?\d[\d.]*)?", name) is None:
        return Interpreter(tuple(said), "no shell")
    language: Language = "sh" if name in _SH else "bash"
    return Interpreter(tuple(shell), language, _odd(shell[1:]))


def _odd(options: Sequence[str]) -> str:
    left = list(options)
    while left:
        word = left.pop(0)
        if re.fullmatch(r"-[eux]*o", word) and left and left[0] in ("pipefail", "errexit", "nounset", "errtrace"):
            left.pop(0)
        elif not _OPTIONS.fullmatch(word) and word not in ("-", "--"):
            return word
    return ""


def header(lines: Sequence[str]) -> Header:
    """The comment at the top that is about the whole script, not about its first statement."""
    at = 1 if lines and lines[0].startswith("#!") else 0
    gap = at
    while gap < len(lines) and not lines[gap].strip():
        gap += 1
    end = gap
    while end < len(lines) and lines[end].lstrip().startswith("#"):
        end += 1
    block = lines[gap:end]
    attached = end < len(lines) and lines[end].strip() != ""
    said = sentence(block)
    short = len(block) == 1 and len(_LABELS.sub("", _bare(block[0])).split()) < 3
    if not block or (attached and not _about_all(block, gap == at)) or short or _SECTION.fullmatch(said):
        return Header("", (), range(0))
    return _read(block, range(gap + 1, end + 1))


def _about_all(block: Sequence[str], at_once: bool) -> bool:
    said = sentence([_LABELS.sub("", _bare(line)) for line in block])
    if not said or _PREPARES.match(said) or re.search(r"shellcheck ", "\n".join(block)):
        return False
    return at_once and (len(block) > 1 or len(said.split()) > 2)


def _read(block: Sequence[str], where: range) -> Header:
    bare = [_bare(line) for line in block]
    while bare and not bare[0]:
        bare.pop(0)
    while bare and not bare[-1]:
        bare.pop()
    named = [number for number, line in enumerate(bare) if _is_sentence(_LABELS.sub("", line.strip()))]
    description = ""
    if named:
        number = named[0]
        said = _LABELS.sub("", bare[number].strip())
        below = bare[number + 1] if number + 1 < len(bare) else ""
        begins_small = re.match(r"[a-z(\"'`](?!\w*:)", below) is not None and not re.search(r"[.!:]$", said)
        goes_on = begins_small or (below != "" and _UNFINISHED.search(said) is not None)
        following = f"{said} {below}" if goes_on else said
        whole = re.split(r"(?<=[\w)])\.(?:\s|$)", following, maxsplit=1)[0].strip()
        description = said if len(whole) > _MAX_DESCRIPTION else whole
        if len(bare) == 1 or (len(bare) == 2 and description == " ".join(bare).rstrip(".")):
            bare = [] if description == " ".join(bare).rstrip(".") else bare
    return Header(description, tuple(bare), where)


def _is_sentence(said: str) -> bool:
    short = len(said.split()) < (2 if said[:1].isupper() else 3) and said.isascii()
    if short or said.endswith(":") or is_code(said):
        return False
    return re.search(r"[^\W\d_]{2}", said) is not None and not _NO_SENTENCE.match(said)


def _bare(line: str) -> str:
    """A line of comment without what makes it one, and without the frame around it."""
    said = re.sub(r"^\s*#+ ?", "", line.rstrip())
    if not re.search(r"\w", said):
        return ""
    return re.sub(r"\s+[#*]+$", "", said)
