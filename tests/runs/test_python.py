"""Python steps: what is called, with what, in which interpreter, and what becomes of what it returns or raises."""

from __future__ import annotations

import json
import sys
import venv

from .place import Place

MODULE = """
import asyncio, os, sys

def echo(**given): return given
def typed(text, whole, real, yes, nothing, many, mapping, unicode):
    return {"types": [type(value).__name__ for value in (text, whole, real, yes, nothing, many, mapping, unicode)]}
def scalar(): return 42
def array(): return [1, "two", None]
def nothing(): return None
async def waits(name):
    await asyncio.sleep(0)
    return {"hello": name}
def both():
    with open(os.environ["AGENTRUN_OUTPUT"], "w") as file:
        file.write("written=by hand\\nboth=file\\n")
    return {"returned": True, "both": "return"}
def strange(): return {"value": {1, 2}}
def nan(): return float("nan")
def raises(): 
    print("before it fell")
    deeper()
def deeper(): raise LookupError("no rate for Åland")
def leaves(): sys.exit(23)
def says(): sys.exit("this is the end")
"""


def test_a_function_is_called_with_arguments_of_every_json_type(place: Place) -> None:
    place.file("work.py", MODULE)
    given = (
        'text: "no", whole: 7, real: 1.5, yes: true, nothing: null, many: [1, [2], {three: 3}],'
        ' mapping: {a: {b: "1:30"}}, unicode: "Ærø ✓"'
    )
    ran = place.run(f"steps:\n- {{id: echo, python: 'work:echo', with: {{{given}}}}}\n"
                    f"- {{id: typed, python: 'work:typed', with: {{{given}}}}}\n")  # fmt: skip
    assert ran.status == 0, ran.stderr
    assert ran.outputs["echo"] == {
        "text": "no", "whole": 7, "real": 1.5, "yes": True, "nothing": None, "many": [1, [2], {"three": 3}],
        "mapping": {"a": {"b": "1:30"}}, "unicode": "Ærø ✓",
    }  # fmt: skip
    assert ran.outputs["typed"]["types"] == ["str", "int", "float", "bool", "NoneType", "list", "dict", "str"]
    assert ran.step("echo")["inputs"]["with"] == ran.outputs["echo"]


def test_what_is_returned_becomes_the_outputs(place: Place) -> None:
    place.file("work.py", MODULE)
    names = ("scalar", "array", "nothing", "both")
    steps = "".join(f"- {{id: {name}, python: 'work:{name}', needs: []}}\n" for name in names)
    ran = place.run(f"steps:\n{steps}- {{id: waits, python: 'work:waits', with: {{name: you}}}}\n")
    assert ran.status == 0, ran.stderr
    assert ran.outputs == {
        "scalar": {"result": 42}, "array": {"result": [1, "two", None]}, "nothing": ran.outputs["nothing"],
        "both": {"written": "by hand", "both": "return", "returned": True}, "waits": {"hello": "you"},
    }  # fmt: skip
    assert not ran.outputs["nothing"]


def test_inline_code_with_a_main_and_without(place: Place) -> None:
    ran = place.run("""
params: {n: {default: 3}}
steps:
- id: called
  python: |
    import json
    def main(n, names):
        return {"names": names * n}
    if __name__ == "__main__":
        raise SystemExit("called twice")
  with: {n: '${{ params.n }}', names: [x]}
- id: awaited
  python: |
    import asyncio
    async def main():
        await asyncio.sleep(0)
        return "slept"
- id: script
  python: |
    import os, pathlib
    if __name__ == "__main__":
        with open(os.environ["AGENTRUN_OUTPUT"], "a") as file:
            print("where", pathlib.Path.cwd(), sep="=", file=file)
""")
    assert ran.status == 0, ran.stderr
    assert ran.outputs["called"] == {"names": ["x", "x", "x"]}
    assert ran.outputs["awaited"] == {"result": "slept"}
    assert ran.outputs["script"] == {"where": str(place.root)}


def test_an_exception_is_in_the_record_the_log_and_the_report(place: Place) -> None:
    place.file("work.py", MODULE)
    path = place.job("job", "steps:\n- {id: a, python: 'work:raises'}\n")
    ran = place.call("run", str(path))
    assert ran.status == 1
    assert "LookupError: no rate for Åland" in ran.stderr and "before it fell" in ran.stderr
    step = place.call("status", "job", "--json").step("a")
    assert step["error"] == "LookupError: no rate for Åland"
    raised = step["history"][0]["exception"]
    assert (raised["type"], raised["message"]) == ("LookupError", "no rate for Åland")
    frames = raised["traceback"]
    assert "in raises" in frames and "in deeper" in frames and "pystep" not in frames
    assert str(place.root / "work.py") in frames
    log = place.call("logs", "job", "--raw").stdout
    assert log.startswith("before it fell\nTraceback") and log.endswith("LookupError: no rate for Åland\n")


def test_an_exception_of_inline_code_names_the_line_of_the_job_file(place: Place) -> None:
    ran = place.run("steps:\n- id: a\n  python: |\n    def main():\n        return 1 // 0\n")
    frames = ran.step("a")["history"][0]["exception"]["traceback"]
    assert 'job.yaml", line 5, in main' in frames and "return 1 // 0" in frames
    assert ran.step("a")["error"].startswith("ZeroDivisionError: ")


def test_what_cannot_be_called_or_kept_is_said_plainly(place: Place) -> None:
    place.file("work.py", MODULE)
    place.file("broken.py", "def main(:\n")
    steps = {
        "no_module": ("python: 'absent:main'", "ModuleNotFoundError"),
        "no_function": ("python: 'work:absent'", "absent"),
        "syntax": ("python: 'broken:main'", "SyntaxError"),
        "missing_argument": ("python: 'work:waits'", "with"),
        "extra_argument": ("python: 'work:scalar', with: {x: 1}", "with"),
        "strange": ("python: 'work:strange'", "set"),
        "nan": ("python: 'work:nan'", "nan"),
        "arguments_for_a_script": ("python: 'x = 1', with: {x: 1}", "main"),
    }
    ran = place.run("steps:\n" + "".join(f"- {{id: {name}, needs: [], {what}}}\n" for name, (what, _) in steps.items()))
    assert set(ran.outcomes.values()) == {"failed"}
    for name, (_, word) in steps.items():
        error = ran.step(name)["error"]
        assert word.lower() in error.lower(), f"{name}: {error}"
        assert ran.step(name)["exit_code"] == 1, name
        assert "pystep" not in ran.step(name)["history"][0]["exception"]["traceback"], name


def test_sys_exit_keeps_its_status(place: Place) -> None:
    place.file("work.py", MODULE)
    ran = place.run("steps:\n- {id: a, python: 'work:leaves', needs: []}\n- {id: b, python: 'work:says', needs: []}\n")
    assert (ran.step("a")["exit_code"], ran.step("b")["exit_code"]) == (23, 1)
    assert "this is the end" in place.call("logs", "job", "--step", "b", "--raw").stdout


def test_the_interpreter_is_the_one_that_the_step_names(place: Place) -> None:
    venv.create(place.root / "own", with_pip=False, symlinks=True)
    where = '"import sys\\ndef main(): return sys.prefix"'
    ran = place.run(f"""
steps:
- {{id: ours, python: {where}}}
- {{id: own, python: {where}, interpreter: own/bin/python}}
- {{id: named, python: {where}, interpreter: python, env: {{PATH: "{place.root}/own/bin:/usr/bin:/bin"}}}}
""")
    assert ran.status == 0, ran.stderr
    own = str(place.root / "own")
    assert [ran.outputs[name]["result"] for name in ("ours", "own", "named")] == [sys.prefix, own, own]


def test_a_missing_interpreter_is_exit_status_69(place: Place) -> None:
    ran = place.run("steps:\n- {id: a, python: 'work:scalar', interpreter: .venv/bin/python}\n")
    assert ran.status == 69
    assert str(place.root / ".venv/bin/python") in ran.step("a")["error"]
    assert (ran.step("a")["outcome"], ran.step("a")["reason"], ran.step("a")["attempts"]) == ("failed", "spawn", 1)


def test_modules_come_from_the_working_folder_then_the_job_file_and_nothing_of_ours_is_in_the_way(
    place: Place,
) -> None:
    place.file("one.py", "def main(): return 'beside the job file'\n")
    place.file("there/one.py", "def main(): return 'in the working folder'\n")
    place.file("two.py", "def main(): return 'two'\n")
    place.file("there/contract.py", "def main(): return 'no module of agentrun'\n")
    ran = place.run("""
working_dir: there
steps:
- {id: one, python: 'one:main'}
- {id: two, python: 'two:main'}
- {id: own, python: 'contract:main'}
""")
    assert ran.status == 0, ran.stderr
    assert [ran.outputs[name]["result"] for name in ("one", "two", "own")] == [
        "in the working folder", "two", "no module of agentrun",
    ]  # fmt: skip


def test_large_arguments_reach_the_function(place: Place) -> None:
    text = "x" * 300_000  # more than one argument of execve(2) may have
    place.file("work.py", "def main(text): return len(text)\n")
    ran = place.run(json.dumps({"steps": [{"id": "a", "python": "work:main", "with": {"text": text}}]}))
    assert (ran.status, ran.outputs["a"]) == (0, {"result": 300_000})
