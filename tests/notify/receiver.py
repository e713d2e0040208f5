"""Those who are told, as real servers of this process: HTTP with answers of the test's choice, and SMTP.

`Post` is the real command with runs as a user starts them, whose deliverers are waited for at their lock.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from agentrun.store import locks

from ..kill.arena import LIMIT
from ..runs.place import Place


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


class Receiver:
    """An HTTP server: `answers` by path, (status, headers); of a path in `hanging` nobody is answered."""

    def __init__(self) -> None:
        self.requests: queue.Queue[Request] = queue.Queue()
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.hanging: set[str] = set()
        self.let_go = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.put(Request(self.path, dict(self.headers), body))
                path = self.path.partition("?")[0]
                if path in receiver.hanging:
                    receiver.let_go.wait(LIMIT * 4)
                    return
                status, headers = receiver.answers.get(path, (200, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"no thanks" if status >= 400 else b"OK")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self._server.server_address[1]}{path}"

    def next(self) -> Request:
        return self.requests.get(timeout=LIMIT)

    def all(self) -> list[Request]:
        """What has come so far."""
        found = []
        while not self.requests.empty():
            found.append(self.requests.get())
        return found

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class MailServer:
    """As much of SMTP as a client needs. `mails`: (commands, text)."""

    def __init__(self, refuse: bytes | None = None) -> None:
        self.mails: queue.Queue[tuple[list[str], str]] = queue.Queue()
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                commands: list[str] = []
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    commands.append(line.decode().strip())
                    verb = commands[-1][:4].upper()
                    if verb == "DATA":
                        self.wfile.write(b"354 go on\r\n")
                        text = b""
                        for part in self.rfile:
                            if part == b".\r\n":
                                break
                            text += part
                        server.mails.put((commands, text.decode()))
                    self.wfile.write(refuse if refuse and verb == "RCPT" else b"250 ok\r\n")
                    if verb == "QUIT":
                        return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Post(Place):
    """Runs with somebody to tell."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.env |= {"HOME": str(root), "XDG_CONFIG_HOME": str(root / "config")}

    def config(self, text: str) -> Path:
        return self.file("config/agentrun/config.yaml", text)

    def told(self, to: str, steps: str = "- run: exit 3\n", name: str = "job", **more: str) -> Any:
        """A run of a job that tells `to`, and its deliverer at its end."""
        extra = "".join(f", {key}: {value}" for key, value in more.items())
        ran = self.call("run", str(self.job(name, f"notify: {{to: [{to}]{extra}}}\nsteps:\n{steps}")))
        self.delivered()
        return ran

    def delivered(self) -> None:
        """Wait until all that is due has been tried."""
        open_ = "SELECT count(*) FROM notices WHERE state = 'raised' OR (state = 'queued' AND error IS NULL)"
        while self.rows(open_)[0][0]:
            self.call("deliver")
            with self.lock(locks.SHIM), self.lock(locks.LEASE):  # bytes 1 and 0: who waits, who sends
                pass

    @contextmanager
    def lock(self, byte: int) -> Iterator[None]:
        fd = os.open(self.home / "deliver.lock", os.O_RDWR | os.O_CREAT, 0o600)
        before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("the deliverer hangs")))
        signal.alarm(int(LIMIT * 2))
        try:
            locks.lock(fd, byte)
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            os.close(fd)

    def notices(self) -> list[tuple[Any, ...]]:
        """(event, state, kind, tries, error) of all, in their order."""
        return self.rows(
            "SELECT event, state, json_extract(target, '$.kind'), tries, error FROM notices ORDER BY seq"
        )

    def due_now(self) -> None:
        """Let the pauses between tries be over."""
        connection = sqlite3.connect(self.home / "agentrun.db")
        with connection:
            connection.execute("UPDATE notices SET due = 0, error = NULL WHERE state = 'queued'")
        connection.close()


def is_locked(path: Path) -> bool:
    """Whether somebody holds an OFD lock on byte 0."""
    fd = os.open(path, os.O_RDWR)
    try:
        return not locks.try_lock(fd, locks.LEASE)
    finally:
        os.close(fd)


__all__ = ["LIMIT", "MailServer", "Post", "Receiver", "Request", "is_locked"]
