"""What steps are called: by a comment, by an echo, by the command."""

from __future__ import annotations

import re

import pytest

from agentrun.convert.groups import grouped
from agentrun.convert.names import names, sentence
from agentrun.convert.program import Program
from agentrun.convert.statements import cut
from agentrun.spec.fields import STEP_ID


def ids(source: str) -> list[str]:
    program = Program(source, "bash")
    found = names(program, grouped(program, cut(program, lambda path: None).pieces))
    assert all(re.fullmatch(STEP_ID, name) for name in found)
    return found


SENTENCES = {
    "# Dump the database": "Dump the database",
    "# Dump the database. Takes long.": "Dump the database",
    "#### Dump ####": "Dump",
    "# -------- Dump --------": "Dump",
    "# 1. Dump the database": "Dump the database",
    "# Step 2: dump": "dump",
    "# CLEANUP 3: Python cache": "Python cache",
    "# NOTE: dump": "dump",
    "# ==========\n# Dump\n# ==========": "Dump",
    "# Dump the database\n# of the wiki": "Dump the database of the wiki",
    "# shellcheck disable=SC2086\n# Dump": "Dump",
    "# rm -rf /x": "",
    "#A=1": "",
    "#/usr/bin/dump x": "",
    "#!/bin/bash": "",
    "# ----": "",
    "# TODO dump": "",
    "# if [ a ]; then": "",
    "# https://x.org": "",
}


@pytest.mark.parametrize(("comment", "said"), SENTENCES.items())
def test_what_a_comment_says(comment: str, said: str) -> None:
    assert sentence(comment.split("\n")) == said


IDS = [
    ("# Dump the database\npg_dump a >b\n", ["dump-database"]),
    ("A=1\nB=2\nC=3\n\n# Dump\npg_dump a >b\n", ["setup", "dump"]),
    ("echo \"Copying files to $HOST...\"\nrsync a b\n", ["copying-files"]),
    ("docker compose up -d\ngit pull -q\nsystemctl restart nginx\n",
     ["docker-compose-up", "git-pull", "systemctl-restart"]),
    ("aws s3 sync a s3://b\n", ["aws-s3-sync"]),
    ("sudo -u www nice -n 9 /opt/bin/reindex.sh --all\n", ["reindex"]),
    ("python3 -u /opt/load_rates.py\n", ["load-rates"]),
    ("find a -delete\n\nrm -rf /var/tmp/build\n", ["find", "remove-build"]),
    ("rm -f \"$TMP_FILE\"\n", ["remove-tmp-file"]),
    ("RATES=$(curl x)\n", ["rates"]),
    ("tar c a\ntar c a\n", ["tar", "tar-2"]),
    ("if [ $CPU -gt 8 ]; then mail a <b; fi\n\nif [ $DISK -gt 8 ]; then mail a <b; fi\n", ["mail", "mail-disk"]),
    ("for host in a b; do\n  rsync x $host:\ndone\n", ["rsync"]),
    ("# Größe prüfen\ntar c a\n", ["groe-prufen"]),
    ("# 备份\ntar c a\n", ["tar"]),
    ("# 7zip the logs\n7z a b\n", ["step-7zip-logs"]),
    ("sh -c \"pg_dump $A >b\"\n", ["pg-dump"]),
    ("\"$CMD\" x\n", ["cmd"]),
    ("# " + "very " * 20 + "long\ntar c a\n", ["very-very-very-very-very"]),
    ("f() { a; }\ng() { b; }\ncopy_all() { c; }\n\ncopy_all\n", ["functions", "copy"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), IDS)
def test_ids(source: str, expected: list[str]) -> None:
    assert ids(source) == expected


def test_ids_are_unique() -> None:
    found = ids("# Copy\ncp a b\n" * 30)
    assert len(set(found)) == 30
