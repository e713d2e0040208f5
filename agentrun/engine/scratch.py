"""What a new run that takes steps over (`--from`) gets of the old one's $AGENTRUN_RUN_DIR: a copy of its files.

FIFOs, sockets and devices are left behind: they belong to processes that are gone, and reading one may never end.
"""

from __future__ import annotations

import os
import stat

from .. import effects
from ..errors import CannotWrite
from ..store.folders import RunFolder


def copy(parent: RunFolder, child: RunFolder) -> None:
    """Fill the child's scratch folder. Raises CannotWrite, which names the first file that could not be copied."""
    if not os.path.isdir(parent.scratch):
        return
    import shutil

    try:
        effects.copy_tree(parent.scratch, child.scratch, symlinks=True, dirs_exist_ok=True, ignore=_special)
    except shutil.Error as failures:
        path, _, why = failures.args[0][0]
        raise _cannot(parent, path, why) from failures
    except OSError as error:
        raise _cannot(parent, error.filename or parent.scratch, error.strerror or str(error)) from error


def _cannot(parent: RunFolder, path: str, why: str) -> CannotWrite:
    return CannotWrite(
        f"cannot copy {path}, which run {parent.run_id} keeps for its steps: {why}",
        "the new run was not created; free space or repair the file, and try again",
    )


def _special(folder: str, names: list[str]) -> list[str]:
    kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    left = []
    for name in names:
        mode = os.lstat(os.path.join(folder, name)).st_mode
        if not any(is_kind(mode) for is_kind in kinds):
            left.append(name)
    return left
