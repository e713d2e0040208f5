"""What two runs left is compared by what it holds; whatever a script did differently is seen."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .left import Left, differences, tree


def _tar(content: bytes, at: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("it")
        member.size, member.mtime = len(content), at
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    "archive", [_tar, lambda content, at: gzip.compress(_tar(content, at), mtime=at)], ids=["tar", "tar.gz"]
)
def test_an_archive_is_what_is_in_it(tmp_path: Path, archive: Callable[[bytes, int], bytes]) -> None:
    for name, content, at in (("a", b"same", 1), ("b", b"same", 2), ("c", b"other", 1)):
        (tmp_path / name).write_bytes(archive(content, at))
    files = dict(tree(tmp_path))
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_what_looks_like_an_archive_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x1f\x8bno")
    (tmp_path / "b").write_bytes(b"\x1f\x8bon")
    files = dict(tree(tmp_path))
    assert files["a"] != files["b"]


def test_a_pid_is_a_pid_and_other_numbers_are_not(tmp_path: Path) -> None:
    for name, content in (("a.20001", "20001"), ("b", "20002"), ("c", "120001"), ("d", "120002")):
        (tmp_path / name).write_text(content)
    files = dict(tree(tmp_path))
    assert files["a.<pid>"] == files["b"]
    assert files["c"] != files["d"]


def test_modes_links_and_folders_count(tmp_path: Path) -> None:
    for name in "one", "two":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").touch(0o600)
        (folder / "link").symlink_to("file")
    assert dict(tree(tmp_path / "one")) == dict(tree(tmp_path / "two"))
    (tmp_path / "two/file").chmod(0o640)
    assert dict(tree(tmp_path / "one")) != dict(tree(tmp_path / "two"))


_BASE = Left(0, b"said\n", b"/root$ a\n/root$ b\n", b"", {"etc": "d"})


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        (_BASE, []),
        (_BASE._replace(status=1), ["status"]),
        (_BASE._replace(status=None), ["status"]),
        (_BASE._replace(output=b"said"), ["output"]),
        (_BASE._replace(calls=b"/root$ b\n/root$ a\n"), ["order of calls"]),
        (_BASE._replace(calls=b"/root$ a\n"), ["calls"]),
        (_BASE._replace(environments=b"PATH=/bin\n"), ["environments"]),
        (_BASE._replace(files={"etc": "d", "tmp/left": "-"}), ["files"]),
    ],
)
def test_each_part_is_compared(second: Left, parts: list[str]) -> None:
    assert list(differences(_BASE, second)) == parts
