"""One mail over one connection, which may be cut from outside: smtplib's own time limit is that of each read."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterable
from email.message import EmailMessage
from typing import NamedTuple

from processors.control.check import is_private
from schemas.limits import ALERT_SEND_SECONDS

TAKEN = 250
#: A recipient that the server was not asked about: it closed the connection before.
UNASKED = 421


class MailTarget(NamedTuple):
    """What smtp[s]://user:password@host:port?from=…&to=…&to=… says."""

    host: str
    port: int
    #: TLS from the first byte; else STARTTLS, which only a private host may lack.
    implicit_tls: bool
    user: str
    password: str
    sender: str
    recipients: tuple[str, ...]


class Line:
    """The connection of one mail: opened in one thread, cut by another."""

    def __init__(self) -> None:
        """Not connected yet."""
        self._lock = threading.Lock()
        self._is_cut = False
        self._held: socket.socket | None = None

    def open(self, host: str, port: int) -> socket.socket:
        """Connect; raises OSError, also when it was cut before it stood."""
        made = socket.create_connection((host, port), ALERT_SEND_SECONDS)
        with self._lock:
            if self._is_cut:
                made.close()
                raise ConnectionAbortedError("cut before it stood")
            # A handle of its own on the connection: TLS takes the other one over.
            self._held = made.dup()
        return made

    def cut(self) -> None:
        """End the connection, now or as soon as it stands; whoever waits on it goes on at once."""
        with self._lock:
            self._is_cut = True
            held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()


class _Client(smtplib.SMTP):
    def __init__(self, line: Line, target: MailTarget, context: ssl.SSLContext) -> None:
        self._line, self._first_context = line, context if target.implicit_tls else None
        super().__init__(target.host, target.port, timeout=ALERT_SEND_SECONDS)

    def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:
        """Where smtplib has its own subclass for TLS connect."""
        made = self._line.open(host, port)
        return made if self._first_context is None else self._first_context.wrap_socket(made, server_hostname=host)


def send_mail(line: Line, target: MailTarget, message: EmailMessage, recipients: Iterable[str]) -> dict[str, int]:
    """Hand a mail over; what the server said of each recipient, TAKEN where it took it. Raises as smtplib does."""
    context = ssl.create_default_context()
    client = _Client(line, target, context)
    try:
        client.ehlo()
        if not target.implicit_tls and (client.has_extn("starttls") or not is_private(target.host)):
            client.starttls(context=context)
            client.ehlo()
        if target.user:
            client.login(target.user, target.password)
        return _hand_over(client, target, message, tuple(recipients))
    finally:
        _leave(client)


def _hand_over(
    client: smtplib.SMTP, target: MailTarget, message: EmailMessage, recipients: tuple[str, ...]
) -> dict[str, int]:
    otherwise = TAKEN
    try:
        refused = client.send_message(message, target.sender, recipients)
    except smtplib.SMTPRecipientsRefused as error:
        refused, otherwise = error.recipients, UNASKED
    return {name: refused[name][0] if name in refused else otherwise for name in recipients}


def _leave(client: smtplib.SMTP) -> None:
    """Say QUIT and go: the mail is taken or not by now, and no answer to this, nor its absence, changes that."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        client.putcmd("QUIT")
    client.close()
