"""Whole crontabs: what becomes of their entries and other lines, and what is said of them. Some of it really runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.convert import cronbugs, croncomments
from agentrun.convert.cronjob import Wishes, fixed_times
from agentrun.convert.cronnames import naming, step_ids, unique
from agentrun.convert.crontab import read
from agentrun.convert.crontabs import Conversion, Target, convert
from agentrun.convert.percent import as_cron_reads
from agentrun.spec import schedules
from agentrun.spec.decode import decode

NOW = 1_795_168_800_000  # 2026-11-20T10:00:00Z
PROGRAM = ("/py", "-P", "-m", "agentrun")
RESUME = (
    "\n# all jobs of agentrun: go on with what was cut off\n"
    "@reboot /py -P -m agentrun resume\n* * * * * /py -P -m agentrun resume\n"
)


def converted(text: str | bytes, **wishes: object) -> Conversion:
    table = read(text if isinstance(text, bytes) else text.encode())
    return convert(table, Wishes(now=NOW, **wishes), Target("/jobs", PROGRAM), set())  # type: ignore[arg-type]


def job(text: str, **wishes: object) -> str:
    [made] = converted(text, **wishes).jobs
    decode(made.text, "x.yaml")
    return made.text


def said(found: Conversion, kind: str) -> list[str]:
    return [note.message for note in found.notes if note.kind == kind]


def test_a_crontab_becomes_jobs_and_a_crontab_that_runs_them() -> None:
    found = converted(
        "# Wiki\nSHELL=/bin/bash\nMAILTO=ops@example.org\nPATH=/opt/bin:/usr/bin:/bin\n\n"
        "# Nightly backup of the wiki\n"
        "17 3\t* * 1-5   cd /srv/wiki && flock -n /tmp/w ./backup.sh --all >>/var/log/w 2>&1\n"
        "@reboot  /opt/serve\n"
    )
    assert [(made.name, made.line, made.user) for made in found.jobs] == [("backup", 7, ""), ("serve", 8, "")]
    assert found.jobs[0].text == (
        "name: backup\ndescription: Nightly backup of the wiki\nschedule: 17 3 * * 1-5\nconcurrency: forbid\n"
        "env: {PATH: '/opt/bin:/usr/bin:/bin'}\nworking_dir: /srv/wiki\nshell: [/bin/bash]\n\nsteps:\n- id: backup\n"
        "  run: ./backup.sh --all >>/var/log/w 2>&1\n"
    )
    assert found.jobs[1].text == (
        "name: serve\non_tick: restart\nenv: {PATH: '/opt/bin:/usr/bin:/bin'}\nworking_dir: '~'\n\nsteps:\n"
        "- id: serve\n"
        "  run: /opt/serve\n  # what it starts in the background is meant to stay\n  leave_running: true\n"
    )
    assert found.crontab.decode() == (
        "# Wiki\nSHELL=/bin/bash\nMAILTO=ops@example.org\nPATH=/opt/bin:/usr/bin:/bin\n\n"
        "# Nightly backup of the wiki\n17 3\t* * 1-5   /py -P -m agentrun run /jobs/backup.yaml\n"
        "@reboot  /py -P -m agentrun run /jobs/serve.yaml\n" + RESUME
    )
    assert "ops@example.org" in said(found, "advice")[0]


def test_other_lines_stay_to_the_byte() -> None:
    text = (
        b"\xff\xfe\r\n# caf\xe9\r\n  \nfoo bar\n0 1 * * * /caf\xe9\n0 2 * * * date +%F\n"
        b"0 0 31 2 * /x\n*/5 * * * * /ok\r\nA=1"
    )
    found = converted(text)
    assert found.crontab.startswith(text.replace(b"/ok\r\n", b"/py -P -m agentrun run /jobs/ok.yaml\n") + b"\n")
    assert found.kept == 3
    assert {note.line for note in found.notes if "stays as it is" in note.message} == {1, 4, 5, 6, 7}


@pytest.mark.parametrize("text", ["# only\n", "", "A=1\n", "0 2 * * * date +%F\n"])
def test_without_a_job_the_crontab_stays_as_it_is(text: str) -> None:
    assert converted(text).crontab == text.encode()


def test_a_system_crontab_keeps_its_users_and_resumes_for_each() -> None:
    found = converted("17 *\t* * *\troot    /a\n0 1 * * * www-data /b\n")
    assert [(made.name, made.user) for made in found.jobs] == [("a", "root"), ("b", "www-data")]
    assert found.crontab.decode().splitlines()[:2] == [
        "17 *\t* * *\troot    /py -P -m agentrun run /jobs/a.yaml",
        "0 1 * * * www-data /py -P -m agentrun run /jobs/b.yaml",
    ]  # fmt: skip
    assert "@reboot www-data /py -P -m agentrun resume" in found.crontab.decode()


def test_converting_again_converts_nothing_more() -> None:
    found = converted(converted("0 1 * * * /a\n").crontab)
    assert found.jobs == [] and found.kept == 0
    assert found.crontab == converted("0 1 * * * /a\n").crontab
    more = converted(found.crontab + b"0 2 * * * /b\n")
    assert more.crontab.count(b"resume") == 2 and [made.name for made in more.jobs] == ["b"]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("/a b", ""), ("a && b || c", ""), ("a | b", ""), ("echo a", ""), ("a; b", "shell: [/bin/sh]"),
        ("a | (b; c)", "shell: [/bin/sh]"), ("a $(b; c)", "shell: [/bin/sh]"), ("if a; then b; fi", "shell: [/bin/sh]"),
        ("for i in 1 2; do a; done", "shell: [/bin/sh]"), ("a (", "shell: [/bin/sh]"), ("cat%a", "shell: [/bin/sh]"),
    ],
)  # fmt: skip
def test_the_shell_is_cron_s_wherever_ours_might_do_otherwise(command: str, key: str) -> None:
    found = [line for line in job(f"0 1 * * * {command}\n").splitlines() if line.startswith("shell")]
    assert found == ([key] if key else [])


def test_another_shell_s_text_is_left_alone() -> None:
    text = job("SHELL=/usr/bin/fish\n0 1 * * * cd /a; and flock -n /l x >/dev/null\n")
    assert "shell: [/usr/bin/fish]" in text and "run: cd /a; and flock -n /l x >/dev/null" in text
    assert "working_dir: '~'" in text


def test_variables_are_where_they_belong() -> None:
    text = job("HOME=/srv\nCRON_TZ=Europe/Riga\nTZ=UTC\nA=\"b c\"\nMAILTO=x\nLOGNAME=y\n0 1 * * * cd a && ./x\n")
    assert "timezone: Europe/Riga\n" in text and "working_dir: /srv/a\n" in text
    assert "env: {TZ: UTC, A: b c, HOME: /srv}\n" in text


@pytest.mark.parametrize(
    ("times", "fixed", "jitter"),
    [("*/5 * * * *", "*/5 * * * *", 0), ("-1 2 * * *", "1 2 * * *", 0), ("0~30 3 * * *", "0 3 * * *", 1800),
    ("~ 3 * * *", "0 3 * * *", 3540),
     ("5~5 3 * * *", "5 3 * * *", 0), ("9~3 3 * * *", "", 0), ("1,2~5 * * * *", "", 0), ("@reboot", "@reboot", 0)],
)  # fmt: skip
def test_what_is_cronie_s_alone(times: str, fixed: str, jitter: int) -> None:
    assert fixed_times(times, "line") == (fixed, jitter)


def test_a_random_hour_is_chosen_once() -> None:
    times, jitter = fixed_times("0 1~4 * * *", "the line")
    assert times == fixed_times("0 1~4 * * *", "the line")[0] and jitter == 0
    assert 1 <= int(times.split()[1]) <= 4
    assert schedules.parse(times)


def test_locks_that_several_entries_take_become_one_key() -> None:
    wiki = "flock -n /tmp/wiki.lock"
    found = converted(f"0 1 * * * {wiki} /a\n0 2 * * * {wiki} /b\n0 3 * * * flock -n /l /c\n")
    assert ["concurrency: {policy: forbid, key: wiki}" in made.text for made in found.jobs] == [True, True, False]
    assert "concurrency: forbid" in found.jobs[2].text


@pytest.mark.parametrize(
    "other", ["flock -w 5 /tmp/l /b", "flock -n /tmp/l echo b", "/b && flock -n /tmp/l /c || true",
    "date +%F; flock /tmp/l b"]
)
def test_a_lock_that_something_takes_that_stays_is_taken_still(other: str) -> None:
    found = converted(f"0 1 * * * flock -n /tmp/l /a\n0 2 * * * {other}\n")
    assert "run: flock -n /tmp/l /a" in found.jobs[0].text


def test_a_lock_that_the_script_takes_itself_stays(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("exec 9>/tmp/l.lock\nflock 9\n")
    assert "run: flock -n /tmp/l.lock" in job(f"0 1 * * * flock -n /tmp/l.lock {script}\n")


def test_locks_of_two_users_are_two_state_folders() -> None:
    found = converted("0 1 * * * root flock -n /tmp/l /a\n0 2 * * * www-data flock -n /tmp/l /b\n")
    assert all("flock -n" in made.text for made in found.jobs)


def test_what_must_not_happen_twice_is_asked_about() -> None:
    text = job("0 1 * * * /report | mail -s Report ops@example.org\n")
    assert "on_interrupt: ask" in text
    assert "on_interrupt" not in job("0 1 * * * /report | tee /tmp/x\n")


@pytest.mark.parametrize(
    ("command", "stays"),
    [("/etc/init.d/x restart", True), ("service x start", True), ("tmux new -d x", True), ("a & b", True),
    ("x --daemon", True),
     ("f &> /dev/null", True), ("/x start", False), ("x &", False), ("a && b", False)],
)  # fmt: skip
def test_what_is_to_outlive_the_run_may(command: str, stays: bool) -> None:
    assert ("leave_running: true" in job(f"0 1 * * * {command}\n")) is stays


# -- names and comments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/backup.sh daily", "backup"), ("/usr/bin/php artisan schedule:run", "artisan-schedule-run"),
        ("/opt/venv/bin/python3 manage.py clearsessions", "manage-clearsessions"),
        ("python -m app.sync --all", "app.sync"),
        ("certbot renew -q", "certbot-renew"), ("nice -n 5 ionice -c3 /opt/x.py", "x"),
        ("sudo -u www php /a/cron.php", "cron"),
        ("su - bob -c \"cd /app && python3 audit.py\"", "audit"),
        ("bash -lc 'cd /a; bundle exec rake cache:warm'", "bundle-exec-rake"),
        ("run-parts --report /etc/cron.daily", "run-parts-cron.daily"),
        ("curl -s https://www.example.org/a/cron.php?x=1", "curl-example.org-cron"),
        ("/bin/sh", "sh"), ("mysqldump -u root wiki | gzip > x", "mysqldump-wiki"), ("/etc/init.d/x restart", "x"),
        ("", "job"),
        ("flock -w 5 /l /opt/y.sh", "y"), ("echo hi", "echo"), ("$HOME/bin/z.sh", "z"), ("env A=1 -i x", "x"),
    ],
)  # fmt: skip
def test_a_job_is_named_after_what_it_does(command: str, name: str) -> None:
    [found] = unique([naming(command, "0 1 * * *")], set())
    assert found == name or (name == "mysqldump-wiki" and found.startswith("mysqldump"))


def test_names_are_told_apart_by_words_then_by_times() -> None:
    lines = ["/r sync mails", "/r sync users", "/r clean"]
    assert unique([naming(one, "0 1 * * *") for one in lines], set()) == ["r-sync-mails", "r-sync-users", "r-clean"]
    times = ["0 3 * * *", "30 15 * * *", "0 0 * * 1", "@reboot"]
    assert unique([naming("/b", one) for one in times], set()) == ["b-0300", "b-1530", "b-day1-0000", "b-at-boot"]
    taken = {"b"}
    assert unique([naming("/B", ""), naming("/b", "")], taken) == ["B-2", "b-3"]
    assert taken == {"b", "b-2", "b-3"}


def test_step_ids_are_ids() -> None:
    assert step_ids(["/a.b.c", "/a.b.c", "7z x", "echo"]) == ["a-b-c", "a-b-c-2", "run-7z", "echo"]


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        (["# Nightly backup"], ("Nightly backup", "")), (["#run it,", "# every day:"], ("run it, every day", "")),
        (["# m h  dom mon dow   command"], ("", "")), (["#-----", "# DAILY", "#-----"], ("", "")),
        (["# 0 1 * * * /old"], ("", "")),
        (["# about cron", "# m h dom mon dow command", "# Wiki"], ("Wiki", "")), (["# PATH=/x"], ("", "")),
        (["# Regular cron jobs for the x package"], ("", "")),
        (["# " + "a long word " * 12], ("", ("a long word " * 12).strip())),
        (["#@daily x y"], ("", "")), (["# |  .---- hour (0 - 23)"], ("", "")),
    ],
)  # fmt: skip
def test_comments_that_are_about_the_entry(comment: list[str], said: tuple[str, str]) -> None:
    assert croncomments.said(comment) == said


def test_a_comment_holds_for_the_entries_below_it_that_run_the_same() -> None:
    table = read(b"# Spread\n0 1 * * * /a 1\n0 2 * * * /a 2\n0 3 * * * /b\n\n0 4 * * * /a 3\n")
    about = croncomments.of_entries(table.lines)
    assert [about[line][0] for line in (2, 3, 4, 6)] == ["Spread", "Spread", "", ""]


# -- live bugs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 1 * * * x >l-$(date +%F)", "first %"), ("0 1 * * * x 2>&1 >/tmp/l", "`2>&1 >/tmp/l`"),
        ("0 1 * * * x &>/tmp/l", "`&>` is bash's"),
        ("0 1 * * * x &2>/dev/null", "`&2>`"), ("0 1 * * * source /a; x", "`source` is bash's"),
        ("0 1 * * * [[ -f /x ]] && y", "`[[`"),
        ("0 1 * * * sleep $((RANDOM \\% 5)); x", "no $RANDOM"), ("0 1 * * * ./x.sh", "is looked for in ~"),
        ("0 1 * * * python3 x.py", "x.py is looked"),
        ("0 1 * * * cd /a; ./x", "goes on where it is"), ("0 1 * * * mysqldump -uroot -phunter2 x", "a password"),
        ("0 1 * * * curl https://me:hunter2@x.org/", "URL with a password"),
        ("0 1 * * * API_TOKEN=abcdef x", "a secret"),
        ("0 1 13 * 5 x", "a day or a weekday is enough"), ("0 0 30 2 * x", "it never comes"),
        ("*/7 * * * * x", "uneven"),
        ("* 3 * * * x", "every minute of that hour"),
        ("0 1 * * * root x\n0 2 * * * /a\n0 3 * * * /b\n", "taken for the program"), ("0 1 * * * x", "no newline"),
        ("0 1 * * * x\r\n", "carriage return"), ("PATH=$HOME/b:/bin\n0 1 * * * x\n", "letter by letter"),
        ("MAILTO=\n0 1 * * * x\n", "no value"),
        ("0 1 * * * x y\n0 1 * * * x y\n", "twice"), ("hello\n0 1 * * * x\n", "neither a comment"),
        ("0 1 * * * x (\n", "cannot read it"),
    ],
)  # fmt: skip
def test_it_looks_wrong(line: str, words: str) -> None:
    assert any(words in message for message in said(converted(line), "bug"))


@pytest.mark.parametrize(
    "line",
    [
        "0 1 * * * x >l-$(date +\\%F) 2>&1", "*/15 8-18 * * 1-5 /opt/x.sh --password-file /a",
        "0 1 * * * cd /a && ./x.py",
        "0 1 * * * ~/x.sh && $HOME/y.sh", "SHELL=/bin/bash\n0 1 * * * source /a &>/dev/null; [[ -f x ]]",
        "0 1 * * * mysqldump -p$PW x",
        "0 1 * * * curl https://x.org/?token=$T", "0 1 1 * * x", "*/20 * * * * x", "0 1 * * * bash -c 'x y'",
        "0 1 * * * x -p /a",
    ],
)  # fmt: skip
def test_it_looks_right(line: str) -> None:
    assert said(converted(line + "\n"), "bug") == []


def test_programs_are_looked_for_on_this_machine_s_own_crontab_only() -> None:
    line = "0 1 * * * /nosuch/program\n0 2 * * * nosuchprogram\n0 3 * * * sh -c :\n"
    assert said(converted(line), "bug") == []
    assert len(said(converted(line, here=True), "bug")) == 2


def test_a_script_that_can_be_read_is_offered_to_the_converter(tmp_path: Path) -> None:
    script = tmp_path / "back up.sh"
    script.write_text("#!/bin/bash\nmake a\n")
    calls = {f"'{script}' --all >>l": 1, f"cd {tmp_path} && bash 'back up.sh'": 1}
    calls |= {f"nice '{script}'": 0, f"'{script}' | x": 0}
    for command, number in calls.items():
        notes = converted(f"0 1 * * * {command}\n").notes
        found = [note.hint for note in notes if "is a shell script" in note.message]
        assert found == ["--scripts"] * number


def test_the_time_between_two_starts() -> None:
    assert [cronbugs.every(schedules.parse(one)) for one in ("*/15 * * * *", "0 * * * *", "0 6,18 * * *",
    "0 3 * * *")] == [
        900, 3600, 43200, 86400,
    ]  # fmt: skip


# -- it runs --------------------------------------------------------------------------------------------------------

RUNS = [
    "cd sub && ./deed one >>log 2>&1",
    "mkdir -p made && ./deed a && ./deed b && ./deed c",
    "./deed a; ./fail; ./deed b",
    "./deed a && ./fail && ./deed b",
    "./fail || ./deed b",
    "test -x /nosuch || ( cd sub && ./deed anacron )",
    "[ -f nosuch ] && ./deed never",
    "[ -d sub ] && ./deed a && ./deed b",
    "if [ -x ./deed ]; then ./deed yes; fi",
    "flock -n lock timeout 60 ./deed locked",
    "set -a; . ./env; set +a; ./deed \"$WORD\"",
    "export WORD='a b' && ./deed \"$WORD\"",
    "cat > got; wc -c < got%one\\%%two",
    "./deed \"$(printf '\\%s' x)\" | tr a-z A-Z > out",
    "./deed background &",
    "A=1; ./deed $A; B=2 ./deed $B",
    "./deed $WORD $HOME",
]


def place(root: Path) -> None:
    (root / "sub").mkdir(parents=True)
    for name, text in (("deed", 'echo "did $* in ${PWD#"$TOP"} $WORD" | tee -a "$TOP/deeds"'),
    ("fail", "echo no >&2; exit 3")):
        for folder in (root, root / "sub"):
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
    (root / "env").write_text("WORD='from file'\n")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("command", RUNS)
def test_the_job_does_what_cron_did(tmp_path: Path, command: str) -> None:
    home, state = tmp_path / "home", tmp_path / "state"
    text = f"HOME={home}\nWORD=crontab\n0 1 * * * {command}\n"
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "WORD": "crontab", "TOP": str(home)}

    given = as_cron_reads(command)
    place(home)
    cron = subprocess.run(
        ["/bin/sh", "-c", given.command], cwd=home, env=env, input=(given.stdin or "").encode(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    theirs = files(home)
    subprocess.run(["rm", "-rf", str(home)], check=True)

    place(home)
    file = tmp_path / "job.yaml"
    file.write_text(job(text, homes={"": str(home)}))
    call = [sys.executable, "-P", "-m", "agentrun"]
    env |= {"AGENTRUN_HOME": str(state)} | {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}
    ran = subprocess.run([*call, "run", "--no-tick", str(file)], env=env, cwd="/", capture_output=True)
    name = file.read_text().splitlines()[0].removeprefix("name: ")
    logs = subprocess.run([*call, "logs", "--raw", name], env=env, capture_output=True)
    ours = files(home)
    ours.pop("lock", None), theirs.pop("lock", None)
    assert ours == theirs
    assert logs.stdout == cron.stdout
    skipped = "  if: " in file.read_text() and ran.returncode == 0
    assert ran.returncode == cron.returncode or (skipped and cron.returncode == 1), ran.stderr
