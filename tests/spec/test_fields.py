"""The table says what the model does: every key has its attribute, and the defaults in words are the real ones."""

from __future__ import annotations

import dataclasses

import pytest

from agentrun.model import Budget, Job, Param, Retry, Step
from agentrun.spec import fields
from agentrun.spec.decode import decode
from agentrun.spec.tables import Table

PAIRS = [
    (fields.JOB, Job), (fields.STEP, Step), (fields.RETRY, Retry), (fields.BUDGET, Budget), (fields.PARAM, Param),
]


@pytest.mark.parametrize(("table", "model"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_key_has_an_attribute(table: Table, model: type) -> None:
    attributes = {field.name for field in dataclasses.fields(model)}
    for field in table.fields.values():
        assert (field.attribute or field.name) in attributes | {"defaults"}


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


def test_examples_are_taken() -> None:
    for name in ("env", "retry", "timeout", "outputs", "when", "idempotency_key"):
        text = f"params: {{customer: {{}}}}\nsteps:\n- run: x\n  {name}: {fields.STEP.fields[name].example}\n"
        assert decode(text, "a.yaml").steps
