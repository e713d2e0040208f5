"""Which tick a start stands for, and what becomes of the others: runs as cron starts them, under a moved clock."""

from __future__ import annotations

import hashlib
import json
import os
import select
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentrun.cron.jitter import here, offset

from ..cronlife.moved import Clock, library
from ..kill.arena import LIMIT, wait_gone
from .place import Place, Ran

pytestmark = pytest.mark.skipif(library() is None, reason="needs libfaketime (Debian: the package faketime)")

QUARTERS = 'schedule: "*/15 * * * *"\n'
MARK = 'echo "$AGENTRUN_SCHEDULED_TIME" >> "$ARENA/ledger"'


class Cron(Place):
    """A place with a clock. It begins at 10:00:01 on a Thursday."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.clock = Clock(root, _moment("10:00:01"))
        known = [path for path in (os.environ.get("PYTHONPATH"),) if path]
        self.env |= self.clock.env | {"TZ": "UTC", "PYTHONPATH": ":".join([str(self.clock.path), *known])}

    def at(self, time: str) -> None:
        """What the clock shows now."""
        self.clock.set(_moment(time))

    def write(self, text: str, name: str = "job") -> str:
        """A job file, written now."""
        path = self.job(name, text)
        os.utime(path, (self.clock.now, self.clock.now))
        return str(path)

    def fire(self, name: str = "job") -> Ran:
        """As cron does: no terminal, no option."""
        return self.call("run", f"{name}.yaml")

    def fates(self, name: str = "job") -> list[str]:
        """What became of its ticks, the oldest first: `10:00 ran`, `10:15-10:45 (3) missed catch_up`."""
        answer = self.call("ticks", name, "--json")
        assert answer.status == 0, answer.stderr
        rows = sorted(json.loads(answer.stdout), key=lambda row: (row["time"], row["fate"] == "ran"))
        return [_shown(row) for row in rows]

    def marks(self) -> list[str]:
        """The ticks whose step ran, in order."""
        return [line[11:16] for line in self.lines()]

    def contents(self) -> dict[str, str]:
        """A hash of each file of the state folder, and when it was last written.

        SQLite's shared memory is left out, and an empty -wal: whoever reads makes them, and nothing is in them.
        """
        files = [path for path in self.home.rglob("*") if path.is_file() and path.suffix != ".db-shm"]
        files = [path for path in files if path.suffix != ".db-wal" or path.stat().st_size]
        hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return {str(path.relative_to(self.home)): f"{hashes[path]} {path.stat().st_mtime_ns}" for path in files}


def _moment(time: str) -> float:
    return datetime.fromisoformat(f"2025-11-20T{time}").replace(tzinfo=UTC).timestamp()


def _shown(row: dict[str, object]) -> str:
    first, last = str(row["time"])[11:16], str(row["last"])[11:16]
    span = first if row["number"] == 1 else f"{first}-{last} ({row['number']})"
    outcome = row.get("outcome") or row.get("state")
    detail = row["reason"] if row["fate"] != "ran" else None if outcome == "succeeded" else outcome
    words = [span, str(row["fate"]), *([str(detail)] if detail else []), *([] if row["scheduled"] else ["(no tick)"])]
    return " ".join(words)


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Cron]:
    found = Cron(tmp_path)
    yield found
    found.close()


def job(head: str = "", work: str = "", schedule: str = QUARTERS, options: str = "") -> str:
    """One step that marks its tick, and then does something."""
    command = json.dumps(f"{MARK}; {work}" if work else MARK)
    return f"{schedule}{head}\nsteps:\n- {{id: a, {options}run: {command}}}\n"


def test_a_tick_that_ten_start_at_once_runs_once(cron: Cron) -> None:
    gate = cron.gate("gate")
    path = cron.write(job(work=gate.shell))
    processes = [cron.start("run", path) for _ in range(10)]
    gate.reached()
    owner = cron.owner()
    others = [process for process in processes if process.pid != owner]
    assert len(others) == 9
    assert [process.wait(LIMIT) for process in others] == [75] * 9, "it is not finished"
    assert [process.communicate() for process in others] == [("", "")] * 9
    gate.open()
    assert [process.wait(LIMIT) for process in processes if process.pid == owner] == [0]
    late = cron.fire()
    assert (late.status, late.stdout, late.stderr) == (0, "", ""), "it is over, and went well"
    assert cron.marks() == ["10:00"]
    assert cron.fates() == ["10:00 ran"]


@pytest.mark.parametrize(
    ("head", "fates"),
    [
        ("catch_up: none", ["10:15-10:45 (3) missed catch_up"]),
        ("catch_up: latest", ["10:15-10:30 (2) missed catch_up", "10:45 ran"]),
        ("catch_up: all", ["10:15 ran", "10:30 ran", "10:45 ran"]),
        ("catch_up: all\nstart_deadline: 20m", ["10:15-10:30 (2) missed start_deadline", "10:45 ran"]),
        ("catch_up: latest\nstart_deadline: 5m", ["10:15-10:45 (3) missed start_deadline"]),
    ],
)
def test_missed_ticks(cron: Cron, head: str, fates: list[str]) -> None:
    cron.write(job(head))
    assert cron.fire().status == 0
    cron.at("10:51:00")
    looked = cron.call("resume")
    told = f"agentrun: {fates[-1][13]} ticks were missed of job job: 2025-11-20T10:15" if "missed" in fates[-1] else ""
    assert (looked.status, looked.stdout) == (0, "")
    assert looked.stderr.startswith(told) and bool(looked.stderr) == bool(told)
    assert cron.fates() == ["10:00 ran", *fates]
    before = cron.contents()
    assert cron.call("resume").status == 0
    assert cron.contents() == before, "once is enough"
    assert sorted(cron.marks()) == cron.marks(), "the oldest first"


def test_what_was_missed_is_found_by_the_next_start(cron: Cron) -> None:
    cron.write(job("catch_up: all"))
    cron.fire()
    cron.at("10:45:02")
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "10:15", "10:30", "10:45"]


def test_a_tick_that_cron_may_yet_start_is_not_missed(cron: Cron) -> None:
    cron.write(job("catch_up: latest"))
    cron.fire()
    cron.at("10:15:30")
    assert cron.call("resume").status == 0
    assert cron.fates() == ["10:00 ran"]
    assert cron.fire().status == 0
    assert cron.fates() == ["10:00 ran", "10:15 ran"]


def test_a_hundred_are_caught_up_with_and_no_more(cron: Cron) -> None:
    gate = cron.gate("gate")
    work = f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}'
    cron.write(job("catch_up: all", work=work, schedule='schedule: "* * * * *"\n'))
    assert cron.fire().status == 0
    (cron.root / "hold").touch()
    cron.at("12:12:00")  # those from 10:01 to 12:10 are late: 130
    cron.start("resume")
    gate.reached()
    assert cron.fates() == ["10:00 ran", "10:01-10:30 (30) missed limit", "10:31 ran running"]
    cron.kill_everything()


def test_ticks_of_a_paused_job_are_skipped(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    assert cron.call("pause", "job", "--why", "the disk is being replaced").status == 0
    cron.at("10:15:01")
    fired = cron.fire()
    assert (fired.status, fired.stdout, fired.stderr) == (75, "", "")
    shown = cron.call("status").stdout
    assert "paused" in shown and "the disk is being replaced" in shown
    assert "1 tick was skipped" in cron.call("unpause", "job").stderr
    cron.at("10:30:01")
    assert cron.fire().status == 0
    assert cron.fates() == ["10:00 ran", "10:15 skipped paused", "10:30 ran"]


def test_a_tick_that_is_named_is_the_same_tick(cron: Cron) -> None:
    path = cron.write(job())
    assert cron.call("run", path, "--scheduled-time", "2025-11-20T11:00:00+01:00").status == 0
    assert cron.fire().status == 0, "it has run"
    assert cron.call("run", path, "--scheduled-time", "2025-11-20T10:00:00Z").status == 0
    assert cron.marks() == ["10:00"] and cron.fates() == ["10:00 ran"]


def test_a_start_that_belongs_to_no_tick(cron: Cron) -> None:
    path = cron.write(job())
    assert [cron.call("run", path, "--no-tick").status, cron.fire().status] == [0, 0]
    assert cron.lines() == ["", "2025-11-20T10:00:00.000Z"]
    assert cron.fates() == ["10:00 ran"]


def test_a_schedule_that_changed_holds_from_when_it_was_written(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    cron.at("10:20:00")
    cron.write(job(schedule='schedule: "5,18,35,50 * * * *"\n'))
    cron.at("10:50:01")
    assert cron.fire().status == 0
    fates = cron.fates()
    assert fates == ["10:00 ran", "10:15-10:35 (2) missed catch_up", "10:50 ran"], "and neither 10:18 nor 10:30"


def test_a_schedule_that_is_gone(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    cron.at("10:20:00")
    cron.write(job(schedule=""))
    assert cron.call("resume").status == 0
    assert cron.fates() == ["10:00 ran", "10:15 missed file"]
    cron.at("15:00:00")
    assert cron.call("resume").status == 0
    assert cron.fates() == ["10:00 ran", "10:15 missed file"]


def test_a_file_that_is_gone_is_told_of_once(cron: Cron) -> None:
    path = cron.write(job())
    cron.fire()
    cron.at("10:20:00")
    os.rename(path, f"{path}.away")
    told = cron.call("resume")
    assert told.status == 1 and path in told.stderr and "agentrun uninstall job" in told.stderr
    for time in ("10:21:00", "10:50:00"):
        cron.at(time)
        again = cron.call("resume")
        assert (again.status, again.stdout, again.stderr) == (0, "", "")
    assert cron.fates() == ["10:00 ran", "10:15 missed file"]
    os.rename(f"{path}.away", path)
    cron.at("11:00:01")
    assert cron.fire().status == 0, "it is back"
    assert cron.fates()[-1] == "11:00 ran"


def test_two_files_with_one_name(cron: Cron) -> None:
    cron.write(job("name: quotes"), "one")
    other = cron.write(job("name: quotes"), "two")
    assert cron.fire("one").status == 0
    cron.at("10:15:01")
    refused = cron.fire("two")
    assert refused.status == 65 and str(cron.root / "one.yaml") in refused.stderr and other in refused.stderr
    assert cron.fire("one").status == 0
    assert cron.marks() == ["10:00", "10:15"]


@pytest.mark.parametrize(
    ("on_tick", "outcome", "marks"),
    [
        ("resume", "succeeded", ["10:00", "10:00", "10:15"]),
        ("restart", "cancelled", ["10:00", "10:15"]),
        ("ignore", None, ["10:00", "10:15"]),
    ],
)
def test_a_tick_that_finds_the_last_run_interrupted(
    cron: Cron, on_tick: str, outcome: str | None, marks: list[str]
) -> None:
    gate = cron.gate("gate")
    (cron.root / "hold").touch()
    cron.write(job(f"on_tick: {on_tick}", work=f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}'))
    cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    cron.kill_everything()
    (cron.root / "hold").unlink()
    cron.at("10:15:01")
    fired = cron.fire()
    assert (fired.status, fired.stdout) == (0, ""), fired.stderr
    assert cron.marks() == marks
    assert cron.rows("SELECT outcome FROM runs ORDER BY id") == [(outcome,), ("succeeded",)]


def test_jitter_is_waited_for(cron: Cron) -> None:
    late = offset("job", here(), 600_000) / 1000
    cron.write(job("jitter: 10m"))
    cron.clock.set(_moment("10:00:00") + late - 0.5)
    assert cron.fire().status == 0
    ((created,),) = cron.rows("SELECT created_at FROM runs")
    assert created / 1000 >= _moment("10:00:00") + late


def test_a_kill_in_the_jitter_leaves_the_tick_to_be_found(cron: Cron) -> None:
    name = next(f"job{n}" for n in range(100) if offset(f"job{n}", here(), 600_000) > 300_000)
    cron.write(job("jitter: 10m\ncatch_up: latest"), name)
    assert cron.call("install", f"{name}.yaml", env=_crontab(cron)).status == 0
    cron.at("10:15:01")
    fifo = cron.root / "sleeps"
    os.mkfifo(fifo)
    sleeps = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    cron.env["SLEEPS"] = str(fifo)
    process = cron.start("run", str(cron.root / f"{name}.yaml"))
    del cron.env["SLEEPS"]
    assert select.select([sleeps], [], [], LIMIT)[0], "it does not wait"
    os.close(sleeps)
    process.kill()
    wait_gone(process.pid)
    assert cron.fates(name) == [] and cron.rows("SELECT count(*) FROM runs") == [(0,)]
    cron.at("10:18:00")
    assert cron.call("resume").status == 0
    assert cron.marks() == [], "its time to start has not passed yet"
    cron.at("10:27:00")
    assert cron.call("resume").status == 0
    assert cron.marks() == ["10:15"] and cron.fates(name) == ["10:15 ran"]


def _crontab(cron: Cron) -> dict[str, str]:
    """A `crontab` command that keeps the table in a file."""
    from ..cronlife.machine import CRONTAB

    cron.file("bin/crontab", CRONTAB, 0o755)
    return {"PATH": f"{cron.root}/bin:{cron.env['PATH']}", "TORTURE": str(cron.root)}


def test_a_tick_that_was_skipped_is_run_when_there_is_room(cron: Cron) -> None:
    gate = cron.gate("gate")
    (cron.root / "hold").touch()
    cron.write(job("catch_up: latest", work=f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}'))
    first = cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    for time in ("10:15:01", "10:30:01"):
        cron.at(time)
        fired = cron.fire()
        assert (fired.status, fired.stdout, fired.stderr) == (75, "", "")
    assert cron.fates() == ["10:00 ran running", "10:15-10:30 (2) skipped overlap"]
    (cron.root / "hold").unlink()
    gate.open()
    assert first.wait(LIMIT) == 0
    cron.at("10:32:00")
    looked = cron.call("resume")
    assert (looked.status, looked.stdout, looked.stderr) == (0, "", "")
    assert cron.marks() == ["10:00", "10:30"], "the latest of them"
    assert cron.fates() == ["10:00 ran", "10:15-10:30 (2) skipped overlap", "10:30 ran"]


def test_a_tick_that_is_skipped_again_keeps_its_account(cron: Cron) -> None:
    gate = cron.gate("gate")
    path = cron.write(job("catch_up: latest", work=gate.shell))
    first = cron.start("run", path)
    gate.reached()
    for time in ("10:15:01", "10:30:01"):
        cron.at(time)
        assert cron.fire().status == 75
    cron.at("10:31:00")
    assert cron.call("run", path, "--no-tick").status == 75
    cron.at("10:33:00")
    assert cron.call("resume").status == 0, "it tries the latest again, and is in the way still"
    assert cron.fates() == [
        "10:00 ran running", "10:15-10:30 (2) skipped overlap", "10:31 skipped overlap (no tick)"
    ]  # fmt: skip
    gate.open()
    assert first.wait(LIMIT) == 0


def test_without_catch_up_a_skipped_tick_stays_skipped(cron: Cron) -> None:
    gate = cron.gate("gate")
    cron.write(job(work=gate.shell))
    first = cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    cron.at("10:15:01")
    assert cron.fire().status == 75
    gate.open()
    assert first.wait(LIMIT) == 0
    cron.at("10:20:00")
    assert cron.call("resume").status == 0
    assert cron.fates() == ["10:00 ran", "10:15 skipped overlap"]


def test_in_line_the_newest_is_kept(cron: Cron) -> None:
    gate = cron.gate("gate")
    (cron.root / "hold").touch()
    cron.write(job("concurrency: queue", work=f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}'))
    first = cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    for time in ("10:15:01", "10:30:01"):
        cron.at(time)
        assert cron.fire().status == 75
    (cron.root / "hold").unlink()
    gate.open()
    assert first.wait(LIMIT) == 0
    assert cron.marks() == ["10:00", "10:30"]
    assert cron.fates() == ["10:00 ran", "10:15 ran skipped", "10:30 ran"]


def test_a_tick_takes_the_place_of_the_run_before(cron: Cron) -> None:
    gate = cron.gate("gate")
    (cron.root / "hold").touch()
    cron.write(job("concurrency: replace", work=f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}'))
    first = cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    (cron.root / "hold").unlink()
    cron.at("10:15:01")
    assert cron.fire().status == 0
    assert first.wait(LIMIT) != 0
    assert cron.marks() == ["10:00", "10:15"]
    assert cron.fates() == ["10:00 ran cancelled", "10:15 ran"]


def test_a_parked_run_is_at_work(cron: Cron) -> None:
    gate = cron.gate("gate")
    (cron.root / "hold").touch()
    options = "on_interrupt: ask, "
    cron.write(job(work=f'test ! -e "$ARENA/hold" || {{ {gate.shell}; }}', options=options))
    cron.start("run", str(cron.root / "job.yaml"))
    gate.reached()
    cron.kill_everything()
    (cron.root / "hold").unlink()
    cron.at("10:15:01")
    assert cron.fire().status == 75, "it goes on first, asks, and is in the way"
    assert cron.fates() == ["10:00 ran waiting", "10:15 skipped overlap"]
    assert cron.call("resume", "job", "--rerun", "a").status == 0
    cron.at("10:30:01")
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "10:00", "10:30"]


def test_resume_with_nothing_due_touches_nothing(cron: Cron) -> None:
    cron.write(job("catch_up: all"))
    cron.fire()
    before = cron.contents()
    assert before
    for time in ("10:05:00", "10:14:59", "10:16:00"):
        cron.at(time)
        looked = cron.call("resume")
        assert (looked.status, looked.stdout, looked.stderr) == (0, "", "")
    assert cron.contents() == before
    assert cron.marks() == ["10:00"]


def test_backfill_runs_what_has_not_run(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    cron.at("10:46:00")
    assert cron.fire().status == 0
    cron.at("11:01:00")
    asked = ("backfill", "job", "--from", "2025-11-20T10:00", "--to", "2025-11-20T11:00")
    shown = cron.call(*asked, "--dry-run").stdout.split()
    assert shown == [f"2025-11-20T{at}:00.000Z" for at in ("10:15", "10:30", "11:00")]
    assert cron.call(*asked).status == 0
    assert cron.call(*asked).status == 0
    assert cron.marks() == ["10:00", "10:45", "10:15", "10:30", "11:00"]
    cron.at("11:15:01")
    assert cron.fire().status == 0
    assert [line for line in cron.fates() if "missed" not in line] == [
        "10:00 ran", "10:15 ran", "10:30 ran", "10:45 ran", "11:00 ran", "11:15 ran"
    ]  # fmt: skip
