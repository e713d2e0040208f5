"""Order: what a retry may do in another one, and what is a mismatch. Threads, tasks, calls within calls, processes."""

from __future__ import annotations

import os
import signal

import pytest

from agentrun.durable.calls import Mismatch, Running, Scope

from .rig import Step

# ---- the rules alone: a record (fn, place, and ! for one that raised), then the calls of the next attempt


def replay(record: str, calls: str) -> str:
    """The calls with what becomes of each: `a` given, `A` made, `a!` made and raised, `?` a mismatch."""
    done = [
        {"key": word[0], "n": None if word[1] == "-" else int(word[1]), "attempt": 1, "line": 9}
        for word in record.split() if word[-1] != "!"
    ]  # fmt: skip
    scope = Scope(done, {word[0] for word in record.split() if word[-1] == "!"})
    told = []
    for word in calls.split():
        try:
            entry = scope.find(word[0], True, lambda: True, set())
        except Mismatch:
            return " ".join([*told, "?"])
        if entry is not None:
            told.append(word[0])
            continue
        call = Running(word[0], None, None)
        scope.start(call, True)
        if word[-1] == "!":
            scope.raised(word[0])
        scope.end(call, word[-1] != "!")
        told.append(word[0].upper() + word[1:])
    return " ".join(told)


@pytest.mark.parametrize(
    ("record", "calls", "told"),
    [
        ("", "a b", "A B"),
        ("a0 b1", "a b c", "a b C"),
        ("a0 a1", "a a a", "a a A"),
        ("a0 b1", "b", "?"),
        ("a0 b1", "a c", "a ?"),
        ("a0 b1", "a a", "a ?"),
        ("a- b-", "b a c", "b a C"),                 # they overlapped
        ("a0 b- c- d3", "a c b d", "a c b d"),
        ("a0 b- c- d3", "a c e", "a c ?"),
        ("a0 b1!", "a b c", "a B C"),                # it raised, and that was the end
        ("f0! g1", "f! g h", "F! g H"),              # caught: it raises again, or does not
        ("f0! g1", "f g h", "F g H"),
        ("f0! g1 h2", "f h i", "F h I"),             # g was only for when f raises
        ("f0! g1 h2", "f x h i", "F X h I"),
        ("f0! g1 h2", "f h x", "F h X"),
        ("f0! f1 g2", "f g h", "f g H"),             # a loop that tries again
        ("f0! l1 f2 g3", "f g h", "f g H"),
        ("f0! l1 f2 g3 h4", "f g x", "f g ?"),
        ("f0! f0 b1 h2 i2", "f h i", "f h i"),       # the third attempt: the second went another way than the first
    ],
)  # fmt: skip
def test_the_rules_of_order(record: str, calls: str, told: str) -> None:
    assert replay(record, calls) == told


# ---- scripts


def test_a_mismatch_names_both_calls_and_the_way_out(place: Step) -> None:
    argv = place.script("""
        @step
        def ask(prompt): did(prompt); return 1
        same = "word " * 100
        ask("one")
        ask(same + os.environ["AGENTRUN_ATTEMPT"])
        """)  # fmt: skip
    assert place.run(argv).status == 0
    ran = place.run(argv)
    assert (ran.status, ran.effects) == (1, [])
    last = ran.err.splitlines()[-1]
    assert "attempt 1 of this step called ...word word" in last and 'word 1"}), and now ...' in last
    assert last.endswith('word 2"}) is called in its place')
    assert "@step(key=...) where" in last[:200] and "`agentrun resume 7f3a --from think`" in last[:300]
    assert len(last) < 900


def test_a_mismatch_is_an_exception_of_its_own(place: Step) -> None:
    argv = place.script("""
        @step(retry=3)
        def outer(): return inner(os.environ["AGENTRUN_ATTEMPT"])
        @step(key="k")
        def keyed(): pass
        @step
        def inner(n): pass
        if os.environ["AGENTRUN_ATTEMPT"] == "1": keyed()
        else:
            try: inner(2)
            except Mismatch as error: print(isinstance(error, RuntimeError), error)
        """)  # fmt: skip
    place.run(argv)
    told = "attempt 1 of this step called __main__.keyed with the key 'k', and now __main__.inner"
    ran = place.run(argv)
    assert ran.out.startswith("True ") and told in ran.out


THREADS = """
    import random, threading
    from concurrent.futures import ThreadPoolExecutor
    late = os.environ["AGENTRUN_ATTEMPT"] != "1"
    @step
    def ask(n):
        did(n)
        if n == 37 and not late: os.kill(os.getpid(), 9)
        return -n
    items = list(range(60))
    random.shuffle(items)
    ask("first")
    with ThreadPoolExecutor(8) as pool: found = dict(zip(items, pool.map(ask, items)))
    assert found == {n: -n for n in items}
    ask("last")
"""


def test_threads_in_another_order(place: Step) -> None:
    argv = place.script(THREADS.replace("return -n", 'return -n if isinstance(n, int) else n'))
    first = place.run(argv)
    assert first.status == -signal.SIGKILL
    second = place.run(argv)
    assert (second.status, second.err) == (0, "")
    done = [line for line in place.lines() if "call" in line and line["attempt"] == 1]
    assert len(second.effects) == 62 - len(done) and "37" in second.effects
    assert place.run(argv).effects == []


def test_tasks_in_another_order(place: Step) -> None:
    argv = place.script("""
        import asyncio, random
        late = os.environ["AGENTRUN_ATTEMPT"] != "1"
        @step
        async def ask(n):
            did(n)
            await asyncio.sleep(random.random() / 100)
            if n == 20 and not late: raise OSError("no")
            return n
        @step
        async def quick(n): did(n); return n
        async def main():
            items = random.sample(range(40), 40)
            await ask("first")
            assert await asyncio.gather(*(quick(-1 - n) for n in items)) == [-1 - n for n in items]
            found = await asyncio.gather(*(ask(n) for n in items), return_exceptions=not late)
            if not late: sys.exit(1)
            assert found == items
            await ask("last")
        asyncio.run(main())
        """)  # fmt: skip
    first, second = place.run(argv), place.run(argv)
    assert (first.status, first.err, len(first.effects)) == (1, "", 81)
    assert (second.status, second.err, second.effects) == (0, "", ["20", "last"])
    assert place.run(argv).effects == []


def test_two_objects_in_the_same_call_at_once_cannot_be_told_apart(place: Step) -> None:
    ran = place.run(place.script("""
        import threading
        together = threading.Barrier(2)
        class Agent:
            @step
            def ask(self, prompt):
                together.wait(20)
                return 1
        failed = []
        def work():
            try: Agent().ask("hi")
            except TypeError as error: print(error); together.wait(20)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """))  # fmt: skip
    assert ran.err == "" and ran.out.count("is being called on two objects at once") == 1
    assert '__main__.Agent.ask({"prompt":"hi"})' in ran.out and "@step(key=...)" in ran.out


def test_each_process_replays_what_it_did(place: Step) -> None:
    place.script("""
        @step
        def draw(n):
            did(n)
            return os.getpid()
        print(draw(1), draw(1))
        if os.environ["AGENTRUN_ATTEMPT"] == "1" and len(open(os.environ["EFFECTS"]).readlines()) == 4: sys.exit(4)
        """)  # fmt: skip
    line = f"{place.python} agent.py && {place.python} agent.py a && X=1 {place.python} agent.py"
    argv = ["/bin/sh", "-c", line]
    first, second = place.run(argv), place.run(argv)
    assert (first.status, len(first.effects)) == (4, 4)
    assert (second.status, len(second.effects)) == (0, 2)
    assert second.out.splitlines()[:2] == first.out.splitlines()
    third = place.run(argv)
    assert (third.out, third.effects) == (second.out, [])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_workers_shares_what_was_done(place: Step, method: str) -> None:
    argv = place.script(f"""
        import multiprocessing
        late = os.environ["AGENTRUN_ATTEMPT"] != "1"
        @step
        def ask(n):
            did(n)
            if n == 11 and not late: raise OSError("no")
            return n * n
        @step
        def outer(n): return [ask(n), n]
        if __name__ == "__main__":
            ask(100)
            with multiprocessing.get_context("{method}").Pool(3) as pool:
                print(pool.map(outer, [*range(20), 5, 5], chunksize=1))
        """)  # fmt: skip
    first, second = place.run(argv), place.run(argv)
    assert first.status == 1 and "OSError: no" in first.err
    done = [line for line in place.lines() if "result" in line and line["attempt"] == 1 and "ask" in line["call"]]
    assert (second.status, second.err) == (0, "")
    assert second.out == str([[n * n, n] for n in [*range(20), 5, 5]]) + "\n"
    assert len(second.effects) == 23 - len(done) and "11" in second.effects
    assert place.run(argv).effects == []


def test_a_fork_takes_nothing_from_its_parent(place: Step) -> None:
    argv = place.script("""
        @step
        def ask(n): did(n); return n
        ask(1)
        if not os.fork():
            ask(1), ask(2)
            os._exit(0)
        status = os.wait()[1]
        ask(2)
        sys.exit(status)
        """)  # fmt: skip
    assert place.run(argv).effects == ["1", "1", "2", "2"]
    ran = place.run(argv)
    assert (ran.status, ran.effects) == (0, [])
    assert os.path.getsize(place.calls) > 0
