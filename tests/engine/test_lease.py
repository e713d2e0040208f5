"""Taking a run over by force."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agentrun.engine import lease
from agentrun.store.folders import RunFolder

HOLDER = """
import os, sys
from agentrun.engine.lease import Lease, this_process
from agentrun.store.folders import RunFolder
held = Lease.acquire(RunFolder(sys.argv[1], "1aaaaaaaaa"), create=True)
print(this_process()["start"], flush=True)
sys.stdin.read()
"""


def test_an_owner_that_has_just_ended_needs_no_ending(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "1aaaaaaaaa")
    folder.create()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout
        start = int(holder.stdout.readline())
        assert lease.Lease.acquire(folder) is None
        owner = {**lease.this_process(), "pid": holder.pid, "start": start}
        taken = lease.overtake(folder, owner)
        assert holder.wait(10) == -9
    lease._end(folder, owner)  # the pid is nobody's now
    taken.release()
    assert os.path.exists(folder.lock)
