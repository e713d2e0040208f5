"""Every file in `bad/` is refused with exactly the problems beside it, which were written by hand.

`NAME.expected` holds a line `LINE:COLUMN: message` for each problem, its hint indented below it. `text/` is wrong as
YAML or beyond a limit, `shape/` is what the JSON Schema sees too, `meaning/` is the decoder's alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrun.errors import JobFileError
from agentrun.spec.decode import load

BAD = Path(__file__).parent / "bad"
FILES = sorted(BAD.glob("*/*.yaml"))


def told(error: JobFileError) -> str:
    lines = []
    for problem in error.problems:
        lines.append(f"{problem.line}:{problem.column}: {problem.message}\n")
        if problem.hint:
            lines.append(f"    {problem.hint}\n")
    return "".join(lines)


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_refused_with_the_message_beside_it(path: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        load(str(path))
    assert told(caught.value) == path.with_suffix(".expected").read_text()


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_problems_name_the_file_and_show_the_line(path: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        load(str(path))
    lines = [*path.read_text().split("\n"), ""]
    for problem in caught.value.problems:
        assert problem.path == str(path)
        assert problem.source == lines[problem.line - 1][:400]
        assert problem.column <= len(lines[problem.line - 1]) + 1
