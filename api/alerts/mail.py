"""MailOutlet: SMTP, in clear only within this machine or a private network."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

from api.alerts.outlets import NOBODY, Later, Never, Receipt, Sent
from api.alerts.smtp import TAKEN, Line, MailTarget, send_mail
from processors.control import Channel
from processors.guardrails import text_of
from schemas.events import Alert
from schemas.limits import ALERT_SEND_SECONDS, ALERT_SENDS_AT_ONCE_MAX

SMTP_PORT, SUBMISSION_PORT, SMTPS_PORT = 25, 587, 465
RECIPIENTS_MAX = 20
#: Codes after which trying again would not help; an answer that is none of SMTP's may be another one later.
PERMANENT = range(500, 600)


class MailOutlet:
    """An Outlet over smtplib, each mail in a thread: of its own, so that servers that hang hold up nothing else."""

    def __init__(self, send_seconds: float = ALERT_SEND_SECONDS) -> None:
        """Connects nothing; threads begin as they are needed. `send_seconds` is for one mail from beginning to end."""
        self._threads = ThreadPoolExecutor(ALERT_SENDS_AT_ONCE_MAX, thread_name_prefix="mail")
        self._send_seconds = send_seconds

    async def send(
        self,
        channel: Channel,  # noqa: ARG002
        alert: Alert,
        target: str,
        secret: str | None,  # noqa: ARG002
        now_seconds: int,
        ended: Mapping[str, int] = NOBODY,
    ) -> Receipt:
        """As the seam says. The alert's id is the Message-ID; `ended` has what the server said of recipients."""
        parsed = mail_target(target)
        if isinstance(parsed, Never):
            return parsed
        codes = {name: ended[name] for name in parsed.recipients if name in ended}
        left = [name for name in parsed.recipients if name not in codes]
        try:
            if left:
                codes |= await self._send(parsed, _message(alert, parsed, now_seconds), left)
        except smtplib.SMTPResponseException as error:
            return _refused(error.smtp_code, codes, len(parsed.recipients))
        except smtplib.SMTPNotSupportedError:
            return Never("the mail server offers no TLS, or no log-in")
        except (smtplib.SMTPException, OSError) as error:
            return Later(f"no answer: {type(error).__name__}{_had(codes, len(parsed.recipients))}")
        return _receipt(codes)

    async def _send(self, target: MailTarget, message: EmailMessage, recipients: list[str]) -> dict[str, int]:
        """Within the time there is for it, and nothing goes on behind it."""
        line = Line()
        try:
            async with asyncio.timeout(self._send_seconds):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, send_mail, line, target, message, recipients)
        finally:
            line.cut()

    async def close(self) -> None:
        """What is under way ends by itself, within its time."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def mail_target(target: str) -> MailTarget | Never:
    """The parts of a target, or why it is none."""
    try:
        parts = urlsplit(target)
        port = parts.port
        # A plus is part of an address (ops+pager@…), and no space as in a form.
        options = parse_qs(parts.query.replace("+", "%2B"), max_num_fields=RECIPIENTS_MAX + 1)
    except ValueError:
        return Never("the channel's smtp URL can't be read")
    sender, recipients = options.get("from", []), tuple(dict.fromkeys(options.get("to", [])))
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        return Never("the channel's target is no smtp:// or smtps:// URL")
    if len(sender) != 1 or not recipients:
        return Never("the channel's smtp URL needs ?from=…&to=…")
    implicit_tls = parts.scheme == "smtps"
    usual = SMTPS_PORT if implicit_tls else SUBMISSION_PORT if parts.username else SMTP_PORT
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return MailTarget(parts.hostname, port or usual, implicit_tls, user, password, sender[0], recipients)


def _message(alert: Alert, target: MailTarget, now_seconds: int) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(f"[{alert.severity.value.lower()}] {alert.title}".split())
    message["From"] = target.sender
    message["To"] = ", ".join(target.recipients)
    message["Date"] = formatdate(now_seconds)
    message["Message-ID"] = f"<{alert.event_id}@quaestor.invalid>"
    message.set_content(text_of(alert))
    return message


def _receipt(codes: Mapping[str, int]) -> Receipt:
    """What follows from what the server said of each recipient: tried again is who may get it later, alone."""
    refused = [code for code in codes.values() if code != TAKEN]
    if not refused:
        return Sent()
    said = ", ".join(str(code) for code in sorted(set(refused)))
    reason = f"the mail server refused {len(refused)} of {len(codes)} recipients ({said})"
    ended = {name: code for name, code in codes.items() if _is_end(code)}
    return Never(reason) if len(ended) == len(codes) else Later(reason, ended=ended)


def _refused(code: int, codes: Mapping[str, int], recipients: int) -> Receipt:
    reason = f"the mail server refused it ({code}){_had(codes, recipients)}"
    return Never(reason) if code in PERMANENT else Later(reason)


def _had(codes: Mapping[str, int], recipients: int) -> str:
    """Who got it at an attempt before."""
    taken = sum(code == TAKEN for code in codes.values())
    return f"; {taken} of {recipients} recipients have it" if taken else ""


def _is_end(code: int) -> bool:
    return code == TAKEN or code in PERMANENT
