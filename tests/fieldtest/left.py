"""What a run of a script left: output, status, calls and their environments, files; and how two of them differ.

Compared is what they hold, not when they were made: of an archive its members, of a compressed file what was
compressed. A pid is a pid, whichever it is: a script's pids lie in a range of their own (sandbox.py).
"""

from __future__ import annotations

import bz2
import difflib
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from . import sandbox

_PID = re.compile(rb"(?<!\d)2\d{4}(?!\d)")
_NOT_CARRIED = re.compile(rb"^(AGENTRUN_\w*|TRACEPARENT|_|SHLVL)=")
_DEEP = 5  # archives within archives
_SHOWN = 60  # lines of a diff


class Left(NamedTuple):
    """`status`: None if it did not end. `files`: path to what it is."""

    status: int | None
    output: bytes
    calls: bytes
    environments: bytes
    files: dict[str, str]


def look(machine: sandbox.Sandbox, status: int | None, output: bytes) -> Left:
    """What is there now."""
    return Left(
        status,
        _plain(output),
        _plain(_read(machine.field / "calls")),
        b"\n".join(
            line for line in _plain(_read(machine.field / "environments")).split(b"\n") if not _NOT_CARRIED.match(line)
        ),
        dict(tree(machine.root, sandbox.ours)),
    )


def differences(first: Left, second: Left) -> dict[str, str]:
    """The parts that differ, each with a short diff. Calls of the same kind in another order are named so."""
    found = {}
    if first.status != second.status:
        found["status"] = f"{first.status} became {second.status}\n"
    for part in ("output", "calls", "environments"):
        one, other = getattr(first, part), getattr(second, part)
        if one != other:
            same = part == "calls" and sorted(one.split(b"\n")) == sorted(other.split(b"\n"))
            found["order of calls" if same else part] = _diff(_lines(one), _lines(other))
    if first.files != second.files:
        found["files"] = _diff(*(sorted(f"{path} {what}" for path, what in it.files.items()) for it in (first, second)))
    return found


def _lines(data: bytes) -> list[str]:
    return data.decode(errors="backslashreplace").split("\n")


def _diff(one: list[str], other: list[str]) -> str:
    lines = list(difflib.unified_diff(one, other, "script", "job", n=1, lineterm=""))[2:]
    more = [f"... {len(lines) - _SHOWN} more lines"] if len(lines) > _SHOWN else []
    return "\n".join([line[:300] for line in lines[:_SHOWN]] + more) + "\n"


def _plain(data: bytes) -> bytes:
    return _PID.sub(b"<pid>", data)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def tree(root: Path, passed_over: Callable[[str], bool] = lambda path: False) -> list[tuple[str, str]]:
    """Everything below a folder: its path, and what it is."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not passed_over(os.path.relpath(f"{folder}/{name}", root))]
        for name in [*folders, *files]:
            path = os.path.relpath(f"{folder}/{name}", root)
            if not passed_over(path):
                shown = _plain(path.encode(errors="surrogateescape")).decode(errors="backslashreplace")
                found.append((shown, _what(f"{folder}/{name}")))
    return found


def _what(path: str) -> str:
    about = os.lstat(path)
    mode = stat.filemode(about.st_mode)
    owner = f"{about.st_uid}:{about.st_gid}"
    if stat.S_ISLNK(about.st_mode):
        return f"{mode} -> {os.readlink(path)}"
    if not stat.S_ISREG(about.st_mode):
        return f"{mode} {owner}"
    with open(path, "rb") as file:
        return f"{mode} {owner} {_digest(file.read(), _DEEP)}"


def _digest(data: bytes, deep: int) -> str:
    """Of what it holds. What looks like an archive and is none is taken as it is."""
    if deep:
        for magic, inside in _FORMATS:
            if magic(data):
                try:
                    return inside(data, deep - 1)
                except (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile):
                    pass
    plain = _plain(data)
    return f"{len(plain)} {sha256(plain).hexdigest()[:16]}"


def _of_tar(data: bytes, deep: int) -> str:
    lines = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            held = _digest(file.read(), deep) if file else member.linkname
            lines.append(f"{_plain(member.name.encode(errors='replace'))!r} {member.mode:o} {member.type!r} {held}")
    return _of_list("tar", lines)


def _of_zip(data: bytes, deep: int) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _of_list("zip", [f"{one.filename} {_digest(archive.read(one), deep)}" for one in archive.infolist()])


def _of_list(kind: str, lines: list[str]) -> str:
    return f"{kind} of {len(lines)} {sha256(chr(10).join(sorted(lines)).encode()).hexdigest()[:16]}"


_FORMATS = (
    (lambda data: data[:2] == b"\x1f\x8b", lambda data, deep: f"gz {_digest(gzip.decompress(data), deep)}"),
    (lambda data: data[:3] == b"BZh", lambda data, deep: f"bz2 {_digest(bz2.decompress(data), deep)}"),
    (lambda data: data[:6] == b"\xfd7zXZ\x00", lambda data, deep: f"xz {_digest(lzma.decompress(data), deep)}"),
    (lambda data: data[:4] == b"PK\x03\x04", _of_zip),
    (lambda data: data[257:262] == b"ustar", _of_tar),
)
