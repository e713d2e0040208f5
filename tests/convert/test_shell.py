"""A script in, a job file out: the whole text of it, what is said of it, and that the job does what the script does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrun.convert.notes import Note
from agentrun.convert.shell import Converted, NotAShellScript, convert

BACKUP = """\
#!/bin/bash
#
# Nightly backup of the wiki and its database
#

set -euo pipefail
LOG=/var/log/backup.log
TODAY=$(date +%F)
DIR=/srv/backup

# Dump the database
pg_dump wiki | gzip > "$DIR/$TODAY.gz"

# Copy it off
rsync -a "$DIR/" store:/backup/
echo "done"

# Tell the others
echo "backup $TODAY" | mail -s backup ops@example.org
"""

BACKUP_JOB = """\
# Converted from /opt/backup.sh

name: backup
description: Nightly backup of the wiki and its database
carry: shell
shell: [/bin/bash]
script: /opt/backup.sh

steps:
- id: setup
  line: 6
  run: |
    set -euo pipefail
    LOG=/var/log/backup.log
    TODAY=$(date +%F)
    DIR=/srv/backup

- id: dump-the-database
  run: |
    # Dump the database
    pg_dump wiki | gzip > "$DIR/$TODAY.gz"

- id: copy-it-off
  run: |
    # Copy it off
    rsync -a "$DIR/" store:/backup/
    echo "done"

- id: tell-the-others
  # it sends mail: after an interruption somebody says whether that was done
  on_interrupt: ask
  run: |
    # Tell the others
    echo "backup $TODAY" | mail -s backup ops@example.org
"""


def converted(text: str, path: str | None = "/opt/x.sh", *, loops: bool = False) -> Converted:
    result = convert(text.encode(), path, loops=loops)
    result.draft.checked("x.yaml")
    return result


def steps(result: Converted) -> list[str]:
    return [str(dict(step.keys)["run"]) for step in result.draft.steps]


def keys(result: Converted) -> dict[str, object]:
    return dict(result.draft.keys)


def messages(notes: Sequence[Note]) -> str:
    return "\n".join(f"{note.kind} {note.line}: {note.message}" for note in notes)


def test_a_job_that_a_colleague_would_have_written() -> None:
    result = converted(BACKUP, "/opt/backup.sh")
    assert result.draft.text() == BACKUP_JOB
    assert messages(result.notes) == (
        "kept 8: TODAY keeps its value over a resume: it goes on with the date of the run\n"
        "advice 19: `mail` sends mail: after an interruption the step asks"
    )


SHELLS = [
    ("#!/bin/bash", ["/bin/bash"]), ("#!/bin/bash -e", ["/bin/bash", "-e"]), ("#! /bin/sh", ["/bin/sh"]),
    ("#!/usr/bin/env bash", ["bash"]), ("#!/usr/bin/env -S bash -eu", ["bash", "-eu"]), ("#!/bin/dash", ["/bin/dash"]),
    ("#!/bin/bash -eo pipefail", ["/bin/bash", "-eo", "pipefail"]), ("# none", ["/bin/sh"]),
    ("[[ a == b ]]", ["/bin/bash"]), ("a=(1 2)", ["/bin/bash"]), ("set -o pipefail", ["/bin/bash"]),
]  # fmt: skip


@pytest.mark.parametrize(("first", "shell"), SHELLS)
def test_the_shell_of_the_first_line(first: str, shell: list[str]) -> None:
    assert keys(converted(f"{first}\ntar c a\nrsync a b\n"))["shell"] == shell


WHOLE = [
    ("#!/usr/bin/env fish\necho (date)\n", "/opt/x.fish", "/usr/bin/env fish /opt/x.fish", "fish"),
    ("#!/bin/zsh\nprint -l *(.)\n", "/opt/x", "/bin/zsh /opt/x", "zsh"),
    ("setenv A b\n", "/opt/x.csh", "csh /opt/x.csh", "csh"),
    ("#!/bin/bash\nif a\n", "/opt/x.sh", "/bin/bash /opt/x.sh", "-n finds an error"),
    ("#!/bin/bash\na\r\nb\r\nc\r\n", "/opt/x.sh", "/bin/bash /opt/x.sh", "CR LF"),
    ("#!/bin/bash -i\na\nb\n", "/opt/x.sh", "/bin/bash -i /opt/x.sh", "-i"),
    ("#!/bin/bash\n[ -n \"$L\" ] || exec env L=1 flock -n \"$0\" \"$0\" \"$@\"\nb\n", "/opt/x.sh",
     "/bin/bash /opt/x.sh", "runs itself"),
    ("#!/bin/sh\na\nsudo \"$0\" --all\n", "/opt/x.sh", "/bin/sh /opt/x.sh", "runs itself"),
    ("#!/bin/sh\ntail -n +4 \"$0\" | tar x\nexit\nxx\n", "/opt/x.sh", "/bin/sh /opt/x.sh", "reads its own file"),
    ("#!/bin/bash\nset -o history\na\n", "/opt/x y.sh", "/bin/bash '/opt/x y.sh'", "history"),
    ("#!/bin/sh\n" + "a\n" * 6_000, "/opt/x.sh", "/bin/sh /opt/x.sh", "6001 lines"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "command", "why"), WHOLE)
def test_what_is_kept_whole(text: str, path: str, command: str, why: str) -> None:
    result = converted(text, path)
    assert result.whole and steps(result) == [command]
    assert [note.kind for note in result.notes] == ["kept"] and why in result.notes[0].message


def test_a_script_that_is_not_utf8_is_called(tmp_path: Path) -> None:
    path = tmp_path / "x.sh"
    path.write_bytes(b"#!/bin/sh\necho \xe4\n")
    path.chmod(0o755)
    assert steps(convert(path.read_bytes(), str(path))) == [str(path)]


NOT_SHELL = [
    (b"", "is empty"), (b" \n\n", "is empty"), (b"\x7fELF\0\0", "is not text"), (b"#!/usr/bin/perl\nprint;\n", "perl"),
    (b"#!/usr/bin/env python3\n", "python3"), (b"#!/bin/sh\n# nothing\n", "does nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "said"), NOT_SHELL)
def test_what_is_no_shell_script(data: bytes, said: str) -> None:
    with pytest.raises(NotAShellScript, match=said):
        convert(data, "/opt/x")
    with pytest.raises(NotAShellScript, match="UTF-8"):
        convert(b"echo \xff\n", None)


def test_a_hundred_thousand_lines_are_no_trouble() -> None:
    assert converted("#!/bin/sh\n" + "echo a\n" * 100_000).whole


REWRITTEN = [
    ("bash", "F=/tmp/x.$$", "F=/tmp/x.$AGENTRUN_SHELL_PID"),
    ("bash", 'F="a$$b"', 'F="a${AGENTRUN_SHELL_PID}b"'),
    ("bash", "echo '$$' \\$$ # $$", "echo '$$' \\$$ # $$"),
    ("bash", "trap 'rm /tmp/x.$$' EXIT", "trap 'rm /tmp/x.$AGENTRUN_SHELL_PID' EXIT"),
    ("bash", "kill -TERM $$", "kill -TERM $$"),
    ("bash", "cat <<E\n$$\nE", "cat <<E\n$AGENTRUN_SHELL_PID\nE"),
    ("bash", "cat <<'E'\n$$\nE", "cat <<'E'\n$$\nE"),
    ("bash", 'cd "$(dirname "${BASH_SOURCE[0]}")"', 'cd "$(dirname "$0")"'),
    ("bash", 'D=${BASH_SOURCE%/*} E="$BASH_SOURCE"', 'D=${0%/*} E="$0"'),
    ("bash", "echo '${BASH_SOURCE[0]}'", "echo '${BASH_SOURCE[0]}'"),
    ("bash", "PS4='+ ${BASH_SOURCE##*/}:$LINENO '", "PS4='+ ${0##*/}:$LINENO '"),
    ("bash", 'N=$(basename "$0")', 'N=$(basename "$0")'),
    ("sh", 'N=$(basename "$0")', 'N=$(basename "$AGENTRUN_SCRIPT")'),
    ("sh", "N=${0##*/}", "N=${AGENTRUN_SCRIPT##*/}"),
    ("sh", "awk '{ print $0 }' a", "awk '{ print $0 }' a"),
]


@pytest.mark.parametrize(("shell", "line", "becomes"), REWRITTEN)
def test_what_each_step_has_of_its_own(shell: str, line: str, becomes: str) -> None:
    result = converted(f"#!/bin/{shell}\n{line}\ntar c a\n")
    assert steps(result)[0].startswith(becomes + "\n")
    assert ("is written $" in messages(result.notes)) == (line != becomes)


HEADERS = [
    ("# Copies the logs.\n\na\n", "Copies the logs", ""),
    ("# Copies the logs\na\n", "Copies the logs", ""),
    ("# set variables\na\n", None, ""),
    ("\n# Dump\na\n", None, ""),
    ("# backup.sh - saves the wiki\n#\n# Usage: backup.sh DIR\n\na\n", "saves the wiki",
     "backup.sh - saves the wiki\n\nUsage: backup.sh DIR"),
    ("############\n# Saves it #\n############\n\na\n", "Saves it", ""),
    ("# shellcheck disable=SC2086\na\n", None, ""),
    ("# === CONFIGURATION ===\n\na\n", None, ""),
    ("# entry point\n\na\n", None, ""),
    ("# x.sh - Safely clean the log files\n\na\n", "Safely clean the log files", "x.sh - Safely clean the log files"),
    ("# Put into the crontab:\n# 0 1 * * * /opt/x.sh\n# chmod +x x.sh\n\na\n", None,
     "Put into the crontab:\n0 1 * * * /opt/x.sh\nchmod +x x.sh"),
    ("# FILE: x.sh\n# DESC: Copies the logs\n# NAME: me\n\na\n", "Copies the logs",
     "FILE: x.sh\nDESC: Copies the logs\nNAME: me"),
    ("# Nightly backup\n# Keeps seven days\n\na\n", "Nightly backup", "Nightly backup\nKeeps seven days"),
    ("# Copies the logs of all\n# machines. Slowly.\n\na\n", "Copies the logs of all machines",
     "Copies the logs of all\nmachines. Slowly."),
    ("# Saves the wiki. Restores nothing.\n\na\n", "Saves the wiki", "Saves the wiki. Restores nothing."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "description", "comment"), HEADERS)
def test_what_a_script_says_of_itself(text: str, description: str | None, comment: str) -> None:
    result = converted("#!/bin/sh\n" + text + "b\n")
    assert keys(result).get("description") == description
    assert result.draft.comment == "\n\n".join(filter(None, ("Converted from /opt/x.sh", comment)))


ADVICE = [
    ("TOKEN=$(curl -s x/token)\na", "TOKEN is fetched once"),
    ("FREE=$(df / | tail -1)\na", "FREE is measured once"),
    ("UP=$(pgrep nginx)\na", "UP is asked for once: a resume goes on with what was running then"),
    ("DAY=$(date +%F)\na", "DAY keeps its value"),
    ("for i in 1 2; do FREE=$(df $i); done\na", ""),
    ("T=$(mktemp)\ntrap 'rm -f \"$T\"' EXIT\na >$T", "the EXIT trap removes $T"),
    ("T=$(mktemp)\nclean() { rm -rf $T; }\ntrap clean EXIT\na >$T", "the EXIT trap removes $T"),
    ("exec 9>/run/x.lock\nflock -n 9 || exit\na", "a lock of its own"),
    ("if pgrep -f x.sh; then exit; fi\na", "looks for itself"),
    ("ps aux | grep -v grep | grep x.sh && exit\na", "looks for itself"),
    ("while ! a; do sleep 5; done\nb", "it waits in a loop"),
    ("while true; do a; sleep 5; done", "it never ends"),
    ("a &\nb", "after a crash no resume starts it anew"),
    ("A=$(df /)\nB=$(du /)\nC=$(uptime)\na", "advice 2: A, B, C are measured once"),
    ("mail -s a b\nc\nmail -s d b", "advice 2: `mail` sends mail (lines 2, 4)"),
    ("a\nb=$?\nc\nd | e\nf=${PIPESTATUS[1]}", "kept 2: lines 2 to 3, 5 to 6 stay together each: the status of"),
    ("a\nb", ""),
    ("mkdir /tmp/x.lock || exit\na", "a lock of its own"),
    ("echo $$ >/run/x.pid\na", "a lock of its own"),
    ("( set -C; echo $$ > \"$LOCK\" ) || exit\na", "a lock of its own"),
    (": > /tmp/x.lock\na", "a lock of its own"),
    ("a\n[ -f x ] && b", "advice 3: the script ends with 1 where `[ -f x ]` says no"),
    ("a\ngrep -q x y && b >l # why", "where `grep -q x y` says no"),
    ("a\ntest -f x &&\n  [ -f y ] && b;", "where `test -f x` says no"),
    ("a\n(( n > 0 )) && exit 3", "where `(( n > 0 ))` says no"),
    ("trap 'rm x' EXIT\na\n[ -f x ] && b", "where `[ -f x ]` says no"),
    ("L=x\nexec >>$L 2>&1\na", "advice 3: `exec >>$L`: its output goes there"),
    ("exec &>/l\na", "its output goes there"),
    ("exec > >(logger -t x) 2>&1\na", "its output goes there"),
    ("exec > >(tee l >/dev/null)\na", "its output goes there"),
]


@pytest.mark.parametrize(("text", "said"), ADVICE)
def test_advice(text: str, said: str) -> None:
    found = messages(converted(f"#!/bin/bash\n{text}\n").notes)
    assert said in found and (said or not found)


NO_ADVICE = [
    # no locks
    "kill -HUP $(cat /run/nginx.pid)\na", "rm -f package-lock.json\na", "git add poetry.lock\na", "touch blocked\na",
    "mkdir -p /var/lock/x\na", "[ -f /run/x.pid ] || a\nb",
    # their last status is meant, or is another
    "a\n[ -f x ] && b || true", "a\n[ -f x ] && b\nexit 0", "a\n[ -f x ] && b\n:", "a\n[ -f x ] && [ -f y ]",
    "a\nmake x && b", "a\nf() { [ -f x ] && b; }", "a\nif c; then [ -f x ] && b; fi", "a\n[ -f x ] || b",
    "trap 'exit 0' EXIT\na\n[ -f x ] && b",
    # their output is seen
    "exec > >(tee -a l) 2>&1\na", "exec 2>&1\na", "exec 1>&2\na", "exec 9>/run/l\na", "exec <l\na",
    "exec >/dev/stderr\na", "exec 3>&1 >l\na\nexec >&3\nb", "f() { exec >l; }\na",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADVICE)
def test_no_advice_where_nothing_is_wrong(text: str) -> None:
    found = [note.message for note in converted(f"#!/bin/bash\n{text}\n").notes if note.kind == "advice"]
    assert not [said for said in found if re.search("lock of its own|ends with 1|output goes there", said)]


def test_a_job_that_nobody_waits_for_may_go_on() -> None:
    left = [dict(step.keys).get("leave_running") for step in converted("#!/bin/sh\na &\nb\n").draft.steps]
    assert left == [True, None]
    assert "leave_running" not in dict(converted("#!/bin/sh\na &\nb\nwait\n").draft.steps[0].keys)
    assert "leave_running" not in dict(converted("#!/bin/sh\nfor i in 1 2; do a & done; wait\nb\n").draft.steps[0].keys)


def test_functions_are_given_as_they_stand() -> None:
    of_sh = converted("#!/bin/sh\nset -e\n\nf() {\n  a\n}\n\nf\n")
    assert [dict(step.keys).get("defines") for step in of_sh.draft.steps] == [None, True, None]
    text = "#!/bin/bash\nset -e\n\nf() {\n  a\n}\n\nf\n%s\nb\n"
    of_bash = converted(text % "source x")
    assert [dict(step.keys).get("defines") for step in of_bash.draft.steps] == [None, True, None, None]
    assert not any(dict(step.keys).get("defines") for step in converted(text % "readonly -f f").draft.steps)
    bug = converted("#!/bin/sh\nfunction f\n{\n  a\n}\nf\n")
    assert "`function` is no word of sh" in messages(bug.notes)
    assert not any("defines" in dict(step.keys) for step in bug.draft.steps)


LONG = ["a" * 20_000, "a " * 10_000, " " * 10_000, "$" * 10_000, "# " * 10_000, "ps " * 5_000, '\\"' * 5_000,
        "/a" * 5_000, "a, " * 5_000, "1" * 10_000, "a=" * 5_000, "--a " * 5_000]  # fmt: skip


@pytest.mark.parametrize("letters", LONG, ids=[one[:4] for one in LONG])
def test_a_long_line_takes_no_time(letters: str) -> None:
    start = time.process_time()
    converted(f"#!/bin/bash\n# {letters}\necho '{letters}'\nA='{letters}'\ntar c a\n")
    assert time.process_time() - start < 5


SCRIPT = """\
#!/bin/bash
set -u
OUT=$1
cd "$OUT"
trap 'echo "end $?" >>calls' EXIT

say() { echo "$0 $LINENO: $*" | sed 's,.*/,,'; }

# First
say first; echo $$ >pid
gzip -c pid >pid.gz
false
rc=$?

# Second
say second $rc
gzip -d <pid.gz | cmp - pid
[ "$$" = "$(cat pid)" ] && echo same >>calls

# Third
for n in 1 2 3; do
  echo $n | gzip | gzip -d >>calls
done

tar c nothing 2>/dev/null || exit 7
say never
"""


def test_the_job_does_what_the_script_does(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text(SCRIPT)
    ends = []
    for name in ("plain", "job"):
        folder = tmp_path / name
        folder.mkdir()
        argv = ["/bin/bash", str(script), str(folder)]
        if name == "job":
            draft = convert(script.read_bytes(), str(script)).draft
            text = draft.text().replace("\nsteps:", f"args: [{folder}]\n\nsteps:")
            (tmp_path / "x.yaml").write_text(text)
            argv = [sys.executable, "-m", "agentrun", "run", str(tmp_path / "x.yaml")]
        env = {**os.environ, "AGENTRUN_HOME": str(tmp_path / "home")}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if name == "job":
            logs = [sys.executable, "-m", "agentrun", "logs", "--raw", "x"]
            output = subprocess.run(logs, env=env, capture_output=True, text=True, check=True).stdout
        else:
            output = done.stdout
        ends.append((done.returncode, output, (folder / "calls").read_text()))
    assert len(convert(script.read_bytes(), str(script)).draft.steps) > 3
    assert ends[0] == ends[1] and ends[0][0] == 7
