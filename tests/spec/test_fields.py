"""The table says what the model does: every key has its attribute, and the defaults in words are the real ones."""

from __future__ import annotations

import dataclasses

import pytest

from agentrun.model import Budget, Job, Param, Repeat, Retry, Step
from agentrun.spec import fields
from agentrun.spec.decode import decode
from agentrun.spec.tables import Table

PAIRS = [
    (fields.JOB, Job), (fields.STEP, Step), (fields.RETRY, Retry), (fields.PARAM, Param), (fields.REPEAT, Repeat),
    (fields.BUDGET, Budget), (fields.STEP_BUDGET, Budget), (fields.DAILY, Budget),
]


@pytest.mark.parametrize(("table", "model"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_key_has_an_attribute(table: Table, model: type) -> None:
    attributes = {field.name for field in dataclasses.fields(model)}
    for field in table.fields.values():
        assert (field.attribute or field.name) in attributes | {"defaults", "daily"}


WRITTEN = {
    "step": ("when", "grace", "continue_on_error", "on_interrupt", "leave_running"),
    "retry": ("max_attempts", "interval", "backoff", "max_interval", "jitter"),
    "job": ("shell", "inherit_env", "max_resumes"),
}


def test_defaults_in_words_are_the_defaults() -> None:
    def lines(table: Table, names: tuple[str, ...], indent: str) -> str:
        return "".join(f"{indent}{name}: {table.fields[name].default}\n" for name in names)

    plain = "steps:\n- run: x\n"
    said = lines(fields.JOB, WRITTEN["job"], "") + plain + lines(fields.STEP, WRITTEN["step"], "  ")
    said += "  retry:\n" + lines(fields.RETRY, WRITTEN["retry"], "    ")
    spoken, silent = decode(said, "a.yaml"), decode(plain, "a.yaml")
    assert dataclasses.replace(spoken, steps=()) == dataclasses.replace(silent, steps=())
    assert dataclasses.replace(spoken.steps[0], line=2) == silent.steps[0]


def test_fail_fast_is_off() -> None:
    said = fields.STEP.fields["fail_fast"].default
    plain = "steps:\n- run: x\n  foreach: [a, b]\n"
    assert decode(f"{plain}  fail_fast: {said}\n", "a.yaml") == decode(plain, "a.yaml")


@pytest.mark.parametrize("name", ["env", "retry", "timeout", "outputs", "when", "idempotency_key", "repeat", "budget"])
def test_examples_are_taken(name: str) -> None:
    text = f"params: {{customer: {{}}}}\nsteps:\n- run: x\n  {name}: {fields.STEP.fields[name].example}\n"
    assert decode(text, "a.yaml").steps


def test_every_kind_of_budget_has_its_examples_taken() -> None:
    def written(table: Table) -> str:
        keys = [field for field in table.fields.values() if field.name != "daily"]
        return ", ".join(f"{field.name}: {field.example}" for field in keys)

    text = f"budget: {{{written(fields.BUDGET)}, daily: {{{written(fields.DAILY)}}}}}\n"
    text += f"steps: [{{run: x, budget: {{{written(fields.STEP_BUDGET)}}}}}]\n"
    job = decode(text, "a.yaml")
    assert job.budget == Budget(60, 200_000, 2_500_000_000, 600_000, 2**31, 200 * 2**20, 500)
    assert job.daily == Budget(1_000, 2_000_000, 20 * 10**9, 7_200_000, None, 2**30, None)
    assert job.steps[0].budget == Budget(None, 20_000, 500_000_000, 600_000, 2**29, 10 * 2**20, 100)
