"""What should be durable in a tree: what is found, where, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrun.convert import scan as scanning
from agentrun.convert.scan import scan
from agentrun.errors import NotFound

ENDLESS = "an endless loop with a sleep"
RETRIES = "retries by hand"
WAITS = "waits for something in a loop with a sleep"
PACED = "a loop over a list with a sleep in each round"
POST = "curl: a POST without an idempotency key"
CRONTAB = "puts a line into the crontab"

PYTHON = "import time, requests\n"
FILES = [
    # Python: what a loop with a sleep is for
    ("x.py", PYTHON + "while True:\n  work()\n  time.sleep(60)\n", [(2, ENDLESS)]),
    ("x.py", PYTHON + "while 1:\n  try:\n    work()\n  except Exception:\n    break\n  time.sleep(60)\n",
     [(2, ENDLESS)]),
    ("x.py", PYTHON + "while True:\n  try:\n    work()\n    break\n  except OSError:\n    time.sleep(5)\n",
     [(2, RETRIES)]),
    ("x.py", PYTHON + "for n in range(3):\n  try:\n    work()\n    break\n  except OSError:\n    time.sleep(5)\n",
     [(2, RETRIES)]),
    ("x.py", PYTHON + "work()\nwhile not ready():\n  time.sleep(5)\n", [(3, WAITS)]),
    ("x.py", PYTHON + "work()\nwhile not stopped:\n  time.sleep(5)\n", [(3, ENDLESS)]),
    ("x.py", PYTHON + "for each in things:\n  work(each)\n  time.sleep(2)\n", [(2, PACED)]),
    ("x.py", "from time import sleep as nap\nwhile True:\n  nap(60)\n", [(2, ENDLESS)]),
    ("x.py", "import asyncio\nasync def f():\n  while True:\n    await asyncio.sleep(9)\n", [(3, ENDLESS)]),
    ("x.py", PYTHON + "while True:\n  for each in things:\n    time.sleep(3)\n", [(3, PACED)]),
    ("x.py", PYTHON + "while True:\n  time.sleep(0.1)\n", []),
    ("x.py", "import time, pygame\nwhile True:\n  time.sleep(1)\n", []),
    ("x.py", PYTHON + "def ready():\n  while not there():\n    time.sleep(5)\n", []),  # a library
    ("x.py", PYTHON + "def ticks():\n  while True:\n    time.sleep(5)\n    yield\n", []),
    ("test_x.py", PYTHON + "while True:\n  time.sleep(60)\n", []),
    ("tests/x.py", PYTHON + "while True:\n  time.sleep(60)\n", []),
    ("x.py", "while True:\n  time.sleep(60)\n  print 'Python 2'\n", []),
    # Python: schedules in memory, POSTs, locks
    ("x.py", "import schedule\nschedule.every(10).minutes.do(f)\n", [(2, "a schedule in memory (schedule)")]),
    ("x.py",
     "from apscheduler.schedulers.blocking import BlockingScheduler\ns = BlockingScheduler()\ns.add_job(f, 'cron')\n",
     [(3, "a schedule in memory (APScheduler)")]),
    ("x.py", "app.conf.beat_schedule = {'a': {'task': 'b'}}\n", [(1, "a schedule in memory (celery beat)")]),
    ("x.py", PYTHON + "requests.post('https://x/pay')\n", [(2, "requests.post(): a POST without an idempotency key")]),
    ("x.py", PYTHON + "requests.post('https://x/pay', headers={'Idempotency-Key': k})\n", []),
    ("x.py", PYTHON + "requests.post('https://x/oauth/token')\n", []),
    ("x.py", PYTHON + "def f():\n  requests.post('https://x/pay')\n", []),  # a library
    ("x.py", "from slack_sdk import WebClient\nWebClient().chat_postMessage(text=t)\n",
     [(2, "WebClient().chat_postMessage(): a message or an order without an idempotency key")]),
    ("x.py", "import fcntl\nfcntl.flock(f, fcntl.LOCK_EX)\n", [(2, "fcntl.flock()")]),
    ("x.py", "import os\nopen('/run/x.pid', 'w').write(str(os.getpid()))\n", [(2, "a pid file")]),
    # shell
    ("x.sh", "while true; do\n  work\n  sleep 60\ndone\n", [(1, ENDLESS)]),
    ("x", "#!/bin/bash\nwhile :\ndo work; sleep 60; done\n", [(2, ENDLESS)]),
    ("x.sh", "while [ 1 ]; do sleep 1m; done\n", [(1, ENDLESS)]),
    ("x.sh", 'while [[ "0" = "0" ]]; do sleep 1m; done\n', [(1, ENDLESS)]),
    ("x.sh", "while true; do work && break; sleep 5; done\n", [(1, RETRIES)]),
    ("x.sh", "for i in 1 2 3; do work && break; sleep 5; done\n", [(1, RETRIES)]),
    ("x.sh", "for i in {1..5}; do if work; then break; fi; sleep 5; done\n", [(1, RETRIES)]),
    ("x.sh", "for i in $(seq 1 5); do work && exit 0; sleep 5; done\n", [(1, RETRIES)]),
    ("x.sh", "for host in a b; do ssh $host; sleep 5; done\n", [(1, PACED)]),
    ("x.sh", "until docker info; do sleep 2; done\n", [(1, WAITS)]),
    ("x.sh", "while ! nc -z db 5432; do sleep 2; done\n", [(1, WAITS)]),
    ("x.sh", "cat f | while read -r l; do curl $l; sleep 2; done\n", [(1, PACED)]),
    ("x.sh", "while kill -0 $!; do sleep 1; done\n", []),
    ("x.sh", "while true; do printf .; sleep 0.2; done\n", []),
    ("x.sh", "while true; do for h in a b; do sleep 3; done; done\n", [(1, PACED)]),
    ("x.sh", "cat <<EOF\nwhile true; do sleep 3; done\nEOF\n# while true; do sleep 3; done\n", []),
    ("x.sh", "curl -X POST https://x/pay\n", [(1, POST)]),
    ("x.sh", "curl -fsSXPOST https://x/pay\ncurl -sd a=b https://x/\ncurl --data-raw a https://x/\n",
     [(1, POST), (3, POST)]),
    ("x.sh", "curl -s -F f=@x -H 'Authorization: Bearer x' https://x/\n", [(1, POST)]),
    ("x.sh", "curl -G -d q=1 https://x/\ncurl -X PUT -d a https://x/\ncurl -o x https://x/\n", []),
    ("x.sh", "curl -X POST -H \"Idempotency-Key: $K\" https://x/pay\ncurl -d u=x https://x/login\n", []),
    ("x.sh", "api() { curl -sS \"$@\"; }\napi -X POST https://x/pay\n",
     [(2, "api: a POST without an idempotency key")]),
    ("x.sh", "wget --post-data=a https://x/\n", [(1, "wget: a POST without an idempotency key")]),
    ("x.sh", "nohup ./server > log 2>&1 &\n", [(1, "nohup … &")]),
    ("x.sh", "nohup ./server\n", []),
    ("x.sh", "echo $$ > /run/x.pid\n", [(1, "a pid file")]),
    ("x.sh", 'if [ -f "$LOCK" ]; then exit; fi\ntouch "$LOCK"\n', [(1, "a lock file")]),
    ("x.sh", 'test -e /tmp/x.lock && exit\ntouch /tmp/x.lock\n', [(1, "a lock file")]),
    ("x.sh", 'if [ -f yarn.lock ]; then yarn; fi\n', []),
    ("x.sh", "mkdir /tmp/x.lock || exit 1\n", [(1, "a lock folder")]),
    ("x.sh", "exec 9>/tmp/l\nflock -n 9 || exit\n", [(2, "flock by hand")]),
    ("x.sh", '(crontab -l; echo "*/5 * * * * /opt/x") | crontab -\n', [(1, CRONTAB)]),
    ("x.sh", "while true; do sleep 60; done\nif then\n", [(1, ENDLESS)]),  # broken, and read as far as can be
    # crontabs and others
    ("crontab", "A=b\n\n5 4 * * * /opt/x\n@daily y\n", [(3, "a crontab with 2 entries")]),
    ("etc/cron.d/x", "5 4 * * * root /opt/x\n", [(1, "a crontab with 1 entry")]),
    ("jobs.txt", "# every day\n5 4 * * * /opt/x\n", [(2, "a crontab with 1 entry")]),
    ("figures.txt", "1 2 3 4 5 6\n7 8 9 1 2 3\n", []),
    ("notes.txt", "5 4 * * * /opt/x\nand so on\n", []),
    ("x.timer", "[Timer]\nOnCalendar=daily\n", [(2, "a timer of systemd (OnCalendar=daily)")]),
    ("k.yaml", "apiVersion: batch/v1\nkind: CronJob\n", [(2, "a CronJob of Kubernetes")]),
    ("docker-compose.yml", "a:\n  command: sh -c 'while true; do x; sleep 60; done'\n", [(2, ENDLESS)]),
    ("compose.yml", "labels:\n  ofelia.job-exec.x.schedule: '@daily'\n", [(2, "a schedule in memory (ofelia)")]),
    ("Dockerfile", "RUN echo '5 * * * * /x' | crontab -\n", [(1, CRONTAB)]),
    ("x.js", "while (true) {\n  await work();\n  await sleep(1000);\n}\n", [(1, ENDLESS)]),
    ("x.js", "while (true) {\n  work();\n}\nawait sleep(1);\n", []),
    ("x.ts", "import cron from 'node-cron'\ncron.schedule('* * * * *', f)\n",
     [(2, "a schedule in memory (cron.schedule)")]),
    ("x.php", "<?php\nwhile (true)\n{\n  work();\n  sleep(5);\n}\n", [(2, ENDLESS)]),
    ("x.go", "func f() {\n\tfor {\n\t\twork()\n\t\ttime.Sleep(time.Minute)\n\t}\n}\n", [(2, ENDLESS)]),
    ("x.rb", "loop do\n  work\n  sleep 5\nend\n", [(1, ENDLESS)]),
    ("README.md", "while true; do sleep 60; done\n", []),
    ("x.bin", "#!/bin/sh\n\0while true; do sleep 60; done\n", []),
]  # fmt: skip


def put(folder: Path, path: str, text: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(("path", "text", "found"), FILES)
def test_what_is_found(tmp_path: Path, path: str, text: str, found: list[tuple[int, str]]) -> None:
    put(tmp_path, path, text)
    findings = scan(str(tmp_path)).findings
    assert [(each.line, each.what) for each in findings] == found
    assert all(each.file == path and each.why and each.to_do for each in findings)


@pytest.mark.parametrize("folder", [".git", "node_modules", "a/venv", "vendor", "env"])
def test_what_others_keep_is_not_looked_at(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}/x.sh", "while true; do sleep 60; done\n")
    if folder == "env":  # any name, if it is a virtual environment
        put(tmp_path, "env/pyvenv.cfg", "")
    assert scan(str(tmp_path)) == ([], 0, [])


@pytest.mark.parametrize(
    "word",
    ["bin/sync.sh", "/opt/shop/bin/sync.sh", "cd /opt/shop && ./bin/sync.sh -q", "~/bin/sync.sh"],
)
def test_a_script_that_a_crontab_names_is_found_by_the_end_of_its_path(tmp_path: Path, word: str) -> None:
    put(tmp_path, "crontab", f"0 3 * * * {word} >> /var/log/x.log 2>&1\n5 * * * * {word}\n")
    put(tmp_path, "bin/sync.sh", "echo\n")
    put(tmp_path, "old/sync.sh", "echo\n")
    _, started = scan(str(tmp_path)).findings[::-1]
    assert (started.file, started.line) == ("bin/sync.sh", 1)
    assert started.what == "started by cron, crontab:1, and 1 more"
    assert started.to_do == "agentrun convert: a job file whose steps are its statements"


def test_a_script_of_which_there_are_two_is_not_guessed(tmp_path: Path) -> None:
    put(tmp_path, "crontab", "0 3 * * * /srv/run.sh\n")
    for folder in "ab":
        put(tmp_path, f"{folder}/run.sh", "echo\n")
    assert [each.file for each in scan(str(tmp_path)).findings] == ["crontab"]


def test_a_workflow_counts_if_it_starts_a_script_of_the_tree(tmp_path: Path) -> None:
    head = "on:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  x:\n    steps:\n"
    put(tmp_path, ".github/workflows/a.yml", head + "      - uses: github/codeql-action/analyze@v3\n")
    assert scan(str(tmp_path)).findings == []
    put(tmp_path, ".github/workflows/b.yml", head + "      - run: python scripts/fetch.py\n")
    put(tmp_path, "scripts/fetch.py", "print(1)\n")
    (found,) = scan(str(tmp_path)).findings
    assert (found.file, found.what) == (
        "scripts/fetch.py", "started by GitHub Actions (0 3 * * *), .github/workflows/b.yml:3",
    )  # fmt: skip


def test_links_in_a_circle_and_to_the_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    put(inside, "x.sh", "while true; do sleep 60; done\n")
    put(tmp_path, "outside.sh", "while true; do sleep 60; done\n")
    os.symlink("..", inside / "up")
    os.symlink("../outside.sh", inside / "out.sh")
    os.symlink("nowhere", inside / "dangling.sh")
    os.mkfifo(inside / "pipe.sh")
    assert [each.file for each in scan(str(inside)).findings] == ["x.sh"]


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    for name in ("b.sh", "a.sh", "c/a.sh", "B.sh"):
        put(tmp_path, name, "nohup x &\nwhile true; do sleep 60; done\n")
    places = [(each.file, each.line) for each in scan(str(tmp_path)).findings]
    assert places == sorted(places) and len(places) == 8
    assert scan(str(tmp_path)) == scan(str(tmp_path))


def test_it_has_bounds_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put(tmp_path, f"{number}.sh", "while true; do sleep 60; done\n")
    put(tmp_path, "large.sh", b"while true; do sleep 60; done\n" + b"#" * scanning.LARGEST)
    assert len(scan(str(tmp_path)).findings) == 5
    monkeypatch.setattr(scanning, "MOST_FINDINGS", 2)
    assert scan(str(tmp_path))[1:] == (6, ["3 findings: only the first 2 are shown"])
    monkeypatch.setattr(scanning, "MOST_FILES", 3)
    findings, files, left_out = scan(str(tmp_path))
    assert (len(findings), files, left_out[0]) == (2, 3, "all behind 2.sh: 3 files were looked at")


def test_code_nested_beyond_all_reason(tmp_path: Path) -> None:
    put(tmp_path, "x.py", "x = " + "(" * 150 + "1" + ")" * 150 + "\n" + "y = " + "-" * 3000 + "1\n")
    put(tmp_path, "x.sh", "$(" * 5000)
    assert scan(str(tmp_path)).left_out == []


@pytest.mark.parametrize(("path", "said"), [("no", "no is not there"), ("file", "file is a file")])
def test_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "file", "")
    with pytest.raises(NotFound, match=said):
        scan(path)
