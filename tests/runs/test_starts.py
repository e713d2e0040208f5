"""Starts that come late, twice, with other parameters, or beside others: their tick is run once, and not forgotten."""

from __future__ import annotations

import pytest

from ..cronlife.moved import library
from .test_ticks import MARK, QUARTERS, Cron, cron, job

pytestmark = pytest.mark.skipif(library() is None, reason="needs libfaketime (Debian: the package faketime)")
__all__ = ["cron"]

WHO = f"{QUARTERS}params: {{who: {{required: true}}}}\n"
TELL = (
    "steps:\n- {id: a, env: {WHO: '${{ params.who }}'},"
    " run: 'echo \"$AGENTRUN_SCHEDULED_TIME $WHO\" >> \"$ARENA/ledger\"'}\n"
)


def test_a_start_that_comes_late_runs_although_its_tick_was_called_missed(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    cron.at("10:31:35")
    assert "2 ticks were missed" in cron.call("resume").stderr
    cron.at("10:31:36")
    assert cron.fire().status == 0
    assert cron.fates() == ["10:00 ran", "10:15 missed catch_up", "10:30 ran"]
    cron.at("10:31:37")
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "10:30"]


def test_a_clock_that_was_ahead_and_is_put_right(cron: Cron) -> None:
    cron.write(job())
    cron.fire()
    cron.at("22:00:01")
    cron.fire()
    for time in ("10:15:01", "10:30:01"):
        cron.at(time)
        assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "22:00", "10:15", "10:30"]


def test_a_run_that_heals_another_for_long_still_runs_its_own_tick(cron: Cron) -> None:
    gate = cron.gate("gate")
    path = cron.write(job(work=gate.shell))
    cron.start("run", path)
    gate.reached()
    cron.kill_everything()
    cron.at("10:15:01")
    healer = cron.start("run", path)
    gate.reached()  # of the interrupted run
    cron.at("10:31:00")
    other = cron.fire()  # the next tick: the run is at work, and 10:15 looks missed
    assert other.status == 75
    gate.open()
    gate.reached()
    gate.open()
    assert healer.wait(60) == 0
    assert cron.marks() == ["10:00", "10:00", "10:15"]
    assert cron.fates() == ["10:00 ran", "10:15 ran", "10:30 skipped overlap"]


def test_a_start_after_its_ticks_run_has_failed_says_so(cron: Cron) -> None:
    cron.write(job(work="exit 7"))
    assert cron.fire().status == 7
    again = cron.fire()
    assert again.status == 75
    assert "has run already, as" in again.stderr and "agentrun resume" in again.stderr
    assert cron.marks() == ["10:00"]
    assert cron.call("run", "job.yaml", "--json").stdout.startswith('{"schema": "agentrun.run/1"')


def test_a_tick_is_one_runs_under_whatever_key(cron: Cron) -> None:
    path = cron.write(job())
    tick = ("--scheduled-time", "2025-11-20T10:00:00Z")
    assert cron.call("run", path, "--run-key", "mine", *tick).status == 0
    assert cron.call("run", path, *tick).status == 0
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00"]


def test_a_job_whose_ticks_are_always_named_is_looked_after_too(cron: Cron) -> None:
    path = cron.write(job())
    assert cron.call("run", path, "--scheduled-time", "2025-11-20T10:00:00Z").status == 0
    cron.at("10:32:00")
    cron.call("resume")
    assert cron.fates() == ["10:00 ran", "10:15-10:30 (2) missed catch_up"]


def test_what_is_caught_up_with_has_the_parameters_of_the_last_tick(cron: Cron) -> None:
    cron.write(f"{WHO}catch_up: all\n{TELL}")
    assert cron.call("run", "job.yaml", "-p", "who=acme").status == 0
    refused = cron.call("run", "job.yaml", "-p", "who=bolt")
    assert refused.status == 2 and 'started with {"who": "acme"}' in refused.stderr
    cron.at("10:32:00")
    assert cron.call("resume").status == 0
    assert [line.split()[1] for line in cron.lines()] == ["acme"] * 3


def test_a_paused_job_on_a_machine_that_is_off_has_missed_nothing(cron: Cron) -> None:
    cron.write(job("catch_up: all"))
    cron.fire()
    cron.at("10:20:00")
    cron.call("pause", "job")
    cron.at("11:00:01")
    assert cron.fire().status == 75
    assert cron.fates() == ["10:00 ran", "10:15 missed catch_up", "10:30-11:00 (3) skipped paused"]
    cron.call("unpause", "job")
    cron.at("11:15:01")
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "11:15"]


def test_ticks_are_caught_up_with_one_after_the_other_although_runs_may_overlap(cron: Cron) -> None:
    gate = cron.gate("gate")
    cron.write(job("catch_up: all\nconcurrency: allow"))
    cron.fire()
    cron.write(job("catch_up: all\nconcurrency: allow", work=gate.shell))
    cron.at("10:47:00")
    first = cron.start("resume")
    gate.reached()
    before = cron.contents()
    assert cron.call("resume").status == 0  # the minute after
    assert cron.contents() == before
    for _ in range(2):
        gate.open()
        gate.reached()
    gate.open()
    assert first.wait(60) == 0
    assert cron.marks() == ["10:00", "10:15", "10:30", "10:45"]


def test_from_a_step_keeps_the_tick(cron: Cron) -> None:
    path = cron.write(f"{QUARTERS}steps:\n- {{id: a, run: 'true'}}\n- {{id: b, run: '{MARK}'}}\n")
    cron.fire()
    assert cron.call("resume", "job", "--from", "b").status == 0, path
    assert cron.marks() == ["10:00", "10:00"]


def test_a_file_that_came_with_its_old_time_holds_from_now(cron: Cron) -> None:
    import os

    path = cron.write(job("catch_up: all"))
    cron.fire()
    cron.at("11:07:00")
    (cron.root / "job.yaml").write_text(job("catch_up: all", schedule='schedule: "*/5 * * * *"\n'))
    os.utime(path, (cron.clock.now - 86_400, cron.clock.now - 86_400))
    assert cron.fire().status == 0
    assert cron.marks() == ["10:00", "11:05"]
