"""What steps are called: by a comment, by an echo, by the command; and what the jobs of a crontab are called."""

from __future__ import annotations

import re

import pytest

from agentrun.convert.cronnames import naming, step_ids, unique
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
    "EOF": "",
    "end of the file": "",
    "Send all output to dev/null": "send-all-output",
    "Write the log 2>&1": "write-the-log",
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
    # nothing of redirections, and of the ends of here-documents
    ("cp /dev/null /var/log/app.log\n\ncp /dev/null /var/log/web.log\n", ["copy-app", "copy-web"]),
    ("mysql wiki >/dev/null 2>&1\n\nmysql shop >/dev/null 2>&1\n", ["mysql", "mysql-shop"]),
    ("cat <<EOF >/etc/x.conf\na\nEOF\nmake all\n", ["make-all"]),
    ("echo '---- EOF ----'\nmake all\n", ["make-all"]),
    ("echo 'all goes to /dev/null 2>&1'\nmake all\n", ["make-all"]),
    ("make 2>&1 | tee /dev/null\n", ["make"]),
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


# -- jobs of a crontab ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/backup.sh daily", "backup"), ("/usr/bin/php artisan schedule:run", "artisan-schedule-run"),
        ("/opt/venv/bin/python3 manage.py clearsessions", "manage-clearsessions"),
        ("python -m app.sync --all", "app.sync"),
        ("certbot renew -q", "certbot-renew"), ("nice -n 5 ionice -c3 /opt/x.py", "x"),
        ("sudo -u www php /a/cron.php", "cron"),
        ("su - bob -c \"cd /app && python3 audit.py\"", "audit"),
        ("bash -lc 'cd /a; bundle exec rake cache:warm'", "rake-cache-warm"),
        ("run-parts --report /etc/cron.daily", "run-parts-cron.daily"),
        ("curl -s https://www.example.org/a/cron.php?x=1", "curl-example.org-cron"),
        ("/bin/sh", "sh"), ("mysqldump -u root -psecret wiki | gzip > x", "mysqldump-wiki"),
        ("/etc/init.d/x restart", "x"),
        ("", "job"),
        ("flock -w 5 /l /opt/y.sh", "y"), ("echo hi", "echo"), ("$HOME/bin/z.sh", "z"), ("env A=1 -i x", "x"),
        ("x >/dev/null 2>&1", "x"), ("x 2&1>log", "x"), ("x >log 2&1", "x"), ("cp /dev/null /var/log/w.log", "cp-w"),
        ("tar -czf /b/etc-$(date +%F).tar.gz /etc", "tar-etc"), ("tar czf /b/home.tgz /home", "tar-home"),
        ("rsync -avz -e ssh /srv/www/ user@host:/srv/www/", "rsync-www"), ("pg_dump -U postgres app >x", "pg_dump-app"),
        ("chown -R www-data: /srv/wiki", "chown-wiki"), ("psql -U a -d app -c 'x'", "psql-app"),
        ("wget -q -O /dev/null https://x.org/cron", "wget-x.org-cron"), ("git -C /srv/x pull", "git-pull"),
        ("apt-get -y upgrade", "apt-get-upgrade"), ("aws --profile a s3 sync /a s3://b", "aws-s3-sync"),
        ("systemctl restart nginx.service", "restart-nginx"), ("service apache2 reload", "reload-apache2"),
        ("docker exec -u www-data cloud php cron.php", "cloud-cron"),
        ("docker system prune -af", "docker-system-prune"),
        ("docker compose -f /srv/c.yml run --rm app cleanup", "app-cleanup"), ("npx tsx a.ts", "a"),
        ("docker run --rm -v /a:/b org/image:latest sync", "docker-run-image"), ("poetry install", "poetry-install"),
        ("php -d memory_limit=1G /a/cron.php", "cron"), ("java -Xmx2g -cp /l/x.jar com.x.Main", "com.x.Main"),
        ("java -jar /opt/app-1.2.jar", "app"), ("flock -n /l sudo nice /opt/y.sh", "y"), ("sleep 9; sed -i x y", "sed"),
        ("ssh -i /k me@web1 /opt/restart.sh", "ssh-web1"), ("sshpass -p secret ssh web1", "ssh-web1"),
        ("sudo -u postgres vacuumdb --all", "vacuumdb"), ("$PHP /a/cron.php", "cron"),
    ],
)  # fmt: skip
def test_a_job_is_named_after_what_it_does(command: str, name: str) -> None:
    [found] = unique([naming(command, "0 1 * * *")], set())
    assert found == name


def test_names_are_told_apart_by_words_then_by_times() -> None:
    lines = ["/r sync mails", "/r sync users", "/r clean"]
    assert unique([naming(one, "0 1 * * *") for one in lines], set()) == ["r-sync-mails", "r-sync-users", "r-clean"]
    times = ["0 3 * * *", "30 15 * * *", "0 0 * * 1", "@reboot"]
    assert unique([naming("/b", one) for one in times], set()) == ["b-0300", "b-1530", "b-mon-0000", "b-at-boot"]
    taken = {"b"}
    assert unique([naming("/B", ""), naming("/b", "")], taken) == ["B-2", "b-3"]
    assert taken == {"b", "b-2", "b-3"}


TOLD_APART = [
    (["ENV=prod /opt/x.sh >/dev/null 2>&1", "ENV=test /opt/x.sh >/dev/null 2>&1"], ["x-prod", "x-test"]),
    (["DEBUG=1 x", "x"], ["x-debug", "x"]), (["SHARD=3 x", "SHARD=4 x"], ["x-shard-3", "x-shard-4"]),
    (["env RAILS_ENV=a rake db:clean", "env RAILS_ENV=b rake db:clean"], ["rake-db-clean-a", "rake-db-clean-b"]),
    (["/opt/x.sh $A", "/opt/x.sh \"${B}\""], ["x-a", "x-b"]),
    (["php /var/www/wiki/cron.php", "php /var/www/shop/cron.php"], ["cron-wiki", "cron-shop"]),
    (["cd /srv/wiki; php cron.php", "cd /srv/shop; php cron.php"], ["cron-wiki", "cron-shop"]),
    (["sleep 15; /opt/poll", "sleep 30; /opt/poll", "/opt/poll"], ["poll-15s", "poll-30s", "poll"]),
    (["/opt/poll 10", "/opt/poll 20"], ["poll-10", "poll-20"]), (["x --full", "x -q", "x"], ["x-full", "x-q", "x"]),
    (["t --config=/etc/a.conf", "t --config=/etc/b.conf"], ["t-a", "t-b"]),
    (["m.py --env prod --keep 7", "m.py --env dev --keep 7"], ["m-prod", "m-dev"]),
    (["curl http://x.org/a?task=one", "curl http://x.org/a?task=two"], ["curl-x.org-a-one", "curl-x.org-a-two"]),
    (["psql -d app -c 'REFRESH VIEW x'", "psql -d app -f /b/y.sql"], ["psql-app-REFRESH-VIEW", "psql-app-y"]),
    # neither redirections, nor numbers of options, nor secrets; then by the time
    (["x -v 2 -j 4 >/dev/null", "x -v 3 -j 8 2>&1"], ["x-0100", "x-0200"]),
    (["x >/a", "x 2&1>/b"], ["x-0100", "x-0200"]),
    (["x </dev/null", "x /dev/null"], ["x-0100", "x-0200"]), (["LANG=C x", "LC_ALL=de x"], ["x-0100", "x-0200"]),
    (["x --token=abc", "x --token abd"], ["x", "x-token"]),
    (["DB_PASSWORD=a x", "DB_PASSWORD=b x"], ["x-0100", "x-0200"]),
    (["x -p hunter2", "x -p hunter3"], ["x-0100", "x-0200"]),
    (["mysqldump -pone db", "mysqldump -ptwo db"], ["mysqldump-db-0100", "mysqldump-db-0200"]),
    (["curl -u me:one x.org/a", "curl -u me:two x.org/a"], ["curl-x.org-a-0100", "curl-x.org-a-0200"]),
    (["c.php token=5ecdf6b5", "c.php token=5ecdf6b6"], ["c-0100", "c-0200"]),
]  # fmt: skip


@pytest.mark.parametrize(("commands", "names"), TOLD_APART)
def test_names_are_told_apart_by_what_a_colleague_would_say(commands: list[str], names: list[str]) -> None:
    assert unique([naming(one, f"0 {at} * * *") for at, one in enumerate(commands, 1)], set()) == names


def test_the_folder_that_an_entry_runs_in_tells_it_apart() -> None:
    found = [naming("php artisan schedule:run", "* * * * *", folder) for folder in ("/var/www/shop", "/var/www/wiki")]
    assert unique(found, set()) == ["artisan-schedule-run-shop", "artisan-schedule-run-wiki"]


TIMES = [
    ("*/5 8-17 * * 1-5", "mon-fri-h8-17-every-5min"), ("0 3 1 * *", "day1-0300"), ("0 3 * * Sun", "sun-0300"),
    ("0 3 * * 0,6", "sun-sat-0300"), ("*/5 * * * *", "every-5min"), ("* * * * *", "2"), ("5 4 3 2 *", "0203"),
]  # fmt: skip


@pytest.mark.parametrize(("times", "word"), TIMES)
def test_the_time_is_the_last_thing_that_tells_names_apart(times: str, word: str) -> None:
    other = times if word == "2" else "@reboot"
    assert unique([naming("x", other), naming("x", times)], set())[1] == f"x-{word}"


def test_a_step_is_told_from_others_by_its_words() -> None:
    assert step_ids(["r sync mails", "r sync users", "r >/dev/null"]) == ["r-sync-mails", "r-sync-users", "r"]


def test_step_ids_are_ids() -> None:
    assert step_ids(["/a.b.c", "/a.b.c", "7z x", "echo"]) == ["a-b-c", "a-b-c-2", "run-7z", "echo"]
