"""How a forked child becomes a process of its own: signals, descriptors, and the orphans of its children."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: see protocol.py
import os

IGNORED = (
    _signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGPIPE, _signal.SIGUSR1,
    _signal.SIGUSR2, _signal.SIGALRM, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU,
)
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """prctl(2) has no other door from Python; `ctypes` itself is ten times as large as the C module it wraps."""
    try:
        import _ctypes

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
        failed = _ctypes.call_function(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    except (ImportError, AttributeError, TypeError):
        import ctypes

        failed = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if failed:
        raise OSError("cannot become the subreaper of the steps")


def tidy_descriptors(keep: int) -> list[int]:
    """Close what the supervisor opened; keep what it was given (a lock of `flock` is held), but from the steps.

    Gives what was kept.
    """
    kept: list[int] = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number: this one
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd <= 2:
            os.set_inheritable(fd, True)
        elif fd != keep:
            try:
                if os.get_inheritable(fd):
                    os.set_inheritable(fd, False)
                    kept.append(fd)
                else:
                    os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself
    return kept


def catch_signals() -> int:
    """Handlers and not SIG_IGN, which children would inherit. The descriptor that becomes readable at each."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (_signal.SIGCHLD, *IGNORED):
        _signal.signal(number, _nothing)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    return reader


def _nothing(number: int, frame: object) -> None:
    pass


def let_go(kept: list[int]) -> None:
    """A mere drain must not keep a terminal, cron's mail, somebody's lock or a mounted disk waiting."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for fd in (null, *kept):
        os.close(fd)
    os.chdir("/")
