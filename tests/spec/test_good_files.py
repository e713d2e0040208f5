"""Good files, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agentrun.errors import JobFileError, NotFound
from agentrun.model import Budget, Param, PythonCode, Repeat, Retry
from agentrun.spec.decode import decode, load
from agentrun.spec.document import FASTEST, MAX_TEXT, read
from agentrun.spec.report import Report

GOOD = Path(__file__).parent / "good"


@pytest.mark.parametrize("path", sorted(GOOD.glob("*.yaml")), ids=lambda path: path.stem)
def test_loads(path: Path) -> None:
    job, text = load(str(path))
    assert job == decode(text, str(path))
    assert [step.index for step in job.steps] == list(range(len(job.steps)))


def test_smallest() -> None:
    job, text = load(str(GOOD / "smallest.yaml"))
    assert text == "steps:\n- run: echo done\n"
    assert (job.name, job.shell, job.inherit_env, job.working_dir) == ("smallest", ("/bin/sh", "-e"), True, None)
    step = job.step("step-1")
    assert (step.run, step.needs, step.line, step.retry, step.timeout) == ("echo done", (), 2, Retry(), None)


def test_everything_of_the_job() -> None:
    job, _ = load(str(GOOD / "everything.yaml"))
    assert job.params == {
        "customer": Param("all", False, "Whom to ask for"), "day": Param(None, True), "limit": Param(None, False),
    }
    assert job.env["HOME_OF"] == "${{ env.HOME }}"
    assert job.env["EMPTY"] == ""
    assert job.shell == ("bash", "-eo", "pipefail")
    assert (job.deadline, job.max_parallel, job.max_resumes) == (1_200_000, 4, 0)
    assert (job.inherit_env, job.budget) == (("PATH", "HOME"), Budget(2_000))


def test_everything_of_the_steps() -> None:
    job, _ = load(str(GOOD / "everything.yaml"))
    ids = ["rates", "price-each-quote", "local", "send", "page", "step-6"]
    assert [step.id for step in job.steps] == ids
    assert [step.needs for step in job.steps] == [
        (), ("rates",), (), ("price-each-quote", "local"), tuple(ids[:4]), ("send",),
    ]
    rates, price, local, send, *_ = job.steps
    causes = ("timeout", "SIGSEGV", "75", "100-110", "OSError")
    assert rates.retry == Retry(3, 500, 1.5, 5_400_000, "none", causes, ("65",))
    assert (rates.timeout, rates.grace, rates.interpreter, rates.on_interrupt) == (300_000, 0, None, "fail")
    assert price.python == PythonCode(module="pricing", function="price_all")
    assert price.retry == send.retry == Retry(3, 2_000, never_on=("65",))
    assert price.args["options"] == {
        "fast": True, "version": "1.10", "depth": 3, "share": 0.5, "mode": "0755", "none": None,
    }
    assert (price.interpreter, local.interpreter) == ("python3", ".venv/bin/python")
    assert local.python == PythonCode(source='def main():\n    return {"n": 1}\n', line=39)
    assert (local.condition, local.timeout, local.on_interrupt) == ('test -n "$CUSTOMER"', 7_200_000, "skip")
    assert send.env == {"OUTCOME": "${{ steps.rates.outcome }}", "N": "5"}


def test_what_is_stuck_is_a_matter_of_defaults_too() -> None:
    steps = decode(
        "defaults: {stuck_after: 30m, on_stuck: kill}\n"
        "steps:\n- run: a\n- run: b\n  stuck_after: 1s\n- run: c\n  on_stuck: report\n- job: d.yaml\n",
        "x.yaml",
    ).steps
    assert [(step.stuck_after, step.on_stuck) for step in steps] == [
        (1_800_000, "kill"), (1_000, "kill"), (1_800_000, "report"), (None, "report"),
    ]
    (step,) = decode("defaults: {on_stuck: kill}\nsteps:\n- run: a\n  stuck_after: 90s\n", "x.yaml").steps
    assert (step.stuck_after, step.on_stuck) == (90_000, "kill")


def test_scalars_stay_what_they_are() -> None:
    job, _ = load(str(GOOD / "scalars.yaml"))
    assert (job.name, job.description) == ("2024.10", "on")
    assert list(job.env.values()) == ["on", "no", "0755", "1:30", "1.10", "0x1F", "1e3", "true", "null", "2024-01-02"]
    assert [(step.id, step.run) for step in job.steps] == [("on", "true"), ("no", "false")]


def test_aliases_are_what_they_name() -> None:
    first, second = load(str(GOOD / "aliases.yaml"))[0].steps
    assert (first.run, first.env, first.retry) == (second.run, second.env, second.retry)


def test_byte_order_mark_and_line_ends_of_windows() -> None:
    job, text = load(str(GOOD / "windows.yaml"))
    assert job.name == "windows"
    assert not text.startswith("\ufeff")
    assert job.steps[0].run == "echo one\necho two\n"


def test_ten_thousand_steps() -> None:
    job = decode("steps:\n" + "- {run: 'true'}\n" * 10_000, "many.yaml")
    assert len(job.steps) == 10_000
    assert job.steps[-1].needs == ("step-9999",)


def test_far_back_references_in_a_long_chain() -> None:
    later = "".join(f'- {{run: x, env: {{A: "${{{{ steps.step-{n}.outcome }}}}"}}}}\n' for n in range(1, 2_000))
    assert len(decode("steps:\n- {run: x}\n- {run: y}\n" + later, "chain.yaml").steps) == 2_001


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no job file"):
        load(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: a\ndescription: caf\xe9\n", "2:17: not UTF-8: byte 0xe9"),
        (b"#" * (MAX_TEXT + 1), "1:1: the file is larger than 4 MiB"),
        (b"name: \xff\xfe", "1:7: not UTF-8: byte 0xff"),
        (b"[" * 100_000, "1:33: nested more than 32 levels deep"),
        (b"- " * 100_000, "1:65: nested more than 32 levels deep"),
        (b"[" + b"1," * 600_000 + b"]", "1:1000000: more than 500000 values"),
    ],
    ids=["latin-1", "too-large", "utf-16", "brackets", "dashes", "values"],
)
def test_bytes_that_are_no_job_file(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    with pytest.raises(JobFileError) as caught:
        load(str(file))
    assert str(caught.value) == f"{file}:{problem}"


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"1:1: the file cannot be read: Is a directory"):
        load(str(tmp_path))


def test_a_hundred_problems_are_enough() -> None:
    with pytest.raises(JobFileError) as caught:
        decode("steps:\n" + "- {runs: x}\n" * 5_000, "wrong.yaml")
    assert len(caught.value.problems) == 100


def test_too_many_steps() -> None:
    with pytest.raises(JobFileError, match="20002:3: more than 20000 steps"):
        decode("steps:\n" + "- {run: x}\n" * 20_001, "many.yaml")


def test_too_many_handlers() -> None:
    with pytest.raises(JobFileError, match="the steps need each other in more than 1000000 ways"):
        decode("steps:\n" + "- {run: x, when: always}\n" * 2_000, "handlers.yaml")


def test_instances_rounds_and_children() -> None:
    job, _ = load(str(GOOD / "instances.yaml"))
    quote, topic, region, think, polish, settle, none = job.steps[1:]
    assert quote.foreach == "${{ steps.list.outputs.customers }}"
    assert (quote.max_parallel, quote.fail_fast, topic.max_parallel, region.fail_fast) == (8, False, None, True)
    assert (topic.foreach, none.foreach, think.foreach) == ("${{ params.topics }}", [], None)
    assert region.foreach[3:] == [
        "${{ params.model }}", "${{ params.model }}", 1, "1", 1.0, True, "2026-01-02", ".nan", None, [],
    ]
    assert region.args == {"region": "${{ item }}", "codes": ["${{ item }}", "x"]}
    assert (region.job, settle.job, region.run, region.python) == (
        "children/region.yaml", "~/jobs/settle.yaml", None, None,
    )
    assert think.repeat == Repeat('test "$OUT_done" = yes', 50, 10_000)
    assert (polish.repeat, settle.repeat) == (Repeat("true", 1), Repeat('test "$OUT_open" = 0\n', 3))
    assert think.retry.on == ("budget", "usage", "oom", "75")
    assert [step.has_instances for step in job.steps] == [False] + [True] * 7
    assert job.params["topics"].default == ["ships", ["rates", "1.10"], None]


def test_budgets() -> None:
    job, _ = load(str(GOOD / "instances.yaml"))
    assert job.budget == Budget(200, 2_000_000, 12_500_000_000, 3_600_000, 2**31, 200 * 10**6, 300)
    assert job.daily == Budget(1_000, 5_000_000, 20 * 10**9, 86_400_000, None, 2**40, None)
    listed, quote, *_, polish, _, _ = job.steps
    assert listed.budget == Budget(cpu=90_000, memory=2**29)
    assert quote.budget == Budget(tokens=20_000, cost=1, output=10 * 2**20, processes=100)  # whole, not merged
    assert polish.budget == Budget()


def test_a_job_of_many_items() -> None:
    items = "".join(f"  - {{id: {number}, name: n{number}}}\n" for number in range(10_000))
    key = '  idempotency_key: "${{ item.id }}"\n'
    job = decode("steps:\n- run: x\n" + key + "  foreach:\n" + items, "many.yaml")
    assert len(job.steps[0].foreach) == 10_000


def test_half_a_character_is_no_text() -> None:
    """libyaml refuses it by itself; the Python parser does not."""
    for parser in (FASTEST, yaml.Loader):
        with pytest.raises(JobFileError, match=r"1:8: half of a character|1:11: not YAML.*escape code"):
            read(Report("x", 'name: ["\\ud800"]'), parser)
