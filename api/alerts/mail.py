"""MailOutlet: SMTP, in clear only within this machine or a private network."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from api.alerts.outlets import Later, Never, Receipt, Sent
from processors.control import Channel
from processors.control.check import is_private
from processors.guardrails import text_of
from schemas.events import Alert
from schemas.limits import ALERT_SEND_SECONDS, ALERT_SENDS_AT_ONCE_MAX

SMTP_PORT, SUBMISSION_PORT, SMTPS_PORT = 25, 587, 465
RECIPIENTS_MAX = 20
TRANSIENT = range(400, 500)


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


class MailOutlet:
    """An Outlet over smtplib, each mail in a thread: of its own, so that servers that hang hold up nothing else."""

    def __init__(self) -> None:
        """Connects nothing; threads begin as they are needed."""
        self._threads = ThreadPoolExecutor(ALERT_SENDS_AT_ONCE_MAX, thread_name_prefix="mail")

    async def send(self, channel: Channel, alert: Alert, target: str, secret: str | None, now_seconds: int) -> Receipt:  # noqa: ARG002
        """As the seam says. The alert's id is the Message-ID."""
        parsed = mail_target(target)
        if isinstance(parsed, Never):
            return parsed
        try:
            message = _message(alert, parsed, now_seconds)
            await asyncio.get_running_loop().run_in_executor(self._threads, _send, parsed, message)
        except smtplib.SMTPRecipientsRefused as error:
            return _refused(max((code for code, _ in error.recipients.values()), default=0))
        except smtplib.SMTPResponseException as error:
            return _refused(error.smtp_code)
        except smtplib.SMTPNotSupportedError:
            return Never("the mail server offers no TLS, or no log-in")
        except (smtplib.SMTPException, OSError) as error:
            return Later(f"no answer: {type(error).__name__}")
        return Sent()

    async def close(self) -> None:
        """What is under way ends by itself, within its time."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def mail_target(target: str) -> MailTarget | Never:
    """The parts of a target, or why it is none."""
    try:
        parts = urlsplit(target)
        port = parts.port
        options = parse_qs(parts.query, max_num_fields=RECIPIENTS_MAX + 1)
    except ValueError:
        return Never("the channel's smtp URL can't be read")
    sender, recipients = options.get("from", []), options.get("to", [])
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        return Never("the channel's target is no smtp:// or smtps:// URL")
    if len(sender) != 1 or not recipients:
        return Never("the channel's smtp URL needs ?from=…&to=…")
    implicit_tls = parts.scheme == "smtps"
    usual = SMTPS_PORT if implicit_tls else SUBMISSION_PORT if parts.username else SMTP_PORT
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return MailTarget(parts.hostname, port or usual, implicit_tls, user, password, sender[0], tuple(recipients))


def _message(alert: Alert, target: MailTarget, now_seconds: int) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(f"[{alert.severity.value.lower()}] {alert.title}".split())
    message["From"] = target.sender
    message["To"] = ", ".join(target.recipients)
    message["Date"] = formatdate(now_seconds)
    message["Message-ID"] = f"<{alert.event_id}@quaestor.invalid>"
    message.set_content(text_of(alert))
    return message


def _send(target: MailTarget, message: EmailMessage) -> None:
    """Raises what smtplib raises."""
    context = ssl.create_default_context()
    if target.implicit_tls:
        client: smtplib.SMTP = smtplib.SMTP_SSL(target.host, target.port, timeout=ALERT_SEND_SECONDS, context=context)
    else:
        client = smtplib.SMTP(target.host, target.port, timeout=ALERT_SEND_SECONDS)
    with client:
        client.ehlo()
        if not target.implicit_tls and (client.has_extn("starttls") or not is_private(target.host)):
            client.starttls(context=context)
            client.ehlo()
        if target.user:
            client.login(target.user, target.password)
        client.send_message(message, target.sender, target.recipients)


def _refused(code: int) -> Receipt:
    reason = f"the mail server refused it ({code})"
    return Later(reason) if code in TRANSIENT else Never(reason)
