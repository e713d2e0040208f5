"""Starts the process of one order: its pipe, its folder, its program. No state but what all orders share.

The process is a session of its own, with default signals (those too that were ignored when we were started), an
empty mask, /dev/null as stdin and its FIFO as stdout and stderr. posix_spawn(3) makes it: vfork under the
hood, so its cost does not grow with ours, and an exec that fails is an error here and not a mute child. It knows
no working folder, umask or limits, so those are ours for the moment of the call.

A program is looked up in the PATH of the order, not in ours. One that cannot be executed is tried by the
order's `shell` instead, if it has one: then the shell finds the words, and its message is in the log.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import errno
import os
import resource

from .. import effects
from ..store.folders import RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .handing import Handing
    from .meter import Meter
    from .places import Place

    Actions = list[tuple[int, ...]]  # of posix_spawn

_SIGNALS = [number for number in _signal.valid_signals() if number not in (_signal.SIGKILL, _signal.SIGSTOP)]
_NOT_EXECUTABLE = {errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}
_DUP2 = os.POSIX_SPAWN_DUP2
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class SpawnFailed(Exception):
    """A process that could not be started: `message` says what and where, `code` is what a shell would exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Launcher:
    """What all processes of a run are started with."""

    __slots__ = ("_env", "_folder", "_limits", "_null", "_raised", "_umask")

    def __init__(self, folder: RunFolder, env: dict[str, str], umask: int) -> None:
        self._folder = folder
        self._env = env
        self._umask = umask
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        # Three descriptors for each attempt: 500 at once need more than the usual 1,024. The steps get what we got.
        soft, hard = self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._raised = soft != hard
        if self._raised:
            self._set_limit(hard, hard)

    def _set_limit(self, soft: int, hard: int) -> None:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):
            self._raised = False

    def launch(
        self, order: dict[str, Any], place: Place, meter: Meter | None = None, handing: Handing | None = None
    ) -> tuple[int, int]:
        """Start it there; the pid and the reading end of its pipe. SpawnFailed leaves nothing behind.

        With a meter it is born where that wants it, and held to its limits only after `meter.begun`. With `handing`
        it is given the descriptors of the shell before it.
        """
        try:
            reader, writer = _open_pipe(place.fifo)
        except OSError as error:
            raise SpawnFailed(f"cannot open {place.fifo}: {error.strerror}", 126)
        try:
            env = self._environment(order, place.tmp)
            if handing is None:
                actions: Actions = [(_DUP2, self._null, 0), (_DUP2, writer, 1), (_DUP2, writer, 2)]
            else:
                actions = handing.actions(order, env, writer, self._null)
            pid = self._start(order, env, actions, meter)
        except SpawnFailed:
            os.close(reader)
            raise
        except (OSError, ValueError, TypeError) as error:
            os.close(reader)
            raise SpawnFailed(f"cannot start {order['argv'][0]!r}: {error}", 126)
        finally:
            os.close(writer)
            os.chdir("/")  # a later step may want to unmount that folder
        return pid, reader

    def _environment(self, order: dict[str, Any], tmp: str) -> dict[str, str]:
        given: dict[str, str | None] = order.get("env") or {}
        bare = bool(order.get("bare"))  # its shell restores what there was: a variable that was unset stays so
        env = {**({} if bare else self._env), **{name: value for name, value in given.items() if value is not None}}
        for name, value in given.items():
            if value is None:
                env.pop(name, None)
        if "known_as" not in order:
            env["TMPDIR"] = tmp  # what a script makes there is for the rest of it
        # the tag by which the process is found when the shim is gone
        env["AGENTRUN_RUN_ID"] = self._folder.run_id
        env["AGENTRUN_STEP"] = order["instance"]
        env.setdefault("AGENTRUN_ATTEMPT", str(order["attempt"]))
        return env

    def _start(self, order: dict[str, Any], env: dict[str, str], actions: Actions, meter: Meter | None) -> int:
        cwd = order.get("cwd") or "/"
        try:
            os.chdir(cwd)
        except OSError as error:
            raise SpawnFailed(f"cannot enter the working folder {cwd}: {error.strerror}", 126)
        argv = order["argv"]
        try:
            return self._spawn(argv, env, actions, meter)
        except OSError as error:
            shell = order.get("shell")
            if not shell or error.errno not in _NOT_EXECUTABLE:
                raise _refused(argv[0], env, cwd, error)
        try:
            return self._spawn(shell, env, actions, meter)
        except OSError as error:
            raise _refused(shell[0], env, cwd, error)

    def _spawn(self, argv: list[str], env: dict[str, str], actions: Actions, meter: Meter | None) -> int:
        program = _find(argv[0], env.get("PATH", _DEFAULT_PATH))
        if meter and meter.unit:
            _check_executable(program)  # a wrapped one that cannot be executed fails where we do not see it
            argv = meter.wrap([program, *argv[1:]])
            program = _find(argv[0], os.environ.get("PATH", _DEFAULT_PATH))
        ours = os.umask(self._umask)
        if self._raised:
            self._set_limit(*self._limits)
        if meter:
            meter.enter()
        try:
            return effects.posix_spawn(
                program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_SIGNALS
            )
        finally:
            if meter:
                meter.leave()
            if self._raised:
                self._set_limit(self._limits[1], self._limits[1])
            os.umask(ours)

    def close(self) -> None:
        os.close(self._null)


def start_beside(argv: list[str], env: dict[str, str], folder: str, streams: Sequence[int], umask: int) -> int:
    """Start a program that belongs to a step, with these as stdin, stdout and stderr. Raises OSError."""
    os.chdir(folder)
    program = _find(argv[0], env.get("PATH", _DEFAULT_PATH))
    actions = [(_DUP2, fd, number) for number, fd in enumerate(streams)]
    ours = os.umask(umask)
    try:
        return effects.posix_spawn(
            program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_SIGNALS
        )
    finally:
        os.umask(ours)


def start_supervisor(argv: list[str], umask: int, home: int) -> int:
    """Start a new supervisor with the environment, folder and descriptors that the first one gave us."""
    ours = os.umask(umask)
    try:
        os.fchdir(home)
        program = _find(argv[0], os.environ.get("PATH", _DEFAULT_PATH))
        return effects.posix_spawn(program, argv, os.environ, setsid=True, setsigmask=(), setsigdef=_SIGNALS)
    finally:
        os.umask(ours)


def remove(place: Place) -> int:
    """Remove a place that cannot be used again. The pid of a process that does it, if it may take long; else 0."""
    try:
        effects.unlink(place.fifo)
    except OSError:
        pass
    try:
        effects.rmdir(place.tmp)
    except FileNotFoundError:
        pass
    except OSError:
        return _start_removal(place.tmp)
    return 0


def _start_removal(path: str) -> int:
    """0 if that failed."""
    env = {"PATH": _DEFAULT_PATH}
    try:
        program = _find("rm", _DEFAULT_PATH)
        argv = ["rm", "-rf", "--", path]
        return effects.posix_spawn(program, argv, env, setsid=True, setsigmask=(), setsigdef=_SIGNALS)
    except OSError:
        return 0


def _open_pipe(path: str) -> tuple[int, int]:
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return reader, os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # does not wait: the reader is there
    except OSError:
        os.close(reader)
        raise


def _find(name: str, path: str) -> str:
    """Where execvp(3) would find the program. OSError with its errno if it would not."""
    if "/" in name:
        return name
    found = errno.ENOENT
    for folder in path.split(":") if name else ():
        candidate = os.path.join(folder, name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if found == errno.ENOENT and os.path.isfile(candidate):
            found = errno.EACCES
    raise OSError(found, os.strerror(found))


def _check_executable(program: str) -> None:
    """OSError with the errno that execve(2) would give."""
    try:
        with open(program, "rb", buffering=0) as file:
            start = file.read(4)
    except PermissionError:
        return  # may be executed, not read
    if not start.startswith(b"#!") and start != b"\x7fELF":
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))


def _refused(name: str, env: dict[str, str], cwd: str, error: OSError) -> SpawnFailed:
    missing = error.errno == errno.ENOENT
    where = f" in PATH={env.get('PATH', _DEFAULT_PATH)}" if "/" not in name else ""
    why = error.strerror
    if missing and not where:
        there = os.path.exists(os.path.join(cwd, name))
        why = "the interpreter that its first line names is not there" if there else "there is no such program"
    elif missing:
        why = "there is no such program"
    return SpawnFailed(f"cannot start {name}{where}: {why}", 127 if missing else 126)
