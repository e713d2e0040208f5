"""Repair: every kind of damage over a record of real runs, whose every row comes back; killed, and done again."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.engine.create import sweep_folders
from agentrun.errors import Busy, StoreError
from agentrun.store import backups, database, locks, redo
from agentrun.store.database import open_for_reading, open_for_writing
from agentrun.store.folders import RunFolder
from agentrun.store.read import Reader
from agentrun.store.repair import Repaired, repair
from agentrun.store.write import Store

from .records import NOW, ROOT, commit, ended, failed_run, owned, settled, started

Damage = Callable[[str], None]
Rows = dict[str, list[tuple[object, ...]]]
PAGE = 4096

JOBS = {
    "many": """
steps:
- {id: a, run: 'echo x=1 >> $AGENTRUN_OUTPUT; echo "{\\"gen_ai.usage.input_tokens\\": 5}" >> $AGENTRUN_USAGE'}
- {id: list, run: 'echo $ITEM', foreach: [one, two, three], env: {ITEM: '${{ item }}'}}
- id: loop
  run: 'true'
  repeat: {until: 'test -e "$AGENTRUN_RUN_DIR/2" || { touch "$AGENTRUN_RUN_DIR/2"; exit 1; }', max: 4}
- {id: child, job: child.yaml}
- {id: again, run: 'test $AGENTRUN_ATTEMPT = 2', retry: {max_attempts: 2, interval: 10ms}}
- {id: last, run: 'test -e "$ARENA/go"'}
- {id: tidy, when: always, run: 'true'}
""",
    "child": "steps:\n- {id: only, run: 'true'}\n",
    "other": "steps:\n- {id: a, run: 'true'}\n- {id: b, run: 'exit 3'}\n",
    "changed": "name: other\nsteps:\n- {id: a, run: 'true'}\n- {id: c, run: 'true'}\n",
}  # fmt: skip


def agentrun(home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AGENTRUN_HOME": home, "ARENA": os.path.dirname(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "agentrun", *arguments],
        env=env, cwd=os.path.dirname(home), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A state folder in which much has happened: the backup in it knows the first half."""
    place = tmp_path_factory.mktemp("lived")
    home = str(place / "home")
    for name, text in JOBS.items():
        (place / f"{name}.yaml").write_text(text)
    assert agentrun(home, "run", "many.yaml").returncode == 1
    (place / "go").touch()
    assert agentrun(home, "resume", "many").returncode == 0
    assert agentrun(home, "run", "other.yaml").returncode == 3
    assert agentrun(home, "resume", "many", "--from", "list").returncode == 0
    assert agentrun(home, "resume", "other", "--spec", "changed.yaml", "--accept-changes").returncode == 0
    with Store(open_for_writing(home)) as store:
        for run_id in ("zaaaaaaaaa", "zbbbbbbbbb"):
            RunFolder(home, run_id).create()
            owned(store, run_id)
            commit(store, run_id, started("a"), started=1)
        store.wish_to_cancel("zbbbbbbbbb", by="eve", now=NOW)
    return home


@pytest.fixture
def home(lived: str, tmp_path: Path) -> str:
    shutil.copytree(lived, tmp_path / "home")
    return str(tmp_path / "home")


@pytest.fixture(scope="module")
def known(lived: str) -> Rows:
    return rows(lived)


def rows(home: str) -> Rows:
    connection = sqlite3.connect(f"file:{home}/agentrun.db?mode=ro", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        found = {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in redo.TABLES}
        found["snapshots"] = connection.execute(
            "SELECT sha256, text FROM snapshots WHERE sha256 IN (SELECT snapshot FROM runs) ORDER BY 1"
        ).fetchall()
        return found
    finally:
        connection.close()


def healed(home: str) -> Repaired:
    """Repair it; done once, there is nothing left to do."""
    done = repair(home, lambda _: None)
    told: list[str] = []
    nothing = repair(home, told.append)
    assert (nothing.runs, nothing.kept, nothing.lost) == (0, None, []), told
    assert told == ["nothing is wrong with the database: nothing has been changed"]
    assert not [name for name in os.listdir(home) if name.endswith((".new", database.REPAIRED))]
    return done


# --- the kinds of damage


def cut(part: float) -> Damage:
    return lambda file: os.truncate(file, int(os.path.getsize(file) * part))


def cut_at(size: int) -> Damage:
    return lambda file: os.truncate(file, size)


def overwrite(at: int, content: bytes) -> Damage:
    def do(file: str) -> None:
        with open(file, "r+b") as opened:
            opened.seek(at)
            opened.write(content)

    return do


def zero(part: float) -> Damage:
    def do(file: str) -> None:
        overwrite(int(os.path.getsize(file) // PAGE * part) * PAGE, bytes(PAGE))(file)

    return do


def scribble(seed: int) -> Damage:
    def do(file: str) -> None:
        chance = random.Random(seed)
        for _ in range(chance.randint(1, 5)):
            page = chance.randrange(1, os.path.getsize(file) // PAGE)
            overwrite(page * PAGE + chance.randrange(PAGE // 2), chance.randbytes(chance.randint(1, PAGE // 2)))(file)

    return do


def statements(*texts: str) -> Damage:
    def do(file: str) -> None:
        connection = sqlite3.connect(file, isolation_level=None)
        for text in texts:
            connection.execute(text)
        connection.close()

    return do


DAMAGES: dict[str, Damage] = {
    "gone": os.unlink,
    "empty": cut_at(0),
    "one byte": cut_at(1),
    "half a header": cut_at(50),
    "the first page alone": cut_at(PAGE),
    "cut inside a page": cut_at(PAGE * 3 + 100),
    "half of it": cut(0.5),
    "nearly all of it": cut(0.97),
    "no database": lambda file: Path(file).write_text("hello\n" * 5000) and None,
    "zeroed header": overwrite(0, bytes(100)),
    "zeroed first page": zero(0),
    "a zeroed page early": zero(0.2),
    "a zeroed page in the middle": zero(0.5),
    "a zeroed page late": zero(0.8),
    "the last page zeroed": zero(0.999),
    "another application": overwrite(68, b"abcd"),
    "no version": overwrite(60, bytes(4)),
    "an old version that it is not": overwrite(60, b"\0\0\0\1"),
    "no table": statements("DROP TABLE attempts"),
    "no tables": statements("PRAGMA foreign_keys = OFF", *(f"DROP TABLE {table}" for table in redo.TABLES[::-1])),
    "no view": statements("DROP VIEW journal"),
    "rows gone": statements("DELETE FROM runs"),
    "an event gone": statements("DELETE FROM events WHERE seq = 3"),
    "another value": statements("UPDATE steps SET error = 'x', outputs = '[]' WHERE instance = 'a'"),
    "another job file": statements("UPDATE snapshots SET text = 'steps: []'"),
    **{f"scribbled {seed}": scribble(seed) for seed in range(8)},
}


@pytest.mark.parametrize("backed_up", [True, False], ids=["backup", "journals"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_every_row_comes_back(home: str, known: Rows, kind: str, backed_up: bool) -> None:
    if not backed_up:
        shutil.rmtree(backups.folder(home))
    DAMAGES[kind](f"{home}/agentrun.db")
    broken = Path(f"{home}/agentrun.db").read_bytes() if os.path.exists(f"{home}/agentrun.db") else b""
    done = healed(home)
    assert rows(home) == known
    assert done.lost == []
    assert done.steps == sum(row[3] == "finished" for row in known["steps"])
    if broken and not (kind.startswith("scribbled") and done.kept is None):  # it may hit what holds nothing
        assert done.kept is not None
        assert Path(done.kept, "agentrun.db").read_bytes() == broken, "nothing is thrown away"


@pytest.mark.parametrize(
    "kind",
    ["gone", "one byte", "half of it", "no database", "zeroed header", "no version", "another application", "no table",
     "no tables", "an old version that it is not"],
)  # fmt: skip
def test_no_command_works_on_it_and_all_say_what_to_do(home: str, kind: str) -> None:
    Path(os.path.dirname(home), "child.yaml").write_text(JOBS["child"])
    DAMAGES[kind](f"{home}/agentrun.db")
    file = Path(home, "agentrun.db")
    before = file.read_bytes() if file.exists() else b""
    for arguments in (["status"], ["events", "many"], ["run", "child.yaml"]):
        said = agentrun(home, *arguments)
        if said.returncode == 0:
            assert kind in ("half of it", "no table") and arguments[0] != "run"  # not all questions meet the damage
            continue
        expected = (74, "") if arguments[0] != "run" or kind not in ("gone",) else (said.returncode, said.stdout)
        assert (said.returncode, said.stdout) == expected, said.stderr
        if arguments[0] != "run":
            assert "agentrun doctor --repair" in said.stderr
    assert "Traceback" not in said.stderr
    if kind not in ("half of it", "no table"):
        assert (file.read_bytes() if file.exists() else b"") == before, "nobody has touched it"


def test_a_lost_wal_is_noticed_by_the_journals(tmp_path: Path) -> None:
    """Such a database passes every check of SQLite's, and has forgotten its last transactions."""
    root = str(tmp_path / "state")
    with Store(open_for_writing(root)) as store:
        RunFolder(root, "1aaaaaaaaa").create()
        owned(store)
    store = Store(open_for_writing(root))
    commit(store, "1aaaaaaaaa", started("a"), started=1)
    commit(store, "1aaaaaaaaa", ended("a"), settled("a"))
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)  # as a crash of the machine would leave it
    store.__exit__()
    os.unlink(copy / "agentrun.db-wal")
    os.unlink(copy / "agentrun.db-shm")
    with Store(open_for_writing(str(copy))) as other, pytest.raises(StoreError, match="has forgotten"):
        commit(other, "1aaaaaaaaa", started("a"), started=1)
    done = healed(str(copy))
    assert (done.runs, done.steps, done.lost) == (1, 1, [])
    assert rows(str(copy)) == rows(root)


def test_it_goes_on_after_a_repair(home: str) -> None:
    os.unlink(f"{home}/agentrun.db")
    healed(home)
    for name, text in JOBS.items():
        Path(os.path.dirname(home), f"{name}.yaml").write_text(text)
    assert agentrun(home, "run", "child.yaml").returncode == 0
    assert agentrun(home, "resume", "child", "--from", "only").returncode == 0
    for run_id in redo.journals(home):
        assert redo.read(RunFolder(home, run_id).journal).whole


def test_what_no_journal_and_no_backup_has_is_read_from_the_damaged_database(home: str, known: Rows) -> None:
    """Runs of an older version have no journal."""
    shutil.rmtree(backups.folder(home))
    for run_id in list(redo.journals(home)):
        os.unlink(RunFolder(home, run_id).journal)
    overwrite(68, b"abcd")(f"{home}/agentrun.db")
    os.unlink(f"{home}/agentrun.lock")
    with pytest.raises(StoreError, match="another program"):
        repair(home, print)  # nothing tells that it is ours
    overwrite(68, b"agru")(f"{home}/agentrun.db")
    statements("DROP VIEW journal")(f"{home}/agentrun.db")
    done = healed(home)
    assert done.lost == [] and done.runs == 0
    assert rows(home) == known


def test_a_torn_journal_is_done_as_far_as_it_goes_and_that_is_said(home: str, known: Rows) -> None:
    shutil.rmtree(backups.folder(home))
    run_id = "zaaaaaaaaa"
    journal = Path(RunFolder(home, run_id).journal)
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + second[:9] + b"#" + second[10:] + redo.line(3, "commit", {}))
    os.unlink(f"{home}/agentrun.db")
    done = repair(home, print)
    assert done.lost == [
        f"the journal of run {run_id} is damaged: of its 3 transactions 2 could not be brought back"
    ]
    assert redo.read(str(journal)).whole, "it begins anew"
    assert repair(home, print).lost == []
    others = [[row for row in those["events"] if row[0] != run_id] for those in (rows(home), known)]
    assert others[0] == others[1]
    with Store(open_for_writing(home)) as store:
        commit(store, run_id, started("a"), started=1)


def test_nothing_is_wrong(home: str, known: Rows) -> None:
    before = Path(f"{home}/agentrun.db").read_bytes()
    told: list[str] = []
    assert repair(home, told.append).kept is None
    assert told == ["nothing is wrong with the database: nothing has been changed"]
    assert Path(f"{home}/agentrun.db").read_bytes() == before
    assert repair(str(Path(home, "nowhere")), told.append) == Repaired(0, 0, None, [])
    assert not os.path.exists(f"{home}/nowhere")


def test_nobody_waits_for_a_look_at_what_is_well(home: str) -> None:
    lock = database.open_lock(home)
    told: list[str] = []
    with database.write_lock(lock, home, print):
        repair(home, told.append)  # it would wait for ever
    os.close(lock)
    assert told == ["nothing is wrong with the database: nothing has been changed"]


def test_not_while_a_run_is_advanced_but_with_a_shim_that_waits(home: str) -> None:
    os.unlink(f"{home}/agentrun.db")
    lock = os.open(RunFolder(home, "zaaaaaaaaa").lock, os.O_RDWR | os.O_CREAT)
    assert locks.try_lock(lock, locks.LEASE)
    with pytest.raises(Busy, match="run zaaaaaaaaa is being advanced"):
        repair(home, print)
    assert not os.path.exists(f"{home}/agentrun.db")
    locks.unlock(lock, locks.LEASE)
    assert locks.try_lock(lock, locks.SHIM)
    repair(home, print)
    os.close(lock)


def test_who_had_the_old_database_open_does_not_write_into_it(home: str, known: Rows) -> None:
    store = Store(open_for_writing(home))
    statements("DROP VIEW journal")(f"{home}/agentrun.db")
    repair(home, print)
    with pytest.raises(StoreError, match="was replaced or removed") as refused:
        store.wish_to_cancel("zaaaaaaaaa", by="eve", now=NOW)
    assert refused.value.hint is not None and "agentrun resume" in refused.value.hint
    store.__exit__()
    assert rows(home) == known
    with Store(open_for_writing(home)) as again:
        again.wish_to_cancel("zaaaaaaaaa", by="eve", now=NOW)


def test_a_newer_database_is_left_alone(home: str) -> None:
    overwrite(60, b"\0\0\0\x63")(f"{home}/agentrun.db")
    before = Path(f"{home}/agentrun.db").read_bytes()
    with pytest.raises(StoreError, match="newer agentrun"):
        repair(home, print)
    assert Path(f"{home}/agentrun.db").read_bytes() == before


def test_a_backup_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    root = str(tmp_path / "state")
    os.makedirs(backups.folder(root), 0o700)
    os.chmod(root, 0o700)
    with gzip.open(Path(__file__).parent / "old" / "v1.db.gz") as old:
        Path(backups.folder(root), "agentrun-20260101T000000Z.db").write_bytes(old.read())
    Path(backups.folder(root), "agentrun-20260102T000000Z.db").write_bytes(b"of no use")
    told: list[str] = []
    done = repair(root, told.append)
    assert told[-1] == "building on the backup agentrun-20260101T000000Z.db", told
    assert done.steps > 0 and done.lost == []
    connection = open_for_reading(root)
    assert connection is not None and Reader(connection).runs()
    connection.close()


def test_the_folder_of_a_run_that_the_database_forgot_is_not_swept(home: str) -> None:
    statements("DELETE FROM runs")(f"{home}/agentrun.db")
    for name in os.listdir(f"{home}/runs"):
        os.utime(f"{home}/runs/{name}", (0, 0))
    connection = open_for_reading(home)
    assert connection is not None
    before = set(redo.journals(home))
    sweep_folders(home, Reader(connection))
    connection.close()
    assert set(redo.journals(home)) == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """A record that is quick to repair: one run that failed, one that is at work."""
    root = str(tmp_path / "state")
    with Store(open_for_writing(root)) as store:
        for run_id in ("1aaaaaaaaa", "2aaaaaaaaa"):
            RunFolder(root, run_id).create()
        failed_run(store)
        owned(store, "2aaaaaaaaa")
        commit(store, "2aaaaaaaaa", started("a"), started=1)
    yield root


def test_killed_at_any_instant_it_is_done_again(small: str, tmp_path: Path) -> None:
    wanted = rows(small)
    statements("DROP VIEW journal", "DELETE FROM events WHERE run_id = '1aaaaaaaaa'")(f"{small}/agentrun.db")
    torn = Path(RunFolder(small, "2aaaaaaaaa").journal)
    torn.write_bytes(torn.read_bytes() + redo.line(3, "commit", {"changes": []})[:-5])
    code = "import sys; from agentrun.store.repair import repair; repair(sys.argv[1], print)"
    points, number = tmp_path / "points", 0
    while True:
        number += 1
        home = str(tmp_path / "again")
        shutil.copytree(small, home)
        points.unlink(missing_ok=True)
        env = {**os.environ, "AGENTRUN_FAULTS": f"{points}:{number}:kill:0", "PYTHONPATH": str(ROOT)}
        killed = subprocess.run([sys.executable, "-c", code, home], env=env, capture_output=True, text=True)
        if not os.path.exists(f"{home}/agentrun.db"):
            with pytest.raises(StoreError, match=r"doctor|gone|cut short"):
                open_for_writing(home)
        repair(home, print)
        assert rows(home) == wanted, f"killed at point {number}"
        kept = [Path(folder, name) for folder, _, names in os.walk(f"{home}/damaged") for name in names]
        assert [path.name for path in kept if path.name == "agentrun.db"] == ["agentrun.db"]
        shutil.rmtree(home)
        if killed.returncode == 0:
            break
        assert killed.returncode == -9, killed.stderr
    assert number > 20
