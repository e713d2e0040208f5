"""Pieces put together as a reader would: what only prepares goes with what it prepares, each deed stands alone.

    PREPARES   changes the shell alone, or only looks, or says something: assignments, functions, `set`, `cd`, checks of
               arguments, `echo`, `mkdir`. Goes with the next deed; a longer paragraph of it is a group of its own
    TIDIES     can be done any number of times: `rm -f`, `chmod`, lines written to a report. Several may
               stand together, and with the deed that follows in the same paragraph
    DOES       all else. Never two of them in one group: what was done is recorded before the next begins

A paragraph ends at an empty line, or at a comment that stands above a statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from .outside import effects
from .program import Program, called
from .statements import Piece
from .syntax import Node, is_background, listed, redirects, text

_SETUP = 3  # statements of preparation that are worth a step of their own
_LONG = 40  # lines of preparation, after which the next paragraph is another step

_DONE = re.compile(
    r"[✅✔✓☑]|\b(done|completed?|finished|success|successful(ly)?|created|removed|deleted|cleaned|saved|backed up)\b",
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
_CHANGES = {"find": r"-delete|-exec|-ok", "sed": r"(^| )-\w*i|--in-place", "mount": r"\S", "ip": r"\b(add|del|set)\b",
            "xargs": r"\S", "date": r"-s\b|--set", "sort": r"(^| )-o", "hostname": r"^[^-]", "exec": r"^[^{]",
            "rpm": r"-[iUeF]", "eval": r"\S", ".": r"^\./|\.sh\b", "env": r"(^| )[^-=\s]+( |$)"}  # fmt: skip


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
    if name in program.functions:
        return Kind.PREPARES  # what its body does is looked at by itself
    if name in _TIDIES:
        return Kind.TIDIES
    if name not in _LOOKS or (name in _CHANGES and re.search(_CHANGES[name], " ".join(said))):
        return Kind.TIDIES if name == "." or (name == "sed" and name in _CHANGES) else Kind.DOES
    return Kind.TIDIES if _writes(command) and not _talks(name) else Kind.PREPARES


def _talks(name: str) -> bool:
    return name in ("echo", "printf", "date", "tee", ":", "exec")


def _writes(command: Node) -> bool:
    return any(
        re.match(r"(\d|&)?>>?\|?\s*[^&\s]", text(one)) and "/dev/null" not in text(one) for one in redirects(command)
    )


class _Seen(NamedTuple):
    """A piece, and what there is to know of it."""

    piece: Piece
    kind: Kind
    anew: bool  # an empty line or a comment stands above it
    ends: bool  # an empty line or a comment follows
    defines: bool  # nothing but functions, handed on as they stand: they form steps of their own
    says: bool  # nothing but a word to the reader


def grouped(program: Program, pieces: Sequence[Piece]) -> list[Group]:
    """All pieces in their order, none left out."""
    seen = [_seen(program, piece) for piece in pieces]
    groups: list[list[_Seen]] = []
    waiting: list[_Seen] = []  # preparation, so far
    number = 0
    while number < len(seen):
        here = seen[number]
        if waiting and _stands_alone(waiting, here):
            groups.append(waiting)
            waiting = []
        waiting.append(here)
        number += 1
        if here.kind == Kind.DOES:
            start = _paragraph(waiting)
            if _worth(waiting[:start]):
                groups.append(waiting[:start])
                waiting = waiting[start:]
            tail = _its_words(seen, number)
            groups.append(waiting + seen[number : number + tail])
            waiting = []
            number += tail
    if waiting and groups and not _worth(waiting) and not groups[-1][-1].defines and not waiting[0].defines:
        groups[-1] += waiting
    elif waiting:
        groups.append(waiting)
    return [_group(program, group) for group in groups]


def _seen(program: Program, piece: Piece) -> _Seen:
    functions = bool(piece.nodes) and all(program.defines(node) or node.type == ";" for node in piece.nodes)
    below = program.lines[piece.last : piece.last + 1]
    return _Seen(
        piece,
        kind_of(program, piece),
        anew=bool(piece.nodes) and piece.nodes[0].start_point.row > piece.first - 1,
        ends=not below or not below[0].strip() or below[0].lstrip().startswith("#"),
        defines=functions and program.hands_on_text,
        says=all(_says(program, node) for node in piece.nodes),
    )


def _says(program: Program, node: Node) -> bool:
    """`echo`, with or without a redirection, or a function of the script that does nothing else."""
    command = node.children[0] if node.type == "redirected_statement" else node
    if command.type != "command":
        return node.type == ";"
    name, _ = called(command)
    return name in ("echo", "printf", "date", "logger", "exit") or name in program.functions


def _stands_alone(waiting: Sequence[_Seen], following: _Seen) -> bool:
    """Whether what waits is a group of its own, before this one."""
    if waiting[-1].defines != following.defines:
        return True
    if not following.anew or following.defines:
        return False
    if following.kind == Kind.PREPARES:
        return waiting[-1].piece.last - waiting[0].piece.first > _LONG
    return _worth(waiting)


def _paragraph(waiting: Sequence[_Seen]) -> int:
    """Where the paragraph of the last one begins: 0 if all are in it."""
    return next((number for number in range(len(waiting) - 1, 0, -1) if waiting[number].anew), 0)


def _worth(waiting: Sequence[_Seen]) -> bool:
    """Whether preparation is enough for a step of its own."""
    return len(waiting) >= _SETUP or any(one.kind != Kind.PREPARES or one.defines for one in waiting)


def _its_words(seen: Sequence[_Seen], number: int) -> int:
    """How many pieces after a deed only say that it is done: by their words, or because the paragraph ends with them.

    Else they announce what comes next.
    """
    count = 0
    while number + count < len(seen) and seen[number + count].says and _is_done(seen[number + count]):
        count += 1
    if count:
        return count
    while number + count < len(seen):
        one = seen[number + count]
        if one.anew or not one.says or one.kind != Kind.PREPARES:
            return 0
        count += 1
        if one.ends:
            return count
    return count


def _is_done(one: _Seen) -> bool:
    return one.kind == Kind.PREPARES and _DONE.search(text(one.piece.nodes[0])) is not None


def _group(program: Program, members: Sequence[_Seen]) -> Group:
    pieces = tuple(one.piece for one in members)
    nodes = [node for piece in pieces for node in piece.nodes]
    return Group(pieces, max(one.kind for one in members), effects(program, nodes))
