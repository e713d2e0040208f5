"""The machine of the field test: what a script can reach there, and what is seen of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import sandbox, stubs
from .left import look
from .trial import put

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs {sandbox.missing()}"),
]

SCRIPT = """#!/bin/bash
echo "$$ $(date +%F) $(mktemp) $(whoami)"
touch /usr/bin/x /proc/sys/vm/drop_caches 2>/dev/null || echo "may not"
curl -fsS https://example.org/ >/tmp/fetched
echo hello | mail -s 'a subject' root
command -v unheard_of && unheard_of of
(sleep 1; echo late >>/var/log/late) &
"""


def _machine(folder: Path, script: str) -> sandbox.Sandbox:
    stubs.lay(folder / "commands", script)
    return sandbox.Sandbox(folder / "machine", folder / "commands", "it.sh", script.encode())


def test_a_script_reaches_nothing_and_is_seen(tmp_path: Path) -> None:
    machine = _machine(tmp_path, SCRIPT)
    before = look(machine, 0, b"").files
    left = look(machine, *machine.run([machine.path], 20)[:2])
    assert left.status == 0
    assert left.output.split(b"\n")[:2] == [b"<pid> 2026-03-14 /tmp/tmp.000001 root", b"may not"]
    assert [call.split(b" <")[0] for call in left.calls.split(b"\n")[:-1]] == [
        b"/root$ curl -fsS https://example.org/", b"/root$ mail -s a subject root", b"/root$ unheard_of of",
        b"/root$ sleep 1",
    ]  # fmt: skip
    new = {path for path, what in left.files.items() if before.get(path) != what}
    assert new >= {"tmp/fetched", "tmp/tmp.000001", "var/log/late"}
    assert not new & {"usr/bin/x", "etc/passwd"}


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    ended = _machine(tmp_path, "").run(["/usr/bin/tail", "-f", "/dev/null"], 0.5)
    assert ended.status is None
    assert not ended.stopped


@pytest.mark.parametrize(
    ("script", "aside"),
    [
        ("#!/bin/bash\necho $RANDOM$RANDOM$RANDOM\n", "not equal to itself: output"),
        ("#!/bin/sh\necho the same\n", ""),
    ],
)
def test_who_does_not_equal_itself_is_set_aside(tmp_path: Path, script: str, aside: str) -> None:
    path = tmp_path / "owner__repo__it.sh"
    path.write_text(script)
    assert put(path, kill=False, plain_only=True).aside == aside
