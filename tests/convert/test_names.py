"""What steps are called: by a comment, by an echo, by the command."""

from __future__ import annotations

import re

import pytest

from agentrun.convert.groups import grouped
from agentrun.convert.names import names
from agentrun.convert.program import Program
from agentrun.convert.statements import cut
from agentrun.convert.titles import sentence, title
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
    "# \u2500\u2500 Phase 1: Harvest \u2500\u2500\u2500\u2500\n# of what": "Harvest",
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


TITLES = {
    "Dump the database": "dump-the-database",
    "Put it into the shop": "put-it-into-the-shop",
    "What is in stock": "what-is-in-stock",
    "A copy on the other machine": "a-copy-on-the-other-machine",
    "Write it": "write-it",
    "Hand them over": "hand-them-over",
    # cut before what only adds to it
    "Orders that are paid and not handed over yet": "orders-that-are-paid",
    "Remove what is older than $KEEP days": "remove-what-is-older",
    "Delete old zip files older than $DAYS days": "delete-old-zip-files",
    "Compress the logs in /var/log/apache2 of the week": "compress-the-logs",
    "Use the prune subcommand to maintain 7 daily, 4 weekly and 6 monthly archives": "use-the-prune-subcommand",
    "Stop, copy, and start the server of the wiki anew": "stop-copy",
    "Check whether the server is up and running now": "check-whether-the-server-is-up",
    "Makes sure that no one overwrites commands": "makes-sure-no-one-overwrites-commands",
    "assert that all needed environment variables are set": "assert-needed-environment-variables-set",
    # what only leads to it
    "Now create the archive": "create-the-archive",
    "This script will back up the files": "back-up-the-files",
    "We need to find the record id": "find-the-record-id",
    # no title
    "A dump that cannot be read is worse than none": "",
    "If the directory does not exist, create it": "",
    "A run that overlaps another would fetch the same rows again": "",
    "0 when the backup was successful": "",
    "It is too late": "",
    "because of this": "",
    "Main function": "",
    "of the": "",
    "$DIR": "",
    "": "",
    "\u5907\u4efd": "",
    "\u041f\u043e\u043b\u043d\u044b\u0439 \u0431\u044d\u043a\u0430\u043f VPS": "",
}


@pytest.mark.parametrize(("said", "name"), TITLES.items())
def test_the_title_that_a_sentence_makes(said: str, name: str) -> None:
    assert title(said) == name
    assert title(said.rstrip() + " ") == name


IDS = [
    ("# Dump the database\npg_dump a >b\n", ["dump-the-database"]),
    ("A=1\nB=2\nC=3\n\n# Dump\npg_dump a >b\n", ["setup", "dump"]),
    ("set -e\nA=1\nB=2\n\n# Dump\nC=3\nlog x\npg_dump a >b\n", ["setup", "dump"]),
    ("echo \"Copying files to $HOST...\"\nrsync a b\n", ["copying-files"]),
    ("echo \"Copying files...\"\necho \"rsync $A\"\nrsync a b\n", ["copying-files"]),
    ("# A dump that cannot be read is worse than none\ngzip --test \"$D\"\n", ["gzip-test"]),
    ("docker compose up -d\ngit pull -q\nsystemctl restart nginx\nservice mysql stop\n",
     ["docker-compose-up", "git-pull", "restart-nginx", "stop-mysql"]),
    ("aws s3 sync a s3://b\n", ["aws-s3-sync"]),
    ("sudo -u www nice -n 9 /opt/bin/reindex.sh --all\n", ["reindex"]),
    ("python3 -u /opt/load_rates.py\nphp -f /opt/backup.php x\nphp artisan queue:work\n"
     "bundle exec rails mails:remind_all X=1\n",
     ["load-rates", "backup", "queue-work", "mails-remind-all"]),
    ("find a -name '*.pyc' -delete\n\nfind b -exec gzip {} +\n\nrm -rf /var/tmp/build\n",
     ["delete-pyc", "compress", "remove-build"]),
    ("rm -f \"$TMP_FILE\"\n", ["remove-tmp-file"]),
    ("rsync -a --delete /srv/shop/uploads/ \"$DIR/uploads/\"\n", ["rsync-uploads"]),
    ("rsync $RSYNC_OPTS \"$SOURCE_DIR\" x:\n", ["rsync-source-dir"]),
    ("tar czf \"$D/wiki.tar.gz\" x\ntar -xf wiki.tgz\n", ["tar-wiki", "tar-wiki-tgz"]),
    ("curl -o x https://api.github.com/repos\nwget \"$API/stock\"\n", ["curl-github", "wget-stock"]),
    ("df -h >>\"$REPORT\"\nuptime >> health.txt\nmail -s x ops@example.org <health.txt\n",
     ["write-report", "mail-ops"]),
    ("for f in $OLD_BACKUPS; do rm \"$f\"; done\n", ["remove-old-backups"]),
    ("if [[ $(pmset -g ps | head -1) =~ Battery ]]; then exit 4; fi\n", ["check-pmset-ps"]),
    ("RATES=$(curl x)\n", ["get-rates"]),
    ("if grep x; then\n  echo y\nelse\n  # Hand them over: at once\n  api x\nfi\n", ["hand-them-over"]),
    ("if [ a ]; then\n  # Hand them over: at once\n  api x\nfi\n", ["hand-them-over"]),
    # numbers only where nothing else tells them apart
    ("tar c a\ntar c a\n", ["tar", "tar-2"]),
    ("# Copy\ncp /a/one b; x\n\n# Copy\ncp /a/two b; x\n", ["copy", "copy-two"]),
    ("pacman -Qe >one.txt\npacman -Qm >two.txt\n", ["pacman-one", "pacman-two"]),
    ("if [ $CPU -gt 8 ]; then mail a <b; fi\n\nif [ $DISK -gt 8 ]; then mail a <b; fi\n", ["mail", "mail-disk"]),
    ("for host in a b; do\n  rsync xyz $host:\ndone\n", ["rsync-xyz"]),
    ("# Größe prüfen\ntar c a\n", ["grosse-prufen"]),
    ("# 备份\ntar c a\n", ["tar"]),
    ("# 7zip the logs\n7z a b\n", ["step-7zip-the-logs"]),
    ("sh -c \"pg_dump $A >b\"\n", ["pg-dump"]),
    ("\"$CMD\" x\n$DEBUG docker run x\n", ["cmd", "docker-run"]),
    ("# " + "very " * 20 + "long\ntar c a\n", ["very-very-very-very-very-very"]),
    # preparation
    ("f() { a; }\ng() { b; }\ncopy_all() { c; }\n\ncopy_all\n", ["functions", "copy-all"]),
    ("A=1\nB=2\nC=3\nff() { a; }\nif [ $# -lt 1 ]; then exit 1; fi\ngg() { b; }\nwhile getopts a x; do y=1; done\n"
     "ship() { c; }\nship\n",
     ["setup", "define-ff", "check-arguments", "define-gg", "parse-arguments", "define-ship", "ship"]),
    ("tar c x\n\nA=1\nB=2\nC=3\n\n# Ship it\nrsync a b\n", ["tar", "prepare-ship-it", "ship-it"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), IDS)
def test_ids(source: str, expected: list[str]) -> None:
    assert ids(source) == expected


def test_ids_are_unique() -> None:
    found = ids("# Copy\ncp a b\n" * 30)
    assert len(set(found)) == 30
