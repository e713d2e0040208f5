"""Which comments of a crontab are about an entry: those right above it, and not the furniture of the file.

    # Nightly backup of the wiki          the description of the entry, and of those that follow without a gap
    30 3 * * *  /opt/backup.sh            if they run the same program

Furniture are lines of dashes, the help about the fields, headings of the distribution, and entries put out of use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .cronnames import naming
from .crontab import Line, setting, wrong_times

_LONGEST: Final = 110
_FIELDS: Final = re.compile(
    r"\bm(?:in(?:ute)?)?s?\b.*\bh(?:ours?|rs?)?\b.*\bd(?:om|ay|ate)|day.of.(?:the.)?(?:week|month)|\bdow\b|"
    r"[|┬│].*\(?\d+ ?- ?\d+\)?|^\W*(?:\*\s+){4,}\*|^(?:user-name|command)\b",
    re.I,
)
_PUT_OUT: Final = re.compile(r"((?:[-\d*/,]+[ \t]+){4}[-\d*/,a-zA-Z]+|@[a-z]+)[ \t]+\S")
_ABOUT_CRON: Final = re.compile(
    r"must (?:end|be left)|(?:empty|blank|new) ?line|regular cron jobs for|do(?: not|n't) (?:edit|remove)|"
    r"/etc/cron\.d/\S+(?::|$)|crontab (?:fragment|entr)|^!|vim?:|shellcheck",
    re.I,
)


def of_entries(lines: Sequence[Line]) -> dict[int, tuple[str, str]]:
    """For each entry by its number: a description, and a longer comment; either may be empty."""
    found: dict[int, tuple[str, str]] = {}
    block: list[str] = []
    above, program = ("", ""), ""
    within = False  # the last line was an entry
    for line in lines:
        if line.kind == "comment":
            block = [line.text] if within else [*block, line.text]
            within = False
        elif line.kind == "entry":
            if not within:
                above, program = said(block), _program(line)
                block, within = [], True
            elif any(above) and _program(line) != program:
                above = "", ""
            found[line.number] = above
        else:
            block, within = [], False
    return found


def _program(line: Line) -> str:
    return naming(line.command, "").base if line.is_text else ""


def said(comment: Sequence[str]) -> tuple[str, str]:
    """What a block of comments says: as one line, or as several that stand above the job."""
    kept: list[str] = []
    for written in comment:
        text = re.sub("[\ud800-\udfff]", "\ufffd", written.strip().lstrip("#").strip())
        if not re.search(r"[^\W\d_]{2}", text) or is_furniture(text):
            kept = []
        else:
            kept.append(re.sub(r"^([-=*~_])\1+ *|[ :]*([-=*~_#])\2+$", "", text).strip(" :"))
    if not kept:
        return "", ""
    whole = re.sub(r"\s+", " ", " ".join(kept)).rstrip(":").strip()
    if len(whole) <= _LONGEST:
        return whole, ""
    return "", "\n".join(kept)


def is_furniture(text: str) -> bool:
    """Whether a comment is of the file and not about an entry."""
    if _FIELDS.search(text) or _ABOUT_CRON.search(text) or setting(text) is not None:
        return True
    found = _PUT_OUT.match(text)
    return found is not None and not wrong_times(found[1])
