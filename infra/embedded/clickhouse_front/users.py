"""Who may ask: `default`, who may change data, and `reader`, who may only read. A user without password needs none."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from infra.embedded.clickhouse_front.faults import AUTHENTICATION_FAILED, FrontError


@dataclass(frozen=True)
class User:
    """One user of the front."""

    name: str
    password: str
    readonly: bool

    def __repr__(self) -> str:
        """Without the password."""
        return f"User({self.name!r}, readonly={self.readonly})"


def authenticate(users: Mapping[str, User], headers: Mapping[str, str], query_string: bytes) -> User:
    """The user of a request, by Basic, X-ClickHouse-User and -Key, or URL; raises FrontError as a server does."""
    name, password = _credentials(headers, query_string)
    user = users.get(name)
    if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
        raise FrontError(
            AUTHENTICATION_FAILED,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )
    return user


def _credentials(headers: Mapping[str, str], query_string: bytes) -> tuple[str, str]:
    authorization = headers.get("authorization", "")
    if authorization[:6].lower() == "basic ":
        try:
            name, _, password = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise FrontError(AUTHENTICATION_FAILED, "the Authorization header can't be read") from None
        return name or "default", password
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user") or "default", headers.get("x-clickhouse-key", "")
    if b"user=" in query_string or b"password=" in query_string:
        values = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
        return (values.get("user") or ["default"])[0] or "default", (values.get("password") or [""])[0]
    return "default", ""
