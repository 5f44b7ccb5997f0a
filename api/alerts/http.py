"""HttpOutlet: Slack-compatible and generic webhooks, the latter signed as Standard Webhooks has it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256

import aiohttp
from yarl import URL

from api.alerts.outlets import NOBODY, Later, Never, Receipt, Sent
from processors.control import Channel
from processors.control.check import is_private
from processors.guardrails import slack_body, webhook_body
from schemas.events import Alert
from schemas.limits import ALERT_SEND_SECONDS, ALERT_SENDS_AT_ONCE_MAX, CONNECT_TIMEOUT_SECONDS

SECRET_PREFIX = "whsec_"  # noqa: S105 - how such a secret begins, no secret
USER_AGENT = "quaestor"
#: Statuses below 500 that say: later.
WAITING = frozenset({408, 425, 429})
SUCCESS, REDIRECTION, SERVER_ERRORS = 200, 300, 500


class HttpOutlet:
    """An Outlet over aiohttp. Redirects are not followed: an alert goes only where it was meant to."""

    def __init__(self) -> None:
        """Make it inside the loop that will use it; connects nothing yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=ALERT_SENDS_AT_ONCE_MAX),
            timeout=aiohttp.ClientTimeout(total=ALERT_SEND_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
            trust_env=False,
        )

    async def send(
        self,
        channel: Channel,
        alert: Alert,
        target: str,
        secret: str | None,
        now_seconds: int,
        ended: Mapping[str, int] = NOBODY,  # noqa: ARG002
    ) -> Receipt:
        """As the seam says; faults name no address, for a webhook's URL is a secret of its own."""
        url = _url(target)
        if isinstance(url, Never):
            return url
        body = slack_body(alert) if channel.kind == "slack" else webhook_body(alert)
        headers = {} if channel.kind == "slack" else signed_headers(alert.event_id, now_seconds, body, secret)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return _receipt(answer.status, answer.headers.get("retry-after", ""))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Later(f"no answer: {type(error).__name__}")

    async def close(self) -> None:
        """As the seam says."""
        await self._session.close()


def signed_headers(message_id: str, now_seconds: int, body: bytes, secret: str | None) -> dict[str, str]:
    """webhook-id, webhook-timestamp and, with a secret, webhook-signature (standardwebhooks.com, "v1").

    The signature is the Base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`; the key is the secret itself, or what
    follows whsec_ in Base64.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(now_seconds)}
    if secret is not None:
        signed = f"{message_id}.{now_seconds}.".encode() + body
        digest = hmac.new(_key(secret), signed, sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return headers


def _key(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass  # then it is text that happens to begin so
    return secret.encode()


def _url(target: str) -> URL | Never:
    try:
        url = URL(target)
    except ValueError:
        return Never("the channel's URL can't be read")
    if url.scheme not in {"http", "https"} or not url.host:
        return Never("the channel's URL is no http(s) URL")
    if url.scheme == "http" and not is_private(url.host):
        return Never("plain http goes to this machine or a private network only: use https")
    return url


def _receipt(status: int, retry_after: str) -> Receipt:
    if SUCCESS <= status < REDIRECTION:
        return Sent()
    if status in WAITING or status >= SERVER_ERRORS:
        asked = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else 0.0
        return Later(f"HTTP {status}", asked)
    return Never(f"HTTP {status}")
