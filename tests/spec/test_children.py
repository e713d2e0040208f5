"""Job files that name job files: what is wrong with them is told in the parent, with the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrun.model import Problem
from agentrun.spec.children import check_children, child_path
from agentrun.spec.decode import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def found(path: str) -> list[Problem]:
    job, text = load(path)
    return check_children(job, path, text)


def told(path: str) -> list[str]:
    return [f"{problem.line}:{problem.column}: {problem.message}" for problem in found(path)]


def naming(*children: str) -> str:
    return "steps:\n" + "".join(f"- job: {child}\n" for child in children)


PLAIN = "steps:\n- run: echo done\n"


def test_nothing_is_wrong(folder: Path) -> None:
    put(folder, {
        "a.yaml": naming("b.yaml", "sub/c.yaml", "./sub/../b.yaml", "~/d.yaml", str(folder / "b.yaml")),
        "b.yaml": PLAIN,
        "sub/c.yaml": naming("../b.yaml", "e.yaml"),
        "sub/e.yaml": PLAIN,
        "home/d.yaml": PLAIN,
        "plain.yaml": PLAIN,
    })  # fmt: skip
    assert found("a.yaml") == found("plain.yaml") == []
    assert found(str(folder / "a.yaml")) == []


def test_a_child_that_is_not_there(folder: Path) -> None:
    put(folder, {"a.yaml": "steps:\n- run: ./a\n- id: b\n  needs: []\n  job: b.yaml\n"})
    put(folder, {"c.yaml": naming(".", "a.yaml/x")})
    (problem,) = found("a.yaml")
    assert (problem.path, problem.line, problem.column) == ("a.yaml", 5, 8)
    assert (problem.message, problem.source) == ("there is no job file 'b.yaml'", "  job: b.yaml")
    assert problem.hint == f"looked for it at {folder}/b.yaml"
    assert told("c.yaml") == [
        "2:8: job '.' is wrong: .:1:1: the file cannot be read: Is a directory",
        "3:8: there is no job file 'a.yaml/x'",
    ]


def test_a_child_that_is_wrong_is_told_with_its_first_problem(folder: Path) -> None:
    put(folder, {"a.yaml": naming("sub/b.yaml"), "sub/b.yaml": "steps:\n- run: x\n  timout: 5m\n- {}\n"})
    first = "sub/b.yaml:3:3: unknown key 'timout' (did you mean 'timeout'?)"
    assert told("a.yaml") == [f"2:8: job 'sub/b.yaml' is wrong: {first}"]


def test_what_is_wrong_far_below_is_told_once_with_its_place(folder: Path) -> None:
    put(folder, {
        "a.yaml": naming("b.yaml", "b.yaml"), "b.yaml": naming("c.yaml"), "c.yaml": naming("d.yaml"),
        "d.yaml": "steps:\n- run: x\n- {job: gone.yaml}\n",
    })  # fmt: skip
    message = "job 'b.yaml' is wrong: d.yaml:3: there is no job file 'gone.yaml'"
    assert told("a.yaml") == [f"2:8: {message}", f"3:8: {message}"]


def test_a_job_cannot_run_itself(folder: Path) -> None:
    put(folder, {"a.yaml": naming("a.yaml"), "b.yaml": naming("./b.yaml", "gone.yaml")})
    assert told("a.yaml") == ["2:8: job 'a.yaml' leads back to a.yaml: a job cannot run itself"]
    assert told("b.yaml") == [
        "2:8: job './b.yaml' leads back to b.yaml: a job cannot run itself",
        "3:8: there is no job file 'gone.yaml'",
    ]


def test_nor_through_others_or_by_another_name(folder: Path) -> None:
    put(folder, {"a.yaml": naming("sub/b.yaml", "p.yaml"), "sub/b.yaml": naming("link/a.yaml"), "p.yaml": PLAIN})
    os.symlink("..", folder / "sub/link")
    assert told("a.yaml") == ["2:8: job 'sub/b.yaml' leads back to a.yaml: a job cannot run itself"]
    assert told("sub/b.yaml") == ["2:8: job 'link/a.yaml' leads back to b.yaml: a job cannot run itself"]


def test_a_circle_below_is_wrong_as_well(folder: Path) -> None:
    put(folder, {"a.yaml": naming("b.yaml"), "b.yaml": naming("c.yaml"), "c.yaml": naming("b.yaml")})
    assert told("a.yaml") == [
        "2:8: job 'b.yaml' is wrong: b.yaml:2: job 'c.yaml' leads back to b.yaml: a job cannot run itself"
    ]


def test_a_long_chain_is_followed_to_its_end(folder: Path) -> None:
    length = 1_500  # deeper than Python's stack
    put(folder, {f"{number}.yaml": naming(f"{number + 1}.yaml") for number in range(length)})
    put(folder, {f"{length}.yaml": PLAIN})
    assert found("0.yaml") == []
    put(folder, {f"{length}.yaml": naming("0.yaml")})
    assert told("0.yaml") == ["2:8: job '1.yaml' leads back to 0.yaml: a job cannot run itself"]


CHILD = "params: {customer: {}, limit: {default: 5}, note: {required: false}}\n" + PLAIN


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ("{customer: x}", []),
        ("{customer: ~, limit: 7, note: '${{ run.id }}'}", []),
        ("{customer: x, limt: 7}", ["3:23: job 'child.yaml' has no param 'limt' (did you mean 'limit'?)"]),
        ("{limit: 7}", ["2:8: job 'child.yaml' needs the param 'customer'"]),
        ("{frobnicate: 7, customer: x}", ["3:10: job 'child.yaml' has no param 'frobnicate'"]),
        (
            "{custommer: 7}",
            [
                "2:8: job 'child.yaml' needs the param 'customer'",
                "3:10: job 'child.yaml' has no param 'custommer' (did you mean 'customer'?)",
            ],
        ),
    ],
)
def test_what_with_gives(folder: Path, given: str, problems: list[str]) -> None:
    put(folder, {"a.yaml": f"steps:\n- job: child.yaml\n  with: {given}\n", "child.yaml": CHILD})
    assert told("a.yaml") == problems


def test_hints_say_what_there_is(folder: Path) -> None:
    put(folder, {
        "a.yaml": "steps:\n- {job: child.yaml, with: {other: 1}}\n- {job: plain.yaml, with: {other: 1}}\n",
        "child.yaml": CHILD,
        "plain.yaml": PLAIN,
    })  # fmt: skip
    assert [problem.hint for problem in found("a.yaml")] == [
        "as with: {customer: …}", "its params are customer, limit, note", "it has none",
    ]


def test_the_places_without_the_text_are_the_steps(folder: Path) -> None:
    put(folder, {"a.yaml": "steps:\n- run: x\n- run: y\n  needs: []\n- id: c\n  job: b.yaml\n"})
    job, _ = load("a.yaml")
    assert [(problem.line, problem.column) for problem in check_children(job, "a.yaml")] == [(5, 1)]


def test_aliases_have_places_too(folder: Path) -> None:
    put(folder, {"a.yaml": "env: {A: &file b.yaml}\nsteps:\n- job: *file\n"})
    assert told("a.yaml") == ["1:10: there is no job file 'b.yaml'"]


def test_many_wrong_children_are_as_many_as_a_report_holds(folder: Path) -> None:
    put(folder, {"a.yaml": naming(*(f"{number}.yaml" for number in range(2_000)))})
    assert len(found("a.yaml")) == 100


def test_child_path(folder: Path) -> None:
    assert child_path("jobs/a.yaml", "b.yaml") == f"{folder}/jobs/b.yaml"
    assert child_path("/x/a.yaml", "./sub/b.yaml") == "/x/sub/b.yaml"
    assert child_path("/x/a.yaml", "/y/b.yaml") == "/y/b.yaml"
    assert child_path("/x/a.yaml", "~/b.yaml") == f"{folder}/home/b.yaml"
    assert child_path("/x/a.yaml", "../b.yaml") == "/x/../b.yaml"  # as the kernel reads it, also through links


def test_decode_reads_no_other_file(folder: Path) -> None:
    put(folder, {"a.yaml": naming("gone.yaml")})
    assert load("a.yaml")[0].steps[0].job == "gone.yaml"
