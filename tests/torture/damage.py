"""Damage: thirty things that can happen to the database, and what must come of each.

A place with a finished run of every job, one that failed, and one that was cut off in the middle is damaged. Then:

    every command ends with 0, 1 or 74 and never with a traceback; one that ends with 0 says what it said before
    `agentrun doctor` sees that something is wrong, unless nothing that was recorded is missing
    `agentrun doctor --repair` ends with 0, and every finished step is finished again, as it was
    `agentrun resume` brings the run that was cut off to its end, and no finished step runs again
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import jobs, oracle
from .place import Place, Stuck
from .tally import Tally, Wanted

PAGE = 4096
Damage = Callable[[Path, random.Random], None]
ACCEPTED = {"status": (0, 74), "logs": (0, 74), "events": (0, 74), "doctor": (0, 1)}


class Kind(NamedTuple):
    """`damage(database, chance)` does it. `harmless`: nothing that was recorded is lost or hidden by it.

    `refused`: what has to be said of it is not that it is damaged, and a repair must not touch it.
    """

    name: str
    damage: Damage
    harmless: bool = False
    refused: bool = False


def _cut(share: float, keep: int = 0) -> Damage:
    def damage(file: Path, chance: random.Random) -> None:
        size = file.stat().st_size
        os.truncate(file, keep if keep else int(size * share))

    return damage


def _overwrite(choose: Callable[[int, random.Random], list[tuple[int, bytes]]]) -> Damage:
    """Write bytes at places that are chosen by the number of pages."""

    def damage(file: Path, chance: random.Random) -> None:
        with open(file, "r+b") as data:
            for offset, text in choose(file.stat().st_size // PAGE, chance):
                data.seek(offset)
                data.write(text)

    return damage


def _pages(numbers: Callable[[int, random.Random], list[int]], *, zero: bool) -> Damage:
    return _overwrite(
        lambda count, chance: [
            (number * PAGE, bytes(PAGE) if zero else chance.randbytes(PAGE)) for number in numbers(count, chance)
        ]
    )


def _flips(count: int, chance: random.Random) -> list[tuple[int, bytes]]:
    return [(chance.randrange(100, count * PAGE), chance.randbytes(1)) for _ in range(40)]


def _beside(ending: str, work: Damage) -> Damage:
    """The same to the -wal or the -shm; they are there, because the place holds the database open."""

    def damage(file: Path, chance: random.Random) -> None:
        path = Path(f"{file}{ending}")
        if path.exists():
            work(path, chance)

    return damage


def _sql(*statements: str) -> Damage:
    def damage(file: Path, chance: random.Random) -> None:
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return damage


def _remove(file: Path, chance: random.Random) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)


def _replace(make: Callable[[Path], object]) -> Damage:
    def damage(file: Path, chance: random.Random) -> None:
        _remove(file, chance)
        make(file)

    return damage


def _other_program(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.execute("PRAGMA application_id = 7")
    connection.commit()
    connection.close()


def _unchecked(*statements: str) -> Damage:
    return _sql("PRAGMA ignore_check_constraints = ON", *statements)


KINDS = (
    Kind("cut to nothing", _cut(0)),
    Kind("cut to 100 bytes", _cut(0, keep=100)),
    Kind("cut to one page", _cut(0, keep=PAGE)),
    Kind("cut in half", _cut(0.5)),
    Kind("cut to nine tenths", _cut(0.9)),
    Kind("header zeroed", _overwrite(lambda count, chance: [(0, bytes(100))])),
    Kind("first page zeroed", _pages(lambda count, chance: [0], zero=True)),
    Kind("a page in the middle zeroed", _pages(lambda count, chance: [count // 2], zero=True)),
    Kind("last page zeroed", _pages(lambda count, chance: [count - 1], zero=True)),
    Kind("all zeroed", _pages(lambda count, chance: list(range(count)), zero=True)),
    Kind("header overwritten", _overwrite(lambda count, chance: [(0, chance.randbytes(100))])),
    Kind("first page overwritten", _pages(lambda count, chance: [0], zero=False)),
    Kind("a page overwritten", _pages(lambda count, chance: [chance.randrange(1, count)], zero=False)),
    Kind("every second page overwritten", _pages(lambda count, chance: list(range(1, count, 2)), zero=False)),
    Kind("forty bytes overwritten", _overwrite(_flips)),
    Kind("two pages swapped", lambda file, chance: _swap(file, chance)),
    Kind("-wal lost", _beside("-wal", lambda path, chance: path.unlink())),
    Kind("-wal cut in half", _beside("-wal", _cut(0.5))),
    Kind("-wal zeroed", _beside("-wal", _pages(lambda count, chance: list(range(count)), zero=True))),
    Kind("-wal overwritten", _beside("-wal", _pages(lambda count, chance: list(range(1, count)), zero=False))),
    Kind("-shm overwritten", _beside("-shm", _pages(lambda count, chance: list(range(count)), zero=False)), True),
    Kind("an older version than its tables", _sql("PRAGMA user_version = 1")),
    Kind("a newer version", _sql("PRAGMA user_version = 99"), refused=True),
    Kind("another program's", _replace(_other_program)),
    Kind("a table dropped", _sql("DROP TABLE attempts")),
    Kind("rows lost", _sql("DELETE FROM steps WHERE instance LIKE 'b%'")),
    Kind("words that are none", _unchecked("UPDATE steps SET outputs = 'no json', inputs = '{'")),
    Kind("gone", _remove),
    Kind("a folder in its place", _replace(lambda file: file.mkdir())),
    Kind("a text in its place", _replace(lambda file: file.write_text("nothing to see here\n" * 500))),
)


def _swap(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    one, other = (number * PAGE for number in chance.sample(range(1, len(data) // PAGE), 2))
    data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
    file.write_bytes(data)


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("damage")
    with Place(wanted.package) as place:
        whole = _furnish(place)
        for seed in wanted.seeds(wanted.pick(ci=1, normal=3, full=20)):
            kinds = KINDS if wanted.scale != "ci" else random.Random(seed).sample(KINDS, 6)
            for kind in kinds:
                if not wanted.is_over:
                    chance = random.Random(f"{seed} {kind.name}")
                    try:
                        found = list(_play(place, whole, kind, chance))
                    except Stuck as stuck:
                        found = [str(stuck)]
                    tally.add(found, case=f"{kind.name}, seed {seed}")
    return tally


class Whole(NamedTuple):
    """The state folder as it was, its finished steps, and what readers said."""

    home: Path
    finished: set[tuple[str, str, str]]
    said: dict[str, str]


def _furnish(place: Place) -> Whole:
    """Runs of all kinds; the last is cut off in the middle. The database stays open, so its -wal is there."""
    for job in jobs.ALL:
        place.command("run", job.write(place))
    gate = place.gate("gate")
    path = place.job("cut", f"steps:\n- {{id: a, run: $STEP}}\n- {{id: b, run: '{gate.shell}; $STEP'}}\n")
    keeper = sqlite3.connect(place.home / "agentrun.db")
    keeper.execute("SELECT count(*) FROM runs").fetchone()
    place.start("run", str(path))
    gate.reached()
    place.kill_all()
    gate.open()
    whole = place.root / "whole"
    shutil.copytree(place.home, whole)
    keeper.close()
    _restore(place, whole)
    said = {name: place.command(name).stdout for name in ACCEPTED if name != "doctor"}
    return Whole(whole, _finished(place), said)


def _restore(place: Place, whole: Path) -> None:
    shutil.rmtree(place.home, ignore_errors=True)
    shutil.copytree(whole, place.home, ignore=lambda folder, names: [n for n in names if n in ("s", "bell")])


def _finished(place: Place) -> set[tuple[str, str, str]]:
    rows = place.rows("SELECT run_id, instance, outcome, coalesce(outputs, '') FROM steps WHERE state = 'finished'")
    return {(run, instance, f"{outcome} {outputs}") for run, instance, outcome, outputs in rows}


def _play(place: Place, whole: Whole, kind: Kind, chance: random.Random) -> Iterator[str]:
    """One kind of damage, and everything that must hold after it."""
    _restore(place, whole.home)
    kind.damage(place.home / "agentrun.db", chance)
    before = len(oracle.ledger(place))
    yield from _commands(place, whole, kind)
    repaired = place.command("doctor", "--repair")
    if "Traceback" in repaired.stderr:
        yield f"doctor --repair: {repaired.stderr.strip().splitlines()[-1]}"
    if kind.refused:
        if repaired.returncode == 0:
            yield "doctor --repair touched what it must not"
        return
    if repaired.returncode != 0:
        yield f"doctor --repair ended with {repaired.returncode}: {(repaired.stdout + repaired.stderr).strip()[-300:]}"
        return
    if lost := whole.finished - _finished(place):
        yield f"{len(lost)} of {len(whole.finished)} finished steps are lost, such as {sorted(lost)[0]}"
    yield from oracle.damage(place)
    place.command("resume")
    place.wait_quiet()
    if left := place.unfinished():
        yield f"after resume these are not finished: {left}"
    again = [line for line in oracle.ledger(place)[before:] if line.what == "begin"]
    if [line.step for line in again] != ["b"]:
        yield f"resume ran {[line.step for line in again]}, not b alone"
    yield from oracle.keys(oracle.ledger(place)[before:])
    _forget_ledger(place, before)


def _forget_ledger(place: Place, before: int) -> None:
    lines = place.ledger.read_text().splitlines(keepends=True)
    place.ledger.write_text("".join(lines[:before]))


def _commands(place: Place, whole: Whole, kind: Kind) -> Iterator[str]:
    """Every command says what is wrong, or says what it said before."""
    for name, accepted in ACCEPTED.items():
        answer = place.command(name)
        if "Traceback" in answer.stderr:
            yield f"{name}: {answer.stderr.strip().splitlines()[-1]}"
        elif answer.returncode not in accepted:
            yield f"{name} ended with {answer.returncode}: {answer.stderr.strip()[-300:]}"
        elif answer.returncode == 74 and "agentrun: " not in answer.stderr and not answer.stderr:
            yield f"{name} ended with 74 and said nothing"
        elif kind.harmless and answer.stdout != whole.said.get(name, answer.stdout):
            yield f"{name} says something else than before"
    new = place.job("new", "steps:\n- {id: new, run: 'true'}\n")
    answer = place.command("run", str(new))
    if "Traceback" in answer.stderr:
        yield f"run: {answer.stderr.strip().splitlines()[-1]}"
    elif answer.returncode not in (0, 74):
        yield f"run ended with {answer.returncode}: {answer.stderr.strip()[-300:]}"
