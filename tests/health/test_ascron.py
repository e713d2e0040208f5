"""What cron gives a job, asked of a real cron daemon; and what is said to be another way there."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrun.health import ascron, crontab, texts
from agentrun.model import Job, Step
from agentrun.spec.decode import decode

from .conftest import Patient

LIMIT = 60.0

ROOT = "/usr/sbin:/sbin:/usr/bin:/bin"
NEEDED = [name for name in ("cron", "unshare", "mount") if shutil.which(name, path=ROOT) is None]

# In a mount namespace of its own: its crontabs, its files that PAM reads, and its @reboot comes at once.
DAEMON = """
set -e
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
mount -t tmpfs tmpfs /run
for file in /etc/environment /etc/default/locale; do
    if [ -e $file ]; then mount --bind "$PLACE/$(basename $file)" $file; fi
done
cp "$PLACE/crontab" /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
"$PYTHON" -m agentrun env "$PLACE/job.yaml" --as-cron --json > "$PLACE/said"
exec cron -f
"""


@pytest.mark.skipif(os.geteuid() != 0 or bool(NEEDED), reason="needs root, cron and namespaces")
def test_a_real_cron_gives_what_we_say(tmp_path: Path) -> None:
    bell = tmp_path / "bell"
    os.mkfifo(bell)
    heard = os.open(bell, os.O_RDWR | os.O_NONBLOCK)
    (tmp_path / "environment").write_text('EDITOR="vi"\nPATH="/opt/bin:/usr/bin"\n# a comment\nexport PAGER=less\n')
    (tmp_path / "locale").write_text("LANG=C.UTF-8\n")
    (tmp_path / "job.yaml").write_text(f"steps:\n- run: env -0 > {tmp_path}/given\n  env: {{OWN: '1'}}\n")
    (tmp_path / "crontab").write_text(
        f"# mine\nMAILTO=\"\"\nCOLOR = \"blue green\"\nLOGNAME=somebody\nAGENTRUN_HOME={tmp_path}/home\n"
        f"@reboot  MINE=yes {sys.executable} -m agentrun run {tmp_path}/job.yaml; echo over > {bell}\n"
    )
    environ = {
        **os.environ, "PLACE": str(tmp_path), "PYTHON": sys.executable, "AGENTRUN_HOME": str(tmp_path / "home"),
        "LANG": "de_DE.UTF-8", "OF_THE_TERMINAL": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }  # fmt: skip
    daemon = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", DAEMON], env=environ, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        pidfd = os.pidfd_open(daemon.pid)
        ready, _, _ = select.select([heard, pidfd], [], [], LIMIT)
        os.close(pidfd)
        assert ready == [heard], daemon.stderr.read().decode() if ready and daemon.stderr else "nobody rang"
    finally:
        daemon.kill()
        daemon.communicate()
        os.close(heard)
    given = dict(
        entry.split("=", 1) for entry in (tmp_path / "given").read_bytes().decode().split("\0") if entry
    )
    said = json.loads((tmp_path / "said").read_text())["env"]
    # what belongs to the one run; and a shell's word for itself
    of_the_run = {name for name in said if name.startswith("AGENTRUN_") and name != "AGENTRUN_HOME"}
    of_the_run |= {"TMPDIR", "TRACEPARENT", "_", "OLDPWD", "SHLVL"}
    assert {name: value for name, value in given.items() if name not in of_the_run} == {
        name: value for name, value in said.items() if name not in of_the_run
    }
    assert set(given) - {"_", "OLDPWD", "SHLVL"} == set(said)
    assert (said["MINE"], said["COLOR"], said["MAILTO"], said["LOGNAME"]) == ("yes", "blue green", "", "root")
    assert "OF_THE_TERMINAL" not in said and said["PATH"].startswith("/usr/bin:/bin")


def test_a_line_of_the_crontab_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    text = "PATH=/opt\n0 3 * * * agentrun run b.yaml\n0 4 * * * A=1 agentrun run --quiet a.yaml >/dev/null\nPATH=/x\n"
    table = crontab.Crontab(crontab.parse(text, str(tmp_path)))
    call = ascron.call_of(table, str(tmp_path / "a.yaml"))
    assert call and call.schedule == "0 4 * * *"
    env = ascron.environment({"HOME": "/elsewhere"}, call)
    assert (env["PATH"], env["A"], env["HOME"], env["SHELL"]) == ("/opt", "1", str(tmp_path), "/bin/sh")
    assert ascron.call_of(table, str(tmp_path / "c.yaml")) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("uv run x.py | tee log", ["uv", "tee"]),
        ("A=1 B=2 psql -c x && ./own.sh; /opt/x/y", ["psql"]),
        ("if grep -q a b; then sort c; else uniq d; fi", ["grep", "sort", "uniq"]),
        ("! jq . < in > out 2>&1 || (wc -l)", ["jq", "wc"]),
        ("cd /x && echo hi", []),
        ("cat <<EOF\nuv here\nEOF\njq x", ["cat", "jq"]),
        ("go() { uv x; }\ngo now", ["uv"]),
        ("for f in a b; do uv; done", []),
        ("$CMD x; \"$HOME/bin/y\"; ~/z", []),
        ("echo 'a\nuv b'\nls", ["ls"]),
        ("git \\\n  push", ["git"]),
        ("", []),
    ],
)
def test_what_a_text_calls(text: str, found: list[str]) -> None:
    assert texts.calls(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('echo "$A ${B}" $C1', ["A", "B", "C1"]),
        ("echo '$A' \\$B \"'$C'\"", ["C"]),
        ("echo ${A:-x} ${B-y} ${C:=z} ${D%x} ${#E}", ["D"]),
        ("A=1; export B=2; for C in x; do read -r D; echo $A $B $C $D $E; done", ["E"]),
        ("echo $1 $? $$ $@", []),
    ],
)
def test_which_variables_a_text_uses(text: str, found: list[str]) -> None:
    assert texts.variables(text) == found


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is on the PATH here."""
    folder = tmp_path / "tools"
    folder.mkdir()
    path = folder / "frobnicate"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(crontab, "_tables", lambda: iter(()))
    return path


def test_what_a_step_would_miss(tool: Path) -> None:
    here = {"PATH": f"{tool.parent}:/usr/bin:/bin", "API_KEY": "s", "REGION": "eu 1", "HOME": "/h"}
    step = Step("a", 0, run='frobnicate "$REGION" "$API_KEY" "$NOWHERE" $HOME; ls; nosuch', condition="frobnicate")
    found = list(ascron.of_step(Job("j", (step,)), step, here, {"PATH": "/usr/bin:/bin", "HOME": "/h"}))
    assert [one.about for one in found] == ["frobnicate", "nosuch", "REGION", "API_KEY"]
    assert found[0].remedy == f"write {tool}, or env: {{PATH: {tool.parent}:/usr/bin:/bin}}"
    assert found[1].detail == "nosuch is found nowhere: neither here nor on the PATH that cron gives"
    assert not found[1].breaks
    assert found[2].remedy == "env: {REGION: 'eu 1'}"
    assert found[3].remedy == "put it into an env_file" and "s" not in found[3].detail.split()
    assert [one.about for one in ascron.of_step(Job("j", (step,)), step, here, here)] == ["nosuch"]


@pytest.mark.parametrize(
    ("text", "nowhere"),
    [
        ("nosuch x | ls", True),
        ("X=1; if nosuch; then echo 'a b'; fi", True),
        (". ./lib.sh\nnosuch", False),
        ("command -v nosuch >/dev/null && nosuch", False),
        ("awk '\nnosuch { x }\n'", False),
        ("case $1 in\nnosuch) ls;;\nesac", False),
        ("a=(\nnosuch\n)", False),
        ("[[ -n $X ]] && ls", False),
        ("cat <<X\nnosuch it's\nX", False),
    ],
)
def test_a_program_that_is_found_nowhere_is_named_if_it_is_one(text: str, nowhere: bool) -> None:
    step, env = Step("a", 0, run=text), {"PATH": "/usr/bin:/bin", "HOME": "/h", "X": ""}
    found = [one.about for one in ascron.of_step(Job("j", (step,)), step, env, env)]
    assert found == (["nosuch"] if nowhere else [])
    other = Job("j", (step,), shell=("/usr/bin/fish",))
    assert not list(ascron.of_step(other, step, env, env))


def test_a_virtual_environment_has_a_python_of_its_own(tmp_path: Path) -> None:
    for name in ("system", "venv/bin", "linked"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "system" / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "system" / "python3").chmod(0o755)
    (tmp_path / "venv" / "bin" / "python3").symlink_to(tmp_path / "system" / "python3")
    (tmp_path / "linked" / "python3").symlink_to(tmp_path / "system" / "python3")
    step = Step("a", 0, run="python3 -c pass")

    def found(here: str, cron: str) -> list[str]:
        ours, theirs = ({"PATH": str(tmp_path / folder)} for folder in (here, cron))
        return [one.detail for one in ascron.of_step(Job("j", (step,)), step, ours, theirs)]

    (tmp_path / "venv" / "pyvenv.cfg").touch()
    assert found("venv/bin", "system") == [
        f"python3 is {tmp_path}/venv/bin/python3 of the virtual environment {tmp_path}/venv here, and"
        f" {tmp_path}/system/python3 under cron"
    ]
    assert found("venv/bin", "venv/bin") == []
    assert found("linked", "system") == []


def test_what_differs_for_all() -> None:
    cron = {"HOME": "/root", "PATH": "/usr/bin:/bin"}
    here = {"HOME": "/home/ann", "LANG": "lv_LV.UTF-8", "TZ": "Europe/Riga"}
    assert [one.about for one in ascron.of_all(here, cron)] == ["HOME", "locale", "TZ"]
    assert not list(ascron.of_all({"HOME": "/root/", "LANG": "C"}, cron))
    assert not list(ascron.of_all({"HOME": "/root", "LANG": "x", "TZ": "y"}, cron | {"LC_ALL": "x", "TZ": "y"}))


def test_env_explains(patient: Patient, tool: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("steps:\n- {id: a, run: frobnicate x}\n- {id: b, run: ls}\n")
    status, out, _ = patient.world.call("env", str(job), "--as-cron", "--explain")
    assert status == 1 and f"frobnicate is {tool} here, and not found on the PATH that cron gives" in out
    status, out, _ = patient.world.call("env", str(job), "--explain", "--json", "--step", "a")
    checks = {one["check"]: one for one in json.loads(out)}
    assert not checks["a: frobnicate"]["ok"] and str(tool) in checks["a: frobnicate"]["remedy"]
    job.write_text(f"env: {{PATH: '{tool.parent}:/usr/bin:/bin'}}\nsteps:\n- {{id: a, run: frobnicate x}}\n")
    status, out, _ = patient.world.call("env", str(job), "--explain", "--json", "--step", "a")
    assert "a: frobnicate" not in {one["check"] for one in json.loads(out)}


@pytest.fixture
def scheduled(patient: Patient) -> Callable[[str], None]:
    """Let the record know a job that cron starts."""

    def know(text: str) -> None:
        job = decode(text, "quotes.yaml")
        store = patient.world.store
        patient.world.record("k3v9x00001", job, "/opt/quotes.yaml").take()
        store.database.connection.execute("UPDATE snapshots SET text = ?", (text,))
        store.database.connection.execute(
            "INSERT INTO jobs (name, file, installed) VALUES ('quotes', '/opt/quotes.yaml', '{}')"
        )

    return know


def test_doctor_looks_at_the_jobs_of_cron(
    patient: Patient, scheduled: Callable[[str], None], tool: Path
) -> None:
    assert patient.good("cron_programs") == "no job is known that cron starts"
    patient.environ |= {"PATH": f"{tool.parent}:/usr/bin:/bin", "REGION": "eu", "LANG": "lv_LV.UTF-8"}
    scheduled("steps:\n- {id: a, run: 'frobnicate $REGION'}\n")
    said = patient.bad("cron_programs")
    assert "quotes: frobnicate, quotes: REGION" in said and f"write {tool}" in said
    assert "agentrun env /opt/quotes.yaml --explain" in said
    said = patient.good("cron_language")
    assert "most jobs do not care" in said and "agentrun env /opt/quotes.yaml --explain" in said
    assert " HOME" in said and ("locale" in said or ascron._by_pam())


def test_doctor_is_content_with_a_job_that_says_what_it_needs(
    patient: Patient, scheduled: Callable[[str], None], tool: Path
) -> None:
    patient.environ |= {"PATH": f"{tool.parent}:/usr/bin:/bin", "REGION": "eu"}
    own = f"env: {{PATH: '{tool.parent}:${{{{ env.PATH }}}}', REGION: eu}}\n"
    scheduled(own + "steps:\n- {id: a, run: 'frobnicate $REGION; ls'}\n")
    assert "1 job of cron's" in patient.good("cron_programs")
