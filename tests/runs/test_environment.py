"""What a step's process is given: everything in the contract, from wherever the run was started."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .place import PROGRAM, Place

CRON = {"HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
SHOW = "run: printf '\\035'; env -0; printf '\\036'"


def environments(place: Place, job: str = "job") -> dict[str, dict[str, str]]:
    """What the steps that SHOW their environment had, by name; of several attempts the last."""
    shown = re.findall("\035(.*?)\036", place.call("logs", job, "--raw").stdout, re.DOTALL)
    variables = (dict(line.split("=", 1) for line in text.split("\0") if line) for text in shown)
    return {each["AGENTRUN_STEP"]: each for each in variables}


def test_every_variable_of_the_contract_is_there(place: Place) -> None:
    job = f"""
name: quotes
max_parallel: 1
steps:
- id: a
  {SHOW}; test "$AGENTRUN_ATTEMPT" = 2
  retry: {{max_attempts: 2, interval: 0s}}
- id: b
  {SHOW}
"""
    ran = place.run(job, "--scheduled-time", "2026-11-20T10:00:00Z")
    assert ran.status == 0, ran.stderr
    first, second = environments(place, "quotes").values()
    run = ran.run["id"]
    assert (first["AGENTRUN_RUN_ID"], first["AGENTRUN_JOB"]) == (run, "quotes")
    assert (first["AGENTRUN_STEP"], first["AGENTRUN_ATTEMPT"], second["AGENTRUN_ATTEMPT"]) == ("a", "2", "1")
    assert first["AGENTRUN_SCHEDULED_TIME"] == "2026-11-20T10:00:00.000Z"
    assert first["AGENTRUN_IDEMPOTENCY_KEY"] == ran.step("a")["idempotency_key"] != second["AGENTRUN_IDEMPOTENCY_KEY"]
    assert (first["AGENTRUN_INTERRUPTED"], first["AGENTRUN_LAST_SUCCESS"]) == ("0", "")
    spans = [re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", env["TRACEPARENT"]) for env in (first, second)]
    assert spans[0] and spans[1] and spans[0][1] == spans[1][1] and spans[0][2] != spans[1][2]
    assert first["AGENTRUN_RUN_DIR"] == second["AGENTRUN_RUN_DIR"] and os.path.isdir(first["AGENTRUN_RUN_DIR"])
    assert os.path.isdir(first["AGENTRUN_JOB_DIR"]) and run not in first["AGENTRUN_JOB_DIR"]
    for folder in (first["AGENTRUN_JOB_DIR"], os.path.dirname(first["AGENTRUN_JOB_DIR"])):
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not os.path.exists(first["TMPDIR"]), "gone with its attempt"

    again = place.run(job)
    third = environments(place, "quotes")["a"]
    assert third["AGENTRUN_LAST_SUCCESS"] == ran.run["finished_at"]
    assert third["AGENTRUN_SCHEDULED_TIME"] == ""
    assert third["AGENTRUN_JOB_DIR"] == first["AGENTRUN_JOB_DIR"]
    assert third["AGENTRUN_RUN_DIR"] != first["AGENTRUN_RUN_DIR"] and again.run["id"] != run


def test_folders_last_as_long_as_the_contract_says(place: Place) -> None:
    ran = place.run("""
max_parallel: 2
steps:
- id: leaves
  run: |
    test -z "$(ls -A "$TMPDIR")"
    touch "$TMPDIR/left" "$AGENTRUN_RUN_DIR/kept"; mkdir "$TMPDIR/sub"; chmod 0 "$TMPDIR/sub"
    echo once >> "$AGENTRUN_JOB_DIR/times"
    test "$AGENTRUN_ATTEMPT" = 2
  retry: {max_attempts: 2, interval: 0s}
- id: finds
  run: test -z "$(ls -A "$TMPDIR")" && test -e "$AGENTRUN_RUN_DIR/kept" && test -w "$TMPDIR"
""")
    assert ran.status == 0, ran.stderr
    look = 'cp "$AGENTRUN_JOB_DIR/times" "$ARENA/times"; test ! -e "$AGENTRUN_RUN_DIR/kept"'
    assert place.run(f"steps:\n- {{id: a, run: '{look}'}}\n").status == 0
    assert place.read("times") == "once\nonce\n"


@pytest.mark.parametrize(
    ("inherit", "there", "absent"),
    [
        ("true", {"OUTSIDE": "here", "PATH": "/opt/none:/usr/bin:/bin", "ODD": "a\nb=c"}, ["AGENTRUN_ITEM"]),
        ("false", {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}, ["OUTSIDE", "ODD", "ARENA", "AGENTRUN_HOME"]),
        ("[OUTSIDE, NOT_SET]", {"OUTSIDE": "here", "PATH": "/usr/bin:/bin"}, ["ODD", "NOT_SET", "ARENA"]),
        ("[PATH]", {"PATH": "/opt/none:/usr/bin:/bin", "SHELL": "/bin/sh"}, ["OUTSIDE"]),
    ],
)
def test_inherit_env_says_what_is_let_through(
    place: Place, inherit: str, there: dict[str, str], absent: list[str]
) -> None:
    outside = {
        "OUTSIDE": "here", "ODD": "a\nb=c", "PATH": "/opt/none:/usr/bin:/bin", "SHELL": "/bin/zsh",
        "AGENTRUN_RUN_ID": "outer", "AGENTRUN_ATTEMPT": "9", "AGENTRUN_USAGE": "/outer", "TRACEPARENT": "outer",
    }  # fmt: skip
    ran = place.run(f"inherit_env: {inherit}\nsteps:\n- id: a\n  {SHOW}\n", env=outside)
    env = environments(place)["a"]
    assert {name: env.get(name) for name in there if name != "PATH"} == {
        name: value for name, value in there.items() if name != "PATH"
    }
    assert env["PATH"].startswith(there.get("PATH", "") + ":"), "at its end the command itself"
    assert [name for name in absent if name in env] == []
    assert (env["AGENTRUN_RUN_ID"], env["AGENTRUN_ATTEMPT"]) == (ran.run["id"], "1")
    assert env["TRACEPARENT"] != "outer" and env["HOME"]


def test_env_file_stands_below_env_and_env_of_the_job_below_that_of_the_step(place: Place) -> None:
    place.file("conf/.env", "# secrets\nexport A=file\nB=\"two\\nlines\"\nC=file\nD='$HOME #no'\n\nE=a # comment\n")
    ran = place.run(f"""
env_file: conf/.env
env: {{C: job, F: job, G: '${{{{ env.A }}}}'}}
steps:
- id: a
  env: {{F: step, H: '${{{{ env.OUTSIDE }}}}'}}
  {SHOW}
""", env={"A": "outside", "OUTSIDE": "there"})  # fmt: skip
    assert ran.status == 0, ran.stderr
    env = environments(place)["a"]
    assert {name: env[name] for name in "ABCDEFGH"} == {
        "A": "file", "B": "two\nlines", "C": "job", "D": "$HOME #no", "E": "a", "F": "step", "G": "file", "H": "there",
    }  # fmt: skip


def test_an_env_file_that_is_gone_or_wrong_fails_the_step_and_says_where(place: Place) -> None:
    ran = place.run("env_file: absent.env\nsteps:\n- {id: a, run: 'true'}\n")
    assert (ran.status, ran.step("a")["reason"]) == (1, "inputs")
    assert str(place.root / "absent.env") in ran.step("a")["error"]
    place.file("bad.env", "A=1\nwhat is this\n")
    ran = place.run("env_file: bad.env\nsteps:\n- {id: a, run: 'true'}\n")
    assert f"{place.root}/bad.env:2" in ran.step("a")["error"]


def start(place: Place, text: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """`agentrun run` in another surrounding than that of a test."""
    job = place.job("job", text)
    given = {"env": place.env, "cwd": place.root, "stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 30}
    return subprocess.run([*PROGRAM, "run", str(job)], **{**given, **how})


def test_folder_and_umask_are_those_of_the_job_and_of_the_caller(place: Place) -> None:
    (place.root / "work" / "deep").mkdir(parents=True)
    text = """
working_dir: WHERE
steps:
- {id: shell, run: 'pwd; echo "$PWD"; umask; touch made; echo ${OLDPWD-no}'}
- {id: plain, run: printenv PWD}
- {id: python, python: 'import os; print(os.getcwd(), os.environ["PWD"])'}
"""
    work = place.root / "work"
    for where, folder in (("work/deep/../deep", work / "deep"), (str(work), work)):
        done = start(place, text.replace("WHERE", where), umask=0o027, cwd="/", env={**place.env, "OLDPWD": "/x"})
        assert (done.returncode, done.stderr) == (0, b"")
        log = place.call("logs", "job", "--raw").stdout.splitlines()
        assert log == [str(folder), str(folder), "0027", "no", str(folder), f"{folder} {folder}"]
        assert (folder / "made").stat().st_mode & 0o777 == 0o640


def test_a_process_starts_with_default_signals_an_empty_mask_and_three_descriptors(place: Place) -> None:
    def spoil() -> None:  # as nohup, a careless parent and a shell with open files would
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD})

    reader, writer = os.pipe()
    text = """
steps:
- {id: plain, run: cat /proc/self/status}
- {id: shell, run: 'cat /proc/self/status; exec cat /proc/self/status'}
- {id: fds, run: ls -l /proc/self/fd}
- {id: fds_in_shell, run: 'ls -l /proc/self/fd; :'}
- {id: fds_in_python, python: 'import os; os.execlp("ls", "ls", "-l", "/proc/self/fd")'}
- {id: session, run: 'read -r _ _ _ _ group session _ < /proc/self/stat; echo "session $$ $session"; ulimit -n'}
- {id: input, run: 'cat; wc -c < /dev/stdin'}
"""
    try:
        done = start(place, text, preexec_fn=spoil, pass_fds=(reader, writer))
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    log = place.call("logs", "job", "--raw").stdout.splitlines()
    masks = [int(line.split()[1], 16) for line in log if line.startswith(("SigBlk", "SigIgn"))]
    glibc = 1 << 31 | 1 << 32  # its own two: posix_spawn(3) of glibc leaves them ignored, whoever calls it
    assert len(masks) == 6 and {mask & ~glibc for mask in masks} == {0}
    found = [match for line in log if (match := re.search(r" (\d+) -> (.*)", line))]
    fds = [(int(match[1]), match[2]) for match in found if not re.fullmatch(r"/proc/\d+/fd", match[2])]  # that of ls
    assert [fd for fd, _ in fds] == [0, 1, 2] * 3, fds
    assert {target for fd, target in fds if fd == 0} == {"/dev/null"}
    assert all(target.endswith(".fifo") for fd, target in fds if fd)
    (session,) = (line.split()[1:] for line in log if line.startswith("session"))
    assert session[0] == session[1], "a session of its own"
    assert log[-2:] == [str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), "0"]


def test_cron_starts_it_with_nearly_nothing(place: Place) -> None:
    cron = {**CRON, "AGENTRUN_HOME": str(place.home)}
    text = f"steps:\n- id: a\n  {SHOW}\n- {{id: b, python: 'print(\"Ærø\")'}}\n- {{id: c, run: 'echo Ærø'}}\n"
    done = start(place, text, env=cron, cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    env = environments(place)["a"]
    path = env.pop("PATH").removeprefix(CRON["PATH"] + ":")
    assert os.listdir(path) == ["agentrun"], "what steps find the command by, and nothing else"
    assert {name: env.get(name, CRON["PATH"]) for name in CRON} == CRON
    others = {"PATH"} | {name for name in env if not name.startswith("AGENTRUN_")}
    assert others - {"_", "SHLVL"} == {*CRON, "PWD", "PYTHONPATH", "TMPDIR", "TRACEPARENT"}, "beside what a shell adds"
    # nobody said which encoding this is: what a step wrote is kept byte for byte
    assert place.call("logs", "job", "--step", "c", "--raw").stdout == "Ærø\n"


def test_steps_find_the_command_under_cron(place: Place) -> None:
    cron = {**CRON, "AGENTRUN_HOME": str(place.home)}
    text = "steps:\n- {id: a, run: agentrun usage add --input-tokens 7 --model m}\n"
    assert start(place, text, env=cron, cwd="/").returncode == 0
    assert place.rows("SELECT input_tokens FROM usage") == [(7,)]


def test_an_empty_environment_is_enough(place: Place) -> None:
    done = start(place, "steps:\n- {id: a, run: 'echo $PATH'}\n", env={"AGENTRUN_HOME": str(place.home)})
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_resume_from_anywhere_sees_what_the_run_was_created_in(place: Place) -> None:
    text = f"steps:\n- id: a\n  {SHOW}; umask; pwd; test -e \"$ARENA/mended\"\n"
    done = start(place, text, env={**place.env, "FROM": "the first"}, umask=0o026)
    assert done.returncode == 1
    place.file("mended", "")
    job_folder = str(place.root)
    resumed = subprocess.run(
        [*PROGRAM, "resume", "job"], env={"AGENTRUN_HOME": str(place.home), "FROM": "another"}, cwd="/", umask=0,
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, b"", b"")
    after = re.split("\035.*?\036", place.call("logs", "job", "--raw").stdout, flags=re.DOTALL)
    assert [text.splitlines() for text in after] == [[], ["0026", job_folder], ["0026", job_folder]]
    assert environments(place)["a"]["FROM"] == "the first"


def test_the_kept_environment_is_private_and_gone_after_success(place: Place) -> None:
    text = "steps:\n- {id: a, run: 'test -e \"$ARENA/mended\"'}\n"
    place.run(text, env={"SECRET": "swordfish"})
    kept = Path(place.home, "runs", place.run_id, "env.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["env"]["SECRET"] == "swordfish"
    place.file("mended", "")
    assert place.call("resume", "job").status == 0
    assert not kept.exists()


def test_a_run_inside_a_run_is_a_run_of_its_own(place: Place) -> None:
    place.job("inner", f"steps:\n- id: a\n  {SHOW}\n")
    program = " ".join(PROGRAM)
    ran = place.run(f"steps:\n- {{id: outer, run: '{program} run inner.yaml'}}\n", name="outer")
    assert ran.status == 0, ran.stderr
    env = environments(place, "inner")["a"]
    assert (env["AGENTRUN_JOB"], env["AGENTRUN_STEP"]) == ("inner", "a")
    assert env["AGENTRUN_RUN_ID"] != ran.run["id"]
