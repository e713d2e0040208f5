"""`agentrun convert`: what it reads, prints, writes, refuses; --install with a crontab of its own and Debian's."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrun.cli import install
from agentrun.spec.decode import load

from .recorded import World
from .test_cli_install import NEEDS_DEBIAN, Cron, cron, debian

__all__ = ["cron", "debian"]  # fixtures

TAB = (
    b"MAILTO=ann\n# Nightly\n30 3 * * * cd /srv && ./backup.sh --all >/dev/null 2>&1\n"
    b"0 1 * * * x >l-$(date +%F)\n@daily /opt/clean"
)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    """What stands on standard input."""
    monkeypatch.chdir(tmp_path)

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(b"")
    return give


def write(name: str, data: bytes = TAB) -> str:
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_bytes(data)
    return name


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_a_crontab_through_a_pipe_is_printed_as_job_files(world: World, given: Callable[[bytes], None]) -> None:
    given(TAB)
    status, out, err = world.call("convert")
    assert status == 0
    assert out.startswith("# ---- backup.yaml ----\n\nname: backup\ndescription: Nightly\nschedule: 30 3 * * *\n")
    assert f"run {Path.cwd()}/clean.yaml" in out.split("# ---- crontab ----")[1]
    assert "3 entries: 2 are jobs now, 1 as before; 3 things in it look wrong" in err
    assert "line 3  backup.yaml\n  lifted  >/dev/null" in err
    assert files(".") == ["state"] or not [name for name in files(".") if name.endswith("yaml")]
    given(TAB)
    assert world.call("convert", "-")[1] == out


def test_into_a_folder(world: World, given: Callable[[bytes], None]) -> None:
    status, out, err = world.call("convert", write("tab"), "-o", "jobs/new")
    assert (status, out) == (0, "")
    assert files("jobs/new") == ["backup.yaml", "clean.yaml", "crontab"]
    job, _ = load("jobs/new/backup.yaml")
    assert (job.working_dir, job.steps[0].run) == ("/srv", "./backup.sh --all")
    lines = Path("jobs/new/crontab").read_bytes().split(b"\n")
    line = f"30 3 * * * {sys.executable} -P -m agentrun run {Path.cwd()}/jobs/new/backup.yaml"
    assert lines[1:4] == [*TAB.split(b"\n")[:2], os.fsencode(line)]
    assert b"0 1 * * * x >l-$(date +%F)" in lines
    assert "2 job files and crontab in jobs/new; nothing is installed" in err
    assert "crontab jobs/new/crontab" in err


def test_nothing_is_written_over_and_then_nothing_at_all(world: World, given: Callable[[bytes], None]) -> None:
    write("jobs/clean.yaml", b"mine")
    status, _, err = world.call("convert", write("tab"), "-o", "jobs")
    assert status == 73 and "jobs/clean.yaml: there already; nothing was written" in err and "--force" in err
    assert files("jobs") == ["clean.yaml"] and Path("jobs/clean.yaml").read_bytes() == b"mine"
    assert world.call("convert", "tab", "-o", "jobs", "--force")[0] == 0
    assert Path("jobs/clean.yaml").read_bytes().startswith(b"name: clean\n")
    os.symlink("/nowhere", "jobs/crontab.link")
    Path("jobs/crontab").unlink()
    os.symlink("/nowhere/at/all", "jobs/crontab")
    assert world.call("convert", "tab", "-o", "jobs")[0] == 73
    Path("jobs/crontab").unlink()
    Path("jobs/crontab").mkdir()
    status, _, err = world.call("convert", "tab", "-o", "jobs", "--force")
    assert status == 73 and "jobs/crontab: there already" in err


def test_a_dash_as_output_is_standard_output(world: World, given: Callable[[bytes], None]) -> None:
    status, out, _ = world.call("convert", write("tab"), "-o", "-")
    assert (status, out) == world.call("convert", "tab")[:2] and "schedule:" in out
    assert not os.path.lexists("-")


def modes(folder: str) -> set[int]:
    return {stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) for name in files(folder)}


def test_files_have_the_mode_that_the_umask_gives(world: World, given: Callable[[bytes], None]) -> None:
    before = os.umask(0o027)
    try:
        os.chmod(write("tab"), 0o644)
        world.call("convert", "tab", "-o", "jobs")
    finally:
        os.umask(before)
    assert modes("jobs") == {0o640}


def test_files_are_readable_to_those_who_could_read_it_before(world: World, given: Callable[[bytes], None]) -> None:
    os.chmod(write("tab"), 0o600)
    world.call("convert", "tab", "-o", "jobs")
    assert modes("jobs") == {0o600}
    given(b"1 2 * * * curl -u me:secret https://example.org\n")  # of `crontab -l`, which only its user may see
    world.call("convert", "-o", "piped")
    assert modes("piped") == {0o600}
    Path("a.sh").write_text("#!/bin/sh\n./a\n./b\n")
    os.chmod("a.sh", 0o755)
    world.call("convert", "a.sh", "-o", "a.yaml")
    assert stat.S_IMODE(os.stat("a.yaml").st_mode) == 0o666 & ~umask()
    os.chmod("a.sh", 0o700)
    world.call("convert", "a.sh", "-o", "b.yaml")
    assert stat.S_IMODE(os.stat("b.yaml").st_mode) == 0o600


def test_a_user_of_another_machine_is_no_hindrance(world: World, given: Callable[[bytes], None]) -> None:
    os.chmod(Path(write("tab", b"1 2 * * * no-such-user /opt/b\n")), 0o600)
    status, _, err = world.call("convert", "tab", "--system", "-o", "jobs")
    assert (status, files("jobs")) == (0, ["b.yaml", "crontab"]), err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_private_job_is_its_user_s(world: World, given: Callable[[bytes], None]) -> None:
    Path("a.sh").write_text("#!/bin/sh\nmake a\n\nmake b\n")
    os.chmod("a.sh", 0o700)
    given(f"1 2 * * * nobody {os.getcwd()}/a.sh\n3 4 * * * nobody /opt/b\n".encode())
    status, _, err = world.call("convert", "--system", "--scripts", "-o", "jobs")
    assert status == 0, err
    owners = {name: Path(f"jobs/{name}").owner() for name in files("jobs")}
    assert owners == {"a.yaml": "nobody", "b.yaml": "root", "crontab": "root"}
    assert stat.S_IMODE(os.stat("jobs/a.yaml").st_mode) == 0o600


def umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ours_is_said(world: World, given: Callable[[bytes], None]) -> None:
    Path("jobs").mkdir(mode=0o500)
    status, _, err = world.call("convert", write("tab"), "-o", "jobs")
    assert status == 73 and "cannot write" in err


def test_a_file_in_the_place_of_the_folder(world: World, given: Callable[[bytes], None]) -> None:
    status, _, err = world.call("convert", write("tab"), "-o", write("file", b""))
    assert status == 73 and "cannot write" in err


def test_as_json(world: World, given: Callable[[bytes], None]) -> None:
    [shape] = json.loads(world.call("convert", write("tab"), "--json")[1])
    assert shape["schema"] == "agentrun.conversion/1" and (shape["source"], shape["kind"]) == ("tab", "crontab")
    assert [(job["name"], job["line"]) for job in shape["jobs"]] == [("backup.yaml", 3), ("clean.yaml", 5)]
    assert shape["jobs"][0]["text"].startswith("name: backup\n") and "MAILTO=ann" in shape["crontab"]["text"]
    assert shape["entries_kept"] == 1
    assert {note["kind"] for note in shape["notes"]} == {"lifted", "bug", "advice"}
    assert [note["file"] for note in shape["notes"] if note["line"] == 3] == ["backup.yaml"] * 2
    [shape] = json.loads(world.call("convert", "tab", "--json", "-o", "jobs")[1])
    assert "text" not in shape["jobs"][0] and os.path.exists(shape["jobs"][0]["file"])


def test_several_crontabs_have_names_and_crontabs_of_their_own(world: World, given: Callable[[bytes], None]) -> None:
    one, two = write("a/one", b"0 1 * * * /x\n"), write("a/two", b"0 1 * * * root /x\n")
    assert world.call("convert", one, two, "-o", "jobs")[0] == 0
    assert files("jobs") == ["crontab-one", "crontab-two", "x-2.yaml", "x.yaml"]
    assert b"root" in Path("jobs/crontab-two").read_bytes()


def test_take_logs_and_system(world: World, given: Callable[[bytes], None]) -> None:
    out = world.call("convert", write("tab", b"0 1 * * * wiki /x >>/var/log/x 2>&1\n"), "--take-logs", "--system")[1]
    assert "  run: /x\n" in out and "0 1 * * * wiki " in out


def test_a_script_becomes_one_file(world: World, given: Callable[[bytes], None]) -> None:
    script = write("bin/back up.sh", b"#!/bin/sh\n# Copies all\nmake dump\n\nmake copy\n")
    status, out, err = world.call("convert", script)
    assert status == 0 and "carry: shell" in out and "# ----" not in out
    status, out, err = world.call("convert", script, "-o", "new.yaml")
    assert (status, out) == (0, "") and "new.yaml is written" in err
    assert load("new.yaml")[0].steps
    Path("into").mkdir()
    world.call("convert", script, "-o", "into")
    assert len(files("into")) == 1 and files("into")[0].endswith(".yaml")
    assert world.call("convert", script, "-o", "new.yaml")[0] == 73


def test_a_python_script(world: World, given: Callable[[bytes], None]) -> None:
    out = world.call("convert", write("sync.py", b"import time\ntime.sleep(1)\n"))[1]
    assert "sync.py" in out and "name: sync" in out


def test_as_says_what_it_is(world: World, given: Callable[[bytes], None]) -> None:
    assert "schedule" in world.call("convert", write("x.sh", b"0 1 * * * /x\n"), "--as", "crontab")[1]
    assert "carry" in world.call("convert", write("y", b"make a\nmake b\n"), "--as", "script")[1]


def test_scan(world: World, given: Callable[[bytes], None]) -> None:
    write("tree/loop.sh", b"#!/bin/sh\nwhile true; do work; sleep 60; done\n")
    status, out, _ = world.call("convert", "--scan", "tree")
    assert status == 0 and "loop.sh:2" in out
    assert world.call("convert", "--scan", "tree", "x")[0] == 2


@pytest.mark.parametrize(
    ("data", "argv", "status", "words"),
    [
        (b"", ("f",), 65, "f is empty"), (b" \n\n", ("f",), 65, "f is empty"), (b"\0\1\2\3" * 99, ("f",), 65, "binary"),
        (b"hello there\nand more prose\n", ("f",), 65, "neither a crontab"), (b"x", ("nosuch",), 66, "cannot be read"),
        (b"hello there\n", ("f", "--as", "crontab"), 65, "is no crontab: line 1"),
        (b"0 1 * * * x\n" * 100_000, ("f",), 65, "100000 lines"), (b"x", (".",), 66, "is a folder"),
        (b"0 1 * * * /x\n", ("f", "--as", "perl"), 2, "crontab or script"),
        (b"0 1 * * * /x\n", ("f", "--install"), 2, "needs -o DIR"),
        (b"#!/bin/sh\nx\n", ("f", "--install", "-o", "d"), 2, "for a crontab"),
        (b"0 1 * * * /x\n", ("f", "f", "--install", "-o", "d"), 2, "name one"),
        (b"x", ("--scan", "nosuch"), 66, "not there"),
        (b"x", (), 65, "standard input is empty"),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_word(
    world: World, given: Callable[[bytes], None], data: bytes, argv: tuple[str, ...], status: int, words: str
) -> None:
    write("f", data)
    found, out, err = world.call("convert", *argv)
    assert (found, out) == (status, "") and words in err and "mistake in agentrun" not in err
    assert files(".") == ["f", "state", *[one for one in files(".") if one.startswith("state/")]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_is_not_ours(world: World, given: Callable[[bytes], None]) -> None:
    Path(write("f")).chmod(0)
    status, _, err = world.call("convert", "f")
    assert status == 66 and "Permission denied" in err


def test_odd_bytes_are_no_traceback(world: World, given: Callable[[bytes], None]) -> None:
    text = (
        b"\xef\xbb\xbfA=\xff\r\n# \xe9\r\n0 1 * * * /caf\xe9\n0 2 * * * /o\0k\n0 3 * * * /x \x07\n"
        b"*/5 * * * * /ok # \xe9\n0 4 * * * /fine"
    )
    status, _, err = world.call("convert", write("tab", text), "-o", "jobs")
    assert status == 0 and "Traceback" not in err and "mistake in agentrun" not in err
    assert "fine.yaml" in files("jobs")
    assert b"0 1 * * * /caf\xe9\n0 2 * * * /o\0k\n0 3 * * * /x \x07\n" in Path("jobs/crontab").read_bytes()


def test_without_a_job_nothing_is_written(world: World, given: Callable[[bytes], None]) -> None:
    status, out, err = world.call("convert", write("tab", b"# only\n"), "-o", "jobs")
    assert (status, out) == (0, "") and "a crontab without a job" in err and not os.path.exists("jobs")


# -- install --------------------------------------------------------------------------------------------------------


def test_install_takes_the_crontab_that_is_there(
    world: World, cron: Cron, given: Callable[[bytes], None], tmp_path: Path
) -> None:
    cron.text = TAB
    status, out, err = world.call("convert", "--install", "-o", "jobs")
    assert (status, out) == (0, ""), err
    assert cron.text == Path("jobs/crontab").read_bytes() != TAB
    assert "2 job files and the new crontab are in use" in err
    [backup] = Path(world.root, "backups").glob("crontab-*")
    assert backup.read_bytes() == TAB
    given(cron.text)
    assert "0 are jobs now" in world.call("convert")[2] or world.call("convert")[0] == 65


@pytest.mark.parametrize("pipe", [True, False])
def test_install_of_what_was_piped_or_named(
    world: World, cron: Cron, given: Callable[[bytes], None], pipe: bool
) -> None:
    cron.text = TAB
    given(TAB if pipe else b"")
    argv = ["convert", "--install", "-o", "jobs", *([] if pipe else [write("tab")])]
    assert world.call(*argv)[0] == 0
    assert cron.text == Path("jobs/crontab").read_bytes()


def test_another_crontab_than_yours_is_not_installed(world: World, cron: Cron, given: Callable[[bytes], None]) -> None:
    cron.text = TAB
    status, _, err = world.call("convert", write("tab", b"0 1 * * * /x\n"), "--install", "-o", "jobs")
    assert status == 2 and "your crontab is another one than tab: nothing was written" in err
    assert cron.text == TAB and not os.path.exists("jobs")


def test_without_a_crontab_nothing_is_installed(world: World, cron: Cron, given: Callable[[bytes], None]) -> None:
    status, _, err = world.call("convert", "--install", "-o", "jobs")
    assert status == 66 and "you have no crontab" in err


def test_a_system_crontab_is_not_installed(world: World, cron: Cron, given: Callable[[bytes], None]) -> None:
    cron.text = b"0 1 * * * root /x\n"
    status, _, err = world.call("convert", "--install", "-o", "jobs")
    assert status == 2 and "the system's" in err and not os.path.exists("jobs")


def test_a_program_that_cron_could_not_start_is_not_installed(
    world: World, cron: Cron, given: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cron.text = TAB
    monkeypatch.setattr(install, "_command", lambda *words: ["/nosuch/python", *words])
    status, _, err = world.call("convert", "--install", "-o", "jobs")
    assert status == 69 and "does not start" in err and cron.text == TAB


def test_a_crontab_that_changes_meanwhile_is_not_touched(
    world: World, cron: Cron, given: Callable[[bytes], None]
) -> None:
    cron.text = TAB
    # the first look is the conversion's, the second the check's: from the third on it is another one
    cron.first('[ $(grep -c . "$0.calls") -lt 3 ] || [ -e "$0.new2" ] || { : >"$0.new2"; echo "# mine" >>"$0.tab"; }\n')
    status, _, err = world.call("convert", "--install", "-o", "jobs")
    assert status == 2 and "changed meanwhile" in err
    assert (cron.text or b"").endswith(b"# mine\n")


@pytest.mark.skipif(NEEDS_DEBIAN, reason="needs root, useradd and Debian's cron")
def test_debian_s_crontab_takes_it(
    world: World, debian: Callable[..., bytes | None], given: Callable[[bytes], None]
) -> None:
    text = (
        b"# caf\xc3\xa9\r\nPATH=/opt/bin:/usr/bin:/bin\n*/15\t8-18 * * mon-fri  cd /srv && ./x 'a b' \\%F  \n"
        b"@reboot /opt/serve &\n@weekly y\n"
    )
    debian(text)
    status, _, err = world.call("convert", "--install", "-o", "jobs")
    assert status == 0, err
    assert debian() == Path("jobs/crontab").read_bytes()
    assert files("jobs") == ["crontab", "serve.yaml", "x.yaml", "y.yaml"]
    assert load("jobs/x.yaml")[0].steps[0].run == "./x 'a b' %F"
    again = debian()
    assert world.call("convert", "--install", "-o", "jobs", "--force")[0] in (0, 65)
    assert debian() == again
