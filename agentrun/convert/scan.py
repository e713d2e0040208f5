"""What should be durable in a tree of files: `agentrun convert --scan DIR`.

Every file is looked at by what it is: by its name, else by its first line. Not looked at: what version control, package
managers and virtual environments keep, tests, minified code, binaries, files over 1 MiB. Links are not followed, so
that no circle is walked, and nothing outside is read: the crontab of the user and those in /etc count only if they lie
in the folder. Nothing is executed. The order is that of the names, and the same each time.

Scripts that a crontab, a timer or a workflow of the tree names are found by the end of their path: what is
`/opt/quotes/bin/sync.sh` there is `bin/sync.sh` here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import NotFound
from . import scanplain as plain
from . import scanpython, scanshell
from .finding import Finding, Found
from .python import is_python, parsed

MOST_FILES = 50_000
MOST_FINDINGS = 2_000
LARGEST = 2**20  # bytes of a file
_SKIPPED = {
    ".git", ".hg", ".svn", ".bzr", "node_modules", "bower_components", "__pycache__", ".tox", ".nox", ".mypy_cache",
    ".pytest_cache", ".ruff_cache", ".terraform", "site-packages", "dist-packages", "vendor", "third_party",
    "thirdparty", ".next", ".nuxt", ".cache", ".eggs", ".idea", ".vscode", "venv", ".venv",
}  # fmt: skip
_TESTS = re.compile(r"(^|/)(tests?|specs?|__tests__|testing|fixtures|testdata|e2e)/|(^|/)(test_[^/]*|conftest\.py)$|"
                    r"[._-](test|spec)s?\.\w+$")  # fmt: skip
_DULL = (".min.js", ".lock", ".map", ".svg", ".json", ".csv", ".md", ".html", ".css")
_SHELLS = re.compile(rb"#!.*\b(ba|da|k|a)?sh\b")


class Scan(NamedTuple):
    """What was found in so many files, and what was not looked at although it should have been, in words."""

    findings: list[Finding]
    files: int
    left_out: list[str]


@dataclass
class _Tree:
    """The files of a folder, by their paths in it, and who names them."""

    folder: str
    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    by_name: dict[str, list[str]] = field(default_factory=dict)
    named: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # script: who starts it, and where

    def find(self, word: str) -> str | None:
        """The file of the tree that a word of a command line means; None if none, or several."""
        parts = [part for part in word.split("/") if part not in ("", ".", "~")]
        if not parts:
            return None
        alike = self.by_name.get(parts[-1], [])
        for count in range(len(parts), 0, -1):
            end = "/".join(parts[-count:])
            fits = [path for path in alike if path == end or path.endswith("/" + end)]
            if fits:
                return fits[0] if len(fits) == 1 else next((path for path in fits if path == end), None)
        return None

    def name(self, words: list[str], starter: str, place: str) -> bool:
        """Note that these words are started by somebody; whether one of them is a file of the tree."""
        found = [path for word in words if (path := self.find(word)) and _kind(path, b"") is not None]
        for path in dict.fromkeys(found):
            if path != place.rpartition(":")[0]:
                self.named.setdefault(path, []).append((starter, place))
        return bool(found)


def scan(folder: str) -> Scan:
    """All findings below a folder, by file and line. NotFound if there is no such folder."""
    if not os.path.isdir(folder):
        kind = "is a file" if os.path.exists(folder) else "is not there"
        raise NotFound(f"{folder} {kind}, and --scan looks through a folder",
                       "name a folder; agentrun convert FILE is for one file")  # fmt: skip
    tree = _Tree(folder)
    _walk(tree)
    found: list[Finding] = []
    for path in tree.files:
        data = _read(tree, path)
        if data is not None:
            found += (each.at(path) for each in _look(tree, path, data))
    found += (finding for path in tree.named for finding in _started(path, tree.named[path]))
    found = sorted(dict.fromkeys(found), key=lambda each: (each.file, each.line, each.what))
    if len(found) > MOST_FINDINGS:
        tree.left_out.append(f"{len(found) - MOST_FINDINGS} findings: only the first {MOST_FINDINGS} are shown")
    return Scan(found[:MOST_FINDINGS], len(tree.files), tree.left_out)


def _walk(tree: _Tree) -> None:
    def broken(error: OSError) -> None:
        tree.left_out.append(f"{os.path.relpath(error.filename or tree.folder, tree.folder)}: {error.strerror}")

    for here, folders, files in os.walk(tree.folder, onerror=broken):
        folders[:] = sorted(each for each in folders if each not in _SKIPPED and not _is_venv(here, each))
        for name in sorted(files):
            path = os.path.normpath(os.path.relpath(os.path.join(here, name), tree.folder))
            tree.files.append(path)
            tree.by_name.setdefault(name, []).append(path)
            if len(tree.files) >= MOST_FILES:
                tree.left_out.append(f"all behind {path}: {MOST_FILES} files were looked at")
                return


def _is_venv(here: str, name: str) -> bool:
    return os.path.exists(os.path.join(here, name, "pyvenv.cfg"))


def _read(tree: _Tree, path: str) -> bytes | None:
    """The text of a file; None if it is none, or is not to be looked at."""
    if _TESTS.search(path) or path.endswith(_DULL):
        return None
    whole = os.path.join(tree.folder, path)
    try:
        about = os.lstat(whole)  # what a link leads to is looked at where it lies, if that is in the folder
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            return None
        with open(whole, "rb") as file:
            head = file.read(4096)
            return None if b"\0" in head or _kind(path, head) is None else head + file.read(LARGEST)
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        tree.left_out.append(f"{path}: {error.strerror}")
        return None


def _kind(path: str, head: bytes) -> str | None:
    """What is looked for in a file: by its name, else by how it begins."""
    name = os.path.basename(path)
    ending = os.path.splitext(name)[1].lower()
    if ending in plain.LANGUAGES:
        return ending
    if is_python(head, path):
        return "python"
    if ending in (".sh", ".bash", ".ksh") or _SHELLS.match(head):
        return "shell"
    if plain.named_crontab(path):
        return "crontab"
    if ending == ".timer":
        return "timer"
    if ending in (".yml", ".yaml"):
        return "workflow" if re.search(r"(^|/)\.github/workflows/[^/]+$", path) else "yaml"
    if name.startswith(("Dockerfile", "Containerfile")) or ending == ".dockerfile":
        return "dockerfile"
    return "text" if head and plain.may_be_crontab(path) else None


def _look(tree: _Tree, path: str, data: bytes) -> Iterator[Found]:
    kind = _kind(path, data[:4096])
    text = data.decode("utf-8", "replace")
    if kind == "python":
        parse = parsed(data)
        if not isinstance(parse, str):
            yield from _careful(scanpython.found_in(parse, text))
    elif kind == "shell":
        yield from scanshell.found_in(data)
    elif kind in ("crontab", "text"):
        entries = plain.entries(text, kind == "crontab")
        if entries:
            yield plain.crontab(entries)
        for entry in entries:
            tree.name(plain.scripts(entry.command), "cron", f"{path}:{entry.line}")
    elif kind == "workflow":
        for line, times, words in plain.workflow(text):
            tree.name(words, f"GitHub Actions ({times})", f"{path}:{line}")
    elif kind == "timer":
        yield from plain.unit(text)
    elif kind == "yaml":
        yield from plain.yaml(text, path)
    elif kind == "dockerfile":
        yield from plain.dockerfile(text)
    elif kind in plain.LANGUAGES and max(map(len, text.splitlines()), default=0) < 5000:
        yield from plain.code(text, plain.LANGUAGES[kind])


def _careful(found: Iterator[Found]) -> list[Found]:
    """Code that is nested beyond all reason is nobody's script."""
    try:
        return list(found)
    except RecursionError:
        return []


def _started(path: str, by: list[tuple[str, str]]) -> Iterator[Finding]:
    starter, place = by[0]
    more = f", and {len(by) - 1} more" if len(by) > 1 else ""
    python = path.endswith(".py")
    what = "agentrun convert: a job file, and the calls in it that deserve @step" if python else (
        "agentrun convert: a job file whose steps are its statements")  # fmt: skip
    if os.path.splitext(path)[1] in plain.LANGUAGES:
        what = "agentrun init: a job file that starts it"
    yield Finding(path, 1, f"started by {starter}, {place}{more}",
                  "cut off in the middle, it begins at its top again, and at the next time only", what)  # fmt: skip
