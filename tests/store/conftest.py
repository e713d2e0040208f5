"""A state folder with a real database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.store.database import Database, open_for_writing
from agentrun.store.read import Reader
from agentrun.store.write import Store


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The path of a state folder that does not exist yet."""
    return str(tmp_path / "state")


@pytest.fixture
def said() -> list[str]:
    """What the database had to say while it was written."""
    return []


@pytest.fixture
def database(root: str, said: list[str]) -> Iterator[Database]:
    """An open database with its tables, and no patience with errors."""
    opened = open_for_writing(root, notice=said.append, patience=0.5)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> Store:
    """The writing side."""
    return Store(database)


@pytest.fixture
def reader(database: Database) -> Reader:
    """The reading side, over the same connection."""
    return Reader(database.connection)
