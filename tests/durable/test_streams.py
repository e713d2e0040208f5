"""Whose results a call may be given: threads and processes inside of calls, and processes that are alike."""

from __future__ import annotations

import pytest

from .rig import Step

pytestmark = pytest.mark.slow

KILLED = 'if os.environ["AGENTRUN_ATTEMPT"] == "1": os.kill(os.getpid(), 9)'
CHARGE = """
    import asyncio, multiprocessing, subprocess, threading
    from concurrent.futures import ThreadPoolExecutor
    @step
    def charge(amount): did(f"{amount} by {os.environ['WHO']}"); return os.environ["WHO"]
"""
# each is the body of a call that has another thread or process call `charge`
HANDED = {
    "thread": """
    found = []
    thread = threading.Thread(target=lambda: found.append(charge(5)))
    thread.start()
    thread.join()
    return found""",
    "executor": """
    with ThreadPoolExecutor(2) as pool: return list(pool.map(charge, [5, 6]))""",
    "shared executor": """
    return list(EVERYBODY.map(charge, [5, 6]))""",
    "tasks": """
    return asyncio.run(work())""",
    "fork": """
    with multiprocessing.get_context("fork").Pool(1) as pool: return pool.map(charge, [5])""",
    "spawn": """
    with multiprocessing.get_context("spawn").Pool(1) as pool: return pool.map(charge, [5])""",
    "command": """
    return subprocess.run([sys.executable, "worker.py"], check=True, stdout=subprocess.PIPE, text=True).stdout""",
}


@pytest.mark.parametrize("how", HANDED)
def test_what_a_call_has_others_do_is_a_part_of_it(place: Step, how: str) -> None:
    place.script(CHARGE + "    print(charge(5))\n", "worker.py")
    argv = place.script(CHARGE + f"""
    async def work(): return await asyncio.get_running_loop().run_in_executor(None, charge, 5)
    EVERYBODY = ThreadPoolExecutor(1)
    @step
    def customer(name):
        os.environ["WHO"] = name{HANDED[how].replace(chr(10), chr(10) + "    ")}
    if __name__ == "__main__":
        os.environ["WHO"] = "nobody"
        list(EVERYBODY.map(str, [1]))
        print(customer("alice"), flush=True)
        {KILLED}
        print(customer("bob"), flush=True)
        os._exit(0)
    """)  # fmt: skip
    place.run(argv)
    second = place.run(argv)
    assert second.err == ""
    assert second.effects and all(effect.endswith(" by bob") for effect in second.effects)
    assert "alice" in second.out.splitlines()[0] and "alice" not in second.out.splitlines()[1]


@pytest.mark.parametrize("how", HANDED)
def test_what_others_did_for_a_call_that_was_killed_is_given_back_to_it(place: Step, how: str) -> None:
    place.script(CHARGE + "    print(charge(5))\n", "worker.py")
    argv = place.script(CHARGE + f"""
    async def work(): return await asyncio.get_running_loop().run_in_executor(None, charge, 5)
    EVERYBODY = ThreadPoolExecutor(1)
    def has_done(name):
        os.environ["WHO"] = name{HANDED[how].replace(chr(10), chr(10) + "    ")}
    @step
    def customer(name):
        found = has_done(name)
        {KILLED}
        return found
    if __name__ == "__main__":
        customer("alice")
        os._exit(0)
    """)  # fmt: skip
    first = place.run(argv)
    assert first.effects
    second = place.run(argv)
    assert (second.status, second.err, second.effects) == (0, "", [])


WORKER = """
    @step(key=%s)
    def mail(): did(os.environ.get("ITEM") or sys.argv[1]); return os.environ.get("ITEM") or sys.argv[1]
    got = mail()
    assert got == (os.environ.get("ITEM") or sys.argv[1]), got
"""


@pytest.mark.parametrize("item", ["ITEM=$f {python} worker.py", "{python} worker.py $f"])
def test_a_queue_that_has_moved_on_gets_nobody_elses_results(place: Step, item: str) -> None:
    place.script(WORKER % None, "worker.py")
    (place.path / "todo").mkdir()
    for name in "abc":
        (place.path / "todo" / name).touch()
    work = f"{item.format(python=place.python)} || exit 1; rm todo/$f; test $f = $STOP && exit 1"
    argv = ["/bin/sh", "-c", f"for f in $(ls todo); do {work}; done; exit 0"]
    assert [place.run(argv, STOP=stop).effects for stop in "abx"] == [["a"], ["b"], ["c"]]


def test_processes_that_are_alike_are_made_again_but_for_keys(place: Step) -> None:
    for key, again in (("None", 2), ("lambda: open('item').read()", 0)):
        place.calls.unlink(missing_ok=True)
        place.script(f"@step(key={key})\ndef f(): did(1); return open('item').read()\nprint(f())\n", "alike.py")
        argv = ["/bin/sh", "-c", f"for i in a b; do echo $i >item; {place.python} alike.py; done"]
        first, second = place.run(argv), place.run(argv)
        assert (first.out, first.err, len(first.effects)) == ("a\n\nb\n\n", "", 2)
        assert (second.out, len(second.effects)) == (first.out, again)
        assert second.err.count("began more than once") == (1 if again else 0), second.err


def test_a_program_whose_command_line_differs_goes_on_if_it_was_killed(place: Step) -> None:
    place.script(f"@step\ndef f(n): did(n); return n\nf(1)\n{KILLED}\nf(2)\n", "agent.py")
    argv = ["/bin/sh", "-c", f"{place.python} agent.py $(mktemp -u)"]
    assert place.run(argv).effects == ["1"]
    second = place.run(argv)
    assert (second.err, second.effects) == ("", ["2"])
    third = place.run(argv)  # it had come to its end, so this could be the next of a queue
    assert third.effects == ["1", "2"] and third.err.count("\n") == 1
    assert third.err.startswith("agentrun.durable: what agent.py called in an earlier attempt is called again: it")
    assert "it came to its end there" in third.err


def test_a_program_that_exits_with_an_error_goes_on(place: Step) -> None:
    end = 'sys.exit(os.environ["AGENTRUN_ATTEMPT"] == "1")'
    place.script(f"@step\ndef f(n): did(n); return n\nf(1)\n{end}\n", "agent.py")
    argv = ["/bin/sh", "-c", f"{place.python} agent.py $AGENTRUN_ATTEMPT"]
    first, second = place.run(argv), place.run(argv)
    assert (first.status, first.effects, second.effects, second.err) == (1, ["1"], [], "")


def test_another_environment_of_the_whole_step_changes_nothing(place: Step) -> None:
    place.script("@step\ndef f(): did(1); return 1\nf()\n")
    argv = ["/bin/sh", "-c", f"{place.python} agent.py; false"]
    assert place.run(argv, TERM="dumb").effects == ["1"]
    assert place.run(argv, SSH_TTY="/dev/pts/1").effects == []
