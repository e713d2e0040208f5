"""Runs that exclude each other: skipped, queued, replaced or let through, and never forgotten, whoever is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .arena import LIMIT, Arena, Gate

NOTE = 'echo "$AGENTRUN_RUN_ID" >> "$ARENA/ledger"'


def gated(arena: Arena, concurrency: str, name: str = "job", gate: Gate | None = None) -> tuple[Path, Gate]:
    gate = gate or arena.gate(name)
    head = f"concurrency: {concurrency}\n" if concurrency else ""
    return arena.job(name, f"{head}steps:\n- {{id: a, run: '{NOTE}; {gate.shell}'}}\n"), gate


def runs(arena: Arena) -> list[tuple[Any, ...]]:
    """(id, state, outcome) of all, oldest first."""
    return arena.rows("SELECT id, state, outcome FROM runs ORDER BY id")


def skipped(arena: Arena) -> list[tuple[Any, ...]]:
    return arena.rows("SELECT job, reason, because, number, scheduled FROM ticks ORDER BY job")


def ends(process: Any) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@pytest.mark.parametrize("concurrency", ["", "forbid", "{policy: allow, limit: 1}"])
def test_a_second_run_is_skipped_and_says_because_of_which(arena: Arena, concurrency: str) -> None:
    job, gate = gated(arena, concurrency)
    first = arena.start("run", str(job))
    gate.reached()
    second = arena.command("run", str(job))
    assert (second.returncode, second.stdout, second.stderr) == (75, "", "")  # silent without a terminal
    ((run_id, _, _),) = runs(arena)
    assert skipped(arena) == [("job", "overlap", run_id, 1, 0)]
    assert len(list((arena.home / "runs").iterdir())) == 1  # what was skipped leaves nothing behind
    assert "job: 1 start skipped, " in arena.command("status").stdout
    gate.open()
    assert ends(first)[0] == 0
    gate.open()
    assert arena.command("run", str(job)).returncode == 0
    assert len(arena.lines()) == 2


def test_a_limit_lets_so_many_through(arena: Arena) -> None:
    job, gate = gated(arena, "{policy: allow, limit: 2}")
    both = [arena.start("run", str(job)) for _ in range(2)]
    gate.reached()
    while len(arena.lines()) < 2:
        gate.reached()
    assert arena.command("run", str(job)).returncode == 75
    gate.open()
    gate.open()
    assert [ends(one)[0] for one in both] == [0, 0]
    assert len(runs(arena)) == 2


def test_without_a_limit_all_are_let_through(arena: Arena) -> None:
    job, gate = gated(arena, "allow")
    both = [arena.start("run", str(job)) for _ in range(3)]
    while len(arena.lines()) < 3:
        gate.reached()
    for _ in both:
        gate.open()
    assert [ends(one)[0] for one in both] == [0, 0, 0]


def test_a_key_holds_across_jobs_and_may_name_a_param(arena: Arena) -> None:
    gate = arena.gate("both")
    text = (
        'concurrency: {key: "mail-${{ params.who }}"}\nparams: {who: {default: all}}\n'
        f"steps:\n- {{id: a, run: '{NOTE}; {gate.shell}'}}\n"
    )
    one, other = arena.job("one", text), arena.job("other", text)
    first = arena.start("run", str(one))
    gate.reached()
    assert arena.command("run", str(other)).returncode == 75
    assert [row[:2] for row in skipped(arena)] == [("other", "overlap")]
    second = arena.start("run", str(other), "-p", "who=acme")
    gate.reached()
    gate.open()
    gate.open()
    assert ends(first)[0] == ends(second)[0] == 0


# --- queue


def test_one_waits_and_the_newest_is_kept(arena: Arena) -> None:
    job, gate = gated(arena, "queue")
    first = arena.start("run", str(job))
    gate.reached()
    for _ in range(3):
        waits = arena.command("run", str(job))
        assert (waits.returncode, waits.stderr) == (75, "")
    assert [row[1:] for row in runs(arena)] == [
        ("running", None), ("finished", "skipped"), ("finished", "skipped"), ("queued", None)
    ]  # fmt: skip
    (error,) = arena.rows("SELECT error FROM runs WHERE outcome = 'skipped' LIMIT 1")[0]
    assert error == f"run {runs(arena)[2][0]} has taken its place in line"
    gate.open()
    gate.reached()  # the one that waited, begun by the one that has ended
    gate.open()
    assert ends(first)[0] == 0
    arena.wait_until_let_go()
    assert runs(arena)[-1][1:] == ("finished", "succeeded")
    assert arena.lines() == [runs(arena)[0][0], runs(arena)[-1][0]]


def test_a_run_that_waits_is_begun_by_resume_when_nobody_else_does(arena: Arena) -> None:
    job, gate = gated(arena, "queue")
    arena.start("run", str(job))
    gate.reached()
    arena.command("run", str(job))
    (first, *_), (waiting, *_) = runs(arena)
    assert f"waits in line: run {first} is at work" in arena.command("resume", "-v").stderr
    arena.kill_everything_of(first)
    gate.open()  # for the first run's next attempt
    gate.open()  # for the one that waits
    assert arena.command("resume").returncode == 0
    arena.command("resume")  # the minute after: whoever of the two was begun too early
    assert [row[1:] for row in runs(arena)] == [("finished", "succeeded")] * 2
    assert arena.lines() == [first, first, waiting]


def test_a_detached_run_waits_in_line_too(arena: Arena) -> None:
    job, gate = gated(arena, "queue")
    first = arena.start("run", str(job))
    gate.reached()
    made = arena.command("run", "--detach", str(job))
    assert made.returncode == 0
    assert runs(arena)[1][:2] == (made.stdout.strip(), "queued")
    gate.open()
    gate.reached()
    gate.open()
    assert ends(first)[0] == 0
    arena.wait_until_let_go()
    assert runs(arena)[1][1:] == ("finished", "succeeded")


# --- replace


def test_what_is_at_work_is_cancelled_and_the_new_one_runs(arena: Arena) -> None:
    job, gate = gated(arena, "replace")
    first = arena.start("run", str(job))
    gate.reached()
    second = arena.start("run", str(job))
    gate.reached()
    gate.open()
    assert ends(second)[0] == 0
    assert ends(first) == (75, "", "")  # as the job file wants it: no mail
    assert [row[1:] for row in runs(arena)] == [("finished", "cancelled"), ("finished", "succeeded")]


def test_of_many_that_replace_each_other_the_newest_runs(arena: Arena) -> None:
    hold = arena.gate("hold")
    job, gate = gated(arena, "replace")
    job.write_text(job.read_text() + f"- {{id: z, when: always, run: '{hold.shell}'}}\n")
    first = arena.start("run", str(job))
    gate.reached()
    second = arena.start("run", str(job))
    hold.reached()  # the first one's handler: the second one waits until that has ended
    third = arena.start("run", str(job))
    assert ends(second) == (75, "", "")
    fourth = arena.start("run", str(job))
    assert ends(third) == (75, "", "")
    hold.open()
    gate.reached()
    gate.open()
    hold.reached()
    hold.open()
    assert ends(fourth) == (0, "", "")
    assert ends(first)[0] == 75
    assert [row[2] for row in runs(arena)] == ["cancelled", "skipped", "skipped", "succeeded"]


def test_a_run_that_is_killed_while_it_replaces_another_is_begun_by_resume(arena: Arena) -> None:
    hold = arena.gate("hold")
    job, gate = gated(arena, "replace")
    job.write_text(job.read_text() + f"- {{id: z, when: always, run: '{hold.shell}'}}\n")
    arena.start("run", str(job))
    gate.reached()
    second = arena.start("run", str(job))
    hold.reached()  # the first one's handler: it is ending, and the second one waits for that
    second.kill()
    second.wait()
    assert arena.rows("SELECT count(*) FROM runs WHERE state = 'queued'") == [(1,)]
    for _ in range(2):
        gate.open()
        hold.open()
    arena.command("resume")
    arena.command("resume")
    arena.wait_until_let_go()
    assert [row[1:] for row in runs(arena)] == [("finished", "cancelled"), ("finished", "succeeded")]


# --- what counts as being at work


def test_a_parked_run_is_at_work(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("job", f"steps:\n- {{id: a, on_interrupt: ask, run: '{NOTE}; {gate.shell}'}}\n")
    arena.start("run", str(job))
    gate.reached()
    arena.kill_everything()
    assert arena.command("run", str(job)).returncode == 75
    assert [row[1:2] for row in runs(arena)] == [("waiting",)]
    assert arena.command("run", str(job)).returncode == 75
    assert [row[1] for row in skipped(arena)][-1:] == ["overlap"]
    assert arena.command("resume", arena.run_id, "--took-place", "a").returncode == 0
    gate.open()
    assert arena.command("run", str(job)).returncode == 0


def test_a_failed_run_does_not_go_on_beside_another(arena: Arena) -> None:
    gate = arena.gate("gate")
    job = arena.job("job", f"steps:\n- {{id: a, run: 'test -e {arena.root}/ok || exit 3; {gate.shell}'}}\n")
    assert arena.command("run", str(job)).returncode == 3
    failed = arena.run_id
    (arena.root / "ok").write_text("")
    second = arena.start("run", str(job))
    gate.reached()
    refused = arena.command("resume", failed)
    assert refused.returncode == 75
    assert "is at work" in refused.stderr and "`concurrency`" in refused.stderr
    assert arena.status(failed)["state"] == "finished"
    gate.open()
    assert ends(second)[0] == 0
    gate.open()
    assert arena.command("resume", failed).returncode == 0


def test_json_of_ticks_names_the_run_in_the_way(arena: Arena) -> None:
    job, gate = gated(arena, "forbid")
    first = arena.start("run", str(job))
    gate.reached()
    arena.command("run", str(job))
    (tick,) = json.loads(arena.command("ticks", "job", "--json").stdout)
    assert (tick["fate"], tick["reason"], tick["because"], tick["scheduled"]) == (
        "skipped", "overlap", arena.run_id, False
    )  # fmt: skip
    gate.open()
    ends(first)
