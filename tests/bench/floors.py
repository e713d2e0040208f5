"""What the machine itself takes for the same work: measured beside each figure, in the same run, on the same disk."""

from __future__ import annotations

import subprocess
import sys

from .arena import Arena

BARE = "pass"

# Steps one after the other, each begin and each end durable, one commit for both: the least that a durable runner
# in Python can do. Arguments: database, number of steps, command line.
DURABLE_LOOP = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE IF NOT EXISTS steps (n INTEGER PRIMARY KEY, state TEXT, status INTEGER)")
db.execute("DELETE FROM steps")
count, argv, ended = int(sys.argv[2]), sys.argv[3:], None
for n in range(count + 1):
    db.execute("BEGIN IMMEDIATE")
    if ended is not None:
        db.execute("UPDATE steps SET state = 'finished', status = ? WHERE n = ?", (ended, n - 1))
    if n < count:
        db.execute("INSERT INTO steps VALUES (?, 'running', NULL)", (n,))
    db.execute("COMMIT")
    if n < count:
        pid = os.posix_spawn(argv[0], argv, os.environ)
        ended = os.waitpid(pid, 0)[1]
"""

# The same with so many at a time: all that ended in one turn is one commit. Arguments: database, steps, at a time.
DURABLE_POOL = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE IF NOT EXISTS steps (n INTEGER PRIMARY KEY, state TEXT, status INTEGER)")
db.execute("DELETE FROM steps")
count, width, running, done, n = int(sys.argv[2]), int(sys.argv[3]), {}, [], 0
while running or n < count:
    fresh = range(n, min(count, n + width - len(running)))
    db.execute("BEGIN IMMEDIATE")
    db.executemany("UPDATE steps SET state = 'finished', status = ? WHERE n = ?", done)
    db.executemany("INSERT INTO steps VALUES (?, 'running', NULL)", [(each,) for each in fresh])
    db.execute("COMMIT")
    for each in fresh:
        running[os.posix_spawn("/bin/true", ["/bin/true"], os.environ)] = each
    n, done, flags = fresh.stop, [], 0
    while running:
        pid, status = os.waitpid(-1, flags)
        if not pid:
            break
        done.append((status, running.pop(pid)))
        flags = os.WNOHANG
db.execute("BEGIN IMMEDIATE")
db.executemany("UPDATE steps SET state = 'finished', status = ? WHERE n = ?", done)
db.execute("COMMIT")
"""

READ_STEPS = """
import sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
db.execute("SELECT instance, state, outcome, attempt FROM steps").fetchall()
"""

READ_RUNS = """
import sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
db.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 20").fetchall()
"""

# A script that makes so many calls; prints the seconds of the import and of the calls. Argument: number of calls.
CALLS = """
import sys, time
began = time.perf_counter()
from agentrun.durable import step
imported = time.perf_counter()
@step
def ask(n, prompt):
    return {"n": n, "text": prompt}
for n in range(int(sys.argv[1])):
    ask(n, prompt="why?")
print(imported - began, time.perf_counter() - imported)
"""

READ_LINES = """
import json, sys
with open(sys.argv[1]) as file:
    lines = [json.loads(line) for line in file]
"""

SYNCED_APPENDS = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
began = time.perf_counter()
for n in range(int(sys.argv[2])):
    os.write(fd, b"x" * 200)
    os.fdatasync(fd)
print(time.perf_counter() - began)
"""


def synced_appends(arena: Arena, count: int) -> float:
    """So many appends of 200 bytes to a file, each on the disk before the next."""
    argv = [sys.executable, "-c", SYNCED_APPENDS, f"{arena.path}/appended", str(count)]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def bare(arena: Arena) -> float:
    """An interpreter that does nothing."""
    return arena.python(BARE)


def durable_loop(arena: Arena, steps: int) -> float:
    """Minimal Python, durable, one step after the other."""
    return arena.python(DURABLE_LOOP, str(arena.path / "floor.db"), str(steps), "/bin/sh", "-c", "true")


def durable_pool(arena: Arena, steps: int, width: int) -> float:
    """Minimal Python, durable, so many at a time."""
    return arena.python(DURABLE_POOL, str(arena.path / "floor.db"), str(steps), str(width))


def sh_loop(arena: Arena, steps: int) -> float:
    """A shell script of so many `sh -c true`, nothing durable."""
    return arena.seconds(["/bin/sh", arena.file("floor.sh", "sh -c true\n" * steps)])


def make(arena: Arena, steps: int, width: int) -> float:
    """`make` with so many targets of /bin/true."""
    targets = " ".join(f"t{n}" for n in range(steps))
    file = arena.file("Makefile", f"all: {targets}\n{targets}:\n\t@/bin/true\n.PHONY: all {targets}\n")
    return arena.seconds(["make", "-s", f"-j{width}", "-f", file])


def sleepers(arena: Arena, count: int, seconds: float) -> float:
    """A shell script that starts so many `sleep` at once and waits."""
    return arena.seconds(["/bin/sh", arena.file("floor.sh", f"sleep {seconds} &\n" * count + "wait\n")])


def through_cat(arena: Arena, command: str) -> float:
    """The command's output through `cat` into a file."""
    return arena.seconds(["/bin/sh", "-c", f"{command} | cat > floor.out; rm floor.out"])


def redirected(arena: Arena, command: str) -> float:
    """The command's output straight into a file."""
    return arena.seconds(["/bin/sh", "-c", f"{command} > floor.out; rm floor.out"])


def private_memory(pid: int) -> float:
    """The memory in MiB that belongs to this process alone (proc(5), smaps_rollup)."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
                total += int(line.split()[1])
    return total / 1024


def bare_memory(arena: Arena) -> float:
    """The private memory of a bare interpreter that waits, in MiB."""
    up = arena.fifo("up")
    process = arena.start([sys.executable, "-c", f"open({up!r}, 'w').write('up\\n'); import time; time.sleep(600)"])
    try:
        with open(up) as file:
            file.readline()
        return private_memory(process.pid)
    finally:
        process.kill()
        process.communicate()
