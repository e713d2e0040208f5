"""The questions: who is meant by a name, what the overview holds, and that many runs do not slow it down."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

import pytest

from agentrun.errors import NotFound
from agentrun.store import locks
from agentrun.store.database import Database
from agentrun.store.folders import RunFolder
from agentrun.store.read import Reader
from agentrun.store.write import Store

from .records import NOW, commit, failed_run, finished, new_run, owned, settled, snapshot, stamp, started

RUNS = [
    ("1aaaaaaaa0", "quotes"),
    ("1aaaaaaab1", "quotes"),
    ("1bbbbbbbc1", "backup"),
    ("1bbbbbbbd2", "quotes"),
    ("2ccccccce3", "1aaaaaaaa"),  # a job whose name is the start of an id
]


@pytest.fixture
def many(store: Store, reader: Reader) -> Reader:
    """A few runs of a few jobs."""
    for run_id, name in RUNS:
        store.record(new_run(run_id, job=name), snapshot())
    return reader


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1aaaaaaab1", "1aaaaaaab1"),  # the whole id
        ("quotes", "1bbbbbbbd2"),  # a job: its latest run
        ("quotes~0", "1bbbbbbbd2"),
        ("quotes~1", "1aaaaaaab1"),
        ("quotes~2", "1aaaaaaaa0"),
        ("backup", "1bbbbbbbc1"),
        ("1bbbbbbbc", "1bbbbbbbc1"),  # the start of an id
        ("1BBBBBBBC", "1bbbbbbbc1"),
        ("2cc", "2ccccccce3"),
        ("bd2", "1bbbbbbbd2"),  # its end, as log lines show it
        ("1aaaaaaaa", "2ccccccce3"),  # a job goes before the start of an id
    ],
)
def test_a_run_is_named_in_many_ways(many: Reader, name: str, expected: str) -> None:
    assert many.find(name).id == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "there is no run or job nobody"),
        ("1aaaaaaa", "1aaaaaaa could be several runs: 1aaaaaaaa0, 1aaaaaaab1"),
        ("2c", "there is no run or job 2c"),  # too short to mean an id
        ("", "there is no run or job "),
        ("quotes~3", "job quotes has no run 3 before its last"),
        ("nobody~0", "job nobody has no run 0 before its last"),
        ("quotes~x", "there is no run or job quotes~x"),
        ("quotes~-1", "there is no run or job quotes~-1"),
        ("quotes~²", "there is no run or job quotes~²"),
        ("quotes~99999999999999999999", "there is no run or job quotes~99999999999999999999"),
        ("1%", "there is no run or job 1%"),
        ("%%%%", "there is no run or job %%%%"),
        ("quo'tes", "there is no run or job quo'tes"),
        ("caf\udce9", "there is no run or job caf?"),
    ],
)
def test_a_name_that_fits_no_run(many: Reader, name: str, message: str) -> None:
    with pytest.raises(NotFound) as missing:
        many.find(name)
    assert missing.value.message == message
    assert missing.value.hint


def test_nothing_is_found_in_an_empty_record(reader: Reader) -> None:
    for name in ("quotes", "quotes~1", "1aaaaaaaa0"):
        with pytest.raises(NotFound):
            reader.find(name)
    assert not any((reader.overview(), reader.runs(), reader.unfinished(), reader.events()))
    assert reader.last_success("quotes") is None
    assert reader.usual_duration("quotes") is None
    assert not reader.steps("nobody") and not reader.active_steps("nobody")
    with pytest.raises(NotFound, match="there is no run nobody"):
        reader.run("nobody")


def test_the_short_name_of_log_lines(many: Reader) -> None:
    found = many.short("quotes", "B1")
    assert found and found.id == "1aaaaaaab1"
    assert many.short("backup", "b1") is None
    newest = many.short("quotes", "1")
    assert newest and newest.id == "1aaaaaaab1"


def test_completion(many: Reader) -> None:
    assert many.run_ids("1b") == [("1bbbbbbbd2", "quotes"), ("1bbbbbbbc1", "backup")]
    assert [run_id for run_id, _ in many.run_ids("quo")] == ["1bbbbbbbd2", "1aaaaaaab1", "1aaaaaaaa0"]
    assert len(many.run_ids("", limit=2)) == 2


def test_the_overview_is_the_last_run_of_each_job_and_what_is_not_over(store: Store, reader: Reader) -> None:
    failed_run(store, "1aaaaaaaa1")
    owned(store, "1aaaaaaaa2")
    failed_run(store, "1aaaaaaaa3")
    failed_run(store, "1aaaaaaaa4")
    store.record(new_run("1aaaaaaaa5", job="backup"), snapshot())
    assert [run.id for run in reader.overview()] == ["1aaaaaaaa5", "1aaaaaaaa4", "1aaaaaaaa2"]
    assert [run.id for run in reader.unfinished()] == ["1aaaaaaaa2", "1aaaaaaaa5"]
    assert [run.id for run in reader.runs(limit=2)] == ["1aaaaaaaa5", "1aaaaaaaa4"]
    assert [run.id for run in reader.runs(job="quotes")] == ["1aaaaaaaa4", "1aaaaaaaa3", "1aaaaaaaa2", "1aaaaaaaa1"]


def test_a_run_that_says_running_and_is_held_by_nobody_is_interrupted(root: str, store: Store, reader: Reader) -> None:
    run = reader.run(owned(store))
    folder = RunFolder(root, run.id)
    assert run.interrupted(root)  # its folder is gone altogether
    folder.create()
    fd = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    assert run.interrupted(root)
    for byte in (locks.LEASE, locks.SHIM):
        assert locks.try_lock(fd, byte)
        assert run.held(root) and not run.interrupted(root)
        locks.unlock(fd, byte)
    os.close(fd)
    commit(store, run.id, finished())
    assert not reader.run(run.id).interrupted(root)
    store.record(new_run("1aaaaaaaab"), snapshot())
    assert not reader.run("1aaaaaaaab").interrupted(root)  # it was never begun


def test_events_of_all_runs(store: Store, reader: Reader) -> None:
    failed_run(store)
    owned(store, "1aaaaaaaab")
    newest = reader.events(limit=3)
    assert [(event.run_id, event.kind) for event in newest] == [
        ("1aaaaaaaaa", "run_finished"), ("1aaaaaaaab", "run_created"), ("1aaaaaaaab", "run_started"),
    ] or [event.at for event in newest] == sorted(event.at for event in newest)  # fmt: skip
    assert {event.job for event in newest} == {"quotes"}


def test_what_is_usual(store: Store, reader: Reader) -> None:
    for number, seconds in enumerate((5, 1, 9)):
        run_id = owned(store, f"1aaaaaaaa{number}")
        commit(store, run_id, finished(at=NOW + seconds * 1000))
    failed_run(store)
    assert reader.usual_duration("quotes") == 5_000
    assert reader.last_success("quotes") == NOW + 9_000
    assert reader.usual_duration("backup") is None


@pytest.mark.parametrize(("seconds", "slow"), [
    ((20, 20), None), ((20, 20, 20), (60_000, 20_000)), ((4, 60, 4, 2, 90), (14_000, 4_000)),
])  # fmt: skip
def test_what_is_slow(store: Store, reader: Reader, seconds: tuple[int, ...], slow: tuple[int, int] | None) -> None:
    """Three times the usual, and ten seconds more than that at least; of two runs nobody can say what is usual."""
    for number, each in enumerate(seconds):
        commit(store, owned(store, f"1aaaaaaaa{number}"), finished(at=NOW + each * 1000))
    assert reader.slow_after("quotes") == slow


def test_a_reader_sees_that_somebody_has_written(root: str, store: Store) -> None:
    reading = sqlite3.connect(f"file:{root}/agentrun.db?mode=ro", uri=True)
    reader = Reader(reading)
    first = reader.data_version()
    assert reader.data_version() == first
    owned(store)
    assert reader.data_version() != first
    reading.close()


# --- many runs ---


@pytest.fixture
def thousands(database: Database) -> Iterator[Reader]:
    """5,000 runs of 20 jobs with 40 steps each, 8 not finished; and a look at how each question is answered."""
    connection = database.connection
    connection.execute("BEGIN IMMEDIATE")
    kept = snapshot()
    connection.execute("INSERT INTO snapshots VALUES (?, ?, '', x'')", (kept.sha256, kept.text))
    connection.executemany(
        "INSERT INTO runs (id, job, file, snapshot, params, state, outcome, created_at, started_at, finished_at,"
        " steps_total) VALUES (?, ?, 'f', ?, '{}', ?, ?, ?, ?, ?, 40)",
        (
            (f"{n:010d}", f"job{n % 20}", kept.sha256)
            + (("running", None, n, n, None) if n % 700 == 3 else ("finished", "succeeded", n, n, n + 5))
            for n in range(5000)
        ),
    )
    connection.execute(
        "WITH RECURSIVE n (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM n WHERE n < 39)"
        " INSERT INTO steps (run_id, instance, position, state) SELECT id, 's' || n, n, 'queued'"
        " FROM runs, n WHERE id < '0000000200'"
    )
    connection.execute("COMMIT")
    yield Reader(connection)


class Explaining:
    """Stands where a connection is expected, and keeps how SQLite goes about each question."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.plans: list[str] = []

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        self.plans += [row[3] for row in self.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        return self.connection.execute(sql, values)


def test_the_overview_of_thousands(thousands: Reader) -> None:
    explaining = Explaining(thousands.connection)
    reader = Reader(explaining)  # type: ignore[arg-type]
    shown = reader.overview()
    assert [run.id for run in shown if run.state == "running"] == [f"{n:010d}" for n in range(4903, 0, -700)]
    assert len(shown) == 28 and {run.job for run in shown} == {f"job{n}" for n in range(20)}
    plans = "\n".join(explaining.plans)
    for expected in ("SEARCH runs USING PRIMARY KEY (id=?)", "INDEX runs_of_their_own (job<?)", "INDEX runs_open"):
        assert expected in plans, plans


def test_the_overview_costs_by_jobs_and_not_by_runs(thousands: Reader) -> None:
    connection = thousands.connection

    def cost() -> int:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(count, 10)  # called after so many instructions of SQLite's machine
        thousands.overview()
        connection.set_progress_handler(None, 0)
        return steps

    before = cost()
    connection.execute(
        "INSERT INTO runs (id, job, file, snapshot, params, state, outcome, created_at, finished_at, steps_total)"
        " SELECT 'b' || id, job, file, snapshot, '{}', state, outcome, 1, 2, 1 FROM runs WHERE state = 'finished'"
    )
    assert len(thousands.overview()) == 28
    assert cost() < before * 1.1


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("run", ("0000000003",)),
        ("find", ("0000000003",)),
        ("find", ("job3",)),
        ("find", ("job3~2",)),
        ("find", ("000000020",)),
        ("unfinished", ()),
        ("runs", ()),
        ("steps", ("0000000003",)),
        ("active_steps", ("0000000003",)),
        ("step_states", ("0000000003",)),
        ("step_row", ("0000000003", "s1")),
        ("outputs", ("0000000003", "s1")),
        ("attempts", ("0000000003",)),
        ("attempts", ("0000000003", "s1")),
        ("attempt", ("0000000003", "s1", 1)),
        ("interrupted_steps", ("0000000003",)),
        ("events", ("0000000003",)),
        ("wishes", ("0000000003",)),
        ("last_success", ("job3",)),
        ("usual_duration", ("job3",)),
    ],
    ids=repr,
)
def test_no_question_reads_a_whole_table(thousands: Reader, question: str, arguments: tuple[object, ...]) -> None:
    explaining = Explaining(thousands.connection)
    try:
        getattr(Reader(explaining), question)(*arguments)  # type: ignore[arg-type]
    except NotFound:
        assert question == "find"
    # runs in the order of their ids with a LIMIT stop early; the index of what is open holds only that
    early = ("SCAN runs", "SCAN (subquery") if question == "runs" or "find" in question else ()
    scans = [
        plan for plan in explaining.plans
        if plan.startswith("SCAN") and "runs_open" not in plan and not plan.startswith(early or ("-",))
    ]  # fmt: skip
    assert scans == [], explaining.plans
    assert explaining.plans


def test_recovery_reads_ten_thousand_steps(store: Store, reader: Reader) -> None:
    names = tuple(f"s{n}" for n in range(10_000))
    store.record(new_run(steps_total=len(names)), snapshot(*names), owner={"user": "ada"}, stamp=None)
    assert reader.run("1aaaaaaaaa").state == "queued"  # owner without stamp: not taken
    store.take("1aaaaaaaaa", seen_epoch=0, owner={"user": "ada"}, stamp=stamp(), resumed=False)
    changes = [settled(name, position=n) for n, name in enumerate(names[:-1])]
    commit(store, "1aaaaaaaaa", *changes, started(names[-1], position=9_999))
    states = [*reader.step_states("1aaaaaaaaa")]
    assert len(states) == 10_000
    assert [state.instance for state in states if state.state != "finished"] == ["s9999"]
    assert reader.run("1aaaaaaaaa").steps_done == 9_999
