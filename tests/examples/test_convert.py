"""The example of `agentrun convert`: what runs before it."""

from __future__ import annotations

import subprocess

import pytest

from agentrun.convert.scan import scan

from .clone import EXAMPLES

BEFORE = EXAMPLES / "convert" / "before"


@pytest.mark.parametrize("name", ["backup.sh", "report.sh", "sync.sh"])
def test_a_script_is_one_that_its_shell_can_read(name: str) -> None:
    shell = (BEFORE / name).read_text().splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", name], cwd=BEFORE, stderr=subprocess.PIPE, check=True).stderr == b""


def test_a_scan_says_what_should_be_durable() -> None:
    assert [(found.file, found.line, found.what) for found in scan(str(BEFORE)).findings] == [
        ("backup.sh", 1, "started by cron, crontab:7"),
        ("crontab", 7, "a crontab with 3 entries"),
        ("report.sh", 1, "started by cron, crontab:10"),
        ("sync.sh", 1, "started by cron, crontab:13"),
        ("sync.sh", 22, "api: a POST without an idempotency key"),
        ("sync.sh", 29, "retries by hand"),
    ]
