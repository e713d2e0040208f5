"""A comment or a line of output as the name of a step: its first sentence, in its own words, cut where it can be.

A sentence of six words stands as it is. A longer one is cut before what only adds to it: at a comma, before "that" or
"because", at last before a preposition; it never ends in "the" or "of". What is no title gives none: prose with a verb
of its own ("A dump that cannot be read is worse than none"), a condition, a command put out of use, a licence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .syntax import listed

_WORDS = 6
_LENGTH = 40
_LATIN = 0x24F  # the last letter of it; what comes later has no small letters to be written in

_DECORATION = re.compile(
    r"^[\s#=*~_+<>|.:\u2500-\u257f-]+(?![\w/.])|^[\s#=*~_+<>|\u2500-\u257f-]+|[\s#=*~_+<>|\\\u2500-\u257f-]+$"
)
_LABEL = re.compile(r"^(info|note|nb|step|task|purpose|description|warning|important|attention|hint)\s*:\s*", re.I)
_NUMBERING = re.compile(
    r"^(\w+\s+(?=#?\d+\s*[:.)/-]))?#?\s*[\[(]?\d+(\s*(/|of)\s*\d+)?[\])]?\s*[:.)-]+\s*"
    r"|^[\[(]\d+\s*/\s*\d+[\])]\s*",
    re.I,
)
_DIRECTIVE = re.compile(
    r"shellcheck\s|vim?:|-\*-|todo\b|fixme\b|xxx\b|noqa|eslint|copyright|licen[cs]e|warranty|spdx|@\w+|https?://", re.I
)
_CODE = re.compile(
    r"[;|&`]\s*$|\$\(|&&|\|\||^[./~]*/\S|^!?/?(usr/)?bin/|^[A-Za-z_]\w*=|^[\w./-]+ -|\s--?\w+(\s|=)|\s=\s|^\w+\(\)|2>&1"
    r"|>>|\s[A-Z_]+=\S"
    r"|^\s*(if|for|while|then|fi|done|do|else)\b.*[;\]]"
)
_COMMAND = re.compile(
    r"^\s*(echo|sudo|cd|rm|cp|mv|exit|set|apt-get|chmod|chown|mkdir|curl|wget|rsync|tar|mysql|docker|source) "
    r"|(^|[\s:])([\d*,/]+ ){4}"
)
_ENDS = re.compile(r"(?<=\w)[.!?;](?:\s|$)|(?<=\w\w):\s|\s[-–—]+\s|\s\(|\.\.\.|…")
_LEADS = re.compile(
    r"^((now|next|first(ly)?|second(ly)?|then|finally|lastly|also|and|please|ok|well|here|just|simply|script to|"
    r"((this|it)( will| must| should)|(this script|we|i|you|let us|lets)( now| then| first| also)?"
    r"( will| need to| want to| have to| can| must| should)?)( now| then| first| also)?) )+(?=[a-z]{2})"
)
_NOT_TITLES = listed("""
    if when since because as it its this these those there i we you they he note but so otherwise although unless why
    see eg ie not no only ist wenn""")
_VERBS_OF_PROSE = listed("""
    is are was were will would has have had must should can cannot cant could may might does do doesnt dont isnt wont
    needs""")
_PRONOUNS = listed("that which who what where")
_OF_A_CLAUSE = _PRONOUNS | listed("whose whether if when because since so unless until while but as and or then")
_PREPOSITIONS = listed("""
    to with for from into in on at by of via using without before after under older newer than between within
    during und von nach mit""")
_ARTICLES = listed("you a an the that all any our your my their its this is are be each some per")
_DANGLING = _PREPOSITIONS | _OF_A_CLAUSE | _ARTICLES | listed("""
    was were no not more less only will can has have der die das""")
_SMALL = (_DANGLING - {"older", "newer"}) | listed("it how new old every now up out make makes making sure ensure")
_NOISE = listed("eof end of file the script null dev")  # what is made of these alone says nothing of a step
_IMPERATIVES = listed("""
    check make create ensure verify test get set find remove delete copy move send fetch load start stop restart wait
    tell keep determine see look run build install update upgrade backup dump restore sync upload download archive
    compress rotate clean exit abort print show list read write add assert do""")
_TRANSLATED = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "’": None, "'": None, "–": ",", "—": ","}
)


def sentence(comment: Sequence[str]) -> str:
    """The first sentence of a comment; empty where it is a line of dashes, a directive, or a command put out of use."""
    said: list[str] = []
    for line in comment:
        bare = _DECORATION.sub("", line.strip()[:400])
        bare = _DECORATION.sub("", bare)
        code = _CODE.search(bare) or is_code(bare)
        if not bare or code or _DIRECTIVE.search(bare) or not re.search(r"[^\W\d_]{2}", bare):
            if said:
                break
            continue
        said.append(bare)
        if re.search(r"[.:!?]$|[#=*~_\u2500-\u257f-]{2}$", line.strip()) or len(" ".join(said)) > 60:
            break
    whole = _LABEL.sub("", _NUMBERING.sub("", " ".join(said)))
    return _ENDS.split(whole, maxsplit=1)[0].strip(" .:!?,")


def is_code(said: str) -> bool:
    """Whether a comment is a command put out of use, or a line of a crontab."""
    return _COMMAND.search(said) is not None


def title(said: str) -> str:
    """The name that a sentence makes; empty where it is none."""
    letters = [char for char in said if char.isalpha()]
    if 2 * sum(ord(char) > _LATIN for char in letters) > len(letters):
        return ""  # what would be left of it is a word or two
    words = _words(said)
    plain = [word for word in words if word.isalnum()]
    if plain[:1] == ["main"] and len(plain) < 3:
        return ""  # of a script's only function
    if _NOISE.issuperset(plain):
        return ""
    if not plain or not re.search(r"[a-z]{2}", " ".join(plain)) or (plain[0] in _NOT_TITLES and len(plain) > 2):
        return ""
    if len(words) > len(plain) or not _fits(plain):
        if _is_prose(plain):
            return ""
        plain = _cut(words)
        if plain[-1] in _VERBS_OF_PROSE:
            return ""
    plain = _trimmed(plain)
    return slug(" ".join(plain)) if any(word not in _SMALL for word in plain) else ""


def slug(said: str) -> str:
    """Words as an id, or nothing: small letters and digits with hyphens between."""
    plain = unicodedata.normalize("NFKD", said.lower().translate(_TRANSLATED)).encode("ascii", "ignore").decode()
    result = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        if result and len(result) + len(word) + 1 > _LENGTH:
            break
        result = f"{result}-{word}" if result else word[:_LENGTH]
    if not re.search(r"[a-z]{2}", result):
        return ""
    return result if not result[0].isdigit() else f"step-{result}"


def _words(said: str) -> list[str]:
    """Small words; `,` stands for what ends a phrase, `$` for what is not known as it stands."""
    plain = unicodedata.normalize("NFKD", said.lower().translate(_TRANSLATED)).encode("ascii", "ignore").decode()
    plain = re.sub(r"\$\{[^}]*\}|\$\w+|<\w+>|%\w+%", " $ ", plain)
    plain = re.sub(r"\d?[<>]+\s*(?=\S)&?\d?|(?<![\w/])/?dev/\w+", " $ ", plain)
    plain = re.sub(r"(?<![\w/])~?/[\w.*-]+/[\w./*-]*", " $ ", plain)
    plain = re.sub(r"\b(\w+)/(?=\w)", r"\1 ", plain)
    plain = " ".join(re.findall(r"[a-z0-9]+|[,;:()\[\]$]", plain))
    plain = _LEADS.sub("", plain)
    words = re.sub(r"[;:()\[\]]", ",", plain).split()
    while words and not words[-1].isalnum():
        words.pop()
    while words and (not words[0].isalnum() or words[0].isdigit()):
        words.pop(0)
    return words


def _fits(words: Sequence[str]) -> bool:
    return len(words) <= _WORDS and len(" ".join(words)) <= _LENGTH


def _is_prose(words: Sequence[str]) -> bool:
    """Whether it has a verb of its own, beside those of its relative clauses, and is no order."""
    if words[0] in _IMPERATIVES or words[0] in ("what", "which"):
        return False
    verbs = sum(word in _VERBS_OF_PROSE for word in words)
    return verbs > sum(word in _PRONOUNS for word in words)


def _cut(words: Sequence[str]) -> list[str]:
    """The longest beginning that fits, before what only adds to it; else what fits."""
    for ends in (frozenset(",$"), _OF_A_CLAUSE, _PREPOSITIONS):
        for at in range(len(words) - 1, 0, -1):
            begin = _trimmed(words[:at])
            if words[at] in ends and _fits(begin) and sum(word not in _SMALL for word in begin) > 1:
                return begin
    begin = [word for word in words if word.isalnum()]
    short = [word for word in begin if word not in _ARTICLES]
    begin = short if short and _fits(short) else begin
    while not _fits(begin) and len(begin) > 1:
        begin.pop()
    return begin


def _trimmed(words: Sequence[str]) -> list[str]:
    found = [word for word in words if word.isalnum()]
    while len(found) > 1 and found[-1] in _DANGLING and found[-2:-1] not in (["is"], ["are"]):
        found.pop()
    return found


__all__ = ["is_code", "sentence", "slug", "title"]
