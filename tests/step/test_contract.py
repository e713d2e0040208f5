"""The contract with a step's process, held against what real shells do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.errors import JobFileError, NotFound
from agentrun.model import Job, PythonCode, Step
from agentrun.step import contract
from agentrun.store.folders import RunFolder

BASH = ("bash", "-eo", "pipefail")


def job(step: Step, **fields: object) -> Job:
    return Job(name="quotes", steps=(step,), **fields)  # type: ignore[arg-type]


def line(text: str, shell: tuple[str, ...] = ("/bin/sh", "-e"), env: dict[str, str] | None = None) -> list[str]:
    step = Step(id="a", index=0, run=text)
    return contract.command(job(step, shell=shell), step, "/jobs", "/call", env)[0]


# ---- command lines


@pytest.mark.parametrize(
    "text",
    [
        "./ask.sh",
        "make -j8 all",
        "  python3 report.py --out=out/a.csv user@host:/x 50%\n",
        "/usr/bin/true",
        "g++ -O2 a.cc",
        "7z x a.7z",
    ],
)
@pytest.mark.parametrize("shell", [("/bin/sh", "-e"), BASH])
def test_plain_command_needs_no_shell(text: str, shell: tuple[str, ...]) -> None:
    step = Step(id="a", index=0, run=text)
    argv, fallback = contract.command(job(step, shell=shell), step, "/jobs", "/call")
    assert argv == text.split()
    assert fallback == [*shell, "-c", text]


@pytest.mark.parametrize(
    "text",
    [
        "true", "echo x", "test -f x", "time make", "exit 3", "cd /srv", ". ./x", ": x", "env", "printenv PATH",
        "A=1 make", "make $X", "make `x`", "make *", "make ?", "make [a]", "make ~", "make {a,b}", "make 'x'",
        'make "x"', "make \\x", "make; ls", "make & ", "make | cat", "make > x", "make < x", "make 2>x", "make # x",
        "make !", "make ^x", "make (x)", "make\nls", "make \r", "make\fx", "make ünder", "", "   ", "# make",
        "if", "{", "!", "=x", "set -x",
    ],
)  # fmt: skip
def test_anything_a_shell_looks_at_goes_to_the_shell(text: str) -> None:
    for shell in (("/bin/sh", "-e"), BASH):
        step = Step(id="a", index=0, run=text)
        assert contract.command(job(step, shell=shell), step, "/jobs", "/call") == ([*shell, "-c", text], None)


def test_no_builtin_or_keyword_of_the_shells_here_counts_as_a_plain_command() -> None:
    words = subprocess.run(
        ["bash", "-c", "compgen -b; compgen -k"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [word for word in words if contract.is_plain(word)] == []


@pytest.mark.parametrize("text", ["ls no-such-file", "sh -c exit", "cat /dev/null", "expr 1 + 1", "tr a b"])
@pytest.mark.parametrize("shell", [("/bin/sh", "-e"), BASH])
def test_plain_command_does_what_the_shell_does(text: str, shell: tuple[str, ...]) -> None:
    step = Step(id="a", index=0, run=text)
    argv, fallback = contract.command(job(step, shell=shell), step, "/jobs", "/call")
    assert fallback is not None

    def ends(command: list[str]) -> tuple[int, bytes]:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.returncode, done.stdout

    assert ends(argv) == ends(fallback)


@pytest.mark.parametrize("name", ["BASH_ENV", "BASH_FUNC_make%%", "SHELLOPTS", "BASHOPTS"])
def test_what_changes_a_shell_at_its_start_keeps_the_shell(name: str) -> None:
    assert line("make", BASH, {"PATH": "/bin", name: "x"}) == [*BASH, "-c", "make"]
    assert line("make", BASH, {"PATH": "/bin"}) == ["make"]


def test_other_shells_always_get_the_text() -> None:
    assert line("make", ("/usr/bin/zsh", "-e")) == ["/usr/bin/zsh", "-e", "-c", "make"]
    assert line("make", ("/bin/sh",)) == ["/bin/sh", "-c", "make"]


def test_condition_runs_under_the_shell() -> None:
    step = Step(id="a", index=0, run="x", condition='test "$X" = 1')
    assert contract.condition(job(step), step) == (["/bin/sh", "-e", "-c", 'test "$X" = 1'], None)


@pytest.mark.parametrize(
    ("written", "used"),
    [
        (None, sys.executable),
        ("python3.12", "python3.12"),
        (".venv/bin/python", "/jobs/.venv/bin/python"),
        ("/opt/py/bin/python", "/opt/py/bin/python"),
        ("~/py", str(Path("~/py").expanduser())),
    ],
)
def test_python_step_runs_pystep_in_its_interpreter(written: str | None, used: str) -> None:
    step = Step(id="a", index=0, python=PythonCode(module="m", function="f"), interpreter=written)
    argv, fallback = contract.command(job(step), step, "/jobs", "/run/io/a#1.call")
    assert (argv[0], argv[2], fallback) == (used, "/run/io/a#1.call", None)
    assert Path(argv[1]).name == "pystep.py" and Path(argv[1]).is_file()


@pytest.mark.parametrize(
    ("written", "used"), [(None, "/jobs"), ("data", "/jobs/data"), ("../x", "/x"), ("/opt/q", "/opt/q")]
)
def test_working_folder(written: str | None, used: str) -> None:
    assert contract.working_folder(job(Step(id="a", index=0, run="x"), working_dir=written), "/jobs") == used


# ---- the environment


def given(**changed: object) -> dict[str, str]:
    step = Step(id="quote", index=0, run="x")
    arguments: dict[str, object] = {
        "job": job(step), "step": step, "instance": "quote", "attempt": 2, "run_id": "7f3a", "key": "k",
        "scheduled_time": "2026-11-20T10:00:00.000Z", "interrupted": False, "folder": RunFolder("/state", "7f3a"),
        "job_dir": "/state/jobs/quotes", "last_success": "",
    }  # fmt: skip
    return contract.environment(**(arguments | changed))  # type: ignore[arg-type]


def test_environment_is_the_documented_contract() -> None:
    env = given()
    trace = env.pop("TRACEPARENT")
    inside = Path(env.pop("PYTHONPATH"))
    assert [path.name for path in inside.iterdir() if path.name != "__pycache__"] == ["agentrun"]
    assert env.pop("AGENTRUN_PYTHON") == sys.executable
    assert env == {
        "AGENTRUN_RUN_ID": "7f3a",
        "AGENTRUN_JOB": "quotes",
        "AGENTRUN_STEP": "quote",
        "AGENTRUN_ATTEMPT": "2",
        "AGENTRUN_IDEMPOTENCY_KEY": "k",
        "AGENTRUN_SCHEDULED_TIME": "2026-11-20T10:00:00.000Z",
        "AGENTRUN_INTERRUPTED": "0",
        "AGENTRUN_OUTPUT": "/state/runs/7f3a/io/quote#2.out",
        "AGENTRUN_USAGE": "/state/runs/7f3a/io/quote#2.use",
        "AGENTRUN_CALLS": "/state/runs/7f3a/io/quote.calls",
        "AGENTRUN_RUN_DIR": "/state/runs/7f3a/scratch",
        "AGENTRUN_JOB_DIR": "/state/jobs/quotes",
        "AGENTRUN_LAST_SUCCESS": "",
    }
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)
    assert set(given(path="/bin")) - {"PATH", "PYTHONPATH"} <= contract.CONTRACT


def test_interrupted_and_the_working_folder() -> None:
    env = given(interrupted=True, working_folder="/opt/q")
    assert (env["AGENTRUN_INTERRUPTED"], env["PWD"]) == ("1", "/opt/q")


def test_the_python_path_of_a_step_is_kept_and_ours_is_in_front_of_it_once() -> None:
    ours = contract.with_inside("")
    assert contract.with_inside("/opt/lib:/x") == f"{ours}:/opt/lib:/x"
    assert contract.with_inside(f"{ours}:/opt/lib") == f"{ours}:/opt/lib", "in a run within a run"


def test_the_command_is_at_the_end_of_the_path_once() -> None:
    path = given(path="/usr/bin:/bin")["PATH"]
    ours = Path(path.removeprefix("/usr/bin:/bin:"))
    assert [one.name for one in ours.iterdir()] == ["agentrun"] and os.access(ours / "agentrun", os.X_OK)
    assert given(path=path)["PATH"] == path, "in a run within a run"


def test_an_item_is_text_as_it_is_or_json_and_left_out_where_it_is_too_long() -> None:
    assert contract.item_variable("a b") == {"AGENTRUN_ITEM": "a b"}
    assert contract.item_variable({"n": [1, None]}) == {"AGENTRUN_ITEM": '{"n":[1,null]}'}
    longest = "x" * (contract.LONGEST_VALUE - len("AGENTRUN_ITEM=") - 1)
    assert contract.item_variable(longest) == {"AGENTRUN_ITEM": longest}
    assert contract.item_variable(longest + "x") == contract.item_variable("a\0") == {}


def test_the_key_of_an_item_is_made_from_the_item_alone() -> None:
    assert contract.item_key("r", "s", {"a": 1, "b": 2}) == contract.item_key("r", "s", {"b": 2, "a": 1})
    keys = [contract.item_key(*parts) for parts in (("r", "s", 1), ("r", "s", "1"), ("r", "t", 1), ("q", "s", 1))]
    assert len(set(keys)) == 4


def test_one_trace_for_a_run_one_span_for_an_attempt() -> None:
    first, second, other = (
        given()["TRACEPARENT"].split("-"),
        given(attempt=3)["TRACEPARENT"].split("-"),
        given(run_id="7f3b")["TRACEPARENT"].split("-"),
    )
    assert first[1] == second[1] != other[1]
    assert len({first[2], second[2], other[2]}) == 3


def test_default_key_is_stable_and_not_ambiguous() -> None:
    assert contract.default_key("7f3a", "quote") == contract.default_key("7f3a", "quote")
    assert len(contract.default_key("7f3a", "quote")) == 32
    assert contract.default_key("7f3a", "quote") != contract.default_key("7f3aq", "uote")


FROZEN = {"PATH": "/opt/bin", "LANG": "C", "AGENTRUN_STEP": "outer", "TRACEPARENT": "x", "PWD": "/old", "_": "/x",
          "AGENTRUN_HOME": "/state"}  # fmt: skip


def test_base_environment_inherits_all_but_what_belongs_to_others() -> None:
    assert contract.base_environment(True, FROZEN) == {"PATH": "/opt/bin", "LANG": "C", "AGENTRUN_HOME": "/state"}


def test_base_environment_as_cron_gives_it() -> None:
    env = contract.base_environment(False, FROZEN)
    assert set(env) == {"HOME", "LOGNAME", "SHELL", "PATH"}
    assert (env["SHELL"], env["PATH"]) == ("/bin/sh", "/usr/bin:/bin")


def test_base_environment_of_names() -> None:
    env = contract.base_environment(("LANG", "PATH", "NOT_THERE", "AGENTRUN_STEP"), FROZEN)
    assert set(env) == {"HOME", "LOGNAME", "SHELL", "PATH", "LANG"}
    assert env["PATH"] == "/opt/bin"
    assert set(contract.base_environment((), FROZEN)) == {"HOME", "LOGNAME", "SHELL", "PATH"}


# ---- the call of a Python step


def test_call_file_is_private_and_complete(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "7f3a")
    folder.create()
    step = Step(id="a", index=0, python=PythonCode(module="m", function="f"))
    path = contract.write_call(
        step, args={"x": [1]}, folder=folder, instance="a", attempt=1, job_file="/j/q.yaml", job_folder="/j"
    )
    assert path == folder.call("a", 1)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert '"args": {"x": [1]}' in Path(path).read_text()


# ---- env_file


def env_file(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("# only a comment", {}),
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("\n  export A=1   # why\n\n", {"A": "1"}),
        ("A=\nB=''\nC= # nothing", {"A": "", "B": "", "C": ""}),
        ("A = 1", {"A": "1"}),
        ("A=a#b", {"A": "a#b"}),
        ("A='$x \\n # \" '  # why", {"A": '$x \\n # " '}),
        ('A="a\\nb \\"c\\" \\\\ \\$ \\d"', {"A": 'a\nb "c" \\ $ \\d'}),
        ('KEY="-----BEGIN\nabc\n-----END"\nB=1', {"KEY": "-----BEGIN\nabc\n-----END", "B": "1"}),
        ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("PATH=$HOME/bin", {"PATH": "$HOME/bin"}),
        ("A=x=y", {"A": "x=y"}),
        ("A=it's", {"A": "it's"}),
        ("\ufeffA=ü", {"A": "ü"}),
    ],
)
def test_env_file(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    assert contract.read_env_file(env_file(tmp_path, text)) == variables


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("A=1\nnonsense\nB=2\n2C=3\n", ["2:1", "4:1"]),
        ("A='x\nB=1", ["1:3"]),
        ("A=1\n  B=\"x\" y\n", ["2:8"]),
        ("A=a\0b", ["1:3"]),
        ("=1", ["1:1"]),
        (b"A=\xff", ["1:1"]),
    ],
)
def test_bad_env_file_names_every_line(tmp_path: Path, text: str | bytes, places: list[str]) -> None:
    path = env_file(tmp_path, text)
    with pytest.raises(JobFileError) as caught:
        contract.read_env_file(path)
    assert [f"{p.line}:{p.column}" for p in caught.value.problems] == places
    assert str(caught.value).startswith(f"{path}:{places[0]}: ")


def test_missing_env_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read the env_file"):
        contract.read_env_file(str(tmp_path / "none"))
