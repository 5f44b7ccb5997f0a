"""Errors as RFC 9457 has them: application/problem+json, each with the correlation id that the log has too."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from processors.control.check import Refusal, RefusalCode
from schemas.limits import CONSOLE_BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARACTERS_MAX

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = "1"


class Problem(NamedTuple):
    """An answer that is an error."""

    status: int
    #: For programs; never changes.
    code: str
    #: For people: what is wrong and what to do.
    detail: str
    headers: tuple[tuple[str, str], ...] = ()
    #: Of the request, which is at fault; empty when it is not one field.
    field: str = ""

    def body(self, correlation_id: str) -> bytes:
        """The JSON document."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                "correlation_id": correlation_id,
            }
            | ({"field": self.field} if self.field else {})
        )

    def answer(self, correlation_id: str) -> Response:
        """The whole answer; errors are never cached."""
        headers = {"cache-control": "no-store", **dict(self.headers)}
        return Response(self.body(correlation_id), self.status, headers, CONTENT_TYPE)


NOT_FOUND = Problem(404, "not_found", "There is nothing at this address.")
NO_TOKEN = Problem(
    401,
    "token_missing",
    "Send the admin token as 'Authorization: Bearer qa_…'; the first `quaestor up` showed it.",
    (("www-authenticate", 'Bearer realm="quaestor"'),),
)
WRONG_TOKEN = NO_TOKEN._replace(code="token_wrong", detail="This is not the admin token of this data directory.")
TOO_BUSY = Problem(503, "busy", "Too many requests are running in this console.", (("retry-after", RETRY_SECONDS),))
AWAY = Problem(503, "unavailable", "A store that this reads is away.", (("retry-after", RETRY_SECONDS),))
LOG_AWAY = Problem(
    503,
    "log_unavailable",
    "Kafka did not answer: a change may or may not be recorded; send it again with the same Idempotency-Key.",
    (("retry-after", RETRY_SECONDS),),
)
TOO_LARGE = Problem(413, "body_too_large", f"A body has at most {CONSOLE_BODY_BYTES_MAX} bytes.")
NOT_JSON = Problem(415, "unsupported_media_type", "Send the body as application/json.")
NO_KEY = Problem(
    400,
    "idempotency_key_missing",
    "Send an Idempotency-Key with every change, for example a new UUID: 1 to "
    f"{IDEMPOTENCY_KEY_CHARACTERS_MAX} visible ASCII characters.",
    field="Idempotency-Key",
)
TOO_SLOW = Problem(504, "timeout", "This took too long: ask for less, for example a shorter time.")
INTERNAL = Problem(500, "internal", "Something went wrong here; the log has it under the correlation id.")


#: What msgspec says of where a value stands.
_PATH = re.compile(r" - at `(?:key in )?\$?\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"(?:unknown|required) field `(?P<name>[^`]*)`")


def invalid(detail: str, field: str = "") -> Problem:
    """400: the request is not what the API takes."""
    return Problem(400, "invalid_request", detail, field=field)


def misshapen(error: msgspec.DecodeError) -> Problem:
    """400 for a document that is not of the shape it must have, with the field that is not."""
    told = str(error)
    path, named = _PATH.search(told), _NAMED.search(told)
    parts = (path["path"] if path else "", named["name"] if named else "")
    return invalid(told, ".".join(part for part in parts if part))


def refused(refusal: Refusal) -> Problem:
    """What the control plane refuses, in its words: 404 for what is not there, 422 for what it does not take."""
    is_missing = refusal.code in {RefusalCode.UNKNOWN_LIMIT, RefusalCode.UNKNOWN_RATE}
    return Problem(404 if is_missing else 422, refusal.code.value.lower(), refusal.message, field=refusal.field)


def reused(field: str) -> Problem:
    """409: the Idempotency-Key belongs to another change."""
    detail = f"This Idempotency-Key was used for another change: {field} differs. Use a new key for a new change."
    return Problem(409, "idempotency_key_reused", detail, field=field)


def not_found(detail: str) -> Problem:
    """404: there is no such thing."""
    return NOT_FOUND._replace(detail=detail)


def method_not_allowed(allowed: str) -> Problem:
    """405, with what is allowed."""
    return Problem(405, "method_not_allowed", f"This address takes {allowed}.", (("allow", allowed),))
