"""What callers are told when something is wrong: OpenAI's error shape, with the statuses its SDK maps to exceptions.

A `Problem` is a value: business refusals are no exceptions. Messages are ours; they never repeat what the caller sent
beyond a model name it is known by, and no message of a provider gets into events or logs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from processors.budgets import refusal_reason
from processors.control import Threshold
from schemas.events import HoldLeg
from schemas.money import UNIT_NAMES, format_amount, format_with_unit, unit_name
from sinks.redis.holds import ClosedReason, Conflict, Refused

Header = tuple[bytes, bytes]

INVALID = "invalid_request_error"
SERVER = "server_error"
QUOTA = "insufficient_quota"
#: The official SDKs wait as long as `Retry-After` says, up to this; a caller may as well.
WAIT_SECONDS_MAX = 60
RETRY_SECONDS = 1
JSON_TYPE: Header = (b"content-type", b"application/json")
#: The official SDKs try again on 429 and 5xx unless told not to.
NO_RETRY: Header = (b"x-should-retry", b"false")


class Problem(NamedTuple):
    """An answer that is an error."""

    status: int
    #: OpenAI's `error.code`; also what events say.
    code: str
    message: str
    #: OpenAI's `error.type`.
    kind: str = INVALID
    param: str | None = None
    headers: tuple[Header, ...] = ()
    #: Further members of `error`.
    extra: dict[str, Any] | None = None
    #: A provider's own error body, passed through instead of ours.
    passed_body: bytes | None = None

    def body(self) -> bytes:
        """The JSON body."""
        if self.passed_body is not None:
            return self.passed_body
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error | (self.extra or {})})


def invalid(message: str, param: str | None = None, code: str = "invalid_request") -> Problem:
    """400: the request is not what the API takes."""
    return Problem(400, code, message, param=param)


def retry_later(code: str, message: str, seconds: int = RETRY_SECONDS) -> Problem:
    """503 with Retry-After: nothing is wrong with the request."""
    return Problem(503, code, message, SERVER, headers=((b"retry-after", str(seconds).encode()),))


def unknown_url(method: str, path: str) -> Problem:
    """404 for a path we do not serve."""
    shown = path if path.isprintable() and len(path) <= 200 else "that path"  # noqa: PLR2004 - a line for people
    return Problem(404, "unknown_url", f"Invalid URL ({method} {shown})")


def method_not_allowed(method: str, allowed: str) -> Problem:
    """405 for the wrong method."""
    message = f"Not allowed to {method} here; use {allowed}."
    return Problem(405, "method_not_allowed", message, headers=((b"allow", allowed.encode()),))


MISSING_KEY = Problem(
    401,
    "missing_api_key",
    "No API key was given. Send it as 'Authorization: Bearer qk_...'.",
    headers=((b"www-authenticate", b"Bearer"),),
)
WRONG_KEY = Problem(401, "invalid_api_key", "The API key is not known.", headers=((b"www-authenticate", b"Bearer"),))
REVOKED_KEY = Problem(
    401, "invalid_api_key", "The API key has been revoked.", headers=((b"www-authenticate", b"Bearer"),)
)
BODY_TOO_LARGE = Problem(413, "request_too_large", "The request body is too large.")
BODY_TOO_SLOW = Problem(
    408, "request_timeout", "The request body did not come in time.", headers=((b"connection", b"close"),)
)
HEADERS_TOO_LARGE = Problem(431, "headers_too_large", "The request headers are too large or too many.")
MALFORMED_HTTP = Problem(400, "malformed_http", "The request is not valid HTTP.")
TOO_BUSY = retry_later("overloaded", "Too many requests are running in this gateway.")
LOG_AWAY = retry_later("log_unavailable", "The event log can't be reached, so nothing can be recorded.")
STARTING = retry_later("starting", "The gateway is reading its configuration from the log.")
DRAINING = retry_later("spool_draining", "Events kept while the log was away are being written.")
INTERNAL = Problem(500, "internal_error", "The gateway failed on this request; its log says why.", SERVER)
NOT_RECORDED = Problem(500, "not_recorded", "The answer could not be recorded, so it is not given.", SERVER)
SHUTTING_DOWN = retry_later("shutting_down", "The gateway is shutting down.")


def spool_unwritable(reason: str) -> Problem:
    """503: what runs could not be kept if Kafka went away."""
    return retry_later("spool_unwritable", f"The gateway can't write its spool ({reason}).")


def admission_closed(reason: str) -> Problem:
    """503: holds can't be placed now."""
    if reason == ClosedReason.FULL:
        return retry_later(reason, "Redis is nearly full: no call under a limit is admitted until it has room again.")
    return retry_later(reason, f"Budgets can't be checked now ({reason}).")


def hold_conflict(conflict: Conflict) -> Problem:
    """409: the attempt's hold id is taken by another hold. Another try has another id: the SDKs make one."""
    message = f"The hold of this request is taken by another one that differs in {conflict.field}; try again."
    return Problem(409, "hold_conflict", message, extra={"field": conflict.field})


_WAYS = {
    "block": "It is blocked from {percent}% of its amount on.",
    "approval": "From {percent}% of its amount on, calls need an approval code in the header x-quaestor-approval.",
    "cheaper": "From {percent}% of its amount on, only these models pass: {models}.",
}


def budget_exceeded(refused: Refused, leg: HoldLeg, now_micros: int, held_to: Threshold | None = None) -> Problem:
    """429: a limit has no room; `leg` is what was asked of it. Without a window there is no time to try again.

    Code and type are OpenAI's: rate_limit_exceeded with tokens or requests, insufficient_quota for money. Where a
    threshold held the call to less, the code says what would pass.
    """
    limit, remaining = (format_amount(nano, leg.currency) for nano in (refused.limit_nano, refused.remaining_nano))
    asked, resets_at = format_amount(leg.amount_nano, leg.currency), leg.window_end
    extra: dict[str, Any] = {
        "limit_id": refused.limit_id,
        "limit": limit,
        "remaining": remaining,
        "asked": asked,
        "currency": leg.currency,
        "reset": resets_at // 1_000_000 if resets_at else None,
    }
    seconds = max(1, -(-(resets_at - now_micros) // 1_000_000)) if resets_at else 0
    headers = [] if 0 < seconds <= WAIT_SECONDS_MAX else [NO_RETRY]
    if seconds:
        headers.append((b"retry-after", str(seconds).encode()))
    unit, whole = unit_name(leg.currency), format_with_unit(refused.limit_nano, leg.currency)
    message = (
        f"Budget exceeded: limit {refused.limit_id} of {whole} has {remaining} left for this window, "
        f"{asked} may be needed."
    )
    code, kind = ("rate_limit_exceeded", unit) if leg.currency in UNIT_NAMES else ("budget_exceeded", QUOTA)
    if held_to is not None:
        code, kind = refusal_reason(held_to), QUOTA
        extra |= {"threshold": f"{held_to.percent}%", "models": list(held_to.models)}
        message += f" {_WAYS[held_to.action].format(percent=held_to.percent, models=', '.join(held_to.models))}"
    return Problem(429, code, message, kind, headers=tuple(headers), extra=extra)
