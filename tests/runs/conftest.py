from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    arena = Place(tmp_path)
    yield arena
    arena.close()
