"""What the job of an entry of a crontab is called: after the program that does the work, and what it is told to do.

    /usr/bin/php artisan schedule:run    artisan-schedule-run        flock -n L /opt/backup.sh daily    backup
    cd /srv && python manage.py clean    manage-clean                certbot renew                      certbot-renew

Entries that would be called the same get what tells them apart: the words in which they differ, else when they run.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..spec.fields import JOB_NAME, STEP_ID
from .program import peeled
from .syntax import Node, commands, literal, parse, text

_INTERPRETERS: Final = re.compile(
    r"(?:ba|da|z|k)?sh|python[\d.]*|perl|ruby|node|php[\d.]*|Rscript|java|spnode|tsx|deno|bun|lua|xargs|solo"
)
_DULL: Final = frozenset(
    """[ [[ test echo printf cd set shopt trap umask export local exit return : true false sleep date logger source .
    log unset command read exec tee mkdir touch ts cat grep awk sed tr sort head tail wc cut which pgrep
    pidof""".split()  # noqa: SIM905
)
# programs that are told by a word what to do
_TOLD: Final = frozenset(
    """git docker podman kubectl helm aws gcloud az systemctl service apt apt-get dnf yum brew npm yarn pnpm npx pip
    pip3
    cargo go make terraform restic borg rclone zfs zpool btrfs composer bundle rails wp certbot occ drush console rake
    artisan manage supervisorctl pm2 nginx apachectl snap flatpak conda poetry uv rsnapshot gitlab-ctl docker-compose
    django-admin symfony cake yii craft magento n98-magerun mix flask invoke just task rbenv exec compose run bin
    uffd-admin duplicity kopia letsencrypt dspace r2e ufw geth gh""".split()  # noqa: SIM905
)
_NAMED_BY_FILE: Final = frozenset(
    """rm cp mv tar find rsync gzip chmod chown ln truncate run-parts logrotate mysqldump pg_dump psql mysql curl
    wget""".split()  # noqa: SIM905
)
_LENGTH: Final = 48


class Naming(NamedTuple):
    """What a name is made of: the first that is free. `words`: what the program is given; `when`: when it runs."""

    base: str
    words: tuple[str, ...]
    when: str


def naming(command: str, times: str) -> Naming:
    """Of a command line, without what was peeled off it."""
    found = list(_mains(command))
    base, said = found[0] if found else ("job", ())
    return Naming(base, tuple(said), _when(times))


def unique(namings: Sequence[Naming], taken: set[str]) -> list[str]:
    """A name for each, none of them twice, none of those that are taken."""
    alike: dict[str, list[int]] = {}
    for number, one in enumerate(namings):
        alike.setdefault(one.base.lower(), []).append(number)
    names = [one.base for one in namings]
    for numbers in alike.values():
        if len(numbers) > 1:
            often = Counter(word for number in numbers for word in set(namings[number].words))
            for number in numbers:
                own = [word for word in namings[number].words if often[word] < len(numbers)]
                names[number] = slug("-".join([namings[number].base, *own[:3]]))
    count = Counter(name.lower() for name in names)
    for number, one in enumerate(namings):
        if count[names[number].lower()] > 1 and one.when:
            names[number] = slug(f"{names[number]}-{one.when}")
    for number, name in enumerate(names):
        free, more = name, 1
        while free.lower() in taken:
            more += 1
            free = f"{name}-{more}"
        taken.add(free.lower())
        names[number] = free
    return names


def step_ids(texts: Sequence[str]) -> list[str]:
    """An id for the command of each step."""
    found: list[str] = []
    for text_ in texts:
        base = naming(text_, "").base.replace(".", "-")[:32].strip("-")
        base = base if re.fullmatch(STEP_ID, base) else f"run-{base}".strip("-")
        name, more = base, 1
        while name in found:
            more += 1
            name = f"{base}-{more}"
        found.append(name)
    return found


def slug(said: str) -> str:
    """As a name of a job."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", said).strip("-.")
    if len(name) > _LENGTH:
        name = name[:_LENGTH].rpartition("-")[0] or name[:_LENGTH]
    name = name.strip("-.")
    return name if re.fullmatch(JOB_NAME, name) else "job"


def _mains(command: str) -> Iterator[tuple[str, list[str]]]:
    """Each command that does something, by its name, with what it is told; dull ones at the end."""
    dull: list[tuple[str, list[str]]] = []
    for node in commands(parse(command), without=("command_substitution", "heredoc_body")):
        if node.type != "command":
            continue
        name, said = _called(peeled(node))
        if name in _DULL:
            dull.append((name, said))
        elif name:
            yield name, said
    yield from dull


def _called(left: Sequence[Node]) -> tuple[str, list[str]]:
    words = [shown for word in left if (shown := _shown(word))]
    while words:
        base = os.path.basename(words[0].rstrip("/")).lstrip("-\\")
        rest = words[1:]
        if base in ("su", "runuser", "envdir", "xvfb-run", "with-lock-ex", "setlock", "dotenv", "direnv", "croncape"):
            inner = next((word for word in rest if " " in word), "")
            if base in ("su", "runuser") and inner:
                return next(_mains(inner), (slug(base), []))
            words = [word for word in rest if not word.startswith("-")][1 if base in ("envdir",) else 0 :]
            continue
        if base == "flock":
            rest = _behind_lock(rest)
            if rest[:1] == ["-c"]:
                return next(_mains(" ".join(rest[1:])), ("flock", []))
            words = rest
            continue
        if _INTERPRETERS.fullmatch(base) and rest:
            options = rest[: next((at for at, word in enumerate(rest) if word[:1] not in ("-", "+")), len(rest))]
            if any(re.fullmatch(r"-\w*c", word) for word in options):
                inner = next((word for word in rest if not word.startswith("-")), "")
                return next(_mains(inner), (slug(base), []))
            if "-m" in options and rest.index("-m") + 1 < len(rest):
                at = rest.index("-m") + 1
                return slug(rest[at]), _telling(rest[at + 1 :])
            names = (at for at, word in enumerate(rest) if re.search(r"[A-Za-z]", word) and word[0] not in "-+")
            script = next(names, None)
            if script is not None:
                words = rest[script:]
                if _INTERPRETERS.fullmatch(os.path.basename(words[0])) and len(words) == 1:
                    return slug(words[0]), []
                continue
        return _program(base, rest)
    return "", []


def _behind_lock(words: Sequence[str]) -> list[str]:
    """What `flock` starts: behind its options and the file."""
    left = list(words)
    while left and left[0].startswith("-"):
        left = left[2:] if left[0] in ("-w", "-E", "--wait", "--timeout") else left[1:]
    return left[1:]


def _program(base: str, rest: Sequence[str]) -> tuple[str, list[str]]:
    stem = re.sub(r"\.(?:sh|bash|zsh|py|pl|rb|php|js|ts|mjs|R|jar)$", "", base) or base
    if not re.search(r"[A-Za-z]", stem):
        return "", []
    said = _telling(rest)
    if stem in _TOLD and said:
        first, *said = said
        more = said.pop(0) if first in _TOLD and said else ""
        return slug("-".join(part for part in (stem, first, more) if part)), said
    if stem in _NAMED_BY_FILE and (named := _file(stem, rest)):
        return slug(f"{stem}-{named}"), said
    return slug(stem), said


def _file(stem: str, rest: Sequence[str]) -> str:
    """The file, database or host that a general tool is about."""
    plain = [word for word in rest if not word.startswith(("-", "+", "@"))]
    if stem in ("curl", "wget"):
        url = next((word for word in rest if "://" in word or re.match(r"[\w.-]+\.\w+/", word)), "")
        host, _, path = re.sub(r"^\w+://", "", url).partition("/")
        page = re.sub(r"\.\w+$", "", os.path.basename(path.partition("?")[0].rstrip("/")))
        page = "" if re.fullmatch(r"[0-9a-f-]{16,}", page) else page
        return "-".join(part for part in (host.rpartition("@")[2].partition(":")[0].removeprefix("www."), page) if part)
    last = next((word for word in plain if re.search(r"[A-Za-z]{2}", word)), "")
    base = os.path.basename(last.rstrip("/"))
    return re.sub(r"\.\w+$", "", base) if stem != "run-parts" else base


def _telling(rest: Sequence[str]) -> list[str]:
    """What tells one call from another: words, and values of options, by their last part."""
    found = []
    for word in rest:
        word = word.partition("=")[2] or word.lstrip("-") if word.startswith("-") else word
        shown = re.sub(r"\.(?:sh|py|conf|cfg|yaml|yml|json|log|txt)$", "", os.path.basename(word.rstrip("/")))
        if re.search(r"[A-Za-z0-9]", shown) and len(shown) <= 32:
            found.append(slug(shown) if re.search(r"[A-Za-z0-9]", slug(shown)) else shown)
    return found


def _shown(word: Node) -> str:
    known = literal(word)
    if word.type == "command_substitution":
        return ""
    return known if known is not None else re.sub(r"\$\{?\w+\}?/?|[\"`]|\$\(.*\)", "", text(word))


def _when(times: str) -> str:
    """When it runs, in a word."""
    bare = times.removeprefix("-")
    if bare.startswith("@"):
        return "at-boot" if bare == "@reboot" else bare[1:]
    fields = bare.split()
    if len(fields) != 5:
        return ""
    minute, hour, day, month, weekday = fields
    clock = f"{int(hour):02}{int(minute):02}" if hour.isdigit() and minute.isdigit() else ""
    if month.isdigit() and day.isdigit():
        return f"{int(month):02}{int(day):02}"
    if weekday != "*":
        return slug("-".join(part for part in (f"day{weekday}", clock) if part))
    return clock or (slug(f"min{minute}") if re.fullmatch(r"\d+", minute) else "")
