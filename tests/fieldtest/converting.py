"""What the converter makes of a script, as JSON: `python converting.py SCRIPT [ARGUMENT …]`, in the sandbox.

There the script is where its job will find it. The job gets the arguments, and may be resumed as often as there are
steps.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from agentrun.convert.shell import convert


def main(path: str, *words: str) -> None:
    """The command."""
    done = convert(Path(path).read_bytes(), path)
    keys = dict(done.draft.keys) | {"max_resumes": 10_000}
    if words and not done.whole:
        keys["args"] = list(words)
    steps = done.draft.steps
    if words and done.whole:  # the job calls the script
        called = dict(steps[0].keys)
        called["run"] = " ".join([str(called["run"]), *words])
        steps = [dataclasses.replace(steps[0], keys=tuple(called.items()))]
    draft = dataclasses.replace(done.draft, keys=list(keys.items()), steps=steps)
    told = {
        "job": draft.checked("job.yaml")[0],
        "statements": done.statements,
        "steps": len(done.draft.steps),
        "whole": done.whole,
        "kept": [f"{note.line}: {note.message}" for note in done.notes if note.kind == "kept"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
