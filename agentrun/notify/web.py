"""Requests of webhooks and pings: one POST, 10 seconds to connect, any status from 200 to 299 is success.

A redirect is followed, with the same body, to the same host only, and never from https to http: what is signed for
one receiver, or carries a secret in its path, goes to no other. Whoever calls ends the process after 30 seconds.

A webhook with a key is signed: `X-Agentrun-Signature` is `sha256=` and the HMAC, in hex, of the timestamp, a point and
the body. The receiver refuses what is too old by `X-Agentrun-Timestamp`; `X-Agentrun-Id` is the same at each try.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any, Final

from .. import __version__

CONNECT: Final = 10.0  # seconds
READ: Final = 30.0
_MOST: Final = 200  # characters of an answer that are kept with an error


class Refused(Exception):
    """It could not be sent; the words say why."""


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send it. Raises Refused."""
    known = {"User-Agent": f"agentrun/{__version__}", **headers}
    request = urllib.request.Request(url, data=body, headers=known, method="POST")
    opener = urllib.request.build_opener(_Plain, _Secure, _SameHost)
    try:
        with opener.open(request, timeout=CONNECT) as answer:
            status, reason, text = answer.status, answer.reason, answer.read(_MOST)
    except urllib.error.HTTPError as error:
        status, reason, text = error.code, error.reason, error.read(_MOST)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        why = getattr(error, "reason", None) or error
        raise Refused(f"{host_of(url)} cannot be reached: {why or type(error).__name__}") from error
    if not 200 <= status <= 299:
        said = " ".join(text.decode("utf-8", "replace").split())
        raise Refused(f"{host_of(url)} answered {status} {reason}{': ' if said else ''}{said}")


def host_of(url: str) -> str:
    """Whom a URL names, without its path, which may be a secret."""
    return urllib.parse.urlsplit(url).netloc


def signed(body: bytes, key: bytes, timestamp: int) -> dict[str, str]:
    """The headers of a signed body."""
    stamp = str(timestamp)
    digest = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"X-Agentrun-Timestamp": stamp, "X-Agentrun-Signature": f"sha256={digest}"}


def secret(path: str) -> bytes:
    """The content of a file that only its owner can read, without the newline at its end. Raises Refused."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise Refused(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
            key = file.read(65_536).rstrip(b"\r\n")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    if not key:
        raise Refused(f"{path} is empty: nothing can be signed with it")
    return key


def ping_url(url: str, event: str, run: str | None, exit_code: int | None) -> str:
    """Where a monitor of the kind of healthchecks.io is told of an event: its start, success, status or failure."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/")
    if event == "start":
        path += "/start"
    elif event != "success":
        path += f"/{exit_code}" if exit_code is not None and 1 <= exit_code <= 255 else "/fail"
    query = "&".join(part for part in (parts.query, f"rid={run_uuid(run)}" if run else "") if part)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def run_uuid(run: str) -> uuid.UUID:
    """What pairs the start of a run with its end: a monitor takes only UUIDs."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"agentrun:run:{run}")


class _Connect(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ)


class _ConnectSecurely(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ)


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connect, request)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_ConnectSecurely, request)


class _SameHost(urllib.request.HTTPRedirectHandler):
    max_redirections = max_repeats = 3

    def redirect_request(
        self, request: urllib.request.Request, answer: Any, code: int, message: str, headers: Any, new: str
    ) -> urllib.request.Request:
        before, after = urllib.parse.urlsplit(request.full_url), urllib.parse.urlsplit(new)
        if after.hostname != before.hostname or (before.scheme, after.scheme) == ("https", "http"):
            raise urllib.error.URLError(f"it answered {code}, a redirect to {after.scheme}://{after.netloc}")
        return urllib.request.Request(new, data=request.data, headers=dict(request.header_items()), method="POST")
