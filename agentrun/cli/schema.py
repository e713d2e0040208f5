"""`agentrun schema`: the JSON Schema of job files."""

from __future__ import annotations

import json

from ..spec import schema as spec


def schema() -> int:
    """Print the JSON Schema of job files, for editors.

    Put it into a file, and name that in the first line of a job file:

    # yaml-language-server: $schema=agentrun.schema.json
    """
    print(json.dumps(spec.schema(), indent=2, ensure_ascii=False))
    return 0
