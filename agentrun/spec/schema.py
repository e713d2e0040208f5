"""The JSON Schema of a job file, for editors: made from the table of fields, so it cannot say anything else.

It describes the shape of a file: keys, kinds, which keys exclude each other. Equal ids, circles, references and
whether one duration is longer than another are beyond it; `agentrun validate` tells those.
"""

from __future__ import annotations

from ..model import JSON
from .fields import JOB


def schema() -> dict[str, JSON]:
    """JSON Schema, draft 7: what the language servers of the common editors understand."""
    about: dict[str, JSON] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "agentrun job file",
        "description": "A durable job: steps that survive kills, crashes and reboots. See agentrun.yaml(5).",
    }
    return about | JOB.schema()
