"""Ten thousand good files broken in their structure: a job or a list of problems comes out, never a traceback.

Keys are dropped, doubled, swapped, renamed; values retyped, nested, exchanged between places. Each mutant is written
as YAML again and read through the front door. The seed is fixed; a failure names its number. What the decoder takes,
the JSON Schema takes too.
"""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentrun.errors import JobFileError
from agentrun.model import Job
from agentrun.spec.decode import decode
from agentrun.spec.fields import TABLES
from agentrun.spec.schema import schema

from . import yaml_core

FILES = sorted((Path(__file__).parent / "good").glob("*.yaml"))
GOOD = [yaml_core.load(path.read_text(encoding="utf-8-sig")) for path in FILES]
KEYS = sorted({name for table in TABLES.values() for name in table.fields} | {"<<", "", "schedule", "timout"})
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, "", " ", "\0", "a\nb", "5m", "0s", "é" * 70, "step-1", ["step-1", "step-1"],
    "${{ params.a }}", "${{", "${{ steps.a.outputs.b }}", "${{ x y }}", "${{ item }}", "${{ item.a }}",
    "512", "1GiB", 2.5,
    {"until": "true", "max": 3}, {"until": "true"}, [1, 1], [{"a": 1}, {"a": 1.0}], {"cost": 1}, {"memory": 5},
    [], {}, [[]], [None], {"a": {}}, [{"run": "x"}], {"": None},
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value, with each key or position in it."""
    found = []
    todo = [value]
    while todo:
        part = todo.pop()
        inside = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for at, child in inside:
            found.append((part, at))
            todo.append(child)
    return found


def mutate(file: Any, dice: random.Random) -> None:
    spots = places(file)
    if not spots:
        return
    (holder, at), (other, there) = dice.choice(spots), dice.choice(spots)
    match dice.randrange(8):
        case 0:
            del holder[at]
        case 1:
            holder[at] = copy.deepcopy(dice.choice(ODD))
        case 2:
            holder[at] = [holder[at]]
        case 3:
            holder[at] = {dice.choice(KEYS): holder[at]}
        case 4:
            holder[at] = copy.deepcopy(other[there])
        case 5 if isinstance(holder, dict):
            holder[dice.choice(KEYS)] = holder.pop(at)
        case 6 if isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[at]))
        case _:
            holder[at] = str(holder[at]) if dice.random() < 0.5 else dice.choice(KEYS)


def written(value: Any, dice: random.Random) -> str:
    """As flow YAML. Now and then a key twice, or a text without its quotes."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)}: {written(part, dice)}" for key, part in value.items()]
        if pairs and dice.random() < 0.02:
            pairs.append(dice.choice(pairs))
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(part, dice) for part in value) + "]"
    if isinstance(value, str) and value.replace("_", "").isalnum() and dice.random() < 0.5:
        return value
    return json.dumps(value)


@pytest.mark.parametrize("thousand", range(3))
def test_a_thousand_mutants(thousand: int) -> None:
    validator = jsonschema.Draft7Validator(schema())
    taken = 0
    for number in range(1_000 * thousand, 1_000 * thousand + 1_000):
        dice = random.Random(number)
        file = copy.deepcopy(dice.choice(GOOD))
        for _ in range(dice.randint(1, 4)):
            mutate(file, dice)
        text = written(file, dice)
        try:
            job = decode(text, "mutant.yaml")
        except JobFileError as error:
            assert error.problems, number
            continue
        except Exception as error:
            raise AssertionError(f"mutant {number}: {text}") from error
        assert isinstance(job, Job)
        assert validator.is_valid(yaml_core.load(text)), f"mutant {number}: {text}"
        taken += 1
    assert 50 < taken < 950  # else the mutations prove nothing
