"""Python steps, run by the real runner in a real interpreter: what is called, what comes back, how it fails."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentrun.model import Job, PythonCode, Step
from agentrun.step import contract, outputs
from agentrun.store.folders import RunFolder


@dataclass
class Ran:
    status: int
    out: str
    err: str
    values: dict[str, Any]
    raised: outputs.Raised | None


class Place:
    """A job's folder and a run's folder, and one attempt after another in them."""

    def __init__(self, root: Path) -> None:
        self.jobs = root / "jobs"
        self.jobs.mkdir()
        self.folder = RunFolder(str(root / "state"), "7f3a")
        self.folder.create()
        self.attempt = 0

    def module(self, name: str, text: str) -> None:
        (self.jobs / f"{name}.py").write_text(textwrap.dedent(text))

    def run(
        self,
        code: PythonCode,
        args: dict[str, Any] | None = None,
        *,
        interpreter: str | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        self.attempt += 1
        step = Step(id="a", index=0, python=code, interpreter=interpreter)
        path = contract.write_call(
            step,
            args=args or {},
            folder=self.folder,
            instance="a",
            attempt=self.attempt,
            job_file=str(self.jobs / "job.yaml"),
            job_folder=str(self.jobs),
        )
        argv, _ = contract.command(Job(name="j", steps=(step,)), step, str(self.jobs), path)
        written = self.folder.output("a", self.attempt)
        done = subprocess.run(
            argv,
            cwd=cwd or self.jobs,
            env={"PATH": "/usr/bin:/bin", "AGENTRUN_OUTPUT": written, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        raised = outputs.read_exception(self.folder.exception("a", self.attempt))
        return Ran(done.returncode, done.stdout, done.stderr, outputs.read(written).values, raised)

    def call(self, name: str, args: dict[str, Any] | None = None, **more: Any) -> Ran:
        module, _, function = name.partition(":")
        return self.run(PythonCode(module=module, function=function), args, **more)

    def inline(self, source: str, args: dict[str, Any] | None = None, line: int = 1) -> Ran:
        return self.run(PythonCode(source=textwrap.dedent(source), line=line), args)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---- what is called


def test_function_of_a_module(place: Place) -> None:
    place.module("agent", "def think(topic, n=1):\n    print('thinking')\n    return {'topic': topic, 'n': n}\n")
    ran = place.call("agent:think", {"topic": "freight"})
    assert (ran.status, ran.out, ran.err) == (0, "thinking\n", "")
    assert ran.values == {"topic": "freight", "n": 1}


def test_async_function(place: Place) -> None:
    place.module("agent", "import asyncio\nasync def think():\n    await asyncio.sleep(0)\n    return [1]\n")
    assert place.call("agent:think").values == {"result": [1]}


def test_method_and_package(place: Place) -> None:
    (place.jobs / "pack").mkdir()
    (place.jobs / "pack" / "__init__.py").write_text("")
    (place.jobs / "pack" / "deep.py").write_text("class A:\n    @staticmethod\n    def f(x): return x\n")
    assert place.call("pack.deep:A.f", {"x": "y"}).values == {"result": "y"}


def test_inline_main_is_called_once_whatever_guard_it_has(place: Place) -> None:
    ran = place.inline(
        """
        from dataclasses import dataclass

        @dataclass
        class Rate:
            price: "float"

        def main(x):
            print("called")
            return {"price": Rate(x).price}

        if __name__ == "__main__":
            main(0)
        """,
        {"x": 2},
    )
    assert (ran.status, ran.out, ran.values) == (0, "called\n", {"price": 2})


def test_inline_async_main(place: Place) -> None:
    assert place.inline("async def main(): return 'x'").values == {"result": "x"}


def test_inline_script_is_main(place: Place) -> None:
    ran = place.inline(
        """
        import os, sys
        with open(os.environ["AGENTRUN_OUTPUT"], "a") as out:
            print(f"name={__name__}", file=out)
            print("same=" + str(sys.modules["__main__"].os is os), file=out)
        """
    )
    assert ran.values == {"name": "__main__", "same": "True"}


def test_code_may_write_outputs_and_return_some(place: Place) -> None:
    ran = place.inline(
        """
        import os
        def main():
            with open(os.environ["AGENTRUN_OUTPUT"], "a") as out:
                out.write("a=1\\nb=1\\n")
            return {"b": 2}
        """
    )
    assert ran.values == {"a": "1", "b": 2}


def test_working_folder_first_then_the_jobs_folder(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "both.py").write_text("def f(): return 'elsewhere'\n")
    place.module("both", "def f(): return 'jobs'\n")
    place.module("only", "def f(): return 'jobs'\n")
    assert place.call("both:f", cwd=elsewhere).values == {"result": "elsewhere"}
    assert place.call("only:f", cwd=elsewhere).values == {"result": "jobs"}


def test_our_own_folder_shadows_nothing(place: Place) -> None:
    place.module("outputs", "def f(): return 'mine'\n")
    assert place.call("outputs:f").values == {"result": "mine"}
    assert place.call("contract:f").raised is not None  # ours is not found
    ran = place.inline("import sys\ndef main(): return [p for p in sys.path if 'agentrun/step' in p]")
    assert ran.values == {"result": []}


def test_runner_is_fit_for_old_interpreters_and_imports_little(place: Place) -> None:
    ran = place.inline(
        """
        import sys
        def main():
            heavy = ["typing", "dataclasses", "inspect", "asyncio", "subprocess", "importlib.metadata", "ast"]
            return [name for name in heavy if name in sys.modules]
        """
    )
    assert set(ran.values["result"]) <= {"typing", "importlib.metadata"}  # site-packages' .pth files may
    import ast

    source = Path(contract._PYSTEP).read_text()
    ast.parse(source, feature_version=(3, 8))


def test_other_interpreter_without_agentrun(place: Place, tmp_path: Path) -> None:
    venv.create(tmp_path / "jobs" / ".venv", with_pip=False, symlinks=True)
    place.module("who", "import sys\ndef f(): return sys.prefix\n")
    ran = place.call("who:f", interpreter=".venv/bin/python")
    assert ran.values == {"result": str(place.jobs / ".venv")}, ran.err


def test_files_of_the_step_do_not_shadow_what_the_runner_needs(place: Place) -> None:
    for name in ("token", "tokenize", "traceback", "queue", "selectors"):
        place.module(name, "raise SystemError('shadowed')\n")
    ran = place.inline("async def main():\n    raise ValueError('mine')\n")
    assert ran.raised is not None and ran.raised.type == "ValueError", ran.err


# ---- what comes back


@pytest.mark.parametrize(
    ("returned", "values"),
    [
        ("None", {}), ("{}", {}), ("0", {"result": 0}), ("''", {"result": ""}), ("(1, 2)", {"result": [1, 2]}),
        ("{'a': {'b': [None, True, 'ü']}}", {"a": {"b": [None, True, "ü"]}}),
    ],
)  # fmt: skip
def test_return_value(place: Place, returned: str, values: dict[str, Any]) -> None:
    assert place.inline(f"def main(): return {returned}").values == values


@pytest.mark.parametrize(
    ("returned", "kind", "message"),
    [
        ("{'a': [1, object()]}", "TypeError", "`a[1]` is of type object"),
        ("{'a': {1, 2}}", "TypeError", "`a` is of type set"),
        ("object()", "TypeError", "`result` is of type object"),
        ("{1: 2}", "TypeError", "has the key 1"),
        ("{'a': {(1, 2): 3}}", "TypeError", "`a` has a key of type tuple"),
        ("{'a': float('nan')}", "TypeError", "`a` is nan, which is no JSON number"),
        ("'\\udcff'", "TypeError", "`result` has bytes that are no text"),
        ("(x := []).append(x) or x", "TypeError", "nested too deeply, or holds itself"),
        ("(i for i in ())", "TypeError", "of type generator"),
        ("'x' * 2_000_000", "ValueError", "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_an_output(place: Place, returned: str, kind: str, message: str) -> None:
    ran = place.inline(f"def main(): return {returned}")
    assert ran.status == 1 and ran.values == {} and ran.raised is not None
    assert ran.raised.type == kind
    assert message in ran.raised.message and message in ran.err
    assert "Traceback" not in ran.err


# ---- how it fails


def test_exception_is_recorded_with_all_its_names(place: Place) -> None:
    place.module(
        "agent",
        """
        class Overloaded(ConnectionError):
            pass

        def deeper():
            raise Overloaded("try later")

        def think():
            deeper()
        """,
    )
    ran = place.call("agent:think")
    assert ran.status == 1 and ran.raised is not None
    assert (ran.raised.type, ran.raised.message) == ("Overloaded", "try later")
    assert ran.raised.mro == (
        "Overloaded", "ConnectionError", "OSError", "Exception", "BaseException", "agent.Overloaded"
    )  # fmt: skip
    assert ran.raised.traceback == ran.err
    assert "pystep" not in ran.err
    assert ran.err.splitlines()[0] == "Traceback (most recent call last):"
    assert ran.err.splitlines()[-1] == "agent.Overloaded: try later"
    assert "in deeper" in ran.err and "in think" in ran.err


def test_inline_traceback_shows_the_line_of_the_job_file(place: Place) -> None:
    ran = place.inline("def main():\n    x = 1\n    raise ValueError(x)\n", line=14)
    assert f'File "{place.jobs}/job.yaml", line 16, in main\n    raise ValueError(x)' in ran.err


def test_inline_syntax_error_shows_the_line_of_the_job_file(place: Place) -> None:
    ran = place.inline("x = 1\ndef main(:\n", line=20)
    assert ran.status == 1 and ran.raised is not None and ran.raised.type == "SyntaxError"
    assert f'File "{place.jobs}/job.yaml", line 21\n    def main(:' in ran.err
    assert "pystep" not in ran.err


def test_async_traceback_begins_outside_the_runner(place: Place) -> None:
    ran = place.inline("async def main():\n    raise KeyError('x')\n")
    assert ran.raised is not None and ran.raised.mro[:2] == ("KeyError", "LookupError")
    assert "pystep" not in ran.err


def test_chained_exceptions_are_told(place: Place) -> None:
    ran = place.inline(
        "def main():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise OSError('x') from e\n"
    )
    assert "ZeroDivisionError" in ran.err and "direct cause" in ran.err


@pytest.mark.parametrize(
    ("name", "args", "kind", "message"),
    [
        ("nothing:f", {}, "ModuleNotFoundError", "there is no module 'nothing' in "),
        ("agent.sub:f", {}, "ModuleNotFoundError", "there is no module 'agent.sub' in "),
        ("agent:g", {}, "AttributeError", "has no 'g'"),
        ("agent:LIMIT", {}, "TypeError", "agent:LIMIT is no function but of type int"),
        ("agent:f", {}, "TypeError", "missing 1 required positional argument: 'x'; this step's `with` gives f nothing"),
        ("agent:f", {"x": 1, "z": 2}, "TypeError", "unexpected keyword argument 'z'; this step's `with` gives f x, z"),
    ],
)  # fmt: skip
def test_what_cannot_be_called(place: Place, name: str, args: dict[str, Any], kind: str, message: str) -> None:
    place.module("agent", "LIMIT = 3\ndef f(x): return x\n")
    ran = place.call(name, args)
    assert ran.status == 1 and ran.raised is not None
    assert ran.raised.type == kind
    assert message in ran.raised.message
    assert "pystep" not in ran.err


def test_failing_import_inside_the_module_is_told_as_it_is(place: Place) -> None:
    place.module("agent", "import not_installed\ndef f(): pass\n")
    ran = place.call("agent:f")
    assert ran.raised is not None and ran.raised.message == "No module named 'not_installed'"
    assert "agent.py" in ran.err and "importlib" not in ran.err and "pystep" not in ran.err


def test_type_error_inside_the_function_keeps_its_traceback(place: Place) -> None:
    ran = place.inline("def main(): return 1 + 'x'")
    assert "in main" in ran.err and "with" not in ran.err


def test_with_and_no_main(place: Place) -> None:
    ran = place.inline("print('x')", {"topic": 1, "n": 2})
    assert ran.status == 1 and ran.out == "" and ran.raised is not None
    assert "put the code into `def main(topic, n):`" in ran.raised.message


@pytest.mark.parametrize(("exit", "status"), [("sys.exit(75)", 75), ("sys.exit()", 0), ("sys.exit('no')", 1)])
def test_system_exit_keeps_its_status(place: Place, exit: str, status: int) -> None:
    ran = place.inline(f"import sys\ndef main(): {exit}")
    assert (ran.status, ran.raised) == (status, None)


def test_exceptions_that_are_hard_to_print(place: Place) -> None:
    ran = place.inline(
        """
        class Odd(Exception):
            def __str__(self): raise ValueError
        def main(): raise Odd
        """
    )
    assert ran.status == 1 and ran.raised is not None and (ran.raised.type, ran.raised.message) == ("Odd", "")
    ran = place.inline("def main(): raise OSError('\\udcff' + 'x' * 200_000)")
    assert ran.raised is not None and len(ran.raised.message) < 100_000
    ran.raised.message.encode()  # text, whatever the name of the file was


def test_base_exceptions_are_recorded_too(place: Place) -> None:
    ran = place.inline("import asyncio\nasync def main(): raise asyncio.CancelledError")
    assert ran.status == 1 and ran.raised is not None and ran.raised.type == "CancelledError"


def test_sigint_is_seen_as_a_signal(place: Place) -> None:
    # a shell that starts the tests in the background has them ignore it
    heed = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    ran = place.inline(heed + "def main(): os.kill(os.getpid(), signal.SIGINT)")
    assert ran.status == -signal.SIGINT and ran.raised is not None and ran.raised.type == "KeyboardInterrupt"


def test_lines_are_out_before_a_kill(place: Place) -> None:
    ran = place.inline("import os\ndef main():\n    print('said')\n    os.kill(os.getpid(), 9)")
    assert (ran.status, ran.out) == (-9, "said\n")


def test_the_call_file_says_everything(place: Place) -> None:
    place.module("agent", "def f(): pass\n")
    place.call("agent:f")
    call = json.loads(Path(place.folder.call("a", 1)).read_text())
    assert set(call) == {
        "module", "function", "source", "filename", "line", "args", "output", "exception", "job_folder"
    }  # fmt: skip
