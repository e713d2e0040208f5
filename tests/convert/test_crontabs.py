"""Whole crontabs: what becomes of their entries and other lines, and what is said of them. Some of it really runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.convert import cronbugs, croncomments
from agentrun.convert.cronjob import Wishes, fixed_times
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


# -- comments -------------------------------------------------------------------------------------------------------


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
        ("0 1 * * * x 2&1>log", "`2&1>log` starts the command in the background with a word 2, and redirects nothing"),
        ("0 1 * * * x >log 2&1",
         "`2&1` starts the command in the background with a word 2, and then a program called 1"),
        ("0 1 * * * a && (x 2&1) >>l", "`2&1`"), ("SHELL=/bin/bash\n0 1 * * * x >l 2& 1", "`2&1`"),
        ("0 1 * * * sudo -u a bash -c 'x >l 2&1'", "`2&1`"), ("0 1 * * * x >l 2>&1 &1", "`&1`"),
        ("0 1 * * * x >l 2>1", "`2>1` writes to a file called 1"), ("0 1 * * * echo x 1>>2", "a file called 2"),
        ("0 1 * * * x >l 2 >&1", "gives the command a word 2"), ("0 1 * * * x &1>l", "`&1>`"),
        ("0 1 * * * curl http://x.org/?a=2&b=1", "ends the command in its URL"),
        ("0 1 * * * x &>>/l", "`&>>` is bash's: sh starts the command in the background"),
        ("0 1 * * * x >&/l", "`>&/l`"),
        ("0 1 * * * x |& y", "`|&`"), ("0 1 * * * function f { a; }; f", "`function`"),
        ("0 1 * * * diff <(a) <(b)", "`<(…)`"), ("0 1 * * * a > >(b)", "`>(…)`"), ("0 1 * * * a <<<b", "`<<<`"),
        ("0 1 * * * for i in {1..3}; do a $i; done", "`{1..3}`"), ("0 1 * * * cp /a/{b,c} /d", "`{b,c}`"),
        ("0 1 * * * rm \"$A\"/*.{jpg,png}", "`{jpg,png}`"), ("0 1 * * * cp a{,.bak}", "`{,.bak}`"),
        ("0 1 * * * printf $'a\\tb'", "`$'…'`"), ("0 1 * * * [ a == $B ] && x", "`==`"),
        ("0 1 * * * test a == $B && x", "`==`"), ("0 1 * * * x ${A:0:3}", "bad substitution"),
        ("0 1 * * * x ${A//a/b}", "bad substitution"), ("0 1 * * * a=(1 2); x", "`(1 2)…`"),
        ("0 1 * * * let a=1", "`let`"),
        ("0 1 * * * echo -e a", "it prints -e, too"), ("0 1 * * * sh -c '[[ -f x ]] && y'", "`[[`"),
        *((f"0 1 * * * {one}", "a password") for one in (
            "mysql -P 3306 -ppw d", "/usr/bin/mariadb-dump -p'a b' d", "docker exec db mysqldump -pgeheim d",
            "docker exec db sh -c \"mysqldump -pgeheim $X\"", "sshpass -pgeheim ssh x", "sshpass -p geheim ssh x",
            "curl -u me:pass https://x.org", "curl -sume:pass https://x.org", "curl --user 'me:a b' https://x.org",
            "curl -u $U:pass https://x.org", "wget --http-password geheim x.org", "x --password='geheim'",
        )),
        ("0 1 * * * AWS_SECRET_ACCESS_KEY=abcDEF123 x", "a secret"), ("0 1 * * * x token=5ecdf6b535", "a secret"),
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
        # redirections
        "0 1 * * * x >l 2>&1 &", "0 1 * * * x 2 & /y", "0 1 * * * sleep 2 & /y", "0 1 * * * x '2&1' \"a &2>b\"",
        "0 1 * * * x & 2>/err /y", "0 1 * * * x 2>&1 >/dev/null | y", "0 1 * * * x >2.log 2>1.log", "0 1 * * * x >&2",
        "0 1 * * * curl 'http://x.org/?a=2&b=1'", "0 1 * * * curl http://x.org/?a=2 & /y",
        # what is sh's as well, in quotes, or another program's
        "0 1 * * * find /x -exec rm {} \\;", "0 1 * * * find /x -name '*.{jpg,png}'", "0 1 * * * grep 'x$' /y",
        "0 1 * * * docker ps --format {{.ID}},{{.Name}}", "0 1 * * * curl -d {\"a\":1,\"b\":2} x.org/{a,b}",
        "0 1 * * * awk '{print $1, $2}' /x", "0 1 * * * x ${A:-1} ${A##*/} ${#A} ${A:=2} ${A:+b}",
        "0 1 * * * [ \"$A\" = b ] && x '=='", "0 1 * * * bash -c '[[ -f x ]] && source y &>l; a {1..3}'",
        "0 1 * * * echo -n x", "SHELL=/bin/ash\n0 1 * * * source /a; x",
        "SHELL=/bin/bash\n0 1 * * * a <<<b |& diff <(a) $'x' {1..3} ${A:0:3}; [ a == b ]; function f { a; }",
        # no passwords
        "0 1 * * * mysql -P3306 d", "0 1 * * * mysql --port=3306 --password= d", "0 1 * * * mysql -p\"$PW\" -P3306 d",
        "0 1 * * * mysql -p$(cat /f) d", "0 1 * * * mysqldump d | ssh -p22 x", "0 1 * * * /opt/mysql-backup.sh -p22",
        "0 1 * * * /opt/backup.sh mysql -pfull", "0 1 * * * sshpass -p \"$PW\" ssh -p22 x",
        "0 1 * * * sshpass -f /a ssh x",
        "0 1 * * * sshpass -e ssh -p22 x", "0 1 * * * curl",
        "0 1 * * * curl -u me x.org", "0 1 * * * curl -u me: x.org",
        "0 1 * * * curl -u $U:$P x.org", "0 1 * * * curl --user \"me:$PW\" x.org", "0 1 * * * curl -A a:b x.org",
        "0 1 * * * docker run -u 1000:1000 x curl y", "0 1 * * * chown -R me:pass /x", "0 1 * * * x --password=\"$PW\"",
        "0 1 * * * PASSWORD_FILE=/etc/pw x", "0 1 * * * TOKENIZERS_PARALLELISM=false x", "0 1 * * * MAX_TOKENS=4096 x",
        "0 1 * * * TOKEN=`cat /t` x", "0 1 * * * TOKEN=\"$(cat /t)\" x", "0 1 * * * psql --no-password database",
        "0 1 * * * docker login --password /run/secrets/x",
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
