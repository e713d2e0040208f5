"""The example of `agentrun convert`: what runs before it, and what it makes of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


AFTER = EXAMPLES / "convert" / "after"
SCRIPTS = ("backup", "report", "sync")


def made(folder: Path) -> dict[str, str]:
    """What `convert` makes of `before/`, as it would in /opt/shop, with agentrun in /opt/agentrun."""
    shop = folder / "shop"
    shutil.copytree(BEFORE, shop)

    def convert(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-P", "-m", "agentrun", "convert", *arguments],
            cwd=shop, env={name: value for name, value in os.environ.items() if name != "AGENTRUN_HOME"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    tab = shop / "crontab"
    tab.write_text(tab.read_text().replace("/opt/shop", str(shop)))  # where the scripts are found
    convert("crontab", "--scripts", "--take-logs", "-o", "jobs")
    names = ["crontab", *(f"{name}.yaml" for name in SCRIPTS)]
    texts = {name: (shop / "jobs" / name).read_text() for name in names}
    python = os.path.abspath(sys.executable)
    return {
        name: text.replace(str(shop), "/opt/shop").replace(python, "/opt/agentrun/.venv/bin/python")
        for name, text in texts.items()
    }


def test_what_comes_out_is_what_convert_makes(tmp_path: Path) -> None:
    """To make it anew: python -m tests.examples.test_convert"""
    expected = made(tmp_path)
    found = {str(path.relative_to(AFTER)): path.read_text() for path in AFTER.rglob("*") if path.is_file()}
    assert found == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name, text in made(Path(place)).items():
            (AFTER / name).parent.mkdir(parents=True, exist_ok=True)
            (AFTER / name).write_text(text)
