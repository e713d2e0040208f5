"""Files that a script reads in, and first lines that do not start it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrun.convert.shell import convert

ASKS = 'load() {\n  . "$(dirname "${BASH_SOURCE[0]}")/$1.conf"\n}\n'
BODY = "\n# Archive\ntar cf a b\n\n# Load\nload shop\nmake shop\n"


def kept(source: str, script: Path) -> list[tuple[int, str]]:
    made = convert(source.encode(), str(script))
    return [(note.line, note.message) for note in made.notes if note.message.startswith("kept whole")]


@pytest.mark.parametrize(
    "line",
    [
        '. "$(dirname "$0")/lib/functions.sh"',
        'source "${BASH_SOURCE%/*}/lib/functions.sh"',
        'HERE=$(cd "$(dirname "$0")" && pwd); . "$HERE/lib/functions.sh"',
        '. "${HERE}/lib/functions.sh"',
        ". lib/functions.sh",
        ". {}/lib/functions.sh",
    ],
)
def test_functions_that_ask_which_file_they_stand_in(line: str, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "functions.sh").write_text(ASKS)
    source = "#!/bin/bash\n" + line.replace("{}", str(tmp_path)) + "\n" + BODY
    assert kept(source, tmp_path / "s.sh") == [
        (2, "kept whole: functions of functions.sh ask which file they stand in, and later steps cannot say it")
    ]


@pytest.mark.parametrize(
    ("line", "library"),
    [
        ('. "$(dirname "$0")/lib.sh"', 'HERE=${BASH_SOURCE%/*}\nload() {\n  . "$HERE/$1.conf"\n}\n'),
        ('. "$(dirname "$0")/lib.sh"', "load() { make x; }\n"),
        ('. "$(dirname "$0")/other.sh"', ASKS),
        ('cat "$(dirname "$0")/lib.sh"', ASKS),
    ],
)
def test_any_other_file_is_read_in_by_a_step(line: str, library: str, tmp_path: Path) -> None:
    (tmp_path / "lib.sh").write_text(library)
    assert kept(f"#!/bin/bash\n{line}\n{BODY}", tmp_path / "s.sh") == []


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("#!/bin/bash -eu -o pipefail", "its shell is given `-eu -o pipefail` as one option"),
        ("#!/usr/bin/env bash -e", "`env` is given `bash -e` as one name, and finds no such program"),
        ("#!bash", "`bash` is looked for in the folder where it is started"),
        ("#!/bin/bash -eu", ""),
        ("#!/bin/bash", ""),
        ("#!/usr/bin/env bash", ""),
        ("#!/usr/bin/env -S bash -e", ""),
        ("#! /bin/sh", ""),
        ("#!", ""),
        ("#!  ", ""),
    ],
)
def test_a_first_line_that_does_not_start_it(first: str, why: str, tmp_path: Path) -> None:
    notes = convert(f"{first}\nmake a\n".encode(), str(tmp_path / "s.sh")).notes
    found = [note.message for note in notes if note.kind == "bug"]
    assert found == ([f"its first line does not start it: {why}; the job does"] if why else [])
