"""The ticks of a job and its record: which account is written, by whom, and what a changed or missing file leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentrun.cron.attend import Attendance, missed_since, seen
from agentrun.errors import JobFileError, Overtaken
from agentrun.model import Job, Step
from agentrun.spec.schedules import parse
from agentrun.store.database import open_for_writing
from agentrun.store.jobs import Jobs, Unrun


def ms(time: str) -> int:
    return round(datetime.fromisoformat(f"2026-05-07T{time}").replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    database = open_for_writing(str(tmp_path / "state"))
    yield Jobs(database)
    database.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "quotes.yaml"
    path.write_text("# a job\n")
    os.utime(path, (ms("09:00") / 1000,) * 2)
    return str(path)


def attended(file: str, schedule: str = "*/15 * * * *", **more: Any) -> Attendance:
    job = Job("quotes", (Step("a", 0, run="true"),), schedule=(parse(schedule),), timezone="UTC", **more)
    found = Attendance.of(job, file)
    assert found is not None
    return found


def looked(jobs: Jobs, attendance: Attendance, time: str, *, fired: bool = True) -> int | None:
    """Look, and write the account as the run would that takes its tick."""
    found, account = attendance.look(jobs, ms(time), fired=fired)
    jobs.settle(account, now=ms(time), by="ada")
    return found.own


def fates(jobs: Jobs) -> list[tuple[int, int, int, str, str]]:
    return [(row.first, row.last, row.number, row.fate, row.reason) for row in reversed(jobs.ticks("quotes"))]


def test_a_job_without_a_schedule_is_not_attended(file: str) -> None:
    assert Attendance.of(Job("quotes", ()), file) is None


def test_the_first_start_takes_the_newest_tick_and_owes_nothing_before(jobs: Jobs, file: str) -> None:
    assert looked(jobs, attended(file, catch_up="all"), "10:01") == ms("10:00")
    assert fates(jobs) == []
    row = jobs.job("quotes")
    assert row is not None and (row.settled, row.file, row.file_seen) == (ms("10:00"), file, seen(file))
    assert row.due_at is not None and row.due_at > ms("10:16")


def test_a_look_alone_does_not_begin_it(jobs: Jobs, file: str) -> None:
    assert looked(jobs, attended(file), "10:01", fired=False) is None


def test_it_counts_from_its_installation(jobs: Jobs, file: str) -> None:
    attendance = attended(file)
    begun = attendance.begin(jobs, ms("10:01"))
    assert begun is not None and begun.settled == ms("10:01")
    jobs.settle(begun, now=ms("10:01"), by="ada")
    assert attendance.begin(jobs, ms("10:05")) is None
    assert looked(jobs, attendance, "10:20", fired=False) is None
    assert fates(jobs) == [(ms("10:15"), ms("10:15"), 1, "missed", "catch_up")]


def test_of_two_that_look_at_once_one_writes(jobs: Jobs, file: str) -> None:
    attendance = attended(file)
    looked(jobs, attendance, "10:01")
    accounts = [attendance.look(jobs, ms("10:46"), fired=True)[1] for _ in range(2)]
    jobs.settle(accounts[0], now=ms("10:46"), by="ada")
    with pytest.raises(Overtaken):
        jobs.settle(accounts[1], now=ms("10:46"), by="bob")
    assert fates(jobs) == [(ms("10:15"), ms("10:30"), 2, "missed", "catch_up")]


def test_the_old_schedule_holds_until_the_file_was_written(jobs: Jobs, file: str) -> None:
    looked(jobs, attended(file), "10:01")
    os.utime(file, (ms("10:50") / 1000,) * 2)
    assert looked(jobs, attended(file, "5,40 * * * *"), "11:06") == ms("11:05")
    assert fates(jobs) == [(ms("10:15"), ms("10:45"), 3, "missed", "catch_up")], "10:40 is not the new one's"


def test_no_tick_is_lost_that_came_just_before_the_file_was_written(jobs: Jobs, file: str) -> None:
    looked(jobs, attended(file), "10:01")
    os.utime(file, (ms("10:15:40") / 1000,) * 2)
    assert looked(jobs, attended(file, "5,40 * * * *"), "10:41") == ms("10:40")
    assert fates(jobs) == [(ms("10:15"), ms("10:15"), 1, "missed", "catch_up")]


def test_a_file_from_the_future_holds_from_now(jobs: Jobs, file: str) -> None:
    looked(jobs, attended(file), "10:01")
    os.utime(file, (ms("23:00") / 1000,) * 2)
    assert looked(jobs, attended(file, "5,40 * * * *"), "10:41") == ms("10:40"), "what was started runs"
    assert looked(jobs, attended(file, "5,40 * * * *"), "11:06") == ms("11:05")
    assert fates(jobs) == [(ms("10:15"), ms("10:30"), 2, "missed", "catch_up")]


def test_two_files_with_one_name(jobs: Jobs, file: str, tmp_path: Path) -> None:
    looked(jobs, attended(file), "10:01")
    other = tmp_path / "other.yaml"
    other.write_text("# another\n")
    with pytest.raises(JobFileError, match=r"quotes\.yaml"):
        attended(str(other)).look(jobs, ms("10:16"), fired=True)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert attended(str(link)).look(jobs, ms("10:16"), fired=True)[0].own == ms("10:15"), "this is the same file"
    os.unlink(file)
    assert attended(str(other)).look(jobs, ms("10:16"), fired=True)[0].own == ms("10:15"), "it has moved"


def test_what_was_missed_of_a_file_that_is_gone(jobs: Jobs, file: str) -> None:
    looked(jobs, attended(file), "10:01")
    row = jobs.job("quotes")
    assert row is not None
    for now in ("10:30:01", "10:35:00"):  # also what is not late yet: nobody will look again
        assert missed_since(row, jobs, ms(now)) == (Unrun(ms("10:15"), ms("10:30"), 2, "missed", "file"),)
    jobs.unschedule("quotes", unrun=missed_since(row, jobs, ms("10:35")), notify=None, now=ms("10:35"), by="ada")
    row = jobs.job("quotes")
    assert row is not None and missed_since(row, jobs, ms("15:00")) == ()
