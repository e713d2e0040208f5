"""What a step is called: the words of whoever wrote the script, where there are any.

The first sentence of the comment above, else the text of an `echo`, else the first command that does something with
its subcommand, else "setup". Ids are short, in small letters with hyphens, and unique in the job.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from .groups import Group, Kind, kind_of
from .program import Program, called
from .statements import Piece
from .syntax import Node, command_name, commands, listed, literal, text, walk, words

_WORDS = 5
_LENGTH = 32
_SMALL = listed(
    "a an the of to for and or in on at is are be this that it we if with from into by as our your all any then "
    "der die das fur und"
)
_DECORATION = re.compile(r"^[\s#=*~_+<>|.-]+(?![\w/.])|^[\s#=*~_+<>|-]+|[\s#=*~_+<>|\\-]+$")
_LABEL = re.compile(r"^(info|note|nb|step|task|purpose|description|warning|important|attention|hint)\s*:\s*", re.I)
_NUMBERING = re.compile(r"^(\w+\s+(?=#?\d+\s*[:.)]))?#?\s*[\[(]?\d+(\s*/\s*\d+)?[\])]?\s*[:.)-]+\s*", re.I)
_DIRECTIVE = re.compile(r"shellcheck\s|vim?:|-\*-|todo\b|fixme\b|xxx\b|noqa|eslint|copyright|@\w+|https?://", re.I)
_CODE = re.compile(
    r"[;|&`]\s*$|\$\(|&&|\|\||^[./~]*/\S|^!?/?(usr/)?bin/|^[A-Za-z_]\w*=|^[\w./-]+ -"
    r"|^\s*(if|for|while|then|fi|done|do|else)\b.*[;\]]|^\s*(echo|sudo|cd|rm|cp|mv|exit|set) "
)
_SUBCOMMANDS = listed("""
    git docker podman kubectl helm aws gcloud az systemctl service apt apt-get dnf yum brew npm yarn pnpm pip pip3
    cargo go make terraform restic borg rclone zfs zpool btrfs lvm gh docker-compose composer php bundle rails
    wp certbot ansible openssl ip ufw pm2 conda poetry uv rsnapshot occ gsutil s3cmd virsh vagrant supervisorctl
    flatpak snap pacman hg svn nginx apachectl s3 ec2 rds compose volume""")  # fmt: skip
_DULL = listed(
    "[ [[ test echo printf cd set shopt trap umask export readonly declare typeset local exit return : true false "
    "shift sleep date logger source . log unset pushd popd basename dirname command read exec tee break continue "
    "let eval wait usage die error info warn fail"
)


def names(program: Program, groups: Sequence[Group]) -> list[str]:
    """An id for each."""
    taken: set[str] = set()
    found = []
    for number, group in enumerate(groups):
        wanted = next(iter(_candidates(program, group, number)))
        if wanted in taken:
            wanted = next(iter(_ids(f"{wanted} {_condition(group)}")), wanted)
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted[: _LENGTH + 8]}-{count}"
        taken.add(name)
        found.append(name)
    return found


def _candidates(program: Program, group: Group, number: int) -> Iterable[str]:
    deeds = [piece for piece in group.pieces if kind_of(program, piece) == group.kind and group.kind != Kind.PREPARES]
    for piece in dict.fromkeys((*deeds[:1], *group.pieces[:1])):
        yield from _ids(sentence(comment_above(program, piece)))
    for node in deeds[0].nodes if deeds else ():
        if node.type == "variable_assignment":
            yield from _ids(text(node.children[0]).lower())
    if group.kind != Kind.PREPARES and deeds:
        yield from _ids(_announced(program, group, deeds[0]))
    functions = [text(name) for piece in group.pieces for node in piece.nodes if node.type == "function_definition"
                 and (name := node.child_by_field_name("name")) is not None]  # fmt: skip
    if functions and group.kind == Kind.PREPARES and 2 * len(functions) > sum(len(one.nodes) for one in group.pieces):
        yield from _ids("functions" if len(functions) > 1 else f"define {functions[0]}")
    if group.kind == Kind.PREPARES:
        yield from _ids(_announced(program, group, None) if number else "setup")
    for piece in deeds or group.pieces:
        yield from _ids(_command(program, piece, group.kind))
    yield from _ids(f"check {_condition(group)}" if _condition(group) else "")
    yield "setup" if not number else "finish" if group.last >= len(program.lines) else "prepare"


def _condition(group: Group) -> str:
    """What the last check of the group looks at: the first variable of its condition."""
    found = ""
    for node in (node for piece in group.pieces for node in piece.nodes):
        if node.type in ("if_statement", "list"):
            first = [
                text(here)
                for here in walk(node.children[0 if node.type == "list" else 1])
                if here.type == "variable_name"
            ]
            found = first[0].lower() if first else found
    return found


def comment_above(program: Program, piece: Piece) -> list[str]:
    """The lines of the comment that touches its statement (or the last one, with empty lines between)."""
    start = piece.nodes[0].start_point.row if piece.nodes else piece.first - 1
    above = program.lines[piece.first - 1 : start]
    while above and not above[-1].strip():
        above.pop()
    block: list[str] = []
    for line in reversed(above):
        if not line.strip():
            break
        block.insert(0, line)
    return block


def sentence(comment: Sequence[str]) -> str:
    """The first sentence of a comment; empty where it is a line of dashes, a directive, or a command put out of use."""
    said: list[str] = []
    for line in comment:
        bare = _DECORATION.sub("", line.strip())
        bare = _DECORATION.sub("", bare)
        if not bare or _DIRECTIVE.match(bare) or _CODE.search(bare) or not re.search(r"[^\W\d_]{2}", bare):
            if said:
                break
            continue
        said.append(bare)
        if re.search(r"[.:!?]$", line.strip()) or len(" ".join(said)) > 60:
            break
    whole = _LABEL.sub("", _NUMBERING.sub("", " ".join(said)))
    return re.split(r"(?<=\w)[.!?;](?:\s|$)|:\s|\s[-–—]+\s|\s\(|,\s", whole, maxsplit=1)[0].strip(" .:!?")


def _ids(said: str) -> Iterable[str]:
    """None or one."""
    plain = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"\$\{?\w+\}?", " ", plain).replace("'", "")
    found = re.findall(r"[a-z0-9]+", plain)
    telling = [word for word in found if word not in _SMALL] or found
    result = ""
    for word in telling[:_WORDS]:
        if len(result) + len(word) + 1 > _LENGTH:
            break
        result = f"{result}-{word}" if result else word
    result = (result or "".join(telling[:1])[:_LENGTH]).strip("-")
    if re.search(r"[a-z]{2}", result):
        yield result if not result[0].isdigit() else f"step-{result}"


def _announced(program: Program, group: Group, deed: Piece | None) -> str:
    """The text of the `echo` nearest above the deed; without one, of the first."""
    said = ""
    for piece in group.pieces:
        if piece is deed:
            break
        for node in piece.nodes:
            command = node.children[0] if node.type == "redirected_statement" else node
            if command.type == "command" and (
                command_name(command) in ("echo", "printf", "logger") or command_name(command) in program.functions
            ):
                plain = _plain(words(command)[1:])
                said = plain if deed is not None and plain else said or plain
    return sentence([said]) if said else ""


def _plain(arguments: Sequence[Node]) -> str:
    """What of an echo's words is text."""
    parts = []
    for word in arguments:
        if text(word).startswith("-"):
            continue
        known = literal(word)
        parts.append(
            known if known is not None else "".join(text(one) for one in word.children if one.type == "string_content")
        )
    return re.sub(r"\\[a-z0-9\[;]+m?|\[\d\d?(;\d+)*m|\[(INFO|info|\+|\*)\]", " ", " ".join(parts)).strip()


def _command(program: Program, piece: Piece, kind: Kind) -> str:
    """The first command that does what the group is for, with its subcommand."""
    first = ""
    for node in piece.nodes:
        for command in commands(node, without=("function_definition",)):
            name, said = called(command)
            name = name.lstrip("./").replace("$", "").strip('"{}')
            if node.type == "function_definition" or command.type != "command" or not name or name in _DULL:
                continue
            if name in program.functions and kind_of(program, piece._replace(nodes=(command,))) == Kind.PREPARES:
                continue
            if re.search(r"[\s()`\[]", name):
                continue
            first = first or _with_subcommand(name, said, command)
            if kind_of(program, piece._replace(nodes=(command,))) == kind:
                return _with_subcommand(name, said, command)
    return first


def _with_subcommand(name: str, said: Sequence[str], command: Node) -> str:
    stem = re.sub(r"\.(sh|bash|py|pl|rb|php|js)$", "", name)
    plain = [one for one in said if re.fullmatch(r"[a-z][a-z0-9-]*", one)]
    if stem in _SUBCOMMANDS and plain:
        more = (
            2
            if stem in ("aws", "gcloud", "az", "docker", "docker-compose", "restic")
            and len(plain) > 1
            and plain[0] in _SUBCOMMANDS
            else 1
        )
        return " ".join((stem, *plain[:more]))
    if stem in ("python", "python3", "perl", "ruby", "node", "bash", "sh", "php", "Rscript", "java") and said:
        if "-c" in said[:-1] and stem in ("bash", "sh"):
            return said[said.index("-c") + 1].split(" ", 1)[0].strip("\"'").rsplit("/", 1)[-1]
        script = next((one for one in said if not one.startswith("-")), "")
        inner = re.sub(r"\.\w+$", "", script.rsplit("/", 1)[-1]).strip('"')
        return inner if re.search(r"[A-Za-z]{2}", inner) and "$" not in inner else stem
    if stem in ("rm", "cp", "mv", "mkdir", "tar", "find", "gzip", "touch", "chmod", "chown", "ln", "zip"):
        return " ".join((_VERBS.get(stem, stem), *_objects(command)))
    return stem


_VERBS = {"rm": "remove", "cp": "copy", "mv": "move", "mkdir": "make", "tar": "tar", "find": "find", "ln": "link"}


def _objects(command: Node) -> list[str]:
    """The variable or the file that it is mostly about: the first that says something."""
    for word in words(command)[1:]:
        if text(word).startswith("-"):
            continue
        plain = re.sub(r"\$\{\w+[^}]*\}|\$\w+|[\"'*?]", " ", text(word)).strip().rstrip("/")
        if re.search(r"`|\$\(", plain):
            return []
        last = re.sub(r"\.\w+$", "", plain.rsplit("/", 1)[-1])
        if re.search(r"[A-Za-z]{3}", last):
            return [last]
        for here in walk(word):
            if here.type == "variable_name" and len(text(here)) > 2:
                return [text(here).lower().replace("_", "-")]
    return []
