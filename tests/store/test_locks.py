"""Who is alive: the kernel's locks on single bytes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from agentrun.store.locks import LEASE, SHIM, held, try_lock, unlock

from .records import python

HOLD = """
import os, sys
from agentrun.store.locks import try_lock
fd = os.open(sys.argv[1], os.O_RDWR)
print(try_lock(fd, int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> str:
    path = tmp_path / "lock"
    path.touch()
    return str(path)


def test_one_byte_has_one_holder(lock: str) -> None:
    one, two = os.open(lock, os.O_RDWR), os.open(lock, os.O_RDWR)
    assert try_lock(one, LEASE)
    assert try_lock(one, LEASE)  # its own lock is no obstacle
    assert not try_lock(two, LEASE)
    assert try_lock(two, SHIM)  # the other byte is another lock
    unlock(one, LEASE)
    assert try_lock(two, LEASE)
    os.close(one)
    os.close(two)
    assert not held(lock, LEASE)


def test_asking_takes_nothing(lock: str) -> None:
    fd = os.open(lock, os.O_RDWR)
    assert not held(lock, LEASE)
    assert try_lock(fd, LEASE)
    assert held(lock, LEASE)
    assert not held(lock, SHIM)
    # and closing the descriptor that it asked with lets nothing go, unlike with a POSIX lock
    assert held(lock, LEASE)
    os.close(fd)


def test_a_missing_file_is_held_by_nobody(tmp_path: Path) -> None:
    assert not held(str(tmp_path / "gone"), LEASE)


@pytest.mark.parametrize("byte", [LEASE, SHIM])
def test_death_frees_it(lock: str, byte: int) -> None:
    process = python(HOLD, lock, str(byte))
    assert process.stdout and process.stdout.readline() == "True\n"
    mine = os.open(lock, os.O_RDWR)
    assert held(lock, byte)
    assert not try_lock(mine, byte)
    process.kill()
    process.communicate()
    assert not held(lock, byte)
    assert try_lock(mine, byte)
    os.close(mine)


def test_a_child_that_is_executed_does_not_inherit_it(lock: str) -> None:
    fd = os.open(lock, os.O_RDWR)
    assert try_lock(fd, LEASE)
    sleeper = python("import sys; print('up', flush=True); sys.stdin.read()")
    assert sleeper.stdout and sleeper.stdout.readline() == "up\n"
    os.close(fd)
    assert not held(lock, LEASE)
    sleeper.communicate()


def test_locks_of_another_kind_count_as_held(lock: str) -> None:
    process = python(
        "import fcntl, sys\n"
        "f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 0); print('up', flush=True); sys.stdin.read()",
        lock,
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    fd = os.open(lock, os.O_RDWR)
    assert held(lock, LEASE)
    assert not try_lock(fd, LEASE)
    process.communicate()
    fcntl.flock(fd, fcntl.LOCK_EX)  # flock is another table: no obstacle
    assert not held(lock, LEASE)
    os.close(fd)
