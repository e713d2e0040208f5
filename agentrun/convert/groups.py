"""Pieces put together as a reader would: what only prepares goes with what it prepares, each deed stands alone.

    PREPARES   changes the shell alone, or only looks, or says something: assignments, functions, `set`, `cd`, checks of
               arguments, `echo`, `mkdir`. One "setup" where there is much of it, else a part of the next deed's group
    TIDIES     can be done any number of times: `rm -f`, `chmod`, `find -delete`, lines written to a report. Several may
               stand together, and with the deed that follows in the same paragraph
    DOES       all else. Never two of them in one group: what was done is recorded before the next begins

What does something to the world that must not be done twice (`outside.py`) is asked about after an interruption. So it
stands apart from what sets something for the statements behind it: whoever says that the mail was sent need not know
what the shell had in its variables, and what was cut off before it is done again without a question.

A paragraph begins behind an empty line, or at a comment. What stands in it behind its last deed and only looks or
says something belongs to that deed. An `echo` that is a paragraph is the heading of the next, unless it says "done".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import takewhile
from typing import NamedTuple

from .outside import effects
from .program import Program, called
from .statements import Piece
from .syntax import Node, is_background, listed, redirects, text, words

_SETUP = 3  # statements of preparation that are worth a step of their own
_LONG = 60  # lines of preparation, after which the next paragraph is another step

_DONE = re.compile(
    r"[✅✔✓☑]|\b(done|completed?|finished|success|successful(ly)?|created|removed|deleted|cleaned|saved|sent"
    r"|backed up)\b",
    re.I,
)


class Kind(IntEnum):
    PREPARES = 0
    TIDIES = 1
    DOES = 2


class Group(NamedTuple):
    pieces: tuple[Piece, ...]
    kind: Kind
    outside: dict[str, str]  # what it does to the world, with the command that does it

    @property
    def first(self) -> int:
        return self.pieces[0].first

    @property
    def last(self) -> int:
        return self.pieces[-1].last


_LOOKS = listed("""
    : [ [[ test true false echo printf cd pushd popd set shopt trap umask alias unalias unset shift export readonly
    declare typeset local let getopts getopt exit return break continue source . eval read mapfile readarray exec wait
    command type which hash times date basename dirname pwd hostname whoami id uname cat head tail grep egrep fgrep
    zgrep sed awk gawk cut tr sort uniq wc ls find stat file du df free uptime ps pgrep expr bc seq jq yq column rev
    paste comm diff cmp join fold fmt nl od xxd xargs realpath readlink mktemp tput clear logger sleep nproc arch
    getconf mkdir touch locale groups tty stty env printenv lsblk blkid findmnt mount md5sum sha1sum sha256sum cksum
    lsof netstat ss ip ifconfig pidof ping host dig nslookup logname who w last figlet usleep mountpoint
    tee numfmt shuf tac strings zcat xzcat bzcat lsb_release dpkg-query rpm""")
_TIDIES = listed("rm chmod chown chgrp ln rmdir install truncate sync kill killall pkill cp")
_REMOVES = {"find": r"(^| )-delete( |$)|-exec(dir)? +(/usr)?(/bin/)?rm ", "xargs": r"(^| )(/bin/)?rm( |$)"}
_SETTINGS = re.compile(
    r"^[^.]*$|env|conf|lib|func|var|setting|common|util|helper|activate|rc\b|/etc/|profile|default", re.I
)
_TALKERS = re.compile(
    r"(log|info|warn|error|msg|say|debug|notice|success|die|fail)(_\w+|ing)?|(print|log)_?(msg|message|line)"
)
_SETTERS = (
    "variable_assignment", "variable_assignments", "declaration_command", "unset_command", "function_definition",
)  # fmt: skip
_SETTING = listed("cd pushd popd set shopt trap umask alias unalias shift eval . source read mapfile readarray getopts")
_FINISHES = listed("chmod chown chgrp touch sync")
_CHANGES = {"find": r"-delete|-exec|-ok", "sed": r"(^| )-\w*i|--in-place", "mount": r"\S", "ip": r"\b(add|del|set)\b",
            "xargs": r"\S", "date": r"-s\b|--set", "sort": r"(^| )-o", "hostname": r"^[^-]", "exec": r"^[^{]",
            "rpm": r"-[iUeF]", "eval": r"\S", "env": r"(^| )[^-=\s]+( |$)"}  # fmt: skip


def kind_of(program: Program, piece: Piece) -> Kind:
    """The most that any of its statements does."""
    return max((_kind(program, node) for node in piece.nodes), default=Kind.PREPARES)


def _kind(program: Program, node: Node) -> Kind:
    found = Kind.PREPARES
    for here in program.executed(node, set(program.enders)):
        if is_background(here):
            return Kind.DOES
        if here.type == "command":
            found = max(found, _kind_of_command(program, here))
        if found == Kind.DOES:
            break
    return found


def _kind_of_command(program: Program, command: Node) -> Kind:
    name, said = called(command)
    if not name or name in program.functions or _TALKERS.fullmatch(name):
        return Kind.PREPARES  # what its body does is looked at by itself
    if name in _TIDIES or (name in _REMOVES and re.search(_REMOVES[name], " ".join(said))):
        return Kind.TIDIES
    if name in (".", "source") and said and not _SETTINGS.search(said[0]):
        return Kind.TIDIES
    if name not in _LOOKS or (name in _CHANGES and re.search(_CHANGES[name], " ".join(said))):
        return Kind.TIDIES if name == "sed" else Kind.DOES
    return Kind.TIDIES if _writes(command) and not _talks(name) else Kind.PREPARES


def _talks(name: str) -> bool:
    return name in ("echo", "printf", "date", "tee", "exec")


def _writes(command: Node) -> bool:
    return any(
        re.match(r"(\d|&)?>>?\|?\s*[^&\s]", text(one)) and "/dev/null" not in text(one) for one in redirects(command)
    )


class _Seen(NamedTuple):
    """A piece, and what there is to know of it."""

    piece: Piece
    kind: Kind
    anew: bool  # an empty line or a comment stands above it
    defines: bool  # nothing but functions, handed on as they stand: they form steps of their own
    says: bool  # nothing but a word to the reader


Part = list[_Seen]


def grouped(program: Program, pieces: Sequence[Piece]) -> list[Group]:
    """All pieces in their order, none left out."""
    groups: list[Part] = []
    waiting: list[Part] = []  # paragraphs of preparation, so far
    for part in _parts([_seen(program, piece) for piece in pieces]):
        if part[0].defines:
            if groups and not waiting and groups[-1][0].defines:
                groups[-1] += part
            else:
                groups += [*filter(None, [_joined(waiting)]), part]
            waiting = []
        elif any(one.kind != Kind.PREPARES for one in part):
            if groups and not waiting and not groups[-1][-1].defines:
                groups[-1] += (done := list(takewhile(lambda one: one.says and _is_done(one), part)))
                part = part[len(done) :]
            heading = next((at for at in range(len(waiting), 0, -1) if not waiting[at - 1][0].says), 0)
            if _worth(waiting[:heading]):
                groups += [_joined(waiting[:heading]), _joined([*waiting[heading:], part])]
            else:
                groups.append(_joined([*waiting, part]))
            waiting = []
        elif groups and not waiting and not groups[-1][-1].defines and _says(part) and any(map(_is_done, part)):
            groups[-1] += part
        else:
            if waiting and part[-1].piece.last - waiting[0][0].piece.first > _LONG:
                groups.append(_joined(waiting))
                waiting = []
            waiting.append(part)
    if waiting and groups and not groups[-1][-1].defines and _count(waiting) < 2:
        groups[-1] += _joined(waiting)
    elif waiting:
        groups.append(_joined(waiting))
    return [_group(program, part) for group in groups for part in _apart(program, group)]


def _apart(program: Program, group: Part) -> Iterator[Part]:
    """A group as it is, or where it has a deed to be asked about what sets something before it, that, and the rest."""
    asked = [bool(effects(program, one.piece.nodes)) for one in group]
    if any(asked) and not group[0].defines:
        first, last = asked.index(True), len(asked) - asked[::-1].index(True)
        before = max((at + 1 for at in range(first) if not group[at].says), default=0)
        behind = next((at for at in range(last, len(group)) if _sets(group[at])), len(group))
        yield from filter(None, (group[:before], group[before:behind], group[behind:]))
    else:
        yield group


def _sets(one: _Seen) -> bool:
    """Whether it changes the shell for what comes behind it, as far as that is seen from its first word."""
    return one.kind == Kind.PREPARES and not one.says and any(node.type in _SETTERS or (
        node.type == "command" and called(node)[0] in _SETTING) for node in one.piece.nodes)  # fmt: skip


def _parts(seen: Sequence[_Seen]) -> Iterator[Part]:
    """Paragraphs, and what is in them: functions, one deed with what belongs to it, or only preparation."""
    at = 0
    while at < len(seen):
        end = at + 1
        while end < len(seen) and not seen[end].anew and seen[end].defines == seen[at].defines:
            end += 1
        yield from _deeds(list(seen[at:end]))
        at = end


def _deeds(paragraph: Part) -> Iterator[Part]:
    at = here = 0
    while here < len(paragraph):
        here += 1
        if paragraph[here - 1].kind != Kind.DOES:
            continue
        deed = paragraph[here - 1]
        while here < len(paragraph) and _belongs(deed, paragraph[here]):
            here += 1
        rest = paragraph[here:]
        if all(one.kind == Kind.PREPARES for one in rest) and not _announces(rest):
            here = len(paragraph)
        yield paragraph[at:here]
        at = here
    if at < len(paragraph):
        yield paragraph[at:]


def _belongs(deed: _Seen, one: _Seen) -> bool:
    """Whether it says that the deed is done, or makes what came out of it what it should be."""
    if one.says and _is_done(one):
        return True
    command = one.piece.nodes[0] if len(one.piece.nodes) == 1 else None
    if command is None or command.type != "command" or one.kind == Kind.PREPARES:
        return False
    name, said = called(command)
    if name != "mv":
        return name in _FINISHES
    plain = [text(word) for word in words(command)[1:] if not text(word).startswith("-")]
    made = rf"(>\|?|\s-\w*[of]|--out(put)?(-file)?|--file|\bof)[=\s]?\s*{re.escape(plain[0])}(\s|$)" if plain else "$^"
    return len(said) < 4 and any(re.search(made, text(node)) for node in deed.piece.nodes)


def _announces(rest: Part) -> bool:
    """Whether the last word of a paragraph is about what comes: `Copying...`."""
    return bool(rest) and rest[-1].says and re.search(r"(\.\.|…|:)[\"']?$", text(rest[-1].piece.nodes[0])) is not None


def _joined(parts: Sequence[Part]) -> Part:
    return [one for part in parts for one in part]


def _seen(program: Program, piece: Piece) -> _Seen:
    functions = bool(piece.nodes) and all(program.defines(node) or node.type == ";" for node in piece.nodes)
    return _Seen(
        piece,
        kind_of(program, piece),
        anew=bool(piece.nodes) and piece.nodes[0].start_point.row > piece.first - 1,
        defines=functions and program.hands_on_text,
        says=all(_talks_only(program, node) for node in piece.nodes),
    )


def _talks_only(program: Program, node: Node) -> bool:
    """`echo`, with or without a redirection, or a function of the script that does nothing else."""
    command = node.children[0] if node.type == "redirected_statement" else node
    if command.type != "command":
        return node.type == ";"
    name, _ = called(command)
    return name in ("date", "exit") or talks(program, name)


def talks(program: Program, name: str) -> bool:
    """Whether a command says something to the reader: `echo`, or a function that is called as if it did."""
    return name in ("echo", "printf", "logger") or name in program.functions or _TALKERS.fullmatch(name) is not None


def _says(part: Part) -> bool:
    return all(one.says and one.kind == Kind.PREPARES for one in part)


def _worth(waiting: Sequence[Part]) -> bool:
    """Whether preparation is enough for a step of its own."""
    return _count(waiting) >= _SETUP


def _count(waiting: Sequence[Part]) -> int:
    return sum(not one.says for part in waiting for one in part)


def _is_done(one: _Seen) -> bool:
    return one.kind == Kind.PREPARES and _DONE.search(text(one.piece.nodes[0])) is not None


def _group(program: Program, members: Sequence[_Seen]) -> Group:
    pieces = tuple(one.piece for one in members)
    nodes = [node for piece in pieces for node in piece.nodes]
    return Group(pieces, max(one.kind for one in members), effects(program, nodes))
