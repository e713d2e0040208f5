"""A notice as a mail: through the server that config.yaml names, else by the machine's sendmail."""

from __future__ import annotations

import getpass
import os
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final

from ..model import JSON
from ..spec.config import Smtp
from . import words
from .web import CONNECT, READ, Refused, secret

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_PLACES: Final = "/usr/sbin:/usr/lib:/usr/local/sbin"  # cron's PATH has none of them


def message(address: str, said: Mapping[str, JSON], notice_id: str, sender: str | None) -> EmailMessage:
    """The mail. Its Message-ID is the same at each try, and it asks for no automatic answer."""
    mail = EmailMessage()
    mail["Subject"] = words.headline(said)[:200]
    mail["From"] = sender or f"{_user()}@{said['host']}"
    mail["To"] = address
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = f"<{notice_id}.agentrun@{said['host']}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Agentrun-Event"] = said["event"]
    mail.set_content(words.letter(said))
    return mail


def send(mail: EmailMessage, smtp: Smtp | None) -> None:
    """Hand it over. Raises Refused."""
    if smtp is not None:
        _to_server(mail, smtp)
    else:
        _to_sendmail(mail)


def _to_sendmail(mail: EmailMessage) -> None:
    program = shutil.which("sendmail") or shutil.which("sendmail", path=_PLACES)
    if program is None:
        raise Refused("this machine has no sendmail: install one, or name a server under smtp in config.yaml")
    done = subprocess.run([program, "-t", "-i"], input=mail.as_bytes(), capture_output=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-200:]
        raise Refused(f"{program} ended with {done.returncode}{': ' if said else ''}{said}")


def _to_server(mail: EmailMessage, smtp: Smtp) -> None:
    port = smtp.port or _PORTS[smtp.tls]
    try:
        server = _connected(smtp, port)
        try:
            if smtp.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if smtp.user is not None and smtp.password_file is not None:
                server.login(smtp.user, secret(smtp.password_file).decode())
            server.send_message(mail)
        finally:
            with suppress(OSError):  # it has the mail or it has not, however it says goodbye
                server.quit()
    except (OSError, UnicodeDecodeError) as error:  # SMTPException is an OSError
        raise Refused(f"{smtp.host}:{port} did not take the mail: {_why(error)}") from error


def _connected(smtp: Smtp, port: int) -> smtplib.SMTP:
    if smtp.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, port, timeout=CONNECT, context=ssl.create_default_context())
    else:
        server = smtplib.SMTP(smtp.host, port, timeout=CONNECT)
    if server.sock is not None:
        server.sock.settimeout(READ)
    return server


def _why(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {said}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{code} {said.decode('utf-8', 'replace')}" for code, said in error.recipients.values())
    return str(error) or type(error).__name__


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"uid{os.getuid()}"
