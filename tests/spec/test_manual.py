from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from agentrun.spec.config import CONFIG, SMTP
from agentrun.spec.fields import TABLES
from agentrun.spec.manual import page
from agentrun.spec.scope import FORMS


def test_every_key_is_there() -> None:
    listed = re.findall(r"^\.It Ic (\w+)$", page(), re.MULTILINE)
    order = (
        "job", "steps", "retry", "repeat", "budget", "daily", "step-budget", "concurrency", "params", "notify",
        "targets", "keep",
    )  # fmt: skip
    tables = [*(TABLES[table] for table in order), CONFIG, SMTP]
    assert listed == [name for table in tables for name in table.fields]


def test_every_form_of_reference_is_there() -> None:
    text = page()
    assert all(form in text for form in FORMS)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_nothing_to_say() -> None:
    lint = subprocess.run(["mandoc", "-T", "lint"], input=page(), capture_output=True, text=True, check=False)
    assert lint.stdout + lint.stderr == ""
