"""`agentrun install` and `uninstall`: with a crontab of the test's own on the PATH, and with Debian's where it is."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrun.cron import places, units
from agentrun.health import mail
from agentrun.store.jobs import Jobs
from tests.spec import yaml_core

from .recorded import World

FAKE = r"""#!/bin/sh
echo "$*" >>"$0.calls"
[ -e "$0.first" ] && . "$0.first"
case "$1" in
-l) [ -e "$0.tab" ] || { echo "no crontab for ann" >&2; exit 1; }; cat "$0.tab";;
-r) rm "$0.tab";;
-) cat >"$0.new" && mv "$0.new" "$0.tab";;
*) exit 2;;
esac
"""
THIRTY = b"MAILTO=ann\nPATH=/opt/bin:/usr/bin\n# caf\xe9\r\n" + b"".join(
    b"%d %d * * 1-5\tcd /srv && ./job-%d 'a b' \\%%F >/dev/null 2>&1  \n" % (n, n % 24, n) for n in range(27)
)


class Cron:
    """The crontab that is on the PATH. `first` is sh text that it does before anything else."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "crontab"
        self.program.write_text(FAKE)
        self.program.chmod(0o755)

    def _beside(self, end: str) -> Path:
        return self.program.with_name(f"crontab.{end}")

    @property
    def text(self) -> bytes | None:
        return self._beside("tab").read_bytes() if self._beside("tab").exists() else None

    @text.setter
    def text(self, text: bytes) -> None:
        self._beside("tab").write_bytes(text)

    def first(self, script: str) -> None:
        self._beside("first").write_text(script)

    def calls(self) -> list[str]:
        """What it was asked since the last time."""
        calls = self._beside("calls")
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.write_text("")
        return found


@pytest.fixture
def cron(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cron:
    for name in ("tools", "home", "config"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:/usr/bin:/bin")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("TZ")
    monkeypatch.chdir(tmp_path)
    return Cron(tmp_path / "tools")


def job(name: str, schedule: str | None = "*/15 * * * *", file: str | None = None, **keys: str) -> str:
    """Write a job file; its path."""
    path = Path(file or f"{name}.yaml")
    path.parent.mkdir(exist_ok=True)
    lines = [f"name: {name}", *([f'schedule: "{schedule}"'] if schedule else [])]
    lines += [f"{key}: {value}" for key, value in keys.items()]
    path.write_text("\n".join([*lines, "steps: [{run: 'true'}]", ""]))
    return str(path)


def good(world: World, *argv: str) -> str:
    status, out, err = world.call(*argv)
    assert (status, out) == (0, ""), err
    return err


def bad(world: World, *argv: str) -> tuple[int, str]:
    status, out, err = world.call(*argv)
    assert out == "" and status
    return status, err


def command(world: World, *words: str) -> str:
    return " ".join([sys.executable, "-P", "-m", "agentrun", *words])


def test_thirty_lines_of_somebody_s_own_survive(world: World, cron: Cron, tmp_path: Path) -> None:
    cron.text = THIRTY
    said = good(world, "install", job("quotes"), job("backup", "30 3 * * *"))
    assert "job quotes is installed in the crontab: */15 * * * *" in said
    text = cron.text or b""
    assert text.startswith(THIRTY)
    assert text[len(THIRTY) :].decode().splitlines() == [
        "# BEGIN agentrun: written by `agentrun install`, taken out by `agentrun uninstall`",
        "SHELL=/bin/sh",
        f"PATH={tmp_path}/tools:/usr/bin:/bin",
        f"AGENTRUN_HOME={world.root}",
        f"# job backup: {tmp_path}/backup.yaml",
        f"30 3 * * * {command(world, 'run', f'{tmp_path}/backup.yaml')}",
        f"# job quotes: {tmp_path}/quotes.yaml",
        f"*/15 * * * * {command(world, 'run', f'{tmp_path}/quotes.yaml')}",
        "# all jobs: go on with what was cut off",
        f"@reboot {command(world, 'resume')}",
        f"* * * * * {command(world, 'resume')}",
        "# for the lines below: as it was above",
        "SHELL=/bin/sh",
        "PATH=/opt/bin:/usr/bin",
        'AGENTRUN_HOME=""',
        "# END agentrun",
    ]
    good(world, "uninstall", "backup", "quotes.yaml")
    assert cron.text == THIRTY


@pytest.mark.parametrize("text", [None, b"", b"0 3 * * * x"])
def test_installing_again_writes_nothing(world: World, cron: Cron, text: bytes | None) -> None:
    if text is not None:
        cron.text = text
    good(world, "install", job("quotes"))
    assert cron.calls() == ["-l", "-l", "-", "-l"]
    before = cron.text
    assert "job quotes is installed already in the crontab" in good(world, "install", "--cron", "./quotes.yaml")
    assert cron.calls() == ["-l"]
    assert cron.text == before
    job("quotes", "0 4 * * *")
    assert "is installed in the crontab: 0 4 * * *" in good(world, "install", "quotes.yaml")
    assert b"\n0 4 * * * " in (cron.text or b"") and b"*/15" not in (cron.text or b"")
    good(world, "uninstall", "--all")
    assert cron.text == text
    assert "no job is installed" in good(world, "uninstall", "--all")


def test_the_record_says_where_it_is(world: World, cron: Cron, tmp_path: Path) -> None:
    good(world, "install", job("quotes", timezone="Asia/Tokyo"))
    row = Jobs(world.store.database).job("quotes")
    assert row is not None and row.file == f"{tmp_path}/quotes.yaml"
    assert {name: row.installed[name] for name in ("how", "schedule", "timezone")} == {
        "how": "cron", "schedule": ["*/15 * * * *"], "timezone": "Asia/Tokyo",
    }  # fmt: skip
    assert row.schedule is not None and row.settled and row.due_at  # its ticks count from now on
    good(world, "uninstall", "quotes")
    row = Jobs(world.store.database).job("quotes")
    assert row is not None and (row.installed, row.schedule, row.due_at) == (None, None, None)


def test_all_objections_at_once_and_nothing_is_done(world: World, cron: Cron) -> None:
    job("never", None)
    job("unreal", "0 0 31 4 *", file="unreal.yaml")
    Path("wrong.yaml").write_text("steps: [{run: 'true', timout: 3}]\n")
    files = ["lost.yaml", job("quotes"), "never.yaml", "wrong.yaml", job("quotes", file="b/quotes.yaml"), "unreal.yaml"]
    status, said = bad(world, "install", *files)
    assert status == 66  # that of the first
    assert "there is no job file lost.yaml" in said
    assert "job never has no schedule: nothing says when to start it" in said
    assert 'for example: schedule: "*/15 * * * *"' in said
    assert "unknown key 'timout'" in said
    assert f"job quotes is the name of another job file too: {Path.cwd()}/quotes.yaml" in said
    assert "never comes" in said or "31" in said
    assert cron.text is None and "-" not in cron.calls()
    assert Jobs(world.store.database).jobs() == []


def test_one_name_for_two_files(world: World, cron: Cron) -> None:
    good(world, "install", job("quotes"))
    before = cron.text
    status, said = bad(world, "install", job("quotes", file="b/other.yaml"))
    assert status == 65
    assert f"{Path.cwd()}/b/other.yaml:1:1: job quotes is the name of another job file too" in said
    assert f"{Path.cwd()}/quotes.yaml" in said and "agentrun uninstall quotes" in said
    Jobs(world.store.database).uninstall(["quotes"])  # a record that has lost it: the crontab knows
    assert bad(world, "install", "b/other.yaml")[0] == 65
    assert cron.text == before
    good(world, "uninstall", "quotes")
    good(world, "install", "b/other.yaml")
    assert b"b/other.yaml" in (cron.text or b"")


@pytest.mark.parametrize("named", ["quotes", "quotes.yaml", "{here}/quotes.yaml"])
def test_a_job_whose_file_is_gone_is_taken_out(world: World, cron: Cron, named: str) -> None:
    cron.text = THIRTY
    good(world, "install", job("quotes"))
    Path("quotes.yaml").unlink()
    good(world, "uninstall", named.format(here=Path.cwd()))
    assert cron.text == THIRTY


def test_a_line_of_ones_own_that_starts_the_job_is_told(world: World, cron: Cron) -> None:
    """As `convert` leaves them."""
    cron.text = f"5 4 * * * {command(world, 'run', os.path.abspath(job('quotes')))}\n".encode()
    said = good(world, "install", "quotes.yaml")
    assert "a line of your own starts it, too (5 4 * * *): take it out by `crontab -e`" in said


def test_what_is_not_installed_is_told(world: World, cron: Cron) -> None:
    status, said = bad(world, "uninstall", "quotes")
    assert (status, "quotes is not installed" in said, "no job is installed" in said) == (66, True, True)
    good(world, "install", job("quotes"), job("backup"))
    before = cron.text
    status, said = bad(world, "uninstall", "quotes", "qoutes", "nothing.yaml")
    assert status == 66
    assert "qoutes is not installed\n  nothing.yaml is not installed" in said
    assert "installed: backup, quotes; nothing was changed" in said
    assert cron.text == before
    assert bad(world, "uninstall")[0] == 2
    assert bad(world, "uninstall", "--all", "quotes")[0] == 2


def test_a_kill_between_crontab_and_record_is_healed(world: World, cron: Cron) -> None:
    record = Jobs(world.store.database)
    good(world, "install", job("quotes"))
    row, text = record.job("quotes"), cron.text or b""
    record.uninstall(["quotes"])  # as if it had ended before the record
    assert "is installed in the crontab" in good(world, "install", "quotes.yaml")
    found = record.job("quotes")
    assert row is not None and found is not None and found.installed == row.installed and found.schedule
    assert cron.text == text
    record.uninstall(["quotes"])
    good(world, "uninstall", "quotes")  # the crontab knows it
    assert cron.text is None
    good(world, "install", "quotes.yaml")
    cron.text = b""  # as if uninstall had ended there, or by hand
    good(world, "uninstall", "quotes")
    found = record.job("quotes")
    assert found is not None and found.installed is None
    cron.text = b""
    good(world, "install", "quotes.yaml")
    cron.text = b"x\n"
    assert "is installed in the crontab" in good(world, "install", "quotes.yaml")
    assert (cron.text or b"").startswith(b"x\n# BEGIN agentrun:")


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_while_the_crontab_is_written(world: World, cron: Cron, written: bool) -> None:
    """Whoever is killed there, before or behind the change: doing it again completes it."""
    cron.text = THIRTY
    job("quotes")
    words = [sys.executable, "-P", "-m", "agentrun"]
    deadly = f'[ "$1" = - ] && {{ {"""cat >"$0.tab";""" if written else ""} kill -9 $PPID; exit 0; }}'
    for verb, what in (("install", "quotes.yaml"), ("uninstall", "quotes")):
        cron.first(deadly)
        assert subprocess.run([*words, verb, what], check=False).returncode == -signal.SIGKILL
        assert (b"# BEGIN agentrun:" in (cron.text or b"")) == (written == (verb == "install"))
        cron.first("")
        good(world, verb, what)
        row = Jobs(world.store.database).job("quotes")
        assert row is not None and (row.installed is not None) == (verb == "install")
        assert (b"# BEGIN agentrun:" in (cron.text or b"")) == (verb == "install")
    assert cron.text == THIRTY


def test_uninstall_leaves_the_lines_of_other_jobs_as_they_are(
    world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    good(world, "install", job("quotes"))
    one = cron.text
    good(world, "install", job("backup"))
    monkeypatch.setenv("PATH", f"{cron.program.parent}:/bin")
    good(world, "uninstall", "backup")
    assert cron.text == one
    good(world, "install", "quotes.yaml")
    assert f"\nPATH={cron.program.parent}:/bin\n".encode() in (cron.text or b"")


def test_a_copy_of_the_crontab_is_kept(world: World, cron: Cron) -> None:
    cron.text = b"0\n"
    texts = []
    for n in range(12):
        texts.append(cron.text)
        good(world, "install", job("quotes", f"{n} * * * *"))
    kept = sorted(Path(world.root, "backups").glob("crontab-*"))
    assert [one.read_bytes() for one in kept] == texts[2:]
    assert {one.stat().st_mode & 0o777 for one in kept} == {0o600}


NOT_ALLOWED = "echo 'You (ann) are not allowed to use this program (crontab)' >&2; exit 1"


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (NOT_ALLOWED, 69, "`crontab -l` says You (ann) are not allowed to use this program (crontab)\n  hint: cron."),
        ("echo 'cannot open the spool' >&2; exit 3", 69, "`crontab -l` says cannot open the spool\n  hint: look why"),
        ("exit 3", 69, "`crontab -l` says nothing, with status 3"),
        ('[ "$1" = -l ] && exec cat /dev/zero', 69, "gave no answer within 0.5 s"),
        ('[ "$1" = - ] && { echo "-:3: bad minute" >&2; exit 1; }', 73, "cannot be written: `crontab` says -:3: bad"),
        ('[ "$1" = - ] && exit 0', 73, "the crontab is as it was: somebody else wrote it just now"),
        ('[ "$1" = - ] && { cat >/dev/null; echo y >"$0.tab"; exit 0; }', 73, "the crontab is not what was written"),
        ('[ "$1" = - ] && { cat >/dev/null; exec cat /dev/zero; }', 73, "as it was: `crontab` gave no answer within 0"),
        ('[ "$1" = -l ] && echo "# $$" >>"$0.tab"', 75, "the crontab was changed by somebody else each time"),
    ],
)
def test_a_crontab_that_cannot_be_used(
    world: World, cron: Cron, script: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PATIENCE", 0.5)
    cron.text = THIRTY
    cron.first(script)
    found, err = bad(world, "install", job("quotes"))
    assert said in err
    assert found == status
    assert (cron.text or b"").startswith(THIRTY) or "not what was written" in said
    assert Jobs(world.store.database).jobs() == []


def test_somebody_changes_the_crontab_at_the_same_time(world: World, cron: Cron) -> None:
    cron.text = THIRTY
    cron.first('[ "$(wc -l <"$0.calls")" = 2 ] && echo "5 5 * * * new" >>"$0.tab"')
    good(world, "install", job("quotes"))
    assert (cron.text or b"").startswith(THIRTY + b"5 5 * * * new\n# BEGIN")


def test_a_torn_block(world: World, cron: Cron) -> None:
    good(world, "install", job("quotes"))
    torn = (cron.text or b"").replace(b"# END agentrun\n", b"")
    cron.text = torn
    for verb in (["install", job("backup")], ["uninstall", "quotes"]):
        status, said = bad(world, *verb)
        assert (status, "is torn" in said) == (73, True)
        assert cron.text == torn


def test_a_warning_about_the_schedule(world: World, cron: Cron) -> None:
    said = good(world, "install", job("quotes", "0 3 31 * *"), job("backup", "*/40 * * * *"))
    assert "warning: job quotes: '0 3 31 * *': day 31 never comes in February" in said
    assert "warning: job backup: '*/40 * * * *': '*/40' is uneven" in said
    assert "'0 3" not in good(world, "install", job("quotes", "0 4 30,31 * *"), job("odd", "5 4 * * *"))


def test_a_warning_that_things_differ_under_cron(
    world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", pwd.getpwuid(os.geteuid()).pw_dir)
    file = tmp_path / "a b.yaml"
    text = "name: q\nschedule: '5 4 * * *'\nsteps: [{run: 'ls $REGION; nosuch'}]\n"
    file.write_text(text)
    show = f"agentrun env '{file}' --as-cron --explain"
    assert f"warning: job q: 1 thing differs under cron: {show}" in good(world, "install", str(file))
    monkeypatch.setenv("REGION", "eu")
    assert f"warning: job q: 2 things differ under cron: {show}" in good(world, "install", str(file))
    checks = world.call("env", str(file), "--as-cron", "--explain", "--json")[1]
    assert checks.count('"check"') == 2
    file.write_text(text.replace("; nosuch", "").replace("name: q", "name: q\nenv: {REGION: eu}"))
    assert "under cron" not in good(world, "install", str(file))
    file.write_text(text.replace("name: q", "name: q\nenv_file: nowhere"))
    assert "job q is installed" in good(world, "install", str(file))


def test_a_warning_that_nobody_is_told(
    world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mail, "_MAILERS", str(tmp_path))
    monkeypatch.setattr(mail, "for_all_jobs", lambda: None)
    told = job("backup", "5 4 * * *", notify="{to: [{mail: ann@example.org}]}")
    said = good(world, "install", job("quotes"), told)
    assert "warning: a failure of quotes would be reported to nobody: this machine has no sendmail" in said
    (tmp_path / "sendmail").write_text("#!/bin/sh\n")
    (tmp_path / "sendmail").chmod(0o755)
    assert "nobody" not in good(world, "install", "quotes.yaml", told)
    cron.text = b'MAILTO=""\n' + (cron.text or b"")
    said = good(world, "install", "quotes.yaml", told)
    assert 'a failure of quotes would be reported to nobody: MAILTO is ""' in said
    assert "nobody" not in good(world, "install", told)


def test_two_installations_at_once(world: World, cron: Cron) -> None:
    words = [sys.executable, "-P", "-m", "agentrun", "install"]
    both = [subprocess.Popen([*words, job(name)], stderr=subprocess.PIPE) for name in ("one", "two", "three")]
    assert [process.communicate()[1].count(b"is installed in") for process in both] == [1, 1, 1]
    text = (cron.text or b"").decode()
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# job")] == ["one:", "three:", "two:"]


def test_an_installation_waits_for_another(world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_QUEUE", 0.0)
    fd = os.open("home", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    status, said = bad(world, "install", job("quotes"))
    assert (status, f"another process has held {Path.cwd()}/home locked" in said) == (75, True)
    assert cron.calls() == []
    os.close(fd)
    good(world, "install", "quotes.yaml")


def test_the_environment_of_the_lines(
    world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{cron.program.parent}:bin:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}/config")
    assert "left out of the PATH: bin" in good(world, "install", job("quotes"))
    assert f"\nPATH={cron.program.parent}:/usr/bin:/bin\n" in (cron.text or b"").decode()
    assert f"\nXDG_CONFIG_HOME={tmp_path}/config\n" in (cron.text or b"").decode()
    before = cron.text
    monkeypatch.setenv("PATH", f"{cron.program.parent}:/usr/bin:/bin:{tmp_path}/config/" + "/" * 999)
    status, said = bad(world, "install", "quotes.yaml")
    assert (status, "cron cuts off" in said) == (73, True)
    assert cron.text == before


@pytest.mark.parametrize("how", [["--cron"], ["--systemd", "--user"]])
def test_one_state_folder_for_all_that_is_installed(
    world: World, cron: Cron, systemctl: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    how: list[str],
) -> None:  # fmt: skip
    good(world, "install", *how, job("quotes"))
    before = cron.text
    monkeypatch.setenv("AGENTRUN_HOME", f"{tmp_path}/other")
    status, said = bad(world, "install", *how, job("backup"))
    assert status == 2
    assert f"recorded in {world.root} (quotes), and AGENTRUN_HOME is {tmp_path}/other here" in said
    assert cron.text == before
    good(world, "install", *how, "quotes.yaml")  # alone it may move
    said = good(world, "uninstall", "quotes")
    assert cron.text is None


def test_a_program_that_would_not_start_there(world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path("python")
    python.write_text("#!/bin/sh\necho 'No module named agentrun' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python.resolve()))
    status, said = bad(world, "install", job("quotes"))
    assert (status, "this program does not start: No module named agentrun" in said) == (69, True)
    assert cron.text is None


@pytest.mark.parametrize(
    "options",
    [["--cron", "--systemd"], ["--user"], ["--systemd", "--user", "--system"], ["--kubernetes"],
     ["--print", "--cron", "--kubernetes"]],
)  # fmt: skip
def test_options_that_do_not_go_together(world: World, cron: Cron, options: list[str]) -> None:
    assert bad(world, "install", job("quotes"), *options)[0] == 2


def test_neither_cron_nor_systemd(world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, said = bad(world, "install", job("quotes"))
    assert (status, "neither a `crontab` command nor systemd" in said) == (69, True)
    status, said = bad(world, "install", "--cron", "quotes.yaml")
    assert (status, "there is no `crontab` command on the PATH" in said) == (69, True)


def test_print_changes_nothing(world: World, cron: Cron) -> None:
    status, out, err = world.call("install", "--print", job("quotes"))
    assert (status, err) == (0, "")
    assert out.startswith("# BEGIN agentrun:") and out.endswith("# END agentrun\n")
    cron.text = b""
    good(world, "install", "quotes.yaml")
    assert (cron.text or b"").decode() == out
    job("quotes", "0 4 * * *")
    assert "0 4 * * * " in world.call("install", "--print", "quotes.yaml")[1]
    assert (cron.text or b"").decode() == out
    assert not Path("home/.config").exists()
    units_text = world.call("install", "--print", "--systemd", "--user", job("backup"))[1]
    assert f"# {Path.cwd()}/home/.config/systemd/user/agentrun-backup.timer\n" in units_text
    assert not Path("home/.config").exists()


# -- Debian's own ----------------------------------------------------------------------------------------------------

DEBIAN = "/usr/bin/crontab"
NEEDS_DEBIAN = os.geteuid() != 0 or not os.path.exists(DEBIAN) or not os.path.exists("/usr/sbin/useradd")


@pytest.fixture
def debian(cron: Cron) -> Iterator[Callable[..., bytes | None]]:
    """Debian's crontab of a user of the test's own; what it holds, or what it is made to hold."""
    name = f"agentrun-{os.getpid()}"
    subprocess.run(["/usr/sbin/useradd", "--no-create-home", "--home-dir", "/nonexistent", name], check=True)
    cron.program.write_text(f'#!/bin/sh\nexec {DEBIAN} -u {name} "$@"\n')

    def table(text: bytes | None = None) -> bytes | None:
        if text is not None:
            subprocess.run([cron.program, "-"], input=text, check=True)
        spool = Path("/var/spool/cron/crontabs", name)
        # three lines of the spool file are its own
        return spool.read_bytes().split(b"\n", 3)[3] if spool.exists() else None

    try:
        yield table
    finally:
        subprocess.run([cron.program, "-r"], check=False, capture_output=True)
        subprocess.run(["/usr/sbin/userdel", name], check=True, capture_output=True)
        with pytest.raises(KeyError):
            pwd.getpwnam(name)


@pytest.mark.skipif(NEEDS_DEBIAN, reason="needs root, useradd and Debian's cron")
@pytest.mark.parametrize("text", [None, b"", THIRTY, b"# a\\rb \\b\n# c\r\n# d\b\n", b"# only \\b\n", b"\n \n# \xff\n"])
def test_debian_s_crontab(
    world: World, debian: Callable[..., bytes | None], text: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `crontab -l` shows some control characters as others: the text behind that has to survive."""
    monkeypatch.setenv("CRONTAB_NOHEADER", "N")
    before = debian(text)
    assert before == text
    good(world, "install", job("quotes", file="50% a'b.yaml"))
    written = debian() or b""
    assert written.startswith(text or b"") and rb"/50\% a'" in written
    assert "installed already" in good(world, "install", "50% a'b.yaml")
    assert debian() == written
    good(world, "install", job("tokyo", "0 9 * * mon-fri", timezone="Asia/Tokyo"), job("often", "@hourly"))
    good(world, "uninstall", "--all")
    assert debian() == text


# -- systemd ---------------------------------------------------------------------------------------------------------

SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$0.calls"
case "$*" in
*is-system-running) cat "$0.state"; [ "$(cat "$0.state")" = running ];;
*is-enabled*|*is-active*) [ -e "$0.enabled" ];;
*enable*--now*|*restart*) : >"$0.enabled";;
esac
"""


@pytest.fixture
def systemctl(cron: Cron) -> Callable[[str], list[str]]:
    """A systemctl of the test's own: says that systemd is in this state; what it was asked since the last time."""
    program = cron.program.with_name("systemctl")
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    calls = program.with_name("systemctl.calls")

    def state(word: str) -> list[str]:
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.write_text("")
        program.with_name("systemctl.state").write_text(word)
        return [call.removeprefix("--user ") for call in found]

    state("offline")
    return state


def folder() -> Path:
    return Path.cwd() / "home/.config/systemd/user"


def test_units_without_a_systemd_that_runs(world: World, cron: Cron, systemctl: Callable[[str], list[str]]) -> None:
    said = good(world, "install", "--systemd", "--user", job("quotes", "0 3 13 * 5", timezone="Europe/Berlin"))
    assert "systemctl --user daemon-reload" in said
    assert "systemctl --user enable --now agentrun-resume.timer agentrun-quotes.timer" in said
    names = ["agentrun-quotes.service", "agentrun-quotes.timer", "agentrun-resume.service", "agentrun-resume.timer"]
    assert sorted(one.name for one in folder().iterdir()) == names
    timer = (folder() / names[1]).read_text().splitlines()
    assert [line for line in timer if line.startswith("OnCalendar=")][:2] == [
        "OnCalendar=Fri *-*-* 03:00:00 Europe/Berlin",
        "OnCalendar=*-*-13 03:00:00 Europe/Berlin",
    ]
    assert {"Persistent=true", "RandomizedDelaySec=0", "WantedBy=timers.target"} <= set(timer)
    service = (folder() / names[0]).read_text()
    assert f'"{sys.executable}" "-P" "-m" "agentrun" "run" "{Path.cwd()}/quotes.yaml"' in service
    assert "KillMode=mixed" in service and f'Environment="AGENTRUN_HOME={world.root}"' in service
    assert cron.calls() == []
    before = {one: one.stat().st_mtime_ns for one in folder().iterdir()}
    assert "installed already" in good(world, "install", "--systemd", "--user", "quotes.yaml")
    assert {one: one.stat().st_mtime_ns for one in folder().iterdir()} == before
    status, said = bad(world, "install", "quotes.yaml")
    assert (status, "job quotes is installed already, by systemd" in said) == (2, True)
    good(world, "install", "--systemd", "--user", job("backup"))
    (folder() / "theirs.timer").write_text("[Timer]\n")
    (folder() / "agentrun-theirs.timer").write_text("[Timer]\n")
    Path("quotes.yaml").unlink()
    good(world, "uninstall", str(Path.cwd() / "quotes.yaml"))
    assert "agentrun-resume.timer" in {one.name for one in folder().iterdir()}
    good(world, "uninstall", "--all")
    assert sorted(one.name for one in folder().iterdir()) == ["agentrun-theirs.timer", "theirs.timer"]
    status, said = bad(world, "install", "--systemd", "--user", job("theirs"))
    assert (status, "was not written by agentrun" in said) == (73, True)
    assert not (folder() / "agentrun-resume.timer").exists()


def test_units_are_started_and_stopped(world: World, cron: Cron, systemctl: Callable[[str], list[str]]) -> None:
    systemctl("running")
    both = "agentrun-resume.timer agentrun-quotes.timer"
    good(world, "install", "--systemd", "--user", job("quotes"))
    assert [call for call in systemctl("running") if not call.startswith("is-")] == [
        "daemon-reload", f"enable {both}", "restart agentrun-quotes.timer agentrun-resume.timer",
    ]  # fmt: skip
    good(world, "install", "--systemd", "--user", "quotes.yaml")
    assert all(call.startswith("is-") for call in systemctl("running"))
    cron.program.with_name("systemctl.enabled").unlink()  # somebody stopped them
    good(world, "install", "--systemd", "--user", "quotes.yaml")
    assert f"enable --now {both}" in systemctl("running")
    good(world, "uninstall", "quotes")
    assert [call for call in systemctl("running") if not call.startswith("is-")] == [
        "disable --now agentrun-quotes.timer agentrun-resume.timer", "daemon-reload",
    ]  # fmt: skip
    assert list(folder().iterdir()) == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("file", ["quotes.yaml", "a b%c$d'e\\f.yaml"])
def test_systemd_accepts_the_units(
    world: World, cron: Cron, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str,
    systemctl: Callable[[str], list[str]],
) -> None:  # fmt: skip
    monkeypatch.setattr(units, "SYSTEM_FOLDER", str(tmp_path / "system"))
    path = job("quotes", "5 1-3 * jan-mar sun", file=file, timezone="America/New_York")
    said = good(world, "install", "--systemd", "--system", path)
    assert "systemctl daemon-reload" in said and "linger" not in said
    made = sorted(str(one) for one in (tmp_path / "system").iterdir())
    checked = subprocess.run(
        ["systemd-analyze", "verify", *made], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")
    assert units.installed("system") == [units.Installed("quotes", str(tmp_path / file), "system")]
    good(world, "uninstall", path)
    assert list((tmp_path / "system").iterdir()) == []


def test_a_job_with_the_name_of_our_own_unit(world: World, cron: Cron, systemctl: Callable[[str], list[str]]) -> None:
    status, said = bad(world, "install", "--systemd", "--user", job("resume"))
    assert (status, "would have the name of agentrun's own" in said) == (2, True)


# -- Kubernetes ------------------------------------------------------------------------------------------------------


def test_a_cron_job_of_kubernetes(world: World, cron: Cron) -> None:
    Path("q.yaml").write_text(
        'name: My_Quotes.x\nschedule: ["*/15 * * * *", "0 0 13 * fri"]\ntimezone: Europe/Berlin\n'
        "concurrency: replace\nstart_deadline: 90s\nsteps:\n- run: |\n    echo 'a: b' # c\n\n    true\n\n\n"
    )
    status, out, err = world.call("install", "--print", "--kubernetes", "q.yaml", job("plain"))
    assert (status, err) == (0, "")
    documents = [yaml_core.load(text) for text in out.split("---\n")]
    assert [document["kind"] for document in documents] == [
        "PersistentVolumeClaim", "ConfigMap", "CronJob", "CronJob", "PersistentVolumeClaim", "ConfigMap", "CronJob",
    ]  # fmt: skip
    claim, config, one, two, _, _, plain = documents
    assert config["data"]["job.yaml"] == Path("q.yaml").read_text()
    assert claim["metadata"]["name"] == config["metadata"]["name"] == "agentrun-my-quotes-x"
    assert [one["metadata"]["name"], two["metadata"]["name"]] == ["agentrun-my-quotes-x-1", "agentrun-my-quotes-x-2"]
    assert one["apiVersion"] == "batch/v1"
    assert [one["spec"]["schedule"], two["spec"]["schedule"]] == ["0,15,30,45 * * * *", "0 0 13 * 5"]
    assert one["spec"]["timeZone"] == "Europe/Berlin" and plain["spec"]["timeZone"] == "Etc/UTC"
    assert one["spec"]["concurrencyPolicy"] == "Replace" and plain["spec"]["concurrencyPolicy"] == "Forbid"
    assert one["spec"]["startingDeadlineSeconds"] == 90
    assert one["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["command"] == ["python", "-P", "-m", "agentrun", "run", "/etc/agentrun/job.yaml"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert cron.calls() == []


@pytest.mark.parametrize(
    "text", ["a: b\n", "a: b", "a: b\n\n\n", "\n a\n", "  a: b\n", "a:\tb\n", "a: 'ü \x85'\n", "a\r\n", "# é\n"]
)
def test_any_job_file_is_held_by_a_manifest(text: str) -> None:
    from agentrun.cron.kubernetes import _file

    assert yaml_core.load(_file("a", text))["data"]["job.yaml"] == text

