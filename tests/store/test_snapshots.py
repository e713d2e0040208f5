"""Job files frozen: kept once, and decoded again where another program kept them."""

from __future__ import annotations

import pickle

import pytest

from agentrun.errors import JobFileError
from agentrun.store import snapshots
from agentrun.store.database import Database
from agentrun.store.read import Reader
from agentrun.store.snapshots import DECODER, Snapshot
from agentrun.store.write import Store

from .records import job, new_run, snapshot


def test_one_text_is_kept_once(store: Store, reader: Reader) -> None:
    store.record(new_run("1aaaaaaaaa"), snapshot())
    store.record(new_run("1aaaaaaaab"), snapshot())
    store.record(new_run("1aaaaaaaac", steps_total=1), snapshot("only"))
    count = "SELECT count(*) FROM snapshots"
    assert reader.connection.execute(count).fetchone() == (2,)
    first, other = reader.run("1aaaaaaaab"), reader.run("1aaaaaaaac")
    assert reader.job_of(first) == snapshot().job
    assert reader.text_of(other) == snapshot("only").text
    assert first.snapshot == snapshot().sha256 != other.snapshot


def test_it_comes_back_as_it_was() -> None:
    kept = snapshot()
    assert Snapshot.job_in(kept.text, DECODER, kept.decoded(), "x.yaml") == kept.job


def test_what_another_version_kept_is_decoded_from_the_text() -> None:
    kept = snapshot()
    poison = pickle.dumps(job("not", "this"))
    assert [s.id for s in Snapshot.job_in(kept.text, "agentrun 0.0.1", poison, "q.yaml").steps] == ["a", "b", "c"]
    with pytest.raises(JobFileError, match=r"q\.yaml:"):
        Snapshot.job_in("steps: 3\n", "agentrun 0.0.1", b"", "q.yaml")


def test_a_newer_decoder_replaces_the_pickle(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record(new_run("1aaaaaaaaa"), snapshot())
    monkeypatch.setattr(snapshots, "DECODER", "agentrun 9")
    store.record(new_run("1aaaaaaaab"), snapshot())
    assert database.connection.execute("SELECT decoder FROM snapshots").fetchall() == [("agentrun 9",)]
