"""Errors as RFC 9457 has them: application/problem+json, each with the correlation id that the log has too."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette.responses import Response

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
TOO_SLOW = Problem(504, "timeout", "This took too long: ask for less, for example a shorter time.")
INTERNAL = Problem(500, "internal", "Something went wrong here; the log has it under the correlation id.")


def invalid(detail: str) -> Problem:
    """400: the request is not what the API takes."""
    return Problem(400, "invalid_request", detail)


def not_found(detail: str) -> Problem:
    """404: there is no such thing."""
    return NOT_FOUND._replace(detail=detail)


def method_not_allowed(allowed: str) -> Problem:
    """405, with what is allowed."""
    return Problem(405, "method_not_allowed", f"This address takes {allowed}.", (("allow", allowed),))
