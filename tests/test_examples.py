"""The examples, run as a new user would: from a copy of the folder, by the command, twice, and killed."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sqlite3
from pathlib import Path

import pytest

from agentrun.spec.decode import load

from .examples.clone import EXAMPLES, Clone, kill_everything

NAMES = ("quotes", "backup", "etl", "agent")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def mails(clone: Clone) -> list[str]:
    new = clone.out("quotes") / "maildir" / "new"
    return sorted(path.name for path in new.iterdir()) if new.is_dir() else []


def wait_for_mails(clone: Clone, count: int) -> None:
    clone.wait_for_log("quotes", "mail written|has its mail", count)


# ---- the files


@pytest.mark.parametrize("name", NAMES)
def test_job_file_is_right_and_its_output_is_ignored_by_git(name: str) -> None:
    job, _ = load(str(EXAMPLES / name / f"{name}.yaml"))
    assert job.name == name
    assert (EXAMPLES / name / ".gitignore").read_text() == "/out/\n"


@pytest.mark.parametrize("name", NAMES)
def test_readme_names_commands_and_files_that_are_there(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    job, _ = load(str(EXAMPLES / name / f"{name}.yaml"))
    runs = re.findall(r"^    agentrun run (\S+)(.*)$", readme, re.MULTILINE)
    assert runs
    for file, options in runs:
        assert (EXAMPLES.parent / file).is_file()
        assert set(re.findall(r"-p (\w+)=", options)) <= set(job.params)


# ---- what they do


def test_quotes_writes_a_mail_for_each_customer_and_each_run(clone: Clone) -> None:
    clone.run("quotes")
    with open(EXAMPLES / "quotes" / "requests.csv", newline="") as file:
        customers = sorted(row["customer"] for row in csv.DictReader(file))
    assert sorted(name.partition(".")[2] for name in mails(clone)) == customers
    mail = (clone.out("quotes") / "maildir" / "new" / mails(clone)[0]).read_text()
    assert "To: transport@acme.example" in mail and "Nordfracht, 4 days, 624.96 EUR" in mail
    clone.run("quotes", "-p", "customer=acme")
    assert len(mails(clone)) == len(customers) + 1


def test_quotes_killed_twice_writes_each_mail_once(clone: Clone) -> None:
    process = clone.start("run", "examples/quotes/quotes.yaml", "-p", "pause=0.2")
    wait_for_mails(clone, 2)
    kill_everything(process)
    process = clone.start("resume")
    wait_for_mails(clone, 5)
    kill_everything(process)
    assert 2 <= len(mails(clone)) < 8
    clone.agentrun("resume")
    names = mails(clone)
    assert len(names) == 8 and len({name.partition(".")[0] for name in names}) == 1
    assert list((clone.out("quotes") / "maildir" / "tmp").iterdir()) == []
    run = json.loads(clone.agentrun("status", "quotes", "--json"))
    attempts = {step["id"]: step["attempts"] for step in run["steps"]}
    assert (run["outcome"], attempts["mails"], attempts["price"]) == ("succeeded", 3, 1)


def test_backup_is_what_was_in_the_database_and_the_oldest_go(clone: Clone) -> None:
    for _ in range(3):
        clone.run("backup", "-p", "keep=2")
    backups = sorted((clone.out("backup") / "backups").iterdir())
    assert len(backups) == 2
    restored = sqlite3.connect(":memory:")
    restored.executescript(gzip.decompress(backups[-1].read_bytes()).decode())
    original = sqlite3.connect(clone.out("backup") / "shop.db")
    assert list(restored.iterdump()) == list(original.iterdump())
    original.close()
    restored.close()
    assert [*(clone.root / "state").glob("runs/*/scratch/*.sql*")] == []  # `tidy` did its work


def test_etl_reports_and_hands_the_bad_rows_back(clone: Clone) -> None:
    clone.run("etl")
    clone.run("etl")  # again changes nothing
    out = clone.out("etl")
    report = (out / "report.md").read_text()
    assert "28 rows loaded, 3 handed back." in report and "- FI: 3 orders, 1,029.30 EUR" in report
    assert len((out / "rejects.csv").read_text().splitlines()) == 4
    assert not (out / "alarm.txt").exists()


def test_etl_asked_for_perfection_fails_and_says_so(clone: Clone) -> None:
    clone.run("etl", "-p", "tolerance=0", status=1)
    assert "(the check: failed)" in (clone.out("etl") / "alarm.txt").read_text()
    assert not (clone.out("etl") / "report.md").exists()
    run = json.loads(clone.agentrun("status", "etl", "--json"))
    steps = {step["id"]: step for step in run["steps"]}
    assert steps["check"]["attempts"] == 1 and "TooManyBadRows" in steps["check"]["error"]
    assert steps["report"]["outcome"] == "skipped" and steps["alarm"]["outcome"] == "succeeded"
