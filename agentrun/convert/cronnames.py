"""What the job of an entry of a crontab is called: after the program that does the work, and what it is told to do.

    /usr/bin/php artisan schedule:run    artisan-schedule-run        flock -n L /opt/backup.sh daily    backup
    cd /srv && python manage.py clean    manage-clean                certbot renew                      certbot-renew

Entries that would be called the same get what tells them apart: the words in which they differ, else when they run.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Final, NamedTuple

from ..spec.fields import JOB_NAME, STEP_ID
from .program import peeled
from .syntax import Node, assignments, commands, listed, literal, parse, text, words

_INTERPRETERS: Final = re.compile(
    r"(?:ba|da|z|k)?sh|python[\d.]*|perl|ruby|node|php[\d.]*|Rscript|java|spnode|tsx|deno|bun|lua|xargs|solo|dotnet"
)
# options of theirs that have a word behind them
_OF_INTERPRETERS: Final = ("-d", "-cp", "-classpath", "-W", "-X", "-I", "-r", "-c", "-o", "-O", "--require", "--rcfile")
_DULL: Final = listed("""
    [ [[ test echo printf cd set shopt trap umask export local exit return : true false sleep date logger source . log
    unset command read exec tee mkdir touch ts cat grep awk sed tr sort head tail wc cut which pgrep pidof""")
_IDLE: Final = frozenset(("[", "[[", "test", "cd", "sleep", "echo", "set", "export", ":", "true"))
# programs that are told by a word what to do
_TOLD: Final = listed("""
    git docker podman kubectl helm aws gcloud az apt apt-get dnf yum brew npm yarn pnpm pip pip3 cargo go make
    terraform restic borg rclone zfs zpool btrfs composer rails wp certbot occ drush console rake bundle npx poetry
    pipenv uv rbenv pdm hatch artisan manage supervisorctl pm2 nginx apachectl snap flatpak conda rsnapshot gitlab-ctl
    docker-compose django-admin symfony cake yii craft magento n98-magerun mix flask invoke just task exec compose run
    bin uffd-admin duplicity kopia letsencrypt dspace r2e ufw geth gh""")
_TWICE: Final = frozenset(("aws", "gcloud", "az"))  # by two words
_STARTERS: Final = frozenset(("bundle", "poetry", "pipenv", "uv", "npx", "rbenv", "pdm", "hatch"))
_SERVICES: Final = frozenset(("systemctl", "service", "rc-service"))
_CONTAINERS: Final = frozenset(("docker", "podman", "kubectl", "docker-compose", "compose"))
_NAMED_BY_FILE: Final = listed("""
    rm cp mv tar find rsync gzip chmod chown ln truncate run-parts logrotate mysqldump pg_dump psql mysql curl wget
    scp mariadb-dump mariadb mongodump unzip zip tmpreaper tmpwatch""")
# options that have a word behind them which does not say what the program is about: users, hosts, folders, numbers
_VALUED: Final = listed("""
    -u -U -h -H -P -p -n -m -o -O -w -i -l -j -e -E -C -t -v -x --user --host --port --password --token --namespace
    --context --env --env-file --volume --name --network --workdir --profile --region --git-dir --work-tree --output
    --output-document --rsh --exclude --mount --hostname --label --memory --cpus --entrypoint --project-name --secret
    --api-key --key --config""")
_VALUED_OF: Final[Mapping[str, str]] = {
    "docker-compose": "-f --file", "kubectl": "-f -c -l", "make": "-f -I", "git": "-c", "psql": "-c -f -d -F",
    "pg_dump": "-d -f -F", "mysql": "-e -D", "composer": "-d --working-dir", "npm": "--prefix", "rsync": "-f",
    "curl": "-d -F -X -A -T --data --form --request --header --retry --max-time --connect-timeout --user-agent",
    "wget": "-T --tries --timeout", "find": "-name -iname -type -mtime -ctime -mmin -size -exec -maxdepth -user",
    "flock": "-w -E --wait --timeout", "sshpass": "-f -d -P", "restic": "-r --repo", "zip": "-x",
    "mongodump": "--uri --db --out", "tar": "-f -X",
}  # fmt: skip
# those options of some whose word does say it
_TELLING: Final[Mapping[str, Sequence[str]]] = {
    "psql": ("-c", "-f"), "mysql": ("-e",), "mariadb": ("-e",), "git": ("-C",), "make": ("-C", "-f"),
    "find": ("-name", "-iname"), "aws": ("--profile",), "restic": ("-r",), "kubectl": ("-n", "-f"),
}  # fmt: skip
# options of some that have no word behind them, though those of others do
_FLAGS_OF: Final[Mapping[str, str]] = {
    "docker": "-i -t -it -ti -d -T -n", "docker-compose": "-i -t -T", "compose": "-T -t -i", "podman": "-i -t -it -ti",
    "kubectl": "-i -t -it -ti", "rsync": "-v -n -u -x -t -p -o -l -h -H -i", "find": "-P -H -L",
    "tar": "-p -h -v -P -m", "cp": "-u -p -v -n -x -i -l -H -P", "mv": "-u -v -n -i", "rm": "-v -i",
    "git": "-n -u -p -v", "pg_dump": "-v -x -O -C", "apt-get": "-u -m", "wget": "-N -nv -x -p -m -E -H",
    "curl": "-i -l -v -O -n -E", "ssh": "-n -t -v -C -x -N", "chmod": "-v", "chown": "-v -h -H -P", "run-parts": "-v",
    "make": "-n -i -t -e", "scp": "-p -v -C", "flock": "-n -x -e -o -u",
}  # fmt: skip
_SECRET: Final = re.compile(r"pass|pwd|secret|token|key|auth|credential", re.I)
_OF_ALL: Final = re.compile(r"PATH$|LANG|LC_|TZ$|TERM$|DISPLAY$|HOME$|MAILTO$|XDG_|DBUS_|LD_|PYTHONPATH$|SHELL$")
# folders that say nothing of what is in them
_FOLDERS: Final = listed("""
    bin sbin usr local opt var www home root srv etc lib libexec share scripts script src cron cronjobs crons jobs
    current public html public_html httpdocs htdocs web dev null tmp app log logs cgi-bin . .. ~""")
_ENDING: Final = re.compile(
    r"(?:\.(?:sh|bash|zsh|py|pl|rb|php|js|ts|mjs|R|jar|dll|conf|cfg|yaml|yml|json|log|txt|tar|gz|tgz|bz2|xz|zip|sql))+$"
)
_LENGTH: Final = 48
_LENGTH_OF_ID: Final = 32
_MOST: Final = 4  # words that tell names apart
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Naming(NamedTuple):
    """What a name is made of. `words`: of the call, the most telling first; `when`: when it runs."""

    base: str
    words: tuple[str, ...]
    when: str


def naming(command: str, times: str, folder: str = "") -> Naming:
    """Of a command line, without what was peeled off it. `folder`: where it runs."""
    found = list(_mains(command))
    base, said = found[0] if found else ("job", _Said())
    said.places.extend(_folders(folder))
    said.numbers.extend(_pauses(command))
    return Naming(base, tuple(dict.fromkeys(said.all())), _when(times))


def unique(namings: Sequence[Naming], taken: set[str]) -> list[str]:
    """A name for each, none of them twice, none of those that are taken."""
    alike: dict[str, list[int]] = {}
    for number, one in enumerate(namings):
        alike.setdefault(one.base.lower(), []).append(number)
    names = [one.base for one in namings]
    for numbers in alike.values():
        for number, name in zip(numbers, _told_apart([namings[number] for number in numbers]), strict=True):
            names[number] = name
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


def _told_apart(namings: Sequence[Naming]) -> list[str]:
    """The base of all, each with as few of the words that not all of them have as tell it from the others."""
    often = Counter(word.lower() for one in namings for word in set(one.words))
    own = [tuple(word for word in one.words if often[word.lower()] < len(namings) and word != one.base)
           for one in namings]
    names = []
    for number, one in enumerate(namings):
        others = own[:number] + own[number + 1 :]
        told = [own[number][:at] for at in range(1, _MOST + 1) if all(own[number][:at] != one[:at] for one in others)]
        told += [(word,) for word in own[number] if not any(word in other for other in others)]
        fits = (words for words in told if len("-".join((one.base, *words))) <= _LENGTH)
        names.append(slug("-".join((one.base, *next(fits, own[number][:1])))))
    return names


def step_ids(texts: Sequence[str]) -> list[str]:
    """An id for the command of each step."""
    found: list[str] = []
    for said in unique([naming(text_, "") for text_ in texts], set()):
        base = said.replace(".", "-")[:_LENGTH_OF_ID].strip("-")
        base = base if re.fullmatch(STEP_ID, base) else f"run-{base}".strip("-")
        name, more = base, 1
        while name in found:
            more += 1
            name = f"{base}-{more}"
        found.append(name)
    return found


def slug(said: str) -> str:
    """As a name of a job."""
    name = re.sub(r"-[-.]+|\.-+", "-", re.sub(r"[^A-Za-z0-9_.]+", "-", said)).strip("-.")
    if len(name) > _LENGTH:
        name = name[:_LENGTH].rpartition("-")[0] or name[:_LENGTH]
    name = name.strip("-.")
    return name if re.fullmatch(JOB_NAME, name) else "job"


@dataclass
class _Said:
    """What a program is given. `places`: the folders that it is in, or runs in, the innermost first."""

    words: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)

    def all(self) -> Iterator[str]:
        return chain(self.words, self.places, self.flags, self.numbers)


def _mains(command: str) -> Iterator[tuple[str, _Said]]:
    """Each command that does something, by its name, with what it is told; dull ones at the end."""
    dull: list[tuple[str, _Said]] = []
    places: list[str] = []
    for node in commands(parse(command), without=("command_substitution", "heredoc_body")):
        if node.type != "command":
            continue
        left = peeled(node)
        if left and text(left[-1]) in "12" and node.next_sibling is not None and node.next_sibling.type == "&":
            left = left[:-1]  # `2&1` was to be of a redirection
        name, said = _called([shown for word in left if (shown := _shown(word))])
        said.words += _settings(node)
        if name == "cd":
            places = said.places
        if name in _DULL:
            dull.append((name, said))
        elif name:
            said.places += places
            yield name, said
    yield from sorted(dull, key=lambda one: one[0] in _IDLE)


def _settings(command: Node) -> Iterator[str]:
    """The values of variables that are set in front of it; with their names where they say nothing themselves."""
    given = [(name, literal(value)) for name, value in assignments(command) if value is not None]
    said = [literal(word) or "" for word in words(command)]
    if said and os.path.basename(said[0]) in ("env", "sudo"):
        given += [(found[1], found[2]) for word in said if (found := re.fullmatch(r"(\w+)=(.*)", word, re.S))]
    for name, value in given:
        if value and not _SECRET.search(name) and not _OF_ALL.match(name):
            yield from _setting(name, value)


def _setting(name: str, value: str) -> Iterator[str]:
    name = slug(name.lower().replace("_", "-"))
    if re.fullmatch(r"1|true|yes|on", value, re.I):
        yield name
    elif not re.search(r"[A-Za-z]", value):
        yield slug(f"{name}-{value}")
    else:
        yield from _word(value)


def _pauses(command: str) -> Iterator[str]:
    """`sleep 30; cmd` is told from `cmd`."""
    for node in commands(parse(command)):
        said = [text(word) for word in words(node)] if node.type == "command" else []
        if said[:1] == ["sleep"] and len(said) == 2 and re.fullmatch(r"\d+[smh]?", said[1]):
            yield said[1] if said[1][-1] in "smh" else f"{said[1]}s"


def _folders(path: str) -> Iterator[str]:
    """What says something in a path of folders, the innermost first."""
    for part in reversed(path.split("/")):
        if part not in _FOLDERS and re.search(r"[A-Za-z]", part) and "$" not in part:
            yield slug(part)


def _called(given: Sequence[str]) -> tuple[str, _Said]:
    left = list(given)
    while left:
        if left[0].startswith("$") and left[1:] and not left[1].startswith("-"):
            left = left[1:]  # `$PHP x.php`
        path, rest = left[0].lstrip("$"), left[1:]
        base = os.path.basename(path.rstrip("/")).lstrip("-\\")
        if base in ("su", "runuser", "envdir", "xvfb-run", "with-lock-ex", "setlock", "dotenv", "direnv", "croncape"):
            inner = next((word for word in rest if " " in word), "")
            if base in ("su", "runuser") and inner:
                return next(_mains(inner), (slug(base), _Said()))
            left = [word for word in rest if not word.startswith("-")][base == "envdir" :]
        elif base in ("flock", "sshpass"):
            left = rest[[*_plain(base, rest), len(rest)][0] + (base == "flock") :]  # behind the lock's file
            inner = " ".join(left[1:]) if left[:1] == ["-c"] else shlex.join(left)
            return next(_mains(inner), (base, _Said()))
        elif base in _STARTERS and (behind := _started(base, rest)):
            left = behind
        elif _INTERPRETERS.fullmatch(base) and rest:
            found = _interpreted(base, rest)
            if not isinstance(found, list):
                return found
            left = found
        else:
            return _program(path, base, rest)
    return "", _Said()


def _started(base: str, rest: Sequence[str]) -> list[str]:
    """What `bundle exec`, `poetry run`, `npx` start; nothing where they do something themselves."""
    left = [word for word in rest if not word.startswith("-")]
    if left[:1] in (["exec"], ["run"]):
        return list(rest[rest.index(left[0]) + 1 :])
    return left if base == "npx" else []


def _interpreted(base: str, rest: Sequence[str]) -> tuple[str, _Said] | list[str]:
    """What an interpreter runs: its name, or the words of the script."""
    at = 0
    while at < len(rest) and rest[at][:1] in ("-", "+"):
        if re.fullmatch(r"-\w*c", rest[at]) and base not in ("php", "java"):
            inner = "".join(rest[at + 1 : at + 2]) if base.endswith("sh") else ""
            return next(_mains(inner), (slug(base), _Said()))
        if rest[at] == "-m" and base.startswith("python") and at + 1 < len(rest):
            return slug(rest[at + 1]), _telling("", rest[at + 2 :])
        at += 2 if rest[at] in _OF_INTERPRETERS and base != "xargs" else 1
    while at < len(rest) and not re.search(r"[A-Za-z]", rest[at]):
        at += 1
    if at < len(rest) - 1 or (at < len(rest) and not _INTERPRETERS.fullmatch(os.path.basename(rest[at]))):
        return list(rest[at:])
    return slug(os.path.basename("".join(rest[at:])) or base), _Said()


def _program(path: str, base: str, rest: Sequence[str]) -> tuple[str, _Said]:
    stem = _ENDING.sub("", base) or base
    stem = re.sub(r"[-_.]v?\d+(?:\.\d+)+(?:-\w+)?$", "", stem) or stem
    if not re.search(r"[A-Za-z]", stem):
        return "", _Said()
    said = _telling(stem, rest)
    plain = [rest[at] for at in _plain(stem, rest)]
    said.places += _folders("".join(plain[:1]) if stem == "cd" else os.path.dirname(path))
    if stem in _SERVICES and len(plain) > 1:
        action, unit = plain[:2] if stem == "systemctl" else plain[1::-1]
        return slug(f"{action}-{unit.removesuffix('.service')}"), said
    if stem in _CONTAINERS and (inside := _in_container(stem, rest)):
        return inside
    if stem == "ssh" and plain:
        return slug(f"ssh-{plain[0].rpartition('@')[2]}"), said
    if stem in _TOLD and plain:
        most = 2 if stem in _TWICE or plain[0] in _TOLD or plain[0] in ("system", "image", "volume") else 1
        return slug("-".join([stem, *plain[:most]])), said
    if stem in _NAMED_BY_FILE and (named := _file(stem, rest)):
        return slug(f"{stem}-{named}"), said
    return slug(stem), said


def _in_container(stem: str, rest: Sequence[str]) -> tuple[str, _Said] | None:
    """What is run in a container, or of an image: after the container, and the program in it."""
    places = _plain(stem, rest)
    plain = [rest[at] for at in places]
    if plain[:1] == ["compose"]:
        return _in_container("docker-compose", rest[places[0] + 1 :])
    if plain[:1] not in (["exec"], ["run"]) or len(plain) < 2:
        return None
    which = slug(re.sub(r"[:@].*", "", os.path.basename(plain[1].lstrip("$"))))
    inner = [word for word in rest[places[1] + 1 :] if word != "--"]
    name, said = _called(inner) if inner else ("", _Said())
    if plain[0] == "run" and stem != "docker-compose":
        said.words = [*([name] if name else []), *said.words]
        return slug(f"{stem}-run-{which}"), said
    return slug(f"{which}-{name}" if name else f"{stem}-{plain[0]}-{which}"), said


def _plain(stem: str, rest: Sequence[str]) -> list[int]:
    """Where the words stand that are no options, and are not of an option."""
    valued = (_VALUED | set(_VALUED_OF.get(stem, "").split())) - set(_FLAGS_OF.get(stem, "").split())
    found, skipped = [], False
    for at, word in enumerate(rest):
        if skipped:
            skipped = False
        elif word.startswith(("-", "+")) and len(word) > 1:
            skipped = word in valued
        else:
            found.append(at)
    return found


def _file(stem: str, rest: Sequence[str]) -> str:
    """The file, database or host that a general tool is about."""
    if stem in ("curl", "wget"):
        url = next((word for word in rest if "://" in word or re.match(r"[\w.-]+\.\w+/", word)), "")
        host, _, path = re.sub(r"^\w+://", "", url).partition("/")
        page = re.sub(r"\.\w+$", "", os.path.basename(path.partition("?")[0].rstrip("/")))
        page = "" if _is_key(page) else page
        return "-".join(part for part in (host.rpartition("@")[2].partition(":")[0].removeprefix("www."), page) if part)
    plain = [rest[at] for at in _plain(stem, rest)]
    if stem in ("chmod", "chown") or (stem == "tar" and re.fullmatch(r"[A-Za-z]+", (plain or [""])[0])):
        plain = plain[1:]
    if stem in ("psql", "pg_dump", "mysql", "mariadb") and not plain:
        plain = [value for option, value in pairwise(rest) if option in ("-d", "-D", "--dbname")]
    named = (word for word in plain if re.search(r"[A-Za-z]{2}", word) and not word.startswith(("/dev/", "$")))
    base = os.path.basename(next(named, "").rpartition(":")[2].rstrip("/"))
    return base if stem == "run-parts" else _ENDING.sub("", base).strip("-_.*")


def _telling(stem: str, rest: Sequence[str]) -> _Said:
    """What tells one call from another: words, and values of options, by their last part."""
    said = _Said()
    known = stem in _TOLD or stem in _NAMED_BY_FILE
    plain = set(_plain(stem, rest)) if known else set(range(len(rest)))
    before = ""
    for at, word in enumerate(rest):
        option, _, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word.startswith("-") and len(word) > 1:
            if value and not _SECRET.search(option):
                said.words += _word(value) if re.search(r"[A-Za-z]", value) else []
                said.numbers += [] if re.search(r"[A-Za-z]", value) else [slug(f"{option}-{value}")]
            elif not value and (word.startswith("--") or (len(word) == 2 and not known)):
                said.flags += [slug(word)] if re.search(r"[A-Za-z]", word) and (at + 1 in plain or not known) else []
        elif at not in plain:
            said.places += _word(word) if before in _TELLING.get(stem, ()) else []
        elif not _SECRET.search(before) and before not in ("-p", "-P", "-a"):
            letters = re.search(r"[A-Za-z]", word)
            if letters:
                said.words += _word(word)
            elif re.search(r"\d", word):
                said.flags = [flag for flag in said.flags if flag != before.lstrip("-")]
                said.numbers += [] if re.fullmatch(r"-\w", before) else [slug(f"{before}-{word}")]
        before = option if word.startswith("-") else ""
    return said


def _word(given: str) -> list[str]:
    """A word as it stands in a name, or nothing."""
    if "://" in given:
        _, _, query = given.partition("?")
        pairs = [part.partition("=") for part in query.split("&")]
        path = os.path.basename(re.sub(r"^\w+://[^/]*", "", given.partition("?")[0]).rstrip("/"))
        return [one for part in (path, *(value for name, _, value in pairs if not _SECRET.search(name)))
                if part for one in _word(part)]  # fmt: skip
    name, equals, value = given.partition("=")
    if equals and re.fullmatch(r"\w+", name):
        return [] if _SECRET.search(name) else list(_setting(name, value)) if value else []
    if given.startswith("/dev/") or _is_key(given):
        return []
    if " " in given:
        given = "-".join(re.findall(r"[A-Za-z]\w+", re.sub(r"\S*[=/]\S*", "", given))[:2])
    shown = _ENDING.sub("", os.path.basename(given.lstrip("$").rstrip("/")).rpartition("@")[2])
    return [slug(shown)] if re.search(r"[A-Za-z]", shown) and len(shown) <= _LENGTH_OF_ID else []


def _is_key(given: str) -> bool:
    """Whether it is put together of letters and digits by chance: an id, or a secret."""
    return bool(re.fullmatch(r"[0-9a-f-]{16,}|(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_]{20,}", given))


def _shown(word: Node) -> str:
    """What a word says; of a variable alone its name, behind a $."""
    known = literal(word)
    if word.type == "command_substitution":
        return ""
    if known is not None:
        return known
    if alone := re.fullmatch(r"\"?\$\{?([A-Za-z_]\w*)[^}/]*\}?\"?", text(word)):
        return "" if _SECRET.search(alone[1]) else "$" + alone[1].lower()
    return re.sub(r"\$\{?\w+\}?/?|[\"`]|\$\(.*\)", "", text(word))


def _when(times: str) -> str:
    """When it runs, in a word."""
    bare = times.removeprefix("-")
    if bare.startswith("@"):
        return "at-boot" if bare == "@reboot" else bare[1:]
    fields = bare.lower().split()
    if len(fields) != 5:
        return ""
    minute, hour, day, month, weekday = fields
    clock = f"{int(hour):02}{int(minute):02}" if hour.isdigit() and minute.isdigit() else ""
    if not clock and re.fullmatch(r"\d+", minute):
        clock = f"min{minute}"
    if not clock and (every := re.fullmatch(r"\*/(\d+)", minute)):
        clock = f"every-{every[1]}min"
    if not hour.isdigit() and re.fullmatch(r"[\d,-]+", hour):
        hours = re.findall(r"\d+", hour)
        clock = "-".join(part for part in (f"h{hours[0]}-{hours[-1]}", clock) if part)
    if month.isdigit() and day.isdigit():
        return f"{int(month):02}{int(day):02}"
    days = f"day{day}" if day.isdigit() else ""
    if weekday != "*":
        days = re.sub(r"(?<![/\d])[0-7](?!\d)", lambda found: _WEEKDAYS[int(found[0])], weekday)
    return slug(f"{days}-{clock}") if days or clock else ""
