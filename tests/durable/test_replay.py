"""Calls that are done are not done again: kill -9, failures, results, arguments, keys, retries."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .rig import INSIDE, Ran, Step


def pythons() -> list[str]:
    """Every other Python of 3.8 or newer that is there."""
    names = {f"python3.{minor}" for minor in range(8, 20)}
    found = {os.path.realpath(path) for name in names if (path := shutil.which(name))}
    folder = Path.home() / ".pyenv" / "versions"
    for path in folder.glob("3.*/bin/python3"):
        if int(path.parts[-3].split(".")[1]) >= 8:
            found.add(os.path.realpath(path))
    return sorted(path for path in found if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0)


def twice(place: Step, text: str) -> tuple[Ran, Ran]:
    argv = place.script(text)
    return place.run(argv), place.run(argv)


def test_killed_in_the_middle_of_a_call_it_goes_on_there(place: Step) -> None:
    fifo = place.path / "fifo"
    os.mkfifo(fifo)
    argv = place.script(
        """
        @step
        def ask(n):
            did(n)
            if n == 87 and os.environ["AGENTRUN_ATTEMPT"] == "1":
                open("fifo", "w").close()  # until the test opens it too
                open("fifo").read()
            return n * n
        print(sum(ask(n) for n in range(100)))
        """
    )
    process = place.start(argv)
    with open(fifo):
        process.send_signal(signal.SIGKILL)
        first = place.end(process)
    assert first.status == -signal.SIGKILL
    assert first.effects == [str(n) for n in range(88)]
    second = place.run(argv)
    assert (second.status, second.out, second.err) == (0, "328350\n", "")
    assert second.effects == [str(n) for n in range(87, 100)]
    assert place.run(argv).effects == []


@pytest.mark.parametrize("python", pythons())
def test_in_every_interpreter(place: Step, python: str) -> None:
    place.python = python
    argv = place.script(
        """
        import asyncio
        @step(retry={"max_attempts": 2, "interval": 0})
        def ask(n, *, deep=None):
            did(n)
            return {"n": n, "inner": inner(n)}
        @step
        def inner(n): return (n, None, "ü")
        @step
        async def later(n, /, *more, **named):
            did("later")
            await asyncio.sleep(0)
            return [n, more, named]
        print(ask(1), ask(n=1, deep={"b": 1, "a": 2}), asyncio.run(later(1, 2, n=3)))
        output(done=True)
        usage(1, 2, "m", 0.5)
        if os.environ["AGENTRUN_ATTEMPT"] == "1": sys.exit(3)
        """
    )
    first, second = place.run(argv), place.run(argv)
    assert (first.status, first.err, first.effects) == (3, "", ["1", "1", "later"])
    assert (second.status, second.err, second.out, second.effects) == (0, "", first.out, [])


def test_outside_a_run_it_is_the_function(place: Step) -> None:
    argv = place.script(
        """
        @step(retry=3, key="k")
        def f(x):
            "Doc."
            did(x)
            return (1, {2: x})
        print(f({1}), f.__name__, f.__doc__, f.__wrapped__ is not f)
        output(a=1); usage(1)
        try: usage(-1)
        except ValueError: print("refused")
        """
    )
    ran = place.run(argv, AGENTRUN_CALLS="", AGENTRUN_OUTPUT="", AGENTRUN_USAGE="")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "(1, {2: {1}}) f Doc. True\nrefused\n"
    assert sorted(path.name for path in place.path.iterdir()) == ["agent.py", "effects"]


def test_first_run_and_replay_cannot_differ(place: Step) -> None:
    first, second = twice(place, """
        import collections, enum
        class Colour(str, enum.Enum): RED = "red"
        Point = collections.namedtuple("Point", "x y")
        @step
        def f():
            did(1)
            return {"t": (1, 2), "p": Point(1, 2.5), "c": Colour.RED, "s": "\\udc80ü",
                    "d": collections.OrderedDict(z=1, a=2)}
        value = f()
        print(ascii(value), type(value["c"]).__name__, f() is value)
        value["t"].append(3)
        """)  # fmt: skip
    assert (first.err, second.err) == ("", "")
    assert first.out == second.out
    assert "'t': [1, 2], 'p': [1, 2.5], 'c': 'red', 's': '\\udc80\\xfc', 'd': {'z': 1, 'a': 2}" in first.out
    assert (first.effects, second.effects) == (["1", "1"], [])


@pytest.mark.parametrize(
    ("result", "wrong"),
    [
        ("{'a': [1, {'b': {2}}]}", "`a[1].b` is of type set"),
        ("[float('nan')]", "`[0]` is nan, which is no JSON number"),
        ("{1: 2}", "it has the key 1 of type int"),
        ("object()", "it is of type object"),
        ("(lambda l: l.append(l) or l)([])", "nested too deeply, or holds itself"),
    ],
)
def test_a_result_that_is_not_json(place: Step, result: str, wrong: str) -> None:
    first, second = twice(place, f"@step\ndef f():\n    did(1)\n    return {result}\nf()\n")
    for ran in (first, second):
        assert (ran.status, ran.effects) == (1, ["1"])
        last = ran.err.splitlines()[-1]
        assert last.startswith("TypeError: the result of __main__.f is not JSON: ") and wrong in last
        assert last.endswith("return text, numbers, None, lists and dicts of them")
    assert [line["error"].split(":")[0] for line in place.lines() if "call" in line] == ["TypeError"] * 2


def test_arguments_that_are_not_json_need_a_key(place: Step) -> None:
    text = "class C: name = 'c'\n@step(%s)\ndef f(c, n):\n    did(n)\n    return n\nprint(f(C(), 1), f(C(), n=2))\n"
    ran = place.run(place.script(text % ""))
    assert ran.status == 1 and ran.effects == []
    assert "TypeError: the arguments of __main__.f are not JSON: `c` is of type C; give @step(key=...)" in ran.err
    argv = place.script(text % "key=lambda c, n: c.name + str(n)")
    assert place.run(argv).out == "1 2\n"
    again = place.run(argv)
    assert (again.out, again.effects) == ("1 2\n", [])
    assert [line["key"] for line in place.lines() if "call" in line] == ["c1", "c2"]
    ran = place.run(place.script(text % "key=lambda c, n: n"))
    assert "known by must be a text; key= gave 1" in ran.err


def test_what_is_one_call(place: Step) -> None:
    first, second = twice(place, """
        late = os.environ["AGENTRUN_ATTEMPT"] == "2"
        @step
        def f(x, y=0, *rest, z=None, **more):
            did(x)
            return [x, y, rest, z, more]
        class Agent:
            @step
            def ask(self, x): did(x); return x
            @staticmethod
            @step
            def fixed(x): did(x); return x
        if late: print(f(y=2, x=1), f(3, z={"a": 1, "b": 2}), f(1, 2, 3, rest=4), Agent().ask(x=5), Agent().fixed(6))
        else: print(f(1, 2), f(x=3, z={"b": 2, "a": 1}), f(1, 2, 3, rest=4), Agent().ask(5), Agent.fixed(6))
        """)  # fmt: skip
    assert first.err == second.err == ""
    assert first.out == second.out
    assert (first.effects, second.effects) == (["1", "3", "1", "5", "6"], [])


def test_what_does_not_fit_is_refused_by_the_function_itself(place: Step) -> None:
    ran = place.run(place.script("@step\ndef f(x): pass\nf(1, x=2)\n"))
    assert "f() got multiple values for argument 'x'" in ran.err


def test_a_call_that_raised_is_made_again(place: Step) -> None:
    first, second = twice(place, """
        @step
        def f(n):
            did(n)
            if n == 2 and os.environ["AGENTRUN_ATTEMPT"] == "1": raise LookupError("no rate")
            return n
        for n in range(4): f(n)
        """)  # fmt: skip
    assert first.err.endswith("LookupError: no rate\n") and first.effects == ["0", "1", "2"]
    assert (second.status, second.effects) == (0, ["2", "3"])
    assert [line["error"] for line in place.lines() if "error" in line] == ["LookupError: no rate"]


def test_calls_inside_a_call_that_failed_are_given_back_to_it(place: Step) -> None:
    first, second = twice(place, """
        tries = []
        @step
        def inner(n): did(f"inner {n}"); return n
        @step(retry={"max_attempts": 2, "interval": 0})
        def outer():
            did("outer")
            found = inner(1), inner(1), inner(2)
            tries.append(1)
            if len(tries) < 2 or os.environ["AGENTRUN_ATTEMPT"] == "1": raise OSError("flaky")
            return found
        inner(1)
        print(outer())
        """)  # fmt: skip
    assert first.status == 1
    assert first.effects == ["inner 1", "outer", "inner 1", "inner 1", "inner 2", "outer"]
    assert (second.out, second.effects) == ("[1, 1, 2]\n", ["outer", "outer"])


def test_retry_in_the_process(place: Step) -> None:
    ran = place.run(place.script("""
        import asyncio, time
        pauses = []
        time.sleep = pauses.append
        @step(retry={"max_attempts": 4, "interval": 0.5, "backoff": 4, "max_interval": 3, "on": (OSError,)})
        def f(kind):
            did(kind)
            raise {"os": OSError, "value": ValueError}[kind]("no")
        @step(retry={"max_attempts": 3, "interval": 0})
        async def g():
            did("g")
            if len(open(os.environ["EFFECTS"]).readlines()) < 7: raise KeyError("again")
            return 1
        for kind in ("os", "value"):
            try: f(kind)
            except (OSError, ValueError) as error: print(type(error).__name__, pauses)
        print(asyncio.run(g()))
        """))  # fmt: skip
    assert (ran.out, ran.err) == ("OSError [0.5, 2.0, 3.0]\nValueError [0.5, 2.0, 3.0]\n1\n", "")
    assert ran.effects == ["os"] * 4 + ["value"] + ["g"] * 2


@pytest.mark.parametrize(
    ("decorator", "wrong"),
    [
        ("step(retry=0)", "ValueError: @step(retry=...) counts the first attempt too: 1 or more, not 0"),
        ("step(retry=True)", "1 or more, not True"),
        ("step(retry='3')", "TypeError: @step(retry=...) is a number of attempts or a dict of"),
        ("step(retry={'max_attempt': 3})", "there is no 'max_attempt', but max_attempts"),
        ("step(retry={'interval': -1})", "interval is a number, 0 or more, not -1"),
        ("step(retry={'backoff': float('nan')})", "backoff is a number, 1 or more, not nan"),
        ("step(retry={'on': 'OSError'})", "on holds exception classes, not 'OSError'"),
        ("step(key=3)", "@step(key=...) is a text or a function that gives one, not 3"),
        ("step(3)", "@step is for functions, not 3; options have names: @step(retry=3)"),
        ("(lambda f: step(staticmethod(f)))", "@step stands below @staticmethod"),
    ],
)
def test_mistakes_are_told_when_decorating(place: Step, decorator: str, wrong: str) -> None:
    ran = place.run(place.script(f"decorate = {decorator}\n@decorate\ndef f(): pass\n"), AGENTRUN_CALLS="")
    assert ran.status == 1 and wrong in ran.err


def test_a_function_that_yields_is_refused(place: Step) -> None:
    ran = place.run(place.script("@step\ndef f(): yield 1\n"))
    assert "@step: __main__.f yields, and a checkpoint is one result: return a list" in ran.err


def test_a_torn_line_is_closed_off_and_never_believed(place: Step) -> None:
    argv = place.script("@step\ndef f(n): did(n); return n\nprint(f(1), f(2), f(3))\n")
    place.run(argv)
    whole = b"".join(place.calls.read_bytes().splitlines(True)[:-1])  # the last says that it ended
    place.calls.write_bytes(whole[:-1])  # all of the line, but not its end: nobody was told that it is there
    assert place.run(argv).effects == ["3"]
    assert place.run(argv).effects == []
    assert b'"stream":0,"attempt":1} (torn)\n{' in place.calls.read_bytes()
    place.calls.write_bytes(whole[:-30] + b"\0\xff\n[]\n{}\n7\nnull\n" + whole[-30:])
    assert place.run(argv).effects == ["3"]


def test_the_journal_is_the_owners_alone(place: Step) -> None:
    place.run(place.script("@step\ndef f(): pass\nf()\n"))
    assert place.calls.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_an_error_before_and_after_the_call(place: Step) -> None:
    place.calls.symlink_to("/dev/full")
    ran = place.run(place.script("@step\ndef f(): did(1)\nf()\n"))
    assert "OSError: [Errno 28] the journal of this step's calls cannot be written (No space left" in ran.err
    assert (ran.status, ran.effects) == (1, [])
    place.calls.unlink()
    argv = place.script("""
        import resource
        late = os.environ["AGENTRUN_ATTEMPT"] != "2"
        @step
        def f(n):
            did(n)
            return "x" * 5000
        f(1)
        if not late:
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            size = os.stat(os.environ["AGENTRUN_CALLS"]).st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        print(len(f(2)), len(f(3)))
        """)  # fmt: skip
    ran = place.run(argv)
    assert (ran.status, ran.effects) == (1, ["1", "2"])
    assert "OSError: [Errno 28] __main__.f was called, and its result could not be recorded" in ran.err
    ran = place.run(argv)  # what was torn off is not believed, and in nobody's way
    assert (ran.status, ran.out, ran.effects) == (0, "5000 5000\n", ["2", "3"])


def test_an_inline_program_and_the_temporary_folder_are_known_again(place: Step) -> None:
    text = "from agentrun.durable import step\n@step\ndef f(n): print('did', n); return n\nf(%d)\n"
    place.python = "/bin/sh"
    lines = f"{os.path.realpath('/proc/self/exe')} -c \"$1\" $TMPDIR/x; {os.path.realpath('/proc/self/exe')} -c \"$2\""
    argv = ["/bin/sh", "-c", lines, "sh", text % 1, text % 2]
    assert place.run(argv).out == "did 1\ndid 2\n"
    assert place.run(argv).out == ""


def test_the_folder_stands_for_the_whole_package(place: Step) -> None:
    env = {"PYTHONPATH": str(INSIDE), "PATH": os.environ["PATH"], "AGENTRUN_HOME": str(place.path)}
    argv = [place.python, "-m", "agentrun", "--version"]
    told = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, cwd=place.path).stdout
    check = "import agentrun, agentrun.model; print(agentrun.__version__, agentrun.__doc__)"
    asked = subprocess.run(
        [place.python, "-c", check], env=env, capture_output=True, text=True, check=True, cwd=place.path
    ).stdout
    assert asked.split()[0] in told and asked.split()[1] == "Durable"


def test_what_is_imported_outside_a_run(place: Step) -> None:
    """Nothing that takes time: not even json."""
    check = "import sys, __future__; old = {*sys.modules}; import agentrun.durable; print(sorted({*sys.modules} - old))"
    argv = [place.python, "-c", check]
    done = subprocess.run(argv, env={"PYTHONPATH": str(INSIDE)}, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["agentrun", "agentrun.durable"]


def test_the_journal_says_what_was_called(place: Step) -> None:
    place.run(place.script("@step\ndef f(x): return {'x': x}\nf('ü')\n"))
    begin, line, ended = place.lines()
    assert (begin["argv"], begin["nth"], begin["attempt"], begin["stream"]) == (["agent.py"], 0, 1, 0)
    assert line["call"] == "__main__.f"
    assert ended == {"ended": True, "stream": 0, "attempt": 1}
    assert json.loads(line["args"]) == json.loads(line["result"]) == {"x": "ü"}


def test_what_is_too_large_is_refused_where_it_is_called(place: Step) -> None:
    ran = place.run(place.script("""
        @step
        def f(x): return x
        @step
        def g(): return "x" * (1 << 20)
        @step(key="k")
        def h(x): return len(x)
        for call in (lambda: f("x" * (1 << 20)), g, lambda: h("x" * (1 << 20))):
            try: print(call())
            except ValueError as error: print(error)
        """))  # fmt: skip
    first, second, third = ran.out.splitlines()
    assert first.startswith("what __main__.f is called with has 1,048,584 bytes as JSON, and 1 MiB is the most")
    assert second.startswith("the result of __main__.g has 1,048,578 bytes as JSON") and "AGENTRUN_RUN_DIR" in second
    assert (third, ran.err) == ("1048576", "")


def test_a_line_that_is_too_long_is_passed_over(place: Step) -> None:
    argv = place.script("@step\ndef f(n): did(n); return n\nf(1)\nf(2)\n")
    place.run(argv)
    whole = place.calls.read_bytes().splitlines(True)
    place.calls.write_bytes(b"".join(whole[:2]) + b"[" * (20 << 20) + b"\n" + b"".join(whole[2:]))
    ran = place.run(argv)
    assert (ran.status, ran.effects) == (0, [])


def test_a_condition_asks_anew_and_leaves_nothing_to_the_attempts(place: Step) -> None:
    argv = place.script("@step\ndef f(): did(1); return 1\nf()\n")
    for _ in range(2):
        assert place.run(argv, AGENTRUN_ATTEMPT="0").effects == ["1"]
    assert place.run(argv, AGENTRUN_ATTEMPT="1").effects == ["1"]
    assert place.run(argv, AGENTRUN_ATTEMPT="0").effects == ["1"]
    assert place.run(argv, AGENTRUN_ATTEMPT="2").effects == []
