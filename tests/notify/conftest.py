from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .receiver import MailServer, Post, Receiver


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    place = Post(tmp_path)
    yield place
    place.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.close()
