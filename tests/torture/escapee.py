"""What the steps of `escapees` leave behind: one process that gets away from its step, in one of several ways.

    python -I -S escapee.py KIND FILE MARKER

It appends its kind and pid to FILE when it is where it wants to be, and stays. MARKER only stands in its command line,
where it can be found when its environment is gone. Nothing here lives for longer than LONGEST seconds.
"""

import os
import signal
import sys
import time

LONGEST = 120
KIND, FILE, MARKER = sys.argv[1:4]


def told() -> None:
    """Here I am."""
    fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{KIND} {os.getpid()}\n".encode())
    os.close(fd)


def stay() -> None:
    told()
    signal.alarm(LONGEST)
    while True:
        signal.pause()


def leave_parent() -> None:
    if os.fork():
        os._exit(0)


def move_on() -> None:
    """Another process at every instant."""
    told()
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        leave_parent()
        os.setsid()


def be_daemon() -> None:
    """No parent, no session, no output, no environment."""
    leave_parent()
    os.setsid()
    leave_parent()
    os.closerange(0, 256)
    os.open("/dev/null", os.O_RDWR)
    os.dup(0)
    os.dup(0)
    os.chdir("/")
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "bare", FILE, MARKER], {})


if KIND == "gone":  # one that has come and gone
    leave_parent()
    os.setsid()
    told()
elif KIND == "deaf":
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stay()
elif KIND == "setsid":
    os.setsid()
    stay()
elif KIND == "fork":
    leave_parent()
    os.setsid()
    leave_parent()
    stay()
elif KIND == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (1, 2):
        os.dup2(os.open("/dev/null", os.O_WRONLY), number)
    leave_parent()
    stay()
elif KIND == "daemon":
    be_daemon()
elif KIND == "moving":
    move_on()
else:  # plain, decoy, bare
    stay()
