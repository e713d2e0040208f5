"""The research agent, and its bill: what the model server of the example was asked, run, killed, resumed and stopped.

`Model` is that server in the process of the test: outside agentrun, it survives what kills a run. It answers with a
fixed number of tokens if told to, and leaves calls from a certain one on without an answer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from .clone import EXAMPLES, LIMIT, Clone, kill_everything

pytestmark = pytest.mark.slow

ONE_RUN = {"PLAN": 1, "SEARCH": 4, "JUDGE": 4, "SUMMARIZE": 6, "WRITE": 4, "REVIEW": 1}


def _server_module() -> Any:
    spec = importlib.util.spec_from_file_location("agent_example_server", EXAMPLES / "agent" / "server.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


server = _server_module()


class Unanswered(Exception):
    """A call whose caller has gone."""


class Model(server.ModelServer):  # type: ignore[misc, name-defined]
    def __init__(self, ledger: Path) -> None:
        self.path = ledger
        self.hold_from = 0  # the first call that is not answered; 0: all are
        self.tokens_each = 0
        self.said: dict[int, str] = {}  # what a call is answered with instead
        self.held, self.over = threading.Event(), threading.Event()
        super().__init__(ledger)

    def completion(self, call: int, model: str, messages: list[dict[str, str]]) -> Any:
        if 0 < self.hold_from <= call:
            self.held.set()
            self.over.wait()
            raise Unanswered
        completion = super().completion(call, model, messages)
        if call in self.said:
            completion["choices"][0]["message"]["content"] = self.said[call]
        return completion

    def usage(self, messages: list[dict[str, str]], text: str) -> dict[str, int]:
        if self.tokens_each:
            return {"prompt_tokens": self.tokens_each - 100, "completion_tokens": 100}
        usage: dict[str, int] = super().usage(messages, text)
        return usage

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), Unanswered):
            super().handle_error(request, client_address)


@pytest.fixture
def model(clone: Clone, tmp_path: Path) -> Iterator[Model]:
    """The job asks this one, as it would ask any other server."""
    with Model(tmp_path / "ledger.jsonl") as model:
        thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        clone.env |= {"OPENAI_BASE_URL": model.url, "OPENAI_MODEL": "fake", "OPENAI_PRICE": "1/1"}
        yield model
        model.over.set()
        model.shutdown()
        thread.join()


class Bill:
    """What a ledger says."""

    def __init__(self, ledger: Path) -> None:
        self.lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        self.asked = [line for line in self.lines if line["event"] == "asked"]
        self.answered = [line for line in self.lines if line["event"] == "answered"]

    @property
    def tasks(self) -> Counter[str]:
        return Counter(line["task"] for line in self.answered)

    @property
    def tokens(self) -> int:
        return int(self.lines[-1]["tokens"])

    def paid_twice(self) -> list[str]:
        counts = Counter(line["prompt"] for line in self.answered)
        return [prompt for prompt, count in counts.items() if count > 1]


def record(clone: Clone) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(clone.agentrun("status", "agent", "--json"))
    return run


def attempts(run: dict[str, Any]) -> dict[str, int]:
    return {step["instance"] or step["id"]: step["attempts"] for step in run["steps"]}


def test_the_agent_writes_its_report_and_every_call_is_made_once(clone: Clone) -> None:
    clone.run("agent")
    report = (clone.out("agent") / "report.md").read_text()
    assert report.startswith("# How was the longitude found at sea\n") and report.count("\n## ") == 4
    assert "The marine chronometer: Of all the instruments" in report and "scilly.txt" in report
    bill = Bill(clone.out("agent") / "ledger.jsonl")
    assert bill.tasks == ONE_RUN and len(bill.asked) == 20 and bill.paid_twice() == []
    assert f"{bill.tokens:,} of 200,000 tokens" in clone.agentrun("status", "agent")
    assert not psutil.pid_exists(bill.lines[0]["server"]), "the server that the run started ended with it"


def test_a_server_that_refuses_is_asked_again_within_the_attempt(clone: Clone) -> None:
    clone.run("agent", "-p", "model=fake-flaky")
    bill = Bill(clone.out("agent") / "ledger.jsonl")
    assert bill.tasks == ONE_RUN and bill.paid_twice() == []
    assert len(bill.asked) > 22
    assert set(attempts(record(clone)).values()) <= {0, 1}


def test_an_answer_of_no_use_is_paid_for_and_is_no_checkpoint(clone: Clone, model: Model) -> None:
    model.said = {1: "Gladly!", 3: '```json\n{"query": ["instruments"]}\n```'}
    clone.run("agent")
    bill, run = Bill(model.path), record(clone)
    assert bill.tasks == Counter(ONE_RUN) + Counter(["PLAN", "SEARCH"])
    assert sum(use["input_tokens"] + use["output_tokens"] for use in run["usage"]) == bill.tokens
    assert set(attempts(run).values()) <= {0, 1}


def test_a_draft_that_is_rejected_is_mended_by_hand_and_reviewed_again(clone: Clone) -> None:
    clone.run("agent", "-p", "model=fake-harsh", status=1)
    (draft,) = (clone.root / "state").glob("runs/*/scratch/draft.md")
    assert not (clone.out("agent") / "report.md").exists()
    with open(draft, "a") as file:
        file.write("Checked by a person.\n")
    clone.agentrun("resume", "agent")
    assert (clone.out("agent") / "report.md").read_text().endswith("Checked by a person.\n")
    assert Bill(clone.out("agent") / "ledger.jsonl").tasks == ONE_RUN | {"REVIEW": 2}


# ---- kills


def test_killed_in_the_loop_it_pays_for_nothing_twice(clone: Clone, model: Model) -> None:
    model.hold_from = 5  # the second call of the second round
    process = clone.start("run", "examples/agent/agent.yaml")
    assert model.held.wait(LIMIT)
    kill_everything(process)
    model.hold_from = 0
    clone.agentrun("resume", "agent")
    bill = Bill(model.path)
    assert bill.tasks == ONE_RUN and bill.paid_twice() == []
    held = next(line for line in bill.asked if line["call"] == 5)
    again = [line["call"] for line in bill.asked if line["prompt"] == held["prompt"]]
    assert (held["task"], again, len(bill.asked)) == ("JUDGE", [5, 6], 21)
    assert [name for name, count in attempts(record(clone)).items() if count > 1] == ["search[2]"]


def test_after_a_reboot_the_server_of_the_example_is_started_again(clone: Clone) -> None:
    text = clone.folder("agent") / "library" / "sextant.txt"
    kept = text.read_text()
    text.unlink()
    os.mkfifo(text)  # the first round reads it, between its two calls
    process = clone.start("run", "examples/agent/agent.yaml")
    ends: list[int] = []
    opening = threading.Thread(target=lambda: ends.append(os.open(text, os.O_WRONLY)), daemon=True)
    opening.start()  # it opens when somebody comes to read, who then waits for what is written
    opening.join(LIMIT)
    assert ends, "nobody came to read"
    kill_everything(process)
    os.close(ends[0])
    text.unlink()
    text.write_text(kept)
    bill = Bill(clone.out("agent") / "ledger.jsonl")
    assert bill.tasks == {"PLAN": 1, "SEARCH": 1} and not psutil.pid_exists(bill.lines[0]["server"])
    clone.agentrun("resume", "agent")
    bill = Bill(clone.out("agent") / "ledger.jsonl")
    assert bill.tasks == ONE_RUN and len(bill.asked) == 20
    assert len({line["server"] for line in bill.lines}) > 1


# ---- budgets


LOOP = """\
name: agent
budget: {{steps: {steps}}}
steps:
- id: search
  python: agent:search
  with: {{questions: ["Which nothing mattered?"], model: fake-restless}}
  repeat: {{until: 'test "$OUT_enough" = yes', max: 50}}
"""


def test_a_loop_never_makes_the_call_after_its_last(clone: Clone, model: Model) -> None:
    job = clone.folder("agent") / "loop.yaml"
    for steps, status, outcome, calls in ((20, 125, "over_budget", 20), (1000, 1, "failed", 50)):
        job.write_text(LOOP.format(steps=steps))
        command = ("resume", "agent", "--spec") if model.calls else ("run",)
        clone.agentrun(*command, str(job), status=status)
        assert record(clone)["outcome"] == outcome
        clone.agentrun("resume", "agent", status=status)
        assert Bill(model.path).tasks == {"SEARCH": calls} and model.calls == calls


def over_budget(clone: Clone, model: Model, tokens_each: int) -> Path:
    """The agent, with a budget of 20,000 tokens; what is asked when they are used up is not answered."""
    job = clone.folder("agent") / "agent.yaml"
    text = job.read_text()
    assert text.count("tokens: 200k") == 1
    job.write_text(text.replace("tokens: 200k", "tokens: 20k"))
    model.tokens_each = tokens_each
    model.hold_from = 20_000 // tokens_each + 2
    clone.run("agent", status=125)
    model.hold_from = 0
    return job


@pytest.mark.parametrize(("tokens_each", "task", "at_once"), [(3_500, "SEARCH", 1), (1_900, "SUMMARIZE", 4)])
def test_over_its_tokens_it_asks_nothing_more(
    clone: Clone, model: Model, tokens_each: int, task: str, at_once: int
) -> None:
    over_budget(clone, model, tokens_each)
    bill, run = Bill(model.path), record(clone)
    crossing = bill.answered[-1]
    assert crossing["task"] == task and crossing["tokens"] - tokens_each <= 20_000 < crossing["tokens"]
    late = [line for line in bill.asked if line["call"] > crossing["call"]]
    # asked before anybody could know: what the round does next, or other instances beside the one that crossed it
    assert len(late) <= at_once
    events = {event["kind"]: event for event in journal(clone)}
    assert events["run_closing"]["detail"]["outcome"] == run["outcome"] == "over_budget"
    assert all(line["at"] <= seconds(events["run_finished"]["time"]) for line in late)
    calls = {"plan": 1, "search": bill.tasks["SEARCH"] + bill.tasks["JUDGE"], "summarize": bill.tasks["SUMMARIZE"]}
    assert {use["step"]: (use["model"], use["calls"], use["input_tokens"]) for use in run["usage"]} == {
        step: ("fake", count, count * (tokens_each - 100)) for step, count in calls.items() if count
    }
    told = clone.agentrun("status", "agent")
    assert f"{bill.tokens:,} of 20,000 tokens" in told and re.search("search +fake", told)


def journal(clone: Clone) -> list[dict[str, Any]]:
    return [json.loads(line) for line in clone.agentrun("events", "agent", "--json").splitlines()]


def seconds(text: str) -> float:
    """A time of the record, in s since the epoch; up to the end of its millisecond."""
    return datetime.fromisoformat(text).timestamp() + 0.001


def test_with_a_larger_budget_it_goes_on(clone: Clone, model: Model) -> None:
    job = over_budget(clone, model, 3_500)
    before = len(Bill(model.path).asked)
    clone.agentrun("resume", "agent", status=125)
    assert len(Bill(model.path).asked) == before, "a budget counts across resumes"
    job.write_text(job.read_text().replace("tokens: 20k", "tokens: 200k"))
    clone.agentrun("resume", "agent", "--spec", str(job))
    bill = Bill(model.path)
    assert bill.tasks == ONE_RUN and bill.paid_twice() == []
    assert len(bill.asked) == before + 14 and record(clone)["outcome"] == "succeeded"  # 6 had an answer
