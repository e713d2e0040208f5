"""Damage: what can happen to the database, and what must come of each.

A place with a finished run of every job, one that failed, and one that was cut off in the middle is damaged. Then:

    every command says what is wrong (74, or 73 where it is about owners and modes), or says what it said before
    `agentrun doctor` sees that something is wrong, unless nothing that was recorded is missing
    `agentrun doctor --repair` ends with 0, and every finished step is finished again, as it was; or it refuses, and
    does so until what it asks for has been done
    another repair finds nothing to do, `agentrun doctor` is content with the record, and all commands say what they
    said before
    every job that had a row has one, by which no tick that ran is missed; what else was known of jobs and ticks is
    there, or the repair has said that it may be missing
    `agentrun resume` brings the run that was cut off to its end, and no finished step runs again

No command ever ends with a traceback, nor with an exit status that is not one of these.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import jobs, oracle
from .place import LIMIT, Gate, Place, Stuck
from .tally import Tally, Wanted

PAGE = 4096
Damage = Callable[[Path, random.Random], None]
Answer = subprocess.CompletedProcess[str]
NOBODY = 65534
# what is asked before and after: RUN is one that failed, CUT the one that was cut off; each must not write
READERS = (
    "status", "status --json", "status RUN", "status RUN --json", "status RUN --calls", "status CUT", "logs RUN",
    "events RUN", "events RUN --json", "events CUT",
)  # fmt: skip
STRIPPED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
RECORD = {"database", "journals", "run_journals", "orphan_folders", "lost_runs"}  # the checks that must see it
RUNNING = re.compile(r"\d+(\.\d+)? ?(ms|s|min|h|m)\b( ?\d+ ?(s|min|m))?")  # for how long: goes on while we look


class Kind(NamedTuple):
    """`damage(database, chance)` does it. `harmless`: nothing that was recorded is lost or hidden by it.

    `refused`: a repair must not touch it, and ends with this; `cure` is what it asks for, after which it does.
    `stripped`: looked at by one who may not read and write everything, as root may. `unseen`: it may change a word of
    a job into another, which nobody can see, as these rows are in no journal.
    """

    name: str
    damage: Damage
    harmless: bool = False
    refused: int = 0
    cure: Damage | None = None
    stripped: bool = False
    unseen: bool = False


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


def _half_made(file: Path) -> None:
    """Its maker was killed between two migrations."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE snapshots (sha256 TEXT PRIMARY KEY) STRICT")
    connection.commit()
    connection.close()


def _older(file: Path) -> None:
    """What the hint of a full disk's owner would be: cp of yesterday's, without its -wal."""
    older = file.read_bytes()  # without what is in the -wal
    _remove(file, random.Random())
    file.write_bytes(older)


def _power_cut(file: Path) -> None:
    """Pages are damaged, and of the journal of the run that went on only the first line has reached the disk."""
    _checkpoint(file)
    connection = sqlite3.connect(file)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'usage'").fetchone()
    (cut,) = connection.execute("SELECT id FROM runs WHERE state <> 'finished'").fetchone()
    connection.close()
    journal = file.parent / "runs" / cut / "journal"
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    with open(file, "r+b") as data:
        data.seek((page - 1) * PAGE)
        data.write(bytes([0xAA]) * PAGE)


def _overwrite_tables(file: Path, chance: random.Random, *tables: str) -> None:
    _checkpoint(file)
    connection = sqlite3.connect(file)
    question = f"SELECT rootpage FROM sqlite_schema WHERE name IN ({', '.join('?' * len(tables))})"
    pages = [page - 1 for (page,) in connection.execute(question, tables)]
    connection.close()
    _pages(lambda count, chance: pages, zero=False)(file, chance)


def _no_jobs(file: Path, chance: random.Random) -> None:
    shutil.rmtree(file.parent / "backups", ignore_errors=True)
    _overwrite_tables(file, chance, "jobs")


def _checkpoint(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _strange(file: Path, chance: random.Random) -> None:
    """What people and programs leave in runs/."""
    runs = file.parent / "runs"
    (runs / ".DS_Store").write_text("x")
    (runs / "latest").symlink_to("nowhere")
    os.mkdir(os.fsencode(runs) + b"/\xff", 0o700)
    _no_backup(file, chance, keep=True)


def _no_backup(file: Path, chance: random.Random, *, keep: bool = False) -> None:
    if not keep:
        shutil.rmtree(file.parent / "backups", ignore_errors=True)
    _checkpoint(file)
    _pages(lambda count, chance: [chance.randrange(1, count)], zero=False)(file, chance)


def _move_away(file: Path, chance: random.Random) -> None:
    file.rename(file.with_name("moved-away"))


def _unchecked(*statements: str) -> Damage:
    return _sql("PRAGMA ignore_check_constraints = ON", *statements)


_OF_ONE = "WHERE run_id = (SELECT id FROM runs WHERE job = 'sequence')"
_FORGET = (
    *(f"DELETE FROM {table} {_OF_ONE}" for table in ("attempts", "events", "spending", "usage", "steps")),
    "DELETE FROM runs WHERE job = 'sequence'",
)
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
    Kind("forty bytes overwritten", _overwrite(_flips), unseen=True),
    Kind("two pages swapped", lambda file, chance: _swap(file, chance)),
    Kind("-wal lost", _beside("-wal", lambda path, chance: path.unlink())),
    Kind("-wal cut in half", _beside("-wal", _cut(0.5))),
    Kind("-wal zeroed", _beside("-wal", _pages(lambda count, chance: list(range(count)), zero=True))),
    Kind("-wal overwritten", _beside("-wal", _pages(lambda count, chance: list(range(1, count)), zero=False))),
    Kind("-shm overwritten", _beside("-shm", _pages(lambda count, chance: list(range(count)), zero=False)), True),
    Kind("an older version than its tables", _sql("PRAGMA user_version = 1")),
    Kind("a newer version", _sql("PRAGMA user_version = 99"), refused=74),
    Kind("another program's", _replace(_other_program)),
    Kind("a table dropped", _sql("DROP TABLE attempts")),
    Kind("rows lost", _sql("DELETE FROM steps WHERE instance LIKE 'b%'")),
    Kind("words that are none", _unchecked("UPDATE steps SET outputs = 'no json', inputs = '{'")),
    Kind("gone", _remove),
    Kind("a folder in its place", _replace(lambda file: file.mkdir()), refused=74, cure=_move_away),
    Kind("a text in its place", _replace(lambda file: file.write_text("nothing to see here\n" * 500))),
    Kind("a link to nothing in its place", _replace(lambda file: file.symlink_to("/nowhere/agentrun.db"))),
    Kind("a new database half made", _replace(_half_made)),
    Kind("an older database put in its place", lambda file, chance: _older(file)),
    Kind("a run forgotten", _sql("PRAGMA foreign_keys = ON", *_FORGET)),
    Kind("jobs and ticks overwritten", lambda file, chance: _overwrite_tables(file, chance, "jobs", "ticks")),
    Kind("jobs overwritten, no backup", lambda file, chance: _no_jobs(file, chance)),
    Kind("a power cut", lambda file, chance: _power_cut(file)),
    Kind("a page overwritten beside strange files", lambda file, chance: _strange(file, chance)),
    Kind("a page overwritten, no backup", lambda file, chance: _no_backup(file, chance)),
    Kind("the state folder another user's", lambda file, chance: os.chown(file.parent, NOBODY, NOBODY), refused=73,
         cure=lambda file, chance: os.chown(file.parent, os.geteuid(), os.getegid())),
    Kind("mode 0000", lambda file, chance: file.chmod(0), refused=74, stripped=True,
         cure=lambda file, chance: file.chmod(0o600)),
    Kind("mode 0400", lambda file, chance: file.chmod(0o400), stripped=True, harmless=True, refused=-1,
         cure=lambda file, chance: file.chmod(0o600)),
)  # fmt: skip


def _swap(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    one, other = (number * PAGE for number in chance.sample(range(1, len(data) // PAGE), 2))
    data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
    file.write_bytes(data)


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("damage")
    kinds = [kind for kind in KINDS if not kind.stripped or _can_strip()]
    if len(kinds) < len(KINDS):
        tally.notes.append("modes were not tried: needs root and setpriv")
    if os.geteuid():
        kinds = [kind for kind in kinds if kind.name != "the state folder another user's"]
        tally.notes.append("another user's state folder was not tried: needs root")
    with Place(wanted.package) as place:
        whole = _furnish(place)
        for seed in wanted.seeds(wanted.pick(ci=1, normal=3, full=20)):
            chosen = kinds if wanted.scale != "ci" else random.Random(seed).sample(kinds, 2)
            for kind in chosen:
                if not wanted.is_over:
                    chance = random.Random(f"{seed} {kind.name}")
                    try:
                        found = list(_play(place, whole, kind, chance))
                    except (Stuck, sqlite3.Error) as error:
                        found = [f"{type(error).__name__}: {error}"]
                    tally.add(found, case=f"{kind.name}, seed {seed}")
        whole.gate.close()
    return tally


def _can_strip() -> bool:
    if os.geteuid():
        return True  # we may not read everything as it is
    return shutil.which("setpriv") is not None and not subprocess.run([*STRIPPED, "true"], check=False).returncode


class Whole(NamedTuple):
    """The state folder as it was, its finished steps, what readers said, and the gate of the run that was cut off.

    `jobs`: what was known of jobs and of ticks that did not run.
    """

    home: Path
    finished: set[tuple[str, str, str]]
    jobs: dict[str, list[tuple[object, ...]]]
    said: dict[str, str]
    names: dict[str, str]
    gate: Gate


def _furnish(place: Place) -> Whole:
    """Runs of all kinds; the last is cut off in the middle. The database stays open, so its -wal is there."""
    for job in jobs.ALL:
        place.command("run", job.write(place))
    _schedule(place)
    gate = place.gate("gate")
    path = place.job("cut", f"steps:\n- {{id: a, run: $STEP}}\n- {{id: b, run: '{gate.shell}; $STEP'}}\n")
    keeper = sqlite3.connect(place.home / "agentrun.db")
    keeper.execute("SELECT count(*) FROM runs").fetchone()
    place.start("run", str(path))
    gate.reached()
    place.kill_all()
    whole = place.root / "whole"
    _copy(place.home, whole)
    keeper.close()
    _copy(whole, place.home)
    names = {
        "RUN": place.rows("SELECT id FROM runs WHERE outcome = 'failed'")[0][0], "CUT": place.unfinished()[0],
        "DONE": place.runs()[0],
    }  # fmt: skip
    said = {}
    for name in READERS:
        answer = _ask(place, names, name)
        if answer.returncode:
            raise Stuck(f"{name} ended with {answer.returncode} before any damage: {answer.stderr}")
        said[name] = answer.stdout
    return Whole(whole, _finished(place), _jobs(place), said, names, gate)


TICK = 1_780_000_000_000  # of a run; the hour before was missed


def _schedule(place: Place) -> None:
    """Two jobs with rows of their own: one whose tick ran and that somebody has paused, one that is installed."""
    job = str(place.job("hourly", "steps:\n- {id: a, run: $STEP}\n"))
    place.command("run", job, "--scheduled-time", "2026-05-28T20:26:40Z")
    connection = sqlite3.connect(place.home / "agentrun.db")
    with connection:
        connection.execute(
            "INSERT OR REPLACE INTO jobs (name, file, schedule, settled, due_at, paused_at, paused_by)"
            " VALUES ('hourly', ?, ?, ?, NULL, ?, 'ada')",
            (job, json.dumps({"zone": None, "schedules": []}), TICK, TICK + 1),
        )
        whole = json.dumps({"how": "cron", "schedule": ["@daily"], "timezone": None, "machine": "/etc/localtime"})
        connection.execute("INSERT INTO jobs (name, file, installed) VALUES ('put', '/put.yaml', ?)", (whole,))
        connection.execute(
            "INSERT INTO ticks (job, first, last, number, fate, reason, at, by)"
            " VALUES ('hourly', ?, ?, 1, 'missed', 'catch_up', ?, 'ada')",
            (TICK - 3_600_000, TICK - 3_600_000, TICK),
        )
    connection.close()


def _jobs(place: Place) -> dict[str, list[tuple[object, ...]]]:
    return {
        "jobs": place.rows("SELECT name, settled, paused_by, installed, schedule, file FROM jobs ORDER BY name"),
        "ticks": place.rows("SELECT job, first, last, number, fate, reason FROM ticks ORDER BY job, first"),
    }


def _jobs_again(place: Place, whole: Whole, said: str) -> Iterator[str]:
    """No tick that ran is missed; what else is not as it was has been said."""
    now = _jobs(place)
    if ("hourly", TICK) not in [row[:2] for row in now["jobs"]]:
        yield f"after the repair the jobs are {now['jobs']}: the tick of hourly would run late"
    for table, before in whole.jobs.items():
        if gone := set(before) - set(now[table]):
            # what was only installed, and has never run, nothing tells of but this table
            told = re.search(r"not brought back: .*\b(job|ticks)\b", said)
            if not told and not all(row[0] == "put" for row in gone):
                yield f"after the repair {table} are {now[table]}, not {before}, and it was not said"


def _ask(place: Place, names: dict[str, str], words: str, *, stripped: bool = False) -> Answer:
    """Call the program; RUN and CUT stand for the ids of runs."""
    arguments = [names.get(word, word) for word in words.split()]
    if not stripped or os.geteuid():
        return place.command(*arguments)
    try:
        return subprocess.run(
            [*STRIPPED, sys.executable, "-m", "agentrun", *arguments], env=place.env, cwd=place.root,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Stuck(f"agentrun {words} did not end in {LIMIT:.0f} s") from None


def _copy(source: Path, target: Path) -> None:
    """A state folder without its pipes and sockets: whoever needs them makes them."""

    def special(folder: str, names: list[str]) -> list[str]:
        modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
        return [name for name, mode in modes.items() if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)]

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=special, symlinks=True)


def _finished(place: Place) -> set[tuple[str, str, str]]:
    rows = place.rows("SELECT run_id, instance, outcome, coalesce(outputs, '') FROM steps WHERE state = 'finished'")
    return {(run, instance, f"{outcome} {outputs}") for run, instance, outcome, outputs in rows}


def _play(place: Place, whole: Whole, kind: Kind, chance: random.Random) -> Iterator[str]:
    """One kind of damage, and everything that must hold after it."""
    _copy(whole.home, place.home)
    place.ledger.write_text("")
    file = place.home / "agentrun.db"
    kind.damage(file, chance)
    yield from _commands(place, whole, kind)
    repaired = _ask(place, whole.names, "doctor --repair", stripped=kind.stripped)
    yield from _tracebacks("doctor --repair", repaired)
    if kind.refused > 0 and repaired.returncode != kind.refused:
        yield f"doctor --repair ended with {repaired.returncode}, not {kind.refused}: {_tail(repaired)}"
    if kind.refused and kind.cure is None:
        return
    if kind.cure is not None:
        kind.cure(file, chance)
        repaired = _ask(place, whole.names, "doctor --repair")
        yield from _tracebacks("doctor --repair", repaired)
    if repaired.returncode != 0:
        yield f"doctor --repair ended with {repaired.returncode}: {_tail(repaired)}"
        return
    yield from _whole_again(place, whole)
    if not kind.unseen:
        yield from _jobs_again(place, whole, repaired.stdout)
    yield from _goes_on(place, whole)


def _whole_again(place: Place, whole: Whole) -> Iterator[str]:
    """Nothing is missing, nothing is left to repair, and everybody says what was said before the damage."""
    if lost := whole.finished - _finished(place):
        yield f"{len(lost)} of {len(whole.finished)} finished steps are lost, such as {sorted(lost)[0]}"
    yield from oracle.damage(place)
    yield from oracle.gaps(place)
    if "nothing is wrong" not in (said := _ask(place, whole.names, "doctor --repair")).stderr:
        yield f"a second repair found something to do: {_tail(said)}"
    if wrong := [f"{one['check']}: {one['detail']}" for one in _checks(place, whole) if not one["ok"]]:
        yield f"after the repair doctor says {wrong}"
    for name, before in whole.said.items():
        if " RUN" in name or " CUT" in name:  # the others also tell of the run that was tried
            answer = _ask(place, whole.names, name)
            yield from _tracebacks(name, answer)
            if _timeless(answer.stdout) != _timeless(before):
                yield f"after the repair {name} says {answer.stdout[-300:]!r}, and not {before[-300:]!r}"


def _goes_on(place: Place, whole: Whole) -> Iterator[str]:
    """The run that was cut off comes to its end, once."""
    whole.gate.open()
    place.command("resume")
    place.wait_quiet()
    if left := place.unfinished():
        yield f"after resume these are not finished: {left}"
    again = [line for line in oracle.ledger(place) if line.what == "begin"]
    if [line.step for line in again] != ["b"]:
        yield f"resume ran {[line.step for line in again]}, not b alone"
    yield from oracle.keys(oracle.ledger(place))
    yield from oracle.damage(place)


def _timeless(text: str) -> str:
    return RUNNING.sub("TIME", text)


def _checks(place: Place, whole: Whole) -> list[dict[str, object]]:
    """What doctor says of the record."""
    answer = _ask(place, whole.names, "doctor --json")
    with contextlib.suppress(ValueError):
        return [one for one in json.loads(answer.stdout) if one["check"] in RECORD]
    raise Stuck(f"doctor --json said {_tail(answer)}")


def _tail(answer: Answer) -> str:
    return (answer.stdout + answer.stderr).strip()[-400:]


def _tracebacks(name: str, answer: Answer) -> Iterator[str]:
    if "Traceback" in answer.stderr or answer.returncode == 70:
        yield f"{name}: {_tail(answer)}"


def _commands(place: Place, whole: Whole, kind: Kind) -> Iterator[str]:
    """Every command says what is wrong, or says what it said before."""
    accepted = (0, 74) if kind.refused != 73 else (0, 73, 74)
    for name in READERS:
        answer = _ask(place, whole.names, name, stripped=kind.stripped)
        yield from _tracebacks(name, answer)
        if answer.returncode not in accepted and not (answer.returncode == 66 and "there is no run" in answer.stderr):
            yield f"{name} ended with {answer.returncode}: {_tail(answer)}"
        elif answer.returncode == 74 and not answer.stderr.startswith("agentrun: "):
            yield f"{name} ended with 74 and said {answer.stderr[:300]!r}"
        elif kind.harmless and _timeless(answer.stdout) != _timeless(whole.said[name]):
            yield f"{name} says something else than before: {_tail(answer)}"
    answer = _ask(place, whole.names, "doctor --json", stripped=kind.stripped)
    yield from _tracebacks("doctor", answer)
    seen = answer.returncode != 0
    if not seen and not kind.harmless and not _same(place, whole):
        yield "doctor is content"
    new = place.job("new", "steps:\n- {id: new, run: 'true'}\n")
    for words in (f"run {new}", "resume DONE", "cancel DONE"):
        answer = _ask(place, whole.names, words, stripped=kind.stripped)
        yield from _tracebacks(words, answer)
        usual = {"run": (0,), "resume": (0, 1, 66), "cancel": (75, 66)}[words.split()[0]]
        if answer.returncode not in (*usual, 73, 74):
            yield f"{words} ended with {answer.returncode}: {_tail(answer)}"


def _same(place: Place, whole: Whole) -> bool:
    """Whether the damage has hit nothing: the finished steps are there."""
    try:
        return _finished(place) == whole.finished
    except sqlite3.Error:
        return False
