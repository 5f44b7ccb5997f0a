"""GatewayProtocol: what can't be a request is refused in OpenAI's shape."""

from __future__ import annotations

from http import HTTPStatus

from api.gateway.errors import HEADERS_TOO_LARGE, JSON_TYPE, MALFORMED_HTTP
from api.protocol import BoundedProtocol

REFUSALS = {problem.status: problem for problem in (HEADERS_TOO_LARGE, MALFORMED_HTTP)}


class GatewayProtocol(BoundedProtocol):
    """One connection."""

    def refusal(self, status: HTTPStatus) -> tuple[bytes, bytes]:
        """As the base says."""
        return JSON_TYPE[1], REFUSALS[status].body()
