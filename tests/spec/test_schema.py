"""The JSON Schema and the decoder agree: both are made from one table, and read different parts of it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from agentrun.spec.fields import TABLES
from agentrun.spec.schema import schema

from . import yaml_core

HERE = Path(__file__).parent
VALIDATOR = jsonschema.Draft7Validator(schema())


def stems(pattern: str) -> list[Path]:
    return sorted(HERE.glob(pattern))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def test_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("path", stems("good/*.yaml"), ids=lambda path: path.stem)
def test_good_files_validate(path: Path) -> None:
    VALIDATOR.validate(yaml_core.load(read(path)))


@pytest.mark.parametrize("path", stems("bad/shape/*.yaml"), ids=lambda path: path.stem)
def test_files_of_a_bad_shape_do_not(path: Path) -> None:
    assert not VALIDATOR.is_valid(yaml_core.load(read(path)))


def test_every_field_has_words_and_an_example_that_is_accepted() -> None:
    for table in TABLES.values():
        for field in table.fields.values():
            assert field.doc.endswith("."), field.name
            part = jsonschema.Draft7Validator(field.kind.schema())
            assert part.is_valid(yaml_core.load(field.example)), (field.name, field.example)
