"""The commands that a script finds in the sandbox: the system's own, and stubs for those that reach outside of it.

What a script calls and the system does not have gets a stub too: a word where a command stands, or one that the script
asks for with `command -v`. /usr/bin of the sandbox is a folder of links into the real one, so that a stub stands where
the real command does, and answers to its absolute path as well. The stub itself is stub.sh under many names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..cronlife.moved import library

REAL = "/.usr"  # where the sandbox has the system's /usr
STUB = Path(__file__).with_name("stub.sh")
_LIST = """
curl wget ssh scp sftp rsync rclone ftp lftp nc ncat netcat telnet socat ping ping6 dig nslookup host traceroute
aws az gcloud gsutil s3cmd mc b2 doctl kubectl helm terraform ansible ansible-playbook vault
mysqldump mysql mysqladmin mysqlcheck mariadb mariadb-dump pg_dump pg_dumpall psql pg_restore createdb dropdb
mongodump mongo mongosh mongorestore redis-cli influx ldapsearch slapcat
mail mailx s-nail sendmail mutt msmtp ssmtp swaks wall write notify-send
docker docker-compose podman systemctl service journalctl loginctl supervisorctl pm2 nginx apachectl apache2ctl
git svn hg gh crontab at batch apt apt-get apt-cache apt-mark aptitude dpkg yum dnf apk pacman snap brew flatpak
npm npx yarn pnpm pip pip3 composer node php ruby bundle cargo go java mvn gradle certbot
mount umount mkfs fdisk parted mdadm lvcreate lvremove lvs vgs zfs zpool btrfs cryptsetup swapon swapoff blkid
reboot shutdown poweroff halt iptables ip6tables ip ifconfig ufw nft sysctl modprobe hdparm smartctl sensors
useradd userdel usermod groupadd passwd chpasswd su sudo doas visudo update-rc.d
gpg gpg2 openssl age restic borg borgmatic duplicity rdiff-backup rsnapshot tarsnap
logger sleep usleep sync renice uuidgen logrotate fail2ban-client freshclam clamscan
date mktemp hostname hostnamectl whoami logname id uname nproc uptime free df ps top who w last users
pgrep pidof pkill killall fuser lsof mountpoint timedatectl ntpdate
"""
NAMES = frozenset(_LIST.split())
_WRAPPERS = "sudo|nohup|time|exec|command|nice|xargs|env|if|then|else|elif|do|while|until|!|timeout +[0-9]+[smh]?"
_CALLED = re.compile(
    r"(?:^|[;|&({`]|\$\()[ \t]*(?:(?:" + _WRAPPERS + r")[ \t]+)*((?:/[\w.-]+)*/)?([A-Za-z_][\w.+-]*)(?![\w.+=\[(/-])",
    re.MULTILINE,
)
_ASKED = re.compile(r"(?:command -v|which|hash|type(?: -\w)?)[ \t]+[\"']?([A-Za-z_][\w.+-]*)")
_ABSOLUTE = re.compile(r"/(?:usr/(?:local/)?)?s?bin/([A-Za-z_][\w.+-]*)")
_FUNCTION = re.compile(r"^[ \t]*(?:function[ \t]+)?([A-Za-z_][\w.+-]*)[ \t]*(?:\(\)|\{)", re.MULTILINE)
# the words of the shell itself
_WORDS = """
if then else elif fi for in do done while until case esac function select time alias bg bind break builtin caller cd
command compgen complete continue declare dirs disown echo enable eval exec exit export false fc fg getopts hash
help history jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return set shift shopt
source suspend test times trap true type typeset ulimit umask unalias unset wait
"""
_SHELL = frozenset(_WORDS.split())


def missing() -> str | None:
    """What is not here that the stubs need."""
    return None if library() else "libfaketime (package faketime)"


def wanted(script: str) -> set[str]:
    """The names that a stub is made for: those of the list, and what the script calls and nobody has."""
    functions = set(_FUNCTION.findall(script))
    called = {name for _, name in _CALLED.findall(script)} | set(_ASKED.findall(script))
    called.update(_ABSOLUTE.findall(script))
    unknown = {name for name in called - functions - _SHELL if not _is_installed(name)}
    return set(NAMES) | unknown


def _is_installed(name: str) -> bool:
    return any(os.path.exists(f"/usr/{folder}/{name}") for folder in ("bin", "sbin"))


def lay(folder: Path, script: str) -> None:
    """Make bin and sbin of the sandbox's /usr in a new folder."""
    folder.mkdir()
    stub = folder / "stub"
    stub.write_text(STUB.read_text().replace("@FAKETIME@", library() or ""))
    stub.chmod(0o755)
    names = wanted(script)
    for where in ("bin", "sbin"):
        made = folder / where
        made.mkdir()
        for name in os.listdir(f"/usr/{where}"):
            if name not in names:
                os.symlink(f"{REAL}/{where}/{name}", made / name)
    for name in names:
        os.link(stub, folder / "bin" / name)
    for name in ("sendmail", "reboot", "shutdown", "service", "iptables", "mount", "logrotate"):
        os.link(stub, folder / "sbin" / name)
