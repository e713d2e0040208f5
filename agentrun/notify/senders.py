"""How a notice reaches each kind of target, in a process of its own.

`Senders` starts one process for each notice, so that nothing that hangs (a name server, a server that sends a byte a
minute, a command) holds up anything else: after 30 seconds it is ended, with all that it started. The process has
only the pipe by which it says what came of it: no descriptor of the record, and no lock.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from ..errors import JobFileError
from ..model import JSON, Target
from ..spec import config
from . import mail, web, words
from .web import Refused

T = TypeVar("T")

LIMIT: Final = 30.0  # seconds that a notice may take
_MOST: Final = 300   # characters of a reason


@dataclass(frozen=True)
class Letter:
    """A notice for one target. `folder`: where relative paths begin, and commands are started."""

    target: Target
    said: Mapping[str, JSON]
    notice_id: str
    folder: str


def send(letter: Letter) -> None:
    """Send it, in this process. Raises Refused, OSError, and whatever apprise does."""
    _KINDS[letter.target.kind](letter)


def _command(letter: Letter) -> None:
    words_, said = list(letter.target.address), letter.said
    environment = os.environ | {
        "AGENTRUN_EVENT": said["event"], "AGENTRUN_JOB": said["job"], "AGENTRUN_RUN_ID": said["run"] or "",
        "AGENTRUN_NOTICE_ID": letter.notice_id,
    }  # fmt: skip
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                words_, input=_body(letter), stdout=output, stderr=output, cwd=letter.folder, env=environment,
                check=False,
            )  # fmt: skip
        except OSError as error:
            where = f" in {letter.folder}" if error.filename == letter.folder or "/" not in words_[0][:1] else ""
            raise Refused(f"{words_[0]} cannot be started{where}: {error.strerror}") from error
        if done.returncode:
            output.seek(max(output.tell() - _MOST, 0))
            told = " ".join(output.read().decode("utf-8", "replace").split())
            ended = f"signal {-done.returncode} ended it" if done.returncode < 0 else f"it ended with {done.returncode}"
            raise Refused(f"{words_[0]}: {ended}{': ' if told else ''}{told}")


def _webhook(letter: Letter) -> None:
    body, target = _body(letter), letter.target
    headers = {
        "Content-Type": "application/json", "X-Agentrun-Id": letter.notice_id,
        "X-Agentrun-Event": letter.said["event"],
    }  # fmt: skip
    if target.key_file is not None:
        key = web.secret(os.path.join(letter.folder, os.path.expanduser(target.key_file)))
        headers |= web.signed(body, key, int(time.time()))
    web.post(str(target.address), body, headers)


def _ping(letter: Letter) -> None:
    said = letter.said
    url = web.ping_url(str(letter.target.address), said["event"], said["run"], said["exit_code"])
    web.post(url, words.letter(said).encode(), {"Content-Type": "text/plain; charset=utf-8"})


def _mail(letter: Letter) -> None:
    try:
        smtp = config.load().smtp
    except JobFileError as error:  # it may name the server
        first = error.problems[0]
        raise Refused(f"{first.path}:{first.line}: {first.message}") from error
    sender = smtp.sender if smtp else None
    mail.send(mail.message(str(letter.target.address), letter.said, letter.notice_id, sender), smtp)


def _apprise(letter: Letter) -> None:
    try:
        import apprise  # type: ignore[import-not-found]
    except ImportError:
        hint = "pip install '.[notify]' in the checkout of agentrun"
        raise Refused(f"the library apprise is missing: it is the extra agentrun[notify]: {hint}") from None
    kind = {"failure": "failure", "recovery": "success", "success": "success"}.get(letter.said["event"], "warning")
    server = apprise.Apprise()
    if not server.add(letter.target.address):
        raise Refused(f"apprise does not take this URL of {str(letter.target.address).partition(':')[0]}://")
    if not server.notify(title=words.headline(letter.said), body=words.letter(letter.said), notify_type=kind):
        raise Refused("apprise could not send it, and says no more")


_KINDS: Final[Mapping[str, Callable[[Letter], None]]] = {
    "command": _command, "webhook": _webhook, "ping": _ping, "mail": _mail, "apprise": _apprise,
}  # fmt: skip


def _body(letter: Letter) -> bytes:
    return json.dumps({"id": letter.notice_id, **letter.said}, ensure_ascii=False).encode("utf-8", "replace")


@dataclass(frozen=True)
class _Running(Generic[T]):
    token: T
    pid: int
    pipe: int
    until: float


class Senders(Generic[T]):
    """Notices on their way; each is known by a token of the caller's."""

    def __init__(self, most: int, limit: float = LIMIT) -> None:
        self._most, self._limit = most, limit
        self._running: dict[int, _Running[T]] = {}
        self._said: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()

    @property
    def free(self) -> int:
        """How many more may be started."""
        return self._most - len(self._running)

    @property
    def tokens(self) -> list[T]:
        """What is on its way."""
        return [one.token for one in self._running.values()]

    def start(self, token: T, letter: Letter) -> None:
        """Begin to send it."""
        mine, its = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_sender(letter, its, self._limit)
        os.close(its)
        self._running[mine] = _Running(token, pid, mine, time.monotonic() + self._limit)
        self._said[mine] = b""
        self._selector.register(mine, selectors.EVENT_READ)

    def wait(self, seconds: float) -> Iterator[tuple[T, str | None]]:
        """What has come of those that have ended, after at most so long: None where it was sent, else why not."""
        nearest = min((one.until for one in self._running.values()), default=0.0)
        for key, _ in self._selector.select(max(min(seconds, nearest - time.monotonic()), 0)):
            block = os.read(key.fd, 65_536)
            self._said[key.fd] += block
            if not block:
                yield self._ended(self._running[key.fd])
        for one in [one for one in self._running.values() if one.until <= time.monotonic()]:
            yield self._ended(one, f"no answer within {self._limit:g} seconds")

    def _ended(self, one: _Running[T], late: str | None = None) -> tuple[T, str | None]:
        if late is not None:
            for end in (os.killpg, os.kill):  # it leads a group as soon as it has run a line
                with suppress(ProcessLookupError):
                    end(one.pid, signal.SIGKILL)
        _, status = os.waitpid(one.pid, 0)
        self._selector.unregister(one.pipe)
        os.close(one.pipe)
        del self._running[one.pipe]
        said = self._said.pop(one.pipe).decode("utf-8", "replace")
        if late is None and os.waitstatus_to_exitcode(status) == 0:
            return one.token, None
        return one.token, late or said or f"its sender was ended by signal {os.WTERMSIG(status)}"


def _be_sender(letter: Letter, pipe: int, limit: float) -> NoReturn:
    """The forked child. It ends itself, with what it started, where nobody is left who would."""
    status = 1
    try:
        os.setsid()
        os.closerange(3, pipe)
        os.closerange(pipe + 1, 1 << 20)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, limit + 5)
        send(letter)
        status = 0
    except BaseException as error:
        said = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        os.write(pipe, " ".join(said.split())[: 2 * _MOST].encode("utf-8", "replace"))
    finally:
        os._exit(status)
