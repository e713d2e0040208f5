"""A machine for one script: a file system of its own, no network, commands that only say that they were called.

Bubblewrap gives it: the root is a fresh copy of a small machine, which may be written; over it stands the system's
/usr, to be read only, with stubs for what reaches outside (stubs.py); the program under test and its Python are where
they are on the real machine. It has its own processes, so that to kill its first one is to cut the power, and its pids
begin at a number that is known, so that a pid can be told from any other number.

    /opt/scripts/NAME     the script
    /.field               what the stubs write: calls, environments; where the job file is
    /.state               AGENTRUN_HOME
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..torture.tally import ROOT
from . import stubs

PIDS = 20_000  # the first pid of a script; everything up to the next ten thousand is taken for a pid
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL")
MOST = 64 << 20  # bytes that a file may have
ENV = {
    "HOME": "/root", "LOGNAME": "root", "USER": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8",
}  # fmt: skip
_OURS = (".usr", ".field", ".state", "usr", "proc", "dev", "work")
# waits for what a script left in the background, as whoever reads its output has to
# (of a script that a signal ended, the shell that waits for it would say so)
_LAUNCH = """exec 3>&2 2>/dev/null
"$@" 2>&3 3>&-
status=$?
exec 3>&-
tries=0
while set -- /proc/[0-9]*; [ $# -gt 2 ] && [ $tries -lt 60 ]; do
    tries=$((tries + 1))
    /.usr/bin/sleep 0.05
done
exit $status
"""
_OLD = 1_767_225_600  # 2026-01-01: when the files of the machine were written


class Ended(NamedTuple):
    """`status`: None if it did not end in time. `output`: both streams, as one pipe saw them."""

    status: int | None
    output: bytes
    stopped: bool = False  # at a boundary, and killed there


def missing() -> str | None:
    """What is not here that this needs."""
    if os.geteuid() != 0:
        return "root"
    if shutil.which("bwrap") is None:
        return "bubblewrap (package bubblewrap)"
    if shutil.which("nsenter") is None:
        return "nsenter (package util-linux)"
    alone = ["bwrap", "--unshare-pid", "--unshare-net", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    if subprocess.run(alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        return "namespaces, which are forbidden here"
    return stubs.missing()


class Sandbox:
    """One machine, made in a folder. Every `run` in it finds what the last one left. `commands`: see `stubs.lay`."""

    def __init__(self, folder: Path, commands: Path, name: str, script: bytes) -> None:
        self.root, self.field, self.state = folder / "root", folder / "field", folder / "state"
        self._commands = commands
        self.path = f"/opt/scripts/{name}"
        for made in (self.field, self.state):
            made.mkdir(parents=True)
        subprocess.run(["cp", "-a", f"{_furnished()}/.", self.root], check=True)
        (self.root / "opt/scripts").mkdir()
        place = self.root / self.path[1:]
        place.write_bytes(script)
        place.chmod(0o755)
        os.utime(place, (_OLD, _OLD))
        self._doorbell = self.field / "boundary"
        os.mkfifo(self._doorbell)

    def run(self, words: Sequence[str], limit: float, **env: str) -> Ended:
        """Run a command there, and wait for it and for what it leaves in the background."""
        bell = os.open(self._doorbell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        told, tell = os.pipe()
        go, started = os.pipe()
        process = subprocess.Popen(
            [
                *self._bubble(), "--info-fd", str(tell), "--block-fd", str(go), "--",
                "/.usr/bin/env", "--default-signal", "/.usr/bin/dash", "-c", _LAUNCH, "cron", *words,
            ],
            env=ENV | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(tell, go), start_new_session=True,
        )  # fmt: skip
        os.close(tell)
        os.close(go)
        try:
            with open(told) as file:
                first = int(json.load(file)["child-pid"])
            _begin_pids(first)
            os.write(started, b"\n")
            return self._attend(process, first, bell, limit)
        finally:
            os.close(started)
            os.close(bell)
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    def _attend(self, process: subprocess.Popen[bytes], first: int, bell: int, limit: float) -> Ended:
        """Read what it says until it ends, or stands at a boundary: then everything is killed."""
        assert process.stdout is not None
        until = time.monotonic() + limit
        said = []
        output = process.stdout.fileno()
        size = 0
        while True:
            ready, _, _ = select.select([output, bell], [], [], max(0.0, until - time.monotonic()))
            if output in ready:
                data = os.read(output, 1 << 16)
                if not data:
                    return Ended(process.wait(), b"".join(said))
                said.append(data)
                size += len(data)
            if bell in ready or not ready or size > MOST:
                os.kill(first, signal.SIGKILL)
                said.append(process.stdout.read())
                return Ended(None, b"".join(said), stopped=bell in ready)

    def _bubble(self) -> list[str]:
        python = [sys.base_prefix] if not sys.base_prefix.startswith("/usr") else []
        words = [
            "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "field",
            "--die-with-parent", "--chdir", "/root", "--cap-drop", "ALL",
            *(word for name in CAPABILITIES for word in ("--cap-add", f"CAP_{name}")),
            "--bind", str(self.root), "/", "--ro-bind", "/usr", "/usr", "--ro-bind", "/usr", stubs.REAL,
            "--ro-bind", str(self._commands / "bin"), "/usr/bin",
            "--ro-bind", str(self._commands / "sbin"), "/usr/sbin",
            "--ro-bind", "/etc/alternatives", "/etc/alternatives",
            "--bind", str(self.root / "usr/local"), "/usr/local",
            "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev",
            "--bind", str(self.field), "/.field", "--bind", str(self.state), "/.state",
        ]  # fmt: skip
        for path in (*python, sys.prefix, str(ROOT)):
            words += ["--ro-bind", path, path]
        return words


def _begin_pids(first: int) -> None:
    """Let the next process in the namespace of a process have the pid PIDS."""
    write = f"echo {PIDS - 1} > /proc/sys/kernel/ns_last_pid"
    subprocess.run(["nsenter", "-t", str(first), "-p", "sh", "-c", write], check=True)


def ours(path: str) -> bool:
    """Whether a path below the root is not the script's: where something else stands over it."""
    first = path.split("/")[0]
    inside = (sys.base_prefix, sys.prefix, str(ROOT))
    return (first in _OURS and not path.startswith("usr/local")) or any(f"/{path}".startswith(it) for it in inside)


_FILES = {
    "etc/crontab": "17 3 * * * root /opt/scripts/nightly.sh\n",
    "etc/nginx/nginx.conf": "worker_processes 4;\n",
    "etc/mysql/my.cnf": "[client]\nuser=root\n",
    "etc/logrotate.d/app": "/var/log/app/*.log { weekly }\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "etc/hostname": "field\n",
    "etc/hosts": "127.0.0.1 localhost\n192.0.2.7 field.example.org field\n",
    "etc/resolv.conf": "nameserver 192.0.2.53\n",
    "root/.bashrc": "alias ll='ls -l'\n",
    "root/.my.cnf": "[client]\npassword=secret\n",
    "root/.env": "DB_USER=wiki\nDB_PASSWORD='p w'\nDB_NAME=wiki\n",
    "root/notes.txt": "to be kept\n",
    "root/scripts/config.sh": "RETENTION=7\n",
    "home/alice/.profile": "export EDITOR=vi\n",
    "home/alice/Documents/report.txt": "quarterly\n",
    "home/alice/Downloads/old.iso": "x" * 4096,
    "opt/app/docker-compose.yml": "services: {web: {image: nginx}}\n",
    "opt/app/.env": "APP_ENV=production\n",
    "opt/app/app.py": "print('app')\n",
    "srv/data/a.csv": "id,name\n1,ann\n2,bob\n",
    "srv/data/b.csv": "id,name\n3,eve\n",
    "var/www/html/index.php": "<?php phpinfo();\n",
    "var/www/html/wp-config.php": "define('DB_NAME', 'wiki');\n",
    "var/log/syslog": "Mar 14 03:00:01 field CRON[71]: (root) CMD (true)\n" * 20,
    "var/log/auth.log": "Mar 14 02:00:01 field sshd[72]: Failed password for root from 192.0.2.66 port 22\n" * 9,
    "var/log/nginx/access.log": '192.0.2.1 - - [14/Mar/2026:02:00:00 +0000] "GET / HTTP/1.1" 200 12\n' * 30,
    "var/log/nginx/error.log": "2026/03/14 02:00:00 [error] 712#712: nothing\n",
    "var/log/app/app.log": "INFO started\nERROR disk\nINFO ended\n",
    "var/log/app/app.log.1": "INFO started\n",
    "var/log/old.log.2.gz": "not really compressed\n",
    "var/backups/db-2026-01-01.sql.gz": "old\n",
    "var/backups/db-2026-01-02.sql.gz": "old\n",
    "backup/daily/2026-01-01.tar.gz": "old\n",
    "backup/weekly/2025-12-20.tar.gz": "old\n",
    "backups/backup-20260101.tar.gz": "old\n",
    "tmp/left.tmp": "left\n",
    "data/in/orders.json": '[{"id": 1, "sum": 12.5}, {"id": 2, "sum": 3}]\n',
    "mnt/backup/README": "a disk\n",
}
_FOLDERS = (
    "tmp var/tmp var/lib/mysql var/lib/app var/spool/mail var/run/app var/cache/app run run/lock mnt/nas media srv/www "
    "opt/backup home/bob usr/local/bin usr/local/sbin usr/local/lib usr/local/etc usr/local/share data/out "
    "root/backups .usr .field .state proc dev work"
)
_OF_ETC = (
    "passwd group shadow ld.so.cache ld.so.conf ld.so.conf.d nsswitch.conf profile bash.bashrc services "
    "protocols shells login.defs localtime debian_version cron.daily"
)


@cache
def _furnished() -> Path:
    """The file system of a small machine, of which every other one is a copy. The real one may change meanwhile."""
    root = Path(tempfile.mkdtemp(prefix="field-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name in _FOLDERS.split():
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(f"usr/{name}")
    (root / "etc/alternatives").mkdir(parents=True)
    there = [f"/etc/{name}" for name in _OF_ETC.split() if os.path.lexists(f"/etc/{name}")]
    subprocess.run(["cp", "-a", *there, f"{root}/etc"], check=True)
    for path, text in _FILES.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (root / "root").chmod(0o700)
    for folder, _, files in os.walk(root):
        for name in files:
            os.utime(f"{folder}/{name}", (_OLD, _OLD), follow_symlinks=False)
    return root
