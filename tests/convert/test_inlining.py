"""Entries that call a script, and its statements, as one job; and when they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.convert import shell
from agentrun.convert.cronjob import Wishes
from agentrun.convert.crontab import read
from agentrun.convert.crontabs import Conversion, Target, convert
from agentrun.spec.decode import decode

LINKED = """\
#!/bin/bash
# Copy
./note "$PWD"

# Look beside it
cd ../shared
./note "$PWD"
"""

SCRIPT = """\
#!/bin/bash
# Copy what is new.
set -e
day=$1

# Fetch
./note "$0 fetches $day"

# Store
./note "stores $day in $PWD at $LINENO"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    put(tmp_path / "copy.sh", SCRIPT)
    put(tmp_path / "note", '#!/bin/sh\necho "$@" >> calls\n')
    return tmp_path


def put(path: Path, text: str, mode: int = 0o755) -> None:
    path.write_text(text)
    path.chmod(mode)


def converted(text: str, place: Path, *, take_logs: bool = False) -> Conversion:
    wishes = Wishes(take_logs=take_logs, scripts=shell.convert, homes={"": str(place)})
    return convert(read(text.encode()), wishes, Target("/jobs", ("/py",)), set())


def kept(found: Conversion) -> list[str]:
    return [note.message.partition(" stays one step: ")[2] for note in found.notes if note.kind == "kept"]


def test_the_entry_has_the_times_and_the_script_the_steps(place: Path) -> None:
    found = converted(
        f"PATH=/usr/bin:/bin\n# Every night\n17 3 * * *  cd {place} && timeout 10m ./copy.sh 'a b' && "
        "curl -fsS https://hc-ping.com/abc\n",
        place,
    )
    [made] = found.jobs
    assert made.text == (
        f"# Converted from {place}/copy.sh\n\n"
        "name: copy\ndescription: Every night\nschedule: 17 3 * * *\nenv: {PATH: '/usr/bin:/bin'}\n"
        f"working_dir: {place}\ncarry: shell\nshell: [/bin/bash]\nscript: ./copy.sh\nargs: [a b]\n"
        "defaults: {timeout: 10m}\nnotify: {to: [{ping: 'https://hc-ping.com/abc'}]}\n\n"
        "steps:\n- id: fetch\n  line: 3\n  run: |\n    set -e\n    day=$1\n\n    # Fetch\n"
        '    ./note "$0 fetches $day"\n\n- id: store\n  run: |\n    # Store\n'
        '    ./note "stores $day in $PWD at $LINENO"\n'
    )
    decode(made.text, "copy.yaml")
    assert [(name, script.path, script.steps) for name, script in found.scripts] == [("copy", f"{place}/copy.sh", 2)]
    assert [note.message for note in found.notes if note.line == 3 and note.kind == "advice"] == [
        "timeout 10m: it is that of each step now, and was that of the whole script"
    ]


def test_without_a_comment_the_script_says_what_it_is_for(place: Path) -> None:
    assert "description: Copy what is new\n" in converted(f"1 2 * * * {place}/copy.sh x", place).jobs[0].text


@pytest.mark.parametrize(
    ("command", "script", "args"),
    [
        ("{}/copy.sh", "{}/copy.sh", None),
        ("~/copy.sh", "{}/copy.sh", None),
        ('"$HOME/copy.sh" --all', "{}/copy.sh", ["--all"]),
        ("${{HOME}}/copy.sh $HOME/x", "{}/copy.sh", ["{}/x"]),
        ("bash {}/copy.sh", "{}/copy.sh", None),
        ("/usr/bin/bash copy.sh '*'", "copy.sh", ["*"]),
        ("./copy.sh;", "./copy.sh", None),
        ("./copy.sh 2>&1", "./copy.sh", None),
        ("./copy.sh 010 true '' '~' null 1e3 a:b", "./copy.sh", ["010", "true", "", "~", "null", "1e3", "a:b"]),
        ("{}/copy.sh >/dev/null 2>&1", "{}/copy.sh", None),
    ],
)
def test_calls(place: Path, command: str, script: str, args: list[str] | None) -> None:
    [made] = converted(f"1 2 * * * {command.format(place)}\n", place).jobs
    job = decode(made.text, "x.yaml")
    assert job.script == script.format(place)
    assert list(job.args) == [each.format(place) for each in args or ()]
    assert [step.id for step in job.steps] == ["fetch", "store"]


@pytest.mark.parametrize(
    "entry",
    [
        "1 2 * * * copy.sh",  # from PATH, whatever is there
        "SHELL=/usr/bin/fish\n1 2 * * * ./copy.sh",
        "HOME=/nosuch\n1 2 * * * $HOME/copy.sh",
        "1 2 * * * ./copy.sh%a",
        "1 2 * * * ./copy.sh | cat",
        "1 2 * * * nice ./copy.sh",
    ],
)
def test_what_is_seen_to_be_no_call(place: Path, entry: str) -> None:
    found = converted(entry + "\n", place)
    assert found.scripts == [] and "carry" not in found.jobs[0].text


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("./copy.sh >> log 2>&1", "what it reads or prints is elsewhere (>> log 2>&1)"),
        ("./copy.sh < in", "what it reads or prints is elsewhere (< in)"),
        ("./copy.sh 2> errors", "what it reads or prints is elsewhere (2> errors)"),
        ("bash ./dash.sh", "bash reads it, and its first line names -x"),
        ("bash ./bare.sh", "bash reads it, and it has no first line that says so"),
        ("/nosuch/bash ./copy.sh", "/nosuch/bash reads it, and its first line names /bin/bash"),
        ("nice ./copy.sh", "more is done than to call it, or it is not found, or another program calls it"),
        ("./copy.sh || true", "more is done than to call it"),
        ("./asks.sh", "functions of lib.sh ask which file they stand in"),
        ("./copy.sh $(date)", "`$(date)` is known only when it runs"),
        ("./copy.sh *.txt", "`*.txt` is known only when it runs"),
        ("./copy.sh $X", "`$X` is known only when it runs"),
        ("sh ./copy.sh", "sh reads it, and its first line names /bin/bash"),
        ("bash -x ./copy.sh", ""),
        ("X=1 ./copy.sh", "variables are set in front of it"),
        ("test -e on && ./copy.sh", "what is asked before it is asked of a step"),
        ("bash ./odd.sh", "its first line has options, /bin/bash -u, which bash does not see when it is called"),
        ("./plain.sh", "it cannot be executed"),
        ("./bare.sh", "its first line is no #!, so it is cron's shell that reads it"),
        ("./broken.sh", "bash -n finds an error in it"),
        ("./zsh.sh", "zsh cannot hand its state to another shell"),
        ("./one.sh", "it is one step by itself, too"),
        ("./empty.sh", "empty.sh does nothing: it has only comments"),
    ],
)
def test_what_stays_a_call(place: Path, command: str, why: str) -> None:
    put(place / "odd.sh", SCRIPT.replace("bash", "bash -u"))
    put(place / "plain.sh", SCRIPT, 0o644)
    put(place / "dash.sh", SCRIPT.replace("/bin/bash", "-x"))
    put(place / "bare.sh", SCRIPT.partition("\n")[2])
    put(place / "broken.sh", SCRIPT + "if\n")
    put(place / "zsh.sh", "#!/bin/zsh\nprint -P a\n")
    put(place / "one.sh", "#!/bin/sh\n/opt/sync\n")
    put(place / "empty.sh", "#!/bin/sh\n# nothing\n")
    put(place / "asks.sh", SCRIPT + '\n. "$(dirname "$0")/lib.sh"\nload x\n')
    put(place / "lib.sh", 'load() {\n. "${BASH_SOURCE[0]%/*}/$1.conf"\n}\n')
    found = converted(f"1 2 * * * cd {place} && {command}\n", place)
    [made] = found.jobs
    assert len(decode(made.text, "x.yaml").steps) == 1 and "carry" not in made.text
    assert found.scripts == []
    assert not why or any(why in each for each in kept(found)), kept(found)


@pytest.mark.parametrize(
    ("command", "take_logs", "hinted"),
    [
        ("./copy.sh >> log 2>&1", False, True),
        ("./copy.sh > log", False, True),
        ("./copy.sh 2> errors", False, False),
        ("./copy.sh >> log 2>> errors", False, False),
        ("./copy.sh >&2", False, False),
        ("./copy.sh < in", False, False),
        ("./copy.sh >> log 2>> errors", True, False),
    ],
)
def test_taking_logs_is_offered_where_it_would_do(place: Path, command: str, take_logs: bool, hinted: bool) -> None:
    found = converted(f"1 2 * * * cd {place} && {command}\n", place, take_logs=take_logs)
    hints = [note.hint for note in found.notes if " stays one step: " in note.message]
    assert [hint.startswith("--take-logs") for hint in hints] == [hinted]


def test_a_log_that_is_taken_is_in_nobodys_way(place: Path) -> None:
    found = converted(f"1 2 * * * {place}/copy.sh >> log 2>&1\n", place, take_logs=True)
    assert [script.path for _, script in found.scripts] == [f"{place}/copy.sh"]


def test_what_a_boot_starts_stays(place: Path) -> None:
    found = converted("@reboot ./copy.sh\n", place)
    assert kept(found) == ["`leave_running` is meant for it as a whole"] and found.scripts == []


def test_it_does_what_the_entry_did(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    entry = f"cd {place} && timeout 10m ./copy.sh 'a b' > /dev/null"
    subprocess.run(["/bin/sh", "-c", entry], check=True, cwd="/")
    expected = (place / "calls").read_text()
    assert expected == f"./copy.sh fetches a b\nstores a b in {place} at 10\n"
    (place / "calls").unlink()
    other = tmp_path_factory.mktemp("other")
    (other / "crontab").write_text(f"17 3 * * * {entry}\n")
    env = {**os.environ, "AGENTRUN_HOME": str(other / "home")}
    agentrun = [sys.executable, "-P", "-m", "agentrun"]
    subprocess.run([*agentrun, "convert", "crontab", "--scripts", "-o", "jobs"], cwd=other, env=env, check=True,
                   capture_output=True)  # fmt: skip
    subprocess.run([*agentrun, "run", str(other / "jobs" / "copy.yaml"), "--no-tick"], cwd="/", env=env, check=True)
    assert (place / "calls").read_text() == expected


def test_a_folder_keeps_the_name_by_which_it_was_entered(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for folder in ("releases/1", "shared"):
        (place / folder).mkdir(parents=True)
        put(place / folder / "note", f'#!/bin/sh\necho "$@" >> {place}/calls\n')
    (place / "current").symlink_to("releases/1")
    put(place / "releases" / "1" / "linked.sh", LINKED)
    (place / "tab").write_text(f"1 2 * * * cd {place}/current && ./linked.sh\n")
    env = {**os.environ, "AGENTRUN_HOME": str(tmp_path_factory.mktemp("home"))}
    agentrun = [sys.executable, "-P", "-m", "agentrun"]
    subprocess.run([*agentrun, "convert", "tab", "--scripts", "-o", "jobs"], cwd=place, env=env, check=True,
                   capture_output=True)  # fmt: skip
    [made] = (place / "jobs").glob("linked*.yaml")
    assert "carry: shell" in made.read_text()
    subprocess.run([*agentrun, "run", str(made), "--no-tick"], env=env, check=True)
    assert (place / "calls").read_text() == f"{place}/current\n{place}/shared\n"


def test_the_report_is_one_of_each_file(place: Path) -> None:
    (place / "crontab").write_text(f"1 2 * * * cd {place} && ./copy.sh\n3 4 * * * {place}/copy.sh b\n")
    command = [sys.executable, "-P", "-m", "agentrun", "convert", "crontab", "--scripts"]
    done = subprocess.run([*command, "--json"], cwd=place, check=True, capture_output=True, text=True)
    reports = json.loads(done.stdout)
    names = [job["name"] for job in reports[0]["jobs"]]
    assert [(report["source"], report["steps_of"]) for report in reports] == [
        ("crontab", None),
        *((f"{place}/copy.sh", name) for name in names),
    ]
    told = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stderr
    assert f"\n\n{place}/copy.sh: 2 steps of {names[0]}\n" in told
