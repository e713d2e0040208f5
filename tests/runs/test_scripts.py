"""`agentrun run script.sh`: a script run durably, with no job file."""

from __future__ import annotations

from pathlib import Path

import pytest

from .place import Place

SCRIPT = """\
#!/bin/bash
# Copies what is there.
set -eu
TARGET=${1:-nowhere}

# Fetch the list
"$ARENA/tool" fetch "$TARGET"

# Send it
"$ARENA/tool" send "$TARGET" "$0" || exit 7

# Say so
"$ARENA/tool" said in "$PWD"
echo "done"
"""
TOOL = """\
#!/bin/sh
echo "$*" >> "$ARENA/ledger"
[ "$1" != send ] || test -e "$ARENA/open"
"""


def script(place: Place, text: str = SCRIPT, name: str = "copy.sh") -> str:
    place.file("tool", TOOL, 0o755)
    return str(place.file(name, text, 0o755))


def test_a_script_goes_on_with_its_failed_statement(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = script(place)
    failed = place.call("run", path, "--", "two words", cwd=elsewhere)
    assert failed.status == 7 and "go on:" in failed.stderr and "changed:" not in failed.stderr
    place.file("open", "")
    again = place.call("resume", "copy")
    assert (again.status, again.stderr) == (0, "")
    sent = f"send two words {path}"
    assert place.marks() == ["fetch two words", sent, sent, f"said in {elsewhere}"]
    assert place.call("logs", "--raw", "copy").stdout == "done\n"
    assert place.call("status", "copy", "--json").run["file"] == path


def test_a_script_that_was_changed_is_adopted_by_spec(place: Place) -> None:
    path = script(place)
    place.call("run", path, "--", "x")
    script(place, SCRIPT.replace("exit 7", "true"))
    again = place.call("resume", "copy")
    assert again.status == 7 and f"{path} has changed since the run was created" in again.stderr
    again = place.call("resume", "copy", "--spec", path)
    assert again.status == 0, again.stderr
    assert place.marks()[0] == "fetch x" and place.marks().count("fetch x") == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.sh", "#!/bin/sh\nif true; then\n", "Syntax error"),
        ("a.py", "import sys\nprint(sys.argv[1:], flush=True)\n", "['two words']"),
        ("a", "#!/usr/bin/perl\nprint 40 + 2;\n", "42"),
    ],
)
def test_what_cannot_be_divided_runs_as_it_is(place: Place, name: str, text: str, said: str) -> None:
    ran = place.call("run", script(place, text, name), "--", *(["two words"] if name == "a.py" else []))
    assert said in place.call("logs", "--raw", "a").stdout, ran.stderr
    assert ran.status == (2 if name == "a.sh" else 0)


@pytest.mark.parametrize(("text", "status"), [("", 65), ("#!/bin/sh\n\0\n", 65), ("# nothing\n", 65)])
def test_what_is_no_script(place: Place, text: str, status: int) -> None:
    ran = place.call("run", script(place, text))
    assert ran.status == status and "Traceback" not in ran.stderr and "copy.sh" in ran.stderr


def test_a_job_file_takes_no_arguments(place: Place) -> None:
    ran = place.call("run", str(place.job("job", "steps: [{run: 'true'}]")), "--", "more")
    assert ran.status == 2 and "by -p KEY=VALUE" in ran.stderr
