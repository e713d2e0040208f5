"""What a command is called where nobody has said it in words: its verb, and the object that tells it from others.

`rsync-uploads`, `restart-nginx`, `delete-pyc`, `gzip-test`. An object that is not known before it runs is called by its
variable. `verb` alone says too little where a script calls a program twice: then `more` says in which way this time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .program import called, peeled
from .syntax import Node, listed, redirects, text, walk

_SUBCOMMANDS = listed("""
    git docker podman kubectl helm aws gcloud az apt apt-get dnf yum brew npm yarn pnpm pip pip3
    cargo go make azcopy terraform restic borg rclone zfs zpool btrfs lvm gh docker-compose composer php bundle rails
    wp certbot ansible openssl ip ufw pm2 conda poetry uv rsnapshot occ gsutil s3cmd virsh vagrant supervisorctl
    flatpak snap pacman hg svn nginx apachectl s3 ec2 rds compose volume route53 networksetup pmset crontab""")
_TWO = listed("aws gcloud az docker docker-compose restic bundle")
_TASKS = listed("bundle rails rake php artisan npm yarn pnpm")
_INTERPRETERS = listed("python python2 python3 perl ruby node bash sh php Rscript java")
_VERBS = {"rm": "remove", "cp": "copy", "mv": "move", "mkdir": "make", "ln": "link", "touch": "touch", "scp": "scp",
          "sed": "edit", "rmdir": "remove", "tee": "write"}  # fmt: skip
_FIRST = listed("tar rm cp mv touch gzip gunzip bzip2 xz zstd zip rsync scp tail head cat sqlite3 mkdir ftp sftp")
_LAST = listed("chmod chown chgrp ln mysqldump pg_dump mongodump unzip sed install")
_KNOWN = _SUBCOMMANDS | _FIRST | _LAST | _VERBS.keys() | {"find", "curl", "wget"}
_ACTIONS = re.compile(r"start|stop|restart|reload|enable|disable|status|try-restart|force-reload|condrestart")
_OPTIONS = re.compile(r"OPT|FLAG|ARG|PARAM", re.I)
_WRITERS = listed("""
    df du uptime free date echo printf cat ps top who uname hostname ls grep awk sort head tail cut wc seq""")


class Deed(NamedTuple):
    """`verb`, then with its `object`, then with all that can be said: words, with blanks between."""

    verb: str
    object: str = ""
    more: str = ""

    @property
    def said(self) -> str:
        return f"{self.verb} {self.object}".strip()


def deed(command: Node) -> Deed | None:
    """What a simple command does. None where its name cannot be told."""
    name, said = called(command)
    if name.startswith("$") and said and said[0] in _KNOWN:  # `$DEBUG docker run`
        name, said = said[0], said[1:]
    name = name.lstrip("./").replace("$", "").strip('"{}')
    if not name or re.search(r"[\s()`\[=]", name):
        return None
    stem = re.sub(r"\.(sh|bash|py|pl|rb|php|js)$", "", name)
    told = [one[2:] if one.startswith("--") else _plain(one) for one in said[:8]]  # of `-so` nobody can say what it is
    verb, thing = _of_program(stem, name, said, command)
    more = " ".join([verb, *(one for one in told if re.fullmatch(r"[A-Za-z][\w.-]+", one) and one not in verb)][:5])
    return Deed(verb, thing, more)


def _of_program(stem: str, name: str, said: Sequence[str], command: Node) -> tuple[str, str]:
    if stem in ("systemctl", "service", "rc-service", "supervisorctl", "initctl"):
        return _service(stem, said)
    if (tasks := [one for one in said if re.fullmatch(r"[a-z]\w*(:\w+)+", one)]) and stem in _TASKS:
        return tasks[0], ""
    if (stem in _INTERPRETERS and said) or (stem in ("su", "runuser") and "-c" in said):
        return _script(stem, said), ""
    if stem in _SUBCOMMANDS:
        plain = [one for one in said if re.fullmatch(r"[a-z][a-z0-9-]*", one)]
        if not plain and (target := _written(command)):
            return (target, "") if target.startswith(stem) else (stem, target)
        two = 2 if stem in _TWO and len(plain) > 1 and (plain[0] in _SUBCOMMANDS or stem == "bundle") else 1
        return " ".join((stem, *plain[:two])), ""
    if stem == "find":
        return _find(said)
    if stem == "xargs" and (inner := next((one for one in said if one in _VERBS), "")):
        return _VERBS[inner], ""
    if stem in ("curl", "wget"):
        return stem, _address(said)
    if stem in ("mail", "mailx", "mutt"):
        to = next((found[1] for one in reversed(said) if (found := re.match(r"(\w[\w.-]*)@", one))), "")
        return stem, to
    if stem in ("gzip", "bzip2", "xz", "zstd", "tar") and {"-t", "--test"} & set(said):
        return stem, "test"
    if stem in _WRITERS and (target := _written(command)):
        return "write", target
    words = [word for word in peeled(command)[1:] if not text(word).startswith("-")]
    if stem == "tar" and words and re.fullmatch(r"[A-Za-z]+", text(words[0])):
        words = words[1:]
    if stem in ("chmod", "chown", "chgrp", "sed", "install"):
        words = words[1:]
    if stem in _FIRST | _LAST | _VERBS.keys():
        words = words if stem in _FIRST else words[::-1]
        return _VERBS.get(stem, stem), next((thing for word in words if (thing := _object(word))), "")
    target = _written(command)
    return (target, "") if stem and target.startswith(stem) else (stem, target)


def _service(stem: str, said: Sequence[str]) -> tuple[str, str]:
    plain = [one for one in said if not one.startswith("-")]
    action = next((one for one in plain if _ACTIONS.fullmatch(one)), "")
    unit = next((one for one in plain if one != action and re.fullmatch(r"[A-Za-z][\w.@-]*", one)), "")
    if action:
        return (f"{stem} {action}", "") if not unit else (action, unit.removesuffix(".service"))
    return " ".join([stem, *plain[:1]]), ""


def _script(stem: str, said: Sequence[str]) -> str:
    if "-c" in said[:-1] and stem in ("bash", "sh", "su", "runuser"):
        return said[said.index("-c") + 1].split(" ", 1)[0].strip("\"'").rsplit("/", 1)[-1]
    if "-m" in said[:-1]:
        return said[said.index("-m") + 1]
    plain = [one for one in said if not one.startswith("-")]
    script = next((one for one in plain if re.search(r"\.(php|py|pl|rb|js|sh|R)$", one)), next(iter(plain), ""))
    inner = re.sub(r"\.\w+$", "", script.rsplit("/", 1)[-1]).strip('"')
    if stem == "php" and inner in ("artisan", "occ", "console"):
        plain = [one for one in said[said.index(script) + 1 :] if re.fullmatch(r"[a-z][\w:-]*", one)]
        return " ".join((inner, *plain[:1]))
    return inner if re.search(r"[A-Za-z]{2}", inner) and "$" not in inner else stem


def _find(said: Sequence[str]) -> tuple[str, str]:
    line = " ".join(said)
    verb = "find"
    if re.search(r"(^| )-delete( |$)|-exec(dir)? +\S*\brm ", line):
        verb = "delete"
    elif found := re.search(r"-exec(?:dir)? +(?:\S*/)?(gzip|bzip2|xz|zstd|chmod|chown|cp|mv)\b", line):
        verb = {"cp": "copy", "mv": "move", "chmod": "chmod", "chown": "chown"}.get(found[1], "compress")
    for option in ("-name", "-iname", "-path", "-wholename"):
        for at, one in enumerate(said[:-1]):
            parts = re.findall(r"[A-Za-z][\w-]*", re.sub(r"\$\{?\w+\}?|\[[^]]*\]", "", said[at + 1]))
            if one == option and parts:
                return verb, " ".join(parts[:2])
    where = [one for one in said[:2] if not one.startswith(("-", "("))]
    return verb, _plain(where[0]) if where else ""


def _address(said: Sequence[str]) -> str:
    """The host of a URL; else the end of its path."""
    for one in said:
        host = re.match(r"[\"']?(?:https?|ftp)://(?:[^/@\s]*@)?([\w.-]+)", one)
        if host and "." in host[1] and not re.fullmatch(r"[\d.]+", host[1]):
            parts = [part for part in host[1].split(".")[:-1] if part not in ("www", "api", "co", "com")]
            return parts[-1] if parts else host[1].split(".")[-2]
        path = re.match(r"[\"']?\$\{?\w+\}?/(?:[\w.-]+/)*([A-Za-z][\w-]+)", one)
        if path:
            return path[1]
    return ""


def _written(command: Node) -> str:
    """The file that its output goes to."""
    for redirect in redirects(command):
        if re.match(r"\d?>", text(redirect)) and redirect.named_children:
            return _object(redirect.named_children[-1])
    return ""


def _object(word: Node) -> str:
    """A variable or a file: what says something of it."""
    plain = _plain(text(word))
    if plain or re.search(r"`|\$\(", text(word)):
        return plain
    named = [text(here) for here in walk(word) if here.type == "variable_name"]
    telling = [name for name in named if len(name) > 2 and not _OPTIONS.search(name)]
    if telling:
        return telling[-1].lower().replace("_", "-")
    above: Node | None = word
    while named and above is not None:
        if above.type == "for_statement" and text(above.child_by_field_name("variable") or word) == named[-1]:
            return next((thing for one in above.children_by_field_name("value") if (thing := _object(one))), "")
        above = above.parent
    return ""


def _plain(path: str) -> str:
    plain = re.sub(r"\$\{\w+[^}]*\}|\$\w+|[\"'*?]", " ", path).strip().rstrip("/")
    if re.search(r"`|\$\(", plain) or re.match(r"-|\d+$|/?dev/", plain):
        return ""
    last = re.sub(r"(?<=\w)(\.(tar|sql|gz|bz2|xz|zip|log|txt|json|csv|sh|part|new|tmp|conf|html?|ya?ml|xml))+$", "",
                  plain.rsplit("/", 1)[-1].rsplit(":", 1)[-1])  # fmt: skip
    last = re.sub(r"^[\W_]+|[\W_]+$", "", last)
    return last if re.search(r"[A-Za-z]{3}", last) else ""


__all__ = ["Deed", "deed"]
