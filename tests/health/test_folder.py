"""The state folder: each thing that can be wrong with it made wrong."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrun.health import folder
from agentrun.health.checkup import look
from agentrun.health.finding import size
from agentrun.health.site import Site

from .conftest import LONG_AGO, Patient

GROUND = ("state_folder", "state_files", "file_system", "disk_space", "inodes", "locks", "sockets")


@pytest.mark.parametrize("name", GROUND)
def test_a_sound_folder(patient: Patient, name: str) -> None:
    patient.run().finish()
    patient.good(name)


@pytest.mark.parametrize("name", GROUND)
def test_before_the_first_run_nothing_is_wrong_and_nothing_is_made(fresh: Site, name: str) -> None:
    assert look(name, fresh).ok
    assert os.listdir(os.path.dirname(fresh.root)) == []


def _mode(mode: int) -> Callable[[Patient], object]:
    return lambda patient: os.chmod(patient.root, mode)


def _a_file(patient: Patient) -> None:
    patient.root += "/file"
    Path(patient.root).write_text("")


def _below_a_file(patient: Patient) -> None:
    _a_file(patient)
    patient.root += "/state"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_mode(0o755), "can be looked into by others (mode 0755) → chmod go-rwx "),
        (_mode(0o770), "can be changed by others (mode 0770) → chmod go-rwx "),
        (_mode(0o500), "cannot be used by its owner (mode 0500) → chmod u+rwx "),
        (_a_file, "is no folder → "),
        (_below_a_file, "is no folder → set AGENTRUN_HOME"),
        (lambda patient: patient.environ.update(AGENTRUN_HOME="state"), "is another folder from each place"),
    ],
)
def test_a_state_folder_that_will_not_do(patient: Patient, harm: Callable[[Patient], object], said: str) -> None:
    patient.good("state_folder")
    harm(patient)
    assert said in patient.bad("state_folder")
    if os.path.isdir(patient.root):
        os.chmod(patient.root, 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_somebody_else(patient: Patient) -> None:
    run = patient.run()
    os.chown(run.folder.lock, 65534, 65534)
    assert "not yours: " in patient.bad("state_files")
    os.chown(patient.root, 65534, 65534)
    said = patient.bad("state_folder")
    assert "belongs to" in said
    assert "you are root" in said


@pytest.mark.parametrize(
    "name", ["agentrun.db", "agentrun.lock", "runs", "runs/k3v9x00001", "runs/k3v9x00001/env.json", "jobs"]
)
def test_files_that_others_may_read(patient: Patient, name: str) -> None:
    run = patient.run()
    Path(run.folder.environment).touch(0o600)
    Path(patient.root, "jobs").mkdir(0o700)
    patient.good("state_files")
    path = os.path.join(patient.root, name)
    mode = 0o755 if os.path.isdir(path) else 0o644
    os.chmod(path, mode)
    said = patient.bad("state_files")
    assert said == f"others may have access to {path} ({mode:04o}) → chmod -R go-rwx {patient.root}"


KINDS = [
    ("ext4", True), ("btrfs", True), ("zfs", True), ("overlay", True), ("fuse.fuse-overlayfs", True),
    ("nfs", False), ("nfs4", False), ("cifs", False), ("smb3", False), ("9p", False), ("ceph", False),
    ("glusterfs", False), ("vboxsf", False), ("fuse.sshfs", False), ("fuse.s3fs", False), ("tmpfs", False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "ok"), KINDS)
def test_kinds_of_file_systems(kind: str, ok: bool) -> None:
    found = folder.judge(kind, "/srv", "/srv/state")
    assert found.ok == ok
    assert kind in found.detail
    assert ok != bool(found.remedy)


def test_a_folder_that_goes_with_the_boot_may_be_chosen_knowingly() -> None:
    assert folder.judge("tmpfs", "/tmp", "/tmp/state").ok
    assert not folder.judge("tmpfs", "/tmpfiles", "/tmpfiles/state").ok


TABLE = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /srv rw - nfs4 box:/srv rw,vers=4.2
31 30 0:26 / /srv/a\040b rw - tmpfs tmpfs rw
32 31 254:1 / /srv/a\040b rw - xfs /dev/vdb rw
33 22 0:27 / /srvx rw - cifs //box/x rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", ("ext4", "/")),
        ("/home/ann", ("ext4", "/")),
        ("/srv", ("nfs4", "/srv")),
        ("/srv/state", ("nfs4", "/srv")),
        ("/srv/a b/state", ("xfs", "/srv/a b")),
        ("/srvx/state", ("cifs", "/srvx")),
        ("/srvy", ("ext4", "/")),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: tuple[str, str]) -> None:
    assert folder.mounted(path, TABLE) == kind


def with_mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell where it can mount; `agentrun` is the program."""
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    script = f"agentrun() {{ {sys.executable} -m agentrun \"$@\"; }}; {script}"
    return subprocess.run([*own, "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False)


def test_a_full_disk_and_one_without_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("AGENTRUN_HOME", f"{tmp_path}/disk/state")
    done = with_mounts(
        f"mount -t tmpfs -o size=64M,nr_inodes=500,mode=755 none {tmp_path}/disk && agentrun doctor"
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert [line.split()[1] for line in lines if line[0] == "✗"][:2] == ["disk_space", "inodes"]
    assert "64 MiB of 64 MiB free" in done.stdout
    assert "100 MiB are wanted" in done.stdout


def test_a_read_only_disk(patient: Patient, tmp_path: Path) -> None:
    patient.run(created_at=LONG_AGO).succeed("rates").succeed("mail").finish()
    done = with_mounts(
        f"mount --bind {patient.root} {patient.root} && mount -o remount,bind,ro {patient.root} && agentrun doctor"
    )
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line[0] == "✗"] == ["file_system", "locks", "sockets"]
    assert "is mounted read-only" in done.stdout
    assert "✓ database" in done.stdout, "a copy of it is read"


def test_without_proc_it_says_so_and_goes_on(patient: Patient) -> None:
    patient.run(created_at=LONG_AGO).finish()
    done = with_mounts("mount -t tmpfs none /proc && agentrun doctor")
    assert done.returncode == 1
    assert done.stderr == ""
    wrong = {line.split()[1] for line in done.stdout.splitlines() if line[0] == "✗"}
    assert {"file_system", "boot_id", "proc"} <= wrong
    assert "✓ database" in done.stdout


def test_room_is_wanted_for_copies_of_a_large_database(patient: Patient) -> None:
    patient.good("disk_space")
    info = os.statvfs(patient.root)
    with open(os.path.join(patient.root, "agentrun.db"), "r+b") as file:
        file.truncate(min(info.f_bavail * info.f_frsize, 1 << 43))  # with a hole: it takes no room
        assert "are wanted: twice the database" in patient.bad("disk_space")
        file.truncate(0)


def test_locks_that_do_not_hold(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks exclude nobody."""
    patient.good("locks")
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
    assert "two processes had the same flock → " in patient.bad("locks")
    assert [name for name in os.listdir(patient.root) if "doctor" in name] == [], "nothing is left"


def test_a_long_path(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 50)
    root.mkdir(0o700)
    site = Site(str(root), {})
    assert len(str(root)) > 108
    assert look("sockets", site).ok
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (100 << 20, "100 MiB"), (5 << 50, "5120 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
