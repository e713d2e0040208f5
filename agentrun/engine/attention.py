"""What a supervisor listens to while it waits: its shim, the bell that wishes are rung with, and signals.

One selector. A signal handler only notes its number; the wake-up descriptor ends the wait. Of signals, SIGTERM
and SIGINT are noted for the loop to act on, and SIGHUP is ignored: a closed terminal stops nothing.

Whoever uses this blocks STOPS before the shim knows the run, and lets them through after the run is let go:
between the two, only the loop may hear them. A supervisor that died of one would be replaced by the shim, and
the run that was to stop would go on.
"""

from __future__ import annotations

import os
import selectors
import signal
from typing import Any

from .. import effects
from ..step.link import Link, ShimGone
from ..store.folders import RunFolder

_LONGEST_WAIT = 86_400_000  # ms; epoll takes 24 days at most, and to look once a day costs nothing
STOPS = (signal.SIGTERM, signal.SIGINT)


class Attention:
    """Used with `with`, as long as the run is advanced; `bell` is the path of the run's FIFO."""

    def __init__(self, bell: str) -> None:
        self._path = bell
        self._bell = self._woken = self._waker = -1
        self._selector = selectors.DefaultSelector()
        self._signals: list[signal.Signals] = []
        self._before: dict[int, Any] = {}
        self._old_waker = -1

    def __enter__(self) -> Attention:
        try:
            effects.mkfifo(self._path, 0o600)
        except FileExistsError:
            pass
        self._bell = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in STOPS:
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._old_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        for fd in (self._bell, self._woken):
            self._selector.register(fd, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        signal.set_wakeup_fd(self._old_waker)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._selector.close()
        for fd in (self._bell, self._woken, self._waker):
            os.close(fd)
        try:
            effects.unlink(self._path)
        except FileNotFoundError:
            pass

    def _note(self, number: int, _frame: object) -> None:
        self._signals.append(signal.Signals(number))

    def signals(self) -> list[signal.Signals]:
        """Those that came since the last call, in order."""
        arrived, self._signals = self._signals, []
        return arrived

    def wait(self, link: Link, timeout: int | None) -> bool:
        """Until something happens or `timeout` ms have passed; what the link could not send yet is sent on.

        True if the bell was rung.
        """
        if self._signals:
            return False
        self._watch(link)
        rung = False
        longest = _LONGEST_WAIT if timeout is None else min(timeout, _LONGEST_WAIT)
        for key, events in self._selector.select(longest / 1000):
            if key.data is link:
                if events & selectors.EVENT_WRITE:
                    try:
                        link.flush()
                    except ShimGone:
                        pass  # reading says so again
            else:
                _drain(key.fd)
                rung |= key.fd == self._bell
        return rung

    def _watch(self, link: Link) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.pending else 0)
        known = self._selector.get_map().get(link.fileno())
        if known is None:
            self._selector.register(link.fileno(), events, link)
        elif known.events != events:
            self._selector.modify(link.fileno(), events, link)

    def forget(self, link: Link) -> None:
        """Hang up a link whose shim is gone."""
        try:
            self._selector.unregister(link.fileno())
        except (KeyError, ValueError):
            pass
        link.close()


def _drain(fd: int) -> None:
    try:
        while len(os.read(fd, 4096)) == 4096:
            pass
    except BlockingIOError:
        pass


def ring(folder: RunFolder) -> None:
    """Wake the owner of a run, if there is one, to look for wishes."""
    try:
        fd = os.open(folder.bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # nobody listens; whoever owns it next looks first
    try:
        effects.write(fd, b"!")
    except BlockingIOError:
        pass  # it has been rung already
    finally:
        os.close(fd)
