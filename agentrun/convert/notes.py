"""What a conversion has to say of what it did: the report on stderr is made of these, and so is its JSON.

    lifted    what was done by hand and is a key of the job now
    kept      what stays as it was, and why
    bug       what looks wrong in what runs today, whether converted or not
    advice    what the converted job makes possible, or what should be looked at once
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from .draft import Draft

Kind = Literal["lifted", "kept", "bug", "advice"]


class Note(NamedTuple):
    """One remark. `line` counts from 1 in the file that was read, 0 for all of it. `hint`: what to do."""

    kind: Kind
    line: int
    message: str
    hint: str = ""


class Converted(NamedTuple):
    """A script as a job, and what there is to say of it.

    `statements`: how many there are at a shell script's top; `whole`: the job is one step that calls the script.
    """

    draft: Draft
    notes: list[Note]
    statements: int = 0
    whole: bool = False
