"""The outbox in the record: raised with what it tells of, never by a repair, claimed by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrun.errors import Overtaken
from agentrun.store import redo, replay
from agentrun.store.changes import RunFinished
from agentrun.store.database import open_for_writing
from agentrun.store.notices import PAUSES, TRIES, Notices, Posting, Streak
from agentrun.store.stuck import StepStuck
from agentrun.store.write import Store

from .records import NOW, OWNER, new_run, snapshot, stamp

RUN = "1aaaaaaaaa"
WHO = {"on": ["failure", "stuck"], "to": [{"kind": "mail", "address": "a@b"}], "every": 10}
PINGED = {"on": [], "to": [{"kind": "ping", "address": "https://hc.example/u"}], "every": 10}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    root = tmp_path / "home"
    with Store(open_for_writing(str(root))) as made:
        (root / "runs" / RUN).mkdir(parents=True)
        made.record(new_run(), snapshot(), owner=OWNER, stamp=stamp())
        yield made


@pytest.fixture
def notices(store: Store) -> Notices:
    return Notices(store.database)


def commit(store: Store, *changes: Any) -> None:
    store.commit(RUN, 1, stamp(), changes, results_seen=0)


def end(store: Store, outcome: Any = "failed") -> None:
    commit(store, RunFinished(outcome, NOW + 5))


def told(notices: Notices) -> list[tuple[str, str]]:
    return [(notice.event, notice.state) for notice in reversed(notices.of_job("quotes"))]


def test_the_end_of_a_run_raises_its_notice_and_nobody_hears_of_it_any_more(store: Store, notices: Notices) -> None:
    assert notices.hear(RUN, WHO, NOW) is False and not notices.is_due(NOW)
    end(store)
    [notice] = notices.raised()
    assert (notice.event, notice.run_id, notice.at) == ("end", RUN, NOW + 5)
    assert notice.said == {"notify": WHO, "file": "/jobs/quotes.yaml", "outcome": "failed"}
    assert notices.is_due(0), "at once, whatever the clock says"
    assert store.database.connection.execute("SELECT * FROM hearers").fetchall() == []


def test_a_transaction_that_fails_raises_nothing(store: Store, notices: Notices) -> None:
    notices.hear(RUN, WHO, NOW)
    with pytest.raises(Overtaken):
        store.commit(RUN, 2, stamp(), [RunFinished("failed", NOW)], results_seen=0)
    with pytest.raises(Overtaken):
        commit(store, RunFinished("failed", NOW), RunFinished("failed", NOW))
    assert notices.raised() == []
    end(store)
    assert len(notices.raised()) == 1


@pytest.mark.parametrize(
    ("who", "outcome", "raised"),
    [
        (WHO, "succeeded", False), (WHO, "cancelled", False), (WHO, "timed_out", True), (WHO, "over_budget", True),
        (PINGED, "succeeded", True), (PINGED, "cancelled", False), (PINGED, "failed", True), (None, "failed", False),
    ],
)  # fmt: skip
def test_which_ends_are_told(store: Store, notices: Notices, who: Any, outcome: str, raised: bool) -> None:
    assert notices.hear(RUN, who, NOW) is (who is PINGED)
    end(store, outcome)
    assert ("end", "raised") in told(notices) or not raised
    assert len(notices.raised()) == raised + (who is PINGED)


def test_a_success_is_told_where_it_ends_something(store: Store, notices: Notices) -> None:
    notices.hear(RUN, WHO, NOW)
    store.database.write(
        lambda cursor: cursor.execute("INSERT INTO streaks VALUES ('quotes', 'failure', 'exit 1', ?, 3)", (NOW,))
    )
    end(store, "succeeded")
    assert [notice.said["outcome"] for notice in notices.raised()] == ["succeeded"]


def test_a_start_is_told_once_for_each_beginning(store: Store, notices: Notices) -> None:
    assert notices.hear(RUN, PINGED, NOW) is True
    assert notices.hear(RUN, PINGED, NOW) is False, "taken over"
    assert notices.hear(RUN, {**PINGED, "every": 5}, NOW) is False, "by one with another config.yaml"
    assert notices.hear(RUN, None, NOW) is False
    assert [notice.event for notice in notices.raised()] == ["start"]
    end(store)
    assert len(notices.raised()) == 1, "nobody hears any more"


def test_a_stuck_step_is_told_to_those_who_want_it(store: Store, notices: Notices) -> None:
    commit(store, StepStuck("a", 1, NOW - 60_000, NOW))
    notices.hear(RUN, {**WHO, "on": ["failure"]}, NOW)
    commit(store, StepStuck("a", 1, NOW - 60_000, NOW))
    assert notices.raised() == []
    notices.hear(RUN, WHO, NOW)
    commit(store, StepStuck("a", 1, NOW - 60_000, NOW))
    [notice] = notices.raised()
    assert (notice.event, notice.said["step"], notice.said["since"]) == ("stuck", "a", NOW - 60_000)


def test_a_run_that_is_done_again_from_its_journal_tells_nobody(store: Store, notices: Notices) -> None:
    notices.hear(RUN, WHO, NOW)
    commit(store, StepStuck("a", 1, NOW - 60_000, NOW))
    end(store)
    before = notices.of_job("quotes")
    assert len(before) == 2
    entries = redo.read(f"{store.database.root}/runs/{RUN}/journal").entries
    assert [entry["verb"] for entry in entries][-2:] == ["commit", "commit"]
    connection = store.database.connection
    connection.execute("BEGIN")
    replay.replay(connection, RUN, entries)
    connection.execute("COMMIT")
    assert notices.of_job("quotes") == before


def queued(notices: Notices, store: Store) -> Any:
    notices.hear(RUN, WHO, NOW)
    end(store)
    [raised] = notices.raised()
    target = WHO["to"][0]  # type: ignore[index]
    streak = Streak("exit 1", NOW, 2)
    notices.post(
        raised, [Posting(target, "failure", {"n": 1}), Posting(target, "failure", {"n": 2}, "the 2nd")],
        [("failure", streak)], NOW,
    )  # fmt: skip
    notices.post(raised, [Posting(target, "failure", {"n": 3})], [("failure", None)], NOW)
    assert notices.streak("quotes", "failure") == streak, "what is posted once is not posted again"
    return notices.queued()


def test_what_is_raised_is_posted_once(store: Store, notices: Notices) -> None:
    [notice] = queued(notices, store)
    assert (notice.said, notice.state, notice.due) == ({"n": 1}, "queued", NOW)
    assert told(notices) == [("failure", "queued"), ("failure", "folded")]


def test_a_try_is_counted_before_it_is_made_and_by_one_only(store: Store, notices: Notices) -> None:
    for tries, pause in enumerate((*PAUSES, PAUSES[-1]), 1):
        [notice] = notices.queued() or queued(notices, store)
        [claimed] = notices.claim([notice], NOW)
        assert notices.claim([notice], NOW) == []
        assert claimed.tries == tries and notices.queued()[0].due == NOW + pause
        notices.settle([(claimed, "no route")], NOW)
    assert tries == TRIES and notices.queued() == []
    [failed] = notices.failed(NOW)
    assert (failed.state, failed.error, failed.done_at) == ("failed", "no route", NOW)


def test_what_was_sent_stays_sent(store: Store, notices: Notices) -> None:
    [claimed] = notices.claim(queued(notices, store), NOW)
    notices.settle([(claimed, None)], NOW)
    notices.settle([(claimed, "late word of another")], NOW)
    notices.fold([claimed], "overtaken", NOW)
    assert told(notices)[0] == ("failure", "sent") and not notices.is_due(NOW * 2)


def test_old_notices_are_forgotten(store: Store, notices: Notices) -> None:
    [claimed] = notices.claim(queued(notices, store), NOW)
    notices.settle([(claimed, None)], NOW)
    notices.forget_old(NOW + 80 * 86_400_000)
    assert len(told(notices)) == 2
    notices.forget_old(NOW + 91 * 86_400_000)
    assert told(notices) == []


@pytest.mark.parametrize(
    "change",
    [
        "state = 'raised'", "state = 'sent'", "state = 'lost'", "due = NULL", "target = '{'", "said = 'x'",
        "state = 'sent', due = NULL",
    ],
)  # fmt: skip
def test_the_schema_refuses_nonsense(store: Store, notices: Notices, change: str) -> None:
    queued(notices, store)
    with pytest.raises(sqlite3.IntegrityError):
        store.database.connection.execute(f"UPDATE notices SET {change} WHERE state = 'queued'")


def test_the_question_whether_anything_is_due_looks_into_an_index(store: Store) -> None:
    plan = store.database.connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM notices WHERE due <= 5 LIMIT 1")
    assert "COVERING INDEX notices_due" in plan.fetchone()[3]
